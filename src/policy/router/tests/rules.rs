//! Tests of guards, which come first, and of conditions besides host, path and method.

use super::*;

#[test]
fn guards_are_asked_first_and_are_among_themselves_as_routes_are() {
    let seed = 0x5eed_0911;
    println!("seed {seed:#x}");
    let mut rng = crate::units::Rng::seed_from_u64(seed);
    let hosts = [HostMatch::Any, HostMatch::Exact("a.example".into()), HostMatch::Wildcard("example".into())];
    let paths = ["/*", "/a/*", "/a/b", "/a/b/*", "~/b", "~^/a"];
    let methods = [vec![], vec![Method::GET], vec![Method::POST]];
    for _ in 0..300 {
        let mut draw = || {
            let path = match paths[rng.random_range(0..paths.len())] {
                regex if regex.starts_with('~') => PathMatch::Regex(regex[1..].into()),
                path => path
                    .strip_suffix("/*")
                    .map_or_else(|| PathMatch::Exact(path.into()), |prefix| PathMatch::Prefix(prefix.into())),
            };
            let (host, method) = (rng.random_range(0..3), rng.random_range(0..3));
            Match { host: hosts[host].clone(), path, methods: methods[method].clone(), ..Match::default() }
        };
        let rules: Vec<Match> = (0..8).map(|_| draw()).collect();
        let router = Router::compile(rules.clone().into(), 5).unwrap();
        let (routes, guards) = (Router::from_matches(&rules[..5]).unwrap(), Router::from_matches(&rules[5..]).unwrap());
        let mut caches = [(); 3].map(|()| RouterCache::new());
        for host in ["a.example", "b.example", "other"] {
            for path in ["/", "/a", "/a/b", "/a/b/c", "/x/b"] {
                for method in [Method::GET, Method::POST] {
                    let header = |_: &HeaderName, _: &mut dyn FnMut(&[u8]) -> bool| false;
                    let request = RequestView {
                        host: Some(host),
                        path,
                        query: None,
                        method: &method,
                        source: Source::default(),
                        header: &header,
                    };
                    let expected = match guards.route(&request, &mut caches[0]) {
                        Routed::Route(guard) => Some(guard.index() + 5),
                        _ => match routes.route(&request, &mut caches[1]) {
                            Routed::Route(route) => Some(route.index()),
                            _ => None,
                        },
                    };
                    let found = match router.route(&request, &mut caches[2]) {
                        Routed::Route(route) => Some(route.index()),
                        _ => None,
                    };
                    assert_eq!(found, expected, "{method} {host}{path} of {rules:?}");
                    let explained = router.explain(&request);
                    let chosen = explained.iter().find(|one| one.outcome == MatchOutcome::Chosen);
                    assert_eq!(chosen.map(|one| one.route.index()), expected, "{method} {host}{path} of {rules:?}");
                }
            }
        }
    }
}

/// Whether a route with these conditions takes the request; both implementations say the same.
fn matched(conditions: &str, target: &str, fields: &[(&str, &str)], source: Source<'_>) -> bool {
    let text = format!(
        "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"inside\"\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nmatch = {{ {conditions} }}\nrespond = {{}}\n"
    );
    let config = crate::config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}"));
    let router = Router::try_new(&config).unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let header = |name: &HeaderName, is: &mut dyn FnMut(&[u8]) -> bool| {
        fields.iter().any(|(other, value)| *other == name.as_str() && is(value.as_bytes()))
    };
    let view = RequestView { host: None, path, query, method: &Method::GET, source, header: &header };
    let is_routed = matches!(router.route(&view, &mut RouterCache::new()), Routed::Route(_));
    let chosen = router.explain(&view)[0].outcome == MatchOutcome::Chosen;
    assert_eq!(is_routed, chosen, "{conditions} of {target} {fields:?}");
    is_routed
}

