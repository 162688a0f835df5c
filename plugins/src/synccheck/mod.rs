//! The sync check: while a stream runs, whether its mouth is in sync with its voice.
//!
//! ```text
//! lipblend.sink ─ was a mouth made? ─┐
//! lipblend.src ── window of the lips ┼─► thread of low priority ─► statistics, messages
//! lipaudioenc.sink ─ voice, 16 kHz ──┘         └─► lipdenoise: features are shifted
//! ```
//!
//! The threads of the stream cut out a window of 96 x 96 pixels from every other frame and hand it over by running time; the networks
//! run [elsewhere](judge). What they say of the mouth that was made and of the source's own lips, as they were before, is kept
//! apart. Verdicts are those of the last seconds in which somebody spoke; times are running times.
//!
//! The bin posts an element message [`NAME`] whenever something changes, with `what` (gchararray), `running-time` (guint64, ns) of the
//! last frame that was judged, and where an offset is told of `frames` (gint: of 40 ms, positive where the picture is late):
//!
//! | `what` | |
//! |---|---|
//! | `out-of-sync`, `in-sync` | the mouth that is made is more than a frame off; no longer |
//! | `corrected` | it was for `sync-correct` seconds; `shift` (gint) is by how many frames features are taken later now |
//! | `beyond` | it is, and features are shifted by two frames already |
//! | `source-out-of-sync`, `source-in-sync` | the source's own lips are off its own voice, about which nothing is done; no longer |

mod cost;
mod drift;
mod inbox;
mod judge;
mod stats;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use gst::{glib, prelude::*};
use lipstream_engines::{
    Result,
    audio::{Mono, SAMPLE_RATE},
    quality::sync::{APART, Mouth, Seen},
    tracker::LipReader,
};
use parking_lot::Mutex;

pub use self::stats::{Lag, SyncStats};
pub use self::{cost::cost, drift::Change};
use self::{inbox::Inbox, judge::Judge};
use crate::{
    ear,
    meta::{PatchMeta, face},
    selector::{Selection, Selector},
    video,
};

/// Name of the element message's structure.
pub const NAME: &str = "lipstream-sync";
/// A mouth so opaque is the one that was made.
const MADE: f32 = 0.99;

/// What the bin does about what is found.
pub struct Actions {
    /// Seconds for which an offset must have lasted before it is corrected; 0: never. May change.
    pub correct_after: Arc<AtomicU64>,
    /// Shifts features by so many milliseconds.
    pub shift: Box<dyn Fn(i32) + Send>,
    /// Tells of a change at a running time.
    pub tell: Box<dyn Fn(Change, Duration) + Send>,
    /// Says that nothing is checked any more, and why.
    pub fail: Box<dyn Fn(lipstream_engines::Error) + Send>,
}

/// The check of one stream; dropping it ends its thread.
pub struct SyncCheck {
    inbox: Arc<Inbox>,
    reader: Arc<LipReader>,
    judge: Judge,
    eye: Mutex<Eye>,
    ear: Mutex<Mono>,
}

#[derive(Default)]
struct Eye {
    /// The face whose mouth was made in the frame that is being blended,
    made: Option<u64>,
    /// and the last of them.
    driven: Option<u64>,
    selection: Selection,
    /// Running time of the last window.
    cut: Option<Duration>,
}

impl SyncCheck {
    /// Loads the networks and begins to check once an `interval`.
    pub fn start(interval: Duration, actions: Actions) -> Result<Self> {
        let (expert, reader) = judge::networks()?;
        let inbox = Arc::new(Inbox::new(interval));
        let judge = Judge::start(inbox.clone(), (expert, reader.clone()), interval, actions)?;
        Ok(Self { inbox, reader, judge, eye: Mutex::default(), ear: Mutex::new(Mono::new(SAMPLE_RATE)) })
    }

    pub fn statistics(&self) -> SyncStats {
        SyncStats { missed: self.inbox.missed(), ..self.judge.statistics() }
    }

    /// A jump in the stream.
    pub fn flush(&self) {
        self.inbox.flush();
    }

    /// A frame comes to where its mouth is pasted, if `pasting`: of several that of the face `track`, where that is said.
    pub fn before(&self, buffer: &gst::BufferRef, pasting: bool, track: Option<u64>) {
        let of = |patch: &gst::MetaRef<PatchMeta>| track.is_none() || patch.track() == track;
        let patch = buffer.iter_meta::<PatchMeta>().find(of).filter(|patch| pasting && patch.patch().opacity >= MADE);
        let mut eye = self.eye.lock();
        eye.made = patch.and_then(|patch| patch.track());
        eye.driven = eye.made.or(eye.driven);
    }

