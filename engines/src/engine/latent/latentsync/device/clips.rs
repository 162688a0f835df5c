use std::sync::Arc;

use super::ESTIMATE;
use crate::{
    Error, Result,
    cuda::Buffer,
    engine::{
        Clip, DeviceTensor, KNOWN, LATENT, Noise, TRAIL, Work,
        latent::{
            clip::{CONDITION, DECODE, ENCODE, KNOWN_CONDITION, PICTURE, SOUND, STEP},
            coder::{CHANNELS, EPSILON, PICTURES, PIXELS},
            device::Shared,
        },
    },
    geometry::{Rect, Similarity},
    kernels::{DeviceCrop, Painted, begin, draw},
    schedule::Schedule,
};

/// As [`super::super::sequence::Sequence`].
pub(super) struct Clips {
    shared: Arc<Shared>,
    schedule: Schedule,
    clip: Clip,
    /// The network's picture in a crop.
    inner: Rect,
    /// What latents begin as, `[4, small, small]`.
    noise: Buffer<f32>,
    /// What encoded pictures are sampled by.
    samples: Noise,
    gathered: Vec<Gathered>,
    /// The end of the clip that was finished last.
    tail: Option<Tail>,
}

/// What a frame showed.
pub(super) struct Seen {
    pub crop: DeviceCrop,
    pub to_square: Similarity,
}

struct Gathered {
    sound: Vec<f32>,
    seen: Seen,
}

struct Tail {
    track: u64,
    frames: usize,
    /// Latents before each step and after the last, `[steps + 1, 4, frames, small, small]`,
    latents: DeviceTensor,
    /// what they were painted by, `[1, 9, frames, small, small]`,
    condition: DeviceTensor,
    /// and what they heard.
    sound: Vec<f32>,
}

/// What a clip's work remembers.
struct Sent {
    track: u64,
    known: usize,
    sound: Vec<f32>,
    seen: Vec<Seen>,
}

impl Clips {
    pub fn new(shared: &Arc<Shared>, mut noise: Noise, schedule: Schedule, clip: Clip, inner: Rect) -> Result<Self> {
        let count = CHANNELS * shared.plane();
        let start = Buffer::room(&shared.memory, count)?;
        draw(&shared.memory, &mut noise, (&start, 0), count, None)?;
        Ok(Self {
            shared: Arc::clone(shared),
            schedule,
            clip,
            inner,
            noise: start,
            samples: noise,
            gathered: Vec::new(),
            tail: None,
        })
    }

    /// Adds a frame and what it hears.
    pub fn gather(&mut self, sound: &[f32], seen: Seen) {
        self.gathered.push(Gathered { sound: sound.to_vec(), seen });
    }

