//! A stream: frames of a film go in, and come out with another mouth.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use lipstream_engines::{
    Error, Result,
    engine::{Actor, Asked, Engine, Identity, LATENT, Moment, Sampling, Scene, Shown, Work},
    image::paste,
};

use super::film::{Film, Picture};

/// Frames a second.
pub const RATE: f64 = 25.0;

/// Milliseconds of each part.
#[derive(Default)]
pub struct Clock(BTreeMap<String, Vec<f64>>);

impl Clock {
    pub fn time<T>(&mut self, part: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let done = work()?;
        self.0.entry(part.into()).or_default().push(begun.elapsed().as_secs_f64() * 1e3);
        Ok(done)
    }

    pub fn medians(mut self) -> BTreeMap<String, f64> {
        self.0.iter_mut().map(|(part, times)| (part.clone(), median(times))).collect()
    }
}

/// The middle one; 0 of none.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

pub struct Player {
    pub engine: Arc<dyn Engine>,
    film: Arc<Film>,
    actor: Box<dyn Actor>,
    identity: Identity,
    /// Frames that were asked for, and those that were shown.
    asked: usize,
    shown: usize,
}

impl Player {
    pub fn new(engine: &Arc<dyn Engine>, film: &Arc<Film>, sampling: &Sampling) -> Result<Self> {
        Ok(Self {
            engine: Arc::clone(engine),
            film: Arc::clone(film),
            identity: film.identity(&**engine)?,
            actor: Arc::clone(engine).actor(5, sampling)?,
            asked: 0,
            shown: 0,
        })
    }

    /// Frames of a work item.
    pub fn hop(&self) -> usize {
        self.engine.spec().clip.hop
    }

    /// The work of the next frame, or of the next frames of a clip.
    pub fn sent(&mut self, clock: &mut Clock) -> Result<Work> {
        for _ in 0..self.hop() {
            let (frame, window) = (self.asked, self.engine.spec().window.len());
            let number = |k: usize| ((k as f32 * 0.37).sin() + (frame as f32 * 0.21 + (k % 7) as f32).sin()) / 1.5;
            let audio: Vec<f32> = (0..window).map(number).collect();
            let face = self.film.face(&*self.engine, frame, 0.02);
            let view = self.film.picture(frame).view()?;
            let moment = Moment { face: &face, later: &[], identity: &self.identity, audio: &audio, frame: &view };
            self.asked += 1;
            match clock.time("ask", || self.actor.ask(&moment))? {
                Asked::Work(work) => return Ok(work),
                Asked::Gathered => (),
                Asked::Nothing => return Err(Error::invalid("a frame of the bench has no face")),
            }
        }
        clock.time("close", || self.actor.close())?.ok_or_else(|| Error::invalid("a clip without work"))
    }

    /// Finished work, frame by frame.
    pub fn parts(&mut self, work: Work, clock: &mut Clock) -> Result<Vec<Work>> {
        clock.time("parts", || self.actor.parts(work))
    }

    /// The next frame with its mouth, or the work that has to be done first.
    pub fn show(&mut self, part: Work, clock: &mut Clock) -> Result<Result<Picture, Work>> {
        let face = self.film.face(&*self.engine, self.shown, 0.02);
        let time = Some(Duration::from_secs_f64(self.shown as f64 / RATE));
        let scene = Scene { face: &face, identity: &self.identity, gain: 1.0, time, gap: Duration::ZERO };
        match clock.time("show", || self.actor.show(part, &scene))? {
            Shown::Patch(patch) => {
                let mut picture = self.film.picture(self.shown).clone();
                let mut frame = picture.frame()?;
                clock.time("paste", || paste(&mut frame, &patch))?;
                self.shown += 1;
                Ok(Ok(picture))
            }
            Shown::More(work) => Ok(Err(work)),
            Shown::Nothing => Err(Error::invalid("a frame of the bench shows nothing")),
        }
    }
}

/// Passes work through all its stages, as much of it at a time as a stage takes.
pub fn pass(engine: &dyn Engine, works: &mut [Work], clock: &mut Clock) -> Result<()> {
    while let Some(next) = works.first().and_then(Work::next) {
        let stage = &engine.stages()[next.stage];
        let rows = works[0].rows_of(stage.inputs()).max(1);
        let most = (stage.sizes().last().copied().unwrap_or(1) / rows).max(1);
        for batch in works.chunks_mut(most) {
            clock.time(stage.kind().name(), || stage.run(batch))?;
        }
        works.iter_mut().for_each(Work::advance);
    }
    Ok(())
}

/// What a stream's work item made: its latents and its frames.
pub type Made = (Vec<f32>, Vec<Picture>);

/// The streams' next work items, together. Beside its parts the clock is told what stages took in all (`networks`), and all of it one
/// after another (`whole`).
pub fn turn(players: &mut [Player], clock: &mut Clock) -> Result<Vec<Made>> {
    let mut own = Clock::default();
    let made = turned(players, &mut own)?;
    let stages: Vec<&str> = players.first().iter().flat_map(|p| p.engine.stages()).map(|s| s.kind().name()).collect();
    let whole = own.0.iter().filter(|(part, _)| !stages.contains(&part.as_str())).flat_map(|(_, times)| times).sum();
    own.0.insert("whole".into(), vec![whole]);
    own.0.into_iter().for_each(|(part, mut times)| clock.0.entry(part).or_default().append(&mut times));
    Ok(made)
}

fn turned(players: &mut [Player], clock: &mut Clock) -> Result<Vec<Made>> {
    let Some(engine) = players.first().map(|player| Arc::clone(&player.engine)) else { return Ok(Vec::new()) };
    let mut works = players.iter_mut().map(|player| player.sent(clock)).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    pass(&*engine, &mut works, clock)?;
    let mut networks = begun.elapsed();
    let mut made = works.iter().map(|work| Ok((latents(work)?, Vec::new()))).collect::<Result<Vec<_>>>()?;
    let mut parts = Vec::new();
    for (player, work) in players.iter_mut().zip(works) {
        parts.push(player.parts(work, clock)?.into_iter());
    }
    while let Some(works) = parts.iter_mut().map(Iterator::next).collect::<Option<Vec<Work>>>() {
        let mut waiting: Vec<(usize, Work)> = works.into_iter().enumerate().collect();
        while !waiting.is_empty() {
            let mut more = Vec::new();
            for (i, work) in waiting.drain(..) {
                match players[i].show(work, clock)? {
                    Ok(picture) => made[i].1.push(picture),
                    Err(work) => more.push((i, work)),
                }
            }
            let (whose, mut works): (Vec<usize>, Vec<Work>) = more.into_iter().unzip();
            let begun = Instant::now();
            pass(&*engine, &mut works, clock)?;
            networks += begun.elapsed();
            waiting = whose.into_iter().zip(works).collect();
        }
    }
    clock.0.entry("networks".into()).or_default().push(networks.as_secs_f64() * 1e3);
    Ok(made)
}

/// Those of finished work; none of an engine without them.
fn latents(work: &Work) -> Result<Vec<f32>> {
    match (work.get(LATENT), work.there(LATENT)) {
        (Some(here), _) => Ok(here.data.clone()),
        (None, Ok(there)) => {
            let count = there.shape.iter().product::<usize>();
            Ok(there.buffer.read()?.get(there.at..there.at + count).unwrap_or_default().to_vec())
        }
        (None, Err(_)) => Ok(Vec::new()),
    }
}
