//! Names and shapes of the tensors of Stable Diffusion's U-Net and autoencoder and of Whisper's encoder, as diffusers and transformers
//! publish them, at whatever widths: with random numbers in them they are checkpoints that cost what the published ones cost.

use std::ops::Range;

/// Tensors by their names, and their shapes.
pub type Layout = Vec<(String, Vec<usize>)>;

/// How wide networks are.
#[derive(Clone, Copy)]
pub struct Widths {
    /// Channels of the levels of a U-Net.
    pub unet: [usize; 4],
    /// Blocks of a level on the way down; there is one more on the way up. The autoencoder's too.
    pub layers: usize,
    pub unet_groups: usize,
    pub unet_heads: usize,
    /// Of the autoencoder.
    pub vae: [usize; 4],
    pub vae_groups: usize,
    /// Numbers of a state of Whisper's, its blocks, and the width inside of their perceptrons.
    pub whisper: usize,
    pub blocks: usize,
    pub inner: usize,
    pub whisper_heads: usize,
    /// What the widths of Wav2Lip and SyncTalk_2D are divided by.
    pub thinner: usize,
    /// Pixels of a side of a face, and frames of a clip.
    pub side: usize,
    pub frames: usize,
}

/// LatentSync 1.5 and MuseTalk 1.5 with sd-vae-ft-mse and Whisper tiny.
pub const PUBLISHED: Widths = Widths {
    unet: [320, 640, 1280, 1280],
    layers: 2,
    unet_groups: 32,
    unet_heads: 8,
    vae: [128, 256, 512, 512],
    vae_groups: 32,
    whisper: 384,
    blocks: 4,
    inner: 1536,
    whisper_heads: 6,
    thinner: 1,
    side: 256,
    frames: 16,
};

/// What a processor runs in no time.
pub const NARROW: Widths = Widths {
    unet: [32; 4],
    layers: 1,
    unet_groups: 8,
    unet_heads: 4,
    vae: [4, 8, 8, 8],
    vae_groups: 4,
    whisper: 16,
    blocks: 2,
    inner: 32,
    whisper_heads: 4,
    thinner: 16,
    side: 64,
    frames: 8,
};

/// Numbers of the sinusoids that a frame's place in its clip is told by.
const PLACES: usize = 24;
/// Channels of latents.
const LATENTS: usize = 4;

#[derive(Default)]
struct Tensors(Layout);

impl Tensors {
    fn weight(&mut self, name: &str, shape: &[usize]) {
        self.0.push((format!("{name}.weight"), shape.to_vec()));
    }

    /// A weight and its bias.
    fn both(&mut self, name: &str, shape: &[usize]) {
        self.weight(name, shape);
        self.0.push((format!("{name}.bias"), vec![shape[0]]));
    }

    fn each(&mut self, name: &str, parts: &[&str], shape: &[usize]) {
        parts.iter().for_each(|part| self.both(&format!("{name}.{part}"), shape));
    }

    fn square(&mut self, name: &str, from: usize, to: usize) {
        self.both(name, &[to, from, 3, 3]);
    }

    /// Two convolutions; `time` is the width of what they are told of the step.
    fn residual(&mut self, name: &str, from: usize, to: usize, time: Option<usize>) {
        self.both(&format!("{name}.norm1"), &[from]);
        self.square(&format!("{name}.conv1"), from, to);
        if let Some(time) = time {
            self.both(&format!("{name}.time_emb_proj"), &[to, time]);
        }
        self.both(&format!("{name}.norm2"), &[to]);
        self.square(&format!("{name}.conv2"), to, to);
        if from != to {
            self.both(&format!("{name}.conv_shortcut"), &[to, from, 1, 1]);
        }
    }

    /// Attention of `width` to what is `other` wide.
    fn attention(&mut self, name: &str, width: usize, other: usize) {
        self.weight(&format!("{name}.to_q"), &[width, width]);
        self.weight(&format!("{name}.to_k"), &[width, other]);
        self.weight(&format!("{name}.to_v"), &[width, other]);
        self.both(&format!("{name}.to_out.0"), &[width, width]);
    }

    fn perceptron(&mut self, name: &str, width: usize) {
        self.both(&format!("{name}.net.0.proj"), &[8 * width, width]);
        self.both(&format!("{name}.net.2"), &[width, 4 * width]);
    }

    /// Attention of pixels to each other and to what is heard.
    fn transformer(&mut self, name: &str, width: usize, sound: usize) {
        self.both(&format!("{name}.norm"), &[width]);
        self.each(name, &["proj_in", "proj_out"], &[width, width, 1, 1]);
        let block = format!("{name}.transformer_blocks.0");
        self.each(&block, &["norm1", "norm2", "norm3"], &[width]);
        self.attention(&format!("{block}.attn1"), width, width);
        self.attention(&format!("{block}.attn2"), width, sound);
        self.perceptron(&format!("{block}.ff"), width);
    }

    /// Attention of the frames of a clip to each other.
    fn motion(&mut self, name: &str, width: usize) {
        let name = format!("{name}.temporal_transformer");
        self.both(&format!("{name}.norm"), &[width]);
        self.each(&name, &["proj_in", "proj_out"], &[width, width]);
        let block = format!("{name}.transformer_blocks.0");
        for k in 0..2 {
            let attention = format!("{block}.attention_blocks.{k}");
            self.attention(&attention, width, width);
            self.0.push((format!("{attention}.pos_encoder.pe"), vec![1, PLACES, width]));
            self.both(&format!("{block}.norms.{k}"), &[width]);
        }
        self.perceptron(&format!("{block}.ff"), width);
        self.both(&format!("{block}.ff_norm"), &[width]);
    }
}

