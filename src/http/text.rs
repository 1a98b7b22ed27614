//! Small things that every file here needs: token characters, lists, numbers as text.
//!
//! `core::fmt` costs more than the rest of a head, so numbers and addresses are written by hand.

use std::io::Write as _;
use std::net::IpAddr;

/// `tchar` of RFC 9110 §5.6.2.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether `byte` may stand in a token.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Whether `text` is a token: at least one `tchar` and nothing else (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_token_byte(b))
}

/// Whether `byte` may stand in a field value: HTAB, SP, VCHAR, obs-text (RFC 9110 §5.5).
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// `text` without the spaces and tabs around it (OWS, RFC 9110 §5.6.3).
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The elements of a comma-separated list, trimmed, empty ones left out (RFC 9110 §5.6.1.2). Knows no quoted strings: for fields
/// whose elements are tokens.
pub(super) fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty())
}

/// The number that `text` is: digits only, at least one, and at most `max`.
pub(super) fn number(text: &[u8], max: u64) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    if text.len() < 20 {
        // nineteen digits fit
        let sum = text.iter().try_fold(0_u64, |sum, &b| b.is_ascii_digit().then(|| 10 * sum + u64::from(b - b'0')))?;
        return (sum <= max).then_some(sum);
    }
    text.iter().try_fold(0_u64, |sum, &b| {
        let digit = u64::from(b.is_ascii_digit().then(|| b - b'0')?);
        sum.checked_mul(10)?.checked_add(digit).filter(|&sum| sum <= max)
    })
}

/// Appends `value` in decimal.
pub fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends an address: `192.0.2.1`, `2001:db8::1`. An IPv4 address inside IPv6 is written as IPv4.
pub fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // put together here and appended once: it is written for every request
            let (mut text, mut len) = ([0_u8; 16], 0);
            for octet in v4.octets() {
                let tens = octet / 10;
                if octet >= 100 {
                    text[len] = b'0' + octet / 100;
                    len += 1;
                }
                if octet >= 10 {
                    text[len] = b'0' + tens % 10;
                    len += 1;
                }
                text[len] = b'0' + octet % 10;
                text[len + 1] = b'.';
                len += 2;
            }
            out.extend_from_slice(&text[..len - 1]);
        }
        IpAddr::V6(v6) => write!(out, "{v6}").expect("a vector takes all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_only_and_bounded() {
        assert_eq!(number(b"0", 9), Some(0));
        assert_eq!(number(b"18446744073709551615", u64::MAX), Some(u64::MAX));
        assert_eq!(number(b"9999999999999999999", u64::MAX), Some(9_999_999_999_999_999_999));
        for bad in [&b""[..], b"-1", b"+1", b" 1", b"1 ", b"0x1", b"18446744073709551616", b"1_0"] {
            assert_eq!(number(bad, u64::MAX), None, "{}", bad.escape_ascii());
        }
        assert_eq!(number(b"10", 9), None);
    }

    #[test]
    fn numbers_and_addresses_are_written_as_the_standard_library_does() {
        for n in [0, 7, 10, 99, 100, 65_535, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, n);
            assert_eq!(out, n.to_string().into_bytes());
        }
        for octet in 0..=u8::MAX {
            for address in [[octet, 1, 22, 255 - octet], [255 - octet, 255, octet, octet]].map(IpAddr::from) {
                let mut out = Vec::new();
                push_address(&mut out, address);
                assert_eq!(out, address.to_string().into_bytes());
            }
        }
        for address in ["192.0.2.1", "255.255.255.255", "2001:db8::1", "::1"] {
            let mut out = Vec::new();
            push_address(&mut out, address.parse().unwrap());
            assert_eq!(out, address.as_bytes());
        }
        let mut out = Vec::new();
        push_address(&mut out, "::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(out, b"192.0.2.1");
    }

    #[test]
    fn lists_are_trimmed_and_lose_their_empty_elements() {
        let elements: Vec<_> = list(b" close ,, \tTE,").collect();
        assert_eq!(elements, [&b"close"[..], b"TE"]);
    }
}
