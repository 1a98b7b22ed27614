//! Tests of the router: precedence, conditions, what is answered when nothing matches, and splits.

use super::*;
use crate::units::Rng;
use http::HeaderValue;
use rand::{RngExt as _, SeedableRng as _};

mod places;
mod rules;

fn host(name: &str) -> HostMatch {
    match name.strip_prefix("*.") {
        _ if name == "*" => HostMatch::Any,
        Some(suffix) => HostMatch::Wildcard(suffix.into()),
        None => match (name.strip_prefix('~'), name.strip_suffix(".*")) {
            (Some(regex), _) => HostMatch::Regex(regex.into()),
            (None, Some(beginning)) => HostMatch::Beginning(beginning.into()),
            (None, None) => HostMatch::Exact(name.into()),
        },
    }
}

fn path(pattern: &str) -> PathMatch {
    match (pattern.strip_prefix('~'), pattern.strip_suffix("/*")) {
        (Some(regex), _) => PathMatch::Regex(regex.into()),
        (None, Some(prefix)) if pattern.contains('{') => PathMatch::Template { path: prefix.into(), is_prefix: true },
        (None, None) if pattern.contains('{') => PathMatch::Template { path: pattern.into(), is_prefix: false },
        (None, Some(prefix)) => PathMatch::Prefix(prefix.into()),
        (None, None) => PathMatch::Exact(pattern.into()),
    }
}

fn rule(on_host: &str, on_path: &str) -> Match {
    Match { host: host(on_host), path: path(on_path), ..Match::default() }
}

fn methods(mut rule: Match, methods: &[Method]) -> Match {
    rule.methods = methods.to_vec();
    rule
}

fn header(mut rule: Match, name: &'static str, value: &'static str) -> Match {
    rule.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
    rule
}

fn query(mut rule: Match, name: &str, value: &str) -> Match {
    rule.query.push((name.into(), value.into()));
    rule
}

/// A request as a test writes it.
struct Ask<'a> {
    host: Option<&'a str>,
    target: &'a str,
    method: Method,
    headers: &'a [(&'static str, &'static str)],
}

impl<'a> Ask<'a> {
    fn get(host: &'a str, target: &'a str) -> Self {
        Self { host: Some(host), target, method: Method::GET, headers: &[] }
    }

