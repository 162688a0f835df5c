use std::{ffi::c_void, time::Duration};

use lipstream_engines::{
    Error, Result,
    cuda::{Place, memory::Rows},
    engine::{
        self, Actor, Asked, Identity, Moment, Patch, Sampling, Scene, Shown, Worker, complete, latent::LatentSync,
    },
    geometry::Point,
    image::{Pixels, paste},
    manifest::Package,
    schedule::{Guided, Sampler},
    tracker::Face,
};

use super::*;

fn narrow_package(home: &Path) -> Package {
    Package::open(&narrow::latentsync(home, SIDE)).unwrap()
}

fn both(package: &Package) -> Both {
    let memory = host();
    let there = LatentSync::load_in(package, &cpu(), Arc::clone(&memory) as Arc<dyn Memory>).unwrap();
    (engine::load(package, &cpu()).unwrap(), Arc::new(there), memory)
}

/// One stream of a moving face.
struct Stream {
    engine: Arc<dyn Engine>,
    actor: Box<dyn Actor>,
    format: Format,
    frame: usize,
}

impl Stream {
    fn new(engine: &Arc<dyn Engine>, format: Format, sampling: &Sampling) -> Self {
        Self { engine: engine.clone(), actor: engine.clone().actor(5, sampling).unwrap(), format, frame: 0 }
    }

    fn face(&self) -> Face {
        // Over the right edge at last.
        faces::upright(Point::new(150.3 + 0.4 * self.frame as f32, 110.6 + 3.0 * self.frame as f32), 1.6, 2.0)
    }

    fn picture(&self, frame: usize) -> Picture {
        picture(self.format, 0.4 * frame as f32)
    }

    /// The work of the clip that `frames` more complete.
    fn sent(&mut self, frames: usize) -> Work {
        for _ in 0..frames {
            let (face, picture) = (self.face(), self.picture(self.frame));
            let audio = sound(&*self.engine, self.frame);
            let identity: Identity = Arc::new(());
            let view = picture.view();
            let moment = Moment { face: &face, later: &[], identity: &identity, audio: &audio, frame: &view };
            assert!(matches!(self.actor.ask(&moment).unwrap(), Asked::Gathered));
            self.frame += 1;
        }
        self.actor.close().unwrap().unwrap()
    }

    fn shown(&mut self, work: Work) -> Patch {
        let (identity, face): (Identity, Face) = (Arc::new(()), self.face());
        let scene = Scene { face: &face, identity: &identity, gain: 1.0, time: None, gap: Duration::ZERO };
        let Shown::Patch(patch) = self.actor.show(work, &scene).unwrap() else { panic!("a patch") };
        patch
    }

    /// The first and the last frame of finished work with their mouths.
    fn pasted(&mut self, work: Work) -> Vec<Picture> {
        let parts = self.actor.parts(work).unwrap();
        let first = self.frame - parts.len();
        let pasted = |(i, part): (usize, Work)| {
            let (patch, mut picture) = (self.shown(part), self.picture(first + i));
            let before = picture.clone();
            let report = paste(&mut picture.frame(), &patch).unwrap();
            assert!(report.pixels > 1000 && picture.planes != before.planes);
            picture
        };
        let last = parts.len() - 1;
        parts.into_iter().enumerate().filter(|(i, _)| [0, last].contains(i)).map(pasted).collect()
    }

    /// Latents of the next clip of `frames`, and its frames.
    fn clip(&mut self, frames: usize) -> (Vec<f32>, Vec<Picture>) {
        let mut work = self.sent(frames);
        complete(&*self.engine, &mut work).unwrap();
        (latents(&work), self.pasted(work))
    }
}

