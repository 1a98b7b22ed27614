//! The head of a request, strict: bytes that two parsers could read in two ways are refused, not repaired.
//!
//! httparse finds the parts; the checks here close what it leaves open (bare LF, empty lines, versions, limits), and everything
//! that the request's way depends on is decided once: method, target, host, framing, persistence, expectation. A head that is not
//! all there is [`Parsed::Partial`], never an error and never a copy.
//!
//! Kept as sent: names and values of fields, the query. Changed: the path ([`crate::http::path`]) and, for routing, the host's case.
//! Methods: any token of up to [`limits::METHOD_BYTES_MAX`] bytes goes on, but TRACE (it echoes credentials back; 405) and CONNECT
//! (501) do not. Minor versions above 1 are read as 1.1 (RFC 9110 §2.5), other major versions are refused with 505.

use super::fields::{self, Expectation, Field, Fields, HeadScratch, Kind, Seen};
use super::framing::Framing;
use super::headers::PSEUDONYM;
use super::path::{self, EmptySegments, EncodedSeparators};
use super::target::{Authority, Target};
use super::text::{list, trim};
use super::trailers::Trailers;
use super::upgrade::Offer;
use super::{Parsed, Version};
use crate::config;
use crate::error::{ProxyError, Rule};
use crate::limits;
use http::Method;
use std::mem::MaybeUninit;
use std::net::IpAddr;

/// How much a listener takes and how it reads what peers read in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPolicy {
    /// Request line and headers, in bytes, `HEAD_BYTES_MIN` to `HEAD_BYTES_MAX`.
    pub head_bytes_max: usize,
    /// Number of headers, up to `HEADERS_MAX`.
    pub headers_max: usize,
    /// Headers with an underscore in their names.
    pub underscores: config::Underscores,
    /// `%2F` and `%5C` in the path.
    pub separators: EncodedSeparators,
    /// Empty segments of the path.
    pub empty: EmptySegments,
}

impl HeadPolicy {
    /// The policy of a listener.
    #[must_use]
    pub fn of(listener: &config::Listener) -> Self {
        Self {
            head_bytes_max: listener.head_bytes_max,
            headers_max: listener.headers_max,
            underscores: listener.header_underscores,
            separators: match listener.encoded_separators {
                config::Separators::Reject => EncodedSeparators::Refuse,
                config::Separators::Keep => EncodedSeparators::Keep,
            },
            empty: if listener.merge_slashes { EmptySegments::Merge } else { EmptySegments::Keep },
        }
    }
}

impl Default for HeadPolicy {
    /// 16 KiB, 100 headers, and strict.
    fn default() -> Self {
        Self {
            head_bytes_max: 16 << 10,
            headers_max: 100,
            underscores: config::Underscores::Drop,
            separators: EncodedSeparators::Refuse,
            empty: EmptySegments::Keep,
        }
    }
}

/// A request's head. Borrows the buffer that it was parsed from and the scratch that it was parsed with.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) target: &'b str,
    pub(super) path: &'b str,
    pub(super) routed_path: &'b str,
    pub(super) query: Option<&'b str>,
    pub(super) host: Option<&'b str>,
    pub(super) authority: Option<&'b str>,
    pub(super) fields: Fields<'b>,
    pub(super) seen: Seen<'b>,
    pub(super) framing: Framing,
    pub(super) len: usize,
}

impl<'b> RequestHead<'b> {
    /// Parses the head at the front of `buf`. Worth calling when [`crate::http::scan::HeadScanner::is_ready`].
    ///
    /// # Errors
    /// `BadRequest`, `UriTooLong`, `HeaderTooLarge`, `VersionNotSupported`, `NotImplemented` (CONNECT, a transfer coding, a giant
    /// method), `MethodNotAllowed` (TRACE), `ExpectationFailed`. After any of them the connection must be closed.
    pub fn parse(buf: &'b [u8], policy: &HeadPolicy, scratch: &'b mut HeadScratch) -> Result<Parsed<Self>, ProxyError> {
        let HeadScratch { fields, path, merged, host, restated, broken } = scratch;
        let texts = Texts { fields, path, merged, host };
        Self::read(buf, policy, restated, texts).map_err(|Refused(error, rule)| {
            *broken = rule;
            error
        })
    }

