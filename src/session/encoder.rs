//! What encodes H.264: x264 on the processor, or NVIDIA's encoder on the card. Graphs name x264enc; where the card encodes, its
//! element stands there with properties of the same meaning.

use std::{collections::BTreeMap, fmt, str::FromStr};

use gst::{glib, prelude::*};

use crate::error::{Failure, Result};

/// What stands in graphs, by the name that its bit rate is changed by.
const PLACE: &str = "x264enc name=h264-encoder";
const CARD: &str = "nvh264enc";

/// `sessions.encoder`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoder {
    /// The card's where GStreamer has it and it starts, else x264.
    #[default]
    Auto,
    X264,
    Nvh264,
}

impl FromStr for Encoder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Auto, Self::X264, Self::Nvh264]
            .into_iter()
            .find(|encoder| encoder.to_string() == text)
            .ok_or_else(|| "must be auto, x264 or nvh264".into())
    }
}

impl fmt::Display for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::X264 => "x264",
            Self::Nvh264 => "nvh264",
        })
    }
}

/// What an encoder's element takes: releases of GStreamer, and the element's successors of the same name, differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// Properties, with the words of those that take one of several.
    properties: BTreeMap<String, Vec<String>>,
    formats: Vec<String>,
    profiles: Vec<String>,
}

impl Offer {
    /// What the card's element takes on this machine.
    ///
    /// Errors: GStreamer has none, or it does not start.
    fn of_card() -> Result<Self, String> {
        let factory = gst::ElementFactory::find(CARD).ok_or_else(|| {
            format!(
                "GStreamer has no {CARD}: its plugin nvcodec (gstreamer1.0-plugins-bad) has it where NVIDIA's driver and a card are"
            )
        })?;
        let element = factory.create().build().map_err(|error| format!("{CARD}: {error}"))?;
        let started = element.set_state(gst::State::Ready);
        // What it holds of the card goes back.
        let _ = element.set_state(gst::State::Null);
        started
            .map_err(|_| format!("{CARD} does not start: the card has no encoder, or all of its sessions are taken"))?;
        let words = |spec: &glib::ParamSpec| {
            let class = glib::EnumClass::with_type(spec.value_type());
            class.map_or(Vec::new(), |class| class.values().iter().map(|value| value.nick().to_owned()).collect())
        };
        let properties = element.list_properties().iter().map(|spec| (spec.name().to_owned(), words(spec))).collect();
        Ok(Self { properties, formats: texts(&element, "sink", "format"), profiles: texts(&element, "src", "profile") })
    }

    fn takes(&self, property: &str, word: &str) -> bool {
        self.properties.get(property).is_some_and(|words| words.is_empty() || words.iter().any(|known| known == word))
    }
}

/// The texts that a field of a pad's caps may have.
fn texts(element: &gst::Element, pad: &str, field: &str) -> Vec<String> {
    let caps = element.static_pad(pad).map(|pad| pad.pad_template_caps());
    let values = caps.iter().flat_map(|caps| caps.iter()).filter_map(|one| one.value(field).ok());
    let texts = |value: &glib::SendValue| match value.get::<gst::List>() {
        Ok(list) => list.iter().filter_map(|one| one.get::<String>().ok()).collect(),
        Err(_) => value.get::<String>().into_iter().collect::<Vec<_>>(),
    };
    values.flat_map(texts).collect()
}

/// The encoder that was chosen for this process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chosen {
    /// What the card's takes; `None`: x264.
    card: Option<Offer>,
}

impl Chosen {
    /// Errors: `nvh264` where it does not work.
    pub fn of(encoder: Encoder) -> Result<Self> {
        Self::from(encoder, Offer::of_card)
    }

    fn from(encoder: Encoder, offer: impl FnOnce() -> Result<Offer, String>) -> Result<Self> {
        let card = match encoder {
            Encoder::X264 => None,
            Encoder::Auto => offer().inspect_err(|cause| tracing::debug!("H.264 is encoded by x264: {cause}")).ok(),
            Encoder::Nvh264 => Some(offer().map_err(|cause| {
                Failure::usage(format!("sessions.encoder = \"nvh264\": {cause}; take \"x264\" or \"auto\""))
            })?),
        };
        Ok(Self { card })
    }