    fn with<R>(&self, look: impl FnOnce(&RequestView<'_>) -> R) -> R {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        };
        let header = |name: &HeaderName, is: &mut dyn FnMut(&[u8]) -> bool| {
            self.headers.iter().any(|(other, value)| *other == name.as_str() && is(value.as_bytes()))
        };
        look(&RequestView {
            host: self.host,
            path,
            query,
            method: &self.method,
            source: Source::default(),
            header: &header,
        })
    }

    /// The row of the route, or `None` for 404 and 405.
    fn routed(&self, router: &Router) -> Option<usize> {
        self.with(|view| match router.route(view, &mut RouterCache::new()) {
            Routed::Route(route) => Some(route.index()),
            Routed::NoRoute | Routed::MethodNotAllowed(_) => None,
        })
    }
}

fn router(rules: &[Match]) -> Router {
    Router::from_matches(rules).expect("the rules of the test compile")
}

#[test]
fn an_exact_host_wins_over_the_longest_wildcard_and_that_over_any() {
    let router = router(&[
        rule("*", "/*"),
        rule("*.example", "/*"),
        rule("*.a.example", "/*"),
        rule("b.a.example", "/*"),
        rule("example", "/*"),
    ]);
    for (name, row) in [
        ("b.a.example", 3),
        ("B.A.Example", 3),
        ("b.a.example.", 3),
        ("c.a.example", 2),
        ("d.c.a.example", 2),
        ("a.example", 1),
        ("example", 4),
        ("notexample", 0),
        (".example", 0),
        ("", 0),
        ("other", 0),
    ] {
        assert_eq!(Ask::get(name, "/x").routed(&router), Some(row), "{name}");
    }
    assert_eq!(Ask { host: None, ..Ask::get("", "/x") }.routed(&router), Some(0));
    let long = "a.".repeat(200) + "example";
    assert_eq!(Ask::get(&long, "/x").routed(&router), Some(0), "no host name is that long");
}

#[test]
fn an_exact_path_wins_over_the_longest_prefix_and_that_over_a_regex() {
    let router = router(&[
        rule("*", "~^/a/.*$"),
        rule("*", "/a/*"),
        rule("*", "/a/b/*"),
        rule("*", "/a/b"),
        rule("*", "/"),
        rule("*", "~^/z[0-9]+$"),
        rule("*", "/t/"),
    ]);
    for (target, row) in [
        ("/a/b", Some(3)),
        ("/a/b/", Some(2)),
        ("/a/b/c/d", Some(2)),
        ("/a/bc", Some(1)),
        ("/a", Some(1)),
        ("/a/", Some(1)),
        ("/ab", None),
        ("/", Some(4)),
        ("/z12", Some(5)),
        ("/z12/", None),
        ("/t", None),
        ("/t/", Some(6)),
        ("/t/u", None),
        ("//", None),
        ("*", None),
    ] {
        assert_eq!(Ask::get("h", target).routed(&router), row, "{target}");
    }
}

#[test]
fn segments_and_hosts_of_every_length_are_told_apart_to_their_last_byte() {
    let names: Vec<String> = (0..64).flat_map(|length| ["x", "y"].map(|end| "s".repeat(length) + end)).collect();
    let rules: Vec<Match> = names
        .iter()
        .flat_map(|name| {
            [
                rule("*", &format!("/{name}/*")),
                rule(&format!("{name}.a.example"), "/"),
                rule(&format!("*.{name}.example"), "/"),
            ]
        })
        .collect();
    let router = router(&rules);
    for (index, name) in names.iter().enumerate() {
        assert_eq!(Ask::get("h", &format!("/{name}/{name}")).routed(&router), Some(3 * index));
        assert_eq!(Ask::get(&format!("{name}.a.example"), "/").routed(&router), Some(3 * index + 1));
        assert_eq!(Ask::get(&format!("{name}.{name}.example"), "/").routed(&router), Some(3 * index + 2));
        assert_eq!(Ask::get("h", &format!("/{name}z")).routed(&router), None);
    }
}

#[test]
fn a_prefix_of_everything_takes_every_path_and_the_asterisk_of_options() {
    let router = router(&[rule("*", "/*")]);
    for target in ["/", "/a", "//", "/a//b/", "*"] {
        assert_eq!(Ask::get("h", target).routed(&router), Some(0), "{target}");
    }
}

#[test]
fn the_next_best_host_or_path_is_tried_when_other_conditions_fail() {
    let router = router(&[
        header(rule("a.example", "/x/y/*"), "x-beta", "1"),
        rule("a.example", "/x/*"),
        rule("*.example", "/only/*"),
        rule("*", "/rest"),
    ]);
    let beta = Ask { headers: &[("x-beta", "1")], ..Ask::get("a.example", "/x/y/z") };
    assert_eq!(beta.routed(&router), Some(0));
    assert_eq!(Ask::get("a.example", "/x/y/z").routed(&router), Some(1), "a shorter prefix of the same host");
    assert_eq!(Ask::get("a.example", "/only/1").routed(&router), Some(2), "a wildcard that also covers the host");
    assert_eq!(Ask::get("a.example", "/rest").routed(&router), Some(3), "any host");
}

#[test]
fn more_conditions_win_and_then_file_order() {
    let router = router(&[
        rule("*", "/*"),
        rule("*", "/*"),
        query(rule("*", "/*"), "v", "2"),
        header(query(rule("*", "/*"), "v", "2"), "x-beta", "1"),
        header(rule("*", "/*"), "x-other", "1"),
    ]);
    let ask = |target, headers| Ask { headers, ..Ask::get("h", target) }.routed(&router);
    assert_eq!(ask("/", &[]), Some(0));
    assert_eq!(ask("/?v=2", &[]), Some(2));
    assert_eq!(ask("/?a&v=%32", &[("x-beta", "1")]), Some(3));
    assert_eq!(ask("/?v=2", &[("x-other", "1")]), Some(2), "one condition each: file order");
    assert_eq!(ask("/?v=3", &[("x-beta", "1"), ("x-other", "1")]), Some(4));
}

#[test]
fn a_route_for_get_takes_head_and_no_other_method() {
    let router = router(&[methods(rule("*", "/a"), &[Method::GET])]);
    let ask = |method| Ask { method, ..Ask::get("h", "/a") }.routed(&router);
    assert_eq!(ask(Method::HEAD), Some(0));
    assert_eq!(ask(Method::OPTIONS), None);
    assert_eq!(ask(Method::from_bytes(b"BREW").unwrap()), None);
}

#[test]
fn a_wrong_method_names_the_methods_of_all_routes_that_match_otherwise() {
    let brew = Method::from_bytes(b"BREW").unwrap();
    let router = router(&[
        methods(rule("*", "/*"), &[Method::POST]),
        methods(rule("a.example", "/a/*"), &[Method::GET, brew]),
        methods(header(rule("a.example", "/a/b"), "x-beta", "1"), &[Method::DELETE]),
        methods(rule("other", "/a/*"), &[Method::PUT]),
        methods(rule("*", "~^/a"), &[Method::PATCH]),
    ]);
    let allow = |target, headers| {
        Ask { method: Method::OPTIONS, headers, ..Ask::get("a.example", target) }.with(|view| {
            let mut cache = RouterCache::new();
            let Routed::MethodNotAllowed(allow) = router.route(view, &mut cache) else { panic!("no 405 for {target}") };
            let mut out = Vec::new();
            allow.write(&mut out);
            String::from_utf8(out).unwrap()
        })
    };
    assert_eq!(allow("/a/b", &[]), "POST, GET, HEAD, BREW, PATCH");
    assert_eq!(allow("/a/b", &[("x-beta", "1")]), "POST, GET, HEAD, BREW, DELETE, PATCH");
    assert_eq!(allow("/b", &[]), "POST");
}

#[test]
fn no_route_is_a_404_even_if_a_route_of_another_path_has_the_method() {
    let router = router(&[methods(rule("a.example", "/a"), &[Method::POST])]);
    for ask in [Ask::get("a.example", "/b"), Ask::get("b.example", "/a")] {
        assert!(ask.with(|view| router.route(view, &mut RouterCache::new()) == Routed::NoRoute));
    }
}

#[test]
fn headers_are_read_only_for_routes_that_ask_for_them() {
    let router = router(&[rule("*", "/plain"), header(rule("*", "/cond"), "x-beta", "1")]);
    let asked = std::cell::Cell::new(0);
    let header = |_: &HeaderName, _: &mut dyn FnMut(&[u8]) -> bool| {
        asked.set(asked.get() + 1);
        false
    };
    for (path, count) in [("/plain", 0), ("/cond", 1)] {
        let view = RequestView {
            host: None,
            path,
            query: None,
            method: &Method::GET,
            source: Source::default(),
            header: &header,
        };
        let _ = router.route(&view, &mut RouterCache::new());
        assert_eq!(asked.get(), count, "{path}");
    }
}

#[test]
fn any_path_is_the_last_resort_of_its_host() {
    let router = router(&[rule("*", "/*"), rule("*", "~^/r[0-9]+$"), rule("*", "/r/*"), rule("a.example", "/*")]);
    for (target, host, row) in
        [("/r1", "x", 1), ("/r/1", "x", 2), ("/rx", "x", 0), ("/", "x", 0), ("/r1", "a.example", 3)]
    {
        assert_eq!(Ask::get(host, target).routed(&router), Some(row), "{host} {target}");
    }
}

#[test]
fn a_regex_that_does_not_compile_names_its_route() {
    let rules = [rule("*", "/a"), rule("*", "~^/ok$"), rule("*", "~(")];
    let Err(RouterError::Regex { route, reason }) = Router::from_matches(&rules) else { panic!("it compiled") };
    assert_eq!(route, RouteId(2));
    assert!(reason.contains("unclosed group"), "{reason}");
}

#[test]
fn more_methods_than_a_set_holds_are_refused() {
    let rules: Vec<Match> = (0..=limits::METHODS_MAX)
        .map(|n| methods(rule("*", "/*"), &[Method::from_bytes(format!("M{n}").as_bytes()).unwrap()]))
        .collect();
    assert!(matches!(Router::from_matches(&rules), Err(RouterError::TooManyMethods)));
}

#[test]
fn a_port_is_cut_but_not_a_part_of_an_ipv6_address() {
    for (authority, name) in [
        ("a.example", "a.example"),
        ("a.example:80", "a.example"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        (":80", ""),
    ] {
        assert_eq!(host_without_port(authority), name);
    }
}

#[test]
fn explain_gives_the_reason_for_every_route_most_specific_first() {
    let router = router(&[
        rule("other", "/a"),
        rule("*", "/*"),
        methods(rule("*", "/a"), &[Method::POST]),
        rule("*", "/b"),
        header(rule("*", "/a"), "x-beta", "1"),
        query(rule("*", "/a/*"), "v", "2"),
        rule("*", "~^/a"),
    ]);
    let found = Ask::get("h", "/a").with(|view| router.explain(view));
    let found: Vec<(u32, MatchOutcome)> =
        found.into_iter().map(|considered| (considered.route.0, considered.outcome)).collect();
    assert_eq!(
        found,
        [
            (2, MatchOutcome::Method),
            (4, MatchOutcome::Header(HeaderName::from_static("x-beta"))),
            (5, MatchOutcome::Query("v".into())),
            (6, MatchOutcome::Chosen),
            (1, MatchOutcome::Outranked),
            (0, MatchOutcome::Host),
            (3, MatchOutcome::Path),
        ]
    );
}

fn pick<'a, T: ?Sized>(rng: &mut Rng, from: &[&'a T]) -> &'a T {
    from[rng.random_range(0..from.len())]
}

