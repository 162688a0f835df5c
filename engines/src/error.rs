use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in an engine. Each message names the thing, the cause and, where there is one, the cure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that could not be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A manifest key with a missing or refused value.
    #[error("{origin}: `{key}`: {cause}")]
    Manifest { origin: String, key: String, cause: String },
    /// A model file that is not what its manifest promises.
    #[error("{model}: {what}: expected {expected}, found {found}")]
    Mismatch { model: String, what: String, expected: String, found: String },
    /// A device that the user named and that does not work here.
    #[error("device `{device}`: {cause}; {cure}")]
    Device { device: String, cause: String, cure: String },
    /// ONNX Runtime refused or failed.
    #[error("{model}: {cause}")]
    Runtime { model: String, cause: String },
    /// Too little memory, found before anything was loaded.
    #[error("{what} needs {}, {} are free; end other programs, or take a smaller engine", gigabytes(*needs), gigabytes(*free))]
    Memory { what: String, needs: u64, free: u64 },
    /// Memory ended in a run, which failed; others go on.
    #[error("{model}: there was no memory left for a run ({cause}); end other sessions or programs")]
    OutOfMemory { model: String, cause: String },
    /// A network said something that is no number: in fp16, values beyond 65504.
    #[error(
        "{model}: its output `{output}` is not finite, as where fp16 overflows; use precision=fp32, or import it again \
         without --precision fp16"
    )]
    NotFinite { model: String, output: String },
    /// Input that the caller must mend (a size, a format, a range).
    #[error("{0}")]
    Invalid(String),
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

impl Error {
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}
