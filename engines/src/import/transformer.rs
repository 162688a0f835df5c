//! Layers of transformers, as PyTorch's state dicts name them.

use super::{
    layers::Taken,
    onnx::{Graph, Value},
};
use crate::{Error, Result};

/// What `torch.nn.LayerNorm` adds to a variance.
const EPSILON: f32 = 1e-5;

/// Numbers of a linear layer that takes `inside` numbers: what comes out, weight `[out, inside]` and bias. A convolution of one
/// pixel is such a layer too.
pub(super) fn numbers(taken: &Taken, name: &str, inside: usize) -> Result<(usize, Vec<f32>, Option<Vec<f32>>)> {
    let weight = format!("{name}.weight");
    let shape = taken.shape(&weight)?;
    let plain = shape.len() == 2 || (shape.len() == 4 && shape[2..] == [1, 1]);
    if !plain || shape[1] != inside || inside == 0 {
        return Err(taken.refuse(&weight, &format!("[out, {inside}]"), &format!("{shape:?}")));
    }
    let out = shape[0];
    let bias = format!("{name}.bias");
    let bias = taken.has(&bias).then(|| taken.f32(&bias, &[out])).transpose()?;
    Ok((out, taken.f32(&weight, shape)?, bias))
}

/// The linear layer `name` of the last dimension, which has `inside` numbers; what comes out and its width.
pub(super) fn linear(graph: &mut Graph, taken: &Taken, x: &Value, name: &str, inside: usize) -> Result<(Value, usize)> {
    let (out, weight, bias) = numbers(taken, name, inside)?;
    Ok((graph.linear(x, [out, inside], &weight, bias.as_deref())?, out))
}

/// The layer norm `name` of the last dimension.
pub(super) fn layer_norm(graph: &mut Graph, taken: &Taken, x: &Value, name: &str, width: usize) -> Result<Value> {
    let gain = taken.f32(&format!("{name}.weight"), &[width])?;
    let shift = taken.f32(&format!("{name}.bias"), &[width])?;
    graph.layer_norm(x, EPSILON, &gain, &shift)
}

/// Values of `[batch, length, width]`.
pub(super) struct Rows<'a> {
    pub value: &'a Value,
    pub width: usize,
}

/// Bytes that the scores of one picture whose pixels look at each other may take at once, in f32.
const SCORES: usize = 64 << 20;
/// Most pieces that queries come in; sides of latents are multiples of 8, so they are equal.
const PIECES: usize = 64;

/// In how many pieces the queries of a picture of so many pixels look at all of them, so that scores take no more than [`SCORES`]:
/// one at 256 pixels of LatentSync's U-Net, eight at 512, where those of a clip of 16 would take 8.6 GB.
pub(super) fn pieces(pixels: usize, heads: usize) -> usize {
    let scores = pixels.saturating_mul(pixels).saturating_mul(4 * heads);
    scores.div_ceil(SCORES).next_power_of_two().min(PIECES)
}

/// Attention of `heads` heads (Vaswani et al. 2017, arXiv 1706.03762): query, key, value and output are named by `names`.
/// `asked` look at `seen`, in so many equal pieces after one another. Queries are scaled by their weights, so that products of
/// fp16 stay small.
pub(super) fn attention(
    graph: &mut Graph,
    taken: &Taken,
    asked: &Rows,
    seen: &Rows,
    names: [&str; 4],
    heads: usize,
    pieces: usize,
) -> Result<Value> {
    let (inner, mut weight, mut bias) = numbers(taken, names[0], asked.width)?;
    if heads == 0 || !inner.is_multiple_of(heads) {
        return Err(Error::invalid(format!("{}: `{}` of {inner} has no {heads} heads", taken.origin(), names[0])));
    }
    let depth = inner / heads;
    let scale = 1.0 / (depth as f32).sqrt();
    weight.iter_mut().chain(bias.iter_mut().flatten()).for_each(|v| *v *= scale);
    let query = graph.linear(asked.value, [inner, asked.width], &weight, bias.as_deref())?;
    drop(weight);
    let of = |graph: &mut Graph, name: &str| -> Result<Value> {
        let (value, out) = linear(graph, taken, seen.value, name, seen.width)?;
        if out != inner {
            let found = format!("[{out}, {}]", seen.width);
            return Err(taken.refuse(&format!("{name}.weight"), &format!("[{inner}, {}]", seen.width), &found));
        }
        Ok(graph.reshape(&value, &[0, -1, heads as i64, depth as i64]))
    };
    let (key, value) = (of(graph, names[1])?, of(graph, names[2])?);
    let query = graph.reshape(&query, &[0, -1, heads as i64, depth as i64]);
    let query = graph.transpose(&query, &[0, 2, 1, 3]);
    let key = graph.transpose(&key, &[0, 2, 3, 1]);
    let value = graph.transpose(&value, &[0, 2, 1, 3]);
    let look = |graph: &mut Graph, query: &Value| {
        let scores = graph.product(query, &key);
        let weights = graph.softmax(&scores);
        graph.product(&weights, &value)
    };
    let mixed = match pieces {
        0 | 1 => look(graph, &query),
        _ => {
            let parts = graph.equal_parts(&query, 2, pieces);
            let parts: Vec<Value> = parts.iter().map(|part| look(graph, part)).collect();
            graph.join(&parts.iter().collect::<Vec<_>>(), 2)
        }
    };
    let mixed = graph.transpose(&mixed, &[0, 2, 1, 3]);
    let mixed = graph.reshape(&mixed, &[0, -1, inner as i64]);
    Ok(linear(graph, taken, &mixed, names[3], inner)?.0)
}

/// Diffusers' feed-forward of a gated unit (Shazeer 2020, arXiv 2002.05202): `net.0.proj` doubles, `net.2` ends.
pub(super) fn gated(graph: &mut Graph, taken: &Taken, x: &Rows, name: &str) -> Result<Value> {
    let first = format!("{name}.net.0.proj");
    let (both, out) = linear(graph, taken, x.value, &first, x.width)?;
    if !out.is_multiple_of(2) {
        return Err(taken.refuse(&format!("{first}.weight"), "an even number of rows", &out.to_string()));
    }
    let [value, gate] = graph.split(&both, -1, [out / 2; 2]);
    let gate = graph.gelu(&gate);
    let inner = graph.multiply(&value, &gate);
    Ok(linear(graph, taken, &inner, &format!("{name}.net.2"), out / 2)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_bound_what_scores_take() {
        // LatentSync at 256 and 512 pixels, something absurd, and a picture of nothing.
        let found = [(32 * 32, 8), (64 * 64, 8), (1 << 40, 8), (0, 8)].map(|(pixels, heads)| pieces(pixels, heads));
        assert_eq!(found, [1, 8, PIECES, 1]);
    }
}
