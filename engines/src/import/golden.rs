//! Golden files of the published programs: which of their tensors go into which network, and what it should give.
//!
//! Wav2Lip: `mel_in` `[n, 1, 80, 16]`, `face_in` `[6, 96, 96]`, `out` or, of a zip file, `out_zip_even`; of 256 pixels `faces`,
//! `order`, `mel_in`, `out0`. SyncTalk_2D: `160/crop` or `328/crop` (u8 BGR), `*/mask` (inclusive corners), the audio of the
//! features, `mel` and `mel_start` with `ave_feats`. A name that ends in `_even` or `_4th` has every second or fourth row and
//! column.

use super::{
    check::{Difference, difference, run, tensor},
    golden_latent::Golden,
};
use crate::{
    Error, Result,
    manifest::{Family, Features, Package},
    runtime::{Options, Tensor},
    tensor::Weights,
};

pub(super) fn compare(package: &Package, options: &Options, file: &Weights) -> Result<Vec<Difference>> {
    let manifest = package.manifest();
    let latent = Golden { package, options, file };
    if manifest.family == Family::LatentSync {
        return latent.latentsync();
    }
    if let Some(section) = &manifest.musetalk {
        return latent.musetalk(section.latent_scale);
    }
    match (manifest.family, &manifest.wav2lip, &manifest.synctalk2d) {
        (Family::Wav2Lip, Some(section), _) => {
            let model = package.network("generator", options)?;
            let side = section.side;
            let mel = tensor(file, "mel_in")?;
            let mel = Tensor { shape: vec![1, 1, 80, 16], data: head(&mel.data, 1280, "mel_in")? };
            let (face, name, step) = match side {
                96 => {
                    let zip = manifest.sources.iter().any(|source| source.path.contains("zip"));
                    let (name, step) = if zip { ("out_zip_even", 2) } else { ("out", 1) };
                    (tensor(file, "face_in")?.data, name, step)
                }
                _ => {
                    let order = tensor(file, "order")?.data.first().copied().unwrap_or(0.0) as usize;
                    let faces = tensor(file, "faces")?.data;
                    let whole = planes(faces.get(order.saturating_mul(3 * side * side)..).unwrap_or_default(), side)?;
                    let mut hidden = whole.clone();
                    hidden.chunks_exact_mut(side * side).for_each(|plane| plane[side * side / 2..].fill(0.0));
                    ([hidden, whole].concat(), "out0", 1)
                }
            };
            let face = Tensor { shape: vec![1, 6, side, side], data: face };
            let ports = &section.ports;
            let outputs = run(&model, &[(ports.audio.clone(), mel), (ports.face.clone(), face)])?;
            Ok(vec![one(outputs, file, name, side, step)?])
        }
        (Family::SyncTalk2d, _, Some(section)) => {
            let side = section.side;
            let size = if side == 160 { "160" } else { "328" };
            let (audio, name, step) = match (section.features, side) {
                (Features::Compact, _) => {
                    return Err(Error::invalid("there is no golden layout for the features compact"));
                }
                (Features::Ave, 160) => ("160/audio20", "160/out", 1),
                (Features::Ave, _) => ("160/audio20", "328/out_4th", 4),
                (Features::Hubert, _) => ("hubert/audio", "hubert/out_4th", 4),
                (Features::Wenet, _) => ("wenet/audio", "wenet/out_4th", 4),
            };
            let whole = planes(&tensor(file, &format!("{size}/crop"))?.data, side)?;
            let mask = tensor(file, &format!("{size}/mask"))?.data;
            let [x0, y0, x1, y1] = mask[..].first_chunk::<4>().map(|m| m.map(|v| v as usize)).unwrap_or_default();
            if x1 >= side || y1 >= side || x0 > x1 || y0 > y1 {
                return Err(Error::invalid(format!("{}: `{size}/mask` lies outside the picture", file.origin())));
            }
            let mut hidden = whole.clone();
            for plane in hidden.chunks_exact_mut(side * side) {
                (y0..=y1).for_each(|y| plane[y * side + x0..=y * side + x1].fill(0.0));
            }
            let mut audio = tensor(file, audio)?;
            audio.shape.insert(0, 1);
            let face = Tensor { shape: vec![1, 6, side, side], data: [whole, hidden].concat() };
            let model = package.network("unet", options)?;
            let outputs = run(&model, &[("audio".into(), audio), ("face".into(), face)])?;
            let mut all = vec![one(outputs, file, name, side, step)?];
            if section.features == Features::Ave {
                all.push(ave(package, options, file)?);
            }
            Ok(all)
        }
        _ => Err(Error::invalid(format!(
            "there is no golden layout for the family `{}`; `engines check` without --golden compares with its import",
            manifest.family
        ))),
    }
}

/// Every window of the file through the audio-visual encoder.
fn ave(package: &Package, options: &Options, file: &Weights) -> Result<Difference> {
    let model = package.network("ave", options)?;
    let mel = tensor(file, "mel")?.data;
    let starts = tensor(file, "mel_start")?.data;
    let wanted = tensor(file, "ave_feats")?;
    let width = wanted.shape.get(1).copied().unwrap_or(0);
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for (i, start) in starts.iter().enumerate() {
        let first = (*start as usize).saturating_mul(80);
        let columns = mel.get(first..first.saturating_add(16 * 80));
        // The first row stands twice.
        let row = wanted.data.get((i + 1) * width..(i + 2) * width);
        let (Some(columns), Some(row)) = (columns, row) else {
            return Err(Error::invalid(format!("{}: `mel` or `ave_feats` is too short", file.origin())));
        };
        let turned = (0..80).flat_map(|b| (0..16).map(move |c| columns[c * 80 + b])).collect();
        let outputs = run(&model, &[("mel".into(), Tensor { shape: vec![1, 1, 80, 16], data: turned })])?;
        found.extend(outputs.into_iter().next().map(|(_, t)| t.data).unwrap_or_default());
        expected.extend_from_slice(row);
    }
    difference("ave_feats".into(), &found, &expected)
}

fn one(outputs: Vec<(String, Tensor)>, file: &Weights, name: &str, side: usize, step: usize) -> Result<Difference> {
    let picture = outputs.into_iter().next().map(|(_, tensor)| tensor.data).unwrap_or_default();
    let rows = picture.chunks_exact(side * side).flat_map(|plane| plane.chunks_exact(side).step_by(step));
    let thinned: Vec<f32> = rows.flat_map(|row| row.iter().copied().step_by(step)).collect();
    difference(name.to_owned(), &thinned, &tensor(file, name)?.data)
}

fn head(numbers: &[f32], count: usize, name: &str) -> Result<Vec<f32>> {
    numbers
        .get(..count)
        .map(<[f32]>::to_vec)
        .ok_or_else(|| Error::invalid(format!("`{name}` has fewer than {count} numbers")))
}

/// Pixels of three channels as planes of 0..1.
fn planes(pixels: &[f32], side: usize) -> Result<Vec<f32>> {
    let pixels = head(pixels, 3 * side * side, "a picture")?;
    Ok((0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(|v| v / 255.0).collect::<Vec<_>>()).collect())
}
