//! `lipstream engines build`: TensorRT engines of the networks of an engine, before a stream asks for them.

use std::{
    path::Path,
    process::ExitCode,
    str::FromStr,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lipstream_engines::{
    engine::{self, Engine},
    manifest::Package,
    runtime::{self, Device, Input, Model, Precision, tensorrt},
};
use serde::Serialize;

use crate::{
    error::{Failure, Result},
    termination,
};

/// What the command line asks for.
pub struct Options {
    pub name: String,
    pub device: Device,
    pub precision: Precision,
    pub batch: Option<Batches>,
    pub shapes: Vec<Size>,
    pub json: bool,
    pub quiet: bool,
}

/// Sizes of batches.
#[derive(Clone, Debug, PartialEq)]
pub enum Batches {
    /// Each has an engine of its own.
    Each(Vec<usize>),
    /// One engine takes all.
    Together(tensorrt::Batch),
}

impl Batches {
    fn wants(&self, size: usize) -> bool {
        match self {
            Self::Each(sizes) => sizes.contains(&size),
            Self::Together(batch) => batch.range().contains(&size),
        }
    }
}

impl FromStr for Batches {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("..") {
            return text.parse().map(Self::Together).map_err(|error: lipstream_engines::Error| error.to_string());
        }
        let sizes: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        match sizes {
            Ok(sizes) if sizes.iter().all(|n| (1..=256).contains(n)) => Ok(Self::Each(sizes)),
            _ => Err("sizes of 1 to 256 with commas between them, or MIN..MAX, or MIN..BEST..MAX".into()),
        }
    }
}

/// A dimension by its name in the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Size(String, usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.split_once('=').and_then(|(name, size)| Some((name.trim(), size.trim().parse().ok()?)));
        match split {
            Some((name, size)) if !name.is_empty() && (1..=16_384).contains(&size) => Ok(Self(name.into(), size)),
            _ => Err("NAME=SIZE with a size of 1 to 16384".into()),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    name: String,
    platform: String,
    precision: String,
    /// Engines that were built now, and those that were there.
    built: usize,
    kept: usize,
    bytes: u64,
    seconds: f64,
    folder: String,
}

