//! One pass over the video: where the person's landmarks are, and pictures of the mouth.

use std::path::Path;

use gst::ClockTime;
use lipstream_engines::{
    bank::{BankConfig, ReferenceBank, shows_mouth},
    engine::{Engine as _, compact::Compact},
    geometry::{Point, Rect},
    tracker::Face,
};

use super::{Options, shown};
use crate::{
    error::{Failure, Result},
    eval::frames::running_time,
    media::{Media, Reader},
    render::{Watch, gather::Watcher, progress::Progress},
};

/// Frames that are looked at, at most: three minutes at 25 a second.
const FRAMES: usize = 4500;
/// Stretches that a longer video is sampled in.
const STRETCHES: u64 = 12;
/// Mouths that differ by so much get a picture each, in parts of the crop's side.
const SPACING: f32 = 0.003;
/// Frames that come faster than this are passed over, in seconds: 31 a second.
const STEP: f64 = 0.0322;
/// Faces that are looked for.
const PEOPLE: usize = 2;
/// A second face so wide against the first, in so many of the frames, is a second person.
const OTHER_WIDTH: f32 = 0.5;
const OTHERS: f64 = 0.1;
/// Overlap of a face that appears with where the person was last, from which on it is the person.
const SAME_PLACE: f32 = 0.3;
/// A gap of so many seconds begins another stretch.
const GAP: f64 = 0.5;
/// Fewest frames with the face: two seconds.
const FEWEST: usize = 50;

/// The person in one frame.
pub struct Observation {
    /// Since the video's first frame, in seconds.
    pub time: f64,
    /// `[111]`, frame pixels.
    pub points: Vec<Point>,
    /// Whether the mouth can be seen well enough to learn from it.
    pub clear: bool,
}

/// What was seen of the person.
pub struct Observed {
    pub bank: ReferenceBank,
    /// Frames in the order of time, those after a gap in another stretch.
    pub stretches: Vec<Vec<Observation>>,
    /// Running time of the first frame in seconds.
    pub start: f64,
    pub frames: usize,
    pub seconds: f64,
}

impl Observed {
    pub fn faces(&self) -> usize {
        self.stretches.iter().map(Vec::len).sum()
    }
}

struct Observer {
    watcher: Watcher,
    bank: ReferenceBank,
    stretches: Vec<Vec<Observation>>,
    /// Running and stream time of the first frame.
    start: Option<(f64, f64)>,
    /// Time of the last frame that was looked at.
    last: f64,
    /// Where the person was last, and their track.
    place: Option<(Rect, u64)>,
    frames: usize,
    seconds: f64,
    /// Frames that show somebody else.
    others: usize,
    progress: Progress,
}

/// Follows the one person of a video.
pub fn watch(options: &Options, engine: &Compact) -> Result<Observed> {
    let spec = engine.spec();
    let config = BankConfig { capacity: options.references, side: spec.crop, alignment: spec.alignment.clone() };
    let mut reader = Reader::open(&options.video, Media::Video, &options.notices)?;
    let length = reader.duration().unwrap_or_default();
    let expected = ((length.nseconds() as f64 * 25e-9) as usize).min(FRAMES);
    let progress = Progress::start(
        "look at the person",
        (expected > 0).then_some(expected as u64),
        options.quiet,
        &Watch::default(),
        0.0..1.0,
    );
    let mut bank = ReferenceBank::new(config);
    bank.set_spacing(SPACING);
    let mut look = Observer {
        watcher: Watcher::new(options.runtime, PEOPLE)?,
        bank,
        stretches: vec![Vec::new()],
        start: None,
        last: f64::NEG_INFINITY,
        place: None,
        frames: 0,
        seconds: 0.0,
        others: 0,
        progress,
    };
    // Stretches that would meet are the whole.
    if length.nseconds() as f64 * 1e-9 < FRAMES as f64 / 25.0 * 1.2 {
        look.stretch(&mut reader, FRAMES)?;
    } else {
        for i in 0..STRETCHES {
            let position = ClockTime::from_nseconds(length.nseconds() / STRETCHES * i);
            if i > 0 && !reader.seek(position) {
                look.stretch(&mut reader, FRAMES - look.frames)?;
                break;
            }
            look.stretch(&mut reader, FRAMES / STRETCHES as usize)?;
        }
    }
    look.finish(&options.video)
}

