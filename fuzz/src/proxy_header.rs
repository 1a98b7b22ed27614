//! PROXY headers: one answer however they arrive, never more bytes than there are, and what is written is read.

use crate::Knobs;
use crate::feed::ways;
use ringgate::http::Parsed;
use ringgate::http::proxy_header::{self, NotProxy, ProxyHeader, Relayed};
use ringgate::limits::PROXY_HEADER_BYTES_MAX;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const LINE_BYTES_MAX: usize = 107;

/// Knobs: 0–1 what a pair of addresses is made of, which the bytes are taken for too.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    let whole = proxy_header::parse(bytes);
    for ends in ways(bytes) {
        let seen = ends.iter().map(|end| proxy_header::parse(&bytes[..*end])).find(|seen| *seen != Ok(Parsed::Partial));
        assert_eq!(seen.unwrap_or(Ok(Parsed::Partial)), whole, "in pieces {ends:?}");
    }
    match whole {
        Ok(Parsed::Complete(header)) => check_header(bytes, header),
        Ok(Parsed::Partial) => assert!(bytes.len() < PROXY_HEADER_BYTES_MAX, "it waits without end"),
        Err(NotProxy) => {
            let longer = [bytes, b"\r\n \0"].concat();
            assert_eq!(proxy_header::parse(&longer), Err(NotProxy), "a refusal is taken back");
        }
    }
    if let Some(ends) = ends_of(knobs, bytes) {
        check_written(ends);
    }
}

fn check_header(bytes: &[u8], header: ProxyHeader) {
    let ProxyHeader { relayed, len } = header;
    assert!(len <= bytes.len() && len <= PROXY_HEADER_BYTES_MAX, "{len} of {}", bytes.len());
    let is_line = bytes[0] == b'P';
    assert!(if is_line { len <= LINE_BYTES_MAX && bytes[..len].ends_with(b"\r\n") } else { len >= 16 });
    for end in [0, len / 2, len - 1] {
        assert_eq!(proxy_header::parse(&bytes[..end]), Ok(Parsed::Partial), "complete before its end");
    }
    let alone = proxy_header::parse(&bytes[..len]);
    assert_eq!(alone, Ok(Parsed::Complete(header)), "what follows matters");
    let Relayed::From { source, destination } = relayed else { return };
    assert_eq!(source.is_ipv4(), destination.is_ipv4());
    check_written((source, destination));
    if is_line && source.is_ipv4() {
        let mut again = Vec::new();
        proxy_header::push_v1(&mut again, Some((source, destination)));
        assert_eq!(again, bytes[..len], "another spelling of an address was taken");
    }
}

/// Two addresses, of one family or of two.
fn ends_of(knobs: Knobs, bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (first, rest) = bytes.split_first_chunk::<16>()?;
    let (second, rest) = rest.split_first_chunk::<16>()?;
    let (ports, _) = rest.split_first_chunk::<4>()?;
    let ip = |is_v4: bool, octets: &[u8; 16]| match is_v4 {
        true => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
        false => IpAddr::from(Ipv6Addr::from(*octets)),
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some((SocketAddr::new(ip(knobs.bit(0), first), port(0)), SocketAddr::new(ip(knobs.bit(1), second), port(2))))
}

/// Both versions say the same addresses, and nothing is lost or left.
fn check_written(ends: (SocketAddr, SocketAddr)) {
    let plain = |end: SocketAddr| (end.ip().to_canonical(), end.port());
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    proxy_header::push_v1(&mut v1, Some(ends));
    proxy_header::push_v2(&mut v2, Some(ends));
    assert!(v1.len() <= LINE_BYTES_MAX && v2.len() <= 52);
    for written in [v1, v2] {
        let Ok(Parsed::Complete(header)) = proxy_header::parse(&written) else {
            panic!("not taken: {}", written.escape_ascii());
        };
        assert_eq!(header.len, written.len());
        let Relayed::From { source, destination } = header.relayed else { panic!("{header:?}") };
        assert_eq!((plain(source), plain(destination)), (plain(ends.0), plain(ends.1)));
        let followed = [&written[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(proxy_header::parse(&followed), Ok(Parsed::Complete(header)));
    }
}
