//! The routes of the file: what their keys must agree on, with each other and with the upstreams.

use super::check::{duplicate_name, value};
use super::check_identity::AccessReader;
use super::document::{Document, Entangled};
use super::file::{self, RouteTimeout};
use super::names::{EditableHeader, MethodText, Name};
use super::place::{FirstRoute, KeyOf, Place};
use super::problem::{Sink, listed};
use super::read::{Later, List, Map, Scalar, Written};
use super::retry_word::retry_on;
use super::values::duration;
use super::{HeaderRules, HostMatch, Limit, Match, PathMatch, Retry, Rewrite, Route, Target, Timeout};
use crate::limits::METHODS_MAX;
use crate::units::{ClusterId, Rate, Weight};
use http::{HeaderName, Method, StatusCode};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use std::ops::Range;
use std::time::Duration;
use toml::de::DeValue;

/// All routes, in file order; `upstreams` are the names that they may use, in the order of their ids.
///
/// # Errors
/// As [`Document::routes`].
pub(super) fn routes<'a, const MIN: usize, const MAX: usize>(
    document: &Document<'_>,
    list: &Later<file::Route, MIN, MAX>,
    (upstreams, access): (&[&'a str], &mut AccessReader<'a>),
    sink: &mut Sink<'_>,
) -> Result<Option<Vec<Route>>, Entangled> {
    let ids = upstreams.iter().enumerate().map(|(row, name)| (*name, ClusterId::from_index(row))).collect();
    let mut upstream_names = upstreams.to_vec();
    upstream_names.sort_unstable();
    let mut taken = Taken {
        upstreams: ids,
        upstream_names,
        names: FxHashMap::with_capacity_and_hasher(document.routes_expected(), FxBuildHasher),
        matches: FxHashMap::with_capacity_and_hasher(document.routes_expected(), FxBuildHasher),
        methods: FxHashSet::default(),
    };
    let mut routes = Vec::with_capacity(document.routes_expected());
    let count = document.routes(list, sink, |row, table, sink| {
        routes.extend(RouteReader { row, taken: &mut taken, access: &mut *access, sink }.route(table));
    })?;
    Ok(count.filter(|count| *count == routes.len()).map(|_| routes))
}
/// What routes have in common: the names they refer to, and what earlier ones have taken.
struct Taken<'a> {
    upstreams: FxHashMap<&'a str, ClusterId>,
    /// The same, sorted, for messages.
    upstream_names: Vec<&'a str>,
    /// By what it is called, the first route.
    names: FxHashMap<String, FirstRoute>,
    /// By what it matches, the first route.
    matches: FxHashMap<Box<[u8]>, FirstRoute>,
    /// All methods that routes name; a set of them is one word of the router.
    methods: FxHashSet<Method>,
}

/// One route while it is checked.
struct RouteReader<'r, 'a, 's, 't> {
    row: usize,
    taken: &'r mut Taken<'a>,
    access: &'r mut AccessReader<'a>,
    sink: &'s mut Sink<'t>,
}

impl RouteReader<'_, '_, '_, '_> {
    /// Every part is looked at before any part that is missing ends it.
    fn route(&mut self, table: &file::Route) -> Option<Route> {
        let matcher = table.r#match.as_ref().and_then(|matcher| self.matcher(&table.at, &matcher.value));
        let name = self.name(table, matcher.as_ref());
        let target = self.target(table);
        let rewrite = matcher.as_ref().and_then(|matcher| self.rewrite(table, &matcher.path));
        let request_headers = table.request_headers.as_ref().and_then(|rules| self.header_rules(&rules.value, true));
        let response_headers = table.response_headers.as_ref().and_then(|rules| self.header_rules(&rules.value, false));
        let timeout = self.timeout(table);
        let limits =
            table.limit.as_ref().map(|list| list.value.0.iter().map(|limit| self::limit(&limit.value)).collect());
        let auth = table.auth.as_ref().map(|list| self.access.ways(table.at.key("auth"), list, self.sink));
        let access = self.access.access(table.allow.as_ref(), table.deny.as_ref(), self.sink);
        let retry = table.retry.as_ref().and_then(|retry| self.retry(&retry.value, timeout.as_ref()));
        self.without_effect(table);
        Some(Route {
            name: name?,
            matcher: matcher?,
            target: target?,
            auth,
            access: access?,
            rewrite: rewrite?,
            request_headers: request_headers?,
            response_headers: response_headers?,
            timeout: timeout?,
            limits: limits.unwrap_or(None)?,
            concurrent_max: table.max_concurrent.as_ref().and_then(|max| u32::try_from(max.value.0).ok()),
            body_bytes_max: value(&table.max_body).map(|size| size.0),
            retry: retry?,
        })
    }

