//! The families that keep a stream in the memory of a device. One more needs its line in [`made`], [`there`] and [`through_host`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use lipstream_engines::{
    Error, Result,
    cuda::Memory,
    engine::{
        Engine,
        compact::Compact,
        latent::{LatentSync, MuseTalk},
        pixel::Pixel,
    },
    import::onnx::Precision,
    manifest::{Family, Package},
    runtime::Options,
};

use super::{layout::Widths, weights};

/// The folder of the engine that is called `name`: one of random weights of these widths, made in `home`, or one that ships, below
/// `models`.
pub fn made(name: &str, home: &Path, models: &Path, widths: &Widths, precision: Precision) -> Result<PathBuf> {
    match name {
        "latentsync" => weights::latent(home, Family::LatentSync, widths, precision),
        "musetalk" => weights::latent(home, Family::MuseTalk, widths, precision),
        "wav2lip" => weights::pixel(home, Family::Wav2Lip, widths, precision),
        "synctalk2d" => weights::pixel(home, Family::SyncTalk2d, widths, precision),
        _ if name.starts_with("compact") => Ok(models.join(name)),
        _ => Err(Error::invalid(format!(
            "`{name}` is none of latentsync, musetalk, wav2lip, synctalk2d, compact, compact-words"
        ))),
    }
}

/// With streams in `memory`.
pub fn there(package: &Package, options: &Options, memory: Arc<dyn Memory>) -> Result<Arc<dyn Engine>> {
    Ok(match package.manifest().family {
        Family::LatentSync => Arc::new(LatentSync::load_in(package, options, memory)?),
        Family::MuseTalk => Arc::new(MuseTalk::load_in(package, options, memory)?),
        Family::Wav2Lip | Family::SyncTalk2d => Arc::new(Pixel::load_in(package, options, memory)?),
        Family::Compact => Arc::new(Compact::load_in(package, options, memory)?),
        family => return Err(elsewhere(family)),
    })
}

/// With streams that travel through the processor's memory, whatever the device of its networks.
pub fn through_host(package: &Package, options: &Options) -> Result<Arc<dyn Engine>> {
    Ok(match package.manifest().family {
        Family::LatentSync => Arc::new(LatentSync::load_through_host(package, options)?),
        Family::MuseTalk => Arc::new(MuseTalk::load_through_host(package, options)?),
        Family::Wav2Lip | Family::SyncTalk2d => Arc::new(Pixel::load_through_host(package, options)?),
        Family::Compact => Arc::new(Compact::load_through_host(package, options)?),
        family => return Err(elsewhere(family)),
    })
}

fn elsewhere(family: Family) -> Error {
    Error::invalid(format!("engines of the family `{family}` keep no stream in the memory of a device"))
}
