//! The request path's `authorize`: whether who was recognised may do what is asked.
//!
//! `deny` comes first, and what it says of addresses and methods even before anybody is asked who he is: a network that is kept out costs no
//! look at a key, and the listener's holds for whatever comes in there, also where no route is. Then one rule of `allow` has to hold, if there are any, of the listener's and of the route's. Rules are looked at in the
//! order of the file, and the first that decides is the one that is told.
//!
//! A rule in dry run decides nothing; what it would have refused is told beside the verdict.

use super::networks::NetworkSet;
use super::token;
use crate::config::{self, ClaimTest, Config};
use crate::units::{GroupId, ListenerId, RouteId};
use http::Method;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::sync::Arc;

/// Who was recognised.
#[derive(Clone, Copy, Debug)]
pub struct Who<'w> {
    /// The consumer's name.
    pub name: &'w str,
    /// Its groups, rising.
    pub groups: &'w [GroupId],
    /// What its token says; `None`: it has shown none.
    pub claims: Option<&'w Map<String, Value>>,
}

/// What is known of a request when it is decided.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// The client after trusted proxies; `None`: nobody knows, and rules about it do not hold.
    pub client: Option<IpAddr>,
    /// The request's.
    pub method: &'s Method,
    /// `None`: nobody was recognised, or nobody was asked yet.
    pub who: Option<Who<'s>>,
}

/// Which list a rule stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The listener's.
    Listener,
    /// The route's.
    Route,
}

/// What comes of [`Guards::authorize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Allowed {
        /// Something in dry run would have refused it.
        would_refuse: bool,
    },
    /// 403: this row of `deny` holds.
    Denied(Place, usize),
    /// 403: no rule of `allow` holds.
    NotAllowed(Place),
}

/// The rules of all routes and listeners. Shared by the workers (`Send + Sync`).
#[derive(Debug)]
pub struct Guards {
    routes: Box<[Option<Box<Guard>>]>,
    listeners: Box<[Option<Box<Guard>>]>,
}

/// Those of one.
#[derive(Debug)]
struct Guard {
    deny: Box<[Rule]>,
    allow: Box<[Rule]>,
}

impl Guard {
    /// The row of `deny` that keeps it out whoever sends it.
    fn turns_away(&self, subject: &Subject<'_>) -> Option<usize> {
        let nobody = Subject { who: None, ..*subject };
        self.deny.iter().position(|rule| !rule.dry_run && rule.holds(&nobody))
    }
}

#[derive(Debug)]
struct Rule {
    consumers: Box<[String]>,
    /// `None`: it is not about groups.
    groups: Option<Box<[GroupId]>>,
    claims: Box<[(String, ClaimTest)]>,
    networks: Option<Arc<NetworkSet>>,
    methods: Box<[Method]>,
    dry_run: bool,
}

