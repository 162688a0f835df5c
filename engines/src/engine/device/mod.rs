//! What engines share that keep a stream in the memory of a device: of a frame the region of the face goes there, and the region
//! that is pasted comes back. What is between stays.
//!
//! - [`stage`]: a network that reads and writes there; [`picture`]: what is shown from there.
//!
//! All of it is orchestration over [`Memory`], a card's or its stand-in's: what runs is the kernels of [`crate::kernels`], and the
//! networks bound to the same memory.

mod picture;
mod stage;

use std::sync::Arc;

pub(super) use picture::{Coverage, DevicePicture};
pub(super) use stage::BoundStage;

use crate::{
    Error, Result,
    cuda::{Buffer, Card, Memory, Pool},
    geometry::Similarity,
    image::FrameView,
    kernels::{DeviceCrop, all_finite},
    manifest::Package,
    runtime::{Device, Model, Options},
};

/// The card on which a device's networks run, in whose memory they read and write: TensorRT's provider takes tensors in CUDA memory as
/// the CUDA provider does.
fn card_of(device: Device) -> Option<u32> {
    match device {
        Device::Cuda(number) | Device::TensorRt(number) => Some(number),
        Device::Auto | Device::Cpu | Device::OpenVino => None,
    }
}

/// What `make` makes for the card that an engine's networks run on. `None` where they run elsewhere, and where the card cannot run
/// the kernels, of which a line of the log tells.
pub(super) fn on_card<T>(engine: &str, device: Device, make: impl FnOnce(Arc<dyn Memory>) -> Result<T>) -> Option<T> {
    let number = card_of(device)?;
    match Card::open(number as usize).and_then(|card| make(Arc::new(Pool::new(card)))) {
        Ok(made) => Some(made),
        Err(error) => {
            tracing::warn!(engine, %device, %error, "frames travel through the processor's memory");
            None
        }
    }
}

/// The network of an engine that the manifest calls `part`. Errors: it does not run in `memory`.
pub(super) fn network(memory: &dyn Memory, package: &Package, part: &str, options: &Options) -> Result<Arc<Model>> {
    let model = package.network(part, options)?;
    model.runs_at(memory.place()).map_err(Error::invalid)?;
    Ok(model)
}

/// The crop of a face, of `side` pixels. `None` where the frame shows nothing of it, and where memory has ended: then the frame is
/// left as it is.
pub(super) fn taken(
    memory: &Arc<dyn Memory>,
    frame: &FrameView,
    side: usize,
    to_crop: &Similarity,
) -> Result<Option<DeviceCrop>> {
    left(&**memory, DeviceCrop::take(memory, frame, side, to_crop, true), None)
}

/// What was made, and `nothing` where memory ended: then the frame is left as it is, and what is kept for later was given back.
pub(super) fn left<T>(memory: &dyn Memory, made: Result<T>, nothing: T) -> Result<T> {
    match made {
        Err(error @ Error::OutOfMemory { .. }) => {
            memory.trim();
            tracing::warn!(%error, "a frame is left as it is");
            Ok(nothing)
        }
        other => other,
    }
}

/// An error where one of the first `count` numbers that a network said is none.
pub(super) fn numbers(
    memory: &Arc<dyn Memory>,
    model: &Model,
    output: &str,
    values: &Buffer<f32>,
    count: usize,
) -> Result<()> {
    if all_finite(memory, values, count)? {
        return Ok(());
    }
    Err(Error::NotFinite { model: model.name().into(), output: output.into() })
}

/// An error, after what is kept for later was given back where memory ended.
pub(super) fn trimmed(memory: &dyn Memory, error: Error) -> Error {
    if matches!(error, Error::OutOfMemory { .. }) {
        memory.trim();
    }
    error
}

/// Tries the first `some` of `sizes`, or all of a network whose programs were built before, so that none is loaded in the midst of a
/// stream; as far as there is memory for more than `some`.
pub(super) fn warm_up(
    model: &Model,
    sizes: &[usize],
    some: usize,
    mut try_out: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let count = if model.is_built() { sizes.len() } else { some };
    for (i, rows) in sizes.iter().enumerate().take(count) {
        match try_out(*rows) {
            Err(error @ Error::OutOfMemory { .. }) if i >= some => {
                tracing::warn!(%error, rows, "larger batches are not made ready");
                break;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Numbers that a network is tried with.
pub(super) fn made_up(memory: &Arc<dyn Memory>, count: usize) -> Result<Buffer<f32>> {
    let numbers: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin()).collect();
    Buffer::of(memory, &numbers)
}
