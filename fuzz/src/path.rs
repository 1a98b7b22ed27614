//! Paths: one spelling, against RFC 3986 §6.2 written down a second time, and one decision of the router.

use crate::{Knobs, is_visible};
use http::Method;
use ringgate::config::{Match, PathMatch, Rewrite};
use ringgate::http::Parsed;
use ringgate::http::fields::HeadScratch;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::path::{AmbiguousPath, EmptySegments, EncodedSeparators, merged, normalize};
use ringgate::policy::router::{RequestView, Routed, Router, RouterCache, Source, rewrite};
use ringgate::units::RouteId;
use std::cell::RefCell;

/// Knobs: 0 whether encoded separators are kept, 1 whether empty segments are merged.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    let separators = if knobs.bit(0) { EncodedSeparators::Keep } else { EncodedSeparators::Refuse };
    let empty = if knobs.bit(1) { EmptySegments::Merge } else { EmptySegments::Keep };
    // what is no visible ASCII, and where a path ends, the parser of targets has seen to
    let rest = bytes.iter().filter(|b| b.is_ascii_graphic() && !b"?#".contains(b)).map(|&b| char::from(b));
    let path: String = std::iter::once('/').chain(rest).collect();
    let mut scratch = String::from("/what/was/here");
    let normal = normalize(&path, separators, empty, &mut scratch);
    assert_eq!(normal.map(str::to_owned), expected(&path, separators, empty), "{path}");
    let policy = HeadPolicy { separators, empty, ..HeadPolicy::default() };
    let Ok(normal) = normal else {
        assert_eq!(routed(&path, &policy), None, "a head with {path} is taken");
        return;
    };
    check_normal(normal, separators);
    assert!(empty == EmptySegments::Keep || !normal.contains("//"), "{normal} of {path}");
    assert!(normal.len() <= path.len(), "{normal} of {path}");
    let again = normalize(normal, separators, empty, &mut String::new()).map(str::to_owned);
    assert_eq!(again.as_deref(), Ok(normal), "not a fixed point, from {path}");
    // a service that merges what it gets comes to what was routed, in whatever order it does that
    let mut scratch = String::new();
    let routed_by = merged(normal, &mut scratch);
    let by_service = normalize(normal, separators, EmptySegments::Merge, &mut String::new()).map(str::to_owned);
    assert_eq!(by_service.as_deref(), Ok(routed_by), "a route is passed by {path}");
    let decision = routed(&path, &policy).expect("a path that is taken");
    assert_eq!(decision, (normal.to_owned(), route(routed_by)), "{path} goes elsewhere");
    check_rewritten(normal, routed_by, separators);
}

fn check_normal(path: &str, separators: EncodedSeparators) {
    assert!(path.starts_with('/') && is_visible(path));
    assert!(!path.contains(['\\', '?', '#', '\0']), "{path}");
    assert!(path.split('/').all(|segment| !matches!(segment, "." | "..")), "{path}");
    assert!(path.split('/').all(|segment| !segment.starts_with("..;") && !segment.starts_with(".;")), "{path}");
    for (at, _) in path.match_indices('%') {
        let digits = path.get(at + 1..at + 3).expect("two digits");
        assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)), "{path}");
        let byte = u8::from_str_radix(digits, 16).expect("digits");
        assert!(byte != 0 && !is_unreserved(byte), "%{digits} in {path}");
        assert!(separators == EncodedSeparators::Keep || !b"/\\".contains(&byte), "%{digits} in {path}");
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986 §6.2.2 and §5.2.4 by the segment, and what is refused.
fn expected(path: &str, separators: EncodedSeparators, empty: EmptySegments) -> Result<String, AmbiguousPath> {
    let mut decoded: Vec<String> = Vec::new();
    for segment in path[1..].split('/') {
        let mut parts = segment.split('%');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = u8::from_str_radix(digits.ok_or(AmbiguousPath)?, 16).map_err(|_| AmbiguousPath)?;
            if byte == 0 || (b"/\\".contains(&byte) && separators == EncodedSeparators::Refuse) {
                return Err(AmbiguousPath);
            }
            text += &if is_unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
            text += &part[2..];
        }
        if text.contains('\\') || text.starts_with("..;") || text.starts_with(".;") {
            return Err(AmbiguousPath);
        }
        decoded.push(text);
    }
    let mut kept: Vec<&str> = Vec::new();
    let last = decoded.len() - 1;
    for (at, segment) in decoded.iter().enumerate() {
        match segment.as_str() {
            "." => {}
            // the last one is what stands behind a final slash
            "" if at == last || empty == EmptySegments::Merge => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let is_folder = matches!(decoded.last().map(String::as_str), Some("" | "." | ".."));
    let joined = kept.iter().map(|segment| format!("/{segment}")).collect::<String>();
    Ok(if is_folder || joined.is_empty() { joined + "/" } else { joined })
}

/// The path and the route of a request for `path`, through a whole head.
fn routed(path: &str, policy: &HeadPolicy) -> Option<(String, Option<RouteId>)> {
    let head = format!("GET {path}?q=/../%2f HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut scratch = HeadScratch::default();
    match RequestHead::parse(head.as_bytes(), policy, &mut scratch) {
        Ok(Parsed::Complete(head)) => Some((head.path().to_owned(), route(head.routed_path()))),
        Ok(Parsed::Partial) => panic!("a whole head"),
        Err(_) => None,
    }
}

fn paths() -> Vec<PathMatch> {
    let exact = |path: &str| PathMatch::Exact(path.to_owned());
    let prefix = |path: &str| PathMatch::Prefix(path.to_owned());
    let regex = |path: &str| PathMatch::Regex(path.to_owned());
    vec![
        exact("/"),
        exact("/a/b"),
        prefix("/a"),
        prefix("/a/b/c"),
        regex("^/[0-9]+/?$"),
        regex("%[0-9A-F]{2}"),
        prefix("/admin"),
    ]
}

fn route(path: &str) -> Option<RouteId> {
    thread_local! {
        static ROUTER: RefCell<(Router, RouterCache)> = RefCell::new({
            let of = |path| Match { path, ..Match::default() };
            let matches: Vec<Match> = paths().into_iter().map(of).collect();
            (Router::from_matches(&matches).expect("routes that compile"), RouterCache::new())
        });
    }
    ROUTER.with_borrow_mut(|(router, cache)| {
        let view = RequestView {
            host: Some("a"),
            path,
            query: None,
            method: &Method::GET,
            source: Source::default(),
            header: &|_, _| false,
        };
        match router.route(&view, cache) {
            Routed::Route(route) => Some(route),
            _ => None,
        }
    })
}

/// What goes up after a rewrite is as good a path as what came, below what the route allows, and of no other host.
fn check_rewritten(path: &str, routed_by: &str, separators: EncodedSeparators) {
    for matched in paths() {
        let PathMatch::Prefix(prefix) = &matched else { continue };
        if !routed_by.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            continue;
        }
        let (strip, template) = (Rewrite::StripPrefix(prefix.clone()), Rewrite::Template("/v2{rest}".to_owned()));
        for rule in [strip, template] {
            let mut out = Vec::new();
            rewrite(&rule, &Match { path: matched.clone(), ..Match::default() }, path, &mut out);
            let up = String::from_utf8(out).expect("visible ASCII");
            check_normal(&up, separators);
            assert!(!up.starts_with("//"), "{up} of {path}");
            assert!(matches!(rule, Rewrite::StripPrefix(_)) || up == "/v2" || up.starts_with("/v2/"), "{up} of {path}");
        }
    }
}
