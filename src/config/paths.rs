//! Paths as the file writes them: what a route matches, what it makes of the path, where it redirects to, what a probe asks for.
//!
//! Request targets are visible ASCII (RFC 9112 §3.2), so a path with other characters could never match and is refused, as are `?`
//! and `#` (a path ends before them) and `.` and `..` segments (RFC 3986 §5.2.4). Regular expressions run in linear time and are
//! compiled here once, with the memory bound of `limits::REGEX_BYTES_MAX`, to see that they can be.

use super::PathMatch;
use super::addresses::check_authority;
use super::matching::{placeholder, segments};
use super::problem::Refusal;
use super::read::Scalar;
use super::tables::scalar_schema;
use super::values::text;
use super::variables::is_plain;
use crate::limits::{PATH_BYTES_MAX, PLACEHOLDERS_MAX, REGEX_BYTES_MAX, RESPOND_BODY_BYTES_MAX};
use http::HeaderValue;
use regex_automata::PatternID;
use regex_automata::meta::{Config, Regex};
use regex_automata::util::syntax;
use serde_json::json;
use toml::de::DeValue;

/// `match.path`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathText(pub PathMatch);

impl Scalar for PathText {
    fn allowed() -> String {
        "\"/exact\", \"/prefix/*\", \"/users/{id}\", \"/users/{id}/*\" or \"~regex\", or a list of them".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if let Some(pattern) = written.strip_prefix('~') {
            let regex = compile_regex(pattern, Regex::config())?;
            check_groups(&regex)?;
            return Ok(Self(PathMatch::Regex(pattern.to_owned())));
        }
        check_path(written)?;
        let is_template = check_template(written)?;
        let (path, prefix) = written.strip_suffix("/*").map_or((written, false), |path| (path, true));
        if path.contains('*') {
            let why = "`*` stands only for whole segments at the end, as in \"/prefix/*\"";
            let help = path.strip_suffix('*').filter(|path| !path.contains('*') && !prefix);
            let help = help.map(|stem| format!("did you mean \"{}/*\"?", stem.trim_end_matches('/')));
            return Err(Refusal { why: Some(why.to_owned()), help });
        }
        let path = path.to_owned();
        Ok(Self(match (is_template, prefix) {
            (true, is_prefix) => PathMatch::Template { path, is_prefix },
            (false, true) => PathMatch::Prefix(path),
            (false, false) => PathMatch::Exact(path),
        }))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[/~]", "maxLength": PATH_BYTES_MAX })
    }
}

/// Compiles within `limits::REGEX_BYTES_MAX`, as the router does.
pub(super) fn compile_regex(pattern: &str, config: Config) -> Result<Regex, Refusal> {
    compile(pattern, config, syntax::Config::new())
}

/// The same for what is searched for in bytes of a client's choice: `.`, `[^a]` and `\W` take any byte, a new line and what is no UTF-8 among
/// them. Otherwise a client puts one of those into what it sends, and a rule that keeps it away does not match. `\w`, `\d`, `\s` and `(?i)` are
/// about ASCII; `(?u:…)` is about characters.
pub(super) fn compile_for_bytes(pattern: &str, config: Config) -> Result<Regex, Refusal> {
    let bytes = syntax::Config::new().utf8(false).unicode(false).dot_matches_new_line(true);
    compile(pattern, config.utf8_empty(false), bytes).map_err(|refusal| match &refusal.why {
        Some(why) if why.contains("Unicode not allowed") => {
            refusal.help("it is matched against bytes; write (?u:…) around what stands for characters beyond ASCII")
        }
        _ => refusal,
    })
}

fn compile(pattern: &str, config: Config, syntax: syntax::Config) -> Result<Regex, Refusal> {
    if pattern.is_empty() || pattern.len() > PATH_BYTES_MAX {
        return Err(Refusal::why(format!("a regex has 1 to {PATH_BYTES_MAX} bytes")));
    }
    let config = config.nfa_size_limit(Some(REGEX_BYTES_MAX));
    let error = match Regex::builder().configure(config).syntax(syntax).build(pattern) {
        Ok(regex) => return Ok(regex),
        Err(error) => error,
    };
    if error.size_limit().is_some() {
        let help = "bounded repetitions such as {1000} cost most";
        return Err(Refusal::why(format!("the regex needs more than {REGEX_BYTES_MAX} bytes")).help(help));
    }
    let why = error.syntax_error().map_or_else(|| error.to_string(), |syntax| last_line(&syntax.to_string()));
    Err(Refusal::why(format!("not a regex: {why}")))
}

