//! The C2PA manifest of a file that is rendered, access units that are marked, and the header of a Matroska file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::{marks, render};

fuzz_target!(|bytes: &[u8]| {
    marks::read_bytes(bytes);
    if let Some((at, scale)) = render::duration_place(bytes) {
        assert!(at + 8 <= bytes.len() && scale > 0);
    }
});
