//! Why a request goes where it goes: every route with the reason why it was chosen or not, most specific first.
//!
//! For people (`ringgate explain`, the admin API): it looks at all routes one by one, compiles regexes anew and allocates. It decides
//! independently of the compiled tables, so the tests also use it to check them.

use super::conditions::{holds, query_has};
use super::{RequestView, Router, RouterCache};
use crate::config::{Condition, HostMatch, Match, PathMatch, PathRank};
use crate::units::RouteId;
use http::{HeaderName, Method};
use regex_automata::meta::Regex;
use std::cmp::Reverse;

/// One route and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The route.
    pub route: RouteId,
    /// Chosen, or why not.
    pub outcome: MatchOutcome,
    /// How specific it is for this request.
    pub rank: Rank,
}

/// By host, by path, by the number of conditions; greater is more specific. Nothing where host or path do not match.
pub type Rank = ((u8, usize), PathRank, usize);

/// Why a route does or does not take a request; the first reason in the order of this list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchOutcome {
    /// It takes the request.
    Chosen,
    /// It would, but a guard, a more specific route (or an equal one before it in the file) does.
    Outranked,
    /// It is for another host.
    Host,
    /// It is for another path.
    Path,
    /// It wants this header to have another value, or to be there.
    Header(HeaderName),
    /// It wants this query parameter to have another value, or to be there.
    Query(String),
    /// It wants this, too.
    Condition(Condition),
    /// It matches but for the method.
    Method,
}

impl Router {
    /// All routes and guards: first those whose host and path match, in order of precedence (guards come first), then the others in file order.
    #[must_use]
    pub fn explain(&self, request: &RequestView<'_>) -> Vec<Considered> {
        let ids = (0..self.rules.len()).map(RouteId::from_index);
        let mut all: Vec<Considered> = ids.map(|route| self.considered(route, request)).collect();
        all.sort_by_key(|considered| {
            let near = !matches!(considered.outcome, MatchOutcome::Host | MatchOutcome::Path);
            Reverse(near.then(|| (considered.route.index() >= self.first_guard, considered.rank.clone())))
        });
        let mut takers = all.iter_mut().filter(|considered| considered.outcome == MatchOutcome::Outranked);
        if let Some(first) = takers.next() {
            first.outcome = MatchOutcome::Chosen;
        }
        all
    }

    fn considered(&self, route: RouteId, request: &RequestView<'_>) -> Considered {
        let rule = &self.rules[route.index()];
        let host = rule.hosts().filter(|host| host_matches(host, request.host)).map(|host| self.host_rank(host)).max();
        let path = rule.paths().filter(|path| path_matches(path, request.path)).map(PathMatch::rank).max();
        let outcome = match (&host, &path) {
            (None, _) => MatchOutcome::Host,
            (_, None) => MatchOutcome::Path,
            _ => outcome(rule, request),
        };
        let rank = host.zip(path).map(|(host, path)| (host, path, rule.conditions()));
        Considered { route, outcome, rank: rank.unwrap_or_default() }
    }

    /// Of regexes the one that stands first is asked first.
    fn host_rank(&self, host: &HostMatch) -> (u8, usize) {
        let (class, length) = host.rank();
        let first = match host {
            HostMatch::Regex(_) => self.rules.iter().flat_map(Match::hosts).position(|other| other == host),
            _ => None,
        };
        (class, first.map_or(length, |first| usize::MAX - first))
    }
}

/// [`MatchOutcome::Outranked`] when nothing speaks against the route, whose host and path match.
fn outcome(rule: &Match, request: &RequestView<'_>) -> MatchOutcome {
    for (name, value) in &rule.headers {
        if !(request.header)(name, &mut |found| found == value.as_bytes()) {
            return MatchOutcome::Header(name.clone());
        }
    }
    for (name, value) in &rule.query {
        if !query_has(request.query, name, value) {
            return MatchOutcome::Query(name.clone());
        }
    }
    // a regex is compiled once, and this memory is for this look
    let mut cache = RouterCache::new();
    for (row, condition) in rule.more.iter().enumerate() {
        if !holds(condition, (RouteId(0), row), request, &mut cache) {
            return MatchOutcome::Condition(condition.clone());
        }
    }
    let head = *request.method == Method::HEAD && rule.methods.contains(&Method::GET);
    if !rule.methods.is_empty() && !rule.methods.contains(request.method) && !head {
        return MatchOutcome::Method;
    }
    MatchOutcome::Outranked
}

fn host_matches(wanted: &HostMatch, host: Option<&str>) -> bool {
    let name = host.map(|host| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase());
    match (wanted, name) {
        (HostMatch::Any, _) => true,
        (_, None) => false,
        (HostMatch::Exact(wanted), Some(name)) => wanted.eq_ignore_ascii_case(&name),
        (HostMatch::Wildcard(wanted), Some(name)) => {
            let labels = name.strip_suffix(&wanted.to_ascii_lowercase()).and_then(|left| left.strip_suffix('.'));
            labels.is_some_and(|labels| !labels.is_empty() && !labels.ends_with('.'))
        }
        (HostMatch::Beginning(wanted), Some(name)) => {
            let labels = name.strip_prefix(&wanted.to_ascii_lowercase()).and_then(|left| left.strip_prefix('.'));
            labels.is_some_and(|labels| !labels.is_empty() && !labels.starts_with('.'))
        }
        (HostMatch::Regex(pattern), Some(name)) => {
            Regex::new(&HostMatch::whole(pattern)).is_ok_and(|regex| regex.is_match(&name))
        }
    }
}

fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Regex(pattern) => Regex::new(pattern).is_ok_and(|regex| regex.is_match(path)),
        others => others.rest(path).is_some(),
    }
}
