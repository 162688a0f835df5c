use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};

use super::{Notices, bus};
use crate::{
    background,
    error::{Failure, Kind, Result},
    interrupt,
};

/// How often a wait for the next sample looks at the bus.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(50);
/// Longest time for a next sample of a file: a decoder that gives neither that nor an end nor an error, as some broken
/// files make it, must not be waited for for ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a file that are looked at to know what it is.
const HEAD: u64 = 4096;
/// Decoded samples that may wait between the decoder and us.
const QUEUE: u32 = 4;

/// Sound that is taken. From a rate of a few hertz, which a header of a few bytes can claim, the resampler would make
/// gigabytes.
pub const SOUND: &str = "capsfilter caps=audio/x-raw,rate=[4000,384000]";

/// Which stream of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Frames as `lippicture` gives them.
    Video,
    /// Interleaved samples in the decoder's own format.
    Audio,
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }

    /// The elements after the decoder.
    fn converter(self) -> String {
        match self {
            Self::Video => "lippicture".into(),
            Self::Audio => format!("{SOUND} ! audioconvert dithering=none"),
        }
    }

    fn caps(self) -> gst::Caps {
        match self {
            Self::Video => gst::Caps::builder("video/x-raw")
                .field("format", gst::List::new(["I420", "NV12", "RGBA", "BGRA", "RGB"]))
                .build(),
            Self::Audio => gst::Caps::builder("audio/x-raw").field("layout", "interleaved").build(),
        }
    }
}

/// Decodes one stream of a file, as fast as it is asked for samples.
pub struct Reader {
    path: PathBuf,
    media: Media,
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    bus: gst::Bus,
    /// The sample that opening decoded to see that the stream is there.
    first: Option<gst::Sample>,
    notices: Notices,
}

impl Reader {
    /// Opens the file and decodes its first sample. What is chosen, converted or missing is told in `notices`.
    pub fn open(path: &Path, media: Media, notices: &Notices) -> Result<Self> {
        Self::open_as(path, media, &media.converter(), &media.caps(), notices)
    }

    /// The same stream of the same file from its beginning, as [`open`](Self::open) gives it.
    pub fn again(&self) -> Result<Self> {
        Self::open(&self.path, self.media, &self.notices)
    }

    /// As [`open`](Self::open), with elements of the caller's own between the decoder and `caps`.
    pub fn open_as(path: &Path, media: Media, converter: &str, caps: &gst::Caps, notices: &Notices) -> Result<Self> {
        readable(path)?;
        let pipeline = gst::Pipeline::new();
        background::adopt(&pipeline);
        super::mend(pipeline.upcast_ref());
        let source = gst::ElementFactory::make("filesrc").property("location", path).build()?;
        let decoder = gst::ElementFactory::make("decodebin").build()?;
        let convert = gst::parse::bin_from_description(converter, true)
            .map_err(|e| Failure::run(format!("{e}; `lipstream doctor` says what is missing")))?;
        let sink = gst_app::AppSink::builder().caps(caps).sync(false).max_buffers(QUEUE).build();
        pipeline.add_many([&source, &decoder, convert.upcast_ref(), sink.upcast_ref()])?;
        source.link(&decoder)?;
        convert.link(&sink)?;

        plug(&decoder, media, &convert.static_pad("sink").expect("a bin made with ghost pads"));
        let bus = pipeline.bus().expect("a pipeline has a bus");
        let mut reader =
            Self { path: path.to_owned(), media, pipeline, sink, bus, first: None, notices: notices.clone() };
        reader.pipeline.set_state(gst::State::Playing).map_err(|_| reader.failure_on_bus())?;
        reader.first = reader.pull()?;
        if reader.first.is_none() {
            return Err(reader.no_stream());
        }
        Ok(reader)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next sample; `None` at the end.
    pub fn next_sample(&mut self) -> Result<Option<gst::Sample>> {
        if interrupt::requested() {
            return Err(Failure::interrupted());
        }
        let sample = match self.first.take() {
            Some(sample) => Some(sample),
            None => self.pull()?,
        };
        while let Some(message) = self.bus.pop_filtered(&[gst::MessageType::Element]) {
            self.notices.take(&message, &format!("{}: ", self.path.display()));
        }
        Ok(sample)
    }

    /// The format of what comes, from the first sample.
    pub fn caps(&self) -> Option<gst::Caps> {
        self.first.as_ref().and_then(|s| s.caps_owned()).or_else(|| self.sink.static_pad("sink")?.current_caps())
    }

    /// What the container says; an estimate.
    pub fn duration(&self) -> Option<gst::ClockTime> {
        self.pipeline.query_duration::<gst::ClockTime>()
    }

    /// Asks for the sample at `position` next. `false` where the file cannot seek; the place that a container finds is
    /// only as exact as its index, so the caller looks at the timestamp that comes.
    pub fn seek(&mut self, position: gst::ClockTime) -> bool {
        self.first = None;
        self.pipeline.seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, position).is_ok()
    }

