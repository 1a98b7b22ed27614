//! Heads that leave: what is kept, cut and added, byte for byte.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ringgate::config::{HeaderRules, ServerField};
use ringgate::error::ProxyError;
use ringgate::http::date::{self, HttpDate};
use ringgate::http::encode::{self, DownstreamResponse, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::framing::Framing;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::headers::Forwarding;
use ringgate::http::reply::{self, Asked, Reply, ReplyTo};
use ringgate::http::response::ResponseHead;
use ringgate::http::{Parsed, Version};

const ADDED: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: id-1\r\nVia: 1.1 ringgate\r\n";

fn rules(set: &[(&str, &str)], remove: &[&str]) -> HeaderRules {
    let name = |name: &str| HeaderName::try_from(name).unwrap();
    HeaderRules {
        set: set.iter().map(|(n, value)| (name(n), HeaderValue::try_from(*value).unwrap())).collect(),
        remove: remove.iter().map(|n| name(n)).collect(),
        ..HeaderRules::default()
    }
}

fn date() -> HttpDate {
    date::format(784_111_777)
}

fn with_request<T>(bytes: &[u8], run: impl FnOnce(&RequestHead<'_>) -> T) -> T {
    let mut scratch = HeadScratch::default();
    match RequestHead::parse(bytes, &HeadPolicy::default(), &mut scratch) {
        Ok(Parsed::Complete(head)) => run(&head),
        other => panic!("{other:?}: {}", bytes.escape_ascii()),
    }
}

struct Up<'a> {
    rules: HeaderRules,
    is_trusted: bool,
    replaces: bool,
    expect_continue: bool,
    framing: Option<Framing>,
    path: Option<&'a str>,
    peer: Option<&'a str>,
}

impl Default for Up<'_> {
    fn default() -> Self {
        let rules = HeaderRules::default();
        Self {
            rules,
            is_trusted: false,
            replaces: false,
            expect_continue: false,
            framing: None,
            path: None,
            peer: Some("192.0.2.7"),
        }
    }
}

fn up(bytes: &[u8], how: &Up<'_>) -> String {
    with_request(bytes, |head| {
        let peer = how.peer.map(|peer| peer.parse().unwrap());
        let forwarding = Forwarding {
            replaces: how.replaces,
            peer,
            is_trusted: how.is_trusted,
            scheme: "http",
            request_id: b"id-1",
            identity: None,
            tells_certificate: false,
        };
        let request = UpstreamRequest {
            grpc_timeout: None,
            lines: b"",
            head,
            path: how.path.unwrap_or(head.path()),
            query: head.query(),
            framing: how.framing.unwrap_or(head.framing()),
            rules: &how.rules,
            forwarding: &forwarding,
            host_fallback: "10.0.0.1:8080",
            expect_continue: how.expect_continue,
            offer: head.upgrade(),
        };
        let mut out = b"before".to_vec();
        encode::request(&mut out, &request);
        String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
    })
}

#[test]
fn a_request_is_rebuilt_with_what_it_said_and_what_the_gateway_adds() {
    let bytes = b"GET /a/./b?c=d HTTP/1.1\r\nUser-Agent: x\r\nHost: a\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(
        up(bytes, &Up::default()),
        format!("GET /a/b?c=d HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nAccept: */*\r\n{ADDED}\r\n")
    );
}

#[test]
fn hop_by_hop_fields_end_here() {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nA: 1\r\nConnection: upgrade, x-hop\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\n\
        Transfer-Encoding: chunked\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Hop: x\r\nX_Y: z\r\nProxy-Authorization: x\r\nB: 2\r\n\r\n";
    assert_eq!(
        up(bytes, &Up::default()),
        format!("POST / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n{ADDED}Transfer-Encoding: chunked\r\n\r\n")
    );
}

#[test]
fn an_offer_to_change_the_protocol_is_two_fields_and_nothing_else() {
    let bytes =
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade, x-hop\r\nUpgrade: websocket\r\nX-Hop: x\r\n\
        Sec-WebSocket-Key: k\r\nTE: trailers\r\n\r\n";
    assert_eq!(
        up(bytes, &Up::default()),
        format!(
            "GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\n{ADDED}TE: trailers\r\nUpgrade: websocket\r\n\
             Connection: TE, upgrade\r\n\r\n"
        )
    );
    let with_body =
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx";
    let out = up(with_body, &Up::default());
    assert!(!out.contains("pgrade"), "{out}");
}

