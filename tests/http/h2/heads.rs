//! Heads over the seam: what a section means, and what an endpoint that speaks HTTP/1.1 gets of it.

use super::super::support::describe_request;
use super::support::{block, field};
use ringgate::config::{HeaderRules, Underscores};
use ringgate::error::{ProxyError, Rule};
use ringgate::http::Parsed;
use ringgate::http::encode::{self, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::h2::decoder::Decoder;
use ringgate::http::h2::section::{Bounds, Role, Section};
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::headers::Forwarding;

const BOUNDS: Bounds = Bounds { bytes_max: 1 << 16, fields_max: 100 };
const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

fn section(block: &[u8]) -> Section {
    let mut section = Section::default();
    section.clear(Role::Request);
    Decoder::default().decode(block, &BOUNDS, &mut section).unwrap();
    section
}

fn read(fields: &[(&str, &str)], ended: bool, policy: &HeadPolicy) -> Result<String, (ProxyError, Option<Rule>)> {
    let (mut section, mut scratch) = (section(&block(fields)), HeadScratch::default());
    assert_eq!(section.fault(), None, "{fields:?}");
    let read = RequestHead::of_section(&mut section, ended, policy, &mut scratch).map(|head| describe_request(&head));
    read.map_err(|error| (error, scratch.broken_rule()))
}

fn with(fields: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = GET.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    for (name, value) in fields {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = (*value).to_owned(),
            None => all.push((String::leak((*name).to_owned()), (*value).to_owned())),
        }
    }
    all
}

fn read_with(fields: &[(&str, &str)]) -> Result<String, (ProxyError, Option<Rule>)> {
    let all = with(fields);
    let borrowed: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
    read(&borrowed, true, &HeadPolicy::default())
}

#[test]
fn heads_mean_what_they_mean_in_http_1_1() {
    for (fields, wanted) in [
        (&[][..], "GET / a None keep"),
        (&[(":path", "/a/../b?c=d")], "GET /b?c=d a None keep"),
        (&[(":authority", "A.example:81")], "GET / a.example None keep"),
        (&[("host", "a")], "GET / a None keep | host: a"),
        (&[("host", "A:80")], "GET / a None keep | host: A:80"),
        (&[(":method", "OPTIONS"), (":path", "*")], "OPTIONS * a None keep"),
        (&[(":scheme", "https"), ("host", "a:443")], "GET / a None keep | host: a:443"),
        (&[("content-length", "0")], "GET / a Fixed(0) keep | content-length: 0"),
        (&[("te", "trailers")], "GET / a None keep | te: trailers"),
        (&[("x_y", "dropped"), ("x-y", "kept")], "GET / a None keep | x-y: kept"),
        (&[("proxy", "httpoxy"), ("proxy-authorization", "x")], "GET / a None keep"),
    ] {
        assert_eq!(read_with(fields).as_deref(), Ok(wanted));
    }
}

#[test]
fn bodies_have_a_length_or_end_with_the_stream() {
    let policy = HeadPolicy::default();
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    assert_eq!(read(&fields, false, &policy).as_deref(), Ok("POST / a Chunked keep"));
    fields.push(("content-length", "7"));
    assert_eq!(read(&fields, false, &policy).as_deref(), Ok("POST / a Fixed(7) keep | content-length: 7"));
    fields.push(("expect", "100-continue"));
    assert_eq!(
        read(&fields, false, &policy).as_deref(),
        Ok("POST / a Fixed(7) keep continue | content-length: 7 | expect: 100-continue")
    );
}

#[test]
fn what_http_1_1_refuses_is_refused_for_the_same_reason() {
    let bad = |rule| (ProxyError::BadRequest, Some(rule));
    for (fields, wanted) in [
        (&[(":authority", "a"), ("host", "b")][..], bad(Rule::Host)),
        (&[("host", "a:81")], bad(Rule::Host)),
        (&[("host", "a"), ("host", "a")], bad(Rule::Host)),
        (&[(":authority", "")], bad(Rule::Host)),
        (&[(":authority", "user@a")], bad(Rule::Host)),
        (&[(":authority", "a b")], bad(Rule::Host)),
        (&[(":authority", "a,b")], bad(Rule::Host)),
        (&[(":path", "a")], bad(Rule::Target)),
        (&[(":path", "http://a/")], bad(Rule::Target)),
        (&[(":path", "*")], bad(Rule::Target)),
        (&[(":path", "/a b")], bad(Rule::Target)),
        (&[(":path", "/\u{e9}")], bad(Rule::Target)),
        (&[(":path", "/a#b")], bad(Rule::Target)),
        (&[(":path", "/a HTTP/1.1")], bad(Rule::Target)),
        (&[(":path", "/%2f")], bad(Rule::Path)),
        (&[(":path", "/a\\b")], bad(Rule::Path)),
        (&[(":scheme", "ftp")], bad(Rule::Target)),
        (&[(":scheme", "")], bad(Rule::Target)),
        (&[(":method", "")], bad(Rule::RequestLine)),
        (&[(":method", "GE T")], bad(Rule::RequestLine)),
        (&[(":method", "GET / HTTP/1.1")], bad(Rule::RequestLine)),
        (&[(":method", "TRACE")], (ProxyError::MethodNotAllowed, None)),
        (&[(":method", "AVERYLONGMETHODTHATNOBODYEVERHEARDOF")], (ProxyError::NotImplemented, None)),
        (&[("content-length", "x")], bad(Rule::Length)),
        (&[("content-length", "-1")], bad(Rule::Length)),
        (&[("content-length", "1, 2")], bad(Rule::Length)),
        (&[("expect", "x")], (ProxyError::ExpectationFailed, None)),
    ] {
        let mut all = with(&fields[..1]);
        all.extend(fields[1..].iter().map(|(name, value)| (*name, (*value).to_owned())));
        let borrowed: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(read(&borrowed, true, &HeadPolicy::default()), Err(wanted), "{fields:?}");
    }
    let connect = read(&[(":method", "CONNECT"), (":authority", "a:1")], true, &HeadPolicy::default());
    assert_eq!(connect, Err((ProxyError::NotImplemented, None)));
    assert_eq!(read(&GET[..3], true, &HeadPolicy::default()), Err(bad(Rule::Host)));
    let reject = HeadPolicy { underscores: Underscores::Reject, ..HeadPolicy::default() };
    assert_eq!(read(&[&GET[..], &[("a_b", "c")]].concat(), true, &reject), Err(bad(Rule::Underscore)));
    let keep = HeadPolicy { underscores: Underscores::Keep, ..HeadPolicy::default() };
    assert_eq!(read(&[&GET[..], &[("a_b", "c")]].concat(), true, &keep).as_deref(), Ok("GET / a None keep | a_b: c"));
}

