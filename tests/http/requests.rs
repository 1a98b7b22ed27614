//! Request heads.

use crate::support::{Seen, fed_every_way, see_request};
use ringgate::config::Underscores;
use ringgate::error::ProxyError;
use ringgate::http::Parsed;
use ringgate::http::fields::HeadScratch;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::path::EmptySegments;

fn fed(bytes: &[u8]) -> Seen {
    fed_every_way(bytes, |buf| see_request(buf, &HeadPolicy::default()))
}

/// (what it shows, bytes, what is understood)
const TAKEN: &[(&str, &[u8], &str)] = &[
    ("the smallest", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a None keep | Host: a"),
    ("1.0 without Host (9112 3.2)", b"GET / HTTP/1.0\r\n\r\n", "GET / - None close"),
    ("1.0 keep-alive (9112 9.3)", b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / - None keep | Connection: Keep-Alive"),
    ("1.0 with close and keep-alive", b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "GET / - None close | Connection: keep-alive, close"),
    ("1.1 close (9112 9.6)", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / a None close | Host: a | Connection: close"),
    ("close in any case and place", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: te, CLOSE\r\n\r\n", "GET / a None close | Host: a | Connection: te, CLOSE"),
    ("an empty line before it (9112 2.2)", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a None keep | Host: a"),
    ("two empty lines before it", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a None keep | Host: a"),
    ("what follows is not looked at", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /\x00 nonsense", "GET / a None keep | Host: a"),
    ("query as sent", b"GET /a?b=%zz&c=/../?d HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b=%zz&c=/../?d a None keep | Host: a"),
    ("an empty query", b"GET /a? HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a? a None keep | Host: a"),
    ("path in its one spelling (3986 6.2)", b"GET /a/../%62//c/. HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b//c/ a None keep | Host: a"),
    ("double encoding is decoded once", b"GET /%252e%252e/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /%252e%252e/ a None keep | Host: a"),
    ("a path that looks like an authority", b"GET //evil/a HTTP/1.1\r\nHost: a\r\n\r\n", "GET //evil/a a None keep | Host: a"),
    ("a minor version above 1 (9110 2.5)", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "GET / a None keep | Host: a"),
    ("the highest minor version", b"GET /a HTTP/1.9\r\nHost: A\r\nX: y\r\n\r\n", "GET /a a None keep | Host: A | X: y"),
    ("odd but visible ASCII", b"GET /{a}|\"<b>^`?[c] HTTP/1.1\r\nHost: a\r\n\r\n", "GET /{a}|\"<b>^`?[c] a None keep | Host: a"),
    ("host in any case, with port", b"GET / HTTP/1.1\r\nHost: A.Example:8080\r\n\r\n", "GET / a.example None keep | Host: A.Example:8080"),
    ("a final dot names the same host", b"GET / HTTP/1.1\r\nHost: a.example.\r\n\r\n", "GET / a.example None keep | Host: a.example."),
    ("an IPv6 host (3986 3.2.2)", b"GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n", "GET / [2001:db8::1] None keep | Host: [2001:DB8::1]:80"),
    ("absolute form (9112 3.2.2)", b"GET http://a.example/b?c HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET /b?c a.example None keep | Host: a.example"),
    ("absolute form with a default port", b"GET http://a.example:80/ HTTP/1.1\r\nHost: A.example\r\n\r\n", "GET / a.example None keep | Host: A.example"),
    ("absolute form without a path (9110 4.2.3)", b"GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?b a None keep | Host: a"),
    ("absolute form in 1.0 without Host", b"GET http://a/b HTTP/1.0\r\n\r\n", "GET /b a None close"),
    ("asterisk form (9112 3.2.4)", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * a None keep | Host: a"),
    ("asterisk form of a proxy (9112 3.2.4)", b"OPTIONS http://a:8001 HTTP/1.1\r\nHost: a:8001\r\n\r\n", "OPTIONS * a None keep | Host: a:8001"),
    ("an unknown method (9110 9.1)", b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n", "PROPFIND / a None keep | Host: a"),
    ("methods keep their case (9110 9.1)", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "get / a None keep | Host: a"),
    ("a length (9112 6.2)", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "POST / a Fixed(5) keep | Host: a | Content-Length: 5"),
    ("a length of zero", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST / a Fixed(0) keep | Host: a | Content-Length: 0"),
    ("a body on GET (9110 9.3.1)", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", "GET / a Fixed(1) keep | Host: a | Content-Length: 1"),
    ("the same length twice (9110 8.6)", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "POST / a Fixed(5) keep | Host: a | Content-Length: 5 | Content-Length: 5"),
    ("the same length as a list (9110 8.6)", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", "POST / a Fixed(5) keep | Host: a | Content-Length: 5, 5"),
    ("leading zeros (9110 8.6: 1*DIGIT)", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\n", "POST / a Fixed(5) keep | Host: a | Content-Length: 005"),
    ("the largest length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n", "POST / a Fixed(9223372036854775807) keep | Host: a | Content-Length: 9223372036854775807"),
    ("a length in 1.0", b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", "POST / - Fixed(5) close | Content-Length: 5"),
    ("chunked (9112 7.1)", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "POST / a Chunked keep | Host: a | Transfer-Encoding: chunked"),
    ("chunked in any case (9112 7)", b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-ENCODING: Chunked\r\n\r\n", "POST / a Chunked keep | Host: a | transfer-ENCODING: Chunked"),
    ("blanks around a value (9112 5.1)", b"POST / HTTP/1.1\r\nHost: \t a \t\r\nTransfer-Encoding:chunked\t \r\n\r\n", "POST / a Chunked keep | Host: a | Transfer-Encoding: chunked"),
    ("an empty value", b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t\r\n\r\n", "GET / a None keep | Host: a | X:  | Y: "),
    ("a tab inside a value (9110 5.5)", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n", "GET / a None keep | Host: a | X: a\\tb"),
    ("obs-text in a value (9110 5.5)", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\xff\r\n\r\n", "GET / a None keep | Host: a | X: \\xe4\\xff"),
    ("every tchar in a name (9110 5.6.2)", b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^`|~09az: x\r\n\r\n", "GET / a None keep | Host: a | !#$%&\\'*+-.^`|~09az: x"),
    ("colons in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX::: b:\r\n\r\n", "GET / a None keep | Host: a | X: :: b:"),
    ("100-continue (9110 10.1.1)", b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", "PUT / a Fixed(1) keep continue | Host: a | Expect: 100-Continue | Content-Length: 1"),
    ("100-continue without a body is ignored", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", "GET / a None keep | Host: a | Expect: 100-continue"),
    ("100-continue in 1.0 is ignored", b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", "PUT / - Fixed(1) close | Expect: 100-continue | Content-Length: 1"),
    ("an upgrade (9110 7.8)", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / a None keep upgrade=websocket | Host: a | Connection: Upgrade | Upgrade: websocket"),
    ("an upgrade that Connection does not name", b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET / a None keep | Host: a | Upgrade: websocket"),
    ("an upgrade in 1.0 is ignored (9110 7.8)", b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / - None close | Connection: upgrade | Upgrade: websocket"),
    ("nominated names are cut (9110 7.6.1)", b"GET / HTTP/1.1\r\nHost: a\r\nX-Hop: 1\r\nConnection: x-hop\r\nx-HOP: 2\r\n\r\n", "GET / a None keep | Host: a | Connection: x-hop"),
    ("end-to-end names stay though nominated", b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\nX-Forwarded-For: c\r\nConnection: host, authorization, x-forwarded-for, content-length\r\n\r\n", "GET / a None keep | Host: a | Authorization: b | X-Forwarded-For: c | Connection: host, authorization, x-forwarded-for, content-length"),
    ("underscores are cut", b"GET / HTTP/1.1\r\nHost: a\r\nX_User: root\r\nContent_Length: 5\r\n\r\n", "GET / a None keep | Host: a"),
    ("Proxy is cut (httpoxy)", b"GET / HTTP/1.1\r\nHost: a\r\nProxy: evil:80\r\nProxy-Authorization: x\r\n\r\n", "GET / a None keep | Host: a"),
    ("not all of it", b"GET / HTTP/1.1\r\nHost: a\r\n", "-"),
    ("not even a method", b"GE", "-"),
    ("only an empty line", b"\r\n", "-"),
    ("half an empty line", b"\r", "-"),
    ("all but the last byte", b"GET / HTTP/1.1\r\nHost: a\r\n\r", "-"),
];

#[test]
fn well_formed_requests_are_understood_however_they_arrive() {
    for (reason, bytes, understood) in TAKEN {
        let seen = fed(bytes).unwrap_or_else(|error| panic!("{reason}: {error:?}"));
        assert_eq!(seen.as_deref().unwrap_or("-"), *understood, "{reason}");
    }
}

const BAD: ProxyError = ProxyError::BadRequest;

/// (what is wrong, bytes, the error)
const REFUSED: &[(&str, &[u8], ProxyError)] = &[
    // request line (RFC 9112 §3)
    ("bare LF after the request line (9112 2.2)", b"GET / HTTP/1.1\nHost: a\r\n\r\n", BAD),
    ("bare CR after the request line (9112 2.2)", b"GET / HTTP/1.1\rHost: a\r\n\r\n", BAD),
    ("bare LF before the request (9112 2.2)", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("bare CR before the request", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("LF CR before the request", b"\r\n\n\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("too many empty lines", b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a blank before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("two blanks after the method (9112 3)", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("two blanks after the target (9112 3)", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a tab as separator (9112 3)", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a tab after the target", b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a blank after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BAD),
    ("a fourth word", b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", BAD),
    ("a blank in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("an empty target", b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("HTTP/0.9", b"GET /\r\n\r\n", BAD),
    ("HTTP/0.9 with headers", b"GET /\r\nHost: a\r\n\r\n", BAD),
    ("no method", b"/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a method that is no token (9110 9.1)", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a quoted method", b"\"GET\" / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("NUL in the method", b"GE\x00T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a giant method", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n", ProxyError::NotImplemented),
    ("TRACE (9110 9.3.8)", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", ProxyError::MethodNotAllowed),
    ("CONNECT (9110 9.3.6)", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", ProxyError::NotImplemented),
    ("CONNECT with a path", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", ProxyError::NotImplemented),
    // version (RFC 9112 §2.3)
    ("the preface of HTTP/2 (9113 3.4)", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ProxyError::VersionNotSupported),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", ProxyError::VersionNotSupported),
    ("HTTP/2", b"GET / HTTP/2\r\nHost: a\r\n\r\n", ProxyError::VersionNotSupported),
    ("HTTP/0.9 spelled out", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", ProxyError::VersionNotSupported),
    ("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", ProxyError::VersionNotSupported),
    ("HTTP/1.x", b"GET / HTTP/1.x\r\nHost: a\r\n\r\n", ProxyError::BadRequest),
    ("HTTP/1.12 (9112 2.3: one digit)", b"GET / HTTP/1.12\r\nHost: a\r\n\r\n", ProxyError::BadRequest),
    ("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", ProxyError::VersionNotSupported),
    ("a two-digit minor", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", BAD),
    ("no minor", b"GET / HTTP/1\r\nHost: a\r\n\r\n", BAD),
    ("the name in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", BAD),
    ("another protocol", b"GET / HTTQ/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a comma in the version", b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", BAD),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD),
    // target (RFC 9112 §3.2)
    ("a fragment (9112 3.2)", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a fragment in the query", b"GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("UTF-8 in the target (3986 2)", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("Latin-1 in the target", b"GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("non-ASCII in the query", b"GET /?\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("NUL in the target", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("DEL in the target", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a bare CR in the target", b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("an encoded slash", b"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("an encoded backslash", b"GET /a%5Cb HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a raw backslash", b"GET /a\\..\\b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("an encoded NUL", b"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a broken escape (3986 2.1)", b"GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("half an escape", b"GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a dot segment with a parameter", b"GET /a/..;x/b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a target without a slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("an asterisk for GET (9112 3.2.4)", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("an asterisk and more", b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("an authority for GET (9112 3.2.3)", b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", BAD),
    ("another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("a scheme without an authority", b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    ("userinfo (9110 4.2.4)", b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", BAD),
    ("an empty userinfo", b"GET http://@b/ HTTP/1.1\r\nHost: b\r\n\r\n", BAD),
    // Host (RFC 9112 §3.2)
    ("no Host (9112 3.2)", b"GET / HTTP/1.1\r\n\r\n", BAD),
    ("no Host beside the absolute form (9112 3.2)", b"GET http://a/ HTTP/1.1\r\n\r\n", BAD),
    ("two Hosts (9112 3.2)", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", BAD),
    ("the same Host twice (9112 3.2)", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", BAD),
    ("two Hosts in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BAD),
    ("an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", BAD),
    ("two hosts in one field", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BAD),
    ("a blank in Host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD),
    ("a path in Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD),
    ("userinfo in Host", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", BAD),
    ("a URL in Host", b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", BAD),
    ("a port that is no number", b"GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", BAD),
    ("a port too large", b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", BAD),
    ("an IPv6 host without brackets", b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", BAD),
    ("an IPv6 host with an open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BAD),
    ("an escape in Host", b"GET / HTTP/1.1\r\nHost: %61\r\n\r\n", BAD),
    ("non-ASCII in Host", b"GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", BAD),
    ("Host differs from the target", b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", BAD),
    ("Host differs in its port", b"GET http://a/ HTTP/1.1\r\nHost: a:8080\r\n\r\n", BAD),
    // field lines (RFC 9112 §5)
    ("bare LF after a field (9112 2.2)", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BAD),
    ("bare LF after the last field", b"GET / HTTP/1.1\r\nHost: a\n\r\n", BAD),
    ("bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", BAD),
    ("only bare LFs", b"GET / HTTP/1.1\nHost: a\n\n", BAD),
    ("a bare CR in a value (9112 2.2)", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", BAD),
    ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BAD),
    ("NUL in a value (9110 5.5)", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", BAD),
    ("a control byte in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0b\r\n\r\n", BAD),
    ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", BAD),
    ("a blank before the colon (9112 5.1)", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", BAD),
    ("a tab before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", BAD),
    ("a blank in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", BAD),
    ("an empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", BAD),
    ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", BAD),
    ("a folded line (9112 5.2)", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", BAD),
    ("a folded line of blanks", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\t\r\n\r\n", BAD),
    ("a blank before the first field (9112 2.2)", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD),
    ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n", BAD),
    ("obs-text in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\xe4: b\r\n\r\n", BAD),
    ("a separator in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n", BAD),
    ("an option that is no token (9110 7.6.1)", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: clo se\r\n\r\n", BAD),
    // framing (RFC 9112 §6): smuggling
    (
        "CL.TE (9112 6.1)",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        BAD,
    ),
    ("TE.CL (9112 6.1)", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", BAD),
    (
        "a faulty TE beside CL",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\n",
        BAD,
    ),
    (
        "a faulty CL beside TE",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n",
        BAD,
    ),
    (
        "lengths that differ (9112 6.3)",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        BAD,
    ),
    ("a list of lengths that differ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n", BAD),
    ("a list with an empty element", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,\r\n\r\n", BAD),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", BAD),
    ("a signed length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", BAD),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", BAD),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", BAD),
    ("a blank in a length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n", BAD),
    ("a decimal point", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n", BAD),
    ("a quoted length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\n", BAD),
    ("a length beyond 63 bits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", BAD),
    ("a length beyond 64 bits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\n", BAD),
    ("digits of another script", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa5\r\n\r\n", BAD),
    (
        "the same length, then another",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5, 5\r\nContent-Length: 6\r\n\r\n",
        BAD,
    ),
    ("TE in 1.0 (9112 6.1)", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    ("chunked twice (9112 6.1)", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", BAD),
    (
        "chunked in two fields",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        BAD,
    ),
    (
        "another coding in a second field",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        BAD,
    ),
    ("chunked not last (9112 6.3)", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", BAD),
    ("no chunked (9112 6.3)", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", BAD),
    ("identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", BAD),
    (
        "a coding before chunked (9112 6.1)",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ProxyError::NotImplemented,
    ),
    ("an empty TE", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", BAD),
    ("a comma before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n", BAD),
    ("a comma after chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", BAD),
    ("a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", BAD),
    ("a prefix", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", BAD),
    ("a suffix", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n", BAD),
    ("quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", BAD),
    ("a vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", BAD),
    ("a blank inside", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chun ked\r\n\r\n", BAD),
    ("a no-break space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xa0\r\n\r\n", BAD),
    ("TE on a folded line", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", BAD),
    ("TE behind a bare LF", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    ("TE behind a bare CR", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", BAD),
    ("a blank before TE's colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", BAD),
    ("a blank before CL", b"POST / HTTP/1.1\r\nHost: a\r\n Content-Length: 5\r\n\r\n", BAD),
    // expectations (RFC 9110 §10.1.1)
    ("an unknown expectation", b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", ProxyError::ExpectationFailed),
    (
        "an unknown one beside the known",
        b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: x\r\n\r\n",
        ProxyError::ExpectationFailed,
    ),
    (
        "the known one beside an unknown",
        b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nExpect: 100-continue\r\n\r\n",
        ProxyError::ExpectationFailed,
    ),
];

#[test]
fn requests_that_could_be_read_in_two_ways_are_refused_however_they_arrive() {
    for (reason, bytes, error) in REFUSED {
        assert_eq!(fed(bytes), Err(*error), "{reason}");
    }
}

#[test]
fn an_underscore_looks_like_content_length_to_nobody() {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(fed(bytes).unwrap().unwrap(), "POST / a Fixed(3) keep | Host: a | Content-Length: 3");
    let keep = HeadPolicy { underscores: Underscores::Keep, ..HeadPolicy::default() };
    let kept = see_request(bytes, &keep).unwrap().unwrap();
    assert_eq!(kept, "POST / a Fixed(3) keep | Host: a | Transfer_Encoding: chunked | Content-Length: 3");
    let reject = HeadPolicy { underscores: Underscores::Reject, ..HeadPolicy::default() };
    assert_eq!(see_request(bytes, &reject), Err(ProxyError::BadRequest));
    assert!(see_request(b"GET /a_b HTTP/1.1\r\nHost: a\r\nX: _\r\n\r\n", &reject).unwrap().is_some());
}

#[test]
fn an_underscore_is_seen_in_the_names_that_proxies_own_too() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client_Cert: x\r\n\r\n";
    assert_eq!(fed(bytes).unwrap().unwrap(), "GET / a None keep | Host: a");
    let reject = HeadPolicy { underscores: Underscores::Reject, ..HeadPolicy::default() };
    assert_eq!(see_request(bytes, &reject), Err(ProxyError::BadRequest));
}

#[test]
fn a_head_has_as_many_bytes_as_the_listener_takes_and_no_more() {
    let policy = HeadPolicy { head_bytes_max: 1024, ..HeadPolicy::default() };
    let with_field = |bytes: usize| {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.resize(bytes - 4, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    let see = |bytes: &[u8]| fed_every_way(bytes, |buf| see_request(buf, &policy));
    assert!(see(&with_field(1024)).unwrap().is_some());
    assert_eq!(see(&with_field(1025)), Err(ProxyError::HeaderTooLarge), "RFC 6585 §5");
    let with_target = |bytes: usize| {
        let mut head = b"GET /".to_vec();
        head.resize(bytes - 22, b'x');
        head.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\n\r\n");
        head
    };
    assert!(see(&with_target(1024)).unwrap().is_some());
    assert_eq!(see(&with_target(2048)), Err(ProxyError::UriTooLong), "RFC 9110 §15.5.15");
    let endless = vec![b'A'; 1024];
    assert_eq!(see_request(&endless, &policy), Err(ProxyError::UriTooLong));
}

#[test]
fn a_head_has_as_many_headers_as_the_listener_takes_and_no_more() {
    let with_fields = |count: usize| {
        [b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(), b"X: y\r\n".repeat(count - 1), b"\r\n".to_vec()].concat()
    };
    let see = |bytes: &[u8], headers_max| see_request(bytes, &HeadPolicy { headers_max, ..HeadPolicy::default() });
    for headers_max in [1, 10, 256] {
        assert!(see(&with_fields(headers_max), headers_max).unwrap().is_some());
        assert_eq!(see(&with_fields(headers_max + 1), headers_max), Err(ProxyError::HeaderTooLarge));
    }
    assert_eq!(see(&with_fields(257), 1000), Err(ProxyError::HeaderTooLarge), "never above HEADERS_MAX");
}

#[test]
fn connection_nominates_a_bounded_number_of_names() {
    let with_options =
        |count| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", vec!["x"; count].join(","));
    assert!(fed(with_options(32).as_bytes()).is_ok());
    assert_eq!(fed(with_options(33).as_bytes()), Err(ProxyError::BadRequest));
}

#[test]
fn what_is_routed_by_has_no_empty_segments_whether_they_go_on_or_not() {
    for (empty, sent) in [(EmptySegments::Keep, "//admin//x/"), (EmptySegments::Merge, "/admin/x/")] {
        let policy = HeadPolicy { empty, ..HeadPolicy::default() };
        let mut scratch = HeadScratch::default();
        let bytes = b"GET //admin//./x/ HTTP/1.1\r\nHost: a\r\n\r\n";
        let parsed = RequestHead::parse(bytes, &policy, &mut scratch);
        let Ok(Parsed::Complete(head)) = parsed else { panic!("{parsed:?}") };
        assert_eq!((head.path(), head.routed_path()), (sent, "/admin/x/"));
    }
}
