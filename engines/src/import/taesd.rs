//! The decoder of the tiny autoencoder of Stable Diffusion (madebyollin/taesd; diffusers' AutoencoderTiny). Widths and depth are
//! those of the weights.

use super::{
    layers::Taken,
    onnx::{Dim, Graph, Value},
};
use crate::{Result, tensor::Weights};

/// Where latents are held: `3 tanh(x / 3)`.
const MAGNITUDE: f32 = 3.0;
/// Most layers that are looked for.
const MOST_LAYERS: usize = 256;

/// Builds the decoder: input `latents` f32 `[batch, 4, height, width]` in the U-Net's scale, output `pixels` f32
/// `[batch, 3, 8 height, 8 width]`, RGB in about -1..1. `side` is the nominal height and width of the latents.
pub fn decoder(graph: &mut Graph, weights: &Weights, side: usize) -> Result<()> {
    let taken = Taken::beside(weights, &["encoder."]);
    let batch = Dim::Free("batch");
    let channels = taken.kernel("decoder.layers.0")?[1];
    let sides = [Dim::Nominal("latent_height", side), Dim::Nominal("latent_width", side)];
    let x = graph.input("latents", &[batch, Dim::Fixed(channels), sides[0], sides[1]]);
    let x = graph.soft_limit(&x, MAGNITUDE);
    let x = conv(graph, &taken, &x, "decoder.layers.0")?;
    let mut x = graph.relu(&x);
    let name = |i: usize| format!("decoder.layers.{i}");
    let is_block = |i: usize| taken.has(&format!("{}.conv.0.weight", name(i)));
    let is_conv = |i: usize| taken.has(&format!("{}.weight", name(i)));
    let last = (0..MOST_LAYERS).rev().find(|i| is_block(*i) || is_conv(*i)).unwrap_or(0);
    // The second is the ReLU; others without weights enlarge.
    for i in 2..=last {
        x = match () {
            () if is_block(i) => block(graph, &taken, &x, &name(i))?,
            () if is_conv(i) => conv(graph, &taken, &x, &name(i))?,
            () => graph.enlarge(&x),
        };
    }
    let x = graph.affine(&x, 2.0, -1.0);
    graph.output("pixels", &[batch, Dim::Fixed(3), Dim::Free("height"), Dim::Free("width")], x);
    taken.all()
}

fn conv(graph: &mut Graph, taken: &Taken, x: &Value, name: &str) -> Result<Value> {
    let kernel = taken.kernel(name)?;
    graph.conv(x, taken.conv(name, kernel, [1; 2], kernel[2] / 2, 1)?)
}

/// Three convolutions, what came in, ReLU.
fn block(graph: &mut Graph, taken: &Taken, x: &Value, name: &str) -> Result<Value> {
    let y = conv(graph, taken, x, &format!("{name}.conv.0"))?;
    let y = graph.relu(&y);
    let y = conv(graph, taken, &y, &format!("{name}.conv.2"))?;
    let y = graph.relu(&y);
    let y = conv(graph, taken, &y, &format!("{name}.conv.4"))?;
    let skip = format!("{name}.skip");
    let x = if taken.has(&format!("{skip}.weight")) { conv(graph, taken, x, &skip)? } else { x.clone() };
    let y = graph.add(&y, &x);
    Ok(graph.relu(&y))
}
