//! One stream's way from a face and a feature window to a patch.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use lipstream_engines::{
    Error, Result,
    bank::cut_off,
    engine::{
        Actor, Asked, Engine, Identity, Moment, Patch, Scene, Shown, Spec, Stream, SubmitError, Work, Worker,
        WorkerConfig,
    },
    image::ColorSpace,
    tracker::Face,
};

use super::{
    banks::{Banks, Known},
    ease::Ease,
    fade::Fade,
    frame::{Finished, Frame, Left, Mouth, Plan, RenderSettings},
    properties::Settings,
    shared_work::{Missing, SharedWork},
    stats::DenoiseCounters,
};
use crate::{options, untouched::Why, video};

/// Frames of all streams that may wait for one engine.
pub const QUEUE: usize = 256;
/// A mouth that has stood still for want of features this long is taken away.
const STALE: gst::ClockTime = gst::ClockTime::from_mseconds(500);

/// Degrees by which a head must be back before its mouth returns, one that the tracker is sure of and another: of one in profile less is
/// measured than of one on the way there, and the tracker is less sure of it than of a face that it sees from the front.
const BACK: [f32; 2] = [4.0, 12.0];
/// For so long.
const BACK_FOR: gst::ClockTime = gst::ClockTime::from_mseconds(500);
const SURE: f32 = 0.9;

/// What a frame is to say.
pub struct Said<'a> {
    pub face: &'a Face,
    /// The faces of the frames after it, as far as they are there and one after another.
    pub later: Vec<&'a Face>,
    pub identity: Identity,
    /// The window of features.
    pub features: &'a [f32],
}

/// An engine, and what it keeps for one stream.
pub struct Loaded {
    worker: Arc<Worker>,
    actor: Box<dyn Actor>,
    banks: Banks,
    steps: usize,
}

impl Loaded {
    /// The engine `model`, else as the settings say. It is loaded where it is not.
    pub fn new(model: &str, settings: &Settings) -> Result<Self> {
        let config = WorkerConfig {
            package: options::package(model, settings.exact, settings.look_ahead)?,
            options: settings.options.parse()?,
            batch_size: settings.batch_size as usize,
            batch_timeout: settings.batch_timeout,
            queue: QUEUE,
        };
        Self::with(Worker::acquire(settings.instance.as_deref(), config)?, settings)
    }

    /// On a worker that there is.
    pub fn with(worker: Arc<Worker>, settings: &Settings) -> Result<Self> {
        let engine = worker.engine();
        let loaded = settings.reference_bank.as_ref().map(Path::new);
        let banks = Banks::new(engine.clone(), settings.gather, loaded)?;
        let sampling = settings.sampling()?;
        let steps = sampling.steps.or(engine.spec().steps).unwrap_or(0);
        let actor = engine.clone().actor(settings.seed, &sampling)?;
        Ok(Self { worker, actor, banks, steps })
    }

    pub fn spec(&self) -> &Spec {
        self.worker.engine().spec()
    }

    /// Denoising steps a frame, 0 of an engine that does not denoise.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Learns the persons that another engine's banks know.
    pub fn learn(&mut self, known: Known) -> Result<()> {
        self.banks.learn(known)
    }
}

/// How a face is seen in a frame.
struct Seen<'a> {
    face: &'a Face,
    time: gst::ClockTime,
    /// How visible the mouth is for what is being said, 0..1.
    presence: f32,
    /// It can be shown, and is to be.
    visible: bool,
}

pub struct Speaker {
    loaded: Loaded,
    stream: Arc<Stream>,
    /// The clip that frames are gathered for,
    gathering: Option<SharedWork>,
    /// and the one that was sent last.
    sent: Option<SharedWork>,
    fade: Fade,
    /// Whose mouth is driven.
    track: Option<u64>,
    /// Its head is turned too far, and since when it is back.
    turned: bool,
    back: Option<gst::ClockTime>,
    /// Running time of the patch before.
    shown: Option<gst::ClockTime>,
    /// Interrupts heeded so far,
    pub interrupts: u64,
    /// and the way to rest that the last one began.
    ease: Option<Ease>,
    /// Running time of the first of the late frames that came one after another.
    late_since: Option<gst::ClockTime>,
}

impl Speaker {
    /// `taken` counts what it takes of the engine's device, in nanoseconds, whatever engines it changes to.
    pub fn new(loaded: Loaded, settings: &Settings, taken: Arc<AtomicU64>) -> Self {
        let stream = Arc::new(loaded.worker.stream_counting(taken));
        Self::on(stream, loaded, settings)
    }

    /// One more on the stream of `self`, for another face.
    pub fn beside(&self, settings: &Settings) -> Result<Self> {
        let loaded = self.alike(settings)?;
        Ok(Self { interrupts: self.interrupts, ..Self::on(self.stream.clone(), loaded, settings) })
    }

