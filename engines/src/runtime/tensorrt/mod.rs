//! TensorRT's engines: built by `lipstream engines build`, kept in the user's cache, and only taken elsewhere.
//!
//! An engine is of one network, one card, one version of TensorRT and of ONNX Runtime, one precision and one [`Profile`] of shapes.
//! ONNX Runtime's provider names its files by the names in a graph and the card's architecture alone, so that each engine has a folder
//! of its own: `tensorrt/<platform>/<network>-<precision>/<profile>` with `engine.json` beside what the provider wrote.

mod platform;
mod profile;
mod settings;
mod store;

pub use platform::Platform;
pub use profile::{Batch, Profile};
pub use store::{Entry, survey};

pub(super) use settings::settings;
pub(super) use store::{Network, Program, Store};

/// What is asked of whoever may build engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Build {
    /// Batches that one engine takes together; `None`: each size has an engine of its own.
    pub batch: Option<Batch>,
}

/// The folder of all engines; `None` where there is no cache.
pub fn folder() -> Option<std::path::PathBuf> {
    super::cache_dir("tensorrt")
}
