//! The second voice of a session in what viewers hear: the lip-sync hears it and passes on the first one's sound alone.

use std::{collections::VecDeque, sync::Arc};

use gst::prelude::*;
use parking_lot::Mutex;

/// Most stretches that wait for their place: 30 s.
const MOST: usize = 1500;

/// See the module. Stretches of both voices have the same times and lengths.
#[derive(Default)]
pub struct Mix {
    waiting: Mutex<VecDeque<(gst::ClockTime, Vec<f32>)>>,
}

impl Mix {
    /// Adds what is waiting to the buffers of interleaved 32-bit samples that leave `pad`.
    pub fn into_sound_of(self: &Arc<Self>, pad: &gst::Pad) {
        let mix = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer_mut() {
                mix.add_to(buffer);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Has `samples` heard in the buffer whose timestamp is `at`.
    pub fn wait(&self, at: gst::ClockTime, samples: &[f32]) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MOST {
            waiting.pop_front();
        }
        waiting.push_back((at, samples.to_vec()));
    }

    fn add_to(&self, buffer: &mut gst::Buffer) {
        let Some(at) = buffer.pts() else { return };
        let samples = {
            let mut waiting = self.waiting.lock();
            // The first voice's sound of that time will not come any more.
            while waiting.front().is_some_and(|(time, _)| *time < at) {
                waiting.pop_front();
            }
            match waiting.front() {
                Some((time, _)) if *time == at => waiting.pop_front().map(|(_, samples)| samples),
                _ => None,
            }
        };
        let Some(samples) = samples.filter(|samples| samples.iter().any(|sample| *sample != 0.0)) else { return };
        let Ok(mut map) = buffer.make_mut().map_writable() else { return };
        for (bytes, sample) in map.chunks_exact_mut(4).zip(samples) {
            let own = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            bytes.copy_from_slice(&(own + sample).clamp(-1.0, 1.0).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(at: u64, level: f32) -> gst::Buffer {
        let mut buffer = gst::Buffer::from_mut_slice(level.to_le_bytes().repeat(8));
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(at));
        buffer
    }

    fn level(buffer: &gst::Buffer) -> f32 {
        f32::from_le_bytes(buffer.map_readable().unwrap()[..4].try_into().unwrap())
    }

    #[test]
    fn both_voices_are_heard_at_their_time_and_what_has_passed_is_not() {
        gst::init().unwrap();
        let mix = Mix::default();
        let wait = |at, level| mix.wait(gst::ClockTime::from_mseconds(at), &[level; 8]);
        [(0, 0.5), (20, 0.25), (40, 0.9)].into_iter().for_each(|(at, level)| wait(at, level));
        // The first voice has nothing of the first 20 ms, and the third is not there yet when it is heard.
        let mut second = sound(20, 0.5);
        let shared = second.clone();
        mix.add_to(&mut second);
        assert_eq!((level(&second), level(&shared)), (0.75, 0.5), "whoever else holds the buffer sees it as it was");
        let mut early = sound(30, 0.5);
        mix.add_to(&mut early);
        assert_eq!(level(&early), 0.5);
        let mut third = sound(40, 0.5);
        mix.add_to(&mut third);
        assert_eq!(level(&third), 1.0, "it does not go beyond full scale");
    }

    #[test]
    fn what_nobody_hears_does_not_pile_up() {
        gst::init().unwrap();
        let mix = Mix::default();
        (0..2 * MOST as u64).for_each(|n| mix.wait(gst::ClockTime::from_mseconds(20 * n), &[0.0; 8]));
        assert_eq!(mix.waiting.lock().len(), MOST);
    }
}