    /// The element.
    pub fn name(&self) -> &'static str {
        if self.card.is_some() { CARD } else { "x264enc" }
    }

    /// A graph with the chosen encoder in the place of x264.
    pub fn place(&self, launch: &str) -> String {
        match (&self.card, launch.find(PLACE)) {
            (Some(offer), Some(at)) => replaced(launch, at, offer),
            _ => launch.to_owned(),
        }
    }
}

fn replaced(launch: &str, at: usize, offer: &Offer) -> String {
    let (before, rest) = launch.split_at(at);
    let (x264, after) = rest.split_at(rest.find('!').unwrap_or(rest.len()));
    let told = |name: &str| x264.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| told(name).and_then(|value| value.parse::<u32>().ok());
    let bitrate = number("bitrate").unwrap_or(2048);
    let mut card = format!("{CARD} name=h264-encoder");
    let mut set = |property: &str, words: &[&str]| {
        let word = words.iter().find(|word| offer.takes(property, word));
        card.extend(word.map(|word| format!(" {property}={word}")));
    };
    // Both count kbit/s.
    set("bitrate", &[&bitrate.to_string()]);
    if let Some(gop) = number("key-int-max") {
        set("gop-size", &[&gop.to_string()]);
    }
    set("rc-mode", &["cbr"]);
    set("zerolatency", &["true"]);
    set("tune", &["ultra-low-latency"]);
    for frames_back in ["bframes", "b-frames"] {
        set(frames_back, &["0"]);
    }
    // Players join at any key frame.
    set("repeat-sequence-header", &["true"]);
    set(
        "preset",
        match told("speed-preset").unwrap_or_default() {
            "ultrafast" | "superfast" => &["p1", "low-latency-hp"],
            "veryfast" => &["p2", "low-latency-hp"],
            "faster" => &["p3", "low-latency"],
            _ => &["p4", "low-latency-hq"],
        },
    );
    if let Some(milliseconds) = number("vbv-buf-capacity") {
        set("vbv-buffer-size", &[&(u64::from(bitrate) * u64::from(milliseconds) / 1000).to_string()]);
    }
    let before = taken(
        before,
        before.rfind("format=I420").filter(|at| !before[*at..].contains("enc ")),
        "I420",
        |word| offer.formats.iter().any(|f| f == word),
        &["NV12"],
    );
    let after = taken(
        after,
        after.find("profile=constrained-baseline"),
        "constrained-baseline",
        |word| offer.profiles.iter().any(|p| p == word),
        &["baseline", "main"],
    );
    format!("{before}{card} {after}")
}

