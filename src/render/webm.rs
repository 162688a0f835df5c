//! A WebM file with transparency: VP9 in two streams, colours and alpha, of which the second rides on the blocks of the first (WebM container
//! guidelines, "Alpha channel"; RFC 9559, 5.1.3.5.2). GStreamer 1.22's muxer has no block additions.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};
use gst_video::{VideoColorMatrix, VideoColorRange, VideoInfo};
use parking_lot::Mutex;

use crate::error::{Failure, Result};

/// Names of the appsinks that it is fed by.
pub const COLOR: &str = "color-out";
pub const ALPHA: &str = "alpha-out";
pub const SOUND: &str = "sound-out";

/// Longest cluster, in ms: a block's time in it has 16 bits.
const CLUSTER: u64 = 5000;
/// Time that a decoder of Opus needs to be right after a seek, in ns (RFC 7845, 4.6).
const PRE_ROLL: u64 = 80_000_000;
/// What precedes every file: EBML's version 1, WebM's versions 4 and 2.
const DOC_TYPE: &[u8] = b"webm";

/// Identifiers of elements (RFC 9559, 5.1).
mod id {
    pub const EBML: u32 = 0x1a45_dfa3;
    pub const DOC_TYPE: u32 = 0x4282;
    pub const DOC_VERSION: u32 = 0x4287;
    pub const DOC_READ_VERSION: u32 = 0x4285;
    pub const SEGMENT: u32 = 0x1853_8067;
    pub const SEEK_HEAD: u32 = 0x114d_9b74;
    pub const SEEK: u32 = 0x4dbb;
    pub const SEEK_ID: u32 = 0x53ab;
    pub const SEEK_POSITION: u32 = 0x53ac;
    pub const INFO: u32 = 0x1549_a966;
    pub const SCALE: u32 = 0x2a_d7b1;
    pub const DURATION: u32 = 0x4489;
    pub const MUXER: u32 = 0x4d80;
    pub const WRITER: u32 = 0x5741;
    pub const TRACKS: u32 = 0x1654_ae6b;
    pub const TRACK: u32 = 0xae;
    pub const NUMBER: u32 = 0xd7;
    pub const UID: u32 = 0x73c5;
    pub const KIND: u32 = 0x83;
    pub const FRAME: u32 = 0x23_e383;
    pub const LACING: u32 = 0x9c;
    pub const CODEC: u32 = 0x86;
    pub const CODEC_PRIVATE: u32 = 0x63a2;
    pub const CODEC_DELAY: u32 = 0x56aa;
    pub const PRE_ROLL: u32 = 0x56bb;
    pub const MOST_ADDITIONS: u32 = 0x55ee;
    pub const VIDEO: u32 = 0xe0;
    pub const WIDTH: u32 = 0xb0;
    pub const HEIGHT: u32 = 0xba;
    pub const ALPHA_MODE: u32 = 0x53c0;
    pub const COLOUR: u32 = 0x55b0;
    pub const MATRIX: u32 = 0x55b1;
    pub const RANGE: u32 = 0x55b9;
    pub const AUDIO: u32 = 0xe1;
    pub const RATE: u32 = 0xb5;
    pub const CHANNELS: u32 = 0x9f;
    pub const CLUSTER: u32 = 0x1f43_b675;
    pub const TIME: u32 = 0xe7;
    pub const SIMPLE_BLOCK: u32 = 0xa3;
    pub const GROUP: u32 = 0xa0;
    pub const BLOCK: u32 = 0xa1;
    pub const REFERENCE: u32 = 0xfb;
    pub const ADDITIONS: u32 = 0x75a1;
    pub const MORE: u32 = 0xa6;
    pub const ADD_ID: u32 = 0xee;
    pub const ADDITIONAL: u32 = 0xa5;
    pub const CUES: u32 = 0x1c53_bb6b;
    pub const CUE: u32 = 0xbb;
    pub const CUE_TIME: u32 = 0xb3;
    pub const CUE_PLACES: u32 = 0xb7;
    pub const CUE_TRACK: u32 = 0xf7;
    pub const CUE_CLUSTER: u32 = 0xf1;
}

/// An element around `body`.
fn element(id: u32, body: &[u8]) -> Vec<u8> {
    let mut out = identifier(id);
    out.extend(size(body.len() as u64));
    out.extend(body);
    out
}

