//! What the program can fail with, and the exit code of each.

use std::{fmt, process::ExitCode};

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// The kind decides the exit code; `lipstream --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something failed while running.
    Run = 1,
    /// The command line or a graph's parameters are wrong.
    Usage = 2,
    /// A file that is read: missing, not decodable, without video, audio or a face.
    Input = 3,
    /// An engine, a model or the device that it should run on.
    Engine = 4,
    /// The output cannot be written.
    Output = 5,
    /// SIGINT or SIGTERM.
    Interrupted = 130,
}

/// A failure as the user sees it: one line.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn run(message: impl Into<String>) -> Self {
        Self::new(Kind::Run, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    pub fn output(message: impl Into<String>) -> Self {
        Self::new(Kind::Output, message)
    }

    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.message.lines().map(str::trim).filter(|line| !line.is_empty());
        f.write_str(lines.next().unwrap_or("failed"))?;
        lines.try_for_each(|line| write!(f, "; {line}"))
    }
}

impl std::error::Error for Failure {}

/// Whatever the engines refuse is an engine's failure; a file of the user's is checked before they see it.
impl From<lipstream_engines::Error> for Failure {
    fn from(error: lipstream_engines::Error) -> Self {
        Self::new(Kind::Engine, error.to_string())
    }
}

/// A GStreamer call that fails without a message on the bus: a missing element, a refused link or state.
impl From<gst::glib::BoolError> for Failure {
    fn from(error: gst::glib::BoolError) -> Self {
        Self::run(format!("{}; `lipstream doctor` says what is missing", error.message))
    }
}

impl From<gst::StateChangeError> for Failure {
    fn from(_: gst::StateChangeError) -> Self {
        Self::run("the pipeline refused to change state")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_its_cause_says() {
        let failure = Failure::run("first\n\n  second\nthird ");
        assert_eq!(failure.to_string(), "first; second; third");
    }
}
