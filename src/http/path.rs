//! One spelling per path, so that what is routed, limited and logged is what the endpoint sees (RFC 3986 §6.2).
//!
//! Dot segments are removed (§5.2.4), percent-encoded unreserved characters decoded, other escapes written in upper case. Empty segments
//! (`//`) go on unless the listener merges them, because object keys and URLs in paths have them; but many services take `//admin` for
//! `/admin`, so what a path is *routed* by never has any ([`merged`]): a route cannot be passed by them. Refused: what endpoints read in different ways (an encoded slash or backslash, a raw backslash, NUL, a broken
//! escape, a dot segment with a parameter, `/..;/`, which servlet containers take for `/../`). Decoding happens once: `%252e`
//! stays what it is.
//!
//! Nearly every path needs nothing: one pass over it says so and it is used where it stands.

/// The path cannot be given one meaning: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousPath;

/// What may stay in a path although endpoints differ on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSeparators {
    /// `%2F` and `%5C` are refused.
    #[default]
    Refuse,
    /// `%2F` and `%5C` go on as they are, and never separate segments here.
    Keep,
}

/// What becomes of empty segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptySegments {
    /// They go on.
    #[default]
    Keep,
    /// `/a//b` is `/a/b`, before dot segments are looked at.
    Merge,
}

/// The one spelling of `path`, which is visible ASCII, begins with `/` and has no query. Borrowed from `path` when it has it already, else
/// from `scratch`, which is overwritten.
///
/// # Errors
/// [`AmbiguousPath`]
pub fn normalize<'a>(
    path: &'a str,
    separators: EncodedSeparators,
    empty: EmptySegments,
    scratch: &'a mut String,
) -> Result<&'a str, AmbiguousPath> {
    if is_normal(path.as_bytes(), empty) {
        return Ok(path);
    }
    scratch.clear();
    let mut bytes = path.as_bytes();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        match first {
            b'%' => bytes = unescape(rest, separators, scratch)?,
            b'\\' => return Err(AmbiguousPath),
            b'/' => end_segment(scratch, empty, false)?,
            &byte => scratch.push(char::from(byte)),
        }
    }
    end_segment(scratch, empty, true)?;
    Ok(scratch)
}

/// `path`, which is in its one spelling, without its empty segments: what it is routed by. Borrowed from `path` when it has none, else
/// from `scratch`, which is overwritten.
pub fn merged<'a>(path: &'a str, scratch: &'a mut String) -> &'a str {
    if memchr::memmem::find(path.as_bytes(), b"//").is_none() {
        return path;
    }
    scratch.clear();
    for part in path.split_inclusive('/') {
        if part != "/" || scratch.is_empty() {
            scratch.push_str(part);
        }
    }
    scratch
}

/// Whether nothing needs a second look: no escape, no backslash, no segment that begins with a dot, and no `//` that is to be merged.
fn is_normal(path: &[u8], empty: EmptySegments) -> bool {
    let merge = empty == EmptySegments::Merge;
    let mut before = 0_u8;
    let mut odd = false;
    for &byte in path {
        odd |= matches!(byte, b'%' | b'\\') | (before == b'/' && (byte == b'.' || (merge && byte == b'/')));
        before = byte;
    }
    !odd
}

/// Appends what the escape whose digits are at the front of `bytes` stands for, and returns what follows it.
fn unescape<'a>(bytes: &'a [u8], separators: EncodedSeparators, out: &mut String) -> Result<&'a [u8], AmbiguousPath> {
    let [high, low, rest @ ..] = bytes else { return Err(AmbiguousPath) };
    let (high, low) = (hex(*high)?, hex(*low)?);
    let byte = high << 4 | low;
    match byte {
        0 => return Err(AmbiguousPath),
        b'/' | b'\\' if separators == EncodedSeparators::Refuse => return Err(AmbiguousPath),
        b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
        _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)), // RFC 3986 §6.2.2.2
        _ => {
            // RFC 3986 §6.2.2.1: upper case
            out.push('%');
            out.extend([high, low].map(|digit| char::from(b"0123456789ABCDEF"[digit as usize])));
        }
    }
    Ok(rest)
}

fn hex(digit: u8) -> Result<u8, AmbiguousPath> {
    char::from(digit).to_digit(16).map(|value| value as u8).ok_or(AmbiguousPath)
}

