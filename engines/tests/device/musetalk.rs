use std::time::Duration;

use lipstream_engines::{
    Error,
    engine::{self, Worker, latent::MuseTalk},
    geometry::Point,
    manifest::Package,
};

use super::{
    stream::{Kind, Stream, alike},
    *,
};

fn both(package: &Package) -> Both {
    let memory = host();
    let there = MuseTalk::load_in(package, &cpu(), Arc::clone(&memory) as Arc<dyn Memory>).unwrap();
    (engine::load(package, &cpu()).unwrap(), Arc::new(there), memory)
}

fn narrow_package(home: &Path) -> Package {
    Package::open(&narrow::musetalk(home, SIDE)).unwrap()
}

const KIND: Kind =
    Kind { face: |i| faces::jawed(Point::new(180.3 + 31.4 * i as f32, 90.6 + 30.0 * i as f32), 121.0), made: LATENT };

fn stream(engine: &Arc<dyn Engine>, format: Format) -> Stream {
    Stream::new(engine, format, KIND)
}

#[test]
fn a_stream_in_the_memory_of_a_device_is_that_of_the_processor_in_all_formats() {
    let home = tempfile::tempdir().unwrap();
    let package = narrow_package(home.path());
    let both = both(&package);
    let kinds = |engine: &Arc<dyn Engine>| engine.stages().iter().map(|stage| stage.kind()).collect::<Vec<_>>();
    assert_eq!(kinds(&both.0), kinds(&both.1));
    let sizes = |engine: &Arc<dyn Engine>| engine.stages().iter().map(|s| s.sizes().to_vec()).collect::<Vec<_>>();
    assert_eq!(sizes(&both.0), sizes(&both.1));
    both.1.stages().iter().for_each(|stage| stage.warm_up().unwrap());
    alike(&both, KIND, &FORMATS, 3);
    // A program for each shape, of which there are few.
    let apart = Options { tuning: "apart=1".parse().unwrap(), ..cpu() };
    let memory = host();
    let there = MuseTalk::load_in(&package, &apart, Arc::clone(&memory) as Arc<dyn Memory>).unwrap();
    alike(&(both.0, Arc::new(there), memory), KIND, &FORMATS, 1);
}

#[test]
fn the_golden_checkpoint_in_the_memory_of_a_device_is_that_of_the_processor() {
    let home = tempfile::tempdir().unwrap();
    let Some(folder) = common::golden_musetalk(home.path()) else { return };
    alike(&both(&Package::open(&folder).unwrap()), KIND, &FORMATS, 2);
}

#[test]
fn streams_share_batches_and_are_shown_what_each_makes_alone() {
    let home = tempfile::tempdir().unwrap();
    let (here, there, memory) = both(&narrow_package(home.path()));
    let worker = Arc::new(Worker::start(there.clone(), 0, Duration::from_secs(5), 16));
    let mut streams: Vec<_> = FORMATS[1..].iter().map(|format| (worker.stream(), stream(&there, *format))).collect();
    let mut alone = FORMATS[1..].iter().map(|format| stream(&here, *format)).collect::<Vec<_>>();
    // As far apart as two frames are.
    (streams[1].1.frame, alone[1].frame) = (1, 1);
    for _ in 0..2 {
        let tickets: Vec<_> = streams.iter_mut().map(|(sends, s)| sends.submit(s.asked()).unwrap()).collect();
        for (((_, stream), alone), ticket) in streams.iter_mut().zip(&mut alone).zip(tickets) {
            let work = ticket.wait(Some(Duration::from_secs(60))).unwrap();
            let ((wanted, frame), found) = (alone.next(), latents(&work));
            assert!(apart(&wanted, &found) < NEAR);
            assert!(differ(&frame, &stream.pasted(work)).0 <= 1);
        }
    }
    for stage in worker.stats().stages {
        assert!(stage.items > stage.batches, "{stage:?}");
    }
    // Once streams run, nothing is allocated for what they have in common.
    let mut stream = stream(&there, Format::Nv12);
    for _ in 0..2 {
        // What was shown last is kept while the next is made.
        drop(stream.next());
        stream.frame = 0;
    }
    let before = memory.device().asked();
    drop(stream.next());
    let after = memory.device().asked();
    assert_eq!(after.allocations, before.allocations, "{before:?} {after:?}");
    // A face of 121 pixels is 150 from the bridge's mirror to the chin, its crop 1.12 times as high: 176 x 176 pixels of NV12, twice up
    // and once down, beside its mask, 128 pixels a side, and its sound.
    let (whole, region) = (321 * 241 * 3 / 2, 186 * 186 * 3 / 2);
    let beside = 128 * 128 + 10 * 3 * 16 * 4 + 4 * 186 * 16;
    let (up, down) = (after.uploaded - before.uploaded, after.downloaded - before.downloaded);
    assert!(up < 2 * region + beside && up < 2 * whole && down < region + 64, "{up} {down}");
}

#[test]
fn what_was_shown_last_is_held_and_a_batch_without_memory_fails_alone() {
    let home = tempfile::tempdir().unwrap();
    let (here, there, memory) = both(&narrow_package(home.path()));
    let mut streams = [&here, &there].map(|engine| stream(engine, Format::Rgba));
    let held = streams.each_mut().map(|stream| stream.held().1);
    assert!(differ(&held[0], &held[1]).0 <= 1);
    // Work that memory does not hold is as it was, and passes in halves.
    let mut streams: Vec<_> = (0..4).map(|_| stream(&there, Format::Nv12)).collect();
    let mut works: Vec<Work> = streams.iter_mut().map(Stream::asked).collect();
    let [encode, forward, decode] = there.stages() else { panic!("three stages") };
    encode.run(&mut works).unwrap();
    advance(&mut works);
    memory.trim();
    // Four faces of 8 channels of 64 numbers, their sound, and 4 channels of what is painted.
    let row = (8 * 64 + 10 * 3 * 16 + 4 * 64) * 4;
    memory.device().limit(memory.device().asked().used + 3 * row);
    let error = forward.run(&mut works).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }) && error.to_string().contains("MB are needed"), "{error}");
    works.chunks_mut(2).for_each(|half| forward.run(half).unwrap());
    memory.device().limit(usize::MAX);
    advance(&mut works);
    decode.run(&mut works).unwrap();
    let (wanted, frame) = stream(&here, Format::Nv12).next();
    for (work, stream) in works.into_iter().zip(&mut streams) {
        assert!(apart(&wanted, &latents(&work)) < NEAR);
        assert!(differ(&frame, &stream.pasted(work)).0 <= 1);
    }
    let refused = MuseTalk::load_in(&narrow_package(home.path()).exact().unwrap(), &cpu(), host()).err().unwrap();
    assert!(refused.to_string().contains("leave exact=false"), "{refused}");
}
