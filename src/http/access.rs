//! Who may send requests: bearer keys, and, where there are none, only this machine's own pages and programs.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
};
use base64::{
    Engine, alphabet,
    engine::general_purpose::{self, GeneralPurpose},
};
use subtle::ConstantTimeEq;
use url::Url;

use super::{liveavatar::Grants, problem::Problem};
use crate::tenants::{Caller, Tenants};

/// Browsers cannot set headers on a WebSocket; they offer the key as a subprotocol of this prefix, in base64url without
/// padding, next to [`SUBPROTOCOL`], which is the one that is accepted.
const KEY_PROTOCOL: &str = "bearer.";
/// Where clients of LiveAvatar's API put the key.
const KEY_HEADER: &str = "x-api-key";
/// Subprotocol of our WebSockets.
pub const SUBPROTOCOL: &str = "lipstream";

/// What decides about a request before anything else looks at it.
pub struct Access {
    keys: Vec<Box<[u8]>>,
    /// Only names of this machine may be asked for: a page elsewhere whose name resolves to loopback is refused.
    loopback_only: bool,
    /// Host of the public URL.
    public_host: Option<String>,
    /// Origins of pages that may use the API besides our own.
    origins: Vec<String>,
    /// Tokens that open one session each.
    grants: Arc<Grants>,
    /// Those who have keys besides the operator.
    tenants: Option<Arc<Tenants>>,
}

impl Access {
    pub fn new(
        keys: Vec<String>,
        bind: IpAddr,
        public: Option<&Url>,
        origins: Vec<String>,
        grants: Arc<Grants>,
        tenants: Option<Arc<Tenants>>,
    ) -> Self {
        Self {
            loopback_only: keys.is_empty() && tenants.is_none() && bind.is_loopback(),
            keys: keys.into_iter().map(|key| key.into_bytes().into_boxed_slice()).collect(),
            public_host: public.and_then(Url::host_str).map(str::to_owned),
            origins,
            grants,
            tenants,
        }
    }

    /// What is asked of a request that another node answers, which looks at its key: the host, and the origin where there are no keys.
    pub fn check_place(&self, request: &Request) -> Result<(), Problem> {
        let open = self.keys.is_empty() && self.tenants.is_none();
        let host = self.check_host(request)?;
        if open { self.check_origin(request, &host) } else { Ok(()) }
    }

    fn check_host(&self, request: &Request) -> Result<String, Problem> {
        let host = host(request)?;
        if self.loopback_only && !is_loopback(&host) && Some(name(&host)) != self.public_host.as_deref() {
            return Err(Problem::of(
                StatusCode::MISDIRECTED_REQUEST,
                "host",
                format!(
                    "`{host}` is not a name of this machine; use 127.0.0.1 or localhost, or set server.public_url or \
                     auth.keys"
                ),
            ));
        }
        Ok(host)
    }

    /// Who asks; `public` is whether the route asks for no key.
    pub fn check(&self, request: &Request, public: bool) -> Result<Caller, Problem> {
        let headers = request.headers();
        let host = self.check_host(request)?;
        if public {
            return Ok(Caller::Operator);
        }
        if self.keys.is_empty() && self.tenants.is_none() {
            return self.check_origin(request, &host).map(|()| Caller::Operator);
        }
        match self.grants.opens(request) {
            Some(grant) => Ok(grant.caller.clone()),
            None => self.check_key(headers),
        }
    }

    /// Without keys a page on another site could send requests through the user's browser; it cannot hide its origin.
    fn check_origin(&self, request: &Request, host: &str) -> Result<(), Problem> {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if safe && !request.headers().contains_key(header::UPGRADE) {
            return Ok(());
        }
        let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("null");
        let own = Url::parse(origin).is_ok_and(|url| {
            let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
            authority == host || url.host_str() == self.public_host.as_deref()
        });
        if own || self.origins.iter().any(|allowed| allowed == "*" || allowed == origin) {
            return Ok(());
        }
        Err(Problem::of(
            StatusCode::FORBIDDEN,
            "origin",
            format!("pages of {origin} may not use this server; add the origin to server.cors_origins"),
        ))
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let Some(given) = given_key(headers) else {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "this server asks for a key: send `Authorization: Bearer KEY`",
            ));
        };
        // Every key is compared, so that time tells nothing about which one was close.
        let known = self.keys.iter().fold(subtle::Choice::from(0), |known, key| known | key.ct_eq(&given));
        if known.into() {
            return Ok(Caller::Operator);
        }
        let tenants = self.tenants.as_ref().and_then(|tenants| tenants.find(&given));
        let cause = "the key is not one of this server's (auth.keys, auth.store), or it has been revoked";
        tenants.map(Caller::Tenant).ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, cause))
    }
}

fn host(request: &Request) -> Result<String, Problem> {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().authority().map(axum::http::uri::Authority::as_str).or(header);
    host.map(str::to_ascii_lowercase).ok_or_else(|| Problem::bad_request("the request names no host"))
}

/// `host` without its port.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback(host: &str) -> bool {
    let name = name(host).trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The key of a request: a bearer token, `X-API-KEY`, or a subprotocol of a WebSocket.