/// The parser draws a picture over several lines and says what is wrong in the last.
fn last_line(error: &str) -> String {
    error.lines().last().unwrap_or(error).trim_start_matches("error: ").to_owned()
}

/// A path that a request can have.
fn check_path(path: &str) -> Result<(), Refusal> {
    if !path.starts_with('/') {
        let help = (!path.is_empty() && !path.starts_with('^')).then(|| format!("did you mean \"/{path}\"?"));
        let help = if path.starts_with('^') { Some(format!("did you mean \"~{path}\"?")) } else { help };
        return Err(Refusal { why: Some("a path begins with /".to_owned()), help });
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(Refusal::why(format!("a path has at most {PATH_BYTES_MAX} bytes")));
    }
    if let Some(wrong) = path.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(Refusal::why(format!("{wrong:?} stands percent-encoded in a path")));
    }
    if let Some(wrong) = path.chars().find(|c| matches!(c, '?' | '#')) {
        let help = (wrong == '?').then(|| "query parameters are matched by match.query".to_owned());
        return Err(Refusal { why: Some(format!("a path ends before {wrong:?}")), help });
    }
    check_normal(path)
}

/// `.` and `..`, also with a parameter (`..;x`), which some services read as the segment without it.
fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

/// Requests are matched in one spelling of their path (RFC 3986 §6.2.2); another spelling here would never match.
fn check_normal(path: &str) -> Result<(), Refusal> {
    // the path begins with a slash, so that every segment has one before it
    let dotted = path.contains("/.") && path.split('/').any(is_dot_segment);
    if dotted || path.contains('\\') || path.contains("//") {
        return Err(Refusal::why("a normalised path has no \"\\\", no \"//\" and no \".\" or \"..\" segment"));
    }
    for (at, _) in path.match_indices('%') {
        let digits = path.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (Some(digits), Some(byte)) = (digits, byte) else {
            return Err(Refusal::why("% is followed by two hexadecimal digits"));
        };
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if matches!(byte, 0 | b'/' | b'\\') {
            return Err(Refusal::why(format!("%{digits} never reaches a route: services read it in different ways")));
        }
        if unreserved || digits.bytes().any(|b| b.is_ascii_lowercase()) {
            let normal = if unreserved { char::from(byte).to_string() } else { format!("%{}", digits.to_uppercase()) };
            let help = format!("write {normal} for %{digits}");
            return Err(
                Refusal::why("requests are matched in the normal spelling of their path (RFC 3986 §6.2.2)").help(help)
            );
        }
    }
    Ok(())
}

/// `strip_prefix`: `/a/b`, without a final slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripPrefix(pub String);

