//! The sound of a file as an expert hears it.

use std::path::Path;

use lipstream_engines::audio::{Mono, SAMPLE_RATE};

use super::frames::{MOST, RATE};
use crate::{
    error::{Failure, Kind, Result},
    media::{Media, Notices, Reader, SOUND, Sound, Track, timeline::SECOND},
};

/// As long as the longest video that is measured.
const LONGEST: usize = (MOST as f64 / RATE) as usize * SAMPLE_RATE as usize;

/// Mono samples of 16 kHz in -1..1 from `start` on, a running time in seconds; where the file has none, silence.
pub fn samples(path: &Path, track: &Track, start: f64, notices: &Notices) -> Result<Vec<f32>> {
    let converter = format!("{SOUND} ! audioconvert dithering=none ! audioresample");
    let caps = gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("rate", SAMPLE_RATE as i32)
        .build();
    let mut sound = Sound::of(Reader::open_as(path, Media::Audio, track, &converter, &caps, notices)?, notices)?;
    sound.begin_at((start * SECOND as f64) as i64);
    let mut mono = Mono::new(SAMPLE_RATE);
    let mut samples: Vec<f32> = Vec::new();
    while let Some(sample) = sound.next_sample()?
        && samples.len() < LONGEST
    {
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else { continue };
        let info = gst_audio::AudioInfo::from_caps(caps)?;
        let map = buffer.map_readable().map_err(|_| Failure::run("decoded sound cannot be read"))?;
        let piece = map.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        samples.extend(mono.mix(piece, info.channels() as usize));
    }
    samples.truncate(LONGEST);
    Ok(samples)
}

/// As [`samples`]; `None` of a file whose sound cannot be had.
pub fn samples_if_any(path: &Path, track: &Track, start: f64, notices: &Notices) -> Result<Option<Vec<f32>>> {
    match samples(path, track, start, notices) {
        Err(failure) if failure.kind == Kind::Input => {
            tracing::info!("no sound to judge sync by: {failure}");
            Ok(None)
        }
        other => other.map(Some),
    }
}
