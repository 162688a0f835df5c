//! What the check has found and what it costs.

use lipstream_engines::quality::sync::Verdict;

use crate::stats::{Field, Times, statistics};

statistics! {
    /// Statistics of the sync check, empty where it is off.
    pub struct SyncStats = "lipsync-check-stats" {
        /// Of the mouth that is made.
        pub sync: Lag,
        /// Of the source's own lips.
        pub source: Lag,
        /// Times of a check: reading lips, and the expert.
        pub check: Times,
        /// Times that features were shifted, and by how much they are now, in milliseconds.
        pub corrections: u64,
        pub shift: i64,
        /// Frames and pieces of sound that came faster than they were judged.
        pub missed: u64,
    }
}

/// How far picture and voice are apart, in the structure as `<name>-offset` (gint64, frames of 40 ms by which the picture is late) and
/// `<name>-confidence` (gdouble). The offset is missing where chance explains it, both before there is enough to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    pub offset: Option<i64>,
    pub confidence: Option<f64>,
}

impl From<Option<Verdict>> for Lag {
    fn from(verdict: Option<Verdict>) -> Self {
        Self {
            offset: verdict.filter(|verdict| verdict.sure).map(|verdict| verdict.frames.into()),
            confidence: verdict.map(|verdict| verdict.confidence),
        }
    }
}

impl Field for Lag {
    fn write(&self, name: &str, s: &mut gst::StructureRef) {
        if let Some(offset) = self.offset {
            s.set(format!("{name}-offset"), offset);
        }
        if let Some(confidence) = self.confidence {
            s.set(format!("{name}-confidence"), confidence);
        }
    }

    fn read(name: &str, s: &gst::StructureRef) -> Self {
        Self { offset: s.get(format!("{name}-offset")).ok(), confidence: s.get(format!("{name}-confidence")).ok() }
    }
}
