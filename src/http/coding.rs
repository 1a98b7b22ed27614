//! Content codings (RFC 9110 §8.4): which one a client takes, and which responses may get one.
//!
//! What this does not do: compress. It decides from heads alone, and errs on the side of leaving a response as it is: one that says anything about its
//! bytes (a range, a digest, a coding of its own), or that nobody may change (`no-transform`), is passed on untouched.

use super::response::ResponseHead;
use crate::config::{Compression, ContentCoding};
use http::StatusCode;

/// A weight of one, in thousandths (RFC 9110 §12.4.2).
const WHOLE: u16 = 1_000;

/// The coding that suits a client best which says this in `Accept-Encoding`, among those `offered`, of which the first wins where it likes several the same;
/// `None`: it likes none of them, or no coding better (RFC 9110 §12.5.3).
#[must_use]
pub fn negotiate<'v>(values: impl Iterator<Item = &'v [u8]>, offered: &[ContentCoding]) -> Option<ContentCoding> {
    let (mut weights, mut others, mut identity) = ([None; ContentCoding::ALL.len()], None, None);
    for item in values.flat_map(|value| value.split(|byte| *byte == b',')) {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let (Some(name), weight) = (parts.next(), weight(parts)) else { continue };
        let name = if name.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { name };
        match ContentCoding::ALL.iter().position(|coding| name.eq_ignore_ascii_case(coding.as_str().as_bytes())) {
            Some(row) => weights[row] = Some(weight),
            None if name == b"*" => others = Some(weight),
            None if name.eq_ignore_ascii_case(b"identity") => identity = Some(weight),
            None => {}
        }
    }
    let weight_of = |coding: &ContentCoding| weights[*coding as usize].or(others).unwrap_or(0);
    let best = offered.iter().rev().max_by_key(|coding| weight_of(coding)).copied()?;
    let weight = weight_of(&best);
    (weight > 0 && weight >= identity.unwrap_or(0)).then_some(best)
}

/// The `q` among parameters, in thousandths; one that is malformed is 0, since it is not known what is liked then.
fn weight<'v>(mut parameters: impl Iterator<Item = &'v [u8]>) -> u16 {
    let is_weight = |parameter: &&[u8]| matches!(parameter, [b'q' | b'Q', b'=', ..]);
    let Some(written) = parameters.find(is_weight).map(|parameter| &parameter[2..]) else { return WHOLE };
    let (whole, rest) = written.split_at(written.len().min(1));
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return 0,
    };
    let thousandths = (0..3).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    match whole {
        b"0" => thousandths,
        b"1" if thousandths == 0 => WHOLE,
        _ => 0,
    }
}

/// Whether a list of directives (`Cache-Control`) has this one.
#[must_use]
pub fn has_directive<'v>(mut values: impl Iterator<Item = &'v [u8]>, name: &str) -> bool {
    values.any(|value| {
        value.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// Whether the body of this response, if there is one, is one that the rules have compressed, for whoever takes that. Of a 304, which need not say what
/// type and length it would have (RFC 9110 §15.4.5), whether it may be.
#[must_use]
pub fn suits(head: &ResponseHead<'_>, rules: &Compression) -> bool {
    let fields = head.fields();
    let is_whole = !matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT);
    let is_unsaid = head.status() == StatusCode::NOT_MODIFIED;
    let says_its_bytes =
        ["content-encoding", "content-range", "content-digest", "repr-digest", "digest", "content-md5"];
    let length = head.content_length();
    is_whole
        && !head.is_interim()
        && (is_unsaid || length.is_none_or(|length| (rules.bytes_min..=rules.bytes_max).contains(&length)))
        && !says_its_bytes.iter().any(|name| fields.get(name).is_some())
        && !has_directive(fields.get_all("cache-control"), "no-transform")
        && fields.get("content-type").map_or(is_unsaid, |value| rules.has_type(value))
}

/// Appends what a response says that is compressed with `coding`, or would be for another client: on what it depends, and what has become of its `ETag`,
/// which names other bytes now (RFC 9110 §8.8.1). A 304 says no coding, and which tag a 200 would have, or nobody would find what it is about (RFC 9111
/// §4.3.4). `keeps_etag`: no rule of the route has a say about it.
pub fn push_lines(out: &mut Vec<u8>, head: &ResponseHead<'_>, coding: Option<ContentCoding>, keeps_etag: bool) {
    let varies = |value: &[u8]| {
        let mut names = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    };
    let fields = head.fields();
    if !fields.get_all("vary").any(varies) {
        out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
    let Some(coding) = coding else { return };
    if head.status() != StatusCode::NOT_MODIFIED {
        out.extend_from_slice(b"Content-Encoding: ");
        out.extend_from_slice(coding.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(tag) = fields.get("etag").filter(|_| keeps_etag) {
        let weak: &[u8] = if tag.starts_with(b"W/") { b"" } else { b"W/" };
        for part in [b"ETag: ", weak, tag, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContentCoding::{Brotli, Gzip, Zstd};

    #[test]
    fn the_coding_that_is_liked_best_is_taken_and_the_first_of_equals() {
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, br", Some(Brotli)),
            ("gzip", Some(Gzip)),
            ("GZIP ; q=0.5", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("br;q=0.9, gzip;q=1.0", Some(Gzip)),
            ("br;q=0.001, gzip;q=0", Some(Brotli)),
            ("*", Some(Zstd)),
            ("zstd;q=0, *;q=0.3", Some(Brotli)),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=0.5, identity;q=0.5", Some(Gzip)),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("", None),
            ("identity", None),
            ("deflate, compress", None),
            ("gzip;q=0", None),
            ("gzip;q=0.0000", None),
            ("gzip;q=2", None),
            ("gzip;q=1.001", None),
            ("gzip;q=", None),
            ("gzip;q=-1", None),
            ("gzip;q=x, br;q=0.2", Some(Brotli)),
            ("*;q=0", None),
            (",,;q=1,", None),
        ] {
            let values = [accepted.as_bytes()];
            assert_eq!(negotiate(values.into_iter(), &[Zstd, Brotli, Gzip]), expected, "{accepted}");
        }
        let lines = [&b"br;q=0.1"[..], b"gzip"];
        assert_eq!(negotiate(lines.into_iter(), &[Brotli, Gzip]), Some(Gzip), "a list may have several lines");
        assert_eq!(negotiate(std::iter::empty(), &[Gzip]), None);
        assert_eq!(negotiate([&b"br, zstd"[..]].into_iter(), &[Gzip]), None);
    }

    #[test]
    fn directives_are_whole_words() {
        for (value, expected) in
            [("no-transform", true), ("max-age=1, No-Transform", true), ("no-transformer", false), ("", false)]
        {
            assert_eq!(has_directive([value.as_bytes()].into_iter(), "no-transform"), expected, "{value}");
        }
    }
}
