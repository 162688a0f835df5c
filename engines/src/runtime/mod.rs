//! The one place that touches ONNX Runtime.
//!
//! The library is loaded when the first model is ([`library`] says where from), a [`Model`] runs on one [`Device`] at
//! one [`Precision`], and nothing outside this module knows what an execution provider is.

mod batches;
mod bound;
mod cache;
pub mod cards;
mod device;
pub mod library;
mod memory;
mod model;
pub mod nvidia;
mod per_model;
mod pool;
mod provider;
mod session;
mod signature;
mod source;
pub mod tensorrt;
mod tuning;

pub(crate) use batches::Batches;
pub use bound::Bound;
pub use cache::cache_dir;
pub use device::{Device, Options, Precision};
pub use memory::free as free_memory;
pub(crate) use model::check_built;
pub use model::{Dtype, Input, Model, Origin, Port, Signature, Tensor};
pub(crate) use per_model::PerModel;
pub use provider::{Availability, automatic, probe, survey, taken};
pub(crate) use signature::OWN;
pub use source::Source;
pub use tuning::{Fusions, Limit, Search, Tuning};