impl Guards {
    /// The rules of a configuration. Routes that name the same file of networks share its set.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut sets = FxHashMap::default();
        let groups = config.consumers.groups.iter().enumerate();
        let groups: FxHashMap<&str, GroupId> = groups.map(|(row, name)| (&**name, GroupId::from_index(row))).collect();
        let mut guard = |access: &config::Access| {
            let mut rules = |rules: &[config::Rule]| -> Box<[Rule]> {
                rules.iter().map(|rule| Rule::new(rule, &groups, &mut sets)).collect()
            };
            let (deny, allow) = (rules(&access.deny), rules(&access.allow));
            (!deny.is_empty() || !allow.is_empty()).then(|| Box::new(Guard { deny, allow }))
        };
        let routes = config.routes.iter().map(|route| guard(&route.access)).collect();
        let listeners = config.listeners.iter().map(|listener| guard(&listener.access)).collect();
        Self { routes, listeners }
    }

    fn guards(&self, listener: ListenerId, route: RouteId) -> impl Iterator<Item = (Place, &Guard)> {
        let (listener, route) = (&self.listeners[listener.index()], &self.routes[route.index()]);
        let listener = listener.iter().map(|guard| (Place::Listener, &**guard));
        listener.chain(route.iter().map(|guard| (Place::Route, &**guard)))
    }

    /// Whether a rule keeps the request out that is not about who sends it: to be asked before anybody is recognised.
    #[must_use]
    pub fn turns_away(&self, listener: ListenerId, route: RouteId, subject: &Subject<'_>) -> Option<Verdict> {
        self.guards(listener, route)
            .find_map(|(place, guard)| guard.turns_away(subject).map(|row| Verdict::Denied(place, row)))
    }

    /// The row of the listener's `deny` that does, whatever is asked of it.
    #[must_use]
    pub fn keeps_out(&self, listener: ListenerId, subject: &Subject<'_>) -> Option<usize> {
        self.listeners[listener.index()].as_ref().and_then(|guard| guard.turns_away(subject))
    }

    /// The row of the route's that does.
    #[must_use]
    pub fn route_turns_away(&self, route: RouteId, subject: &Subject<'_>) -> Option<usize> {
        self.routes[route.index()].as_ref().and_then(|guard| guard.turns_away(subject))
    }

    /// Whether the request may go on. Allocates nothing.
    #[must_use]
    pub fn authorize(&self, listener: ListenerId, route: RouteId, subject: &Subject<'_>) -> Verdict {
        let mut would_refuse = false;
        for (place, guard) in self.guards(listener, route) {
            for (row, rule) in guard.deny.iter().enumerate().filter(|(_, rule)| rule.holds(subject)) {
                match rule.dry_run {
                    true => would_refuse = true,
                    false => return Verdict::Denied(place, row),
                }
            }
            if !guard.allow.is_empty() && !guard.allow.iter().any(|rule| rule.holds(subject)) {
                match guard.allow[0].dry_run {
                    true => would_refuse = true,
                    false => return Verdict::NotAllowed(place),
                }
            }
        }
        Verdict::Allowed { would_refuse }
    }

    /// Whether the rules of a list hold, one after the other: for who explains.
    #[must_use]
    pub fn explain(&self, listener: ListenerId, route: RouteId, subject: &Subject<'_>) -> Vec<Explained> {
        let mut all = Vec::new();
        for (place, guard) in self.guards(listener, route) {
            for (is_deny, rules) in [(true, &guard.deny), (false, &guard.allow)] {
                all.extend(rules.iter().enumerate().map(|(row, rule)| Explained {
                    place,
                    is_deny,
                    row,
                    holds: match subject.client.is_none() && rule.networks.is_some() && rule.holds_anywhere(subject) {
                        true => None,
                        false => Some(rule.holds(subject)),
                    },
                }));
            }
        }
        all
    }
}

/// Whether one rule holds for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Whose rule it is.
    pub place: Place,
    /// It stands in `deny`.
    pub is_deny: bool,
    /// Its row there.
    pub row: usize,
    /// `None`: that depends on the client's address, which is not known.
    pub holds: Option<bool>,
}

/// Sets of networks that have been made, by the list of the file and those of the configuration beside it.
type Sets = FxHashMap<(usize, Vec<ipnet::IpNet>), Arc<NetworkSet>>;

impl Rule {
    fn new(rule: &config::Rule, groups: &FxHashMap<&str, GroupId>, sets: &mut Sets) -> Self {
        let id = |name: &String| groups.get(name.as_str()).copied();
        let networks = rule.networks.as_ref().map(|networks| {
            let file = networks.file.as_ref().map_or(0, |file| file.networks.as_ptr() as usize);
            let set = sets.entry((file, networks.listed.clone()));
            Arc::clone(set.or_insert_with(|| Arc::new(NetworkSet::new(networks.all()))))
        });
        let mut methods = rule.methods.clone();
        if methods.contains(&Method::GET) {
            methods.push(Method::HEAD);
        }
        Self {
            consumers: rule.consumers.clone().into(),
            groups: (!rule.groups.is_empty()).then(|| rule.groups.iter().filter_map(id).collect()),
            claims: rule.claims.clone().into(),
            networks,
            methods: methods.into(),
            dry_run: rule.dry_run,
        }
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        let is_there = |set: &Arc<NetworkSet>| subject.client.is_some_and(|client| set.contains(client));
        self.holds_anywhere(subject) && self.networks.as_ref().is_none_or(is_there)
    }

