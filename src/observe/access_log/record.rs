//! One line's facts, and how they lie in a ring.
//!
//! Packing writes numbers in little endian and texts with their length, in the order of the struct; nothing is named, nothing
//! formatted: that is the writer's work. Texts longer than [`limits::LOG_FIELD_BYTES_MAX`] are cut.

use crate::error::{ProxyError, Rule};
use crate::limits;
use crate::observe::labels::AttemptOutcome;
use crate::units::{ClusterId, EndpointId, ListenerId, RouteId, nanos};
use http::StatusCode;
use std::net::IpAddr;
use std::time::Duration;

/// What the access log says about one request. Texts are as they came; the writer escapes them. An empty text means that there
/// was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// Whose ids these are.
    pub generation: u64,
    /// When the request was over: milliseconds since 1970, UTC.
    pub time_unix_ms: u64,
    /// Where it came in.
    pub listener: ListenerId,
    /// The route, when one matched.
    pub route: Option<RouteId>,
    /// The client after trusted proxies; `None`: unix socket.
    pub client: Option<IpAddr>,
    /// As it came.
    pub method: &'a [u8],
    /// Path and query as they came; query parameters on the redaction list are cut by the writer.
    pub target: &'a [u8],
    /// `Host`, or the authority of an absolute target.
    pub host: &'a [u8],
    /// Major and minor version of HTTP, e.g. (1, 1); `None`: it could not be read.
    pub version: Option<(u8, u8)>,
    /// What was answered; 499 when nobody was left to answer.
    pub status: StatusCode,
    /// Of a call of gRPC: the code that its client was told.
    pub grpc_status: Option<u8>,
    /// The gateway's own verdict.
    pub error: Option<ProxyError>,
    /// The rule that a malformed request breaks.
    pub rule: Option<Rule>,
    /// Bytes that came from the client.
    pub request_bytes: u64,
    /// Bytes that went to the client.
    pub response_bytes: u64,
    /// From the request's first byte to the end of the response.
    pub duration: Duration,
    /// From the start of the last attempt to its response head; `None`: there was no response.
    pub upstream_time: Option<Duration>,
    /// Attempts made.
    pub attempts: u8,
    /// The cluster that was chosen.
    pub upstream: Option<ClusterId>,
    /// Endpoints tried, in order; at most [`limits::VISITS_MAX`] are kept.
    pub endpoints: &'a [EndpointId],
    /// How the tries ended, in the same order.
    pub outcomes: &'a [AttemptOutcome],
    /// `X-Request-Id`.
    pub request_id: &'a [u8],
    /// `User-Agent`.
    pub user_agent: &'a [u8],
    /// `Referer`.
    pub referer: &'a [u8],
    /// The name of the limit that has refused it.
    pub limit: &'a [u8],
    /// What has refused it, where that is no limit: a guard, a rule, or somebody else who was asked.
    pub refused_by: &'a [u8],
    /// The fault that was made for it: `delay`, `abort`, `delay+abort`.
    pub fault: &'a [u8],
    /// The name of the consumer that was recognised.
    pub consumer: &'a [u8],
    /// The session that it came in; `None`: plain HTTP.
    pub tls: Option<LogTls>,
    /// The name that the client has asked for when the session was made.
    pub sni: &'a [u8],
    /// The subject of the client's certificate, which was verified.
    pub client_subject: &'a [u8],
    /// What the file has chosen, as [`super::chosen`] packs it.
    pub chosen: &'a [u8],
}

/// What the access log says about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTls {
    /// As in RFC 8446 §4.2.1: 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    pub version: u16,
    /// The cipher suite's number.
    pub suite: u16,
    /// It goes on with the keys of one before.
    pub is_resumed: bool,
}

/// Room for the tries of a record that is unpacked.
#[derive(Debug)]
pub(super) struct Tries {
    endpoints: [EndpointId; limits::VISITS_MAX],
    outcomes: [AttemptOutcome; limits::VISITS_MAX],
}

impl Default for Tries {
    fn default() -> Self {
        Self {
            endpoints: [EndpointId(0); limits::VISITS_MAX],
            outcomes: [AttemptOutcome::Cancelled; limits::VISITS_MAX],
        }
    }
}

/// Stands for an id or duration that is not there.
const NONE_U32: u32 = u32::MAX;
const NONE_U64: u64 = u64::MAX;
/// Stands for a version that is not there: digits end at 9.
const NO_VERSION: (u8, u8) = (u8::MAX, u8::MAX);

/// The largest packed record: twelve texts, what is chosen, the endpoints, and less than 144 bytes of numbers.
pub(super) const PACKED_BYTES_MAX: usize =
    12 * (2 + limits::LOG_FIELD_BYTES_MAX) + 2 + limits::LOG_CHOSEN_BYTES_MAX + 3 * limits::VISITS_MAX + 144;

