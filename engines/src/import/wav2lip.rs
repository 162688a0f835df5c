//! Wav2Lip's generator, of 96 pixels (Rudrabha/Wav2Lip, models/wav2lip.py) and of 256 (lipku/LiveTalking,
//! avatars/wav2lip/models/wav2lip_v2.py). Widths are those of the weights.

use super::{
    layers::{Taken, block},
    onnx::{Dim, Graph, Value},
};
use crate::{Error, Result, tensor::Weights};

/// Mel bands and columns of a window.
pub(super) const MEL: [usize; 2] = [80, 16];
/// Strides of the audio encoder's blocks; the others have 1.
const AUDIO_STRIDES: [(usize, [usize; 2]); 3] = [(3, [3, 1]), (6, [3, 3]), (9, [3, 2])];
/// Blocks of the audio encoder.
const AUDIO_BLOCKS: usize = 13;

/// Pixels of a side, as the depth of the face encoder tells: seven blocks of 96, eight of 256.
pub fn side(weights: &Weights) -> Result<usize> {
    let depth = (0..).take_while(|i| weights.shape(&encoder(*i, 0)).is_some()).count();
    match depth {
        7 => Ok(96),
        8 => Ok(256),
        _ => Err(Error::Mismatch {
            model: weights.origin().into(),
            what: "blocks `face_encoder_blocks.N`".into(),
            expected: "7 (96 pixels) or 8 (256 pixels)".into(),
            found: depth.to_string(),
        }),
    }
}

fn encoder(i: usize, j: usize) -> String {
    format!("face_encoder_blocks.{i}.{j}.conv_block.0.weight")
}

/// Builds the generator: inputs `audio` f32 `[batch, 1, 80, 16]` and `face` f32 `[batch, 6, side, side]` (BGR 0..1: the lower
/// half black, then whole), output `picture` f32 `[batch, 3, side, side]` (BGR 0..1).
pub fn generator(graph: &mut Graph, weights: &Weights) -> Result<()> {
    let side = side(weights)?;
    let taken = Taken::new(weights);
    let batch = Dim::Free("batch");
    let picture = |channels| [batch, Dim::Fixed(channels), Dim::Fixed(side), Dim::Fixed(side)];
    let audio = graph.input("audio", &[batch, Dim::Fixed(1), Dim::Fixed(MEL[0]), Dim::Fixed(MEL[1])]);
    let face = graph.input("face", &picture(6));
    let mut x = audio_encoder(graph, &taken, &audio, "audio_encoder.")?;
    let mut skips = faces(graph, &taken, face, side)?;
    let depth = skips.len();
    for i in 0..depth {
        let blocks =
            (0..).take_while(|j| taken.has(&format!("face_decoder_blocks.{i}.{j}.conv_block.0.weight"))).count();
        for j in 0..blocks {
            let name = format!("face_decoder_blocks.{i}.{j}");
            x = match (i, j) {
                (0, _) => block(graph, &taken, &x, &name, ([1; 2], 0, false))?,
                (_, 0) => rise(graph, &taken, &x, &name, i == 1)?,
                _ => block(graph, &taken, &x, &name, ([1; 2], 1, true))?,
            };
        }
        if blocks == 0 {
            taken.shape(&format!("face_decoder_blocks.{i}.0.conv_block.0.weight"))?;
        }
        if let Some(skip) = skips.pop() {
            x = graph.concat(&[&x, &skip])?;
        }
    }
    let x = block(graph, &taken, &x, "output_block.0", ([1; 2], 1, false))?;
    let last = taken.conv("output_block.1", taken.kernel("output_block.1")?, [1; 2], 0, 1)?;
    let x = graph.conv(&x, last)?;
    let x = graph.sigmoid(&x);
    graph.output("picture", &picture(3), x);
    taken.all()
}

/// The mel encoder, which SyncTalk_2D has too: 13 blocks named `{prefix}N`.
pub(super) fn audio_encoder(graph: &mut Graph, taken: &Taken, mel: &Value, prefix: &str) -> Result<Value> {
    let mut x = mel.clone();
    for i in 0..AUDIO_BLOCKS {
        let stride = AUDIO_STRIDES.iter().find(|(at, _)| *at == i).map_or([1; 2], |(_, stride)| *stride);
        // The last two leave one column of one row.
        let narrow = i >= AUDIO_BLOCKS - 2;
        let plain = [0, 3, 6, 9].contains(&i) || narrow;
        x = block(graph, taken, &x, &format!("{prefix}{i}"), (stride, usize::from(!narrow), !plain))?;
    }
    Ok(x)
}

/// What the face encoder's blocks leave, the largest first.
fn faces(graph: &mut Graph, taken: &Taken, face: Value, side: usize) -> Result<Vec<Value>> {
    let depth = if side == 96 { 7 } else { 8 };
    let mut x = face;
    let mut skips = Vec::with_capacity(depth);
    for i in 0..depth {
        let blocks = (0..).take_while(|j| taken.has(&encoder(i, *j))).count();
        for j in 0..blocks {
            let shape = match (i, j) {
                (0, _) => ([1; 2], 3, false),
                (i, _) if i == depth - 1 => ([1; 2], 0, false),
                (_, 0) => ([2; 2], 1, false),
                _ => ([1; 2], 1, true),
            };
            x = block(graph, taken, &x, &format!("face_encoder_blocks.{i}.{j}"), shape)?;
        }
        skips.push(x.clone());
    }
    Ok(skips)
}

/// A transposed convolution with batch normalisation and ReLU: the first makes a square of its kernel's size of one pixel, the
/// others double.
fn rise(graph: &mut Graph, taken: &Taken, x: &Value, name: &str, first: bool) -> Result<Value> {
    let inner = format!("{name}.conv_block");
    let (stride, padding, more) = if first { (1, 0, 0) } else { (2, 1, 1) };
    let conv = taken.conv_transpose(&format!("{inner}.0"), taken.kernel(&format!("{inner}.0"))?, stride, padding)?;
    let y = graph.conv_transpose(x, taken.normalised(conv, &format!("{inner}.1"), 1)?, [more; 2])?;
    Ok(graph.relu(&y))
}
