//! The offer as the library is to see it, and the answer as the client is.
//!
//! The library answers what it can, and some things that it can are not served here. They are taken out of the offer by
//! section (RFC 8829, section 5), and what was taken out is refused in the answer:
//!
//! - Sections that are neither video nor audio, data channels among them: refused with port 0 (RFC 3264, section 6).
//! - Simulcast: one picture is shown, so none of the layers is asked for and the client sends the first (RFC 8853,
//!   section 5.3.2).
//! - Candidates: a server that only answers checks needs none, and is so not made to send packets to addresses that a
//!   stranger wrote down.
//!
//! H.264 without `profile-level-id` is read as constrained baseline: the default of RFC 6184 is baseline, whose other
//! tools no encoder makes. Opus without its two channels, which RFC 7587 demands and `webrtcbin` leaves out where caps
//! are written by hand, is Opus.

/// What H.264 is, where an offer does not say.
const PROFILE: &str = "profile-level-id=42e01f";
/// What makes a transport; RFC 8843, section 9.2, has it in the first section of a bundle only.
const TRANSPORT: [&str; 5] = ["a=ice-ufrag:", "a=ice-pwd:", "a=ice-options:", "a=fingerprint:", "a=setup:"];

/// An offer without what is not served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FilteredOffer {
    pub sdp: String,
    /// What is refused, for the answer.
    pub refused: Vec<RefusedSection>,
    /// What was left out, in words.
    pub left_out: Vec<String>,
    /// Sections of video and audio that share no transport.
    pub apart: bool,
}

/// A section that is answered with port 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedSection {
    /// Its place among the sections.
    index: usize,
    /// The first line with port 0, and its name.
    lines: String,
}

/// Filters the lines of an offer.
pub(super) fn filter(lines: &[&str]) -> FilteredOffer {
    let mut filtered = FilteredOffer::default();
    let start = lines.iter().position(|line| line.starts_with("m=")).unwrap_or(lines.len());
    let (head, rest) = lines.split_at(start);
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for &line in rest {
        match sections.last_mut() {
            Some(section) if !line.starts_with("m=") => section.push(line),
            _ => sections.push(vec![line]),
        }
    }
    let mut served: Vec<Vec<String>> = Vec::new();
    let (mut mids, mut refused_mids, mut spare) = (Vec::new(), Vec::new(), Vec::<&str>::new());
    for (index, section) in sections.iter().enumerate() {
        let mid = section.iter().find_map(|line| line.strip_prefix("a=mid:"));
        if matches!(kind(section[0]), "video" | "audio") {
            mids.extend((!rejected(section)).then_some(mid));
            served.push(media(section, &mut filtered.left_out));
        } else {
            filtered.left_out.push(format!("the section of `{}` is refused", kind(section[0])));
            filtered.refused.push(RefusedSection { index, lines: refusal(section[0], mid) });
            refused_mids.extend(mid);
            spare.extend(section.iter().copied().filter(|line| TRANSPORT.iter().any(|start| line.starts_with(start))));
        }
    }
    let bundles: Vec<&str> = head.iter().filter_map(|line| line.strip_prefix("a=group:BUNDLE")).collect();
    let bundled =
        |mid: &Option<&str>| mid.is_some_and(|mid| bundles.iter().any(|bundle| bundle.split(' ').any(|m| m == mid)));
    filtered.apart = mids.len() > 1 && !mids.iter().all(bundled);
    for line in head {
        if let Some(bundle) = line.strip_prefix("a=group:BUNDLE") {
            let kept = bundle.split(' ').filter(|mid| !mid.is_empty() && !refused_mids.contains(mid));
            filtered.sdp += "a=group:BUNDLE";
            kept.for_each(|mid| filtered.sdp += &format!(" {mid}"));
            filtered.sdp += "\r\n";
        } else if !is_candidate(line) {
            push(&mut filtered.sdp, line);
        }
    }
    let has_transport = head.iter().any(|line| line.starts_with(TRANSPORT[0]))
        || served.iter().flatten().any(|line| line.starts_with(TRANSPORT[0]));
    if !has_transport {
        spare.iter().for_each(|line| push(&mut filtered.sdp, line));
    }
    served.iter().flatten().for_each(|line| push(&mut filtered.sdp, line));
    filtered
}

