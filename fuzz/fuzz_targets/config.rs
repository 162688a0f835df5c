//! The configuration file of `lipstream serve`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::serve::Config;

fuzz_target!(|text: &str| drop(Config::parse("fuzz.toml", text)));
