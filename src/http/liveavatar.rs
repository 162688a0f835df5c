//! Sessions that clients of LiveAvatar's API begin: by a token that opens one session and nothing else, and ends with it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    http::{HeaderMap, Method, Uri, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::access::given_key;
use crate::{session::Manager, tenants::Caller};

/// Path of the API, without the calls.
pub const PATH: &str = "/api/v1/liveavatar/sessions";
/// Tokens that may be out at once, begun or not.
const MAX_GRANTS: usize = 256;
/// A token that has not begun its session by then is void.
const UNUSED: Duration = Duration::from_secs(600);
/// Longest silence of an agent after which its session ends: so it is at LiveAvatar.
pub const IDLE: Duration = Duration::from_secs(300);
/// Longest session where the client asks for none shorter: a day.
pub const LONGEST: Duration = Duration::from_secs(86_400);
/// How often it is looked whether a session is over.
const LOOK: Duration = Duration::from_secs(1);

/// Too many tokens are out.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{MAX_GRANTS} sessions of tokens are open or about to be, which is the most; stop some")]
pub struct Full;

/// What a token opens.
pub struct Grant {
    /// The session's id.
    pub id: String,
    pub avatar: String,
    /// Who has asked for it, whose the session is.
    pub caller: Caller,
    /// How long the session may last.
    pub limit: Duration,
    begun: AtomicBool,
    since: Mutex<Instant>,
    touched: Mutex<Instant>,
    /// Connections that keep the session while they are open.
    present: AtomicUsize,
}

