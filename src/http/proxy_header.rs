//! PROXY headers: what a balancer in front says about the connection that it relays, and what the gateway says to endpoints that ask.
//!
//! A connection that a layer-4 proxy relays comes from the proxy; the header, sent once before anything else, tells where it really
//! came from. Version 1 is a line of text, version 2 a binary header of fixed layout with room for more (TLVs).
//!
//! Strict, because an address is believed on it: single spaces, addresses and ports in their one spelling, at most 107 bytes of
//! version 1 and [`PROXY_HEADER_BYTES_MAX`] of version 2, lengths that add up, and a CRC32C that matches where there is one. What
//! the sender does not know (`UNKNOWN`, unspecified, datagrams, unix sockets) leaves the socket's own address in place; `LOCAL` says
//! that the sender speaks for itself, as in a health check. TLVs are checked for their lengths and otherwise skipped: nothing here
//! depends on one. Parsing allocates nothing and copies nothing; a header that is not all there is [`Parsed::Partial`].
//!
//! Source: "The PROXY protocol, versions 1 & 2" (W. Tarreau, HAProxy's `doc/proxy-protocol.txt`), sections 2.1 and 2.2.

use super::Parsed;
use super::text::push_number;
use crate::limits::PROXY_HEADER_BYTES_MAX;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What version 2 begins with; no version 1 line and no HTTP request does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// The longest version 1 line, CRLF included (section 2.1).
const LINE_BYTES_MAX: usize = 107;
/// Signature, version and command, family and transport, length.
const FIXED_BYTES: usize = 16;
/// Type and length of a TLV.
const TLV_BYTES: usize = 3;
/// PP2_TYPE_CRC32C
const TYPE_CRC32C: u8 = 3;

/// Where a relayed connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relayed {
    /// The sender made the connection itself (`LOCAL`): the socket's address is the truth.
    Local,
    /// For somebody whose address the sender does not know or cannot say.
    Unknown,
    /// For a client at `source`, who wanted to reach `destination`. Both of one family.
    From {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// What it says.
    pub relayed: Relayed,
    /// Bytes that it took; the client's own begin behind them.
    pub len: usize,
}

/// The bytes are no PROXY header: nothing on this connection can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProxy;

/// Reads the header at the front of `buf`.
///
/// # Errors
/// [`NotProxy`], as soon as the bytes that are there cannot become one.
pub fn parse(buf: &[u8]) -> Result<Parsed<ProxyHeader>, NotProxy> {
    match buf.first() {
        None => Ok(Parsed::Partial),
        Some(b'P') => parse_line(buf),
        Some(_) => parse_binary(buf),
    }
}

/// `PROXY TCP4 source destination port port CRLF`
fn parse_line(buf: &[u8]) -> Result<Parsed<ProxyHeader>, NotProxy> {
    let seen = buf.len().min(WORD.len());
    if buf[..seen] != WORD[..seen] {
        return Err(NotProxy);
    }
    let line = &buf[..buf.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr2(b'\r', b'\n', line) else {
        return if line.len() < LINE_BYTES_MAX { Ok(Parsed::Partial) } else { Err(NotProxy) };
    };
    match line[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if line.len() < LINE_BYTES_MAX => return Ok(Parsed::Partial),
        _ => return Err(NotProxy),
    }
    let text = str::from_utf8(line.get(WORD.len()..end).ok_or(NotProxy)?).map_err(|_| NotProxy)?;
    let relayed = match text.split_once(' ').unwrap_or((text, "")) {
        // section 2.1: whatever follows UNKNOWN up to the CRLF is to be ignored
        ("UNKNOWN", _) => Relayed::Unknown,
        ("TCP4", addresses) => parse_addresses::<Ipv4Addr>(addresses)?,
        ("TCP6", addresses) => parse_addresses::<Ipv6Addr>(addresses)?,
        _ => return Err(NotProxy),
    };
    Ok(Parsed::Complete(ProxyHeader { relayed, len: end + 2 }))
}

fn parse_addresses<A: std::str::FromStr + Into<IpAddr>>(text: &str) -> Result<Relayed, NotProxy> {
    let mut parts = text.split(' ');
    let mut next = || parts.next().ok_or(NotProxy);
    let (source, destination, from, to) = (next()?, next()?, next()?, next()?);
    if parts.next().is_some() {
        return Err(NotProxy);
    }
    let address = |text: &str| text.parse::<A>().map(Into::into).map_err(|_| NotProxy);
    Ok(Relayed::From {
        source: SocketAddr::new(address(source)?, parse_port(from)?),
        destination: SocketAddr::new(address(destination)?, parse_port(to)?),
    })
}

/// 0 to 65535 without sign or leading zeroes.
fn parse_port(text: &str) -> Result<u16, NotProxy> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(NotProxy)
}

