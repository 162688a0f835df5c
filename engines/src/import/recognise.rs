use std::path::Path;

use super::latentsync;
use crate::{
    Error, Result, enhance, occlusion,
    runtime::{Device, Model, Options},
    tensor::Weights,
};

/// What a published file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Wav2Lip,
    /// The same as an ONNX graph.
    Wav2LipGraph,
    /// A graph that makes a better face of a face.
    Enhancer,
    /// A graph that says what of a picture is face.
    Masker,
    SyncTalk2d,
    /// SyncTalk_2D's audio-visual encoder.
    Ave,
    LatentSync,
    MuseTalk,
    Vae,
    /// The tiny autoencoder.
    Taesd,
    Whisper,
    /// What a U-Net's weights do not tell.
    Config,
}

impl Kind {
    pub fn words(self) -> &'static str {
        match self {
            Self::Wav2Lip | Self::Wav2LipGraph => "a generator of Wav2Lip",
            Self::Enhancer => "an enhancer of faces",
            Self::Masker => "a masker of faces",
            Self::SyncTalk2d => "a U-Net of SyncTalk_2D or Ultralight",
            Self::Ave => "the audio-visual encoder of SyncTalk_2D",
            Self::LatentSync => "a U-Net of LatentSync",
            Self::MuseTalk => "a U-Net of MuseTalk",
            Self::Vae => "an image autoencoder",
            Self::Taesd => "a tiny image autoencoder",
            Self::Config => "a configuration",
            Self::Whisper => "a Whisper model",
        }
    }
}

/// Names that only one kind of file has, the most telling first.
const SIGNS: [(&str, Kind); 10] = [
    ("face_encoder_blocks.0.0.conv_block.0.weight", Kind::Wav2Lip),
    ("audio_model.conv1.conv.0.weight", Kind::SyncTalk2d),
    ("0.conv_block.0.weight", Kind::Ave),
    ("audio_encoder.0.conv_block.0.weight", Kind::Ave),
    ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", Kind::LatentSync),
    ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", Kind::MuseTalk),
    ("decoder.conv_in.weight", Kind::Vae),
    ("decoder.layers.0.weight", Kind::Taesd),
    ("encoder.positional_embedding", Kind::Whisper),
    ("encoder.embed_positions.weight", Kind::Whisper),
];

/// What an ONNX graph is, by its ports; a generator of Wav2Lip where it is nothing else, which is told of it.
fn graph(path: &Path) -> Result<Kind> {
    let model = Model::open(path, &Options { device: Device::Cpu, ..Options::default() })?;
    Ok(match model.signature() {
        ports if occlusion::Ports::of(ports).is_some() => Kind::Masker,
        ports if enhance::is_enhancer(ports) => Kind::Enhancer,
        _ => Kind::Wav2LipGraph,
    })
}

/// What a file is, and its weights where it has some.
pub(super) fn recognise(path: &Path) -> Result<(Kind, Option<Weights>)> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) {
        return Ok((graph(path)?, None));
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        return Ok((Kind::Config, None));
    }
    let weights = Weights::open(path)?;
    let kind = SIGNS.iter().find(|(name, _)| weights.shape(name).is_some()).map(|(_, kind)| *kind);
    // A U-Net without motion modules is told by the channels that go in.
    let clips = weights.shape("conv_in.weight").is_some_and(|shape| shape.get(1) == Some(&latentsync::CHANNELS));
    let kind = kind.map(|kind| if kind == Kind::MuseTalk && clips { Kind::LatentSync } else { kind });
    let kind = kind.ok_or_else(|| {
        let first: Vec<&str> = weights.names().take(3).collect();
        Error::invalid(format!(
            "{}: is of no family that is known; its first tensors are {}",
            path.display(),
            if first.is_empty() { "none".into() } else { first.join(", ") }
        ))
    })?;
    Ok((kind, Some(weights)))
}
