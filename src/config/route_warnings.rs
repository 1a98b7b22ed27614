//! Routes that take less, or more, than they seem to.
//!
//! The most specific route wins. So a rule for all hosts that keeps something away is overtaken by the route of one host, and nothing is
//! refused: that is legal, and an open door when it was not meant. Only routes that lead to an upstream are told of, for what the gateway
//! answers itself gives nothing away.
//!
//! Whether two regexes have a path in common is not decided; only equal ones are compared. A regex that does not begin with `^` and plain text
//! is taken to have paths in common with every prefix.

use super::matching::{placeholder, segments};
use super::{Condition, Config, HostMatch, Match, PathMatch, Protocol, Route, Target, paths};
use crate::units::ClusterId;
use http::Method;
use regex_automata::meta::Regex;

/// Pairs of routes that are compared, so that a file with very many of them does not keep a reload waiting.
const PAIRS_MAX: usize = 2_000_000;

/// Warnings of a kind that are written out.
const LINES_MAX: usize = 50;

/// One sentence each, in the order of the file's routes.
pub(super) fn of(config: &Config) -> Vec<String> {
    let mut warnings: Vec<String> =
        config.routes.iter().flat_map(|route| alone(route, config)).take(LINES_MAX).collect();
    let asks_everywhere = config.listeners.iter().all(|listener| !listener.auth.is_empty());
    let mut pairs = PAIRS_MAX;
    let mut told = 0;
    for (row, guard) in config.routes.iter().enumerate().filter(|(_, route)| protects(route)) {
        if told == LINES_MAX {
            break;
        }
        let Some(left) = pairs.checked_sub(config.routes.len()) else {
            warnings.push(format!("route {:?} and those behind it: too many to look who overtakes them", guard.name));
            break;
        };
        pairs = left;
        let compiled = |path: &PathMatch| match path {
            PathMatch::Regex(pattern) => paths::compile_regex(pattern, Regex::config()).ok(),
            _ => None,
        };
        let regexes: Vec<_> = guard.matcher.paths().map(compiled).collect();
        let overtakes = |(other, route): &(usize, &Route)| {
            lacks(route, guard, asks_everywhere)
                && conditions_meet(&route.matcher, &guard.matcher)
                && is_before((*other, &route.matcher), (row, &guard.matcher), &regexes)
        };
        let mut found = config.routes.iter().enumerate().filter(overtakes).map(|(_, route)| &route.name);
        let Some(first) = found.next() else { continue };
        let more = match found.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        told += 1;
        warnings.push(format!(
            "route {:?} is overtaken by the more specific route {first:?}{more}, which does not have its protection",
            guard.name
        ));
    }
    warnings
}

/// What is odd about a route by itself.
fn alone(route: &Route, config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let lonely = route.matcher.paths().find_map(|path| match path {
        PathMatch::Exact(path) => {
            path.strip_suffix('/').filter(|prefix| !prefix.is_empty()).map(|prefix| (path, prefix))
        }
        _ => None,
    });
    if let Some((path, prefix)) = lonely
        && !config.routes.iter().any(|other| {
            other.matcher.hosts().any(|host| *host == route.matcher.host)
                && other.matcher.paths().any(|path| matches!(path, PathMatch::Prefix(taken) if taken == prefix))
        })
    {
        warnings.push(format!(
            "route {:?}: match.path {path:?} is this one path; \"{prefix}/*\" takes what is below it",
            route.name
        ));
    }
    if route.body_bytes_max == Some(0) {
        warnings.push(format!(
            "route {:?}: max_body = \"0B\" forbids every body; it does not stand for no limit",
            route.name
        ));
    }
    if route.grpc_web
        && let Target::Upstream(parts) = &route.target
    {
        let is_deaf = |&&(cluster, _): &&(ClusterId, _)| config.clusters[cluster.index()].protocol == Protocol::Http1;
        warnings.extend(parts.iter().filter(is_deaf).map(|(cluster, _)| {
            let name = &config.clusters[cluster.index()].name;
            format!(
                "route {:?}: grpc_web makes nothing of calls to upstream {name:?}, which speaks HTTP/1.1 (protocol)",
                route.name
            )
        }));
    }
    warnings
}

/// Whether a route keeps anybody away. One that answers 404 to all that no other route takes does not.
fn protects(route: &Route) -> bool {
    if route.is_guard {
        return false; // which nobody overtakes
    }
    let matcher = &route.matcher;
    let is_catch_all = matcher.paths().any(|path| *path == PathMatch::default()) && matcher.conditions() == 0;
    let refuses = matches!(&route.target, Target::Respond { status, .. } if status.is_client_error());
    (refuses && !is_catch_all) || route.auth.as_ref().is_some_and(|ways| !ways.is_empty()) || has_rules(route)
}

