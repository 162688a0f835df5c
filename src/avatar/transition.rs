//! Which frame comes next, and where two clips fit together.

use std::ops::Range;

use super::clip::Clip;

/// Frames of a cross-dissolve.
pub const DISSOLVE: usize = 5;
/// Longest wait for a good place to leave a clip, in seconds; with a dissolve that has to end first a switch begins
/// within 1.5 s.
const WAIT: f64 = 1.2;
/// How far into an action it may be entered, in seconds: what comes before is not seen.
const ENTRY: f64 = 0.3;
/// What a second of waiting is worth in 8-bit codes of a thumbnail, so that of two equal places the sooner is taken.
const HURRY: f32 = 0.3;
/// Places that are compared closely, of all that are looked at.
const FINALISTS: usize = 24;

/// A frame of a clip and where the next one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub frame: usize,
    pub forward: bool,
}

impl Position {
    pub const START: Self = Self { frame: 0, forward: true };

    /// The place after this one. To and fro the ends are shown once and without a pause; once through, the last frame
    /// stays.
    pub fn next(self, frames: usize, to_and_fro: bool) -> Self {
        let last = frames - 1;
        match (self.forward, self.frame) {
            (true, frame) if frame < last => Self { frame: frame + 1, ..self },
            (false, frame) if frame > 0 => Self { frame: frame - 1, ..self },
            _ if !to_and_fro || last == 0 => self,
            (true, frame) => Self { frame: frame - 1, forward: false },
            (false, frame) => Self { frame: frame + 1, forward: true },
        }
    }

    fn after(self, steps: usize, frames: usize, to_and_fro: bool) -> Self {
        (0..steps).fold(self, |place, _| place.next(frames, to_and_fro))
    }
}

/// A clip and how it is played.
#[derive(Clone, Copy)]
pub struct Playback<'a> {
    pub clip: &'a Clip,
    pub to_and_fro: bool,
}

impl Playback<'_> {
    fn steps(&self, seconds: f64) -> usize {
        (seconds * f64::from(self.clip.shape.fps.0) / f64::from(self.clip.shape.fps.1)) as usize
    }
}

/// When to leave a clip, and where to enter the other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Frames of the old clip that are still shown by themselves.
    pub wait: usize,
    pub entry: Position,
}

/// The best way from `at` on `from` to `to` soon.
pub fn soon(from: Playback, at: Position, to: Playback) -> Transition {
    best(from, at, 0..from.steps(WAIT) + 1, to)
}

/// The best way from `at` on `from`, which is played once, to `to` at its end.
pub fn at_end(from: Playback, at: Position, to: Playback) -> Transition {
    let left = (from.clip.frames() - 1).saturating_sub(at.frame);
    let latest = left.saturating_sub(DISSOLVE - 1);
    best(from, at, latest.saturating_sub(from.steps(ENTRY))..latest + 1, to)
}

fn best(from: Playback, at: Position, waits: Range<usize>, to: Playback) -> Transition {
    let frames = to.clip.frames();
    let entries = if to.to_and_fro { frames } else { (to.steps(ENTRY) + 1).min(frames) };
    let mut candidates = Vec::new();
    let mut place = at.after(waits.start, from.clip.frames(), from.to_and_fro);
    for wait in waits.clone() {
        // Thumbnails change little from frame to frame: every second one finds the neighbourhood.
        for frame in (0..entries).skip(wait % 2).step_by(2) {
            candidates.push((from.clip.distance(place.frame, to.clip, frame), wait, frame));
        }
        place = place.next(from.clip.frames(), from.to_and_fro);
    }
    let count = FINALISTS.min(candidates.len());
    if count > 0 && count < candidates.len() {
        candidates.select_nth_unstable_by(count - 1, |a, b| a.0.total_cmp(&b.0));
    }
    let finalists = &candidates[..count];
    let hurry = HURRY / from.steps(1.0).max(1) as f32;
    let tries = finalists.iter().flat_map(|(_, wait, frame)| {
        let near = frame.saturating_sub(1)..(frame + 2).min(entries);
        near.flat_map(move |frame| [true, false].map(|forward| (*wait, Position { frame, forward })))
    });
    tries
        .filter(|(_, entry)| entry.forward || to.to_and_fro)
        .map(|(wait, entry)| {
            let leave = at.after(wait, from.clip.frames(), from.to_and_fro);
            let cost = along(from, leave, to, entry) + hurry * (wait - waits.start) as f32;
            (cost, Transition { wait, entry })
        })
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(Transition { wait: waits.start, entry: Position::START }, |(_, plan)| plan)
}

