use std::time::Duration;

use lipstream_engines::{
    bank::{BankConfig, ReferenceBank},
    engine::{self, Actor, Identity, Noise, Patch, Sampling, Scene, Shown, compact::Compact, complete},
    geometry::Point,
    image::paste,
    manifest::Package,
    runtime::Tensor,
    tracker::Face,
};

use super::*;

fn both(name: &str) -> Both {
    let (package, memory) = (Package::find(name).unwrap(), host());
    let there = Compact::load_in(&package, &cpu(), Arc::clone(&memory) as Arc<dyn Memory>).unwrap();
    (engine::load(&package, &cpu()).unwrap(), Arc::new(there), memory)
}

fn face(engine: &Arc<dyn Engine>, side: f32, open: f32, shift: f32) -> Face {
    faces::level(&**engine, Point::new(60.3 + shift, 20.6), side, open)
}

/// One stream of a moving face.
struct Stream {
    engine: Arc<dyn Engine>,
    actor: Box<dyn Actor>,
    identity: Identity,
    format: Format,
    frame: usize,
}

impl Stream {
    fn new(engine: &Arc<dyn Engine>, format: Format) -> Self {
        let spec = engine.spec();
        let mut bank =
            ReferenceBank::new(BankConfig { capacity: 8, side: spec.crop, alignment: spec.alignment.clone() });
        for open in [0.0, 0.04, 0.08] {
            // The second look confirms a shape that is far from the one before.
            for _ in 0..2 {
                bank.observe(&picture(format, 900.0 * open).view(), &face(engine, 200.0, open, 0.0), None).unwrap();
            }
        }
        assert_eq!(bank.references().len(), 3);
        let identity = engine.prepare(&bank).unwrap();
        let actor = engine.clone().actor(0, &Sampling::default()).unwrap();
        Self { engine: engine.clone(), actor, identity, format, frame: 0 }
    }

    /// What is shown of work, or what has to be done first.
    fn shown(&mut self, work: Work) -> Result<Patch, Box<Work>> {
        // Over the right edge at last.
        let face = face(&self.engine, 200.0, 0.02, 17.3 * self.frame as f32);
        let time = Some(Duration::from_millis(40 * self.frame as u64));
        let scene = Scene { face: &face, identity: &self.identity, gain: 1.0, time, gap: Duration::ZERO };
        match self.actor.show(work, &scene).unwrap() {
            Shown::Patch(patch) => Ok(patch),
            Shown::More(work) => Err(work.into()),
            Shown::Nothing => panic!("a patch"),
        }
    }

    /// The work of a mouth that opens and shuts.
    fn begun(&mut self) -> Work {
        let width = 12;
        let mut latent = vec![0.0; width];
        latent[0] = 1.5 * (self.frame as f32 * 1.7).sin();
        let work = Work::new(Noise::default()).with(LATENT, Tensor { shape: vec![1, width], data: latent });
        *self.shown(work).unwrap_err()
    }

    /// The frame with the mouth of work that was refined; then the stream goes on to the next.
    fn pasted(&mut self, work: Work) -> Picture {
        let patch = self.shown(work).unwrap_or_else(|_| panic!("a patch"));
        let mut frame = picture(self.format, 0.4 * self.frame as f32);
        let before = frame.clone();
        assert!(paste(&mut frame.frame(), &patch).unwrap().pixels > 1000 && frame.planes != before.planes);
        self.frame += 1;
        frame
    }

    fn next(&mut self) -> Picture {
        let mut work = self.begun();
        complete(&*self.engine, &mut work).unwrap();
        self.pasted(work)
    }
}

#[test]
fn mouths_in_the_memory_of_a_device_are_those_of_the_processor_in_all_formats() {
    for (name, formats, frames) in
        [("compact", &FORMATS[..], 6), ("compact-words", &FORMATS[..1], 3), ("compact-hd", &FORMATS[2..], 2)]
    {
        let (here, there, _) = both(name);
        there.stages().iter().for_each(|stage| stage.warm_up().unwrap());
        for format in formats {
            let (mut own, mut other) = (Stream::new(&here, *format), Stream::new(&there, *format));
            for i in 0..frames {
                let (most, some) = differ(&own.next(), &other.next());
                println!("{name} {format:?} frame {i}: {most} of 255 at most, in {some} values");
                assert!(most <= 1, "{name} {format:?} frame {i}: {most}");
            }
        }
    }
}

#[test]
fn streams_are_refined_in_one_batch_and_references_travel_once() {
    let (here, there, memory) = both("compact");
    let mut streams = [Format::Nv12, Format::Rgba].map(|format| Stream::new(&there, format));
    let mut alone = [Format::Nv12, Format::Rgba].map(|format| Stream::new(&here, format));
    for _ in 0..3 {
        let mut works: Vec<Work> = streams.iter_mut().map(Stream::begun).collect();
        there.stages()[1].run(&mut works).unwrap();
        advance(&mut works);
        for ((work, stream), alone) in works.into_iter().zip(&mut streams).zip(&mut alone) {
            assert!(differ(&alone.next(), &stream.pasted(work)).0 <= 1);
        }
    }
    // The frames of before again, all of whose references are there: regions, masks, splines and outlines travel.
    let [stream, _] = &mut streams;
    stream.frame = 0;
    (0..3).for_each(|_| drop(stream.next()));
    let before = memory.device().asked();
    stream.frame = 0;
    (0..3).for_each(|_| drop(stream.next()));
    let after = memory.device().asked();
    assert_eq!(after.allocations, before.allocations, "{before:?} {after:?}");
    let (mask, region, reference) = (256 * 256, 210 * 210 * 3 / 2, 256 * 256 * 3);
    let (up, down) = (after.uploaded - before.uploaded, after.downloaded - before.downloaded);
    assert!(up > 3 * mask && up < 3 * (mask + region + reference / 4), "{up}");
    assert!(down < 3 * (region + 256), "{down}");
    // What was shown last is held, and can be read.
    let held = [&mut alone[0], stream].map(|stream| {
        let face = face(&stream.engine, 200.0, 0.02, 5.0);
        let held = stream.actor.hold(&face).unwrap();
        (held.pixels.crop().unwrap().side, held.mask)
    });
    assert_eq!(held[0].0, held[1].0);
    stream.actor.forget_pixels();
    assert!(stream.actor.hold(&face(&there, 200.0, 0.02, 0.0)).is_none());
    // Without memory a frame is left as it is.
    let work = Work::new(Noise::default()).with(LATENT, Tensor { shape: vec![1, 12], data: vec![0.0; 12] });
    memory.trim();
    memory.device().limit(memory.device().asked().used);
    let face = face(&there, 200.0, 0.02, 0.0);
    let scene = Scene { face: &face, identity: &stream.identity, gain: 1.0, time: None, gap: Duration::ZERO };
    assert!(matches!(stream.actor.show(work, &scene).unwrap(), Shown::Nothing));
}
