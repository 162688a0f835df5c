//! One stream of a moving face through an engine of single frames.

use std::time::Duration;

use lipstream_engines::{
    engine::{Actor, Asked, Identity, Moment, Patch, Sampling, Scene, Shown, complete},
    image::paste,
    tracker::Face,
};

use super::*;

/// What engines of a family are shown, and what they make.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The face of frame `i`, over the lower right corner at last.
    pub face: fn(usize) -> Face,
    /// The tensor that the last stage makes.
    pub made: &'static str,
}

pub struct Stream {
    engine: Arc<dyn Engine>,
    actor: Box<dyn Actor>,
    format: Format,
    kind: Kind,
    pub frame: usize,
}

impl Stream {
    pub fn new(engine: &Arc<dyn Engine>, format: Format, kind: Kind) -> Self {
        let actor = engine.clone().actor(5, &Sampling::default()).unwrap();
        Self { engine: engine.clone(), actor, format, kind, frame: 0 }
    }

    fn face(&self) -> Face {
        (self.kind.face)(self.frame)
    }

    pub fn picture(&self) -> Picture {
        picture(self.format, 0.4 * self.frame as f32)
    }

    pub fn ask(&mut self) -> Asked {
        let (face, picture, identity): (_, _, Identity) = (self.face(), self.picture(), Arc::new(()));
        let audio = sound(&*self.engine, self.frame);
        let moment = Moment { face: &face, later: &[], identity: &identity, audio: &audio, frame: &picture.view() };
        self.actor.ask(&moment).unwrap()
    }

    pub fn asked(&mut self) -> Work {
        let Asked::Work(work) = self.ask() else { panic!("work") };
        work
    }

    pub fn show(&mut self, work: Work) -> Shown {
        let (identity, face): (Identity, Face) = (Arc::new(()), self.face());
        let scene = Scene { face: &face, identity: &identity, gain: 1.0, time: None, gap: Duration::ZERO };
        self.actor.show(work, &scene).unwrap()
    }

    pub fn shown(&mut self, work: Work) -> Patch {
        let Shown::Patch(patch) = self.show(work) else { panic!("a patch") };
        patch
    }

    /// The frame with the mouth of finished work; then the stream goes on to the next.
    pub fn pasted(&mut self, work: Work) -> Picture {
        let (patch, mut picture) = (self.shown(work), self.picture());
        let before = picture.clone();
        assert!(paste(&mut picture.frame(), &patch).unwrap().pixels > 1000 && picture.planes != before.planes);
        self.frame += 1;
        picture
    }

    /// What the engine made of a frame, and the frame with it.
    pub fn next(&mut self) -> (Vec<f32>, Picture) {
        let mut work = self.asked();
        complete(&*self.engine, &mut work).unwrap();
        (made(&work, self.kind.made), self.pasted(work))
    }

    /// What is held of a frame where the next one stands still, faded, and the frame with it; then nothing is held any more.
    pub fn held(&mut self) -> (Patch, Picture) {
        drop(self.next());
        let held = self.actor.hold(&self.face()).unwrap();
        let mut picture = self.picture();
        paste(&mut picture.frame(), &Patch { opacity: 0.4, ..held.clone() }).unwrap();
        self.actor.forget();
        assert!(self.actor.hold(&self.face()).is_none());
        (held, picture)
    }
}

/// Frames of a stream in the memory of a device beside those of the processor.
pub fn alike((here, there, _): &Both, kind: Kind, formats: &[Format], frames: usize) {
    for format in formats {
        let (mut own, mut other) = (Stream::new(here, *format, kind), Stream::new(there, *format, kind));
        for i in 0..frames {
            let ((wanted, frame_here), (found, frame_there)) = (own.next(), other.next());
            let (distance, (most, some)) = (apart(&wanted, &found), differ(&frame_here, &frame_there));
            println!("{format:?} frame {i}: {} {distance:.1e}, {most} of 255 at most, in {some} values", kind.made);
            assert!(distance < NEAR && most <= 1, "{format:?} frame {i}: {distance} {most}");
        }
    }
}