#[test]
fn crumbs_of_cookies_are_one_field_wherever_they_stood() {
    for (fields, wanted) in [
        (&[("cookie", "a=b")][..], "| cookie: a=b"),
        (&[("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f"), ("x", "y")], "| cookie: a=b; c=d; e=f | x: y"),
        (&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")], "| x: y | cookie: a=b; c=d"),
        (
            &[("cookie", "a=b"), ("cookie", "c=d"), ("x", "y"), ("cookie", "e=f"), ("cookie", "g=h"), ("z", "")],
            "| x: y | z:  | cookie: a=b; c=d; e=f; g=h",
        ),
        (&[("cookie", ""), ("cookie", "")], "| cookie: ; "),
    ] {
        let all = [&GET[..], fields].concat();
        let got = read(&all, true, &HeadPolicy::default());
        assert_eq!(got, Ok(format!("GET / a None keep {wanted}")));
    }
}

/// RFC 7541 §7.1.3: also where crumbs were put together.
#[test]
fn what_must_not_be_indexed_is_remembered() {
    let never = |name: &str, value: &str| {
        let mut bytes = field(name, value);
        bytes[0] = 0x10;
        bytes
    };
    let secret = section(&[block(&GET), field("a", "b"), never("authorization", "x"), field("c", "d")].concat());
    assert_eq!([0, 1, 2].map(|at| secret.is_never_indexed(at)), [false, true, false]);
    let crumbs = section(&[block(&GET), field("cookie", "a"), never("cookie", "b"), field("c", "d")].concat());
    assert_eq!([0, 1, 2].map(|at| crumbs.is_never_indexed(at)), [true, false, false]);
    let apart = section(&[block(&GET), field("cookie", "a"), field("c", "d"), never("cookie", "b")].concat());
    assert!(apart.is_never_indexed(3), "the one that both were put into");
}

/// What goes up is a head of HTTP/1.1 that means the same.
#[test]
fn an_endpoint_gets_one_request_and_the_same_one() {
    let fields = [
        (":method", "PUT"),
        (":path", "/a?b"),
        (":scheme", "https"),
        (":authority", "A.example"),
        ("cookie", "a=b"),
        ("accept", "*/*"),
        ("host", "a.example"),
        ("cookie", "c=d"),
        ("te", "trailers"),
        ("x-forwarded-for", "192.0.2.9"),
    ];
    let (mut section, mut scratch) = (section(&block(&fields)), HeadScratch::default());
    let head = RequestHead::of_section(&mut section, false, &HeadPolicy::default(), &mut scratch).unwrap();
    let forwarding = Forwarding {
        replaces: false,
        peer: None,
        is_trusted: true,
        scheme: "https",
        request_id: b"7",
        identity: None,
        tells_certificate: false,
    };
    let request = UpstreamRequest {
        grpc_timeout: None,
        lines: b"",
        head: &head,
        path: head.path(),
        query: head.query(),
        framing: head.framing(),
        rules: &HeaderRules::default(),
        forwarding: &forwarding,
        host_fallback: "none",
        expect_continue: false,
        offer: None,
    };
    let mut out = Vec::new();
    encode::request(&mut out, &request);
    let wanted = "PUT /a?b HTTP/1.1\r\nHost: A.example\r\naccept: */*\r\ncookie: a=b; c=d\r\n\
                  X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: A.example\r\n\
                  X-Request-Id: 7\r\nVia: 2.0 ringgate\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
                  Connection: TE\r\n\r\n";
    assert_eq!(String::from_utf8(out.clone()).unwrap(), wanted);
    let mut scratch = HeadScratch::default();
    let again = RequestHead::parse(&out, &HeadPolicy::default(), &mut scratch);
    assert!(matches!(again, Ok(Parsed::Complete(_))), "{again:?}");
}
