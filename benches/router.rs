//! What routing costs as the number of routes grows: exact paths, prefixes, many hosts, regexes; and matchit for comparison.
//!
//! `hot`: ten requests, spread over the table, again and again. `all`: every route in its turn, so that a table (and the requests
//! themselves) that do not fit in the cache show it.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderName, Method};
use ringgate::config::{HostMatch, Match, PathMatch};
use ringgate::policy::router::{RequestView, Routed, Router, RouterCache, Source};
use std::hint::black_box;

/// A name, what makes the n-th case, and how many of them.
type Kind = (&'static str, fn(usize) -> Case, &'static [usize]);

/// A route and a request that it takes.
struct Case {
    rule: Match,
    host: String,
    path: String,
}

fn exact(n: usize) -> Case {
    let path = format!("/api/v1/service{n}/list");
    Case { rule: on("api.example.com", PathMatch::Exact(path.clone())), host: "api.example.com".into(), path }
}

fn prefix(n: usize) -> Case {
    let rule = on("api.example.com", PathMatch::Prefix(format!("/api/v1/service{n}")));
    Case { rule, host: "api.example.com".into(), path: format!("/api/v1/service{n}/items/12345") }
}

fn hosts(n: usize) -> Case {
    let host = format!("tenant{n}.example.com");
    Case { rule: on(&host, PathMatch::Prefix("/api".into())), host, path: "/api/v1/items/12345".into() }
}

fn regex(n: usize) -> Case {
    let rule = on("api.example.com", PathMatch::Regex(format!("^/api/v[0-9]+/service{n}/[a-z]+$")));
    Case { rule, host: "api.example.com".into(), path: format!("/api/v1/service{n}/list") }
}

fn on(host: &str, path: PathMatch) -> Match {
    Match { host: HostMatch::Exact(host.into()), path, ..Match::default() }
}

fn routes(criterion: &mut Criterion) {
    let kinds: [Kind; 4] = [
        ("exact", exact, &[10, 1_000, 10_000]),
        ("prefix", prefix, &[10, 1_000, 10_000]),
        ("hosts", hosts, &[10, 1_000, 10_000]),
        ("regex", regex, &[10, 1_000]),
    ];
    for (kind, make, counts) in kinds {
        for (traffic, different) in [("hot", 10), ("all", usize::MAX)] {
            let mut group = criterion.benchmark_group(format!("router/{kind}/{traffic}"));
            for &count in counts {
                let cases: Vec<Case> = (0..count).map(make).collect();
                let router = Router::from_matches(cases.iter().map(|case| &case.rule)).expect("the routes compile");
                let (mut cache, mut turn) = (RouterCache::new(), 0);
                group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                    bencher.iter(|| {
                        turn = if turn + 1 < different { turn + 1 } else { 0 };
                        let next = spread(turn, count);
                        let (case, none) = (&cases[next], |_: &HeaderName, _: &mut dyn FnMut(&[u8]) -> bool| false);
                        let view = RequestView {
                            host: Some(&case.host),
                            path: &case.path,
                            query: None,
                            method: &Method::GET,
                            source: Source::default(),
                            header: &none,
                        };
                        let routed = router.route(black_box(&view), &mut cache);
                        assert!(matches!(routed, Routed::Route(route) if route.index() == next));
                    });
                });
            }
        }
    }
}

/// Neighbours in time are not neighbours in the table.
fn spread(turn: usize, count: usize) -> usize {
    turn.wrapping_mul(7_919) % count
}

fn matchit_prefixes(criterion: &mut Criterion) {
    for (traffic, different) in [("hot", 10), ("all", usize::MAX)] {
        let mut group = criterion.benchmark_group(format!("router/matchit_prefix/{traffic}"));
        for count in [10, 1_000, 10_000] {
            let paths: Vec<String> = (0..count).map(|n| prefix(n).path).collect();
            let mut router = matchit::Router::new();
            for n in 0..count {
                for tail in ["", "/", "/{*rest}"] {
                    router.insert(format!("/api/v1/service{n}{tail}"), n).expect("no conflict");
                }
            }
            let mut turn = 0;
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    turn = if turn + 1 < different { turn + 1 } else { 0 };
                    let next = spread(turn, count);
                    assert_eq!(*router.at(black_box(&paths[next])).expect("a route").value, next);
                });
            });
        }
    }
}

criterion_group!(benches, routes, matchit_prefixes);
criterion_main!(benches);
