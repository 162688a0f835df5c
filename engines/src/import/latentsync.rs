//! LatentSync's U-Net (Li et al. 2024, arXiv 2412.09262; bytedance/LatentSync, latentsync/models): that of Stable Diffusion 1.5
//! over the frames of a clip. Its resnets' norms are over the clip, its motion modules look along it. Widths are those of the
//! weights; versions 1.5 and 1.6 differ in the size of their pictures alone.

pub use super::unet::sound_width;
use super::{
    layers::Taken,
    onnx::{Dim, Graph, Value},
    transformer::linear,
    unet::{Blocks, Clip, EPSILON, PERIOD, Sound, Time},
};
use crate::{Error, Result, tensor::Weights};

/// Channels that go in: noisy latent 4, mask 1, masked latent 4, reference latent 4.
pub const CHANNELS: usize = 13;

/// What the weights do not tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Groups of the norms, and heads of the attention.
    pub groups: usize,
    pub heads: usize,
    /// Rows of the sound that a frame looks at: ten of each state.
    pub rows: usize,
    /// Frames of a clip, and height and width of its latents: nominal, the graph takes others.
    pub frames: usize,
    pub side: usize,
}

/// Most frames that its motion modules have positions for; `None` where it has no motion modules.
pub fn longest(weights: &Weights) -> Option<usize> {
    let table = weights.names().find(|name| name.ends_with("pos_encoder.pe"))?;
    weights.shape(table)?.get(1).copied()
}

/// Builds the U-Net: inputs `sample` f32 `[batch, 13, frames, height, width]`, `timestep` f32 `[batch]` and `audio` f32
/// `[batch, frames, rows, width]`, output `noise` f32 `[batch, 4, frames, height, width]`. Height and width are multiples of 8; a
/// batch holds clips, of which guidance takes two.
pub fn unet(graph: &mut Graph, weights: &Weights, shape: &Shape) -> Result<()> {
    let taken = Taken::new(weights);
    let Shape { groups, heads, rows, frames, side } = *shape;
    if let Some(most) = longest(weights).filter(|most| frames > *most) {
        return Err(Error::invalid(format!("{}: takes {most} frames at a time, not {frames}", taken.origin())));
    }
    let width = sound_width(weights)?;
    let batch = Dim::Free("batch");
    let clip = Dim::Nominal("frames", frames);
    let sides = [Dim::Nominal("latent_height", side), Dim::Nominal("latent_width", side)];
    let video = |channels| [batch, Dim::Fixed(channels), clip, sides[0], sides[1]];
    let sample = graph.input("sample", &video(CHANNELS));
    let timestep = graph.input_f32("timestep", &[batch]);
    let audio = graph.input("audio", &[batch, clip, Dim::Fixed(rows), Dim::Fixed(width)]);

    // Frames of all clips are one batch of pictures.
    let sizes = [0, 2, 3, 4].map(|axis| graph.dimension(&sample, axis));
    let [clips, count, height, across] = &sizes;
    let [rest, channels, out, any] = [groups as i64, CHANNELS as i64, 4, -1].map(|n| graph.integers(&[n]));
    let x = graph.transpose(&sample, &[0, 2, 1, 3, 4]);
    let pictures = graph.join(&[&any, &channels, height, across], 0);
    let x = graph.reshape_to(&x, &pictures);
    let x = graph.picture(x, [CHANNELS, side, side]);
    let value = graph.reshape(&audio, &[-1, rows as i64, width as i64]);
    let sound = Sound { value, width };
    let (time, depth) = time(graph, &taken, &timestep, clips, count)?;
    let grouped = graph.join(&[clips, count, &rest, &any], 0);
    let clip = Some(Clip { frames: count.clone(), grouped });
    let blocks = Blocks { taken: &taken, groups, epsilon: EPSILON, heads, time: Time::Value(time, depth), clip };
    let y = blocks.unet(graph, &x, &sound)?;
    let [found, ..] = graph.size_of(&y)?;
    if found != 4 {
        return Err(taken.refuse("conv_out.weight", "[4, channels, 3, 3]", &format!("[{found}, ...]")));
    }
    let videos = graph.join(&[clips, count, &out, height, across], 0);
    let y = graph.reshape_to(&y, &videos);
    let y = graph.transpose(&y, &[0, 2, 1, 3, 4]);
    graph.output("noise", &video(4), y);
    taken.all()
}

/// The embedding of time of each picture after SiLU, and its width: cosines and sines of the timestep, then two linear layers.
fn time(graph: &mut Graph, taken: &Taken, timestep: &Value, clips: &Value, frames: &Value) -> Result<(Value, usize)> {
    let inside = taken.kernel("conv_in")?[0];
    let half = inside / 2;
    let frequencies: Vec<f32> = (0..half).map(|i| (-PERIOD.ln() * i as f64 / half as f64).exp() as f32).collect();
    let frequencies = graph.numbers_f32(&[1, half], &frequencies)?;
    let column = graph.reshape(timestep, &[-1, 1]);
    let angles = graph.multiply(&column, &frequencies);
    let (sines, cosines) = graph.sin_cos(&angles);
    let waves = graph.join(&[&cosines, &sines], 1);
    let waves = graph.cast_back(&waves);
    let (x, middle) = linear(graph, taken, &waves, "time_embedding.linear_1", inside)?;
    let x = graph.silu(&x);
    let (x, width) = linear(graph, taken, &x, "time_embedding.linear_2", middle)?;
    let x = graph.silu(&x);
    // Frames of a clip share their time.
    let x = graph.reshape(&x, &[0, 1, width as i64]);
    let one = graph.integers(&[1]);
    let each = graph.join(&[clips, frames, &one], 0);
    let x = graph.expand(&x, &each);
    Ok((graph.reshape(&x, &[-1, width as i64]), width))
}
