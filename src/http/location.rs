//! `Location` and `Content-Location` of an endpoint that names itself (RFC 9110 §10.2.2, §8.7): made a path that clients can ask for here.
//!
//! What is made is a path and no URL with a host, so that no `Host` of a client's choice gets into a response that a cache may keep. It begins with
//! one slash: two of them, or one and a backslash, are another host to a browser (WHATWG URL, "relative slash state"), and a redirect to wherever
//! the path says. A value that is another's, that is not understood, or that has no place here is left as it is: `//host`, `\`, other schemes, other
//! ports, user names, blanks. So is one that is relative to the request's own path, which is right on both sides.

/// An origin that is the endpoint's own, as it may know itself.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port; a port that the scheme implies may be left out.
    pub authority: &'a [u8],
}

/// Where the endpoint's paths are here: what stands below `inner` there stands below `outer` here. Neither ends with a slash.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    /// Empty: all of them.
    pub inner: &'a str,
    /// Empty: as they are.
    pub outer: &'a str,
}

/// Appends what a client is told in place of `value`; `None`: `value` itself, and nothing is appended.
pub fn relocate(value: &[u8], own: &[Origin<'_>], moved: Moved<'_>, out: &mut Vec<u8>) -> Option<()> {
    // browsers take tabs and line ends out before they look at the slashes
    if value.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return None;
    }
    let is_here = !value.starts_with(b"//") && value.starts_with(b"/");
    let path = if is_here { value } else { behind_origin(value, own)? };
    if is_here && (path.get(1) == Some(&b'\\') || (moved.inner.is_empty() && moved.outer.is_empty())) {
        return None;
    }
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let (path, behind) = path.split_at(end);
    let path = if path.is_empty() { b"/" } else { path };
    let rest = path.strip_prefix(moved.inner.as_bytes()).filter(|rest| rest.is_empty() || rest[0] == b'/')?;
    let slashes = rest.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
    out.extend_from_slice(moved.outer.as_bytes());
    if slashes > 0 || moved.outer.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(&rest[slashes..]);
    out.extend_from_slice(behind);
    Some(())
}

