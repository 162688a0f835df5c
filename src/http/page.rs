//! The operator page: files of `web/`, part of the program; the client for other pages, built from
//! `sdk/js`; and the page that shows a stacked session over nothing, of `contrib/alpha`.

use std::sync::Arc;

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use super::App;

/// Only what this server serves: no scripts or styles in the markup, no frames around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const PERMISSIONS: &str = "microphone=(self), camera=(self), autoplay=(self)";

/// Path, media type and text of the page's files.
const FILES: [(&str, &str, &str); 15] = [
    ("/", HTML, include_str!("../../web/index.html")),
    ("/web/page.css", CSS, include_str!("../../web/page.css")),
    ("/web/page.js", SCRIPT, include_str!("../../web/page.js")),
    ("/web/api.js", SCRIPT, include_str!("../../web/api.js")),
    ("/web/capture.js", SCRIPT, include_str!("../../web/capture.js")),
    ("/web/dialogs.js", SCRIPT, include_str!("../../web/dialogs.js")),
    ("/web/live.js", SCRIPT, include_str!("../../web/live.js")),
    ("/web/lipstream.js", SCRIPT, include_str!("../../sdk/js/dist/lipstream.js")),
    ("/web/overlay", HTML, include_str!("../../contrib/alpha/overlay.html")),
    ("/web/overlay.css", CSS, include_str!("../../contrib/alpha/overlay.css")),
    ("/web/overlay.js", SCRIPT, include_str!("../../contrib/alpha/overlay.js")),
    ("/web/nodes.js", SCRIPT, include_str!("../../web/nodes.js")),
    ("/web/plots.js", SCRIPT, include_str!("../../web/plots.js")),
    ("/web/stacked.js", SCRIPT, include_str!("../../contrib/alpha/stacked.js")),
    ("/web/talk.js", SCRIPT, include_str!("../../web/talk.js")),
];
const ICON: (&str, &str, &str) = ("/web/icon.svg", "image/svg+xml", include_str!("../../web/icon.svg"));
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

pub fn routes() -> Router<Arc<App>> {
    let add = |router: Router<Arc<App>>, (path, kind, text)| router.route(path, get(move || file(kind, text)));
    FILES.into_iter().chain([ICON]).fold(Router::new(), add)
}

async fn file(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::HeaderName::from_static("permissions-policy"), PERMISSIONS),
    ];
    (headers, text).into_response()
}
