//! What the gateway says itself: errors, redirects, direct answers, `100 Continue`.
//!
//! An error's body is `{"error":"<token>","message":"…"}` with the token that stands in the log and the metrics; a call of gRPC is told in a head
//! alone, by `grpc-status`. Replies are small and whole: a status line, a Content-Length, the body.

use super::Version;
use super::date::HttpDate;
use super::encode::push_connection;
use super::grpc;
use super::h2::respond;
use super::headers::{overrides, push, push_set};
use super::text::push_number;
use crate::config::{ErrorPage, ErrorPiece, HeaderRules, ServerField};
use crate::error::{ProxyError, Rule};
use http::StatusCode;

/// Lets a client send the body that it holds back (RFC 9110 §15.2.1). Not for HTTP/1.0.
pub fn go_on(out: &mut Vec<u8>, version: Version) {
    match version {
        Version::Http2 => respond::go_on(out),
        _ => out.extend_from_slice(CONTINUE),
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Methods that are named in `Allow` when no route has a say: those with a meaning in RFC 9110 and RFC 5789, but for those that the
/// gateway refuses.
pub const ALLOW_ANY: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Whom a reply is for.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo<'a> {
    /// The version of the request; 1.1 when its head could not be read.
    pub version: Version,
    /// The request is a HEAD: everything but the body is sent.
    pub head_only: bool,
    /// The connection is closed after the reply.
    pub close: bool,
    /// For `Date`.
    pub date: &'a HttpDate,
    /// The listener's: a text is what replies say too, anything else says nothing.
    pub server: &'a ServerField,
    /// The route's, where it is the route that answers (`respond`, `redirect`), or where they count always. `None`: it is the gateway.
    pub rules: Option<&'a HeaderRules>,
    /// Whole lines that the gateway has made for this response, as those of a [`super::encode::DownstreamResponse`].
    pub lines: &'a [u8],
    /// The request is a call of gRPC or gRPC-Web: errors are told in its form ([`grpc`]), with this content type.
    pub call_type: Option<&'static [u8]>,
    /// What errors look like; those that none is for are JSON.
    pub errors: &'a [ErrorPage],
    /// What the request is called; empty: that is not known.
    pub id: &'a [u8],
}

impl ReplyTo<'_> {
    /// Whether the rules say something about a field: then the reply's own is not written.
    fn rules_on(&self, name: &[u8]) -> bool {
        self.rules.is_some_and(|rules| overrides(rules, name))
    }
}

/// A reply of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// 200 to 599.
    pub status: StatusCode,
    /// `None`: no `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// Not sent with 204 and 304.
    pub body: &'a [u8],
    /// More headers. Not checked: names and values are the gateway's own, free of CR and LF.
    pub extra: &'a [(&'a str, &'a [u8])],
}

/// Appends a whole reply.
pub fn reply(out: &mut Vec<u8>, reply: &Reply<'_>, to: &ReplyTo<'_>) {
    let start = out.len();
    // RFC 9110 §15.3.5, §15.4.5: no content, and for 204 no Content-Length (§8.6)
    let has_content = !matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    push_start(out, reply.status, to);
    if let Some(content_type) = reply.content_type.filter(|_| has_content && !to.rules_on(b"content-type")) {
        push(out, b"Content-Type", content_type);
    }
    for (name, value) in reply.extra.iter().filter(|(name, _)| !to.rules_on(name.as_bytes())) {
        push(out, name.as_bytes(), value);
    }
    if has_content {
        push_length(out, reply.body.len());
    }
    out.extend_from_slice(b"\r\n");
    if has_content && !to.head_only {
        out.extend_from_slice(reply.body);
    }
    end(out, start, to);
}

/// The reply from `start` on is whole: a client of HTTP/2 gets it as frames.
fn end(out: &mut Vec<u8>, start: usize, to: &ReplyTo<'_>) {
    if to.version == Version::Http2 {
        respond::restate(out, start);
    }
}

/// Appends the reply that an error earns, with `extra` headers (`Retry-After` and the like). A 405 without an `Allow` of its own gets
/// [`ALLOW_ANY`] (RFC 9110 §15.5.6 demands one).
pub fn error(out: &mut Vec<u8>, error: ProxyError, extra: &[(&str, &[u8])], to: &ReplyTo<'_>) {
    push_error(out, (error, error.status(), None), extra, to);
}

/// The same with another status than the error's own.
pub fn error_as(out: &mut Vec<u8>, error: ProxyError, status: StatusCode, to: &ReplyTo<'_>) {
    push_error(out, (error, status, None), &[], to);
}

/// Appends the reply to a request that breaks this rule: 400.
pub fn malformed(out: &mut Vec<u8>, rule: Rule, to: &ReplyTo<'_>) {
    let error = ProxyError::BadRequest;
    push_error(out, (error, error.status(), Some(rule)), &[], to);
}

