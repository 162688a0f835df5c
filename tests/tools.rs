//! What a newcomer types first: doctor, engines, gst-inspect, the line in the README, set-up.

mod common;

use std::{fs, process::Command};

use common::*;
use serde_json::Value;

const ELEMENTS: [&str; 5] = ["lipsync", "lipfacetrack", "lipaudioenc", "lipdenoise", "lipblend"];

fn stdout(output: std::process::Output) -> String {
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn doctor_finds_everything_after_set_up() {
    let folder = tempfile::tempdir().unwrap();
    let json: Value =
        serde_json::from_str(&stdout(succeed(lipstream(folder.path()).args(["doctor", "--json"])))).unwrap();
    let state = |what: &str| {
        let finding = json.as_array().unwrap().iter().find(|f| f["what"] == what);
        finding.unwrap_or_else(|| panic!("no {what} in {json}"))["state"].as_str().unwrap().to_owned()
    };
    for what in [
        "GStreamer",
        "GStreamer elements",
        "plugin lipstream",
        "ONNX Runtime",
        "device cpu",
        "engine compact",
        "engine compact-words",
        "engine expert",
        "engine tracker",
    ] {
        assert_eq!(state(what), "found", "{what}");
    }
}

#[test]
fn doctor_says_how_to_get_a_missing_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let output = lipstream(folder.path()).arg("doctor").env("LIPSTREAM_ORT_LIB", "/no/such/folder").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(output);
    let line = text.lines().find(|l| l.contains("ONNX Runtime")).unwrap();
    assert!(line.starts_with("MISSING") && line.contains("make setup"), "{text}");
}

#[test]
fn doctor_names_cards_and_what_they_lack() {
    let driver = common::fake_driver();
    let folder = tempfile::tempdir().unwrap();
    let lines = |version: &str, broken: bool| {
        let mut command = lipstream(folder.path());
        command.arg("doctor").env("LD_LIBRARY_PATH", driver.path()).env("FAKE_DRIVER", version);
        if broken {
            command.env("FAKE_NVML_BROKEN", "1");
        }
        // Running on the CPU needs none of it.
        let text = stdout(succeed(&mut command));
        let of_card = |line: &&str| line.get(8..).is_some_and(|what| what.starts_with("NVIDIA "));
        text.lines().filter(of_card).map(str::to_owned).collect::<Vec<_>>()
    };
    let found = lines("580.159.03", false);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("ok") && found[0].contains("580.159.03, CUDA 13.0"), "{found:?}");
    assert!(found[2].contains("NVIDIA card 1") && found[2].contains("Fake H100, sm_90, 2.0 of 80.0 GiB"), "{found:?}");
    let old = lines("535.104.05", false);
    assert!(old[0].starts_with('-') && old[0].contains("535.104.05 is older than 580"), "{old:?}");
    let broken = lines("580.159.03", true);
    assert!(broken.len() == 1 && broken[0].contains("does not answer"), "{broken:?}");
}

#[test]
fn a_card_that_cannot_serve_is_refused_with_the_cause_and_the_cure() {
    let driver = common::fake_driver();
    let folder = tempfile::tempdir().unwrap();
    let (video, audio) = (root().join("demo/avatar.mp4"), root().join("demo/speech.flac"));
    let refused = |device: &str, version: &str, cards: &str| {
        let mut command = lipstream(folder.path());
        command.args(["render", "--device", device, "-o", "out.mp4", "--video"]).args([&video]);
        command.arg("--audio").arg(&audio).env("FAKE_DRIVER", version).env("FAKE_CARDS", cards);
        let message = fail(command.env("LD_LIBRARY_PATH", driver.path())).1;
        message.lines().find(|line| line.contains("device `")).unwrap_or_else(|| panic!("{message}")).to_owned()
    };
    let line = refused("cuda", "580.159.03", "2");
    assert!(
        line.contains("device `cuda:0`") && line.contains("no libcuda.so.1") && line.contains("make setup-gpu"),
        "{line}"
    );
    // From here on there is a driver, which is no more than a name.
    succeed(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-x", "c", "/dev/null", "-o"])
            .arg(driver.path().join("libcuda.so.1")),
    );
    let line = refused("cuda", "535.104.05", "2");
    assert!(line.contains("driver 535.104.05 is older than 580") && line.contains("install a newer one"), "{line}");
    let line = refused("cuda", "580.159.03", "0");
    assert!(line.contains("the driver finds no card") && line.contains("nvidia-smi"), "{line}");
    let line = refused("cuda:2", "580.159.03", "2");
    assert!(line.contains("device `cuda:2`") && line.contains("there are 2 cards"), "{line}");
    // ONNX Runtime is then asked, and says less than what is missing.
    let line = refused("cuda:1", "580.159.03", "2");
    assert!(line.contains("libcudnn.so.9 was not found") && line.contains("run `make setup-gpu`"), "{line}");
    let line = refused("tensorrt", "580.159.03", "2");
    assert!(line.contains("libnvinfer.so.10 was not found") && line.contains("TENSORRT=FOLDER"), "{line}");
    std::fs::copy(driver.path().join("libcuda.so.1"), driver.path().join("libnvinfer.so.11")).unwrap();
    let line = refused("tensorrt", "580.159.03", "2");
    assert!(line.contains("TensorRT 11 is here") && line.contains("needs TensorRT 10 (libnvinfer.so.10)"), "{line}");
}

