//! Endpoints by hand: `PUT`, `DELETE` and `POST` under `/upstreams/NAME/endpoints/ADDRESS`.
//!
//! ADDRESS is where the endpoint is, or what it is known by (`orders.internal:8080/10.0.0.1:8080`, its slash as `%2F`). Every answer says that
//! nothing of it is kept: the file is what counts with the next reload.

use super::{AdminState, Asked, NOT_FROM_A_PAGE, Order, Put, Refused, error};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use std::sync::Arc;

type Shared = State<Arc<AdminState>>;

pub(super) async fn put(
    State(state): Shared,
    Path((upstream, endpoint)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(why) => return error(why.status(), "bad_request", &why.body_text()),
    };
    let put = match body.is_empty() {
        true => Put::default(),
        false => match serde_json::from_slice(&body) {
            Ok(put) => put,
            Err(why) => {
                let message = format!("the body is {{ \"weight\": 0 to 65535, \"priority\": 0 to 15 }}: {why}");
                return error(StatusCode::BAD_REQUEST, "bad_request", &message);
            }
        },
    };
    obey(&state, &headers, Asked { upstream, endpoint, order: Order::Put(put) }).await
}

pub(super) async fn delete(
    State(state): Shared,
    Path((upstream, endpoint)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    obey(&state, &headers, Asked { upstream, endpoint, order: Order::Delete }).await
}

pub(super) async fn post(
    State(state): Shared,
    Path((upstream, endpoint, verb)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let order = match verb.as_str() {
        "drain" => Order::Drain,
        "eject" => Order::Eject,
        "readmit" => Order::Readmit,
        _ => return error(StatusCode::NOT_FOUND, "not_found", "an endpoint can be told to drain, eject and readmit"),
    };
    obey(&state, &headers, Asked { upstream, endpoint, order }).await
}

async fn obey(state: &AdminState, headers: &HeaderMap, asked: Asked) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return error(StatusCode::FORBIDDEN, "forbidden", NOT_FROM_A_PAGE);
    }
    let said = json!({ "upstream": asked.upstream, "endpoint": asked.endpoint, "persisted": false });
    match (state.order)(asked).await {
        Ok(Ok(())) => axum::Json(said).into_response(),
        Ok(Err(Refused::Unknown(why))) => error(StatusCode::NOT_FOUND, "unknown", &why),
        Ok(Err(Refused::Wrong(why))) => error(StatusCode::BAD_REQUEST, "bad_request", &why),
        // nobody answers any more when the gateway is about to end
        Err(_) => error(StatusCode::CONFLICT, "draining", "the gateway drains"),
    }
}
