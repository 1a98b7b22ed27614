//! What routes ask of values, and which pages may call them, as the file writes it.

use super::configuration::duration;
use crate::config::{AllowedHeaders, Cors, Test};
use serde_json::{Value, json};

/// What a value is to be, as the file writes it.
pub(super) fn test(test: &Test) -> Value {
    match test {
        Test::Is(text) => json!(text),
        Test::Not(text) => json!({ "not": text }),
        Test::Prefix(text) => json!({ "prefix": text }),
        Test::Regex(pattern) => json!({ "regex": pattern.as_str() }),
        Test::Present => json!({ "present": true }),
        Test::Absent => json!({ "present": false }),
    }
}

/// `cors` of a route.
pub(super) fn cors(cors: &Cors) -> Value {
    let listed = |text: &str| text.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    json!({
        "origins": cors.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "methods": listed(&cors.methods),
        "headers": match &cors.headers {
            AllowedHeaders::Asked => vec!["*".to_owned()],
            AllowedHeaders::These(names) => listed(names),
        },
        "expose": listed(&cors.expose),
        "credentials": cors.credentials,
        "max_age": duration(cors.max_age),
    })
}
