//! One stream of `compact`: from a feature window to a motion, and from a motion to a patch.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    CONDITION, Compact, REFINE, STEP,
    canvas::{Drawn, Finish, Picture},
    contrast::Contrast,
    mask,
    person::{Wanted, opening},
    refine, render,
};
use crate::{
    Error, Result,
    engine::{Actor, Asked, LATENT, Moment, Noise, Patch, Scene, Shown, Work},
    geometry::{Point, Rect, Similarity, landmarks},
    runtime::Tensor,
    schedule::Schedule,
    tracker::Face,
};

/// What is taken, warped and pasted has been sampled three times: that much of the fine detail is given back.
const SHARPEN: f32 = 0.6;
/// What is smoothed over time is told for frames of this length, and works alike at every frame rate. Steps beyond
/// [`STEPS`] of them are held to be those.
const FRAME: Duration = Duration::from_millis(40);
const STEPS: std::ops::RangeInclusive<f32> = 0.1..=5.0;
/// What is smoothed of a mouth that moves comes sooner: by a frame for each such distance of the lips (unit crop, a pixel of
/// 256) from where they were. Otherwise a mouth that opens for two frames only is hardly seen to.
const JITTER: f32 = 0.004;
/// How far beyond the lips it is so, unit crop.
const AROUND: f32 = 0.03;
/// What is left after 40 ms of how far the references were turned otherwise than the frame: where a picture is painted shall
/// not flicker with the landmarks.
const RELEASE: f32 = 0.9;

pub(super) struct CompactActor {
    engine: Arc<Compact>,
    schedule: Schedule,
    noise: Noise,
    /// Finished latents, newest first, as many as a frame is conditioned on.
    past: VecDeque<Vec<f32>>,
    contrast: Contrast,
    /// What the frame before showed.
    last: Option<Last>,
    /// The latent that was shown last,
    shown: Option<Vec<f32>>,
    /// and the one from which the mouth is on its way to rest.
    from: Option<Vec<f32>>,
    /// A picture that is being refined.
    rendering: Option<Rendering>,
    /// [`Scene::time`] of the frame that was rehearsed last.
    rehearsed: Option<Duration>,
}

/// What one frame of a stream leaves to the next.
struct Last {
    patch: Patch,
    picture: Drawn,
    /// The references that were shown.
    showing: render::Showing,
    drift: Vec<Point>,
    /// [`Wanted::lower`].
    lower: Vec<Point>,
    /// How far the references were turned otherwise, see [`render::Chosen::turned`].
    turned: f32,
    /// [`Scene::time`].
    time: Option<Duration>,
}

/// A patch in the making.
struct Rendering {
    latent: Vec<f32>,
    contrast: Contrast,
    wanted: Wanted,
    pixels: Picture,
    mask: Vec<u8>,
    /// Where pixels are new, in unit crop coordinates.
    area: Rect,
    to_crop: Similarity,
    showing: render::Showing,
    turned: f32,
    /// Frames of [`FRAME`] since the last one, and how many more have passed for lips that have moved.
    frames: f32,
    more: f32,
}

impl CompactActor {
    pub(super) fn new(engine: Arc<Compact>, schedule: Schedule, noise: Noise) -> Self {
        Self {
            engine,
            schedule,
            noise,
            past: VecDeque::new(),
            contrast: Contrast::default(),
            last: None,
            shown: None,
            from: None,
            rendering: None,
            rehearsed: None,
        }
    }

    /// The work that makes the motion of a feature window.
    fn motion(&mut self, audio: &[f32]) -> Result<Work> {
        let condition = self.engine.condition(audio, self.past.iter().map(Vec::as_slice))?;
        let width = self.engine.latent.len();
        let latent = self.noise.latent(width);
        let mut work = Work::new(Noise::new(self.noise.normal().to_bits().into(), 0.0, 1.0))
            .with(LATENT, Tensor { shape: vec![1, width], data: latent })
            .with(CONDITION, Tensor { shape: vec![1, condition.len()], data: condition });
        work.denoise(STEP, &self.schedule);
        Ok(work)
    }

