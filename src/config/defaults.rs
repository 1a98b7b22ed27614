//! `[defaults]` and `[listener.defaults]`: what routes say that do not say it themselves.
//!
//! Key by key, and a route's own wins: so `retry = { attempts = 1 }` of a route leaves the other keys of `retry` to the defaults. Of headers it is name by
//! name. What a route answers itself has no use for some keys, and they are left out there.
//!
//! A listener's defaults come before those of the file. They are for routes that no other listener serves, because a route has one timeout and one limit,
//! wherever its requests come in: a route of several listeners that leaves a key to one of them is an error.

use super::check::listener_name;
use super::cors::CorsTable;
use super::file::{BodySize, RouteTimeout};
use super::file::{Concurrency, File, HeaderRules, HeaderSet, ResponseRules, Retry, Route, Timeout};
use super::knobs::ByteRate;
use super::limit_keys::LimitItem;
use super::names::{EditableHeader, Name};
use super::problem::{Sink, listed};
use super::read::{List, Written};
use super::tables::table;
use crate::limits::{AUTH_MAX, ENTRIES_MAX, ROUTE_LIMITS_MAX};

table! {
    /// What routes say that do not say it themselves, key by key; see the route's keys of these names.
    Defaults {
        /// Ways to be recognised.
        optional auth: List<Name, 0, AUTH_MAX>;
        /// Which pages of other origins may call.
        optional cors: CorsTable;
        /// Changes to the request's headers, name by name.
        optional request_headers: HeaderRules;
        /// Changes to the response's headers, name by name.
        optional response_headers: ResponseRules;
        /// T_max of the whole request.
        optional timeout: RouteTimeout;
        /// Rate limits, in place of none.
        optional limit: List<LimitItem, 0, ROUTE_LIMITS_MAX>;
        /// Requests at once, of each route.
        optional max_concurrent: Concurrency;
        /// Request body.
        optional max_body: BodySize;
        /// Without a byte of a body moving.
        optional body_timeout: Timeout;
        /// Of an upgraded connection.
        optional tunnel_timeout: Timeout;
        /// Slowest average at which a request's body may arrive.
        optional min_body_rate: ByteRate;
        /// Retries, key by key.
        optional retry: Retry;
    }
}

/// Keys of a route that it has not said itself, or not all of them, by who has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaulted {
    /// `[listener.defaults]` of the one listener that serves it.
    pub by_listener: Vec<&'static str>,
    /// `[defaults]`.
    pub by_file: Vec<&'static str>,
}

/// What routes may get.
pub(super) struct Givers<'f> {
    file: Option<&'f Defaults>,
    /// All of them, in the order of the file.
    listeners: Vec<(String, Option<&'f Defaults>)>,
}

impl<'f> Givers<'f> {
    /// Those of the file.
    pub(super) fn of(file: &'f File) -> Self {
        let tables = file.listener.iter().flat_map(|list| &list.value.0).map(|written| &written.value);
        let defaults = |table: &'f super::file::Listener| table.defaults.as_ref().map(|defaults| &defaults.value);
        let listeners = tables.filter_map(|table| Some((listener_name(table)?, defaults(table)))).collect();
        Self { file: file.defaults.as_ref().map(|table| &table.value), listeners }
    }