/// Clips of a stream in the memory of a device beside those of the processor.
fn alike(here: &Arc<dyn Engine>, there: &Arc<dyn Engine>, format: Format, sampling: &Sampling, clips: &[usize]) {
    let (mut own, mut other) = (Stream::new(here, format, sampling), Stream::new(there, format, sampling));
    for (i, frames) in clips.iter().enumerate() {
        let ((wanted, frames_here), (found, frames_there)) = (own.clip(*frames), other.clip(*frames));
        let distance = apart(&wanted, &found);
        let off = frames_here.iter().zip(&frames_there).map(|(a, b)| differ(a, b));
        let (most, some) = off.fold((0, 0), |(most, some), (m, s)| (most.max(m), some + s));
        println!("{format:?} clip {i}: latents {distance:.1e}, {most} of 255 at most, in {some} values");
        assert!(distance < NEAR && most <= 1, "{format:?} clip {i}: {distance} {most}");
    }
}

#[test]
fn a_stream_in_the_memory_of_a_device_is_that_of_the_processor_in_all_formats() {
    let home = tempfile::tempdir().unwrap();
    let (here, there, _) = both(&narrow_package(home.path()));
    there.stages().iter().for_each(|stage| stage.warm_up().unwrap());
    let kinds = |engine: &Arc<dyn Engine>| engine.stages().iter().map(|stage| stage.kind()).collect::<Vec<_>>();
    assert_eq!(kinds(&here), kinds(&there));
    for (format, clips) in FORMATS.into_iter().zip([&[4, 4, 3][..], &[2, 4], &[4]]) {
        alike(&here, &there, format, &Sampling::default(), clips);
    }
    let guided = |guided, sampler| Sampling {
        steps: Some(3),
        guidance: Some(1.7),
        guided: Some(guided),
        sampler: Some(sampler),
    };
    alike(&here, &there, Format::Nv12, &guided(Guided::All, Sampler::Ddim), &[4]);
    alike(&here, &there, Format::Nv12, &guided(Guided::Last, Sampler::Dpm), &[2, 2]);
}

#[test]
fn clips_that_are_shorter_are_lengthened_and_what_is_replayed_stays_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    let package = narrow_package(home.path());
    let tuned = |tuning: &str| Options { tuning: tuning.parse().unwrap(), ..cpu() };
    let here = engine::load(&package, &tuned("apart=1")).unwrap();
    for tuning in ["apart=1", "apart=1,graphs=1"] {
        let memory = host();
        let there = LatentSync::load_in(&package, &tuned(tuning), Arc::clone(&memory) as Arc<dyn Memory>).unwrap();
        let there: Arc<dyn Engine> = Arc::new(there);
        there.stages().iter().for_each(|stage| stage.warm_up().unwrap());
        // The first clip of a stream has four frames of eight, later ones may have fewer new ones.
        alike(&here, &there, Format::Nv12, &Sampling::default(), &[4, 4, 3]);
        alike(&here, &there, Format::I420, &Sampling::default(), &[2, 4]);
        for rows in [1, 2, 4] {
            there.stages()[1].try_out(rows).unwrap();
        }
    }
}

#[test]
fn the_golden_checkpoint_in_the_memory_of_a_device_is_that_of_the_processor() {
    let home = tempfile::tempdir().unwrap();
    let Some(folder) = common::golden_latentsync(home.path()) else { return };
    let package = Package::open(&folder).unwrap();
    let (here, there, _) = both(&package);
    for (format, clips) in FORMATS.into_iter().zip([&[4, 4][..], &[2], &[2]]) {
        alike(&here, &there, format, &Sampling::default(), clips);
    }
}

