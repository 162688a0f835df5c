//! `lipstream engines`: what is installed, its licence, what it costs, where it would run.

pub mod build;
pub mod check;
pub mod import;

use std::{collections::BTreeMap, process::ExitCode};

use lipstream_engines::{
    enhance::{self, Filter},
    manifest::{Family, Package, Versions, repository},
    runtime,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{error::Result, session::Refusal};

/// Refuses what is not the name of an installed engine, alone or with a version or an alias. Elsewhere a path is opened as one, and
/// whoever asks over the network must not choose the files of this machine that are loaded.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let (engine, wanted) = repository::split(name).map_or((name, None), |(engine, wanted)| (engine, Some(wanted)));
    let Ok(versions) = Versions::of(engine) else {
        let names: Vec<_> = Package::installed().into_iter().map(|(name, _)| name).collect();
        return Err(Refusal::Invalid(format!("engine: there is no `{name}`; there are {}", names.join(", "))));
    };
    versions.open(wanted).map(drop).map_err(|error| Refusal::Invalid(format!("engine: {error}")))
}

/// Whether `enhance` of a graph asks for a network.
pub fn is_enhancer(asked: &str) -> bool {
    !matches!(asked, "" | "off") && asked.parse::<Filter>().is_err()
}

/// Refuses what is done to a finished face by neither a filter nor an enhancer that is installed; no file is opened by its path.
pub fn check_enhancer(asked: &str) -> Result<(), Refusal> {
    if !is_enhancer(asked) {
        return Ok(());
    }
    let known = Filter::ALL.map(Filter::name).join(", ");
    let refuse = |cause: &dyn std::fmt::Display| {
        Refusal::Invalid(format!("enhance: must be off, {known}, or an enhancer that is installed: {cause}"))
    };
    if enhance::is_file(asked) {
        return Err(refuse(&format!("`{asked}` is a file")));
    }
    enhance::installed(asked).map(drop).map_err(|error| refuse(&error))
}

