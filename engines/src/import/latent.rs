//! Which published files make an engine of LatentSync or of MuseTalk, and what its manifest says.

use std::{path::Path, rc::Rc};

use toml::{Table, Value};

use super::{
    config::Config,
    latentsync, musetalk,
    network::{BATCH_SIZES, Builder, Network, Origin, Stage},
    parts::{Found, Parts, Section},
    recognise::Kind,
    taesd,
    unet::sound_width,
    vae,
    whisper::{self, Last},
};
use crate::{
    Error, Result,
    audio::whisper::engine::CONTEXT,
    manifest::{Family, LiveSection},
    tensor::Weights,
};

/// What is published, where no configuration says otherwise.
const GROUPS: usize = 32;
const HEADS: usize = 8;
const SIDE: usize = 256;
const FRAMES: usize = 16;
const FRAME_RATE: f64 = 25.0;
const GUIDANCE: f64 = 1.5;
const STEPS: usize = 20;
const SCALE: f64 = 0.18215;
/// What holds for the use of both U-Nets, which were trained from the same weights.
const TERMS: &str = "its U-Net stems from Stable Diffusion 1.5, whose CreativeML Open RAIL-M licence restricts what it may be \
                     used for; its publisher may say more";
/// Moments of sound that a frame hears.
const MOMENTS: usize = 10;
/// Rows of Whisper's states a second.
const ROWS: f64 = 50.0;
/// Largest picture, clip and numbers of steps, groups or heads of a configuration.
const MOST: usize = 1024;

/// The files of one engine; the U-Net's has told the family.
pub(super) struct Files<'a> {
    pub unet: Found<'a>,
    pub vae: Option<Found<'a>>,
    pub taesd: Option<Found<'a>>,
    pub whisper: Option<Found<'a>>,
    pub config: Option<Found<'a>>,
}

/// What both families have.
struct Common {
    config: Config,
    side: usize,
    frame_rate: f64,
    scale: f64,
    groups: usize,
    heads: usize,
    /// States of a moment, and numbers of a state.
    states: usize,
    width: usize,
    unet: Weights,
    /// Those besides the U-Net; each with how often a frame asks it.
    networks: Vec<Network>,
}

pub(super) fn parts(files: Files) -> Result<Parts> {
    match files.unet.0 {
        Kind::LatentSync => of_latentsync(files),
        _ => of_musetalk(files),
    }
}

fn of_latentsync(files: Files) -> Result<Parts> {
    let path = files.unet.1.clone();
    let common = common(files, Last::Plain)?;
    let Common { config, side, frame_rate, scale, groups, heads, states, width, unet, mut networks } = common;
    let frames = config.count("data.num_frames", MOST)?.unwrap_or(FRAMES);
    if let Some(most) = latentsync::longest(&unet).filter(|most| frames > *most) {
        return Err(Error::invalid(format!("{}: takes {most} frames at a time, not {frames}", path.display())));
    }
    let scheduler = scheduler(&config)?;
    let shape = latentsync::Shape { groups, heads, rows: MOMENTS * states, frames, side: side / vae::FACTOR };
    let build: Builder = Box::new(move |graph, weights| latentsync::unet(graph, weights, &shape));
    let from = Origin::Weights(unet.into(), build);
    networks.push(Network { part: "unet", from, stage: Stage::Step, runs: 1.0 / frames as f32 });
    let mut section = Table::new();
    section.insert("side".into(), (side as i64).into());
    section.insert("frames".into(), (frames as i64).into());
    section.insert("frame_rate".into(), frame_rate.into());
    section.insert("latent_scale".into(), scale.into());
    section.insert("decoder".into(), "vae".into());
    section.insert("live".into(), live(frames).into());
    section.insert("sound".into(), sound(states, width).into());
    Ok(Parts {
        family: Family::LatentSync,
        networks,
        section: Section::Tables(vec![("scheduler", scheduler), ("latentsync", section)]),
        description: format!("LatentSync of {side} pixels, clips of {frames} frames"),
        licence: None,
        terms: Some(TERMS),
    })
}

