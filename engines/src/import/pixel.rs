//! Which published files make an engine of Wav2Lip or of SyncTalk_2D, and what its manifest says.

use std::path::Path;

use super::{
    network::{BATCH_SIZES, Builder, Network, Origin, Stage},
    parts::{Found, Parts, Section, opened},
    recognise::Kind,
    synctalk2d,
    wav2lip::{self, MEL},
};
use crate::{
    Error, Result,
    manifest::{Family, Features},
    runtime::{Device, Model, Options, Port},
};

/// What Rudrabha/Wav2Lip's README allows.
const TERMS: &str = "the authors of Wav2Lip allow research and personal use of their weights, and no commercial use";

/// An engine of a generator's weights, or of its graph as it is.
pub(super) fn of_wav2lip((kind, path, weights): Found) -> Result<Parts> {
    let (from, side, ports, fixed) = if kind == Kind::Wav2LipGraph {
        let (side, ports, fixed) = ports(path)?;
        (Origin::Graph(path.clone()), side, Some(ports), fixed)
    } else {
        let weights = opened(path, weights)?;
        let side = wav2lip::side(&weights)?;
        let build: Builder = Box::new(wav2lip::generator);
        (Origin::Weights(weights.into(), build), side, None, false)
    };
    let published = if ports.is_some() { ", an ONNX graph as it was published" } else { "" };
    Ok(Parts {
        family: Family::Wav2Lip,
        networks: vec![Network { part: "generator", from, stage: Stage::Forward, runs: 1.0 }],
        section: Section::Wav2Lip { side, ports, batch_sizes: if fixed { vec![1] } else { BATCH_SIZES.to_vec() } },
        description: format!("Wav2Lip of {side} pixels{published}"),
        licence: None,
        terms: Some(TERMS),
    })
}

/// An engine of a person's U-Net and, for the features `ave`, of their encoder.
pub(super) fn of_synctalk2d(
    (_, path, weights): Found,
    encoder: Option<Found>,
    features: Option<Features>,
) -> Result<Parts> {
    let weights = opened(path, weights)?;
    let features = match (features, &encoder) {
        (Some(features), _) => features,
        (None, Some(_)) => Features::Ave,
        (None, None) => {
            return Err(Error::invalid(format!(
                "{}: whether its features are of ave, hubert, wenet or compact cannot be told from the weights; say --features",
                path.display()
            )));
        }
    };
    let side = synctalk2d::side(&weights);
    let channels = synctalk2d::channels(&weights)?;
    if (features == Features::Compact)
        != (channels == 16 && features != Features::Hubert && features != Features::Wenet)
    {
        return Err(Error::invalid(format!(
            "{}: takes audio of {channels} channels, and the features {} have {}",
            path.display(),
            features.name(),
            if features == Features::Compact { 16 } else { 32 }
        )));
    }
    let build: Builder = Box::new(move |graph, weights| synctalk2d::unet(graph, weights, features));
    let from = Origin::Weights(weights.into(), build);
    let mut networks = vec![Network { part: "unet", from, stage: Stage::Forward, runs: 1.0 }];
    match (features, encoder) {
        (Features::Ave, Some((_, path, weights))) => {
            let weights = opened(path, weights)?;
            let from = Origin::Weights(weights.into(), Box::new(synctalk2d::ave));
            networks.push(Network { part: "ave", from, stage: Stage::FrontEnd, runs: 1.0 });
        }
        (Features::Ave, None) => {
            return Err(Error::invalid(
                "the features ave need the audio-visual encoder: add --from audio_visual_encoder.pth".to_owned(),
            ));
        }
        (_, Some((_, path, _))) => {
            return Err(Error::invalid(format!("{}: is of the features ave, not {}", path.display(), features.name())));
        }
        (_, None) => (),
    }
    Ok(Parts {
        family: Family::SyncTalk2d,
        networks,
        section: Section::SyncTalk2d { side, features },
        description: format!("SyncTalk_2D of {side} pixels with features of {}; one person's", features.name()),
        licence: None,
        terms: None,
    })
}

/// Side, ports and whether the batch is fixed at one, of an ONNX graph of Wav2Lip.
fn ports(path: &Path) -> Result<(usize, [String; 3], bool)> {
    let model = Model::open(path, &Options { device: Device::Cpu, ..Options::default() })?;
    let signature = model.signature();
    let of = |shape: [Option<usize>; 3], ports: &[Port]| {
        let fits = |port: &&Port| {
            port.shape.len() == 4 && shape.iter().zip(&port.shape[1..]).all(|(want, is)| want.is_none() || want == is)
        };
        ports.iter().find(fits).cloned()
    };
    let described = || {
        let ports = signature.inputs.iter().chain(&signature.outputs);
        ports.map(|p| format!("{} {}", p.name, p.describe())).collect::<Vec<_>>().join(", ")
    };
    let refuse = || Error::Mismatch {
        model: path.display().to_string(),
        what: "ports".into(),
        expected: "[batch, 1, 80, 16], [batch, 6, side, side] and [batch, 3, side, side]".into(),
        found: described(),
    };
    let audio = of([Some(1), Some(MEL[0]), Some(MEL[1])], &signature.inputs).ok_or_else(refuse)?;
    let face = of([Some(6), None, None], &signature.inputs).ok_or_else(refuse)?;
    let side = face.shape[2]
        .filter(|side| face.shape[3] == Some(*side) && (*side == 96 || *side == 256))
        .ok_or_else(refuse)?;
    let picture = of([Some(3), Some(side), Some(side)], &signature.outputs).ok_or_else(refuse)?;
    if signature.inputs.len() != 2 {
        return Err(refuse());
    }
    let fixed = [&audio, &face].iter().any(|port| port.shape[0].is_some());
    Ok((side, [audio.name, face.name, picture.name], fixed))
}
