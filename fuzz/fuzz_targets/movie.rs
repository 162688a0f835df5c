//! The index of an MP4 or MOV file: tracks, colour boxes, matrices.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::media::movie;

fuzz_target!(|moov: &[u8]| {
    let _ = movie::tracks_of(moov);
});
