//! A browser's key in a WebSocket's subprotocol: base64url.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::http::decode_base64url;

fuzz_target!(|text: &str| {
    if let Some(key) = decode_base64url(text) {
        assert!(key.len() <= text.len());
    }
});
