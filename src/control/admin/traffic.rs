//! What upstreams and routes do with traffic beyond passing it on, as the file writes it.

use super::configuration::duration;
use crate::config::{SameSite, Sticky};
use serde_json::{Value, json};

/// `sticky` of an upstream.
pub(super) fn sticky(sticky: &Sticky) -> Value {
    json!({
        "cookie": sticky.cookie,
        "key": sticky.key.as_ref().map(|_| "(hidden)"),
        "path": sticky.path,
        "max_age": duration(sticky.max_age),
        "secure": sticky.secure,
        "http_only": sticky.http_only,
        "same_site": match sticky.same_site {
            SameSite::Strict => "strict",
            SameSite::Lax => "lax",
            SameSite::None => "none",
        },
    })
}
