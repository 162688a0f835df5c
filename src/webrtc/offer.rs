//! What clients send: SDP offers (RFC 8866) and fragments of trickled candidates (RFC 8840).
//!
//! Only what bounds and routes an offer is read here, before the WebRTC library parses it whole.

use std::{collections::HashMap, fmt};

use str0m::Candidate;

use super::filter::{RefusedSection, filter};
use crate::http::Problem;

/// Largest offer, in bytes; Chromium's with all its codecs has 7 kB.
pub(super) const MAX_OFFER: usize = 64 << 10;
/// Largest fragment, in bytes.
pub(super) const MAX_FRAGMENT: usize = 16 << 10;
const MAX_LINES: usize = 2000;
const MAX_LINE: usize = 1024;
/// Media sections of an offer: a video and a sound, and some that are not used.
const MAX_SECTIONS: usize = 8;
/// Candidates that a peer may name in all.
pub(super) const MAX_CANDIDATES: usize = 64;

/// Why an offer or a fragment is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is not what its type says (400).
    Malformed(String),
    /// It is well formed but cannot be served (422).
    Unfit(String),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) | Self::Unfit(what) => f.write_str(what),
        }
    }
}

impl From<Bad> for Problem {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Malformed(detail) => Self::bad_request(detail),
            Bad::Unfit(detail) => Self::invalid(detail),
        }
    }
}

/// Who the offer's sender wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// It receives: WHEP.
    Play,
    /// It sends: WHIP.
    Publish,
}

/// What an offer has, of what can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// The text as the library is to see it (see [`filter`](super::filter)).
    pub sdp: String,
    /// Sections that are answered with port 0.
    pub refused: Vec<RefusedSection>,
    /// What was left out, in words.
    pub left_out: Vec<String>,
    pub video: bool,
    pub audio: bool,
    pub ufrag: String,
}

#[derive(Default)]
struct Section {
    kind: String,
    rejected: bool,
    direction: Option<String>,
}

