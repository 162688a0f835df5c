//! `lipstream run`: a graph file is a gst-launch description with named, typed, documented parameters.
//!
//! ```toml
//! description = "File to file"
//! launch = "filesrc location={video} ! decodebin ! x264enc bitrate={bitrate} ! ..."
//!
//! [params.video]
//! type = "path"
//! required = true
//! doc = "Video of a person"
//!
//! [params.bitrate]
//! type = "int"
//! default = 4000
//! min = 50
//! max = 200000
//! doc = "kbit/s"
//! ```
//!
//! `{{` and `}}` stand for braces. A value is checked against its type and quoted for the place that it goes to, so
//! that whatever it holds stays one value.

mod param;
mod quote;
mod run;

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::param::Param;
pub use self::{quote::command_line, run::run};
use crate::{
    error::{Failure, Result},
    session::{Video, Voice},
};

/// Largest graph file that is read.
const MAX_FILE: u64 = 1 << 20;

/// A graph file, checked: every parameter that the description names is declared, and the other way round.
#[derive(Debug)]
pub struct Graph {
    origin: String,
    description: String,
    pieces: Vec<Piece>,
    params: BTreeMap<String, Param>,
    session: Option<Service>,
}

/// What makes a graph one for `lipstream serve`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub video: Video,
    pub voice: Voice,
    /// It is pushed to other servers while it has a source, watched or not.
    #[serde(default)]
    pub push: bool,
}

/// A parameter as the API describes it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Parameter {
    pub name: String,
    /// Type and range or values.
    pub kind: String,
    pub doc: String,
    pub default: Option<String>,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Param(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    launch: String,
    session: Option<Service>,
    #[serde(default)]
    params: BTreeMap<String, Param>,
}

impl Graph {
    pub fn read(path: &Path) -> Result<Self> {
        let failure = |cause: String| Failure::input(format!("{}: {cause}", path.display()));
        let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => failure("no such file".into()),
            _ => failure(e.to_string()),
        })?;
        if !meta.is_file() || meta.len() > MAX_FILE {
            return Err(failure("is not a graph file".into()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failure(e.to_string()))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Checks a graph file; `origin` is what errors call it.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        let failure = |cause: String| Failure::usage(format!("{origin}: {cause}"));
        let file: File = toml::from_str(text).map_err(|e| failure(e.to_string().trim_end().to_owned()))?;
        let pieces = split(&file.launch).map_err(&failure)?;
        for piece in &pieces {
            if let Piece::Param(name) = piece
                && !file.params.contains_key(name)
            {
                return Err(failure(format!("launch names {{{name}}}, which is no parameter")));
            }
        }
        for (name, param) in &file.params {
            if !pieces.contains(&Piece::Param(name.clone())) {
                return Err(failure(format!("params.{name} is not used in launch")));
            }
            param.check().map_err(|cause| failure(format!("params.{name}: {cause}")))?;
        }
        Ok(Self {
            origin: origin.to_owned(),
            description: file.description,
            pieces,
            params: file.params,
            session: file.session,
        })
    }

    /// The gst-launch description with `key=value` settings in place; the rest takes its defaults.
    pub fn launch(&self, settings: &[String]) -> Result<String> {
        let mut values = BTreeMap::new();
        for setting in settings {
            let (name, value) =
                setting.split_once('=').ok_or_else(|| Failure::usage(format!("--set {setting}: is not KEY=VALUE")))?;
            let param = self.params.get(name).ok_or_else(|| self.unknown(name))?;
            let text = param.accept(value).map_err(|cause| Failure::usage(format!("{name}={value}: {cause}")))?;
            values.insert(name, text);
        }
        let mut launch = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => launch.push_str(text),
                Piece::Param(name) => match values.get(name.as_str()) {
                    Some(value) => launch.push_str(value),
                    None => launch.push_str(&self.default(name)?),
                },
            }
        }
        Ok(launch)
    }

    fn default(&self, name: &str) -> Result<String> {
        let param = &self.params[name];
        let missing = || {
            let doc = param.doc();
            Failure::usage(format!("{}: needs --set {name}=... ({doc})", self.origin))
        };
        param.default_text().ok_or_else(missing)
    }

    fn unknown(&self, name: &str) -> Failure {
        let known: Vec<&str> = self.params.keys().map(String::as_str).collect();
        Failure::usage(format!("{}: has no parameter `{name}`; it has {}", self.origin, known.join(", ")))
    }

    /// Set where the graph is made for `lipstream serve`.
    pub fn session(&self) -> Option<&Service> {
        self.session.as_ref()
    }

    pub fn has_param(&self, name: &str) -> bool {
        self.params.contains_key(name)
    }

    pub fn description(&self) -> &str {
        self.description.trim()
    }

    /// Its parameters by name.
    pub fn params(&self) -> Vec<Parameter> {
        let describe = |(name, param): (&String, &Param)| Parameter {
            name: name.clone(),
            kind: param.kind(),
            doc: param.doc().to_owned(),
            default: param.default_text(),
        };
        self.params.iter().map(describe).collect()
    }

    /// What the graph does and what can be set.
    pub fn help(&self) -> String {
        let mut out = format!("{}\n\n", self.description.trim());
        for (name, param) in &self.params {
            // Writing to a String does not fail.
            let _ = writeln!(out, "  {name} ({})\n      {}", param.kind(), param.doc());
        }
        out
    }
}

/// Splits at `{name}`; doubled braces are braces, lines become one.
fn split(launch: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let launch = launch.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = launch.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '{' | '}' if rest.peek() == Some(&c) => {
                rest.next();
                text.push(c);
            }
            '{' => {
                let mut name = String::new();
                loop {
                    match rest.next() {
                        Some('}') => break,
                        Some(c) if c.is_ascii_alphanumeric() || c == '-' || c == '_' => name.push(c),
                        _ => return Err(format!("launch: {{{name} is not a parameter in braces")),
                    }
                }
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::Param(name));
            }
            '}' => return Err("launch: a closing brace without an opening one".into()),
            c => text.push(c),
        }
    }
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

#[cfg(test)]
mod tests;
