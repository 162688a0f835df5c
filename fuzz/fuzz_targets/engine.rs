//! `engine.toml`, the manifest of an engine.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream_engines::manifest::Manifest;

fuzz_target!(|text: &str| drop(Manifest::parse("engine.toml", text)));
