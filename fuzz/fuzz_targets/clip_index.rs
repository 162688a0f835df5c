//! The index of an avatar's stored frames.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::avatar::Index;

fuzz_target!(|input: (u32, &[u8])| drop(Index::parse(input.1, input.0.into())));
