use std::{
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};
use parking_lot::Mutex;

use super::{
    Notices, Sequence, bus,
    timeline::{Nanos, SECOND, running_time},
    track::{self, Track},
    whole::{self, Missing},
};
use crate::{
    background,
    error::{Failure, Kind, Result},
    termination,
};

/// How often a wait for the next sample looks at the bus.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(50);
/// Longest time for a next sample of a file: a decoder that gives neither that nor an end nor an error, as some broken
/// files make it, must not be waited for for ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a file that are looked at to know what it is.
const HEAD: u64 = 4096;
/// Amplitude of sound that is more than the dither of silence, -72 dBFS.
const HEARD: f32 = 2.5e-4;
/// Decoded samples that may wait between the decoder and us.
const QUEUE: u32 = 4;

/// Sound that is taken. From a rate of a few hertz, which a header of a few bytes can claim, the resampler would make
/// gigabytes.
pub const SOUND: &str = "capsfilter caps=audio/x-raw,rate=[4000,384000]";

/// Which stream of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Frames as `lippicture` gives them, opaque.
    Video,
    /// The same with their transparency, where they have one.
    Alpha,
    /// Interleaved samples in the decoder's own format.
    Audio,
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Self::Video | Self::Alpha => "video",
            Self::Audio => "audio",
        }
    }

    /// The elements after the decoder.
    fn converter(self) -> String {
        match self {
            Self::Video => "lippicture".into(),
            Self::Alpha => "lippicture keep-alpha=true".into(),
            Self::Audio => format!("{SOUND} ! audioconvert dithering=none"),
        }
    }

    fn caps(self) -> gst::Caps {
        match self {
            Self::Video => gst::Caps::builder("video/x-raw")
                .field("format", gst::List::new(["I420", "NV12", "RGBA", "BGRA", "RGB"]))
                .build(),
            Self::Alpha => gst::Caps::builder("video/x-raw")
                .field("format", gst::List::new(gstlipstream::video::FORMATS.map(|format| format.to_str())))
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
    track: Track,
    offers: Offers,
    /// What ended the stream; what was decoded before that is given first.
    failed: Option<Failure>,
    /// How long the container says that the file is, and the running time that the samples have reached.
    says: Option<gst::ClockTime>,
    reached: Nanos,
}

impl Reader {
    /// Opens the file and decodes its first sample. What is chosen, converted or missing is told in `notices`.
    pub fn open(path: &Path, media: Media, notices: &Notices) -> Result<Self> {
        Self::open_track(path, media, &Track::Default, notices)
    }

    /// As [`open`](Self::open), of the track that is asked for.
    pub fn open_track(path: &Path, media: Media, track: &Track, notices: &Notices) -> Result<Self> {
        Self::open_as(path, media, track, &media.converter(), &media.caps(), notices)
    }

    /// The same stream of the same file from its beginning, as [`open`](Self::open) gives it.
    pub fn again(&self) -> Result<Self> {
        Self::open_track(&self.path, self.media, &self.track, &Notices::unheard())
    }

    /// As [`open_track`](Self::open_track), with elements of the caller's own between the decoder and `caps`.
    pub fn open_as(
        path: &Path,
        media: Media,
        track: &Track,
        converter: &str,
        caps: &gst::Caps,
        notices: &Notices,
    ) -> Result<Self> {
        readable(path)?;
        let reader = Self::start_as(path, media, track, converter, caps, notices)?;
        let (choice, list) = {
            let offers = reader.offers.lock();
            (offers.choice.clone(), offers.list.clone())
        };
        let Some(choice) = choice else { return Ok(reader) };
        // Of sound tracks that the file recommends alike, one that is silent throughout is not meant.
        let mut alike = std::iter::once(choice.place).chain(choice.others.iter().copied());
        let place = match media {
            Media::Audio if !choice.others.is_empty() => alike.find(|place| sounds(path, *place)),
            _ => None,
        };
        let place = place.unwrap_or(choice.place);
        if list.contains(',') {
            let kind = if media == Media::Audio { "sound" } else { "video" };
            let file = path.display();
            notices.tell("track", format!("{file}: of the {kind} tracks {list}, {} is taken", place + 1));
        }
        if place == choice.place {
            return Ok(reader);
        }
        drop(reader);
        Self::start_as(path, media, &Track::Number(place + 1), converter, caps, notices)
    }

    fn start_as(
        path: &Path,
        media: Media,
        track: &Track,
        converter: &str,
        caps: &gst::Caps,
        notices: &Notices,
    ) -> Result<Self> {
        super::register();
        let pipeline = gst::Pipeline::new();
        background::adopt(&pipeline);
        super::mend(pipeline.upcast_ref());
        let source = match Sequence::of(path) {
            Some(pictures) => pictures?.source()?,
            None => gst::ElementFactory::make("filesrc").property("location", path).build()?,
        };
        let decoder = gst::ElementFactory::make("decodebin").build()?;
        let convert = gst::parse::bin_from_description(converter, true)
            .map_err(|e| Failure::run(format!("{e}; `lipstream doctor` says what is missing")))?;
        let sink = gst_app::AppSink::builder().caps(caps).sync(false).max_buffers(QUEUE).build();
        pipeline.add_many([&source, &decoder, convert.upcast_ref(), sink.upcast_ref()])?;
        source.link(&decoder)?;
        convert.link(&sink)?;

        let head = convert.static_pad("sink").expect("a bin made with ghost pads");
        let offers = plug(&decoder, media, track, &head);
        let bus = pipeline.bus().expect("a pipeline has a bus");
        let mut reader = Self {
            path: path.to_owned(),
            media,
            pipeline,
            sink,
            bus,
            first: None,
            notices: notices.clone(),
            track: track.clone(),
            offers,
            failed: None,
            says: None,
            reached: 0,
        };
        reader.pipeline.set_state(gst::State::Playing).map_err(|_| reader.failure_on_bus())?;
        reader.first = reader.pull()?;
        if reader.first.is_none() {
            return Err(reader.no_stream());
        }
        reader.says = reader.duration();
        Ok(reader)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both read the same file.
    pub fn same_file(&self, other: &Self) -> bool {
        let identity = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        identity(&self.path).is_some_and(|own| identity(&other.path) == Some(own))
    }

    /// Running time of the first sample, as long as that has not been taken.
    pub fn start(&self) -> Option<Nanos> {
        running_time(self.first.as_ref()?)
    }

    /// The next sample; `None` at the end.
    pub fn next_sample(&mut self) -> Result<Option<gst::Sample>> {
        if termination::requested() {
            return Err(Failure::interrupted());
        }
        let sample = match self.first.take() {
            Some(sample) => Some(sample),
            None => self.pull()?,
        };
        self.listen();
        match &sample {
            Some(sample) => {
                let duration = sample.buffer().and_then(gst::BufferRef::duration).map_or(0, gst::ClockTime::nseconds);
                let end = running_time(sample).map(|time| time.saturating_add(duration as Nanos));
                self.reached = self.reached.max(end.unwrap_or_default());
            }
            None => self.tell_if_cut(),
        }
        Ok(sample)
    }

    /// The stream has ended: was that the end of the recording?
    fn tell_if_cut(&self) {
        if whole::missing(&self.path) == Missing::Nothing {
            return;
        }
        let reached = self.reached as f64 / SECOND as f64;
        let says = self.says.map(|says| says.nseconds() as f64 / SECOND as f64).filter(|says| *says > reached + 0.05);
        let whole = says.map_or(String::new(), |says| format!(" of {says:.1} s"));
        self.notices.warn("cut-off", format!("{}: cut off at {reached:.1} s{whole}", self.path.display()));
    }

    /// Takes what the pipeline says.
    fn listen(&mut self) {
        while let Some(message) = self.bus.pop() {
            match message.view() {
                gst::MessageView::Error(error) => {
                    self.failed = self.failed.take().or_else(|| Some(self.failure(error)))
                }
                gst::MessageView::Application(_) => self.failed = self.failed.take().or_else(|| Some(self.no_stream())),
                gst::MessageView::Element(_) => {
                    self.notices.take(&message, &format!("{}: ", self.path.display()));
                }
                _ => {}
            }
        }
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

    fn pull(&mut self) -> Result<Option<gst::Sample>> {
        let since = Instant::now();
        loop {
            if let Some(sample) = self.sink.try_pull_sample(POLL) {
                return Ok(Some(sample));
            }
            if termination::requested() {
                return Err(Failure::interrupted());
            }
            self.listen();
            if let Some(failure) = self.failed.take() {
                return Err(failure);
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
        let path = self.path.display();
        let kind = self.media.name();
        match self.offers.lock().refused.take() {
            Some(list) => Failure::input(format!("{path}: no {kind} track {}; it has {list}", self.track)),
            None => Failure::input(format!("{path}: no {kind} in this file")),
        }
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

/// What a decoder offers of one medium, and what was chosen of it.
#[derive(Default)]
pub struct Offered {
    streams: Vec<track::Offered>,
    choice: Option<track::Choice>,
    /// The streams as people read them.
    list: String,
    /// The list where none was what was asked for.
    refused: Option<String>,
}

type Offers = Arc<Mutex<Offered>>;

/// Links the stream of `media` that is asked for, of those that `decoder`, a decodebin, finds, to `head`. Where there is
/// none it posts an application message.
pub fn plug(decoder: &gst::Element, media: Media, track: &Track, head: &gst::Pad) -> Offers {
    leave_others_undecoded(decoder, media);
    let wanted = format!("{}/x-raw", media.name());
    let offers = Offers::default();
    let found = offers.clone();
    decoder.connect_pad_added(move |decoder, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        if caps.structure(0).is_some_and(|s| s.name() == wanted.as_str()) {
            found.lock().streams.push(track::Offered::of(decoder, pad));
        }
    });
    let (head, track, found) = (head.clone(), track.clone(), offers.clone());
    // Nothing flows before every stream is known.
    decoder.connect_no_more_pads(move |decoder| {
        let chosen = {
            let mut found = found.lock();
            found.list = track::list(&found.streams);
            match track::choose(&found.streams, &track) {
                Ok(choice) => {
                    let pad = found.streams[choice.place].pad.clone();
                    found.choice = Some(choice);
                    Some(pad)
                }
                Err(list) => {
                    found.refused = Some(list).filter(|list| !list.is_empty());
                    None
                }
            }
        };
        // Nobody listens any more where posting fails.
        let _ = match chosen {
            None => decoder.post_message(gst::message::Application::new(gst::Structure::new_empty("no-stream"))),
            Some(pad) if pad.link(&head).is_err() => {
                let cause = format!("the {} has a format or a rate that is not taken", media.name());
                decoder.post_message(gst::message::Error::new(gst::StreamError::Format, &cause))
            }
            Some(_) => Ok(()),
        };
    });
    offers
}

/// Whether anything is heard in a sound track of a file, from 0 on.
fn sounds(path: &Path, place: usize) -> bool {
    let caps = gst::Caps::builder("audio/x-raw").field("format", "F32LE").field("layout", "interleaved").build();
    let converter = Media::Audio.converter();
    let track = Track::Number(place + 1);
    let Ok(mut reader) = Reader::start_as(path, Media::Audio, &track, &converter, &caps, &Notices::unheard()) else {
        return false;
    };
    while let Ok(Some(sample)) = reader.next_sample() {
        let map = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
        let loud = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes).abs() > HEARD;
        if map.is_some_and(|map| map.as_chunks::<4>().0.iter().any(loud)) {
            return true;
        }
    }
    false
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
                Media::Video | Media::Alpha => klass.contains("Audio"),
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
    if let Some(pictures) = Sequence::of(path) {
        return pictures?.files().take(1).try_for_each(|first| readable(&first));
    }
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
    if whole::missing(path) == Missing::Index {
        return Err(failure("its index is missing: the recording was cut off".into()));
    }
    // Reading takes from a pipe what the decoder needs.
    match meta.is_file().then(|| animation(file)).flatten() {
        Some(name) => {
            Err(failure(format!("is an {name}, which is not taken: convert it to a video, as with `ffmpeg -i`")))
        }
        None => Ok(()),
    }
}
