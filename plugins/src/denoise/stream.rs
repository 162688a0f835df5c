//! The frames of one video stream, from their arrival to their departure, and what is done for each.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use gst::{prelude::*, subclass::prelude::*};
use lipstream_engines::{Error, image::ColorSpace, quality::sync::Turn, tracker::Face};

use super::{
    banks::Known,
    frame::{Finished, Frame, Left, Mouth, Plan, RenderSettings},
    idle::Presence,
    imp::{CAT, LipDenoise},
    listener::Listener,
    speaker::{Loaded, Said, Speaker},
    wait::Wait,
};
use crate::{
    meta::{PatchMeta, face},
    selector::{Selection, Selector},
    stats::count,
    untouched::Why,
};

/// Faces that may speak at a time.
const MOST_SPEAKERS: usize = 8;

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
    /// One a face that speaks or has spoken; at least one.
    speakers: Vec<Speaker>,
    selection: Selection,
    /// While it is asked for, what judges who speaks, and what it said last.
    listener: Option<Listener>,
    turn: Option<Turn>,
    presence: Presence,
    /// Running time of the last frame with faces, and their numbers.
    seen: Option<(gst::ClockTime, Vec<u64>)>,
    /// Frames on their way, in order.
    pending: VecDeque<Frame>,
}

impl VideoStream {
    pub fn new(speaker: Speaker) -> Self {
        Self {
            speakers: vec![speaker],
            selection: Selection::default(),
            listener: None,
            turn: None,
            presence: Presence::default(),
            seen: None,
            pending: VecDeque::new(),
        }
    }

    /// The colour space of the frames from now on.
    pub fn set_space(&mut self, space: ColorSpace) {
        self.speakers.iter_mut().for_each(|speaker| speaker.set_space(space));
    }

    /// The persons that are known.
    pub fn known(&self) -> Known {
        self.speakers[0].known()
    }

    /// A jump in the stream: frames on their way are dropped, the person stays known. Returns how many were dropped.
    pub fn flush(&mut self) -> usize {
        self.speakers.iter_mut().for_each(Speaker::flush);
        self.presence = Presence::default();
        self.seen = None;
        if let Some(listener) = &mut self.listener {
            listener.flush();
        }
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
        if let Some(time) = time {
            element.gate.reach(time.nseconds());
        }
        if buffer.flags().contains(gst::BufferFlags::DECODE_ONLY) {
            self.rehearse(element, &buffer, time)?;
            self.pending.push_back(Frame::plain(buffer, time, self.speakers[0].interrupts));
            return self.finish(element, &info, depth);
        }
        let faces = face::faces(&buffer, info.width(), info.height());
        let heard = if element.selector() == Selector::Auto { faces.clone() } else { Vec::new() };
        let mut mouths = self.mouths(element, &buffer, &info, faces, time.unwrap_or_default())?;
        self.heed(element.gate.interrupts());
        let mut done = self.follow(element, &info, time)?;
        let (presence, features, why) = match time {
            Some(_) if mouths.is_empty() => (1.0, None, self.unseen(element, &buffer)),
            Some(time) => loop {
                match self.plan(element, &buffer, &info, &mut mouths, time) {
                    Err(Fault::Engine(error)) => self.fall_back(element, error)?,
                    planned => {
                        let (presence, features) = planned?;
                        break (presence, features, None);
                    }
                }
            },
            None => (1.0, None, None),
        };
        if let Some(time) = time {
            // The sound of this frame has come by now, if it comes in time: what it says holds from the next one on.
            self.turn = self.listen(element, &heard, time)?;
        }
        let speaks = mouths.iter().find(|mouth| mouth.wanted).map(|mouth| mouth.face.track_id);
        element.counters.set_speaks(speaks, self.turn.map(|turn| turn.confidence));
        let interrupts = self.speakers[0].interrupts;
        self.pending.push_back(Frame { buffer, time, presence, heard: features, interrupts, mouths, why });
        done.extend(self.finish(element, &info, depth)?);
        Ok(done)
    }

    /// Hears what is said in a frame that nobody sees, so that later ones move as if they followed it; its faces are not looked at.
    fn rehearse(
        &mut self,
        element: &LipDenoise,
        buffer: &gst::BufferRef,
        time: Option<gst::ClockTime>,
    ) -> Result<(), Fault> {
        let Some(time) = time else { return Ok(()) };
        let idle_settings = element.settings.lock().idle_settings();
        let speaker = &mut self.speakers[0];
        match element.wait(time, speaker.interrupts) {
            Wait::Ready(window, voice) => {
                let presence = self.presence.at(time, voice, &idle_settings);
                if speaker.spec().exact || presence > 0.0 {
                    speaker.rehearse(&window, buffer.pts())?;
                }
                Ok(())
            }
            Wait::Flushing => Err(Fault::Flow(gst::FlowError::Flushing)),
            Wait::Late | Wait::Interrupted | Wait::Absent => Ok(()),
        }
    }