/// Closes the segment at the end of `out`: drops `.` and, with its parent, `..` (RFC 3986 §5.2.4); then begins the next one, unless
/// it was the last.
fn end_segment(out: &mut String, empty: EmptySegments, last: bool) -> Result<(), AmbiguousPath> {
    let start = out.rfind('/').map_or(0, |slash| slash + 1);
    let segment = &out[start..];
    let mut stays = true;
    match segment {
        "." => {
            out.truncate(start);
            stays = false;
        }
        ".." => {
            let parent = out[..start.saturating_sub(1)].rfind('/').map_or(0, |slash| slash + 1);
            out.truncate(parent);
            stays = false;
        }
        "" => stays = empty == EmptySegments::Keep,
        _ if segment.starts_with(".;") || segment.starts_with("..;") => return Err(AmbiguousPath),
        _ => {}
    }
    if (stays && !last) || out.is_empty() {
        out.push('/');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Result<String, AmbiguousPath> {
        normalize(path, EncodedSeparators::Refuse, EmptySegments::Merge, &mut String::new()).map(str::to_owned)
    }

    #[test]
    fn a_path_in_its_one_spelling_is_borrowed() {
        let mut scratch = String::from("untouched");
        for path in ["/", "/a", "/a/b.c/", "/a/b..c", "/a;x=1/b", "/~u/-_.html", "/a:b@c!$&'()*+,;="] {
            for empty in [EmptySegments::Keep, EmptySegments::Merge] {
                assert_eq!(normalize(path, EncodedSeparators::Refuse, empty, &mut scratch), Ok(path));
            }
            assert_eq!(merged(path, &mut scratch), path);
        }
        assert_eq!(scratch, "untouched");
    }

    #[test]
    fn every_path_gets_its_one_spelling() {
        for (path, normal) in [
            ("/.", "/"),
            ("/..", "/"),
            ("/./", "/"),
            ("/../", "/"),
            ("//", "/"),
            ("///a", "/a"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/b/../../c", "/c"),
            ("/a/../../b", "/b"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a//b", "/a/b"),
            ("/a//../b", "/b"),
            ("/a/b//", "/a/b/"),
            ("/%2e", "/"),
            ("/%2e%2E/x", "/x"),
            ("/a/%2e./b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%61%7E%5f%2D", "/a~_-"),
            ("/%e4%bd", "/%E4%BD"),
            ("/%20", "/%20"),
            ("/%3f%23", "/%3F%23"),
            ("/%25", "/%25"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/%252f", "/%252f"),
            ("/...", "/..."),
            ("/.a", "/.a"),
            ("/..a/b", "/..a/b"),
            ("/a/.well-known/b", "/a/.well-known/b"),
            ("/a/;/b", "/a/;/b"),
        ] {
            assert_eq!(of(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn empty_segments_go_on_but_nothing_is_routed_by_them() {
        for (path, kept, routed) in [
            ("//", "//", "/"),
            ("//a", "//a", "/a"),
            ("/a//b/", "/a//b/", "/a/b/"),
            ("/a///", "/a///", "/a/"),
            ("/a//%2e/b", "/a//b", "/a/b"),
            ("/a//../b", "/a/b", "/a/b"),
            ("//../a", "/a", "/a"),
            ("/a/..//b", "//b", "/b"),
            ("//%61dmin//", "//admin//", "/admin/"),
            ("/fetch/https://b.example/c", "/fetch/https://b.example/c", "/fetch/https:/b.example/c"),
        ] {
            let (mut scratch, mut second) = (String::new(), String::from("/old"));
            let found = normalize(path, EncodedSeparators::Refuse, EmptySegments::Keep, &mut scratch).unwrap();
            assert_eq!((found, merged(found, &mut second)), (kept, routed), "{path}");
        }
    }

    #[test]
    fn what_endpoints_read_differently_is_refused() {
        for path in [
            "/%2f",
            "/a%2Fb",
            "/%5c",
            "/a%5Cb",
            "/%00",
            "/a%00.png",
            "/a\\b",
            "/%",
            "/%4",
            "/%4g",
            "/%g4",
            "/%%41",
            "/..;/a",
            "/.;a/",
            "/%2e%2e;/",
            "/a/..;x=1",
        ] {
            assert_eq!(of(path), Err(AmbiguousPath), "{path}");
        }
    }

    #[test]
    fn kept_separators_do_not_separate() {
        let mut scratch = String::new();
        let mut keep =
            |path| normalize(path, EncodedSeparators::Keep, EmptySegments::Merge, &mut scratch).map(str::to_owned);
        assert_eq!(keep("/a%2f..%2Fb").unwrap(), "/a%2F..%2Fb");
        assert_eq!(keep("/a%5cb/../c").unwrap(), "/c");
        assert!(keep("/a%00").is_err());
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..Default::default() })]
        #[test]
        fn the_one_spelling_is_a_fixed_point_without_dot_segments(path in "(/(\\.|%2e|%2E|a|%41|b|;|%20|){0,3}){1,6}") {
            if let Ok(once) = of(&path) {
                proptest::prop_assert_eq!(of(&once), Ok(once.clone()));
                proptest::prop_assert!(once.starts_with('/'));
                proptest::prop_assert!(!once.contains("//"));
                proptest::prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
            }
            let (mut scratch, mut second, mut third) = (String::new(), String::new(), String::new());
            if let Ok(kept) = normalize(&path, EncodedSeparators::Refuse, EmptySegments::Keep, &mut scratch) {
                proptest::prop_assert_eq!(normalize(kept, EncodedSeparators::Refuse, EmptySegments::Keep, &mut second), Ok(kept));
                // a service that merges what it gets, in whatever order, comes to what was routed
                let routed = merged(kept, &mut third);
                proptest::prop_assert_eq!(of(kept), Ok(routed.to_owned()));
                proptest::prop_assert_eq!(of(routed), Ok(routed.to_owned()));
            }
        }
    }
}
