//! Text messages of the agents' socket, and the tokens of LiveAvatar's form.
#![no_main]

use axum::http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use lipstream::http::{self, agent_socket};

fuzz_target!(|text: &str| {
    let _ = agent_socket::Command::parse(text);
    let _ = http::token_of(text);
    if let Ok(value) = HeaderValue::from_str(text) {
        let _ = http::bearer(&HeaderMap::from_iter([(axum::http::header::AUTHORIZATION, value)]));
    }
});
