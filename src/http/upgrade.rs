//! Offers to change the protocol: which go on, and whether an answer takes one up (RFC 9110 §7.8).
//!
//! After a 101 the gateway sees bytes, not requests: no route, limit or header rule holds any more. So an offer goes on only where
//! that is what both sides want, and a 101 is believed only when it names a protocol of the offer. Never offered: protocols that
//! carry further HTTP requests (`h2c`, `HTTP/2.0`, and TLS, which would hide them), because they would pass every rule by.
//!
//! It does not know what the protocols are, and does not look at a handshake's own fields (`Sec-WebSocket-*`, RFC 6455 §4).

use super::Version;
use super::fields::{Fields, Kind, Seen};
use super::framing::Framing;
use super::text::{is_token, list, trim};
use super::websocket::{self, Accept};
use crate::limits;

/// The protocols that a client would change to, in its order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    text: [u8; limits::UPGRADE_BYTES_MAX],
    len: u8,
    /// How a WebSocket's key is to be answered that is the gateway's own.
    accept: Option<Accept>,
}

const _: () = assert!(limits::UPGRADE_BYTES_MAX <= u8::MAX as usize);

impl Offer {
    /// The offer of a request, if it is one that goes on: HTTP/1.1, or what an extended CONNECT is translated to (RFC 8441), no body (its end would have to be found before the tunnel's first
    /// byte), one `Upgrade` of up to [`limits::UPGRADE_BYTES_MAX`] bytes that `Connection` names, and only protocols that are
    /// written as the RFC has them.
    pub(super) fn of(seen: &Seen<'_>, fields: &Fields<'_>, version: Version, framing: Framing) -> Option<Self> {
        let value = seen.upgrade?;
        let fits = value.len() <= limits::UPGRADE_BYTES_MAX && fields.of(Kind::Upgrade).nth(1).is_none();
        let may = seen.upgrade_option && version != Version::Http10 && framing.is_empty();
        // RFC 9110 §5.6.1.1: an empty element must not be sent on, and an offer may always be ignored
        if !fits || !may || !value.split(|&b| b == b',').map(trim).all(may_go_on) {
            return None;
        }
        let mut text = [0; limits::UPGRADE_BYTES_MAX];
        text[..value.len()].copy_from_slice(value);
        // who speaks HTTP/1.1 looks at the answer himself
        let key = fields.get(websocket::KEY).filter(|_| version == Version::Http2);
        Some(Self { text, len: value.len() as u8, accept: key.map(websocket::accept) })
    }

    /// As the client wrote it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// Whether a 101 takes it up: `answer` names at least one protocol, and none that was not offered. Names are compared without
    /// case, as every server does.
    pub(super) fn covers(&self, answer: &[u8], fields: &Fields<'_>) -> bool {
        if self.accept.is_some_and(|accept| fields.get(websocket::ACCEPT) != Some(&accept)) {
            return false;
        }
        let offered = |protocol: &[u8]| list(self.as_bytes()).any(|own| own.eq_ignore_ascii_case(protocol));
        list(answer).next().is_some() && list(answer).all(offered)
    }
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Offer({})", self.as_bytes().escape_ascii())
    }
}

/// A protocol, and not HTTP again.
fn may_go_on(protocol: &[u8]) -> bool {
    let name = protocol.split(|&b| b == b'/').next().unwrap_or_default();
    let carries_http =
        [&b"h2c"[..], b"h2", b"h3", b"http", b"tls"].iter().any(|other| name.eq_ignore_ascii_case(other));
    is_protocol(protocol) && !carries_http
}

/// `protocol = protocol-name ["/" protocol-version]`, both tokens.
fn is_protocol(protocol: &[u8]) -> bool {
    let mut parts = protocol.splitn(2, |&b| b == b'/');
    parts.all(is_token)
}

/// Whether the field's value is a list of protocols without an empty element (RFC 9110 §7.8, §5.6.1.1).
pub(super) fn is_list(value: &[u8]) -> bool {
    value.split(|&b| b == b',').map(trim).all(is_protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_a_list_of_protocols() {
        for good in ["websocket", "h2c", "HTTP/2.0, SHTTP/1.3", "a ,\tb/c"] {
            assert!(is_list(good.as_bytes()), "{good}");
        }
        for bad in ["", "a,", ",a", "a b", "/1", "a/", "a/b/c", "h2'\u{b7}"] {
            assert!(!is_list(bad.as_bytes()), "{bad}");
        }
    }

    use crate::http::Parsed;
    use crate::http::fields::HeadScratch;
    use crate::http::head::{HeadPolicy, RequestHead};

    fn offer(start: &str, fields: &str) -> Option<Offer> {
        let mut scratch = HeadScratch::default();
        let bytes = format!("{start}\r\nHost: a\r\n{fields}\r\n");
        match RequestHead::parse(bytes.as_bytes(), &HeadPolicy::default(), &mut scratch) {
            Ok(Parsed::Complete(head)) => head.upgrade(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_an_offer_that_both_fields_make_goes_on() {
        let get = "GET / HTTP/1.1";
        for (start, fields, expected) in [
            (get, "Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
            (get, "Connection: keep-alive, upgrade\r\nUpgrade: a/1, b\r\n", Some("a/1, b")),
            ("POST / HTTP/1.1", "Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n", Some("x")),
            (get, "Upgrade: websocket\r\n", None),
            (get, "Connection: upgrade\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: \r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: ,\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: ,websocket\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: a,, b\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: a b\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: a/\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: a/1/2\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: h2c\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n", None),
            (get, "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", None),
            ("GET / HTTP/1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", None),
            ("POST / HTTP/1.1", "Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n", None),
            ("POST / HTTP/1.1", "Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n", None),
        ] {
            let offer = offer(start, fields);
            assert_eq!(offer.as_ref().map(|o| o.as_bytes()), expected.map(str::as_bytes), "{start} {fields:?}");
        }
        let long = format!("Connection: upgrade\r\nUpgrade: {}\r\n", "x".repeat(limits::UPGRADE_BYTES_MAX + 1));
        assert_eq!(offer(get, &long), None);
    }

    #[test]
    fn an_answer_must_name_what_was_offered() {
        let offer = offer("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket, x/2\r\n").unwrap();
        let none = Fields { buf: b"", table: &[] };
        for (answer, expected) in [
            ("websocket", true),
            ("WebSocket", true),
            ("x/2", true),
            ("x/2,websocket", true),
            ("x", false),
            ("", false),
        ] {
            assert_eq!(offer.covers(answer.as_bytes(), &none), expected, "{answer:?}");
        }
        assert!(!offer.covers(b"websocket, h2c", &none));
    }
}
