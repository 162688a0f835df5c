//! Many bins in one process: one model for all, and nothing left of those that are gone.

mod common;

use std::sync::{Mutex, MutexGuard};

use common::{
    init,
    live::{Live, people, voice},
    ms, until,
};
use gst::prelude::*;

/// One test at a time: they look at the process's memory and threads.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// A line of /proc/self/status: `Threads` as a count, `VmRSS` in KiB.
fn process(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Feeds all bins side by side for `length` ms.
fn feed(bins: &mut [Live], length: u64) {
    std::thread::scope(|scope| {
        for live in bins {
            scope.spawn(move || live.feed(length, |_, frame| Some(frame), |t| Some(voice(t))));
        }
    });
}

#[test]
fn four_bins_share_one_model_and_do_not_disturb_each_other() {
    let _alone = alone();
    let Some((info, frames)) = people(320, 180, 25) else { return };
    let shared = [("model-instance-id", "four"), ("batch-timeout", "10"), ("reference-bank", ""), ("device", "cpu")];
    let start = |_| Live::new(info.clone(), frames.clone(), &shared, true);
    let mut bins: Vec<Live> = (0..4).map(start).collect();
    feed(&mut bins, 1000);
    // The first is flushed, the second stopped, and the third fed what is no frame.
    let pad = bins[0].bin.static_pad("video_sink").unwrap();
    assert!(pad.send_event(gst::event::FlushStart::new()));
    assert!(pad.send_event(gst::event::FlushStop::new(false)));
    bins[1].pipeline.set_state(gst::State::Null).unwrap();
    let mut stub = gst::Buffer::with_size(7).unwrap();
    stub.get_mut().unwrap().set_pts(ms(1000));
    bins[2].video.push_buffer(stub).unwrap();
    until("a frame of 7 bytes is an error", || bins[2].heard_of(gst::MessageType::Error));
    bins[2].pipeline.set_state(gst::State::Null).unwrap();
    let mut last = bins.pop().unwrap();
    last.feed(1500, |_, frame| Some(frame), |t| Some(voice(t)));
    let frames = last.fed as usize / 40;
    last.video.end_of_stream().unwrap();
    last.voice.end_of_stream().unwrap();
    last.wait_for(frames);
    let seen: Vec<u64> = last.seen.lock().unwrap().iter().map(|s| s.buffer.pts().unwrap().mseconds() / 40).collect();
    assert_eq!(seen, (0..frames as u64).collect::<Vec<_>>(), "all frames of the one that nothing happened to");
    let (batches, steps) = (last.stat("denoise/batches"), last.stat("denoise/steps"));
    eprintln!("{steps} steps in {batches} batches, late {}", last.stat("late"));
    assert!(batches < steps, "four streams share batches: {steps} steps in {batches}");
}

#[test]
fn a_further_bin_costs_little_memory() {
    let _alone = alone();
    let Some((info, frames)) = people(320, 180, 25) else { return };
    let mut bins = Vec::new();
    let mut memory = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..5 {
        bins.push(Live::new(info.clone(), frames.clone(), &[], true));
        feed(&mut bins, 1200);
        bins.iter().for_each(|b| b.wait_until("frames that speak", |b| b.stat("denoise/steps") > 0));
        memory.push(process("VmRSS") / 1024);
        threads.push(process("Threads"));
    }
    eprintln!("MiB with 1 to 5 bins: {memory:?}; threads: {threads:?}");
    // The first of them may still settle the allocator's pools.
    assert!((memory[4] - memory[1]) / 3 < 40, "{memory:?}");
    assert!(threads[4] - threads[3] <= 14, "{threads:?}");
}

/// Plays a few frames through a bin and disposes of it.
fn short_life(number: u64) {
    let line = "lipsync name=ls videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=160,height=120,framerate=25/1 ! ls.video_sink \
                audiotestsrc num-buffers=6 samplesperbuffer=1024 ! audio/x-raw,rate=48000 ! ls.audio_sink \
                ls.video_src ! fakesink sync=false ls.audio_src ! fakesink sync=false";
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    // Every other one is stopped while it runs.
    if number.is_multiple_of(2) {
        let end = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &end).unwrap();
        assert_eq!(message.type_(), gst::MessageType::Eos);
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn two_hundred_bins_leave_nothing() {
    let _alone = alone();
    init();
    // One stays, as in a service that keeps its models loaded.
    let stays = gst::ElementFactory::make("lipsync").build().unwrap();
    let pipeline = gst::Pipeline::new();
    pipeline.add(&stays).unwrap();
    pipeline.set_state(gst::State::Paused).unwrap();
    (0..20).for_each(short_life);
    let (threads, memory) = (process("Threads"), process("VmRSS"));
    (0..200).for_each(short_life);
    // GStreamer's pool lets its idle threads go by and by.
    until("the threads are gone", || process("Threads") <= threads + 8);
    let grown = process("VmRSS").saturating_sub(memory);
    eprintln!("200 bins: {grown} KiB more, threads {threads} then {}", process("Threads"));
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(grown < 24 << 10, "{grown} KiB");
}

#[test]
fn models_go_with_the_last_bin() {
    let _alone = alone();
    init();
    (0..3).for_each(short_life);
    let (threads, memory) = (process("Threads"), process("VmRSS"));
    (0..6).for_each(short_life);
    until("the threads are gone", || process("Threads") <= threads + 8);
    let grown = process("VmRSS").saturating_sub(memory);
    eprintln!("6 loads of the models: {grown} KiB more, threads {threads} then {}", process("Threads"));
    assert!(grown < 48 << 10, "{grown} KiB");
}
