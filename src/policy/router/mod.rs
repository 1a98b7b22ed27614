//! Which route takes a request.
//!
//! The most specific route that matches wins: host exact, then the longest wildcard, then the longest beginning (`shop.*`), then regexes in the order of the file, then any
//! host; below one host, paths segment by segment (what is written out, then a placeholder, then the end of a prefix), then regex, then any path (`/*`, which would otherwise hide every regex); then more conditions
//! (a list of methods, each header, each query parameter and whatever else is asked count one); then file order. "That matches" is meant literally: when the best host or path has only routes whose other conditions
//! fail, the next best is tried, down to any host. (nginx and Envoy stop at the chosen virtual host; here a catch-all stays a catch-all.)
//!
//! Intuition: hosts and the segments of paths are looked up one by one in a tree, and all regexes of a host are one automaton, so
//! the cost follows the request's length and not the number of routes. Only routes that share host *and* path are tried one after
//! the other.
//!
//! Guards are asked first: the most specific of those that match, by the same rules, and a route only where none does.
//!
//! Methods: a route for `GET` takes `HEAD` too (as nginx's `limit_except` and most web frameworks have it); nothing else is implied.
//! A request that some route would take but for its method is answered 405 with the methods that would do (RFC 9110 §15.5.6).
//! Headers and query parameters match byte for byte after decoding, and where one comes more than once the first decides.
//!
//! It does not normalise: the path comes without its query and with dot segments resolved, the host without its port. It is immutable
//! and shared by all workers; what a search has to write lives in the worker's own [`RouterCache`].

mod conditions;
mod explain;
mod patterns;
mod query;
mod rewrite;
mod tree;

pub use conditions::Allow;
pub use explain::{Considered, MatchOutcome, Rank};
pub use patterns::RouterCache;
pub use query::{edit_query, push_encoded};
pub use rewrite::{pick_split, rest_of, rewrite};

use crate::config::{Config, HostMatch, Match, PathMatch};
use crate::limits;
use crate::units::RouteId;
use conditions::{Methods, conditions_hold};
use http::{HeaderName, Method};
use patterns::Patterns;
use rustc_hash::FxHashMap;
use std::net::IpAddr;
use std::ops::Range;
use tree::{BEGINNING_HOST, EXACT_HOST, NodeId, PLACEHOLDER, Tree, TreeBuilder, WILDCARD_HOST, nameless};

/// Whether one of a header's values is what is looked for.
pub type AnyValue<'a> = dyn Fn(&HeaderName, &mut dyn FnMut(&[u8]) -> bool) -> bool + 'a;

/// What the router looks at.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// Host without port, in any case (see [`host_without_port`]); `None`: the request names none, so only routes for any host match.
    pub host: Option<&'a str>,
    /// Path without query, dot segments resolved; `*` (of `OPTIONS *`) is taken only by routes for any path.
    pub path: &'a str,
    /// What stands behind the `?`, as received.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// Where it comes from.
    pub source: Source<'a>,
    /// Whether one of a header's values is what is looked for. Only called for routes that have header conditions.
    pub header: &'a AnyValue<'a>,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// The name of the listener.
    pub listener: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The client; `None`: it has no address, or that is not known.
    pub client: Option<IpAddr>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed<'r> {
    /// To this route.
    Route(RouteId),
    /// Nowhere: 404.
    NoRoute,
    /// A route matches but for the method: 405 with this `Allow`.
    MethodNotAllowed(Allow<'r>),
}

/// Why the routes of a configuration cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// A path regex, alone or together with the others of its host, cannot be compiled.
    #[error("route {}: path regex: {reason}", route.index())]
    Regex {
        /// The route, or the first of its host's regex routes.
        route: RouteId,
        /// What the compiler says.
        reason: String,
    },
    /// The routes name more than [`limits::METHODS_MAX`] different methods.
    #[error("routes name more than {} different methods", limits::METHODS_MAX)]
    TooManyMethods,
}

/// A route's place in a list of routes that share host and path: all that most requests need to know of it.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    route: RouteId,
    /// Bits of [`Methods`]; 0: any.
    methods: u64,
    /// There are conditions other than methods to look at.
    conditional: bool,
}

/// All routes of a configuration, compiled. Shared by the workers (`Send + Sync`, never written).
#[derive(Debug)]
pub struct Router {
    rules: Box<[Match]>,
    methods: Methods,
    /// Of both tables.
    patterns: Box<[Patterns]>,
    routes: Table,
    /// `None`: there are none.
    guards: Option<Table>,
    /// Row of the first guard; all behind it are guards.
    first_guard: usize,
}

