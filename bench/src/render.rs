//! `lipstream render` on one device, several times.

use std::process::{Command, Stdio};

use lipstream_engines::runtime::Device;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Arguments;

#[derive(Serialize)]
pub struct Measured {
    pub device: String,
    pub frames: u64,
    /// Seconds of output a second, from the start of the graph to the finished file, models loaded on the way.
    pub rtf: Spread,
    /// The same from the first frame on.
    pub rtf_steady: Spread,
    pub first_frame_seconds: Spread,
    pub peak_memory_bytes: u64,
    /// Microseconds by stage and percentile, of the repeat with the median `rtf`.
    pub stages: Map<String, Value>,
    /// The property `stats` of `lipsync` of that repeat, as it is.
    pub stats: Value,
}

/// Over the repeats.
#[derive(Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(0.0);
        Self { median: at(values.len() / 2), min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}

pub fn measure(arguments: &Arguments, device: Device) -> Result<Measured, String> {
    let mut runs = Vec::new();
    for repeat in 1..=arguments.repeats {
        eprintln!("{device}: {repeat} of {}", arguments.repeats);
        runs.push(render(arguments, device)?);
    }
    let all = |of: &dyn Fn(&Value) -> f64| Spread::of(runs.iter().map(of).collect());
    let number = |run: &Value, key: &str| run[key].as_f64().unwrap_or(0.0);
    let rtf = all(&|r| number(r, "rtf"));
    let typical = runs.iter().find(|r| number(r, "rtf") == rtf.median).unwrap_or(&runs[0]);
    let mut stages = Map::new();
    collect(&typical["stats"], "", &mut stages);
    Ok(Measured {
        device: device.to_string(),
        frames: typical["frames"].as_u64().unwrap_or(0),
        rtf,
        rtf_steady: all(&|r| {
            number(r, "seconds") / (number(r, "wall_seconds") - number(r, "first_frame_seconds")).max(1e-9)
        }),
        first_frame_seconds: all(&|r| number(r, "first_frame_seconds")),
        peak_memory_bytes: runs.iter().filter_map(|r| r["peak_memory_bytes"].as_u64()).max().unwrap_or(0),
        stages,
        stats: typical["stats"].clone(),
    })
}

/// One render by the program that lies beside this one.
fn render(arguments: &Arguments, device: Device) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("lipstream");
    let out = std::env::temp_dir().join(format!("lipstream-bench-{}.mp4", std::process::id()));
    let output = Command::new(&program)
        .args(["render", "--quiet", "--json", "--preset", "ultrafast"])
        .args(["--device", &device.to_string(), "--engine", &arguments.engine])
        .arg("--video")
        .arg(&arguments.video)
        .arg("--audio")
        .arg(&arguments.audio)
        .arg("-o")
        .arg(&out)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    // The file is only in the way now; a render that failed left none.
    let _ = std::fs::remove_file(&out);
    if !output.status.success() {
        return Err(format!("{device}: `lipstream render` failed"));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("{device}: {e}"))
}

/// Gathers `<stage>-p50` and its like from every depth as `{"<element>/<stage>": {"p50": ...}}`.
fn collect(stats: &Value, element: &str, stages: &mut Map<String, Value>) {
    for (key, value) in stats.as_object().into_iter().flatten() {
        if value.is_object() {
            collect(value, key, stages);
        } else if let Some((stage, percentile)) =
            key.rsplit_once('-').filter(|(_, p)| ["p50", "p95", "p99"].contains(p))
        {
            let name = if element.is_empty() { stage.to_owned() } else { format!("{element}/{stage}") };
            let entry = stages.entry(name).or_insert_with(|| Value::Object(Map::new()));
            entry[percentile] = value.clone();
        }
    }
}
