//! Text messages of the speech socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::http::speech_socket::SpeechCommand;

fuzz_target!(|text: &str| drop(SpeechCommand::parse(text)));
