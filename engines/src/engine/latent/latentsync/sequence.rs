use std::any::Any;

use crate::{
    Error, Result,
    engine::{
        Clip, Noise, TRAIL, Work,
        latent::{
            clip::{CONDITION, ClipStages, Fresh, PICTURE, Past},
            coder::{CHANNELS, FACTOR, PICTURES},
        },
    },
    runtime::Tensor,
    schedule::Schedule,
};

/// A stream as clips that join: each but the first begins with the last frames of the one before, whose latents are known, so
/// that the frames after them go on from there. All frames begin as the same noise.
///
/// `S` is what a frame is shown by later.
pub(super) struct Sequence<S> {
    schedule: Schedule,
    clip: Clip,
    /// Pixels of a side of a face.
    side: usize,
    /// What latents begin as.
    noise: Vec<f32>,
    /// What encoded pictures are sampled by.
    samples: Noise,
    gathered: Vec<Gathered<S>>,
    /// The end of the clip that was finished last.
    tail: Option<Tail>,
}

struct Gathered<S> {
    fresh: Fresh,
    seen: S,
}

struct Tail {
    track: u64,
    past: Past,
}

/// What a clip's work remembers.
struct Sent<S> {
    track: u64,
    /// Frames of the past that it begins with.
    known: usize,
    /// What all of its frames hear.
    sound: Vec<f32>,
    seen: Vec<S>,
}

impl<S: Any + Send> Sequence<S> {
    pub(super) fn new(mut noise: Noise, schedule: Schedule, clip: Clip, side: usize) -> Self {
        let start = noise.latent(CHANNELS * (side / FACTOR).pow(2));
        Self { schedule, clip, side, noise: start, samples: noise, gathered: Vec::new(), tail: None }
    }

    /// Adds a frame: the aligned face `[3, side, side]`, RGB in -1..1, and what it hears.
    pub(super) fn gather(&mut self, face: Vec<f32>, sound: &[f32], seen: S) {
        let epsilon = self.samples.latent(2 * CHANNELS * (self.side / FACTOR).pow(2));
        self.gathered.push(Gathered { fresh: Fresh { face, sound: sound.to_vec(), epsilon }, seen });
    }

    /// The work of the frames of the face `track` that were gathered; `None` where there are none.
    pub(super) fn close(&mut self, stages: &ClipStages, track: u64) -> Result<Option<Work>> {
        let gathered = std::mem::take(&mut self.gathered);
        // What is not known by now comes too late for this one, and for those after it is too old.
        let tail = self.tail.take().filter(|tail| tail.track == track);
        if gathered.is_empty() {
            return Ok(None);
        }
        let past = tail.map(|tail| tail.past);
        let known = past.as_ref().map_or(0, Past::frames);
        let (fresh, seen): (Vec<Fresh>, Vec<S>) = gathered.into_iter().map(|frame| (frame.fresh, frame.seen)).unzip();
        let heard = past.iter().flat_map(|past| past.sound.iter().copied());
        let sound: Vec<f32> = heard.chain(fresh.iter().flat_map(|frame| frame.sound.iter().copied())).collect();
        let work = stages.continued(&fresh, past, &self.noise, &self.schedule)?;
        Ok(Some(work.remembering(Sent { track, known, sound, seen })))
    }

    /// A finished clip as work of its new frames, each with its picture `[3, side, side]`, RGB in -1..1, and what it was gathered
    /// with. What the next clip begins with is kept.
    ///
    /// Errors: pictures that are not finite.
    pub(super) fn parts(&mut self, mut work: Work, engine: &str) -> Result<Vec<Work>> {
        let sent = work.remembered::<Sent<S>>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Sent { track, known, sound, seen } = *sent;
        let (latents, condition) = (work.take(TRAIL)?, work.take(CONDITION)?);
        let pictures = work.take(PICTURES)?.data;
        let plane = 3 * self.side * self.side;
        if pictures.len() != plane * seen.len() || pictures.iter().any(|v| !v.is_finite()) {
            return Err(Error::invalid(format!(
                "engine `{engine}` gave pictures that are not whole or not finite; try precision=fp32, or import it again without \
                 --precision fp16"
            )));
        }
        let frames = known + seen.len();
        let keep = (self.clip.frames - self.clip.hop).min(frames);
        self.tail = (keep > 0).then(|| Tail {
            track,
            past: Past {
                latents: last(&latents, keep),
                condition: last(&condition, keep),
                sound: sound[sound.len() / frames * (frames - keep)..].to_vec(),
            },
        });
        let part = |(picture, seen): (&[f32], S)| {
            let picture = Tensor { shape: vec![1, 3, self.side, self.side], data: picture.to_vec() };
            Work::new(Noise::default()).with(PICTURE, picture).remembering(seen)
        };
        Ok(pictures.chunks_exact(plane).zip(seen).map(part).collect())
    }

    /// The next clip does not go on from what was.
    pub(super) fn forget(&mut self) {
        self.tail = None;
    }
}

/// The last `count` frames of `[n, channels, frames, height, width]`.
fn last(clip: &Tensor, count: usize) -> Tensor {
    let frames = clip.shape[2];
    let frame = clip.shape[3] * clip.shape[4];
    let channels = clip.data.chunks_exact((frames * frame).max(1));
    let data = channels.flat_map(|channel| &channel[(frames - count) * frame..]).copied().collect();
    let mut shape = clip.shape.clone();
    shape[2] = count;
    Tensor { shape, data }
}
