//! `match.host`: hosts of a route, written out, with a wildcard or as a regex; and lists that may be one entry without brackets.

use super::addresses::{Host, check_host};
use super::matching::HostMatch;
use super::paths::compile_regex;
use super::problem::{Refusal, Sink};
use super::read::{List, Node, Read, Scalar, Written};
use super::tables::scalar_schema;
use super::values::text;
use regex_automata::meta::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;
use std::borrow::Cow;
use toml::de::DeValue;

/// One of `match.host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteHost(pub HostMatch);

impl Scalar for RouteHost {
    fn allowed() -> String {
        "a host such as \"api.example.com\", \"*.example.com\", \"api.*\", \"192.0.2.1\" or \"~regex\", without port, or a list of them"
            .to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if let Some(pattern) = written.strip_prefix('~') {
            compile_regex(pattern, Regex::config())?; // what is wrong is told of what was written
            compile_regex(&HostMatch::whole(pattern), Regex::config())?;
            return Ok(Self(HostMatch::Regex(pattern.to_owned())));
        }
        if let Some(name) = written.strip_suffix(".*").filter(|name| !name.is_empty()) {
            let name = name.to_ascii_lowercase();
            check_host(&name)?;
            return Ok(Self(HostMatch::Beginning(name)));
        }
        Host::parse(value).map(|Host(host)| Self(host))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 2048 })
    }
}

scalar_schema!(RouteHost);

/// One value, or a list of 1 to `MAX`.
#[derive(Clone, Debug)]
pub struct OneOrMore<T, const MAX: usize>(pub Vec<Written<T>>);

impl<T: Read, const MAX: usize> Read for OneOrMore<T, MAX> {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        if matches!(node.value, DeValue::Array(_)) {
            return List::<T, 1, MAX>::read(node, sink).map(|list| Self(list.0));
        }
        T::read(node, sink).map(|value| Self(vec![Written { value, span: node.span(), given: true }]))
    }
}

impl<T: JsonSchema, const MAX: usize> JsonSchema for OneOrMore<T, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMore_{MAX}_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = serde_json::Value::from(generator.subschema_for::<T>());
        let list = serde_json::Value::from(List::<T, 1, MAX>::json_schema(generator));
        schemars::json_schema!({ "anyOf": [one, list] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    #[test]
    fn hosts_are_names_beginnings_ends_or_regexes() {
        accepts::<RouteHost>(&["a.example", "*.a.example", "api.*", "API.internal.*", "~^(a|b)\\.example$", "[::1]"]);
        refuses::<RouteHost>(&["", "*", ".*", "*.*", "a.*.b", "a*", "~", "~(", "-a.*", "a.example:80"]);
    }
}