    /// The name as given, or what the route matches: unlike a number, that stays the same when routes are added or moved.
    fn name(&mut self, table: &file::Route, matcher: Option<&Match>) -> Option<String> {
        let name = match &table.name {
            Some(name) => name.value.0.clone(),
            None if self.sink.reported(table.at.key("name")) => return None,
            None => {
                let shown = default_name(matcher?);
                let fits = Name::parse(&DeValue::String(shown.as_str().into()));
                if fits.is_err() {
                    let message = format!("missing: {shown:?}, what the route matches, cannot serve as its name");
                    self.sink.place(table.at.key("name"), table.at.offset, message, Some("give it a name".to_owned()));
                }
                fits.ok()?.0
            }
        };
        let here = FirstRoute::new(self.row, table.at.offset);
        let first = *self.taken.names.entry(name.clone()).or_insert(here);
        if first.row != here.row {
            let span = table.name.as_ref().map(|name| name.span.clone());
            duplicate_name(&table.at, span, &first.named(self.sink), self.sink);
        }
        Some(name)
    }

    fn matcher(&mut self, at: &Place, table: &file::Match) -> Option<Match> {
        let headers = pairs(&table.header, |name| name.0.clone(), |value| value.0.clone());
        let query = pairs(&table.query, |name| name.0.clone(), |value| value.0.clone());
        if let Some(headers) = &table.header {
            self.unique(table.at.key("header"), headers.value.0.iter().map(|(name, _)| (&name.value.0, &name.span)));
        }
        if let Some(list) = &table.method {
            self.count_methods(table.at.key("method"), list);
        }
        let matcher = Match {
            host: value(&table.host).map(|host| host.0).unwrap_or_default(),
            path: value(&table.path)?.0,
            methods: table.method.as_ref()?.value.0.iter().map(|method| method.value.0.clone()).collect(),
            headers: headers?,
            query: query?,
        };
        let here = FirstRoute::new(self.row, at.offset);
        let first = *self.taken.matches.entry(match_key(&matcher)).or_insert(here);
        if first.row != here.row {
            let first = first.named(self.sink);
            let message = format!("never reached: {first} matches the same requests and stands before it");
            self.sink.place(at.key("match"), table.at.offset, message, None);
        }
        Some(matcher)
    }

    fn count_methods<const MIN: usize, const MAX: usize>(
        &mut self,
        path: KeyOf<'_>,
        list: &Written<List<MethodText, MIN, MAX>>,
    ) {
        let before = self.taken.methods.len();
        self.taken.methods.extend(list.value.0.iter().map(|method| method.value.0.clone()));
        if before <= METHODS_MAX && self.taken.methods.len() > METHODS_MAX {
            let message = format!("all routes together name more than {METHODS_MAX} methods");
            self.sink.value(path, list.span.clone(), message, None);
        }
    }

