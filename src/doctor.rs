//! `lipstream doctor`: each thing that Lipstream needs, found or how to get it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
};

use lipstream_engines::{
    manifest::Package,
    runtime::{self, cards, nvidia, tensorrt},
};
use serde::Serialize;

use crate::error::Result;

const SETUP: &str = "run `make setup`";

/// Elements of other people that `render` and the graphs use, with the Debian package that holds each.
const ELEMENTS: [(&str, &str); 25] = [
    ("filesrc", "libgstreamer1.0-0"),
    ("decodebin", "gstreamer1.0-plugins-base"),
    ("decodebin3", "gstreamer1.0-plugins-base"),
    ("appsrc", "gstreamer1.0-plugins-base"),
    ("videoconvert", "gstreamer1.0-plugins-base"),
    ("audioconvert", "gstreamer1.0-plugins-base"),
    ("audioresample", "gstreamer1.0-plugins-base"),
    ("opusenc", "gstreamer1.0-plugins-base"),
    ("qtdemux", "gstreamer1.0-plugins-good"),
    ("matroskademux", "gstreamer1.0-plugins-good"),
    ("wavparse", "gstreamer1.0-plugins-good"),
    ("videoconvertscale", "gstreamer1.0-plugins-base"),
    ("videoflip", "gstreamer1.0-plugins-good"),
    ("deinterlace", "gstreamer1.0-plugins-good"),
    ("mp4mux", "gstreamer1.0-plugins-good"),
    ("qtmux", "gstreamer1.0-plugins-good"),
    ("matroskamux", "gstreamer1.0-plugins-good"),
    ("webmmux", "gstreamer1.0-plugins-good"),
    ("flacenc", "gstreamer1.0-plugins-good"),
    ("vp8enc", "gstreamer1.0-plugins-good"),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("x264enc", "gstreamer1.0-plugins-ugly"),
    ("avdec_h264", "gstreamer1.0-libav"),
    ("avenc_aac", "gstreamer1.0-libav"),
    ("avenc_alac", "gstreamer1.0-libav"),
];

/// The elements of the plugin.
const OURS: [&str; 7] = ["lipsync", "lipfacetrack", "lipaudioenc", "lipdenoise", "lipblend", "lippicture", "lipcolor"];

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Found,
    /// Absent, and not needed for the rest to work.
    Absent,
    Missing,
}

#[derive(Serialize)]
struct Finding {
    what: String,
    state: State,
    detail: String,
}

impl Finding {
    fn of(what: impl Into<String>, outcome: Result<String, String>) -> Self {
        match outcome {
            Ok(detail) => Self { what: what.into(), state: State::Found, detail },
            Err(detail) => Self { what: what.into(), state: State::Missing, detail },
        }
    }

    /// Not an error when it is missing.
    fn optional(self) -> Self {
        Self { state: if self.state == State::Missing { State::Absent } else { self.state }, ..self }
    }
}

