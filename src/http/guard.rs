//! What stands before every handler: who asks, how often, whether the route is for them, whether its object is theirs.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{App, access::Access, api, nodes, problem::Problem};
use crate::{
    session::Refusal,
    tenants::{
        Caller, Entry,
        scope::{self, Allow, Found, Object, Route},
    },
};

/// See the module.
pub struct Guard {
    pub access: Access,
    pub app: Arc<App>,
}

/// Why a request goes no further.
enum Stop {
    Problem(Problem),
    Response(Response),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// The first layer of the router.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    // A browser asks with OPTIONS before a request to another origin, without any key.
    if request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let found = scope::find(request.method(), matched.as_deref().unwrap_or(request.uri().path()));
    let request = match nodes::pass_on(&guard, &found, request).await {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let public = matches!(&found, Found::Route(route) if matches!(route.allow, Allow::Public | Allow::Node));
    let caller = match guard.access.check(&request, public) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let (mut parts, body) = request.into_parts();
    let object = object(&mut parts).await;
    let recorded = (guard.app.tenants.is_some() && is_recorded(&parts)).then(|| parts.method.to_string());
    let answer = match guard.pass(&caller, &parts, matched.is_some(), &found, object.as_deref()).await {
        Ok(()) => {
            parts.extensions.insert(caller.clone());
            next.run(Request::from_parts(parts, body)).await
        }
        Err(Stop::Problem(problem)) => problem.into_response(),
        // Not recorded: it is to cost nothing.
        Err(Stop::Response(response)) => return response,
    };
    if let (Some(method), Some(route), Some(tenants)) = (recorded, matched, &guard.app.tenants) {
        let made = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()?.rsplit('/').next());
        let object = object.as_deref().or(made).unwrap_or_default();
        tenants.record(Entry::new(&caller, &method, &route, object, answer.status().as_u16()));
    }
    answer
}

/// What changes something, and what opens a WebSocket.
fn is_recorded(parts: &Parts) -> bool {
    !parts.method.is_safe() || parts.headers.contains_key(header::UPGRADE)
}

/// The first parameter of the path, as handlers read it.
pub(super) async fn object(parts: &mut Parts) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    params.iter().next().map(|(_, value)| value.to_owned())
}

impl Guard {
    async fn pass(
        &self,
        caller: &Caller,
        parts: &Parts,
        matched: bool,
        found: &Found,
        object: Option<&str>,
    ) -> Result<(), Stop> {
        if let Caller::Tenant(key) = caller {
            key.request().map_err(|wait| Stop::Response(too_often(wait.0)))?;
        }
        let route = match found {
            Found::Route(route) => route,
            // The router says that there is nothing.
            Found::Undeclared if !matched => return Ok(()),
            Found::Undeclared => {
                let cause = "who may use this route is not declared: it is a fault of the server";
                return Err(Problem::of(StatusCode::FORBIDDEN, "undeclared", cause).into());
            }
            Found::Methods(methods) => return Err(Stop::Response(method_not_allowed(parts, methods))),
        };
        if route.allow == Allow::Node && !self.app.cluster.as_ref().is_some_and(|own| own.is_node(&parts.headers)) {
            return Err(Problem::of(StatusCode::FORBIDDEN, "scope", "this is for the nodes of a cluster").into());
        }
        let Caller::Tenant(key) = caller else { return Ok(()) };
        match route.allow {
            Allow::Public | Allow::Token | Allow::Node => {}
            // A token has been compared with what it opens.
            Allow::Scopes(_) if self.app.grants.opens_parts(parts).is_some() => {}
            Allow::Scopes(scopes) if key.has(scopes) => {}
            Allow::Scopes(scopes) => {
                let cause = format!("the key has not the scope for this: one of {}", scope::list(scopes));
                return Err(Problem::of(StatusCode::FORBIDDEN, "scope", cause).into());
            }
            Allow::Operator => {
                let cause = "this is for the operator, whose keys are in auth.keys";
                return Err(Problem::of(StatusCode::FORBIDDEN, "scope", cause).into());
            }
        }
        Ok(self.check_object(caller, route, object.unwrap_or_default()).await?)
    }

    /// What is another's is answered as what is not there at all.
    async fn check_object(&self, caller: &Caller, route: &Route, name: &str) -> Result<(), Problem> {
        let app = &self.app;
        match route.object {
            Object::None | Object::Shared => Ok(()),
            Object::Session => {
                app.manager.get_for(name, caller).map(drop).map_err(|_| Refusal::Unknown(name.to_owned()).into())
            }
            Object::Upload => app.uploads.get(name, caller).map(drop),
            Object::Render => app.renders.get_for(name, caller).map(drop).ok_or_else(|| api::unknown_render(name)),
            Object::Avatar | Object::NewAvatar => {
                let (store, caller, name) = (app.manager.avatars().clone(), caller.clone(), name.to_owned());
                let new = route.object == Object::NewAvatar;
                let check = move || match () {
                    () if new && store.is_taken(&name, &caller) => Err(api::taken_avatar(&name)),
                    () if !new && store.get_for(&name, &caller).is_none() => Err(api::unknown_avatar(&name)),
                    () => Ok(()),
                };
                let checked = tokio::task::spawn_blocking(check).await;
                checked.unwrap_or_else(|_| Err(Problem::internal("this is a fault of the server; its log says more")))
            }
        }
    }
}

fn too_often(wait: std::time::Duration) -> Response {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    let cause = format!("the key asks more often than its tenant's quota allows: ask again in {seconds} s");
    let mut response = Problem::of(StatusCode::TOO_MANY_REQUESTS, "rate", cause).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

fn method_not_allowed(parts: &Parts, methods: &[&str]) -> Response {
    let cause = format!("{} does not take {}; see the header Allow", parts.uri.path(), parts.method);
    let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, cause).into_response();
    let mut allowed = methods.join(",");
    if methods.contains(&"GET") {
        allowed += ",HEAD";
    }
    response.headers_mut().extend(HeaderValue::try_from(allowed).ok().map(|allowed| (header::ALLOW, allowed)));
    response
}
