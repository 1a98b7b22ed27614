//! PROXY headers, byte by byte: what is taken, what is refused and why, and that what is written is read back.

use super::*;
use proptest::prelude::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn from(source: &str, destination: &str) -> Relayed {
    Relayed::From { source: address(source), destination: address(destination) }
}

/// The verdict on `bytes`, which must not depend on how they arrive, nor on what follows.
#[track_caller]
fn read(bytes: &[u8]) -> Result<Parsed<ProxyHeader>, NotProxy> {
    let whole = parse(bytes);
    for end in 0..bytes.len() {
        match (parse(&bytes[..end]), whole) {
            (Ok(Parsed::Partial), _) | (Err(NotProxy), Err(NotProxy)) => {}
            (Ok(Parsed::Complete(early)), Ok(Parsed::Complete(late))) if early == late && end >= early.len => {}
            (early, late) => panic!("{end} bytes of {}: {early:?}, then {late:?}", bytes.escape_ascii()),
        }
    }
    if let Ok(Parsed::Complete(header)) = whole {
        let followed = [&bytes[..header.len], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&followed), whole, "{}", bytes.escape_ascii());
    }
    whole
}

#[track_caller]
fn relayed(bytes: &[u8]) -> Relayed {
    match read(bytes) {
        Ok(Parsed::Complete(header)) => {
            assert_eq!(header.len, bytes.len());
            header.relayed
        }
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

/// Signature, `command`, `family`, the length of `rest`, `rest`.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family][..], &length, rest].concat()
}

/// 192.0.2.1:56324 to 198.51.100.2:443.
const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

fn six() -> Vec<u8> {
    let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&ip("2001:db8::1")[..], &ip("2001:db8::2"), &[0xdc, 0x04, 0x01, 0xbb]].concat()
}

#[test]
fn lines_of_version_1_are_read() {
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", from("192.0.2.1:56324", "198.51.100.2:443")),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            from("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", from("0.0.0.0:0", "0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", from("[2001:db8::1]:1", "[::1]:2")),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            from("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("PROXY UNKNOWN\r\n", Relayed::Unknown),
        ("PROXY UNKNOWN what ever follows, \u{e9}\r\n", Relayed::Unknown),
    ] {
        assert_eq!(relayed(line.as_bytes()), expected, "{line:?}");
    }
    // the longest line that section 2.1 works out: 107 bytes
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - "PROXY UNKNOWN \r\n".len()));
    assert_eq!((longest.len(), relayed(longest.as_bytes())), (107, Relayed::Unknown));
}

