//! What Wav2Lip and SyncTalk_2D are held to in the memory of a device.

use std::{path::PathBuf, time::Duration};

use lipstream_engines::{
    engine::{self, Asked, Shown, Ticket, WaitError, Worker, complete, pixel::Pixel},
    geometry::Point,
    image::paste,
    import::{self, Request, onnx::Precision},
    manifest::{Features, Package},
};

use super::{
    stream::{Kind, Stream},
    *,
};

/// The engine of these files.
pub fn imported(home: &Path, files: &[PathBuf], features: Option<Features>) -> Package {
    let request = Request {
        family: None,
        files,
        name: Some("mouth"),
        precision: Precision::Fp32,
        features,
        licence: Some("of the test"),
        replace: true,
    };
    Package::open(&import::import(&request, &home.join("engines"), &mut |_, _| Ok(())).unwrap().folder).unwrap()
}

/// The engine of golden files; `None` where they are not at hand.
pub fn golden(home: &Path, files: &[&str]) -> Option<Package> {
    let folder = common::shared("golden")?;
    Some(imported(home, &files.iter().map(|file| folder.join(file)).collect::<Vec<_>>(), None))
}

pub fn both(package: &Package, options: &Options) -> Both {
    let memory = host();
    let there = Pixel::load_in(package, options, Arc::clone(&memory) as Arc<dyn Memory>).unwrap();
    (engine::load(package, options).unwrap(), Arc::new(there), memory)
}

const KIND: Kind = Kind {
    face: |i| faces::jawed(Point::new(150.3 + 45.4 * i as f32, 110.6 + 30.0 * i as f32), 100.0),
    made: "picture",
};

fn stream(engine: &Arc<dyn Engine>, format: Format) -> Stream {
    Stream::new(engine, format, KIND)
}

/// Frames of a stream in the memory of a device beside those of the processor.
pub fn alike(both: &Both, formats: &[Format], frames: usize) {
    stream::alike(both, KIND, formats, frames);
}

/// A stream of each format is what it is on the processor, with one program and with one for each shape.
pub fn streams(package: &Package) {
    let both = both(package, &cpu());
    let stages = |engine: &Arc<dyn Engine>| -> Vec<_> {
        engine.stages().iter().map(|stage| (stage.kind(), stage.sizes().to_vec())).collect()
    };
    assert_eq!(stages(&both.0), stages(&both.1));
    both.1.stages().iter().for_each(|stage| stage.warm_up().unwrap());
    alike(&both, &FORMATS, 4);
    let apart = Options { tuning: "apart=1".parse().unwrap(), ..cpu() };
    alike(&self::both(package, &apart), &FORMATS[..1], 1);
}

fn waited(ticket: Ticket) -> Result<Work, WaitError> {
    ticket.wait(Some(Duration::from_secs(60)))
}

/// Streams share a run of the network, each is shown what it makes alone, and a batch without memory is halved once.
pub fn batches(package: &Package, row: usize) {
    let (here, there, memory) = both(package, &cpu());
    let worker = Arc::new(Worker::start(there.clone(), 0, Duration::from_secs(5), 16));
    let formats = [&FORMATS[..], &FORMATS[..1]].concat();
    let mut streams: Vec<_> = formats.iter().map(|format| (worker.stream(), stream(&there, *format))).collect();
    let mut alone: Vec<_> = formats.iter().map(|format| stream(&here, *format)).collect();
    // Each somewhere else.
    (0..4).for_each(|i| (streams[i].1.frame, alone[i].frame) = (i % 2, i % 2));
    for round in 0..3 {
        let works: Vec<Work> = streams.iter_mut().map(|(_, stream)| stream.asked()).collect();
        // Rows of four pictures with what they are made of; the second time there is room for three, the third time for none, but for what
        // those give back that have failed.
        memory.trim();
        let held = memory.device().asked().used;
        memory.device().limit([usize::MAX, held + 3 * row, held][round]);
        let tickets: Vec<_> = streams.iter().zip(works).map(|((sends, _), work)| sends.submit(work).unwrap()).collect();
        let done: Vec<_> = tickets.into_iter().map(waited).collect();
        assert_eq!(done.iter().any(|work| work.is_err()), round == 2, "{round}");
        memory.device().limit(usize::MAX);
        for (((_, stream), alone), work) in streams.iter_mut().zip(&mut alone).zip(done) {
            match work {
                Ok(work) => {
                    let ((wanted, frame), found) = (alone.next(), made(&work, "picture"));
                    assert!(apart(&wanted, &found) < NEAR);
                    assert!(differ(&frame, &stream.pasted(work)).0 <= 1);
                }
                Err(error) => assert!(round == 2 && error.to_string().contains("MB are needed"), "{round}: {error}"),
            }
        }
    }
    let stats = worker.stats();
    assert!(stats.exhausted > 0 && stats.stages[0].items == 12 && stats.stages[0].batches < 12, "{stats:?}");
}

/// Once a stream runs nothing is allocated, and no more than `most` bytes go up and come down for a frame of NV12.
pub fn travels(package: &Package, most: [usize; 2]) {
    let (_, there, memory) = both(package, &cpu());
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
    // The test looks at the network's picture too.
    let picture = made_bytes(&there);
    let (up, down) = (after.uploaded - before.uploaded, after.downloaded - before.downloaded - picture);
    println!("{up} bytes up, {down} down");
    assert!(up <= most[0] && down <= most[1], "{up} {down}");
}

/// Bytes of what the network says of one frame.
fn made_bytes(engine: &Arc<dyn Engine>) -> usize {
    let mut stream = stream(engine, Format::Nv12);
    let mut work = stream.asked();
    complete(&**engine, &mut work).unwrap();
    work.there("picture").unwrap().buffer.len() * 4
}

/// What was shown last is held until it is forgotten, and a frame for which memory ends is left as it is, wherever it ends.
pub fn held_and_left(package: &Package, crop: usize) {
    let (here, there, memory) = both(package, &cpu());
    let mut streams = [&here, &there].map(|engine| stream(engine, Format::Rgba));
    let held = streams.each_mut().map(Stream::held);
    assert!(differ(&held[0].1, &held[1].1).0 <= 1);
    assert!(held[0].0.mask == held[1].0.mask && held[0].0.pixels.crop().unwrap().side == crop);
    let [_, stream] = &mut streams;
    let limited = |bytes: usize| {
        memory.trim();
        memory.device().limit(memory.device().asked().used + bytes);
    };
    // No room for the crop; room for it and for a region, and not for the planes.
    for room in [0, crop * crop * 3 + 170 * 170 * 4 + 8000] {
        limited(room);
        assert!(matches!(stream.ask(), Asked::Nothing));
        memory.device().limit(usize::MAX);
    }
    let works = [(); 2].map(|()| {
        let mut work = stream.asked();
        complete(&*there, &mut work).unwrap();
        work
    });
    let [first, second] = works;
    limited(0);
    assert!(matches!(stream.show(first), Shown::Nothing));
    memory.device().limit(usize::MAX);
    let patch = stream.shown(second);
    let mut frame = stream.picture();
    limited(0);
    assert_eq!(paste(&mut frame.frame(), &patch).unwrap().touched.width, 0.0);
    assert!(frame.planes == stream.picture().planes);
    memory.device().limit(usize::MAX);
    paste(&mut frame.frame(), &patch).unwrap();
    assert!(frame.planes != stream.picture().planes);
}
