//! Limits and hashes that tell requests apart by their path: `template`, which of a route's paths one has met, and `capture:NAME`, what that has found.
//!
//! Most routes need neither, so what is looked at is kept where a limit or an upstream of theirs asks for it.

use super::matching::PathMatch;
use super::{Balance, Captures, Cluster, HashKey, Limit, LimitKey, Listener, Match, Route, Target};
use std::cmp::Reverse;
use std::sync::Arc;

/// The paths of a route as the file writes them, the most specific first.
#[derive(Clone, Debug)]
pub struct Templates(Box<[(PathMatch, Box<str>)]>);

impl Templates {
    fn of(matcher: &Match) -> Self {
        let mut paths: Vec<_> = matcher.paths().map(|path| (path.clone(), path.to_string().into())).collect();
        paths.sort_by_key(|(path, _): &(PathMatch, Box<str>)| Reverse(path.rank()));
        Self(paths.into())
    }

    /// Which of them a request has met that was routed by this path. Of regexes it is the first, whichever has: they count as one.
    #[must_use]
    pub fn met(&self, path: &str) -> &str {
        let has_met = |by: &PathMatch| matches!(by, PathMatch::Regex(_)) || by.rest(path).is_some();
        self.0.iter().find(|(by, _)| has_met(by)).map_or("", |(_, written)| written)
    }
}

/// The keys of a limit.
pub(super) fn keys(limit: &Limit) -> &[LimitKey] {
    match &limit.per {
        LimitKey::Several(keys) => keys,
        key => std::slice::from_ref(key),
    }
}

/// What the endpoints of an upstream are hashed by, if that is something that a path has found.
pub(super) fn hashed(cluster: &Cluster) -> Option<&str> {
    match &cluster.balance {
        Balance::RingHash(HashKey::Capture(name)) | Balance::Maglev(HashKey::Capture(name)) => Some(name),
        _ => None,
    }
}

/// Whether requests of this route go to that upstream, or may.
pub(super) fn leads_to(route: &Route, clusters: &[Arc<Cluster>], is_it: impl Fn(&Cluster) -> bool) -> bool {
    let Target::Upstream(split) = &route.target else { return false };
    split.iter().any(|(cluster, _)| is_it(&clusters[cluster.index()]))
}

/// Has routes keep what their limits, those of listeners, and their upstreams ask for.
pub(super) fn keep(routes: &mut [Route], listeners: &[Listener], clusters: &[Arc<Cluster>]) {
    let of_listeners = || listeners.iter().flat_map(|listener| &listener.limits);
    for route in routes {
        let asks = |is_it: fn(&LimitKey) -> bool| of_listeners().chain(&route.limits).flat_map(keys).any(is_it);
        let asks_for_capture = asks(|key| matches!(key, LimitKey::Capture(_)))
            || leads_to(route, clusters, |cluster| hashed(cluster).is_some());
        let templates = asks(|key| *key == LimitKey::Template).then(|| Templates::of(&route.matcher));
        if asks_for_capture && route.captures.is_none() {
            route.captures = Captures::of(&route.matcher);
        }
        route.templates = templates;
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, parse};

    fn loaded(limit: &str, upstream: &str) -> Config {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nmatch = {{ path = [\"/u/{{id}}\", \"/u/{{id}}/*\", \"/u/me\", \"~^/v\", \"~^/w\", \"/*\"] }}\nupstream = \"a\"\n{limit}\n\
             [[route]]\nmatch = {{ path = \"/t/{{id}}\", method = [\"GET\"] }}\nupstream = \"a\"\n\
             [upstream.a]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n{upstream}\n"
        );
        parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn a_request_has_met_the_most_specific_path() {
        let config = loaded("limit = [{ rate = \"1/s\", per = [\"template\", \"client_ip\"] }]", "");
        let templates = config.routes[0].templates.as_ref().expect("a limit asks for them");
        for (path, met) in
            [("/u/7", "/u/{id}"), ("/u/7/x", "/u/{id}/*"), ("/u/me", "/u/me"), ("/v7", "~^/v"), ("/w", "~^/v")]
        {
            assert_eq!(templates.met(path), met, "{path}");
        }
        assert!(config.routes[1].templates.is_none() && config.routes[0].captures.is_none());
    }

    #[test]
    fn captures_are_kept_where_somebody_asks_for_them() {
        assert!(loaded("", "").routes[1].captures.is_none());
        let config = loaded("", "balance = \"maglev\"\nhash = \"capture:id\"");
        assert!(
            config.routes[1].captures.is_some() && config.routes[0].captures.is_none(),
            "one of its paths has none"
        );
    }
}
