//! Media types of speech, and raw samples in pieces of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::speech::{Format, Pcm, Upsampler};

fuzz_target!(|input: (&str, u8, Vec<&[u8]>)| {
    let (kind, rate, pieces) = input;
    if let Ok(format) = Format::of(kind) {
        assert!((1..=16).contains(&format.frame_bytes()));
    }
    let rate = [16_000, 24_000, 48_000][usize::from(rate) % 3];
    let (mut pcm, mut upsampler) = (Pcm::default(), Upsampler::new(rate).expect("a rate of ours"));
    let mut out = Vec::new();
    for piece in &pieces {
        upsampler.add(pcm.samples(piece), &mut out);
    }
    upsampler.finish(&mut out);
    let samples = pieces.iter().map(|piece| piece.len()).sum::<usize>() / 2;
    assert!(out.len() <= samples * (48_000 / rate as usize) && out.iter().all(|s| s.is_finite()));
});
