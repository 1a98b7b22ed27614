//! Words and texts of the file that say how a listener or an upstream speaks: what is odd but legal, what is hidden, PROXY headers.

use super::file::Timeout;
use super::names::HeaderText;
use super::problem::{Refusal, Sink};
use super::read::{Node, Read, Scalar};
use super::tables::{scalar_schema, table};
use super::values::{Factor, Size, text, words};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;
use std::borrow::Cow;
use std::time::Duration;
use toml::de::DeValue;

words! {
    /// `listener.header_underscores`: headers with an underscore in their names.
    Underscores {
        /// They are not seen and do not go on.
        Drop = "drop",
        /// They are headers as any other.
        Keep = "keep",
        /// The request is refused with 400.
        Reject = "reject",
    }
}

words! {
    /// `listener.encoded_separators`: `%2F` and `%5C` in a path.
    Separators {
        /// The request is refused with 400.
        Reject = "reject",
        /// They go on as they are and separate nothing here.
        Keep = "keep",
    }
}

words! {
    /// `listener.x_forwarded_for`: what endpoints get there.
    ForwardedFor {
        /// What a trusted proxy has said, and behind it the proxy; of anybody else the peer alone.
        Append = "append",
        /// The client alone, after `trusted_proxies`.
        Replace = "replace",
    }
}

words! {
    /// `upstream.proxy_protocol`: what is sent first on each new connection.
    ProxyVersion {
        /// Nothing.
        Off = "off",
        /// The line of text.
        V1 = "v1",
        /// The binary header.
        V2 = "v2",
    }
}

words! {
    /// `upstream.spill`: when a lower tier is used.
    Spill {
        /// Tiers share the load by the health they have left.
        Proportional = "proportional",
        /// When the one above it has nobody left.
        None = "none",
    }
}

/// `retry.per_try_timeout`: a duration, or `None` for "auto".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerTry(pub Option<Duration>);

impl Scalar for PerTry {
    fn allowed() -> String {
        format!("\"auto\", or {}", Timeout::allowed())
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value.as_str() {
            Some("auto") => Ok(Self(None)),
            _ => Timeout::parse(value).map(|timeout| Self(Some(timeout.0))),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "const": "auto" }, Timeout::schema()] })
    }
}

scalar_schema!(PerTry);

/// `route.timeout`: a duration, or a table.
#[derive(Clone, Debug)]
pub enum RouteTimeout {
    /// A duration.
    Fixed(Timeout),
    /// A table.
    Adaptive(Box<Adaptive>),
}

impl Read for RouteTimeout {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        match node.value {
            DeValue::Table(_) => Adaptive::read(node, sink).map(|adaptive| Self::Adaptive(Box::new(adaptive))),
            _ => Timeout::read(node, sink).map(Self::Fixed),
        }
    }
}

impl JsonSchema for RouteTimeout {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RouteTimeout".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let adaptive = serde_json::Value::from(generator.subschema_for::<Adaptive>());
        schemars::json_schema!({ "anyOf": [Timeout::schema(), adaptive] })
    }
}

table! {
    /// A T_max that follows the route's latency: k times a high quantile of it.
    Adaptive {
        /// Must be true.
        required adaptive: bool;
        /// Factor, 1 to 100.
        default k: Factor = 3.0;
        /// Lower bound, 1ms to 1d.
        default min: Timeout = "50ms";
        /// Upper bound, 1ms to 1d; used until enough requests were seen.
        default max: Timeout = "5s";
    }
}

/// `listener.server`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerField {
    /// The endpoint's goes on; the gateway's own replies have none.
    Pass,
    /// No response has one.
    Remove,
    /// Every response has this one, the gateway's own replies too.
    Set(http::HeaderValue),
}

impl Scalar for ServerField {
    fn allowed() -> String {
        "\"pass\", \"remove\" or the value that the Server header gets, such as \"edge\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match text(value)? {
            "pass" => Ok(Self::Pass),
            "remove" => Ok(Self::Remove),
            "" => Err(Refusal::plain().help("did you mean \"remove\"?".to_owned())),
            _ => HeaderText::parse(value).map(|HeaderText(value)| Self::Set(value)),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Bytes a second, such as `"1KiB/s"`; `"0"` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate(pub u64);

/// A floor above it would refuse whoever is not on the same machine.
const BYTE_RATE_MAX: u64 = 1 << 30;

impl Scalar for ByteRate {
    fn allowed() -> String {
        "\"0\" (off) or a size per second up to 1GiB/s, such as \"1KiB/s\" (units: B, KiB, MiB, GiB)".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = match value {
            DeValue::Integer(number) => {
                let help = if number.as_str() == "0" { "\"0\"".to_owned() } else { format!("\"{number}B/s\"") };
                return Err(Refusal::plain().help(format!("did you mean {help}?")));
            }
            value => text(value)?,
        };
        if written == "0" {
            return Ok(Self(0));
        }
        let Some(size) = written.strip_suffix("/s") else {
            let is_size = Size::<0, BYTE_RATE_MAX>::parse(value).is_ok();
            let refusal = Refusal::plain();
            return Err(if is_size { refusal.help(format!("did you mean \"{written}/s\"?")) } else { refusal });
        };
        let size = DeValue::String(Cow::Borrowed(size));
        Size::<0, BYTE_RATE_MAX>::parse(&size).map(|Size(bytes)| Self(bytes)).map_err(|_| Refusal::plain())
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(0|[0-9]+(\\.[0-9]+)?(B|KiB|MiB|GiB)/s)$" })
    }
}

scalar_schema!(ServerField, ByteRate);

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(Cow::Borrowed(text))
    }

    #[test]
    fn a_byte_rate_is_a_size_per_second_or_zero() {
        for (text, bytes) in [("0", 0), ("0B/s", 0), ("1B/s", 1), ("1.5KiB/s", 1_536), ("1GiB/s", 1 << 30)] {
            assert_eq!(ByteRate::parse(&string(text)).ok(), Some(ByteRate(bytes)), "{text}");
        }
        for text in ["", "1", "1KiB", "/s", "1KB/s", "1KiB/min", "2GiB/s", "-1B/s", "1KiB /s"] {
            assert!(ByteRate::parse(&string(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_field_is_a_word_or_a_header_value() {
        assert_eq!(ServerField::parse(&string("pass")).ok(), Some(ServerField::Pass));
        assert_eq!(ServerField::parse(&string("remove")).ok(), Some(ServerField::Remove));
        let edge = ServerField::Set(http::HeaderValue::from_static("edge/1 (a)"));
        assert_eq!(ServerField::parse(&string("edge/1 (a)")).ok(), Some(edge));
        for text in ["", " a", "a\r\nb", "é"] {
            assert!(ServerField::parse(&string(text)).is_err(), "{text:?}");
        }
    }
}
