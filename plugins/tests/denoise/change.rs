//! Engines that change while frames come.

#[path = "../../../engines/tests/common/versions.rs"]
mod versions;

use gst::prelude::*;
use lipstream_engines::engine::Worker;
use versions::Motion;

use super::{Bench, common::ms, common::until, opacity, someone, stat};

/// Two versions in shapes of their own, one that breaks and one that is none.
fn engines() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let home = tempfile::tempdir().unwrap();
    let breaks = Motion::Breaks { weights: vec![1.0 / 128.0; 128], above: 3.0 };
    let all =
        [("one", Motion::Still(0.0)), ("two", Motion::Still(1.5)), ("breaks", breaks), ("none", Motion::NoNetwork)];
    for (name, motion) in all {
        versions::write(&home.path().join(name), name, &motion);
    }
    let folder = home.path().to_owned();
    (home, move |name: &str| folder.join(name).display().to_string())
}

impl Bench {
    /// Waits until an engine stands ready.
    fn await_ready(&self, bus: &gst::Bus) {
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Element]).unwrap();
        assert_eq!(message.structure().unwrap().get::<String>("event").unwrap(), "ready");
    }

    /// What the element has told of engines since the last time: event, engine and cause.
    fn told(&self, bus: &gst::Bus) -> Vec<(String, String, String)> {
        let text = |s: &gst::StructureRef, field: &str| s.get::<String>(field).unwrap_or_default();
        let read = |m: gst::Message| {
            let s = m.structure().filter(|s| s.name() == "lipstream-engine")?;
            let name = text(s, "model").rsplit('/').next().unwrap().to_owned();
            Some((text(s, "event"), name, text(s, "cause")))
        };
        std::iter::from_fn(|| bus.pop()).filter_map(read).collect()
    }

    /// Shape of the mouth: its mask.
    fn shape(&mut self, pts: u64) -> Vec<u8> {
        let out = self.show(pts, &[someone()]);
        assert_eq!(out.pts(), Some(ms(pts)), "no frame is lost");
        assert!(opacity(&out).is_some(), "a frame without a mouth at {pts}");
        out.meta::<gstlipstream::meta::PatchMeta>().unwrap().patch().mask.to_vec()
    }

    fn hear_loud(&mut self, from: u64, to: u64) {
        for t in (from..to).step_by(20) {
            let loud = vec![5.0; super::features_info().dims];
            self.features.push(gstlipstream::features::to_buffer(&loud, ms(t), ms(20))).unwrap();
        }
    }
}

fn bus(bench: &Bench) -> gst::Bus {
    let bus = gst::Bus::new();
    bench.element().set_bus(Some(&bus));
    bus
}

fn loaded(name: &str) -> bool {
    Worker::all().iter().any(|worker| worker.engine().spec().name == name)
}

#[test]
fn another_engine_is_taken_in_a_pause_of_speech_and_no_frame_is_lost() {
    let (_home, engine) = engines();
    let mut b = Bench::new(&[("model", &engine("one")), ("fallback-model", &engine("one"))]);
    let bus = bus(&b);
    b.hear(0, 2000);
    let first = b.shape(0);
    b.element().set_property("model", engine("two"));
    b.await_ready(&bus);
    // It speaks all the time: nothing changes.
    for t in (40..1600).step_by(40) {
        b.shape(t);
    }
    assert!(b.told(&bus).is_empty());
    b.hear_nothing(2000, 4000);
    let far = |a: &[u8]| a.iter().zip(&first).filter(|(a, b)| a.abs_diff(**b) > 64).count();
    // The last voice ends at 2000 ms, and idle-after is 400.
    for t in (1600..2400).step_by(40) {
        assert!(far(&b.shape(t)) < 300 && b.told(&bus).is_empty(), "{t}");
    }
    b.shape(2400);
    assert_eq!(b.told(&bus), [("taken".to_owned(), "two".to_owned(), String::new())]);
    let shapes: Vec<Vec<u8>> = (2440..3600).step_by(40).map(|t| b.shape(t)).collect();
    assert!(shapes[5..].iter().all(|shape| far(shape) > 300), "two goes on");
    // The way back needs no loading: it stood ready to be fallen back to.
    assert!(loaded("one"));
    b.element().set_property("model", engine("one"));
    b.shape(3600);
    assert_eq!(b.told(&bus), [("taken".to_owned(), "one".to_owned(), String::new())]);
    b.element().set_property_from_value("fallback-model", &None::<String>.to_value());
    until("the other one is unloaded", || !loaded("two"));
    let e = b.element();
    assert_eq!((stat(&e, "frames-in"), stat(&e, "dropped"), stat(&e, "late")), (stat(&e, "frames-out"), 0, 0));
}

#[test]
fn what_stands_ready_takes_over_when_the_engine_fails_and_makes_the_frame_that_failed() {
    let (_home, engine) = engines();
    let mut b = Bench::new(&[("model", &engine("breaks"))]);
    let bus = bus(&b);
    b.element().set_property("fallback-model", engine("two"));
    b.hear(0, 1000);
    let before = b.shape(0);
    b.await_ready(&bus);
    for t in (40..800).step_by(40) {
        b.shape(t);
    }
    b.hear_loud(1000, 2000);
    let shapes: Vec<Vec<u8>> = (800..1800).step_by(40).map(|t| b.shape(t)).collect();
    let told = b.told(&bus);
    assert!(
        matches!(&told[..], [(event, name, cause)] if event == "failed" && name == "breaks" && cause.contains("not finite")),
        "{told:?}"
    );
    let far = |a: &[u8]| a.iter().zip(&before).filter(|(a, b)| a.abs_diff(**b) > 64).count();
    assert!(far(shapes.last().unwrap()) > 300, "two goes on");
    let e = b.element();
    assert_eq!(e.property::<String>("model"), engine("two"));
    assert_eq!((stat(&e, "frames-in"), stat(&e, "dropped"), stat(&e, "late")), (stat(&e, "frames-out"), 0, 0));
}

#[test]
fn an_engine_that_does_not_fit_or_load_is_refused_and_the_stream_goes_on() {
    let (_home, engine) = engines();
    let mut b = Bench::new(&[("model", &engine("one"))]);
    let bus = bus(&b);
    b.hear(0, 1000);
    let first = b.shape(0);
    let wrong = [
        (engine("none"), "motion.onnx"),
        ("compact-words".into(), "cannot take the place of `one` in a stream that runs: it hears by another front-end"),
        ("nobody".into(), "neither installed nor a path"),
    ];
    for (t, (model, cause)) in (40..).step_by(40).zip(wrong) {
        b.element().set_property("model", &model);
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Element]).unwrap();
        let told = message.structure().unwrap();
        assert_eq!(told.get::<String>("event").unwrap(), "refused");
        assert!(told.get::<String>("cause").unwrap().contains(cause), "{told}");
        assert_eq!(b.shape(t).len(), first.len());
    }
}
