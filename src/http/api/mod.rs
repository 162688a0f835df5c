//! The REST API below `/api/v1`. The OpenAPI document is made of the handlers themselves.

mod avatars;
mod cluster;
mod engines;
mod errors;
mod liveavatar;
mod machine;
mod renders;
mod sessions;
mod tenants;
mod voice;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::errors::Errors;
pub(super) use self::{
    avatars::{taken as taken_avatar, unknown as unknown_avatar},
    renders::unknown as unknown_render,
};
use super::App;

/// Sessions, avatars and offline renders of a Lipstream server.
#[derive(OpenApi)]
#[openapi(
    info(title = "Lipstream", license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    components(schemas(
        super::Problem, crate::avatar::Given, crate::jobs::Options, crate::speech::Event, super::agent_socket::Command, super::agent_socket::Report,
    )),
    tags(
        (name = "sessions", description = "Live lip-synced streams"),
        (name = "speech", description = "What sessions say"),
        (name = "agents", description = "The words of LiveAvatar's LITE mode, for clients that speak them"),
        (name = "avatars", description = "Videos of a person that sessions show"),
        (name = "renders", description = "Files: a video and a speech file become a talking video"),
        (name = "tenants", description = "Whose keys open what, what they have used, who did what"),
        (name = "machine", description = "What is installed and how much it holds"),
    ),
    modifiers(&Keys),
)]
struct Document;

/// The server may ask for a key.
struct Keys;

impl utoipa::Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", scheme);
        // An empty requirement beside it: a server without keys asks for none.
        document.security =
            Some(vec![SecurityRequirement::default(), SecurityRequirement::new("key", Vec::<String>::new())]);
    }
}

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    let api = OpenApiRouter::new()
        .routes(routes!(sessions::list, sessions::create))
        .routes(routes!(sessions::get, sessions::change, sessions::delete))
        .routes(routes!(sessions::graph))
        .routes(routes!(sessions::interrupt))
        .routes(routes!(sessions::clip))
        .routes(routes!(voice::speak))
        .routes(routes!(voice::audio))
        .routes(routes!(voice::agent))
        .routes(routes!(liveavatar::token))
        .routes(routes!(liveavatar::start))
        .routes(routes!(liveavatar::stop))
        .routes(routes!(avatars::list))
        .routes(routes!(avatars::delete))
        .routes(routes!(avatars::put))
        .routes(routes!(avatars::uploads))
        .routes(routes!(avatars::progress))
        .routes(routes!(renders::list))
        .routes(routes!(renders::get, renders::delete))
        .routes(routes!(renders::result))
        .routes(routes!(machine::engines))
        .routes(routes!(engines::get, engines::put))
        .routes(routes!(machine::graphs))
        .routes(routes!(machine::capacity))
        .routes(routes!(machine::server))
        .routes(routes!(cluster::nodes))
        .routes(routes!(cluster::drain))
        .routes(routes!(tenants::list))
        .routes(routes!(tenants::put, tenants::remove))
        .routes(routes!(tenants::keys, tenants::add_key))
        .routes(routes!(tenants::revoke))
        .routes(routes!(tenants::usage))
        .routes(routes!(tenants::audit));
    // Their bodies have bounds of their own.
    let forms = OpenApiRouter::new()
        .routes(routes!(avatars::upload))
        .routes(routes!(renders::create))
        .layer(DefaultBodyLimit::disable());
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", api.merge(forms))
}

/// The OpenAPI document of this build.
pub fn openapi() -> String {
    text(&routes().into_openapi())
}

pub(super) fn text(document: &utoipa::openapi::OpenApi) -> String {
    let mut text = document.to_pretty_json().expect("the document holds plain values");
    text.push('\n');
    text
}
