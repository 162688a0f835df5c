//! `lipsync` makes a video say what a speech says: the four elements in one bin.
//!
//! ```text
//! video_sink ─ queue ─ lipfacetrack ─ queue ─ lipdenoise ─ queue ─ lipblend ─ video_src
//!                                                 │ features
//! audio_sink ─ tee ─ queue ─ audioconvert ─ audioresample ─ lipaudioenc
//!               └─── queue ────────────────────────────────────────────────── audio_src
//! ```
//!
//! Audio leaves `audio_src` bit for bit as it came, at the running time at which it came. `video_src` without audio gives
//! the video as it is; so does `audio_src` without video.
//!
//! Where a picture shows several faces, `speaker` says which of them the voice moves; the others pass as they are. A second voice has a pad
//! `audio_sink_b`, asked for before the bin runs, and moves the faces that `speaker-b` names, but none that the first one moves: frames
//! pass a second `lipdenoise` behind the first. It is heard and not passed on. The signal `interrupt` is the first one's, `interrupt-b`
//! the second one's; an event in the audio interrupts either.
//!
//! With `sync-check` the bin judges [its own sync](crate::synccheck) as it runs.
//!
//! The action signal `interrupt` takes back what has been said so far, see [`crate::interrupt`].
//!
//! ```text
//! gst-launch-1.0 lipsync name=ls \
//!   filesrc location=talk.mp4 ! decodebin3 ! videoconvert ! ls.video_sink \
//!   filesrc location=speech.wav ! decodebin3 ! audioconvert ! ls.audio_sink \
//!   ls.video_src ! videoconvert ! x264enc ! mux. \
//!   ls.audio_src ! avenc_aac ! mux. \
//!   mp4mux name=mux ! filesink location=out.mp4
//! ```

mod check;
mod imp;
mod parts;
mod properties;
mod second;
mod voices;

use gst::{glib, prelude::*};

use crate::{
    audioenc::AudioEncStats,
    blend::BlendStats,
    denoise::DenoiseStats,
    facetrack::FaceTrackStats,
    stats::{Frames, Times, statistics},
    synccheck::SyncStats,
    untouched::Untouched,
};

glib::wrapper! {
    pub struct LipSync(ObjectSubclass<imp::LipSync>) @extends gst::Bin, gst::Element, gst::Object;
}

statistics! {
    /// Statistics of `lipsync`.
    pub struct LipSyncStats = "lipsync-stats" {
        /// Of the way of the video through all elements.
        pub frames: Frames,
        /// As `lipdenoise` counts them, like `interrupt_time`.
        pub untouched: Untouched,
        pub interrupt_time: u64,
        pub facetrack: FaceTrackStats,
        pub audioenc: AudioEncStats,
        pub denoise: DenoiseStats,
        /// Of a second voice, empty where there is none.
        pub denoise_b: DenoiseStats,
        pub blend: BlendStats,
        pub check: SyncStats,
    }
}

impl LipSyncStats {
    /// How long each piece of work of the elements takes, by element and name, in the order of the way; `occlusion` is a part of `track`.
    pub fn times(&self) -> [(&'static str, &'static str, &Times); 11] {
        let denoise = &self.denoise;
        [
            ("facetrack", "track", &self.facetrack.track),
            ("facetrack", "occlusion", &self.facetrack.occlusion),
            ("audioenc", "encode", &self.audioenc.encode),
            ("denoise", "gather", &denoise.gather),
            ("denoise", "prepare", &denoise.prepare),
            ("denoise", "wait", &denoise.wait),
            ("denoise", "denoise", &denoise.denoise),
            ("denoise", "render", &denoise.render),
            ("blend", "blend", &self.blend.blend),
            ("blend", "mark", &self.blend.mark),
            ("check", "check", &self.check.check),
        ]
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "lipsync", gst::Rank::NONE, LipSync::static_type())
}

#[cfg(test)]
mod tests {
    use lipstream_engines::stats::{Percentiles, Totals};

    use super::*;
    use crate::{
        denoise::{EngineStage, EngineStages, Speaks},
        synccheck::Lag,
    };

    #[test]
    fn statistics_are_read_back_as_they_were_written() {
        gst::init().unwrap();
        let times = |n: u64| Times {
            percentiles: Percentiles { count: n, p50: n + 1, p95: n + 2, p99: n + 3 },
            totals: Totals { count: n, sum_us: n + 4, buckets: std::array::from_fn(|i| n + i as u64) },
        };
        let frames =
            |n: u64| Frames { frames_in: n, frames_out: n + 1, passed_through: n + 2, dropped: n + 3, late: n + 4 };
        let mut counts = gst::Structure::new_empty("counts");
        counts.set(
            "untouched",
            gst::Structure::builder("untouched").field("late", 3_u64).field("covered", 5_u64).build(),
        );
        let untouched = crate::stats::Field::read("untouched", &counts);
        let stage = |name: &str| EngineStage { name: name.into(), batches: 7, items: 8, p50: 9, p95: 10 };
        let stats = LipSyncStats {
            frames: frames(100),
            untouched,
            interrupt_time: 11,
            facetrack: FaceTrackStats {
                frames: frames(200),
                track: times(12),
                faces: 2,
                occlusion: times(28),
                covered: 3,
            },
            audioenc: AudioEncStats { frames: frames(300), encode: times(13) },
            denoise: DenoiseStats {
                frames: frames(400),
                gather: times(14),
                prepare: times(15),
                wait: times(16),
                denoise: times(17),
                render: times(18),
                untouched,
                flush_time: 19,
                interrupt_time: 20,
                device_time: 31,
                references: 21,
                speaker: Speaks { track: Some(29), confidence: Some(0.75) },
                batches: 22,
                steps: 23,
                latents_a_batch: 1.5,
                stages: EngineStages(vec![stage("step"), stage("refine")]),
            },
            denoise_b: DenoiseStats { references: 30, ..DenoiseStats::default() },
            blend: BlendStats { frames: frames(500), blend: times(24), mark: times(26) },
            check: SyncStats {
                sync: Lag { offset: Some(-2), confidence: Some(0.25) },
                source: Lag { offset: None, confidence: Some(0.125) },
                check: times(25),
                corrections: 26,
                shift: -80,
                missed: 27,
            },
        };
        assert!(
            untouched.iter().filter(|(_, n)| *n > 0).map(|(why, n)| (why.name(), n)).eq([("covered", 5), ("late", 3)])
        );
        assert_eq!(LipSyncStats::from_structure(&stats.to_structure()), stats);
        assert_eq!(LipSyncStats::from_structure(&gst::Structure::new_empty("other")), LipSyncStats::default());
    }
}