    /// The work of the frames of the face `track` that were gathered; `None` where there are none.
    pub fn close(&mut self, track: u64) -> Result<Option<Work>> {
        let gathered = std::mem::take(&mut self.gathered);
        // What is not known by now comes too late for this one, and for those after it is too old.
        let tail = self.tail.take().filter(|tail| tail.track == track);
        if gathered.is_empty() {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        let Shared { memory, side, small, sound: [lines, width], .. } = &*shared;
        let (plane, fresh, steps) = (shared.plane(), gathered.len(), self.schedule.steps().len());
        let known = tail.as_ref().map_or(0, |tail| tail.frames);
        let frames = known + fresh;
        let before = tail.as_ref().map_or(&[][..], |tail| &tail.sound);
        let sound: Vec<f32> = before.iter().chain(gathered.iter().flat_map(|frame| &frame.sound)).copied().collect();
        if sound.len() != frames * lines * width {
            return Err(Error::invalid(format!(
                "{frames} frames with {} numbers of sound are not of {lines} rows of {width}",
                sound.len()
            )));
        }
        // Masked faces, then whole ones.
        let (picture, one) = (3 * side * side, CHANNELS * plane);
        let pixels = Buffer::room(memory, 2 * fresh * picture)?;
        let epsilon = Buffer::room(memory, 2 * fresh * one)?;
        for (i, frame) in gathered.iter().enumerate() {
            shared.show(&frame.seen.crop, &self.inner, &pixels, [i, fresh + i])?;
            for at in [i, fresh + i] {
                draw(memory, &mut self.samples, (&epsilon, at * one), one, None)?;
            }
        }
        let room = |numbers: usize| Buffer::room(memory, numbers);
        let (latent, estimate) = (room(one * frames)?, room(one * frames)?);
        let trail = room((steps + 1) * one * frames)?;
        let painted = Painted {
            clip: shared.clip(frames, known),
            latent: (&latent, 0),
            known: tail.as_ref().map(|tail| tail.latents.part()),
            copies: &[(&trail, 0)],
        };
        begin(memory, &painted, &self.noise)?;
        let of_frames = |first: usize| vec![first, CHANNELS, frames, *small, *small];
        let mut work = Work::new(Noise::default());
        work.put_there(PIXELS, vec![2 * fresh, 3, *side, *side], pixels);
        work.put_there(EPSILON, vec![2 * fresh, CHANNELS, *small, *small], epsilon);
        work.put_there(LATENT, of_frames(1), latent);
        work.put_there(ESTIMATE, of_frames(1), estimate);
        work.put_there(TRAIL, of_frames(steps + 1), trail);
        work.put_there(SOUND, vec![1, frames, *lines, *width], Buffer::of(memory, &sound)?);
        if let Some(tail) = tail {
            work.place_there(KNOWN, tail.latents);
            work.place_there(KNOWN_CONDITION, tail.condition);
        }
        work.pass(ENCODE);
        work.denoise(STEP, &self.schedule);
        work.pass(DECODE);
        let seen = gathered.into_iter().map(|frame| frame.seen).collect();
        Ok(Some(work.remembering(Sent { track, known, sound, seen })))
    }

    /// A finished clip as work of its new frames, each with its picture and what it was gathered with. What the next clip begins
    /// with is kept.
    pub fn parts(&mut self, mut work: Work) -> Result<Vec<Work>> {
        let sent = work.remembered::<Sent>().ok_or_else(|| Error::invalid("work of another engine"))?;
        let Sent { track, known, sound, seen } = *sent;
        let (trail, condition, pictures) =
            (work.take_there(TRAIL)?, work.take_there(CONDITION)?, work.take_there(PICTURES)?);
        let frames = known + seen.len();
        let keep = (self.clip.frames - self.clip.hop).min(frames);
        if keep > 0 {
            self.tail = Some(Tail {
                track,
                frames: keep,
                latents: self.last(&trail, keep)?,
                condition: self.last(&condition, keep)?,
                sound: sound[sound.len() / frames * (frames - keep)..].to_vec(),
            });
        }
        let side = self.shared.side;
        let part = |(i, seen): (usize, Seen)| {
            let at = pictures.at + i * 3 * side * side;
            let mut work = Work::new(Noise::default());
            let buffer = Arc::clone(&pictures.buffer);
            work.place_there(PICTURE, DeviceTensor { shape: vec![1, 3, side, side], buffer, at });
            work.remembering(seen)
        };
        Ok(seen.into_iter().enumerate().map(part).collect())
    }

    /// The next clip does not go on from what was.
    pub fn forget(&mut self) {
        self.tail = None;
    }

    /// The last `count` frames of `[n, channels, frames, small, small]`.
    fn last(&self, clip: &DeviceTensor, count: usize) -> Result<DeviceTensor> {
        let [rows, channels, frames, height, width] = clip.shape[..] else {
            return Err(Error::invalid(format!("latents of {:?} are no clips", clip.shape)));
        };
        let (plane, lines) = (height * width, rows * channels);
        let out = Buffer::room(&self.shared.memory, lines * count * plane)?;
        let from = clip.at + (frames - count) * plane;
        out.copy(0, &clip.buffer, from, (lines, count * plane), [count * plane, frames * plane])?;
        let shape = vec![rows, channels, count, height, width];
        Ok(DeviceTensor { shape, buffer: Arc::new(out), at: 0 })
    }
}
