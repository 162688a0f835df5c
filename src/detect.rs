//! `lipstream detect`: whether a video carries the invisible mark, and where.
//!
//! The faces of the file are followed as `lipstream eval` does, on a grid of 25 frames a second, and what is seen of each is judged in
//! stretches of [`WINDOW`] that overlap by half, and as a whole. `docs/provenance.md` says how far that can be relied on.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use lipstream_engines::{
    runtime, tracker,
    watermark::{self, Evidence, Key, Reader},
};
use serde::Serialize;

use crate::{
    error::Result,
    eval::frames::Grid,
    media::{Notice, Notices},
    render::gather::Watcher,
};

/// Steps of the grid a second.
const RATE: usize = 25;
/// Stretch that is judged at a time, and from one to the next, in steps.
const WINDOW: usize = 5 * RATE;
const HOP: usize = WINDOW / 2;
/// Fewer steps with a face cannot be judged.
const LEAST: usize = 2 * RATE;
/// A file is marked where so much or less would come of chance.
const SURE: f64 = 1e-6;
/// A stretch of a file that is marked is too where chance gives so much or less.
const LIKELY: f64 = 1e-3;
/// Faces that are followed at once.
const FACES: usize = 3;
/// The first number of the keys that nobody uses.
const OTHERS: u64 = 1_000_000;

pub struct Options {
    pub video: PathBuf,
    /// Keys that nobody uses, sought as well.
    pub other_keys: u16,
    pub runtime: runtime::Options,
    pub notices: Notices,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Marked,
    NotMarked,
    CannotTell,
}

/// What was found in a file.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// Why it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The best of a stretch or of a whole face, in deviations of what chance gives.
    pub score: f64,
    /// The most likely that a file without the mark, as long as this one, scores so high.
    pub false_alarm: f64,
    /// Of the file, of those in which a face was large enough, and of those in which the mark was found.
    pub seconds: f64,
    pub face_seconds: f64,
    pub marked_seconds: f64,
    /// From and to, in seconds of the file.
    pub marked: Vec<[f64; 2]>,
    /// All stretches that were judged.
    pub stretches: Vec<Stretch>,
    /// The best score of a stretch by each key that nobody uses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_keys: Vec<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stretch {
    /// Seconds of the file.
    pub from: f64,
    pub to: f64,
    pub score: f64,
}

/// What was read of one face: the step of each frame and, of each key, what it says.
struct Followed {
    reader: Reader,
    steps: Vec<usize>,
    tiles: Vec<Vec<watermark::Tiles>>,
}

impl Followed {
    fn judge(&self, keys: &[Key], key: usize, steps: std::ops::Range<usize>) -> Evidence {
        let within = self.steps.partition_point(|s| *s < steps.start)..self.steps.partition_point(|s| *s < steps.end);
        let frames = self.steps[within.clone()].iter().zip(&self.tiles[within]);
        watermark::judge(&keys[key], frames.map(|(step, tiles)| (*step, &tiles[key])))
    }

    /// Stretches with enough frames to be judged.
    fn windows(&self) -> Vec<std::ops::Range<usize>> {
        let (Some(first), Some(last)) = (self.steps.first(), self.steps.last()) else { return Vec::new() };
        let count = |steps: &std::ops::Range<usize>| {
            self.steps.partition_point(|s| *s < steps.end) - self.steps.partition_point(|s| *s < steps.start)
        };
        let starts = (*first..(last + 1).saturating_sub(HOP).max(first + 1)).step_by(HOP);
        starts.map(|start| start..(start + WINDOW).min(last + 1)).filter(|steps| count(steps) >= LEAST).collect()
    }
}

