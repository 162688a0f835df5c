//! A builder of ONNX graphs (opset 17, IR version 8).
//!
//! Values are named by the builder; a graph whose precision is fp16 holds its weights and computes in fp16 between casts, so
//! that inputs and outputs are f32 whatever the precision.

mod graph;
mod proto;

pub use graph::{Conv, Dim, Graph, Precision, Value};
