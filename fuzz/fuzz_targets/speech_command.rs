//! Text messages of the speech socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::speech::Command;

fuzz_target!(|text: &str| drop(Command::parse(text)));
