//! Golden files of LatentSync and MuseTalk.
//!
//! Both: `whisper.in.mel` `[80, columns]`. LatentSync: `whisper.out.embeddings`; `vae.in.pixels`, `vae.in.latent` and `vae.out.*`;
//! `taesd.in.latent`, `taesd.out.decoded`; `unet.fN.in.*` and `unet.fN.tK.*`, for clips of N frames; `chunk.in.*`, and of whole
//! clips by DDIM and DPM-Solver++ `chunk.ddim.*` and `chunk.dpm.*`: the last latents and the composed faces. MuseTalk:
//! `whisper.out.hidden_states`; `unet.in.*`, `unet.out.latents`; `decode.out.float`, the first of these decoded. What a file does
//! not hold is not compared.

use super::{
    check::{Difference, difference, run, tensor},
    whisper::COLUMNS,
};
use crate::{
    Error, Result,
    engine::{
        Clip,
        latent::clip::{self, ClipStages, Ingredients},
    },
    manifest::Package,
    runtime::{Options, Tensor},
    schedule::{Sampler, Schedule, ScheduleConfig, Spacing},
    tensor::Weights,
};

/// One engine and one file.
pub(super) struct Golden<'a> {
    pub package: &'a Package,
    pub options: &'a Options,
    pub file: &'a Weights,
}