/// How far the two are apart over a dissolve: at its start, middle and end, so that they move alike too.
fn along(from: Playback, leave: Position, to: Playback, entry: Position) -> f32 {
    [0, DISSOLVE / 2, DISSOLVE - 1]
        .into_iter()
        .map(|steps| {
            let a = leave.after(steps, from.clip.frames(), from.to_and_fro);
            let b = entry.after(steps, to.clip.frames(), to.to_and_fro);
            from.clip.distance(a.frame, to.clip, b.frame)
        })
        .sum::<f32>()
        / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avatar::clip::{Shape, Writer};

    /// A clip whose frame `i` is grey `codes[i]`.
    fn clip(name: &str, codes: &[u8]) -> Clip {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape { width: 64, height: 48, fps: (25, 1) };
        let mut writer = Writer::create(folder.path(), name, shape).unwrap();
        codes.iter().for_each(|code| writer.add(b"jpeg", &[*code; 64 * 48], 64).unwrap());
        writer.finish().unwrap();
        Clip::open(folder.path(), name).unwrap()
    }

    #[test]
    fn to_and_fro_shows_the_ends_once() {
        let mut place = Position::START;
        let shown: Vec<_> = (0..9)
            .map(|_| {
                let frame = place.frame;
                place = place.next(4, true);
                frame
            })
            .collect();
        assert_eq!(shown, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        assert_eq!(Position::START.after(9, 4, false).frame, 3);
        assert_eq!(Position::START.after(9, 1, true).frame, 0);
    }

    #[test]
    fn a_switch_waits_for_frames_that_are_alike() {
        let idle = clip("idle", &(0..100).map(|i| 2 * i).collect::<Vec<_>>());
        let wave = clip("wave", &(0..50).map(|i| 60 + 2 * i).collect::<Vec<_>>());
        let idle = Playback { clip: &idle, to_and_fro: true };
        let wave = Playback { clip: &wave, to_and_fro: false };
        let plan = soon(idle, Position { frame: 10, forward: true }, wave);
        // Frame 30 of the idle clip is as bright as the first one of the action, and both grow brighter.
        assert_eq!(2 * (10 + plan.wait), 60 + 2 * plan.entry.frame);
        assert!(plan.entry.forward && plan.wait <= 30, "{plan:?}");
        let back = at_end(wave, Position::START, idle);
        assert!((50 - DISSOLVE - 8..=50 - DISSOLVE).contains(&back.wait), "{back:?}");
        let (leaves, enters) = (60 + 2 * back.wait, 2 * back.entry.frame);
        assert!(leaves.abs_diff(enters) <= 2 && back.entry.forward, "{back:?}");
    }

    #[test]
    fn clips_of_any_length_have_a_plan() {
        for (a, b) in [(1, 1), (1, 30), (30, 1), (3, 3)] {
            let (a, b) = (clip("a", &vec![9; a]), clip("b", &vec![9; b]));
            let (a, b) = (Playback { clip: &a, to_and_fro: true }, Playback { clip: &b, to_and_fro: false });
            for (from, to) in [(a, b), (b, a)] {
                let plan = soon(from, Position::START, to);
                assert!(plan.entry.frame < to.clip.frames());
                assert!(at_end(from, Position::START, to).entry.frame < to.clip.frames());
            }
        }
    }
}
