//! The admin API: metrics, health and state for operators, over HTTP on a TCP or unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | Prometheus text ([`crate::observe::exposition`]) |
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 when traffic may come; 503 while starting or draining, or when a worker does not run |
//! | `GET /upstreams` | every cluster and endpoint, as the workers and the health checks see it |
//! | `GET /routes` | every route with its numbers |
//! | `GET /config` | the configuration in effect |
//! | `GET /usage?by=requests\|errors\|bytes\|latency&top=20` | the heaviest (route, client) pairs, and the heaviest routes |
//! | `POST /drain` | 202; the gateway stops taking connections and ends |
//! | `POST /handover` | 202 and the listening socket is closed, for a successor, if the gateway drains; else 409 |
//! | `PUT /upstreams/NAME/endpoints/ADDRESS` | adds the endpoint, or gives it the weight and priority of the body; until the next reload |
//! | `DELETE /upstreams/NAME/endpoints/ADDRESS` | takes it away; until the next reload |
//! | `POST /upstreams/NAME/endpoints/ADDRESS/drain`, `eject`, `readmit` | weight 0; put aside as if it had failed; back |
//! | `GET /generations` | the configuration in use, and those before it that something in flight still uses |
//! | `POST /reload` | reads the file anew: 200 with what has changed, once all workers use it; 422 with every error in it; 500 where it is right and could not be taken into use; 409 in a drain; 501 without a file |
//! | `POST /upgrade` | starts the next process, gives it what this one listens on, and drains: 200 with its process id once it serves; 500 with the reasons, and this one goes on; 409 in a drain |
//!
//! Answers that grow with the configuration are made row by row while they are sent (`rows`), so memory stays bounded. Nothing
//! here is authenticated: the listener is on loopback unless the file says otherwise.
//!
//! A request that a web page in the operator's browser could make is refused: a `POST` with an `Origin`, and whatever comes to a name
//! that is not the listener's (`hosts`).
//!
//! Each request is answered for the configuration in use when it comes.
//!
//! What this does not do: keep state.

mod configuration;
mod endpoints;
mod handover;
mod hosts;
mod identity;
mod own;
mod rows;
mod rules;
mod server;
mod traffic;
mod views;

pub use crate::control::endpoints::{Asked, Order, Put, Refused};
pub use crate::control::generations::GenerationView;
pub use server::{AdminListener, Passing, serve};

use crate::config::{Bind, Config};
use crate::control::process;
use crate::control::supervisor::{NotReloaded, Outcome};
use crate::control::upgrade::{NotUpgraded, Upgraded};
use crate::limits;
use crate::observe::exposition::{self, Scrape};
use crate::observe::labels::WorkerState;
use crate::observe::stats::Stats;
use crate::observe::usage::{self, UsageBy};
use crate::units::Instant;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRef, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use hosts::Hosts;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Acquire, Release};
use tokio::sync::{Notify, oneshot};

/// Where the gateway stands in its life. Shared: the supervisor sets it, `/readyz` reads it.
#[derive(Debug)]
pub struct Lifecycle(AtomicU8);

/// A time in the gateway's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not all listeners are open yet.
    Starting,
    /// Taking traffic.
    Serving,
    /// Finishing what is in flight, then ending.
    Draining,
}

impl Lifecycle {
    /// Begins at [`Phase::Starting`].
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU8::new(Phase::Starting as u8)))
    }

    /// Moves on.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Release);
    }

    /// Now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }
}

/// What the admin API shows and may do.
pub struct AdminState {
    /// The configuration in effect.
    pub config: Arc<Config>,
    /// Its numbers.
    pub stats: Arc<Stats>,
    /// Where the gateway stands.
    pub lifecycle: Arc<Lifecycle>,
    /// The clock that workers stamp their numbers with.
    pub clock: fn() -> Instant,
    /// Begins the drain; called at most once a request, must not block, and may be called again while draining.
    pub drain: Box<dyn Fn() + Send + Sync>,
    /// Has the configuration read anew; must not block. What comes of it is told when it is over.
    pub reload: Box<dyn Fn() -> oneshot::Receiver<Outcome> + Send + Sync>,
    /// Has the next process take over; as [`AdminState::reload`].
    pub upgrade: Box<dyn Fn() -> oneshot::Receiver<Result<Upgraded, NotUpgraded>> + Send + Sync>,
    /// Has an endpoint changed; must not block. What comes of it is told.
    pub order: Box<dyn Fn(Asked) -> oneshot::Receiver<Result<(), Refused>> + Send + Sync>,
    /// The configuration in use, last, and those before it that are in use.
    pub generations: Box<dyn Fn() -> Vec<GenerationView> + Send + Sync>,
}

