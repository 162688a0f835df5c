//! Steps of denoising in the memory of a device. Nothing of an item changes before its batch has succeeded.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use super::ESTIMATE;
use crate::{
    Error, Result,
    cuda::Buffer,
    engine::{
        KNOWN, LATENT, Stage, StageKind, TRAIL, Work,
        device::{numbers, trimmed, warm_up},
        latent::{
            clip::{CONDITION, SOUND},
            coder::CHANNELS,
            device::{CONDITIONS, Shared, frames},
        },
        stage::padded,
        step::TIMESTEP,
    },
    kernels::{Painted, advance},
    runtime::{Bound, Model},
    schedule::Step,
};

/// Channels that the U-Net sees of a frame.
const SAMPLE: usize = CHANNELS + CONDITIONS;

/// One step of clips that share a batch; a guided one is asked twice, the second time without its sound.
pub(super) struct Denoise {
    shared: Arc<Shared>,
    model: Arc<Model>,
    /// Of a clip as a rule.
    frames: usize,
    sizes: Vec<usize>,
    /// Where runs that are replayed read and write, by rows and frames. Locked for the whole of a run.
    rooms: Mutex<Rooms>,
}

type Rooms = HashMap<[usize; 2], Arc<Room>>;

/// What the network reads and writes.
struct Room {
    /// `[rows, 13, frames, small, small]`,
    sample: Buffer<f32>,
    /// `[rows, frames, lines, width]`,
    audio: Buffer<f32>,
    /// `[rows]`,
    timesteps: Buffer<f32>,
    /// `[rows, 4, frames, small, small]`.
    prediction: Buffer<f32>,
}

/// What the network said of a batch: with their sound of all, then without it of those that are guided.
struct Said {
    steps: Vec<Step>,
    room: Arc<Room>,
    /// Without the frames that clips were lengthened by.
    cut: Option<Buffer<f32>>,
}

impl Said {
    fn prediction(&self) -> &Buffer<f32> {
        self.cut.as_ref().unwrap_or(&self.room.prediction)
    }
}

impl Denoise {
    pub fn new(shared: Arc<Shared>, model: Arc<Model>, frames: usize, sizes: Vec<usize>) -> Self {
        Self { shared, model, frames, sizes, rooms: Mutex::default() }
    }

