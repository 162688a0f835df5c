//! Which engine the files make.

use std::path::{Path, PathBuf};

use super::{
    Request, finish, latent,
    network::Network,
    pixel,
    recognise::{Kind, recognise},
};
use crate::{
    Error, Result,
    manifest::{Family, Features},
    tensor::Weights,
};

/// A file that has been recognised.
pub(super) type Found<'a> = (Kind, &'a PathBuf, Option<Weights>);

/// The networks of an engine and what its manifest says of them.
pub(super) struct Parts {
    pub family: Family,
    pub networks: Vec<Network>,
    pub section: Section,
    pub description: String,
    /// Their licence where the file's own name says whose they are.
    pub licence: Option<&'static str>,
    /// What its project says of the use of its weights.
    pub terms: Option<&'static str>,
}

pub(super) enum Section {
    Wav2Lip {
        side: usize,
        ports: Option<[String; 3]>,
        batch_sizes: Vec<usize>,
    },
    SyncTalk2d {
        side: usize,
        features: Features,
    },
    /// Tables of the manifest by their names.
    Tables(Vec<(&'static str, toml::Table)>),
}

/// Opens the files and finds what each is.
pub(super) fn parts(request: &Request, files: &[PathBuf]) -> Result<Parts> {
    let mut found: Vec<Found> = Vec::new();
    for path in files {
        let (kind, weights) = recognise(path)?;
        if let Some((.., before, _)) = found.iter().map(|(k, p, _)| (k, *p, ())).find(|(k, ..)| **k == kind) {
            return Err(Error::invalid(format!(
                "{} and {} are both {}; one is wanted",
                before.display(),
                path.display(),
                kind.words()
            )));
        }
        found.push((kind, path, weights));
    }
    let mut take = |wanted: Kind| found.iter().position(|(kind, ..)| *kind == wanted).map(|at| found.swap_remove(at));
    let parts = if let Some(generator) = take(Kind::Wav2Lip).or_else(|| take(Kind::Wav2LipGraph)) {
        pixel::of_wav2lip(generator)?
    } else if let Some(enhancer) = take(Kind::Enhancer) {
        finish::of_enhancer(enhancer.1)?
    } else if let Some(masker) = take(Kind::Masker) {
        finish::of_masker(masker.1)?
    } else if let Some(unet) = take(Kind::SyncTalk2d) {
        pixel::of_synctalk2d(unet, take(Kind::Ave), request.features)?
    } else if let Some(unet) = take(Kind::LatentSync).or_else(|| take(Kind::MuseTalk)) {
        let [vae, taesd, whisper, config] = [Kind::Vae, Kind::Taesd, Kind::Whisper, Kind::Config].map(&mut take);
        latent::parts(latent::Files { unet, vae, taesd, whisper, config })?
    } else {
        let what = found.first().map_or("no file was given; name them by --from".into(), |(kind, path, _)| {
            format!(
                "{}: is {}, which needs the file of a generator beside it or is not run here",
                path.display(),
                kind.words()
            )
        });
        return Err(Error::invalid(what));
    };
    if let Some((kind, path, _)) = found.first() {
        return Err(Error::invalid(format!(
            "{}: is {}, which an engine of the family `{}` does not take",
            path.display(),
            kind.words(),
            parts.family
        )));
    }
    if request.family.is_some_and(|family| family != parts.family) {
        let (asked, found) = (request.family.map(|f| f.to_string()).unwrap_or_default(), parts.family);
        return Err(Error::invalid(format!("the files are of the family `{found}`, not `{asked}`")));
    }
    if request.features.is_some() && parts.family != Family::SyncTalk2d {
        return Err(Error::invalid(format!("the family `{}` has no choice of --features", parts.family)));
    }
    Ok(parts)
}

/// The weights of a file that must have some.
pub(super) fn opened(path: &Path, weights: Option<Weights>) -> Result<Weights> {
    weights.ok_or_else(|| Error::invalid(format!("{}: holds no weights", path.display())))
}
