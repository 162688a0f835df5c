//! The frames of one video stream, from their arrival to their departure, and what is done for each.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use gst::{prelude::*, subclass::prelude::*};
use lipstream_engines::{Error, image::ColorSpace, tracker::Face};

use super::{
    banks::Known,
    frame::{Finished, Frame, Left, Plan, RenderSettings},
    imp::{CAT, LipDenoise},
    speaker::{Loaded, Said, Speaker},
    wait::Wait,
};
use crate::{
    meta::{PatchMeta, face},
    stats::count,
    untouched::Why,
};

/// A frame that goes, and whether it shows nothing of what was interrupted.
pub struct Done {
    pub buffer: gst::Buffer,
    pub at_rest: bool,
}

/// Why a frame was not taken.
pub enum Fault {
    Flow(gst::FlowError),
    Engine(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// There between READY to PAUSED and back.
pub struct VideoStream {
    speaker: Speaker,
    /// Frames on their way, in order.
    pending: VecDeque<Frame>,
}

impl VideoStream {
    pub fn new(speaker: Speaker) -> Self {
        Self { speaker, pending: VecDeque::new() }
    }

    /// The colour space of the frames from now on.
    pub fn set_space(&mut self, space: ColorSpace) {
        self.speaker.set_space(space);
    }

    /// The persons that are known.
    pub fn known(&self) -> Known {
        self.speaker.known()
    }

    /// A jump in the stream: frames on their way are dropped, the person stays known. Returns how many were dropped.
    pub fn flush(&mut self) -> usize {
        self.speaker.flush();
        let dropped = self.pending.len();
        self.pending.clear();
        dropped
    }

    /// Takes a frame in and gives those that are finished.
    pub fn take(&mut self, element: &LipDenoise, buffer: gst::Buffer) -> Result<Vec<Done>, Fault> {
        let (info, time, depth) = {
            let state = element.state.lock();
            let Some(info) = state.info.clone() else { return Err(Fault::Flow(gst::FlowError::NotNegotiated)) };
            (info, buffer.pts().and_then(|pts| state.segment.to_running_time(pts)), state.depth)
        };
        let faces = face::faces(&buffer, info.width(), info.height());
        let face = self.speaker.choose(faces);
        self.speaker.heed(element.gate.interrupts());
        let mut done = self.follow(element, &info, time)?;
        let (plan, presence, heard) = match (&face, time) {
            (Some(face), Some(time)) => loop {
                match self.plan(element, &buffer, &info, face, time) {
                    Err(Fault::Engine(error)) => self.fall_back(element, error)?,
                    planned => break planned?,
                }
            },
            (None, Some(_)) => (Plan::Pass(self.unseen(element, &buffer)), 1.0, None),
            (_, None) => (Plan::Pass(None), 1.0, None),
        };
        let interrupts = self.speaker.interrupts;
        let cut = face.as_ref().is_some_and(|face| self.speaker.cut(face, &info));
        self.pending.push_back(Frame { buffer, time, face, cut, presence, plan, heard, interrupts });
        done.extend(self.finish(element, &info, depth)?);
        Ok(done)
    }

    /// Takes the engine that stands ready, where the frame at `time` comes in a pause of speech; the frames before it leave first.
    fn follow(
        &mut self,
        element: &LipDenoise,
        info: &gst_video::VideoInfo,
        time: Option<gst::ClockTime>,
    ) -> Result<Vec<Done>, Fault> {
        let idle_settings = element.settings.lock().idle_settings();
        if !time.is_some_and(|time| self.speaker.pauses(time, &idle_settings)) {
            return Ok(Vec::new());
        }
        let Some((model, loaded)) = element.changes.lock().take_next() else { return Ok(Vec::new()) };
        let done = self.finish(element, info, 0)?;
        self.change(element, &model, loaded, None);
        Ok(done)
    }

    /// Goes on with the engine that stands ready for it, where the one in use has failed; with the error where there is none.
    fn fall_back(&mut self, element: &LipDenoise, error: Error) -> Result<(), Fault> {
        let Some((model, loaded)) = element.changes.lock().take_any() else { return Err(error.into()) };
        gst::warning!(CAT, imp = element, "{error}; engine {model} goes on");
        self.change(element, &model, loaded, Some(&error));
        // What the other one was to make is made by this one.
        let mut pending = std::mem::take(&mut self.pending);
        for frame in &mut pending {
            let features = match &frame.plan {
                Plan::Made { .. } => frame.heard.clone(),
                Plan::Due { features, .. } => Some(features.clone()),
                _ => continue,
            };
            frame.plan = self.again(frame.face.as_ref(), features).unwrap_or(Plan::Hold);
        }
        self.pending = pending;
        Ok(())
    }

    /// The plan of a frame that another engine was to make.
    fn again(&mut self, face: Option<&Face>, heard: Option<Vec<f32>>) -> Result<Plan, Fault> {
        let (Some(face), Some(features)) = (face, heard) else { return Ok(Plan::Hold) };
        let identity = self.speaker.identity(face)?;
        Ok(identity.map_or(Plan::Pass(None), |identity| Plan::Due { identity, features }))
    }

    fn change(&mut self, element: &LipDenoise, model: &str, loaded: Loaded, failed: Option<&Error>) {
        let left = match self.speaker.change(loaded) {
            Ok(left) => left,
            Err((error, loaded)) => return element.refused(model, &error, loaded),
        };
        let stream = self.speaker.stream().clone();
        let before = {
            let mut state = element.state.lock();
            stream.wait_at_once(state.depth == self.speaker.spec().later);
            state.stream = Some(stream);
            state.model.replace(model.to_owned()).unwrap_or_default()
        };
        element.gate.set_window(self.speaker.spec().window.clone());
        element.changed(model, &before, left, failed);
    }

    /// Why a frame without a face is left as it is; `None` while nothing is to be said.
    fn unseen(&self, element: &LipDenoise, buffer: &gst::BufferRef) -> Option<Why> {
        let hidden = self.speaker.presence.hidden(&element.settings.lock().idle_settings());
        (element.featurespad.is_linked() && !hidden).then(|| face::absence(buffer))
    }

    /// What is to be done for a frame of `face` at running time `time`, how visible the mouth will be, and its features where
    /// another engine may have to make it.
    fn plan(
        &mut self,
        element: &LipDenoise,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
        face: &Face,
        time: gst::ClockTime,
    ) -> Result<(Plan, f32, Option<Vec<f32>>), Fault> {
        let idle_settings = element.settings.lock().idle_settings();
        let late = element.patience(time) == Some(Duration::ZERO);
        let unknown = if late {
            None
        } else {
            let start = Instant::now();
            let unknown = self.speaker.look(buffer, info, face)?;
            element.counters.set_references(self.speaker.references());
            element.counters.gather.record(start.elapsed());
            unknown
        };
        let mut heard = match (late, unknown) {
            _ if self.speaker.eases() => Wait::Interrupted,
            (true, _) => Wait::Late,
            (_, Some(why)) => {
                let wanted = element.settings.lock().gather && !self.speaker.presence.hidden(&idle_settings);
                return Ok((Plan::Pass(Some(why).filter(|_| wanted)), 1.0, None));
            }
            _ => element.counters.wait.time(|| element.wait(time, self.speaker.interrupts)),
        };
        while heard == Wait::Interrupted && !self.speaker.eases() {
            self.speaker.heed(element.gate.interrupts());
            if !self.speaker.eases() {
                // Nothing to be taken back: it waits for what is said next.
                heard = element.wait(time, self.speaker.interrupts);
            }
        }
        let voice = match &heard {
            Wait::Ready(_, voice) => *voice,
            Wait::Late | Wait::Interrupted => None,
            Wait::Absent => return Ok((Plan::Pass(None), 1.0, None)),
            Wait::Flushing => return Err(Fault::Flow(gst::FlowError::Flushing)),
        };
        let presence = match self.speaker.spec().exact {
            true => 1.0,
            false => self.speaker.presence.at(time, voice, &idle_settings),
        };
        let kept = match &heard {
            Wait::Ready(window, _) if element.changes.lock().is_covered() => Some(window.clone()),
            _ => None,
        };
        let plan = match heard {
            _ if presence == 0.0 => Plan::Idle,
            Wait::Ready(window, _) => match element.counters.prepare.time(|| self.speaker.identity(face))? {
                Some(identity) if self.speaker.spec().later > 0 => Plan::Due { identity, features: window },
                Some(identity) => {
                    // No frame on its way may be kept for longer by one that comes.
                    let first = self.pending.front().and_then(|first| first.time);
                    let patience = first.and_then(|first| element.patience(first));
                    let said = Said { face, later: Vec::new(), identity, features: &window };
                    self.speaker.submit(buffer, info, said, patience)?
                }
                None => Plan::Pass(None),
            },
            Wait::Interrupted => {
                self.speaker.identity(face)?.map_or(Plan::Pass(None), |identity| Plan::Ease { identity })
            }
            _ => Plan::Hold,
        };
        Ok((plan, presence, kept))
    }

    /// What the next frame leaves with.
    fn made(
        &mut self,
        element: &LipDenoise,
        info: &gst_video::VideoInfo,
        frame: &mut Frame,
        render_settings: RenderSettings,
    ) -> Result<Finished, Fault> {
        let patience = frame.time.and_then(|time| element.patience(time));
        frame.plan = match (std::mem::replace(&mut frame.plan, Plan::Pass(None)), &frame.face) {
            (Plan::Due { identity, features }, Some(face)) => {
                let same = |later: &&Face| later.track_id == face.track_id;
                let later = self.pending.iter().map_while(|frame| frame.face.as_ref().filter(same)).collect();
                let said = Said { face, later, identity, features: &features };
                self.speaker.submit(&frame.buffer, info, said, patience)?
            }
            (plan, _) => plan,
        };
        self.speaker.heed(element.gate.interrupts());
        Ok(self.speaker.finish(frame, patience, render_settings, &element.counters)?)
    }

    /// Finishes frames until at most `depth` are on their way, and those before the first of which nothing is awaited.
    pub fn finish(
        &mut self,
        element: &LipDenoise,
        info: &gst_video::VideoInfo,
        depth: usize,
    ) -> Result<Vec<Done>, Fault> {
        let render_settings = {
            let settings = element.settings.lock();
            RenderSettings { gain: settings.gain as f32, gap: settings.gap }
        };
        let mut done = Vec::new();
        loop {
            let awaited =
                matches!(self.pending.front(), Some(Frame { plan: Plan::Made { .. } | Plan::Due { .. }, .. }));
            if self.pending.len() <= depth && awaited {
                break;
            }
            let Some(mut frame) = self.pending.pop_front() else { break };
            let Finished { patch, left, at_rest } = loop {
                match self.made(element, info, &mut frame, render_settings) {
                    Err(Fault::Engine(error)) => {
                        self.fall_back(element, error)?;
                        frame.plan = self.again(frame.face.as_ref(), frame.heard.take())?;
                    }
                    finished => break finished?,
                }
            };
            if element.gate.flushing() {
                return Err(Fault::Flow(gst::FlowError::Flushing));
            }
            gst::trace!(CAT, imp = element, "frame {:?}: {left:?}", frame.time);
            match left {
                Left::Late => {
                    count(&element.counters.frames.late);
                    if patch.is_none() {
                        element.counters.untouched.count(Why::Late);
                    }
                }
                Left::Untouched(Some(why)) => element.counters.untouched.count(why),
                Left::Spoken | Left::Untouched(None) => (),
            }
            match patch {
                Some(patch) => PatchMeta::add(frame.buffer.make_mut(), patch, info.width(), info.height()),
                None => count(&element.counters.frames.passed_through),
            }
            done.push(Done { buffer: frame.buffer, at_rest });
        }
        Ok(done)
    }
}
