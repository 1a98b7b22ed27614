//! What a chosen route does to the path.

use crate::config::{Match, PathMatch, Rewrite, placeholder};

/// Appends the path that goes to the upstream, without query; it always begins with `/`, but for `*`, which stays. A path that is made
/// here begins with one slash, whatever the client's had, and has no empty segment that the client's had not: `//host` may be a host.
///
/// `matched` is what the route matches. In a template, `{path}` is the whole path and `{rest}` what the route's `/prefix/*`
/// left over, with its leading `/`: nothing for an exact path, the whole path for a regex (it consumes no prefix). A prefix is cut
/// only between segments, past empty ones, by which nothing is routed; a path that does not have it stays as it is.
pub fn rewrite(rewrite: &Rewrite, matched: &Match, path: &str, out: &mut Vec<u8>) {
    let start = out.len();
    match rewrite {
        Rewrite::None => return out.extend_from_slice(path.as_bytes()),
        _ if !path.starts_with('/') => return out.extend_from_slice(path.as_bytes()),
        Rewrite::StripPrefix(prefix) => out.extend_from_slice(below(prefix, path).unwrap_or(path).as_bytes()),
        Rewrite::Template(template) => fill(template, matched, path, (start, out)),
        // made where the request is known
        Rewrite::Made { .. } => out.extend_from_slice(path.as_bytes()),
    }
    let slashes = out[start..].iter().take_while(|byte| **byte == b'/').count();
    match slashes {
        0 => out.insert(start, b'/'),
        _ => drop(out.drain(start..start + slashes - 1)),
    }
}

/// What stands behind `prefix`: empty or beginning with `/`.
fn below<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    let mut rest = path;
    for segment in prefix.split('/').filter(|segment| !segment.is_empty()) {
        rest = rest.trim_start_matches('/');
        rest = match placeholder(segment) {
            Some(_) if rest.is_empty() => return None,
            Some(_) => &rest[rest.find('/').unwrap_or(rest.len())..],
            None => rest.strip_prefix(segment)?,
        };
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
    }
    Some(rest)
}

fn fill(template: &str, matched: &Match, path: &str, (start, out): (usize, &mut Vec<u8>)) {
    let mut template = template;
    let join = |text: &str, out: &mut Vec<u8>| {
        // two slashes that meet are one
        let text = if out[start..].ends_with(b"/") { text.strip_prefix('/').unwrap_or(text) } else { text };
        out.extend_from_slice(text.as_bytes());
    };
    while let Some(brace) = memchr::memchr(b'{', template.as_bytes()) {
        join(&template[..brace], out);
        template = &template[brace..];
        let (value, taken) = if template.starts_with("{rest}") {
            (rest_of(matched, path), "{rest}".len())
        } else if template.starts_with("{path}") {
            (path, "{path}".len())
        } else {
            ("{", 1)
        };
        join(value, out);
        template = &template[taken..];
    }
    join(template, out);
}

/// What the most specific of the paths that match leaves over, with its leading slash; the whole path where none does.
#[must_use]
pub fn rest_of<'p>(matched: &Match, path: &'p str) -> &'p str {
    if matched.other_paths.is_empty() {
        return rest_by(&matched.path, path).unwrap_or(path);
    }
    let matching = matched.paths().filter_map(|by| Some((by, rest_by(by, path)?)));
    matching.min_by_key(|(_, rest)| rest.len()).map_or(path, |(_, rest)| rest)
}

/// What a path condition leaves over, past empty segments; `None`: it does not match, or is a regex.
fn rest_by<'p>(by: &PathMatch, path: &'p str) -> Option<&'p str> {
    match by {
        PathMatch::Exact(exact) => below(exact, path).filter(|rest| rest.trim_matches('/').is_empty()).map(|_| ""),
        PathMatch::Prefix(prefix) => below(prefix, path),
        PathMatch::Template { path: wanted, is_prefix } => {
            let rest = below(wanted, path)?;
            (*is_prefix || rest.is_empty()).then_some(rest)
        }
        PathMatch::Regex(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(rule: Rewrite, matched: PathMatch, path: &str) -> String {
        let mut out = b"GET ".to_vec();
        let matched = Match { path: matched, ..Match::default() };
        rewrite(&rule, &matched, path, &mut out);
        String::from_utf8(out).unwrap().strip_prefix("GET ").unwrap().to_owned()
    }

    #[test]
    fn a_stripped_prefix_is_cut_between_segments_and_leaves_a_path() {
        let strip = |prefix: &str, path| rewritten(Rewrite::StripPrefix(prefix.into()), PathMatch::default(), path);
        assert_eq!(strip("/orders", "/orders/1"), "/1");
        assert_eq!(strip("/orders", "/orders"), "/");
        assert_eq!(strip("/orders", "/orders/"), "/");
        assert_eq!(strip("/orders/", "/orders/1"), "/1");
        assert_eq!(strip("/orders", "/ordersmore"), "/ordersmore");
        assert_eq!(strip("/", "/a"), "/a");
        assert_eq!(strip("/orders", "*"), "*");
    }

    #[test]
    fn a_template_takes_the_rest_behind_the_routes_prefix_or_the_whole_path() {
        let fill = |template: &str, matched, path| rewritten(Rewrite::Template(template.into()), matched, path);
        let prefix = || PathMatch::Prefix("/orders".into());
        assert_eq!(fill("/v2{rest}", prefix(), "/orders/7/lines"), "/v2/7/lines");
        assert_eq!(fill("/v2{rest}", prefix(), "/orders"), "/v2");
        assert_eq!(fill("{rest}", prefix(), "/orders"), "/");
        assert_eq!(fill("/x{path}/y", prefix(), "/orders/7"), "/x/orders/7/y");
        assert_eq!(fill("/v2{rest}", PathMatch::Prefix(String::new()), "/a"), "/v2/a");
        assert_eq!(fill("/v2{rest}", PathMatch::Exact("/a".into()), "/a"), "/v2");
        assert_eq!(fill("/v2{rest}", PathMatch::Regex("^/a".into()), "/ab"), "/v2/ab");
        assert_eq!(fill("/{other}{", prefix(), "/orders"), "/{other}{");
        assert_eq!(fill("v2", prefix(), "/orders"), "/v2");
        assert_eq!(rewritten(Rewrite::None, prefix(), "/orders/1"), "/orders/1");
    }

    #[test]
    fn empty_segments_neither_hide_a_prefix_nor_make_a_host() {
        let strip = |path| rewritten(Rewrite::StripPrefix("/a/b".into()), PathMatch::default(), path);
        assert_eq!(strip("//a///b/c//d"), "/c//d");
        assert_eq!(strip("/a/b//evil.example"), "/evil.example");
        assert_eq!(strip("/a//bc"), "/a//bc");
        let fill =
            |template: &str, path| rewritten(Rewrite::Template(template.into()), PathMatch::Prefix("/a".into()), path);
        assert_eq!(fill("{path}", "//evil.example"), "/evil.example");
        assert_eq!(fill("/{path}", "/evil.example"), "/evil.example");
        assert_eq!(fill("/v2/{rest}", "//a//b"), "/v2//b");
        assert_eq!(fill("/v2{rest}/", "/a/b/"), "/v2/b/");
        assert_eq!(fill("/v2{rest}", "/a//b//c"), "/v2//b//c");
        assert_eq!(fill("{path}/y", "/"), "/y");
        assert_eq!(rewritten(Rewrite::None, PathMatch::default(), "//a//b"), "//a//b");
    }
}
