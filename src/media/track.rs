//! Which of several streams of a kind is read.

use std::{convert::Infallible, fmt, str::FromStr};

use gst::prelude::*;

/// What the user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Track {
    /// The one that the file marks as its default, else the first.
    #[default]
    Default,
    /// By its place among those of its kind, from 1 on.
    Number(usize),
    /// By its language as the file names it, such as `en`.
    Language(String),
}

impl FromStr for Track {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Language(text.to_ascii_lowercase()),
        })
    }
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::Number(number) => write!(f, "number {number}"),
            Self::Language(language) => write!(f, "`{language}`"),
        }
    }
}

/// A stream that a decoder gives.
#[derive(Clone, Debug)]
pub struct Offered {
    pub pad: gst::Pad,
    /// Marked as the one to be played.
    pub default: bool,
    pub language: Option<String>,
}

impl Offered {
    /// A stream of `decoder` on one of its pads.
    pub fn of(decoder: &gst::Element, pad: &gst::Pad) -> Self {
        let start = pad.sticky_event::<gst::event::StreamStart>(0);
        Self {
            pad: pad.clone(),
            default: start.is_some_and(|start| start.stream_flags().contains(gst::StreamFlags::SELECT)),
            language: pad.stream_id().and_then(|id| language(decoder, &id)),
        }
    }
}

/// The language of a stream, from the pads within `decoder` that it passes: decoders hold the tags back that demuxers give.
fn language(decoder: &gst::Element, id: &str) -> Option<String> {
    let mut found = None;
    let mut elements = decoder.downcast_ref::<gst::Bin>()?.iterate_recurse();
    while let Ok(Some(element)) = elements.next() {
        for pad in element.src_pads().iter().filter(|pad| pad.stream_id().is_some_and(|own| own == id)) {
            let tags = (0..).map_while(|i| pad.sticky_event::<gst::event::Tag>(i));
            let codes = tags.filter_map(|tags| Some(tags.tag().get::<gst::tags::LanguageCode>()?.get().to_owned()));
            found = found.or(codes.last());
        }
    }
    found.map(|language| language.to_ascii_lowercase())
}

/// The place of the stream that is asked for, and of those that might be meant as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub place: usize,
    /// Others that the file recommends as much, in their order.
    pub others: Vec<usize>,
}

/// Chooses. `Err` is what there is instead, for people.
pub fn choose(offered: &[Offered], wanted: &Track) -> Result<Choice, String> {
    let found = |place: Option<usize>| match place {
        Some(place) => Ok(Choice { place, others: Vec::new() }),
        None => Err(list(offered)),
    };
    match wanted {
        Track::Number(number) => found(number.checked_sub(1).filter(|place| *place < offered.len())),
        Track::Language(language) => found(offered.iter().position(|o| o.language.as_ref() == Some(language))),
        Track::Default => {
            let marked = offered.iter().any(|o| o.default);
            let mut places = (0..offered.len()).filter(|place| !marked || offered[*place].default);
            match places.next() {
                Some(place) => Ok(Choice { place, others: places.collect() }),
                None => Err(list(offered)),
            }
        }
    }
}

/// `1 (en), 2`.
pub fn list(offered: &[Offered]) -> String {
    let name = |(i, o): (usize, &Offered)| match &o.language {
        Some(language) => format!("{} ({language})", i + 1),
        None => (i + 1).to_string(),
    };
    offered.iter().enumerate().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(tracks: &[(bool, Option<&str>)]) -> Vec<Offered> {
        gst::init().unwrap();
        let pad = || gst::Pad::new(gst::PadDirection::Src);
        let of = |(default, language): &(bool, Option<&str>)| Offered {
            pad: pad(),
            default: *default,
            language: language.map(str::to_owned),
        };
        tracks.iter().map(of).collect()
    }

    #[test]
    fn the_default_is_chosen_else_what_is_asked_for() {
        let three = offered(&[(false, Some("de")), (true, Some("en")), (false, None)]);
        let place = |text: &str| choose(&three, &text.parse().unwrap()).map(|choice| choice.place);
        assert_eq!(choose(&three, &Track::Default), Ok(Choice { place: 1, others: vec![] }));
        assert_eq!((place("1"), place("3"), place("DE")), (Ok(0), Ok(2), Ok(0)));
        for none in ["0", "4", "fr"] {
            assert_eq!(place(none), Err("1 (de), 2 (en), 3".into()), "{none}");
        }
        let alike = offered(&[(false, None), (false, None)]);
        assert_eq!(choose(&alike, &Track::Default), Ok(Choice { place: 0, others: vec![1] }));
    }
}
