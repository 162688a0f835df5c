//! What a key may do, and the one table that says what each route asks for.
//!
//! A route that is not in [`ROUTES`] is refused, so that a new one is not open by being forgotten.

use axum::http::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a tenant's key may do with the tenant's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Make, change and end sessions, avatars and renders.
    Operate,
    /// Speak in sessions and interrupt them.
    Speak,
    /// Watch sessions.
    Watch,
    /// Publish a picture or a voice to sessions.
    Publish,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::Operate, Self::Speak, Self::Watch, Self::Publish];

    pub fn name(self) -> &'static str {
        match self {
            Self::Operate => "operate",
            Self::Speak => "speak",
            Self::Watch => "watch",
            Self::Publish => "publish",
        }
    }
}

/// Scopes as the store and the command line write them: `speak,watch`.
pub fn list(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(",")
}

/// The scopes of such a list; names that are not known open nothing.
pub fn read(list: &str) -> Vec<Scope> {
    Scope::ALL.into_iter().filter(|scope| list.split(',').any(|name| name == scope.name())).collect()
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Everyone, without a key.
    Public,
    /// Keys of the configuration.
    Operator,
    /// Those, and keys of tenants that have one of the scopes.
    Scopes(&'static [Scope]),
    /// Other nodes of the cluster, by what they show one another.
    Node,
    /// The token of a session, which the handler reads; see [`crate::http::Grants`].
    Token,
}

/// What the first parameter of the path names. Another tenant's is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    None,
    /// What all tenants share.
    Shared,
    Session,
    Avatar,
    /// An avatar that is made where there is none; another tenant's name is taken.
    NewAvatar,
    Upload,
    Render,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub method: &'static str,
    /// As the router has it; one that ends in `/` holds for all below it.
    pub path: &'static str,
    pub allow: Allow,
    pub object: Object,
}

const ANY: Allow = Allow::Scopes(&Scope::ALL);
const OPERATE: Allow = Allow::Scopes(&[Scope::Operate]);
const SPEAK: Allow = Allow::Scopes(&[Scope::Speak]);
const DIRECT: Allow = Allow::Scopes(&[Scope::Operate, Scope::Speak]);
const WATCH: Allow = Allow::Scopes(&[Scope::Watch]);
const PUBLISH: Allow = Allow::Scopes(&[Scope::Publish]);
const VOICE: Allow = Allow::Scopes(&[Scope::Publish, Scope::Speak]);

const fn route(method: &'static str, path: &'static str, allow: Allow, object: Object) -> Route {
    Route { method, path, allow, object }
}

