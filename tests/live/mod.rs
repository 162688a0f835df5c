//! What the tests of live protocols share: a session that is fed by test pictures, and one that counts what it is given.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gst::prelude::*;
use lipstream::{
    live::{Codec, Encoders, Inlet, Intake, Outlet, Packet, Picture, Slot, Viewer},
    rtmp::{Guest, Host, name::Name},
    session::Refusal,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// An outlet with test pictures and a tone, as long as this lives.
pub struct Broadcast {
    pub outlet: Arc<Outlet>,
    pipeline: gst::Pipeline,
    /// Running time of each packet of video, whether it is a key frame, and when it was published.
    pub published: Arc<Mutex<Vec<(Duration, bool, Instant)>>>,
}

struct Encoder(gst::Element);

impl Encoders for Encoder {
    fn enable(&self, _: Codec, _: bool) {}
    fn key_frame(&self, codec: Codec) {
        if codec == Codec::H264 {
            self.0.send_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    }
    fn bit_rate(&self, _: Codec, _: Option<u32>) {}
}

impl Broadcast {
    pub fn start() -> Self {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(
            "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1 \
             ! x264enc name=encoder tune=zerolatency speed-preset=ultrafast bframes=0 key-int-max=25 bitrate=800 \
             ! video/x-h264,profile=constrained-baseline,stream-format=byte-stream,alignment=au \
             ! h264parse config-interval=-1 ! appsink name=video sync=false \
             audiotestsrc is-live=true samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 ! avenc_aac \
             ! audio/mpeg,stream-format=raw ! appsink name=audio sync=false",
        )
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        let outlet = Outlet::new(100_000, None);
        let published = Arc::new(Mutex::new(Vec::new()));
        for (name, codec) in [("video", Codec::H264), ("audio", Codec::Aac)] {
            let sink = pipeline.by_name(name).unwrap().downcast::<gst_app::AppSink>().unwrap();
            let (outlet, published) = (outlet.clone(), published.clone());
            let mut header = None;
            sink.set_callbacks(
                gst_app::AppSinkCallbacks::builder()
                    .new_sample(move |sink| {
                        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                        let buffer = sample.buffer().unwrap();
                        let caps = sample.caps().unwrap().structure(0).unwrap();
                        if let (Codec::Aac, None, Ok(data)) = (codec, &header, caps.get::<gst::Buffer>("codec_data")) {
                            let data = Bytes::copy_from_slice(&data.map_readable().unwrap());
                            outlet.set_header(codec, data.clone());
                            header = Some(data);
                        }
                        // x264enc shifts its timestamps by 1000 hours and says so in the segment.
                        let segment = sample.segment().unwrap().downcast_ref::<gst::ClockTime>().unwrap();
                        let Some(pts) = segment.to_running_time(buffer.pts()) else { return Ok(gst::FlowSuccess::Ok) };
                        let pts = Duration::from_nanos(pts.nseconds());
                        let key = !codec.is_video() || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                        if codec.is_video() {
                            published.lock().push((pts, key, Instant::now()));
                        }
                        outlet.publish(Packet {
                            codec,
                            pts,
                            duration: Duration::ZERO,
                            key,
                            data: Bytes::copy_from_slice(&buffer.map_readable().unwrap()),
                        });
                        Ok(gst::FlowSuccess::Ok)
                    })
                    .build(),
            );
        }
        let encoder = pipeline.by_name("encoder").unwrap();
        outlet.attach(Arc::new(Encoder(encoder)));
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { outlet, pipeline, published }
    }
}

impl Broadcast {
    /// How long pictures took from being published to where they `came`, of which the first was a key frame: the median.
    pub fn delay(&self, came: &[(Duration, Instant)]) -> Duration {
        let published = self.published.lock().clone();
        let (first, arrived) = came[0];
        // Key frames are a second apart, so the last one before the arrival is the one that came first.
        let key = published.iter().rev().find(|(_, key, at)| *key && *at <= arrived).unwrap().0;
        let mut delays: Vec<Duration> = came
            .iter()
            .filter_map(|(time, arrived)| {
                let pts = key + time.saturating_sub(first);
                let (_, _, at) = published.iter().find(|(of, ..)| of.abs_diff(pts) < Duration::from_millis(10))?;
                Some(arrived.saturating_duration_since(*at))
            })
            .collect();
        delays.sort();
        delays[delays.len() / 2]
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// Counts what sources give.
#[derive(Default)]
pub struct Counter {
    pub seen: Mutex<Seen>,
    pub format: Mutex<Option<Picture>>,
}

#[derive(Clone, Default, Debug)]
pub struct Seen {
    /// Frames with the moment of their arrival.
    pub frames: Vec<(Duration, Instant)>,
    pub picture: Option<Picture>,
    pub samples: usize,
    /// Begin and end of the sound.
    pub sound: Option<(Duration, Duration)>,
    pub loudest: f32,
    pub restarts: usize,
    pub ends: usize,
    pub sources: u64,
}

impl Counter {
    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    pub fn inlet(self: &Arc<Self>) -> Inlet {
        gst::init().unwrap();
        let mut seen = self.seen.lock();
        seen.sources += 1;
        Inlet::new(self.clone(), seen.sources)
    }

    pub fn frames(&self) -> usize {
        self.seen.lock().frames.len()
    }
}

impl Intake for Counter {
    fn format(&self) -> Option<Picture> {
        *self.format.lock()
    }
    fn video(&self, _: u64, picture: Picture, frame: gst::Buffer, at: Duration) {
        assert_eq!(frame.size(), (picture.width * picture.height * 3 / 2) as usize, "I420 of {picture:?}");
        self.format.lock().get_or_insert(picture);
        let mut seen = self.seen.lock();
        seen.picture = Some(picture);
        seen.frames.push((at, Instant::now()));
    }
    fn audio(&self, _: u64, samples: &[f32], at: Duration) {
        let mut seen = self.seen.lock();
        seen.samples += samples.len() / 2;
        let end = at + Duration::from_secs_f64(samples.len() as f64 / 2.0 / 48_000.0);
        let begin = seen.sound.map_or(at, |(begin, _)| begin);
        seen.sound = Some((begin, end));
        seen.loudest = samples.iter().fold(seen.loudest, |most, sample| most.max(sample.abs()));
    }
    fn describe(&self, _: u64, _: lipstream::live::Description) {}
    fn restart(&self, _: u64) {
        self.seen.lock().restarts += 1;
    }
    fn end(&self, _: u64) {
        self.seen.lock().ends += 1;
    }
}

/// A session `talk`: what is published is counted, what is played is the broadcast.
pub struct Studio {
    pub main: Arc<Counter>,
    pub voice: Arc<Counter>,
    pub broadcast: Broadcast,
}

impl Studio {
    pub fn open() -> Arc<Self> {
        Arc::new(Self { main: Arc::default(), voice: Arc::default(), broadcast: Broadcast::start() })
    }
}

impl Host for Studio {
    fn publish(self: &Arc<Self>, name: &Name, _: &str) -> Result<Guest, Refusal> {
        let inlet = match name.publishes() {
            Some(("talk", Slot::Main)) => self.main.inlet(),
            Some(("talk", Slot::Voice)) => self.voice.inlet(),
            _ => return Err(Refusal::Unknown(name.path.clone())),
        };
        Ok(Guest { inlet, outlet: self.broadcast.outlet.clone(), until: CancellationToken::new() })
    }

    async fn watch(&self, name: &Name) -> Result<Viewer, Refusal> {
        match name.plays() {
            Some("talk") => Ok(self.broadcast.outlet.watch(&[Codec::H264, Codec::Aac])),
            _ => Err(Refusal::Unknown(name.path.clone())),
        }
    }
}

/// A program that is killed when the test ends.
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// ffmpeg with the arguments, cut at spaces.
    pub fn ffmpeg(arguments: &str) -> Self {
        Self::start(
            Command::new("ffmpeg")
                .args(["-nostdin", "-v", "error", "-y"])
                .args(arguments.split_whitespace())
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        )
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status().unwrap().success());
    }

    /// Waits for it; exit code and standard error.
    pub async fn end(mut self, patience: Duration) -> (i32, String) {
        let deadline = Instant::now() + patience;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let status = self.0.wait().unwrap();
        let mut text = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut text).unwrap();
        }
        (status.code().unwrap_or(-1), text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two streams of test media for ffmpeg, at the pace of a camera.
pub fn test_media(seconds: u32) -> String {
    format!(
        "-re -f lavfi -i testsrc=s=320x240:r=25:d={seconds} -f lavfi -i sine=f=440:r=44100:d={seconds} \
         -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 25 -c:a aac"
    )
}

/// Waits until `done`, for at most `patience`.
#[track_caller]
pub fn eventually(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Whether a peer is installed; says that the test is skipped where it is not.
pub fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

/// Packets of a file or a stream as ffprobe sees them: stream kind, time in seconds, key frame.
pub fn packets(input: &str) -> Vec<(String, f64, bool)> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-show_entries", "packet=codec_type,pts_time,flags", "-i", input])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json["packets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|packet| {
            let text = |name: &str| packet[name].as_str().unwrap_or_default().to_owned();
            (text("codec_type"), text("pts_time").parse().unwrap_or(f64::NAN), text("flags").starts_with('K'))
        })
        .collect()
}

/// Plays `seconds` with ffmpeg and returns the packets as they came.
pub async fn play(url: &str, seconds: u32) -> Vec<(String, f64, bool)> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("played.mkv");
    let file = file.to_str().unwrap();
    let (code, stderr) =
        Running::ffmpeg(&format!("-i {url} -t {seconds} -c copy -copyts {file}")).end(Duration::from_secs(30)).await;
    assert_eq!(code, 0, "{stderr}");
    packets(file)
}

pub fn times(packets: &[(String, f64, bool)], kind: &str) -> Vec<f64> {
    packets.iter().filter(|(of, ..)| of == kind).map(|(_, time, _)| *time).collect()
}

#[track_caller]
pub fn assert_steady(times: &[f64], step: f64) {
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((gap - step).abs() < step / 2.0, "a step of {gap} s at {} s, not {step} s", pair[0]);
    }
}

/// nginx with its RTMP module, which takes and gives rtmp://127.0.0.1:PORT/live/NAME, where it is installed.
pub fn nginx(folder: &Path, port: u16) -> Option<Running> {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
    if !Path::new(MODULE).is_file() {
        eprintln!("skipped: nginx with its RTMP module is not installed (packages nginx, libnginx-mod-rtmp)");
        return None;
    }
    let config = folder.join("nginx.conf");
    let text = format!(
        "load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log {0}/error.log info;\n\
         events {{ worker_connections 64; }}\n\
         rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; application live {{ live on; record off; }} }} }}\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    let nginx = Running::start(
        Command::new("nginx").arg("-p").arg(folder).arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()),
    );
    eventually(Duration::from_secs(30), "nginx listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Some(nginx)
}