impl Offer {
    /// Checks an offer's size, shape and direction.
    pub fn read(body: &[u8], want: Want) -> Result<Self, Bad> {
        let lines = lines(body, MAX_OFFER, "SDP offer")?;
        if lines.first() != Some(&"v=0") {
            return Err(Bad::Malformed("the SDP offer does not start with `v=0`".into()));
        }
        let mut offer = Self::default();
        let mut sections: Vec<Section> = Vec::new();
        let mut direction = None;
        let mut formats: HashMap<&str, &str> = HashMap::new();
        let mut fingerprints: Vec<bool> = Vec::new();
        for &line in &lines {
            if let Some(media) = line.strip_prefix("m=") {
                let mut words = media.split(' ');
                let kind = words.next().unwrap_or_default().to_owned();
                let rejected = words.next() == Some("0");
                sections.push(Section { kind, rejected, direction: None });
                if sections.len() > MAX_SECTIONS {
                    return Err(Bad::Unfit(format!("the SDP offer has more than {MAX_SECTIONS} media sections")));
                }
            } else if line == "a=bundle-only" {
                // Port 0 is that of the bundle's first section here (RFC 8843, section 6).
                sections.iter_mut().last().into_iter().for_each(|section| section.rejected = false);
            } else if let Some((attribute, value)) = format_line(line) {
                let said = formats.entry(attribute).or_insert(value);
                if *said != value {
                    return Err(Bad::Unfit(format!(
                        "the SDP offer says two things of one payload type: `{}` with `{}` and `{}`",
                        printable(attribute),
                        printable(said),
                        printable(value)
                    )));
                }
            } else if let Some(fingerprint) = line.strip_prefix("a=fingerprint:") {
                fingerprints.push(is_sha256(fingerprint));
            } else if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:") {
                offer.ufrag = ufrag.to_owned();
            } else if matches!(line, "a=sendrecv" | "a=sendonly" | "a=recvonly" | "a=inactive") {
                let value = line.strip_prefix("a=").map(str::to_owned);
                match sections.last_mut() {
                    Some(section) => section.direction = value,
                    None => direction = value,
                }
            }
        }
        if !fingerprints.is_empty() && !fingerprints.contains(&true) {
            return Err(Bad::Unfit("no `a=fingerprint` of the SDP offer is a whole sha-256".into()));
        }
        let filtered = filter(&lines);
        if filtered.apart {
            return Err(Bad::Unfit(
                "the sections of the SDP offer are not all in one `a=group:BUNDLE`, and one port is served: bundle them \
                 (`bundlePolicy: \"max-bundle\"`, `webrtcbin bundle-policy=max-bundle`)"
                    .into(),
            ));
        }
        (offer.sdp, offer.refused, offer.left_out) = (filtered.sdp, filtered.refused, filtered.left_out);
        offer.check(&sections, direction.as_deref(), want)
    }

    fn check(mut self, sections: &[Section], direction: Option<&str>, want: Want) -> Result<Self, Bad> {
        if sections.is_empty() {
            return Err(Bad::Unfit("the SDP offer has no media section".into()));
        }
        if self.ufrag.is_empty() {
            return Err(Bad::Malformed("the SDP offer has no `a=ice-ufrag`".into()));
        }
        for section in sections.iter().filter(|section| !section.rejected) {
            let direction = section.direction.as_deref().or(direction).unwrap_or("sendrecv");
            let fits = match want {
                Want::Play => matches!(direction, "recvonly" | "sendrecv"),
                Want::Publish => matches!(direction, "sendonly" | "sendrecv"),
            };
            match section.kind.as_str() {
                "video" => self.video |= fits,
                "audio" => self.audio |= fits,
                _ => {}
            }
        }
        if !sections.iter().any(|section| matches!(section.kind.as_str(), "video" | "audio")) {
            return Err(Bad::Unfit("the SDP offer has no section of video or audio, which are what is served".into()));
        }
        match (self.video || self.audio, want) {
            (true, _) => Ok(self),
            (false, Want::Play) => Err(Bad::Unfit("the SDP offer receives nothing: it needs `a=recvonly`".into())),
            (false, Want::Publish) => Err(Bad::Unfit("the SDP offer sends nothing: it needs `a=sendonly`".into())),
        }
    }

    /// The same offer with other ICE credentials, as a client that restarts ICE would make it.
    pub fn restarted(&self, ufrag: &str, password: &str) -> Self {
        let mut sdp = String::with_capacity(self.sdp.len());
        for line in self.sdp.lines() {
            if line.starts_with("a=ice-ufrag:") {
                sdp += &format!("a=ice-ufrag:{ufrag}\r\n");
            } else if line.starts_with("a=ice-pwd:") {
                sdp += &format!("a=ice-pwd:{password}\r\n");
            } else {
                sdp += line;
                sdp += "\r\n";
            }
        }
        Self { sdp, ufrag: ufrag.to_owned(), ..self.clone() }
    }
}

/// What a line says of a payload type: the attribute with the number, and its value. In one bundle, which all are here,
/// a payload type has one meaning (RFC 8843, section 9.1).
fn format_line(line: &str) -> Option<(&str, &str)> {
    let attribute = line.strip_prefix("a=").filter(|a| a.starts_with("rtpmap:") || a.starts_with("fmtp:"))?;
    attribute.split_once(' ')
}