/// Hosts and paths that are asked together.
#[derive(Debug)]
struct Table {
    tree: Tree,
    /// Root of the paths for any host.
    any: Option<NodeId>,
    /// There are wildcard hosts.
    wildcards: bool,
    /// There are hosts with a wildcard at their end.
    beginnings: bool,
    /// There are paths with placeholders.
    placeholders: bool,
    /// Regexes of hosts: their row among all patterns, and the roots of their paths in the same order.
    hosts: Option<HostPatterns>,
}

/// The row of regexes of hosts, and where the paths of each begin.
type HostPatterns = (u32, Box<[NodeId]>);

impl Router {
    /// Compiles the routes of `config`; their ids are the rows of [`Config::routes`].
    ///
    /// # Errors
    /// A regex that does not compile within [`limits::REGEX_SET_BYTES_MAX`], or too many methods. [`crate::config::check`] has
    /// refused what is wrong with a single route before.
    pub fn try_new(config: &Config) -> Result<Self, RouterError> {
        let first_guard = config.routes.partition_point(|route| !route.is_guard);
        Self::compile(config.routes.iter().map(|route| route.matcher.clone()).collect(), first_guard)
    }

    /// The same from the conditions alone, in file order; none of them is a guard.
    ///
    /// # Errors
    /// As [`Router::try_new`].
    pub fn from_matches<'m>(matches: impl IntoIterator<Item = &'m Match>) -> Result<Self, RouterError> {
        Self::compile(matches.into_iter().cloned().collect(), usize::MAX)
    }

    fn compile(rules: Box<[Match]>, first_guard: usize) -> Result<Self, RouterError> {
        let methods = Methods::try_new(&rules)?;
        let first_guard = first_guard.min(rules.len());
        let mut builder = TablesBuilder { rules: &rules, methods: &methods, patterns: Vec::new(), sets: 0 };
        builder.sets = builder.sets_of(0..first_guard) + builder.sets_of(first_guard..rules.len());
        let routes = builder.table(0..first_guard)?;
        let guards = if first_guard < rules.len() { Some(builder.table(first_guard..rules.len())?) } else { None };
        let patterns = builder.patterns.into();
        Ok(Self { methods, patterns, routes, guards, first_guard, rules })
    }

    /// The route that takes `request`. Allocates nothing once `cache` has seen the host's regexes.
    ///
    /// Cost: one hash of the host, one per path segment that routes know, one pass over the path if the host has regexes.
    pub fn route(&self, request: &RequestView<'_>, cache: &mut RouterCache) -> Routed<'_> {
        let method = self.methods.bit(request.method);
        if let Some(table) = &self.guards
            && let Some(guard) = (Search { router: self, table, request, method, allowed: 0, cache }).hosts()
        {
            return Routed::Route(guard);
        }
        let mut search = Search { router: self, table: &self.routes, request, method, allowed: 0, cache };
        if let Some(route) = search.hosts() {
            return Routed::Route(route);
        }
        match search.allowed {
            0 => Routed::NoRoute,
            allowed => Routed::MethodNotAllowed(self.methods.allow(allowed)),
        }
    }
}

/// What tables are made of.
struct TablesBuilder<'r> {
    rules: &'r [Match],
    methods: &'r Methods,
    patterns: Vec<Patterns>,
    /// Hosts that have regexes, over all tables.
    sets: usize,
}