#[test]
fn lines_that_are_not_of_version_1_are_refused() {
    for (line, reason) in [
        (&b"GET / HTTP/1.1\r\n"[..], "a request without a header before it"),
        (b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "case matters"),
        (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "two spaces"),
        (b"PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n", "two spaces"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", "a space at the end"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", "one part too many"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "one part too few"),
        (b"PROXY TCP4\r\n", "no addresses"),
        (b"PROXY \r\n", "nothing"),
        (b"PROXY TCP4\t1.2.3.4 1.2.3.4 1 1\r\n", "a tab"),
        (b"PROXY TCP4 ::1 ::1 1 1\r\n", "the other family"),
        (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", "the other family"),
        (b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", "three octets"),
        (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n", "a leading zero, which some read as octal"),
        (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n", "an octet above 255"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "a zone"),
        (b"PROXY TCP6 [::1] ::1 1 1\r\n", "brackets"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", "a port above 65535"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", "a leading zero"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n", "a sign"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", "an empty port"),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", "version 1 knows no datagrams"),
        (b"PROXY UNKNOWN\n", "a bare LF"),
        (b"PROXY UNKNOWN\rX", "a bare CR"),
        (b"PROXY UNKNOWN\xff\n", "a bare LF"),
    ] {
        assert_eq!(read(line), Err(NotProxy), "{}: {reason}", line.escape_ascii());
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX + 1 - "PROXY UNKNOWN \r\n".len()));
    assert_eq!((long.len(), read(long.as_bytes())), (108, Err(NotProxy)));
    assert_eq!(parse(&[b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat()), Err(NotProxy), "no end in sight");
}

#[test]
fn binary_headers_are_read() {
    assert_eq!(relayed(&binary(0x21, 0x11, &FOUR)), from("192.0.2.1:56324", "198.51.100.2:443"));
    assert_eq!(relayed(&binary(0x21, 0x21, &six())), from("[2001:db8::1]:56324", "[2001:db8::2]:443"));
    // section 2.2: LOCAL skips whatever is there
    for (family, rest) in [(0, &b""[..]), (0x11, &FOUR), (0x11, b"short"), (0x21, b""), (0xff, b"garbage")] {
        assert_eq!(relayed(&binary(0x20, family, rest)), Relayed::Local);
    }
    for (family, rest) in
        [(0, &b""[..]), (0, b"anything"), (0x12, &FOUR), (0x22, &six()), (0x31, &[0; 216]), (0x10, b"")]
    {
        assert_eq!(relayed(&binary(0x21, family, rest)), Relayed::Unknown, "{family:#x}");
    }
}

#[test]
fn tlvs_are_skipped_and_must_add_up() {
    let with = |tlvs: &[u8]| binary(0x21, 0x11, &[&FOUR, tlvs].concat());
    let expected = from("192.0.2.1:56324", "198.51.100.2:443");
    // PP2_TYPE_ALPN, PP2_TYPE_NOOP, an empty one, a vendor's own (AWS)
    for tlvs in [&b"\x01\0\x02h2"[..], b"\x04\0\0", b"\x04\0\x03abc\x01\0\x01x", b"\xea\0\x05\x01vpce"] {
        assert_eq!(relayed(&with(tlvs)), expected, "{}", tlvs.escape_ascii());
    }
    let largest = vec![0; PROXY_HEADER_BYTES_MAX - FIXED_BYTES - FOUR.len() - TLV_BYTES];
    let filled = [&[4][..], &u16::try_from(largest.len()).unwrap().to_be_bytes(), &largest].concat();
    assert_eq!(relayed(&with(&filled)), expected);
    for (tlvs, reason) in [
        (&b"\x01"[..], "no length"),
        (b"\x01\0", "half a length"),
        (b"\x01\0\x02h", "a byte is missing"),
        (b"\x01\xff\xffh2", "far too long"),
        (b"\x03\0\x03abc", "a checksum has four bytes"),
        (b"\x03\0\x04\0\0\0\0", "a wrong checksum"),
    ] {
        assert_eq!(read(&with(tlvs)), Err(NotProxy), "{reason}");
    }
}

#[test]
fn a_checksum_is_verified() {
    // RFC 3720 appendix B.4
    assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    assert_eq!(crc32c([0xff; 32].into_iter()), 0x62a8_ab43);
    assert_eq!(crc32c(0..32), 0x46dd_794e);
    let mut header = binary(0x21, 0x11, &[&FOUR[..], b"\x01\0\x02h2\x03\0\x04\0\0\0\0\x04\0\x01x"].concat());
    let at = header.len() - 8;
    let checksum = crc32c(header.iter().copied()).to_be_bytes();
    header[at..at + 4].copy_from_slice(&checksum);
    assert_eq!(relayed(&header), from("192.0.2.1:56324", "198.51.100.2:443"));
    for bit in 8 * FIXED_BYTES..8 * (FIXED_BYTES + FOUR.len()) {
        let mut damaged = header.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(parse(&damaged), Err(NotProxy), "bit {bit} of the addresses");
    }
}

#[test]
fn binary_headers_that_are_wrong_are_refused() {
    for (bytes, reason) in [
        (binary(0x11, 0x11, &FOUR), "version 1"),
        (binary(0x31, 0x11, &FOUR), "version 3"),
        (binary(0x22, 0x11, &FOUR), "an unknown command"),
        (binary(0x21, 0x41, &FOUR), "an unknown family"),
        (binary(0x21, 0x13, &FOUR), "an unknown transport"),
        (binary(0x21, 0x03, b""), "an unknown transport"),
        (binary(0x21, 0x11, &FOUR[..11]), "too short for IPv4"),
        (binary(0x21, 0x21, &six()[..35]), "too short for IPv6"),
        (binary(0x21, 0x31, &[0; 215]), "too short for unix"),
        (binary(0x21, 0, &vec![0; PROXY_HEADER_BYTES_MAX]), "too long"),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), "not the signature"),
        (b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec(), "empty lines before a request"),
        (b"\x16\x03\x01".to_vec(), "TLS"),
    ] {
        assert_eq!(read(&bytes), Err(NotProxy), "{reason}");
    }
}

#[test]
fn what_the_gateway_does_not_know_it_does_not_invent() {
    let written = |push: fn(&mut Vec<u8>, Ends)| {
        let mut out = Vec::new();
        push(&mut out, None);
        out
    };
    assert_eq!(written(push_v1), b"PROXY UNKNOWN\r\n");
    assert_eq!(relayed(&written(push_v2)), Relayed::Unknown);
    let mut local = Vec::new();
    push_v2_local(&mut local);
    assert_eq!(relayed(&local), Relayed::Local);
}

#[test]
fn ends_are_written_in_their_own_family_or_both_in_ipv6() {
    let line = |source: &str, destination: &str| {
        let mut out = Vec::new();
        push_v1(&mut out, Some((address(source), address(destination))));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(line("192.0.2.1:5", "192.0.2.2:80"), "PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n");
    assert_eq!(line("[::ffff:192.0.2.1]:5", "192.0.2.2:80"), "PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n");
    assert_eq!(line("[2001:db8::1]:5", "[::1]:80"), "PROXY TCP6 2001:db8::1 ::1 5 80\r\n");
    assert_eq!(line("[2001:db8::1]:5", "192.0.2.2:80"), "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 5 80\r\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, rng_seed: proptest::test_runner::RngSeed::Fixed(0x5052_4f58), ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(source: SocketAddr, destination: SocketAddr) {
        let ends = Some((source, destination));
        for (push, bytes_max) in [(push_v1 as fn(&mut Vec<u8>, Ends), LINE_BYTES_MAX), (push_v2, 52)] {
            let mut out = Vec::new();
            push(&mut out, ends);
            prop_assert!(out.len() <= bytes_max);
            let Relayed::From { source: from, destination: to } = relayed(&out) else { panic!("{out:?}") };
            for (read, written) in [(from, source), (to, destination)] {
                prop_assert_eq!((read.ip().to_canonical(), read.port()), (written.ip().to_canonical(), written.port()));
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_change_its_mind(
        start in prop_oneof![Just(&b""[..]), Just(WORD), Just(&b"PROXY TCP4 "[..]), Just(&SIGNATURE[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..])],
        rest in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let _ = read(&[start, &rest].concat());
    }
}