    /// No header twice; names differ in case only in the file.
    fn unique<'h>(&mut self, path: KeyOf<'_>, names: impl Iterator<Item = (&'h HeaderName, &'h Range<usize>)>) {
        let mut seen = FxHashSet::default();
        for (name, span) in names {
            if !seen.insert(name) {
                self.sink.place(path, span.start, format!("{name} stands there twice"), None);
            }
        }
    }

    fn target(&mut self, table: &file::Route) -> Option<Target> {
        let given = [
            ("upstream", table.upstream.as_ref().map(|key| key.span.clone())),
            ("split", table.split.as_ref().map(|key| key.span.clone())),
            ("respond", table.respond.as_ref().map(|key| key.span.clone())),
            ("redirect", table.redirect.as_ref().map(|key| key.span.clone())),
        ];
        let present: Vec<_> = given.iter().filter_map(|(key, span)| Some((*key, span.clone()?))).collect();
        let wrong = given.iter().any(|(key, _)| self.sink.reported(table.at.key(key)));
        match present.as_slice() {
            [] if wrong => {}
            [] => {
                let message = "missing: exactly one of upstream, split, respond, redirect".to_owned();
                self.sink.place(table.at.key("upstream"), table.at.offset, message, None);
            }
            [_] => {}
            [(first, _), others @ ..] => {
                for (key, span) in others {
                    let message =
                        format!("{first} stands there too; must be exactly one of upstream, split, respond, redirect");
                    self.sink.value(table.at.key(key), span.clone(), message, None);
                }
            }
        }
        let upstream = table.upstream.as_ref().map(|name| self.upstream(table.at.key("upstream"), name));
        let split = table.split.as_ref().map(|list| self.split(table.at.key("split"), list));
        let respond = table.respond.as_ref().map(|respond| self.respond(&respond.value));
        let redirect = table.redirect.as_ref().map(|redirect| self.redirect(&redirect.value));
        let upstream = upstream.map(|id| id.map(|id| Target::Upstream(vec![(id, Weight(1))])));
        upstream.or(split).or(respond).or(redirect)?
    }

    fn upstream(&mut self, path: KeyOf<'_>, name: &Written<Name>) -> Option<ClusterId> {
        let known = self.taken.upstreams.get(name.value.0.as_str()).copied();
        if known.is_none() {
            let names = self.taken.upstream_names.as_slice();
            let message = match names {
                [] => "there is no such upstream, nor any other".to_owned(),
                _ => format!("there is no such upstream; there are: {}", listed(names)),
            };
            let near = self.sink.did_you_mean(&name.value.0, names);
            let help = near.or_else(|| Some(format!("add [upstream.{}]", name.value.0)));
            self.sink.value(path, name.span.clone(), message, help);
        }
        known
    }

    fn split<const MIN: usize, const MAX: usize>(
        &mut self,
        path: KeyOf<'_>,
        list: &Written<List<file::SplitPart, MIN, MAX>>,
    ) -> Option<Target> {
        let mut parts: Vec<(ClusterId, Weight)> = Vec::with_capacity(list.value.0.len());
        for part in list.value.0.iter().map(|part| &part.value) {
            let id = part.upstream.as_ref().and_then(|name| self.upstream(part.at.key("upstream"), name));
            let (Some(id), Some(weight)) = (id, &part.weight) else { continue };
            if parts.iter().any(|(other, _)| *other == id) {
                let span = part.upstream.as_ref().map_or(0..0, |name| name.span.clone());
                self.sink.value(part.at.key("upstream"), span, "stands twice in this split".to_owned(), None);
            }
            parts.push((id, Weight(u32::try_from(weight.value.0).ok()?)));
        }
        let whole = parts.len() == list.value.0.len();
        if whole && parts.iter().all(|(_, weight)| weight.0 == 0) {
            self.sink.value(path, list.span.clone(), "all weights are 0; one must be positive".to_owned(), None);
        }
        whole.then_some(Target::Upstream(parts))
    }

    fn respond(&mut self, table: &file::Respond) -> Option<Target> {
        let (status, body) = (table.status.as_ref()?, table.body.as_ref()?);
        let bodiless = matches!(status.value.0, 204 | 205 | 304);
        if bodiless && !body.value.0.is_empty() {
            let message = format!("a response with status {} has no body (RFC 9110 §15)", status.value.0);
            self.sink.value(table.at.key("body"), body.span.clone(), message, None);
        }
        Some(Target::Respond {
            status: StatusCode::from_u16(u16::try_from(status.value.0).ok()?).ok()?,
            body: body.value.0.clone(),
            content_type: value(&table.content_type)?.0,
        })
    }

    fn redirect(&mut self, table: &file::Redirect) -> Option<Target> {
        let status = table.status.as_ref()?;
        if !matches!(status.value.0, 301 | 302 | 303 | 307 | 308) {
            let message = "must be one of 301, 302, 303, 307, 308".to_owned();
            self.sink.value(table.at.key("status"), status.span.clone(), message, None);
        }
        let status = StatusCode::from_u16(u16::try_from(status.value.0).ok()?).ok()?;
        Some(Target::Redirect { to: value(&table.to)?.0, status })
    }

    fn rewrite(&mut self, table: &file::Route, path: &PathMatch) -> Option<Rewrite> {
        match (&table.strip_prefix, &table.rewrite) {
            (None, None) => {}
            (Some(_), Some(rewrite)) => {
                let message = "strip_prefix stands there too; must be one of the two".to_owned();
                self.sink.value(table.at.key("rewrite"), rewrite.span.clone(), message, None);
            }
            (Some(strip), None) => {
                if !begins_with(path, &strip.value.0) {
                    let message =
                        "must be where match.path begins, so that every request of the route has it".to_owned();
                    self.sink.value(table.at.key("strip_prefix"), strip.span.clone(), message, None);
                }
                return Some(Rewrite::StripPrefix(strip.value.0.clone()));
            }
            (None, Some(rewrite)) => {
                if rewrite.value.0.contains("{rest}") && !matches!(path, PathMatch::Prefix(_)) {
                    let message = "{rest} is what a match.path of the form \"/prefix/*\" leaves over".to_owned();
                    let help = Some("use {path}, or match a prefix".to_owned());
                    self.sink.value(table.at.key("rewrite"), rewrite.span.clone(), message, help);
                }
                return Some(Rewrite::Template(rewrite.value.0.clone()));
            }
        }
        Some(Rewrite::None)
    }

    fn header_rules(&mut self, table: &file::HeaderRules, of_request: bool) -> Option<HeaderRules> {
        let (set, remove) = (&table.set.as_ref()?.value.0, &table.remove.as_ref()?.value.0);
        self.unique(table.at.key("set"), set.iter().map(|(name, _)| (&name.value.0, &name.span)));
        self.unique(table.at.key("remove"), remove.iter().map(|name| (&name.value.0, &name.span)));
        if let Some(host) = remove.iter().find(|name| name.value.0 == http::header::HOST) {
            let message = "a request has a Host (RFC 9112 §3.2); set it instead".to_owned();
            self.sink.value(table.at.key("remove"), host.span.clone(), message, None);
        }
        let set_host = set.iter().find(|(name, _)| name.value.0 == http::header::HOST);
        if let (Some((host, _)), false) = (set_host, of_request) {
            let message = "a response has no Host".to_owned();
            self.sink.value(table.at.key("set"), host.span.clone(), message, None);
        }
        let remove = remove.iter().map(|Written { value: EditableHeader(name), .. }| name.clone()).collect();
        let mut rules = HeaderRules { remove, ..HeaderRules::default() };
        set.iter().for_each(|(name, value)| rules.add((name, value), of_request, table.at.key("set"), self.sink));
        Some(rules)
    }

    fn timeout(&mut self, table: &file::Route) -> Option<Timeout> {
        let adaptive = match &table.timeout.as_ref()?.value {
            RouteTimeout::Fixed(fixed) => return Some(Timeout::Fixed(fixed.0)),
            RouteTimeout::Adaptive(adaptive) => adaptive,
        };
        let on = adaptive.adaptive.as_ref()?;
        if !on.value {
            let help = Some("write a duration, such as timeout = \"2s\"".to_owned());
            self.sink.value(adaptive.at.key("adaptive"), on.span.clone(), "must be true".to_owned(), help);
        }
        let (min, max) = (adaptive.min.as_ref()?, adaptive.max.as_ref()?);
        if min.value.0 > max.value.0 {
            let (key, span) = if max.given { ("max", &max.span) } else { ("min", &min.span) };
            let message = format!("min ({}) is longer than max ({})", duration(min.value.0), duration(max.value.0));
            self.sink.value(adaptive.at.key(key), span.clone(), message, None);
        }
        Some(Timeout::Adaptive { k: value(&adaptive.k)?.0, min: min.value.0, max: max.value.0 })
    }

    fn retry(&mut self, table: &file::Retry, timeout: Option<&Timeout>) -> Option<Retry> {
        let longest = timeout.map(|timeout| match timeout {
            Timeout::Fixed(fixed) => *fixed,
            Timeout::Adaptive { max, .. } => *max,
        });
        if let (Some(per_try), Some(longest)) = (&table.per_try_timeout, longest)
            && per_try.value.0.is_some_and(|per_try| per_try > longest)
        {
            let message = format!("longer than the whole request may take, {} (timeout)", duration(longest));
            self.sink.value(table.at.key("per_try_timeout"), per_try.span.clone(), message, None);
        }
        Some(Retry {
            attempts: u32::try_from(value(&table.attempts)?.0).ok()?,
            on: retry_on(&table.on.as_ref()?.value.0),
            non_idempotent: value(&table.non_idempotent)?,
            per_try_timeout: value(&table.per_try_timeout)?.0,
            backoff_max: value(&table.backoff_max)?.0,
            min_remaining: value(&table.min_remaining)?.0,
        })
    }

    /// What only matters on the way to an upstream is refused where the gateway answers itself: it would do nothing.
    fn without_effect(&mut self, table: &file::Route) {
        let answers = table.upstream.is_none() && table.split.is_none();
        let key = match (&table.respond, &table.redirect) {
            (Some(_), _) if answers => "respond",
            (_, Some(_)) if answers => "redirect",
            _ => return,
        };
        let given = [
            ("strip_prefix", table.strip_prefix.as_ref().map(|key| key.span.clone())),
            ("rewrite", table.rewrite.as_ref().map(|key| key.span.clone())),
            ("request_headers", table.request_headers.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
            ("timeout", table.timeout.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
            ("retry", table.retry.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
        ];
        for (name, span) in given.into_iter().filter_map(|(name, span)| Some((name, span?))) {
            let message = format!("has no effect: {key} answers without an upstream");
            self.sink.value(table.at.key(name), span, message, None);
        }
    }
}

/// `api.example.com/orders/*`
fn default_name(matcher: &Match) -> String {
    let host = match &matcher.host {
        HostMatch::Any => String::new(),
        HostMatch::Exact(host) => host.clone(),
        HostMatch::Wildcard(host) => format!("*.{host}"),
    };
    match &matcher.path {
        PathMatch::Exact(path) => format!("{host}{path}"),
        PathMatch::Prefix(path) => format!("{host}{path}/*"),
        PathMatch::Regex(pattern) => format!("{host}~{pattern}"),
    }
}

/// A match in a form in which equal ones are equal: a list of texts, each with its length before it, and the lists within it in order.
/// In one piece, because there is one for every route.
fn match_key(matcher: &Match) -> Box<[u8]> {
    let mut key = Vec::with_capacity(64);
    let (kind, host) = match &matcher.host {
        HostMatch::Any => (0, ""),
        HostMatch::Exact(host) => (1, host.as_str()),
        HostMatch::Wildcard(host) => (2, host.as_str()),
    };
    push_part(&mut key, kind, host.as_bytes());
    let (kind, path) = match &matcher.path {
        PathMatch::Exact(path) => (0, path),
        PathMatch::Prefix(path) => (1, path),
        PathMatch::Regex(pattern) => (2, pattern),
    };
    push_part(&mut key, kind, path.as_bytes());
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
    key.into_boxed_slice()
}

fn push_part(key: &mut Vec<u8>, kind: u8, text: &[u8]) {
    key.push(kind);
    key.extend_from_slice(&text.len().to_ne_bytes());
    key.extend_from_slice(text);
}

/// The pairs of a table, in file order.
fn pairs<K, V, A, B, const MAX: usize>(
    map: &Option<Written<Map<K, V, MAX>>>,
    name: impl Fn(&K) -> A,
    value: impl Fn(&V) -> B,
) -> Option<Vec<(A, B)>> {
    Some(map.as_ref()?.value.0.iter().map(|(key, entry)| (name(&key.value), value(&entry.value))).collect())
}

/// Whether every path that matches begins with `prefix`, by whole segments.
fn begins_with(path: &PathMatch, prefix: &str) -> bool {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(_) => false,
    }
}

fn limit(table: &file::Limit) -> Option<Limit> {
    let rate = value(&table.rate)?.0;
    let burst = value(&table.burst).map_or_else(|| default_burst(rate), |burst| burst.0);
    Some(Limit { rate, burst, per: value(&table.per)?.0, dry_run: value(&table.dry_run)? })
}

/// What the rate admits in a second, at least one request.
fn default_burst(rate: Rate) -> u64 {
    let second = Duration::from_secs(1).as_nanos();
    u64::try_from(u128::from(rate.count()) * second / rate.per().as_nanos()).map_or(u64::MAX, |burst| burst.max(1))
}