fn parse_binary(buf: &[u8]) -> Result<Parsed<ProxyHeader>, NotProxy> {
    let seen = buf.len().min(SIGNATURE.len());
    if buf[..seen] != SIGNATURE[..seen] || buf.get(12).is_some_and(|version| version >> 4 != 2) {
        return Err(NotProxy);
    }
    let Some(&[command, family, high, low]) = buf.get(12..FIXED_BYTES) else { return Ok(Parsed::Partial) };
    let len = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > PROXY_HEADER_BYTES_MAX {
        return Err(NotProxy);
    }
    let Some(header) = buf.get(..len) else { return Ok(Parsed::Partial) };
    let relayed = match command & 0xf {
        // section 2.2: the receiver must take the real addresses and skip whatever is there
        0 => Relayed::Local,
        1 => relayed_by(header, family)?,
        _ => return Err(NotProxy),
    };
    Ok(Parsed::Complete(ProxyHeader { relayed, len }))
}

/// What the part behind the fixed one says, for an address family and transport.
fn relayed_by(header: &[u8], family: u8) -> Result<Relayed, NotProxy> {
    let rest = &header[FIXED_BYTES..];
    let (family, transport) = (family >> 4, family & 0xf);
    let addresses_bytes = match (family, transport) {
        (0, 0..=2) | (1..=3, 0) => return Ok(Relayed::Unknown), // unspecified: even the TLVs' place is not known
        (1, 1 | 2) => 12,
        (2, 1 | 2) => 36,
        (3, 1 | 2) => 216,
        _ => return Err(NotProxy),
    };
    let (addresses, tlvs) = rest.split_at_checked(addresses_bytes).ok_or(NotProxy)?;
    check_tlvs(header, header.len() - tlvs.len())?;
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    Ok(match (family, transport) {
        (1, 1) => {
            let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&addresses[at..at + 4]).unwrap_or_default());
            Relayed::From { source: SocketAddr::new(ip(0), port(8)), destination: SocketAddr::new(ip(4), port(10)) }
        }
        (2, 1) => {
            let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&addresses[at..at + 16]).unwrap_or_default());
            Relayed::From { source: SocketAddr::new(ip(0), port(32)), destination: SocketAddr::new(ip(16), port(34)) }
        }
        // a datagram's or a unix socket's address is none that a TCP client can have
        _ => Relayed::Unknown,
    })
}

/// Walks the TLVs from `at` on: their lengths must add up, and a checksum must match (section 2.2.3).
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), NotProxy> {
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + TLV_BYTES) else { return Err(NotProxy) };
        let start = at + TLV_BYTES;
        let end = start + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(start..end).ok_or(NotProxy)?;
        if kind == TYPE_CRC32C {
            let told = u32::from_be_bytes(value.try_into().map_err(|_| NotProxy)?);
            let bytes = header[..start].iter().chain(&[0; 4]).chain(&header[end..]);
            if crc32c(bytes.copied()) != told {
                return Err(NotProxy);
            }
        }
        at = end;
    }
    Ok(())
}

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4), bit by bit: once per connection over some hundred bytes.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0_u32, |mut crc, byte| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

/// The client and what it connected to, as an endpoint is told; `None` where one of them is not an IP address.
pub type Ends = Option<(SocketAddr, SocketAddr)>;

/// Appends a version 1 line, at most 107 bytes. Ends of two families are both written as IPv6.
pub fn push_v1(out: &mut Vec<u8>, ends: Ends) {
    out.extend_from_slice(WORD);
    let Some((source, destination)) = ends.map(one_family) else {
        return out.extend_from_slice(b"UNKNOWN\r\n");
    };
    out.extend_from_slice(if source.is_ipv4() { b"TCP4" } else { b"TCP6" });
    for end in [source, destination] {
        out.push(b' ');
        write!(out, "{}", end.ip()).expect("a vector takes all");
    }
    for end in [source, destination] {
        out.push(b' ');
        push_number(out, u64::from(end.port()));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a version 2 header without TLVs, at most 52 bytes. Ends of two families are both written as IPv6.
pub fn push_v2(out: &mut Vec<u8>, ends: Ends) {
    out.extend_from_slice(SIGNATURE);
    out.push(0x21);
    let Some((source, destination)) = ends.map(one_family) else {
        return out.extend_from_slice(&[0, 0, 0]);
    };
    out.extend_from_slice(if source.is_ipv4() { &[0x11, 0, 12] } else { &[0x21, 0, 36] });
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    for end in [source, destination] {
        out.extend_from_slice(&end.port().to_be_bytes());
    }
}

/// Appends the version 2 header of a connection that the gateway makes for itself (`LOCAL`): a health check.
pub fn push_v2_local(out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[0x20, 0, 0, 0]);
}

fn one_family((source, destination): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let widen = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    };
    (widen(source), widen(destination))
}

#[cfg(test)]
mod tests;