fn has_rules(route: &Route) -> bool {
    route.access.allow.iter().chain(&route.access.deny).any(|rule| !rule.dry_run)
}

/// Whether `route` lets in whom `guard` keeps away. `auth = []` says that everybody is meant.
fn lacks(route: &Route, guard: &Route, asks_everywhere: bool) -> bool {
    if !matches!(route.target, Target::Upstream(_)) {
        return false;
    }
    if let Target::Respond { status, .. } = &guard.target
        && status.is_client_error()
    {
        // "there is nothing else below /api", said by a 404 for the rest
        let below = |path| guard.matcher.paths().any(|prefix| is_below(path, prefix));
        let is_rest = status.as_u16() == 404 && route.matcher.paths().all(below);
        return !is_rest;
    }
    let asks = guard.auth.as_ref().is_some_and(|ways| !ways.is_empty());
    if route.auth.as_ref().is_some_and(Vec::is_empty) && asks {
        return false;
    }
    (asks && route.auth.is_none() && !asks_everywhere) || (has_rules(guard) && !has_rules(route))
}

/// Whether a request may have a host and a path of both, by which the first is tried before the second: the router's order. `regexes` are the
/// second's paths, where they are some.
fn is_before((row, first): (usize, &Match), (other_row, second): (usize, &Match), regexes: &[Option<Regex>]) -> bool {
    let hosts = first.hosts().flat_map(|one| second.hosts().map(move |other| (one, other)));
    let hosts = hosts.filter(|(one, other)| hosts_meet(one, other)).map(|(one, other)| one.rank().cmp(&other.rank()));
    let paths = first.paths().flat_map(|one| second.paths().zip(regexes).map(move |other| (one, other)));
    let paths = paths.filter(|(one, (other, regex))| paths_meet(one, other, regex.as_ref()));
    let paths = paths.map(|(one, (other, _))| one.rank().cmp(&other.rank()));
    // by any host that both have, and any path
    let (Some(host), Some(path)) = (hosts.max(), paths.max()) else { return false };
    let conditions = first.conditions().cmp(&second.conditions());
    host.then(path).then(conditions).then(other_row.cmp(&row)).is_gt()
}

/// Whether a request may match both, but for host and path.
fn conditions_meet(first: &Match, second: &Match) -> bool {
    methods_meet(&first.methods, &second.methods)
        && pairs_meet(&first.headers, &second.headers)
        && pairs_meet(&first.query, &second.query)
        && sources_meet(&first.more, &second.more)
}

fn hosts_meet(first: &HostMatch, second: &HostMatch) -> bool {
    let is_under = |host: &str, suffix: &str| host.strip_suffix(suffix).is_some_and(|labels| labels.ends_with('.'));
    let is_over = |host: &str, name: &str| host.strip_prefix(name).is_some_and(|labels| labels.starts_with('.'));
    match (first, second) {
        (HostMatch::Any, _) | (_, HostMatch::Any) => true,
        (HostMatch::Regex(first), HostMatch::Regex(second)) => first == second,
        (HostMatch::Regex(_), _) | (_, HostMatch::Regex(_)) => true,
        (HostMatch::Beginning(name), HostMatch::Exact(host)) | (HostMatch::Exact(host), HostMatch::Beginning(name)) => {
            is_over(host, name)
        }
        (HostMatch::Beginning(first), HostMatch::Beginning(second)) => {
            first == second || is_over(first, second) || is_over(second, first)
        }
        (HostMatch::Beginning(_), HostMatch::Wildcard(_)) | (HostMatch::Wildcard(_), HostMatch::Beginning(_)) => true,
        (HostMatch::Exact(first), HostMatch::Exact(second)) => first == second,
        (HostMatch::Exact(host), HostMatch::Wildcard(suffix))
        | (HostMatch::Wildcard(suffix), HostMatch::Exact(host)) => is_under(host, suffix),
        (HostMatch::Wildcard(first), HostMatch::Wildcard(second)) => {
            first == second || is_under(first, second) || is_under(second, first)
        }
    }
}

/// GET stands for HEAD too.
fn methods_meet(first: &[Method], second: &[Method]) -> bool {
    let takes = |list: &[Method], method: &Method| {
        list.contains(method) || (*method == Method::HEAD && list.contains(&Method::GET))
    };
    first.is_empty()
        || second.is_empty()
        || first.iter().any(|method| takes(second, method))
        || second.iter().any(|method| takes(first, method))
}

