//! Reference banks.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use lipstream_engines::bank::ReferenceBank;

fuzz_target!(|data: &[u8]| drop(ReferenceBank::read(Path::new("fuzz.safetensors"), data)));