impl<'a> LogRecord<'a> {
    /// Appends the packed record to `out`: at most [`PACKED_BYTES_MAX`] bytes.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.time_unix_ms.to_le_bytes());
        out.extend_from_slice(&self.listener.0.to_le_bytes());
        out.extend_from_slice(&self.route.map_or(NONE_U32, |route| route.0).to_le_bytes());
        pack_address(out, self.client);
        let (major, minor) = self.version.unwrap_or(NO_VERSION);
        out.extend_from_slice(&[major, minor]);
        out.extend_from_slice(&self.status.as_u16().to_le_bytes());
        out.push(self.grpc_status.unwrap_or(u8::MAX));
        out.push(self.error.map_or(u8::MAX, |error| error as u8));
        out.push(self.rule.map_or(u8::MAX, |rule| rule as u8));
        out.extend_from_slice(&self.request_bytes.to_le_bytes());
        out.extend_from_slice(&self.response_bytes.to_le_bytes());
        out.extend_from_slice(&nanos(self.duration).to_le_bytes());
        out.extend_from_slice(&self.upstream_time.map_or(NONE_U64, nanos).to_le_bytes());
        out.push(self.attempts);
        out.extend_from_slice(&self.upstream.map_or(NONE_U32, |upstream| upstream.0).to_le_bytes());
        let endpoints = &self.endpoints[..self.endpoints.len().min(limits::VISITS_MAX)];
        let outcomes = &self.outcomes[..self.outcomes.len().min(limits::VISITS_MAX)];
        // VISITS_MAX fits in a byte.
        out.push(endpoints.len() as u8);
        endpoints.iter().for_each(|endpoint| out.extend_from_slice(&endpoint.0.to_le_bytes()));
        out.push(outcomes.len() as u8);
        outcomes.iter().for_each(|outcome| out.push(outcome.index() as u8));
        let tls = self.tls.map_or((0, 0, false), |tls| (tls.version, tls.suite, tls.is_resumed));
        out.extend_from_slice(&tls.0.to_le_bytes());
        out.extend_from_slice(&tls.1.to_le_bytes());
        out.push(tls.2.into());
        for text in [self.method, self.target, self.host, self.request_id, self.user_agent, self.referer] {
            pack_text(out, text);
        }
        pack_text(out, self.sni);
        pack_text(out, self.client_subject);
        pack_text(out, self.consumer);
        pack_text(out, self.limit);
        pack_text(out, self.refused_by);
        pack_text(out, self.fault);
        pack_bytes(out, self.chosen, limits::LOG_CHOSEN_BYTES_MAX);
    }

    /// Reads what [`LogRecord::pack`] wrote; `tries` keeps where they went and how they ended. `None` when the bytes are no packed record.
    pub(super) fn unpack(bytes: &'a [u8], tries: &'a mut Tries) -> Option<Self> {
        let mut from = Unpack(bytes);
        let generation = from.u64()?;
        let time_unix_ms = from.u64()?;
        let listener = ListenerId(from.u16()?);
        let route = from.some_u32()?.map(RouteId);
        let client = from.address()?;
        let version = Some((from.u8()?, from.u8()?)).filter(|version| *version != NO_VERSION);
        let status = StatusCode::from_u16(from.u16()?).ok()?;
        let grpc_status = Some(from.u8()?).filter(|code| *code != u8::MAX);
        let error = ProxyError::ALL.get(usize::from(from.u8()?)).copied();
        let rule = Rule::ALL.get(usize::from(from.u8()?)).copied();
        let (request_bytes, response_bytes) = (from.u64()?, from.u64()?);
        let duration = Duration::from_nanos(from.u64()?);
        let upstream_time = Some(from.u64()?).filter(|nanos| *nanos != NONE_U64).map(Duration::from_nanos);
        let attempts = from.u8()?;
        let upstream = from.some_u32()?.map(ClusterId);
        let endpoints = tries.endpoints.get_mut(..usize::from(from.u8()?))?;
        for endpoint in &mut *endpoints {
            *endpoint = EndpointId(from.u16()?);
        }
        let outcomes = tries.outcomes.get_mut(..usize::from(from.u8()?))?;
        for outcome in &mut *outcomes {
            *outcome = *AttemptOutcome::ALL.get(usize::from(from.u8()?))?;
        }
        let tls = LogTls { version: from.u16()?, suite: from.u16()?, is_resumed: from.u8()? != 0 };
        Some(Self {
            tls: Some(tls).filter(|tls| tls.version != 0),
            generation,
            time_unix_ms,
            listener,
            route,
            client,
            version,
            status,
            grpc_status,
            error,
            rule,
            request_bytes,
            response_bytes,
            duration,
            upstream_time,
            attempts,
            upstream,
            endpoints,
            outcomes,
            method: from.text()?,
            target: from.text()?,
            host: from.text()?,
            request_id: from.text()?,
            user_agent: from.text()?,
            referer: from.text()?,
            sni: from.text()?,
            client_subject: from.text()?,
            consumer: from.text()?,
            limit: from.text()?,
            refused_by: from.text()?,
            fault: from.text()?,
            chosen: from.text()?,
        })
    }
}

fn pack_address(out: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        None => out.push(0),
        Some(IpAddr::V4(v4)) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        Some(IpAddr::V6(v6)) => {
            out.push(16);
            out.extend_from_slice(&v6.octets());
        }
    }
}

