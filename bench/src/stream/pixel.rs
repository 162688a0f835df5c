//! Names and shapes of the tensors of Wav2Lip's generator and of SyncTalk_2D's U-Net of 328 pixels, as their programs publish them
//! (Rudrabha/Wav2Lip, models/wav2lip.py; lqql8790229/SyncTalk_2D, unet_328.py), at a part of their widths.

use super::layout::{Layout, Widths};

/// What batch normalisation knows of each channel.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

#[derive(Default)]
struct Tensors(Layout);

impl Tensors {
    fn put(&mut self, name: String, shape: &[usize]) {
        self.0.push((name, shape.to_vec()));
    }

    fn norm(&mut self, name: &str, channels: usize) {
        NORM.iter().for_each(|part| self.put(format!("{name}.{part}"), &[channels]));
    }

    /// A convolution of Wav2Lip's; `shape` is of its weight, transposed where `out` is the second.
    fn block(&mut self, name: &str, shape: [usize; 4], out: usize) {
        self.put(format!("{name}.conv_block.0.weight"), &shape);
        self.put(format!("{name}.conv_block.0.bias"), &[out]);
        self.norm(&format!("{name}.conv_block.1"), out);
    }

    /// An inverted residual of SyncTalk_2D's, twice as wide inside.
    fn residual(&mut self, name: &str, from: usize, to: usize) {
        let wide = 2 * from;
        for (i, shape) in [(0, [wide, from, 1, 1]), (3, [wide, 1, 3, 3]), (6, [to, wide, 1, 1])] {
            self.put(format!("{name}.conv.{i}.weight"), &shape);
            self.norm(&format!("{name}.conv.{}", i + 1), shape[0]);
        }
    }

    fn double(&mut self, name: &str, from: usize, to: usize) {
        self.residual(&format!("{name}.double_conv.0"), from, to);
        self.residual(&format!("{name}.double_conv.1"), to, to);
    }

    fn plain(&mut self, conv: &str, norm: &str, from: usize, to: usize) {
        self.put(format!("{conv}.weight"), &[to, from, 3, 3]);
        self.put(format!("{conv}.bias"), &[to]);
        self.norm(norm, to);
    }
}

/// Wav2Lip's generator of 96 pixels.
pub fn wav2lip(widths: &Widths) -> Layout {
    let thin = |width: usize| (width / widths.thinner).max(1);
    let sound = [32, 64, 128, 256, 512].map(thin);
    let down = [16, 32, 64, 128, 256, 512, 512].map(thin);
    let up = [512, 512, 512, 384, 256, 128, 64].map(thin);
    let last = thin(32);
    let mut all = Tensors::default();
    let mut before = 1;
    for (i, level) in [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4].into_iter().enumerate() {
        let kernel = if i == 12 { 1 } else { 3 };
        all.block(&format!("audio_encoder.{i}"), [sound[level], before, kernel, kernel], sound[level]);
        before = sound[level];
    }
    let mut before = 6;
    for (i, (count, width)) in [1, 3, 4, 3, 3, 2, 2].into_iter().zip(down).enumerate() {
        for j in 0..count {
            let kernel = match (i, j) {
                (0, _) => 7,
                (6, 1) => 1,
                _ => 3,
            };
            all.block(&format!("face_encoder_blocks.{i}.{j}"), [width, before, kernel, kernel], width);
            before = width;
        }
    }
    let mut before = sound[4];
    for (i, (count, width)) in [1, 2, 3, 3, 3, 3, 3].into_iter().zip(up).enumerate() {
        for j in 0..count {
            let shape = match (i, j) {
                (0, _) => [width, before, 1, 1],
                // Transposed, of what comes from below and what the face's encoder kept.
                (_, 0) => [before + down[7 - i], width, 3, 3],
                _ => [width, width, 3, 3],
            };
            all.block(&format!("face_decoder_blocks.{i}.{j}"), shape, width);
        }
        before = width;
    }
    all.block("output_block.0", [last, before + down[0], 3, 3], last);
    all.put("output_block.1.weight".into(), &[3, last, 1, 1]);
    all.put("output_block.1.bias".into(), &[3]);
    all.0
}

/// SyncTalk_2D's U-Net of 328 pixels, which hears the features of `compact`: 16 channels in the place of 32.
pub fn synctalk2d(widths: &Widths) -> Layout {
    let levels = [32, 64, 128, 256, 512].map(|width: usize| (width / widths.thinner).max(2));
    let mut all = Tensors::default();
    all.residual("audio_model.conv1", 16, levels[1]);
    all.residual("audio_model.conv2", levels[1], levels[2]);
    all.plain("audio_model.conv3", "audio_model.bn3", levels[2], levels[3]);
    all.residual("audio_model.conv4", levels[3], levels[3]);
    all.plain("audio_model.conv5", "audio_model.bn5", levels[3], levels[4]);
    all.residual("audio_model.conv6", levels[4], levels[4]);
    all.residual("audio_model.conv7", levels[4], levels[4]);
    all.residual("inc.inconv.0", 6, levels[0]);
    // What each level keeps for the way up.
    let kept = [levels[0], levels[0], levels[1], levels[2], levels[3], levels[4]];
    for i in 1..6 {
        all.double(&format!("down{i}.maxpool_conv.0"), kept[i - 1], kept[i]);
    }
    all.double("fuse_conv.0", 2 * levels[4], levels[4]);
    all.double("fuse_conv.1", levels[4], levels[3]);
    let mut below = levels[3];
    let up = [levels[3] / 2, levels[2] / 2, levels[1] / 2, levels[0], levels[0] / 2];
    for (i, width) in up.into_iter().enumerate() {
        all.double(&format!("up{}.conv", i + 1), below + kept[4 - i], width);
        below = width;
    }
    all.put("outc.conv.weight".into(), &[3, below, 1, 1]);
    all.put("outc.conv.bias".into(), &[3]);
    all.0
}
