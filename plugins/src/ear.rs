//! What an element that looks at pictures hears of the sound beside them.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use gst::prelude::*;
use lipstream_engines::audio::{Mono, SAMPLE_RATE};
use parking_lot::Mutex;

/// Pieces that wait at most: forty seconds of 20 ms, more than sound can be ahead of the frames.
const PIECES: usize = 2048;
/// Time from a frame's on of which sound is told: more is of no use so far.
const NEAR: Duration = Duration::from_secs(10);

/// Where a thread of the sound leaves it for one of the pictures, while somebody listens.
pub struct Ear {
    listens: AtomicBool,
    mono: Mutex<Mono>,
    pieces: Mutex<VecDeque<(Duration, Vec<f32>)>>,
}

impl Default for Ear {
    fn default() -> Self {
        Self { listens: AtomicBool::new(false), mono: Mutex::new(Mono::new(SAMPLE_RATE)), pieces: Mutex::default() }
    }
}

impl Ear {
    /// Begins or ends to listen.
    pub fn listen(&self, listens: bool) {
        self.listens.store(listens, Relaxed);
        if !listens {
            self.pieces.lock().clear();
        }
    }

    /// A buffer passes a pad.
    pub fn hear(&self, pad: &gst::Pad, buffer: &gst::BufferRef) {
        if !self.listens.load(Relaxed) {
            return;
        }
        let Some(piece) = piece(pad, buffer, &self.mono) else { return };
        let mut pieces = self.pieces.lock();
        if pieces.len() == PIECES {
            pieces.pop_front();
        }
        pieces.push_back(piece);
    }

    /// What has been heard since it was asked last, and is not far from the time of a frame: 16 kHz of one channel from running times on.
    pub fn take(&self, time: Duration) -> VecDeque<(Duration, Vec<f32>)> {
        let mut pieces = self.pieces.lock();
        // Before a jump back are times that are far.
        let near = pieces.iter().rposition(|(at, _)| *at <= time + NEAR);
        pieces.drain(..near.map_or(0, |last| last + 1)).collect()
    }

    /// Forgets what has been heard.
    pub fn clear(&self) {
        self.pieces.lock().clear();
    }
}

/// The samples of a buffer of floats, of one channel, and their running time.
pub fn piece(pad: &gst::Pad, buffer: &gst::BufferRef, mono: &Mutex<Mono>) -> Option<(Duration, Vec<f32>)> {
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let time = segment.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts()?)?;
    let info = pad.current_caps().and_then(|caps| gst_audio::AudioInfo::from_caps(&caps).ok());
    let info = info.filter(|info| info.format() == gst_audio::AudioFormat::F32le)?;
    let map = buffer.map_readable().ok()?;
    let gap = buffer.flags().contains(gst::BufferFlags::GAP);
    let sample = |b: &[u8; 4]| if gap { 0.0 } else { f32::from_le_bytes(*b) };
    let samples = map.as_chunks::<4>().0.iter().map(sample).collect();
    Some((time.into(), mono.lock().mix(samples, info.channels() as usize)))
}
