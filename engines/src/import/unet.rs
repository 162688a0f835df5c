//! Blocks of the U-Nets of latent diffusion (Rombach et al. 2022, arXiv 2112.10752; huggingface/diffusers, models/resnet.py,
//! models/transformers/transformer_2d.py and models/unets/unet_2d_blocks.py), which its autoencoder shares. What a block has
//! is found by the names of its weights.

use super::{
    layers::Taken,
    onnx::{Graph, Value},
    transformer::{Rows, attention, gated, layer_norm, linear, numbers, pieces},
};
use crate::{Error, Result};

/// Added to the variances of the U-Net's own norms, and of those of transformers and of the autoencoder.
pub(super) const EPSILON: f32 = 1e-5;
pub(super) const FINE_EPSILON: f32 = 1e-6;
/// Longest period of sinusoidal embeddings (Vaswani et al. 2017, arXiv 1706.03762).
pub(super) const PERIOD: f64 = 10_000.0;

/// What the resnets of a network know of time: nothing, a value `[pictures, width]`, or one that never changes.
pub(super) enum Time {
    None,
    /// With its width, after SiLU.
    Value(Value, usize),
    /// After SiLU.
    Constant(Vec<f64>),
}

/// Pictures that are frames of clips.
pub(super) struct Clip {
    /// Frames of a clip, as an integer value.
    pub frames: Value,
    /// The shape `[clips, frames, groups, rest]`.
    pub grouped: Value,
}

/// What the blocks of one network have in common.
pub(super) struct Blocks<'t, 'w> {
    pub taken: &'t Taken<'w>,
    pub groups: usize,
    /// Of the norms of resnets.
    pub epsilon: f32,
    pub heads: usize,
    pub time: Time,
    /// Where frames of a clip are normed together and look at each other.
    pub clip: Option<Clip>,
}

/// The sound that frames look at: `[pictures, rows, width]`.
pub(super) struct Sound {
    pub value: Value,
    pub width: usize,
}

impl Blocks<'_, '_> {
    fn has(&self, name: &str) -> bool {
        self.taken.has(name)
    }

    /// The whole U-Net between the picture that goes in and the one that comes out.
    pub(super) fn unet(&self, graph: &mut Graph, x: &Value, sound: &Sound) -> Result<Value> {
        let mut x = self.conv(graph, x, "conv_in", 1)?;
        let mut skips = vec![x.clone()];
        let downs = self.count("down_blocks", "resnets.0.norm1");
        for i in 0..downs {
            let name = format!("down_blocks.{i}");
            for j in 0..self.count(&format!("{name}.resnets"), "norm1") {
                x = self.layer(graph, &x, &name, j, sound)?;
                skips.push(x.clone());
            }
            let down = format!("{name}.downsamplers.0.conv");
            if self.has(&format!("{down}.weight")) {
                x = self.conv(graph, &x, &down, 2)?;
                skips.push(x.clone());
            }
        }
        x = self.layer(graph, &x, "mid_block", 0, sound)?;
        x = self.resnet(graph, &x, "mid_block.resnets.1")?;
        for i in 0..self.count("up_blocks", "resnets.0.norm1") {
            let name = format!("up_blocks.{i}");
            for j in 0..self.count(&format!("{name}.resnets"), "norm1") {
                let skip = skips.pop().ok_or_else(|| {
                    Error::invalid(format!("{}: `{name}` has more layers than the way down", self.taken.origin()))
                })?;
                let both = graph.concat(&[&x, &skip])?;
                x = self.layer(graph, &both, &name, j, sound)?;
            }
            let up = format!("{name}.upsamplers.0.conv");
            if self.has(&format!("{up}.weight")) {
                let large = graph.enlarge(&x);
                x = self.conv(graph, &large, &up, 1)?;
            }
        }
        self.end(graph, &x, "conv_norm_out", "conv_out")
    }

    /// Norm, SiLU and the last convolution.
    pub(super) fn end(&self, graph: &mut Graph, x: &Value, norm: &str, conv: &str) -> Result<Value> {
        let x = self.norm(graph, x, norm)?;
        let x = graph.silu(&x);
        self.conv(graph, &x, conv, 1)
    }