fn pack_text(out: &mut Vec<u8>, text: &[u8]) {
    pack_bytes(out, text, limits::LOG_FIELD_BYTES_MAX);
}

fn pack_bytes(out: &mut Vec<u8>, text: &[u8], bytes_max: usize) {
    let text = &text[..text.len().min(bytes_max)];
    // either bound fits in 16 bits
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}

const _: () = assert!(limits::LOG_FIELD_BYTES_MAX <= u16::MAX as usize && limits::VISITS_MAX <= u8::MAX as usize);

/// Takes values off the front.
struct Unpack<'a>(&'a [u8]);

impl<'a> Unpack<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn some_u32(&mut self) -> Option<Option<u32>> {
        self.u32().map(|id| (id != NONE_U32).then_some(id))
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn address(&mut self) -> Option<Option<IpAddr>> {
        Some(match self.u8()? {
            4 => Some(IpAddr::from(self.array::<4>()?)),
            16 => Some(IpAddr::from(self.array::<16>()?)),
            _ => None,
        })
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with every field set.
    pub(in super::super) fn full() -> LogRecord<'static> {
        LogRecord {
            generation: 1,
            time_unix_ms: 1_700_000_000_123,
            listener: ListenerId(0),
            route: Some(RouteId(0)),
            client: Some("2001:db8::1".parse().unwrap()),
            method: b"GET",
            target: b"/orders/7?token=secret&page=2",
            host: b"api.example.com",
            version: Some((1, 1)),
            status: StatusCode::BAD_GATEWAY,
            grpc_status: None,
            error: Some(ProxyError::UpstreamReset),
            rule: None,
            request_bytes: 300,
            response_bytes: 5_000_000_000,
            duration: Duration::from_micros(12_345),
            upstream_time: Some(Duration::from_micros(11_000)),
            attempts: 2,
            upstream: Some(ClusterId(0)),
            endpoints: &[EndpointId(1), EndpointId(0)],
            outcomes: &[AttemptOutcome::ConnectFailed, AttemptOutcome::Reset],
            request_id: b"01J",
            user_agent: b"curl/8",
            referer: b"https://example.com/",
            tls: None,
            sni: b"",
            client_subject: b"",
            consumer: b"",
            limit: b"",
            refused_by: b"",
            fault: b"",
            chosen: b"",
        }
    }

    fn round_trip(record: &LogRecord<'_>) {
        let mut bytes = Vec::new();
        record.pack(&mut bytes);
        assert!(bytes.len() <= PACKED_BYTES_MAX);
        let mut tried = Tries::default();
        assert_eq!(LogRecord::unpack(&bytes, &mut tried).as_ref(), Some(record));
        for len in 0..bytes.len() {
            let mut tried = Tries::default();
            assert_eq!(LogRecord::unpack(&bytes[..len], &mut tried), None, "cut at {len}");
        }
    }

    #[test]
    fn a_packed_record_comes_back_as_it_was() {
        round_trip(&full());
        round_trip(&LogRecord { rule: Some(Rule::Chunk), ..full() });
        round_trip(&LogRecord { refused_by: b"route.deny[0]", chosen: b"\x01\x01\0a", ..full() });
        round_trip(&LogRecord { consumer: b"acme", limit: b"plan", fault: b"delay", grpc_status: Some(16), ..full() });
        let tls = LogTls { version: 0x0304, suite: 0x1301, is_resumed: true };
        round_trip(&LogRecord { tls: Some(tls), sni: b"api.example.com", client_subject: b"CN=a", ..full() });
        round_trip(&LogRecord {
            route: None,
            client: None,
            error: None,
            upstream_time: None,
            upstream: None,
            endpoints: &[],
            outcomes: &[],
            version: None,
            method: b"",
            referer: b"",
            ..full()
        });
        round_trip(&LogRecord { client: Some("192.0.2.1".parse().unwrap()), ..full() });
    }

    #[test]
    fn long_texts_are_cut_and_the_largest_record_fits_its_bound() {
        let long = vec![b'a'; 100_000];
        let many = [EndpointId(7); 100];
        let text: &[u8] = &long;
        let record = LogRecord {
            method: text,
            target: text,
            host: text,
            request_id: text,
            user_agent: text,
            referer: text,
            sni: text,
            client_subject: text,
            consumer: text,
            limit: text,
            refused_by: text,
            fault: text,
            chosen: text,
            tls: Some(LogTls { version: 0x0303, suite: 0xc02b, is_resumed: false }),
            endpoints: &many,
            outcomes: &[AttemptOutcome::Reset; 100],
            ..full()
        };
        let mut bytes = Vec::new();
        record.pack(&mut bytes);
        assert!(bytes.len() <= PACKED_BYTES_MAX);
        let mut tried = Tries::default();
        let cut = LogRecord::unpack(&bytes, &mut tried).unwrap();
        assert_eq!(cut.target.len(), limits::LOG_FIELD_BYTES_MAX);
        assert_eq!((cut.endpoints.len(), cut.outcomes.len()), (limits::VISITS_MAX, limits::VISITS_MAX));
    }
}
