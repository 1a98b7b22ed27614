//! The keys of rate limits, as the file writes them: those of `limit = […]` and those of `[limit.NAME]`.

use super::LimitKey;
use super::identity_keys::Token;
use super::names::{Header, Name, capture, keyed, refused_key};
use super::paths::QueryText;
use super::problem::{Refusal, Sink};
use super::read::{Map, Node, Read, Scalar};
use super::redis::SharedBy;
use super::tables::{scalar_schema, table};
use super::values::{Int, PerTime, text};
use crate::limits::{self, LIMIT_KEYS_MAX, ROUTE_CONDITIONS_MAX};
use crate::units::Window;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;
use std::borrow::Cow;
use toml::de::DeValue;

/// Requests that may come at once.
pub(super) type Burst = Int<1, 1_000_000_000>;

/// Requests at once.
pub(super) type AtOnce = Int<1, 1_000_000>;

/// Tokens of a window.
const QUOTA_MAX: u64 = 1_000_000_000;

/// `limit.quota`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerWindow {
    /// Tokens, at least 1.
    pub count: u64,
    /// In which they may be taken.
    pub window: Window,
}

impl Scalar for PerWindow {
    fn allowed() -> String {
        "a quota such as \"10000/day\" (1 to 1000000000 per hour, day or month, of UTC)".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let (count, unit) = text(value)?.split_once('/').ok_or_else(Refusal::plain)?;
        let (count, unit) = (count.trim(), unit.trim());
        let Some((_, window)) = Window::ALL.into_iter().find(|(name, _)| *name == unit) else {
            let near = match unit {
                "h" => Some("hour"),
                "d" => Some("day"),
                "mo" | "mon" => Some("month"),
                _ => None,
            };
            let refusal = Refusal::why(format!("unknown window {unit:?}"));
            return Err(match near {
                Some(near) => refusal.help(format!("did you mean \"{count}/{near}\"?")),
                None => refusal,
            });
        };
        let count = count.parse().ok().filter(|count| (1..=QUOTA_MAX).contains(count)).ok_or_else(Refusal::plain)?;
        Ok(Self { count, window })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]+/(hour|day|month)$" })
    }
}

/// Tokens of a request.
type Cost = Int<1, { limits::COST_MAX }>;

table! {
    /// A rate limit.
    Limit {
        /// Requests in a time: "100/s", "6000/min", "10/h". Exactly one of rate, quota and concurrency is given.
        optional rate: PerTime;
        /// Requests that may come at once, 1 to 1000000000; what the rate admits in a second, at least 1, where it is not given.
        optional burst: Burst;
        /// Requests in each hour, day or month of UTC: "10000/day", "500/hour", "1000000/month". Exact over all cores, kept over a reload and an
        /// upgrade, and with gateway.quota_file over a restart.
        optional quota: PerWindow;
        /// Requests at once, 1 to 1000000; a tunnel is one.
        optional concurrency: AtOnce;
        /// What is counted: route, client_ip (IPv6 by /64), client_ip/24 or client_ip/24/56 (networks of so many bits of IPv4 and IPv6), consumer
        /// (those who were not recognised together), group, claim:NAME, cookie:NAME, header:NAME, client_cert, template (which of the route's paths
        /// was met), capture:NAME (what that path has found); or a list of these, each combination of which is counted.
        default per: LimitPer = "route";
        /// Count and report, but never reject.
        default dry_run: bool = false;
        /// Tokens that each request takes, 1 to 1000000, no more than burst.
        default cost: Cost = 1;
        /// A header of the response that says what the request has cost in all; what is more than cost is taken then, if need be from what comes
        /// later: down to a burst below zero.
        optional cost_header: Header;
    }
}

table! {
    /// A limit of [limit.NAME], and what requests cost there.
    ChargedLimit {
        /// Its name.
        required name: Name;
        /// Tokens that each request takes, 1 to 1000000, no more than the limit's burst and those of its tiers.
        default cost: Cost = 1;
        /// A header of the response that says what the request has cost in all, as with a limit that is written here.
        optional cost_header: Header;
    }
}