    /// The latent of finished work, which later ones are conditioned on.
    fn remember(&mut self, work: &mut Work) -> Result<Vec<f32>> {
        let latent = work.take(LATENT)?.data;
        if latent.len() != self.engine.latent.len() {
            return Err(Error::invalid(format!("a latent of {} numbers", latent.len())));
        }
        self.past.push_front(latent.clone());
        self.past.truncate(self.engine.latent.past);
        Ok(latent)
    }

    /// Draws the mouth of `latent`; `None` where the person or the face has nothing to draw it from.
    fn draw(&self, latent: Vec<f32>, work: &mut Work, scene: &Scene) -> Result<Option<Rendering>> {
        let Compact { spec, basis, stages, canvas, .. } = &*self.engine;
        let (person, face) = (Compact::person(scene.identity)?, scene.face);
        let Some(to_crop) = spec.alignment.fit(&face.points) else { return Ok(None) };
        let points: Vec<_> = face.points.iter().map(|p| to_crop.apply(*p)).collect();
        let frames = self.last.as_ref().map_or(1.0, |last| last.frames_until(scene));
        let mut contrast = self.contrast.clone();
        let stretched = contrast.stretch(basis, &latent, frames);
        let drift = self.last.as_ref().map(|last| (last.drift.as_slice(), frames));
        let wanted = person.wanted(basis, &stretched, &points, scene.gain, drift);
        let more = self.last.as_ref().map_or(0.0, |last| render::lips_distance(&wanted.lower, &last.lower) / JITTER);
        let showing = self.last.as_ref().map(|last| (last.showing, frames + more));
        let Some(chosen) = render::choose(person, &wanted, scene, showing) else { return Ok(None) };
        let side = person.side().unwrap_or(spec.crop);
        let mut mask = mask::lower_face(side, &wanted, &points);
        let turned = self.last.as_ref().map_or(0.0, |last| last.turned * RELEASE.powf(frames));
        let turned = chosen.turned(&wanted, face.yaw).max(turned);
        let covered = mask::area(&mask, side);
        let mut area = covered;
        let refined = stages.len() > REFINE;
        if refined {
            area = area.union(&refine::area(&wanted));
        }
        let Some(warp) = render::Warp::from(&wanted) else { return Ok(None) };
        if let Some(painted) = mask::Painted::new(&wanted, &points, turned, &covered)
            && let Some(skin) = chosen.skin(&warp, &painted.nodes)
        {
            painted.apply(&mut mask, side, &skin);
        }
        let Some(pixels) = chosen.pixels(canvas, &warp, &area)? else { return Ok(None) };
        let showing = chosen.showing;
        if refined && refine::fill(canvas, work, &pixels, (person, showing.reference), (&wanted, &warp), scene)? {
            work.pass(REFINE);
        }
        Ok(Some(Rendering { latent, contrast, wanted, pixels, mask, area, to_crop, showing, turned, frames, more }))
    }

    /// Makes a patch of a picture that is drawn, and remembers it.
    fn finish(&mut self, rendering: Rendering, scene: &Scene) -> Result<Option<Patch>> {
        let Rendering { latent, contrast, wanted, pixels, mask, area, to_crop, showing, turned, frames, more } =
            rendering;
        let Some(to_frame) = to_crop.inverse() else { return Ok(None) };
        let (side, crop) = (pixels.side(), self.engine.spec.crop);
        let density = side as f32 * to_crop.scale();
        let reach = reach(side, density);
        let amount = if side > crop { finer(density / reach as f32) * SHARPEN } else { SHARPEN };
        let around = |r: Rect| Rect {
            x: r.x - AROUND,
            y: r.y - AROUND,
            width: r.width + 2.0 * AROUND,
            height: r.height + 2.0 * AROUND,
        };
        let moving = Rect::around(&wanted.points[landmarks::LIPS]).map(|lips| (around(lips), more));
        let before = self.last.as_ref().map(|last| (&last.picture, frames));
        let finish = Finish { area: &area, amount, reach, before, moving };
        let (picture, patch) = self.engine.canvas.finish(pixels, &finish, mask, to_frame)?;
        tracing::trace!(opening = opening(&wanted.lower), ?showing, "rendered");
        self.contrast = contrast;
        self.shown = Some(latent);
        let (drift, lower, time) = (wanted.drift, wanted.lower, scene.time);
        self.last = Some(Last { patch: patch.clone(), picture, showing, drift, lower, turned, time });
        Ok(Some(patch))
    }

