//! H.264: access units, parameter sets, configuration records.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::rtmp::avc;

fuzz_target!(|data: &[u8]| {
    if let Some(config) = avc::from_annex_b(data).config {
        assert_eq!(avc::record_kind(&config), avc::Record::Whole);
    }
    let _ = avc::record_kind(data);
    let _ = avc::picture(data);
});