pub fn build(options: &Options) -> Result<ExitCode> {
    let Device::TensorRt(card) = options.device else {
        return Err(Failure::usage(format!(
            "--device {}: engines are built for TensorRT alone; name tensorrt[:n], or run without building",
            options.device
        )));
    };
    let platform = tensorrt::Platform::here(card)?;
    let folder = tensorrt::folder()
        .ok_or_else(|| Failure::output("there is no folder to keep engines in; set XDG_CACHE_HOME"))?;
    let batch = match options.batch {
        Some(Batches::Together(batch)) => Some(batch),
        _ => None,
    };
    let runtime = runtime::Options {
        device: options.device,
        precision: options.precision,
        build: Some(tensorrt::Build { batch }),
        ..runtime::Options::default()
    };
    // That TensorRT works at all is known before anything is loaded.
    runtime::probe(&runtime)?;
    let begun = Instant::now();
    let before = tensorrt::survey(&folder).len();
    let bar = match options.quiet {
        true => ProgressBar::hidden(),
        false => ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr()),
    };
    bar.set_style(
        ProgressStyle::with_template("build {bar:30} {pos} of {len}, {elapsed}: {msg}").expect("the template is ours"),
    );
    // One engine takes minutes, in which nothing else moves.
    bar.enable_steady_tick(Duration::from_secs(1));
    let ran = match options.name.ends_with(".onnx") {
        true => of_file(options, &runtime, &bar),
        false => of_engine(options, &runtime, &bar),
    };
    bar.finish_and_clear();
    let steps = ran?;
    let own: Vec<_> = tensorrt::survey(&folder)
        .into_iter()
        .filter(|entry| entry.engine == options.name && entry.stale(&platform).is_none())
        .collect();
    let built = tensorrt::survey(&folder).len().saturating_sub(before);
    let summary = Summary {
        name: options.name.clone(),
        platform: platform.to_string(),
        precision: own.first().map_or(String::new(), |entry| entry.precision.clone()),
        built,
        kept: own.len().saturating_sub(built),
        bytes: own.iter().map(|entry| entry.bytes).sum(),
        seconds: begun.elapsed().as_secs_f64(),
        folder: folder.join(platform.slug()).display().to_string(),
    };
    match options.json {
        true => println!("{}", serde_json::to_string(&summary).expect("plain values")),
        false => println!(
            "{}: {} engines built, {} were there, {:.0} MB, {:.0} s for {steps} batches, {} ({})",
            summary.name,
            summary.built,
            summary.kept,
            summary.bytes as f64 / 1e6,
            summary.seconds,
            summary.folder,
            summary.platform
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Every stage of an engine in the batches that it takes, at each of its look-aheads; how many these are.
fn of_engine(options: &Options, runtime: &runtime::Options, bar: &ProgressBar) -> Result<usize> {
    if !options.shapes.is_empty() {
        return Err(Failure::usage("--shapes is for an ONNX file; an engine knows its own"));
    }
    let package = Package::find(&options.name)?;
    let mut look_aheads: Vec<u32> = package.look_aheads().collect();
    if look_aheads.is_empty() {
        look_aheads.push(0);
    }
    let mut count = 0;
    for look_ahead in look_aheads {
        bar.set_message(format!("{} loads", options.name));
        let engine = engine::load(&package.clone().with_look_ahead(look_ahead)?, runtime)?;
        let batches = wanted(&*engine, options.batch.as_ref())?;
        bar.set_length((count + batches.len()) as u64);
        for (stage, rows) in batches {
            let stage = &engine.stages()[stage];
            bar.set_message(format!("{}, batch {rows}", stage.kind().name()));
            stop_where_asked()?;
            stage.try_out(rows)?;
            count += 1;
            bar.set_position(count as u64);
        }
        bar.set_message("warm-up");
        engine.stages().iter().try_for_each(|stage| stage.warm_up())?;
    }
    Ok(count)
}

/// Stages by their place, and rows: largest batches first, which fill the range of an engine that takes several.
fn wanted(engine: &dyn Engine, batches: Option<&Batches>) -> Result<Vec<(usize, usize)>> {
    let mut all = Vec::new();
    for (i, stage) in engine.stages().iter().enumerate() {
        let wants = |size: &&usize| batches.is_none_or(|batches| batches.wants(**size));
        all.extend(stage.sizes().iter().filter(wants).rev().map(|size| (i, *size)));
    }
    if all.is_empty() {
        let mut sizes: Vec<usize> = engine.stages().iter().flat_map(|stage| stage.sizes().to_vec()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let sizes = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("--batch: engine `{}` takes batches of {sizes}", engine.spec().name)));
    }
    Ok(all)
}

/// A network of a file, on made-up inputs.
fn of_file(options: &Options, runtime: &runtime::Options, bar: &ProgressBar) -> Result<usize> {
    let path = Path::new(&options.name);
    if !path.is_file() {
        return Err(Failure::input(format!("{}: there is no such file", path.display())));
    }
    let sizes = match &options.batch {
        None => vec![1],
        Some(Batches::Each(sizes)) => sizes.clone(),
        Some(Batches::Together(batch)) => vec![*batch.range().end()],
    };
    bar.set_message(format!("{} loads", options.name));
    let model = Model::open(path, runtime)?;
    bar.set_length(sizes.len() as u64);
    for rows in &sizes {
        bar.set_message(format!("batch {rows}"));
        stop_where_asked()?;
        let named = |name: &str| options.shapes.iter().find(|Size(known, _)| known == name).map(|Size(_, size)| *size);
        let first = model.signature().inputs.first().map(|port| port.describe()).unwrap_or_default();
        let is_batch = |name: &str| first.starts_with(&format!("[{name},")) || name == "batch";
        let size = |name: &str| named(name).unwrap_or(if is_batch(name) { *rows } else { 1 });
        let inputs = model.example(size, || 0.5)?;
        let inputs: Vec<Input> =
            inputs.iter().map(|(name, tensor)| Input { name, shape: &tensor.shape, data: &tensor.data }).collect();
        model.run(&inputs)?;
        bar.inc(1);
    }
    Ok(sizes.len())
}

fn stop_where_asked() -> Result<()> {
    if termination::requested() { Err(Failure::interrupted()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_a_list_or_a_range() {
        assert_eq!("1,2, 4".parse::<Batches>().unwrap(), Batches::Each(vec![1, 2, 4]));
        let together = "1..4..8".parse::<Batches>().unwrap();
        assert!(together.wants(8) && !together.wants(16));
        for text in ["", "0", "1,x", "300", "8..1"] {
            assert!(text.parse::<Batches>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_a_name() {
        assert_eq!("height=256".parse::<Size>().unwrap(), Size("height".into(), 256));
        for text in ["256", "=1", "height=0", "height=x"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