impl<'r> TablesBuilder<'r> {
    fn by_host(&self, rows: Range<usize>) -> FxHashMap<&'r HostMatch, Vec<RouteId>> {
        let mut by_host: FxHashMap<&HostMatch, Vec<RouteId>> = FxHashMap::default();
        for row in rows {
            for host in self.rules[row].hosts() {
                by_host.entry(host).or_default().push(RouteId::from_index(row));
            }
        }
        by_host
    }

    fn sets_of(&self, rows: Range<usize>) -> usize {
        let has_regex = |routes: &&Vec<RouteId>| routes.iter().any(|id| has_regex(&self.rules[id.index()]));
        let by_host = self.by_host(rows);
        let of_hosts = by_host.keys().any(|host| matches!(host, HostMatch::Regex(_)));
        by_host.values().filter(has_regex).count() + usize::from(of_hosts)
    }

    fn table(&mut self, rows: Range<usize>) -> Result<Table, RouterError> {
        let mut tree = TreeBuilder::default();
        let (mut any, mut wildcards, mut beginnings) = (None, false, false);
        let is_template = |path: &PathMatch| matches!(path, PathMatch::Template { .. });
        let placeholders = self.rules[rows.clone()].iter().any(|rule| rule.paths().any(is_template));
        // by the first route that has it, which is the order in which they are asked
        let mut of_hosts: Vec<(RouteId, &str, NodeId)> = Vec::new();
        for (host, mut routes) in self.by_host(rows) {
            let root = match host {
                HostMatch::Any => *any.insert(tree.add_root(None)),
                HostMatch::Exact(name) => tree.add_root(Some((EXACT_HOST, &name.to_ascii_lowercase()))),
                HostMatch::Wildcard(name) => {
                    wildcards = true;
                    tree.add_root(Some((WILDCARD_HOST, &name.to_ascii_lowercase())))
                }
                HostMatch::Beginning(name) => {
                    beginnings = true;
                    tree.add_root(Some((BEGINNING_HOST, &name.to_ascii_lowercase())))
                }
                HostMatch::Regex(pattern) => {
                    let root = tree.add_root(None);
                    of_hosts.push((routes[0], pattern, root));
                    root
                }
            };
            // Within one host and path: more conditions first, then file order.
            routes.sort_by_key(|id| (std::cmp::Reverse(self.rules[id.index()].conditions()), *id));
            let regexes = add_paths(root, &routes, self.rules, self.methods, &mut tree);
            if !regexes.is_empty() {
                tree.set_patterns(root, self.patterns.len());
                self.patterns.push(Patterns::try_new(&regexes, self.sets)?);
            }
        }
        let hosts = self.host_patterns(of_hosts)?;
        Ok(Table { tree: tree.build(), any, wildcards, beginnings, placeholders, hosts })
    }

    fn host_patterns(&mut self, mut hosts: Vec<(RouteId, &str, NodeId)>) -> Result<Option<HostPatterns>, RouterError> {
        if hosts.is_empty() {
            return Ok(None);
        }
        // of one route, in its order
        hosts.sort_by_key(|(route, pattern, _)| {
            let is_it = |host: &HostMatch| matches!(host, HostMatch::Regex(other) if other == pattern);
            (*route, self.rules[route.index()].hosts().position(is_it))
        });
        let whole: Vec<String> = hosts.iter().map(|(_, pattern, _)| HostMatch::whole(pattern)).collect();
        let candidate = |route| Candidate { route, methods: 0, conditional: false };
        let regexes: Vec<_> =
            whole.iter().zip(&hosts).map(|(whole, (route, ..))| (whole.as_str(), candidate(*route))).collect();
        self.patterns.push(Patterns::try_new(&regexes, self.sets)?);
        let row = u32::try_from(self.patterns.len() - 1).expect("fewer hosts than four billion");
        Ok(Some((row, hosts.into_iter().map(|(.., root)| root).collect())))
    }
}

/// Files the routes of one host, most specific first, under their paths; gives back those with a regex.
fn add_paths<'r>(
    root: NodeId,
    routes: &[RouteId],
    rules: &'r [Match],
    methods: &Methods,
    tree: &mut TreeBuilder,
) -> Vec<(&'r str, Candidate)> {
    let mut regexes = Vec::new();
    for &route in routes {
        let rule = &rules[route.index()];
        let conditional = !rule.headers.is_empty() || !rule.query.is_empty() || !rule.more.is_empty();
        let candidate = Candidate { route, methods: methods.set(&rule.methods), conditional };
        for path in rule.paths() {
            match path {
                PathMatch::Exact(path) => tree.add_exact(root, path, candidate),
                PathMatch::Prefix(prefix) => tree.add_prefix(root, prefix, candidate),
                PathMatch::Template { path, is_prefix: false } => tree.add_exact(root, &nameless(path), candidate),
                PathMatch::Template { path, is_prefix: true } => tree.add_prefix(root, &nameless(path), candidate),
                PathMatch::Regex(pattern) => regexes.push((pattern.as_str(), candidate)),
            }
        }
    }
    regexes
}

fn has_regex(rule: &Match) -> bool {
    rule.paths().any(|path| matches!(path, PathMatch::Regex(_)))
}

/// Longest name that DNS allows, with the root's dot (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 254;

/// One walk through the hosts, from the most to the least specific.
struct Search<'s, 'v> {
    router: &'s Router,
    table: &'s Table,
    request: &'s RequestView<'v>,
    /// The request's method as a bit; 0 when no route names it.
    method: u64,
    /// Methods of routes that match but for the method.
    allowed: u64,
    cache: &'s mut RouterCache,
}

impl Search<'_, '_> {
    fn hosts(&mut self) -> Option<RouteId> {
        let mut buffer = [0_u8; HOST_BYTES_MAX];
        let name = self.request.host.and_then(|host| folded(host, &mut buffer));
        let named = name.and_then(|name| self.named_hosts(name));
        named.or_else(|| self.table.any.and_then(|root| self.paths(root)))
    }

