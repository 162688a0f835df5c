//! Sessions and renders as JSON of clients has them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::{jobs, session::SessionSpec};

fuzz_target!(|text: &str| {
    if let Ok(spec) = serde_json::from_str::<SessionSpec>(text)
        && spec.check().is_ok()
    {
        let again = serde_json::to_string(&spec).expect("is JSON");
        assert!(serde_json::from_str::<SessionSpec>(&again).is_ok(), "{again}");
    }
    let _ = serde_json::from_str::<jobs::Options>(text).map(|options| options.check());
});
