//! Which of the faces in a picture speak: the property `speaker`.

use std::{fmt, str::FromStr};

use gst::{glib, prelude::*};
use lipstream_engines::{Error, tracker::Face};

use crate::options;

/// Whom the property names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// The largest face, until it is gone or another is much larger.
    #[default]
    Largest,
    All,
    /// The face whose own lips follow the sound.
    Auto,
    /// The face that is furthest to the left, or right, of the picture.
    Left,
    Right,
    /// The face with this number.
    Track(u64),
}

impl Selector {
    /// The words that stand for themselves.
    const WORDS: [(&'static str, Self); 5] = [
        ("largest", Self::Largest),
        ("all", Self::All),
        ("auto", Self::Auto),
        ("left", Self::Left),
        ("right", Self::Right),
    ];

    /// Whether other faces than one must be followed for it.
    pub fn needs_several(self) -> bool {
        self != Self::Largest
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        let known = Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, selector)| *selector);
        let track = || word.strip_prefix("track:")?.parse().ok().map(Self::Track);
        known.or_else(track).ok_or_else(|| {
            let words = Self::WORDS.map(|(name, _)| name).join(", ");
            Error::invalid(format!("`{word}` is none of {words} and track:N, N being the number of a face"))
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Self::Track(number) = self {
            return write!(f, "track:{number}");
        }
        let word = Self::WORDS.iter().find(|(_, selector)| selector == self).map_or("", |(name, _)| name);
        f.write_str(word)
    }
}

/// `speaker`.
pub fn property() -> glib::ParamSpec {
    glib::ParamSpecString::builder("speaker")
        .nick("Speaker")
        .blurb(
            "Which of several faces speak: largest (until it is gone or another is much larger), all, auto (the one whose own lips \
             follow the sound), left, right, or track:N, the face with that track-id; the others pass untouched",
        )
        .default_value(Some("largest"))
        .mutable_playing()
        .build()
}

/// The selector in a value of the property; unset is the default.
pub fn read(value: &glib::Value) -> Result<Selector, Error> {
    options::string(value).map_or(Ok(Selector::default()), |word| word.parse())
}

/// Says that a value of the property is none, which leaves the one before.
pub fn refuse(element: &impl IsA<gst::Element>, error: &Error) {
    gst::element_warning!(element, gst::LibraryError::Settings, ("property `speaker`: {error}"));
}

/// A face takes over from the chosen one when it has been the better one for so long: by so many times the area,
const HOLD: gst::ClockTime = gst::ClockTime::from_mseconds(500);
const MUCH_LARGER: f32 = 2.0;
/// or beyond it by this part of the chosen face's width.
const BEYOND: f32 = 0.25;

/// One that was heard is waited for while it is lost: so long the sound is taken for its own.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(3);

/// What is known of the faces of one stream, to choose those that speak.
#[derive(Debug, Default)]
pub struct Selection {
    selector: Selector,
    /// The one that speaks, where one does.
    chosen: Option<u64>,
    /// Faces that were there beside it: where a side is asked for, none of them takes its place while it is lost.
    beside: Vec<u64>,
    /// It was heard, and since when it is lost.
    heard: bool,
    lost: Option<gst::ClockTime>,
    /// One that is better, and since when.
    rival: Option<(u64, gst::ClockTime)>,
}

impl Selection {
    /// The faces of `faces` that speak in the frame of running time `time`, largest first. `heard` is the one whose lips follow
    /// the sound, where that is known.
    pub fn choose(
        &mut self,
        faces: &[Face],
        selector: Selector,
        heard: Option<u64>,
        time: gst::ClockTime,
    ) -> Vec<usize> {
        if self.selector != selector {
            *self = Self { selector, ..Self::default() };
        }
        if faces.is_empty() {
            self.rival = None;
            return Vec::new();
        }
        match selector {
            Selector::All => {
                let mut all: Vec<usize> = (0..faces.len()).collect();
                all.sort_by(|a, b| faces[*b].rect.area().total_cmp(&faces[*a].rect.area()));
                all
            }
            Selector::Track(number) => faces.iter().position(|face| face.track_id == number).into_iter().collect(),
            _ => self.one(faces, heard, time).into_iter().collect(),
        }
    }