    /// [`Actor::show`], which may run out of memory.
    fn shown_in(&mut self, mut work: Work, scene: &Scene) -> Result<Shown> {
        let mut rendering = match self.rendering.take() {
            Some(rendering) if work.get(LATENT).is_none() => rendering,
            _ => {
                let latent = self.remember(&mut work)?;
                let Some(rendering) = self.draw(latent, &mut work, scene)? else { return Ok(Shown::Nothing) };
                if work.next().is_some() {
                    self.rendering = Some(rendering);
                    return Ok(Shown::More(work));
                }
                return Ok(self.finish(rendering, scene)?.map_or(Shown::Nothing, Shown::Patch));
            }
        };
        self.engine.canvas.correct(&mut work, &mut rendering.pixels, &rendering.wanted)?;
        Ok(self.finish(rendering, scene)?.map_or(Shown::Nothing, Shown::Patch))
    }
}

impl Actor for CompactActor {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        self.motion(moment.audio).map(Asked::Work)
    }

    fn rehearse(&mut self, audio: &[f32]) -> Result<Option<Work>> {
        self.motion(audio).map(Some)
    }

    fn rehearsed(&mut self, mut work: Work, time: Option<Duration>) -> Result<()> {
        let latent = self.remember(&mut work)?;
        let last = std::mem::replace(&mut self.rehearsed, time);
        self.contrast.stretch(&self.engine.basis, &latent, frames_between(last, time));
        Ok(())
    }

    fn show(&mut self, work: Work, scene: &Scene) -> Result<Shown> {
        match self.shown_in(work, scene) {
            Err(error @ Error::OutOfMemory { .. }) => {
                self.engine.canvas.trim();
                tracing::warn!(%error, "a frame is left as it is");
                Ok(Shown::Nothing)
            }
            other => other,
        }
    }

    fn hold(&self, face: &Face) -> Option<Patch> {
        let patch = self.last.as_ref()?.patch.clone();
        let to_frame = self.engine.spec.alignment.fit(&face.points)?.inverse()?;
        Some(Patch { to_frame, ..patch })
    }

    fn settle(&mut self) -> bool {
        self.from = self.shown.take();
        self.from.is_some()
    }

    /// A motion of nothing is a mouth at rest.
    fn settling(&mut self, level: f32) -> Option<Work> {
        let width = self.engine.latent.len();
        let latent = match &self.from {
            Some(from) => from.iter().map(|f| f * level).collect(),
            None => vec![0.0; width],
        };
        Some(Work::new(Noise::default()).with(LATENT, Tensor { shape: vec![1, width], data: latent }))
    }

    fn forget(&mut self) {
        self.past.clear();
        (self.last, self.shown, self.from, self.rendering) = (None, None, None, None);
    }

    fn forget_pixels(&mut self) {
        (self.last, self.rendering) = (None, None);
    }
}

impl Last {
    /// Frames of [`FRAME`] between it and `scene`.
    fn frames_until(&self, scene: &Scene) -> f32 {
        frames_between(self.time, scene.time)
    }
}

fn frames_between(then: Option<Duration>, now: Option<Duration>) -> f32 {
    let step = then.zip(now).map(|(then, now)| then.abs_diff(now));
    step.map_or(1.0, |step| step.div_duration_f32(FRAME).clamp(*STEPS.start(), *STEPS.end()))
}

/// How far apart the pixels lie that are sharpened against each other, in a crop of `side` whose pixels are `density` times
/// as dense as the frame's: as far as in a crop of 256, and nearer where the frame shows finer detail than that.
fn reach(side: usize, density: f32) -> usize {
    if density.is_finite() { (density.round() as usize).clamp(1, (side / 256).max(1)) } else { 1 }
}

/// How many times more a crop is sharpened whose pixels, as far apart as they are sharpened against each other, are
/// `density` times as dense as the frame's: what sampling loses lies in coarser detail of such a crop, where less is added.
fn finer(density: f32) -> f32 {
    if density.is_finite() { density.clamp(1.0, 1.5) } else { 1.0 }
}
