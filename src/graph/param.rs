use serde::Deserialize;

use super::quote;

/// A parameter as a graph file declares it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    required: bool,
    default: Option<toml::Value>,
    min: Option<f64>,
    max: Option<f64>,
    /// The choices of an enum.
    #[serde(default)]
    values: Vec<String>,
    doc: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    String,
    Int,
    Float,
    Bool,
    Path,
    Uri,
    Enum,
}

impl Param {
    /// Whether the declaration makes sense by itself.
    pub fn check(&self) -> Result<(), String> {
        if self.doc.trim().is_empty() {
            return Err("`doc` is empty".into());
        }
        if (self.kind == Kind::Enum) == self.values.is_empty() {
            return Err("`values` belongs to an enum, and an enum needs it".into());
        }
        // An enum may stand for an element or a caps field, so its choices are words; they come from the graph's author.
        if let Some(odd) = self.values.iter().find(|v| v.is_empty() || !v.chars().all(is_word)) {
            return Err(format!("value `{odd}` must be made of letters, digits, and -_.:/+"));
        }
        if (self.min.is_some() || self.max.is_some()) && !matches!(self.kind, Kind::Int | Kind::Float) {
            return Err("`min` and `max` belong to int and float".into());
        }
        match (&self.default, self.required) {
            (Some(_), true) => Err("has a default, so it cannot be required".into()),
            (None, false) => Err("needs `default`, or `required = true`".into()),
            (None, true) => Ok(()),
            (Some(_), false) => match self.default_value() {
                Some(value) => self.accept(&value).map(drop).map_err(|cause| format!("default: {cause}")),
                None => Err("default: must be a string, a number or a boolean".into()),
            },
        }
    }

    /// A value as it stands in a gst-launch description.
    pub fn accept(&self, value: &str) -> Result<String, String> {
        match self.kind {
            Kind::Int => {
                let n: i64 = value.parse().map_err(|_| "is not a whole number".to_owned())?;
                self.within(n as f64)?;
                Ok(n.to_string())
            }
            Kind::Float => {
                let x: f64 = value.parse().map_err(|_| "is not a number".to_owned())?;
                if !x.is_finite() {
                    return Err("is not a finite number".into());
                }
                self.within(x)?;
                Ok(x.to_string())
            }
            Kind::Bool => match value {
                "true" | "yes" | "1" => Ok("true".into()),
                "false" | "no" | "0" => Ok("false".into()),
                _ => Err("is neither true nor false".into()),
            },
            Kind::Enum => {
                let known = self.values.iter().any(|v| v == value);
                known.then(|| value.to_owned()).ok_or_else(|| format!("is not one of {}", self.values.join(", ")))
            }
            Kind::Uri => {
                let scheme = value.split_once("://").map_or("", |(scheme, _)| scheme);
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
                if scheme.is_empty() || !scheme.chars().all(plain) || value.chars().any(|c| c.is_whitespace()) {
                    return Err("is not a URI such as file:///path or rtmp://host/app".into());
                }
                quote::value(value)
            }
            Kind::Path if value.is_empty() => Err("is empty".into()),
            Kind::String | Kind::Path => quote::value(value),
        }
    }

    fn within(&self, x: f64) -> Result<(), String> {
        match (self.min.filter(|min| x < *min), self.max.filter(|max| x > *max)) {
            (Some(min), _) => Err(format!("is less than {min}")),
            (_, Some(max)) => Err(format!("is more than {max}")),
            _ => Ok(()),
        }
    }

    fn default_value(&self) -> Option<String> {
        match self.default.as_ref()? {
            toml::Value::String(s) => Some(s.clone()),
            toml::Value::Integer(n) => Some(n.to_string()),
            toml::Value::Float(x) => Some(x.to_string()),
            toml::Value::Boolean(b) => Some(b.to_string()),
            _ => None,
        }
    }

    /// The default as it stands in a description; checked when the file was read.
    pub fn default_text(&self) -> Option<String> {
        self.accept(&self.default_value()?).ok()
    }

    pub fn doc(&self) -> &str {
        self.doc.trim()
    }

    /// Type, range and default in words.
    pub fn kind(&self) -> String {
        let mut words = match self.kind {
            Kind::String => "string".into(),
            Kind::Int => "int".into(),
            Kind::Float => "float".into(),
            Kind::Bool => "bool".into(),
            Kind::Path => "path".into(),
            Kind::Uri => "uri".into(),
            Kind::Enum => self.values.join(" | "),
        };
        match (self.min, self.max) {
            (Some(min), Some(max)) => words += &format!(", {min}..{max}"),
            (Some(min), None) => words += &format!(", at least {min}"),
            (None, Some(max)) => words += &format!(", at most {max}"),
            (None, None) => {}
        }
        match self.default_value() {
            Some(value) => words += &format!(", default {value}"),
            None => words += ", required",
        }
        words
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '+')
}