    /// The engine in use once more.
    fn alike(&self, settings: &Settings) -> Result<Loaded> {
        Loaded::with(self.loaded.worker.clone(), settings)
    }

    fn on(stream: Arc<Stream>, loaded: Loaded, settings: &Settings) -> Self {
        Self {
            stream,
            loaded,
            gathering: None,
            sent: None,
            fade: Fade::new(settings.fade),
            track: None,
            turned: false,
            back: None,
            shown: None,
            interrupts: 0,
            ease: None,
            late_since: None,
        }
    }

    /// Goes on with another engine, which learns the persons that are known. Gives back what it had.
    pub fn change(&mut self, mut loaded: Loaded) -> Result<Loaded, Box<(Error, Loaded)>> {
        if let Err(error) = loaded.learn(self.known()) {
            return Err(Box::new((error, loaded)));
        }
        let stream = Arc::new(loaded.worker.stream_counting(self.stream.taken().clone()));
        Ok(self.go_on(loaded, stream))
    }

    /// Goes on with the engine that `first` has changed to, on its stream. Gives back what it had.
    pub fn follow(&mut self, first: &Self, settings: &Settings) -> Result<Loaded> {
        let mut loaded = first.alike(settings)?;
        loaded.learn(self.known())?;
        Ok(self.go_on(loaded, first.stream.clone()))
    }

    fn go_on(&mut self, loaded: Loaded, stream: Arc<Stream>) -> Loaded {
        self.give_up(Missing::Flushed);
        self.sent = None;
        self.forget();
        self.stream = stream;
        std::mem::replace(&mut self.loaded, loaded)
    }

    /// The persons that are known.
    pub fn known(&self) -> Known {
        self.loaded.banks.known()
    }

    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub fn spec(&self) -> &Spec {
        self.engine().spec()
    }

    fn engine(&self) -> &Arc<dyn Engine> {
        self.stream.worker().engine()
    }

    pub fn references(&self) -> usize {
        self.loaded.banks.references()
    }

    /// The colour space of the frames from now on.
    pub fn set_space(&mut self, space: ColorSpace) {
        self.loaded.banks.set_space(space);
        self.loaded.actor.forget_pixels();
    }

    /// A jump in the stream: work on its way is dropped, the person stays known.
    pub fn flush(&mut self) {
        self.stream.flush();
        self.give_up(Missing::Flushed);
        self.sent = None;
        self.forget();
        self.late_since = None;
        self.fade.restart();
    }

    /// Forgets the mouth that was shown last.
    fn forget(&mut self) {
        self.loaded.actor.forget();
        self.shown = None;
        self.ease = None;
    }

    /// Heeds the interrupts there have been, `interrupts` in all: the mouth begins to ease to rest. Returns the running time of what
    /// it said last, where it was saying something.
    pub fn heed(&mut self, interrupts: u64) -> Option<gst::ClockTime> {
        if self.interrupts == interrupts {
            return None;
        }
        self.interrupts = interrupts;
        self.give_up(Missing::Interrupted);
        let time = self.shown?;
        if self.ease.is_none() && self.loaded.actor.settle() {
            self.shown = None;
            self.ease = Some(Ease::new(time));
        }
        Some(time)
    }

    /// Whether the mouth is on its way to rest.
    pub fn eases(&self) -> bool {
        self.ease.is_some()
    }

    /// The number of the face that it drives.
    pub fn track(&self) -> Option<u64> {
        self.track
    }

    /// Drives the face with this number from now on.
    pub fn take_up(&mut self, track: u64) {
        if self.track.replace(track) != Some(track) {
            // Another person: nothing of the last one's motion or pixels. A head in profile may come back under another number.
            self.close();
            self.forget();
        }
    }

    /// Whether a head is turned further than `most` degrees in the frame of running time `time`, or is not long back from there.
    pub fn turns(&mut self, face: &Face, most: f32, time: gst::ClockTime) -> bool {
        let yaw = face.yaw.abs();
        let turned = if self.turned {
            let back = yaw <= most - BACK[usize::from(face.confidence < SURE)];
            let since = self.back.filter(|since| back && *since <= time).unwrap_or(time);
            self.back = back.then_some(since);
            !back || time - since < BACK_FOR
        } else {
            yaw > most
        };
        self.turned = turned && most < 90.0 && !self.spec().exact;
        if !self.turned {
            self.back = None;
        }
        self.turned
    }

    /// Whether anything of its mouth is to be seen.
    pub fn is_visible(&self) -> bool {
        self.fade.level() > 0.0
    }

    /// Its face is not in the frame of this running time, or has its own mouth there.
    pub fn rest(&mut self, time: gst::ClockTime) {
        self.fade.vanish(time);
        self.forget();
    }