    fn one(&mut self, faces: &[Face], heard: Option<u64>, time: gst::ClockTime) -> Option<usize> {
        let place = |track: u64| faces.iter().position(|face| face.track_id == track);
        if self.selector == Selector::Auto
            && let Some(speaks) = heard.and_then(place)
        {
            self.take(faces, speaks);
            self.heard = true;
            return Some(speaks);
        }
        let Some(current) = self.chosen.and_then(place) else {
            self.rival = None;
            self.beside.retain(|track| place(*track).is_some());
            let side = matches!(self.selector, Selector::Left | Selector::Right);
            let lost = *self.lost.get_or_insert(time);
            let side = side || (self.heard && time.saturating_sub(lost) < PATIENCE);
            let free = |face: &Face| !(side && self.beside.contains(&face.track_id));
            let first = self.best(faces, free)?;
            self.take(faces, first);
            return Some(first);
        };
        self.lost = None;
        self.beside = faces.iter().map(|face| face.track_id).filter(|track| Some(*track) != self.chosen).collect();
        let best = self.best(faces, |_| true)?;
        if !self.is_better(&faces[best], &faces[current]) {
            self.rival = None;
            return Some(current);
        }
        let rival = faces[best].track_id;
        let since =
            self.rival.filter(|(known, since)| *known == rival && *since <= time).map_or(time, |(_, since)| since);
        self.rival = Some((rival, since));
        if time.saturating_sub(since) < HOLD {
            return Some(current);
        }
        self.take(faces, best);
        Some(best)
    }

    fn take(&mut self, faces: &[Face], chosen: usize) {
        let track = faces[chosen].track_id;
        self.chosen = Some(track);
        (self.heard, self.lost, self.rival) = (false, None, None);
        self.beside = faces.iter().map(|face| face.track_id).filter(|other| *other != track).collect();
    }

    /// The best of those that may be.
    fn best(&self, faces: &[Face], may: impl Fn(&Face) -> bool) -> Option<usize> {
        let among = faces.iter().enumerate().filter(|(_, face)| may(face));
        let score = |face: &Face| match self.selector {
            Selector::Left => -middle(face),
            Selector::Right => middle(face),
            _ => face.rect.area(),
        };
        among.max_by(|(_, a), (_, b)| score(a).total_cmp(&score(b))).map(|(place, _)| place)
    }

    /// Whether `face` is better than the one that was chosen by more than moving heads make.
    fn is_better(&self, face: &Face, chosen: &Face) -> bool {
        let beyond = BEYOND * chosen.rect.width;
        match self.selector {
            Selector::Left => middle(face) < middle(chosen) - beyond,
            Selector::Right => middle(face) > middle(chosen) + beyond,
            // Who was heard last goes on until another is.
            Selector::Auto => false,
            _ => face.rect.area() > MUCH_LARGER * chosen.rect.area(),
        }
    }
}

fn middle(face: &Face) -> f32 {
    face.rect.x + face.rect.width / 2.0
}

#[cfg(test)]
mod tests {
    use lipstream_engines::geometry::Rect;

    use super::*;

    fn face(track_id: u64, x: f32, side: f32) -> Face {
        let rect = Rect { x, y: 0.0, width: side, height: side };
        Face { track_id, rect, points: [].into(), confidence: 1.0, yaw: 0.0, occluded: false, front: None }
    }

    fn ms(ms: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(ms)
    }

    /// The numbers of those that are chosen.
    fn chosen(selection: &mut Selection, selector: Selector, heard: Option<u64>, at: u64, faces: &[Face]) -> Vec<u64> {
        selection.choose(faces, selector, heard, ms(at)).into_iter().map(|place| faces[place].track_id).collect()
    }

    #[test]
    fn words_are_read_as_they_are_written_and_others_are_refused_with_those_that_there_are() {
        for word in ["largest", "all", "auto", "left", "right", "track:0", "track:18446744073709551615"] {
            assert_eq!(word.parse::<Selector>().unwrap().to_string(), word);
        }
        for word in ["", "track", "track:", "track:-1", "track:1.5", "Left", "middle"] {
            let refusal = word.parse::<Selector>().unwrap_err().to_string();
            assert!(refusal.contains("largest, all, auto, left, right and track:N"), "{refusal}");
        }
    }

