//! What a route does with its traffic beyond passing it on: sides of a split that stay with who sends it, faults for tests, copies for another
//! upstream, bodies that are awaited.

use super::bandwidth::{self, Bandwidth};
use super::check::value;
use super::compression::{self, Compression};
use super::file;
use super::identity_keys::Token;
use super::knobs::ProxyVersion;
use super::location::{self, Relocation};
use super::names::{Header, Name};
use super::problem::{Refusal, Sink};
use super::read::{Map, Scalar, Written};
use super::tables::{scalar_schema, table};
use super::values::{HOUR, Int, ProtocolWord, Size, Time, number, text, words};
use super::{HeaderRules, Match, Rewrite, Route};
use crate::limits::{REPLAY_BYTES_MAX, REQUEST_BUFFER_BYTES_MAX};
use crate::units::{ClusterId, Ratio};
use http::{HeaderName, StatusCode};
use serde_json::json;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;
use toml::de::DeValue;

/// Those of a route.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// What a request's side of a split follows from; `None`: it is drawn.
    pub split_by: Option<SplitKey>,
    /// Whether another side takes what nobody is left for on the one that was chosen.
    pub split_fallback: bool,
    /// Faults that the gateway makes; `None`: none.
    pub fault: Option<Fault>,
    /// Where copies of requests go; `None`: nowhere.
    pub mirror: Option<Mirror>,
    /// T_max begins with the end of the request.
    pub timeout_from_end: bool,
    /// Bodies of so many bytes are awaited before an endpoint is taken; `None`: none is.
    pub buffered_bytes_max: Option<usize>,
    /// Which responses are compressed; `None`: none.
    pub compression: Option<Compression>,
    /// What becomes of an endpoint's `Location`; `None`: it goes on as it is.
    pub relocation: Option<Box<Relocation>>,
    /// How fast responses go to clients; `None`: as fast as they come.
    pub bandwidth: Option<Box<Bandwidth>>,
}

/// `split_by`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitKey {
    /// Who was recognised.
    Consumer,
    /// The client's address.
    ClientIp,
    /// A header's value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
}

impl fmt::Display for SplitKey {
    /// As the file writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consumer => f.write_str("consumer"),
            Self::ClientIp => f.write_str("client_ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// `split_by`, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitBy(pub SplitKey);

impl Scalar for SplitBy {
    fn allowed() -> String {
        "\"consumer\", \"client_ip\", \"header:NAME\" or \"cookie:NAME\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let of_name = |name: &str| DeValue::String(Cow::Owned(name.to_owned()));
        match written.split_once(':') {
            None if written == "consumer" => Ok(Self(SplitKey::Consumer)),
            None if written == "client_ip" => Ok(Self(SplitKey::ClientIp)),
            Some(("header", name)) => Header::parse(&of_name(name)).map(|Header(name)| Self(SplitKey::Header(name))),
            Some(("cookie", name)) => Token::parse(&of_name(name)).map(|Token(name)| Self(SplitKey::Cookie(name))),
            _ => Err(Refusal::plain()),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(consumer|client_ip|(header|cookie):.+)$" })
    }
}

/// A percentage: a number from 0 to 100, whole or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(pub Ratio);

impl Scalar for Percent {
    fn allowed() -> String {
        "a number from 0 to 100, such as 5 or 0.5".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let DeValue::String(written) = value {
            let bare = written.strip_suffix('%').unwrap_or(written);
            let help = bare.parse::<f64>().ok().map(|_| format!("without quotes: {bare}"));
            return Err(Refusal { why: None, help });
        }
        let share = number(value).and_then(|percent| Ratio::try_new(percent / 100.0));
        share.map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "number", "minimum": 0, "maximum": 100 })
    }
}

scalar_schema!(SplitBy, Percent);

table! {
    /// Faults that the gateway makes itself, so that what calls this route can be tested. Not for production, unless with a header.
    FaultTable {
        /// Requests wait before they go on.
        optional delay: DelayTable;
        /// Requests are refused.
        optional abort: AbortTable;
        /// Only those that have this header, whatever it says; all where it is not given. Who may send it can have faults made.
        optional header: Header;
    }
}

table! {
    /// Requests that wait before they go on.
    DelayTable {
        /// How many of a hundred, 0 to 100.
        default percent: Percent = 100;
        /// How long, 1ms to 1h. It is a part of the route's timeout.
        required time: Time<1, HOUR>;
    }
}

table! {
    /// Requests that are refused, after their delay if they have one.
    AbortTable {
        /// How many of a hundred, 0 to 100.
        default percent: Percent = 100;
        /// The status, 400 to 599.
        default status: Int<400, 599> = 503;
    }
}

table! {
    /// Copies of requests that go to another upstream too. Nobody waits for them, and what they are answered is thrown away.
    MirrorTable {
        /// The upstream. It speaks http1, without a PROXY header, and is none of the route's own.
        required upstream: Name;
        /// Of how many requests in a hundred, 0 to 100.
        default percent: Percent = 100;
        /// Larger bodies, 0B to 64KiB, are not mirrored.
        default max_body: Size<0, { REPLAY_BYTES_MAX as u64 }> = "64KiB";
        /// For a copy and its answer, 1ms to 1h.
        default timeout: Time<1, HOUR> = "5s";
    }
}

table! {
    /// Requests wait for all of their body before an endpoint is taken.
    BufferingTable {
        /// Larger bodies, 1B to 16MiB, go on as they come.
        default max: Size<1, { REQUEST_BUFFER_BYTES_MAX as u64 }> = "1MiB";
    }
}

words! {
    /// `timeout_from`: when T_max begins.
    TimeoutFrom {
        /// With the first byte of a request.
        RequestStart = "request_start",
        /// With the last one.
        RequestEnd = "request_end",
    }
}

/// `mirror` of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where copies go.
    pub cluster: ClusterId,
    /// Of which share of the requests.
    pub share: Ratio,
    /// Of a request's body, in the coding that it is forwarded in.
    pub body_bytes_max: usize,
    /// For a copy and its answer.
    pub timeout: Duration,
}

