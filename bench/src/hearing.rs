//! How far Whisper's states of a stream are from those of the whole recording, and what an evaluation costs.

mod apart;
mod cost;
mod sound;

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc};

use clap::Args;
use lipstream_engines::{
    audio::{
        FrontEnd,
        whisper::{Context, Evaluate, Program, SharedEncoder, Stream, Whole},
    },
    import::{
        onnx::{Graph, Precision},
        whisper::{self, Last, Size},
    },
    runtime::{Device, Model, Options},
    tensor::Weights,
};
use serde::Serialize;

use apart::Layer;

#[derive(Args)]
pub struct Arguments {
    /// Weights of Whisper's encoder in the layout of openai or transformers, with or without the prefix `encoder.`
    weights: PathBuf,
    /// Recordings of speech
    #[arg(required = true)]
    speech: Vec<PathBuf>,
    /// Seconds of each recording
    #[arg(long, default_value_t = 12)]
    seconds: usize,
    /// Lengths of the window in milliseconds
    #[arg(long, value_delimiter = ',', default_value = "1000,2000,4000")]
    windows: Vec<usize>,
    /// Milliseconds after a row's end that are shown besides; multiples of 40
    #[arg(long, value_delimiter = ',', default_value = "0,80,120,200,320")]
    ahead: Vec<usize>,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Leave out what an evaluation costs
    #[arg(long)]
    no_cost: bool,
}

const SAMPLE_RATE: usize = 16_000;
/// Milliseconds of a mel column and of a row of states.
const COLUMN: usize = 10;
const ROW: usize = 20;
/// Rows that are new each time.
const NEW: usize = 2;
/// Seconds of silence before a recording that is heard as a whole once more: how much its states depend on its place in
/// Whisper's 30 seconds alone.
const LATER: [usize; 2] = [5, 15];

#[derive(Serialize)]
struct Report {
    weights: String,
    width: usize,
    blocks: usize,
    seconds: usize,
    threads: usize,
    recordings: Vec<Recording>,
    cost: Vec<cost::Cost>,
}

#[derive(Serialize)]
struct Recording {
    name: String,
    rows: usize,
    /// The whole recording so many seconds later, beside the recording as it is.
    moved: Vec<Moved>,
    streams: Vec<Streamed>,
}

