use std::{borrow::Cow, path::PathBuf, sync::Arc};

use ort::session::{Session, builder::SessionBuilder};

use crate::{Error, Result};

/// Largest network that is read into memory (1 GiB); larger ones lie in files with their weights beside them.
const MAX_BYTES: u64 = 1 << 30;

/// Where a network lies. Weights beside a file are found by the runtime.
#[derive(Clone, Debug)]
pub enum Source {
    Static(&'static [u8]),
    Held(Arc<[u8]>),
    File(PathBuf),
}

impl From<Cow<'static, [u8]>> for Source {
    fn from(bytes: Cow<'static, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => Self::Static(bytes),
            Cow::Owned(bytes) => Self::Held(bytes.into()),
        }
    }
}

impl From<&[u8]> for Source {
    fn from(bytes: &[u8]) -> Self {
        Self::Held(bytes.into())
    }
}

impl Source {
    /// The bytes of the graph, without weights that lie beside it.
    pub(super) fn graph(&self) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Static(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Held(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => {
                let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
                if size > MAX_BYTES {
                    return Err(Error::invalid(format!(
                        "{}: {size} bytes are more than a graph may have; weights belong in a file beside it",
                        path.display()
                    )));
                }
                Ok(Cow::Owned(std::fs::read(path).map_err(|e| Error::io(path, e))?))
            }
        }
    }

    /// Bytes of the graph and of weights beside it, as far as their number can be read.
    pub(super) fn size(&self) -> usize {
        let graph = match self {
            Self::Static(bytes) => bytes.len(),
            Self::Held(bytes) => bytes.len(),
            Self::File(path) => std::fs::metadata(path).map_or(0, |graph| graph.len() as usize),
        };
        graph + self.beside() as usize
    }

    /// Bytes of weights that lie beside the graph, as far as their number can be read.
    pub(super) fn beside(&self) -> u64 {
        match self {
            Self::File(path) => std::fs::metadata(path.with_extension("onnx.data")).map_or(0, |data| data.len()),
            _ => 0,
        }
    }

    /// When weights that lie beside the graph were written.
    pub(super) fn written(&self) -> Option<std::time::SystemTime> {
        match self {
            Self::File(path) => std::fs::metadata(path.with_extension("onnx.data")).ok()?.modified().ok(),
            _ => None,
        }
    }

    pub(super) fn commit(&self, mut builder: SessionBuilder) -> ort::Result<Session> {
        match self {
            Self::Static(bytes) => builder.commit_from_memory(bytes),
            Self::Held(bytes) => builder.commit_from_memory(bytes),
            Self::File(path) => builder.commit_from_file(path),
        }
    }
}
