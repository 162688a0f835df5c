//! What a client publishes to or plays, with its key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::rtmp::name::Name;

fuzz_target!(|names: (&str, &str)| {
    if let Ok(name) = Name::new("live", names.0, names.1) {
        assert!(name.path.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)));
        let _ = (name.publishes(), name.plays());
    }
});
