//! Engines in the memory of a device, with the kernels compiled for the processor in place of a card's: the same orchestration as
//! on a card, beside the path on the processor.

#[path = "../common/mod.rs"]
mod common;
mod compact;
mod latentsync;
mod musetalk;
#[path = "../common/narrow.rs"]
mod narrow;
mod pixel;
mod stream;
mod synctalk2d;
#[path = "../common/tiny.rs"]
mod tiny;
mod wav2lip;

use std::{path::Path, sync::Arc};

use common::{Picture, faces};
use lipstream_engines::{
    cuda::{Host, Memory, Pool},
    engine::{Engine, LATENT, Work},
    image::Format,
    runtime::{Device, Options},
};

/// Pixels of a side of the engines' pictures.
const SIDE: usize = 64;
const FORMATS: [Format; 3] = [Format::Nv12, Format::I420, Format::Rgba];
/// Distance of latents from those of the processor, which are about 1: a crop may be 1 of 255 off in some pixels.
const NEAR: f32 = 2e-2;

fn cpu() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

/// The same engine on the processor, and in the memory of a device.
type Both = (Arc<dyn Engine>, Arc<dyn Engine>, Arc<Pool<Host>>);

fn host() -> Arc<Pool<Host>> {
    Arc::new(Pool::new(Host::new().unwrap()))
}

/// What frame `i` hears.
fn sound(engine: &dyn Engine, i: usize) -> Vec<f32> {
    let number = |k: usize| ((k as f32 * 0.37).sin() + (i as f32 * 0.21 + (k % 7) as f32).sin()) / 1.5;
    (0..engine.spec().window.len()).map(number).collect()
}

fn picture(format: Format, shift: f32) -> Picture {
    Picture::new(format, (321, 241), |x, y| {
        let wave = |a: f32, b: f32| 127.0 + 60.0 * ((x - shift) * a + y * b).sin();
        [wave(0.05, 0.02), wave(0.03, -0.04), wave(-0.02, 0.06)]
    })
}

/// A tensor of work, wherever it is.
fn made(work: &Work, name: &str) -> Vec<f32> {
    match work.get(name) {
        Some(here) => here.data.clone(),
        None => {
            let there = work.there(name).unwrap();
            there.buffer.read().unwrap()[there.at..][..there.shape.iter().product()].to_vec()
        }
    }
}

fn latents(work: &Work) -> Vec<f32> {
    made(work, LATENT)
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |most, d| if d >= 0.0 { d.max(most) } else { f32::INFINITY })
}

/// The largest difference of two frames, and how many of their values differ.
fn differ(a: &Picture, b: &Picture) -> (u8, usize) {
    let off = a.planes.iter().flatten().zip(b.planes.iter().flatten()).map(|(a, b)| a.abs_diff(*b));
    (off.clone().max().unwrap(), off.filter(|d| *d > 0).count())
}

/// Notes that items have passed a stage, as the worker does.
fn advance(works: &mut [Work]) {
    works.iter_mut().for_each(Work::advance);
}
