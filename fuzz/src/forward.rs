//! What one side sent and what the other side gets, read by somebody else: one message, the same one, and nothing behind it.
//!
//! The steps are those of `worker::plan`, `worker::upload` and `worker::relay`, without sockets: parse, route, rewrite, encode, and the body
//! piece by piece. Then [`milo`] reads what would have been sent.

mod down;
mod up;

use crate::Knobs;
use crate::milo::{Message, Refusal};
use ringgate::config::{self, Config};
use ringgate::policy::router::Router;
use std::sync::OnceLock;

/// Knobs: 0 a request or a response; the rest is said there.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    if knobs.bit(0) {
        down::check(knobs, bytes);
    } else {
        up::check(knobs, bytes);
    }
}

/// Routes that do everything a route can do to a message; the last one takes what is left.
const CONFIG: &str = r#"
[admin]
listen = "127.0.0.1:0"
[[listener]]
name = "edge"
listen = "127.0.0.1:0"
[[route]]
name = "strip"
match = { path = "/strip/*" }
upstream = "app"
strip_prefix = "/strip"
[[route]]
name = "template"
match = { host = "*.example.com", path = "/t/*" }
upstream = "app"
rewrite = "/v2{rest}/x"
max_body = "16B"
[[route]]
name = "rules"
match = { path = "/rules" }
upstream = "app"
request_headers = { set = { host = "inner:8080", x-env = "fuzz", via = "x" }, remove = ["cookie", "x-forwarded-for"] }
response_headers = { set = { x-env = "fuzz", date = "now" }, remove = ["set-cookie", "server"] }
[[route]]
name = "rest"
upstream = "app"
[upstream.app]
endpoints = [{ address = "127.0.0.1:9" }]
"#;

/// The configuration and its routes.
fn gateway() -> &'static (Config, Router) {
    static GATEWAY: OnceLock<(Config, Router)> = OnceLock::new();
    GATEWAY.get_or_init(|| {
        let config = config::parse(CONFIG, "the target's configuration").unwrap_or_else(|errors| panic!("{errors}"));
        let router = Router::try_new(&config).expect("routes that compile");
        (config, router)
    })
}

/// What must hold of every header section that the gateway has written, whatever it was made from.
fn check_headers(message: &Message, sent: &[u8]) {
    let framings = message.values("content-length").len() + message.values("transfer-encoding").len();
    assert!(framings <= 1, "two framings: {}", sent.escape_ascii());
    for hop in
        ["keep-alive", "proxy-connection", "proxy", "proxy-authorization", "proxy-authenticate", "http2-settings"]
    {
        assert!(message.values(hop).is_empty(), "{hop} went on: {}", sent.escape_ascii());
    }
    assert!(message.values("connection").len() <= 1 && message.values("upgrade").len() <= 1);
}

/// What milo refuses although RFC 9110 §6.6.2 allows it (a list may be empty), by the name of the field.
fn is_empty_trailer_field(refusal: &Refusal, values: &[&[u8]]) -> bool {
    refusal.0 == "Expected Trailer header value" && values.iter().any(|value| value.is_empty())
}
