//! What the sync check sees of the streams, and what it does to the elements.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use gst::{prelude::*, subclass::prelude::*};

use super::{imp::LipSync, properties::Inner};
use crate::synccheck::{self, Actions, SyncCheck};

/// Where the sync check looks.
#[derive(Clone, Copy)]
enum Watched {
    /// At frames to which the mouth is still to be pasted,
    Before,
    /// at those that leave,
    After,
    /// and at the voice.
    Voice,
}

impl LipSync {
    /// Hands what passes to the sync check, while there is one.
    pub(super) fn watch(&self) {
        let Some(Ok(parts)) = self.parts.get() else { return };
        let pads = [
            (parts.blend.static_pad("sink"), Watched::Before),
            (parts.blend.static_pad("src"), Watched::After),
            (parts.audioenc.static_pad("sink"), Watched::Voice),
        ];
        for (pad, watched) in pads {
            let Some(pad) = pad else { continue };
            let weak = self.obj().downgrade();
            pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_FLUSH, move |pad, info| {
                if let Some(obj) = weak.upgrade() {
                    obj.imp().passes(watched, pad, info);
                }
                gst::PadProbeReturn::Ok
            });
        }
    }

    fn passes(&self, watched: Watched, pad: &gst::Pad, info: &gst::PadProbeInfo) {
        if let (Watched::Voice, Some(gst::PadProbeData::Buffer(buffer))) = (watched, &info.data) {
            self.ear.hear(pad, buffer);
        }
        let check = self.check.lock().clone();
        let Some(check) = check else { return };
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => match watched {
                Watched::Before => check.before(buffer, self.pastes(), self.first_speaks()),
                Watched::After => check.after(pad, buffer),
                Watched::Voice => check.hear(pad, buffer),
            },
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::FlushStop => check.flush(),
            _ => {}
        }
    }

    /// The face of the first of two voices.
    fn first_speaks(&self) -> Option<u64> {
        self.second.get()?;
        let Some(Ok(parts)) = self.parts.get() else { return None };
        parts.denoise.imp().speaks()
    }

    fn pastes(&self) -> bool {
        self.inner(Inner::Blend).is_some_and(|blend| blend.property("enabled"))
    }

    pub(super) fn start_check(&self) -> Result<(), gst::StateChangeError> {
        let interval = Duration::from_millis(self.sync_check.load(Relaxed));
        let Some(Ok(parts)) = self.parts.get() else { return Ok(()) };
        if interval.is_zero() {
            return Ok(());
        }
        let (denoise, bin) = (parts.denoise.downgrade(), self.obj().downgrade());
        let failing = bin.clone();
        let actions = Actions {
            correct_after: self.sync_correct.clone(),
            shift: Box::new(move |by| {
                if let Some(denoise) = denoise.upgrade() {
                    denoise.imp().correct(by);
                }
            }),
            tell: Box::new(move |change, time| {
                if let Some(bin) = bin.upgrade() {
                    // Nobody may be listening.
                    let _ = bin.post_message(synccheck::message(&bin, change, time));
                }
            }),
            fail: Box::new(move |error| {
                if let Some(bin) = failing.upgrade() {
                    gst::element_warning!(
                        bin,
                        gst::LibraryError::Failed,
                        ("The sync is not checked any more: {error}")
                    );
                }
            }),
        };
        let started = SyncCheck::start(interval, actions).map_err(|e| {
            gst::element_imp_error!(
                self,
                gst::LibraryError::Init,
                ("The sync check cannot start: {e}"),
                ["sync-check=0 does without it"]
            );
            gst::StateChangeError
        })?;
        *self.check.lock() = Some(Arc::new(started));
        Ok(())
    }
}
