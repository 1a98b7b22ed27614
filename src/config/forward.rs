//! `auth.forward`: somebody else decides, an HTTP service behind the gateway, who is asked before the request goes on.

use super::check::value;
use super::identity_keys;
use super::problem::{Sink, listed};
use super::values::words;
use super::{Retry, RetryOn};
use crate::units::{ClusterId, Ratio};
use http::{HeaderName, StatusCode};
use std::time::Duration;

words! {
    /// `auth.forward.on_failure`: what becomes of a request about which nobody has decided.
    OnFailure {
        /// It is answered with 503.
        Deny = "deny",
        /// It goes on, and nobody is recognised.
        Allow = "allow",
    }
}

impl OnFailure {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Whose endpoints are asked.
    pub cluster: ClusterId,
    /// The name of that.
    pub upstream: String,
    /// Path and query of the question.
    pub path: String,
    /// Headers of the request that the question has.
    pub send: Vec<HeaderName>,
    /// Headers of an answer of 2xx that go on with the request; no client can set them.
    pub copy: Vec<HeaderName>,
    /// Headers of any other answer that the client gets.
    pub return_headers: Vec<HeaderName>,
    /// The header of an answer of 2xx that is the consumer's name.
    pub consumer: Option<HeaderName>,
    /// For the whole answer, over all tries.
    pub timeout: Duration,
    /// Without an answer.
    pub on_failure: OnFailure,
    /// How long an answer of 2xx holds for the same question; zero: it is asked each time.
    pub cache: Duration,
    /// How the question is tried again.
    pub retry: Retry,
}

impl Forward {
    /// Headers in which it is the gateway that says something.
    pub fn identity(&self) -> impl Iterator<Item = &HeaderName> {
        self.copy.iter().chain(&self.consumer)
    }
}

/// From the table; `upstreams` are names, by rows.
pub(super) fn forward(table: &identity_keys::Forward, upstreams: &[&str], sink: &mut Sink<'_>) -> Option<Forward> {
    let upstream = table.upstream.as_ref()?;
    let name = upstream.value.0.as_str();
    let Some(row) = upstreams.iter().position(|other| *other == name) else {
        let message = match upstreams {
            [] => "there is no such upstream, nor any other".to_owned(),
            names => format!("there is no such upstream; there are: {}", listed(names)),
        };
        let help = sink.did_you_mean(name, upstreams).or_else(|| Some(format!("add [upstream.{name}]")));
        sink.value(table.at.key("upstream"), upstream.span.clone(), message, help);
        return None;
    };
    for (key, names) in [("send", &table.send), ("copy", &table.copy), ("return_headers", &table.return_headers)] {
        for name in names.iter().flat_map(|names| &names.value.0) {
            let why = match name.value.0.as_str() {
                "*" => "is the name of one header; all of them cannot be meant, so name those that are",
                other if key == "send" && is_told_anyway(other) => {
                    "has no effect: the question says it anyway, in words of the gateway's"
                }
                _ => continue,
            };
            sink.value(table.at.key(key), name.span.clone(), format!("{}: {why}", name.value.0), None);
        }
    }
    if let Some(path) = table.path.as_ref().filter(|path| path.value.0.contains(['{', '}'])) {
        let message = "nothing is put in here; the question says the URL in X-Forwarded-Uri".to_owned();
        sink.value(table.at.key("path"), path.span.clone(), message, None);
    }
    let list = |list: &Option<identity_keys::ForwardHeaders>| -> Option<Vec<HeaderName>> {
        Some(list.as_ref()?.value.0.iter().map(|name| name.value.0.clone()).collect())
    };
    for name in table.copy.iter().flat_map(|names| &names.value.0) {
        if let Some(why) = super::check_identity::unfit(&name.value.0) {
            sink.value(table.at.key("copy"), name.span.clone(), format!("{}: {why}", name.value.0), None);
        }
    }
    let consumer = value(&table.consumer).map(|header| header.0);
    if let (Some(header), Some(written)) = (&consumer, &table.consumer)
        && let Some(why) = super::check_identity::unfit(header)
    {
        sink.value(table.at.key("consumer"), written.span.clone(), format!("{header}: {why}"), None);
    }
    Some(Forward {
        cluster: ClusterId::from_index(row),
        upstream: name.to_owned(),
        path: value(&table.path)?.0,
        send: list(&table.send)?,
        copy: list(&table.copy)?,
        return_headers: list(&table.return_headers)?,
        consumer,
        timeout: value(&table.timeout)?.0,
        on_failure: value(&table.on_failure)?,
        cache: value(&table.cache)?.0,
        retry: retry()?,
    })
}

/// Whether the question has this header in any case, and never the client's.
#[must_use]
pub fn is_told_anyway(header: &str) -> bool {
    header.starts_with("x-forwarded-") || matches!(header, "host" | "via")
}

/// As `route.retry` is unless a route says more: a question may be asked twice.
fn retry() -> Option<Retry> {
    let statuses = vec![StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    Some(Retry {
        attempts: 2,
        on: RetryOn { connect: true, reset: true, timeout: true, statuses, codes: Vec::new() },
        non_idempotent: false,
        per_try_timeout: None,
        backoff_max: Duration::from_millis(250),
        min_remaining: Ratio::try_new(0.1)?,
    })
}