table! {
    /// A rate limit that routes and listeners name: what they send counts together.
    SharedLimit {
        /// Requests in a time: "100/s", "6000/min", "10/h". Exactly one of rate, quota and concurrency is given.
        optional rate: PerTime;
        /// Requests that may come at once, 1 to 1000000000; what the rate admits in a second, at least 1, where it is not given.
        optional burst: Burst;
        /// Requests in each hour, day or month of UTC: "10000/day", "500/hour", "1000000/month". Exact over all cores, kept over a reload and an
        /// upgrade, and with gateway.quota_file over a restart.
        optional quota: PerWindow;
        /// Requests at once, 1 to 1000000; a tunnel is one.
        optional concurrency: AtOnce;
        /// What is counted: gateway (all together), or what a route's limit may count but the route.
        default per: SharedLimitPer = "gateway";
        /// Count and report, but never reject.
        default dry_run: bool = false;
        /// "redis": all gateways that ask the same Redis count together. Of a rate only.
        optional shared: SharedBy;
        /// Other rates, quotas or numbers for consumers of these groups; of several groups that fit the first in this table.
        default tiers: Map<Name, Tier, ROUTE_CONDITIONS_MAX> = {};
    }
}

table! {
    /// What holds for the consumers of a group.
    Tier {
        /// Requests in a time, where the limit is a rate.
        optional rate: PerTime;
        /// Requests that may come at once, as with the limit itself.
        optional burst: Burst;
        /// Requests in a window of the calendar, where the limit is a quota.
        optional quota: PerWindow;
        /// Requests at once, where the limit says those.
        optional concurrency: AtOnce;
    }
}

/// One of a route's `limit`: a limit, or the name of one.
#[derive(Clone, Debug)]
pub enum LimitItem {
    /// Of `[limit.NAME]`.
    Named(Name),
    /// The same, with what requests cost.
    Charged(Box<ChargedLimit>),
    /// Written here.
    Own(Box<Limit>),
}

impl Read for LimitItem {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        match node.value {
            DeValue::String(_) => Name::read(node, sink).map(Self::Named),
            DeValue::Table(table) if table.contains_key("name") => {
                ChargedLimit::read(node, sink).map(|limit| Self::Charged(Box::new(limit)))
            }
            _ => Limit::read(node, sink).map(|limit| Self::Own(Box::new(limit))),
        }
    }
}

impl JsonSchema for LimitItem {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "LimitItem".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let own = serde_json::Value::from(generator.subschema_for::<Limit>());
        let named = serde_json::Value::from(generator.subschema_for::<Name>());
        let charged = serde_json::Value::from(generator.subschema_for::<ChargedLimit>());
        schemars::json_schema!({ "anyOf": [named, charged, own] })
    }
}

const PLAIN: [&str; 5] = ["client_ip", "client_cert", "consumer", "group", "template"];
const KEYED: [&str; 4] = ["capture", "claim", "cookie", "header"];

/// `limit.per` of a route's own limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitPer(pub LimitKey);

/// `limit.per` of one that is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLimitPer(pub LimitKey);

fn allowed(all: &str) -> String {
    format!(
        "{all}, client_ip, client_ip/BITS, client_ip/BITS/BITS, client_cert, consumer, group, template, capture:NAME, claim:NAME, cookie:NAME, header:NAME, or a list of 2 to {LIMIT_KEYS_MAX} of these without {all}"
    )
}

/// Of one key or a list of them; `all` is what counts everything together.
fn parse(value: &DeValue<'_>, all: &str) -> Result<LimitKey, Refusal> {
    let DeValue::Array(list) = value else {
        let word = text(value)?;
        return if word == all { Ok(LimitKey::Route) } else { one(word, &[&[all], &PLAIN[..]].concat()) };
    };
    if !(2..=LIMIT_KEYS_MAX).contains(&list.len()) {
        return Err(Refusal::plain());
    }
    let mut keys: Vec<LimitKey> = Vec::with_capacity(list.len());
    for part in list {
        let word = text(part.get_ref())?;
        let key = one(word, &PLAIN)?;
        if keys.contains(&key) {
            return Err(Refusal::why(format!("{word} stands there twice")));
        }
        keys.push(key);
    }
    Ok(LimitKey::Several(keys.into()))
}

