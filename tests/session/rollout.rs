//! Versions of an engine, changed under live sessions.

#[path = "../../engines/tests/common/versions.rs"]
mod versions;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use lipstream::tenants::Caller;
use lipstream_engines::{
    audio::front_end,
    digest::sha256,
    manifest::{Aliases, Package},
    runtime::Options,
};
use versions::Motion;

use super::*;

/// Folder for engines of the process that runs the test's body.
const HOME: &str = "LIPSTREAM_TEST_HOME";

/// Runs the test `name` in a process of its own, whose engines are in a folder of its own; `None` in the process that is to go on.
fn apart(name: &str) -> Option<PathBuf> {
    if let Some(home) = std::env::var_os(HOME) {
        return Some(home.into());
    }
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("rollout::{name}"), "--nocapture"]);
    let status = command.env("XDG_DATA_HOME", home.path()).env(HOME, home.path()).status().unwrap();
    assert!(status.success(), "{name}: {status}");
    None
}

/// A person who looks into the camera, published again and again.
struct Person {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const SMALL: (u32, u32) = (480, 270);

fn frames() -> Vec<gst::Buffer> {
    let line = format!(
        "filesrc location={}/demo/avatar.mp4 ! decodebin ! videoconvert ! videoscale \
         ! video/x-raw,format=I420,width={},height={} ! appsink name=out sync=false",
        env!("CARGO_MANIFEST_DIR"),
        SMALL.0,
        SMALL.1
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let frames = (0..25).map(|_| sink.pull_sample().unwrap().buffer_owned().unwrap()).collect();
    pipeline.set_state(gst::State::Null).unwrap();
    frames
}

impl Person {
    fn publish(inlet: Inlet, frames: Vec<gst::Buffer>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let thread = std::thread::spawn(move || {
            let picture = Picture { width: SMALL.0, height: SMALL.1, fps: (25, 1) };
            let began = Instant::now();
            for n in 0_u32.. {
                let time = Duration::from_millis(40) * n;
                std::thread::sleep(time.saturating_sub(began.elapsed()));
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                // Forth and back.
                let (turn, last) = (n as usize % (2 * frames.len() - 2), frames.len() - 1);
                inlet.video(picture, frames[turn.min(2 * last - turn)].clone(), time);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Means of features over windows of seven, by weights that tell the first sound from the others.
fn telling(voice: &[f32], others: &[Vec<f32>]) -> (Vec<f32>, f32) {
    let engine = Package::find("compact").unwrap();
    let windows = |samples: &[f32]| {
        let mut all: Vec<Vec<f32>> = Vec::new();
        let mut ear = front_end(&engine, &Options::default()).unwrap();
        ear.push(samples, &mut |feature| all.push(feature.to_vec())).unwrap();
        let mean = |w: &[Vec<f32>]| (0..w[0].len()).map(|i| w.iter().map(|f| f[i]).sum::<f32>() / 7.0).collect();
        all.windows(7).map(mean).collect::<Vec<Vec<f32>>>()
    };
    let voice = windows(voice);
    let others: Vec<Vec<f32>> = others.iter().flat_map(|o| windows(o)).collect();
    let mean = |w: &[Vec<f32>], i: usize| w.iter().map(|f| f[i]).sum::<f32>() / w.len() as f32;
    let weights: Vec<f32> = (0..voice[0].len()).map(|i| mean(&voice, i) - mean(&others, i)).collect();
    let of = |w: &Vec<f32>| w.iter().zip(&weights).map(|(a, b)| a * b).sum::<f32>();
    let most = |w: &[Vec<f32>]| w.iter().map(of).fold(f32::MIN, f32::max);
    let (loud, rest) = (most(&voice), most(&others));
    assert!(loud > rest, "the two can be told apart: {loud} and {rest}");
    (weights, rest + 0.6 * (loud - rest))
}

/// Every fourth sample more or less: speech at 48 kHz as engines hear it.
fn heard(samples: &[f32]) -> Vec<f32> {
    samples.chunks(3).map(|s| s.iter().sum::<f32>() / s.len() as f32).collect()
}

fn noise(seconds: usize, level: f32) -> Vec<f32> {
    let (mut state, mut low) = (1_u32, 0.0_f32);
    let sample = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let white = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        low = 0.9 * low + 0.1 * white;
        level * (0.5 * white + 2.0 * low)
    };
    (0..16_000 * seconds).map(sample).collect()
}

/// Waits until the sessions have these engines.
async fn await_engines(sessions: &[Arc<lipstream::session::Session>], wanted: [&str; 3]) {
    let began = Instant::now();
    loop {
        let found: Vec<_> = sessions.iter().map(|s| s.status().engine.unwrap_or_default()).collect();
        if found == wanted {
            return;
        }
        let reasons: Vec<_> = sessions.iter().map(|s| s.status().engine_reason).collect();
        assert!(began.elapsed() < Duration::from_secs(60), "{found:?} and not {wanted:?}: {reasons:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn aliases(stable: &str, canary: Option<&str>, share: u8) -> Aliases {
    let canary = canary.map(|canary| ("canary".to_owned(), canary.to_owned()));
    Aliases {
        share,
        aliases: BTreeMap::from_iter([("stable".to_owned(), stable.to_owned())].into_iter().chain(canary)),
    }
}

fn write_engines(home: &Path) {
    let folder = home.join("lipstream/engines/anna");
    let noises = [noise(2, 0.3), noise(2, 0.05), noise(2, 1.0), vec![0.0; 16_000]];
    let (weights, above) = telling(&heard(&speech(6)), &noises);
    versions::write(&folder.join("1"), "anna", &Motion::Still(0.0));
    versions::write(&folder.join("2"), "anna", &Motion::Still(1.0));
    versions::write(&folder.join("3"), "anna", &Motion::Breaks { weights, above });
    versions::write(&folder.join("4"), "anna", &Motion::NoNetwork);
    std::fs::write(folder.join("aliases.toml"), "[aliases]\nstable = '1'\n").unwrap();
}

#[test]
fn versions_roll_out_and_back_under_live_sessions_and_no_frame_is_lost() {
    let Some(home) = apart("versions_roll_out_and_back_under_live_sessions_and_no_frame_is_lost") else { return };
    let settings = Settings { engine: "anna".into(), sync_check: Duration::ZERO, ..generous() };
    let (manager, _folder) = manager(settings);
    write_engines(&home);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(roll(manager));
}

async fn roll(manager: Arc<Manager>) {
    // One that is among the first ten percent, one below fifty, one above.
    let number = |id: &str| u32::from_str_radix(&sha256(format!("anna\n{id}").as_bytes())[..8], 16).unwrap() % 100;
    let id =
        |range: std::ops::Range<u32>| (0..).map(|n| format!("s{n}")).find(|id| range.contains(&number(id))).unwrap();
    let ids = [id(0..10), id(10..50), id(50..100)];
    let pictures = frames();
    let mut sessions = Vec::new();
    let mut viewers = Vec::new();
    let mut people = Vec::new();
    for id in &ids {
        let session = manager.create(SessionSpec { always_on: true, ..SessionSpec::new(id, "relay") }).unwrap();
        people.push(Person::publish(session.publish(Slot::Main, "a test").unwrap(), pictures.clone()));
        let mut viewer = session.watch(&[Codec::H264]).await.unwrap();
        viewers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while let Some(packet) = viewer.recv().await {
                times.push(packet.pts);
            }
            times
        }));
        sessions.push(session);
    }
    let change = |aliases: Aliases| {
        let manager = manager.clone();
        async move { tokio::task::spawn_blocking(move || manager.change_engine("anna", aliases)).await.unwrap() }
    };
    let report = || manager.engine("anna", &Caller::Operator).unwrap();
    await_engines(&sessions, ["anna@1"; 3]).await;

    let wrong = change(aliases("1", Some("5"), 10)).await.unwrap_err().to_string();
    assert!(wrong.contains("there is no version `5`; there are 1, 2, 3, 4"), "{wrong}");
    let wrong = change(aliases("1", Some("4"), 10)).await.unwrap_err().to_string();
    assert!(wrong.contains("engine `anna@4` makes no frames here") && wrong.contains("motion.onnx"), "{wrong}");

    for (share, wanted) in [
        (10, ["anna@2", "anna@1", "anna@1"]),
        (50, ["anna@2", "anna@2", "anna@1"]),
        (100, ["anna@2"; 3]),
        (0, ["anna@1"; 3]),
    ] {
        change(aliases("1", Some("2"), share)).await.unwrap();
        await_engines(&sessions, wanted).await;
    }

    // Loads, makes the frames of the measurement, and breaks when somebody speaks.
    change(aliases("1", Some("3"), 100)).await.unwrap();
    await_engines(&sessions, ["anna@3"; 3]).await;
    for session in &sessions {
        session.speech().writer("voice").unwrap().add(&speech(6)).unwrap();
    }
    await_engines(&sessions, ["anna@1"; 3]).await;
    let found = report();
    let taken_back = found.rolled_back.unwrap();
    assert_eq!((taken_back.version.as_str(), found.share), ("3", 0));
    assert!(taken_back.reason.contains("not finite"), "{}", taken_back.reason);
    let kept = std::fs::read_to_string(Package::data_folder().unwrap().join("anna/aliases.toml")).unwrap();
    assert!(kept.contains("share = 0"), "{kept}");
    let of = |version: &str| report().versions.into_iter().find(|v| v.version == version).unwrap();
    assert!(of("3").failures > 0 && of("1").sessions == 3 && of("1").loaded);
    let began = Instant::now();
    while of("2").loaded || of("3").loaded {
        assert!(began.elapsed() < Duration::from_secs(20), "what nobody uses is unloaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let statuses: Vec<_> = sessions.iter().map(|session| session.status()).collect();
    drop(people);
    manager.close();
    for (viewer, status) in viewers.into_iter().zip(statuses) {
        let times = viewer.await.unwrap();
        assert!(times.windows(2).all(|w| w[0] < w[1]), "each frame once and in order");
        // Frames that a busy machine drops in front of the graph are counted there.
        let gaps: u64 = times
            .windows(2)
            .map(|w| ((w[1] - w[0]).as_secs_f64() / 0.04).round() as u64)
            .map(|n| n.saturating_sub(1))
            .sum();
        assert!(gaps <= status.frames_dropped, "{gaps} frames of {} are lost: {status:?}", times.len());
        assert_eq!(status.restarts, 0, "{status:?}");
        assert!(status.face && times.len() > 100);
        eprintln!(
            "{}: {} frames, {gaps} not there, {} dropped, {} late, p99 interval {:.1} ms",
            status.id,
            times.len(),
            status.frames_dropped,
            status.frames_late,
            status.interval_p99_ms
        );
    }
}

#[test]
fn where_an_engine_cannot_be_loaded_the_next_of_its_chain_goes_on() {
    let Some(home) = apart("where_an_engine_cannot_be_loaded_the_next_of_its_chain_goes_on") else { return };
    versions::write(&home.join("lipstream/engines/broken"), "broken", &Motion::NoNetwork);
    versions::write(&home.join("lipstream/engines/sound"), "sound", &Motion::Still(0.0));
    let chain = ["broken", "sound"].map(str::to_owned).to_vec();
    let (manager, _folder) = manager(Settings { fallbacks: vec![chain], ..generous() });
    let spec = |engine: &str| SessionSpec {
        engine: Some(engine.into()),
        always_on: true,
        ..SessionSpec::new(&format!("on-{engine}"), "relay")
    };
    let status = manager.create(spec("broken")).unwrap().status();
    assert_eq!(status.engine.as_deref(), Some("sound"));
    let reason = status.engine_reason.unwrap();
    assert!(reason.contains("motion.onnx"), "{reason}");
    // It does not go back in the chain.
    assert_eq!(manager.create(spec("sound")).unwrap().status().engine_reason, None);
    manager.close();
}
