//! `speaker=auto`: whose lips follow the sound.

use std::sync::Arc;

use lipstream_engines::{
    Result,
    manifest::Package,
    quality::{
        expert::Expert,
        sync::{Turn, Turns},
    },
    runtime::{Device, Options},
    tracker::Face,
};

use crate::ear::Ear;

/// Judges between the faces of a stream.
pub struct Listener {
    turns: Turns,
    ear: Arc<Ear>,
}

impl Listener {
    /// Whatever the engine runs on: small networks on the CPU, on the thread of the frames.
    pub fn new(ear: Arc<Ear>) -> Result<Self> {
        let options = Options { device: Device::Cpu, threads: 1, ..Options::default() };
        Ok(Self { turns: Turns::new(Expert::load(&Package::find("expert")?, &options)?), ear })
    }

    /// Looks at the faces of the frame of running time `time`; who speaks, where that is known.
    pub fn look<'a>(&mut self, faces: impl Iterator<Item = &'a Face>, time: gst::ClockTime) -> Result<Option<Turn>> {
        for (at, samples) in self.ear.take(time.into()) {
            self.turns.hear(at, &samples);
        }
        self.turns.see(time.into(), faces.map(|face| (face.track_id, &*face.points)))
    }

    pub fn flush(&mut self) {
        self.ear.clear();
        self.turns.flush();
    }
}