    /// The rooms of a network whose runs are replayed, for one at a time.
    fn kept(&self) -> Option<MutexGuard<'_, Rooms>> {
        self.model.replays().then(|| self.rooms.lock())
    }

    /// Frames that clips of so many are evaluated as: where a program is made for each shape, short ones go as whole ones whose last
    /// frame stays.
    fn evaluated(&self, frames: usize) -> usize {
        if self.model.by_shape() { frames.max(self.frames) } else { frames }
    }

    /// A room, the same again where there are `rooms` that are kept.
    fn room(&self, rooms: Option<&mut Rooms>, rows: usize, frames: usize) -> Result<Arc<Room>> {
        let Shared { memory, sound: [lines, width], .. } = &*self.shared;
        let frame = frames * self.shared.plane();
        let make = || {
            Ok::<_, Error>(Arc::new(Room {
                sample: Buffer::room(memory, rows * SAMPLE * frame)?,
                audio: Buffer::room(memory, rows * frames * lines * width)?,
                timesteps: Buffer::room(memory, rows)?,
                prediction: Buffer::room(memory, rows * CHANNELS * frame)?,
            }))
        };
        match rooms.map(|rooms| rooms.entry([rows, frames])) {
            None => make(),
            Some(Entry::Occupied(known)) => Ok(known.get().clone()),
            Some(Entry::Vacant(free)) => Ok(free.insert(make()?).clone()),
        }
    }

    /// Runs the network once on what lies in a room.
    fn evaluate(&self, room: &Room, rows: usize, frames: usize) -> Result<()> {
        let Shared { small, sound: [lines, width], .. } = *self.shared;
        let shapes = (
            [rows, SAMPLE, frames, small, small],
            [rows, frames, lines, width],
            [rows],
            [rows, CHANNELS, frames, small, small],
        );
        let inputs = [
            Bound { name: "sample", shape: &shapes.0, buffer: &room.sample, at: 0 },
            Bound { name: "audio", shape: &shapes.1, buffer: &room.audio, at: 0 },
            Bound { name: TIMESTEP, shape: &shapes.2, buffer: &room.timesteps, at: 0 },
        ];
        let output = Bound { name: "noise", shape: &shapes.3, buffer: &room.prediction, at: 0 };
        self.model.run_bound(&inputs, &[output])
    }

    fn ask(&self, batch: &[Work], rooms: Option<&mut Rooms>) -> Result<Said> {
        let Shared { memory, sound: [lines, width], .. } = &*self.shared;
        let step = |work: &Work| {
            let step = work.next().and_then(|pass| pass.step);
            step.ok_or_else(|| Error::invalid("a stage of denoising was asked for no step"))
        };
        let steps = batch.iter().map(step).collect::<Result<Vec<_>>>()?;
        let guided: Vec<usize> = (0..batch.len()).filter(|i| steps[*i].guidance != 1.0).collect();
        let order: Vec<usize> = (0..batch.len()).chain(guided).collect();
        let rows = padded(&self.sizes, order.len());
        let Some(first) = batch.first() else { return Err(Error::invalid("a batch of nothing")) };
        // Items that share a batch have the same shapes.
        let (frames, _) = frames(first)?;
        let (plane, whole) = (self.shared.plane(), self.evaluated(frames));
        let room = self.room(rooms, rows, whole)?;
        let (own, frame) = (frames * plane, whole * plane);
        for (row, i) in order.iter().enumerate() {
            let mut to = row * SAMPLE * frame;
            for (name, channels) in [(LATENT, CHANNELS), (CONDITION, CONDITIONS)] {
                let from = batch[*i].there(name)?;
                room.sample.copy(to, &from.buffer, from.at, (channels, own), [frame, own])?;
                for k in frames..whole {
                    let last = from.at + own - plane;
                    room.sample.copy(to + k * plane, &from.buffer, last, (channels, plane), [frame, own])?;
                }
                to += channels * frame;
            }
        }
        let (heard, each) = (whole * lines * width, lines * width);
        for (row, work) in batch.iter().enumerate() {
            let from = work.there(SOUND)?;
            room.audio.copy(row * heard, &from.buffer, from.at, (1, frames * each), [frames * each; 2])?;
            for k in frames..whole {
                let last = from.at + (frames - 1) * each;
                room.audio.copy(row * heard + k * each, &from.buffer, last, (1, each), [each; 2])?;
            }
        }
        room.audio.clear(batch.len() * heard, (rows - batch.len()) * heard)?;
        room.sample.clear(order.len() * SAMPLE * frame, (rows - order.len()) * SAMPLE * frame)?;
        let mut timesteps: Vec<f32> = order.iter().map(|i| steps[*i].timestep).collect();
        timesteps.resize(rows, 0.0);
        room.timesteps.write(0, &timesteps)?;
        self.evaluate(&room, rows, whole)?;
        numbers(memory, &self.model, "noise", &room.prediction, rows * CHANNELS * frame)?;
        let cut = (whole > frames).then(|| {
            let cut = Buffer::room(memory, order.len() * CHANNELS * own)?;
            cut.copy(0, &room.prediction, 0, (order.len() * CHANNELS, own), [own, frame])?;
            Ok::<_, Error>(cut)
        });
        Ok(Said { steps, room, cut: cut.transpose()? })
    }

    fn advance(&self, batch: &mut [Work], said: &Said) -> Result<()> {
        let mut without = batch.len();
        for (i, work) in batch.iter_mut().enumerate() {
            let (frames, kept) = frames(work)?;
            let clip = self.shared.clip(frames, kept);
            let count = CHANNELS * frames * self.shared.plane();
            let (latent, trail) = (work.there(LATENT)?.clone(), work.there(TRAIL)?.clone());
            let (estimate, known) = (work.there(ESTIMATE)?.clone(), work.there(KNOWN).ok().cloned());
            // The trail has a row before each step and one after the last.
            let row = trail.shape.first().and_then(|rows| rows.checked_sub(work.remaining_steps()));
            let row = row.ok_or_else(|| Error::invalid("a clip with more steps than its trail has rows"))?;
            let one = CHANNELS * kept * self.shared.plane();
            let copies = [(&*trail.buffer, trail.at + row * count)];
            let painted = Painted {
                clip,
                latent: latent.part(),
                known: known.as_ref().map(|known| (&*known.buffer, known.at + row * one)),
                copies: &copies,
            };
            let step = &said.steps[i];
            let guided = (step.guidance != 1.0).then(|| {
                without += 1;
                (said.prediction(), (without - 1) * count)
            });
            let own = (said.prediction(), i * count);
            advance(&self.shared.memory, &painted, step, (own, guided), estimate.part(), &mut work.noise)?;
        }
        Ok(())
    }
}

impl Stage for Denoise {
    fn kind(&self) -> StageKind {
        StageKind::Step
    }

    fn inputs(&self) -> &[&'static str] {
        &[LATENT, CONDITION, SOUND]
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let mut rooms = self.kept();
        let said = self.ask(batch, rooms.as_deref_mut()).map_err(|error| trimmed(&*self.shared.memory, error))?;
        self.advance(batch, &said)
    }

    /// The steps of one stream: guided, and not.
    fn warm_up(&self) -> Result<()> {
        warm_up(&self.model, &self.sizes, 2, |rows| self.try_out(rows))
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        let (mut rooms, frames) = (self.kept(), self.frames);
        let room = self.room(rooms.as_deref_mut(), rows, frames)?;
        for buffer in [&room.sample, &room.audio, &room.timesteps] {
            let numbers: Vec<f32> = (0..buffer.len()).map(|i| (i as f32 * 0.37).sin()).collect();
            buffer.write(0, &numbers)?;
        }
        self.evaluate(&room, rows, frames)
    }
}