impl Scalar for StripPrefix {
    fn allowed() -> String {
        "a path such as \"/orders\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        check_path(written)?;
        no_placeholders(written)?;
        let bare = written.strip_suffix("/*").unwrap_or(written).trim_end_matches('/');
        match bare {
            _ if bare == written => Ok(Self(written.to_owned())),
            "" => Err(Refusal::why("there is nothing to strip")),
            _ => Err(Refusal::why("a prefix ends without / or *").help(format!("did you mean {bare:?}?"))),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/.*[^/*]$", "maxLength": PATH_BYTES_MAX })
    }
}

/// `rewrite`: a path with `{rest}` and `{path}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteTo(pub String);

impl Scalar for RewriteTo {
    fn allowed() -> String {
        "a path with {rest}, {path}, captures or variables in it, such as \"/v2{rest}\" or \"/v2/{id}\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.starts_with("{rest}") {
            return Err(Refusal::why("{rest} alone may be empty, and a path is not").help("use strip_prefix"));
        }
        // any other name is a capture or a variable, of which the route knows
        let named = filled(written, &["rest", "path"])?;
        check_slashes(written)?;
        // the paths that come out, for the shortest that go in and for others
        for (path, rest) in [("/p", "/r"), ("/", ""), ("/p", "")] {
            check_path(&named.replace("{path}", path).replace("{rest}", rest).replace("//", "/"))?;
        }
        Ok(Self(written.to_owned()))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(/|\\{path\\})", "maxLength": PATH_BYTES_MAX })
    }
}

/// The name of a group means nothing else: else a client would say what only the gateway may say.
fn check_groups(regex: &Regex) -> Result<(), Refusal> {
    let names = regex.group_info().pattern_names(PatternID::ZERO);
    match names.flatten().find(|name| is_taken(name)) {
        None => Ok(()),
        Some(name) => {
            Err(Refusal::why(format!("(?P<{name}>…): {{{name}}} stands for something else in rewrites and headers")))
        }
    }
}

/// Whether a name in braces has a meaning of its own.
fn is_taken(name: &str) -> bool {
    const OF_PATHS: [&str; 5] = ["rest", "path", "path_and_query", "query", "scheme"];
    OF_PATHS.contains(&name) || is_plain(name)
}

/// Whether there are placeholders in a path, each of which is one segment and has a name of its own, which no variable has.
fn check_template(path: &str) -> Result<bool, Refusal> {
    let mut names = Vec::new();
    for segment in segments(path).filter(|segment| segment.contains(['{', '}'])) {
        let Some(name) = placeholder(segment).filter(|name| !name.contains(['{', '}'])) else {
            let why = format!("{segment:?}: a placeholder is one whole segment, as in \"/users/{{id}}\"");
            return Err(
                Refusal::why(why).help("a part of a segment is matched by a regex: \"~^/users/u-(?P<id>[^/]+)$\"")
            );
        };
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.bytes().all(is_word) {
            return Err(Refusal::why(format!("{segment}: a placeholder has a name of small letters, digits and _")));
        }
        if is_taken(name) {
            return Err(Refusal::why(format!("{segment} stands for something else in rewrites and headers")));
        }
        if names.contains(&name) {
            return Err(Refusal::why(format!("{segment} stands there twice")));
        }
        names.push(name);
    }
    if names.len() > PLACEHOLDERS_MAX {
        return Err(Refusal::why(format!("at most {PLACEHOLDERS_MAX} placeholders")));
    }
    Ok(!names.is_empty())
}

/// Braces stand percent-encoded in a URL (RFC 3986 §2), so here somebody expects them to stand for something.
fn no_placeholders(path: &str) -> Result<(), Refusal> {
    if !path.contains(['{', '}']) {
        return Ok(());
    }
    let help = "rewrite takes placeholders of match.path: rewrite = \"/v2/{id}\"";
    Err(Refusal::why("there are no placeholders here, and braces stand percent-encoded in a path").help(help))
}

/// A placeholder begins with its own slash.
fn check_slashes(text: &str) -> Result<(), Refusal> {
    for placeholder in ["{path}", "{rest}"] {
        let slashed = format!("/{placeholder}");
        if text.contains(&slashed) {
            let why = format!("{placeholder} begins with a slash: this would make two");
            return Err(Refusal::why(why).help(format!("did you mean {:?}?", text.replace(&slashed, placeholder))));
        }
    }
    if text.contains("//") {
        return Err(Refusal::why("a normalised path has no \"//\""));
    }
    Ok(())
}

/// A text with an example in place of each name that is not known here.
fn filled(text: &str, known: &[&str]) -> Result<String, Refusal> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((word, tail)) = inner else { return Err(Refusal::why("a brace is not closed or not opened")) };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if word.is_empty() || !word.bytes().all(is_name) {
            return Err(Refusal::why(format!("{{{word}}} is no name")));
        }
        out.push_str(&rest[..at]);
        match known.contains(&word) {
            true => out.push_str(&format!("{{{word}}}")),
            false => out.push('x'),
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

/// Only known words stand in braces.
fn check_placeholders(text: &str, known: &[&str]) -> Result<(), Refusal> {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((word, tail)) = inner else { return Err(Refusal::why("a brace is not closed or not opened")) };
        if !known.contains(&word) {
            let help = super::problem::nearest(word, known.iter().copied());
            let help = help.map(|near| format!("did you mean {{{near}}}?"));
            return Err(Refusal { why: Some(format!("{{{word}}} stands for nothing")), help });
        }
        rest = tail;
    }
    Ok(())
}

/// `redirect.to`: a URL or a path, in which variables stand for what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectTo(pub String);

impl Scalar for RedirectTo {
    fn allowed() -> String {
        "a URL or a path, such as \"https://example.com{path}\" or \"https://{host}{path_and_query}\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let whole = text(value)?;
        let end = whole.find("://").map_or(0, |at| at + 3);
        let end = whole[end..].find(['/', '?', '#']).map_or(whole.len(), |at| end + at);
        let known = ["path", "path_and_query", "host", "scheme", "query"];
        check_placeholders(&whole[..end], &known)?; // a client does not say whose host it is
        let whole_filled = format!("{}{}", &whole[..end], filled(&whole[end..], &known)?);
        // what may stand anywhere, because it has no character that means something in a URL, as an example of itself
        let written = whole_filled.replace("{path_and_query}", "{path}").replace("{host}", "host.example");
        let written = written.replace("{scheme}", "https");
        let has_query = written.find("{query}").is_none_or(|at| written[..at].contains('?'));
        let written = &*written.replace("{query}", "q");
        if !has_query {
            return Err(Refusal::why("{query} stands behind a ?, or in {path_and_query}"));
        }
        if written.len() > PATH_BYTES_MAX {
            return Err(Refusal::why(format!("at most {PATH_BYTES_MAX} bytes")));
        }
        if HeaderValue::from_str(written).is_err() || !written.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refusal::why("a URL has only visible ASCII characters"));
        }
        let Some((authority, target)) = split_authority(written) else {
            return Err(Refusal::plain().help(format!("did you mean \"https://{written}\"?")));
        };
        authority.map_or(Ok(()), check_authority)?;
        if written == "{path}" {
            return Err(Refusal::why("this redirects every request to itself"));
        }
        let path = &target[..target.find(['?', '#']).unwrap_or(target.len())];
        if authority.is_none() && path.starts_with("//") {
            let help = format!("write the scheme: \"https:{written}\"");
            return Err(Refusal::why("what begins with // is another host").help(help));
        }
        if !path.is_empty() {
            check_slashes(path)?;
            check_path(&path.replace("{path}", "/").replace("//", "/"))?;
        }
        Ok(Self(whole.to_owned()))
    }

    fn schema() -> serde_json::Value {
        let pattern = "^((https?|\\{scheme\\})://|/|\\{path(_and_query)?\\})";
        json!({ "type": "string", "pattern": pattern, "maxLength": PATH_BYTES_MAX })
    }
}

/// The authority of a URL, and what follows it; no authority in a path. `None`: neither.
fn split_authority(url: &str) -> Option<(Option<&str>, &str)> {
    if url.starts_with('/') || url.starts_with("{path}") {
        return Some((None, url));
    }
    let rest = ["https://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme))?;
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#', '{']).unwrap_or(rest.len()));
    Some((Some(authority), target))
}

/// `health_check.path`: path and query of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePath(pub String);

impl Scalar for ProbePath {
    fn allowed() -> String {
        "a path, with a query or not, such as \"/healthz\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let (path, query) = written.split_once('?').unwrap_or((written, ""));
        check_path(path)?;
        if written.len() > PATH_BYTES_MAX || !query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(Refusal::why("a query has only visible ASCII characters, without #"));
        }
        Ok(Self(written.to_owned()))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/", "maxLength": PATH_BYTES_MAX })
    }
}

/// `respond.body`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(pub String);

impl Scalar for Body {
    fn allowed() -> String {
        format!("a text of at most {RESPOND_BODY_BYTES_MAX} bytes")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let body = text(value)?;
        if body.len() <= RESPOND_BODY_BYTES_MAX { Ok(Self(body.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "maxLength": RESPOND_BODY_BYTES_MAX })
    }
}

/// A key or a value of `match.query`, as it reads after percent-decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryText(pub String);

impl Scalar for QueryText {
    fn allowed() -> String {
        format!("a text of at most {PATH_BYTES_MAX} bytes")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.len() <= PATH_BYTES_MAX { Ok(Self(written.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "maxLength": PATH_BYTES_MAX })
    }
}

scalar_schema!(PathText, StripPrefix, RewriteTo, RedirectTo, ProbePath, Body, QueryText);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    #[test]
    fn paths_are_exact_prefixes_or_regexes() {
        accepts::<PathText>(&["/", "/*", "/a", "/a/", "/a/*", "/a%20b", "/a%C3%A9/*", "~.", "~^/a/[0-9]+$", "/a;b=c"]);
        refuses::<PathText>(&[
            "", "a", "*", "/a*", "/*/b", "/**", "/a/*/*", "^/a", "/a?b", "/a#b", "/a b", "/\u{e9}", "~", "~(", "~(?=a)",
        ]);
    }