#[test]
fn tensorrt_runs_what_was_built_and_says_how_to_build_the_rest() {
    let driver = common::fake_driver();
    let source = "#include <string.h>\n
        int cuInit(unsigned f) { return f; }
        int cuDeviceGet(int *d, int n) { *d = n; return 0; }
        int cuDeviceGetName(char *t, int n, int d) { (void)d; strncpy(t, \"Fake H100\", n); return 0; }
        int cuDeviceGetAttribute(int *v, int a, int d) { (void)d; *v = a == 75 ? 9 : 0; return 0; }
        int getInferLibVersion(void) { return 101303; }";
    let code = driver.path().join("fake.c");
    fs::write(&code, source).unwrap();
    let names = ["cuda.so.1", "cudart.so.13", "cublasLt.so.13", "cublas.so.13", "curand.so.10", "cudnn.so.9"];
    for name in names.into_iter().chain(["nvinfer.so.10", "nvonnxparser.so.10"]) {
        let library = driver.path().join(format!("lib{name}"));
        succeed(Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &code]));
    }
    let folder = tempfile::tempdir().unwrap();
    let (video, audio) = (root().join("demo/avatar.mp4"), root().join("demo/speech.flac"));
    let with_card = |arguments: &[&str]| {
        let mut command = lipstream(folder.path());
        command.args(arguments).env("FAKE_DRIVER", "580.159.03").env("LD_LIBRARY_PATH", driver.path());
        // A registry of its own: what GStreamer finds beside such a card is not there otherwise.
        command.env("XDG_CACHE_HOME", folder.path()).env("GST_REGISTRY", folder.path().join("registry.bin"));
        command
    };
    // What an older TensorRT left for another precision.
    let older = folder.path().join("lipstream/tensorrt/fake-h100-sm90-trt10.9.0/x-fp16/batch-1-x");
    fs::create_dir_all(&older).unwrap();
    let shape = r#"{"name": "latent", "min": [1, 8], "best": [1, 8], "max": [1, 8], "nameless": false}"#;
    let record = format!(
        r#"{{"network": {{"name": "compact/motion.onnx", "engine": "compact", "digest": "x"}}, "precision": "fp16",
            "platform": {{"card": "Fake H100", "capability": [9, 0], "tensorrt": "10.9.0", "onnxruntime": "1.31.1"}},
            "profile": {{"inputs": [{shape}]}}, "files": {{}}, "seconds": 1.0}}"#
    );
    fs::write(older.join("engine.json"), record).unwrap();

    let mut render =
        with_card(&["render", "--engine", "compact", "--device", "tensorrt:1", "-o", "out.mp4", "--video"]);
    let said = fail(render.args([&video]).arg("--audio").arg(&audio)).1;
    for part in [
        "device `tensorrt:1`: compact/motion.onnx has no TensorRT engine in fp16 for Fake H100 (sm_90), TensorRT 10.13.3, ONNX Runtime ",
        "one of batch 1 that was built for TensorRT 10.9.0",
        "run `lipstream engines build compact --device tensorrt:1 --precision fp16`",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    // It builds as far as the provider that this machine's ONNX Runtime lacks, and leaves nothing half built.
    let said = fail(&mut with_card(&["engines", "build", "compact", "--quiet", "--batch", "1"])).1;
    assert!(said.contains("device `tensorrt:0`") && said.contains("make setup-gpu TENSORRT="), "{said}");
    assert!(!said.contains("was not found"), "{said}");
    let text = stdout(succeed(&mut with_card(&["doctor"])));
    let line = text.lines().find(|line| line.contains("TensorRT engines")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("1 not taken (built for TensorRT 10.9.0, ONNX Runtime 1.31.1)"), "{line}");
    let said = fail(&mut with_card(&["engines", "build", "compact", "--device", "cuda"])).1;
    assert!(said.contains("engines are built for TensorRT alone"), "{said}");
    let said = fail(lipstream(folder.path()).args(["engines", "build", "compact"])).1;
    assert!(said.contains("no libcuda.so.1") && said.contains("make setup-gpu"), "{said}");
}

