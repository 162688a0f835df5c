//! From an offer to an answer.

use std::{
    collections::BTreeSet,
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use str0m::{
    Candidate, Output, Rtc, RtcConfig,
    bwe::Bitrate,
    change::SdpOffer,
    format::{Codec as Format, PayloadParams},
    media::{Mid, Pt},
    rtp::{Extension, ExtensionMap},
};

use super::{
    Settings, codecs, dtls,
    filter::with_refusals,
    offer::{Offer, Want},
    sockets::Sockets,
};
use crate::{http::Problem, live::Codec};

/// RTP packets of sound and of video that can be sent again, about a second of each at 2 Mbit/s and more than that
/// below; more than a round trip ago is of no use to a live picture.
const HISTORY_AUDIO: usize = 50;
const HISTORY_VIDEO: usize = 512;
/// How long a sound may wait for one before it that is missing: reordering in a network takes less, and a microphone
/// that waits longer is late.
pub(super) const REORDER_AUDIO: Duration = Duration::from_millis(60);
/// Frames that may wait for a frame before them.
const REORDER_VIDEO: usize = 10;
/// First guess of a viewer's bandwidth, in bit/s: a 720p stream. Too little would blur the first seconds of everyone.
pub(super) const FIRST_GUESS: u64 = 2_500_000;

/// A stream of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    pub mid: Mid,
    /// The payload type to send, or the one that was agreed first.
    pub pt: Pt,
    pub codec: Codec,
}

/// The outcome: nothing has been sent yet.
pub(super) struct Agreed {
    pub rtc: Rtc,
    pub answer: String,
    pub video: Option<Track>,
    pub audio: Option<Track>,
}

impl Agreed {
    pub fn codecs(&self) -> Vec<Codec> {
        self.video.iter().chain(&self.audio).map(|track| track.codec).collect()
    }
}

/// Answers `offer`; without `video` a section of video is refused, without the rest.
pub(super) fn answer(
    settings: &Settings,
    sockets: &Sockets,
    offer: &Offer,
    want: Want,
    video: bool,
) -> Result<Agreed, Problem> {
    let mut rtc = config(offer, want, video, settings.max_bitrate.into()).build(Instant::now());
    for address in sockets.candidates() {
        let candidate = Candidate::host(address, "udp")
            .map_err(|error| Problem::internal(format!("the candidate {address}: {error}")))?;
        rtc.add_local_candidate(candidate);
        drain(&mut rtc)?;
    }
    agree(rtc, offer)
}

fn config(offer: &Offer, want: Want, video: bool, max_bitrate: u64) -> RtcConfig {
    let mut config = Rtc::builder()
        .set_crypto_provider(dtls::provider())
        // The server answers checks and sends none: it works with candidates that a browser hides behind mDNS names,
        // and an offer cannot make it send packets to somebody else.
        .set_ice_lite(true)
        // Without it a phone that turns sends its pictures upright; with it they would be turned by whoever shows them.
        .set_extension_map(extensions())
        .set_stats_interval(Some(Duration::from_secs(1)))
        .set_rtcp_report_interval_audio(Duration::from_secs(1))
        .set_rtcp_report_interval_video(Duration::from_secs(1))
        .set_send_buffer_audio(HISTORY_AUDIO)
        .set_send_buffer_video(HISTORY_VIDEO)
        .set_reordering_timeout_audio(Some(REORDER_AUDIO))
        .set_reordering_size_video(REORDER_VIDEO);
    codecs::configure(config.codec_config(), &offer.sdp, video);
    if want == Want::Play {
        config = config.enable_bwe(Some(Bitrate::bps(FIRST_GUESS.min(max_bitrate))));
    }
    config
}

/// The library's extensions without the orientation of pictures (3GPP TS 26.114): a client that does not have it
/// agreed turns the pictures before it encodes them.
pub(super) fn extensions() -> ExtensionMap {
    let standard = ExtensionMap::standard();
    let mut extensions = ExtensionMap::empty();
    for (id, extension) in standard.iter() {
        if *extension != Extension::VideoOrientation {
            extensions.set(id, extension.clone());
        }
    }
    extensions
}

fn agree(mut rtc: Rtc, offer: &Offer) -> Result<Agreed, Problem> {
    let answer = accept(&mut rtc, offer)?;
    let sections = sections(&answer);
    let mut agreed = Agreed { rtc, answer, video: None, audio: None };
    for mid in sections {
        let track = track(&mut agreed.rtc, mid);
        let place = match track {
            Some(track) if track.codec.is_video() => &mut agreed.video,
            _ => &mut agreed.audio,
        };
        *place = place.or(track);
    }
    if agreed.video.is_none() && agreed.audio.is_none() {
        return Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "the SDP offer has none of H264, VP8 and Opus, which are what is served",
        ));
    }
    Ok(agreed)
}

/// Reads an offer and answers it, as far as that needs no socket, for fuzzing.
pub fn read_offer(body: &[u8]) {
    for want in [Want::Play, Want::Publish] {
        let Ok(offer) = Offer::read(body, want) else { continue };
        let rtc = config(&offer, want, true, FIRST_GUESS).build(Instant::now());
        if let Ok(mut agreed) = agree(rtc, &offer) {
            // Whether it may is not the point.
            let _ = accept(&mut agreed.rtc, &offer.restarted("wxyz", "ABCDEFGHIJKLMNOPQRSTUV"));
        }
    }
}

