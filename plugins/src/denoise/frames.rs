//! The pads of the video: frames in and out, and what their events and queries mean.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use gst::{prelude::*, subclass::prelude::*};

use super::{
    imp::{CAT, Flow, LipDenoise},
    stream::{Done, Fault},
};
use crate::{interrupt, stats::count, video};

impl LipDenoise {
    pub(super) fn video_chain(&self, buffer: gst::Buffer) -> Flow {
        count(&self.counters.frames.frames_in);
        if self.state.lock().latency.is_none() {
            self.ask_latency();
        }
        let done = {
            let mut video = self.video.lock();
            match video.as_mut() {
                Some(video) => video.take(self, buffer),
                None => Err(Fault::Flow(gst::FlowError::Flushing)),
            }
        };
        self.send(done)
    }

    /// Pushes what is finished, or says what went wrong; no lock is held here.
    fn send(&self, done: std::result::Result<Vec<Done>, Fault>) -> Flow {
        self.tell_news();
        let done = match done {
            Ok(done) => done,
            Err(Fault::Flow(error)) => return Err(error),
            Err(Fault::Engine(error)) => {
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Failed,
                    ("The denoiser failed: {error}"),
                    ["try device=cpu and precision=fp32"]
                );
                return Err(gst::FlowError::Error);
            }
        };
        for Done { buffer, at_rest } in done {
            count(&self.counters.frames.frames_out);
            if at_rest && let Some(asked) = self.gate.rested() {
                self.tell_rest(asked.elapsed());
            }
            self.srcpad.push(buffer)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn tell_rest(&self, time: Duration) {
        let micros = self.counters.interrupted(time);
        let told = gst::Structure::builder(interrupt::NAME).field("time", micros).build();
        // Nobody may be listening.
        let _ = self.obj().post_message(gst::message::Element::builder(told).src(&*self.obj()).build());
    }

    /// Finishes and pushes all frames that are on their way: an event must not overtake them.
    fn drain(&self) {
        let info = self.state.lock().info.clone();
        let Some(info) = info else { return };
        let done = {
            let mut video = self.video.lock();
            let Some(video) = video.as_mut() else { return };
            video.finish(self, &info, 0)
        };
        // The next buffer meets the same flow return.
        let _ = self.send(done);
    }

    pub(super) fn video_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "{event:?}");
        if event.is_serialized() && event.type_() != gst::EventType::FlushStop {
            self.drain();
        }
        match event.view() {
            gst::EventView::StreamStart(_) => self.gate.end_video(false),
            gst::EventView::Caps(e) if !self.set_caps(e.caps()) => return false,
            gst::EventView::Segment(e) => match e.segment().clone().downcast::<gst::ClockTime>() {
                Ok(segment) => self.state.lock().segment = segment,
                Err(_) => {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Format,
                        (
                            "Video in {:?} has no running time; a parser or decoder before this element makes it one",
                            e.segment().format()
                        )
                    );
                    return false;
                }
            },
            gst::EventView::Eos(_) => self.gate.end_video(true),
            gst::EventView::CustomDownstream(e) if interrupt::is(e) => self.interrupt(None),
            gst::EventView::FlushStart(_) => return self.flush(pad, event),
            gst::EventView::FlushStop(_) => {
                self.state.lock().segment = gst::FormattedSegment::new();
                self.gate.flush_video(false);
            }
            _ => (),
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// Empties the element; the time until nothing is left is a statistic.
    fn flush(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        let start = Instant::now();
        self.gate.flush_video(true);
        let stream = self.state.lock().stream.clone();
        if let Some(stream) = stream {
            stream.flush();
        }
        let result = gst::Pad::event_default(pad, Some(&*self.obj()), event);
        // The streaming thread gives up the lock as soon as it has seen the flush.
        if let Some(video) = self.video.lock().as_mut() {
            self.counters.frames.dropped.fetch_add(video.flush() as u64, Relaxed);
        }
        self.counters.flushed(start.elapsed());
        result
    }

    fn set_caps(&self, caps: &gst::CapsRef) -> bool {
        let info = match gst_video::VideoInfo::from_caps(caps) {
            Ok(info) => info,
            Err(_) => {
                gst::error!(CAT, imp = self, "cannot read the caps {caps}");
                return false;
            }
        };
        let Ok(space) = video::space(&info) else { return false };
        let stream = self.state.lock().stream.clone();
        let checked = stream.map_or(Ok(()), |stream| {
            stream.worker().engine().spec().check_rate(info.fps().numer(), info.fps().denom())
        });
        if let Err(error) = checked {
            gst::element_imp_error!(self, gst::StreamError::WrongType, ("{error}"));
            return false;
        }
        if let Some(video) = self.video.lock().as_mut() {
            video.set_space(space);
        }
        let held = {
            let mut state = self.state.lock();
            state.info = Some(info);
            // The declared latency may have changed with the frame rate.
            state.latency = None;
            state.depth > 0
        };
        if held {
            let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
        true
    }

    pub(super) fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        if let gst::EventView::Seek(_) = event.view() {
            // Both streams move. Upstream of both, one demuxer tells the two by the sequence number.
            let features = self.featurespad.push_event(event.clone());
            return self.sinkpad.push_event(event) || features;
        }
        if event.type_() == gst::EventType::CustomUpstream && interrupt::is(&event) {
            self.interrupt(None);
            // The audio encoder has heard some of it as well.
            self.featurespad.push_event(event.clone());
            self.sinkpad.push_event(event);
            return true;
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    pub(super) fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(answer) = query.view_mut() else {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        };
        let Some((live, min, max)) = self.ask_latency() else { return false };
        answer.set(live, min, max);
        true
    }
}
