//! `[[guard]]`: what is kept away from every route.
//!
//! The most specific route wins, so a route that refuses something for all hosts is overtaken by the route of one host. A guard is not: the
//! gateway asks guards first, the most specific one of them, and routes only where none matches. It has a name among those of routes, under which it
//! stands in the log and in metrics.

use super::check_match::Firsts;
use super::check_route::{redirect, respond};
use super::defaults::Defaulted;
use super::file::{self, Match};
use super::names::Name;
use super::problem::Sink;
use super::read::{List, Written};
use super::tables::table;
use super::{Access, Captures, HeaderRules, QueryRules, Retry, RetryOn, Rewrite, Route, Target, Timeout};
use crate::units::Ratio;
use std::time::Duration;

table! {
    /// A rule that is asked before any route, and that no route overtakes. Exactly one of deny, respond and redirect is given.
    GuardRule {
        /// Its name in metrics and logs, unique among those of routes, too; what it matches where it is not given.
        optional name: Name;
        /// Which requests are meant, as in a route; all that is given must hold.
        required r#match: Match;
        /// true: refuse, with 403.
        optional deny: bool;
        /// Answer directly.
        optional respond: file::Respond;
        /// Redirect.
        optional redirect: file::Redirect;
    }
}

/// All guards, in file order, behind the routes, of which `routes` are what is taken.
pub(super) fn guards<const MIN: usize, const MAX: usize>(
    list: &List<GuardRule, MIN, MAX>,
    routes: &mut Firsts,
    sink: &mut Sink<'_>,
) -> Option<Vec<Route>> {
    let mut matches = Firsts::new("guard", list.0.len(), routes.listeners().to_vec());
    let read = |(row, written): (usize, &Written<GuardRule>)| {
        let table = &written.value;
        let matcher = matches.matcher((row, &table.at), &table.r#match.as_ref()?.value, sink);
        let name = routes.guard_name((row, &table.at), table.name.as_ref(), matcher.as_ref(), sink);
        let captures = matcher.as_ref().and_then(Captures::of);
        let target = target(table, captures.as_ref(), sink);
        Some(guard((name?, matcher?, captures), target?))
    };
    let guards: Vec<Route> = list.0.iter().enumerate().filter_map(read).collect();
    (guards.len() == list.0.len()).then_some(guards)
}

fn target(table: &GuardRule, captures: Option<&Captures>, sink: &mut Sink<'_>) -> Option<Target> {
    let given = [
        ("deny", table.deny.as_ref().map(|key| key.span.clone())),
        ("respond", table.respond.as_ref().map(|key| key.span.clone())),
        ("redirect", table.redirect.as_ref().map(|key| key.span.clone())),
    ];
    let mut present = given.iter().filter_map(|(key, span)| Some((*key, span.clone()?)));
    match present.next() {
        None if given.iter().any(|(key, _)| sink.reported(table.at.key(key))) => {}
        None => {
            let message = "missing: exactly one of deny, respond, redirect".to_owned();
            sink.place(table.at.key("deny"), table.at.offset, message, Some("write deny = true".to_owned()));
        }
        Some((first, _)) => {
            for (key, span) in present {
                let message = format!("{first} stands there too; must be exactly one of deny, respond, redirect");
                sink.value(table.at.key(key), span, message, None);
            }
        }
    }
    if let Some(deny) = table.deny.as_ref().filter(|deny| !deny.value) {
        let message = "a guard that lets everything pass is none: must be true".to_owned();
        sink.value(table.at.key("deny"), deny.span.clone(), message, None);
    }
    let respond = table.respond.as_ref().map(|table| respond(&table.value, sink));
    let redirect = table.redirect.as_ref().map(|table| redirect(&table.value, captures, sink));
    let deny = table.deny.as_ref().map(|_| Some(Target::Deny));
    deny.or(respond).or(redirect)?
}

/// A guard as what is asked like a route: nothing of it goes on, so the rest is as little as there can be.
fn guard((name, matcher, captures): (String, super::Match, Option<Captures>), target: Target) -> Route {
    Route {
        name,
        matcher,
        defaulted: Defaulted::default(),
        is_guard: true,
        target,
        auth: None,
        access: Access::default(),
        cors: None,
        rewrite: Rewrite::None,
        query: QueryRules::default(),
        captures,
        templates: None,
        request_headers: HeaderRules::default(),
        response_headers: HeaderRules::default(),
        timeout: Timeout::Fixed(Duration::from_secs(30)),
        limits: Vec::new(),
        concurrent_max: None,
        body_bytes_max: None,
        body_timeout: None,
        tunnel_timeout: None,
        body_rate_min: None,
        grpc_web: false,
        traffic: Default::default(),
        is_plain: false,
        retry: Retry {
            attempts: 0,
            on: RetryOn { connect: false, reset: false, timeout: false, statuses: Vec::new(), codes: Vec::new() },
            non_idempotent: false,
            per_try_timeout: None,
            backoff_max: Duration::ZERO,
            min_remaining: Ratio::ZERO,
        },
    }
}