/// All routes of the server.
pub const ROUTES: [Route; 56] = [
    route("GET", "/", Allow::Public, Object::None),
    route("GET", "/web/", Allow::Public, Object::None),
    route("GET", "/healthz", Allow::Public, Object::None),
    route("GET", "/readyz", Allow::Public, Object::None),
    route("GET", "/openapi.json", Allow::Public, Object::None),
    route("GET", "/metrics", Allow::Operator, Object::None),
    route("GET", "/api/v1/sessions", ANY, Object::None),
    route("POST", "/api/v1/sessions", OPERATE, Object::None),
    route("GET", "/api/v1/sessions/{id}", ANY, Object::Session),
    route("PATCH", "/api/v1/sessions/{id}", OPERATE, Object::Session),
    route("DELETE", "/api/v1/sessions/{id}", OPERATE, Object::Session),
    route("GET", "/api/v1/sessions/{id}/graph.svg", OPERATE, Object::Session),
    route("POST", "/api/v1/sessions/{id}/clip", DIRECT, Object::Session),
    route("POST", "/api/v1/sessions/{id}/interrupt", SPEAK, Object::Session),
    route("POST", "/api/v1/sessions/{id}/speak", SPEAK, Object::Session),
    route("GET", "/api/v1/sessions/{id}/audio", SPEAK, Object::Session),
    route("GET", "/api/v1/sessions/{id}/agent", SPEAK, Object::Session),
    route("POST", "/api/v1/liveavatar/sessions/token", OPERATE, Object::None),
    route("POST", "/api/v1/liveavatar/sessions/start", Allow::Token, Object::None),
    route("POST", "/api/v1/liveavatar/sessions/stop", Allow::Token, Object::None),
    route("GET", "/api/v1/avatars", ANY, Object::None),
    route("POST", "/api/v1/avatars", OPERATE, Object::None),
    route("DELETE", "/api/v1/avatars/{name}", OPERATE, Object::Avatar),
    route("PUT", "/api/v1/avatars/{name}/clips/{clip}", OPERATE, Object::NewAvatar),
    route("GET", "/api/v1/uploads", OPERATE, Object::None),
    route("GET", "/api/v1/uploads/{id}", OPERATE, Object::Upload),
    route("GET", "/api/v1/renders", OPERATE, Object::None),
    route("POST", "/api/v1/renders", OPERATE, Object::None),
    route("GET", "/api/v1/renders/{id}", OPERATE, Object::Render),
    route("DELETE", "/api/v1/renders/{id}", OPERATE, Object::Render),
    route("GET", "/api/v1/renders/{id}/result", OPERATE, Object::Render),
    route("GET", "/api/v1/engines", ANY, Object::None),
    route("GET", "/api/v1/engines/{name}", OPERATE, Object::Shared),
    route("PUT", "/api/v1/engines/{name}", Allow::Operator, Object::None),
    route("GET", "/api/v1/graphs", ANY, Object::None),
    route("GET", "/api/v1/capacity", Allow::Operator, Object::None),
    route("GET", "/api/v1/server", ANY, Object::None),
    route("GET", "/api/v1/cluster", Allow::Operator, Object::None),
    route("POST", "/api/v1/drain", Allow::Operator, Object::None),
    route("GET", "/cluster/avatars/{name}/{file}", Allow::Node, Object::None),
    route("GET", "/api/v1/usage", ANY, Object::None),
    route("GET", "/api/v1/audit", Allow::Operator, Object::None),
    route("GET", "/api/v1/tenants", Allow::Operator, Object::None),
    route("PUT", "/api/v1/tenants/{name}", Allow::Operator, Object::None),
    route("DELETE", "/api/v1/tenants/{name}", Allow::Operator, Object::None),
    route("GET", "/api/v1/keys", Allow::Operator, Object::None),
    route("POST", "/api/v1/keys", Allow::Operator, Object::None),
    route("DELETE", "/api/v1/keys/{id}", Allow::Operator, Object::None),
    route("POST", "/whep/{session}", WATCH, Object::Session),
    route("PATCH", "/whep/{session}/{peer}", WATCH, Object::Session),
    route("DELETE", "/whep/{session}/{peer}", WATCH, Object::Session),
    route("POST", "/whip/{session}", PUBLISH, Object::Session),
    route("POST", "/whip/{session}/voice", VOICE, Object::Session),
    route("POST", "/whip/{session}/voice-b", VOICE, Object::Session),
    route("PATCH", "/whip/{session}/{peer}", VOICE, Object::Session),
    route("DELETE", "/whip/{session}/{peer}", VOICE, Object::Session),
];

/// What the table says of a request.
#[derive(Clone, Debug)]
pub enum Found {
    Route(&'static Route),
    /// The path takes these methods only.
    Methods(Vec<&'static str>),
    Undeclared,
}

/// The row of a method and a path as the router has it, or as it is asked for where the router has none.
pub fn find(method: &Method, path: &str) -> Found {
    // What takes GET takes HEAD.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let below = |known: &str| known.len() > 1 && known.ends_with('/') && path.starts_with(known);
    let mut others = Vec::new();
    for route in ROUTES.iter().filter(|route| route.path == path || below(route.path)) {
        if route.method == method {
            return Found::Route(route);
        }
        others.push(route.method);
    }
    if others.is_empty() { Found::Undeclared } else { Found::Methods(others) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_scopes_reads_as_it_was_written() {
        assert_eq!(read(&list(&Scope::ALL)), Scope::ALL);
        assert_eq!(read("watch,everything,speak"), [Scope::Speak, Scope::Watch]);
        assert!(read("").is_empty());
    }

    #[test]
    fn rows_are_found_by_method_and_path_and_nothing_else_is() {
        let allow = |method, path: &str| match find(&method, path) {
            Found::Route(route) => Some(route.allow),
            _ => None,
        };
        assert_eq!(allow(Method::HEAD, "/healthz"), Some(Allow::Public));
        assert_eq!(allow(Method::GET, "/web/page.js"), Some(Allow::Public));
        assert_eq!(allow(Method::GET, "/metrics"), Some(Allow::Operator));
        assert_eq!(allow(Method::DELETE, "/api/v1/sessions/{id}"), Some(OPERATE));
        assert_eq!(allow(Method::GET, "/api/v1/sessions/anna"), None);
        assert_eq!(allow(Method::GET, "//healthz"), None);
        assert!(
            matches!(find(&Method::PUT, "/api/v1/sessions/{id}"), Found::Methods(m) if m == ["GET", "PATCH", "DELETE"])
        );
    }

    #[test]
    fn no_row_is_there_twice() {
        for (n, route) in ROUTES.iter().enumerate() {
            assert!(!ROUTES[..n].iter().any(|r| (r.method, r.path) == (route.method, route.path)), "{route:?}");
        }
    }
}