/// Accepts an offer, the first or one that restarts ICE. Gives the answer.
pub(super) fn accept(rtc: &mut Rtc, offer: &Offer) -> Result<String, Problem> {
    // The library asserts a few things that an offer can break; that is the offer's fault.
    let negotiated = panic::catch_unwind(AssertUnwindSafe(|| {
        let parsed = SdpOffer::from_sdp_string(&offer.sdp)
            .map_err(|error| Problem::bad_request(format!("the SDP offer does not parse: {}", cause(&error))))?;
        let answer = rtc
            .sdp_api()
            .accept_offer(parsed)
            .map_err(|error| Problem::invalid(format!("the SDP offer cannot be answered: {error}")))?;
        drain(rtc)?;
        Ok(with_refusals(&in_one_stream(&answer.to_sdp_string()), &offer.refused))
    }));
    negotiated.unwrap_or_else(|_| Err(Problem::invalid("the SDP offer contradicts itself")))
}

/// The parser's message without its line about places in this process's memory.
fn cause(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains("PointerOffset"));
    lines.collect::<Vec<_>>().join("; ")
}

/// The answer with all tracks in one MediaStream (RFC 8830): a browser keeps only those of one stream in
/// sync, and the library gives each section a stream of its own.
fn in_one_stream(answer: &str) -> String {
    let streams: BTreeSet<&str> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("a=msid:")?.split_once(' '))
        .map(|(stream, _)| stream)
        .collect();
    let Some(first) = streams.first() else { return answer.to_owned() };
    let named = |line: &str| match line.split_once("msid:") {
        Some((before, names)) => match names.split_once(' ') {
            Some((_, track)) => format!("{before}msid:{first} {track}"),
            None => line.to_owned(),
        },
        None if line.starts_with("a=msid-semantic:") => format!("a=msid-semantic: WMS {first}"),
        None => line.to_owned(),
    };
    answer.lines().map(|line| named(line) + "\r\n").collect()
}

/// Polls until there is nothing left to do, as is due after each change. Nobody is connected yet, so there is nothing to
/// send or to hear.
fn drain(rtc: &mut Rtc) -> Result<(), Problem> {
    loop {
        let output = rtc.poll_output().map_err(|error| Problem::invalid(format!("the SDP offer: {error}")))?;
        if let Output::Timeout(_) = output {
            return Ok(());
        }
    }
}

/// The names of the sections that an answer accepts.
fn sections(answer: &str) -> Vec<Mid> {
    let (mut accepted, mut mids) = (false, Vec::new());
    for line in answer.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            accepted = media.split(' ').nth(1) != Some("0");
        } else if let (true, Some(mid)) = (accepted, line.strip_prefix("a=mid:")) {
            mids.push(Mid::from(mid));
        }
    }
    mids
}

/// What is sent in a section: H.264 before VP8, and of H.264 what is nearest to constrained baseline with FU-A.
pub(super) fn track(rtc: &mut Rtc, mid: Mid) -> Option<Track> {
    let writer = rtc.writer(mid)?;
    let best =
        writer.payload_params().filter_map(|params| Some((rank(params)?, *params))).min_by_key(|(rank, _)| *rank);
    let (_, params) = best?;
    let codec = match params.spec().codec {
        Format::H264 => Codec::H264,
        Format::Vp8 => Codec::Vp8,
        _ => Codec::Opus,
    };
    Some(Track { mid, pt: params.pt(), codec })
}

/// Order of preference, the lowest first.
fn rank(params: &PayloadParams) -> Option<u32> {
    let format = params.spec().format;
    match params.spec().codec {
        Format::Opus => Some(0),
        Format::H264 => {
            let single_packets = u32::from(format.packetization_mode != Some(1));
            // Profile and constraints of profile-level-id (RFC 6184 section 8.1): 42e0 is constrained baseline, which
            // decoders of the others decode too.
            let profile = match format.profile_level_id.unwrap_or(0x42_00_1f) >> 8 {
                0x42e0 => 0,
                0x4200 => 1,
                0x4d00 => 2,
                _ => 3,
            };
            Some(single_packets * 10 + profile)
        }
        Format::Vp8 => Some(100),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_says_tells_no_addresses() {
        let text = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 99999999999\r\n";
        let error = SdpOffer::from_sdp_string(text).unwrap_err();
        let said = cause(&error);
        assert!(!said.contains("0x") && !said.is_empty(), "{said}");
    }

    #[test]
    fn sound_and_picture_are_one_stream() {
        let answer = "v=0\r\na=msid-semantic: WMS one two\r\nm=audio 9 RTP/AVP 0\r\na=msid:one track1\r\n\
                      a=ssrc:1 msid:one track1\r\nm=video 9 RTP/AVP 1\r\na=msid:two track2\r\n\
                      a=ssrc:2 msid:two track2\r\na=ssrc:2 cname:c\r\n";
        assert_eq!(
            in_one_stream(answer),
            "v=0\r\na=msid-semantic: WMS one\r\nm=audio 9 RTP/AVP 0\r\na=msid:one track1\r\n\
             a=ssrc:1 msid:one track1\r\nm=video 9 RTP/AVP 1\r\na=msid:one track2\r\n\
             a=ssrc:2 msid:one track2\r\na=ssrc:2 cname:c\r\n"
        );
        assert_eq!(in_one_stream("v=0\r\n"), "v=0\r\n");
    }
}
