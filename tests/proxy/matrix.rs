//! Who may do what, over routes, identities and rules drawn by a seed: what the gateway answers is compared with a second reading of the rules, which
//! is written here as the documentation says it and knows nothing of the gateway's code. Then nothing of what was shown is found anywhere.

use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use crate::tokens::{JWK, bearer, now};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::fmt::Write as _;

const SEEDS: [u64; 2] = [18, 2026];
const ROUTES: usize = 24;

const ACME_KEY: &str = "acme-planted-key-1b7e";
const BOLT_KEY: &str = "bolt-planted-key-90aa";
/// Of [`PASSWORD`], by libxcrypt.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6";
const PASSWORD: &str = "orange pie";
const SECRET: &str = "a-planted-secret-of-at-least-32-bytes-that-nobody-knows";

/// Of the key that requests could be signed with, and of Redis, which is not there.
const SIGNING: &str = "a-planted-key-that-requests-are-signed-with";
const REDIS: &str = "planted-password-of-redis";

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "DELETE"];
const SOURCES: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.1.7"];
const WAYS: [&str; 4] = ["key", "login", "jwt", "hs"];

/// One rule, as drawn.
#[derive(Debug, Default)]
struct Rule {
    consumers: Vec<&'static str>,
    groups: Vec<&'static str>,
    scope: Option<&'static str>,
    /// A network: how it is written, and what addresses in it begin with.
    network: Option<(&'static str, &'static str)>,
    methods: Vec<&'static str>,
}

/// `auth`, `allow` and `deny` of a route or listener.
#[derive(Debug, Default)]
struct Guard {
    ways: Option<Vec<&'static str>>,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    dry_allow: bool,
    dry_deny: bool,
}

/// `[[guard]]` before one route: whatever it is, nobody is asked who he is.
#[derive(Debug)]
struct Gate {
    row: usize,
    method: Option<&'static str>,
    /// As in [`Rule::network`].
    network: Option<(&'static str, &'static str)>,
    /// `None`: it denies.
    status: Option<u16>,
}

impl Gate {
    fn drawn(rng: &mut StdRng, row: usize) -> Option<Self> {
        let network = [None, Some(("127.0.0.0/24", "127.0.0.")), Some(("127.0.1.7/32", "127.0.1.7"))];
        rng.random_bool(0.3).then(|| Self {
            row,
            method: [None, Some("POST"), Some("DELETE")][rng.random_range(0..3)],
            network: network[rng.random_range(0..3)],
            status: [None, Some(410)][rng.random_range(0..2)],
        })
    }

    fn written(&self) -> String {
        let method = self.method.map(|method| format!(", method = [\"{method}\"]")).unwrap_or_default();
        let network = self.network.map(|(written, _)| format!(", client_ip = [\"{written}\"]")).unwrap_or_default();
        let what = self.status.map_or("deny = true".to_owned(), |status| format!("respond = {{ status = {status} }}"));
        format!("[[guard]]\nmatch = {{ path = \"/{}/*\"{method}{network} }}\n{what}\n", self.row)
    }

    /// What it answers, if it is met.
    fn answer(&self, row: usize, source: &str, method: &str) -> Option<u16> {
        let is_met = row == self.row
            && self.method.is_none_or(|own| own == method)
            && self.network.is_none_or(|(_, start)| source.starts_with(start));
        is_met.then(|| self.status.unwrap_or(403))
    }
}

/// Somebody who comes with something.
struct Shows {
    headers: Vec<(&'static str, String)>,
    /// By which ways he is recognised, and as whom.
    by: Vec<(&'static str, Who)>,
}

#[derive(Clone, Copy)]
struct Who {
    name: &'static str,
    groups: &'static [&'static str],
    /// Of a token: the words of its scope.
    scope: Option<&'static [&'static str]>,
}

const ACME: Who = Who { name: "acme", groups: &["partners", "eu"], scope: None };
const BOLT: Who = Who { name: "bolt", groups: &["eu"], scope: None };
const DORA: Who = Who { name: "dora", groups: &["staff"], scope: None };