    fn read(
        buf: &'b [u8],
        policy: &HeadPolicy,
        restated: &'b mut Vec<u8>,
        scratch: Texts<'b>,
    ) -> Result<Parsed<Self>, Refused> {
        let Some(empty) = empty_lines(buf)? else { return Ok(Parsed::Partial) };
        let buf = match later_minor(&buf[empty..]) {
            None => buf,
            Some(at) => {
                restated.clear();
                restated.extend_from_slice(buf);
                restated[empty + at] = b'1';
                restated
            }
        };
        let mut space = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX];
        let space = &mut space[..policy.headers_max.min(limits::HEADERS_MAX)];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(&buf[empty..], space) {
            Ok(httparse::Status::Complete(len)) if empty + len <= policy.head_bytes_max => {
                Self::check(&buf[..empty + len], &request, policy, scratch).map(Parsed::Complete)
            }
            Ok(httparse::Status::Partial) if buf.len() < policy.head_bytes_max => Ok(Parsed::Partial),
            Ok(_) => Err(too_large(&buf[empty..], policy).into()),
            Err(error) => Err(refusal(error, &buf[empty..])),
        }
    }

    fn check(
        buf: &'b [u8],
        request: &httparse::Request<'_, 'b>,
        policy: &HeadPolicy,
        scratch: Texts<'b>,
    ) -> Result<Self, Refused> {
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(ProxyError::Internal.into()); // httparse sets all three before it says Complete
        };
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let Texts { fields: table, path: path_scratch, merged, host: host_scratch } = scratch;
        let seen = fields::read(buf, request.headers, policy.underscores, table)?;
        let fields = Fields { buf, table };
        let method = parse_method(method)?;
        let parts = Target::parse(target, &method).map_err(|error| Refused::of(error, Rule::Target))?;
        let path = match parts.path {
            "*" => "*",
            path => path::normalize(path, policy.separators, policy.empty, path_scratch).map_err(|_| Rule::Path)?,
        };
        let authority = effective_authority(&parts, &seen, version).map_err(|error| Refused::of(error, Rule::Host))?;
        let framing = seen.lengths.request(version).map_err(|error| Refused::of(error, Rule::Length))?;
        if seen.expect == Expectation::Unknown && version == Version::Http11 {
            return Err(ProxyError::ExpectationFailed.into());
        }
        Ok(Self {
            method,
            version,
            target,
            path,
            routed_path: path::merged(path, merged),
            query: parts.query,
            host: authority.map(|authority| lower_case(authority.host, host_scratch)),
            authority: authority.map(|authority| authority.text),
            fields,
            seen,
            framing,
            len: buf.len(),
        })
    }

    /// Bytes of the buffer that the head took; the body begins behind them.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.len
    }

    /// The method; never TRACE or CONNECT.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The version of the request, and so of what its client understands.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The target as it was sent, for the log.
    #[must_use]
    pub fn target(&self) -> &'b str {
        self.target
    }

    /// The path in its one spelling: what to send. Begins with `/`, or is `*`.
    #[must_use]
    pub fn path(&self) -> &'b str {
        self.path
    }

    /// The same without empty segments: what to route on, so that `//admin` meets the rules of `/admin`.
    #[must_use]
    pub fn routed_path(&self) -> &'b str {
        self.routed_path
    }

    /// What stood behind `?`, as it was sent.
    #[must_use]
    pub fn query(&self) -> Option<&'b str> {
        self.query
    }

    /// The host in lower case, without port and final dot; IPv6 addresses in brackets. `None`: HTTP/1.0 without `Host`.
    #[must_use]
    pub fn host(&self) -> Option<&'b str> {
        self.host
    }

    /// `host[:port]` as it was sent.
    #[must_use]
    pub fn authority(&self) -> Option<&'b str> {
        self.authority
    }

    /// The headers.
    #[must_use]
    pub fn fields(&self) -> Fields<'b> {
        self.fields
    }

    /// How the body ends: `None`, `Fixed` or `Chunked`.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client wants to keep the connection (RFC 9112 §9.3).
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        !self.seen.close && (self.version != Version::Http10 || self.seen.keep_alive)
    }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1: not without a body, and a 1.0 client
    /// cannot).
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.seen.expect == Expectation::Continue && self.version != Version::Http10 && !self.framing.is_empty()
    }

    /// The protocols that the client would change to (RFC 9110 §7.8), if the offer is one that may go on.
    #[must_use]
    pub fn upgrade(&self) -> Option<Offer> {
        Offer::of(&self.seen, &self.fields, self.version, self.framing)
    }

    /// Whether the client said `TE: trailers` (RFC 9110 §10.1.4).
    #[must_use]
    pub fn accepts_trailers(&self) -> bool {
        self.seen.trailers
    }

    /// To take the body's trailers with.
    #[must_use]
    pub fn trailers(&self) -> Trailers {
        if self.seen.nominates && self.framing == Framing::Chunked {
            return Trailers::without(self.fields.nominated());
        }
        Trailers::default()
    }

    /// The client's own request id, if it is fit to be kept: up to `REQUEST_ID_BYTES_MAX` visible ASCII bytes.
    #[must_use]
    pub fn request_id(&self) -> Option<&'b [u8]> {
        let fit =
            |id: &&[u8]| (1..=limits::REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
        self.fields.of(Kind::XRequestId).next().filter(fit)
    }

    /// How often the request may still be forwarded (RFC 9110 §7.6.2: for OPTIONS). At 0 the gateway must answer itself.
    #[must_use]
    pub fn max_forwards(&self) -> Option<u64> {
        if self.method != Method::OPTIONS {
            return None;
        }
        self.fields.of(Kind::MaxForwards).next().and_then(|value| super::text::number(value, u64::from(u32::MAX)))
    }

    /// How often the request has passed a gateway of this name (RFC 9110 §7.6.3).
    #[must_use]
    pub fn rounds(&self) -> usize {
        let is_ours = |entry: &&[u8]| entry.split(|&b| b == b' ').nth(1).is_some_and(|by| by == PSEUDONYM);
        self.fields.of(Kind::Via).flat_map(list).filter(is_ours).count()
    }

    /// The address that the request comes from when `peer` sent it: the last one of `X-Forwarded-For` that is not a trusted proxy,
    /// as long as every hop behind it is. What an untrusted peer wrote is not looked at.
    #[must_use]
    pub fn client(&self, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
        let mut client = peer;
        let hops = self.fields.of(Kind::XForwardedFor).rev().flat_map(|value| list(value).rev());
        for hop in hops {
            if !is_trusted(client) {
                break;
            }
            match parse_address(hop) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]:443`.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok();
    }
    let bare = match text.split_once(':') {
        Some((v4, port)) if !port.contains(':') => v4,
        _ => text,
    };
    bare.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// The bytes of the empty lines before the request line (RFC 9112 §2.2); `None` when only they have arrived.
fn empty_lines(buf: &[u8]) -> Result<Option<usize>, Rule> {
    let mut at = 0;
    loop {
        match buf[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] if at < 2 * limits::EMPTY_LINES_MAX => at += 2,
            [b'\r' | b'\n', ..] => return Err(Rule::LineEnd),
            _ => return Ok(Some(at)),
        }
    }
}

/// Which part is too large: without the end of the request line in sight it is the target (RFC 9110 §15.5.15), else the headers.
fn too_large(buf: &[u8], policy: &HeadPolicy) -> ProxyError {
    let taken = &buf[..buf.len().min(policy.head_bytes_max)];
    match memchr::memchr(b'\n', taken) {
        Some(_) => ProxyError::HeaderTooLarge,
        None => ProxyError::UriTooLong,
    }
}

/// Buffers that texts of a head may be put into.
struct Texts<'b> {
    fields: &'b mut Vec<Field>,
    path: &'b mut String,
    merged: &'b mut String,
    host: &'b mut String,
}

/// Where the minor version of a request line stands that is above 1, and so to be read as 1 (RFC 9110 §2.5). Says the same of a line that
/// has not fully arrived.
fn later_minor(buf: &[u8]) -> Option<usize> {
    let line = &buf[..memchr::memchr(b'\n', buf).unwrap_or(buf.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let before = line.strip_suffix(&[*line.last().filter(|minor| (b'2'..=b'9').contains(*minor))?])?;
    before.ends_with(b" HTTP/1.").then_some(before.len())
}

/// Why a head is not taken, and which rule it breaks if that is why.
pub(super) struct Refused(pub(super) ProxyError, pub(super) Option<Rule>);

impl Refused {
    pub(super) fn of(error: ProxyError, rule: Rule) -> Self {
        Self(error, Some(rule).filter(|_| error == ProxyError::BadRequest))
    }
}

impl From<Rule> for Refused {
    fn from(rule: Rule) -> Self {
        Self(ProxyError::BadRequest, Some(rule))
    }
}

impl From<ProxyError> for Refused {
    fn from(error: ProxyError) -> Self {
        Self(error, None)
    }
}

fn refusal(error: httparse::Error, buf: &[u8]) -> Refused {
    match error {
        httparse::Error::TooManyHeaders => ProxyError::HeaderTooLarge.into(),
        httparse::Error::Version if is_other_version(buf) => ProxyError::VersionNotSupported.into(),
        httparse::Error::HeaderName => Rule::HeaderName.into(),
        httparse::Error::HeaderValue => Rule::HeaderValue.into(),
        httparse::Error::NewLine => Rule::LineEnd.into(),
        _ => Rule::RequestLine.into(),
    }
}

/// Whether the request line names a major version of HTTP that is not 1; the preface of HTTP/2 does. Says the same of a line that has not
/// fully arrived.
fn is_other_version(buf: &[u8]) -> bool {
    let version = buf.splitn(3, |&b| b == b' ').nth(2).unwrap_or_default();
    match version.strip_prefix(b"HTTP/") {
        Some([major, ..]) => major.is_ascii_digit() && *major != b'1',
        _ => false,
    }
}

pub(super) fn parse_method(name: &str) -> Result<Method, Refused> {
    if name.len() > limits::METHOD_BYTES_MAX {
        return Err(ProxyError::NotImplemented.into());
    }
    match Method::from_bytes(name.as_bytes()) {
        Ok(Method::TRACE) => Err(ProxyError::MethodNotAllowed.into()),
        Ok(method) => Ok(method),
        Err(_) => Err(Rule::RequestLine.into()),
    }
}

/// The authority that the request is for: the target's if it has one, else `Host` (RFC 9112 §3.2.2, §3.3). Both must agree, although
/// the target would win: a peer that looks at the other one would route elsewhere.
fn effective_authority<'b>(
    target: &Target<'b>,
    seen: &Seen<'b>,
    version: Version,
) -> Result<Option<Authority<'b>>, ProxyError> {
    // RFC 9112 §3.2: 400 for no Host in HTTP/1.1, for more than one, for an invalid one
    if seen.hosts > 1 || (seen.hosts == 0 && version == Version::Http11) {
        return Err(ProxyError::BadRequest);
    }
    let host = seen.host.map(|value| Authority::try_new(trim(value))).transpose()?;
    match (target.authority, host) {
        (Some((authority, default_port)), Some(host)) if !authority.is_same(&host, default_port) => {
            Err(ProxyError::BadRequest)
        }
        (Some((authority, _)), _) => Ok(Some(authority)),
        (None, host) => Ok(host),
    }
}

pub(super) fn lower_case<'b>(host: &'b str, scratch: &'b mut String) -> &'b str {
    if !host.bytes().any(|b| b.is_ascii_uppercase()) {
        return host;
    }
    scratch.clear();
    scratch.push_str(host);
    scratch.make_ascii_lowercase();
    scratch
}
