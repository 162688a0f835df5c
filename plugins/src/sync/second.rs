//! A second voice: elements beside the first one's, made when its pad is asked for.

use gst::{glib, prelude::*};
use lipstream_engines::audio::SAMPLE_RATE;

use super::parts::{AUDIO_BYTES, FRAMES};
use crate::{audioenc::LipAudioEnc, denoise::LipDenoise};

/// Its pad.
pub const PAD: &str = "audio_sink_b";
/// Properties that are each voice's own.
const OWN: [&str; 2] = ["speaker", "name"];

/// What hears the second voice and makes its mouths.
pub struct Second {
    pub audioenc: LipAudioEnc,
    pub denoise: LipDenoise,
    /// Head of the way to the audio encoder.
    pub speech: gst::Element,
}

impl Second {
    /// Puts it into `bin`: frames come to it from `denoise`, set as that is, and go on to `after`; `audioenc` is the first voice's.
    pub fn build(
        bin: &gst::Bin,
        (denoise, audioenc): (&LipDenoise, &LipAudioEnc),
        after: &gst::Element,
    ) -> Result<Self, glib::BoolError> {
        let make = |factory: &str, name: &str| gst::ElementFactory::make(factory).name(name).build();
        let queue = |name: &str, buffers: u32, bytes: u32| {
            let queue = make("queue", name)?;
            queue.set_property("max-size-buffers", buffers);
            queue.set_property("max-size-bytes", bytes);
            queue.set_property("max-size-time", 0u64);
            Ok::<_, glib::BoolError>(queue)
        };
        let second = Self {
            audioenc: glib::Object::builder().property("name", "audioenc-b").build(),
            denoise: glib::Object::builder().property("name", "denoise-b").build(),
            speech: queue("speech-b", 0, AUDIO_BYTES)?,
        };
        like(second.audioenc.upcast_ref(), audioenc.upcast_ref());
        like(second.denoise.upcast_ref(), denoise.upcast_ref());
        let voices = queue("voices", FRAMES, 0)?;
        let heard = gst_audio::AudioCapsBuilder::new_interleaved()
            .format(gst_audio::AudioFormat::F32le)
            .rate(SAMPLE_RATE as i32)
            .build();
        let filter = make("capsfilter", "heard-b")?;
        filter.set_property("caps", heard);
        let (convert, resample) = (make("audioconvert", "convert-b")?, make("audioresample", "resample-b")?);
        let hearing = [&second.speech, &convert, &resample, &filter, second.audioenc.upcast_ref()];
        bin.add_many(hearing.iter().copied().chain([&voices, second.denoise.upcast_ref()]))?;
        gst::Element::link_many(hearing)?;
        second.audioenc.link_pads(Some("src"), &second.denoise, Some("features"))?;
        denoise.unlink_pads("src", after, "sink");
        denoise.link_pads(Some("src"), &voices, Some("sink"))?;
        voices.link_pads(Some("src"), &second.denoise, Some("sink"))?;
        second.denoise.link_pads(Some("src"), after, Some("sink"))?;
        for element in hearing.iter().copied().chain([&voices, second.denoise.upcast_ref()]) {
            element.sync_state_with_parent()?;
        }
        Ok(second)
    }
}

/// Sets `element` as `model`, which is of its kind.
fn like(element: &gst::Element, model: &gst::Element) {
    let settable = |spec: &glib::ParamSpec| spec.flags().contains(glib::ParamFlags::READWRITE);
    for spec in model.list_properties().iter().filter(|spec| spec.owner_type() == model.type_() && settable(spec)) {
        if !OWN.contains(&spec.name()) {
            element.set_property_from_value(spec.name(), &model.property_value(spec.name()));
        }
    }
}
