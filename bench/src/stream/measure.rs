//! What a stream's parts take, and how far it is from the path on the processor.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use lipstream_engines::{
    Error, Result,
    cuda::Memory,
    engine::{self, Engine, Sampling},
    manifest::Package,
    runtime::{Options, Precision, Tuning},
    schedule::Guided,
};

use super::{
    family,
    film::Film,
    player::{Clock, Player, median, turn},
    report::{Apart, First, Timing, Tuned},
};

/// Streams that are opened to tell when the first frame of one comes, and no more than items are timed.
const OPENED: usize = 3;

/// How an engine is loaded and what its streams see.
pub struct Bench<'a> {
    pub package: &'a Package,
    pub options: Options,
    pub memory: Arc<dyn Memory>,
    pub film: Arc<Film>,
    /// Work items of a timing, after one that is not timed.
    pub timed: usize,
}

impl Bench<'_> {
    /// The engine in the memory of the card, and when its first frames come.
    pub fn first(&self) -> Result<(Arc<dyn Engine>, First)> {
        let (begun, free) = (Instant::now(), self.memory.available());
        let engine = family::there(self.package, &self.options, Arc::clone(&self.memory))?;
        let load = begun.elapsed().as_secs_f64();
        engine.stages().iter().try_for_each(|stage| stage.warm_up())?;
        let warm_up = begun.elapsed().as_secs_f64() - load;
        self.turned(&engine)?;
        let cold = begun.elapsed().as_secs_f64();
        let mut warm = (0..OPENED.min(self.timed.max(1))).map(|_| self.turned(&engine)).collect::<Result<Vec<_>>>()?;
        let memory = free.zip(self.memory.available()).map(|(before, after)| before.saturating_sub(after));
        Ok((engine, First { load, warm_up, cold, warm: median(&mut warm), memory }))
    }

    /// Opens a stream and shows its first frames, in seconds.
    fn turned(&self, engine: &Arc<dyn Engine>) -> Result<f64> {
        let begun = Instant::now();
        turn(&mut [Player::new(engine, &self.film, &Sampling::default())?], &mut Clock::default())?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// So many work items of a stream of both.
    pub fn compare(&self, here: &Arc<dyn Engine>, there: &Arc<dyn Engine>, items: usize) -> Result<Apart> {
        let mut both = [here, there].map(|engine| Player::new(engine, &self.film, &Sampling::default()));
        let (mut apart, mut values, mut differing) = (Apart::default(), 0usize, 0usize);
        for _ in 0..items {
            let mut made = Vec::new();
            for player in &mut both {
                let player = player.as_mut().map_err(|error| Error::invalid(error.to_string()))?;
                made.append(&mut turn(std::slice::from_mut(player), &mut Clock::default())?);
            }
            let [(wanted, frames), (found, pasted)] = &made[..] else { continue };
            if wanted.len() != found.len() || frames.len() != pasted.len() {
                return Err(Error::invalid("a stream in the memory of the card has other frames than the processor's"));
            }
            let far = wanted.iter().zip(found).map(|(a, b)| f64::from((a - b).abs()));
            apart.latents = far.fold(apart.latents, |most, d| if d >= 0.0 { most.max(d) } else { f64::INFINITY });
            for (a, b) in frames.iter().zip(pasted) {
                for (a, b) in a.luma.iter().chain(&a.chroma).zip(b.luma.iter().chain(&b.chroma)) {
                    apart.codes = apart.codes.max(a.abs_diff(*b));
                    differing += usize::from(a != b);
                    values += 1;
                }
            }
        }
        apart.differing = differing as f64 / values.max(1) as f64;
        Ok(apart)
    }

    /// Work items of so many streams at a time.
    pub fn time(&self, engine: &Arc<dyn Engine>, streams: usize, sampling: &Sampling) -> Result<Timing> {
        let mut all: Vec<Player> =
            (0..streams).map(|_| Player::new(engine, &self.film, sampling)).collect::<Result<_>>()?;
        // The first clip has other sizes, and what is made when it is first used.
        turn(&mut all, &mut Clock::default())?;
        let mut clock = Clock::default();
        for _ in 0..self.timed.max(1) {
            turn(&mut all, &mut clock)?;
        }
        let (spec, milliseconds) = (engine.spec(), clock.medians());
        let frames = streams * spec.clip.hop;
        let of = |part: &str| frames as f64 * 1e3 / milliseconds.get(part).copied().unwrap_or(0.0).max(1e-6);
        Ok(Timing {
            streams,
            frames,
            steps: sampling.steps.or(spec.steps),
            guided: sampling.guided.map(Guided::name),
            per_second: of("whole"),
            networks_per_second: of("networks"),
            milliseconds,
        })
    }

    /// One stream with the provider asked to work as `text` says, `[PRECISION/]name=value,...`.
    pub fn tune(&self, text: &str) -> Tuned {
        let mut tuned = Tuned {
            tuning: text.into(),
            refused: None,
            start: 0.0,
            memory: None,
            batches: BTreeMap::new(),
            timing: None,
        };
        let mut run = || {
            let (precision, tuning) = text.split_once('/').unwrap_or(("auto", text));
            let (precision, tuning): (Precision, Tuning) = (precision.parse()?, tuning.parse()?);
            let options = Options { precision, tuning, ..self.options };
            let (begun, free) = (Instant::now(), self.memory.available());
            let engine = family::there(self.package, &options, Arc::clone(&self.memory))?;
            engine.stages().iter().try_for_each(|stage| stage.warm_up())?;
            tuned.start = begun.elapsed().as_secs_f64();
            for cost in engine::profile(&*engine, &|| begun.elapsed())? {
                let of = |(rows, time): &(usize, Duration)| {
                    (format!("{} {rows}", cost.kind.name()), time.as_secs_f64() * 1e3)
                };
                tuned.batches.extend(cost.batches.iter().map(of));
            }
            tuned.timing = Some(self.time(&engine, 1, &Sampling::default())?);
            tuned.memory = free.zip(self.memory.available()).map(|(before, after)| before.saturating_sub(after));
            Ok::<_, Error>(())
        };
        tuned.refused = run().err().map(|error| error.to_string());
        tuned
    }
}

/// How an engine that denoises and guides is asked to work: as wanted first, then by steps and guidance.
pub fn forms(engine: &dyn Engine, steps: &[usize]) -> Vec<Sampling> {
    if engine.spec().steps.is_none() || engine.spec().clip.hop == 1 {
        return vec![Sampling::default()];
    }
    let guided = [Guided::None, Guided::Last, Guided::All];
    let form = |steps: usize, guided| Sampling { steps: Some(steps), guided: Some(guided), ..Sampling::default() };
    // With one step the last is all.
    let forms = guided.into_iter().flat_map(|g| steps.iter().map(move |n| (*n, g)));
    forms.filter(|(n, guided)| *n > 1 || *guided != Guided::Last).map(|(n, guided)| form(n, guided)).collect()
}