fn push_error(
    out: &mut Vec<u8>,
    (error, status, rule): (ProxyError, StatusCode, Option<Rule>),
    extra: &[(&str, &[u8])],
    to: &ReplyTo<'_>,
) {
    let (colon, word) = rule.map_or(("", ""), |rule| (": ", rule.word()));
    let page = ErrorPage::of(to.errors, status).filter(|_| to.call_type.is_none());
    let body = [r#"{"error":""#, error.token(), r#"","message":""#, error.message(), colon, word, "\"}\n"];
    let start = out.len();
    let is_call = to.call_type.is_some();
    push_start(out, if is_call { StatusCode::OK } else { status }, to);
    if is_call || !to.rules_on(b"content-type") {
        let page_type = page.map_or(&b"application/json"[..], |page| page.content_type.as_bytes());
        push(out, b"Content-Type", to.call_type.unwrap_or(page_type));
    }
    for (name, value) in extra.iter().filter(|(name, _)| !to.rules_on(name.as_bytes())) {
        push(out, name.as_bytes(), value);
    }
    if error == ProxyError::MethodNotAllowed && !extra.iter().any(|(name, _)| name.eq_ignore_ascii_case("allow")) {
        push(out, b"Allow", ALLOW_ANY);
    }
    if is_call {
        push_outcome(out, error, [colon, word], to);
        return end(out, start, to);
    }
    if let Some(page) = page {
        let told = Told { status: &status, error, more: [colon, word], id: to.id };
        push_length(out, page.pieces.iter().map(|piece| told.length(piece)).sum());
        out.extend_from_slice(b"\r\n");
        if !to.head_only {
            page.pieces.iter().for_each(|piece| told.push(piece, out));
        }
        return end(out, start, to);
    }
    push_length(out, body.iter().map(|part| part.len()).sum());
    out.extend_from_slice(b"\r\n");
    if !to.head_only {
        body.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    }
    end(out, start, to);
}

/// What the names of a page stand for.
struct Told<'a> {
    status: &'a StatusCode,
    error: ProxyError,
    /// What the message goes on with.
    more: [&'a str; 2],
    id: &'a [u8],
}

impl Told<'_> {
    fn text(&self, piece: &'_ ErrorPiece) -> [&[u8]; 3] {
        // a piece is borrowed as long as this is, or static
        let one: &str = match piece {
            ErrorPiece::Text(_) => "",
            ErrorPiece::Status => self.status.as_str(),
            ErrorPiece::Reason => self.status.canonical_reason().unwrap_or_default(),
            ErrorPiece::Error => self.error.token(),
            ErrorPiece::Message => {
                return [self.error.message().as_bytes(), self.more[0].as_bytes(), self.more[1].as_bytes()];
            }
            ErrorPiece::RequestId => return [self.id, b"", b""],
        };
        [one.as_bytes(), b"", b""]
    }

    fn length(&self, piece: &ErrorPiece) -> usize {
        match piece {
            ErrorPiece::Text(text) => text.len(),
            named => self.text(named).iter().map(|part| part.len()).sum(),
        }
    }

    fn push(&self, piece: &ErrorPiece, out: &mut Vec<u8>) {
        match piece {
            ErrorPiece::Text(text) => out.extend_from_slice(text.as_bytes()),
            // a client's word, which must mean nothing where it is shown
            ErrorPiece::RequestId => out.extend(self.id.iter().map(|&byte| match byte {
                b'.' | b'_' | b'~' | b'-' => byte,
                _ if byte.is_ascii_alphanumeric() => byte,
                _ => b'_',
            })),
            named => self.text(named).iter().for_each(|part| out.extend_from_slice(part)),
        }
    }
}