fn identifier(id: u32) -> Vec<u8> {
    id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// A size in eight bytes (RFC 8794, section 4).
fn size(n: u64) -> [u8; 8] {
    (n | 1 << 56).to_be_bytes()
}

/// An element with a number in eight bytes.
fn number(id: u32, n: u64) -> Vec<u8> {
    element(id, &n.to_be_bytes())
}

fn float(id: u32, x: f64) -> Vec<u8> {
    element(id, &x.to_be_bytes())
}

/// One encoded frame or stretch of sound.
struct Packet {
    /// In ms.
    time: u64,
    key: bool,
    data: Vec<u8>,
}

/// What is known of the streams once their first packets have come.
#[derive(Default)]
struct Formats {
    video: Option<VideoInfo>,
    /// OpusHead (RFC 7845, 5.1).
    opus: Option<Vec<u8>>,
}

/// The file and what waits to be written into it.
struct Muxer {
    file: BufWriter<File>,
    formats: Formats,
    /// Colours and alpha of the same frames, in their order.
    colors: VecDeque<Packet>,
    alphas: VecDeque<Packet>,
    sounds: VecDeque<Packet>,
    ended: [bool; 3],
    /// Bytes written, and where the segment's content begins once it does.
    written: u64,
    segment: Option<u64>,
    cluster: Option<(u64, Vec<u8>)>,
    last_frame: u64,
    cues: Vec<(u64, u64)>,
    failed: Option<String>,
}

/// Places within the segment's content that [`head`] leaves to be filled in.
struct Places {
    cues: u64,
}

/// Writes what three appsinks get into a file.
#[derive(Clone)]
pub struct Webm(Arc<Mutex<Muxer>>);

impl Webm {
    /// Writes to `path` what the appsinks of `pipeline` that have the names above get.
    pub fn attach(pipeline: &gst::Pipeline, path: &Path) -> Result<Self> {
        let failure = |e: io::Error| Failure::output(format!("{}: {e}", path.display()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(failure)?;
        let muxer = Self(Arc::new(Mutex::new(Muxer::new(file))));
        for (stream, name) in [COLOR, ALPHA, SOUND].into_iter().enumerate() {
            let sink = pipeline.by_name(name).and_then(|sink| sink.downcast::<AppSink>().ok());
            let sink = sink.ok_or_else(|| Failure::run(format!("no appsink `{name}`")))?;
            let (packets, end) = (muxer.clone(), muxer.clone());
            let callbacks = AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    packets.0.lock().take(stream, &sample).map_err(|_| gst::FlowError::Error)?;
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| {
                    let mut muxer = end.0.lock();
                    muxer.ended[stream] = true;
                    // What it refuses, closing it tells.
                    let _ = muxer.drain();
                });
            sink.set_callbacks(callbacks.build());
        }
        Ok(muxer)
    }

    /// Writes what is left and the index, once all streams have ended.
    pub fn close(&self) -> Result<()> {
        let mut muxer = self.0.lock();
        muxer.ended = [true; 3];
        muxer.close().map_err(|e| Failure::output(format!("the WebM file cannot be written: {e}")))
    }

    /// Why packets were refused, where they were.
    pub fn failure(&self) -> Option<String> {
        self.0.lock().failed.clone()
    }
}

impl Muxer {
    fn new(file: File) -> Self {
        Self {
            file: BufWriter::new(file),
            formats: Formats::default(),
            colors: VecDeque::new(),
            alphas: VecDeque::new(),
            sounds: VecDeque::new(),
            ended: [false; 3],
            written: 0,
            segment: None,
            cluster: None,
            last_frame: 0,
            cues: Vec::new(),
            failed: None,
        }
    }

    /// Takes a packet of a stream: 0 colours, 1 alpha, 2 sound.
    fn take(&mut self, stream: usize, sample: &gst::Sample) -> io::Result<()> {
        let caps = sample.caps().and_then(|caps| caps.structure(0));
        if stream == 2 && self.formats.opus.is_none() {
            let head = caps.and_then(|caps| caps.get::<gst::ArrayRef>("streamheader").ok());
            let head = head.and_then(|list| list.as_slice().first()?.get::<gst::Buffer>().ok());
            self.formats.opus = head.and_then(|head| Some(head.map_readable().ok()?.to_vec()));
        }
        if stream == 0 && self.formats.video.is_none() {
            self.formats.video = sample.caps().and_then(picture);
        }
        let packet = || {
            let buffer = sample.buffer()?;
            let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
            let time = segment.to_running_time(buffer.pts()?)?;
            let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            Some(Packet {
                time: (time.nseconds() + 500_000) / 1_000_000,
                key,
                data: buffer.map_readable().ok()?.to_vec(),
            })
        };
        let Some(packet) = packet() else { return Ok(()) };
        [&mut self.colors, &mut self.alphas, &mut self.sounds][stream].push_back(packet);
        let drained = self.drain();
        if let Err(error) = &drained {
            self.failed.get_or_insert_with(|| error.to_string());
        }
        drained
    }

    /// Writes what can be written in the order of time.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let frame = self.colors.front().filter(|_| !self.alphas.is_empty()).map(|packet| packet.time);
            let sound = self.sounds.front().map(|packet| packet.time);
            let frames_end = self.ended[0] && self.ended[1];
            match (frame, sound) {
                (Some(frame), Some(sound)) if sound < frame => self.write_sound()?,
                (Some(_), Some(_)) => self.write_frame()?,
                (Some(_), None) if self.ended[2] => self.write_frame()?,
                (None, Some(_)) if frames_end => self.write_sound()?,
                _ => return Ok(()),
            }
        }
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let (Some(color), Some(alpha)) = (self.colors.pop_front(), self.alphas.pop_front()) else { return Ok(()) };
        let key = color.key && alpha.key;
        let start = self.cluster_for(color.time, key)?;
        let mut group = element(id::BLOCK, &block(1, color.time - start, 0, &color.data));
        let more = [number(id::ADD_ID, 1), element(id::ADDITIONAL, &alpha.data)].concat();
        group.extend(element(id::ADDITIONS, &element(id::MORE, &more)));
        if !key {
            let before = self.last_frame as i64 - color.time as i64;
            group.extend(element(id::REFERENCE, &before.to_be_bytes()));
        }
        self.last_frame = color.time;
        self.append(&element(id::GROUP, &group));
        Ok(())
    }

    fn write_sound(&mut self) -> io::Result<()> {
        let Some(packet) = self.sounds.pop_front() else { return Ok(()) };
        let start = self.cluster_for(packet.time, false)?;
        self.append(&element(id::SIMPLE_BLOCK, &block(2, packet.time - start, 0x80, &packet.data)));
        Ok(())
    }

    /// The start of the cluster that a packet of `time` goes into; a key frame begins one.
    fn cluster_for(&mut self, time: u64, key: bool) -> io::Result<u64> {
        if self.segment.is_none() {
            let head = head(&self.formats)?;
            self.segment = Some(head.1);
            self.put(&head.0)?;
        }
        match &self.cluster {
            Some((start, _)) if !key && time.saturating_sub(*start) < CLUSTER && time >= *start => Ok(*start),
            _ => {
                self.end_cluster()?;
                let place = self.written - self.segment.unwrap_or(0);
                if key {
                    self.cues.push((time, place));
                }
                self.cluster = Some((time, number(id::TIME, time)));
                Ok(time)
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if let Some((_, cluster)) = &mut self.cluster {
            cluster.extend(bytes);
        }
    }

    fn end_cluster(&mut self) -> io::Result<()> {
        match self.cluster.take() {
            Some((_, content)) => self.put(&element(id::CLUSTER, &content)),
            None => Ok(()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn close(&mut self) -> io::Result<()> {
        self.drain()?;
        self.end_cluster()?;
        let Some(segment) = self.segment else { return Err(io::Error::other("no frame has come")) };
        let cues = self.written - segment;
        let cue = |(time, place): &(u64, u64)| {
            let place = [number(id::CUE_TRACK, 1), number(id::CUE_CLUSTER, *place)].concat();
            element(id::CUE, &[number(id::CUE_TIME, *time), element(id::CUE_PLACES, &place)].concat())
        };
        let index: Vec<u8> = self.cues.iter().flat_map(cue).collect();
        self.put(&element(id::CUES, &index))?;
        let end = self.written;
        self.file.seek(SeekFrom::Start(segment - 8))?;
        self.file.write_all(&size(end - segment))?;
        self.file.seek(SeekFrom::Start(segment + Places::of(&self.formats)?.cues))?;
        self.file.write_all(&cues.to_be_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

impl Places {
    fn of(formats: &Formats) -> io::Result<Self> {
        Ok(Self { cues: seek_head(&formats.content()?).1 })
    }
}

impl Formats {
    /// The information and the tracks.
    fn content(&self) -> io::Result<[Vec<u8>; 2]> {
        let refuse =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the {what} does not say its format"));
        let video = self.video.as_ref().ok_or_else(|| refuse("video"))?;
        let opus = self.opus.as_ref().filter(|opus| opus.len() >= 19).ok_or_else(|| refuse("sound"))?;
        let info = [
            number(id::SCALE, 1_000_000),
            float(id::DURATION, 0.0),
            element(id::MUXER, b"lipstream"),
            element(id::WRITER, b"lipstream"),
        ];
        let colour = [number(id::MATRIX, matrix(video)), number(id::RANGE, range(video))].concat();
        let picture = [
            number(id::WIDTH, video.width().into()),
            number(id::HEIGHT, video.height().into()),
            number(id::ALPHA_MODE, 1),
            element(id::COLOUR, &colour),
        ];
        let of_video = [
            number(id::NUMBER, 1),
            number(id::UID, 1),
            number(id::KIND, 1),
            number(id::LACING, 0),
            element(id::CODEC, b"V_VP9"),
            number(id::MOST_ADDITIONS, 1),
            element(id::VIDEO, &picture.concat()),
            frame_duration(video),
        ];
        let skip = u64::from(u16::from_le_bytes([opus[10], opus[11]]));
        let sound = [float(id::RATE, 48_000.0), number(id::CHANNELS, opus[9].into())];
        let of_sound = [
            number(id::NUMBER, 2),
            number(id::UID, 2),
            number(id::KIND, 2),
            number(id::LACING, 0),
            element(id::CODEC, b"A_OPUS"),
            element(id::CODEC_PRIVATE, opus),
            number(id::CODEC_DELAY, skip * 1_000_000_000 / 48_000),
            number(id::PRE_ROLL, PRE_ROLL),
            element(id::AUDIO, &sound.concat()),
        ];
        let tracks = [element(id::TRACK, &of_video.concat()), element(id::TRACK, &of_sound.concat())].concat();
        Ok([element(id::INFO, &info.concat()), element(id::TRACKS, &tracks)])
    }
}

/// What a file begins with, and where in it the segment's content does.
fn head(formats: &Formats) -> io::Result<(Vec<u8>, u64)> {
    let content = formats.content()?;
    let versions = [element(id::DOC_TYPE, DOC_TYPE), number(id::DOC_VERSION, 4), number(id::DOC_READ_VERSION, 2)];
    let mut out = element(id::EBML, &versions.concat());
    out.extend(identifier(id::SEGMENT));
    out.extend(size(0));
    let segment = out.len() as u64;
    out.extend(seek_head(&content).0);
    out.extend(content.concat());
    Ok((out, segment))
}

/// The places of information, tracks and index; and the place of that of the index.
fn seek_head([info, tracks]: &[Vec<u8>; 2]) -> (Vec<u8>, u64) {
    let entry = |id: u32, place: u64| {
        element(id::SEEK, &[element(id::SEEK_ID, &id.to_be_bytes()), number(id::SEEK_POSITION, place)].concat())
    };
    let whole = |place: u64| {
        let next = place + info.len() as u64;
        let list = [entry(id::INFO, place), entry(id::TRACKS, next), entry(id::CUES, next + tracks.len() as u64)];
        element(id::SEEK_HEAD, &list.concat())
    };
    // Its length does not depend on what it says.
    let length = whole(0).len() as u64;
    (whole(length), length - 8)
}

/// A block: its track, its time in the cluster, its flags.
fn block(track: u8, time: u64, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | track];
    out.extend((time as i16).to_be_bytes());
    out.push(flags);
    out.extend(data);
    out
}

/// What caps of encoded video say of its pictures.
fn picture(caps: &gst::CapsRef) -> Option<VideoInfo> {
    let caps = caps.structure(0)?;
    let side = |name| caps.get::<i32>(name).ok().and_then(|n| u32::try_from(n).ok());
    let builder = VideoInfo::builder(gst_video::VideoFormat::I420, side("width")?, side("height")?);
    let builder = builder.fps_if_some(caps.get::<gst::Fraction>("framerate").ok());
    match caps.get::<String>("colorimetry").ok().and_then(|text| text.parse().ok()) {
        Some(colorimetry) => builder.colorimetry(&colorimetry).build().ok(),
        None => builder.build().ok(),
    }
}

/// How long a frame is shown where all are alike; nothing otherwise.
fn frame_duration(info: &VideoInfo) -> Vec<u8> {
    let (n, d) = (info.fps().numer(), info.fps().denom());
    match (u64::try_from(n), u64::try_from(d)) {
        (Ok(n), Ok(d)) if n > 0 && d > 0 => number(id::FRAME, 1_000_000_000 * d / n),
        _ => Vec::new(),
    }
}

/// Numbers of ITU-T H.273, table 4.
fn matrix(info: &VideoInfo) -> u64 {
    match info.colorimetry().matrix() {
        VideoColorMatrix::Bt709 => 1,
        VideoColorMatrix::Bt2020 => 9,
        _ => 6,
    }
}

fn range(info: &VideoInfo) -> u64 {
    if info.colorimetry().range() == VideoColorRange::Range0_255 { 2 } else { 1 }
}