    /// Takes the engine that stands ready, where the frame at `time` comes in a pause of speech; the frames before it leave first.
    fn follow(
        &mut self,
        element: &LipDenoise,
        info: &gst_video::VideoInfo,
        time: Option<gst::ClockTime>,
    ) -> Result<Vec<Done>, Fault> {
        let idle_settings = element.settings.lock().idle_settings();
        let pauses = |time| self.presence.pauses(time, &idle_settings) && !self.speakers.iter().any(Speaker::eases);
        if !time.is_some_and(pauses) {
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
            self.again(&mut frame.mouths, frame.heard.as_ref());
        }
        self.pending = pending;
        Ok(())
    }

    /// Plans the mouths of a frame that another engine was to make.
    fn again(&mut self, mouths: &mut [Mouth], heard: Option<&Vec<f32>>) {
        for mouth in mouths {
            let features = match &mouth.plan {
                Plan::Made { .. } => heard.cloned(),
                Plan::Due { features, .. } => Some(features.clone()),
                _ => continue,
            };
            mouth.plan = self.anew(mouth, features).unwrap_or(Plan::Hold);
        }
    }

    /// The plan of a mouth that is to be made by the engine in use now, of these features.
    fn anew(&mut self, mouth: &Mouth, heard: Option<Vec<f32>>) -> Result<Plan, Fault> {
        let Some(features) = heard else { return Ok(Plan::Hold) };
        let identity = self.speakers[mouth.speaker].identity(&mouth.face)?;
        Ok(identity.map_or(Plan::Pass(None), |identity| Plan::Due { identity, features }))
    }

    fn change(&mut self, element: &LipDenoise, model: &str, loaded: Loaded, failed: Option<&Error>) {
        let (first, others) = self.speakers.split_at_mut(1);
        let left = match first[0].change(loaded) {
            Ok(left) => left,
            Err(kept) => {
                let (error, loaded) = *kept;
                return element.refused(model, &error, loaded);
            }
        };
        let settings = element.settings.lock().clone();
        for other in others {
            if let Err(error) = other.follow(&first[0], &settings) {
                gst::warning!(CAT, imp = element, "a face stays with the engine before: {error}");
            }
        }
        let stream = first[0].stream().clone();
        let before = {
            let mut state = element.state.lock();
            stream.wait_at_once(state.depth == first[0].spec().later);
            state.stream = Some(stream);
            state.model.replace(model.to_owned()).unwrap_or_default()
        };
        element.gate.set_window(first[0].spec().window.clone());
        element.changed(model, &before, left, failed);
    }

    /// The faces that speak, and those that are on their way out, with a speaker for each.
    fn mouths(
        &mut self,
        element: &LipDenoise,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
        mut faces: Vec<Face>,
        time: gst::ClockTime,
    ) -> Result<Vec<Mouth>, Fault> {
        // Another voice has them.
        faces.retain(|face| PatchMeta::tracks(buffer).all(|track| track != face.track_id));
        let heard = self.turn.map(|turn| turn.track);
        let wanted = self.selection.choose(&faces, element.selector(), heard, time);
        let numbers: Vec<u64> = faces.iter().map(|face| face.track_id).collect();
        let before = self.seen.take();
        let mut mouths = Vec::with_capacity(wanted.len());
        let leaving = |(place, speaker): (usize, &Speaker)| {
            let here = numbers.iter().position(|track| Some(*track) == speaker.track())?;
            (speaker.is_visible() && !speaker.spec().exact && !wanted.contains(&here)).then_some((here, place))
        };
        let leaving: Vec<(usize, usize)> = self.speakers.iter().enumerate().filter_map(leaving).collect();
        for place in wanted.iter().copied().take(MOST_SPEAKERS) {
            let track = numbers[place];
            let known = self.speakers.iter().position(|speaker| speaker.track() == Some(track));
            let speaker = match known.or_else(|| self.free(&numbers)) {
                Some(speaker) => speaker,
                None => {
                    let settings = element.settings.lock().clone();
                    self.speakers.push(self.speakers[0].beside(&settings)?);
                    self.speakers.len() - 1
                }
            };
            // Where its own mouth has been seen the other comes by and by; a new face has it from the start.
            let since =
                before.as_ref().filter(|(_, seen)| known.is_none() && seen.contains(&track)).map(|(time, _)| *time);
            self.speakers[speaker].take_up(track);
            mouths.push((place, speaker, true, since));
        }
        mouths.extend(leaving.into_iter().map(|(place, speaker)| (place, speaker, false, None)));
        self.seen = (!numbers.is_empty()).then_some((time, numbers));
        let mut faces: Vec<Option<Face>> = faces.into_iter().map(Some).collect();
        let max_yaw = element.settings.lock().max_yaw as f32;
        let mouth = |(place, speaker, wanted, since): (usize, usize, bool, Option<gst::ClockTime>)| {
            let face = faces[place].take()?;
            let cut = self.speakers[speaker].cut(&face, info);
            let turned = self.speakers[speaker].turns(&face, max_yaw, time);
            Some(Mouth { speaker, face, wanted, since, cut, turned, plan: Plan::Pass(None) })
        };
        Ok(mouths.into_iter().filter_map(mouth).collect())
    }