/// The text with another word for the first `word` from `at` on, where that is not offered and one of `others` is.
fn taken(text: &str, at: Option<usize>, word: &str, offered: impl Fn(&str) -> bool, others: &[&str]) -> String {
    let other = others.iter().find(|other| offered(other)).filter(|_| !offered(word));
    match (at, other) {
        (Some(at), Some(other)) => format!("{}{}", &text[..at], text[at..].replacen(word, other, 1)),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(properties: &[(&str, &[&str])], formats: &[&str], profiles: &[&str]) -> Offer {
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Offer {
            properties: properties.iter().map(|(name, words)| ((*name).to_owned(), texts(words))).collect(),
            formats: texts(formats),
            profiles: texts(profiles),
        }
    }

    /// As GStreamer 1.22 has it.
    fn older() -> Offer {
        let presets: &[&str] = &["default", "hp", "hq", "low-latency", "low-latency-hq", "low-latency-hp"];
        let properties: [(&str, &[&str]); 7] = [
            ("bitrate", &[]),
            ("gop-size", &[]),
            ("rc-mode", &["default", "constqp", "cbr", "vbr"]),
            ("zerolatency", &[]),
            ("bframes", &[]),
            ("vbv-buffer-size", &[]),
            ("preset", presets),
        ];
        offer(&properties, &["NV12", "I420"], &["main", "high", "baseline", "constrained-baseline"])
    }

    /// As its successor has it.
    fn newer() -> Offer {
        let properties: [(&str, &[&str]); 6] = [
            ("bitrate", &[]),
            ("gop-size", &[]),
            ("b-frames", &[]),
            ("tune", &["default", "high-quality", "low-latency", "ultra-low-latency"]),
            ("repeat-sequence-header", &[]),
            ("preset", &["p1", "p2", "p3", "p4"]),
        ];
        offer(&properties, &["NV12", "Y444"], &["main", "high", "baseline"])
    }

    fn chosen(offer: Offer) -> Chosen {
        Chosen::from(Encoder::Nvh264, || Ok(offer)).unwrap()
    }

    fn launch() -> String {
        let (graph, _) = super::super::graphs::find(None, "avatar").unwrap();
        graph.launch(&["bitrate=1500".into(), "gop=30".into()]).unwrap()
    }

    #[test]
    fn properties_are_those_that_an_element_has() {
        let text = chosen(older()).place(&launch());
        let wanted = "video/x-raw,format=I420 ! nvh264enc name=h264-encoder bitrate=1500 gop-size=30 rc-mode=cbr zerolatency=true \
                      bframes=0 preset=low-latency-hp vbv-buffer-size=450 ! video/x-h264,profile=constrained-baseline,";
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&text).contains(&words(wanted)), "{text}");
        assert!(!text.contains("x264enc"), "{text}");

        let text = chosen(newer()).place(&launch());
        let wanted = "video/x-raw,format=NV12 ! nvh264enc name=h264-encoder bitrate=1500 gop-size=30 tune=ultra-low-latency b-frames=0 \
                      repeat-sequence-header=true preset=p1 ! video/x-h264,profile=baseline,";
        assert!(words(&text).contains(&words(wanted)), "{text}");
        assert!(words(&text).contains("video/x-raw,format=I420 ! vp8enc"), "the other encoder's format stays: {text}");
    }

    #[test]
    fn every_graph_for_sessions_has_a_place_for_it() {
        for name in ["avatar", "relay", "dub", "rtmp-push"] {
            let (graph, _) = super::super::graphs::find(None, name).unwrap();
            let text = chosen(older()).place(&graph.launch(&[]).unwrap());
            assert!(text.contains("nvh264enc name=h264-encoder") && !text.contains("x264enc"), "{name}: {text}");
        }
        assert_eq!(Chosen::default().place(&launch()), launch(), "x264 stays as it is");
    }

    #[test]
    fn a_card_that_cannot_encode_is_refused_by_name_alone() {
        let absent = || Err("GStreamer has no nvh264enc: why".to_owned());
        let refused = Chosen::from(Encoder::Nvh264, absent).unwrap_err().message;
        assert!(
            refused.contains("sessions.encoder = \"nvh264\": GStreamer has no nvh264enc: why; take \"x264\""),
            "{refused}"
        );
        assert_eq!(Chosen::from(Encoder::Auto, absent).unwrap().name(), "x264enc");
        assert_eq!(Chosen::from(Encoder::Auto, || Ok(older())).unwrap().name(), "nvh264enc");
        assert_eq!(Chosen::from(Encoder::X264, || panic!("nobody asks the card")).unwrap().name(), "x264enc");
    }

    #[test]
    fn what_an_element_takes_is_read_from_it() {
        gst::init().unwrap();
        let element = gst::ElementFactory::make("x264enc").build().unwrap();
        assert!(texts(&element, "src", "profile").iter().any(|profile| profile == "constrained-baseline"));
        assert!(texts(&element, "sink", "format").iter().any(|format| format == "I420"));
    }

    #[test]
    fn words_read_back() {
        for text in ["auto", "x264", "nvh264"] {
            assert_eq!(text.parse::<Encoder>().unwrap().to_string(), text);
        }
        assert!("nvenc".parse::<Encoder>().unwrap_err().contains("auto, x264 or nvh264"));
    }
}