fn hs256(claims: &serde_json::Value) -> String {
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn everybody() -> Vec<Shows> {
    let basic = |user: &str, password: &str| {
        ("Authorization", format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    };
    let token = |sub: &str, scope: &str, exp: u64| {
        ("Authorization", bearer(&json!({ "sub": sub, "scope": scope, "exp": exp })))
    };
    let (key, soon) = (|text: &str| ("X-Api-Key", text.to_owned()), now() + 3_600);
    let of_token = |who: Who, scope| Who { scope: Some(scope), ..who };
    let stranger = Who { name: "eve", groups: &[], scope: Some(&["read"]) };
    let one = |header: (&'static str, String), by| Shows { headers: vec![header], by };
    vec![
        Shows { headers: vec![], by: vec![] },
        one(key(ACME_KEY), vec![("key", ACME)]),
        one(key(BOLT_KEY), vec![("key", BOLT)]),
        one(key("wrong"), vec![]),
        one(basic("dora", PASSWORD), vec![("login", DORA)]),
        one(basic("dora", "wrong"), vec![]),
        one(token("eve", "read", soon), vec![("jwt", stranger)]),
        one(token("acme", "read write", soon), vec![("jwt", of_token(ACME, &["read", "write"]))]),
        one(token("acme", "write", 1_000), vec![]),
        one(
            ("X-Token", hs256(&json!({ "sub": "bolt", "scope": "write", "exp": soon }))),
            vec![("hs", of_token(BOLT, &["write"]))],
        ),
        Shows {
            headers: vec![key(BOLT_KEY), token("acme", "write", soon)],
            by: vec![("key", BOLT), ("jwt", of_token(ACME, &["write"]))],
        },
        Shows { headers: vec![key("wrong"), basic("dora", PASSWORD)], by: vec![("login", DORA)] },
    ]
}

fn some(rng: &mut StdRng, all: &[&'static str]) -> Vec<&'static str> {
    all.iter().copied().filter(|_| rng.random_bool(0.5)).collect()
}

impl Rule {
    fn drawn(rng: &mut StdRng) -> Self {
        loop {
            let mut rule = Self::default();
            if rng.random_bool(0.25) {
                rule.consumers = some(rng, &["acme", "bolt", "dora", "eve"]);
            }
            if rng.random_bool(0.3) {
                rule.groups = some(rng, &["partners", "eu", "staff"]);
            }
            if rng.random_bool(0.2) {
                rule.scope = Some(["read", "write"][rng.random_range(0..2)]);
            }
            if rng.random_bool(0.3) {
                let networks = [
                    ("127.0.0.0/24", "127.0.0."),
                    ("127.0.1.7", "127.0.1.7"),
                    ("127.0.0.0/8", "127."),
                    ("10.0.0.0/8", "10."),
                ];
                rule.network = Some(networks[rng.random_range(0..networks.len())]);
            }
            if rng.random_bool(0.4) {
                rule.methods = some(rng, &["GET", "POST", "DELETE"]);
            }
            let Self { consumers, groups, scope, network, methods } = &rule;
            if !(consumers.is_empty()
                && groups.is_empty()
                && methods.is_empty()
                && scope.is_none()
                && network.is_none())
            {
                return rule;
            }
        }
    }

    fn written(&self, is_dry: bool) -> String {
        let mut keys = Vec::new();
        for (key, list) in [("consumer", &self.consumers), ("group", &self.groups), ("method", &self.methods)] {
            if !list.is_empty() {
                keys.push(format!("{key} = {list:?}"));
            }
        }
        keys.extend(self.scope.map(|word| format!("claim = {{ scope = \"{word}\" }}")));
        keys.extend(self.network.map(|(written, _)| format!("client_ip = [\"{written}\"]")));
        if is_dry {
            keys.push("dry_run = true".to_owned());
        }
        format!("{{ {} }}", keys.join(", "))
    }

    /// All that it says must hold.
    fn holds(&self, who: Option<Who>, source: &str, method: &str) -> bool {
        let is_meant = |list: &[&str], has: &dyn Fn(Who, &str) -> bool| {
            list.is_empty() || who.is_some_and(|who| list.iter().any(|name| has(who, name)))
        };
        let method = if method == "HEAD" && self.methods.contains(&"GET") { "GET" } else { method };
        is_meant(&self.consumers, &|who, name| who.name == name)
            && is_meant(&self.groups, &|who, name| who.groups.contains(&name))
            && self.scope.is_none_or(|word| who.and_then(|who| who.scope).is_some_and(|words| words.contains(&word)))
            && self.network.is_none_or(|(_, start)| source.starts_with(start))
            && (self.methods.is_empty() || self.methods.contains(&method))
    }

    fn asks_who(&self) -> bool {
        !self.consumers.is_empty() || !self.groups.is_empty() || self.scope.is_some()
    }
}

impl Guard {
    fn drawn(rng: &mut StdRng, is_listener: bool) -> Self {
        let mut rules = |max: usize| (0..rng.random_range(0..=max)).map(|_| Rule::drawn(rng)).collect::<Vec<_>>();
        let (allow, deny) = if is_listener { (vec![], rules(1)) } else { (rules(2), rules(2)) };
        let mut ways = some(rng, &WAYS);
        if rng.random_bool(0.5) {
            ways.reverse();
        }
        let ways = (is_listener || rng.random_bool(0.7)).then_some(ways);
        Self { ways, allow, deny, dry_allow: rng.random_bool(0.15), dry_deny: rng.random_bool(0.15) }
    }

    fn written(&self) -> String {
        let mut text = String::new();
        if let Some(ways) = &self.ways {
            let _ = writeln!(text, "auth = {ways:?}");
        }
        for (key, rules, is_dry) in [("allow", &self.allow, self.dry_allow), ("deny", &self.deny, self.dry_deny)] {
            let rules: Vec<_> = rules.iter().map(|rule| rule.written(is_dry)).collect();
            if !rules.is_empty() {
                let _ = writeln!(text, "{key} = [{}]", rules.join(", "));
            }
        }
        text
    }
}

/// What is to be answered, as the documentation says: deny of networks and methods, then who it is, then deny, then allow; the listener first. A guard
/// comes before all of that but the listener's first rules.
fn expected(listener: &Guard, (route, gate): (&Guard, Option<u16>), shows: &Shows, source: &str, method: &str) -> u16 {
    let denies = |guard: &Guard, who: Option<Who>, early: bool| {
        !guard.dry_deny && guard.deny.iter().any(|rule| !(early && rule.asks_who()) && rule.holds(who, source, method))
    };
    if denies(listener, None, true) {
        return 403;
    }
    if let Some(status) = gate {
        return status;
    }
    if denies(route, None, true) {
        return 403;
    }
    let none = Vec::new();
    let ways = route.ways.as_ref().or(listener.ways.as_ref()).unwrap_or(&none);
    let who = ways.iter().find_map(|way| shows.by.iter().find(|(by, _)| by == way).map(|(_, who)| *who));
    if !ways.is_empty() && who.is_none() {
        return 401;
    }
    let keeps_out = |guard: &Guard| {
        let allows =
            guard.allow.is_empty() || guard.dry_allow || guard.allow.iter().any(|rule| rule.holds(who, source, method));
        denies(guard, who, false) || !allows
    };
    if keeps_out(listener) || keeps_out(route) { 403 } else { 200 }
}

fn sha256(text: &str) -> String {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file(upstream: &Upstream, (routes, gates): (&[Guard], &[Gate]), log: &std::path::Path) -> String {
    let mut text = format!("[access_log]\npath = {log:?}\n\n") + &behind(&[upstream], "auth = []", "");
    for (row, route) in routes.iter().enumerate() {
        let _ = writeln!(
            text,
            "[[route]]\nname = \"r{row}\"\nmatch = {{ path = \"/{row}/*\" }}\nupstream = \"svc\"\n{}",
            route.written()
        );
    }
    text.extend(gates.iter().map(Gate::written));
    // nobody has its address, and a limit that it would count for all gateways has a share of its own meanwhile
    let _ = write!(
        text,
        "[redis]\nurl = \"redis://gateway:{REDIS}@127.0.0.1:1\"\n[limit.far]\nrate = \"1000000/s\"\nshared = \"redis\"\n\
         [auth.signed]\nsignature = {{}}\n[consumer.signs]\nsignature = [{{ keyid = \"s\", secret = \"{SIGNING}\" }}]\n"
    );
    let _ = write!(
        text,
        "[auth.key]\nheader = \"x-api-key\"\n[auth.login]\nbasic = {{}}\n[auth.jwt]\nkey = {{ inline = '{JWK}' }}\nalgorithms = [\"EdDSA\"]\n\
         [auth.hs]\nheader = \"x-token\"\nkey = {{ secret = \"{SECRET}\" }}\nalgorithms = [\"HS256\"]\n\
         [consumer.acme]\ngroups = [\"partners\", \"eu\"]\nkeys = [{{ sha256 = \"{}\" }}]\n\
         [consumer.bolt]\ngroups = [\"eu\"]\nkeys = [{{ sha256 = \"{}\" }}]\n\
         [consumer.dora]\ngroups = [\"staff\"]\nbasic = {{ password = \"{HASH}\" }}\n",
        sha256(ACME_KEY),
        sha256(BOLT_KEY)
    );
    text
}

/// Asks for every route as everybody, from some places in some ways; how often it was let through.
fn ask_all(
    gateway: &Gateway,
    rng: &mut StdRng,
    (listener, routes, gates): (&Guard, &[Guard], &[Gate]),
    seed: u64,
) -> [usize; 4] {
    let everybody = everybody();
    let mut clients = SOURCES.map(|source| Client::connect_from(source, gateway.address("edge")));
    let mut counts = [0; 4];
    for (row, route) in routes.iter().enumerate() {
        for (who, shows) in everybody.iter().enumerate() {
            for _ in 0..2 {
                let (source, method) =
                    (rng.random_range(0..SOURCES.len()), METHODS[rng.random_range(0..METHODS.len())]);
                let gate = gates.iter().find_map(|gate| gate.answer(row, SOURCES[source], method));
                let expected = expected(listener, (route, gate), shows, SOURCES[source], method);
                let headers: Vec<_> = shows.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let answer = clients[source].request(method, &format!("/{row}/x"), &headers, b"");
                let from = SOURCES[source];
                assert_eq!(
                    answer.status, expected,
                    "seed {seed}: {method} /{row} from {from} as number {who}: {route:?} behind {listener:?}"
                );
                counts[match expected {
                    200 => 0,
                    401 => 1,
                    403 => 2,
                    _ => 3,
                }] += 1;
            }
        }
    }
    counts
}

on_both_drivers! {
    fn what_is_answered_is_what_the_rules_say_when_they_are_read_again(driver: Driver) {
        let upstream = Upstream::always("ok");
        for seed in SEEDS {
            let mut rng = StdRng::seed_from_u64(seed);
            let listener = Guard::drawn(&mut rng, true);
            let routes: Vec<_> = (0..ROUTES).map(|_| Guard::drawn(&mut rng, false)).collect();
            let gates: Vec<_> = (0..ROUTES).filter_map(|row| Gate::drawn(&mut rng, row)).collect();
            let dir = tempfile::tempdir().unwrap();
            let log = dir.path().join("access.log");
            let config = file(&upstream, (&routes, &gates), &log);
            let setup = Setup { listener: &listener.written(), config: &config, ..Setup::default() };
            let mut gateway = Gateway::start_with(driver, &setup);
            let counts = ask_all(&gateway, &mut rng, (&listener, &routes, &gates), seed);
            assert!(counts[..3].iter().all(|count| *count > 20) && counts[3] > 5, "seed {seed}: of each some: {counts:?}");
            let lines = counts.iter().sum::<usize>();
            let logged = eventually("the log has its lines", || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                (text.lines().count() >= lines && text.ends_with('\n')).then_some(text)
            });
            let mut pages = vec![logged, gateway.running().stderr().join("\n")];
            pages.extend(["/config", "/metrics", "/usage", "/routes", "/upstreams"].map(|page| gateway.admin(page).text()));
            let mut shown: Vec<String> = [ACME_KEY, BOLT_KEY, PASSWORD, SECRET, SIGNING, REDIS, &HASH[7..]].map(str::to_owned).into();
            shown.extend([sha256(ACME_KEY), sha256(BOLT_KEY)]);
            // of tokens and passwords what stands behind the scheme, or its end
            let headers = everybody().into_iter().flat_map(|shows| shows.headers);
            shown.extend(headers.filter(|(name, value)| *name != "X-Api-Key" && value.len() > 20).map(|(_, value)| value[value.len() - 12..].to_owned()));
            for (row, page) in pages.iter().enumerate() {
                for secret in &shown {
                    assert!(!page.contains(secret.as_str()), "{secret} in {row}: {page:.2000}");
                }
            }
        }
    }
}
