//! The encoder on the audio's running time: where samples belong, which are missing, and the PTS of each feature.

use std::collections::VecDeque;

use gst::prelude::*;
use lipstream_engines::{
    Result,
    audio::{FrontEnd, SAMPLE_RATE},
};

use super::activity::VoiceActivity;
use crate::features;

/// Timestamps that differ by less from the count of samples are jitter: 10 ms.
const JITTER: i64 = SAMPLE_RATE as i64 / 100;
/// A hole up to this long is filled with silence; longer ones, and jumps back, start the encoder over: 1 s.
const LONGEST_HOLE: i64 = SAMPLE_RATE as i64;

pub struct Hops {
    encoder: Box<dyn FrontEnd>,
    /// Running time of sample 0 since the last start; `None` before the first.
    anchor: Option<gst::ClockTime>,
    /// Samples and features since then.
    samples: u64,
    features: u64,
    /// Samples from the start of the next feature's hop on.
    heard: VecDeque<f32>,
    activity: VoiceActivity,
    /// Audio before this running time counts as silence.
    hushed: Option<gst::ClockTime>,
}

impl Hops {
    pub fn new(encoder: Box<dyn FrontEnd>) -> Self {
        Self {
            encoder,
            anchor: None,
            samples: 0,
            features: 0,
            heard: VecDeque::new(),
            activity: VoiceActivity::default(),
            hushed: None,
        }
    }

    pub fn encoder(&self) -> &dyn FrontEnd {
        &*self.encoder
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.encoder.reset();
        self.anchor = None;
        (self.samples, self.features) = (0, 0);
        self.heard.clear();
        self.activity = VoiceActivity::default();
        self.hushed = None;
    }

    /// What has been heard was silence, as is what comes of the time before `until`.
    pub fn interrupt(&mut self, until: Option<gst::ClockTime>) {
        self.encoder.hush();
        self.heard.iter_mut().for_each(|s| *s = 0.0);
        self.activity = VoiceActivity::default();
        self.hushed = until;
    }

    /// Takes samples that start at the running time `time` (`None`: where the last ended) and gives the features
    /// that they complete.
    pub fn push(&mut self, time: Option<gst::ClockTime>, samples: &[f32]) -> Result<Vec<gst::Buffer>> {
        let mut out = Vec::new();
        let quiet;
        let mut samples = samples;
        match (self.hushed, time) {
            (Some(until), Some(time)) if time < until => {
                let count = (position(until) - position(time)).clamp(0, samples.len() as i64) as usize;
                quiet = [&vec![0.0; count], &samples[count..]].concat();
                samples = &quiet;
            }
            _ => self.hushed = None,
        }
        let off = match (self.anchor, time) {
            (Some(anchor), Some(time)) => position(time) - position(anchor) - self.samples as i64,
            _ => 0,
        };
        if off > LONGEST_HOLE || -off > LONGEST_HOLE.max(samples.len() as i64) {
            out = self.finish()?;
        } else if off > JITTER {
            self.encode(&vec![0.0; off as usize], &mut out)?;
        } else if off < -JITTER {
            // These have been heard already.
            samples = &samples[samples.len().min(off.unsigned_abs() as usize)..];
        }
        if self.anchor.is_none() {
            let anchor = time.unwrap_or(gst::ClockTime::ZERO);
            self.encoder.begin_at(anchor.into());
            self.anchor = Some(anchor);
        }
        self.encode(samples, &mut out)?;
        Ok(out)
    }

    /// Takes silence from the running time `time` on.
    pub fn silence(&mut self, time: gst::ClockTime, duration: gst::ClockTime) -> Result<Vec<gst::Buffer>> {
        let samples = position(duration).min(LONGEST_HOLE) as usize;
        self.push(Some(time), &vec![0.0; samples])
    }

    /// Ends the stream: every hop that has begun is given.
    pub fn finish(&mut self) -> Result<Vec<gst::Buffer>> {
        let mut vectors: Vec<Vec<f32>> = Vec::new();
        if self.samples > 0 {
            self.encoder.finish(&mut |feature| vectors.push(feature.to_vec()))?;
        }
        let out = vectors.iter().map(|v| self.stamp(v)).collect();
        let hushed = self.hushed;
        self.reset();
        self.hushed = hushed;
        Ok(out)
    }

    fn encode(&mut self, samples: &[f32], out: &mut Vec<gst::Buffer>) -> Result<()> {
        let mut vectors: Vec<Vec<f32>> = Vec::new();
        self.encoder.push(samples, &mut |feature| vectors.push(feature.to_vec()))?;
        self.samples += samples.len() as u64;
        self.heard.extend(samples.iter().map(|s| if s.is_finite() { *s } else { 0.0 }));
        out.extend(vectors.iter().map(|v| self.stamp(v)));
        Ok(())
    }

    fn stamp(&mut self, feature: &[f32]) -> gst::Buffer {
        let hop: gst::ClockTime = self.encoder.hop().try_into().expect("a hop is milliseconds");
        let anchor = self.anchor.unwrap_or(gst::ClockTime::ZERO);
        let mut buffer = features::to_buffer(feature, anchor + hop * self.features, hop);
        let b = buffer.get_mut().expect("the only reference");
        if self.features == 0 {
            b.set_flags(gst::BufferFlags::DISCONT);
        }
        if !self.voiced() {
            b.set_flags(gst::BufferFlags::GAP);
        }
        self.features += 1;
        buffer
    }

    /// Whether the audio of the next feature, from its hop's start on, has voice.
    fn voiced(&mut self) -> bool {
        let count = |time: std::time::Duration| time.as_micros() as usize * (SAMPLE_RATE as usize / 1000) / 1000;
        let (hop, own) = (count(self.encoder.hop()), count(self.encoder.own_sound()));
        let audio = self.heard.make_contiguous();
        let voiced = self.activity.voiced(&audio[..audio.len().min(own.max(hop))]);
        self.heard.drain(..hop.min(self.heard.len()));
        voiced
    }
}

/// A time in samples, rounded.
fn position(time: gst::ClockTime) -> i64 {
    time.nseconds().mul_div_round(SAMPLE_RATE as u64, 1_000_000_000).map_or(i64::MAX / 4, |p| p as i64)
}