/// The rest of an answer that is all head: a call's outcome, in place of a body.
fn push_outcome(out: &mut Vec<u8>, error: ProxyError, more: [&str; 2], to: &ReplyTo<'_>) {
    out.extend_from_slice(b"grpc-status: ");
    push_number(out, u64::from(grpc::code(error)));
    out.extend_from_slice(b"\r\ngrpc-message: ");
    for text in [error.message(), more[0], more[1]] {
        grpc::push_message(out, text.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    // the end of a stream says it for itself
    if to.version != Version::Http2 {
        push_length(out, 0);
    }
    out.extend_from_slice(b"\r\n");
}

/// What a `Location` says of the request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Without port; a request without a host is not redirected to one.
    pub host: &'a str,
    /// In its one spelling.
    pub path: &'a str,
    /// What stood behind `?`.
    pub query: Option<&'a str>,
}

/// Appends a redirect to `location`, in which variables stand for what was asked for (see [`push_location`]).
pub fn redirect(out: &mut Vec<u8>, status: StatusCode, location: &str, asked: Asked<'_>, to: &ReplyTo<'_>) {
    let start = out.len();
    push_start(out, status, to);
    if !to.rules_on(b"location") {
        out.extend_from_slice(b"Location: ");
        push_location(out, location, asked);
        out.extend_from_slice(b"\r\n");
    }
    push_length(out, 0);
    out.extend_from_slice(b"\r\n");
    end(out, start, to);
}

/// Appends what stands in `Location`: the template `location`, in which `{scheme}`, `{host}` and `{query}` stand for those of the request, and
/// `{path}` or `{path_and_query}` for its path with its query.
///
/// Where the path stands first, or behind a slash, its own slashes are one with that: `//host` would be another host (RFC 3986 §4.2).
pub fn push_location(out: &mut Vec<u8>, location: &str, asked: Asked<'_>) {
    let (start, mut rest) = (out.len(), location);
    // a path has just been put in, and nothing behind it
    let mut is_joined = false;
    loop {
        let (text, behind) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        let joined = if is_joined && out.last() == Some(&b'/') { text.strip_prefix('/').unwrap_or(text) } else { text };
        out.extend_from_slice(joined.as_bytes());
        let Some((word, behind)) = behind.strip_prefix('{').and_then(|behind| behind.split_once('}')) else {
            return out.extend_from_slice(behind.as_bytes());
        };
        is_joined = false;
        match word {
            "scheme" => out.extend_from_slice(asked.scheme.as_bytes()),
            "host" => out.extend_from_slice(asked.host.as_bytes()),
            "query" => out.extend_from_slice(asked.query.unwrap_or_default().as_bytes()),
            _ => {
                push_path(out, start, asked);
                is_joined = asked.query.is_none();
            }
        }
        rest = behind;
    }
}

fn push_path(out: &mut Vec<u8>, start: usize, Asked { path, query, .. }: Asked<'_>) {
    let path = if path == "*" { "/" } else { path };
    match out[start..].last() {
        None => out.extend_from_slice(single_slash(path).as_bytes()),
        Some(b'/') => out.extend_from_slice(path.trim_start_matches('/').as_bytes()),
        Some(_) => out.extend_from_slice(path.as_bytes()),
    }
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

/// A path with one slash at its beginning, however many there are.
#[must_use]
pub fn single_slash(path: &str) -> &str {
    let slashes = path.len() - path.trim_start_matches('/').len();
    &path[slashes.saturating_sub(1)..]
}

fn push_start(out: &mut Vec<u8>, status: StatusCode, to: &ReplyTo<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    if !to.rules_on(b"date") {
        push(out, b"Date", to.date);
    }
    if let ServerField::Set(value) = to.server
        && !to.rules_on(b"server")
    {
        push(out, b"Server", value.as_bytes());
    }
    push_connection(out, to.version, to.close);
    out.extend_from_slice(to.lines);
    if let Some(rules) = to.rules {
        push_set(out, rules);
    }
}

fn push_length(out: &mut Vec<u8>, bytes: usize) {
    out.extend_from_slice(b"Content-Length: ");
    push_number(out, bytes as u64);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(template: &str, path: &str, query: Option<&str>) -> String {
        let mut out = b"Location: ".to_vec();
        push_location(&mut out, template, Asked { scheme: "http", host: "a.example", path, query });
        String::from_utf8(out).unwrap().split_off("Location: ".len())
    }

    #[test]
    fn a_location_is_the_template_with_path_and_query() {
        assert_eq!(location("https://a.example{path}", "/b", Some("c=/d")), "https://a.example/b?c=/d");
        assert_eq!(location("/new{path}", "/b//c", None), "/new/b//c");
        assert_eq!(location("/new{path}", "*", None), "/new/");
        assert_eq!(location("https://a.example/?from={path}", "//b", None), "https://a.example/?from=//b");
        assert_eq!(location("{path}/", "/b", None), "/b/");
        assert_eq!(location("https://{host}{path_and_query}", "/b", Some("c")), "https://a.example/b?c");
        assert_eq!(location("{scheme}://{host}:81/x?{query}&y={path}z", "/b", None), "http://a.example:81/x?&y=/bz");
        assert_eq!(location("{path}/{path}", "/", None), "//".trim_end_matches('/').to_owned() + "/");
    }

    #[test]
    fn no_path_of_a_client_makes_a_location_that_is_another_host() {
        for path in ["/evil.example", "//evil.example", "///evil.example/x", "/", "//"] {
            for template in ["{path}/", "/{path}", "{path}index.html", "/", "{path}{path}"] {
                let location = location(template, path, None);
                assert!(location.starts_with('/') && !location.starts_with("//"), "{template} of {path}: {location}");
            }
        }
    }
}
