//! The voices: how far each has come, what interrupts it, and the second one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gst::{glib, prelude::*, subclass::prelude::*};

use super::{
    imp::LipSync,
    second::{self, Second},
};
use crate::selector::{self, Selector};

impl LipSync {
    /// Makes what a second voice needs, and its pad.
    pub(super) fn add_voice(&self, template: &gst::PadTemplate) -> Result<gst::GhostPad, glib::BoolError> {
        let obj = self.obj();
        let Some(Ok(parts)) = self.parts.get() else { return Err(glib::bool_error!("the bin is not built")) };
        if self.second.get().is_some() || obj.current_state() > gst::State::Ready {
            return Err(glib::bool_error!("a second voice is added once, before the bin runs"));
        }
        let second = Second::build(obj.upcast_ref(), (&parts.denoise, &parts.audioenc), &parts.patches)?;
        second.denoise.set_property("speaker", &*self.second_speaker.lock());
        let head = second.speech.static_pad("sink").ok_or_else(|| glib::bool_error!("a queue without a sink"))?;
        let pad = gst::GhostPad::builder_from_template_with_target(template, &head)?.name(second::PAD).build();
        pad.set_active(true)?;
        self.listen_at(&pad, 1);
        obj.add_pad(&pad)?;
        if self.second.set(second).is_err() {
            return Err(glib::bool_error!("a second voice is added once"));
        }
        parts.facetrack.set_property("speaker", Selector::All.to_string());
        Ok(pad)
    }

    pub(super) fn set_second_speaker(&self, value: &glib::Value) {
        match selector::read(value) {
            Ok(selector) => {
                *self.second_speaker.lock() = selector.to_string();
                if let Some(second) = self.second.get() {
                    second.denoise.set_property("speaker", selector.to_string());
                }
            }
            Err(error) => selector::refuse(&*self.obj(), &error),
        }
    }

    /// Has it noted how far the audio of a voice has come, which enters at `pad`.
    pub(super) fn listen_at(&self, pad: &gst::GhostPad, voice: usize) {
        let weak = self.obj().downgrade();
        let passing = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(passing, move |pad, info| {
            if let Some(obj) = weak.upgrade() {
                obj.imp().listen(pad, info, &obj.imp().heard[voice]);
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn listen(&self, pad: &gst::GhostPad, info: &gst::PadProbeInfo, heard: &AtomicU64) {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let segment = pad.sticky_event::<gst::event::Segment>(0);
                let segment = segment.as_ref().and_then(|e| e.segment().downcast_ref::<gst::ClockTime>());
                let end = buffer.pts().map(|pts| pts + buffer.duration().unwrap_or_default());
                if let Some(end) = segment.zip(end).and_then(|(segment, end)| segment.to_running_time(end)) {
                    heard.fetch_max(end.nseconds(), Relaxed);
                }
            }
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::FlushStop => {
                heard.store(0, Relaxed);
            }
            _ => (),
        }
    }

    /// What has entered counts as said: the parts of it that are still in the queue, too.
    pub(super) fn interrupt(&self) {
        let Some(Ok(parts)) = self.parts.get() else { return };
        let until = Some(gst::ClockTime::from_nseconds(self.heard[0].load(Relaxed)));
        parts.audioenc.imp().interrupt(until);
        parts.denoise.imp().interrupt(until);
    }

    /// The same of the second voice, where there is one.
    pub(super) fn interrupt_second(&self) {
        let Some(second) = self.second.get() else { return };
        let until = Some(gst::ClockTime::from_nseconds(self.heard[1].load(Relaxed)));
        second.audioenc.imp().interrupt(until);
        second.denoise.imp().interrupt(until);
    }
}
