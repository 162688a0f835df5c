//! SyncTalk_2D's U-Nets of 160 and 328 pixels (lqql8790229/SyncTalk_2D and ILG2021/SyncTalk_2D, unet.py and unet_328.py), the
//! one of Ultralight-Digital-Human that they come from (anliyuan/Ultralight-Digital-Human, unet.py), and SyncTalk_2D's
//! audio-visual encoder. Widths are those of the weights.

use super::{
    layers::Taken,
    onnx::{Dim, Graph, Value},
    wav2lip::audio_encoder,
};
use crate::{Error, Result, manifest::Features, tensor::Weights};

/// Height and width of the network's audio input.
pub fn size(features: Features) -> [usize; 2] {
    match features {
        Features::Ave | Features::Compact => [16, 16],
        Features::Hubert => [32, 32],
        Features::Wenet => [16, 32],
    }
}

/// Stride of the third convolution, which leaves 16 x 16.
fn stride(features: Features) -> [usize; 2] {
    match features {
        Features::Ave | Features::Compact => [1, 1],
        Features::Hubert => [2, 2],
        Features::Wenet => [1, 2],
    }
}

/// Pixels of the network's picture: 160, or 320 where it has five levels.
pub fn side(weights: &Weights) -> usize {
    if weights.shape("up5.conv.double_conv.0.conv.0.weight").is_some() { 320 } else { 160 }
}

/// Channels of the network's audio input.
pub fn channels(weights: &Weights) -> Result<usize> {
    Taken::new(weights).kernel("audio_model.conv1.conv.0").map(|shape| shape[1])
}

/// Builds the U-Net: inputs `face` f32 `[batch, 6, side, side]` (BGR 0..1: whole, then masked) and `audio` f32
/// `[batch, channels, height, width]` as [`size`] says, output `picture` f32 `[batch, 3, side, side]` (BGR 0..1).
pub fn unet(graph: &mut Graph, weights: &Weights, features: Features) -> Result<()> {
    let side = side(weights);
    let taken = Taken::new(weights);
    let batch = Dim::Free("batch");
    let picture = |channels| [batch, Dim::Fixed(channels), Dim::Fixed(side), Dim::Fixed(side)];
    let [height, width] = size(features);
    let face = graph.input("face", &picture(6));
    let audio = [batch, Dim::Fixed(channels(weights)?), Dim::Fixed(height), Dim::Fixed(width)];
    let audio = graph.input("audio", &audio);
    // Ultralight's modules are not in lists.
    let (inside, down) = if taken.has("inc.inconv.0.conv.0.weight") {
        ("inc.inconv.0", "maxpool_conv.0")
    } else {
        ("inc.inconv", "maxpool_conv")
    };
    let levels = if side == 160 { 4 } else { 5 };
    let mut skips = vec![residual(graph, &taken, &face, inside, 1, false)?];
    for level in 1..=levels {
        let x = double(graph, &taken, &skips[level - 1], &format!("down{level}.{down}"), 2)?;
        skips.push(x);
    }
    let audio = self::audio(graph, &taken, &audio, features)?;
    let deepest = skips.pop().ok_or_else(|| Error::invalid("a U-Net without levels"))?;
    let mut x = graph.concat(&[&deepest, &audio])?;
    for i in 0..2 {
        x = double(graph, &taken, &x, &format!("fuse_conv.{i}"), 1)?;
    }
    for level in 1..=levels {
        let skip = skips.pop().ok_or_else(|| Error::invalid("a U-Net without levels"))?;
        let larger = graph.double(&x);
        let both = graph.concat(&[&larger, &skip])?;
        x = double(graph, &taken, &both, &format!("up{level}.conv"), 1)?;
    }
    let last = taken.conv("outc.conv", taken.kernel("outc.conv")?, [1; 2], 0, 1)?;
    let x = graph.conv(&x, last)?;
    let x = graph.sigmoid(&x);
    graph.output("picture", &picture(3), x);
    taken.all()
}

