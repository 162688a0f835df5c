//! Sessions that judge their own sync: a mouth that is late is found and brought back, a source that is apart is told of.

mod common;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{ffmpeg, lipstream, root, succeed};
use lipstream::{
    avatar,
    live::{CHANNELS, Codec, Picture, RATE, Slot},
    session::{Manager, Session, SessionSpec, Settings, Status},
};

/// Longest that something found within twenty seconds of speech is waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
const SIZE: (u32, u32) = (480, 270);
/// Frames by which the source's picture is late.
const LATE: u64 = 6;

fn manager(folder: &Path, settings: Settings) -> Arc<Manager> {
    gst::init().unwrap();
    let _ = gstlipstream::plugin_register_static();
    Manager::new(Settings { device: "cpu".into(), ..settings }, avatar::Store::open(folder).unwrap())
}

/// The demo's speech so many times over as a file, and its samples: interleaved, 48 kHz.
fn speech(folder: &Path, times: usize) -> (std::path::PathBuf, Vec<f32>) {
    let (file, raw) = (folder.join("speech.wav"), folder.join("speech.raw"));
    let demo = root().join("demo/speech.flac");
    ffmpeg(&format!("-stream_loop {} -i {} -ac {CHANNELS} -ar {RATE}", times - 1, demo.display()), &file);
    ffmpeg(&format!("-i {} -f f32le", file.display()), &raw);
    let bytes = std::fs::read(&raw).unwrap();
    (file, bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

/// Waits until a session's state is so.
async fn until(session: &Session, what: &str, is: impl Fn(&Status) -> bool) -> Status {
    let start = Instant::now();
    loop {
        let status = session.status();
        if is(&status) {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mouth_that_is_three_frames_late_is_found_and_brought_back() {
    let folder = tempfile::tempdir().unwrap();
    let graph = std::fs::read_to_string(root().join("graphs/avatar.toml")).unwrap();
    let late = graph.replace("lipsync name=ls ", "lipsync name=ls feature-shift=-120 ");
    assert_ne!(late, graph);
    std::fs::write(folder.path().join("late.toml"), late).unwrap();
    let settings = Settings {
        load: 100.0,
        graphs: Some(folder.path().to_owned()),
        sync_correct: Duration::from_secs(3),
        ..Settings::default()
    };
    let manager = manager(&folder.path().join("avatars"), settings);
    let session = manager.create(SessionSpec::new("late", "late")).unwrap();
    let _viewer = session.watch(&[Codec::H264]).await.unwrap();
    let (_, samples) = speech(folder.path(), 6);
    let mono: Vec<f32> = samples.chunks_exact(CHANNELS).map(|frame| frame[0]).collect();
    let mut writer = session.speech().writer("one").unwrap();
    assert_eq!(writer.add(&mono).unwrap(), mono.len());
    drop(writer);
    let found = until(&session, "the mouth is found late", |s| s.sync_offset.is_some_and(|frames| frames > 1)).await;
    assert!((2..=4).contains(&found.sync_offset.unwrap()) && found.sync_confidence.unwrap() > 0.07, "{found:?}");
    let corrected = until(&session, "the mouth is corrected", |s| s.sync_corrections > 0).await;
    assert_eq!((corrected.sync_corrections, corrected.sync_shift_ms), (1, 80.0));
    let after = until(&session, "what it is then", |s| s.sync_offset.is_some_and(|frames| frames.abs() <= 1)).await;
    assert_eq!((after.sync_corrections, after.sync_shift_ms), (1, 80.0), "{after:?}");
    manager.close();
}

/// Pictures of the avatar that says the speech, made beforehand.
fn talking(folder: &Path, speech: &Path) -> Vec<gst::Buffer> {
    let video = folder.join("talking.mp4");
    let avatar = root().join("demo/avatar.mp4");
    let files = [("--video", avatar.as_path()), ("--audio", speech), ("--output", &video)];
    let arguments = files.iter().flat_map(|(name, path)| [name.as_ref(), path.as_os_str()]);
    succeed(lipstream(folder).args(["render", "--quiet", "--device", "cpu", "--preset", "ultrafast"]).args(arguments));
    let raw = folder.join("talking.raw");
    let (width, height) = SIZE;
    ffmpeg(&format!("-i {} -an -s {width}x{height} -pix_fmt yuv420p -f rawvideo", video.display()), &raw);
    let size = (width * height * 3 / 2) as usize;
    std::fs::read(raw).unwrap().chunks_exact(size).map(|frame| gst::Buffer::from_slice(frame.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_apart_from_its_sound_is_told_of_and_the_mouth_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (file, samples) = speech(folder.path(), 1);
    let frames = talking(folder.path(), &file);
    let settings = Settings { load: 100.0, sync_correct: Duration::from_secs(3), ..Settings::default() };
    let manager = manager(&folder.path().join("avatars"), settings);
    let session = manager.create(SessionSpec::new("relay", "relay")).unwrap();
    let inlet = session.publish(Slot::Main, "a test").unwrap();
    let _viewer = session.watch(&[Codec::H264]).await.unwrap();
    let feeding = tokio::spawn(async move {
        let (start, picture) = (Instant::now(), Picture { width: SIZE.0, height: SIZE.1, fps: (25, 1) });
        let piece = RATE as usize / 25 * CHANNELS;
        // Over and over, for as long as a slow machine takes.
        let media = frames.iter().zip(samples.chunks_exact(piece));
        for (n, (frame, sound)) in media.cycle().enumerate() {
            let time = Duration::from_millis(40 * n as u64);
            tokio::time::sleep(time.saturating_sub(start.elapsed())).await;
            inlet.video(picture, frame.clone(), time + Duration::from_millis(40 * LATE));
            inlet.audio(sound, time);
        }
    });
    let apart = until(&session, "the source is found apart", |s| s.source_sync_offset.is_some_and(|f| f > 1)).await;
    assert!((5..=7).contains(&apart.source_sync_offset.unwrap()), "{apart:?}");
    let both =
        until(&session, "the mouth is judged", |s| s.sync_offset.is_some() && s.source_sync_offset.is_some()).await;
    assert!(both.sync_offset.unwrap().abs() <= 1, "{both:?}");
    // For longer than a mouth would be left.
    let judged = |s: &Status| s.stages.iter().find(|stage| stage.name == "check").map_or(0, |check| check.totals.count);
    let before = judged(&both);
    let later = until(&session, "five more checks", |s| judged(s) >= before + 5).await;
    assert_eq!((later.sync_corrections, later.sync_shift_ms), (0, 0.0), "{later:?}");
    feeding.abort();
    manager.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_the_check_says_nothing_of_its_sync() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { load: 100.0, sync_check: Duration::ZERO, ..Settings::default() };
    let manager = manager(&folder.path().join("avatars"), settings);
    let session = manager.create(SessionSpec::new("avatar", "avatar")).unwrap();
    let _viewer = session.watch(&[Codec::H264]).await.unwrap();
    // With the check, some would have been made by now.
    let status = until(&session, "six seconds of frames", |s| s.frames > 150).await;
    let check = status.stages.iter().find(|stage| stage.name == "check").unwrap();
    assert_eq!((check.totals.count, status.sync_confidence, status.source_sync_confidence), (0, None, None));
    manager.close();
}
