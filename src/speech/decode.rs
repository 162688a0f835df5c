//! Speech that is decoded while it is uploaded.
//!
//! ```text
//! body ─► appsrc ─► decodebin ─► audioconvert ─► audioresample ─► appsink ─► channel ─► Writer
//! ```
//!
//! Every step holds a fixed amount and waits for the next one, so that an upload of any length takes the same memory:
//! what the queue cannot take yet stays with the client.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks, AppSrc};
use lipstream_engines::audio::Mono;
use serde::Serialize;
use tokio::{sync::mpsc, time};
use utoipa::ToSchema;

use super::{
    format::Format,
    joined::Joined,
    queue::{Cut, Full, Queue, RATE, Writer},
};
use crate::media::{
    self,
    timeline::{Timeline, running_time},
};

/// Bytes of the body that wait to be decoded.
const AHEAD: u64 = 256 << 10;
/// Pieces of decoded sound that wait for the queue; about 20 ms each.
const PIECES: usize = 16;
/// Longest silence of a client in the middle of its body.
const BODY: Duration = Duration::from_secs(20);
/// Longest time that a decoder may take for what it has.
const DECODING: Duration = Duration::from_secs(10);
/// Longest time that a full queue waits for a session that takes nothing.
const UNTAKEN: Duration = Duration::from_secs(30);
/// Most speech in one body.
const MOST: Duration = Duration::from_secs(2 * 3600);
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// Speech that has been queued.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Spoken {
    pub utterance: String,
    /// Its length.
    pub seconds: f64,
}

/// Why a body was not, or not wholly, queued.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The media type is not one of speech (415).
    #[error("{0}")]
    Unsupported(String),
    /// The body is not what it should be (422).
    #[error("{0}")]
    Invalid(String),
    /// The client's connection failed (400).
    #[error("the body broke off: {0}")]
    Body(String),
    /// The client stopped sending (408).
    #[error("nothing more of the body came for {} s", BODY.as_secs())]
    Timeout,
    /// The speech was interrupted (409).
    #[error("{Cut}")]
    Cut,
    /// The session does not run and its queue is full (409).
    #[error("the queue is full and the session takes nothing: watch it, or make it always on")]
    Untaken,
    /// Too many utterances wait (503).
    #[error("{0}")]
    Full(#[from] Full),
    /// This machine cannot decode (500).
    #[error("{0}")]
    Failed(String),
}

impl From<Cut> for Error {
    fn from(_: Cut) -> Self {
        Self::Cut
    }
}

/// Decodes `body` of a media type such as `audio/wav` and queues it as one utterance. Speaking begins while the body
/// still comes; returns when all of it is queued.
pub async fn stream<E: std::fmt::Display>(
    content_type: &str,
    body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
    queue: &Arc<Queue>,
    utterance: &str,
) -> Result<Spoken, Error> {
    let format = Format::of(content_type).map_err(Error::Unsupported)?;
    let mut writer = queue.writer(utterance)?;
    let mut decoder = Decoder::new(format).map_err(|e| Error::Failed(e.to_string()))?;
    let source = decoder.source.clone();
    let feed = feed(body, &source, format);
    tokio::pin!(feed);
    let (mut samples, mut fed) = (0, None);
    loop {
        let deadline = fed.map(|at| time::Instant::from_std(at + DECODING));
        let silent = async move {
            match deadline {
                Some(at) => time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = &mut feed, if fed.is_none() => {
                done?;
                fed = Some(Instant::now());
            }
            piece = decoder.pieces.recv() => match piece {
                Some(Piece::Samples(piece)) => {
                    samples += piece.len() as u64;
                    write(&mut writer, queue, &piece, &mut feed, &mut fed).await?;
                    // The decoder's time counts from when it may work again.
                    fed = fed.map(|_| Instant::now());
                    if samples > MOST.as_secs() * u64::from(RATE) {
                        return Err(Error::Invalid(format!("more than {} h of speech: split it", MOST.as_secs() / 3600)));
                    }
                }
                Some(Piece::End) | None => break,
            },
            // After the pieces: what was decoded before it failed is spoken.
            Some(cause) = decoder.failures.recv() => return Err(invalid(samples, &cause)),
            () = silent => return Err(invalid(samples, "the decoder gives no more")),
        }
        if writer.is_cut() {
            return Err(Error::Cut);
        }
    }
    if samples == 0 {
        return Err(invalid(0, "there is no sound in it"));
    }
    Ok(Spoken { utterance: utterance.to_owned(), seconds: seconds(samples) })
}

fn seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(RATE)
}

