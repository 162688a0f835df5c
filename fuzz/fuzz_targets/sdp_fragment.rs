//! Trickled candidates and ICE restarts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::webrtc;

fuzz_target!(|data: &[u8]| webrtc::read_fragment(data));