fn one(word: &str, plain: &[&str]) -> Result<LimitKey, Refusal> {
    if let Some(bits) = word.strip_prefix("client_ip/") {
        return network(bits);
    }
    match keyed(word) {
        ("client_ip", None) => Ok(LimitKey::ClientIp),
        ("client_cert", None) => Ok(LimitKey::ClientCertificate),
        ("consumer", None) => Ok(LimitKey::Consumer),
        ("group", None) => Ok(LimitKey::Group),
        ("template", None) => Ok(LimitKey::Template),
        ("capture", Some(name)) => capture(name).map(LimitKey::Capture),
        ("header", Some(name)) => Ok(LimitKey::Header(Header::parse(&DeValue::String(name.into()))?.0)),
        ("cookie", Some(name)) => Ok(LimitKey::Cookie(Token::parse(&DeValue::String(name.into()))?.0)),
        ("claim", Some(name)) if !name.is_empty() => {
            Ok(LimitKey::Claim(QueryText::parse(&DeValue::String(name.into()))?.0))
        }
        (word, name) => Err(refused_key(word, name, plain, &KEYED)),
    }
}

/// `24` or `24/56`.
fn network(bits: &str) -> Result<LimitKey, Refusal> {
    let refusal =
        || Refusal::why("the bits of a network are 1 to 32 of IPv4 and 1 to 128 of IPv6, as in client_ip/24/56");
    let number = |text: &str, max: u8| text.parse().ok().filter(|bits| (1..=max).contains(bits)).ok_or_else(refusal);
    let (v4, v6) = bits.split_once('/').unwrap_or((bits, "64"));
    Ok(LimitKey::ClientNetwork { v4: number(v4, 32)?, v6: number(v6, 128)? })
}

fn schema(all: &str) -> serde_json::Value {
    let one =
        "client_ip(/[0-9]{1,2}(/[0-9]{1,3})?)?|client_cert|consumer|group|template|(capture|claim|cookie|header):.+";
    json!({ "anyOf": [
        { "type": "string", "pattern": format!("^({all}|{one})$") },
        { "type": "array", "minItems": 2, "maxItems": LIMIT_KEYS_MAX, "items": { "type": "string", "pattern": format!("^({one})$") } },
    ] })
}

impl Scalar for LimitPer {
    fn allowed() -> String {
        allowed("route")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        parse(value, "route").map(Self)
    }

    fn schema() -> serde_json::Value {
        schema("route")
    }
}

impl Scalar for SharedLimitPer {
    fn allowed() -> String {
        allowed("gateway")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        parse(value, "gateway").map(Self)
    }

    fn schema() -> serde_json::Value {
        schema("gateway")
    }
}

scalar_schema!(LimitPer, SharedLimitPer, PerWindow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, accepts_values, refuses, refuses_values};

    #[test]
    fn a_quota_is_a_number_in_a_window_of_the_calendar() {
        accepts::<PerWindow>(&["1/hour", "10000/day", "1000000000/month", "7 / day"]);
        refuses::<PerWindow>(&["", "1", "0/day", "1/d", "1/week", "-1/day", "1000000001/day", "1.5/hour", "/day"]);
    }

    #[test]
    fn what_is_counted_is_a_word_a_name_a_network_or_a_few_of_these() {
        accepts::<LimitPer>(&[
            "route",
            "client_ip",
            "client_ip/24",
            "client_ip/1/128",
            "header:x-api-key",
            "cookie:a",
            "claim:sub",
            "group",
            "template",
            "capture:id",
            "capture:1",
        ]);
        refuses::<LimitPer>(&["capture", "capture:", "capture:{id}", "template:a"]);
        refuses::<LimitPer>(&["", "gateway", "header", "header:", "header:a b", "cookie:a;b", "ip", "claim:"]);
        refuses::<LimitPer>(&[
            "client_ip/",
            "client_ip/0",
            "client_ip/33",
            "client_ip/24/129",
            "client_ip/24/",
            "client_ip/a",
        ]);
        accepts::<SharedLimitPer>(&["gateway", "consumer"]);
        refuses::<SharedLimitPer>(&["route"]);
        accepts_values::<LimitPer>(&[
            "[\"client_ip\", \"header:a\"]",
            "[\"client_ip\", \"consumer\", \"cookie:a\", \"header:b\"]",
        ]);
        refuses_values::<LimitPer>(&[
            "[]",
            "[\"client_ip\"]",
            "[\"client_ip\", \"route\"]",
            "[\"group\", \"group\"]",
            "[\"group\", 1]",
            "1",
        ]);
    }
}