/// Tells the state at the moment.
#[derive(Clone)]
struct Now(Arc<dyn Fn() -> Arc<AdminState> + Send + Sync>);

impl FromRef<Now> for Arc<AdminState> {
    fn from_ref(Now(state): &Now) -> Self {
        state()
    }
}

type Shared = State<Arc<AdminState>>;

const NO_SUCH_PAGE: &str = "no such page; there are GET /metrics, /healthz, /readyz, /upstreams, /routes, /config, /generations, /usage, and POST /reload, /upgrade, /drain, and /upstreams/NAME/endpoints/ADDRESS";
const NOT_FROM_A_PAGE: &str = "not from a web page";
const NOT_ITS_NAME: &str =
    "the admin API does not answer to this name; [admin] hosts lists those that it does besides its own address";

/// The admin API's routes, of a listener at `local`; `wanted` tells it that a successor wants its address.
fn router(state: Now, local: Bind, wanted: Arc<Notify>) -> Router {
    let hosts = (state.clone(), Arc::new(local));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || plain(StatusCode::OK, "ok\n")))
        .route("/readyz", get(readyz))
        .route("/upstreams", get(async |State(state): Shared| rows::json(views::upstreams(state))))
        .route("/upstreams/{upstream}/endpoints/{endpoint}", put(endpoints::put).delete(endpoints::delete))
        .route("/upstreams/{upstream}/endpoints/{endpoint}/{verb}", post(endpoints::post))
        .route("/routes", get(async |State(state): Shared| rows::json(views::routes(state))))
        .route("/config", get(async |State(state): Shared| rows::json(configuration::pieces(&state.config))))
        .route("/generations", get(generations))
        .route("/usage", get(usage_top))
        .route("/drain", post(drain))
        .route("/handover", post(handover))
        .route("/reload", post(reload))
        .route("/upgrade", post(upgrade))
        .fallback(async || error(StatusCode::NOT_FOUND, "not_found", NO_SUCH_PAGE))
        .method_not_allowed_fallback(async || {
            error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this page wants another method")
        })
        .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES_MAX))
        .layer(Extension(wanted))
        .layer(middleware::from_fn_with_state(hosts, only_to))
        .with_state(state)
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

fn error(status: StatusCode, token: &str, message: &str) -> Response {
    (status, axum::Json(json!({ "error": token, "message": message }))).into_response()
}

async fn metrics(State(state): Shared) -> Response {
    let scrape = Scrape::new(Arc::clone(&state.stats), process::numbers(), (state.clock)());
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], Body::new(rows::Pieces::new(scrape))).into_response()
}

