//! What encodes H.264: x264 on the processor, or NVIDIA's encoder on the card. Graphs have an x264enc called `h264-encoder`; where the
//! card encodes, its element takes that one's place in the graph before it runs, with properties of the same meaning.

mod place;

use std::{collections::BTreeMap, fmt, str::FromStr};

use gst::{glib, prelude::*};

use crate::error::{Failure, Result};

/// What the encoder of a graph is called.
const NAME: &str = "h264-encoder";
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
        Ok(Self::of(&element))
    }

    fn of(element: &gst::Element) -> Self {
        let words = |spec: &glib::ParamSpec| {
            let enums = glib::EnumClass::with_type(spec.value_type());
            let enums = enums.map(|class| class.values().iter().map(|value| value.nick().to_owned()).collect());
            let flags = glib::FlagsClass::with_type(spec.value_type());
            let flags = flags.map(|class| class.values().iter().map(|value| value.nick().to_owned()).collect());
            enums.or(flags).unwrap_or_default()
        };
        let properties = element.list_properties().iter().map(|spec| (spec.name().to_owned(), words(spec))).collect();
        Self { properties, formats: texts(element, "sink", "format"), profiles: texts(element, "src", "profile") }
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

    /// Puts the chosen encoder into a graph that does not run yet, in the place of its x264enc called `h264-encoder`. A graph that has
    /// none stays as it is.
    ///
    /// Errors: the card's is gone, or its place is not linked.
    pub fn put_into(&self, graph: &gst::Bin) -> Result<()> {
        let Some(offer) = &self.card else { return Ok(()) };
        let Some(x264) = graph.by_name(NAME).filter(is_a("x264enc")) else { return Ok(()) };
        let card = gst::ElementFactory::make(CARD).name(NAME).build();
        let card = card.map_err(|error| Failure::run(format!("{CARD}: {error}")))?;
        place::replace(&x264, &card, offer)
            .map_err(|cause| Failure::run(format!("{CARD} in the place of {NAME}: {cause}")))
    }
}

fn is_a(factory: &str) -> impl Fn(&gst::Element) -> bool {
    move |element| element.factory().is_some_and(|own| own.name() == factory)
}

#[cfg(test)]
mod tests {
    use super::{place::tests::older, *};

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
