//! A connection's bytes after the handshake: chunks, messages, AMF0.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::rtmp::link::Link;

fuzz_target!(|data: &[u8]| {
    let mut link = Link::default();
    // Cut in two places that the input chooses, as a network would.
    let cut = data.first().map_or(0, |byte| usize::from(*byte).min(data.len()));
    for part in [&data[..cut], &data[cut..]] {
        link.input.extend_from_slice(part);
        link.arrived(part.len());
        while let Ok(Some(_)) = link.event() {}
    }
});