    /// But for the client's address.
    fn holds_anywhere(&self, subject: &Subject<'_>) -> bool {
        let is_one = self.consumers.is_empty()
            || subject.who.is_some_and(|who| self.consumers.iter().any(|consumer| consumer == who.name));
        let is_member = |groups: &[GroupId]| {
            subject.who.is_some_and(|who| groups.iter().any(|group| who.groups.binary_search(group).is_ok()))
        };
        is_one
            && self.groups.as_deref().is_none_or(is_member)
            && (self.claims.is_empty()
                || subject.who.and_then(|who| who.claims).is_some_and(|claims| self.claim(claims)))
            && (self.methods.is_empty() || self.methods.contains(subject.method))
    }
}

impl Rule {
    /// Whether a token says what the rule asks for.
    fn claim(&self, claims: &Map<String, Value>) -> bool {
        self.claims.iter().all(|(name, test)| {
            token::claim(claims, name).is_some_and(|value| match test {
                ClaimTest::Any(words) => words.iter().any(|word| token::contains(value, word)),
                ClaimTest::All(words) => words.iter().all(|word| token::contains(value, word)),
                ClaimTest::Exact(text) => value == text,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guards(listener: &str, route: &str) -> Guards {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n{listener}\n[[route]]\nauth = [\"key\"]\nrespond = {{}}\n{route}\n\
             [auth.key]\nheader = \"x-key\"\n[consumer.acme]\ngroups = [\"partners\", \"eu\"]\n[consumer.bolt]\ngroups = [\"eu\"]\n"
        );
        let config = config::check::parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        Guards::new(&config)
    }

    const ACME: Who<'static> = Who { name: "acme", groups: &[GroupId(0), GroupId(1)], claims: None };
    const BOLT: Who<'static> = Who { name: "bolt", groups: &[GroupId(1)], claims: None };

    fn ask(guards: &Guards, client: &str, method: &Method, who: Option<Who<'_>>) -> Verdict {
        let subject = Subject { client: Some(client.parse().unwrap()), method, who };
        guards.authorize(ListenerId(0), RouteId(0), &subject)
    }

    const ALLOWED: Verdict = Verdict::Allowed { would_refuse: false };

    #[test]
    fn without_rules_everybody_may() {
        assert_eq!(ask(&guards("", ""), "10.0.0.1", &Method::GET, None), ALLOWED);
    }

    #[test]
    fn all_that_a_rule_says_must_hold_and_one_rule_of_allow_is_enough() {
        let guards = guards(
            "",
            "allow = [{ group = [\"partners\"], method = [\"GET\"] }, { consumer = [\"bolt\"], client_ip = [\"10.0.0.0/8\"] }]",
        );
        let ask = |client: &str, method, who| ask(&guards, client, &method, who);
        assert_eq!(ask("192.0.2.1", Method::GET, Some(ACME)), ALLOWED);
        assert_eq!(ask("192.0.2.1", Method::HEAD, Some(ACME)), ALLOWED, "GET brings HEAD");
        assert_eq!(ask("192.0.2.1", Method::POST, Some(ACME)), Verdict::NotAllowed(Place::Route));
        assert_eq!(ask("10.1.1.1", Method::POST, Some(BOLT)), ALLOWED);
        assert_eq!(ask("11.1.1.1", Method::POST, Some(BOLT)), Verdict::NotAllowed(Place::Route));
        assert_eq!(ask("10.1.1.1", Method::GET, None), Verdict::NotAllowed(Place::Route));
    }

    #[test]
    fn deny_wins_and_what_needs_no_name_is_decided_before_one_is_asked_for() {
        let guards = guards(
            "deny = { client_ip = [\"192.0.2.0/24\"] }",
            "allow = { group = [\"eu\"] }\ndeny = [{ consumer = [\"bolt\"] }, { method = [\"DELETE\"] }]",
        );
        assert_eq!(ask(&guards, "192.0.2.9", &Method::GET, Some(ACME)), Verdict::Denied(Place::Listener, 0));
        assert_eq!(ask(&guards, "10.0.0.1", &Method::GET, Some(BOLT)), Verdict::Denied(Place::Route, 0));
        assert_eq!(ask(&guards, "10.0.0.1", &Method::DELETE, Some(ACME)), Verdict::Denied(Place::Route, 1));
        assert_eq!(ask(&guards, "10.0.0.1", &Method::GET, Some(ACME)), ALLOWED);
        let early = |client: &str, method: &Method| {
            let subject = Subject { client: Some(client.parse().unwrap()), method, who: Some(BOLT) };
            guards.turns_away(ListenerId(0), RouteId(0), &subject)
        };
        assert_eq!(early("192.0.2.9", &Method::GET), Some(Verdict::Denied(Place::Listener, 0)));
        assert_eq!(early("10.0.0.1", &Method::DELETE), Some(Verdict::Denied(Place::Route, 1)));
        assert_eq!(early("10.0.0.1", &Method::GET), None, "the rule about bolt waits");
        let apart = |client: &str, method: &Method| {
            let subject = Subject { client: Some(client.parse().unwrap()), method, who: None };
            (guards.keeps_out(ListenerId(0), &subject), guards.route_turns_away(RouteId(0), &subject))
        };
        assert_eq!(apart("192.0.2.9", &Method::GET), (Some(0), None));
        assert_eq!(apart("10.0.0.1", &Method::DELETE), (None, Some(1)));
    }

    #[test]
    fn a_dry_run_refuses_nobody_and_says_what_it_would() {
        let guards = guards(
            "deny = { client_ip = [\"192.0.2.0/24\"], dry_run = true }",
            "allow = { group = [\"partners\"], dry_run = true }",
        );
        assert_eq!(ask(&guards, "10.0.0.1", &Method::GET, Some(ACME)), ALLOWED);
        let would = Verdict::Allowed { would_refuse: true };
        assert_eq!(ask(&guards, "192.0.2.1", &Method::GET, Some(ACME)), would);
        assert_eq!(ask(&guards, "10.0.0.1", &Method::GET, Some(BOLT)), would);
    }

    #[test]
    fn claims_have_words_entries_or_a_text() {
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nauth = [\"jwt\"]\nrespond = {}\n\
            allow = [{ claim = { scope = \"orders:write\" } }, { claim = { roles = { all = [\"a\", \"b\"] } } }, \
            { claim = { \"org.tier\" = { exact = \"gold\" } } }]\n\
            [auth.jwt]\nkey = { secret = \"a-secret-of-at-least-32-bytes-of-which-nobody-knows\" }\nalgorithms = [\"HS256\"]\n";
        let config = config::check::parse_for(text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        let guards = Guards::new(&config);
        let ask = |claims: serde_json::Value| {
            let who = Who { name: "acme", groups: &[], claims: claims.as_object() };
            ask(&guards, "10.0.0.1", &Method::GET, Some(who))
        };
        for (claims, expected) in [
            (r#"{"scope":"orders:read orders:write"}"#, true),
            (r#"{"scope":["orders:write"]}"#, true),
            (r#"{"scope":"orders:writes"}"#, false),
            (r#"{"roles":["b","c","a"]}"#, true),
            (r#"{"roles":["a"]}"#, false),
            (r#"{"org":{"tier":"gold"}}"#, true),
            (r#"{"org":{"tier":"gold silver"}}"#, false),
            (r#"{}"#, false),
        ] {
            let verdict = ask(serde_json::from_str(claims).unwrap());
            assert_eq!(verdict == ALLOWED, expected, "{claims}: {verdict:?}");
        }
        assert_eq!(super::tests::ask(&guards, "10.0.0.1", &Method::GET, Some(ACME)), Verdict::NotAllowed(Place::Route));
    }

    #[test]
    fn what_depends_on_an_unknown_address_is_said_so() {
        let guards = guards(
            "",
            "deny = [{ client_ip = [\"10.0.0.0/8\"] }, { client_ip = [\"10.0.0.0/8\"], method = [\"PUT\"] }]",
        );
        let subject = Subject { client: None, method: &Method::GET, who: None };
        let holds: Vec<_> =
            guards.explain(ListenerId(0), RouteId(0), &subject).into_iter().map(|rule| rule.holds).collect();
        assert_eq!(holds, [None, Some(false)]);
    }
}