#[test]
fn framing_is_written_anew() {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\nContent-Length: 5, 5\r\n\r\n";
    assert_eq!(up(bytes, &Up::default()), format!("POST / HTTP/1.1\r\nHost: a\r\n{ADDED}Content-Length: 5\r\n\r\n"));
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:CHUNKED\r\nTrailer: X\r\n\r\n";
    assert_eq!(
        up(chunked, &Up::default()),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\n{ADDED}Transfer-Encoding: chunked\r\n\r\n")
    );
    let whole = Up { framing: Some(Framing::Fixed(7)), ..Up::default() };
    assert_eq!(up(chunked, &whole), format!("POST / HTTP/1.1\r\nHost: a\r\n{ADDED}Content-Length: 7\r\n\r\n"));
}

#[test]
fn lines_with_odd_blanks_are_written_canonically() {
    let bytes = b"GET / HTTP/1.1\r\nHost:a\r\nA: 1\r\nB:2\r\nC:  3\r\nD: 4 \r\nE:\t5\r\nF: \r\nG:\r\nH: 8\r\n\r\n";
    let fields = "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: \r\nG: \r\nH: 8\r\n";
    assert_eq!(up(bytes, &Up::default()), format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}{ADDED}\r\n"));
}

#[test]
fn what_an_untrusted_peer_says_about_the_client_is_replaced() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
        X-Forwarded-Prefix: /x\r\nX-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nConnection: x-forwarded-for\r\n\r\n";
    assert_eq!(up(bytes, &Up::default()), format!("GET / HTTP/1.1\r\nHost: a\r\n{ADDED}\r\n"));
}

#[test]
fn what_a_trusted_peer_says_about_the_client_is_kept_and_continued() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: b\r\nX-Forwarded-Prefix: /x\r\nVia: 1.0 c\r\n\r\n";
    let trusted = Up { is_trusted: true, peer: Some("2001:db8::1"), ..Up::default() };
    assert_eq!(
        up(bytes, &trusted),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /x\r\nVia: 1.0 c\r\n\
         X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\
         X-Request-Id: id-1\r\nVia: 1.1 ringgate\r\n\r\n"
    );
    let unix = Up { is_trusted: true, peer: None, ..Up::default() };
    assert!(up(bytes, &unix).contains("\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3\r\n"));
    assert!(!up(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &unix).contains("X-Forwarded-For"));
}

#[test]
fn where_it_is_replaced_the_client_alone_is_named() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n\r\n";
    for peer in [Some("192.0.2.9"), None] {
        let told = up(bytes, &Up { is_trusted: true, peer, replaces: true, ..Up::default() });
        assert!(
            told.contains("\r\nX-Forwarded-Proto: https\r\n") && !told.contains("1.1.1.1") && !told.contains("2.2.2.2"),
            "{told}"
        );
        assert_eq!(told.matches("X-Forwarded-For: ").count(), usize::from(peer.is_some()), "{told}");
        assert!(peer.is_none_or(|peer| told.contains(&format!("\r\nX-Forwarded-For: {peer}\r\n"))), "{told}");
    }
}

#[test]
fn a_request_id_is_kept_when_it_is_fit() {
    let with =
        |id: &str| up(format!("GET / HTTP/1.1\r\nHost: a\r\nx-request-id: {id}\r\n\r\n").as_bytes(), &Up::default());
    assert!(with("abc-123").contains("\r\nX-Request-Id: abc-123\r\n"));
    for unfit in ["", "a b", "\u{e4}", &"x".repeat(129)] {
        let out = with(unfit);
        assert_eq!(out.matches("equest-").count(), 1, "{out}");
        assert!(out.contains("\r\nX-Request-Id: id-1\r\n"), "{out}");
    }
}