    /// How many of `name.N` there are.
    pub(super) fn count(&self, name: &str, part: &str) -> usize {
        (0..).take_while(|i| self.has(&format!("{name}.{i}.{part}.weight"))).count()
    }

    /// A convolution of three pixels, which halves where `stride` is 2.
    pub(super) fn conv(&self, graph: &mut Graph, x: &Value, name: &str, stride: usize) -> Result<Value> {
        let kernel = self.taken.kernel(name)?;
        let [channels, ..] = graph.size_of(x)?;
        let shape = [kernel[0], channels, 3, 3];
        graph.conv(x, self.taken.conv(name, shape, [stride; 2], 1, 1)?)
    }

    /// Resnet, transformer and motion module `j` of a block, as far as it has them.
    fn layer(&self, graph: &mut Graph, x: &Value, block: &str, j: usize, sound: &Sound) -> Result<Value> {
        let mut x = self.resnet(graph, x, &format!("{block}.resnets.{j}"))?;
        let name = format!("{block}.attentions.{j}");
        if self.has(&format!("{name}.norm.weight")) {
            x = self.transformer(graph, &x, &name, sound)?;
        }
        let name = format!("{block}.motion_modules.{j}.temporal_transformer");
        match &self.clip {
            Some(clip) if self.has(&format!("{name}.norm.weight")) => self.motion(graph, &x, &name, clip),
            _ => Ok(x),
        }
    }

    /// Of the frames of a clip together, where there are clips.
    fn norm(&self, graph: &mut Graph, x: &Value, name: &str) -> Result<Value> {
        let (gain, shift) = self.of_norm(graph, x, name, self.groups)?;
        match &self.clip {
            Some(clip) => graph.clip_norm(x, &clip.grouped, self.epsilon, &gain, &shift),
            None => graph.group_norm(x, self.groups, self.epsilon, &gain, &shift),
        }
    }

    pub(super) fn group_norm(&self, graph: &mut Graph, x: &Value, name: &str, groups: usize) -> Result<Value> {
        let (gain, shift) = self.of_norm(graph, x, name, groups)?;
        graph.group_norm(x, groups, FINE_EPSILON, &gain, &shift)
    }