fn of_musetalk(files: Files) -> Result<Parts> {
    let common = common(files, Last::Normed)?;
    let Common { side, frame_rate, scale, groups, heads, states, width, unet, mut networks, .. } = common;
    let shape = musetalk::Shape { groups, heads, rows: MOMENTS * states, side: side / vae::FACTOR };
    let build: Builder = Box::new(move |graph, weights| musetalk::unet(graph, weights, &shape));
    let from = Origin::Weights(unet.into(), build);
    networks.push(Network { part: "unet", from, stage: Stage::Forward, runs: 1.0 });
    let mut section = Table::new();
    section.insert("side".into(), (side as i64).into());
    section.insert("frame_rate".into(), frame_rate.into());
    section.insert("latent_scale".into(), scale.into());
    section.insert("decoder".into(), "vae".into());
    section.insert("mask".into(), "jaw".into());
    section.insert("batch_sizes".into(), Value::Array(BATCH_SIZES.iter().map(|n| (*n as i64).into()).collect()));
    section.insert("sound".into(), sound(states, width).into());
    Ok(Parts {
        family: Family::MuseTalk,
        networks,
        section: Section::Tables(vec![("musetalk", section)]),
        description: format!("MuseTalk of {side} pixels"),
        licence: None,
        terms: Some(TERMS),
    })
}

/// Opens what both families need and finds that it belongs together.
fn common(files: Files, last: Last) -> Result<Common> {
    let Files { unet: (_, path, unet), vae, taesd, whisper, config } = files;
    let unet = opened(path, unet)?;
    let config = match config {
        Some((_, path, _)) => Config::open(path)?,
        None => Config::beside(path)?,
    };
    let need = |what: &str, cure: &str| {
        Error::invalid(format!("{}: needs {what} beside it: add --from {cure}", path.display()))
    };
    let (_, vae_path, vae) = vae.ok_or_else(|| {
        need("the image autoencoder of Stable Diffusion", "sd-vae-ft-mse, a folder or its diffusion_pytorch_model")
    })?;
    let (_, whisper_path, whisper) = whisper.ok_or_else(|| need("a Whisper model", "tiny.pt, or its folder"))?;
    let (vae, whisper) = (Rc::new(opened(vae_path, vae)?), opened(whisper_path, whisper)?);

    let size = whisper::size(&whisper)?;
    let width = sound_width(&unet)?;
    if size.width != width {
        let states = format!("has states of {} numbers", size.width);
        return Err(other_version(whisper_path, &states, path, &format!("hears {width}")));
    }
    let heads_heard = Config::beside(whisper_path)?.count("encoder_attention_heads", MOST)?;
    let heads_heard = heads_heard.unwrap_or_else(|| whisper::heads(&whisper));
    let of_vae = Config::beside(vae_path)?;
    let groups_of_vae = of_vae.count("norm_num_groups", MOST)?.unwrap_or(GROUPS);
    let (given, wanted) = (of_vae.number("scaling_factor")?, config.number("vae.scaling_factor")?);
    if let Some((given, wanted)) = given.zip(wanted).filter(|(given, wanted)| (given - wanted).abs() > 1e-6) {
        return Err(other_version(vae_path, &format!("scales latents by {given}"), path, &format!("wants {wanted}")));
    }
    let scale = given.or(wanted).unwrap_or(SCALE);
    let side = config.count("data.resolution", MOST)?.unwrap_or(SIDE);
    if !side.is_multiple_of(8 * vae::FACTOR) {
        return Err(Error::invalid(format!("pictures of {side} pixels are not a multiple of {}", 8 * vae::FACTOR)));
    }
    // LatentSync's configuration has the U-Net's under `model`, MuseTalk's is the U-Net's.
    let either = |key: &str| -> Result<Option<usize>> {
        Ok(config.count(&format!("model.{key}"), MOST)?.or(config.count(key, MOST)?))
    };
    if let Some(stated) = either("cross_attention_dim")?.filter(|stated| *stated != width) {
        let file = config.path().unwrap_or(path);
        return Err(other_version(
            file,
            &format!("is of a U-Net that hears {stated} numbers"),
            path,
            &format!("hears {width}"),
        ));
    }
    let latents = side / vae::FACTOR;
    let network = |part, weights: Rc<Weights>, stage, runs, build: Builder| Network {
        part,
        from: Origin::Weights(weights, build),
        stage,
        runs,
    };
    let mut networks = vec![
        network(
            "whisper",
            Rc::new(whisper),
            Stage::FrontEnd,
            (ROWS / (CONTEXT.rows as f64 * FRAME_RATE)) as f32,
            Box::new(move |graph, weights| whisper::encoder(graph, weights, heads_heard, last)),
        ),
        // The masked face and the whole one.
        network(
            "encoder",
            vae.clone(),
            Stage::Encode,
            2.0,
            Box::new(move |graph, weights| vae::encoder(graph, weights, groups_of_vae, side)),
        ),
        network(
            "decoder",
            vae,
            Stage::Decode,
            1.0,
            Box::new(move |graph, weights| vae::decoder(graph, weights, groups_of_vae, latents)),
        ),
    ];
    if let Some((_, path, weights)) = taesd {
        // In place of the decoder, where somebody asks for it.
        let build: Builder = Box::new(move |graph, weights| taesd::decoder(graph, weights, latents));
        networks.push(network("taesd", Rc::new(opened(path, weights)?), Stage::DecodeTiny, 1.0, build));
    }
    Ok(Common {
        side,
        frame_rate: config.number("data.video_fps")?.unwrap_or(FRAME_RATE),
        scale,
        groups: either("norm_num_groups")?.unwrap_or(GROUPS),
        heads: either("attention_head_dim")?.unwrap_or(HEADS),
        states: size.blocks + 1,
        width,
        unet,
        networks,
        config,
    })
}