    #[test]
    fn each_word_chooses_its_face_and_a_change_is_heeded_at_once() {
        let faces = [face(7, 200.0, 90.0), face(3, 10.0, 60.0), face(5, 400.0, 50.0)];
        let mut selection = Selection::default();
        for (selector, expected) in [
            (Selector::Largest, &[7][..]),
            (Selector::Left, &[3]),
            (Selector::Right, &[5]),
            (Selector::All, &[7, 3, 5]),
            (Selector::Track(3), &[3]),
            (Selector::Track(9), &[]),
            (Selector::Auto, &[7]),
        ] {
            assert_eq!(chosen(&mut selection, selector, None, 0, &faces), expected, "{selector}");
        }
        assert_eq!(chosen(&mut selection, Selector::Auto, Some(5), 0, &faces), [5]);
        assert_eq!(chosen(&mut selection, Selector::Auto, None, 40, &faces), [5], "it goes on until another is heard");
        assert_eq!(chosen(&mut selection, Selector::Auto, Some(99), 80, &faces), [5], "one that is not in the picture");
        // It looks away for a moment, and for longer.
        assert_eq!(chosen(&mut selection, Selector::Auto, None, 120, &faces[..2]), [0_u64; 0]);
        assert_eq!(chosen(&mut selection, Selector::Auto, None, 3080, &faces[..2]), [0_u64; 0]);
        assert_eq!(chosen(&mut selection, Selector::Auto, None, 3120, &faces[..2]), [7]);
    }

    #[test]
    fn the_largest_changes_for_one_that_is_twice_as_large_for_half_a_second() {
        let mut selection = Selection::default();
        let mut at = |ms: u64, first: f32, second: f32| {
            let faces = [face(1, 0.0, first), face(2, 200.0, second)];
            chosen(&mut selection, Selector::Largest, None, ms, &faces)
        };
        assert_eq!(at(0, 100.0, 90.0), [1]);
        assert_eq!(at(1000, 100.0, 130.0), [1], "larger, but not by so much");
        assert_eq!(at(2000, 100.0, 150.0), [1], "for a moment");
        assert_eq!(at(2480, 100.0, 150.0), [1]);
        assert_eq!(at(2500, 100.0, 150.0), [2]);
        assert_eq!(at(2540, 100.0, 90.0), [2]);
    }

    #[test]
    fn a_side_keeps_its_face_while_heads_pass_and_waits_for_one_that_is_lost() {
        let mut selection = Selection::default();
        let left = |selection: &mut Selection, ms, faces: &[Face]| chosen(selection, Selector::Left, None, ms, faces);
        assert_eq!(left(&mut selection, 0, &[face(1, 0.0, 100.0), face(2, 200.0, 100.0)]), [1]);
        // The other one leans over for a moment.
        assert_eq!(left(&mut selection, 40, &[face(1, 60.0, 100.0), face(2, 0.0, 100.0)]), [1]);
        assert_eq!(left(&mut selection, 80, &[face(1, 0.0, 100.0), face(2, 200.0, 100.0)]), [1]);
        // It is lost: the one beside it is not left for that, a new one is.
        assert_eq!(left(&mut selection, 120, &[face(2, 200.0, 100.0)]), [0_u64; 0]);
        assert_eq!(left(&mut selection, 160, &[face(1, 0.0, 100.0), face(2, 200.0, 100.0)]), [1]);
        assert_eq!(left(&mut selection, 200, &[face(2, 200.0, 100.0)]), [0_u64; 0]);
        assert_eq!(left(&mut selection, 240, &[face(2, 200.0, 100.0), face(4, 20.0, 90.0)]), [4]);
        assert_eq!(left(&mut selection, 250, &[]), [0_u64; 0]);
        assert_eq!(
            left(&mut selection, 260, &[face(2, 200.0, 100.0)]),
            [0_u64; 0],
            "nobody is left of it, and it is not the left one"
        );
        // A cut: nobody of before is there.
        assert_eq!(left(&mut selection, 280, &[face(8, 200.0, 100.0)]), [8]);
    }
}
