//! One connection to a URL, from the network to the inlet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use parking_lot::Mutex;

use crate::{
    address::Checked,
    error::{Failure, Result},
    live::{Inlet, branch},
};

/// Jitter that an RTSP source is given time for; GStreamer's default of 2 s is not meant for live use.
const RTSP_LATENCY_MS: u32 = 200;

/// A running pipeline.
pub(super) struct Source {
    pipeline: gst::Pipeline,
    shared: Arc<Shared>,
}

struct Shared {
    failure: Mutex<Option<String>>,
    /// When something came last; the start before that.
    heard: Mutex<Instant>,
    delivers: AtomicBool,
}

impl Source {
    /// Reads a file at its own pace.
    pub fn file(inlet: &Arc<Inlet>, url: &str) -> Result<Self> {
        let decoder = make("uridecodebin3")?;
        decoder.set_property("uri", url);
        Self::run(inlet, None, decoder, true)
    }

    /// Connects to a URL whose addresses were checked. `private` allows what leads to further URLs, which are not.
    pub fn open(inlet: &Arc<Inlet>, checked: &Checked, private: bool) -> Result<Self> {
        let scheme = checked.url.scheme();
        match scheme {
            "rtmp" | "rtmps" => {
                let source = make("rtmp2src")?;
                source.set_property("location", checked.url.as_str());
                if scheme == "rtmp"
                    && let Some(address) = checked.addresses.first()
                {
                    source.set_property("host", address.ip().to_string());
                }
                Self::run(inlet, Some(source), make("decodebin")?, false)
            }
            "srt" => {
                let source = make("srtsrc")?;
                source.set_property("uri", with_port(checked));
                source.set_property("auto-reconnect", false);
                Self::run(inlet, Some(source), make("decodebin")?, false)
            }
            "rtsp" | "rtspt" | "rtsps" => {
                let decoder = make("uridecodebin3")?;
                let url = if scheme == "rtsps" { checked.url.clone() } else { checked.pinned() };
                decoder.set_property("uri", url.as_str());
                decoder.connect("source-setup", false, |values| {
                    let source = values[1].get::<gst::Element>().ok()?;
                    source.set_property("latency", RTSP_LATENCY_MS);
                    // Over the connection that was checked; UDP would come from anywhere and be lost on the way.
                    source.set_property_from_str("protocols", "tcp");
                    None
                });
                Self::run(inlet, None, decoder, false)
            }
            _ => {
                let decoder = make("uridecodebin3")?;
                decoder.set_property("uri", checked.url.as_str());
                if !private {
                    stay(&decoder);
                }
                decoder.connect("source-setup", false, move |values| {
                    let source = values[1].get::<gst::Element>().ok()?;
                    if source.find_property("automatic-redirect").is_some() {
                        source.set_property("automatic-redirect", private);
                    }
                    None
                });
                Self::run(inlet, None, decoder, true)
            }
        }
    }