/// `fault` of a route. What is given holds for each request by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Share of the requests that wait, and how long.
    pub delay: Option<(Ratio, Duration)>,
    /// Share of the requests that are refused, and with which status.
    pub abort: Option<(Ratio, StatusCode)>,
    /// The header without which nothing happens.
    pub header: Option<HeaderName>,
}

/// What the keys of a route say. `mirror` is the upstream that copies go to, if that is known.
pub(super) fn traffic(
    table: &file::Route,
    (mirror, rules): (Option<ClusterId>, Option<&HeaderRules>),
    paths: Option<(&Match, &Rewrite)>,
    sink: &mut Sink<'_>,
) -> Option<Traffic> {
    if table.split.is_none() {
        let given = [
            ("split_by", table.split_by.as_ref().map(|key| key.span.clone())),
            ("split_fallback", table.split_fallback.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
        ];
        for (key, span) in given.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            sink.value(table.at.key(key), span, "has no effect: there is no split".to_owned(), None);
        }
    }
    let fault = match &table.fault {
        None => None,
        Some(fault) => Some(self::fault(&fault.value, sink)?),
    };
    let compression = match &table.compression {
        None => None,
        Some(table) => Some(compression::compression(&table.value, rules?, sink)?),
    };
    let coded = compression.as_ref().map(|compression: &Compression| &compression.rules);
    let relocation = paths.and_then(|paths| location::relocation(table, paths, (rules?, coded), sink));
    let bandwidth = match &table.bandwidth {
        None => None,
        Some(_) => Some(bandwidth::bandwidth(table, sink)?),
    };
    Some(Traffic {
        relocation,
        bandwidth,
        compression,
        split_by: value(&table.split_by).map(|SplitBy(key)| key),
        split_fallback: value(&table.split_fallback)?,
        fault,
        mirror: match &table.mirror {
            None => None,
            Some(table) => Some(self::mirror(&table.value, mirror?)?),
        },
        timeout_from_end: value(&table.timeout_from)? == TimeoutFrom::RequestEnd,
        buffered_bytes_max: match &table.request_buffering {
            None => None,
            Some(table) => Some(usize::try_from(value(&table.value.max)?.0).ok()?),
        },
    })
}

fn mirror(table: &MirrorTable, cluster: ClusterId) -> Option<Mirror> {
    Some(Mirror {
        cluster,
        share: value(&table.percent)?.0,
        body_bytes_max: usize::try_from(value(&table.max_body)?.0).ok()?,
        timeout: value(&table.timeout)?.0,
    })
}

/// Upstreams that copies may not go to, by their rows, with the reason: what is sent there is as an endpoint of HTTP/1.1 gets it, and from no client.
pub(super) fn unmirrorable<const MAX: usize>(upstreams: &Map<Name, file::Upstream, MAX>) -> Vec<Option<&'static str>> {
    let of = |(_, table): &(Written<Name>, Written<file::Upstream>)| {
        let table = &table.value;
        let is_http1 = match value(&table.protocol) {
            Some(ProtocolWord::Http2) => false,
            Some(ProtocolWord::Auto) => table.tls.is_none(),
            Some(ProtocolWord::Http1) | None => true,
        };
        let introduces = value(&table.proxy_protocol).is_some_and(|version| version != ProxyVersion::Off);
        match (is_http1, introduces) {
            (false, _) => Some("copies are sent in HTTP/1.1, which this upstream does not speak (protocol)"),
            (true, true) => Some("copies come from no client, and this upstream wants to be told one (proxy_protocol)"),
            (true, false) => None,
        }
    };
    upstreams.0.iter().map(of).collect()
}

