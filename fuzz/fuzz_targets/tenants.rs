//! What operators write of tenants: keys, scopes, months; and JSON of tenants and keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::tenants::{Limits, Month, NewKey, check_name, from_hex, hash, hex, scope};

fuzz_target!(|text: &str| {
    let _ = (check_name(text), hash(text.as_bytes()));
    if let Some(hash) = from_hex(text) {
        assert_eq!(from_hex(&hex(&hash)), Some(hash));
    }
    if let Some(month) = Month::parse(text) {
        assert_eq!((month.to_string().as_str(), Month::parse(text)), (text, Some(month)));
        assert!(month.before() < month || text == "0000-01");
    }
    let scopes = scope::read(text);
    assert_eq!(scope::read(&scope::list(&scopes)), scopes);
    let _ = serde_json::from_str::<NewKey>(text).map(|key| key.check());
    let _ = serde_json::from_str::<Limits>(text).map(|limits| limits.check());
});
