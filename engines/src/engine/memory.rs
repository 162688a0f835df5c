//! How much memory an engine takes, said before anything of it is loaded.

use crate::{
    Error, Result,
    manifest::{Decoder, Family, Manifest, Package},
    runtime::{self, Device, Options},
};

/// What a loaded network takes of memory besides its weights, where its manifest does not say what its values take.
const UNKNOWN: f64 = 0.5;
/// What the runtime takes beside weights and values, as a part of them.
const BESIDE: f64 = 0.1;
/// What fp16 weights take on a CPU, which widens them: in their file, and as f32.
const WIDENED: u64 = 3;

/// Bytes that the networks of an engine take on a CPU, once they are loaded and the work of one stream passes them: weights as
/// they lie in their files, and the values of each network, which it keeps for the next run.
pub fn memory(package: &Package) -> u64 {
    let manifest = package.manifest();
    let needed = |part: &&String| part.as_str() != unused(manifest);
    let of = |part: &String| {
        let cost = manifest.cost.as_ref();
        let wide = cost.is_some_and(|cost| cost.fp16);
        let weights = package.size_of(part) * if wide { WIDENED } else { 1 };
        let held = cost.and_then(|cost| cost.held_mb.get(part));
        let values = match held {
            Some(megabytes) => f64::from(*megabytes) * 1e6 * rows(package, part),
            None => weights as f64 * UNKNOWN,
        };
        weights + values as u64
    };
    let all: u64 = manifest.files.keys().filter(needed).map(of).sum();
    (all as f64 * (1.0 + BESIDE)) as u64
}

/// The decoder that is not taken.
fn unused(manifest: &Manifest) -> &'static str {
    let decoders = [manifest.latentsync.as_ref().map(|s| s.decoder), manifest.musetalk.as_ref().map(|s| s.decoder)];
    match decoders.contains(&Some(Decoder::Taesd)) {
        true => Decoder::Vae.part(),
        false => Decoder::Taesd.part(),
    }
}

/// Rows of a batch that the work of one stream has in the network of a part, as its manifest says that it runs; the U-Net's are
/// clips of as many frames as it was imported for, one at a time on a CPU, whether a step is guided or not.
fn rows(package: &Package, part: &str) -> f64 {
    let manifest = package.manifest();
    let section = manifest.latentsync.as_ref();
    match (manifest.family, part) {
        (Family::LatentSync, "unet") => section.map_or(1.0, |section| match package.is_exact() {
            true => 1.0,
            false => section.live.clip as f64 / section.frames as f64,
        }),
        (Family::LatentSync, "encoder" | "decoder" | "taesd") => {
            section.map_or(1, |section| super::latent::pictures_at_a_time(section.side)) as f64
        }
        (Family::MuseTalk, "encoder") => 2.0,
        _ => 1.0,
    }
}

/// Refuses an engine that takes more than the `free` bytes, where that is known and it runs in them.
pub fn check(package: &Package, options: &Options, free: Option<u64>) -> Result<()> {
    let needs = memory(package);
    let Some(free) = free.filter(|free| needs > *free) else { return Ok(()) };
    // What `auto` stands for; where nothing works, loading says so.
    let device = runtime::taken(options.device, options.precision, package.largest() as usize);
    match device.unwrap_or(options.device) {
        // A GPU has memory of its own.
        Device::Cuda(_) | Device::TensorRt(_) => Ok(()),
        _ => Err(Error::Memory { what: format!("engine `{}`", package.manifest().name), needs, free }),
    }
}