    #[test]
    fn paths_stand_in_the_spelling_that_requests_get() {
        refuses::<PathText>(&[
            "//", "/a//b", "/./a", "/a/..", "/a\\b", "/%", "/%2", "/%zz", "/%2F", "/%5c", "/%00", "/%41", "/%7E",
            "/%c3",
        ]);
    }

    #[test]
    fn prefixes_end_without_slash_and_templates_begin_with_one() {
        accepts::<StripPrefix>(&["/a", "/a/b"]);
        refuses::<StripPrefix>(&["", "/", "/a/", "/a/*", "a", "/*", "/{a}"]);
        refuses::<PathText>(&["~^/(?P<client_ip>.*)$", "~^/(?<path>.*)$", "~^/(?P<rest>a)(?P<consumer>b)$"]);
        accepts::<PathText>(&["~^/(?P<tenant>.*)$", "/users/{id}", "/users/{id}/*", "/{a}/{b_2}/c"]);
        refuses::<PathText>(&[
            "/{path}/*",
            "/{host}",
            "/u-{id}",
            "/{id}.json",
            "/{Id}",
            "/{}",
            "/{{a}}",
            "/{a",
            "/{1}",
            "/{a}/{a}",
            "/{a}*",
            "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}",
        ]);
        accepts::<RewriteTo>(&["/v2{rest}", "/v2{path}", "{path}", "/x", "{path}/y"]);
        refuses::<RewriteTo>(&["", "{rest}", "v2", "/{rest", "/rest}", "/a?b", "/{}", "/{a b}", "{x}/y", "/%{x}"]);
        accepts::<RewriteTo>(&["/{x}", "/u/{id}/{header.x-a}{rest}", "/a-{1}.json"]);
        // what would be refused if it were written out
        refuses::<RewriteTo>(&[
            "/{path}",
            "/a/{rest}",
            "/a//b{path}",
            "/a/.{rest}",
            "{path}..",
            "/a%{path}",
            "{path}..;x",
        ]);
        accepts::<RewriteTo>(&["/a{path}{path}", "/.a{rest}", "{path}.html"]);
    }

