//! The sound of a file as an expert hears it.

use std::path::Path;

use lipstream_engines::audio::SAMPLE_RATE;

use super::look::{MOST, RATE, running_time};
use crate::{
    error::{Failure, Kind, Result},
    media::{Media, Notices, Reader, SOUND},
};

/// A stamp that is off by less than this (10 ms) does not move what follows without a gap.
const TOLERANCE: i64 = SAMPLE_RATE as i64 / 100;
/// As long as the longest video that is measured.
const LONGEST: usize = (MOST as f64 / RATE) as usize * SAMPLE_RATE as usize;

/// Mono samples of 16 kHz in -1..1 from `start` on, a running time in seconds; where the file has none, silence.
pub fn samples(path: &Path, start: f64, notices: &Notices) -> Result<Vec<f32>> {
    let converter = format!("{SOUND} ! audioconvert name=head dithering=none ! audioresample");
    let caps = gst::Caps::builder("audio/x-raw")
        .field("format", "F32LE")
        .field("layout", "interleaved")
        .field("rate", SAMPLE_RATE as i32)
        .field("channels", 1)
        .build();
    let mut reader = Reader::open_as(path, Media::Audio, &converter, &caps, notices)?;
    let mut samples: Vec<f32> = Vec::new();
    let mut end = None;
    while let Some(sample) = reader.next_sample()? {
        let Some(buffer) = sample.buffer() else { continue };
        let map = buffer.map_readable().map_err(|_| Failure::run("decoded sound cannot be read"))?;
        let piece = map.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let stamp = running_time(&sample).map(|time| ((time - start) * f64::from(SAMPLE_RATE)).round() as i64);
        let at = match (stamp, end) {
            (Some(stamp), Some(end)) if stamp.abs_diff(end) > TOLERANCE as u64 => stamp,
            (_, Some(end)) => end,
            (stamp, None) => stamp.unwrap_or_default(),
        };
        end = Some(at + piece.len() as i64);
        if at >= LONGEST as i64 {
            break;
        }
        // What comes earlier than what is there already is left out.
        let skip = (samples.len() as i64 - at).max(0) as usize;
        samples.resize(samples.len().max(at.max(0) as usize), 0.0);
        samples.extend(piece.skip(skip));
    }
    samples.truncate(LONGEST);
    Ok(samples)
}

/// As [`samples`]; `None` of a file whose sound cannot be had.
pub fn samples_if_any(path: &Path, start: f64, notices: &Notices) -> Result<Option<Vec<f32>>> {
    match samples(path, start, notices) {
        Err(failure) if failure.kind == Kind::Input => {
            tracing::info!("no sound to judge sync by: {failure}");
            Ok(None)
        }
        other => other.map(Some),
    }
}