/// Puts the refusals into an answer, each in its place, with the transport of a section that is served: aiortc wants
/// one in every section.
pub(super) fn with_refusals(answer: &str, refused: &[RefusedSection]) -> String {
    let starts = |line: &&str| line.starts_with("m=");
    let first = answer.lines().skip_while(|line| !starts(line)).skip(1).take_while(|line| !starts(line));
    let is_transport = |line: &&str| TRANSPORT.iter().any(|start| line.starts_with(start));
    let mut transport = String::new();
    first.filter(is_transport).for_each(|line| push(&mut transport, line));
    let mut parts: Vec<String> = vec![String::new()];
    for line in answer.lines() {
        if line.starts_with("m=") {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            push(part, line);
        }
    }
    for refused in refused {
        // The first part is the session's.
        parts.insert((refused.index + 1).min(parts.len()), refused.lines.clone() + &transport);
    }
    parts.concat()
}

/// Says the rate of the pictures, in frames a second, in the answer's section of video (RFC 8866, section 6.13).
pub(super) fn with_rate(answer: &str, fps: f64) -> String {
    let mut text = String::with_capacity(answer.len() + 24);
    let mut video = false;
    for line in answer.lines() {
        video = if line.starts_with("m=") { line.starts_with("m=video ") } else { video };
        push(&mut text, line);
        if video && line.starts_with("a=mid:") {
            push(&mut text, &format!("a=framerate:{}", (fps * 1000.0).round() / 1000.0));
        }
    }
    text
}

fn push(text: &mut String, line: &str) {
    *text += line;
    *text += "\r\n";
}

fn kind(line: &str) -> &str {
    line.strip_prefix("m=").and_then(|media| media.split(' ').next()).unwrap_or_default()
}

fn is_candidate(line: &str) -> bool {
    line.starts_with("a=candidate:") || line == "a=end-of-candidates"
}

/// Port 0 is a refused section, unless it goes over the transport of another (RFC 8843, section 6).
fn rejected(section: &[&str]) -> bool {
    section[0].split(' ').nth(1) == Some("0") && !section.contains(&"a=bundle-only")
}

