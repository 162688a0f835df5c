//! URLs to pull from and push to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::address;

fuzz_target!(|text: &str| {
    if let Ok((url, host, _)) = address::parse(text, &[("rtmp", 1935), ("http", 80)]) {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            let _ = address::is_public(ip);
        }
        let _ = address::masked(&url);
    }
});