/// A connection that keeps the session of a token while it is open.
pub struct Presence(Arc<Grant>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.touch();
        self.0.present.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Grant {
    /// The agent is there.
    pub fn touch(&self) {
        *self.touched.lock() = Instant::now();
    }

    /// The agent is there until what is returned is dropped.
    pub fn stay(self: Arc<Self>) -> Presence {
        self.present.fetch_add(1, Ordering::Relaxed);
        Presence(self)
    }

    /// Takes the right to begin the session; once.
    pub fn begin(&self) -> bool {
        let first = !self.begun.swap(true, Ordering::Relaxed);
        if first {
            *self.since.lock() = Instant::now();
            self.touch();
        }
        first
    }

    /// The session did not begin after all.
    pub fn not_begun(&self) {
        self.begun.store(false, Ordering::Relaxed);
    }

    /// It has not begun its session in time.
    fn is_void(&self) -> bool {
        !self.begun.load(Ordering::Relaxed) && self.is_over()
    }

    fn is_over(&self) -> bool {
        let since = self.since.lock().elapsed();
        match self.begun.load(Ordering::Relaxed) {
            false => since > UNUSED,
            true => {
                let alone = self.present.load(Ordering::Relaxed) == 0;
                since > self.limit || alone && self.touched.lock().elapsed() > IDLE
            }
        }
    }
}

/// The tokens that are out.
#[derive(Default)]
pub struct Grants {
    /// By the token's SHA-256, so that neither memory nor time tells what a token is.
    grants: Mutex<HashMap<[u8; 32], Arc<Grant>>>,
    /// This node's name, where it is one of a cluster: tokens end in it, so that others know whom to ask.
    node: Option<String>,
}

impl Grants {
    /// Of a node of a cluster.
    pub fn of_node(node: &str) -> Self {
        Self { node: Some(node.to_owned()), ..Self::default() }
    }

    /// Makes a token for a session that is yet to begin.
    pub fn issue(&self, caller: Caller, avatar: String, limit: Duration) -> Result<(String, Arc<Grant>), Full> {
        let mut token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        if let Some(node) = &self.node {
            token = format!("{token}.{node}");
        }
        let now = Instant::now();
        let grant = Arc::new(Grant {
            id: format!("live-{:016x}", rand::random::<u64>()),
            avatar,
            caller: caller.clone(),
            limit,
            begun: AtomicBool::new(false),
            since: Mutex::new(now),
            touched: Mutex::new(now),
            present: AtomicUsize::new(0),
        });
        let mut grants = self.grants.lock();
        grants.retain(|_, grant| !grant.is_void());
        let own = |grant: &&Arc<Grant>| {
            caller.sees_of(grant.caller.tenant()) && caller.tenant().is_some() == grant.caller.tenant().is_some()
        };
        if grants.values().filter(own).count() >= MAX_GRANTS {
            return Err(Full);
        }
        grants.insert(hash(&token), grant.clone());
        Ok((token, grant))
    }

    /// The grant of a token that is out and not void, and whose issuer's key is in force.
    pub fn find(&self, token: &str) -> Option<Arc<Grant>> {
        let live = |grant: &&Arc<Grant>| !grant.is_void() && grant.caller.is_live();
        self.grants.lock().get(&hash(token)).filter(live).cloned()
    }

    pub fn forget(&self, id: &str) {
        self.grants.lock().retain(|_, grant| grant.id != id);
    }

    /// The grant of the token that a request gives, where it opens what the request asks for.
    pub fn opens(&self, request: &Request) -> Option<Arc<Grant>> {
        self.opens_of(request.method(), request.uri(), request.headers())
    }

    pub(super) fn opens_parts(&self, parts: &Parts) -> Option<Arc<Grant>> {
        self.opens_of(&parts.method, &parts.uri, &parts.headers)
    }

    fn opens_of(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Arc<Grant>> {
        let path = uri.path();
        let bearer = || self.find(bearer(headers)?);
        if let Some(call) = path.strip_prefix(PATH) {
            return bearer().filter(|_| method == Method::POST && matches!(call, "/start" | "/stop"));
        }
        if let Some(rest) = path.strip_prefix("/whep/") {
            return bearer().filter(|grant| rest.split('/').next() == Some(&grant.id));
        }
        if let Some(rest) = path.strip_prefix("/whip/") {
            // The voice, and what has been opened: its name is not to be guessed.
            let (id, end) = rest.split_once('/')?;
            return bearer()
                .filter(|grant| id == grant.id && (matches!(end, "voice" | "voice-b") || method != Method::POST));
        }
        let (id, call) = path.strip_prefix("/api/v1/sessions/")?.split_once('/')?;
        let grant = match (call, method.as_str()) {
            ("agent", "GET") => uri.query().and_then(|query| self.find(token_of(query)?)).or_else(bearer),
            ("audio", "GET") => self.offered(headers),
            ("speak" | "interrupt", "POST") => bearer(),
            _ => None,
        };
        let grant = grant.filter(|grant| grant.id == id)?;
        grant.touch();
        Some(grant)
    }

    /// The grant of the token that a WebSocket gives as a key is given.
    pub fn offered(&self, headers: &HeaderMap) -> Option<Arc<Grant>> {
        self.find(std::str::from_utf8(&given_key(headers)?).ok()?)
    }

    /// Ends the session of `grant` when it is over, and forgets the token when the session has ended.
    pub async fn look_after(grants: Weak<Self>, manager: Weak<Manager>, grant: Arc<Grant>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let (Some(grants), Some(manager)) = (grants.upgrade(), manager.upgrade()) else { return };
            if manager.get(&grant.id).is_ok() && !grant.is_over() && grant.caller.is_live() {
                continue;
            }
            grants.forget(&grant.id);
            let id = grant.id.clone();
            // Somebody may have ended it.
            let removed = tokio::task::spawn_blocking(move || manager.remove(&id)).await;
            if matches!(removed, Ok(Ok(()))) {
                tracing::info!(
                    "session `{}` ends: its time is over, its agent has been silent, or its key is revoked",
                    grant.id
                );
            }
            return;
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The token of an `Authorization` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The token of a query; it is base64url, so that nothing is escaped in it.
pub fn token_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("token="))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(method: Method, uri: &str, token: Option<&str>) -> Request {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(Body::empty()).expect("is a request")
    }

    #[test]
    fn a_token_opens_its_own_session_and_nothing_else() {
        let grants = Grants::default();
        let (token, grant) = grants.issue(Caller::Operator, "demo".into(), LONGEST).expect("there is room");
        let (_, other) = grants.issue(Caller::Operator, "demo".into(), LONGEST).expect("there is room");
        let opens = |method, uri: &str, token| grants.opens(&request(method, uri, token)).is_some();
        let agent = |id: &str| format!("/api/v1/sessions/{id}/agent");
        let own = Some(token.as_str());
        assert!(opens(Method::POST, &format!("{PATH}/start"), own));
        assert!(opens(Method::POST, &format!("{PATH}/stop"), own));
        assert!(opens(Method::GET, &agent(&grant.id), own));
        assert!(opens(Method::GET, &format!("{}?a=b&token={token}", agent(&grant.id)), None));
        assert!(opens(Method::POST, &format!("/whep/{}", grant.id), own));
        assert!(opens(Method::DELETE, &format!("/whep/{}/0123", grant.id), own));
        assert!(opens(Method::POST, &format!("/whip/{}/voice", grant.id), own));
        assert!(opens(Method::DELETE, &format!("/whip/{}/0123", grant.id), own));
        assert!(opens(Method::GET, &format!("/api/v1/sessions/{}/audio", grant.id), own));
        assert!(opens(Method::POST, &format!("/api/v1/sessions/{}/speak", grant.id), own));
        assert!(opens(Method::POST, &format!("/api/v1/sessions/{}/interrupt", grant.id), own));
        for (method, uri) in [
            (Method::GET, agent(&other.id)),
            (Method::POST, format!("/whep/{}", other.id)),
            (Method::POST, format!("/whip/{}", grant.id)),
            (Method::POST, format!("/whip/{}/voice", other.id)),
            (Method::DELETE, format!("/whip/{}/0123", other.id)),
            (Method::GET, format!("/api/v1/sessions/{}", grant.id)),
            (Method::PATCH, format!("/api/v1/sessions/{}", grant.id)),
            (Method::DELETE, format!("/api/v1/sessions/{}", grant.id)),
            (Method::GET, format!("/api/v1/sessions/{}/audio", other.id)),
            (Method::POST, format!("/api/v1/sessions/{}/speak", other.id)),
            (Method::POST, format!("/api/v1/sessions/{}/interrupt", other.id)),
            (Method::POST, format!("/api/v1/sessions/{}/clip", grant.id)),
            (Method::POST, format!("{PATH}/token")),
            (Method::GET, format!("{PATH}/start")),
        ] {
            assert!(!opens(method, &uri, own), "{uri}");
        }
        assert!(!opens(Method::GET, &agent(&grant.id), Some("another")));
        assert!(!opens(Method::POST, &format!("/whep/{}?token={token}", grant.id), None), "in queries of sockets only");
        grants.forget(&grant.id);
        assert!(!opens(Method::GET, &agent(&grant.id), own));
    }

    #[test]
    fn tokens_are_bounded_and_begin_one_session() {
        let grants = Grants::default();
        let issue = || grants.issue(Caller::Operator, "demo".into(), LONGEST);
        let (_, grant) = issue().expect("there is room");
        assert!(grant.begin() && !grant.begin());
        (1..MAX_GRANTS).for_each(|_| drop(issue().expect("there is room")));
        assert!(issue().is_err());
        grants.forget(&grant.id);
        assert!(issue().is_ok());
    }

    #[test]
    fn a_token_that_begins_nothing_in_time_is_void() {
        let grants = Grants::default();
        let (token, grant) = grants.issue(Caller::Operator, "demo".into(), LONGEST).expect("there is room");
        let long_ago = Instant::now().checked_sub(UNUSED + Duration::from_secs(1)).expect("the machine runs longer");
        *grant.since.lock() = long_ago;
        assert!(grants.find(&token).is_none());
        *grant.since.lock() = Instant::now();
        assert!(grants.find(&token).is_some() && grant.begin());
        *grant.since.lock() = long_ago;
        assert!(grants.find(&token).is_some(), "it has begun");
    }

    #[test]
    fn a_session_is_kept_while_a_connection_stays() {
        let grants = Grants::default();
        let (_, grant) = grants.issue(Caller::Operator, "demo".into(), LONGEST).expect("there is room");
        grant.begin();
        let long_ago = Instant::now().checked_sub(IDLE + Duration::from_secs(1)).expect("the machine runs longer");
        let silent = || *grant.touched.lock() = long_ago;
        let presence = grant.clone().stay();
        silent();
        assert!(!grant.is_over());
        drop(presence);
        assert!(!grant.is_over(), "the connection has just ended");
        silent();
        assert!(grant.is_over());
    }

    #[test]
    fn a_session_is_over_after_its_time() {
        let grants = Grants::default();
        let (_, grant) = grants.issue(Caller::Operator, "demo".into(), Duration::ZERO).expect("there is room");
        assert!(!grant.is_over(), "it has not begun");
        grant.begin();
        std::thread::sleep(Duration::from_millis(1));
        assert!(grant.is_over());
    }
}