fn invalid(samples: u64, cause: &str) -> Error {
    Error::Invalid(match samples {
        0 => format!("the body cannot be decoded as speech: {cause}; send WAV, MP3, Ogg, FLAC, M4A, WebM or raw PCM"),
        _ => format!("the body is broken after {:.2} s of speech, which are spoken: {cause}", seconds(samples)),
    })
}

/// Writes a piece, feeding on meanwhile.
async fn write(
    writer: &mut Writer,
    queue: &Arc<Queue>,
    piece: &[f32],
    feed: &mut (impl Future<Output = Result<(), Error>> + Unpin),
    fed: &mut Option<Instant>,
) -> Result<(), Error> {
    let untaken = untaken(queue);
    let writing = writer.write(piece);
    tokio::pin!(untaken, writing);
    loop {
        tokio::select! {
            written = &mut writing => return Ok(written?),
            done = &mut *feed, if fed.is_none() => {
                done?;
                *fed = Some(Instant::now());
            }
            () = &mut untaken => return Err(Error::Untaken),
        }
    }
}

/// Ready when nobody has taken anything for too long.
async fn untaken(queue: &Arc<Queue>) {
    let since = Instant::now();
    loop {
        time::sleep(Duration::from_secs(1)).await;
        let touched = queue.untouched().is_some_and(|ago| ago < UNTAKEN);
        if !touched && since.elapsed() > UNTAKEN {
            return;
        }
    }
}

/// Pushes the body into the decoder at the decoder's pace.
async fn feed<E: std::fmt::Display>(
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    source: &AppSrc,
    format: Format,
) -> Result<(), Error> {
    let mut rest = BytesMut::new();
    let mut joined = (format == Format::Coded).then(Joined::default);
    loop {
        let next = time::timeout(BODY, body.next()).await.map_err(|_| Error::Timeout)?;
        let last = next.is_none();
        let chunk = next.transpose().map_err(|e| Error::Body(e.to_string()))?.unwrap_or_default();
        match &mut joined {
            Some(joined) => {
                rest.extend_from_slice(&joined.push(&chunk).map_err(Error::Invalid)?);
                if last {
                    rest.extend_from_slice(&joined.finish());
                }
            }
            None => rest.extend_from_slice(&chunk),
        }
        let whole = rest.len() / format.frame_bytes() * format.frame_bytes();
        let mut whole = rest.split_to(whole).freeze();
        while !whole.is_empty() {
            while source.current_level_bytes() >= AHEAD {
                time::sleep(POLL).await;
            }
            let piece =
                whole.split_to(whole.len().min(AHEAD as usize / 4 / format.frame_bytes() * format.frame_bytes()));
            if source.push_buffer(gst::Buffer::from_slice(piece)).is_err() {
                // The decoder has ended or failed, and says so by itself.
                return Ok(());
            }
        }
        if last {
            break;
        }
    }
    // As above.
    let _ = source.end_of_stream();
    Ok(())
}

enum Piece {
    Samples(Vec<f32>),
    End,
}

/// The pipeline; it goes away with this.
struct Decoder {
    pipeline: gst::Pipeline,
    source: AppSrc,
    pieces: mpsc::Receiver<Piece>,
    failures: mpsc::UnboundedReceiver<String>,
}