#[test]
fn what_cards_say_is_measured() {
    let driver = common::fake_driver();
    let path = driver.path().to_str().unwrap();
    let service = service::Service::start_with("", &[("LD_LIBRARY_PATH", path), ("FAKE_DRIVER", "580.1")]);
    let (_, text) = service.send("GET", "/metrics", "", b"");
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("lipstream_gpu_")).collect();
    for line in [
        r#"lipstream_gpu_memory_bytes{gpu="0",name="Fake H100"} 85899345920"#,
        r#"lipstream_gpu_memory_used_bytes{gpu="1",name="Fake H100"} 2147483648"#,
        r#"lipstream_gpu_utilisation_ratio{gpu="1",name="Fake H100"} 0.5"#,
        r#"lipstream_gpu_power_watts{gpu="0",name="Fake H100"} 350.5"#,
        r#"lipstream_gpu_temperature_celsius{gpu="0",name="Fake H100"} 41"#,
    ] {
        assert!(lines.contains(&line), "{line} not in {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with(r#"lipstream_gpu_power_watts{gpu="1""#)), "{lines:#?}");
}

#[test]
fn a_runtime_is_told_to_send_nothing_before_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let source = "#include <stdlib.h>\n#include <stdio.h>\n__attribute__((constructor)) static void loaded(void) {
        const char *set = getenv(\"ORT_DISABLE_TELEMETRY\"); fprintf(stderr, \"telemetry off: %s\\n\", set ? set : \"no\"); }";
    let (code, library) = (folder.path().join("fake.c"), folder.path().join("libonnxruntime.so"));
    fs::write(&code, source).unwrap();
    succeed(Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &code]));
    let said = |set: Option<&str>| {
        let mut command = lipstream(folder.path());
        command.arg("doctor").env("LIPSTREAM_ORT_LIB", &library).env_remove("ORT_DISABLE_TELEMETRY");
        set.map(|value| command.env("ORT_DISABLE_TELEMETRY", value));
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(said(None).contains("telemetry off: 1"), "{}", said(None));
    assert!(said(Some("0")).contains("telemetry off: 0"), "{}", said(Some("0")));
}

/// ffmpeg reads the user data of the pictures and the metadata.
#[test]
fn streams_say_that_a_machine_made_a_part_of_them() {
    let source = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia";
    let read = |service: &service::Service| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-hide_banner", "-rw_timeout", "20000000", "-t", "1", "-i"]);
        command.arg(format!("{}/demo/synced", service.rtmp)).args(["-an", "-vf", "showinfo", "-f", "null", "-"]);
        String::from_utf8_lossy(&succeed(&mut command).stderr).into_owned()
    };
    let marked = service::Service::start("");
    assert_eq!(
        marked.session("demo")["marks"],
        serde_json::json!(["h264-sei", "rtmp-metadata", "whep-header", "watermark"])
    );
    let said = read(&marked);
    let metadata = said.lines().find(|line| line.trim_start().starts_with("digitalsourcetype"));
    assert!(metadata.is_some_and(|line| line.contains(source)), "{said}");
    let ours = said.split("UUID=a963d8d7-e9d1-43c3-a26a-8c6227f49825").nth(1).unwrap_or_else(|| panic!("{said}"));
    let data = ours.split("User Data=").nth(1).unwrap().lines().next().unwrap();
    let hex: String = data.chars().take_while(char::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    let stated: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        (&stated["engine"], &stated["digital_source_type"]),
        (&"compact-words".into(), &source.into()),
        "{stated}"
    );
    assert!(stated["generator"].as_str().unwrap().starts_with("lipstream "), "{stated}");
    let label = br#"{"params": {"label": "Made by a machine", "label-corner": "top-left"}}"#;
    let (status, text) = marked.send("PATCH", "/api/v1/sessions/demo", "application/json", label);
    assert_eq!(status, 200, "{text}");
    assert!(marked.session("demo")["marks"].as_array().unwrap().contains(&"label".into()), "{text}");
    drop(marked);

    let off = [("LIPSTREAM_MARKS_STREAMS", "false"), ("LIPSTREAM_MARKS_WATERMARK", "false")];
    let plain = service::Service::start_with("", &off);
    assert_eq!(plain.session("demo")["marks"], serde_json::json!([]));
    let said = read(&plain);
    assert!(said.contains("frame=") && !said.contains("a963d8d7") && !said.contains(source), "{said}");
}

#[test]
fn set_up_for_cards_refuses_what_cannot_serve() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("version");
    fs::write(&file, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n").unwrap();
    let script = root().join("scripts/setup-gpu.sh");
    let (_, message) = fail(Command::new(&script).env("LIPSTREAM_DRIVER_FILE", &file));
    assert!(message.contains("535.104.05 is older than 580"), "{message}");
    let tensorrt = folder.path().join("tensorrt");
    fs::create_dir(&tensorrt).unwrap();
    let (_, message) = fail(Command::new(&script).arg("--tensorrt").arg(&tensorrt));
    assert!(message.contains("holds no libnvinfer.so.10"), "{message}");
    fs::write(tensorrt.join("libnvinfer.so.11"), "").unwrap();
    let (_, message) = fail(Command::new(&script).arg("--tensorrt").arg(&tensorrt));
    assert!(message.contains("libnvinfer.so.11") && message.contains("needs TensorRT 10"), "{message}");
}

#[test]
fn engines_lists_licence_and_cost() {
    let folder = tempfile::tempdir().unwrap();
    let json: Value =
        serde_json::from_str(&stdout(succeed(lipstream(folder.path()).args(["engines", "--json"])))).unwrap();
    let compact = json.as_array().unwrap().iter().find(|e| e["name"] == "compact").unwrap();
    assert_eq!(compact["location"], "embedded");
    assert!(compact["gflop_per_frame"].as_f64().unwrap() > 0.0 && compact["bytes"].as_u64().unwrap() > 1000);
    let stages = compact["gflop_by_stage"].as_object().unwrap();
    assert!(["front_end", "step", "refine"].iter().all(|stage| stages[*stage].as_f64().unwrap() > 0.0), "{compact}");
    assert_eq!(compact["step_passes"], 2);
    assert!(!compact["licence"].as_str().unwrap().is_empty());
    assert!(compact.get("error").is_none(), "{compact}");
    let text = stdout(succeed(lipstream(folder.path()).arg("engines")));
    assert!(
        text.contains("compact") && text.contains("GFLOP a frame") && text.contains("step 0.0010 x 2 GFLOP"),
        "{text}"
    );
}

#[test]
fn each_element_documents_itself() {
    let folder = tempfile::tempdir().unwrap();
    for element in ELEMENTS {
        let text = stdout(succeed(gst_tool("gst-inspect-1.0", folder.path()).arg(element)));
        for part in ["Long-name", "Description", "Pad Templates", "Element Properties"] {
            assert!(text.contains(part), "{element}: no {part}");
        }
    }
    let bin = stdout(succeed(gst_tool("gst-inspect-1.0", folder.path()).arg("lipsync")));
    for name in ["video_sink", "audio_sink", "video_src", "audio_src", "engine", "device", "steps", "stats"] {
        assert!(bin.contains(name), "lipsync: no {name}");
    }
}

#[test]
fn the_line_in_the_readme_runs_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let start = readme.find("gst-launch-1.0 lipsync").expect("the README has a gst-launch line");
    let block = readme[start..].split("```").next().unwrap().replace("\\\n", " ");
    let (video, audio, out) = (f.join("V.mp4"), f.join("A.flac"), f.join("OUT.mp4"));
    ffmpeg(&format!("-i {} -an -t 2 -c:v libx264 -preset ultrafast", demo_video().display()), &video);
    ffmpeg(&format!("-i {} -t 2", demo_audio().display()), &audio);
    let line = block
        .replace("demo/avatar.mp4", &video.display().to_string())
        .replace("demo/speech.flac", &audio.display().to_string())
        .replace("location=out.mp4", &format!("location={}", out.display()));
    assert!(line.contains("OUT.mp4"), "{line}");
    succeed(gst_tool("sh", f).arg("-c").arg(line.trim()));
    assert!(probe(&out, "v").frames() >= 48);
    assert!((probe(&out, "v").end() - probe(&out, "a").end()).abs() < 0.1);
}

#[test]
fn set_up_has_nothing_to_do_the_second_time() {
    if !root().join(".lipstream/ort/sha256").is_file() {
        eprintln!("skipped: `make setup` has not been run here");
        return;
    }
    let text = stdout(succeed(Command::new("scripts/setup.sh").current_dir(root())));
    assert!(text.contains("Debian packages: all there") || text.contains("no Debian system"), "{text}");
    assert!(text.contains("ONNX Runtime 1.24.1: there"), "{text}");
}
