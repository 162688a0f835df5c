//! GStreamer's description of a running graph, which holds what users set, and its drawing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::http;

fuzz_target!(|text: &str| {
    let svg = http::svg(text);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("<script"));
});