/// What stands behind one of these origins.
fn behind_origin<'v>(value: &'v [u8], own: &[Origin<'_>]) -> Option<&'v [u8]> {
    let (scheme, rest) = match value.strip_prefix(b"//") {
        Some(rest) => (None, rest),
        None => {
            let colon = value.iter().position(|byte| *byte == b':')?;
            (Some(&value[..colon]), value[colon + 1..].strip_prefix(b"//")?)
        }
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.starts_with(b"\\") {
        return None;
    }
    let is_own = |origin: &&Origin<'_>| {
        scheme.is_none_or(|scheme| scheme.eq_ignore_ascii_case(origin.scheme.as_bytes()))
            && !authority.is_empty()
            && without_port(authority, origin.scheme)
                .eq_ignore_ascii_case(without_port(origin.authority, origin.scheme))
    };
    own.iter().find(is_own).map(|_| path)
}

/// An authority without the port that the scheme implies (RFC 3986 §6.2.3).
fn without_port<'a>(authority: &'a [u8], scheme: &str) -> &'a [u8] {
    let port: &[u8] = if scheme == "https" { b":443" } else { b":80" };
    authority.strip_suffix(port).or_else(|| authority.strip_suffix(b":")).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [Origin<'_>; 3] = [
        Origin { scheme: "http", authority: b"10.0.0.1:8080" },
        Origin { scheme: "http", authority: b"api.example" },
        Origin { scheme: "https", authority: b"[2001:db8::1]:443" },
    ];

    fn told(value: &str, inner: &str, outer: &str) -> String {
        let mut out = b"x".to_vec();
        let told = relocate(value.as_bytes(), &OWN, Moved { inner, outer }, &mut out);
        let made = String::from_utf8(out.split_off(1)).unwrap();
        assert!(told.is_some() || made.is_empty(), "{value}");
        told.map_or_else(|| format!("as it is: {value}"), |()| made)
    }

    #[test]
    fn an_endpoint_s_own_origin_goes_away() {
        for (value, expected) in [
            ("http://10.0.0.1:8080/a?b=http://c#d", "/a?b=http://c#d"),
            ("HTTP://API.Example/a", "/a"),
            ("http://api.example:80/a", "/a"),
            ("http://api.example:/a", "/a"),
            ("http://api.example", "/"),
            ("http://api.example?a", "/?a"),
            ("http://api.example#a", "/#a"),
            ("//api.example/a", "/a"),
            ("https://[2001:DB8::1]/a", "/a"),
            ("http://api.example/caf\u{e9}", "/caf\u{e9}"),
        ] {
            assert_eq!(told(value, "", ""), expected, "{value}");
        }
    }

    #[test]
    fn what_is_another_s_or_relative_stays() {
        for value in [
            "",
            "/",
            "/a",
            "a",
            "../a",
            "?a",
            "#a",
            "a:b",
            "mailto:a@api.example",
            "http:/api.example/a",
            "http:api.example",
            "https://api.example/a",
            "http://api.example:8080/a",
            "http://10.0.0.1/a",
            "http://10.0.0.10:8080/a",
            "http://api.example.evil.test/a",
            "http://api.example@evil.test/a",
            "http://user@api.example/a",
            "http://evil.test/api.example",
            "http://evil.test#http://api.example/",
            "http://api.example\\@evil.test/a",
            "http:\\\\api.example/a",
            "ftp://api.example/a",
            "javascript://api.example/%0aalert(1)",
            "http:///a",
            "//evil.test/a",
            "///api.example/a",
            "/\\evil.test",
        ] {
            assert_eq!(told(value, "", ""), format!("as it is: {value}"));
            if !matches!(value, "/" | "/a") {
                assert_eq!(told(value, "", "/o"), format!("as it is: {value}"), "below /o");
            }
        }
    }

    #[test]
    fn paths_move_with_the_prefix() {
        for (value, inner, outer, expected) in [
            ("/", "", "/orders", "/orders/"),
            ("/7?a#b", "", "/orders", "/orders/7?a#b"),
            ("http://api.example/7", "", "/orders", "/orders/7"),
            ("http://api.example", "", "/orders", "/orders/"),
            ("/v2/7", "/v2", "/orders", "/orders/7"),
            ("/v2", "/v2", "/orders", "/orders"),
            ("/v2?a", "/v2", "/orders", "/orders?a"),
            ("/v2", "/v2", "", "/"),
            ("http://api.example/v2/7", "/v2", "", "/7"),
        ] {
            assert_eq!(told(value, inner, outer), expected, "{value}");
        }
        for value in ["/v20/7", "/login", "/", "http://api.example/login", "/V2/7"] {
            assert_eq!(told(value, "/v2", "/orders"), format!("as it is: {value}"), "it has no place here");
        }
    }

    #[test]
    fn no_path_becomes_another_host() {
        for (value, inner, outer, expected) in [
            ("http://api.example//evil.test/a", "", "", "/evil.test/a"),
            ("http://api.example/\\evil.test/a", "", "", "/evil.test/a"),
            ("http://api.example/\\/\\//evil.test/a", "", "", "/evil.test/a"),
            ("/v2//evil.test", "/v2", "", "/evil.test"),
            ("/v2/\\evil.test", "/v2", "", "/evil.test"),
            ("/v2//evil.test", "/v2", "/o", "/o/evil.test"),
        ] {
            assert_eq!(told(value, inner, outer), expected, "{value}");
        }
        for value in ["http://api.example/\t/evil.test", "http://api.example/ a", "/\t/evil.test", " /a", "/a\u{7f}"] {
            assert_eq!(told(value, "", "/o"), format!("as it is: {value}"));
        }
    }
}
