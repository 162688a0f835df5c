//! The elements inside of the bin, and the ways between them.

use gst::{glib, prelude::*, subclass::prelude::*};
use lipstream_engines::audio::SAMPLE_RATE;

use super::imp::{CAT, LipSync};
use crate::{audioenc::LipAudioEnc, blend::LipBlend, denoise::LipDenoise, facetrack::LipFaceTrack};

/// Frames between two stages, each in its own thread.
pub(super) const FRAMES: u32 = 3;
/// What frames may wait for their audio: two seconds, or 96 MiB, which is eight frames of 4K.
const WAITING: gst::ClockTime = gst::ClockTime::from_seconds(2);
const WAITING_BYTES: u32 = 96 << 20;
/// What audio may wait for its video. By bytes and not by time, because encoders hold back video by frames (x264enc 60 of
/// them and more) and muxers take audio only with video: at 5 fps that is 12 s. 64 MiB are 5 minutes of 48 kHz stereo in
/// 16 bits and a second and a half of 64 channels in 96 kHz floats.
pub(super) const AUDIO_BYTES: u32 = 64 << 20;
/// The same for a look-ahead of more than so many milliseconds: ten seconds of the latter.
pub(super) const LONG_BYTES: u32 = 4 * AUDIO_BYTES;
pub(super) const LONG: u32 = 1000;

/// The elements inside.
pub(super) struct Parts {
    pub(super) facetrack: LipFaceTrack,
    pub(super) audioenc: LipAudioEnc,
    pub(super) denoise: LipDenoise,
    pub(super) blend: LipBlend,
    pub(super) tee: gst::Element,
    /// Head of the way to the audio encoder.
    pub(super) speech: gst::Element,
    /// Head of the way to `audio_src`.
    pub(super) audio: gst::Element,
    /// What frames go to from the last denoiser.
    pub(super) patches: gst::Element,
}

/// Pads of the tee that are in use.
#[derive(Default)]
pub(super) struct Branches {
    pub(super) speech: Option<gst::Pad>,
    pub(super) audio: Option<gst::Pad>,
}

impl LipSync {
    pub(super) fn build(&self) -> Result<Parts, glib::BoolError> {
        let make = |factory: &str, name: &str| gst::ElementFactory::make(factory).name(name).build();
        let facetrack: LipFaceTrack = glib::Object::builder().property("name", "facetrack").build();
        let audioenc: LipAudioEnc = glib::Object::builder().property("name", "audioenc").build();
        let denoise: LipDenoise = glib::Object::builder().property("name", "denoise").build();
        let blend: LipBlend = glib::Object::builder().property("name", "blend").build();
        denoise.imp().set_ear(self.ear.clone());

        let frames = |name: &str| {
            gst::ElementFactory::make("queue")
                .name(name)
                .property("max-size-buffers", FRAMES)
                .property("max-size-bytes", 0u32)
                .property("max-size-time", 0u64)
                .build()
        };
        let samples = |name: &str| {
            gst::ElementFactory::make("queue")
                .name(name)
                .property("max-size-buffers", 0u32)
                .property("max-size-bytes", AUDIO_BYTES)
                .property("max-size-time", 0u64)
                .build()
        };
        let (video, patches) = (frames("video")?, frames("patches")?);
        let faces = gst::ElementFactory::make("queue")
            .name("faces")
            .property("max-size-buffers", 0u32)
            .property("max-size-bytes", WAITING_BYTES)
            .property("max-size-time", WAITING.nseconds())
            .build()?;
        let (audio, speech) = (samples("audio")?, samples("speech")?);
        let tee = gst::ElementFactory::make("tee").name("tee").property("allow-not-linked", true).build()?;
        let (convert, resample) = (make("audioconvert", "convert")?, make("audioresample", "resample")?);
        let heard = gst_audio::AudioCapsBuilder::new_interleaved()
            .format(gst_audio::AudioFormat::F32le)
            .rate(SAMPLE_RATE as i32)
            .build();
        let filter = gst::ElementFactory::make("capsfilter").name("heard").property("caps", heard).build()?;

        let obj = self.obj();
        let chain = [&video, facetrack.upcast_ref(), &faces, denoise.upcast_ref(), &patches, blend.upcast_ref()];
        let hearing = [&speech, &convert, &resample, &filter, audioenc.upcast_ref()];
        obj.add_many(chain.iter().chain(&hearing).copied().chain([&tee, &audio]))?;
        for (from, to) in chain.windows(2).map(|w| (w[0], w[1])) {
            // By name: the denoiser has two sinks.
            from.link_pads(Some("src"), to, Some("sink"))?;
        }
        gst::Element::link_many(hearing)?;

        let pad = |element: &gst::Element, name: &str| {
            element.static_pad(name).ok_or_else(|| glib::bool_error!("{} has no pad {name}", element.name()))
        };
        self.video_sink.set_target(Some(&pad(&video, "sink")?))?;
        self.video_src.set_target(Some(&pad(blend.upcast_ref(), "src")?))?;
        self.audio_sink.set_target(Some(&pad(&tee, "sink")?))?;
        self.audio_src.set_target(Some(&pad(&audio, "src")?))?;
        Ok(Parts { facetrack, audioenc, denoise, blend, tee, speech, audio, patches })
    }

    /// Connects what has somebody at its ends. A queue without anybody behind it would fill up, and a denoiser whose
    /// features pad is linked waits for features. A pad on the other side counts as well: pads of demuxers come late, and
    /// somebody who takes the bin's audio will also send some.
    pub(super) fn connect_branches(&self) {
        let Some(Ok(parts)) = self.parts.get() else { return };
        let video = self.video_sink.is_linked() || self.video_src.is_linked();
        let audio = self.audio_sink.is_linked() || self.audio_src.is_linked();
        let mut branches = self.branches.lock();
        if self.audio_src.is_linked() && branches.audio.is_none() {
            branches.audio = self.branch(&parts.tee, &parts.audio);
        }
        if video && audio && branches.speech.is_none() {
            let linked = parts.audioenc.link_pads(Some("src"), &parts.denoise, Some("features"));
            if let Err(error) = linked {
                gst::error!(CAT, imp = self, "{error}");
                return;
            }
            branches.speech = self.branch(&parts.tee, &parts.speech);
        }
    }

    /// A pad of the tee that is linked to the head of a branch.
    fn branch(&self, tee: &gst::Element, head: &gst::Element) -> Option<gst::Pad> {
        let pad = tee.request_pad_simple("src_%u")?;
        match head.static_pad("sink").map(|sink| pad.link(&sink)) {
            Some(Ok(_)) => Some(pad),
            failure => {
                gst::error!(CAT, imp = self, "the tee could not be linked to {}: {failure:?}", head.name());
                tee.release_request_pad(&pad);
                None
            }
        }
    }
}
