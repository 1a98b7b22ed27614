//! What a route or a guard is called, and which requests it takes: no two of a kind may be called the same, or take the same.

use super::check::{duplicate_name, value};
use super::file;
use super::matching::{placeholder, segments};
use super::names::{HeaderText, MethodText, Name};
use super::place::{FirstRoute, KeyOf, Place};
use super::problem::{Sink, listed};
use super::read::{List, Scalar, Written};
use super::{Condition, HostMatch, Match, PathMatch, Test};
use crate::limits::{MATCHES_MAX, METHODS_MAX};
use http::{HeaderName, HeaderValue, Method};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use std::collections::hash_map::Entry;
use std::ops::Range;
use toml::de::DeValue;

/// What earlier ones of a kind have taken.
pub(super) struct Firsts {
    /// `route` or `guard`.
    kind: &'static str,
    /// By what it is called, the first, and whether that is a guard.
    names: FxHashMap<String, (FirstRoute, bool)>,
    /// By what it matches, the first.
    matches: FxHashMap<Box<[u8]>, FirstRoute>,
    /// How many were asked for.
    pairs: usize,
    /// All methods that they name; a set of them is one word of the router.
    methods: FxHashSet<Method>,
    /// Names of the listeners.
    listeners: Vec<String>,
}

impl Firsts {
    /// The names of the listeners.
    pub(super) fn listeners(&self) -> &[String] {
        &self.listeners
    }

    /// Nothing, with room for so many, where these listeners are.
    pub(super) fn new(kind: &'static str, expected: usize, listeners: Vec<String>) -> Self {
        Self {
            kind,
            names: FxHashMap::with_capacity_and_hasher(expected, FxBuildHasher),
            matches: FxHashMap::with_capacity_and_hasher(expected, FxBuildHasher),
            pairs: 0,
            methods: FxHashSet::default(),
            listeners,
        }
    }

    /// The name as given, or what it matches: unlike a number, that stays the same when routes are added or moved.
    pub(super) fn name(
        &mut self,
        of: (usize, &Place),
        given: Option<&Written<Name>>,
        matcher: Option<&Match>,
        sink: &mut Sink<'_>,
    ) -> Option<String> {
        self.any_name((of, false), given, matcher, sink)
    }

    /// The same of a guard, among the names of routes.
    pub(super) fn guard_name(
        &mut self,
        of: (usize, &Place),
        given: Option<&Written<Name>>,
        matcher: Option<&Match>,
        sink: &mut Sink<'_>,
    ) -> Option<String> {
        self.any_name((of, true), given, matcher, sink)
    }

    fn any_name(
        &mut self,
        ((row, at), is_guard): ((usize, &Place), bool),
        given: Option<&Written<Name>>,
        matcher: Option<&Match>,
        sink: &mut Sink<'_>,
    ) -> Option<String> {
        let name = match given {
            Some(name) => name.value.0.clone(),
            None if sink.reported(at.key("name")) => return None,
            None => {
                let shown = default_name(matcher?);
                let shown = if is_guard { format!("guard:{shown}") } else { shown };
                let fits = Name::parse(&DeValue::String(shown.as_str().into()));
                if fits.is_err() {
                    let message = format!("missing: {shown:?}, what it matches, cannot serve as its name");
                    sink.place(at.key("name"), at.offset, message, Some("give it a name".to_owned()));
                }
                fits.ok()?.0
            }
        };
        let here = FirstRoute::new(row, at.offset);
        let (first, of_guard) = *self.names.entry(name.clone()).or_insert((here, is_guard));
        if (first.row, of_guard) != (here.row, is_guard) {
            let span = given.map(|name| name.span.clone());
            duplicate_name(at, span, &first.named(if of_guard { "guard" } else { "route" }, sink), sink);
        }
        Some(name)
    }

