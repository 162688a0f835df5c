//! Encode and decode in the memory of a device. Nothing of an item changes before all of its batch has succeeded, so that a
//! batch that failed can be passed again in parts.

use std::sync::Arc;

use super::{Shared, frames};
use crate::{
    Error, Result,
    cuda::{Buffer, Place},
    engine::{
        DeviceTensor, LATENT, Stage, StageKind, Work,
        device::{self, made_up, numbers, trimmed},
        latent::{
            clip::{CONDITION, KNOWN_CONDITION},
            coder::{CHANNELS, EPSILON, LOG_VARIANCE, MEAN, PICTURES, PIXELS, scale_of},
            pictures_at_a_time,
        },
        stage::{largest_piece, piece_size, rows, sizes_of_pieces},
    },
    kernels::{Part, Sampled, plain},
    manifest::{Decoder, Package},
    runtime::{Bound, Model, Options},
};

/// Channels of what a clip is painted by: mask, masked face, whole face.
pub(in crate::engine::latent) const CONDITIONS: usize = 1 + 2 * CHANNELS;
/// How many times as many pictures a card takes at a time as the processor, whose caches they leave.
const ON_CARD: usize = 4;

/// A network of single pictures, or of their latents: those of a batch are evaluated one after another in pieces of at most
/// `piece`.
struct Coder {
    shared: Arc<Shared>,
    model: Arc<Model>,
    piece: usize,
    /// Its ports, and their shapes after the batch.
    input: (&'static str, [usize; 3]),
    outputs: Vec<(&'static str, [usize; 3])>,
}

impl Coder {
    fn load(
        shared: &Arc<Shared>,
        package: &Package,
        part: &str,
        options: &Options,
        input: (&'static str, [usize; 3]),
        outputs: &[(&'static str, [usize; 3])],
    ) -> Result<Self> {
        // Pictures lie somewhere else in each batch.
        let model = device::network(&*shared.memory, package, part, &options.without_graphs())?;
        let wide = if shared.memory.place() == Place::Host { 1 } else { ON_CARD };
        let piece = largest_piece(&model, pictures_at_a_time(shared.side) * wide);
        Ok(Self { shared: Arc::clone(shared), model, piece, input, outputs: outputs.to_vec() })
    }

    /// Rows that so many are evaluated as: the last piece is one that the device has a program for.
    fn rows(&self, count: usize) -> usize {
        match count % self.piece {
            0 => count,
            rest => count - rest + piece_size(&self.model, rest, self.piece),
        }
    }

    /// What the network says of [`rows`](Self::rows) rows, of each output.
    fn evaluated(&self, (input, at): Part, rows: usize) -> Result<Vec<Buffer<f32>>> {
        let count = |shape: &[usize; 3]| shape.iter().product::<usize>();
        let rooms = self.outputs.iter().map(|(_, shape)| Buffer::room(&self.shared.memory, rows * count(shape)));
        let outputs = rooms.collect::<Result<Vec<_>>>()?;
        for from in (0..rows).step_by(self.piece) {
            let rows = self.piece.min(rows - from);
            let of = |[channels, height, width]: [usize; 3]| [rows, channels, height, width];
            let (name, shape) = self.input;
            let asked = Bound { name, shape: &of(shape), buffer: input, at: at + from * count(&shape) };
            let shapes: Vec<_> = self.outputs.iter().map(|(_, shape)| of(*shape)).collect();
            let said = self.outputs.iter().zip(&shapes).zip(&outputs);
            let said = said.map(|(((name, own), shape), buffer)| Bound { name, shape, buffer, at: from * count(own) });
            self.model.run_bound(&[asked], &said.collect::<Vec<_>>())?;
        }
        Ok(outputs)
    }

    /// As [`evaluated`](Self::evaluated), of `count` rows and those that they are lengthened by. Errors: it says no numbers.
    fn said(&self, input: Part, count: usize) -> Result<Vec<Buffer<f32>>> {
        let outputs = self.evaluated(input, self.rows(count))?;
        for ((name, shape), output) in self.outputs.iter().zip(&outputs) {
            numbers(&self.shared.memory, &self.model, name, output, count * shape.iter().product::<usize>())?;
        }
        Ok(outputs)
    }

    /// Runs `count` rows, or all sizes of a piece of a network whose programs were built before.
    fn warm_up(&self, count: usize) -> Result<()> {
        let sizes = match self.model.is_built() {
            true => sizes_of_pieces(self.piece).filter(|rows| self.model.takes(*rows)).collect(),
            false => vec![count],
        };
        device::warm_up(&self.model, &sizes, 1, |rows| self.try_out(rows))
    }

    fn try_out(&self, count: usize) -> Result<()> {
        let rows = self.rows(count);
        let made = made_up(&self.shared.memory, rows * self.input.1.iter().product::<usize>())?;
        self.evaluated((&made, 0), rows).map(drop)
    }
}

/// Faces and their masked copies to what they are painted by.
pub(in crate::engine::latent) struct Encode {
    coder: Coder,
    scale: f32,
    sizes: Vec<usize>,
}

impl Encode {
    /// `sizes` are pictures.
    pub fn load(
        shared: &Arc<Shared>,
        package: &Package,
        options: &Options,
        scale: f32,
        sizes: Vec<usize>,
    ) -> Result<Self> {
        let Shared { side, small, .. } = **shared;
        let latents = [CHANNELS, small, small];
        let outputs = [(MEAN, latents), (LOG_VARIANCE, latents)];
        let coder = Coder::load(shared, package, "encoder", options, (PIXELS, [3, side, side]), &outputs)?;
        Ok(Self { coder, scale, sizes })
    }

    /// Of each item `[1, 9, frames, small, small]`.
    fn conditions(&self, batch: &[Work]) -> Result<Vec<DeviceTensor>> {
        let Shared { memory, side, small, small_mask, .. } = &*self.coder.shared;
        let (picture, one) = (3 * side * side, CHANNELS * self.coder.shared.plane());
        let counts: Vec<usize> = batch.iter().map(|work| rows(work, Some(&PIXELS))).collect();
        let count = counts.iter().sum();
        let whole = self.coder.rows(count);
        let all;
        let input = match batch {
            [work] if whole == count => work.there(PIXELS)?.part(),
            _ => {
                all = Buffer::room(memory, whole * picture)?;
                let mut to = 0;
                for (work, rows) in batch.iter().zip(&counts) {
                    let own = work.there(PIXELS)?;
                    all.copy(to, &own.buffer, own.at, (1, rows * picture), [rows * picture; 2])?;
                    to += rows * picture;
                }
                all.clear(to, (whole - count) * picture)?;
                (&all, 0)
            }
        };
        let said = self.coder.said(input, count)?;
        let [mean, log_variance] = &said[..] else { return Err(Error::invalid("an encoder says two things")) };
        let mut from = 0;
        let condition = |(work, rows): (&Work, &usize)| {
            let known = work.there(KNOWN_CONDITION).ok();
            let kept = known.and_then(|known| known.shape.get(2).copied()).unwrap_or(0);
            let frames = kept + rows / 2;
            let sampled = Sampled {
                mean: (mean, from),
                log_variance: (log_variance, from),
                epsilon: work.there(EPSILON)?.part(),
                mask: small_mask,
                known: known.map(DeviceTensor::part),
                scale: self.scale,
            };
            from += rows * one;
            let out = Buffer::room(memory, CONDITIONS * frames * self.coder.shared.plane())?;
            sampled.condition(memory, &self.coder.shared.clip(frames, kept), &[(&out, 0)])?;
            Ok(DeviceTensor { shape: vec![1, CONDITIONS, frames, *small, *small], buffer: Arc::new(out), at: 0 })
        };
        batch.iter().zip(&counts).map(condition).collect()
    }
}

impl Stage for Encode {
    fn kind(&self) -> StageKind {
        StageKind::Encode
    }

    fn inputs(&self) -> &[&'static str] {
        &[PIXELS, EPSILON]
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let made = self.conditions(batch).map_err(|error| trimmed(&*self.coder.shared.memory, error))?;
        for (work, condition) in batch.iter_mut().zip(made) {
            work.place_there(CONDITION, condition);
            for used in [PIXELS, EPSILON] {
                drop(work.take_there(used)?);
            }
        }
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        self.sizes.first().map_or(Ok(()), |rows| self.coder.warm_up(*rows))
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        self.coder.try_out(rows)
    }
}

/// Latents of the new frames to pictures.
pub(in crate::engine::latent) struct Decode {
    coder: Coder,
    /// From latents to what the decoder takes.
    scale: f32,
    /// Clips of a batch, and pictures that one of them becomes as a rule.
    sizes: Vec<usize>,
    pictures: usize,
}

impl Decode {
    /// The decoder of a U-Net that sees latents multiplied by `scale`; `sizes` are clips, each of which becomes `pictures`.
    pub fn load(
        shared: &Arc<Shared>,
        package: &Package,
        options: &Options,
        (decoder, scale): (Decoder, f32),
        (sizes, pictures): (Vec<usize>, usize),
    ) -> Result<Self> {
        let Shared { side, small, .. } = **shared;
        let (latents, pixels) = (("latents", [CHANNELS, small, small]), ("pixels", [3, side, side]));
        let coder = Coder::load(shared, package, decoder.part(), options, latents, &[pixels])?;
        Ok(Self { coder, scale: 1.0 / scale_of(decoder, scale), sizes, pictures })
    }

    /// Of each item `[n, 3, side, side]`, which lie one after another.
    fn pictures(&self, batch: &[Work]) -> Result<Vec<DeviceTensor>> {
        let shared = &self.coder.shared;
        let Shared { memory, side, .. } = &**shared;
        let (picture, one) = (3 * side * side, CHANNELS * shared.plane());
        let clips = batch.iter().map(frames).collect::<Result<Vec<_>>>()?;
        let count = clips.iter().map(|(frames, kept)| frames - kept).sum();
        let whole = self.coder.rows(count);
        let latents = Buffer::room(memory, whole * one)?;
        let mut to = 0;
        for (work, (frames, kept)) in batch.iter().zip(&clips) {
            let latent = work.there(LATENT)?.part();
            plain(memory, &shared.clip(*frames, *kept), latent, self.scale, (&latents, to))?;
            to += (frames - kept) * one;
        }
        latents.clear(to, (whole - count) * one)?;
        let pictures = self.coder.said((&latents, 0), count)?.pop();
        let pictures = Arc::new(pictures.ok_or_else(|| Error::invalid("a decoder that says nothing"))?);
        let mut at = 0;
        let own = |(frames, kept): &(usize, usize)| {
            let shape = vec![frames - kept, 3, *side, *side];
            let own = DeviceTensor { shape, buffer: Arc::clone(&pictures), at };
            at += (frames - kept) * picture;
            own
        };
        Ok(clips.iter().map(own).collect())
    }
}

impl Stage for Decode {
    fn kind(&self) -> StageKind {
        StageKind::Decode
    }

    fn inputs(&self) -> &[&'static str] {
        &[LATENT]
    }

    fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn run(&self, batch: &mut [Work]) -> Result<()> {
        let made = self.pictures(batch).map_err(|error| trimmed(&*self.coder.shared.memory, error))?;
        batch.iter_mut().zip(made).for_each(|(work, pictures)| work.place_there(PICTURES, pictures));
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        self.sizes.first().map_or(Ok(()), |rows| self.coder.warm_up(rows * self.pictures))
    }

    fn try_out(&self, rows: usize) -> Result<()> {
        self.coder.try_out(rows * self.pictures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cuda::{Host, Memory, Pool},
        import::onnx::{Dim, Graph, Precision},
        runtime::Device,
    };

    /// A coder of pictures of one pixel that doubles them, as TensorRT would run it: in batches of these sizes alone.
    fn doubling(folder: &std::path::Path, batches: &[usize], most: usize) -> Coder {
        let mut graph = Graph::new("doubling", Precision::Fp32);
        let pixel = [Dim::Free("batch"), Dim::Fixed(3), Dim::Fixed(1), Dim::Fixed(1)];
        let x = graph.input("pixels", &pixel);
        let twice = graph.add(&x, &x);
        graph.output("twice", &pixel, twice);
        let options = Options { device: Device::Cpu, ..Options::default() };
        let model = Model::as_built("doubling", graph.finish(), &options, folder, batches).unwrap();
        let memory: Arc<dyn Memory> = Arc::new(Pool::new(Host::new().unwrap()));
        let shared = Shared::new(&memory, 8, [1, 1], [&[1.0; 64], &[1.0]], 0.0).unwrap();
        let piece = largest_piece(&model, most);
        let (input, outputs) = (("pixels", [3, 1, 1]), vec![("twice", [3, 1, 1])]);
        Coder { shared: Arc::new(shared), model, piece, input, outputs }
    }

    fn doubled(coder: &Coder, count: usize) -> Result<Vec<f32>> {
        let numbers: Vec<f32> = (0..3 * count).map(|i| i as f32).collect();
        let input = Buffer::zeroed(&coder.shared.memory, 3 * coder.rows(count))?;
        input.write(0, &numbers)?;
        Ok(coder.said((&input, 0), count)?[0].read()?[..3 * count].to_vec())
    }

    #[test]
    fn pictures_go_in_pieces_of_sizes_that_were_built_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        // Eight would be allowed and were not built, nor were one and three.
        let coder = doubling(folder.path(), &[2, 4], 8);
        assert_eq!(coder.piece, 4);
        for (count, rows) in [(1, 2), (2, 2), (3, 4), (4, 4), (5, 6), (7, 8), (8, 8)] {
            assert_eq!(coder.rows(count), rows, "{count}");
            let wanted: Vec<f32> = (0..3 * count).map(|i| 2.0 * i as f32).collect();
            assert_eq!(doubled(&coder, count).unwrap(), wanted);
        }
        coder.warm_up(8).unwrap();
        assert_eq!(coder.model.programs(), 2);
        // More than would be taken at a time, where nothing else is there.
        let other = tempfile::tempdir().unwrap();
        let wide = doubling(other.path(), &[8], 4);
        assert_eq!((wide.piece, wide.rows(3), wide.rows(9)), (8, 8, 16));
    }

    #[test]
    fn a_size_that_was_not_built_is_named_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let coder = doubling(folder.path(), &[1], 1);
        assert_eq!(doubled(&coder, 3).unwrap(), (0..9).map(|i| 2.0 * i as f32).collect::<Vec<_>>());
        let error = doubled(&Coder { piece: 4, ..coder }, 3).unwrap_err().to_string();
        for part in
            ["has no TensorRT engine in fp16 for batch 4", "there are such of batch 1", "engines build", "--batch 4"]
        {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}