#[test]
fn conditions_are_about_values() {
    let nowhere = Source::default();
    for (test, value, holds) in [
        ("'a'", Some("a"), true),
        ("'a'", Some("ab"), false),
        ("'a'", None, false),
        ("{ prefix = 'a' }", Some("ab"), true),
        ("{ prefix = 'a' }", Some("ba"), false),
        ("{ prefix = 'a' }", None, false),
        ("{ regex = '^[0-9]+$' }", Some("12"), true),
        ("{ regex = '^[0-9]+$' }", Some("12x"), false),
        ("{ regex = 'x' }", None, false),
        ("{ not = 'a' }", Some("a"), false),
        ("{ not = 'a' }", Some("b"), true),
        ("{ not = 'a' }", None, true),
        ("{ present = true }", Some(""), true),
        ("{ present = true }", None, false),
        ("{ present = false }", Some("a"), false),
        ("{ present = false }", None, true),
    ] {
        let fields: Vec<_> = value.map(|value| ("x-a", value)).into_iter().collect();
        assert_eq!(
            matched(&format!("header = {{ x-a = {test} }}"), "/", &fields, nowhere),
            holds,
            "header {test} {value:?}"
        );
        let target = value.map_or_else(|| "/?b=1".to_owned(), |value| format!("/?b=1&%61={value}&c=z"));
        assert_eq!(
            matched(&format!("query = {{ a = {test} }}"), &target, &[], nowhere),
            holds,
            "query {test} {value:?}"
        );
        let cookies = value.map_or_else(|| "xa=1".to_owned(), |value| format!("xa=1; a={value};c=z"));
        let cookies = [("cookie", cookies.as_str())];
        assert_eq!(
            matched(&format!("cookie = {{ a = {test} }}"), "/", &cookies, nowhere),
            holds,
            "cookie {test} {value:?}"
        );
    }
    assert!(matched("query = { a = { prefix = 'b c/' } }", "/?a=b+c%2Fd", &[], nowhere));
}

#[test]
fn conditions_are_about_where_a_request_comes_from() {
    let nowhere = Source::default();
    let source = |listener, scheme, client: &str| Source { listener, scheme, client: client.parse().ok() };
    let edge = source("edge", "https", "192.0.2.7");
    for (conditions, holds) in [
        ("listener = ['edge']", true),
        ("listener = ['inside', 'edge']", true),
        ("listener = ['inside']", false),
        ("scheme = 'https'", true),
        ("scheme = 'http'", false),
        ("client_ip = ['10.0.0.0/8', '192.0.2.0/24']", true),
        ("client_ip = ['10.0.0.0/8']", false),
        ("scheme = 'https', listener = ['inside']", false),
    ] {
        assert_eq!(matched(conditions, "/", &[], edge), holds, "{conditions}");
    }
    assert!(matched("client_ip = ['10.0.0.0/8']", "/", &[], source("edge", "http", "::ffff:10.1.1.1")));
    assert!(!matched("client_ip = ['0.0.0.0/0', '::/0']", "/", &[], nowhere), "a unix socket's peer has no address");
}

/// Nobody knows which of them the endpoint takes.
#[test]
fn of_a_name_that_stands_there_twice_one_value_is_enough() {
    let fields = [("cookie", "a=b; c=1"), ("cookie", "a=evil"), ("x-role", "user"), ("x-role", "admin")];
    for (conditions, holds) in [
        ("cookie = { a = \"evil\" }", true),
        ("cookie = { a = { prefix = \"ev\" } }", true),
        ("cookie = { a = \"c\" }", false),
        ("cookie = { c = { not = \"1\" } }", false),
        ("cookie = { d = { present = false } }", true),
        ("header = { x-role = \"admin\" }", true),
        ("header = { x-role = { regex = \"adm.*\" } }", true),
        ("header = { x-role = { not = \"user\" } }", true),
        ("header = { x-role = { present = false } }", false),
        ("query = { q = \"2\" }", true),
        ("query = { q = { regex = \"[2]\" } }", true),
        ("query = { q = { not = \"3\" } }", true),
        ("query = { q = \"3\" }", false),
    ] {
        assert_eq!(matched(conditions, "/?q=1&q=2", &fields, Source::default()), holds, "{conditions}");
    }
}