/// Whether no name is to have two values.
fn pairs_meet<K: PartialEq, V: PartialEq>(first: &[(K, V)], second: &[(K, V)]) -> bool {
    first.iter().all(|(name, value)| second.iter().all(|(other, wanted)| name != other || value == wanted))
}

/// Whether a request may come from where both say. What values are to be is not compared, but for texts that are the same for both.
fn sources_meet(first: &[Condition], second: &[Condition]) -> bool {
    let meet = |one: &Condition, other: &Condition| match (one, other) {
        (Condition::Listener(one), Condition::Listener(other)) => one.iter().any(|name| other.contains(name)),
        (Condition::Scheme(one), Condition::Scheme(other)) => one == other,
        (Condition::ClientIp(one), Condition::ClientIp(other)) => {
            one.iter().any(|net| other.iter().any(|with| net.contains(with) || with.contains(net)))
        }
        _ => true,
    };
    first.iter().all(|one| second.iter().all(|other| meet(one, other)))
}

fn paths_meet(first: &PathMatch, second: &PathMatch, regex: Option<&Regex>) -> bool {
    match (first, second) {
        (PathMatch::Exact(path), PathMatch::Regex(_)) => regex.is_none_or(|regex| regex.is_match(path)),
        (PathMatch::Regex(first), PathMatch::Regex(second)) => first == second,
        (PathMatch::Prefix(_) | PathMatch::Template { .. }, PathMatch::Regex(pattern))
        | (PathMatch::Regex(pattern), PathMatch::Prefix(_) | PathMatch::Template { .. }) => {
            let plain = if matches!(first, PathMatch::Regex(_)) { second } else { first };
            let prefix = written_out(plain);
            let (begins, below) = (beginning(pattern), format!("{prefix}/"));
            below.starts_with(&begins) || begins.starts_with(&below) || begins == prefix
        }
        (PathMatch::Regex(_), PathMatch::Exact(_)) => true,
        _ => plain_paths_meet(first, second),
    }
}

/// What a path without regex certainly begins with.
fn written_out(path: &PathMatch) -> &str {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path,
        PathMatch::Template { path, .. } => path.split("/{").next().unwrap_or_default(),
        PathMatch::Regex(_) => "",
    }
}

/// Whether two paths without regexes have one in common: segment by segment, until one of them leaves the rest open.
fn plain_paths_meet(first: &PathMatch, second: &PathMatch) -> bool {
    let parts = |path: &PathMatch| {
        let text = path.to_string();
        let is_open = text.ends_with("/*");
        (text.strip_suffix("/*").unwrap_or(&text).to_owned(), is_open)
    };
    let ((first, first_open), (second, second_open)) = (parts(first), parts(second));
    let (mut one, mut other) = (segments(&first), segments(&second));
    loop {
        match (one.next(), other.next()) {
            (Some(one), Some(other)) => {
                if one != other && placeholder(one).is_none() && placeholder(other).is_none() {
                    return false;
                }
            }
            (None, None) => return true,
            (None, Some(_)) => return first_open,
            (Some(_), None) => return second_open,
        }
    }
}

/// Whether all paths of the first are among those of the second, which is a prefix or the same path.
fn is_below(first: &PathMatch, second: &PathMatch) -> bool {
    match (first, second) {
        (PathMatch::Exact(first), PathMatch::Exact(second)) => first == second,
        (
            PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Template { path, .. },
            PathMatch::Prefix(prefix),
        ) => path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        _ => false,
    }
}