/// A U-Net that sees `channels`; with `motion` it sees clips.
pub fn unet(widths: &Widths, channels: usize, motion: bool) -> Layout {
    let (levels, layers, sound) = (widths.unet, widths.layers, widths.whisper);
    let (first, last, time) = (levels[0], levels[3], 4 * levels[0]);
    let mut all = Tensors::default();
    all.square("conv_in", channels, first);
    all.both("time_embedding.linear_1", &[time, first]);
    all.both("time_embedding.linear_2", &[time, time]);
    let mut level = |name: String, layers: Range<usize>, to: usize, attends: bool, from: &dyn Fn(usize) -> usize| {
        for k in layers {
            all.residual(&format!("{name}.resnets.{k}"), from(k), to, Some(time));
            if attends {
                all.transformer(&format!("{name}.attentions.{k}"), to, sound);
            }
            if motion {
                all.motion(&format!("{name}.motion_modules.{k}"), to);
            }
        }
    };
    for (i, to) in levels.into_iter().enumerate() {
        let before = levels[i.saturating_sub(1)];
        level(format!("down_blocks.{i}"), 0..layers, to, i < 3, &|k| if k == 0 { before } else { to });
    }
    for (i, to) in levels.into_iter().rev().enumerate() {
        // What comes from below, and what was kept on the way down.
        let (below, kept) = (levels[(4 - i).min(3)], levels[2usize.saturating_sub(i)]);
        let from = |k: usize| (if k == 0 { below } else { to }) + if k == layers { kept } else { to };
        level(format!("up_blocks.{i}"), 0..layers + 1, to, i > 0, &from);
    }
    for (i, width) in levels.into_iter().enumerate().take(3) {
        all.square(&format!("down_blocks.{i}.downsamplers.0.conv"), width, width);
        let up = levels[3 - i];
        all.square(&format!("up_blocks.{i}.upsamplers.0.conv"), up, up);
    }
    all.residual("mid_block.resnets.0", last, last, Some(time));
    all.transformer("mid_block.attentions.0", last, sound);
    all.residual("mid_block.resnets.1", last, last, Some(time));
    all.both("conv_norm_out", &[first]);
    all.square("conv_out", first, LATENTS);
    all.0
}

/// The autoencoder of pictures.
pub fn vae(widths: &Widths) -> Layout {
    let (levels, layers) = (widths.vae, widths.layers);
    let (first, last) = (levels[0], levels[3]);
    let mut all = Tensors::default();
    let middle = |all: &mut Tensors, half: &str| {
        (0..2).for_each(|k| all.residual(&format!("{half}.mid_block.resnets.{k}"), last, last, None));
        let attention = format!("{half}.mid_block.attentions.0");
        all.both(&format!("{attention}.group_norm"), &[last]);
        all.each(&attention, &["to_q", "to_k", "to_v", "to_out.0"], &[last, last]);
    };
    all.square("encoder.conv_in", 3, first);
    all.square("decoder.conv_in", LATENTS, last);
    for (i, to) in levels.into_iter().enumerate() {
        let name = format!("encoder.down_blocks.{i}");
        let before = levels[i.saturating_sub(1)];
        (0..layers)
            .for_each(|k| all.residual(&format!("{name}.resnets.{k}"), if k == 0 { before } else { to }, to, None));
        if i < 3 {
            all.square(&format!("{name}.downsamplers.0.conv"), to, to);
        }
    }
    for (i, to) in levels.into_iter().rev().enumerate() {
        let name = format!("decoder.up_blocks.{i}");
        let below = levels[(4 - i).min(3)];
        (0..=layers)
            .for_each(|k| all.residual(&format!("{name}.resnets.{k}"), if k == 0 { below } else { to }, to, None));
        if i < 3 {
            all.square(&format!("{name}.upsamplers.0.conv"), to, to);
        }
    }
    middle(&mut all, "encoder");
    middle(&mut all, "decoder");
    all.both("encoder.conv_norm_out", &[last]);
    all.square("encoder.conv_out", last, 2 * LATENTS);
    all.both("decoder.conv_norm_out", &[first]);
    all.square("decoder.conv_out", first, 3);
    all.both("quant_conv", &[2 * LATENTS, 2 * LATENTS, 1, 1]);
    all.both("post_quant_conv", &[LATENTS, LATENTS, 1, 1]);
    all.0
}

/// Whisper's encoder.
pub fn whisper(widths: &Widths) -> Layout {
    let (width, inner) = (widths.whisper, widths.inner);
    let mut all = Tensors::default();
    all.both("model.encoder.conv1", &[width, 80, 3]);
    all.both("model.encoder.conv2", &[width, width, 3]);
    all.weight("model.encoder.embed_positions", &[1500, width]);
    for i in 0..widths.blocks {
        let name = format!("model.encoder.layers.{i}");
        all.weight(&format!("{name}.self_attn.k_proj"), &[width, width]);
        all.each(&format!("{name}.self_attn"), &["v_proj", "q_proj", "out_proj"], &[width, width]);
        all.each(&name, &["self_attn_layer_norm", "final_layer_norm"], &[width]);
        all.both(&format!("{name}.fc1"), &[inner, width]);
        all.both(&format!("{name}.fc2"), &[width, inner]);
    }
    all.both("model.encoder.layer_norm", &[width]);
    all.0
}