const HOSTS: &[&str] = &[
    "*",
    "*",
    "a.example",
    "b.a.example",
    "*.example",
    "*.a.example",
    "a.*",
    "b.a.*",
    "~^[a-c]\\.a\\.",
    "~a\\.example",
    "~.*\\.example|x.*",
];
const PATHS: &[&str] = &[
    "/*",
    "/a/*",
    "/a/b/*",
    "/a/b/c/*",
    "/a",
    "/a/b",
    "/a/",
    "/",
    "~^/a",
    "~b$",
    "~^/[a-c]+/b",
    "~/c/?$",
    "~^/.*/c$",
    "/{x}",
    "/{x}/*",
    "/a/{y}",
    "/a/{y}/*",
    "/{x}/b/*",
    "/{x}/{y}/c",
    "/{x}/b",
];

fn random_rule(rng: &mut Rng) -> Match {
    let mut made = rule(pick(rng, HOSTS), pick(rng, PATHS));
    if rng.random_ratio(1, 3) {
        made.other_hosts.push(host(pick(rng, HOSTS)));
        made.other_paths.extend([path(pick(rng, PATHS)), path(pick(rng, PATHS))]);
    }
    if rng.random_ratio(1, 3) {
        made = methods(made, pick(rng, &[&[Method::GET][..], &[Method::POST, Method::PUT], &[Method::HEAD]]));
    }
    if rng.random_ratio(1, 4) {
        made = header(made, pick(rng, &["x-a", "x-b"]), pick(rng, &["1", "2"]));
    }
    if rng.random_ratio(1, 4) {
        made = query(made, pick(rng, &["v", "w"]), pick(rng, &["1", "a b"]));
    }
    made
}

