//! WHIP's and WHEP's offers: our own checks, then the WebRTC library's parser and its answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::webrtc;

fuzz_target!(|data: &[u8]| webrtc::read_offer(data));
