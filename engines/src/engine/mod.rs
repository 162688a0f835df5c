//! Engines: what makes mouths. One that is loaded serves all streams.
//!
//! - A [`Stage`] is one batched evaluation over named tensors; stages of all streams share batches.
//! - [`Work`] is one frame, or one clip of frames, and the stages that it still has to pass.
//! - An [`Actor`] is what an engine keeps for one stream: past latents, noise, what was shown last.
//! - The [`Worker`] owns the queue and runs the stages.
//!
//! What an engine knows of a person is an [`Identity`], made from a bank: it belongs to a face and not to a stream, in which
//! several may be seen, so it stands beside the actor.

pub mod compact;
mod device;
pub(crate) mod known;
pub mod latent;
mod memory;
mod noise;
pub mod pixel;
mod profile;
mod speed;
mod stage;
pub(crate) mod step;
mod work;
mod worker;

use std::{any::Any, ops::RangeInclusive, sync::Arc, time::Duration};

pub use crate::image::Patch;
pub use known::{KNOWN, TRAIL};
pub use memory::{check as check_memory, memory};
pub use noise::Noise;
pub use profile::{StageCost, profile};
pub use speed::speed;
pub(crate) use stage::Then;
pub use stage::{NetworkStage, Stage, StageKind};
pub use step::{Feed, LATENT, StepStage};
pub use work::{DeviceTensor, Pass, Work};
pub use worker::{StageStats, Stream, SubmitError, Ticket, WaitError, Worker, WorkerConfig, WorkerStats};

use crate::{
    Error, Result,
    audio::{WindowSpec, whisper},
    bank::ReferenceBank,
    geometry::Alignment,
    image::FrameView,
    manifest::{AudioSection, Family, LiveSection, Manifest, Package},
    runtime::{self, Options},
    schedule::{Guided, Sampler},
    tracker::Face,
};

/// What the elements must know of an engine before its first frame.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Engine name as in the manifest.
    pub name: String,
    pub family: Family,
    /// What computes its features, as [`crate::audio::FrontEnd::key`] says: engines of the same front-end share features.
    pub front_end: String,
    /// The audio features that a frame needs.
    pub window: WindowSpec,
    /// Denoising steps of a frame where nobody says; `None` of an engine that does not denoise.
    pub steps: Option<usize>,
    /// Stages that a frame passes besides the steps.
    pub passes: usize,
    /// Whether a person is known by pictures that are gathered.
    pub references: bool,
    /// Whether it is run as its published program runs it: then its mouth is shown as it is, in every frame that has a face.
    pub exact: bool,
    /// Whole numbers of frames a second at which [`window`](Self::window) is what the published program hears; `None`: at any.
    pub rates: Option<RangeInclusive<i32>>,
    /// Frames after a frame whose faces it looks at.
    pub later: usize,
    /// How many frames share a work item.
    pub clip: Clip,
    /// Side of the square crop in pixels.
    pub crop: usize,
    pub alignment: Alignment,
    /// Cost of one frame at the default number of steps, in GFLOP (a multiply-add counts two).
    pub gflop: f32,
}

impl Spec {
    /// Refuses `frames` in `seconds` where the published program would hear something else in them, or other frames. A rate of
    /// 0 is not known, and is not refused.
    pub fn check_rate(&self, frames: i32, seconds: i32) -> Result<()> {
        let Some(rates) = self.rates.as_ref().filter(|_| frames > 0 && seconds > 0) else { return Ok(()) };
        if frames % seconds == 0 && rates.contains(&(frames / seconds)) {
            return Ok(());
        }
        let (least, most) = (rates.start(), rates.end());
        let wanted = if least == most { least.to_string() } else { format!("{least} to {most}, whole,") };
        Err(Error::invalid(format!(
            "engine `{}` is what its published program is, with exact=true, at {wanted} frames a second, and these are {:.5}: bring \
             the video to {least} before, or leave exact=false",
            self.name,
            f64::from(frames) / f64::from(seconds)
        )))
    }
}

/// Frames that are made together, by models with temporal layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip {
    /// Most frames of a work item, with those before it that it continues.
    pub frames: usize,
    /// Frames that an item adds: it is complete when so many were asked for.
    pub hop: usize,
}

impl Clip {
    /// Each frame is made on its own.
    pub const SINGLE: Self = Self { frames: 1, hop: 1 };

    /// Clips of so many frames, none of which they share.
    pub fn whole(frames: usize) -> Self {
        Self { frames, hop: frames }
    }