#[test]
fn streams_share_batches_in_the_memory_of_a_device() {
    let home = tempfile::tempdir().unwrap();
    let (here, there, _) = both(&narrow_package(home.path()));
    let sampling = Sampling { guided: Some(Guided::Last), guidance: Some(1.5), ..Sampling::default() };
    let worker = Arc::new(Worker::start(there.clone(), 0, Duration::from_secs(5), 16));
    let mut streams: Vec<_> =
        FORMATS[1..].iter().map(|format| (worker.stream(), Stream::new(&there, *format, &sampling))).collect();
    for _ in 0..2 {
        let tickets: Vec<_> = streams.iter_mut().map(|(sends, s)| sends.submit(s.sent(4)).unwrap()).collect();
        for ((_, stream), ticket) in streams.iter_mut().zip(tickets) {
            let work = ticket.wait(Some(Duration::from_secs(60))).unwrap();
            let mut alone = Stream::new(&here, stream.format, &sampling);
            (0..stream.frame / 4 - 1).for_each(|_| drop(alone.clip(4)));
            let (wanted, frames) = alone.clip(4);
            assert!(apart(&wanted, &latents(&work)) < NEAR);
            let pasted = stream.pasted(work);
            assert!(frames.iter().zip(&pasted).all(|(a, b)| differ(a, b).0 <= 1));
        }
    }
    let steps = worker.stats().stages[1];
    assert!(steps.items > steps.batches, "{steps:?}");
}

#[test]
fn regions_travel_and_nothing_is_allocated_once_a_stream_runs() {
    let home = tempfile::tempdir().unwrap();
    let (_, there, memory) = both(&narrow_package(home.path()));
    let mut stream = Stream::new(&there, Format::Nv12, &Sampling::default());
    (0..3).for_each(|_| drop(stream.clip(4)));
    let before = memory.device().asked();
    (0..2).for_each(|_| {
        // Where the face was: its regions have their sizes again.
        stream.frame -= 4;
        stream.clip(4);
    });
    let after = memory.device().asked();
    assert_eq!(after.allocations, before.allocations, "{before:?} {after:?}");
    // A face of 1.6 pixels a unit is 75 x 100 units, its crop 1.12 times as high: 180 x 180 pixels of NV12, twice up and once down,
    // beside the sound of eight frames.
    let (frames, whole, region) = (8, 321 * 241 * 3 / 2, 190 * 190 * 3 / 2);
    let sound = 16 * 10 * 3 * 16 * 4;
    let (up, down) = (after.uploaded - before.uploaded, after.downloaded - before.downloaded);
    assert!(up < frames * 2 * region + 2 * sound && up < frames * 2 * whole * 2 / 3, "{up}");
    assert!(down < frames * region, "{down}");
}

#[test]
fn what_is_shown_last_is_held_and_can_be_read_and_clips_begin_anew_when_it_is_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let (here, there, _) = both(&narrow_package(home.path()));
    let mut streams = [&here, &there].map(|engine| Stream::new(engine, Format::Rgba, &Sampling::default()));
    let held = streams.each_mut().map(|stream| {
        let mut work = stream.sent(4);
        complete(&*stream.engine, &mut work).unwrap();
        let part = stream.actor.parts(work).unwrap().pop().unwrap();
        let shown = stream.shown(part);
        stream.frame += 3;
        let held = stream.actor.hold(&stream.face()).unwrap();
        assert!(held.pixels == shown.pixels && held.to_frame.ty > shown.to_frame.ty);
        let mut pasted = stream.picture(stream.frame);
        paste(&mut pasted.frame(), &Patch { opacity: 0.4, ..held.clone() }).unwrap();
        (held.pixels.crop().unwrap(), pasted)
    });
    assert_eq!(differ(&held[0].1, &held[1].1).0.max(1), 1);
    let off = held[0].0.data.iter().zip(&held[1].0.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(off <= 1 && held[0].0.side == held[1].0.side, "{off}");
    for stream in &mut streams {
        stream.actor.forget();
        assert!(stream.actor.hold(&stream.face()).is_none());
    }
    let [(wanted, _), (found, _)] = streams.each_mut().map(|stream| stream.clip(4));
    assert!(apart(&wanted, &found) < NEAR);
    // A crop of the processor's is pasted as ever.
    assert!(matches!(Pixels::from(held[0].0.clone()), Pixels::Here(_)));
}

