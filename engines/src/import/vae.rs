//! The autoencoder of Stable Diffusion (huggingface/diffusers, models/autoencoders/autoencoder_kl.py), with the attention of its
//! middle under the names of today (`to_q`) or of before 2023 (`query`). Widths are those of the weights.

use super::{
    layers::Taken,
    onnx::{Dim, Graph, Value},
    transformer::{Rows, attention},
    unet::{Blocks, FINE_EPSILON, Time},
};
use crate::{Result, tensor::Weights};

/// Pixels of a side of a latent.
pub const FACTOR: usize = 8;
/// Channels of a latent.
pub const CHANNELS: usize = 4;
/// Where the logarithm of the variance is held.
const LOG_VARIANCE: [f32; 2] = [-30.0, 20.0];

fn blocks<'t, 'w>(taken: &'t Taken<'w>, groups: usize) -> Blocks<'t, 'w> {
    Blocks { taken, groups, epsilon: FINE_EPSILON, heads: 1, time: Time::None, clip: None }
}

/// Builds the encoder: input `pixels` f32 `[batch, 3, height, width]` (RGB in -1..1), outputs `mean` and `logvar` f32
/// `[batch, 4, height / 8, width / 8]`, not scaled. `side` is the nominal height and width of the pictures.
pub fn encoder(graph: &mut Graph, weights: &Weights, groups: usize, side: usize) -> Result<()> {
    let taken = Taken::beside(weights, &["decoder.", "post_quant_conv."]);
    let blocks = blocks(&taken, groups);
    let batch = Dim::Free("batch");
    let sides = [Dim::Nominal("height", side), Dim::Nominal("width", side)];
    let x = graph.input("pixels", &[batch, Dim::Fixed(3), sides[0], sides[1]]);
    let mut x = blocks.conv(graph, &x, "encoder.conv_in", 1)?;
    for i in 0..blocks.count("encoder.down_blocks", "resnets.0.norm1") {
        let name = format!("encoder.down_blocks.{i}");
        for j in 0..blocks.count(&format!("{name}.resnets"), "norm1") {
            x = blocks.resnet(graph, &x, &format!("{name}.resnets.{j}"))?;
        }
        let down = format!("{name}.downsamplers.0.conv");
        if taken.has(&format!("{down}.weight")) {
            let [channels, ..] = graph.size_of(&x)?;
            let out = taken.kernel(&down)?[0];
            let conv = taken.conv(&down, [out, channels, 3, 3], [2; 2], 0, 1)?;
            x = graph.conv_padded(&x, conv, &[0, 0, 1, 1])?;
        }
    }
    let x = middle(graph, &blocks, &x, "encoder.mid_block")?;
    let x = blocks.end(graph, &x, "encoder.conv_norm_out", "encoder.conv_out")?;
    let x = point(graph, &taken, &x, "quant_conv", 2 * CHANNELS)?;
    let [mean, logvar] = graph.split(&x, 1, [CHANNELS; 2]);
    let logvar = graph.clip(&logvar, LOG_VARIANCE[0], LOG_VARIANCE[1]);
    let shape = [batch, Dim::Fixed(CHANNELS), Dim::Free("latent_height"), Dim::Free("latent_width")];
    graph.output("mean", &shape, mean);
    graph.output("logvar", &shape, logvar);
    taken.all()
}

/// Builds the decoder: input `latents` f32 `[batch, 4, height, width]`, not scaled, output `pixels` f32
/// `[batch, 3, 8 height, 8 width]`, RGB in about -1..1. `side` is the nominal height and width of the latents.
pub fn decoder(graph: &mut Graph, weights: &Weights, groups: usize, side: usize) -> Result<()> {
    let taken = Taken::beside(weights, &["encoder.", "quant_conv."]);
    let blocks = blocks(&taken, groups);
    let batch = Dim::Free("batch");
    let sides = [Dim::Nominal("latent_height", side), Dim::Nominal("latent_width", side)];
    let x = graph.input("latents", &[batch, Dim::Fixed(CHANNELS), sides[0], sides[1]]);
    let x = point(graph, &taken, &x, "post_quant_conv", CHANNELS)?;
    let x = blocks.conv(graph, &x, "decoder.conv_in", 1)?;
    let mut x = middle(graph, &blocks, &x, "decoder.mid_block")?;
    for i in 0..blocks.count("decoder.up_blocks", "resnets.0.norm1") {
        let name = format!("decoder.up_blocks.{i}");
        for j in 0..blocks.count(&format!("{name}.resnets"), "norm1") {
            x = blocks.resnet(graph, &x, &format!("{name}.resnets.{j}"))?;
        }
        let up = format!("{name}.upsamplers.0.conv");
        if taken.has(&format!("{up}.weight")) {
            let large = graph.enlarge(&x);
            x = blocks.conv(graph, &large, &up, 1)?;
        }
    }
    let x = blocks.end(graph, &x, "decoder.conv_norm_out", "decoder.conv_out")?;
    graph.output("pixels", &[batch, Dim::Fixed(3), Dim::Free("height"), Dim::Free("width")], x);
    taken.all()
}

/// A convolution of one pixel.
fn point(graph: &mut Graph, taken: &Taken, x: &Value, name: &str, out: usize) -> Result<Value> {
    let [channels, ..] = graph.size_of(x)?;
    graph.conv(x, taken.conv(name, [out, channels, 1, 1], [1; 2], 0, 1)?)
}

fn middle(graph: &mut Graph, blocks: &Blocks, x: &Value, name: &str) -> Result<Value> {
    let x = blocks.resnet(graph, x, &format!("{name}.resnets.0"))?;
    let x = look(graph, blocks, &x, &format!("{name}.attentions.0"))?;
    blocks.resnet(graph, &x, &format!("{name}.resnets.1"))
}

/// Pixels look at each other.
fn look(graph: &mut Graph, blocks: &Blocks, x: &Value, name: &str) -> Result<Value> {
    let [channels, ..] = graph.size_of(x)?;
    let y = blocks.group_norm(graph, x, &format!("{name}.group_norm"), blocks.groups)?;
    let y = graph.reshape(&y, &[0, channels as i64, -1]);
    let y = graph.transpose(&y, &[0, 2, 1]);
    let names = match blocks.taken.has(&format!("{name}.query.weight")) {
        true => ["query", "key", "value", "proj_attn"],
        false => ["to_q", "to_k", "to_v", "to_out.0"],
    };
    let names = names.map(|part| format!("{name}.{part}"));
    let rows = Rows { value: &y, width: channels };
    let names = names.each_ref().map(String::as_str);
    let y = attention(graph, blocks.taken, &rows, &rows, names, blocks.heads, 1)?;
    let y = graph.transpose(&y, &[0, 2, 1]);
    let y = graph.reshape_like(&y, x);
    Ok(graph.add(&y, x))
}