    /// The listeners' names.
    pub(super) fn listeners(&self) -> Vec<String> {
        self.listeners.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Gives a route what it does not say, and tells which keys these are.
    pub(super) fn give(&self, route: &mut Route, sink: &mut Sink<'_>) -> Defaulted {
        let by_listener = match self.serving(route).as_slice() {
            [(_, Some(own))] => own.give(route, &[]),
            several => {
                unclear(route, several, sink);
                Vec::new()
            }
        };
        let by_file = self.file.map(|defaults| defaults.give(route, &by_listener)).unwrap_or_default();
        Defaulted { by_listener, by_file }
    }

    /// The listeners that its requests may come in at.
    fn serving(&self, route: &Route) -> Vec<(&str, Option<&'f Defaults>)> {
        let matcher = route.r#match.as_ref().map(|matcher| &matcher.value);
        let named = matcher.and_then(|matcher| matcher.listener.as_ref()).map(|list| &list.value.0);
        let named = named.filter(|list| !list.is_empty());
        let is_one = |name: &str| named.is_none_or(|list| list.iter().any(|it| it.value.0 == name));
        let all = self.listeners.iter().map(|(name, defaults)| (name.as_str(), *defaults));
        all.filter(|(name, _)| is_one(name)).collect()
    }
}

/// Reports keys that a route of several listeners leaves to one of them.
fn unclear(route: &Route, serving: &[(&str, Option<&Defaults>)], sink: &mut Sink<'_>) {
    for (name, defaults) in serving.iter().filter_map(|(name, defaults)| Some((name, (*defaults)?))) {
        let keys = defaults.give(&mut route.clone(), &[]);
        if keys.is_empty() {
            continue;
        }
        let names: Vec<&str> = serving.iter().map(|(name, _)| *name).collect();
        let message = format!(
            "the listeners {} serve this route, and defaults of {name:?} say {}: it cannot be one thing for one of them and another for the others",
            listed(&names),
            listed(&keys)
        );
        let help = "say them in the route, in [defaults], or make it a route for each listener (match.listener)";
        let (at, offset) = match &route.r#match {
            Some(matcher) if matcher.given => (route.at.key("match"), matcher.span.start),
            _ => (route.at.key("match"), route.at.offset),
        };
        sink.place(at, offset, message, Some(help.to_owned()));
    }
}

impl Defaults {
    /// Gives a route what it does not say and what is not `taken` yet, and tells which keys these are.
    fn give(&self, route: &mut Route, taken: &[&str]) -> Vec<&'static str> {
        let mut given = Vec::new();
        let answers = route.respond.is_some() || route.redirect.is_some();
        let mut missing = |key, is_missing: bool| {
            given.extend(is_missing.then_some(key));
            is_missing
        };
        macro_rules! optional {
            ($($key:ident),*) => {$(
                if route.$key.is_none() && missing(stringify!($key), self.$key.is_some()) {
                    route.$key = self.$key.clone();
                }
            )*};
        }
        macro_rules! defaulted {
            ($($key:ident),*) => {$(
                if let Some(own) = &self.$key
                    && !taken.contains(&stringify!($key))
                    && route.$key.as_ref().is_some_and(|it| !it.given)
                {
                    missing(stringify!($key), true);
                    route.$key = Some(Written { given: false, ..own.clone() });
                }
            )*};
        }
        optional!(auth, cors, max_concurrent, max_body);
        defaulted!(limit);
        if !answers {
            optional!(body_timeout, tunnel_timeout, min_body_rate);
            defaulted!(timeout);
        }
        if let (Some(own), Some(rules), false) = (&self.request_headers, &mut route.request_headers, answers) {
            let (of, rules) = (&own.value, &mut rules.value);
            missing("request_headers", headers((&of.set, &of.remove), (&mut rules.set, &mut rules.remove)));
        }
        if let (Some(own), Some(rules)) = (&self.response_headers, &mut route.response_headers) {
            let (of, rules) = (&own.value, &mut rules.value);
            let always = key(&of.always, &mut rules.always);
            let names = headers((&of.set, &of.remove), (&mut rules.set, &mut rules.remove));
            missing("response_headers", always || names);
        }
        if let (Some(own), Some(retry), false) = (&self.retry, &mut route.retry, answers) {
            missing("retry", retried(&own.value, &mut retry.value));
        }
        given
    }
}

/// Whether a key is taken from the defaults: it stands there, and not in the route.
fn key<T: Clone>(default: &Option<Written<T>>, own: &mut Option<Written<T>>) -> bool {
    let is_taken = default.as_ref().is_some_and(|key| key.given) && own.as_ref().is_some_and(|key| !key.given);
    if is_taken {
        own.clone_from(default);
    }
    is_taken
}

fn retried(default: &Retry, own: &mut Retry) -> bool {
    let taken = [
        key(&default.attempts, &mut own.attempts),
        key(&default.on, &mut own.on),
        key(&default.non_idempotent, &mut own.non_idempotent),
        key(&default.per_try_timeout, &mut own.per_try_timeout),
        key(&default.backoff_max, &mut own.backoff_max),
        key(&default.min_remaining, &mut own.min_remaining),
    ];
    taken.contains(&true)
}

type Removed = List<EditableHeader, 0, ENTRIES_MAX>;