    fn live(section: &LiveSection) -> Self {
        Self { frames: section.clip, hop: section.hop }
    }

    /// Frames that are on their way after one was taken in: those that wait for the others of their clip, and as many more
    /// while it is computed. What computes longer than its frames last cannot keep up at all.
    pub fn held(self) -> usize {
        if self.hop > 1 { 2 * self.hop - 1 } else { 0 }
    }
}

/// A person as an engine knows them; made by [`Engine::prepare`], of a type that is the engine's own.
pub type Identity = Arc<dyn Any + Send + Sync>;

/// A loaded engine. All methods may be called from several threads.
pub trait Engine: Send + Sync {
    fn spec(&self) -> &Spec;

    /// Its evaluations; [`Work`] names them by their place here.
    fn stages(&self) -> &[Box<dyn Stage>];

    /// Batches that its device takes at a time.
    fn lanes(&self) -> usize;

    /// What the engine keeps of a person, from the frames gathered so far. Called again as the bank grows, so it must
    /// cost less than a frame.
    fn prepare(&self, bank: &ReferenceBank) -> Result<Identity>;

    /// Pictures of the one person that the engine was adapted to; where there are any, none are gathered.
    fn bank(&self) -> Option<&ReferenceBank> {
        None
    }

    /// Begins a stream. What `sampling` asks for and the engine cannot do is an error.
    fn actor(self: Arc<Self>, seed: u64, sampling: &Sampling) -> Result<Box<dyn Actor>>;
}

/// How a stream is denoised where it is not as the engine says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    pub steps: Option<usize>,
    pub sampler: Option<Sampler>,
    /// Scale of the guidance; 1: none.
    pub guidance: Option<f32>,
    /// Which steps are guided.
    pub guided: Option<Guided>,
}

impl Sampling {
    /// The number of steps, of an engine that lets nothing else be chosen.
    fn steps_alone(&self, engine: &str) -> Result<Option<usize>> {
        match *self {
            Self { steps, sampler: None, guidance: None, guided: None } => Ok(steps),
            _ => Err(Error::invalid(format!(
                "engine `{engine}` has one sampler and no guidance: leave sampler, guidance and guided as they are"
            ))),
        }
    }

    /// Refuses all of it, for an engine that does not denoise.
    fn refuse(&self, engine: &str) -> Result<()> {
        match self.steps_alone(engine)? {
            None => Ok(()),
            Some(steps) => Err(Error::invalid(format!(
                "engine `{engine}` does not denoise: it takes no steps, found {steps}; leave them at 0"
            ))),
        }
    }
}

/// What a frame asks for.
pub struct Moment<'a> {
    pub face: &'a Face,
    /// The faces of the frames that follow: [`Spec::later`] of them, fewer before the end and before a frame without one.
    pub later: &'a [&'a Face],
    pub identity: &'a Identity,
    /// Features around the frame's time as [`WindowSpec`] lays them out, `[taps * dims]`.
    pub audio: &'a [f32],
    pub frame: &'a FrameView<'a>,
}

/// The frame that finished work is shown in, and how.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub face: &'a Face,
    pub identity: &'a Identity,
    /// Scales the motion (1: as learnt).
    pub gain: f32,
    /// Where in the video the frame stands, to be compared with [`crate::bank::Reference::time`].
    pub time: Option<Duration>,
    /// References nearer than this in time are not used: for measuring against the true mouth, which must not be seen.
    pub gap: Duration,
}

/// What came of asking for a frame.
#[derive(Debug)]
pub enum Asked {
    /// Work of its own.
    Work(Work),
    /// It is in the clip that is being gathered.
    Gathered,
    /// There is nothing to be said.
    Nothing,
}

/// What came of showing work.
pub enum Shown {
    Patch(Patch),
    /// More stages must be passed first; then it is shown again, in the same scene.
    More(Work),
    /// There is nothing to be shown of this person.
    Nothing,
}

/// What an engine keeps for one stream. Work of a stream is shown in the order in which it was asked for.
pub trait Actor: Send {
    /// Asks for a frame. Frames of an engine with clips are gathered until [`close`](Self::close) is called, at the latest when
    /// there are [`Clip::hop`] of them.
    fn ask(&mut self, moment: &Moment) -> Result<Asked>;

    /// The work of the frames that were gathered since the last call; `None` where there are none.
    fn close(&mut self) -> Result<Option<Work>> {
        Ok(None)
    }

    /// Finished work as that of each of its frames, in the order in which they were asked for. Clips come in their order.
    fn parts(&mut self, work: Work) -> Result<Vec<Work>> {
        Ok(vec![work])
    }

