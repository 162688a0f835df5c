//! Sections of the configuration, declared once: the doc comment of a key is its comment in the printed file.

use crate::error::{Failure, Result};

/// A table of the configuration file.
pub trait Section {
    fn table(&self) -> &'static str;
    fn about(&self) -> &'static [&'static str];
    /// Keys in the order in which they are printed, each with the lines of its comment.
    fn keys(&self) -> &'static [(&'static str, &'static [&'static str])];
    /// Sets a known key. The error names key, value and what is allowed.
    fn set(&mut self, key: &str, value: &toml::Value) -> Result<(), String>;
    /// Sets a known key from an environment variable.
    fn set_text(&mut self, key: &str, text: &str) -> Result<(), String>;
    /// A known key's value as TOML.
    fn show(&self, key: &str) -> String;
}

/// Declares a section: each key with its type, its default and the rule that its value must keep.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident $table:literal {
            $( $(#[doc = $doc:literal])* $key:ident: $type:ty = $default:expr, $rule:expr; )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $key: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )* }
            }
        }

        impl $crate::serve::section::Section for $name {
            fn table(&self) -> &'static str {
                $table
            }

            fn about(&self) -> &'static [&'static str] {
                &[$($about),*]
            }

            fn keys(&self) -> &'static [(&'static str, &'static [&'static str])] {
                &[$( (stringify!($key), &[$($doc),*]), )*]
            }

            fn set(&mut self, key: &str, value: &toml::Value) -> Result<(), String> {
                match key {
                    $( stringify!($key) => {
                        let shown = || if <$type as Value>::SECRET { "(hidden)".to_owned() } else { value.to_string() };
                        let read = <$type as Value>::from_toml(value).and_then(|v| ($rule)(&v).map(|()| v));
                        self.$key = read.map_err(|must| format!("{}.{key} = {}: {must}", $table, shown()))?;
                    } )*
                    _ => return Err(format!("{}.{key}: is no key", $table)),
                }
                Ok(())
            }

            fn set_text(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $( stringify!($key) => {
                        let shown = || if <$type as Value>::SECRET { "(hidden)" } else { text };
                        let read = <$type as Value>::from_text(text).and_then(|v| ($rule)(&v).map(|()| v));
                        self.$key = read.map_err(|must| format!("{}: {must}", shown()))?;
                    } )*
                    _ => return Err("is no key".into()),
                }
                Ok(())
            }

            fn show(&self, key: &str) -> String {
                match key {
                    $( stringify!($key) => Value::to_toml(&self.$key).to_string(), )*
                    _ => String::new(),
                }
            }
        }
    };
}

pub(super) use section;

/// What an unknown name was meant to be, as the end of a message.
pub fn suggest<'a>(unknown: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known.clone().map(|name| (strsim::levenshtein(unknown, name), name)).min();
    match nearest {
        Some((steps, name)) if steps <= 1 + unknown.len() / 3 => format!("did you mean `{name}`?"),
        _ => format!("it has {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Refuses what a section does not have.
pub fn check_known(origin: &str, section: &dyn Section, key: &str) -> Result<()> {
    let known = section.keys().iter().map(|(name, _)| *name);
    if known.clone().any(|name| name == key) {
        return Ok(());
    }
    let hint = suggest(key, known);
    Err(Failure::usage(format!("{origin}: [{}] has no key `{key}`; {hint}", section.table())))
}
