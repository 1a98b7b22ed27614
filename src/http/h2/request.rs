//! A request's head, from its section: the same [`RequestHead`] that HTTP/1.1 has, judged as strictly.
//!
//! This is the seam between HTTP/2 and whatever an endpoint speaks, so nothing passes it that a parser of HTTP/1.1 would read in another
//! way: targets are visible ASCII, there is one authority, and a length is only told if it is one.
//!
//! A body without a length is said to be [`Framing::Chunked`], and whoever reads it gets it so: the end of the stream is the last chunk.
//!
//! Source: RFC 9113 §8.3.1; sections stand beside the rules.

use super::section::{Fault, Section};
use crate::config::Underscores;
use crate::error::{ProxyError, Rule};
use crate::http::Version;
use crate::http::fields::{Expectation, Fields, HeadScratch, Kind, Seen};
use crate::http::framing::Framing;
use crate::http::head::{HeadPolicy, Refused, RequestHead, lower_case, parse_method};
use crate::http::path;
use crate::http::target::{Authority, Target};
use crate::http::websocket;
use http::Method;

/// Texts that are not as they were sent.
type Texts<'b> = (&'b mut String, &'b mut String, &'b mut String);

impl<'b> RequestHead<'b> {
    /// The head that a section holds, which is of a request and not malformed. `ended`: no body follows it.
    ///
    /// # Errors
    /// As [`RequestHead::parse`], for the same reasons; of the stream, which is answered, and not of its connection.
    pub fn of_section(
        section: &'b mut Section,
        ended: bool,
        policy: &HeadPolicy,
        scratch: &'b mut HeadScratch,
    ) -> Result<Self, ProxyError> {
        let HeadScratch { path, merged, host, broken, .. } = scratch;
        Self::of(section, ended, policy, (path, merged, host)).map_err(|Refused(error, rule)| {
            *broken = rule;
            error
        })
    }

    fn of(section: &'b mut Section, ended: bool, policy: &HeadPolicy, texts: Texts<'b>) -> Result<Self, Refused> {
        match section.fault() {
            None => {}
            Some(Fault::TooLarge) => return Err(ProxyError::HeaderTooLarge.into()),
            Some(Fault::Malformed) => return Err(Rule::HeaderName.into()),
        }
        drop_underscored(section, policy.underscores)?;
        let section = &*section;
        let fields = Fields { buf: &section.lines, table: &section.table };
        let mut seen = note(&fields)?;
        let method = section.method().and_then(|method| str::from_utf8(method).ok()).ok_or(Rule::RequestLine)?;
        let method = match section.protocol() {
            None => parse_method(method)?,
            Some(protocol) => connect(protocol, &mut seen)?,
        };
        let target = target(section)?;
        let parts = Target::parse(target, &method).map_err(|error| Refused::of(error, Rule::Target))?;
        let (path_scratch, merged, host_scratch) = texts;
        let path = match parts.path {
            "*" => "*",
            path => path::normalize(path, policy.separators, policy.empty, path_scratch).map_err(|_| Rule::Path)?,
        };
        let authority = authority(section, &seen)?;
        let is_connect = section.protocol().is_some();
        let framing = match seen.lengths.request(Version::Http2).map_err(|error| Refused::of(error, Rule::Length))? {
            Framing::None if !ended && !is_connect => Framing::Chunked,
            // RFC 9110 §9.3.6: what follows is no content
            Framing::Fixed(_) if is_connect => return Err(Rule::Length.into()),
            framing => framing,
        };
        if seen.expect == Expectation::Unknown {
            return Err(ProxyError::ExpectationFailed.into());
        }
        Ok(Self {
            method,
            version: Version::Http2,
            target,
            path,
            routed_path: path::merged(path, merged),
            query: parts.query,
            host: Some(lower_case(authority.host, host_scratch)),
            authority: Some(authority.text),
            fields,
            seen,
            framing,
            len: section.lines.len(),
        })
    }
}

/// An extended CONNECT (RFC 8441) is to the line what it is on HTTP/1.1: a GET that offers to change the protocol.
fn connect<'b>(protocol: &'b [u8], seen: &mut Seen<'b>) -> Result<Method, Refused> {
    if protocol != websocket::PROTOCOL {
        return Err(ProxyError::NotImplemented.into()); // RFC 9220 §3
    }
    (seen.upgrade, seen.upgrade_option) = (Some(protocol), true);
    Ok(Method::GET)
}

/// What a listener wants done with names that CGI cannot tell from others.
fn drop_underscored(section: &mut Section, underscores: Underscores) -> Result<(), Refused> {
    if !section.underscored || underscores == Underscores::Keep {
        return Ok(());
    }
    if underscores == Underscores::Reject {
        return Err(Rule::Underscore.into());
    }
    let lines = &section.lines;
    for field in section.table.iter_mut().filter(|field| field.name(lines).contains(&b'_')) {
        field.kind = Kind::Dropped;
    }
    Ok(())
}

/// What the fields say of which the gateway must know.
fn note<'b>(fields: &Fields<'b>) -> Result<Seen<'b>, Refused> {
    let mut seen = Seen::default();
    for field in fields.table.iter().filter(|field| !matches!(field.kind, Kind::Other | Kind::EndToEnd)) {
        seen.note(field.kind, field.value(fields.buf)).map_err(|_| Rule::HeaderName)?;
    }
    Ok(seen)
}

/// `:path`, which begins with `/`, or is `*` (RFC 9113 §8.3.1); visible ASCII, as HTTP/1.1 would have it.
fn target(section: &Section) -> Result<&str, Refused> {
    let is_scheme = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    let Some(path) = section.path() else { return Err(ProxyError::NotImplemented.into()) }; // CONNECT (§8.5)
    if !section.scheme().is_some_and(is_scheme) || !path.iter().all(u8::is_ascii_graphic) {
        return Err(Rule::Target.into());
    }
    str::from_utf8(path).ok().filter(|path| path.starts_with('/') || *path == "*").ok_or(Rule::Target.into())
}

/// The one authority that the request is for. `:authority` and `Host` must be the same place where both are there (RFC 9113 §8.3.1).
fn authority<'b>(section: &'b Section, seen: &Seen<'b>) -> Result<Authority<'b>, Refused> {
    let default_port =
        if section.scheme().is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https")) { 443 } else { 80 };
    if seen.hosts > 1 {
        return Err(Rule::Host.into());
    }
    let parse = |text: &'b [u8]| Authority::try_new(text).map_err(|error| Refused::of(error, Rule::Host));
    let host = seen.host.map(parse).transpose()?;
    let authority = section.authority().map(parse).transpose()?;
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.is_same(&host, default_port) => Err(Rule::Host.into()),
        (Some(authority), _) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Rule::Host.into()),
    }
}
