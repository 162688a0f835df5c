//! AMF0: commands and metadata of RTMP.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use lipstream::rtmp::amf;

fuzz_target!(|data: &[u8]| {
    if let Ok(values) = amf::decode(Bytes::copy_from_slice(data)) {
        // Encoded again it is read as the same; numbers are compared as text, for NaN is not itself.
        let again = amf::decode(amf::encode(&values)).expect("our own encoding");
        assert_eq!(format!("{values:?}"), format!("{again:?}"));
    }
});
