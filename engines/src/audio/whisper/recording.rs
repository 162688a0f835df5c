//! The mel of a recording as a whole, as the published programs have it.

use super::{
    super::{BINS, HOP_SAMPLES},
    mel::{LogMel, NOTHING, normalise, peak},
};

/// Columns that Whisper takes at a time: 30 s.
pub const COLUMNS: usize = 3000;
const SAMPLES: usize = COLUMNS * HOP_SAMPLES;

/// 30 s of mel as the encoder takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// `[80, 3000]`, normalised.
    pub mel: Vec<f32>,
    /// Columns of the recording, of MuseTalk's with the zeros after it; there are half as many rows of the encoder's states.
    pub columns: usize,
}

impl Segment {
    /// Rows of the encoder's states that are taken.
    pub fn rows(&self) -> usize {
        self.columns / 2
    }
}

/// Segments of a recording as LatentSync makes them (latentsync/whisper/whisper/transcribe.py): the mel is that of the whole
/// recording, its floor is below the greatest value of the whole, and what the last segment lacks is zero after normalising:
/// the level of -40 dB, and not silence.
pub fn latentsync(samples: &[f32]) -> Vec<Segment> {
    let (columns, maximum) = analyse(samples);
    let segment = |columns: &[[f32; BINS]]| {
        let mut mel = vec![0.0; BINS * COLUMNS];
        put(&mut mel, columns, maximum);
        Segment { mel, columns: columns.len() }
    };
    columns.chunks(COLUMNS).map(segment).collect()
}

/// Segments of a recording as MuseTalk makes them (musetalk/utils/audio_processor.py): samples are cut into 30 s and the last
/// are followed by zeros before the mel, and each segment's floor is below its own greatest value. Of all segments' rows
/// those of sound are used, see [`super::window::musetalk_rows`].
pub fn musetalk(samples: &[f32]) -> Vec<Segment> {
    let segment = |samples: &[f32]| {
        let mut padded = samples.to_vec();
        padded.resize(SAMPLES, 0.0);
        let (columns, maximum) = analyse(&padded);
        let mut mel = vec![0.0; BINS * COLUMNS];
        put(&mut mel, &columns, maximum);
        Segment { mel, columns: COLUMNS }
    };
    samples.chunks(SAMPLES).map(segment).collect()
}

/// All columns and the greatest value.
fn analyse(samples: &[f32]) -> (Vec<[f32; BINS]>, f32) {
    let (mut mel, mut columns) = (LogMel::default(), Vec::with_capacity(samples.len() / HOP_SAMPLES));
    mel.push(samples, &mut |column| columns.push(*column));
    mel.finish(&mut |column| columns.push(*column));
    let maximum = columns.iter().map(peak).fold(NOTHING, f32::max);
    (columns, maximum)
}

fn put(mel: &mut [f32], columns: &[[f32; BINS]], maximum: f32) {
    for (k, column) in columns.iter().enumerate() {
        for (b, y) in column.iter().enumerate() {
            mel[b * COLUMNS + k] = normalise(*y, maximum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of a tone of an amplitude.
    fn tone(amplitude: f32, seconds: usize) -> Vec<f32> {
        (0..16_000 * seconds).map(|n| amplitude * (n as f64 * 0.3).sin() as f32).collect()
    }

    #[test]
    fn the_end_of_the_last_segment_is_zero_or_silence() {
        let found = latentsync(&tone(0.5, 1));
        assert_eq!((found.len(), found[0].columns, found[0].rows()), (1, 100, 50));
        assert!((0..BINS).all(|b| found[0].mel[b * COLUMNS + 100..][..2900].iter().all(|v| *v == 0.0)));
        let muse = musetalk(&tone(0.5, 1));
        let floor = muse[0].mel[COLUMNS - 1];
        let loudest = muse[0].mel.iter().copied().fold(f32::MIN, f32::max);
        assert!((loudest - 2.0 - floor).abs() < 1e-5 && muse[0].rows() == 1500, "{floor} {loudest}");
    }

    #[test]
    fn the_floor_follows_the_whole_recording_or_the_segment() {
        let sound = [tone(0.001, 30), tone(0.5, 1)].concat();
        let least = |segment: &Segment| {
            let column = (0..BINS).map(|b| segment.mel[b * COLUMNS + 50]);
            column.fold(f32::MAX, f32::min)
        };
        let (whole, own) = (latentsync(&sound), musetalk(&sound));
        assert_eq!((whole.len(), whole[1].columns, own.len()), (2, 100, 2));
        assert!((least(&whole[0]) - least(&whole[1])).abs() < 1e-6);
        assert!(least(&own[0]) < least(&own[1]) - 0.5);
        assert!(latentsync(&[]).is_empty() && musetalk(&[]).is_empty());
    }
}