    fn of_norm(&self, graph: &Graph, x: &Value, name: &str, groups: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let [channels, ..] = graph.size_of(x)?;
        let of = |part: &str| self.taken.f32(&format!("{name}.{part}"), &[channels]);
        let both = (of("weight")?, of("bias")?);
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::invalid(format!(
                "{}: `{name}` of {channels} channels has no {groups} groups; name its config.json by --from",
                self.taken.origin()
            )));
        }
        Ok(both)
    }

    /// Two convolutions after norms, with the time between them, and what came in.
    pub(super) fn resnet(&self, graph: &mut Graph, x: &Value, name: &str) -> Result<Value> {
        let part = |part: &str| format!("{name}.{part}");
        let y = self.norm(graph, x, &part("norm1"))?;
        let y = graph.silu(&y);
        let [channels, ..] = graph.size_of(x)?;
        let out = self.taken.kernel(&part("conv1"))?[0];
        let mut conv = self.taken.conv(&part("conv1"), [out, channels, 3, 3], [1; 2], 1, 1)?;
        let projection = part("time_emb_proj");
        let y = match &self.time {
            Time::None => graph.conv(&y, conv)?,
            Time::Constant(time) => {
                let (rows, weight, bias) = numbers(self.taken, &projection, time.len())?;
                if rows != out {
                    let expected = format!("[{out}, {}]", time.len());
                    let found = format!("[{rows}, {}]", time.len());
                    return Err(self.taken.refuse(&format!("{projection}.weight"), &expected, &found));
                }
                for (i, row) in weight.chunks_exact(time.len()).enumerate() {
                    let sum: f64 = row.iter().zip(time).map(|(w, t)| f64::from(*w) * t).sum();
                    let own = bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]));
                    conv.bias[i] = (f64::from(conv.bias[i]) + sum + own) as f32;
                }
                graph.conv(&y, conv)?
            }
            Time::Value(time, width) => {
                let y = graph.conv(&y, conv)?;
                let (shift, rows) = linear(graph, self.taken, time, &projection, *width)?;
                if rows != out {
                    let (expected, found) = (format!("[{out}, {width}]"), format!("[{rows}, {width}]"));
                    return Err(self.taken.refuse(&format!("{projection}.weight"), &expected, &found));
                }
                let shift = graph.reshape(&shift, &[0, out as i64, 1, 1]);
                graph.add(&y, &shift)
            }
        };
        let y = self.norm(graph, &y, &part("norm2"))?;
        let y = graph.silu(&y);
        let y = self.conv(graph, &y, &part("conv2"), 1)?;
        let shortcut = part("conv_shortcut");
        let x = match self.has(&format!("{shortcut}.weight")) {
            true => graph.conv(x, self.taken.conv(&shortcut, [out, channels, 1, 1], [1; 2], 0, 1)?)?,
            false => x.clone(),
        };
        Ok(graph.add(&x, &y))
    }

    /// Pixels look at each other and at the sound.
    fn transformer(&self, graph: &mut Graph, x: &Value, name: &str, sound: &Sound) -> Result<Value> {
        let [channels, height, width] = graph.size_of(x)?;
        let pieces = pieces(height * width, self.heads);
        let y = self.group_norm(graph, x, &format!("{name}.norm"), self.groups)?;
        let y = graph.reshape(&y, &[0, channels as i64, -1]);
        let y = graph.transpose(&y, &[0, 2, 1]);
        // Published as a convolution of one pixel, or as a linear layer.
        let (mut y, inner) = linear(graph, self.taken, &y, &format!("{name}.proj_in"), channels)?;
        for i in 0..self.count(&format!("{name}.transformer_blocks"), "norm1") {
            let part = |part: &str| format!("{name}.transformer_blocks.{i}.{part}");
            let norm = layer_norm(graph, self.taken, &y, &part("norm1"), inner)?;
            let rows = Rows { value: &norm, width: inner };
            let z = self.attend(graph, &rows, &rows, &part("attn1"), pieces)?;
            y = graph.add(&z, &y);
            if self.has(&part("norm2.weight")) {
                let norm = layer_norm(graph, self.taken, &y, &part("norm2"), inner)?;
                let seen = Rows { value: &sound.value, width: sound.width };
                let asked = Rows { value: &norm, width: inner };
                let z = self.attend(graph, &asked, &seen, &part("attn2"), 1)?;
                y = graph.add(&z, &y);
            }
            let norm = layer_norm(graph, self.taken, &y, &part("norm3"), inner)?;
            let z = gated(graph, self.taken, &Rows { value: &norm, width: inner }, &part("ff"))?;
            y = graph.add(&z, &y);
        }
        let (y, _) = linear(graph, self.taken, &y, &format!("{name}.proj_out"), inner)?;
        let y = graph.transpose(&y, &[0, 2, 1]);
        let y = graph.reshape_like(&y, x);
        Ok(graph.add(&y, x))
    }

    pub(super) fn attend(
        &self,
        graph: &mut Graph,
        asked: &Rows,
        seen: &Rows,
        name: &str,
        pieces: usize,
    ) -> Result<Value> {
        let names = ["to_q", "to_k", "to_v", "to_out.0"].map(|part| format!("{name}.{part}"));
        attention(graph, self.taken, asked, seen, names.each_ref().map(String::as_str), self.heads, pieces)
    }
}

/// Numbers of a row of the sound that the U-Net's first transformer looks at.
pub fn sound_width(weights: &crate::tensor::Weights) -> Result<usize> {
    let name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    let taken = Taken::new(weights);
    match taken.shape(name)? {
        [_, width] => Ok(*width),
        other => Err(taken.refuse(name, "[width, sound]", &format!("{other:?}"))),
    }
}