    /// Whether the edge of a picture of this size cuts off the mouth of `face`, or what it is aligned by.
    pub fn cut(&self, face: &Face, info: &gst_video::VideoInfo) -> bool {
        cut_off(&self.spec().alignment, &face.points, info.width() as f32, info.height() as f32)
    }

    /// Looks at a frame of `face`; why the person is not known so far.
    pub fn look(&mut self, buffer: &gst::BufferRef, info: &gst_video::VideoInfo, face: &Face) -> Result<Option<Why>> {
        let time = buffer.pts().map(Into::into);
        video::with_view(buffer, info, |view| self.loaded.banks.look(view, face, time))
    }

    /// The person as known so far.
    pub fn identity(&mut self, face: &Face) -> Result<Option<Identity>> {
        self.loaded.banks.identity(face)
    }

    /// Sends a frame to the worker, at once or with the clip that it completes. A worker whose queue is full makes it late.
    /// Before a clip is complete, the one before is waited for: it may continue that one.
    pub fn submit(
        &mut self,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
        said: Said,
        patience: Option<Duration>,
    ) -> Result<Plan> {
        let (hop, wanted) = (self.spec().clip.hop, self.spec().later);
        if let Some(sent) =
            self.sent.as_ref().filter(|_| self.gathering.as_ref().map_or(0, SharedWork::frames) + 1 == hop)
        {
            sent.collect(patience, &mut *self.loaded.actor)?;
        }
        let Said { face, later, identity, features } = said;
        let later = &later[..later.len().min(wanted)];
        let asked = video::with_view(buffer, info, |frame| {
            self.loaded.actor.ask(&Moment { face, later, identity: &identity, audio: features, frame })
        })?;
        let since = Instant::now();
        let (shared, place) = match asked {
            Asked::Nothing => return Ok(Plan::Pass(None)),
            Asked::Work(work) => (SharedWork::submitted(self.stream.submit(work)), 0),
            Asked::Gathered => {
                let shared = self.gathering.get_or_insert_default().clone();
                let place = shared.join();
                if shared.frames() >= hop {
                    self.close();
                }
                (shared, place)
            }
        };
        match shared.missing() {
            Some(Missing::Late) => Ok(Plan::Hold),
            Some(Missing::Failed(cause)) => Err(Error::invalid(cause)),
            _ => Ok(Plan::Made { shared, place, identity, since }),
        }
    }

    /// Makes the motion of a frame that is heard and not shown.
    pub fn rehearse(&mut self, features: &[f32], time: Option<gst::ClockTime>) -> Result<()> {
        let Some(work) = self.loaded.actor.rehearse(features)? else { return Ok(()) };
        let made = self.stream.submit(work).map_err(|error| Error::invalid(error.to_string()))?.wait(None);
        match made.map_err(Missing::from) {
            Ok(made) => self.loaded.actor.rehearsed(made, time.map(Into::into)),
            Err(Missing::Failed(cause)) => Err(Error::invalid(cause)),
            Err(_) => Ok(()),
        }
    }

    /// Sends the clip that is being gathered, with the frames that it has.
    fn close(&mut self) {
        let Some(clip) = self.gathering.take() else { return };
        match self.loaded.actor.close() {
            Ok(Some(work)) => clip.send(self.stream.submit(work)),
            Ok(None) => clip.give_up(Missing::Interrupted),
            Err(error) => clip.give_up(Missing::Failed(error.to_string())),
        }
        self.sent = Some(clip);
    }

    /// Ends the clip that is being gathered, which is not sent.
    fn give_up(&mut self, why: Missing) {
        if let Some(clip) = self.gathering.take() {
            clip.give_up(why);
            // What it would have been is of no use.
            drop(self.loaded.actor.close());
        }
    }

