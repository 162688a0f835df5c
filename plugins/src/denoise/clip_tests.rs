//! Frames of an engine that makes them in clips, through a speaker.

#[path = "../../../engines/tests/common/fake.rs"]
mod fake;

use std::{sync::Arc, time::Duration};

use fake::Fake;
use lipstream_engines::{
    Error, Result,
    engine::{Actor, Asked, Clip, Identity, Moment, Noise, Patch, Scene, Shown, Spec, Stage, StageKind, Work, Worker},
    geometry::{Point, Rect, Similarity},
    image::{ColorSpace, Crop},
    runtime::Tensor,
    tracker::Face,
};
use parking_lot::Mutex;

use super::{
    frame::{Finished, Frame, Left, Mouth, Plan, RenderSettings},
    properties::Settings,
    speaker::{Loaded, Said, Speaker},
    stats::DenoiseCounters,
};

const HOP: usize = 3;
const VALUE: &str = "value";

/// Rows of the clips that were run.
type Seen = Arc<Mutex<Vec<Vec<f32>>>>;

/// Adds 100 to every row, and fails where one is negative.
struct Adding(Seen);

impl Stage for Adding {
    fn kind(&self) -> StageKind {
        StageKind::Forward
    }
    fn inputs(&self) -> &[&'static str] {
        &[VALUE]
    }
    fn sizes(&self) -> &[usize] {
        &[HOP + 1]
    }
    fn run(&self, batch: &mut [Work]) -> Result<()> {
        for work in batch {
            let mut value = work.take(VALUE)?;
            self.0.lock().push(value.data.clone());
            if value.data.iter().any(|v| *v < 0.0) {
                return Err(Error::invalid("the model broke"));
            }
            value.data.iter_mut().for_each(|v| *v += 100.0);
            work.put(VALUE, value);
        }
        Ok(())
    }
}

/// A clip is the last frame of the clip before and what was gathered.
struct Gathering {
    frames: Vec<f32>,
    last: Option<f32>,
}

fn rows(data: Vec<f32>) -> Tensor {
    Tensor { shape: vec![data.len(), 1], data }
}

impl Actor for Gathering {
    fn ask(&mut self, moment: &Moment) -> Result<Asked> {
        self.frames.push(moment.audio[0]);
        Ok(Asked::Gathered)
    }
    fn close(&mut self) -> Result<Option<Work>> {
        let own = std::mem::take(&mut self.frames);
        let count = own.len();
        let all: Vec<f32> = self.last.into_iter().chain(own).collect();
        let mut work = Work::new(Noise::default()).with(VALUE, rows(all)).remembering(count);
        work.pass(0);
        Ok((count > 0).then_some(work))
    }
    fn parts(&mut self, mut work: Work) -> Result<Vec<Work>> {
        let count = *work.remembered::<usize>().expect("what was kept");
        let all = work.take(VALUE)?.data;
        self.last = all.last().copied();
        let own = all[all.len() - count..].iter();
        Ok(own.map(|v| Work::new(Noise::default()).with(VALUE, rows(vec![*v]))).collect())
    }
    fn show(&mut self, mut work: Work, _: &Scene) -> Result<Shown> {
        let value = work.take(VALUE)?.data[0];
        let pixels = Crop { side: 1, space: ColorSpace::Rgb, data: vec![value as u8; 3] };
        let to_frame = Similarity { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 };
        Ok(Shown::Patch(Patch { pixels: pixels.into(), mask: vec![255].into(), to_frame, opacity: 1.0, hard: false }))
    }
    fn hold(&self, _: &Face) -> Option<Patch> {
        None
    }
    fn forget(&mut self) {}
}

/// A speaker and what the stage saw of it.
struct Rig {
    speaker: Speaker,
    seen: Seen,
    info: gst_video::VideoInfo,
    frames: u64,
}