    /// Who of these faces speaks, where that is asked for and the sound can be heard.
    fn listen(&mut self, element: &LipDenoise, faces: &[Face], time: gst::ClockTime) -> Result<Option<Turn>, Fault> {
        if element.selector() != Selector::Auto {
            self.listener = None;
            return Ok(None);
        }
        let listener = match (&mut self.listener, element.ear.get()) {
            (Some(listener), _) => listener,
            (none, Some(ear)) => none.insert(Listener::new(ear.clone())?),
            (None, None) => return Ok(None),
        };
        Ok(listener.look(faces.iter(), time)?)
    }

    /// A speaker whose face is not in the picture.
    fn free(&self, numbers: &[u64]) -> Option<usize> {
        self.speakers.iter().position(|speaker| speaker.track().is_none_or(|track| !numbers.contains(&track)))
    }

    /// Heeds the interrupts there have been.
    fn heed(&mut self, interrupts: u64) {
        let said = self.speakers.iter_mut().filter_map(|speaker| speaker.heed(interrupts)).max();
        if let Some(time) = said {
            self.presence.hush(time);
        }
    }

    /// Why a frame without a face is left as it is; `None` while nothing is to be said.
    fn unseen(&self, element: &LipDenoise, buffer: &gst::BufferRef) -> Option<Why> {
        let hidden = self.presence.hidden(&element.settings.lock().idle_settings());
        (element.featurespad.is_linked() && !hidden && self.seen.is_none()).then(|| face::absence(buffer))
    }

    /// Plans what is to be done for the faces of a frame at running time `time`. Returns how visible the mouths will be, and the features
    /// where another engine may have to make them.
    fn plan(
        &mut self,
        element: &LipDenoise,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
        mouths: &mut [Mouth],
        time: gst::ClockTime,
    ) -> Result<(f32, Option<Vec<f32>>), Fault> {
        let idle_settings = element.settings.lock().idle_settings();
        let late = element.patience(time) == Some(Duration::ZERO);
        // Those of whom something is known.
        let mut known = Vec::with_capacity(mouths.len());
        for mouth in mouths {
            let unknown = if late {
                None
            } else {
                let speaker = &mut self.speakers[mouth.speaker];
                let start = Instant::now();
                let unknown = speaker.look(buffer, info, &mouth.face)?;
                element.counters.set_references(speaker.references());
                element.counters.gather.record(start.elapsed());
                // Nobody sees what would be made for it.
                let hidden = mouth.turned && !speaker.is_visible();
                unknown.or(hidden.then_some(Why::TurnedAway))
            };
            match unknown {
                Some(why) if !self.speakers[mouth.speaker].eases() => {
                    let wanted =
                        mouth.wanted && element.settings.lock().gather && !self.presence.hidden(&idle_settings);
                    mouth.plan = Plan::Pass(Some(why).filter(|_| wanted));
                }
                _ => known.push(mouth),
            }
        }
        if known.is_empty() {
            return Ok((1.0, None));
        }
        let eases = |this: &Self, known: &[&mut Mouth]| known.iter().all(|mouth| this.speakers[mouth.speaker].eases());
        let mut heard = match late {
            _ if eases(self, &known) => Wait::Interrupted,
            true => Wait::Late,
            false => element.counters.wait.time(|| element.wait(time, self.speakers[0].interrupts)),
        };
        while heard == Wait::Interrupted && !eases(self, &known) {
            self.heed(element.gate.interrupts());
            if !eases(self, &known) {
                // Nothing to be taken back: it waits for what is said next.
                heard = element.wait(time, self.speakers[0].interrupts);
            }
        }
        let voice = match &heard {
            Wait::Ready(_, voice) => *voice,
            Wait::Late | Wait::Interrupted => None,
            Wait::Absent => return Ok((1.0, None)),
            Wait::Flushing => return Err(Fault::Flow(gst::FlowError::Flushing)),
        };
        let presence = match self.speakers[0].spec().exact {
            true => 1.0,
            false => self.presence.at(time, voice, &idle_settings),
        };
        let kept = match &heard {
            Wait::Ready(window, _) if element.changes.lock().is_covered() => Some(window.clone()),
            _ => None,
        };
        // No frame on its way may be kept for longer by one that comes.
        let first = self.pending.front().and_then(|first| first.time);
        for mouth in known {
            let speaker = &mut self.speakers[mouth.speaker];
            mouth.plan = match &heard {
                _ if presence == 0.0 => Plan::Idle,
                _ if speaker.eases() => {
                    speaker.identity(&mouth.face)?.map_or(Plan::Pass(None), |identity| Plan::Ease { identity })
                }
                Wait::Ready(window, _) => match element.counters.prepare.time(|| speaker.identity(&mouth.face))? {
                    Some(identity) if speaker.spec().later > 0 => Plan::Due { identity, features: window.clone() },
                    Some(identity) => {
                        let patience = first.and_then(|first| element.patience(first));
                        let said = Said { face: &mouth.face, later: Vec::new(), identity, features: window };
                        speaker.submit(buffer, info, said, patience)?
                    }
                    None => Plan::Pass(None),
                },
                _ => Plan::Hold,
            };
        }
        Ok((presence, kept))
    }