    /// Pixels of finished work on the face of its frame.
    fn show(&mut self, work: Work, scene: &Scene) -> Result<Shown>;

    /// The work of a frame that is heard and not shown, so that later ones move as if it had been; `None` of an engine whose motion
    /// remembers nothing.
    fn rehearse(&mut self, audio: &[f32]) -> Result<Option<Work>> {
        let _ = audio;
        Ok(None)
    }

    /// Takes finished work of [`rehearse`](Self::rehearse), in its order; `time` is as [`Scene::time`].
    fn rehearsed(&mut self, work: Work, time: Option<Duration>) -> Result<()> {
        let _ = (work, time);
        Ok(())
    }

    /// What was shown last, where the face is now.
    fn hold(&self, face: &Face) -> Option<Patch>;

    /// Begins the way from what is shown now to a mouth at rest, for which nothing is heard. False where nothing is shown, or
    /// the engine has no such way: then silence shuts the mouth.
    fn settle(&mut self) -> bool {
        false
    }

    /// The work of a frame on the way that [`settle`](Self::settle) began, from `level` 1 to 0, which is rest.
    fn settling(&mut self, level: f32) -> Option<Work> {
        let _ = level;
        None
    }

    /// Forgets the mouth that was shown last: another person, a pause or a jump comes between. The voice stays known.
    fn forget(&mut self);

    /// Forgets pixels alone: those of the stream are of another colour space from now on.
    fn forget_pixels(&mut self) {
        self.forget();
    }
}

/// Loads the engine of a package on a device, where there is memory for it.
pub fn load(package: &Package, options: &Options) -> Result<Arc<dyn Engine>> {
    load_within(package, options, runtime::free_memory())
}

/// As [`load`], where so many bytes are free; `None` where nobody knows.
pub fn load_within(package: &Package, options: &Options, free: Option<u64>) -> Result<Arc<dyn Engine>> {
    memory::check(package, options, free)?;
    let manifest = package.manifest();
    let other = |what: &str| {
        Err(Error::invalid(format!("engine `{}` {what} and makes no faces; name one such as `compact`", manifest.name)))
    };
    match manifest.family {
        Family::Compact => Ok(Arc::new(compact::Compact::load(package, options)?)),
        Family::Wav2Lip | Family::SyncTalk2d => Ok(Arc::new(pixel::Pixel::load(package, options)?)),
        Family::MuseTalk => Ok(Arc::new(latent::MuseTalk::load(package, options)?)),
        Family::LatentSync => Ok(Arc::new(latent::LatentSync::load(package, options)?)),
        Family::Tracker => other("follows faces"),
        Family::Expert => other("judges sync"),
        Family::Occlusion => other("says what is before a face"),
        Family::Enhancer => other("enhances faces"),
    }
}

/// How many frames of an engine share a work item; `None` of one that makes no faces.
pub fn clip(manifest: &Manifest) -> Option<Clip> {
    match manifest.family {
        Family::Compact | Family::Wav2Lip | Family::SyncTalk2d | Family::MuseTalk => Some(Clip::SINGLE),
        Family::LatentSync => manifest.latentsync.as_ref().map(|section| Clip::live(&section.live)),
        Family::Tracker | Family::Expert | Family::Occlusion | Family::Enhancer => None,
    }
}

/// Sound after a frame's time that an engine waits for; `None` of one that makes no faces.
pub fn look_ahead(manifest: &Manifest) -> Option<Duration> {
    match manifest.family {
        Family::Compact => manifest.audio.as_ref().map(AudioSection::look_ahead),
        Family::Wav2Lip | Family::SyncTalk2d => Some(pixel::look_ahead(manifest)),
        Family::LatentSync | Family::MuseTalk => whisper::engine::look_ahead(manifest),
        Family::Tracker | Family::Expert | Family::Occlusion | Family::Enhancer => None,
    }
}

/// Passes `work` through all its stages on this thread, alone in its batches.
pub fn complete(engine: &dyn Engine, work: &mut Work) -> Result<()> {
    pass_through(engine.stages(), work)
}

/// As [`complete`], with the stages of an engine.
pub(crate) fn pass_through(stages: &[Box<dyn Stage>], work: &mut Work) -> Result<()> {
    while let Some(pass) = work.next() {
        let stage = stages.get(pass.stage).ok_or_else(|| Error::invalid("work asks for a stage that is not there"))?;
        stage.run(std::slice::from_mut(work))?;
        work.advance();
    }
    Ok(())
}