impl Observer {
    fn stretch(&mut self, reader: &mut Reader, frames: usize) -> Result<()> {
        let end = self.frames + frames;
        while self.frames < end {
            let Some(sample) = reader.next_sample()? else { break };
            self.frame(&sample)?;
        }
        Ok(())
    }

    fn frame(&mut self, sample: &gst::Sample) -> Result<()> {
        let place = stream_time(sample).unwrap_or(self.frames as f64 / 25.0);
        let (_, first) = *self.start.get_or_insert((running_time(sample).unwrap_or_default(), place));
        let time = place - first;
        let step = time - self.last;
        if (0.0..STEP).contains(&step) {
            return Ok(());
        }
        if !(0.0..GAP).contains(&step) {
            self.stretches.push(Vec::new());
        } else {
            self.seconds += step;
        }
        self.last = time;
        self.frames += 1;
        let position = sample.buffer().and_then(gst::BufferRef::pts).map(Into::into);
        let Self { watcher, bank, place, others, stretches, .. } = self;
        watcher.watch(sample, |frame, faces| {
            let person = person(&faces, *place);
            let second = faces.iter().filter(|f| person.is_none_or(|p| p.track_id != f.track_id));
            let wide = person.or(faces.first()).map_or(0.0, |p| p.rect.width * OTHER_WIDTH);
            *others += usize::from(second.clone().any(|f| f.rect.width >= wide));
            let Some(face) = person else { return Ok(()) };
            if bank.track().is_some_and(|track| track != face.track_id) {
                bank.bind(face.track_id);
            }
            *place = Some((face.rect, face.track_id));
            bank.observe(frame, face, position)?;
            let moments = stretches.last_mut().expect("there is one from the start");
            moments.push(Observation { time, points: face.points.to_vec(), clear: shows_mouth(face) });
            Ok(())
        })?;
        self.progress.at(self.frames as u64);
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<Observed> {
        let Self { bank, stretches, start, frames, seconds, others, progress, .. } = self;
        progress.finish();
        let path = shown(path);
        let seen = Observed { bank, stretches, start: start.unwrap_or_default().0, frames, seconds };
        let faces = seen.faces();
        if faces == 0 {
            return Err(Failure::input(format!("{path}: no face was found; film the person from the front")));
        }
        if others as f64 > OTHERS * faces as f64 {
            return Err(Failure::input(format!("{path}: several people are seen; cut a part with one person alone")));
        }
        if faces < FEWEST {
            let cure = "two seconds are the least, minutes are better";
            return Err(Failure::input(format!("{path}: the face is seen in {faces} frames; {cure}")));
        }
        if seen.bank.references().is_empty() {
            let cure = "film it from the front, with nothing before the mouth";
            return Err(Failure::input(format!("{path}: the mouth is never seen clearly; {cure}")));
        }
        Ok(seen)
    }
}

/// The place of a sample in its file in seconds, which seeking does not change.
fn stream_time(sample: &gst::Sample) -> Option<f64> {
    let pts = sample.buffer()?.pts()?;
    let time = sample.segment()?.downcast_ref::<ClockTime>()?.to_stream_time(pts)?;
    Some(time.nseconds() as f64 * 1e-9)
}

/// The person among the faces: who was followed, else who stands where they stood, at first the largest.
fn person(faces: &[Face], place: Option<(Rect, u64)>) -> Option<&Face> {
    let Some((place, track)) = place else { return faces.first() };
    let followed = faces.iter().find(|face| face.track_id == track);
    followed.or_else(|| faces.iter().find(|face| face.rect.iou(&place) > SAME_PLACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(track_id: u64, x: f32) -> Face {
        let rect = Rect { x, y: 0.0, width: 100.0, height: 100.0 };
        Face { track_id, rect, points: [].into(), confidence: 1.0, yaw: 0.0, occluded: false, front: None }
    }

    #[test]
    fn the_person_is_who_was_followed_or_stands_where_they_stood() {
        let faces = [face(7, 300.0), face(8, 20.0)];
        let found = |place: Option<(f32, u64)>| {
            person(&faces, place.map(|(x, track)| (face(0, x).rect, track))).map(|f| f.track_id)
        };
        assert_eq!(found(None), Some(7));
        assert_eq!(found(Some((300.0, 8))), Some(8));
        assert_eq!(found(Some((0.0, 1))), Some(8));
        assert_eq!(found(Some((150.0, 1))), None);
    }
}