/// The hash of a certificate as RFC 8122, section 5, writes it.
fn is_sha256(fingerprint: &str) -> bool {
    let Some((function, hash)) = fingerprint.split_once(' ') else { return false };
    let bytes: Vec<&str> = hash.trim_end().split(':').collect();
    function.eq_ignore_ascii_case("sha-256")
        && bytes.len() == 32
        && bytes.iter().all(|byte| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Trickled candidates, or the credentials of an ICE restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fragment {
    pub ufrag: Option<String>,
    pub password: Option<String>,
    pub candidates: Vec<Candidate>,
    /// Candidates that are not used: names of mDNS and TCP.
    pub ignored: usize,
}

impl Fragment {
    /// Reads a body of `application/trickle-ice-sdpfrag`.
    pub fn read(body: &[u8]) -> Result<Self, Bad> {
        let mut fragment = Self::default();
        for line in lines(body, MAX_FRAGMENT, "SDP fragment")? {
            if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:") {
                fragment.ufrag = Some(credential(ufrag, 4, "a=ice-ufrag")?);
            } else if let Some(password) = line.strip_prefix("a=ice-pwd:") {
                fragment.password = Some(credential(password, 22, "a=ice-pwd")?);
            } else if let Some(candidate) = line.strip_prefix("a=candidate:") {
                fragment.candidate(candidate)?;
            } else if !line.starts_with("a=") && !line.starts_with("m=") {
                let kind: String = line.chars().take(20).collect();
                return Err(Bad::Malformed(format!("the SDP fragment has a line `{kind}`, neither `a=` nor `m=`")));
            }
        }
        if fragment.ufrag.is_some() != fragment.password.is_some() {
            return Err(Bad::Malformed("the SDP fragment has one of `a=ice-ufrag` and `a=ice-pwd` only".into()));
        }
        Ok(fragment)
    }

    fn candidate(&mut self, text: &str) -> Result<(), Bad> {
        if self.candidates.len() + self.ignored >= MAX_CANDIDATES {
            return Err(Bad::Unfit(format!("the SDP fragment has more than {MAX_CANDIDATES} candidates")));
        }
        let words: Vec<&str> = text.split(' ').collect();
        if words.len() < 8 || words[6] != "typ" {
            return Err(Bad::Malformed(format!("`a=candidate:` with {} words, at least 8 with `typ`", words.len())));
        }
        if words[4].ends_with(".local") || !words[2].eq_ignore_ascii_case("udp") {
            self.ignored += 1;
            return Ok(());
        }
        match Candidate::from_sdp_string(&format!("candidate:{text}")) {
            Ok(candidate) => self.candidates.push(candidate),
            Err(_) => return Err(Bad::Malformed(format!("`a=candidate:` with the address `{}`", printable(words[4])))),
        }
        Ok(())
    }
}

/// Reads a fragment of candidates, for fuzzing.
pub fn read_fragment(body: &[u8]) {
    // What is refused is refused.
    let _ = Fragment::read(body);
}

/// ICE characters (RFC 8839 section 5.4), at least `min` and at most 256 of them.
fn credential(text: &str, min: usize, name: &str) -> Result<String, Bad> {
    let valid = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    if valid && (min..=256).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(Bad::Malformed(format!("`{name}` must have {min} to 256 letters, digits, + and /")))
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(64).collect()
}

/// The lines of a body, bounded in size and number.
fn lines<'a>(body: &'a [u8], limit: usize, what: &str) -> Result<Vec<&'a str>, Bad> {
    if body.len() > limit {
        return Err(Bad::Unfit(format!("the {what} has {} bytes, at most {limit} are taken", body.len())));
    }
    let text = std::str::from_utf8(body).map_err(|_| Bad::Malformed(format!("the {what} is not UTF-8")))?;
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).filter(|l| !l.is_empty()).collect();
    if lines.is_empty() {
        return Err(Bad::Malformed(format!("the {what} is empty")));
    }
    if lines.len() > MAX_LINES {
        return Err(Bad::Unfit(format!("the {what} has {} lines, at most {MAX_LINES} are taken", lines.len())));
    }
    if let Some(long) = lines.iter().position(|line| line.len() > MAX_LINE) {
        return Err(Bad::Unfit(format!("line {} of the {what} is longer than {MAX_LINE} bytes", long + 1)));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=recvonly\r\n\
        a=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=recvonly\r\n";

    #[test]
    fn an_offer_is_told_by_what_it_receives_or_sends() {
        let offer = Offer::read(OFFER.as_bytes(), Want::Play).expect("valid");
        assert!(offer.video && offer.audio);
        assert_eq!(offer.ufrag, "abcd");
        assert!(!offer.sdp.contains("candidate"), "a stranger's addresses are not used");
        let error = Offer::read(OFFER.as_bytes(), Want::Publish).expect_err("it only receives");
        assert!(error.to_string().contains("a=sendonly"), "{error}");
        let voice = OFFER.replacen("a=recvonly", "a=sendonly", 1).replace("a=recvonly", "a=inactive");
        let offer = Offer::read(voice.as_bytes(), Want::Publish).expect("valid");
        assert!(offer.audio && !offer.video);
    }

    #[test]
    fn a_bad_offer_says_what_is_wrong() {
        let long = format!("v=0\r\na={}\r\n", "x".repeat(2000));
        let many = format!("v=0\r\na=ice-ufrag:abcd\r\n{}", "m=video 9 x 96\r\n".repeat(9));
        let twice = "v=0\r\na=rtpmap:96 H264/90000\r\na=rtpmap:96 VP8/90000\r\n";
        let short = format!("v=0\r\na=fingerprint:sha-256 {}\r\n", "AB:".repeat(31));
        let cases: [(&[u8], &str); 11] = [
            (twice.as_bytes(), "`rtpmap:96` with `H264/90000` and `VP8/90000`"),
            (short.as_bytes(), "sha-256"),
            (b"v=0\r\na=fingerprint:sha-1 00:11\r\n", "sha-256"),
            (b"", "empty"),
            (b"hello", "v=0"),
            (b"v=0\r\n", "no media section"),
            (b"v=0\r\nm=audio 9 x 1\r\n", "ice-ufrag"),
            (b"v=0\r\na=ice-ufrag:abcd\r\nm=application 9 x y\r\n", "no section of video or audio"),
            (&[0xff, 0xfe], "UTF-8"),
            (long.as_bytes(), "line 2"),
            (many.as_bytes(), "more than 8"),
        ];
        for (body, part) in cases {
            let error = Offer::read(body, Want::Play).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(matches!(Offer::read(&vec![b'a'; MAX_OFFER + 1], Want::Play), Err(Bad::Unfit(_))));
    }

    #[test]
    fn a_restarted_offer_differs_by_its_credentials_only() {
        let offer = Offer::read(OFFER.as_bytes(), Want::Play).expect("valid");
        let restarted = offer.restarted("wxyz", "ABCDEFGHIJKLMNOPQRSTUV");
        assert_eq!(restarted.ufrag, "wxyz");
        assert_eq!(restarted.restarted("abcd", "0123456789012345678901").sdp, offer.sdp);
    }

    #[test]
    fn a_fragment_gives_candidates_and_ignores_hidden_ones() {
        let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
            a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
            a=candidate:2 1 udp 2113937151 2a3c5f4e-1c0e-4b1c-9d52-3b7f1c1d9a55.local 50123 typ host\r\n\
            a=candidate:3 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\na=end-of-candidates\r\n";
        let fragment = Fragment::read(text.as_bytes()).expect("valid");
        assert_eq!(fragment.ufrag.as_deref(), Some("EsAw"));
        assert_eq!(fragment.candidates.len(), 1);
        assert_eq!(fragment.ignored, 2);
    }

    #[test]
    fn a_bad_fragment_says_what_is_wrong() {
        let many = "a=candidate:2 1 udp 1 x.local 1 typ host\r\n".repeat(MAX_CANDIDATES + 1);
        let cases: [(&str, &str); 7] = [
            ("", "empty"),
            ("hello", "`hello`"),
            ("a=ice-ufrag:abcd", "one of"),
            ("a=ice-ufrag:ab cd\r\na=ice-pwd:0123456789012345678901", "a=ice-ufrag"),
            ("a=candidate:1 1 udp", "words"),
            ("a=candidate:1 1 udp 1 nowhere 5 typ host", "nowhere"),
            (&many, "more than"),
        ];
        for (body, part) in cases {
            let error = Fragment::read(body.as_bytes()).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