/// Adds the rules about headers that a route's own say nothing about.
fn headers(
    (set, remove): (&Option<Written<HeaderSet>>, &Option<Written<Removed>>),
    (own_set, own_remove): (&mut Option<Written<HeaderSet>>, &mut Option<Written<Removed>>),
) -> bool {
    let (Some(set), Some(remove), Some(own_set), Some(own_remove)) = (set, remove, own_set, own_remove) else {
        return false;
    };
    let (own_set, own_remove) = (&mut own_set.value.0, &mut own_remove.value.0);
    let said: Vec<_> =
        own_set.iter().map(|(name, _)| &name.value).chain(own_remove.iter().map(|it| &it.value)).collect();
    let said: Vec<_> = said.into_iter().map(|name| name.0.clone()).collect();
    let before = own_set.len() + own_remove.len();
    own_set.extend(set.value.0.iter().filter(|(name, _)| !said.contains(&name.value.0)).cloned());
    own_remove.extend(remove.value.0.iter().filter(|name| !said.contains(&name.value.0)).cloned());
    own_set.len() + own_remove.len() > before
}

#[cfg(test)]
mod tests {
    use crate::config::check::parse_for;
    use crate::config::{Config, Timeout};
    use std::time::Duration;

    const UPSTREAM: &str =
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[upstream.a]\nendpoints = [{ address = \"10.0.0.1:1\" }]\n";
    const DEFAULTS: &str = r#"
[defaults]
timeout = "3s"
max_body = "1KiB"
body_timeout = "9s"
limit = [{ rate = "5/s" }]
request_headers = { set = { x-a = "1", x-b = "2" }, remove = ["x-c"] }
response_headers = { set = { x-d = "{client_ip}" }, always = true }
retry = { attempts = 7, on = ["connect"] }
"#;

    fn config(routes: &str) -> Config {
        parse_for(&format!("{UPSTREAM}{DEFAULTS}{routes}"), "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn a_route_has_what_the_defaults_say_but_for_its_own_keys() {
        let config = config(
            "[[route]]\nname = \"plain\"\nupstream = \"a\"\n[[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nupstream = \"a\"\n\
             timeout = \"1s\"\nmax_body = \"2KiB\"\nlimit = []\nretry = { attempts = 1 }\n\
             request_headers = { set = { X-A = \"own\", x-c = \"3\" }, remove = [\"x-b\"] }\nresponse_headers = { always = false }\n\
             [[route]]\nname = \"answer\"\nmatch = { path = \"/answer\" }\nrespond = {}\n",
        );
        let [plain, own, answer] = &config.routes[..] else { panic!("{:?}", config.routes) };
        assert_eq!((plain.timeout, plain.body_bytes_max), (Timeout::Fixed(Duration::from_secs(3)), Some(1024)));
        assert_eq!((plain.limits.len(), plain.retry.attempts, plain.retry.on.reset), (1, 7, false));
        assert_eq!((plain.request_headers.set.len(), plain.request_headers.remove.len()), (2, 1));
        assert!(plain.response_headers.always && plain.response_headers.templates.len() == 1);
        let all = ["max_body", "limit", "body_timeout", "timeout", "request_headers", "response_headers", "retry"];
        assert_eq!(plain.defaulted.by_file, all);
        assert_eq!((own.timeout, own.body_bytes_max), (Timeout::Fixed(Duration::from_secs(1)), Some(2048)));
        assert_eq!((own.limits.len(), own.retry.attempts, own.retry.on.reset), (0, 1, false));
        let set: Vec<_> =
            own.request_headers.set.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(set, [("x-a", &b"own"[..]), ("x-c", b"3")]);
        assert_eq!(own.request_headers.remove, ["x-b"]);
        assert!(!own.response_headers.always);
        assert_eq!(own.defaulted.by_file, ["body_timeout", "response_headers", "retry"]);
        assert_eq!(answer.defaulted.by_file, ["max_body", "limit", "response_headers"]);
        assert_eq!((answer.limits.len(), answer.timeout), (1, Timeout::Fixed(Duration::from_secs(30))));
    }

    #[test]
    fn what_is_wrong_in_the_defaults_is_told_where_it_stands() {
        let text = format!("{UPSTREAM}[[route]]\nupstream = \"a\"\n[defaults]\nauth = [\"nobody\"]\ntimeot = \"1s\"\n");
        let errors = parse_for(&text, "f", &[0]).unwrap_err();
        let lines: Vec<_> = errors.problems().iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [8, 9], "{errors}");
    }

    const LISTENERS: &str = r#"
[[listener]]
name = "edge"
listen = "127.0.0.1:0"
[listener.defaults]
timeout = "4s"
limit = []
max_body = "4KiB"
retry = { on = ["reset"] }
response_headers = { set = { x-d = "edge" } }
[[listener]]
name = "inside"
listen = "127.0.0.1:0"
[[listener]]
name = "other"
listen = "127.0.0.1:0"
[listener.defaults]
max_concurrent = 7
timeout = "6s"
[upstream.a]
endpoints = [{ address = "10.0.0.1:1" }]
"#;

    #[test]
    fn a_listener_comes_before_the_file_and_behind_the_route() {
        let route = |name: &str, rest: &str| {
            format!(
                "[[route]]\nname = \"{name}-{}\"\nmatch = {{ path = \"/{}\", listener = [\"{name}\"] }}\n{rest}\n",
                rest.len(),
                rest.len()
            )
        };
        let routes = [
            route("edge", "upstream = \"a\""),
            route(
                "edge",
                "upstream = \"a\"\ntimeout = \"1s\"\nretry = { on = [\"502\"] }\nlimit = [{ rate = \"1/s\" }]",
            ),
            route("edge", "respond = {}"),
            route("inside", "upstream = \"a\""),
            route("other", "upstream = \"a\""),
        ];
        let text = format!("{LISTENERS}{DEFAULTS}{}", routes.concat());
        let config = parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        let [plain, own, answer, inside, other] = &config.routes[..] else { panic!("{:?}", config.routes) };
        let fixed = |seconds| Timeout::Fixed(Duration::from_secs(seconds));
        assert_eq!((plain.timeout, plain.limits.len(), plain.body_bytes_max), (fixed(4), 0, Some(4_096)));
        assert_eq!((plain.retry.attempts, plain.retry.on.connect, plain.retry.on.reset), (7, false, true));
        assert!(plain.response_headers.always && plain.response_headers.templates.is_empty());
        assert_eq!(plain.defaulted.by_listener, ["max_body", "limit", "timeout", "response_headers", "retry"]);
        assert_eq!(plain.defaulted.by_file, ["body_timeout", "request_headers", "response_headers", "retry"]);
        assert_eq!((own.timeout, own.limits.len(), own.retry.on.reset), (fixed(1), 1, false));
        assert_eq!(own.defaulted.by_listener, ["max_body", "response_headers"]);
        assert_eq!((answer.timeout, answer.limits.len(), answer.body_bytes_max), (fixed(30), 0, Some(4_096)));
        assert_eq!((inside.timeout, inside.limits.len(), inside.concurrent_max), (fixed(3), 1, None));
        assert_eq!(inside.defaulted.by_listener, [""; 0]);
        assert_eq!((other.timeout, other.limits.len(), other.concurrent_max), (fixed(6), 1, Some(7)));
    }

    #[test]
    fn a_route_of_several_listeners_leaves_nothing_to_one_of_them() {
        let refused = |routes: &str| match parse_for(&format!("{LISTENERS}{routes}"), "f", &[0]) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.problems().iter().map(|it| format!("{} {}", it.path, it.message)).collect(),
        };
        let both = "match = { listener = [\"inside\", \"other\"] }\nupstream = \"a\"";
        let told = refused(&format!("[[route]]\n{both}\n"));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("route[0].match the listeners inside, other serve this route"), "{told:?}");
        assert!(told[0].contains("\"other\" say max_concurrent, timeout:"), "{told:?}");
        assert_eq!(refused(&format!("[[route]]\n{both}\ntimeout = \"1s\"\nmax_concurrent = 1\n")), [""; 0]);
        let told = refused("[[route]]\nupstream = \"a\"\n");
        assert_eq!(told.len(), 2, "a route without match.listener is one of all: {told:?}");
        let named = "match = { listener = [\"inside\", \"inside\"] }\nupstream = \"a\"";
        assert_eq!(refused(&format!("[[route]]\n{named}\n")), [""; 0]);
        let told = refused("[[route]]\nmatch = { listener = [\"edgy\"] }\nupstream = \"a\"\n");
        assert!(told.len() == 1 && told[0].contains("no such listener"), "{told:?}");
    }
}