    /// Hosts but for any, by a name in lower case.
    fn named_hosts(&mut self, name: &[u8]) -> Option<RouteId> {
        let table = self.table;
        if let Some(root) = table.tree.child(EXACT_HOST, name)
            && let Some(found) = self.paths(root)
        {
            return Some(found);
        }
        let mut rest = name;
        while table.wildcards
            && let Some(dot) = memchr::memchr(b'.', rest)
        {
            rest = &rest[dot + 1..];
            // `*` stands for whole labels that are not empty.
            if dot > 0
                && let Some(root) = table.tree.child(WILDCARD_HOST, rest)
                && let Some(found) = self.paths(root)
            {
                return Some(found);
            }
        }
        let mut rest = name;
        while table.beginnings
            && let Some(dot) = memchr::memrchr(b'.', rest)
        {
            rest = &rest[..dot];
            if name.get(dot + 1).is_some_and(|next| *next != b'.')
                && let Some(root) = table.tree.child(BEGINNING_HOST, rest)
                && let Some(found) = self.paths(root)
            {
                return Some(found);
            }
        }
        let (row, roots) = table.hosts.as_ref()?;
        self.cache.search(*row, &self.router.patterns[*row as usize], name);
        let mut from = 0;
        while let Some(index) = self.cache.next_match(*row, from) {
            if let Some(found) = self.paths(roots[index]) {
                return Some(found);
            }
            from = index + 1;
        }
        None
    }

    /// The first route of one host: paths by their segments, regexes, any path.
    fn paths(&mut self, root: NodeId) -> Option<RouteId> {
        let table = self.table;
        let found = if table.placeholders { self.below(root, root, self.request.path) } else { self.plain(root) };
        found.or_else(|| self.regexes(root)).or_else(|| self.first(table.tree.prefix(root)))
    }

    /// Where no path has placeholders: the exact path, the longest prefix, shorter ones.
    fn plain(&mut self, root: NodeId) -> Option<RouteId> {
        let table = self.table;
        let (last, whole) = table.tree.walk(root, self.request.path);
        if whole && let Some(found) = self.first(table.tree.exact(last)) {
            return Some(found);
        }
        let mut next = Some(last);
        while let Some(node) = next.filter(|&node| node != root) {
            if let Some(found) = self.first(table.tree.prefix(node)) {
                return Some(found);
            }
            next = table.tree.shorter(node);
        }
        None
    }

    /// The first route at a node or below it; `rest` is what is left of the path. It goes down as deep as paths of the configuration, and at each
    /// step one or two ways, two at most [`limits::PLACEHOLDERS_MAX`] times.
    fn below(&mut self, root: NodeId, node: NodeId, rest: &str) -> Option<RouteId> {
        let table = self.table;
        if let Some(path) = rest.strip_prefix('/') {
            let (segment, rest) = path.split_at(memchr::memchr(b'/', path.as_bytes()).unwrap_or(path.len()));
            let any = Some(PLACEHOLDER).filter(|any| !segment.is_empty() && segment != *any);
            for name in [Some(segment), any].into_iter().flatten() {
                if let Some(child) = table.tree.child(node, name.as_bytes())
                    && let Some(found) = self.below(root, child, rest)
                {
                    return Some(found);
                }
            }
        }
        if node == root {
            return None; // `/*`, behind the regexes
        }
        let exact = if rest.is_empty() { self.first(table.tree.exact(node)) } else { None };
        exact.or_else(|| self.first(table.tree.prefix(node)))
    }

    fn regexes(&mut self, root: NodeId) -> Option<RouteId> {
        let router = self.router;
        let row = self.table.tree.patterns(root)?;
        let patterns = &router.patterns[row as usize];
        let mut from = 0;
        // The matches live in the cache, which `first` must be free to ignore: take them by index.
        self.cache.search(row, patterns, self.request.path.as_bytes());
        while let Some(index) = self.cache.next_match(row, from) {
            if let Some(found) = self.first(std::slice::from_ref(patterns.candidate(index))) {
                return Some(found);
            }
            from = index + 1;
        }
        None
    }

    /// The first of these routes, which match by host and path, whose other conditions hold.
    fn first(&mut self, candidates: &[Candidate]) -> Option<RouteId> {
        for candidate in candidates {
            let route = candidate.route;
            if candidate.conditional
                && !conditions_hold(&self.router.rules[route.index()], route, self.request, self.cache)
            {
                continue;
            }
            if candidate.methods == 0 || candidate.methods & self.method != 0 {
                return Some(candidate.route);
            }
            self.allowed |= candidate.methods;
        }
        None
    }
}

/// `host` in lower case without the root's dot; `None` if no host name is that long.
fn folded<'b>(host: &str, buffer: &'b mut [u8; HOST_BYTES_MAX]) -> Option<&'b [u8]> {
    let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
    let target = buffer.get_mut(..host.len())?;
    for (to, from) in target.iter_mut().zip(host) {
        *to = from.to_ascii_lowercase();
    }
    Some(target)
}

/// A `Host` field or authority without its port: `a.example:8080` → `a.example`, `[::1]:80` → `[::1]` (RFC 3986 §3.2.2).
#[must_use]
pub fn host_without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests;