    /// `paced` sources give their media faster than it is shown.
    fn run(inlet: &Arc<Inlet>, source: Option<gst::Element>, decoder: gst::Element, paced: bool) -> Result<Self> {
        crate::media::register();
        let pipeline = gst::Pipeline::new();
        branch::hasten(pipeline.upcast_ref());
        crate::media::mend(pipeline.upcast_ref());
        pipeline.add(&decoder)?;
        if let Some(source) = source {
            pipeline.add(&source)?;
            source.link(&decoder)?;
        }
        let shared = Arc::new(Shared {
            failure: Mutex::default(),
            heard: Mutex::new(Instant::now()),
            delivers: AtomicBool::new(false),
        });
        let bus = pipeline.bus().expect("a pipeline has a bus");
        let seen = shared.clone();
        bus.set_sync_handler(move |_, message| {
            let said = match message.view() {
                gst::MessageView::Error(error) => Some(crate::media::describe(error)),
                gst::MessageView::Eos(_) => Some("the source has ended".to_owned()),
                _ => None,
            };
            if let Some(said) = said {
                seen.failure.lock().get_or_insert(said);
            }
            gst::BusSyncReply::Drop
        });
        let branches: Arc<[Mutex<Option<Branch>>; 2]> = Arc::default();
        let (weak, fed, inlet, taken) = (pipeline.downgrade(), shared.clone(), inlet.clone(), branches.clone());
        decoder.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else { return };
            let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let Some(kind) = caps.structure(0).map(|s| s.name().as_str()) else { return };
            let video = kind.starts_with("video/");
            if !(video || kind.starts_with("audio/")) {
                return;
            }
            // The first of each kind; a source may have several languages.
            let mut place = taken[usize::from(video)].lock();
            if place.is_some() {
                return;
            }
            match attach(&pipeline, pad, video, paced, &inlet, &fed) {
                Ok(bin) => *place = Some(Branch { pad: pad.clone(), bin }),
                Err(failure) => {
                    fed.failure.lock().get_or_insert(failure.to_string());
                }
            }
        });
        // A transport stream whose programme changes ends its pads and adds others.
        let weak = pipeline.downgrade();
        decoder.connect_pad_removed(move |_, pad| {
            for place in branches.iter() {
                let gone = place.lock().take_if(|branch| branch.pad == *pad);
                if let (Some(branch), Some(pipeline)) = (gone, weak.upgrade()) {
                    branch.remove(&pipeline);
                }
            }
        });
        let source = Self { pipeline, shared };
        source.pipeline.set_state(gst::State::Playing).map_err(|error| match source.failure() {
            Some(failure) => Failure::run(failure),
            None => error.into(),
        })?;
        Ok(source)
    }

    /// Why it has ended.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().clone()
    }

    pub fn silent(&self) -> Duration {
        self.shared.heard.lock().elapsed()
    }

    pub fn delivers(&self) -> bool {
        self.shared.delivers.load(Ordering::Relaxed)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Going to NULL does not fail; what it frees is gone either way.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// What takes a pad of the decoder.
struct Branch {
    pad: gst::Pad,
    bin: gst::Bin,
}

impl Branch {
    fn remove(self, pipeline: &gst::Pipeline) {
        // Neither fails on a bin that is the pipeline's own; its queue's thread ends with it.
        let _ = self.bin.set_locked_state(true);
        let _ = self.bin.set_state(gst::State::Null);
        let _ = pipeline.remove(&self.bin);
    }
}

fn attach(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    video: bool,
    paced: bool,
    inlet: &Arc<Inlet>,
    fed: &Arc<Shared>,
) -> Result<gst::Bin> {
    let description = format!("queue ! {}", if video { branch::video(inlet) } else { branch::audio() });
    let bin = gst::parse::bin_from_description(&description, true)
        .map_err(|e| Failure::run(format!("{}; `lipstream doctor` says what is missing", e.message())))?;
    if video {
        branch::connect_video(&bin, inlet)?;
    } else {
        branch::connect_audio(&bin, inlet)?;
    }
    if let Some(sink) = bin.by_name("sink") {
        sink.set_property("sync", paced);
        // The clock of what is paced starts with its first picture.
        sink.set_property("async", paced);
    }
    pipeline.add(&bin)?;
    bin.sync_state_with_parent()?;
    let sink = bin.static_pad("sink").ok_or_else(|| Failure::run("the decoding branch has no pad"))?;
    let fed = fed.clone();
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        *fed.heard.lock() = Instant::now();
        fed.delivers.store(true, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pad.link(&sink).map_err(|error| Failure::run(format!("the decoder cannot be linked: {error}")))?;
    Ok(bin)
}

/// Keeps a decoder to what its own URL gives. A playlist or a session description names further addresses, which nobody
/// has checked and which the elements that read it connect to by themselves: they get nothing to read.
fn stay(decoder: &gst::Element) {
    let Some(bin) = decoder.downcast_ref::<gst::Bin>() else { return };
    bin.connect_deep_element_added(|_, _, element| {
        let klass = element.factory().and_then(|f| f.metadata("klass").map(str::to_owned)).unwrap_or_default();
        let leads_on = klass.contains("Demux") && ["Adaptive", "Network"].iter().any(|k| klass.contains(k));
        let (true, Some(pad)) = (leads_on, element.static_pad("sink")) else { return };
        let message = gst::message::Error::builder(
            gst::ResourceError::NotAuthorized,
            "the URL is one of a playlist, which leads to other addresses; the server's setting for private addresses \
             decides about it",
        );
        let message = message.src(element).build();
        // The probe goes with its pad. Events pass: an end without a playlist leads nowhere.
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, |_, _| gst::PadProbeReturn::Handled);
        // Nobody listens any more where this fails.
        let _ = element.post_message(message);
    });
}

/// The checked address with its port, which SRT wants to see, and the URL's own options.
fn with_port(checked: &Checked) -> String {
    let mut url = checked.pinned();
    // SRT URLs always have a place for a port.
    let _ = url.set_port(Some(checked.port));
    url.into()
}

fn make(name: &str) -> Result<gst::Element> {
    Ok(gst::ElementFactory::make(name).build()?)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
    };

    use url::Url;

    use super::*;
    use crate::live::{Intake, Picture};

    struct Nobody;

    impl Intake for Nobody {
        fn format(&self) -> Option<Picture> {
            None
        }
        fn video(&self, _: u64, _: Picture, _: gst::Buffer, _: Duration) {}
        fn audio(&self, _: u64, _: &[f32], _: Duration) {}
        fn describe(&self, _: u64, _: crate::live::Description) {}
        fn restart(&self, _: u64) {}
        fn end(&self, _: u64) {}
    }

    /// Serves `body` at any path; tells what was asked for.
    fn server(body: String) -> (u16, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = asked.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { return };
                let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
                let Some(Ok(request)) = lines.next() else { continue };
                seen.lock().push(request);
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let length = body.len();
                // A client that has gone is served.
                let _ =
                    write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            }
        });
        (port, asked)
    }

    fn checked(text: &str) -> Checked {
        let url = Url::parse(text).unwrap();
        Checked { host: "127.0.0.1".into(), port: url.port().unwrap(), addresses: Vec::new(), url }
    }

    #[test]
    fn what_leads_to_addresses_that_nobody_checked_is_not_followed() {
        gst::init().unwrap();
        let (inside, asked_inside) = server(String::new());
        let hls =
            format!("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:{inside}/a.ts\n#EXT-X-ENDLIST\n");
        let (outside, _) = server(hls);
        let inlet = Arc::new(Inlet::new(Arc::new(Nobody), 1));
        let source = Source::open(&inlet, &checked(&format!("http://127.0.0.1:{outside}/a.m3u8")), false).unwrap();
        let since = Instant::now();
        let failure = loop {
            if let Some(failure) = source.failure() {
                break failure;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "it was not refused");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(failure.contains("playlist"), "{failure}");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(*asked_inside.lock(), Vec::<String>::new());
    }
}
