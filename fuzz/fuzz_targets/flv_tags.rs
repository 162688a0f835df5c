//! A publisher's audio and video messages, and AAC's AudioSpecificConfig.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use lipstream::rtmp::flv;

fuzz_target!(|data: &[u8]| {
    let _ = flv::video(Bytes::copy_from_slice(data));
    let _ = flv::audio(Bytes::copy_from_slice(data));
    let _ = flv::aac_format(data);
});