pub fn given_key(headers: &HeaderMap) -> Option<Vec<u8>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().as_bytes().to_vec());
    }
    if let Some(key) = headers.get(KEY_HEADER) {
        return Some(key.as_bytes().to_vec());
    }
    if !headers.contains_key(header::UPGRADE) {
        return None;
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let key = offered.flat_map(|list| list.split(',')).find_map(|item| item.trim().strip_prefix(KEY_PROTOCOL))?;
    decode_base64url(key)
}

/// RFC 4648 section 5, without padding; bits that are left over may be anything.
const BASE64URL: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, general_purpose::NO_PAD.with_decode_allow_trailing_bits(true));

pub fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    BASE64URL.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::tenants::scope::{self, Allow, Found};

    const KEY: &str = "0123456789abcdef";

    fn access(keys: &[&str]) -> Access {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let public = Url::parse("https://lips.example/").expect("is a URL");
        let origins = vec!["https://app.example".into()];
        Access::new(keys, IpAddr::from([127, 0, 0, 1]), Some(&public), origins, Arc::default(), None)
    }

    fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("is a request")
    }

    #[track_caller]
    fn status(access: &Access, method: Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        let found = scope::find(&method, path);
        let public = matches!(found, Found::Route(route) if route.allow == Allow::Public);
        access.check(&request(method, path, headers), public).map_or_else(|problem| problem.status, |_| 200)
    }

    #[test]
    fn without_keys_only_names_of_this_machine_are_answered() {
        let open = access(&[]);
        for host in ["localhost:8080", "127.0.0.1", "127.8.8.8:1", "[::1]:8080", "a.localhost", "lips.example"] {
            assert_eq!(status(&open, Method::GET, "/api/v1/sessions", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "192.168.0.7:8080", "127.0.0.1.evil.example", ""] {
            assert_eq!(status(&open, Method::GET, "/", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status(&open, Method::GET, "/", &[]), 400);
    }

    #[test]
    fn without_keys_foreign_pages_change_nothing() {
        let open = access(&[]);
        let post =
            |origin| status(&open, Method::POST, "/api/v1/sessions", &[("host", "localhost:8080"), ("origin", origin)]);
        assert_eq!(post("http://localhost:8080"), 200);
        assert_eq!(post("https://app.example"), 200);
        assert_eq!(post("https://lips.example"), 200);
        for origin in ["http://localhost:9090", "https://evil.example", "null", "https://app.example.evil.example"] {
            assert_eq!(post(origin), 403, "{origin}");
        }
        let socket = [("host", "localhost:8080"), ("origin", "https://evil.example"), ("upgrade", "websocket")];
        assert_eq!(status(&open, Method::GET, "/api/v1/sessions/demo/audio", &socket), 403);
    }

    #[test]
    fn a_key_opens_everything_and_nothing_else_does() {
        let closed = access(&["another-key-of-ours", KEY]);
        let get = |headers: &[(&str, &str)]| {
            let headers: Vec<_> = [("host", "any.example")].iter().chain(headers).copied().collect();
            status(&closed, Method::GET, "/api/v1/sessions", &headers)
        };
        assert_eq!(get(&[("authorization", &format!("Bearer {KEY}"))]), 200);
        assert_eq!(get(&[("authorization", &format!("bearer  {KEY}"))]), 200);
        assert_eq!(get(&[("authorization", &format!("Basic {KEY}"))]), 401);
        assert_eq!(get(&[("authorization", "Bearer 0123456789abcdeF")]), 401);
        assert_eq!(get(&[("x-api-key", KEY)]), 200);
        assert_eq!(get(&[("x-api-key", "0123456789abcdeF")]), 401);
        assert_eq!(get(&[("authorization", "Bearer ")]), 401);
        assert_eq!(get(&[]), 401);
        assert_eq!(
            status(&closed, Method::GET, "/api/v1/sessions?access_token=0123456789abcdef", &[("host", "a")]),
            401
        );
        assert_eq!(status(&closed, Method::GET, "/healthz", &[("host", "a")]), 200);
        assert_eq!(status(&closed, Method::GET, "/metrics", &[("host", "a")]), 401);
        assert_eq!(status(&closed, Method::GET, "//healthz", &[("host", "a")]), 401);
    }

    #[test]
    fn a_browsers_websocket_gives_its_key_as_a_subprotocol() {
        let closed = access(&[KEY]);
        let offer = |upgrade: bool, protocols: &str| {
            let mut headers = vec![("host", "a"), ("sec-websocket-protocol", protocols)];
            if upgrade {
                headers.push(("upgrade", "websocket"));
            }
            status(&closed, Method::GET, "/api/v1/sessions/demo/audio", &headers)
        };
        assert_eq!(offer(true, "lipstream, bearer.MDEyMzQ1Njc4OWFiY2RlZg"), 200);
        assert_eq!(offer(true, "lipstream, bearer.MDEyMzQ1Njc4OWFiY2RlZw"), 401);
        assert_eq!(offer(true, "lipstream, bearer.&&"), 401);
        assert_eq!(offer(false, "lipstream, bearer.MDEyMzQ1Njc4OWFiY2RlZg"), 401, "only for WebSockets");
    }
}