pub fn examine(json: bool) -> Result<ExitCode> {
    let mut findings = vec![gstreamer(), elements(), plugin(), library()];
    findings.extend(cards());
    findings.extend(providers());
    findings.extend(tensorrt_engines());
    findings.extend(models());
    findings.push(demo().optional());
    if json {
        println!("{}", serde_json::to_string_pretty(&findings).expect("findings hold plain values"));
    } else {
        for finding in &findings {
            let mark = match finding.state {
                State::Found => "ok",
                State::Absent => "-",
                State::Missing => "MISSING",
            };
            println!("{mark:8}{:24}{}", finding.what, finding.detail);
        }
    }
    let missing = findings.iter().any(|f| f.state == State::Missing);
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn gstreamer() -> Finding {
    let (major, minor, micro, _) = gst::version();
    let version = format!("{major}.{minor}.{micro}");
    let outcome =
        if (major, minor) >= (1, 22) { Ok(version) } else { Err(format!("{version} is older than 1.22; {SETUP}")) };
    Finding::of("GStreamer", outcome)
}

fn elements() -> Finding {
    let missing: Vec<String> = ELEMENTS
        .iter()
        .filter(|(element, _)| gst::ElementFactory::find(element).is_none())
        .map(|(element, package)| format!("{element} ({package})"))
        .collect();
    let outcome = match missing.as_slice() {
        [] => Ok(format!("all {} that are used", ELEMENTS.len())),
        _ => Err(format!("{}; {SETUP}", missing.join(", "))),
    };
    Finding::of("GStreamer elements", outcome)
}

fn plugin() -> Finding {
    let missing: Vec<&str> = OURS.into_iter().filter(|e| gst::ElementFactory::find(e).is_none()).collect();
    let outcome = if missing.is_empty() {
        Ok(format!("{} (linked in)", OURS.join(", ")))
    } else {
        Err(format!("{}: not registered; build again with `make build`", missing.join(", ")))
    };
    Finding::of("plugin lipstream", outcome)
}

fn library() -> Finding {
    let works = runtime::survey().iter().any(|a| a.works.is_ok());
    let outcome = runtime::library::find().map_err(|e| e.to_string()).and_then(|path| {
        if works { Ok(path.display().to_string()) } else { Err(format!("{} does not load; {SETUP}", path.display())) }
    });
    Finding::of("ONNX Runtime", outcome)
}

/// The driver, what it needs beside it, and each card. Nothing of it is needed to run on the CPU.
fn cards() -> Vec<Finding> {
    const GPU: &str = "run `make setup-gpu`";
    let found = match cards::cards() {
        Err(cause) => return vec![Finding::of("NVIDIA driver", Err(cause)).optional()],
        Ok(found) => found,
    };
    let (major, minor) = found.cuda;
    let driver = match found.too_old() {
        Some(cause) => Err(format!("{cause}; install a newer one")),
        None => Ok(format!("{}, CUDA {major}.{minor}", found.driver)),
    };
    let libraries = match nvidia::missing().as_slice() {
        [] => Ok("CUDA 13, cuDNN 9".to_owned()),
        missing => Err(format!("{} not found; {GPU}", missing.join(", "))),
    };
    let mut findings = vec![Finding::of("NVIDIA driver", driver), Finding::of("CUDA libraries", libraries)];
    let card = |card: cards::Card| {
        let gigabytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let capability = card.capability.map_or(String::new(), |(major, minor)| format!(", sm_{major}{minor}"));
        let (used, of) = (gigabytes(card.memory_used), gigabytes(card.memory));
        let detail = format!("{}{capability}, {used:.1} of {of:.1} GiB used", card.name);
        Finding::of(format!("NVIDIA card {}", card.number), Ok(detail))
    };
    findings.extend(found.cards.into_iter().map(card));
    findings.into_iter().map(Finding::optional).collect()
}

/// No single provider is needed as long as one works, which is what the line of the library says.
fn providers() -> Vec<Finding> {
    let survey = runtime::survey();
    let taken = runtime::automatic();
    survey
        .iter()
        .map(|a| {
            let outcome = match &a.works {
                Ok(()) if taken == Some(a.device) => Ok("works; `auto` takes it".to_owned()),
                Ok(()) => Ok("works".to_owned()),
                Err(cause) => Err(cause.lines().next().unwrap_or_default().to_owned()),
            };
            Finding::of(format!("device {}", a.device), outcome).optional()
        })
        .collect()
}

/// Engines of TensorRT that were built, and those that nothing here can take.
fn tensorrt_engines() -> Option<Finding> {
    let folder = tensorrt::folder()?;
    let entries = tensorrt::survey(&folder);
    let platform = tensorrt::Platform::here(0);
    if entries.is_empty() {
        // Where TensorRT does not work, its device says why.
        let advice = "none; run `lipstream engines build NAME --device tensorrt`";
        return platform.ok().map(|_| Finding::of("TensorRT engines", Err(advice.into())).optional());
    }
    Some(Finding::of("TensorRT engines", Ok(built(&entries, platform.ok().as_ref(), &folder))))
}

/// `compact fp16 (12); 3 cannot be taken (built for TensorRT 10.9.0): remove them from FOLDER`.
fn built(entries: &[tensorrt::Entry], platform: Option<&tensorrt::Platform>, folder: &Path) -> String {
    let (mut fit, mut causes, mut stale) = (BTreeMap::<String, usize>::new(), BTreeSet::new(), 0);
    for entry in entries {
        let cause = platform.map_or_else(|| Some("no card with TensorRT is here".into()), |here| entry.stale(here));
        match cause {
            None => *fit.entry(format!("{} {}", entry.engine, entry.precision)).or_default() += 1,
            Some(cause) => {
                stale += 1;
                causes.insert(cause);
            }
        }
    }
    let mut parts: Vec<String> = fit.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    if stale > 0 {
        let causes = causes.into_iter().collect::<Vec<_>>().join(", ");
        parts.push(format!("{stale} not taken ({causes}), in {}", folder.display()));
    }
    parts.join("; ")
}

fn models() -> Vec<Finding> {
    let check = |engine: Package| -> lipstream_engines::Result<String> {
        let parts: Vec<_> = engine.manifest().files.keys().collect();
        parts.iter().try_for_each(|part| engine.check(part))?;
        Ok(format!("{} files, sha256 verified ({})", parts.len(), engine.location()))
    };
    Package::installed()
        .into_iter()
        .map(|(name, engine)| Finding::of(format!("engine {name}"), engine.and_then(check).map_err(|e| e.to_string())))
        .collect()
}

fn demo() -> Finding {
    let files = ["demo/avatar.mp4", "demo/speech.flac"];
    let missing: Vec<&str> = files.into_iter().filter(|f| !Path::new(f).is_file()).collect();
    let outcome = if missing.is_empty() {
        Ok(files.join(", "))
    } else {
        Err(format!("{} not here; run in the project's folder", missing.join(", ")))
    };
    Finding::of("demo input", outcome)
}