#[test]
fn a_batch_that_memory_does_not_hold_says_what_it_needs_and_passes_in_halves() {
    let home = tempfile::tempdir().unwrap();
    let (here, there, memory) = both(&narrow_package(home.path()));
    let mut streams: Vec<_> = (0..4).map(|_| Stream::new(&there, Format::Nv12, &Sampling::default())).collect();
    let mut works: Vec<Work> = streams.iter_mut().map(|stream| stream.sent(4)).collect();
    let [encode, step, _] = there.stages() else { panic!("three stages") };
    encode.run(&mut works).unwrap();
    advance(&mut works);
    memory.trim();
    // Four clips of four frames need 4 (13 + 4) 4 64 numbers beside their sound, two half as many.
    let held = memory.device().asked().used;
    let (latents_of_row, sound_of_row) = (17 * 4 * 64 * 4, 4 * 30 * 16 * 4);
    memory.device().limit(held + 3 * (latents_of_row + sound_of_row));
    let error = step.run(&mut works).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("MB are needed") && text.contains("are free") && text.contains("end other sessions"),
        "{text}"
    );
    works.chunks_mut(2).for_each(|half| step.run(half).unwrap());
    memory.device().limit(usize::MAX);
    advance(&mut works);
    let mut wanted = Stream::new(&here, Format::Nv12, &Sampling::default());
    let (wanted, frames) = wanted.clip(4);
    for (mut work, stream) in works.into_iter().zip(&mut streams) {
        complete(&*there, &mut work).unwrap();
        assert!(apart(&wanted, &latents(&work)) < NEAR);
        let pasted = stream.pasted(work);
        assert!(frames.iter().zip(&pasted).all(|(a, b)| differ(a, b).0 <= 1));
    }
    // Where nothing is left a stream ends with the same words.
    memory.trim();
    memory.device().limit(memory.device().asked().used);
    let sampling = Sampling::default();
    let error = there.clone().actor(1, &sampling).err().unwrap().to_string();
    assert!(error.contains("0.0 MB are needed, 0.0 MB are free"), "{error}");
}

/// A card without memory that does nothing.
struct Elsewhere;

// SAFETY: what it gives is never used.
unsafe impl Memory for Elsewhere {
    fn place(&self) -> Place {
        Place::Card(0)
    }
    fn allocate(&self, _: usize) -> Result<u64> {
        Ok(0)
    }
    unsafe fn free(&self, _: u64, _: usize) {}
    unsafe fn clear(&self, _: u64, _: usize) -> Result<()> {
        Ok(())
    }
    unsafe fn upload(&self, _: u64, _: usize, _: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        Ok(())
    }
    unsafe fn download(&self, _: u64, _: usize, _: &mut dyn FnMut(&[u8])) -> Result<()> {
        Ok(())
    }
    unsafe fn copy(&self, _: u64, _: u64, _: Rows) -> Result<()> {
        Ok(())
    }
    unsafe fn launch(&self, _: &'static str, _: *const c_void, _: [u32; 3], _: [u32; 3]) -> Result<()> {
        Ok(())
    }
    fn finish(&self) -> Result<()> {
        Ok(())
    }
    fn available(&self) -> Option<u64> {
        None
    }
}

#[test]
fn networks_that_run_elsewhere_and_exact_engines_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let package = narrow_package(home.path());
    let memory = || Arc::new(Host::new().unwrap()) as Arc<dyn Memory>;
    let refused = |package: &Package, memory| LatentSync::load_in(package, &cpu(), memory).err().unwrap().to_string();
    let exact = refused(&package.clone().exact().unwrap(), memory());
    assert!(exact.contains("leave exact=false"), "{exact}");
    // A network of the processor's is not run on a card's addresses.
    let elsewhere = refused(&package, Arc::new(Elsewhere));
    assert!(elsewhere.ends_with("runs on cpu") && elsewhere.lines().count() == 1, "{elsewhere}");
}