async fn readyz(State(state): Shared) -> Response {
    match state.lifecycle.phase() {
        Phase::Starting => return plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Draining => return plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Phase::Serving => {}
    }
    let down = state.stats.worker_ids().find(|worker| state.stats.worker(*worker).state != WorkerState::Running);
    match down {
        None => plain(StatusCode::OK, "ready\n"),
        Some(worker) => {
            let text = format!("worker {} is {}\n", worker.0, state.stats.worker(worker).state.token());
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// The query of `/usage`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageQuery {
    by: Option<String>,
    top: Option<usize>,
}

async fn usage_top(
    State(state): Shared,
    query: Result<Query<UsageQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return error(StatusCode::BAD_REQUEST, "bad_request", &rejection.body_text()),
    };
    let token = query.by.as_deref().unwrap_or("requests");
    let Some(by) = UsageBy::from_token(token) else {
        return error(StatusCode::BAD_REQUEST, "bad_request", "by is one of requests, errors, bytes, latency");
    };
    let top = query.top.unwrap_or(20);
    if !(1..=limits::USAGE_TOP_MAX).contains(&top) {
        let message = format!("top is 1 to {}", limits::USAGE_TOP_MAX);
        return error(StatusCode::BAD_REQUEST, "bad_request", &message);
    }
    let pairs = usage::top(state.stats.usage(), by, top);
    let routes = usage::top(views::route_totals(&state), by, top);
    rows::json(views::usage(state, token.to_owned(), pairs, routes))
}

async fn generations(State(state): Shared) -> Response {
    let row = |view: GenerationView| {
        json!({
            "generation": view.number,
            "current": view.is_current,
            "age_seconds": view.age.as_secs_f64(),
            "requests": view.requests,
            "tunnels": view.tunnels,
        })
    };
    let rows: Vec<_> = (state.generations)().into_iter().map(row).collect();
    axum::Json(json!({ "generations": rows })).into_response()
}

async fn reload(State(state): Shared, headers: HeaderMap) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return error(StatusCode::FORBIDDEN, "forbidden", NOT_FROM_A_PAGE);
    }
    // nobody answers any more when the gateway is about to end
    match (state.reload)().await.unwrap_or(Err(NotReloaded::Draining)) {
        Ok(done) => {
            let said = json!({ "generation": done.generation, "changes": done.changes, "warnings": done.warnings });
            axum::Json(said).into_response()
        }
        Err(why) => {
            let (status, token) = match &why {
                NotReloaded::NoFile => (StatusCode::NOT_IMPLEMENTED, "no_file"),
                NotReloaded::Draining => (StatusCode::CONFLICT, "draining"),
                NotReloaded::Wrong(_) => (StatusCode::UNPROCESSABLE_ENTITY, "wrong"),
                NotReloaded::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
            };
            let said = json!({ "error": token, "message": NOT_RELOADED, "errors": why.errors() });
            (status, axum::Json(said)).into_response()
        }
    }
}

async fn upgrade(State(state): Shared, headers: HeaderMap) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return error(StatusCode::FORBIDDEN, "forbidden", NOT_FROM_A_PAGE);
    }
    match (state.upgrade)().await.unwrap_or(Err(NotUpgraded::Draining)) {
        Ok(Upgraded { pid, version }) => axum::Json(json!({ "pid": pid, "version": version })).into_response(),
        Err(why) => {
            let (status, token) = match &why {
                NotUpgraded::Draining => (StatusCode::CONFLICT, "draining"),
                NotUpgraded::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
            };
            let said = json!({ "error": token, "message": NOT_UPGRADED, "errors": why.errors() });
            (status, axum::Json(said)).into_response()
        }
    }
}

const NOT_UPGRADED: &str = "not upgraded: this process goes on";
const NOT_RELOADED: &str = "not reloaded: the configuration before stays in use";

/// Lets requests pass that are to the listener's own address or to one of `admin.hosts`.
async fn only_to(State((now, local)): State<(Now, Arc<Bind>)>, request: Request, next: Next) -> Response {
    let hosts = Hosts::new(&local, &Arc::<AdminState>::from_ref(&now).config.admin.hosts);
    if hosts.are_asked(&request) {
        return next.run(request).await;
    }
    error(StatusCode::MISDIRECTED_REQUEST, "misdirected", NOT_ITS_NAME)
}

async fn handover(State(state): Shared, Extension(wanted): Extension<Arc<Notify>>, headers: HeaderMap) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return error(StatusCode::FORBIDDEN, "forbidden", NOT_FROM_A_PAGE);
    }
    if state.lifecycle.phase() != Phase::Draining {
        return error(StatusCode::CONFLICT, "conflict", "this gateway does not drain; it needs its admin address");
    }
    wanted.notify_one();
    (StatusCode::ACCEPTED, axum::Json(json!({ "handover": true }))).into_response()
}

async fn drain(State(state): Shared, headers: HeaderMap) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return error(StatusCode::FORBIDDEN, "forbidden", NOT_FROM_A_PAGE);
    }
    (state.drain)();
    (StatusCode::ACCEPTED, axum::Json(json!({ "draining": true }))).into_response()
}

#[cfg(test)]
mod tests;