/// Two files of one engine do not go together.
fn other_version(path: &Path, has: &str, unet: &Path, wants: &str) -> Error {
    let (path, unet) = (path.display(), unet.display());
    Error::invalid(format!("{path}: {has}, and {unet} {wants}: they are of different versions"))
}

fn opened(path: &Path, weights: Option<Weights>) -> Result<Weights> {
    weights.ok_or_else(|| Error::invalid(format!("{}: holds no weights", path.display())))
}

/// How it runs live, of clips of `frames` at most.
fn live(frames: usize) -> Table {
    let LiveSection { clip, hop, steps, .. } = LiveSection::default();
    let all = [("clip", clip.min(frames)), ("hop", hop.min(frames)), ("steps", steps)];
    let mut table: Table = all.into_iter().map(|(key, n)| (key.to_owned(), (n as i64).into())).collect();
    table.insert("sampler".into(), "ddim".into());
    table.insert("guided".into(), "last".into());
    table
}

fn sound(states: usize, width: usize) -> Table {
    let all = [("moments", MOMENTS), ("states", states), ("width", width)];
    all.into_iter().map(|(key, n)| (key.to_owned(), (n as i64).into())).collect()
}

/// The sampler, as LatentSync's configs/scheduler_config.json has it.
fn scheduler(config: &Config) -> Result<Table> {
    config.word("scheduler._class_name", &["DDIMScheduler"])?;
    config.word("scheduler.prediction_type", &["epsilon"])?;
    let betas = config.word("scheduler.beta_schedule", &["scaled_linear", "linear"])?.unwrap_or("scaled_linear");
    let mut table = Table::new();
    for (key, word) in [("kind", "ddim"), ("prediction", "epsilon"), ("spacing", "leading")] {
        table.insert(key.into(), word.into());
    }
    table.insert("beta_schedule".into(), betas.replace('_', "-").into());
    for (key, name, default) in [
        ("steps", "run.inference_steps", STEPS),
        ("train_timesteps", "scheduler.num_train_timesteps", 1000),
        ("steps_offset", "scheduler.steps_offset", 1),
    ] {
        table.insert(key.into(), (config.count(name, 100_000)?.unwrap_or(default) as i64).into());
    }
    for (key, name, default) in [
        ("beta_start", "scheduler.beta_start", 0.00085),
        ("beta_end", "scheduler.beta_end", 0.012),
        ("guidance", "run.guidance_scale", GUIDANCE),
    ] {
        table.insert(key.into(), config.number(name)?.unwrap_or(default).into());
    }
    table.insert("set_alpha_to_one".into(), config.truth("scheduler.set_alpha_to_one")?.unwrap_or(false).into());
    Ok(table)
}