impl Rig {
    fn new() -> Self {
        gst::init().unwrap();
        let clip = Clip { frames: HOP + 1, hop: HOP };
        let spec = Spec { steps: None, clip, crop: 64, ..fake::spec() };
        let seen = Seen::default();
        let engine = Arc::new(Fake {
            spec,
            stages: vec![Box::new(Adding(seen.clone()))],
            actor: Some(|| Box::new(Gathering { frames: Vec::new(), last: None })),
        });
        let worker = Arc::new(Worker::start(engine, 1, Duration::ZERO, 16));
        let settings = Settings { fade: gst::ClockTime::ZERO, ..Settings::default() };
        let speaker = Speaker::new(Loaded::with(worker, &settings).unwrap(), &settings, Arc::default());
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 64, 64).build().unwrap();
        Self { speaker, seen, info, frames: 0 }
    }

    fn face(&self, track_id: u64) -> Face {
        let rect = Rect { x: 10.0, y: 10.0, width: 40.0, height: 40.0 };
        let points = vec![Point::new(30.0, 30.0); lipstream_engines::geometry::landmarks::COUNT].into();
        Face { track_id, rect, points, confidence: 1.0, yaw: 0.0, occluded: false, front: None }
    }

    /// A frame of the face `track_id` that says `value`.
    fn frame(&mut self, track_id: u64, value: f32) -> Frame {
        let face = self.face(track_id);
        self.speaker.take_up(track_id);
        let (info, interrupts) = (self.info.clone(), self.speaker.interrupts);
        let buffer = gst::Buffer::with_size(info.size()).unwrap();
        let identity: Identity = Arc::new(());
        let said = Said { face: &face, later: Vec::new(), identity, features: &[value] };
        let plan = self.speaker.submit(&buffer, &info, said, None).unwrap();
        self.frames += 1;
        let time = Some(gst::ClockTime::from_mseconds(40 * self.frames));
        let mouth = Mouth { speaker: 0, face, wanted: true, since: None, cut: false, turned: false, plan };
        Frame { buffer, time, presence: 1.0, heard: None, interrupts, mouths: vec![mouth], why: None }
    }

    fn finish(&mut self, mut frame: Frame) -> Result<Finished> {
        let render = RenderSettings { gain: 1.0, gap: Duration::ZERO };
        let mut mouth = frame.mouths.remove(0);
        self.speaker.finish(&mut mouth, &frame, None, render, &DenoiseCounters::default())
    }

    /// What a frame shows.
    fn shows(&mut self, frame: Frame) -> Option<u8> {
        self.finish(frame).unwrap().patch.map(|patch| patch.pixels.crop().unwrap().data[0])
    }
}

#[test]
fn frames_of_a_clip_leave_one_by_one_and_the_next_clip_continues_it() {
    let mut rig = Rig::new();
    let frames: Vec<Frame> = (1..=7).map(|v| rig.frame(1, v as f32)).collect();
    assert_eq!(frames.iter().filter(|f| matches!(f.mouths[0].plan, Plan::Made { .. })).count(), 7);
    let shown: Vec<_> = frames.into_iter().map(|frame| rig.shows(frame)).collect();
    assert_eq!(shown, (101..=107).map(Some).collect::<Vec<_>>());
    // The last one waited for no others: nothing comes after it.
    assert_eq!(*rig.seen.lock(), [vec![1.0, 2.0, 3.0], vec![103.0, 4.0, 5.0, 6.0], vec![106.0, 7.0]]);
}

#[test]
fn another_person_begins_a_clip_of_its_own() {
    let mut rig = Rig::new();
    let frames = [rig.frame(1, 1.0), rig.frame(1, 2.0), rig.frame(2, 3.0)];
    let shown = frames.map(|frame| rig.shows(frame));
    assert_eq!(shown, [Some(101), Some(102), Some(103)]);
    assert_eq!(rig.seen.lock()[0], [1.0, 2.0]);
}

#[test]
fn a_flush_and_an_interrupt_end_a_clip_that_is_not_sent() {
    let mut rig = Rig::new();
    drop([rig.frame(1, 1.0), rig.frame(1, 2.0)]);
    rig.speaker.flush();
    let said = [rig.frame(1, 3.0), rig.frame(1, 4.0)];
    rig.speaker.heed(1);
    let next: Vec<Frame> = (5..=7).map(|v| rig.frame(1, v as f32)).collect();
    for frame in said {
        let Finished { patch, left, .. } = rig.finish(frame).unwrap();
        assert!(patch.is_none() && left == Left::Untouched(None), "{left:?}");
    }
    let shown: Vec<_> = next.into_iter().map(|frame| rig.shows(frame)).collect();
    assert_eq!(shown, [Some(105), Some(106), Some(107)]);
    assert_eq!(*rig.seen.lock(), [vec![5.0, 6.0, 7.0]]);
}

#[test]
fn a_clip_that_fails_says_why_to_each_of_its_frames() {
    let mut rig = Rig::new();
    let frames: Vec<Frame> = [1.0, -1.0, 3.0].map(|v| rig.frame(1, v)).into();
    for frame in frames {
        let Err(error) = rig.finish(frame) else { panic!("made") };
        assert!(error.to_string().contains("the model broke"), "{error}");
    }
}

#[test]
fn hops_are_held_while_they_gather_and_while_they_are_computed() {
    assert_eq!((Clip::SINGLE.held(), Clip { frames: 16, hop: 4 }.held()), (0, 7));
}