#[test]
fn the_rules_of_a_route_remove_then_set() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Debug: 1\r\nX-Env: test\r\nx-debug: 2\r\nAccept: */*\r\n\r\n";
    let how = Up { rules: rules(&[("x-env", "prod"), ("x-debug", "3")], &["x-debug"]), ..Up::default() };
    assert_eq!(
        up(bytes, &how),
        format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n{ADDED}x-env: prod\r\nx-debug: 3\r\n\r\n")
    );
}

#[test]
fn the_rules_may_replace_host_and_what_the_gateway_adds_but_not_framing() {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n";
    let set =
        [("host", "internal"), ("x-forwarded-proto", "https"), ("content-length", "9"), ("transfer-encoding", "x")];
    let how = Up { rules: rules(&set, &["via", "x-request-id", "content-length", "host"]), ..Up::default() };
    assert_eq!(
        up(bytes, &how),
        "POST / HTTP/1.1\r\nHost: internal\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: a\r\nx-forwarded-proto: https\r\nContent-Length: 2\r\n\r\n"
    );
}

#[test]
fn the_rules_may_replace_the_count_of_forwards() {
    let bytes = b"OPTIONS /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n";
    let sent = |rules| up(bytes, &Up { rules, ..Up::default() }).to_ascii_lowercase();
    assert!(sent(HeaderRules::default()).contains("max-forwards: 4\r\n"));
    assert!(!sent(rules(&[], &["max-forwards"])).contains("max-forwards"));
    let set = sent(rules(&[("max-forwards", "1")], &[]));
    assert_eq!((set.matches("max-forwards").count(), set.contains("max-forwards: 1\r\n")), (1, true), "{set}");
}

#[test]
fn the_target_goes_up_as_it_was_decided() {
    let absolute = b"GET http://A.example:8080/x?y HTTP/1.1\r\nHost: a.example:8080\r\n\r\n";
    assert!(up(absolute, &Up::default()).starts_with("GET /x?y HTTP/1.1\r\nHost: A.example:8080\r\n"));
    let rewritten = Up { path: Some("/v2/x"), ..Up::default() };
    assert!(up(absolute, &rewritten).starts_with("GET /v2/x?y HTTP/1.1\r\n"));
    assert!(
        up(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &Up::default()).starts_with("OPTIONS * HTTP/1.1\r\nHost: a\r\n")
    );
    let old = up(b"GET / HTTP/1.0\r\n\r\n", &Up::default());
    assert!(old.starts_with("GET / HTTP/1.1\r\nHost: 10.0.0.1:8080\r\n"), "{old}");
    assert!(old.contains("\r\nVia: 1.0 ringgate\r\n") && !old.contains("X-Forwarded-Host"), "{old}");
}

#[test]
fn expectations_trailers_and_hops_are_said_again() {
    let bytes = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTE: trailers, gzip\r\nContent-Length: 1\r\n\r\n";
    assert!(!up(bytes, &Up::default()).contains("Expect"));
    let out = up(bytes, &Up { expect_continue: true, ..Up::default() });
    assert!(
        out.ends_with("Content-Length: 1\r\nExpect: 100-continue\r\nTE: trailers\r\nConnection: TE\r\n\r\n"),
        "{out}"
    );
    let options = up(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", &Up::default());
    assert!(options.contains("\r\nMax-Forwards: 2\r\n"), "{options}");
    let get = up(b"GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", &Up::default());
    assert!(get.contains("\r\nMax-Forwards: 3\r\n"), "RFC 9110 §7.6.2: only TRACE and OPTIONS");
}

#[test]
fn the_client_is_the_last_hop_that_is_not_trusted() {
    let trusted = |address: std::net::IpAddr| address.to_string().starts_with("10.");
    let client = |forwarded: &str, peer: &str| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{forwarded}\r\n");
        with_request(bytes.as_bytes(), |head| head.client(peer.parse().unwrap(), trusted).to_string())
    };
    assert_eq!(client("", "10.0.0.1"), "10.0.0.1");
    assert_eq!(client("X-Forwarded-For: 1.1.1.1\r\n", "8.8.8.8"), "8.8.8.8");
    assert_eq!(client("X-Forwarded-For: 1.1.1.1\r\n", "10.0.0.1"), "1.1.1.1");
    assert_eq!(client("X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2\r\n", "10.0.0.1"), "1.1.1.1");
    assert_eq!(client("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 10.0.0.2\r\n", "10.0.0.1"), "1.1.1.1");
    assert_eq!(client("X-Forwarded-For: 1.1.1.1:443\r\n", "10.0.0.1"), "1.1.1.1");
    assert_eq!(client("X-Forwarded-For: [2001:db8::1]:443\r\n", "10.0.0.1"), "2001:db8::1");
    assert_eq!(client("X-Forwarded-For: 2001:db8::1\r\n", "10.0.0.1"), "2001:db8::1");
    assert_eq!(
        client("X-Forwarded-For: 1.1.1.1, unknown\r\n", "10.0.0.1"),
        "10.0.0.1",
        "nothing beyond what cannot be read"
    );
}

struct Down<'a> {
    rules: HeaderRules,
    version: Version,
    close: bool,
    lines: &'a [u8],
    method: Method,
    server: ServerField,
}

impl Default for Down<'_> {
    fn default() -> Self {
        let rules = HeaderRules::default();
        Self {
            rules,
            server: ServerField::Pass,
            version: Version::Http11,
            close: false,
            lines: b"",
            method: Method::GET,
        }
    }
}

fn down(bytes: &[u8], how: &Down<'_>) -> (String, Framing) {
    let mut scratch = HeadScratch::default();
    let Ok(Parsed::Complete(head)) = ResponseHead::parse(bytes, &how.method, &mut scratch) else {
        panic!("{}", bytes.escape_ascii());
    };
    let date = date();
    let response = DownstreamResponse {
        is_recoded: false,
        head: &head,
        version: how.version,
        close: how.close,
        rules: &how.rules,
        server: &how.server,
        lines: how.lines,
        date: &date,
    };
    let mut out = Vec::new();
    let framing = encode::response(&mut out, &response);
    (String::from_utf8(out).unwrap(), framing)
}

const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

#[test]
fn a_response_is_rebuilt_with_what_it_said() {
    let bytes = b"HTTP/1.1 200 Fine\r\nServer: x\r\nKeep-Alive: timeout=5\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 2\r\n\
        Connection: keep-alive, x\r\nX: 1\r\nContent-Type: text/plain\r\n\r\n";
    let (head, framing) = down(bytes, &Down::default());
    assert_eq!(
        head,
        "HTTP/1.1 200 Fine\r\nServer: x\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
    );
    assert_eq!(framing, Framing::Fixed(2));
}

#[test]
fn a_body_without_a_length_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0() {
    for (bytes, from) in [
        (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"[..], "chunks"),
        (b"HTTP/1.1 200 OK\r\nTrailer: X\r\n\r\n", "until close"),
    ] {
        let (head, framing) = down(bytes, &Down::default());
        assert_eq!(
            head,
            format!("HTTP/1.1 200 OK\r\nTrailer: X\r\n{DATE}Transfer-Encoding: chunked\r\n\r\n"),
            "{from}"
        );
        assert_eq!(framing, Framing::Chunked);
        let (head, framing) = down(bytes, &Down { version: Version::Http10, ..Down::default() });
        assert_eq!(head, format!("HTTP/1.1 200 OK\r\n{DATE}Connection: close\r\n\r\n"), "{from}");
        assert_eq!(framing, Framing::UntilClose);
    }
}

#[test]
fn responses_without_a_body_tell_the_length_they_may_tell() {
    let head = Down { method: Method::HEAD, ..Down::default() };
    let (out, framing) = down(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &head);
    assert_eq!((out, framing), (format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: 5\r\n\r\n"), Framing::None));
    let (out, _) = down(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &head);
    assert_eq!(out, format!("HTTP/1.1 200 OK\r\n{DATE}\r\n"));
    let (out, _) = down(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", &Down::default());
    assert_eq!(out, format!("HTTP/1.1 304 Not Modified\r\n{DATE}Content-Length: 5\r\n\r\n"));
    let (out, _) = down(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", &Down::default());
    assert_eq!(out, format!("HTTP/1.1 204 No Content\r\n{DATE}\r\n"), "RFC 9110 §8.6");
}

#[test]
fn a_missing_reason_is_the_usual_one() {
    assert!(
        down(b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", &Down::default())
            .0
            .starts_with("HTTP/1.1 404 Not Found\r\n")
    );
    assert!(down(b"HTTP/1.1 599\r\nContent-Length: 0\r\n\r\n", &Down::default()).0.starts_with("HTTP/1.1 599 \r\n"));
}

#[test]
fn persistence_is_said_where_the_version_does_not_imply_it() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let connection = |version, close| {
        let out = down(bytes, &Down { version, close, ..Down::default() }).0;
        out.lines().find_map(|line| line.strip_prefix("Connection: ").map(str::to_owned))
    };
    assert_eq!(connection(Version::Http11, false), None);
    assert_eq!(connection(Version::Http11, true).as_deref(), Some("close"));
    assert_eq!(connection(Version::Http10, false).as_deref(), Some("keep-alive"));
    assert_eq!(connection(Version::Http10, true).as_deref(), Some("close"));
}

#[test]
fn rules_and_extras_apply_to_responses() {
    let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\nX: 1\r\nContent-Length: 0\r\n\r\n";
    let how = Down {
        rules: rules(&[("x", "2"), ("date", "never")], &["server"]),
        lines: b"RateLimit: r=1\r\n",
        ..Down::default()
    };
    assert_eq!(
        down(bytes, &how).0,
        "HTTP/1.1 200 OK\r\nRateLimit: r=1\r\nx: 2\r\ndate: never\r\nContent-Length: 0\r\n\r\n"
    );
}

// RFC 9110 §6.6.1 has a recipient add a Date that is missing; an operator who removes it does not want it back.
#[test]
fn a_removed_date_is_not_made_anew() {
    let how = Down { rules: rules(&[], &["date"]), ..Down::default() };
    for sent in ["", DATE] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{sent}Content-Length: 0\r\n\r\n");
        assert_eq!(down(bytes.as_bytes(), &how).0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}

#[test]
fn interim_responses_carry_only_their_fields() {
    let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: y\r\n\r\n";
    let mut scratch = HeadScratch::default();
    let Ok(Parsed::Complete(head)) = ResponseHead::parse(bytes, &Method::GET, &mut scratch) else { panic!() };
    let mut out = Vec::new();
    encode::interim(&mut out, &head, &HeaderRules::default(), Version::Http11);
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}

fn reply_to(date: &HttpDate) -> ReplyTo<'_> {
    ReplyTo {
        version: Version::Http11,
        head_only: false,
        close: true,
        date,
        server: &ServerField::Pass,
        rules: None,
        lines: b"",
        call_type: None,
        errors: &[],
        id: b"",
    }
}

#[test]
fn server_is_passed_on_removed_or_replaced() {
    let bytes = b"HTTP/1.1 200 OK\r\nSERVER: app/1\r\nContent-Length: 0\r\nServer: two\r\n\r\n";
    let edge = ServerField::Set(http::HeaderValue::from_static("edge"));
    let servers = |server: &ServerField, rules: HeaderRules| {
        let (head, _) = down(bytes, &Down { server: server.clone(), rules, ..Down::default() });
        let lines = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("server:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let none = HeaderRules::default;
    assert_eq!(servers(&ServerField::Pass, none()), ["SERVER: app/1", "Server: two"]);
    assert!(servers(&ServerField::Remove, none()).is_empty());
    assert_eq!(servers(&edge, none()), ["Server: edge"]);
    let remove = HeaderRules { remove: vec![http::header::SERVER], ..HeaderRules::default() };
    assert!(servers(&edge, remove).is_empty(), "the route knows better");
    let set = HeaderRules {
        set: vec![(http::header::SERVER, http::HeaderValue::from_static("route"))],
        ..HeaderRules::default()
    };
    assert_eq!(servers(&edge, set), ["server: route"]);
    let date = date();
    for (server, said) in [(&edge, true), (&ServerField::Pass, false), (&ServerField::Remove, false)] {
        let mut out = Vec::new();
        reply::error(&mut out, ProxyError::NoRoute, &[], &ReplyTo { server, ..reply_to(&date) });
        assert_eq!(String::from_utf8(out).unwrap().contains("\r\nServer: edge\r\n"), said);
    }
}

#[test]
fn errors_are_small_json_with_their_token() {
    let date = date();
    let mut out = Vec::new();
    reply::error(&mut out, ProxyError::UpstreamTimeout, &[("Retry-After", b"1")], &reply_to(&date));
    let body = "{\"error\":\"upstream_timeout\",\"message\":\"the service did not answer in time\"}\n";
    let head = format!(
        "HTTP/1.1 504 Gateway Timeout\r\n{DATE}Connection: close\r\nContent-Type: application/json\r\nRetry-After: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    assert_eq!(String::from_utf8(out).unwrap(), format!("{head}{body}"));
    let mut out = Vec::new();
    reply::error(
        &mut out,
        ProxyError::UpstreamTimeout,
        &[("Retry-After", b"1")],
        &ReplyTo { head_only: true, ..reply_to(&date) },
    );
    assert_eq!(String::from_utf8(out).unwrap(), head);
}

#[test]
fn every_error_is_a_response_that_parses() {
    let date = date();
    for &error in ProxyError::ALL {
        let mut out = Vec::new();
        reply::error(&mut out, error, &[], &reply_to(&date));
        let mut scratch = HeadScratch::default();
        let Ok(Parsed::Complete(head)) = ResponseHead::parse(&out, &Method::GET, &mut scratch) else {
            panic!("{error:?}")
        };
        let body = &out[head.head_bytes()..];
        assert_eq!(head.framing(), Framing::Fixed(body.len() as u64));
        let json: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(json["error"], error.token());
        assert_eq!(json["message"], error.message());
        assert_eq!(head.fields().get("allow").is_some(), head.status() == StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[test]
fn a_method_that_is_not_allowed_learns_which_are() {
    let date = date();
    let mut out = Vec::new();
    reply::error(&mut out, ProxyError::MethodNotAllowed, &[("Allow", b"GET")], &reply_to(&date));
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("Allow: ").count(), 1);
    assert!(text.contains("\r\nAllow: GET\r\n"));
}

#[test]
fn direct_replies_and_redirects_are_whole_responses() {
    let date = date();
    let to = ReplyTo { version: Version::Http10, close: false, ..reply_to(&date) };
    let mut out = Vec::new();
    let direct =
        Reply { status: StatusCode::OK, content_type: Some(b"text/plain"), body: b"hi", extra: &[("X", b"y")] };
    reply::reply(&mut out, &direct, &to);
    let expected = format!(
        "HTTP/1.1 200 OK\r\n{DATE}Connection: keep-alive\r\nContent-Type: text/plain\r\nX: y\r\nContent-Length: 2\r\n\r\nhi"
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let mut out = Vec::new();
    reply::reply(&mut out, &Reply { status: StatusCode::NO_CONTENT, ..direct }, &to);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!("HTTP/1.1 204 No Content\r\n{DATE}Connection: keep-alive\r\nX: y\r\n\r\n")
    );
    let mut out = Vec::new();
    reply::redirect(&mut out, StatusCode::PERMANENT_REDIRECT, "https://b{path}", asked("/c", Some("d=e")), &to);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!(
            "HTTP/1.1 308 Permanent Redirect\r\n{DATE}Connection: keep-alive\r\nLocation: https://b/c?d=e\r\nContent-Length: 0\r\n\r\n"
        )
    );
    let mut out = Vec::new();
    reply::redirect(&mut out, StatusCode::FOUND, "https://b/", asked("/c", Some("d")), &to);
    assert!(String::from_utf8(out).unwrap().contains("\r\nLocation: https://b/\r\n"));
}

fn asked<'a>(path: &'a str, query: Option<&'a str>) -> Asked<'a> {
    Asked { scheme: "http", host: "a", path, query }
}

#[test]
fn the_rules_of_a_route_apply_to_what_it_answers_itself() {
    let date = date();
    let set = [("content-type", "text/html"), ("cache-control", "no-store"), ("content-length", "9")];
    let rules = rules(&set, &["date", "location"]);
    let to = ReplyTo { rules: Some(&rules), ..reply_to(&date) };
    let mut out = Vec::new();
    let direct = Reply { status: StatusCode::OK, content_type: Some(b"text/plain"), body: b"hi", extra: &[] };
    reply::reply(&mut out, &direct, &to);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-type: text/html\r\ncache-control: no-store\r\nContent-Length: 2\r\n\r\nhi"
    );
    let mut out = Vec::new();
    reply::redirect(&mut out, StatusCode::FOUND, "https://b/", asked("/c", None), &to);
    assert!(!String::from_utf8(out).unwrap().contains("Location"));
}

#[test]
fn what_only_the_gateway_says_is_taken_off_in_any_case() {
    let rules = HeaderRules { strip: [HeaderName::from_static("x-consumer")].into(), ..HeaderRules::default() };
    let how = Up { rules, ..Up::default() };
    for name in ["X-Consumer", "x-consumer", "X-CONSUMER"] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: root\r\nX-Consumers: 1\r\n\r\n");
        let out = up(bytes.as_bytes(), &how);
        assert!(!out.contains("root") && out.contains("X-Consumers: 1\r\n"), "{out}");
    }
}