    #[test]
    fn redirects_go_to_urls_or_paths_but_not_to_themselves() {
        accepts::<RedirectTo>(&[
            "https://a.example",
            "http://a.example{path}",
            "/",
            "/new{path}",
            "https://a.example/?from={path}",
        ]);
        accepts::<RedirectTo>(&[
            "{path}/",
            "https://a.example:8443/b{path}?c=d",
            "/a?next={path}",
            "http://[::1]:80/",
            "/a#b",
        ]);
        accepts::<RedirectTo>(&[
            "https://{host}{path_and_query}",
            "https://{host}:8443{path}",
            "{scheme}://new.example{path}",
            "https://www.{host}/?{query}",
            "https://sso.example/login?at={scheme}://{host}",
        ]);
        refuses::<RedirectTo>(&[
            "",
            "{path}",
            "a.example",
            "https://",
            "{host}{path}",
            "/a b",
            "/a\r\nx: y",
            "ftp://a",
        ]);
        refuses::<RedirectTo>(&[
            "{path_and_query}",
            "//{host}",
            "/a{query}",
            "https://{header.host}",
            "{query}",
            "{id}",
            "https://{id}.example/",
            "https://a.example{id}",
            "{id}://a.example",
            "//{id}",
        ]);
        accepts::<RedirectTo>(&["/users/{id}", "https://{host}/u/{1}?q={name}", "https://a.example/{id}{path}"]);
        // another host than it seems, by the client's choice or not
        refuses::<RedirectTo>(&[
            "/{path}",
            "//a.example",
            "https://{path}",
            "https:///a",
            "https://a.example/{path}",
            "https://u@a.example{path}",
            "https://a b",
            "https://a.example/..",
            "/a/../b{path}",
            "/%2f{path}",
            "/\\a",
        ]);
    }

    #[test]
    fn probes_ask_for_a_path_and_a_query() {
        accepts::<ProbePath>(&["/", "/healthz", "/h?deep=1&x=%20"]);
        refuses::<ProbePath>(&["", "healthz", "/h#x", "/h?a b", "/h?a#b", "http://a/"]);
    }
}
