//! Forms with files (`multipart/form-data`), as uploads come in them. Files go to a folder of the system's for these.
#![no_main]

use std::sync::{Arc, LazyLock};

use axum::{body::Body, extract::Request};
use libfuzzer_sys::fuzz_target;
use lipstream::{avatar, http};
use tokio::runtime::Runtime;

static HOUSE: LazyLock<(Runtime, Arc<http::Uploads>)> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("lipstream-fuzz-{}", std::process::id()));
    let store = avatar::Store::open(&folder.join("avatars")).expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    (runtime, http::Uploads::new(folder.join("uploads"), store, 8))
});

fuzz_target!(|input: (&str, &[u8])| {
    let (boundary, body) = input;
    let (runtime, uploads) = &*HOUSE;
    // A boundary that the body can hit upon; what else a client may call it is tried too.
    for kind in ["multipart/form-data; boundary=x".to_owned(), format!("multipart/form-data; boundary={boundary}")] {
        let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body.chunks(97).map(|piece| Ok(piece.to_vec())).collect();
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let Ok(request) = Request::builder().header("content-type", kind).body(body) else { continue };
        // What is refused is refused.
        let _ = runtime.block_on(http::read_form(request, uploads));
    }
});