    fn pull(&self) -> Result<Option<gst::Sample>> {
        let since = Instant::now();
        loop {
            if let Some(sample) = self.sink.try_pull_sample(POLL) {
                return Ok(Some(sample));
            }
            if interrupt::requested() {
                return Err(Failure::interrupted());
            }
            while let Some(message) = self.bus.pop() {
                match message.view() {
                    gst::MessageView::Error(error) => return Err(self.failure(error)),
                    gst::MessageView::Application(_) => return Err(self.no_stream()),
                    gst::MessageView::Element(_) => {
                        self.notices.take(&message, &format!("{}: ", self.path.display()));
                    }
                    _ => {}
                }
            }
            if self.sink.is_eos() {
                return Ok(None);
            }
            if since.elapsed() > PATIENCE {
                let path = self.path.display();
                return Err(Failure::input(format!("{path}: its {} cannot be decoded", self.media.name())));
            }
        }
    }

    fn no_stream(&self) -> Failure {
        Failure::input(format!("{}: no {} in this file", self.path.display(), self.media.name()))
    }

    fn failure(&self, error: &gst::message::Error) -> Failure {
        Failure::input(format!("{}: {}", self.path.display(), bus::describe(error)))
    }

    fn failure_on_bus(&self) -> Failure {
        match self.bus.pop_filtered(&[gst::MessageType::Error]).as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(error)) => self.failure(error),
            _ => Failure::input(format!("{}: cannot be read", self.path.display())),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Going to NULL does not fail; what it frees is gone either way.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Links the first stream of `media` that `decoder`, a decodebin, finds to `head`. Where there is none it posts an
/// application message.
pub fn plug(decoder: &gst::Element, media: Media, head: &gst::Pad) {
    leave_others_undecoded(decoder, media);
    let wanted = format!("{}/x-raw", media.name());
    let target = head.clone();
    decoder.connect_pad_added(move |decoder, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let raw = caps.structure(0).is_some_and(|s| s.name() == wanted.as_str());
        if raw && !target.is_linked() && pad.link(&target).is_err() {
            let cause = format!("the {} has a format or a rate that is not taken", media.name());
            // Nobody listens any more where this fails.
            let _ = decoder.post_message(gst::message::Error::new(gst::StreamError::Format, &cause));
        }
    });
    let head = head.clone();
    decoder.connect_no_more_pads(move |decoder| {
        if !head.is_linked() {
            decoder.post_message(gst::message::Application::new(gst::Structure::new_empty("no-stream"))).ok();
        }
    });
}

/// Streams of another medium end at their parser: nothing decodes what nobody reads. What would fetch more than the
/// file itself (playlists, session descriptions) is left out: a file from a stranger must not make this machine ask
/// others.
fn leave_others_undecoded(decoder: &gst::Element, media: Media) {
    let choices = glib::Type::from_name("GstAutoplugSelectResult").and_then(glib::EnumClass::with_type);
    let Some(choices) = choices else { return };
    decoder.connect("autoplug-select", false, move |arguments| {
        let factory = arguments.get(3).and_then(|v| v.get::<gst::ElementFactory>().ok());
        let klass = factory.and_then(|f| f.metadata("klass").map(str::to_owned)).unwrap_or_default();
        let other = klass.contains("Decoder")
            && match media {
                Media::Video => klass.contains("Audio"),
                Media::Audio => ["Video", "Image", "Subtitle"].iter().any(|k| klass.contains(k)),
            };
        if ["Adaptive", "Network"].iter().any(|k| klass.contains(k)) {
            return choices.to_value_by_nick("skip");
        }
        choices.to_value_by_nick(if other { "expose" } else { "try" })
    });
}

/// The name of an animated picture, of which decoders give the first frame for ever or no frame at all.
fn animation(mut file: File) -> Option<&'static str> {
    let mut head = Vec::new();
    // What cannot be read here cannot be read by the decoder either, which says why.
    Read::by_ref(&mut file).take(HEAD).read_to_end(&mut head).ok()?;
    let at = |start: usize, what: &[u8]| head.get(start..start + what.len()) == Some(what);
    if at(0, b"GIF8") {
        return Some("animated GIF");
    }
    if at(0, b"RIFF") && at(8, b"WEBPVP8X") && head.get(20).is_some_and(|flags| flags & 2 != 0) {
        return Some("animated WebP");
    }
    // The control chunk of an animated PNG comes before the picture's data.
    let data = head.windows(4).position(|w| w == b"IDAT").unwrap_or(head.len());
    let animated = at(1, b"PNG") && head[..data].windows(4).any(|w| w == b"acTL");
    animated.then_some("animated PNG")
}

/// One line that says why a file cannot be opened, before GStreamer tries.
fn readable(path: &Path) -> Result<()> {
    let failure = |cause: String| Failure::new(Kind::Input, format!("{}: {cause}", path.display()));
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => failure("no such file".into()),
        std::io::ErrorKind::PermissionDenied => failure("permission denied".into()),
        _ => failure(e.to_string()),
    })?;
    let meta = file.metadata().map_err(|e| failure(e.to_string()))?;
    if meta.is_dir() {
        return Err(failure("is a folder, not a file".into()));
    }
    if meta.is_file() && meta.len() == 0 {
        return Err(failure("is empty".into()));
    }
    // Reading takes from a pipe what the decoder needs.
    match meta.is_file().then(|| animation(file)).flatten() {
        Some(name) => {
            Err(failure(format!("is an {name}, which is not taken: convert it to a video, as with `ffmpeg -i`")))
        }
        None => Ok(()),
    }
}
