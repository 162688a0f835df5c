//! Requests for what another node of the cluster has, and what nodes ask of one another.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    App,
    access::given_key,
    extract,
    guard::{Guard, object},
    liveavatar,
    problem::Problem,
};
use crate::{
    cluster::{self, Member, Node},
    tenants::scope::{Found, Object},
};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/cluster/avatars/{name}/{file}", get(avatar))
}

/// A file of an avatar, for another node.
async fn avatar(
    State(app): State<Arc<App>>,
    extract::Path((name, file)): extract::Path<(String, String)>,
) -> Result<Body, Problem> {
    cluster::read_avatar(app.manager.avatars(), &name, &file).await
}

/// Passes a request on to the node that has its session. What is for this node comes back.
pub(super) async fn pass_on(guard: &Guard, found: &Found, request: Request) -> Result<Request, Response> {
    let (Some(member), Found::Route(route)) = (&guard.app.cluster, found) else { return Ok(request) };
    if member.is_node(request.headers()) {
        return Ok(request);
    }
    if request.uri().path().starts_with(liveavatar::PATH) {
        let Some(node) = issuer(member, &request) else { return Ok(request) };
        return Err(forward(guard, member, &node, request).await);
    }
    if route.object != Object::Session {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let id = object(&mut parts).await.unwrap_or_default();
    let request = Request::from_parts(parts, body);
    if guard.app.manager.get(&id).is_ok() {
        return Ok(request);
    }
    let Some((node, tenant)) = member.elsewhere(&id).await else { return Ok(request) };
    if let Some(to) = node.public_url.as_deref().filter(|_| is_offer(&request)) {
        // A key would not follow to another origin, so that only those who need none are sent there.
        let open = given_key(request.headers()).is_none() && tenant.is_none();
        if open && guard.access.check(&request, false).is_ok() {
            return Err(redirect(to, &request));
        }
    }
    Err(forward(guard, member, &node, request).await)
}

/// An offer of WHIP or WHEP, whose media goes to the node itself.
fn is_offer(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == axum::http::Method::POST && (path.starts_with("/whep/") || path.starts_with("/whip/"))
}

/// The node that has given the token of a request for LiveAvatar's API.
fn issuer(member: &Member, request: &Request) -> Option<Node> {
    let name = liveavatar::bearer(request.headers())?.rsplit_once('.')?.1;
    member.nodes().into_iter().find(|node| node.name == name && !member.is_own(node))
}

async fn forward(guard: &Guard, member: &Member, node: &Node, request: Request) -> Response {
    if let Err(problem) = guard.access.check_place(&request) {
        return problem.into_response();
    }
    let place = match request.headers().contains_key(header::UPGRADE) {
        true => match guard.app.sockets.clone().try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => return Problem::full("too many WebSockets are open (limits.connections)").into_response(),
        },
        false => None,
    };
    member.forward(node, request, place).await.unwrap_or_else(IntoResponse::into_response)
}

fn redirect(to: &str, request: &Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    let location = HeaderValue::try_from(format!("{}{path}", to.trim_end_matches('/')));
    response.headers_mut().extend(location.ok().map(|to| (header::LOCATION, to)));
    response
}