/// An engine that is installed.
#[derive(Serialize, ToSchema)]
#[schema(as = Engine)]
pub struct Row {
    name: String,
    family: String,
    version: String,
    licence: String,
    description: String,
    gflop_per_frame: f32,
    /// The same by stage: `front_end` (where a network computes the features of the sound), `encode`, `step` (one step of
    /// denoising without guidance), `forward`, `decode`, `decode_tiny` (in place of `decode` where it is asked for), `refine`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    gflop_by_stage: BTreeMap<&'static str, f32>,
    /// How often a frame passes `step` where nobody says how many steps it takes: twice for each that is guided.
    #[serde(skip_serializing_if = "Option::is_none")]
    step_passes: Option<usize>,
    /// Frames that it makes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    clip_frames: Option<usize>,
    /// Sound after a frame's time that it waits for, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    look_ahead_ms: Option<f64>,
    /// Those that a session may choose as `look_ahead_ms`, in milliseconds, its own first: sound that a mouth may hear, without what a
    /// frame waits for besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    look_aheads_ms: Vec<u32>,
    /// Those that a render has besides.
    #[serde(skip)]
    of_files_ms: Vec<u32>,
    bytes: u64,
    /// What it runs on here.
    device: String,
    location: String,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Every engine, those that are broken too. It reads files and tries devices.
pub fn installed() -> Vec<Row> {
    let device = device();
    let row = |(name, engine): (String, _)| match engine {
        Ok(engine) => row(&engine, &device),
        Err(error) => broken(name, lipstream_engines::Error::to_string(&error)),
    };
    Package::installed().into_iter().map(row).collect()
}

pub fn list(json: bool) -> Result<ExitCode> {
    let rows = installed();
    if json {
        println!("{}", serde_json::to_string_pretty(&rows).expect("rows hold plain values"));
    } else {
        rows.iter().for_each(print);
    }
    Ok(ExitCode::SUCCESS)
}

/// What `auto` would take here.
fn device() -> String {
    runtime::automatic().map_or_else(|| "none works".into(), |device| device.to_string())
}

fn row(engine: &Package, device: &str) -> Row {
    let m = engine.manifest();
    let look_ahead = lipstream_engines::engine::look_ahead(m);
    Row {
        name: m.name.clone(),
        family: m.family.to_string(),
        version: m.version.clone(),
        licence: m.licence.clone(),
        description: m.description.clone(),
        gflop_per_frame: m.frame_gflop(None),
        gflop_by_stage: m.cost.iter().flat_map(|cost| cost.gflop.named()).collect(),
        step_passes: m.scheduler.as_ref().map(|scheduler| scheduler.evaluations(scheduler.steps)),
        clip_frames: lipstream_engines::engine::clip(m).map(|clip| clip.frames),
        look_ahead_ms: look_ahead.map(|time| time.as_secs_f64() * 1e3),
        look_aheads_ms: engine.live_look_aheads().collect(),
        of_files_ms: engine.look_aheads().filter(|ms| engine.live_look_aheads().all(|live| live != *ms)).collect(),
        bytes: engine.size(),
        device: device.to_owned(),
        location: engine.location(),
        error: m.files.keys().find_map(|part| engine.check(part).err()).map(|e| e.to_string()),
    }
}

fn broken(name: String, error: String) -> Row {
    Row {
        name,
        family: String::new(),
        version: String::new(),
        licence: String::new(),
        description: String::new(),
        gflop_per_frame: 0.0,
        gflop_by_stage: BTreeMap::new(),
        step_passes: None,
        clip_frames: None,
        look_ahead_ms: None,
        look_aheads_ms: Vec::new(),
        of_files_ms: Vec::new(),
        bytes: 0,
        device: String::new(),
        location: String::new(),
        error: Some(error),
    }
}

fn print(row: &Row) {
    if row.family.is_empty() {
        println!("{}\n    broken: {}", row.name, row.error.as_deref().unwrap_or_default());
        return;
    }
    let role = match () {
        () if row.family == Family::Tracker.to_string() => " (used by every engine)",
        () if row.family == Family::Expert.to_string() => " (used by `lipstream eval`)",
        () if row.family == Family::Occlusion.to_string() && row.location == "embedded" => " (used by every engine)",
        () if row.family == Family::Occlusion.to_string() => " (for `occlusion`)",
        () if row.family == Family::Enhancer.to_string() => " (for `enhance`)",
        () => "",
    };
    println!("{} {}{role}", row.name, row.version);
    println!("    {}", row.description);
    println!(
        "    family {}, licence {}, {:.3} GFLOP a frame, {:.1} MB, device {}, {}",
        row.family,
        row.licence,
        row.gflop_per_frame,
        row.bytes as f64 / 1e6,
        row.device,
        row.location
    );
    if let Some(time) = row.look_ahead_ms {
        println!("    {}", look_ahead(time, &row.look_aheads_ms, &row.of_files_ms));
    }
    if !row.gflop_by_stage.is_empty() {
        println!("    {}", by_stage(row));
    }
    if let Some(error) = &row.error {
        println!("    broken: {error}");
    }
}

/// What a frame waits for: `a frame waits for 180 ms of sound; look-ahead 160 or 80 ms, of a file 6640 ms`.
fn look_ahead(time: f64, choices: &[u32], of_files: &[u32]) -> String {
    let said = |before: &str, choices: &[u32]| match choices {
        [] => String::new(),
        _ => format!("{before}{} ms", choices.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ")),
    };
    format!("a frame waits for {time} ms of sound{}{}", said("; look-ahead ", choices), said(", of a file ", of_files))
}

/// What a frame costs in each stage: `encode 546.0, step 253.1 x 40, decode 622.3 GFLOP`.
fn by_stage(row: &Row) -> String {
    let stage = |(name, cost): (&&str, &f32)| match (*name, row.step_passes) {
        ("step", Some(passes)) => format!("step {cost:.4} x {passes}"),
        _ => format!("{name} {cost:.4}"),
    };
    format!("{} GFLOP", row.gflop_by_stage.iter().map(stage).collect::<Vec<_>>().join(", "))
}
