//! What is made of the verdicts of one check after another: when a stream is said to be out of sync, and when it is corrected.

use std::time::Duration;

use lipstream_engines::quality::sync::Verdict;

/// Frames by which picture and voice may be apart and be in sync; a verdict is no better.
const IN_SYNC: i32 = 1;
/// Most frames by which features are shifted, in all.
const FURTHEST: i32 = 2;
/// Checks in a row that must find the same before anything is said.
const AGREED: u32 = 3;

/// What has become known. Frames are of 40 ms; positive: the picture is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The mouth that is made is off,
    OutOfSync { frames: i32 },
    /// or no longer.
    InSync,
    /// It was off for so long that features are shifted, now by so many frames in all.
    Corrected { frames: i32, shift: i32 },
    /// It is off and features are shifted as far as they may be.
    Beyond { frames: i32 },
    /// The source's own lips are off its own voice,
    SourceOutOfSync { frames: i32 },
    /// or no longer.
    SourceInSync,
}

/// One kind of lips that may be off.
#[derive(Debug, Default)]
struct Offset {
    /// Since when (running time) it has been off by this many frames, give or take one, and in how many checks.
    constant: Option<(Duration, i32, u32)>,
    /// It is said to be off.
    told: bool,
}

impl Offset {
    /// True when it is found to be off, false when it is no more; `None` when nothing is new.
    fn at(&mut self, time: Duration, verdict: Option<Verdict>) -> Option<bool> {
        let Some(Verdict { frames, .. }) = verdict.filter(|verdict| verdict.sure) else {
            self.constant = None;
            return None;
        };
        if frames.abs() <= IN_SYNC {
            self.constant = None;
            return std::mem::take(&mut self.told).then_some(false);
        }
        self.constant = match self.constant {
            Some((since, first, checks)) if (frames - first).abs() <= 1 => Some((since, first, checks + 1)),
            _ => Some((time, frames, 1)),
        };
        let agreed = self.constant.is_some_and(|(_, _, checks)| checks >= AGREED);
        if !agreed || self.told {
            return None;
        }
        self.told = true;
        Some(true)
    }

    fn lasts(&self, time: Duration) -> Option<Duration> {
        self.constant.filter(|(_, _, checks)| *checks >= AGREED).map(|(since, ..)| time.saturating_sub(since))
    }
}

/// The state of one stream.
#[derive(Debug, Default)]
pub struct Drift {
    made: Offset,
    source: Offset,
    /// Frames by which features are shifted.
    shift: i32,
    /// It is known that that is not enough.
    beyond: bool,
}

impl Drift {
    /// Frames by which features are to be shifted: positive ones make the mouth earlier.
    pub fn shift(&self) -> i32 {
        self.shift
    }

    /// Takes what a check at a running time says of the mouth that is made. It is corrected when it has been off by the same for
    /// `after`, by `None` never.
    pub fn made(&mut self, time: Duration, verdict: Option<Verdict>, after: Option<Duration>) -> Vec<Change> {
        let mut changes = Vec::new();
        let frames = verdict.map_or(0, |verdict| verdict.frames);
        match self.made.at(time, verdict) {
            Some(true) => changes.push(Change::OutOfSync { frames }),
            Some(false) => {
                self.beyond = false;
                changes.push(Change::InSync);
            }
            None => {}
        }
        let due = after.is_some_and(|after| self.made.lasts(time).is_some_and(|lasts| lasts >= after));
        if !due {
            return changes;
        }
        let shift = (self.shift + frames).clamp(-FURTHEST, FURTHEST);
        if shift != self.shift {
            self.shift = shift;
            // What is made from now on is to be found off anew.
            self.made.constant = None;
            changes.push(Change::Corrected { frames, shift });
        } else if !std::mem::replace(&mut self.beyond, true) {
            changes.push(Change::Beyond { frames });
        }
        changes
    }

    /// Takes what a check says of the source's own lips, which nothing is done about.
    pub fn source(&mut self, time: Duration, verdict: Option<Verdict>) -> Option<Change> {
        let frames = verdict.map_or(0, |verdict| verdict.frames);
        let off = self.source.at(time, verdict)?;
        Some(if off { Change::SourceOutOfSync { frames } } else { Change::SourceInSync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

    fn sure(frames: i32) -> Option<Verdict> {
        Some(Verdict { frames, confidence: 0.2, sure: true })
    }

    /// What happens at which second when check after check, a second apart, finds this.
    fn told(drift: &mut Drift, from: u64, found: &[Option<Verdict>]) -> Vec<(u64, Change)> {
        let seconds = (from..).zip(found);
        seconds
            .flat_map(|(s, v)| drift.made(Duration::from_secs(s), *v, MINUTE).into_iter().map(move |c| (s, c)))
            .collect()
    }

    #[test]
    fn an_offset_that_lasts_a_minute_is_corrected_by_two_frames_at_most() {
        let mut drift = Drift::default();
        let changes = told(&mut drift, 0, &[sure(3); 70]);
        let corrected = Change::Corrected { frames: 3, shift: 2 };
        assert_eq!(changes, [(2, Change::OutOfSync { frames: 3 }), (60, corrected)]);
        assert_eq!(told(&mut drift, 70, &[sure(1); 70]), [(70, Change::InSync)]);
        assert_eq!(drift.shift(), 2);
        // It does not help: nothing more can be done, which is said once, and taken back it may be.
        let changes = told(&mut drift, 200, &[sure(2); 200]);
        assert_eq!(changes, [(202, Change::OutOfSync { frames: 2 }), (260, Change::Beyond { frames: 2 })]);
        assert_eq!(told(&mut drift, 400, &[sure(-4); 62])[0], (460, Change::Corrected { frames: -4, shift: -2 }));
    }

    #[test]
    fn what_wavers_is_small_or_unsure_is_left_alone() {
        let unsure = Some(Verdict { frames: 5, confidence: 0.05, sure: false });
        let wavers: Vec<_> = (0..200).map(|i| sure(if i / 20 % 2 == 0 { 2 } else { 5 })).collect();
        let often: Vec<_> = (0..200).map(|i| if i % 40 == 39 { unsure } else { sure(3) }).collect();
        for found in [vec![sure(1); 200], vec![sure(-1); 200], vec![unsure; 200], vec![None; 200], wavers, often] {
            let mut drift = Drift::default();
            let changes = told(&mut drift, 0, &found);
            assert!(
                changes.iter().all(|(_, c)| matches!(c, Change::OutOfSync { .. })) && changes.len() <= 1,
                "{changes:?}"
            );
            assert_eq!(drift.shift(), 0);
        }
        let mut drift = Drift::default();
        let never = (0..500).flat_map(|s| drift.made(Duration::from_secs(s), sure(3), None)).count();
        assert_eq!((never, drift.shift()), (1, 0));
    }

    #[test]
    fn a_source_that_is_out_of_sync_is_told_of_once_and_not_corrected() {
        let mut drift = Drift::default();
        let at = Duration::from_secs;
        let changes: Vec<_> = (0..200).filter_map(|s| drift.source(at(s), sure(-6))).collect();
        assert_eq!((changes, drift.shift()), (vec![Change::SourceOutOfSync { frames: -6 }], 0));
        assert_eq!(drift.source(at(200), sure(0)), Some(Change::SourceInSync));
    }
}
