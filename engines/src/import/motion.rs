//! Motion modules (Guo et al. 2023, arXiv 2307.04725): transformers along the frames of a clip.

use super::{
    onnx::{Graph, Value},
    transformer::{Rows, gated, layer_norm, linear},
    unet::{Blocks, Clip},
};
use crate::Result;

/// Groups of their norms, whatever the configuration says.
const GROUPS: usize = 32;

impl Blocks<'_, '_> {
    /// Each pixel looks at itself in the other frames.
    pub(super) fn motion(&self, graph: &mut Graph, x: &Value, name: &str, clip: &Clip) -> Result<Value> {
        let [channels, ..] = graph.size_of(x)?;
        let y = self.group_norm(graph, x, &format!("{name}.norm"), GROUPS)?;
        // From [clips frames, channels, pixels] to [clips pixels, frames, channels].
        let y = graph.reshape(&y, &[0, channels as i64, -1]);
        let [any, deep] = [-1, channels as i64].map(|n| graph.integers(&[n]));
        let each = graph.dimension(&y, 2);
        let apart = graph.join(&[&any, &clip.frames, &deep, &each], 0);
        let y = graph.reshape_to(&y, &apart);
        let y = graph.transpose(&y, &[0, 3, 1, 2]);
        let series = graph.join(&[&any, &clip.frames, &deep], 0);
        let y = graph.reshape_to(&y, &series);
        let (mut y, inner) = linear(graph, self.taken, &y, &format!("{name}.proj_in"), channels)?;
        for i in 0..self.count(&format!("{name}.transformer_blocks"), "ff_norm") {
            y = self.along(graph, y, &format!("{name}.transformer_blocks.{i}"), inner, clip)?;
        }
        let (y, _) = linear(graph, self.taken, &y, &format!("{name}.proj_out"), inner)?;
        let apart = graph.join(&[&any, &each, &clip.frames, &deep], 0);
        let y = graph.reshape_to(&y, &apart);
        let y = graph.transpose(&y, &[0, 2, 3, 1]);
        let y = graph.reshape_like(&y, x);
        Ok(graph.add(&y, x))
    }

    /// Attentions along the frames, each after its norm and positions, and a feed-forward.
    fn along(&self, graph: &mut Graph, mut y: Value, name: &str, width: usize, clip: &Clip) -> Result<Value> {
        let norms = (0..).take_while(|j| self.taken.has(&format!("{name}.norms.{j}.weight"))).count();
        for j in 0..norms {
            let attention = format!("{name}.attention_blocks.{j}");
            let norm = layer_norm(graph, self.taken, &y, &format!("{name}.norms.{j}"), width)?;
            let norm = self.positions(graph, &norm, &format!("{attention}.pos_encoder.pe"), width, clip)?;
            let rows = Rows { value: &norm, width };
            let z = self.attend(graph, &rows, &rows, &attention, 1)?;
            y = graph.add(&z, &y);
        }
        let norm = layer_norm(graph, self.taken, &y, &format!("{name}.ff_norm"), width)?;
        let z = gated(graph, self.taken, &Rows { value: &norm, width }, &format!("{name}.ff"))?;
        Ok(graph.add(&z, &y))
    }

    /// The stored table of positions, as far as the clip goes, is added.
    fn positions(&self, graph: &mut Graph, x: &Value, name: &str, width: usize, clip: &Clip) -> Result<Value> {
        if !self.taken.has(name) {
            return Ok(x.clone());
        }
        let length = self.taken.shape(name)?.get(1).copied().unwrap_or(0);
        let table = self.taken.f32(name, &[1, length, width])?;
        let table = graph.numbers(&[length, width], &table)?;
        let head = graph.head(&table, &clip.frames);
        Ok(graph.add(x, &head))
    }
}
