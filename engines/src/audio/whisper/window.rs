//! Which rows of the encoder's states a video frame takes: 50 a second, ten a frame.

use super::super::SAMPLE_RATE;

/// Rows that a frame takes.
pub const ROWS: usize = 10;
/// Rows a second.
const RATE: f64 = 50.0;
/// Rows before the frame's own time.
pub(super) const BEFORE: i64 = 4;

/// Rows of frame `i` at `fps` as LatentSync takes them of `count` (latentsync/whisper/audio2feature.py): `int(50 i / fps) -
/// 4` to `+ 5`, of which those before the first and after the last are the first and the last. `None` where there is no row,
/// or `fps` is not positive.
pub fn latentsync(frame: u64, fps: f64, count: usize) -> Option<[usize; ROWS]> {
    let centre = whole(frame as f64 * RATE / fps).filter(|_| fps > 0.0)?;
    let last = count.checked_sub(1)?;
    Some(std::array::from_fn(|k| (centre - BEFORE + k as i64).clamp(0, last as i64) as usize))
}

/// Frames that LatentSync makes of `count` rows: one more than begin within them or at their end. None unless `fps` is in 0..1000.
pub fn latentsync_frames(fps: f64, count: usize) -> u64 {
    if !(fps > 0.0 && fps <= 1000.0) {
        return 0;
    }
    let beyond = |frame: u64| whole(frame as f64 * (RATE / fps)).is_none_or(|start| start > count as i64);
    let about = (count as f64 * fps / RATE).clamp(0.0, 1e9) as u64;
    (about.saturating_sub(2)..).find(|frame| beyond(*frame)).map_or(0, |frame| frame + 1)
}

/// Rows of frame `i` as MuseTalk takes them of `count` (musetalk/utils/audio_processor.py), which uses whole frames a second;
/// `None` is a row of zeros. The first is `floor(50 i / fps)` less `2 ceil(50 / fps)`, so that below 25 fps a frame hears
/// less of the future and more of the past than at 25, and from 50 on the reverse.
pub fn musetalk(frame: u64, fps: u32, count: usize) -> [Option<usize>; ROWS] {
    let multiple = RATE / f64::from(fps.max(1));
    let first = whole((frame as f64 * multiple).floor()).unwrap_or(i64::MAX / 2) - 2 * multiple.ceil() as i64;
    std::array::from_fn(|k| usize::try_from(first + k as i64).ok().filter(|row| *row < count))
}

/// Rows that MuseTalk uses of so many samples at 16 kHz: the whole ones, `samples / 320`.
pub fn musetalk_rows(samples: usize) -> usize {
    samples / (SAMPLE_RATE as usize / RATE as usize)
}

/// Frames that MuseTalk makes of so many samples at 16 kHz: those that end within them.
pub fn musetalk_frames(samples: usize, fps: u32) -> usize {
    (samples as u64).saturating_mul(fps.into()).div_euclid(SAMPLE_RATE.into()) as usize
}

fn whole(v: f64) -> Option<i64> {
    (v.is_finite() && v.abs() < 1e15).then_some(v as i64)
}

/// The window of a frame, `[10 · row]`: rows of `width` numbers each by their indices in `states`, which has as many; what
/// there is not is zero. A row holds the states of all blocks one after the other, so that a window is `[50, state]` for a
/// network of four blocks.
pub fn gather(states: &[f32], width: usize, rows: impl IntoIterator<Item = Option<usize>>) -> Vec<f32> {
    let mut window = Vec::with_capacity(ROWS * width);
    for row in rows {
        let found = row.and_then(|row| states.get(row.checked_mul(width)?..)?.get(..width));
        match found {
            Some(row) => window.extend_from_slice(row),
            None => window.resize(window.len() + width, 0.0),
        }
    }
    window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latentsync_repeats_the_ends() {
        assert_eq!(latentsync(0, 25.0, 100), Some([0, 0, 0, 0, 0, 1, 2, 3, 4, 5]));
        assert_eq!(latentsync(10, 25.0, 100), Some([16, 17, 18, 19, 20, 21, 22, 23, 24, 25]));
        assert_eq!(latentsync(7, 30.0, 100), Some([7, 8, 9, 10, 11, 12, 13, 14, 15, 16]));
        assert_eq!(latentsync(49, 25.0, 100), Some([94, 95, 96, 97, 98, 99, 99, 99, 99, 99]));
        assert_eq!((latentsync(0, 25.0, 0), latentsync(0, 0.0, 9), latentsync(3, f64::NAN, 9)), (None, None, None));
        assert_eq!(
            (latentsync_frames(25.0, 100), latentsync_frames(30.0, 100), latentsync_frames(25.0, 0)),
            (52, 62, 2)
        );
    }

    #[test]
    fn musetalk_has_zeros_beyond_the_ends() {
        let rows =
            |from: i64| -> [Option<usize>; ROWS] { std::array::from_fn(|k| usize::try_from(from + k as i64).ok()) };
        assert_eq!(musetalk(0, 25, 100), rows(-4));
        assert_eq!(musetalk(10, 25, 100), rows(16));
        assert_eq!(musetalk(1, 30, 100), rows(-3));
        assert_eq!(musetalk(10, 50, 100), rows(8));
        assert_eq!(musetalk(49, 25, 100)[5..], [Some(99), None, None, None, None]);
        assert_eq!((musetalk_frames(32_000, 25), musetalk_frames(47_999, 30)), (50, 89));
        assert_eq!((musetalk(u64::MAX, 0, 5), musetalk_rows(47_999)), ([None; ROWS], 149));
    }

    #[test]
    fn a_window_is_its_rows() {
        let states: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let found = gather(&states, 3, [Some(2), None, Some(0), Some(4), Some(usize::MAX)]);
        assert_eq!(found, [6.0, 7.0, 8.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
