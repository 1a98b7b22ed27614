//! The little of a certificate's DER that nobody else tells: from when and until when it is valid, and for whom (RFC 5280 §4.1).
//!
//! Only looked at for operators and services, who want to know when a certificate ends, or whose it is; who believes a certificate has it
//! checked by rustls.

pub(super) const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds since 1970 between which a certificate is valid; `None`: it is none.
pub(super) fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (first, from, rest) = value(fields_of(certificate)?.validity)?;
    let (last, until, _) = value(rest)?;
    Some((time(first, from)?, time(last, until)?))
}

/// What a certificate says of itself, each without its tag and length but for the key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'c> {
    /// The number's digits.
    pub(super) serial: &'c [u8],
    validity: &'c [u8],
    pub(super) subject: &'c [u8],
    /// Its SubjectPublicKeyInfo, whole.
    pub(super) key: &'c [u8],
    pub(super) behind_key: &'c [u8],
}

/// `None`: it is none.
pub(super) fn fields_of(certificate: &[u8]) -> Option<Fields<'_>> {
    let (SEQUENCE, certificate, _) = value(certificate)? else { return None };
    let (SEQUENCE, mut fields, _) = value(certificate)? else { return None };
    let (tag, _, rest) = value(fields)?;
    if tag == VERSION {
        fields = rest;
    }
    let (_, serial, rest) = value(fields)?;
    fields = rest;
    // signature, issuer
    for _ in 0..2 {
        fields = value(fields)?.2;
    }
    let (SEQUENCE, validity, rest) = value(fields)? else { return None };
    let (SEQUENCE, subject, from_key) = value(rest)? else { return None };
    let (SEQUENCE, _, behind_key) = value(from_key)? else { return None };
    let key = &from_key[..from_key.len() - behind_key.len()];
    Some(Fields { serial, validity, subject, key, behind_key })
}

/// The first value: its tag, its content, and what stands behind it.
pub(super) fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, where 50 is 1950, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME => text.split_at_checked(2)?,
        GENERALIZED_TIME => text.split_at_checked(4)?,
        _ => return None,
    };
    let year: i64 = year.parse().ok()?;
    let year = match tag {
        UTC_TIME if year >= 50 => 1_900 + year,
        UTC_TIME => 2_000 + year,
        _ => year,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let days = days_of(year, part(0)?, part(2)?);
    Some(((days * 24 + part(4)?) * 60 + part(6)?) * 60 + part(8)?)
}

/// Days since 1970-01-01 of the Gregorian calendar, with years that begin in March.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "000229120000Z", 951_825_600),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (UTC_TIME, "500101000000Z", -631_152_000),
            (GENERALIZED_TIME, "20501231235959Z", 2_556_143_999),
            (GENERALIZED_TIME, "20261129214503Z", 1_795_988_703),
        ] {
            assert_eq!(time(tag, text.as_bytes()), Some(seconds), "{text}");
        }
        for text in ["", "Z", "70010100000Z", "7001010000000", "70o101000000Z"] {
            assert_eq!(time(UTC_TIME, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_validity() {
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02", &[0x30; 64], &[0xff; 64]]
        {
            assert_eq!(validity(bytes), None, "{bytes:?}");
        }
    }
}