    /// What a face of the next frame leaves with.
    fn made(
        &mut self,
        element: &LipDenoise,
        info: &gst_video::VideoInfo,
        (frame, mouth): (&Frame, &mut Mouth),
        render_settings: RenderSettings,
    ) -> Result<Finished, Fault> {
        let patience = frame.time.and_then(|time| element.patience(time));
        mouth.plan = match std::mem::replace(&mut mouth.plan, Plan::Pass(None)) {
            Plan::Due { identity, features } => {
                let face = &mouth.face;
                let same = |frame: &Frame| frame.mouths.iter().position(|other| other.face.track_id == face.track_id);
                let later = self.pending.iter().map_while(|frame| Some(&frame.mouths[same(frame)?].face)).collect();
                let said = Said { face, later, identity, features: &features };
                self.speakers[mouth.speaker].submit(&frame.buffer, info, said, patience)?
            }
            plan => plan,
        };
        self.heed(element.gate.interrupts());
        let speaker = &mut self.speakers[mouth.speaker];
        Ok(speaker.finish(mouth, frame, patience, render_settings, &element.counters)?)
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
            let awaits = |mouth: &Mouth| matches!(mouth.plan, Plan::Made { .. } | Plan::Due { .. });
            let awaited = self.pending.front().is_some_and(|frame| frame.mouths.iter().any(awaits));
            if self.pending.len() <= depth && awaited {
                break;
            }
            let Some(mut frame) = self.pending.pop_front() else { break };
            let mut mouths = std::mem::take(&mut frame.mouths);
            let time = frame.time.unwrap_or_default();
            let speaks = |place: usize| mouths.iter().any(|mouth| mouth.speaker == place);
            let resting = self.speakers.iter_mut().enumerate().filter(|(place, _)| !speaks(*place));
            resting.for_each(|(_, speaker)| speaker.rest(time));
            let (mut patches, mut late, mut why) = (Vec::with_capacity(mouths.len()), false, frame.why);
            let mut at_rest = true;
            for place in 0..mouths.len() {
                let track = mouths[place].face.track_id;
                let finished = loop {
                    match self.made(element, info, (&frame, &mut mouths[place]), render_settings) {
                        Err(Fault::Engine(error)) => {
                            self.fall_back(element, error)?;
                            mouths[place].plan = self.anew(&mouths[place], frame.heard.clone())?;
                            self.again(&mut mouths[place + 1..], frame.heard.as_ref());
                        }
                        finished => break finished?,
                    }
                };
                if element.gate.flushing() {
                    return Err(Fault::Flow(gst::FlowError::Flushing));
                }
                gst::trace!(CAT, imp = element, "face {track} in frame {:?}: {:?}", frame.time, finished.left);
                at_rest &= finished.at_rest;
                late |= finished.left == Left::Late;
                match finished.left {
                    Left::Late if finished.patch.is_none() => why = why.or(Some(Why::Late)),
                    Left::Untouched(own) => why = why.or(own),
                    Left::Late | Left::Spoken => (),
                }
                patches.extend(finished.patch.map(|patch| (track, patch)));
            }
            if element.gate.flushing() {
                return Err(Fault::Flow(gst::FlowError::Flushing));
            }
            if late {
                count(&element.counters.frames.late);
            }
            if let Some(why) = why {
                element.counters.untouched.count(why);
            }
            if patches.is_empty() {
                count(&element.counters.frames.passed_through);
            }
            for (track, patch) in patches {
                PatchMeta::add_for(frame.buffer.make_mut(), track, patch, info.width(), info.height());
            }
            done.push(Done { buffer: frame.buffer, at_rest });
        }
        Ok(done)
    }
}