impl Golden<'_> {
    pub(super) fn latentsync(&self) -> Result<Vec<Difference>> {
        let mut all = Vec::new();
        if self.has("whisper.in.mel") {
            // The last of 30 seconds is filled up with zeros.
            self.whisper("whisper.out.embeddings", |_| 0.0, &mut all)?;
        }
        if self.has("vae.in.pixels") {
            let pixels = vec![("pixels".into(), tensor(self.file, "vae.in.pixels")?)];
            self.network("encoder", pixels, &["vae.out.mean", "vae.out.logvar"], &mut all)?;
            let latents = vec![("latents".into(), tensor(self.file, "vae.in.latent")?)];
            self.network("decoder", latents, &["vae.out.decoded"], &mut all)?;
        }
        if self.has("taesd.in.latent") && self.package.manifest().files.contains_key("taesd") {
            let latents = vec![("latents".into(), tensor(self.file, "taesd.in.latent")?)];
            self.network("taesd", latents, &["taesd.out.decoded"], &mut all)?;
        }
        let outputs = self.file.names().filter(|name| name.starts_with("unet.f") && name.ends_with(".out.sample"));
        for name in outputs.map(str::to_owned).collect::<Vec<_>>() {
            self.clip(&name, &mut all)?;
        }
        if self.has("chunk.in.faces") {
            self.chunks(&mut all)?;
        }
        self.some(all)
    }

    pub(super) fn musetalk(&self, scale: f32) -> Result<Vec<Difference>> {
        let mut all = Vec::new();
        if self.has("whisper.in.mel") {
            // Silence fills up the 30 seconds: the floor of the log-mel.
            let floor = |mel: &[f32]| mel.iter().copied().fold(f32::MAX, f32::min);
            self.whisper("whisper.out.hidden_states", floor, &mut all)?;
        }
        if self.has("unet.in.latents") {
            let ports = [("latents", "unet.in.latents"), ("audio", "unet.in.audio")];
            let inputs = ports.iter().map(|(port, name)| Ok(((*port).to_owned(), tensor(self.file, name)?)));
            self.network("unet", inputs.collect::<Result<_>>()?, &["unet.out.latents"], &mut all)?;
        }
        if self.has("decode.out.float") && self.has("unet.out.latents") {
            let mut latents = tensor(self.file, "unet.out.latents")?;
            let count = latents.shape.first().copied().unwrap_or(0).max(1);
            latents.data.truncate(latents.data.len() / count);
            latents.data.iter_mut().for_each(|v| *v /= scale);
            if let Some(first) = latents.shape.first_mut() {
                *first = 1;
            }
            self.network("decoder", vec![("latents".into(), latents)], &["decode.out.float"], &mut all)?;
        }
        self.some(all)
    }

    /// Whole clips, from aligned faces to composed ones.
    fn chunks(&self, all: &mut Vec<Difference>) -> Result<()> {
        let Some(section) = &self.package.manifest().latentsync else { return Ok(()) };
        let stages = ClipStages::load(self.package, self.options, Clip::whole(section.frames))?;
        let mut faces = tensor(self.file, "chunk.in.faces")?;
        faces.data.iter_mut().for_each(|v| *v = *v / 255.0 * 2.0 - 1.0);
        let mask = tensor(self.file, "chunk.in.mask")?.data;
        let (masked, whole) = (tensor(self.file, "chunk.in.eps_masked")?, tensor(self.file, "chunk.in.eps_ref")?);
        let Some(own) = &self.package.manifest().scheduler else { return Ok(()) };
        let other = ScheduleConfig { kind: Sampler::Dpm, spacing: Spacing::Linspace, ..own.clone() };
        for (name, config) in [("ddim", own), ("dpm", &other)] {
            let Some([steps]) = self.file.shape(&format!("chunk.{name}.timesteps")) else { continue };
            let schedule = Schedule::new(config, *steps)?;
            let mut shape = masked.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = first.saturating_mul(2);
            }
            let ingredients = Ingredients {
                faces: &faces,
                mask: &mask,
                sound: tensor(self.file, "chunk.in.audio")?,
                noise: tensor(self.file, "chunk.in.noise")?.data,
                epsilon: Tensor { shape, data: [&masked.data[..], &whole.data].concat() },
                past: None,
            };
            let (latents, mut pictures) = stages.complete(stages.work(ingredients, &schedule)?)?;
            let last = format!("chunk.{name}.step{}.latents", steps.saturating_sub(1));
            all.push(difference(last.clone(), &latents.data, &tensor(self.file, &last)?.data)?);
            clip::composed(&mut pictures, &faces, &mask);
            let name = format!("chunk.{name}.out.composed");
            let wanted = tensor(self.file, &name)?;
            // Where not all frames are stored, the first and the last are.
            let frame = pictures.data.len() / faces.shape[0].max(1);
            if wanted.data.len() == 2 * frame {
                let last = pictures.data.split_off(pictures.data.len() - frame);
                pictures.data.truncate(frame);
                pictures.data.extend(last);
            }
            all.push(difference(name, &pictures.data, &wanted.data)?);
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.file.shape(name).is_some()
    }

    fn some(&self, all: Vec<Difference>) -> Result<Vec<Difference>> {
        if all.is_empty() {
            let family = self.package.manifest().family;
            return Err(Error::invalid(format!("{}: holds no tensors of the family `{family}`", self.file.origin())));
        }
        Ok(all)
    }

    fn whisper(&self, output: &str, fill: impl Fn(&[f32]) -> f32, all: &mut Vec<Difference>) -> Result<()> {
        let mel = tensor(self.file, "whisper.in.mel")?;
        let [bands, columns] = mel.shape[..] else {
            return Err(Error::invalid(format!("{}: `whisper.in.mel` is not [bands, columns]", self.file.origin())));
        };
        if columns > COLUMNS || columns == 0 {
            return Err(Error::invalid(format!("{}: `whisper.in.mel` has {columns} columns", self.file.origin())));
        }
        let fill = vec![fill(&mel.data); COLUMNS - columns];
        let data = mel.data.chunks_exact(columns).flat_map(|row| row.iter().chain(&fill).copied()).collect();
        let mel = Tensor { shape: vec![1, bands, COLUMNS], data };
        self.network("whisper", vec![("mel".into(), mel)], &[output], all)
    }

    /// A clip at a timestep.
    fn clip(&self, output: &str, all: &mut Vec<Difference>) -> Result<()> {
        let parts: Vec<&str> = output.split('.').collect();
        let [_, clip, time, ..] = parts[..] else { return Ok(()) };
        let sample = tensor(self.file, &format!("unet.{clip}.in.sample"))?;
        let [batch, _, frames, ..] = sample.shape[..] else {
            return Err(Error::invalid(format!("{}: `unet.{clip}.in.sample` is no clip", self.file.origin())));
        };
        if sample.data.is_empty() {
            return Err(Error::invalid(format!("{}: `unet.{clip}.in.sample` is empty", self.file.origin())));
        }
        let whole = format!("unet.{clip}.in.audio");
        let mut audio =
            tensor(self.file, if self.has(&whole) { whole } else { format!("{whole}_second_half") }.as_str())?;
        let [rows, length, width] = audio.shape[..] else {
            return Err(Error::invalid(format!(
                "{}: the audio of `unet.{clip}` is not [rows, 50, width]",
                self.file.origin()
            )));
        };
        if batch.checked_mul(frames) == rows.checked_mul(2) {
            // Guidance asks without sound first.
            audio.data.splice(0..0, std::iter::repeat_n(0.0, rows * length * width));
        }
        audio.shape = vec![batch, frames, length, width];
        let moment =
            tensor(self.file, &format!("unet.{clip}.{time}.in.timestep"))?.data.first().copied().unwrap_or(0.0);
        let timestep = Tensor { shape: vec![batch], data: vec![moment; batch] };
        let inputs = vec![("sample".into(), sample), ("timestep".into(), timestep), ("audio".into(), audio)];
        self.network("unet", inputs, &[output], all)
    }

    /// Runs a network and compares its outputs, in their order, with tensors of the file, which may hold the first of the
    /// numbers alone.
    fn network(
        &self,
        part: &str,
        inputs: Vec<(String, Tensor)>,
        outputs: &[&str],
        all: &mut Vec<Difference>,
    ) -> Result<()> {
        let model = self.package.network(part, self.options)?;
        for ((_, found), name) in run(&model, &inputs)?.into_iter().zip(outputs) {
            let wanted = tensor(self.file, name)?.data;
            let found = found.data.get(..wanted.len()).unwrap_or(&found.data);
            all.push(difference((*name).to_owned(), found, &wanted)?);
        }
        Ok(())
    }
}