    /// The same frame leaves.
    pub fn after(&self, pad: &gst::Pad, buffer: &gst::BufferRef) {
        let Some(time) = buffer.pts().and_then(|pts| running_time(pad, pts)) else { return };
        let info = pad.current_caps().and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
        let Some(info) = info else { return };
        let mut eye = self.eye.lock();
        let faces = face::faces(buffer, info.width(), info.height());
        let (driven, now) = (eye.driven, time.try_into().unwrap_or_default());
        let chosen = eye.selection.choose(&faces, Selector::Auto, driven, now).first().copied();
        let face = chosen.and_then(|place| faces.into_iter().nth(place));
        let mouth = match &face {
            Some(face) if eye.made == Some(face.track_id) => {
                let due = eye.cut.is_none_or(|cut| time < cut || time - cut >= APART);
                let cut = || video::with_view(buffer, &info, |frame| Ok(self.reader.window(frame, &face.points)));
                // A frame that cannot be looked at is one that is not read.
                let window = due.then(|| cut().ok().flatten()).flatten();
                if window.is_some() {
                    eye.cut = Some(time);
                }
                Mouth::Made(window)
            }
            _ => Mouth::Other,
        };
        drop(eye);
        let track = face.as_ref().map_or(0, |face| face.track_id);
        self.inbox.see(Seen { time, face: face.map(|face| face.points), track, mouth });
    }

    /// A piece of the voice, as the front-end hears it.
    pub fn hear(&self, pad: &gst::Pad, buffer: &gst::BufferRef) {
        let Some((time, samples)) = ear::piece(pad, buffer, &self.ear) else { return };
        self.inbox.hear(time, samples);
    }
}

fn running_time(pad: &gst::Pad, pts: gst::ClockTime) -> Option<Duration> {
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = segment.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(pts)?;
    Some(segment.into())
}

/// The element message that tells of a change.
pub fn message(src: &impl IsA<gst::Object>, change: Change, time: Duration) -> gst::Message {
    let told = gst::Structure::builder(NAME).field("running-time", time.as_nanos() as u64);
    let told = match change {
        Change::OutOfSync { frames } => told.field("what", "out-of-sync").field("frames", frames),
        Change::InSync => told.field("what", "in-sync"),
        Change::Corrected { frames, shift } => {
            told.field("what", "corrected").field("frames", frames).field("shift", shift)
        }
        Change::Beyond { frames } => told.field("what", "beyond").field("frames", frames),
        Change::SourceOutOfSync { frames } => told.field("what", "source-out-of-sync").field("frames", frames),
        Change::SourceInSync => told.field("what", "source-in-sync"),
    };
    gst::message::Element::builder(told.build()).src(src).build()
}

/// What a message of the bin tells; `None` of another message.
pub fn change(structure: &gst::StructureRef) -> Option<Change> {
    if structure.name() != NAME {
        return None;
    }
    let frames = structure.get("frames").unwrap_or_default();
    Some(match structure.get::<&str>("what").ok()? {
        "out-of-sync" => Change::OutOfSync { frames },
        "in-sync" => Change::InSync,
        "corrected" => Change::Corrected { frames, shift: structure.get("shift").ok()? },
        "beyond" => Change::Beyond { frames },
        "source-out-of-sync" => Change::SourceOutOfSync { frames },
        "source-in-sync" => Change::SourceInSync,
        _ => return None,
    })
}

/// The properties of the bin.
pub fn properties() -> [glib::ParamSpec; 2] {
    [
        glib::ParamSpecUInt::builder("sync-check")
            .nick("Sync check")
            .blurb(
                "Milliseconds from one check of the sync of mouth and voice to the next, in a thread of low priority (0 = none); \
                 above 2500 less than every frame is judged",
            )
            .maximum(60_000)
            .default_value(0)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("sync-correct")
            .nick("Sync correct")
            .blurb(
                "Seconds of running time for which the mouth must be off by the same number of frames before the features are shifted, \
                 by two frames at most (0 = never)",
            )
            .maximum(3600)
            .default_value(60)
            .mutable_playing()
            .build(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        gst::init().unwrap();
        let bin = gst::Bin::new();
        for told in [
            Change::OutOfSync { frames: 3 },
            Change::InSync,
            Change::Corrected { frames: -3, shift: -2 },
            Change::Beyond { frames: 4 },
            Change::SourceOutOfSync { frames: -7 },
            Change::SourceInSync,
        ] {
            assert_eq!(message(&bin, told, Duration::ZERO).structure().and_then(change), Some(told));
        }
        assert_eq!(change(&gst::Structure::new_empty("lipstream-interrupt")), None);
    }
}
