//! MuseTalk's U-Net (Zhang et al. 2024, arXiv 2410.10122; TMElyralab/MuseTalk, musetalk/models/unet.py): that of Stable Diffusion
//! 1.5, asked once at timestep 0, so that the embedding of time is part of the convolutions' biases. Widths are those of the
//! weights.

use super::{
    layers::Taken,
    onnx::{Dim, Graph},
    transformer::numbers,
    unet::{Blocks, EPSILON, PERIOD, Sound, Time, sound_width},
};
use crate::{Result, tensor::Weights};

/// Channels that go in: masked latent 4, reference latent 4.
pub const CHANNELS: usize = 8;

/// What the weights do not tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Groups of the norms, and heads of the attention.
    pub groups: usize,
    pub heads: usize,
    /// Rows of the sound that a frame looks at: ten of each state.
    pub rows: usize,
    /// Height and width of the latents: nominal, the graph takes others.
    pub side: usize,
}

/// What is added to the rows of the sound, `[rows, width]`: sines at even and cosines at odd places.
pub fn positions(rows: usize, width: usize) -> Vec<f32> {
    let at = |row: usize, i: usize| {
        let angle = row as f64 * (-PERIOD.ln() * (i - i % 2) as f64 / width as f64).exp();
        if i.is_multiple_of(2) { angle.sin() } else { angle.cos() }
    };
    (0..rows).flat_map(|row| (0..width).map(move |i| at(row, i) as f32)).collect()
}

/// Builds the U-Net: inputs `latents` f32 `[batch, 8, height, width]` and `audio` f32 `[batch, rows, width]` without positions,
/// output `painted` f32 `[batch, 4, height, width]`, all latents scaled. Height and width are multiples of 8.
pub fn unet(graph: &mut Graph, weights: &Weights, shape: &Shape) -> Result<()> {
    let taken = Taken::new(weights);
    let Shape { groups, heads, rows, side } = *shape;
    let width = sound_width(weights)?;
    let batch = Dim::Free("batch");
    let sides = [Dim::Nominal("latent_height", side), Dim::Nominal("latent_width", side)];
    let picture = |channels| [batch, Dim::Fixed(channels), sides[0], sides[1]];
    let latents = graph.input("latents", &picture(CHANNELS));
    let audio = graph.input("audio", &[batch, Dim::Fixed(rows), Dim::Fixed(width)]);
    let value = graph.add_numbers(&audio, &[rows, width], &positions(rows, width))?;
    let time = Time::Constant(time(&taken)?);
    let blocks = Blocks { taken: &taken, groups, epsilon: EPSILON, heads, time, clip: None };
    let y = blocks.unet(graph, &latents, &Sound { value, width })?;
    graph.output("painted", &picture(4), y);
    taken.all()
}

/// The embedding of timestep 0 after SiLU.
fn time(taken: &Taken) -> Result<Vec<f64>> {
    let inside = taken.kernel("conv_in")?[0];
    // Cosines of zero, then sines.
    let waves: Vec<f64> = (0..inside).map(|i| if i < inside / 2 { 1.0 } else { 0.0 }).collect();
    let first = layer(taken, "time_embedding.linear_1", &waves)?;
    layer(taken, "time_embedding.linear_2", &first)
}

/// A linear layer and SiLU.
fn layer(taken: &Taken, name: &str, x: &[f64]) -> Result<Vec<f64>> {
    let (_, weight, bias) = numbers(taken, name, x.len())?;
    let sum = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
    let own = |i: usize| bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]));
    let all = weight.chunks_exact(x.len()).enumerate().map(|(i, row)| sum(row) + own(i));
    Ok(all.map(|v| v / (1.0 + (-v).exp())).collect())
}
