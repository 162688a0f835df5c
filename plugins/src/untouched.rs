//! Frames that keep their own mouth although one was wanted, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lipstream_engines::bank::Refusal;

use crate::stats::{Field, read};

/// Why a frame keeps its own mouth. That nobody speaks is no reason: then the frame is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No face is seen.
    NoFace,
    /// The picture's edge cuts off the mouth, or so much of the face that it cannot be read.
    CutOff,
    /// The face is too small.
    TooSmall,
    /// The head is turned away, and nothing is known of the mouth as seen from the front.
    TurnedAway,
    /// Something is before the mouth.
    Covered,
    /// A face that cannot be read, or of which nothing is known so far.
    Unclear,
    /// The mouth was not ready in time, and there was none before it.
    Late,
}

impl Why {
    pub const ALL: [Self; 7] =
        [Self::NoFace, Self::CutOff, Self::TooSmall, Self::TurnedAway, Self::Covered, Self::Unclear, Self::Late];

    /// Its field in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoFace => "no-face",
            Self::CutOff => "cut-off",
            Self::TooSmall => "too-small",
            Self::TurnedAway => "turned-away",
            Self::Covered => "covered",
            Self::Unclear => "unclear",
            Self::Late => "late",
        }
    }
}

impl From<Refusal> for Why {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::CutOff => Self::CutOff,
            Refusal::TurnedAway => Self::TurnedAway,
            Refusal::Covered => Self::Covered,
            Refusal::Unclear => Self::Unclear,
        }
    }
}

/// Frames by reason, in a structure of guint64s with the reasons' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untouched([u64; Why::ALL.len()]);

impl Untouched {
    pub fn iter(&self) -> impl Iterator<Item = (Why, u64)> {
        Why::ALL.into_iter().map(|why| (why, self.0[why as usize]))
    }
}

impl Field for Untouched {
    fn write(&self, name: &str, s: &mut gst::StructureRef) {
        let mut counts = gst::Structure::new_empty("untouched");
        for (why, count) in self.iter() {
            counts.set(why.name(), count);
        }
        s.set(name, counts);
    }

    fn read(name: &str, s: &gst::StructureRef) -> Self {
        let counts = s.get::<gst::Structure>(name).ok();
        Self(Why::ALL.map(|why| counts.as_ref().map_or(0, |counts| read(counts, why.name()))))
    }
}

/// Counters, one a reason.
#[derive(Default)]
pub(crate) struct UntouchedCounters([AtomicU64; Why::ALL.len()]);

impl UntouchedCounters {
    pub fn count(&self, why: Why) {
        self.0[why as usize].fetch_add(1, Relaxed);
    }

    pub fn reset(&self) {
        self.0.iter().for_each(|counter| counter.store(0, Relaxed));
    }

    pub fn read(&self) -> Untouched {
        Untouched(self.0.each_ref().map(|counter| counter.load(Relaxed)))
    }
}