/// The tables against the one-by-one evaluation of `explain`, over random configurations and requests.
#[test]
fn the_compiled_tables_choose_what_a_scan_of_all_routes_chooses() {
    for seed in 0..256_u64 {
        let mut rng = Rng::seed_from_u64(seed);
        let rules: Vec<Match> = (0..rng.random_range(1..20)).map(|_| random_rule(&mut rng)).collect();
        let router = router(&rules);
        let mut cache = RouterCache::new();
        for _ in 0..12 {
            let path = pick(&mut rng, &["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/b/c/d", "/ab", "/c/c", "/b/b", "*"]);
            let target = format!("{path}{}", pick(&mut rng, &["", "?v=1", "?w=a+b&v=1", "?v=a%20b", "?v=2&v=1"]));
            let ask = Ask {
                host: Some(pick(
                    &mut rng,
                    &["a.example", "b.a.example", "C.A.example", "x.example.", "example", "other"],
                )),
                target: &target,
                method: pick(&mut rng, &[&Method::GET, &Method::POST, &Method::HEAD, &Method::TRACE]).clone(),
                headers: pick(&mut rng, &[&[][..], &[("x-a", "1")], &[("x-a", "2"), ("x-b", "1")]]),
            };
            ask.with(|view| {
                let explained = router.explain(view);
                let chosen = explained.iter().find(|considered| considered.outcome == MatchOutcome::Chosen);
                let wrong_method = explained.iter().any(|considered| considered.outcome == MatchOutcome::Method);
                let note =
                    format!("seed {seed}: {:?} {} {target} {:?} in {rules:#?}", view.host, view.method, ask.headers);
                match (router.route(view, &mut cache), chosen) {
                    (Routed::Route(route), Some(considered)) => assert_eq!(route, considered.route, "{note}"),
                    (Routed::MethodNotAllowed(_), None) => assert!(wrong_method, "{note}"),
                    (Routed::NoRoute, None) => assert!(!wrong_method, "{note}"),
                    (routed, chosen) => panic!("{routed:?} but {chosen:?}, {note}"),
                }
            });
        }
    }
}
