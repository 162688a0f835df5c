//! The measurement of a card, as far as it runs without one.

use std::{path::Path, process::Command};

#[test]
fn the_measurement_of_a_card_runs_without_one_and_its_figures_are_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let out = std::env::temp_dir().join(format!("lipstream-gpu-{}", std::process::id()));
    let done = Command::new(root.join("bench/gpu/run.sh"))
        .args(["--dry", "--parts", "stream,tensorrt,kernels,tunings,networks", "--out"])
        .arg(&out)
        .env("BENCH", env!("CARGO_BIN_EXE_lipstream-bench-gpu"))
        .env("KERNELS", env!("CARGO_BIN_EXE_lipstream-bench-kernels"))
        .env("STREAM", env!("CARGO_BIN_EXE_lipstream-bench-stream"))
        .env_remove("ENGINE")
        .env_remove("OUT")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("networks.json")).unwrap()).unwrap();
    let kernels: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("kernels.json")).unwrap()).unwrap();
    let stream: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("stream.json")).unwrap()).unwrap();
    let read = |part: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(out.join(format!("{part}.json"))).unwrap()).unwrap()
    };
    let (tensorrt, tunings) = (read("tensorrt"), read("tunings"));
    std::fs::remove_dir_all(&out).unwrap();
    // In the order in which they say most.
    let parts = ["stream", "tensorrt", "kernels", "tunings", "networks"].map(|part| text.find(&format!("== {part}\n")));
    assert!(parts.iter().all(Option::is_some) && parts.is_sorted(), "{text}");
    for network in tensorrt["networks"].as_array().unwrap() {
        let run = network["runs"].as_array().unwrap().iter().find(|run| run["device"] == "tensorrt:0").unwrap();
        let refused = run["refused"].as_str();
        assert!(refused.is_none_or(|cause| cause.starts_with("device `tensorrt:0`: ")), "{run}");
    }
    let tuned = tunings["tuned"].as_array().unwrap();
    assert!(tuned.len() == 1 && tuned.iter().all(|tuned| tuned["refused"].is_null()), "{tunings}");
    assert!(stream["codes"].as_u64().unwrap() <= 1 && stream["latents"].as_f64().unwrap() < 2e-2, "{text}");
    for part in ["there", "through_host"] {
        assert!(stream[part][0]["milliseconds"]["step"].as_f64().unwrap() > 0.0, "{part}: {text}");
    }
    let tuned = stream["tuned"].as_array().unwrap();
    assert_eq!(tuned.len(), 1, "{text}");
    for tuned in tuned {
        assert!(tuned["refused"].is_null() && tuned["batches"]["step 2"].as_f64().unwrap() > 0.0, "{tuned}");
    }
    for (architecture, said) in kernels["compiled"].as_object().unwrap() {
        let said = said.as_str().unwrap();
        assert!(said == "ok" || said.starts_with("NVRTC: libnvrtc.so was not found"), "{architecture}: {said}");
    }
    assert_eq!(kernels["compiled"].as_object().unwrap().len(), 6, "{text}");
    let ran = kernels["parity"].as_array().is_some_and(|parity| !parity.is_empty());
    assert!(ran || kernels["refused"].as_str().is_some_and(|cause| cause.starts_with("device `cuda:0`")), "{kernels}");
    let networks = report["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 13, "{text}");
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