#[derive(Serialize)]
struct Moved {
    seconds: usize,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Streamed {
    window_ms: usize,
    ahead_ms: usize,
    layers: Vec<Layer>,
}

/// Prints the report as JSON.
pub fn print(arguments: &Arguments) -> Result<(), String> {
    gst::init().map_err(|e| e.to_string())?;
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", arguments.weights.display());
    if arguments.ahead.iter().any(|ms| ms % (NEW * ROW) != 0) {
        return Err(format!("--ahead takes multiples of {} ms", NEW * ROW));
    }
    let bytes = fs::read(&arguments.weights).map_err(|e| named(&e))?;
    let weights =
        Weights::from_bytes(&arguments.weights.display().to_string(), prefixed(bytes).map_err(|e| named(&e))?)
            .map_err(|e| e.to_string())?;
    let size = whisper::size(&weights).map_err(|e| e.to_string())?;
    let model = network(&weights, arguments.threads)?;
    let encoder = SharedEncoder::of(&model);
    let mut recordings = Vec::new();
    for path in &arguments.speech {
        let mut samples = sound::samples(path)?;
        samples.truncate(arguments.seconds * SAMPLE_RATE);
        eprintln!("{}: {:.1} s", path.display(), samples.len() as f64 / SAMPLE_RATE as f64);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        recordings.push(recording(name, &samples, &encoder, &size, arguments)?);
    }
    let cost = match arguments.no_cost {
        true => Vec::new(),
        false => cost::measure(&model, &size, &arguments.windows)?,
    };
    let report = Report {
        weights: arguments.weights.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        width: size.width,
        blocks: size.blocks,
        seconds: arguments.seconds,
        threads: arguments.threads,
        recordings,
        cost,
    };
    println!("{}", serde_json::to_string(&report).map_err(|e| e.to_string())?);
    Ok(())
}

/// The network as `lipstream import` makes it.
fn network(weights: &Weights, threads: usize) -> Result<Arc<Model>, String> {
    let mut graph = Graph::new("whisper", Precision::Fp32);
    whisper::encoder(&mut graph, weights, whisper::heads(weights), Last::Plain).map_err(|e| e.to_string())?;
    let options = Options { device: Device::Cpu, threads: threads.max(1), ..Options::default() };
    Model::load("whisper", graph.finish().as_slice(), &options).map_err(|e| e.to_string())
}

/// A safetensors file whose tensors are called `encoder.…`.
fn prefixed(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    const PREFIX: &str = "encoder.";
    let length = bytes.first_chunk().map(|n| u64::from_le_bytes(*n) as usize).ok_or("is empty")?;
    let Some(header) = length.checked_add(8).and_then(|end| bytes.get(8..end)) else { return Ok(bytes) };
    let Ok(header) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(header) else {
        return Ok(bytes);
    };
    if header.keys().any(|name| name.contains(PREFIX)) {
        return Ok(bytes);
    }
    let renamed = |(name, value): (String, _)| match name.starts_with("__") {
        true => (name, value),
        false => (format!("{PREFIX}{name}"), value),
    };
    let header: serde_json::Map<_, _> = header.into_iter().map(renamed).collect();
    let header = serde_json::to_vec(&header).map_err(|e| e.to_string())?;
    Ok([&(header.len() as u64).to_le_bytes(), header.as_slice(), &bytes[length + 8..]].concat())
}

fn recording(
    name: String,
    samples: &[f32],
    encoder: &Arc<SharedEncoder>,
    size: &Size,
    arguments: &Arguments,
) -> Result<Recording, String> {
    let dims = (size.blocks + 1) * size.width;
    let whole = |samples: &[f32]| heard(&mut Whole::new(encoder.clone(), Program::LatentSync, "study", dims), samples);
    let exact = whole(samples)?;
    let rows = exact.len() / dims;
    let mut moved = Vec::new();
    for seconds in LATER {
        let states = whole(&[vec![0.0; seconds * SAMPLE_RATE], samples.to_vec()].concat())?;
        let before = seconds * 1000 / ROW * dims;
        moved.push(Moved { seconds, layers: apart::layers(&states[before..], &exact, size.width, dims) });
    }
    let mut streams = Vec::new();
    for &window_ms in &arguments.windows {
        // Streams that look ahead by more or less show the encoder the same windows, and take other rows of them.
        let mut known: HashMap<u64, Vec<f32>> = HashMap::new();
        let most = arguments.ahead.iter().max().map_or(0, |ms| ms / ROW) + NEW;
        for &ahead_ms in &arguments.ahead {
            let context = Context { columns: window_ms / COLUMN, rows: NEW, ahead: ahead_ms / ROW };
            let (states, kept) = streamed(encoder.clone(), context, (dims, most), samples, known)?;
            known = kept;
            let layers = apart::layers(&states[..states.len().min(rows * dims)], &exact, size.width, dims);
            eprintln!(
                "  {window_ms} ms, {ahead_ms} ms ahead: {:.3} in the last",
                layers.last().map_or(0.0, |l| l.error)
            );
            streams.push(Streamed { window_ms, ahead_ms, layers });
        }
    }
    Ok(Recording { name, rows, moved, streams })
}

type Known = HashMap<u64, Vec<f32>>;

/// The rows of a stream, and the last `most` rows of each of its windows.
fn streamed(
    encoder: Arc<SharedEncoder>,
    context: Context,
    (dims, most): (usize, usize),
    samples: &[f32],
    known: Known,
) -> Result<(Vec<f32>, Known), String> {
    let known = Arc::new(std::sync::Mutex::new(known));
    let kept = known.clone();
    let evaluate: Evaluate = Box::new(move |mel: &[f32], columns: usize| {
        let hash = hash(mel);
        let whole = columns / 2 * dims;
        let mut kept = kept.lock().expect("no other thread");
        if let Some(last) = kept.get(&hash) {
            return Ok([vec![0.0; whole - last.len()], last.clone()].concat());
        }
        let states = encoder.evaluate(mel.to_vec(), columns)?;
        kept.insert(hash, states[states.len().saturating_sub(most * dims)..].to_vec());
        Ok(states)
    });
    let mut stream = Stream::new(evaluate, "study", dims, context).map_err(|e| e.to_string())?;
    let states = heard(&mut stream, samples)?;
    drop(stream);
    let known = Arc::into_inner(known).and_then(|known| known.into_inner().ok()).unwrap_or_default();
    Ok((states, known))
}

/// FNV-1a of the numbers' bits.
fn hash(mel: &[f32]) -> u64 {
    mel.iter().fold(0xcbf2_9ce4_8422_2325, |h, v| (h ^ u64::from(v.to_bits())).wrapping_mul(0x100_0000_01b3))
}

/// All rows of a recording, `[rows, dims]`.
fn heard(front: &mut dyn FrontEnd, samples: &[f32]) -> Result<Vec<f32>, String> {
    let mut states = Vec::new();
    for piece in samples.chunks(SAMPLE_RATE / 50) {
        front.push(piece, &mut |row| states.extend_from_slice(row)).map_err(|e| e.to_string())?;
    }
    front.finish(&mut |row| states.extend_from_slice(row)).map_err(|e| e.to_string())?;
    Ok(states)
}
