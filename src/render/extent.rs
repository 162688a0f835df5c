//! How far the files of a render are known to reach and how far features have come, on which its threads wait for each other.

use std::{sync::Arc, time::Duration};

use gst::{ClockTime, prelude::*};
use parking_lot::{Condvar, Mutex};

use super::feed::{samples, time};
use crate::{
    error::{Failure, Result},
    termination,
};

/// How often a wait looks whether the work was interrupted.
const POLL: Duration = Duration::from_millis(100);

/// How far the two files are known to reach, and whether that is their end.
#[derive(Default)]
pub struct Extent {
    pub audio: ClockTime,
    pub audio_ended: bool,
    pub video: ClockTime,
    pub video_ended: bool,
    /// How far features have come, and whether these are all.
    pub features: ClockTime,
    pub features_ended: bool,
    /// One of the threads gave up: the other must not wait for it.
    pub failed: bool,
}

#[derive(Default)]
pub struct Shared {
    pub extent: Mutex<Extent>,
    changed: Condvar,
}

impl Shared {
    pub fn update(&self, change: impl FnOnce(&mut Extent)) {
        change(&mut self.extent.lock());
        self.changed.notify_all();
    }

    /// Waits until `ready` gives an answer.
    pub fn wait<T>(&self, mut ready: impl FnMut(&Extent) -> Option<T>) -> Result<T> {
        let mut extent = self.extent.lock();
        loop {
            if let Some(answer) = ready(&extent) {
                return Ok(answer);
            }
            if termination::requested() || extent.failed {
                return Err(Failure::interrupted());
            }
            self.changed.wait_for(&mut extent, POLL);
        }
    }

    /// Has it known which features have come to a pad.
    pub fn hear(self: Arc<Self>, pad: &gst::Pad) {
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            self.note(info);
            gst::PadProbeReturn::Ok
        });
    }

    fn note(&self, info: &gst::PadProbeInfo) {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let end = buffer.pts().map(|pts| pts + buffer.duration().unwrap_or_default());
                self.update(|e| e.features = end.map_or(e.features, |end| e.features.max(end)));
            }
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos => {
                self.update(|e| e.features_ended = true);
            }
            _ => {}
        }
    }

    /// Lets no sound pass a pad that is of the time after the video's end.
    pub fn cut(self: Arc<Self>, pad: &gst::Pad) {
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            match info.buffer().and_then(|buffer| self.within(pad, buffer)) {
                Some(buffer) => {
                    info.data = Some(gst::PadProbeData::Buffer(buffer));
                    gst::PadProbeReturn::Ok
                }
                None => gst::PadProbeReturn::Drop,
            }
        });
    }

    /// What of a buffer of sound is before the end of the video; waits until that is known. `None`: nothing.
    fn within(&self, pad: &gst::Pad, buffer: &gst::Buffer) -> Option<gst::Buffer> {
        let info = gst_audio::AudioInfo::from_caps(&*pad.current_caps()?).ok()?;
        let (rate, size) = (info.rate(), info.bpf() as usize);
        let (first, count) = (samples(buffer.pts()?, rate), buffer.size() / size);
        let end = time(first + count as u64, rate);
        let until = self.wait(|e| (e.video >= end || e.video_ended).then_some(e.video)).ok()?;
        match samples(until, rate).saturating_sub(first) as usize {
            0 => None,
            kept if kept >= count => Some(buffer.clone()),
            kept => {
                let copied =
                    gst::BufferCopyFlags::MEMORY | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::FLAGS;
                let mut part = buffer.copy_region(copied, ..kept * size).ok()?;
                part.make_mut().set_duration(time(first + kept as u64, rate) - time(first, rate));
                Some(part)
            }
        }
    }
}