    pub(super) fn matcher(
        &mut self,
        (row, at): (usize, &Place),
        table: &file::Match,
        sink: &mut Sink<'_>,
    ) -> Option<Match> {
        let mut more = Vec::new();
        let (headers, query) = (headers(table, &mut more, sink), query(table, &mut more));
        self.others(table, &mut more, sink);
        if let Some(headers) = &table.header {
            unique(table.at.key("header"), headers.value.0.iter().map(|(name, _)| (&name.value.0, &name.span)), sink);
        }
        if let Some(list) = &table.method {
            self.count_methods(table.at.key("method"), list, sink);
        }
        let mut hosts = table.host.iter().flat_map(|list| &list.value.0).map(|host| host.value.0.clone());
        let mut paths = table.path.as_ref()?.value.0.iter().map(|path| path.value.0.clone());
        let host = hosts.next().unwrap_or_default();
        let matcher = Match {
            host,
            other_hosts: hosts.collect(),
            path: paths.next()?,
            other_paths: paths.collect(),
            methods: table.method.as_ref()?.value.0.iter().map(|method| method.value.0.clone()).collect(),
            headers: headers?,
            query: query?,
            more,
        };
        self.take(&matcher, (FirstRoute::new(row, at.offset), at), table.at.offset, sink);
        Some(matcher)
    }

    /// Every host with every path is taken by one route only, where the other conditions are the same.
    fn take(&mut self, matcher: &Match, (here, at): (FirstRoute, &Place), offset: usize, sink: &mut Sink<'_>) {
        let before = self.pairs;
        self.pairs += matcher.hosts().count() * matcher.paths().count();
        if self.pairs > MATCHES_MAX {
            if before <= MATCHES_MAX {
                let message =
                    format!("all {}s together have more than {MATCHES_MAX} pairs of a host and a path", self.kind);
                sink.place(at.key("match"), offset, message, None);
            }
            return;
        }
        let others = others_key(matcher);
        let several = self.pairs - before > 1;
        for (host, path) in matcher.hosts().flat_map(|host| matcher.paths().map(move |path| (host, path))) {
            let first = match self.matches.entry(match_key(host, path, &others)) {
                Entry::Vacant(free) => {
                    free.insert(here);
                    continue;
                }
                Entry::Occupied(taken) => *taken.get(),
            };
            let what = if several { format!("{}: ", shown(host, path)) } else { String::new() };
            let message = match first.row == here.row {
                true => format!("{what}stands there twice"),
                false => {
                    let first = first.named(self.kind, sink);
                    format!("{what}never reached: {first} matches the same requests and stands before it")
                }
            };
            return sink.place(at.key("match"), offset, message, None);
        }
    }

    /// Conditions that are about neither headers nor the query.
    fn others(&self, table: &file::Match, more: &mut Vec<Condition>, sink: &mut Sink<'_>) {
        let cookies = table.cookie.iter().flat_map(|map| &map.value.0);
        more.extend(cookies.map(|(name, test)| Condition::Cookie(name.value.0.clone(), test.value.0.clone())));
        let listeners = table.listener.iter().flat_map(|list| &list.value.0);
        let names: Vec<String> = listeners.clone().map(|name| name.value.0.clone()).collect();
        for (row, name) in listeners.enumerate().filter(|(_, name)| !self.listeners.contains(&name.value.0)) {
            let known: Vec<&str> = self.listeners.iter().map(String::as_str).collect();
            let message = format!("there is no such listener; there are: {}", listed(&known));
            let help = sink.did_you_mean(&name.value.0, &known);
            sink.value(format!("{}[{row}]", table.at.key("listener")), name.span.clone(), message, help);
        }
        more.extend((!names.is_empty()).then_some(Condition::Listener(names)));
        more.extend(value(&table.scheme).map(Condition::Scheme));
        let networks = table.client_ip.iter().flat_map(|list| &list.value.0).map(|network| network.value.0);
        let networks: Vec<_> = networks.collect();
        more.extend((!networks.is_empty()).then_some(Condition::ClientIp(networks)));
    }

    fn count_methods<const MIN: usize, const MAX: usize>(
        &mut self,
        path: KeyOf<'_>,
        list: &Written<List<MethodText, MIN, MAX>>,
        sink: &mut Sink<'_>,
    ) {
        let before = self.methods.len();
        self.methods.extend(list.value.0.iter().map(|method| method.value.0.clone()));
        if before <= METHODS_MAX && self.methods.len() > METHODS_MAX {
            let message = format!("all {}s together name more than {METHODS_MAX} methods", self.kind);
            sink.value(path, list.span.clone(), message, None);
        }
    }
}

