//! A builder of ONNX graphs (opset 17, IR version 8).
//!
//! Values are named by the builder; a graph whose precision is fp16 holds its weights and computes in fp16 between casts, so
//! that inputs and outputs are f32 whatever the precision.
//!
//! - [`graph`]: the builder; [`proto`]: the messages of a file.
//! - [`walk`]: what a graph costs, ours or another's.

mod graph;
mod proto;
mod walk;

pub use graph::{Conv, Dim, Graph, Precision, Value};
pub use walk::{Cost, cost_of};