/// Keys that do something on the way to an upstream only, where they stand.
pub(super) fn of_upstreams(table: &file::Route) -> [(&'static str, Option<Range<usize>>); 7] {
    fn span<T>(key: &Option<Written<T>>) -> Option<Range<usize>> {
        key.as_ref().map(|key| key.span.clone())
    }
    [
        ("fault", span(&table.fault)),
        ("mirror", span(&table.mirror)),
        (
            "timeout_from",
            span(&table.timeout_from).filter(|_| table.timeout_from.as_ref().is_some_and(|key| key.given)),
        ),
        ("request_buffering", span(&table.request_buffering)),
        ("compression", span(&table.compression)),
        ("bandwidth", span(&table.bandwidth)),
        (
            "rewrite_location",
            span(&table.rewrite_location).filter(|_| table.rewrite_location.as_ref().is_some_and(|key| key.given)),
        ),
    ]
}

fn fault(table: &FaultTable, sink: &mut Sink<'_>) -> Option<Fault> {
    if table.delay.is_none() && table.abort.is_none() {
        let reported = ["delay", "abort"].iter().any(|key| sink.reported(table.at.key(key)));
        if !reported {
            let message = "missing: delay or abort, or both".to_owned();
            sink.place(table.at.key("delay"), table.at.offset, message, None);
        }
        return None;
    }
    let delay = match table.delay.as_ref().map(|delay| &delay.value) {
        None => None,
        Some(delay) => Some((value(&delay.percent)?.0, value(&delay.time)?.0)),
    };
    let abort = match table.abort.as_ref().map(|abort| &abort.value) {
        None => None,
        Some(abort) => {
            let status = u16::try_from(value(&abort.status)?.0).ok().and_then(|code| StatusCode::from_u16(code).ok());
            Some((value(&abort.percent)?.0, status?))
        }
    };
    let header = value(&table.header).map(|Header(name)| name);
    Some(Fault { delay, abort, header })
}

/// What a copy is marked with is nothing that clients say, where copies are made.
pub(super) fn strip(routes: &mut [Route]) {
    for route in routes.iter_mut().filter(|route| route.traffic.mirror.is_some()) {
        let rules = &mut route.request_headers;
        rules.strip = rules.strip.iter().cloned().chain([HeaderName::from_static("x-mirrored")]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    #[test]
    fn a_side_follows_from_what_people_keep() {
        accepts::<SplitBy>(&["consumer", "client_ip", "header:x-user", "cookie:Session"]);
        refuses::<SplitBy>(&["", "header", "header:", "header:a b", "cookie:a;b", "path", "claim:sub"]);
    }

    #[test]
    fn a_percentage_is_a_number_up_to_a_hundred() {
        let parse = |text: &str| {
            let text = format!(
                "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\nfault = {{ abort = {{ percent = {text} }} }}\n\
                 [upstream.a]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n"
            );
            let config = crate::config::parse(&text, "f").map_err(|errors| errors.to_string())?;
            Ok::<_, String>(config.routes[0].traffic.fault.as_ref().unwrap().abort.unwrap().0.get())
        };
        for (text, share) in [("0", 0.0), ("100", 1.0), ("5", 0.05), ("0.5", 0.005)] {
            assert!((parse(text).unwrap() - share).abs() < 1e-12, "{text}");
        }
        for text in ["-1", "101", "nan", "true"] {
            assert!(parse(text).unwrap_err().contains("0 to 100"), "{text}");
        }
        assert!(parse("\"5%\"").unwrap_err().contains("without quotes: 5"));
    }

    #[test]
    fn what_does_nothing_is_an_error() {
        let errors = |lines: &str| {
            let text = format!(
                "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\n{lines}\n\
                 [upstream.a]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n"
            );
            crate::config::parse(&text, "f").map_or_else(|errors| errors.to_string(), |_| String::new())
        };
        assert_eq!(
            errors("split = [{ upstream = \"a\", weight = 1 }]\nsplit_by = \"consumer\"\nsplit_fallback = false"),
            ""
        );
        for key in ["split_by = \"consumer\"", "split_fallback = true"] {
            assert!(errors(&format!("upstream = \"a\"\n{key}")).contains("there is no split"), "{key}");
        }
        assert!(errors("upstream = \"a\"\nfault = {}").contains("missing: delay or abort"));
        assert!(errors("upstream = \"a\"\nfault = { delay = {} }").contains("fault.delay.time"));
        for key in [
            "fault = { abort = {} }",
            "mirror = { upstream = \"a\" }",
            "request_buffering = {}",
            "timeout_from = \"request_end\"",
        ] {
            assert!(errors(&format!("respond = {{}}\n{key}")).contains("has no effect"), "{key}");
        }
    }

    #[test]
    fn copies_go_to_another_upstream_that_takes_them() {
        let errors = |upstream: &str, keys: &str| {
            let text = format!(
                "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\nmirror = {{ upstream = \"{upstream}\" }}\n\
                 [upstream.a]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n[upstream.b]\nendpoints = [{{ address = \"127.0.0.1:2\" }}]\n{keys}\n"
            );
            crate::config::parse(&text, "f").map_or_else(|errors| errors.to_string(), |_| String::new())
        };
        assert_eq!(errors("b", ""), "");
        assert_eq!(errors("b", "protocol = \"auto\""), "");
        assert!(errors("b", "protocol = \"h2\"").contains("copies are sent in HTTP/1.1"));
        assert!(errors("b", "proxy_protocol = \"v2\"").contains("copies come from no client"));
        assert!(errors("a", "").contains("the requests themselves go there"));
        assert!(errors("c", "").contains("there is no such upstream"));
    }
}
