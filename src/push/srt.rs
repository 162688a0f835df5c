//! A push by SRT: H.264 and AAC in an MPEG transport stream.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gst::prelude::*;
use gst_app::{AppSrc, AppStreamType};
use parking_lot::Mutex;

use super::{Feed, Settings};
use crate::{
    address::Checked,
    link::Report,
    live::{Codec, Packet, RATE},
};

/// Data that may wait for the network; beyond it the peer takes too little.
const QUEUE_BYTES: u64 = 4 << 20;
/// How long sound may take to come after the first picture before the stream goes without.
const SOUND: Duration = Duration::from_secs(2);

/// Pushes until the connection breaks; `Ok` at the end of the session.
pub(super) async fn push(checked: &Checked, _: &Settings, mut feed: Feed, report: &Report) -> Result<(), String> {
    let mut held = Vec::new();
    // The transport stream's table lists its streams once, so sound is waited for.
    let header = {
        let gather = async {
            while let Some(packet) = feed.next().await {
                let sound = packet.codec == Codec::Aac;
                held.push(packet);
                if sound && feed.header().is_some() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(SOUND, gather).await;
        feed.header()
    };
    let Some(base) = held.iter().find(|packet| packet.codec.is_video()).map(|packet| packet.pts) else { return Ok(()) };
    let uri = address(checked)?;
    let stream = tokio::task::spawn_blocking(move || Stream::open(&uri, header, base))
        .await
        .map_err(|error| error.to_string())??;
    let mut ended = None;
    let mut connected = false;
    let mut look = tokio::time::interval(Duration::from_millis(200));
    for packet in held {
        stream.push(&packet)?;
    }
    while ended.is_none() {
        tokio::select! {
            packet = feed.next() => match packet {
                Some(packet) => {
                    if let Err(error) = stream.push(&packet) {
                        ended = Some(Err(error));
                    }
                }
                None => ended = Some(Ok(())),
            },
            _ = look.tick() => {
                if let Some(error) = stream.failure.lock().clone() {
                    ended = Some(Err(error));
                } else if !connected && stream.sent() > 0 {
                    connected = true;
                    report.connected();
                }
            }
        }
    }
    ended.unwrap_or(Ok(()))
}

/// The URL with the checked address; options other than SRT's harmless ones are left out.
fn address(checked: &Checked) -> Result<String, String> {
    const OPTIONS: [&str; 6] = ["streamid", "passphrase", "pbkeylen", "latency", "mode", "transtype"];
    let mut url = checked.pinned();
    let options: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| OPTIONS.contains(&&**name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    if options.iter().any(|(name, value)| name == "mode" && value != "caller") {
        return Err("an SRT push calls: leave out `mode`, or set it to `caller`".into());
    }
    if url.port().is_none() && url.set_port(Some(checked.port)).is_err() {
        return Err("the URL has no place for a port".into());
    }
    url.set_query(None);
    if !options.is_empty() {
        url.query_pairs_mut().extend_pairs(options);
    }
    Ok(url.into())
}

struct Stream {
    pipeline: gst::Pipeline,
    video: AppSrc,
    audio: Option<AppSrc>,
    sink: gst::Element,
    failure: Arc<Mutex<Option<String>>>,
    base: Duration,
}

impl Stream {
    fn open(uri: &str, header: Option<Bytes>, base: Duration) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("SRT: {error}");
        let pipeline = gst::Pipeline::new();
        let make = |name: &str| gst::ElementFactory::make(name).build().map_err(|error| failed(&error.message));
        let (parse, mux, sink) = (make("h264parse")?, make("mpegtsmux")?, make("srtsink")?);
        // Seven packets of 188 bytes fill a datagram of SRT.
        mux.set_property("alignment", 7i32);
        parse.set_property("config-interval", -1i32);
        sink.set_property("uri", uri);
        sink.set_property("sync", false);
        sink.set_property("async", false);
        // A push reconnects with a new stream, which begins at a key frame.
        sink.set_property("auto-reconnect", false);
        let video = source(
            &gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au").build(),
        );
        pipeline.add_many([video.upcast_ref(), &parse, &mux, &sink]).map_err(|error| failed(&error.message))?;
        gst::Element::link_many([video.upcast_ref(), &parse, &mux, &sink]).map_err(|error| failed(&error.message))?;
        let audio = match header {
            Some(header) => {
                let caps = gst::Caps::builder("audio/mpeg")
                    .field("mpegversion", 4)
                    .field("stream-format", "raw")
                    .field("rate", RATE as i32)
                    .field("channels", 2)
                    .field("codec_data", gst::Buffer::from_slice(header))
                    .build();
                let (audio, parse) = (source(&caps), make("aacparse")?);
                pipeline.add_many([audio.upcast_ref(), &parse]).map_err(|error| failed(&error.message))?;
                gst::Element::link_many([audio.upcast_ref(), &parse, &mux]).map_err(|error| failed(&error.message))?;
                Some(audio)
            }
            None => None,
        };
        let failure = Arc::new(Mutex::new(None));
        let seen = failure.clone();
        let bus = pipeline.bus().expect("a pipeline has a bus");
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                seen.lock().get_or_insert_with(|| crate::media::describe(error));
            }
            gst::BusSyncReply::Drop
        });
        let stream = Self { pipeline, video, audio, sink, failure, base };
        stream
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|error| stream.failure.lock().clone().unwrap_or_else(|| failed(&error)))?;
        Ok(stream)
    }

    fn push(&self, packet: &Packet) -> Result<(), String> {
        let source = match packet.codec {
            Codec::H264 => Some(&self.video),
            Codec::Aac => self.audio.as_ref(),
            _ => None,
        };
        let (Some(source), Some(pts)) = (source, packet.pts.checked_sub(self.base)) else { return Ok(()) };
        if source.current_level_bytes() > QUEUE_BYTES {
            return Err("SRT: the peer takes less than is sent".into());
        }
        let mut buffer = gst::Buffer::from_slice(packet.data.clone());
        let own = buffer.get_mut().expect("a buffer just made has one owner");
        let pts = gst::ClockTime::try_from(pts).ok();
        own.set_pts(pts);
        own.set_dts(pts);
        if !packet.key {
            own.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        source
            .push_buffer(buffer)
            .map(drop)
            .map_err(|error| self.failure.lock().clone().unwrap_or_else(|| format!("SRT: {error}")))
    }

    /// Bytes that the peer was sent.
    fn sent(&self) -> u64 {
        let stats = self.sink.property::<gst::Structure>("stats");
        stats.get::<u64>("bytes-sent-total").or_else(|_| stats.get::<u64>("bytes-sent")).unwrap_or(0)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // srtsink may wait for its network when it stops, so not on a thread of the runtime.
        let pipeline = self.pipeline.clone();
        std::thread::spawn(move || {
            let _ = pipeline.set_state(gst::State::Null);
        });
    }
}

fn source(caps: &gst::Caps) -> AppSrc {
    AppSrc::builder()
        .caps(caps)
        .format(gst::Format::Time)
        .stream_type(AppStreamType::Stream)
        .is_live(true)
        .max_bytes(QUEUE_BYTES)
        .build()
}
