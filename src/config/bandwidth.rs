//! `bandwidth` of a route: how fast responses go to clients, and requests come from them.

use super::file;
use super::identity_keys::Token;
use super::knobs::ByteRate;
use super::names::Header;
use super::problem::{Refusal, Sink};
use super::read::{Scalar, Written};
use super::tables::{scalar_schema, table};
use super::traffic::SplitKey;
use super::values::{Size, text};
use crate::limits::{BANDWIDTH_BURST_BYTES_MAX, BLOCK_LARGE};
use serde_json::json;
use std::borrow::Cow;
use std::fmt;
use toml::de::DeValue;

/// Less than this would have a body wait for hours.
const RATE_MIN: u64 = 1 << 10;
/// A piece of a body goes as a whole, and has to be there.
const BURST_MIN: u64 = BLOCK_LARGE as u64;

table! {
    /// How fast responses go to clients, and requests come from them; of tunnels either direction.
    BandwidthTable {
        /// Of responses: a size per second, 1KiB/s to 1GiB/s; without it no limit.
        optional rate: ByteRate;
        /// Of what clients send, the same; without it no limit.
        optional upload_rate: ByteRate;
        /// What may go at once before that in either direction, 80KiB to 1GiB; what the rate brings in a second where it is not given, and 80KiB at least.
        optional burst: Size<BURST_MIN, BANDWIDTH_BURST_BYTES_MAX>;
        /// What shares it, over all cores: "connection", "client_ip" (IPv6 by /64), "consumer", "header:NAME", "cookie:NAME", or "route" for all together.
        /// Requests without it share by their connection.
        default per: BandwidthPer = "connection";
    }
}

/// `bandwidth` of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Bandwidth {
    /// Of responses.
    pub down: Option<Flow>,
    /// Of what clients send.
    pub up: Option<Flow>,
    /// What shares each.
    pub per: BandwidthPer,
}

/// How fast one direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Bytes in a second.
    pub rate: u64,
    /// Bytes at once.
    pub burst: u64,
}

/// What shares a bandwidth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BandwidthPer {
    /// All requests.
    Route,
    /// Those of a connection.
    Connection,
    /// Those that have the same of this; those that have nothing share by their connection.
    Key(SplitKey),
}

impl fmt::Display for BandwidthPer {
    /// As the file writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route => f.write_str("route"),
            Self::Connection => f.write_str("connection"),
            Self::Key(key) => key.fmt(f),
        }
    }
}

impl Scalar for BandwidthPer {
    fn allowed() -> String {
        "\"connection\", \"client_ip\", \"consumer\", \"header:NAME\", \"cookie:NAME\" or \"route\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let of_name = |name: &str| DeValue::String(Cow::Owned(name.to_owned()));
        Ok(match written.split_once(':') {
            None if written == "route" => Self::Route,
            None if written == "connection" => Self::Connection,
            None if written == "client_ip" => Self::Key(SplitKey::ClientIp),
            None if written == "consumer" => Self::Key(SplitKey::Consumer),
            Some(("header", name)) => Self::Key(SplitKey::Header(Header::parse(&of_name(name))?.0)),
            Some(("cookie", name)) => Self::Key(SplitKey::Cookie(Token::parse(&of_name(name))?.0)),
            _ => return Err(Refusal::plain()),
        })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(route|connection|client_ip|consumer|(header|cookie):.+)$" })
    }
}

scalar_schema!(BandwidthPer);

/// What a route says, if it says anything.
pub(super) fn bandwidth(table: &file::Route, sink: &mut Sink<'_>) -> Option<Box<Bandwidth>> {
    let table = &table.bandwidth.as_ref()?.value;
    let written = [("rate", &table.rate), ("upload_rate", &table.upload_rate)];
    if written.iter().all(|(_, rate)| rate.is_none()) && !sink.reported(table.at.key("rate")) {
        let message = "must have rate (of responses), upload_rate (of what clients send), or both".to_owned();
        sink.place(&table.at.path, table.at.offset, message, None);
        return None;
    }
    let burst = table.burst.as_ref().map(|burst| burst.value.0);
    let mut flow = |(key, rate): (&str, &Option<Written<ByteRate>>)| {
        let Some(written) = rate else { return Some(None) };
        let rate = written.value.0;
        if rate < RATE_MIN {
            let message = format!("must be 1KiB/s at least; leave {key} out for no limit");
            sink.value(table.at.key(key), written.span.clone(), message, None);
            return None;
        }
        Some(Some(Flow { rate, burst: burst.unwrap_or(rate.max(BURST_MIN)) }))
    };
    let [down, up] = written.map(&mut flow);
    Some(Box::new(Bandwidth { down: down?, up: up?, per: table.per.as_ref()?.value.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    type Made = (Option<(u64, u64)>, Option<(u64, u64)>, String);

    fn bandwidth(keys: &str) -> Result<Made, String> {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\nbandwidth = {{ {keys} }}\n\
             [upstream.a]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n"
        );
        let config = crate::config::parse(&text, "f").map_err(|errors| errors.to_string())?;
        let made = config.routes[0].traffic.bandwidth.clone().expect("a table");
        let of = |flow: Option<Flow>| flow.map(|flow| (flow.rate, flow.burst));
        Ok((of(made.down), of(made.up), made.per.to_string()))
    }

    #[test]
    fn a_bandwidth_has_a_rate_and_whom_it_is_shared_by() {
        accepts::<BandwidthPer>(&["route", "connection", "client_ip", "consumer", "header:x-user", "cookie:Session"]);
        refuses::<BandwidthPer>(&["", "client", "header", "header:", "header:a b", "cookie:a;b", "claim:sub"]);
        assert_eq!(bandwidth("rate = \"1MiB/s\""), Ok((Some((1 << 20, 1 << 20)), None, "connection".to_owned())));
        let both = bandwidth("rate = \"1MiB/s\", upload_rate = \"2KiB/s\", per = \"route\"");
        assert_eq!(both, Ok((Some((1 << 20, 1 << 20)), Some((2 << 10, BURST_MIN)), "route".to_owned())));
        assert_eq!(bandwidth("upload_rate = \"1GiB/s\", burst = \"1MiB\"").unwrap().1, Some((1 << 30, 1 << 20)));
        let small = bandwidth("rate = \"1KiB/s\", per = \"header:X-User\"");
        assert_eq!(small, Ok((Some((1 << 10, BURST_MIN)), None, "header:x-user".to_owned())));
        assert_eq!(bandwidth("rate = \"1MiB/s\", burst = \"2MiB\"").unwrap().0, Some((1 << 20, 2 << 20)));
        for (keys, wrong) in [
            ("rate = \"0\"", "route[0].bandwidth.rate"),
            ("rate = \"1023B/s\"", "must be 1KiB/s at least"),
            ("rate = \"1MiB\"", "route[0].bandwidth.rate"),
            ("rate = \"1MiB/s\", burst = \"1KiB\"", "route[0].bandwidth.burst"),
            ("upload_rate = \"0\"", "route[0].bandwidth.upload_rate"),
            ("per = \"route\"", "must have rate (of responses), upload_rate"),
        ] {
            let errors = bandwidth(keys).unwrap_err();
            assert!(errors.contains(wrong), "{keys}: {errors}");
        }
    }
}
