//! The index of an MP4 file, in which the sound's edit list is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::render::with_edit;

fuzz_target!(|input: (u64, u64, u32, &[u8])| {
    let (priming, samples, rate, moov) = input;
    let _ = with_edit(moov, priming, samples, rate);
});