/// Builds the audio-visual encoder: input `mel` f32 `[batch, 1, 80, 16]`, output `features` f32 `[batch, 512]`.
pub fn ave(graph: &mut Graph, weights: &Weights) -> Result<()> {
    let taken = Taken::new(weights);
    let batch = Dim::Free("batch");
    let prefix = if taken.has("audio_encoder.0.conv_block.0.weight") { "audio_encoder." } else { "" };
    let width = taken.kernel(&format!("{prefix}12.conv_block.0"))?[0];
    let mel = graph.input("mel", &[batch, Dim::Fixed(1), Dim::Fixed(80), Dim::Fixed(16)]);
    let x = audio_encoder(graph, &taken, &mel, prefix)?;
    let x = graph.flatten(&x);
    graph.output("features", &[batch, Dim::Fixed(width)], x);
    taken.all()
}

/// The audio head: what it leaves is as large as the deepest level, 10 x 10.
fn audio(graph: &mut Graph, taken: &Taken, x: &Value, features: Features) -> Result<Value> {
    let name = |part: &str| format!("audio_model.{part}");
    let keeps = |part: &str| -> Result<bool> {
        let (first, last) =
            (taken.kernel(&name(&format!("{part}.conv.0")))?, taken.kernel(&name(&format!("{part}.conv.6")))?);
        Ok(first[1] == last[0])
    };
    let mut x = x.clone();
    for part in ["conv1", "conv2"] {
        x = residual(graph, taken, &x, &name(part), 1, keeps(part)?)?;
    }
    x = plain(graph, taken, &x, ("conv3", "bn3"), stride(features), 1)?;
    x = residual(graph, taken, &x, &name("conv4"), 1, true)?;
    x = plain(graph, taken, &x, ("conv5", "bn5"), [2; 2], 3)?;
    for part in ["conv6", "conv7"] {
        x = residual(graph, taken, &x, &name(part), 1, true)?;
    }
    Ok(x)
}

/// A convolution of the audio head with batch normalisation and ReLU.
fn plain(
    graph: &mut Graph,
    taken: &Taken,
    x: &Value,
    (conv, norm): (&str, &str),
    stride: [usize; 2],
    padding: usize,
) -> Result<Value> {
    let (conv, norm) = (format!("audio_model.{conv}"), format!("audio_model.{norm}"));
    let conv = taken.conv(&conv, taken.kernel(&conv)?, stride, padding, 1)?;
    let y = graph.conv(x, taken.normalised(conv, &norm, 0)?)?;
    Ok(graph.relu(&y))
}

/// Two inverted residuals, of which the second adds what came in.
fn double(graph: &mut Graph, taken: &Taken, x: &Value, name: &str, stride: usize) -> Result<Value> {
    let x = residual(graph, taken, x, &format!("{name}.double_conv.0"), stride, false)?;
    residual(graph, taken, &x, &format!("{name}.double_conv.1"), 1, true)
}

/// An inverted residual (Sandler et al. 2018, arXiv 1801.04381): wider, a convolution of each channel alone, narrower.
fn residual(graph: &mut Graph, taken: &Taken, x: &Value, name: &str, stride: usize, adds: bool) -> Result<Value> {
    let part = |i: usize| format!("{name}.conv.{i}");
    let wide = taken.conv(&part(0), taken.kernel(&part(0))?, [1; 2], 0, 1)?;
    let y = graph.conv(x, taken.normalised(wide, &part(1), 0)?)?;
    let y = graph.relu(&y);
    let shape = taken.kernel(&part(3))?;
    let alone = taken.conv(&part(3), shape, [stride; 2], 1, shape[0])?;
    let y = graph.conv(&y, taken.normalised(alone, &part(4), 0)?)?;
    let y = graph.relu(&y);
    let narrow = taken.conv(&part(6), taken.kernel(&part(6))?, [1; 2], 0, 1)?;
    let y = graph.conv(&y, taken.normalised(narrow, &part(7), 0)?)?;
    Ok(if adds { graph.add(x, &y) } else { y })
}
