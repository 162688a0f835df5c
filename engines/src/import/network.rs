//! One network of an engine on its way from published weights to the engine's folder.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::onnx::{Cost, Graph, Precision, cost_of};
use crate::{
    Error, Result,
    digest::{Hashing, sha256},
    tensor::Weights,
};

/// Batches that a network of ours takes.
pub(super) const BATCH_SIZES: [usize; 4] = [1, 2, 4, 8];

/// One network of an engine.
pub(super) struct Network {
    pub part: &'static str,
    pub from: Origin,
    pub stage: Stage,
    /// How often a frame asks it in that stage.
    pub runs: f32,
}

/// Which stage's cost it adds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    FrontEnd,
    Encode,
    Step,
    Forward,
    Decode,
    /// Of the tiny autoencoder, in place of the other.
    DecodeTiny,
    /// Of a finished picture.
    Refine,
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
    /// Of one row of the batch; `None` of a graph that is taken as it is and has operations that are not counted.
    pub cost: Option<Cost>,
}

impl Network {
    /// Writes it into `folder`.
    pub(super) fn write(&self, folder: &Path, precision: Precision) -> Result<Written> {
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
                let bytes = fs::read(&full).map_err(|e| Error::io(&full, e))?;
                let cost = cost_of(&bytes).inspect_err(|error| tracing::warn!("{}: {error}", source.display())).ok();
                Ok(Written { part: self.part, path, sha256: sha256(&bytes), data: None, cost })
            }
            Origin::Weights(weights, build) => {
                let data = format!("{path}.data");
                let beside = folder.join(&data);
                let file = File::create(&beside).map_err(|e| Error::io(&beside, e))?;
                let mut sink = Hashing::new(BufWriter::new(file));
                let mut graph = Graph::with_data(self.part, precision, &data, &mut sink);
                build(&mut graph, weights)?;
                let cost = Some(graph.cost()?);
                let bytes = graph.finish();
                let data_hash = sink.finish().map_err(|e| Error::io(&beside, e))?;
                fs::write(&full, &bytes).map_err(|e| Error::io(&full, e))?;
                Ok(Written { part: self.part, path, sha256: sha256(&bytes), data: Some((data, data_hash)), cost })
            }
        }
    }
}