/// Looks for the mark. Errors: what cannot be decoded, an engine that fails.
pub fn detect(options: &Options) -> Result<Finding> {
    let numbers = std::iter::once(Key::PUBLISHED).chain((0..options.other_keys).map(|i| OTHERS + u64::from(i)));
    let keys: Vec<Key> = numbers.map(Key::new).collect();
    let fresh = Reader::new(&keys);
    let mut watcher = Watcher::new(options.runtime, FACES)?;
    let mut grid = Grid::open(&options.video, &options.notices)?;
    let mut faces: BTreeMap<u64, Followed> = BTreeMap::new();
    let (mut step, mut seen, mut small) = (0, false, false);
    while let Some((sample, new)) = grid.next()? {
        step += 1;
        if !new {
            continue;
        }
        watcher.watch(&sample, |frame, found| {
            for face in found {
                let Some(place) = tracker::place(&face.points) else { continue };
                seen = true;
                let followed = faces.entry(face.track_id).or_insert_with(|| Followed {
                    reader: fresh.another(),
                    steps: Vec::new(),
                    tiles: Vec::new(),
                });
                match followed.reader.look(frame, &place) {
                    Some(tiles) => {
                        followed.steps.push(step - 1);
                        followed.tiles.push(tiles);
                    }
                    None => small = true,
                }
            }
            Ok(())
        })?;
    }
    let reason = match (seen, small) {
        (false, _) => "no face in the whole file",
        (true, true) => "the faces are too small, or seen for less than 2 seconds",
        (true, false) => "no face is seen for 2 seconds",
    };
    let mut finding = sum_up(&keys, &faces, step);
    finding.reason = (finding.verdict == Verdict::CannotTell).then_some(reason);
    finding.notices = options.notices.list();
    Ok(finding)
}

fn sum_up(keys: &[Key], faces: &BTreeMap<u64, Followed>, steps: usize) -> Finding {
    let seconds = |steps: usize| steps as f64 / RATE as f64;
    let judged: Vec<_> = faces.values().map(|face| (face, face.windows())).filter(|(_, w)| !w.is_empty()).collect();
    // Every stretch is a try, and every face as a whole.
    let tries = judged.iter().map(|(_, windows)| windows.len() + 1).sum();
    let mut best = Evidence::default();
    let mut stretches = Vec::new();
    for (face, windows) in &judged {
        let whole = face.judge(keys, 0, 0..usize::MAX);
        best = if whole.score > best.score { whole } else { best };
        for steps in windows {
            let found = face.judge(keys, 0, steps.clone());
            best = if found.score > best.score { found } else { best };
            stretches.push((Stretch { from: seconds(steps.start), to: seconds(steps.end), score: found.score }, found));
        }
    }
    stretches.sort_by(|a, b| a.0.from.total_cmp(&b.0.from));
    let false_alarm = best.false_alarm(tries);
    let verdict = match false_alarm <= SURE {
        _ if judged.is_empty() => Verdict::CannotTell,
        true => Verdict::Marked,
        false => Verdict::NotMarked,
    };
    let mut marked: Vec<[f64; 2]> = Vec::new();
    for (stretch, found) in &stretches {
        if verdict != Verdict::Marked || found.false_alarm(tries) > LIKELY {
            continue;
        }
        match marked.last_mut() {
            Some(last) if last[1] >= stretch.from => last[1] = last[1].max(stretch.to),
            _ => marked.push([stretch.from, stretch.to]),
        }
    }
    let other = |key: usize| {
        let scores = judged
            .iter()
            .flat_map(|(face, windows)| windows.iter().map(move |w| face.judge(keys, key, w.clone()).score));
        scores.fold(0.0, f64::max)
    };
    let mut with_face: Vec<usize> = judged.iter().flat_map(|(face, _)| face.steps.iter().copied()).collect();
    with_face.sort_unstable();
    with_face.dedup();
    Finding {
        verdict,
        reason: None,
        score: best.score,
        false_alarm: if judged.is_empty() { 1.0 } else { false_alarm },
        seconds: seconds(steps),
        face_seconds: seconds(with_face.len()),
        marked_seconds: marked.iter().map(|[from, to]| to - from).sum(),
        marked,
        stretches: stretches.into_iter().map(|(stretch, _)| stretch).collect(),
        other_keys: (1..keys.len()).map(other).collect(),
        notices: Vec::new(),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Marked => "marked",
            Verdict::NotMarked => "not marked",
            Verdict::CannotTell => "cannot tell",
        };
        writeln!(f, "{verdict}")?;
        writeln!(f, "score        {:.1}", self.score)?;
        writeln!(f, "false alarm  {:.1e}", self.false_alarm)?;
        writeln!(f, "face         {:.1} of {:.1} s", self.face_seconds, self.seconds)?;
        if self.verdict == Verdict::Marked {
            let spans: Vec<_> = self.marked.iter().map(|[from, to]| format!("{from:.1}-{to:.1} s")).collect();
            let spans = if spans.is_empty() { "only over the whole".to_owned() } else { spans.join(", ") };
            writeln!(f, "found in     {spans}")?;
        }
        match self.other_keys.iter().copied().reduce(f64::max) {
            Some(most) => writeln!(f, "other keys   {} score {most:.1} at most", self.other_keys.len()),
            None => Ok(()),
        }
    }
}