/// No header twice; names differ in case only in the file.
pub(super) fn unique<'h>(
    path: KeyOf<'_>,
    names: impl Iterator<Item = (&'h HeaderName, &'h Range<usize>)>,
    sink: &mut Sink<'_>,
) {
    let mut seen = FxHashSet::default();
    for (name, span) in names {
        if !seen.insert(name) {
            sink.place(path, span.start, format!("{name} stands there twice"), None);
        }
    }
}

/// `api.example.com/orders/*`
fn default_name(matcher: &Match) -> String {
    shown(&matcher.host, &matcher.path)
}

fn shown(host: &HostMatch, path: &PathMatch) -> String {
    format!("{host}{path}")
}

/// A match in a form in which equal ones are equal: a list of texts, each with its length before it, and the lists within it in order.
/// In one piece, because there is one for every route.
fn match_key(host: &HostMatch, path: &PathMatch, others: &[u8]) -> Box<[u8]> {
    let mut key = Vec::with_capacity(64);
    push_part(&mut key, host.rank().0, host.to_string().as_bytes());
    match path {
        // whatever its placeholders are called
        PathMatch::Template { .. } => {
            let nameless = |segment| if placeholder(segment).is_some() { "{}" } else { segment };
            let path = path.to_string();
            segments(&path).for_each(|segment| push_part(&mut key, 1, nameless(segment).as_bytes()));
        }
        PathMatch::Regex(pattern) => push_part(&mut key, 2, pattern.as_bytes()),
        PathMatch::Exact(_) | PathMatch::Prefix(_) => push_part(&mut key, 0, path.to_string().as_bytes()),
    }
    key.extend_from_slice(others);
    key.into_boxed_slice()
}

/// What of it is neither host nor path.
fn others_key(matcher: &Match) -> Vec<u8> {
    let mut key = Vec::new();
    let mut methods: Vec<_> = matcher.methods.iter().map(Method::as_str).collect();
    methods.sort_unstable();
    methods.dedup();
    methods.iter().for_each(|method| push_part(&mut key, 3, method.as_bytes()));
    let mut headers: Vec<_> =
        matcher.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
    let mut query: Vec<_> = matcher.query.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    for (kind, pairs) in [(4, &mut headers), (5, &mut query)] {
        pairs.sort_unstable();
        for (name, value) in pairs {
            push_part(&mut key, kind, name);
            push_part(&mut key, kind, value);
        }
    }
    let mut more: Vec<_> = matcher.more.iter().map(|condition| format!("{condition:?}")).collect();
    more.sort_unstable();
    more.iter().for_each(|condition| push_part(&mut key, 6, condition.as_bytes()));
    key
}

fn push_part(key: &mut Vec<u8>, kind: u8, text: &[u8]) {
    key.push(kind);
    key.extend_from_slice(&text.len().to_ne_bytes());
    key.extend_from_slice(text);
}

/// Headers that must have one value, in file order; other tests go to `more`.
fn headers(
    table: &file::Match,
    more: &mut Vec<Condition>,
    sink: &mut Sink<'_>,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut exact = Vec::new();
    for (name, test) in &table.header.as_ref()?.value.0 {
        match &test.value.0 {
            Test::Is(text) => match HeaderText::parse(&DeValue::String(text.as_str().into())) {
                Ok(HeaderText(value)) => exact.push((name.value.0.clone(), value)),
                Err(_) => {
                    let path = format!("{}.{}", table.at.key("header"), name.value.0);
                    sink.value(path, test.span.clone(), format!("must be {}", HeaderText::allowed()), None);
                }
            },
            other => more.push(Condition::Header(name.value.0.clone(), other.clone())),
        }
    }
    Some(exact)
}

/// The same of query parameters.
fn query(table: &file::Match, more: &mut Vec<Condition>) -> Option<Vec<(String, String)>> {
    let mut exact = Vec::new();
    for (name, test) in &table.query.as_ref()?.value.0 {
        match &test.value.0 {
            Test::Is(text) => exact.push((name.value.0.clone(), text.clone())),
            other => more.push(Condition::Query(name.value.0.clone(), other.clone())),
        }
    }
    Some(exact)
}

/// Whether every path that matches begins with `prefix`, by whole segments.
pub(super) fn begins_with(matcher: &Match, prefix: &str) -> bool {
    let is_below = |path: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matcher.paths().all(|path| match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Template { path, .. } => is_below(path),
        PathMatch::Regex(_) => false,
    })
}
