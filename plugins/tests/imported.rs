//! `lipsync` with an engine that was imported: one network for all bins, at the latency that it declares.

mod common;
#[path = "../../engines/tests/common/tiny.rs"]
mod tiny;

use common::{
    live::{Live, people, voice},
    ms,
};
use gst::prelude::*;
use lipstream_engines::import::{self, Request, onnx::Precision};

/// The folder of an engine of 96 pixels with seeded weights.
fn engine(home: &std::path::Path) -> String {
    let files = [tiny::wav2lip(home)];
    let request = Request {
        family: None,
        files: &files,
        name: Some("mouth"),
        precision: Precision::Fp32,
        features: None,
        licence: None,
        replace: false,
    };
    let imported = import::import(&request, &home.join("engines"), &mut |_, _| Ok(())).unwrap();
    imported.folder.display().to_string()
}

#[test]
fn bins_share_one_network_and_its_batches() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(home.path());
    let Some((info, frames)) = people(320, 180, 25) else { return };
    let shared = [("engine", engine.as_str()), ("device", "cpu"), ("batch-timeout", "15")];
    let mut bins: Vec<Live> = (0..2).map(|_| Live::new(info.clone(), frames.clone(), &shared, true)).collect();
    std::thread::scope(|scope| {
        for live in &mut bins {
            scope.spawn(move || live.feed(2000, |_, frame| Some(frame), |t| Some(voice(t))));
        }
    });
    let live = &bins[0];
    let mut query = gst::query::Latency::new();
    assert!(live.pipeline.query(&mut query));
    // The mel's window, the time to compute and one batch window.
    let own = ms(15 * 25 / 2 + 25) + ms(20) + ms(15);
    assert!(query.result().1 >= own && query.result().1 < own + ms(60), "{:?}", query.result());
    let stats = live.bin.property::<gst::Structure>("stats").get::<gst::Structure>("denoise").unwrap();
    let stages = stats.get::<gst::Structure>("stages").unwrap();
    let (batches, items) = (stages.get::<u64>("forward-batches").unwrap(), stages.get::<u64>("forward-items").unwrap());
    eprintln!("{items} frames in {batches} batches");
    assert!(items > 40 && batches < items, "{items} frames in {batches} batches");
    assert!(live.stat("late") < 15, "late {}: {stats}", live.stat("late"));
}

#[test]
fn an_exact_bin_declares_the_frames_that_its_boxes_wait_for() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(home.path());
    let Some((info, frames)) = people(320, 180, 25) else { return };
    let options = [("engine", engine.as_str()), ("device", "cpu"), ("exact", "true")];
    let mut live = Live::new(info, frames, &options, true);
    live.feed(1500, |_, frame| Some(frame), |t| Some(voice(t)));
    let mut query = gst::query::Latency::new();
    assert!(live.pipeline.query(&mut query));
    // The mel's window, the time to compute and four frames of 25 a second.
    let own = ms(15 * 25 / 2 + 25) + ms(20) + ms(4 * 40);
    assert!(query.result().1 >= own && query.result().1 < own + ms(60), "{:?}", query.result());
}
