//! Whisper's audio encoder (Radford et al. 2022, arXiv 2212.04356; openai/whisper, whisper/model.py), from files of openai's
//! layout (`encoder.blocks.N`) and of transformers' (`encoder.layers.N`). Widths are those of the weights.

use super::{
    layers::Taken,
    onnx::{Conv, Dim, Graph, Value},
    transformer::{Rows, attention, layer_norm, linear},
};
use crate::{Error, Result, audio::whisper::engine::CONTEXT, tensor::Weights};

/// Mel columns of the 30 seconds that it was trained on.
pub const COLUMNS: usize = 3000;
/// What a file holds besides the encoder.
const OTHERS: [&str; 5] = ["decoder.", "model.decoder.", "proj_out.", "encoder.ln_post.", "encoder.layer_norm."];
/// Numbers of a head in every published size.
const HEAD: usize = 64;

/// What the graph gives besides the states after convolutions and position, and after each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// Nothing: LatentSync.
    Plain,
    /// The last is layer-normed: transformers' `hidden_states`, which MuseTalk takes.
    Normed,
}

/// Sizes of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub mels: usize,
    pub width: usize,
    pub blocks: usize,
}

/// Names of one layout's parts.
struct Layout {
    positions: &'static str,
    block: &'static str,
    attention: [&'static str; 4],
    norms: [&'static str; 2],
    feeds: [&'static str; 2],
    last: &'static str,
}

const OPENAI: Layout = Layout {
    positions: "encoder.positional_embedding",
    block: "encoder.blocks",
    attention: ["attn.query", "attn.key", "attn.value", "attn.out"],
    norms: ["attn_ln", "mlp_ln"],
    feeds: ["mlp.0", "mlp.2"],
    last: "encoder.ln_post",
};

const TRANSFORMERS: Layout = Layout {
    positions: "encoder.embed_positions.weight",
    block: "encoder.layers",
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    norms: ["self_attn_layer_norm", "final_layer_norm"],
    feeds: ["fc1", "fc2"],
    last: "encoder.layer_norm",
};

fn layout(taken: &Taken) -> &'static Layout {
    if taken.has(TRANSFORMERS.positions) { &TRANSFORMERS } else { &OPENAI }
}

/// Sizes, as the weights tell.
pub fn size(weights: &Weights) -> Result<Size> {
    let taken = Taken::new(weights);
    let layout = layout(&taken);
    let shape = taken.shape("encoder.conv1.weight")?;
    let [width, mels, 3] = shape[..] else {
        return Err(taken.refuse("encoder.conv1.weight", "[width, mels, 3]", &format!("{shape:?}")));
    };
    let block = |i: usize| format!("{}.{i}.{}.weight", layout.block, layout.norms[0]);
    let blocks = (0..).take_while(|i| taken.has(&block(*i))).count();
    Ok(Size { mels, width, blocks })
}

/// Heads of its attention: those that a checkpoint of openai states, else by the width of the published sizes.
pub fn heads(weights: &Weights) -> usize {
    let stated = weights.number("dims.n_audio_head").filter(|n| (1.0..=256.0).contains(n)).map(|n| n as usize);
    stated.or_else(|| size(weights).ok().map(|size| size.width / HEAD)).unwrap_or(0)
}

/// Builds the encoder: input `mel` f32 `[batch, mels, columns]` (log-mel, an even number of columns, 3000 at most), output
/// `states` f32 `[batch, columns / 2, blocks + 1, width]`.
pub fn encoder(graph: &mut Graph, weights: &Weights, heads: usize, last: Last) -> Result<()> {
    let taken = Taken::beside(weights, &OTHERS);
    let layout = layout(&taken);
    let Size { mels, width, blocks } = size(weights)?;
    if blocks == 0 {
        taken.shape(&format!("{}.0.{}.weight", layout.block, layout.norms[0]))?;
    }
    let mel = graph.input("mel", &[Dim::Free("batch"), Dim::Fixed(mels), Dim::Nominal("mel_columns", CONTEXT.columns)]);
    // One row of a picture, so that one kind of convolution does.
    let x = graph.reshape(&mel, &[0, mels as i64, 1, -1]);
    let x = graph.picture(x, [mels, 1, COLUMNS]);
    let x = conv(graph, &taken, &x, "encoder.conv1", [width, mels], 1)?;
    let x = conv(graph, &taken, &x, "encoder.conv2", [width, width], 2)?;
    let x = graph.reshape(&x, &[0, width as i64, -1]);
    let x = graph.transpose(&x, &[0, 2, 1]);
    let rows = COLUMNS / 2;
    let table = taken.f32(layout.positions, &[rows, width])?;
    let table = graph.numbers(&[rows, width], &table)?;
    let count = graph.dimension(&x, 1);
    let positions = graph.head(&table, &count);
    let mut states = vec![graph.add(&x, &positions)];
    for i in 0..blocks {
        let x = block(graph, &taken, layout, states.last().unwrap_or(&x), i, (width, heads))?;
        states.push(x);
    }
    if last == Last::Normed
        && let Some(end) = states.pop()
    {
        states.push(layer_norm(graph, &taken, &end, layout.last, width)?);
    }
    let all = graph.stack(&states, 2);
    let shape = [Dim::Free("batch"), Dim::Free("rows"), Dim::Fixed(states.len()), Dim::Fixed(width)];
    graph.output("states", &shape, all);
    taken.all()
}

/// A convolution along time with GELU.
fn conv(
    graph: &mut Graph,
    taken: &Taken,
    x: &Value,
    name: &str,
    [out, inside]: [usize; 2],
    stride: usize,
) -> Result<Value> {
    let weight = taken.f32(&format!("{name}.weight"), &[out, inside, 3])?;
    let bias = taken.f32(&format!("{name}.bias"), &[out])?;
    let conv = Conv { shape: [out, inside, 1, 3], weight, bias, stride: [1, stride], padding: [0, 1], groups: 1 };
    let y = graph.conv(x, conv)?;
    Ok(graph.gelu(&y))
}

fn block(
    graph: &mut Graph,
    taken: &Taken,
    layout: &Layout,
    x: &Value,
    i: usize,
    (width, heads): (usize, usize),
) -> Result<Value> {
    let name = |part: &str| format!("{}.{i}.{part}", layout.block);
    let y = layer_norm(graph, taken, x, &name(layout.norms[0]), width)?;
    let asked = Rows { value: &y, width };
    let names = layout.attention.map(&name);
    let y = attention(graph, taken, &asked, &asked, names.each_ref().map(String::as_str), heads, 1)?;
    let x = graph.add(x, &y);
    let y = layer_norm(graph, taken, &x, &name(layout.norms[1]), width)?;
    let (y, inner) = linear(graph, taken, &y, &name(layout.feeds[0]), width)?;
    let y = graph.gelu(&y);
    let (y, out) = linear(graph, taken, &y, &name(layout.feeds[1]), inner)?;
    if out != width {
        return Err(Error::invalid(format!("{}: block {i} gives {out} numbers of {width}", taken.origin())));
    }
    Ok(graph.add(&x, &y))
}