impl Decoder {
    fn new(format: Format) -> crate::error::Result<Self> {
        let pipeline = gst::Pipeline::new();
        let source = AppSrc::builder().max_bytes(AHEAD).build();
        let wanted = gst::Caps::builder("audio/x-raw")
            .field("format", "F32LE")
            .field("layout", "interleaved")
            .field("rate", RATE as i32)
            .build();
        let sink = AppSink::builder().caps(&wanted).sync(false).max_buffers(4).build();
        let convert =
            gst::parse::bin_from_description(&format!("{} ! audioconvert ! audioresample", media::SOUND), true)
                .map_err(|e| crate::error::Failure::run(format!("{e}; `lipstream doctor` says what is missing")))?;
        pipeline.add_many([source.upcast_ref(), convert.upcast_ref(), sink.upcast_ref::<gst::Element>()])?;
        convert.link(&sink)?;
        let (sender, pieces) = mpsc::channel(PIECES);
        match format {
            Format::Coded => {
                let decoder = gst::ElementFactory::make("decodebin").build()?;
                // The head of the first of several files knows nothing of the others' sound.
                pipeline.connect_deep_element_added(|_, _, element| {
                    if element.type_().name() == "GstWavParse" {
                        element.set_property("ignore-length", true);
                    }
                });
                pipeline.add(&decoder)?;
                source.link(&decoder)?;
                let head = convert.static_pad("sink").expect("a bin made with pads");
                media::plug(&decoder, media::Media::Audio, &media::Track::Default, &head);
            }
            Format::Raw { rate, channels, big_endian } => {
                let mut caps = gst::Caps::builder("audio/x-raw")
                    .field("format", if big_endian { "S16BE" } else { "S16LE" })
                    .field("layout", "interleaved")
                    .field("rate", rate as i32)
                    .field("channels", channels as i32);
                if channels > 2 {
                    // Positions are not known; without them the channels are mixed evenly.
                    caps = caps.field("channel-mask", gst::Bitmask::new(0));
                }
                source.set_caps(Some(&caps.build()));
                source.set_format(gst::Format::Time);
                source.set_do_timestamp(false);
                source.link(&convert)?;
            }
        }
        callbacks(&sink, &sender);
        let failures = listen(&pipeline);
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self { pipeline, source, pieces, failures })
    }
}

/// Sends what is decoded, waiting while the channel is full; when nobody listens any more the stream ends.
fn callbacks(sink: &AppSink, sender: &mpsc::Sender<Piece>) {
    let (samples, end) = (sender.clone(), sender.clone());
    let mut mono = Mono::new(RATE);
    let mut timeline = None;
    sink.set_callbacks(
        AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
                let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
                let channels = sample.caps().and_then(|caps| gst_audio::AudioInfo::from_caps(caps).ok());
                let channels = channels.ok_or(gst::FlowError::NotNegotiated)?.channels() as usize;
                let piece = map.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                let piece = mono.mix(piece, channels);
                let stamp = running_time(&sample);
                let timeline = timeline.get_or_insert_with(|| Timeline::new(RATE, stamp.unwrap_or_default()));
                let mut place = timeline.place(stamp, piece.len() as u64);
                while place.silence > 0 {
                    let count = place.silence.min(u64::from(RATE) / 10);
                    place.silence -= count;
                    let quiet = Piece::Samples(vec![0.0; count as usize]);
                    samples.blocking_send(quiet).map_err(|_| gst::FlowError::Eos)?;
                }
                let piece = Piece::Samples(piece[place.skipped as usize..].to_vec());
                samples.blocking_send(piece).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                // Nobody listens any more: the end is no news.
                let _ = end.blocking_send(Piece::End);
            })
            .build(),
    );
}

/// What the pipeline fails with.
fn listen(pipeline: &gst::Pipeline) -> mpsc::UnboundedReceiver<String> {
    let (sender, failures) = mpsc::unbounded_channel();
    pipeline.bus().expect("a pipeline has a bus").set_sync_handler(move |_, message| {
        let cause = match message.view() {
            gst::MessageView::Error(error) => Some(media::describe(error)),
            gst::MessageView::Application(_) => Some("there is no sound in it".to_owned()),
            _ => None,
        };
        if let Some(cause) = cause {
            // Nobody listens any more where this fails.
            let _ = sender.send(cause);
        }
        gst::BusSyncReply::Drop
    });
    failures
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // Stopping waits for threads, which this one, a worker of the runtime, must not.
        self.pipeline.call_async(|pipeline| {
            // Going to NULL does not fail; what it frees is gone either way.
            let _ = pipeline.set_state(gst::State::Null);
        });
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