fn with_port(line: &str, port: &str) -> String {
    let words = line.split(' ').enumerate().map(|(n, word)| if n == 1 { port } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn refusal(line: &str, mid: Option<&str>) -> String {
    let mut text = String::new();
    push(&mut text, &with_port(line, "0"));
    push(&mut text, "c=IN IP4 0.0.0.0");
    mid.into_iter().for_each(|mid| push(&mut text, &format!("a=mid:{mid}")));
    push(&mut text, "a=inactive");
    text
}

/// A section of video or audio.
fn media(section: &[&str], left_out: &mut Vec<String>) -> Vec<String> {
    let bundle_only = section.contains(&"a=bundle-only");
    let mut lines = Vec::with_capacity(section.len());
    for &line in section {
        if is_candidate(line) || line == "a=bundle-only" || line.starts_with("a=rid:") {
            continue;
        } else if line.starts_with("a=simulcast:") {
            left_out.push("simulcast: one layer is taken".into());
        } else if line.starts_with("m=") && bundle_only {
            lines.push(with_port(line, "9"));
        } else if let Some(bare) = h264_format(line).filter(|_| !line.contains("profile-level-id=")) {
            let separator = if bare.trim().is_empty() { "" } else { ";" };
            let known = section.iter().any(|other| is_h264(other, line));
            lines.push(if known { format!("{line}{separator}{PROFILE}") } else { line.to_owned() });
        } else if opus_without_channels(line) {
            lines.push(format!("{line}/2"));
        } else {
            lines.push(line.to_owned());
            if let Some(number) = h264_number(line)
                && !section.iter().any(|other| other.starts_with(&format!("a=fmtp:{number} ")))
            {
                lines.push(format!("a=fmtp:{number} {PROFILE}"));
            }
        }
    }
    lines
}

fn opus_without_channels(line: &str) -> bool {
    named(line).is_some_and(|(_, name)| name.eq_ignore_ascii_case("opus/48000"))
}

/// The payload type that a line calls H.264.
fn h264_number(line: &str) -> Option<&str> {
    let (number, name) = named(line)?;
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("H264/")).then_some(number)
}

/// A payload type and what a line calls it.
fn named(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("a=rtpmap:")?.split_once(' ')
}

/// The parameters of a format line.
fn h264_format(line: &str) -> Option<&str> {
    line.strip_prefix("a=fmtp:")?.split_once(' ').map(|(_, parameters)| parameters)
}

/// Whether `map` calls H.264 what the format line `format` speaks of.
fn is_h264(map: &str, format: &str) -> bool {
    h264_number(map).is_some_and(|number| format.starts_with(&format!("a=fmtp:{number} ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\na=group:BUNDLE d 0 1\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=ice-ufrag:abcd\n\
        a=ice-pwd:0123456789012345678901\na=mid:d\na=candidate:1 1 udp 1 10.0.0.1 5 typ host\nm=audio 0 x 111\na=mid:0\n\
        a=rtpmap:111 OPUS/48000\na=bundle-only\nm=video 0 x 96 97 98\na=bundle-only\na=mid:1\na=rtpmap:96 H264/90000\na=rtpmap:97 h264/90000\n\
        a=fmtp:97 packetization-mode=1\na=rtpmap:98 VP8/90000\na=fmtp:98 x=1\na=rid:h send\na=simulcast:send h;l\n";

    #[test]
    fn what_is_not_served_is_taken_out_and_refused_in_its_place() {
        let lines: Vec<&str> = OFFER.lines().collect();
        let filtered = filter(&lines);
        assert_eq!(
            filtered.sdp.replace("\r\n", "\n"),
            "v=0\na=group:BUNDLE 0 1\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\nm=audio 9 x 111\na=mid:0\n\
             a=rtpmap:111 OPUS/48000/2\nm=video 9 x 96 97 98\na=mid:1\na=rtpmap:96 H264/90000\na=fmtp:96 profile-level-id=42e01f\n\
             a=rtpmap:97 h264/90000\na=fmtp:97 packetization-mode=1;profile-level-id=42e01f\na=rtpmap:98 VP8/90000\n\
             a=fmtp:98 x=1\n"
        );
        assert!(!filtered.apart);
        assert_eq!(filtered.left_out.len(), 2, "{:?}", filtered.left_out);
        let answer =
            with_refusals("v=0\r\nm=audio 9 x 111\r\na=setup:passive\r\nm=video 9 x 96\r\n", &filtered.refused);
        assert_eq!(
            answer.replace("\r\n", "\n"),
            "v=0\nm=application 0 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:d\na=inactive\n\
             a=setup:passive\nm=audio 9 x 111\na=setup:passive\nm=video 9 x 96\n"
        );
    }

    #[test]
    fn the_rate_is_in_the_section_of_video() {
        let answer = "v=0\r\nm=audio 9 x 1\r\na=mid:0\r\nm=video 9 x 2\r\na=mid:1\r\n";
        let expected = answer.to_owned() + "a=framerate:29.97\r\n";
        assert_eq!(with_rate(answer, 30_000.0 / 1001.0), expected);
    }

    #[test]
    fn sections_without_a_common_transport_are_told() {
        let two = ["v=0", "m=audio 9 x 1", "a=mid:0", "m=video 9 x 2", "a=mid:1"];
        assert!(filter(&two).apart);
        assert!(!filter(&two[..3]).apart, "one needs no bundle");
        let rejected = ["v=0", "m=audio 0 x 1", "a=mid:0", "m=video 9 x 2", "a=mid:1"];
        assert!(!filter(&rejected).apart);
    }
}
