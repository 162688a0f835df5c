//! Where results are kept: its URL, the file of its keys, and the parts of a result that HTTP asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lipstream::storage::{self, Asked};

fuzz_target!(|input: (&str, u64)| {
    let (text, size) = input;
    let _ = (storage::check_url(text), storage::read_keys(text));
    if let Asked::Span(span) = Asked::of(text, size) {
        assert!(span.first <= span.last && span.last < size && span.bytes() <= size, "{text}: {span:?} of {size}");
    }
});
