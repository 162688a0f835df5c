//! The features pad: what it takes, and what its events mean.

use std::time::Instant;

use gst::{prelude::*, subclass::prelude::*};

use super::imp::{CAT, Flow, LipDenoise};
use crate::{
    features::{self, FeaturesInfo},
    interrupt,
};

impl LipDenoise {
    pub(super) fn features_chain(&self, buffer: &gst::Buffer) -> Flow {
        let (time, dims) = {
            let state = self.state.lock();
            let Some(info) = &state.features else { return Err(gst::FlowError::NotNegotiated) };
            (buffer.pts().and_then(|pts| state.features_segment.to_running_time(pts)), info.dims)
        };
        let Some(time) = time else { return Ok(gst::FlowSuccess::Ok) };
        let Some(feature) = features::from_buffer(buffer, dims) else {
            gst::warning!(CAT, obj = self.featurespad, "a buffer of {} bytes is not {dims} numbers", buffer.size());
            return Ok(gst::FlowSuccess::Ok);
        };
        // A stream that nobody takes frames from, or that keeps time, is never held.
        let hold = || self.sinkpad.is_linked() && !self.state.lock().latency.is_some_and(|(live, _)| live);
        let voiced = !buffer.flags().contains(gst::BufferFlags::GAP);
        if self.gate.push(time.nseconds(), &feature, voiced, hold) {
            Ok(gst::FlowSuccess::Ok)
        } else {
            Err(gst::FlowError::Flushing)
        }
    }

    /// Events of the features end here.
    pub(super) fn features_event(&self, event: &gst::Event) -> bool {
        gst::log!(CAT, obj = self.featurespad, "{event:?}");
        match event.view() {
            gst::EventView::StreamStart(_) => self.gate.start_features(),
            gst::EventView::Caps(e) => return self.set_features(e.caps()),
            gst::EventView::Segment(e) => match e.segment().clone().downcast::<gst::ClockTime>() {
                Ok(segment) => self.state.lock().features_segment = segment,
                Err(_) => return false,
            },
            gst::EventView::Eos(_) => self.gate.end_features(),
            gst::EventView::CustomDownstream(e) if interrupt::is(e) => self.interrupt(None),
            gst::EventView::FlushStart(_) => {
                let start = Instant::now();
                self.gate.flush_features(true);
                let stream = self.state.lock().stream.clone();
                if let Some(stream) = stream {
                    stream.flush();
                }
                self.counters.flushed(start.elapsed());
            }
            gst::EventView::FlushStop(_) => {
                self.state.lock().features_segment = gst::FormattedSegment::new();
                self.gate.flush_features(false);
            }
            _ => (),
        }
        true
    }

    fn set_features(&self, caps: &gst::CapsRef) -> bool {
        let info = match FeaturesInfo::from_caps(caps) {
            Ok(info) => info,
            Err(cause) => {
                gst::error!(CAT, obj = self.featurespad, "refused: {cause}");
                return false;
            }
        };
        let stream = self.state.lock().stream.clone();
        let Some(stream) = stream else { return false };
        let spec = stream.worker().engine().spec();
        if info.encoder != spec.front_end || info.dims != spec.window.dims {
            gst::element_imp_error!(
                self,
                gst::StreamError::WrongType,
                (
                    "The features are of the front-end `{}` ({} numbers), and the engine `{}` needs `{}` ({})",
                    info.encoder,
                    info.dims,
                    spec.name,
                    spec.front_end,
                    spec.window.dims
                ),
                [
                    "set `engine` of lipaudioenc and `model` of lipdenoise to the same engine, and `look-ahead` of both to the same"
                ]
            );
            return false;
        }
        self.state.lock().features = Some(info);
        true
    }
}
