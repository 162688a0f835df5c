//! One network of an engine on its way from published weights to the engine's folder.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::onnx::{Graph, Precision};
use crate::{
    Error, Result,
    digest::{Hashing, sha256, sha256_of},
    tensor::Weights,
};

/// Batches that a network of ours takes.
pub(super) const BATCH_SIZES: [usize; 4] = [1, 2, 4, 8];

/// One network of an engine.
pub(super) struct Network {
    pub part: &'static str,
    pub from: Origin,
    /// How often a frame asks it.
    pub runs: f32,
}

pub(super) enum Origin {
    Weights(Rc<Weights>, Builder),
    /// A graph that is taken as it is.
    Graph(PathBuf),
}

pub(super) type Builder = Box<dyn Fn(&mut Graph, &Weights) -> Result<()>>;

/// A file of the engine's folder: its part, its name and hash, and those of the weights beside it.
pub(super) struct Written {
    pub part: &'static str,
    pub path: String,
    pub sha256: String,
    pub data: Option<(String, String)>,
}

impl Network {
    /// Writes it into `folder`; its cost for a frame in GFLOP.
    pub(super) fn write(&self, folder: &Path, precision: Precision, written: &mut Vec<Written>) -> Result<f32> {
        let path = format!("{}.onnx", self.part);
        let full = folder.join(&path);
        match &self.from {
            Origin::Graph(source) => {
                fs::copy(source, &full).map_err(|e| Error::io(source, e))?;
                let beside = source.with_extension("onnx.data");
                if beside.exists() {
                    return Err(Error::invalid(format!(
                        "{}: weights in a file beside an ONNX graph are not taken; save it with its weights inside",
                        source.display()
                    )));
                }
                let sha256 = File::open(&full).and_then(sha256_of).map_err(|e| Error::io(&full, e))?;
                written.push(Written { part: self.part, path, sha256, data: None });
                Ok(0.0)
            }
            Origin::Weights(weights, build) => {
                let data = format!("{path}.data");
                let beside = folder.join(&data);
                let file = File::create(&beside).map_err(|e| Error::io(&beside, e))?;
                let mut sink = Hashing::new(BufWriter::new(file));
                let mut graph = Graph::with_data(self.part, precision, &data, &mut sink);
                build(&mut graph, weights)?;
                let gflop = graph.gflop();
                let bytes = graph.finish();
                let data_hash = sink.finish().map_err(|e| Error::io(&beside, e))?;
                fs::write(&full, &bytes).map_err(|e| Error::io(&full, e))?;
                written.push(Written { part: self.part, path, sha256: sha256(&bytes), data: Some((data, data_hash)) });
                Ok(gflop * self.runs)
            }
        }
    }
}