/// The plain text that every match begins with; less of it than there is, at worst nothing.
fn beginning(pattern: &str) -> String {
    let Some(anchored) = pattern.strip_prefix('^').filter(|rest| !rest.contains('|')) else { return String::new() };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_');
    let mut begins: String = anchored.chars().take_while(|c| is_plain(*c)).collect();
    if anchored[begins.len()..].starts_with(['?', '*', '{']) {
        begins.pop(); // it need not be there
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::super::check::parse_for;

    fn of(routes: &str) -> Vec<String> {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n{routes}\n[upstream.a]\nendpoints = [{{ address = \"10.0.0.1:1\" }}]\n\
             [auth.key]\nheader = \"x-key\"\n[consumer.acme]\n"
        );
        super::of(&parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}")))
    }

    /// A route that is called `name`.
    fn route(name: &str, matcher: &str, rest: &str) -> String {
        format!("[[route]]\nname = \"{name}\"\nmatch = {{ {matcher} }}\n{rest}\n")
    }

    const UP: &str = "upstream = \"a\"";
    const DENY: &str = "respond = { status = 403 }";
    const NOTHING: &str = "respond = { status = 404 }";
    const KEY: &str = "upstream = \"a\"\nauth = [\"key\"]";

    #[test]
    fn a_protection_that_is_overtaken_is_told() {
        for (guard, guarded, other, open) in [
            ("path = '~/\\.env'", NOTHING, "path = '/api/*'", UP),
            ("path = '~^/api/x'", NOTHING, "path = '/api/*'", UP),
            ("path = '~^/a?dmin'", NOTHING, "path = '/admin'", UP),
            ("path = '/admin/*'", NOTHING, "host = 'a.example'", UP),
            ("path = '/admin/*'", DENY, "path = '/admin/open'", UP),
            ("host = '*.example', path = '/admin/*'", DENY, "host = 'a.example', path = '/*'", UP),
            ("header = { x-bad = '1' }", DENY, "path = '/api/*'", UP),
            ("path = '/*'", KEY, "path = '/orders/*'", UP),
            ("path = '/*'", KEY, "method = ['GET']", UP),
            ("path = '/*'", "upstream = 'a'\ndeny = { client_ip = ['10.0.0.0/8'] }", "path = '/orders/*'", UP),
        ] {
            for routes in [
                route("guard", guard, guarded) + &route("open", other, open),
                route("open", other, open) + &route("guard", guard, guarded),
            ] {
                let wanted = "route \"guard\" is overtaken by the more specific route \"open\", which does not have its protection";
                assert_eq!(of(&routes), [wanted], "{routes}");
            }
        }
    }

    #[test]
    fn what_is_meant_is_not_told() {
        for (guard, guarded, other, open) in [
            ("path = '/*'", NOTHING, "path = '/api/*'", UP),
            ("path = '/api/*'", NOTHING, "path = '/api/orders/*'", UP),
            ("path = '~^/admin'", NOTHING, "path = '/api/*'", UP),
            ("path = '~^/admin$'", NOTHING, "path = '/api'", UP),
            ("path = '/admin/*'", DENY, "path = '/administration/*'", UP),
            ("path = '/admin/*'", DENY, "path = '/*'", UP),
            ("host = 'a.example', path = '/admin/*'", DENY, "host = 'b.example'", UP),
            ("host = '*.example', path = '/admin/*'", DENY, "host = 'aexample'", UP),
            ("path = '/*'", KEY, "path = '/public/*'", "upstream = \"a\"\nauth = []"),
            ("path = '/*'", KEY, "path = '/orders/*'", KEY),
            ("path = '/*'", KEY, "path = '/health'", "respond = {}"),
            ("path = '/*', method = ['POST']", KEY, "path = '/orders/*', method = ['GET']", UP),
            ("header = { x-a = '1' }", DENY, "path = '/b', header = { x-a = '2' }", UP),
        ] {
            let routes = route("guard", guard, guarded) + &route("open", other, open);
            assert_eq!(of(&routes), [""; 0], "{routes}");
        }
    }

    #[test]
    fn a_path_that_ends_in_a_slash_is_one_path() {
        let wanted = "route \"r\": match.path \"/api/\" is this one path; \"/api/*\" takes what is below it";
        assert_eq!(of(&route("r", "path = '/api/'", UP)), [wanted]);
        assert_eq!(of(&(route("r", "path = '/api/'", UP) + &route("all", "path = '/api/*'", UP))), [""; 0]);
        assert_eq!(of(&route("r", "path = '/'", UP)), [""; 0]);
    }

    #[test]
    fn no_room_for_a_body_is_told() {
        let wanted = "route \"r\": max_body = \"0B\" forbids every body; it does not stand for no limit";
        assert_eq!(of(&route("r", "path = '/a'", "upstream = \"a\"\nmax_body = \"0B\"")), [wanted]);
        assert_eq!(of(&route("r", "path = '/a'", "upstream = \"a\"\nmax_body = \"1B\"")), [""; 0]);
    }

    #[test]
    fn grpc_web_to_who_speaks_http1_is_told() {
        let wanted = "route \"r\": grpc_web makes nothing of calls to upstream \"a\", which speaks HTTP/1.1 (protocol)";
        assert_eq!(of(&route("r", "path = '/a'", "upstream = \"a\"\ngrpc_web = true")), [wanted]);
    }
}
