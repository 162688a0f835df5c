//! The measurement of a card, as far as it runs without one.

#[allow(dead_code)]
#[path = "../src/stream/layout.rs"]
mod layout;
#[path = "../../engines/tests/common/narrow.rs"]
mod narrow;
#[path = "../src/stream/pixel.rs"]
mod pixel;

use std::{fs, path::Path, process::Command};

use layout::{Layout, NARROW, PUBLISHED, Widths};

const PARTS: &str =
    "latentsync,musetalk,compact,compact-words,wav2lip,synctalk2d,golden,kernels,networks,tensorrt,tunings";

#[test]
fn the_measurement_of_a_card_runs_without_one_and_its_figures_are_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let out = std::env::temp_dir().join(format!("lipstream-gpu-{}", std::process::id()));
    let done = Command::new(root.join("bench/gpu/run.sh"))
        .args(["--dry", "--parts", PARTS, "--out"])
        .arg(&out)
        .env("BENCH", env!("CARGO_BIN_EXE_lipstream-bench-gpu"))
        .env("KERNELS", env!("CARGO_BIN_EXE_lipstream-bench-kernels"))
        .env("STREAM", env!("CARGO_BIN_EXE_lipstream-bench-stream"))
        .env("GOLDEN_ONLY", "wav2lip256")
        .env_remove("ENGINE")
        .env_remove("OUT")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    let read = |part: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(out.join(format!("{part}.json"))).unwrap()).unwrap()
    };
    // In the order in which they say most; golden files are not at hand everywhere.
    let golden = text.contains("== golden\n");
    let ran: Vec<&str> = PARTS.split(',').filter(|part| *part != "golden" || golden).collect();
    let parts: Vec<_> = ran.iter().map(|part| text.find(&format!("== {part}\n"))).collect();
    assert!(parts.iter().all(Option::is_some) && parts.is_sorted(), "{text}");
    for family in ["latentsync", "musetalk", "compact", "compact-words", "wav2lip", "synctalk2d"] {
        a_stream(&read(family), family == "latentsync");
    }
    if golden {
        let golden = read("golden");
        let checked = golden["golden"].as_array().unwrap();
        assert_eq!(checked.len(), 2, "{golden}");
        for engine in checked {
            assert!(engine["near"] == true && !engine["outputs"].as_array().unwrap().is_empty(), "{engine}");
        }
    }
    let (tensorrt, tunings, kernels, report) = (read("tensorrt"), read("tunings"), read("kernels"), read("networks"));
    fs::remove_dir_all(&out).unwrap();
    for network in tensorrt["networks"].as_array().unwrap() {
        let run = network["runs"].as_array().unwrap().iter().find(|run| run["device"] == "tensorrt:0").unwrap();
        let refused = run["refused"].as_str();
        assert!(refused.is_none_or(|cause| cause.starts_with("device `tensorrt:0`: ")), "{run}");
    }
    let tuned = tunings["tuned"].as_array().unwrap();
    assert!(tuned.len() == 1 && tuned.iter().all(|tuned| tuned["refused"].is_null()), "{tunings}");
    for (architecture, said) in kernels["compiled"].as_object().unwrap() {
        let said = said.as_str().unwrap();
        assert!(said == "ok" || said.starts_with("NVRTC: libnvrtc.so was not found"), "{architecture}: {said}");
    }
    assert_eq!(kernels["compiled"].as_object().unwrap().len(), 6, "{text}");
    let ran = kernels["parity"].as_array().is_some_and(|parity| !parity.is_empty());
    assert!(ran || kernels["refused"].as_str().is_some_and(|cause| cause.starts_with("device `cuda:0`")), "{kernels}");
    let networks = report["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 15, "{text}");
    for network in networks {
        for run in network["runs"].as_array().unwrap() {
            assert!(run["refused"].is_null(), "{run}");
            assert!(!run["batches"].as_array().unwrap().is_empty(), "{run}");
            for batch in run["batches"].as_array().unwrap() {
                assert!(batch["median_ms"].as_f64().unwrap() > 0.0, "{batch}");
                let apart = batch["difference"]["max_over_std"].as_f64();
                assert!(apart.is_none_or(|d| d < 1e-4), "{}: {batch}", network["network"]);
            }
        }
    }
}

/// Its first frames, its distance from the processor's path, and its times in all forms.
fn a_stream(report: &serde_json::Value, guides: bool) {
    assert!(report["refused"].is_null() && report["left_out"] == serde_json::json!([]), "{report}");
    assert!(report["codes"].as_u64().unwrap() <= 1 && report["latents"].as_f64().unwrap() < 2e-2, "{report}");
    assert!(report["first"]["cold"].as_f64().unwrap() > report["first"]["load"].as_f64().unwrap(), "{report}");
    assert!(report["first"]["warm"].as_f64().unwrap() > 0.0, "{report}");
    let there = report["there"].as_array().unwrap();
    let forms: Vec<_> = there.iter().map(|t| (t["streams"].as_u64().unwrap(), t["guided"].as_str())).collect();
    let wanted = match guides {
        true => ["none", "last", "all"].map(|guided| (1, Some(guided))).to_vec(),
        false => vec![(2, None)],
    };
    assert_eq!(forms, wanted);
    for timing in there.iter().chain(report["through_host"].as_array().unwrap()) {
        for part in ["ask", "show", "paste", "networks", "whole"] {
            assert!(timing["milliseconds"][part].as_f64().unwrap() > 0.0, "{part}: {timing}");
        }
        assert!(timing["per_second"].as_f64().unwrap() > 0.0, "{timing}");
    }
    assert_eq!(report["through_host"].as_array().unwrap().len(), 1, "{report}");
    // Whether it is in time is the machine's to say.
    let paced = report["paced"].as_array().unwrap();
    assert!(!paced.is_empty() && paced.iter().all(|paced| paced["failed"].is_null()), "{report}");
    let tuned = report["tuned"].as_array().unwrap();
    assert_eq!(tuned.len(), usize::from(guides), "{report}");
    for tuned in tuned {
        assert!(tuned["refused"].is_null() && tuned["batches"]["step 2"].as_f64().unwrap() > 0.0, "{tuned}");
    }
}

#[test]
fn random_weights_have_the_names_and_shapes_of_published_ones() {
    let narrow = narrow::Narrow::open();
    let same = |network: &str, mut layout: Layout| {
        let mut listed: Layout = narrow.checkpoint(network).into_iter().map(|(name, shape, _)| (name, shape)).collect();
        layout.sort();
        listed.sort();
        let apart: Vec<_> = layout.iter().zip(&listed).filter(|(own, other)| own != other).take(3).collect();
        assert!(apart.is_empty() && layout.len() == listed.len(), "{network}: {apart:?}");
    };
    same("latentsync", layout::unet(&NARROW, 13, true));
    same("musetalk", layout::unet(&Widths { unet: [16, 16, 24, 24], ..NARROW }, 8, false));
    same("vae", layout::vae(&NARROW));
    same("whisper", layout::whisper(&NARROW));
    // Millions of numbers, as published: Stable Diffusion's autoencoder, and U-Nets that hear 384 numbers in the place of 768.
    let millions =
        |layout: Layout| layout.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>() / 1_000_000;
    let found =
        [layout::vae(&PUBLISHED), layout::unet(&PUBLISHED, 8, false), layout::unet(&PUBLISHED, 13, true)].map(millions);
    assert_eq!(found, [83, 849, 1267]);
    assert_eq!([pixel::wav2lip(&PUBLISHED), pixel::synctalk2d(&PUBLISHED)].map(millions), [36, 12]);
}