    /// What a face of a frame leaves with. Waits for its latent, for ever or for as long as `patience` says.
    pub fn finish(
        &mut self,
        mouth: &mut Mouth,
        frame: &Frame,
        patience: Option<Duration>,
        render_settings: RenderSettings,
        counters: &DenoiseCounters,
    ) -> Result<Finished> {
        let time = frame.time.unwrap_or_default();
        let mut plan = std::mem::replace(&mut mouth.plan, Plan::Pass(None));
        if let Some(since) = mouth.since.take() {
            self.fade.vanish(since);
        }
        // It may have to be made by another engine.
        let Mouth { face, wanted, cut, turned, .. } = &*mouth;
        let (wanted, cut, turned) = (*wanted, *cut, *turned);
        let visible = wanted && !face.occluded && !cut && !turned;
        let seen = Seen { face, time, presence: frame.presence, visible };
        if self.ease.is_some() && frame.interrupts != self.interrupts {
            // It was on its way when the interrupt came.
            plan = match plan {
                Plan::Made { identity, .. } => Plan::Ease { identity },
                Plan::Hold => self.loaded.banks.identity(face)?.map_or(Plan::Hold, |identity| Plan::Ease { identity }),
                other => other,
            };
        }
        let (work, identity, at_rest) = match plan {
            // Sent on before it is finished.
            Plan::Due { .. } => return Ok(Finished::untouched(None)),
            Plan::Pass(why) => {
                self.rest(time);
                return Ok(Finished::untouched(why));
            }
            Plan::Idle => {
                if !wanted {
                    self.fade.vanish(time);
                }
                // What is said next begins with a mouth of its own.
                self.forget();
                self.late_since = None;
                return Ok(Finished::untouched(None));
            }
            Plan::Hold => return Ok(Finished::new(self.hold(&seen), Left::Late)),
            Plan::Ease { identity } => {
                let (work, at_rest) = self.eased(time);
                let Some(work) = work else { return Ok(Finished::untouched(None)) };
                (work, identity, at_rest)
            }
            Plan::Made { shared, place, identity, since } => {
                if shared.gathers() {
                    // It can wait for no more frames.
                    self.close();
                }
                shared.collect(patience, &mut *self.loaded.actor)?;
                let made = match shared.take(place) {
                    Ok(made) => made,
                    Err(why) => return self.unmade(why, &seen),
                };
                counters.denoise.record(since.elapsed());
                // Without a way to rest, the first frame that hears the silence is the one.
                (made, identity, frame.interrupts == self.interrupts)
            }
        };
        let scene = Scene {
            face,
            identity: &identity,
            gain: render_settings.gain,
            time: frame.buffer.pts().map(Into::into),
            gap: render_settings.gap,
        };
        let since = Instant::now();
        let mut shown = self.loaded.actor.show(work, &scene)?;
        while let Shown::More(work) = shown {
            let made = match self.stream.submit(work) {
                // A picture that is half drawn is finished: it is late by less than one that is thrown away and held.
                Ok(ticket) => ticket.wait(None),
                Err(SubmitError::QueueFull(_)) => {
                    return Ok(Finished::new(self.hold(&seen), Left::Late));
                }
                Err(error) => return Err(Error::invalid(error.to_string())),
            };
            shown = match made {
                Ok(made) => self.loaded.actor.show(made, &scene)?,
                Err(error) => return self.unmade(error.into(), &seen),
            };
        }
        counters.render.record(since.elapsed());
        self.late_since = None;
        let Shown::Patch(patch) = shown else {
            self.fade.vanish(time);
            return Ok(Finished::untouched(Some(Why::Unclear)));
        };
        self.shown = Some(time);
        let opacity = match self.spec().exact {
            true => 1.0,
            false => self.fade.towards(seen.visible, time) * seen.presence,
        };
        let why = if !wanted {
            None
        } else if face.occluded {
            Some(Why::Covered)
        } else if turned {
            Some(Why::TurnedAway)
        } else {
            cut.then_some(Why::CutOff)
        };
        Ok(match faded(patch, opacity) {
            Some(patch) => Finished { patch: Some(patch), left: Left::Spoken, at_rest },
            // Without a reason it is on its way there or away.
            None => Finished::untouched(why),
        })
    }

    /// The work of the next frame on the way to rest, and whether it is there; at rest where there is no way.
    fn eased(&mut self, time: gst::ClockTime) -> (Option<Work>, bool) {
        let (level, at_rest) = self.ease.as_mut().map_or((0.0, true), |ease| ease.at(time));
        if at_rest {
            self.ease = None;
        }
        (self.loaded.actor.settling(level), at_rest)
    }

    /// What a frame leaves with whose work was not finished.
    fn unmade(&mut self, why: Missing, seen: &Seen) -> Result<Finished> {
        match why {
            Missing::Late => Ok(Finished::new(self.hold(seen), Left::Late)),
            // The mouth stays until the voice that follows moves it.
            Missing::Interrupted => Ok(Finished::new(self.hold(seen), Left::Untouched(None))),
            Missing::Flushed => Ok(Finished::untouched(None)),
            Missing::Failed(cause) => Err(Error::invalid(cause)),
        }
    }

    /// The last patch where the face is now.
    fn hold(&mut self, seen: &Seen) -> Option<Patch> {
        let since = *self.late_since.get_or_insert(seen.time);
        let opacity = self.fade.towards(seen.visible && seen.time.saturating_sub(since) < STALE, seen.time);
        faded(self.loaded.actor.hold(seen.face)?, opacity * seen.presence)
    }
}

fn faded(mut patch: Patch, opacity: f32) -> Option<Patch> {
    patch.opacity *= opacity;
    (patch.opacity > 0.0).then_some(patch)
}
