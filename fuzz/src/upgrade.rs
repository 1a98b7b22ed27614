//! Offers to change the protocol: which go up, and which 101 takes one up. Both rules written down a second time.

use crate::{Knobs, elements, is_field_value, is_token};
use http::Method;
use ringgate::config::{HeaderRules, ServerField};
use ringgate::http::encode::{self, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::framing::Framing;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::headers::Forwarding;
use ringgate::http::response::ResponseHead;
use ringgate::http::upgrade::Offer;
use ringgate::http::{Parsed, Version};
use ringgate::limits::UPGRADE_BYTES_MAX;

/// What carries requests that no rule would see.
const HTTP_AGAIN: [&[u8]; 5] = [b"h2c", b"h2", b"h3", b"http", b"tls"];

/// Knobs: 0–1 a request that must not offer anything, or one that may, 2 a second `Upgrade`, 3 an answer of HTTP/1.0, 4 one with a body,
/// 5 one with a length of zero. Then lines: `Upgrade` and `Connection` of the request, then of the answer.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    let mut lines = bytes.split(|&b| b == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (upgrade, connection, answer, answer_connection) = (line(), line(), line(), line());
    if [upgrade, connection, answer, answer_connection].iter().any(|value| !is_field_value(value)) {
        return; // never reaches the decision: the parser refuses or trims it
    }
    let request = request(knobs, upgrade, connection);
    let mut scratch = HeadScratch::default();
    let Ok(Parsed::Complete(head)) = RequestHead::parse(&request, &HeadPolicy::default(), &mut scratch) else {
        assert!(
            elements(connection).iter().any(|option| !option.is_empty() && !is_token(option))
                || elements(connection).len() > 32
        );
        return;
    };
    let offer = head.upgrade();
    let may = knobs.number(0, 2) == 0 && !knobs.bit(2);
    assert_eq!(offer.is_some(), may && is_offer(upgrade, connection), "{}", request.escape_ascii());
    if let Some(offer) = &offer {
        check_offer(offer, upgrade);
        check_sent(&head, offer);
    }
    check_answers(knobs, offer.as_ref(), answer, answer_connection);
}

fn request(knobs: Knobs, upgrade: &[u8], connection: &[u8]) -> Vec<u8> {
    let (minor, more) = [("1", ""), ("0", ""), ("1", "Content-Length: 1\r\n"), ("1", "Transfer-Encoding: chunked\r\n")]
        [knobs.number(0, 2)];
    let second: &[u8] = if knobs.bit(2) { b"upgrade: websocket\r\n" } else { b"" };
    [
        format!("GET / HTTP/1.{minor}\r\nHost: a\r\n{more}Upgrade: ").as_bytes(),
        upgrade,
        b"\r\n",
        second,
        b"Connection: ",
        connection,
        b"\r\n\r\n",
    ]
    .concat()
}

fn names_upgrade(connection: &[u8]) -> bool {
    elements(connection).iter().any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

fn protocols(value: &[u8]) -> Vec<&[u8]> {
    elements(value).into_iter().filter(|element| !element.is_empty()).collect()
}

/// RFC 9110 §7.8: `protocol-name ["/" protocol-version]`, and none that carries HTTP; no empty elements (§5.6.1.1).
fn is_offer(upgrade: &[u8], connection: &[u8]) -> bool {
    let is_good = |protocol: &&[u8]| {
        let mut parts = protocol.split(|&b| b == b'/');
        let name = parts.next().unwrap_or_default();
        let rest: Vec<&[u8]> = parts.collect();
        let versioned = matches!(rest[..], []) || matches!(rest[..], [version] if is_token(version));
        is_token(name) && versioned && !HTTP_AGAIN.iter().any(|other| name.eq_ignore_ascii_case(other))
    };
    upgrade.len() <= UPGRADE_BYTES_MAX && names_upgrade(connection) && elements(upgrade).iter().all(is_good)
}

fn check_offer(offer: &Offer, upgrade: &[u8]) {
    assert_eq!(protocols(offer.as_bytes()), protocols(upgrade), "other protocols than the client's");
    assert!(offer.as_bytes().len() <= UPGRADE_BYTES_MAX && is_field_value(offer.as_bytes()));
    // RFC 9110 §5.6.1.1: a sender must not generate empty elements
    assert!(elements(offer.as_bytes()).iter().all(|element| !element.is_empty()), "{offer:?}");
}

/// What goes up makes the same offer.
fn check_sent(head: &RequestHead<'_>, offer: &Offer) {
    let forwarding = Forwarding {
        replaces: false,
        peer: None,
        is_trusted: false,
        scheme: "http",
        request_id: b"id",
        identity: None,
        tells_certificate: false,
    };
    let request = UpstreamRequest {
        grpc_timeout: None,
        lines: b"",
        head,
        path: head.path(),
        query: head.query(),
        framing: Framing::None,
        rules: &HeaderRules::default(),
        forwarding: &forwarding,
        host_fallback: "a",
        expect_continue: false,
        offer: Some(*offer),
    };
    let mut sent = Vec::new();
    encode::request(&mut sent, &request);
    let mut scratch = HeadScratch::default();
    let Ok(Parsed::Complete(again)) = RequestHead::parse(&sent, &HeadPolicy::default(), &mut scratch) else {
        panic!("{}", sent.escape_ascii());
    };
    assert_eq!(again.upgrade().as_ref(), Some(offer), "{}", sent.escape_ascii());
}

fn check_answers(knobs: Knobs, offer: Option<&Offer>, answer: &[u8], connection: &[u8]) {
    let minor = if knobs.bit(3) { "0" } else { "1" };
    let body = if knobs.bit(4) { "Content-Length: 1\r\n" } else { "" };
    let empty = if knobs.bit(5) && !knobs.bit(4) { "Content-Length: 0\r\n" } else { "" };
    let bytes = [
        format!("HTTP/1.{minor} 101 Go\r\n{body}{empty}Upgrade: ").as_bytes(),
        answer,
        b"\r\nConnection: ",
        connection,
        b"\r\n\r\n",
    ]
    .concat();
    let mut scratch = HeadScratch::default();
    let parsed = ResponseHead::parse_answer(&bytes, &Method::GET, offer, &mut scratch);
    let offered = |protocol: &&[u8]| {
        offer.is_some_and(|offer| protocols(offer.as_bytes()).iter().any(|own| own.eq_ignore_ascii_case(protocol)))
    };
    let answered = protocols(answer);
    let is_good = !answered.is_empty() && answered.iter().all(offered) && names_upgrade(connection);
    let taken = is_good && !knobs.bit(3) && !knobs.bit(4);
    let Ok(Parsed::Complete(head)) = parsed else {
        let is_odd = elements(connection).iter().any(|option| !option.is_empty() && !is_token(option))
            || elements(connection).len() > 32;
        assert!(!taken || is_odd, "refused: {}", bytes.escape_ascii());
        return;
    };
    assert!(taken && head.is_switching(), "taken: {}", bytes.escape_ascii());
    let mut down = Vec::new();
    encode::switching(&mut down, &head, (&HeaderRules::default(), b""), &ServerField::Pass, Version::Http11);
    let mut scratch = HeadScratch::default();
    let again = ResponseHead::parse_answer(&down, &Method::GET, offer, &mut scratch);
    assert!(matches!(again, Ok(Parsed::Complete(head)) if head.is_switching() && head.head_bytes() == down.len()));
    assert!(ResponseHead::parse(&bytes, &Method::GET, &mut HeadScratch::default()).is_err(), "a 101 to no offer");
}
