//! The routes of the file: what their keys must agree on, with each other and with the upstreams.

use super::check::value;
use super::check_identity::AccessReader;
use super::check_match::{Firsts, begins_with, unique};
use super::cors;
use super::defaults::{Defaulted, Givers};
use super::document::{Document, Entangled};
use super::file::{self, RouteTimeout};
use super::names::{EditableHeader, Name};
use super::place::{KeyOf, Place};
use super::problem::{Refusal, Sink, listed};
use super::read::{Later, List, Written};
use super::retry_word::retry_on;
use super::traffic;
use super::values::duration;
use super::{
    Captures, HeaderRules, Match, PathMatch, QueryRules, Retry, Rewrite, Route, Target, Timeout, Variable, rewrites,
};
use crate::units::{ClusterId, Weight};
use http::StatusCode;
use rustc_hash::FxHashMap;

/// All routes, in file order, and what they have taken; `upstreams` are the names that they may use, in the order of their ids.
///
/// # Errors
/// As [`Document::routes`].
pub(super) fn routes<'a, const MIN: usize, const MAX: usize>(
    document: &Document<'_>,
    list: &Later<file::Route, MIN, MAX>,
    (upstreams, unmirrorable): (&[&'a str], Vec<Option<&'static str>>),
    (givers, access): (&Givers<'_>, &mut AccessReader<'a>),
    sink: &mut Sink<'_>,
) -> Result<(Option<Vec<Route>>, Firsts), Entangled> {
    let ids = upstreams.iter().enumerate().map(|(row, name)| (*name, ClusterId::from_index(row))).collect();
    let mut upstream_names = upstreams.to_vec();
    upstream_names.sort_unstable();
    let mut taken = Taken {
        upstreams: ids,
        upstream_names,
        firsts: Firsts::new("route", document.routes_expected(), givers.listeners()),
        unmirrorable,
    };
    let mut routes = Vec::with_capacity(document.routes_expected());
    let count = document.routes(list, sink, |row, mut table, sink| {
        let defaulted = givers.give(&mut table, sink);
        let route = RouteReader { row, taken: &mut taken, access: &mut *access, sink }.route(&table);
        routes.extend(route.map(|route| Route { defaulted, ..route }));
    })?;
    Ok((count.filter(|count| *count == routes.len()).map(|_| routes), taken.firsts))
}

/// What routes have in common: the names they refer to, and what earlier ones have taken.
struct Taken<'a> {
    upstreams: FxHashMap<&'a str, ClusterId>,
    /// The same, sorted, for messages.
    upstream_names: Vec<&'a str>,
    firsts: Firsts,
    /// Why copies may not go to an upstream, by its row.
    unmirrorable: Vec<Option<&'static str>>,
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
        let matcher = table
            .r#match
            .as_ref()
            .and_then(|matcher| self.taken.firsts.matcher((self.row, &table.at), &matcher.value, self.sink));
        let name = self.taken.firsts.name((self.row, &table.at), table.name.as_ref(), matcher.as_ref(), self.sink);
        let captures = matcher.as_ref().and_then(Captures::of);
        let rewrite = matcher.as_ref().and_then(|matcher| self.rewrite(table, matcher, captures.as_ref()));
        let query = table.query.as_ref().and_then(|edits| self.query(&edits.value, captures.as_ref()));
        let target = self.target(table, captures.as_ref());
        let request_headers = table.request_headers.as_ref().and_then(|rules| {
            let rules = &rules.value;
            self.header_rules(&rules.at, (rules.set.as_ref()?, rules.remove.as_ref()?), (true, captures.as_ref()))
        });
        let mut response_headers = table.response_headers.as_ref().and_then(|rules| {
            let rules = &rules.value;
            let made = self.header_rules(
                &rules.at,
                (rules.set.as_ref()?, rules.remove.as_ref()?),
                (false, captures.as_ref()),
            )?;
            Some(HeaderRules { always: value(&rules.always)?, ..made })
        });
        let cors = table
            .cors
            .as_ref()
            .map(|cors| self::cors::cors(&cors.value, matcher.as_ref(), response_headers.as_mut(), self.sink));
        let timeout = self.timeout(table);
        let limits = table.limit.as_ref();
        let limits = limits.and_then(|list| self.access.limits.of_route(table.at.key("limit"), list, self.sink));
        let auth = table.auth.as_ref().map(|list| self.access.ways(table.at.key("auth"), list, self.sink));
        let access = self.access.access(table.allow.as_ref(), table.deny.as_ref(), self.sink);
        let retry = table.retry.as_ref().and_then(|retry| self.retry(&retry.value, timeout.as_ref()));
        let mirror = self.mirror(table, target.as_ref());
        let paths = matcher.as_ref().zip(rewrite.as_ref());
        let traffic = traffic::traffic(table, (mirror, response_headers.as_ref()), paths, self.sink);
        self.without_effect(table);
        let captures = captures.filter(|_| has_names(table)); // others cost memory for nothing
        Some(Route {
            name: name?,
            matcher: matcher?,
            defaulted: Defaulted::default(),
            is_guard: false,
            target: target?,
            auth,
            access: access?,
            cors: cors.map_or(Some(None), |cors| cors.map(Some))?,
            rewrite: rewrite?,
            query: query?,
            captures,
            templates: None,
            request_headers: request_headers?,
            response_headers: response_headers?,
            timeout: timeout?,
            limits: limits?,
            concurrent_max: table.max_concurrent.as_ref().and_then(|max| u32::try_from(max.value.0).ok()),
            body_bytes_max: value(&table.max_body).map(|size| size.0),
            body_timeout: value(&table.body_timeout).map(|timeout| timeout.0),
            tunnel_timeout: value(&table.tunnel_timeout).map(|timeout| timeout.0),
            body_rate_min: value(&table.min_body_rate).map(|rate| rate.0),
            grpc_web: value(&table.grpc_web)?,
            traffic: traffic?,
            is_plain: false, // which is found once all of it is known
            retry: retry?,
        })
    }

    fn target(&mut self, table: &file::Route, captures: Option<&Captures>) -> Option<Target> {
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
        let respond = table.respond.as_ref().map(|table| respond(&table.value, self.sink));
        let redirect = table.redirect.as_ref().map(|table| redirect(&table.value, captures, self.sink));
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

    /// The upstream that copies go to.
    fn mirror(&mut self, table: &file::Route, target: Option<&Target>) -> Option<ClusterId> {
        let mirror = &table.mirror.as_ref()?.value;
        let name = mirror.upstream.as_ref()?;
        let id = self.upstream(mirror.at.key("upstream"), name)?;
        let own = matches!(target, Some(Target::Upstream(split)) if split.iter().any(|(own, _)| *own == id));
        let why = match self.taken.unmirrorable.get(id.index()).copied().flatten() {
            _ if own => Some("the requests themselves go there"),
            why => why,
        };
        if let Some(why) = why {
            self.sink.value(mirror.at.key("upstream"), name.span.clone(), why.to_owned(), None);
        }
        Some(id)
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

    fn rewrite(&mut self, table: &file::Route, matcher: &Match, captures: Option<&Captures>) -> Option<Rewrite> {
        match (&table.strip_prefix, &table.rewrite) {
            (None, None) => {}
            (Some(_), Some(rewrite)) => {
                let message = "strip_prefix stands there too; must be one of the two".to_owned();
                self.sink.value(table.at.key("rewrite"), rewrite.span.clone(), message, None);
            }
            (Some(strip), None) => {
                if !begins_with(matcher, &strip.value.0) {
                    let message =
                        "must be where match.path begins, so that every request of the route has it".to_owned();
                    self.sink.value(table.at.key("strip_prefix"), strip.span.clone(), message, None);
                }
                return Some(Rewrite::StripPrefix(strip.value.0.clone()));
            }
            (None, Some(rewrite)) => {
                if rewrite.value.0.contains("{rest}") && !matcher.paths().all(leaves_rest) {
                    let message = "{rest} is what a match.path of the form \"/prefix/*\" leaves over".to_owned();
                    let help = Some("use {path}, or match a prefix".to_owned());
                    self.sink.value(table.at.key("rewrite"), rewrite.span.clone(), message, help);
                }
                return match rewrites::rewrite(&rewrite.value, captures) {
                    Ok(made) => Some(made),
                    Err(Refusal { why, help }) => {
                        let why = why.unwrap_or_default();
                        self.sink.value(table.at.key("rewrite"), rewrite.span.clone(), why, help);
                        None
                    }
                };
            }
        }
        Some(Rewrite::None)
    }

    fn query(&mut self, edits: &rewrites::QueryEdits, captures: Option<&Captures>) -> Option<QueryRules> {
        let wrong = match rewrites::query(edits, captures) {
            Ok(rules) => return Some(rules),
            Err(wrong) => wrong,
        };
        let (key, offset, Refusal { why, help }) = wrong;
        self.sink.place(format!("{}.{key}", edits.at.path), offset, why.unwrap_or_default(), help);
        None
    }

    fn header_rules<const MAX: usize>(
        &mut self,
        at: &Place,
        (set, remove): (&Written<file::HeaderSet>, &Written<List<EditableHeader, 0, MAX>>),
        (of_request, captures): (bool, Option<&Captures>),
    ) -> Option<HeaderRules> {
        let (set, remove) = (&set.value.0, &remove.value.0);
        unique(at.key("set"), set.iter().map(|(name, _)| (&name.value.0, &name.span)), self.sink);
        unique(at.key("remove"), remove.iter().map(|name| (&name.value.0, &name.span)), self.sink);
        if let Some(host) = remove.iter().find(|name| name.value.0 == http::header::HOST) {
            let message = "a request has a Host (RFC 9112 §3.2); set it instead".to_owned();
            self.sink.value(at.key("remove"), host.span.clone(), message, None);
        }
        let set_host = set.iter().find(|(name, _)| name.value.0 == http::header::HOST);
        if let (Some((host, _)), false) = (set_host, of_request) {
            let message = "a response has no Host".to_owned();
            self.sink.value(at.key("set"), host.span.clone(), message, None);
        }
        let remove = remove.iter().map(|Written { value: EditableHeader(name), .. }| name.clone()).collect();
        let mut rules = HeaderRules { remove, ..HeaderRules::default() };
        set.iter().for_each(|(name, value)| rules.add((name, value), (at.key("set"), captures), self.sink));
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
            ("query", table.query.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
            ("request_headers", table.request_headers.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
            ("timeout", table.timeout.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
            ("body_timeout", table.body_timeout.as_ref().map(|key| key.span.clone())),
            ("tunnel_timeout", table.tunnel_timeout.as_ref().map(|key| key.span.clone())),
            ("min_body_rate", table.min_body_rate.as_ref().map(|key| key.span.clone())),
            ("grpc_web", table.grpc_web.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
            ("retry", table.retry.as_ref().filter(|key| key.given).map(|key| key.span.clone())),
        ];
        let given = given.into_iter().chain(traffic::of_upstreams(table));
        for (name, span) in given.filter_map(|(name, span)| Some((name, span?))) {
            let message = format!("has no effect: {key} answers without an upstream");
            self.sink.value(table.at.key(name), span, message, None);
        }
    }
}

pub(super) fn respond(table: &file::Respond, sink: &mut Sink<'_>) -> Option<Target> {
    let (status, body) = (table.status.as_ref()?, table.body.as_ref()?);
    let bodiless = matches!(status.value.0, 204 | 205 | 304);
    if bodiless && !body.value.0.is_empty() {
        let message = format!("a response with status {} has no body (RFC 9110 §15)", status.value.0);
        sink.value(table.at.key("body"), body.span.clone(), message, None);
    }
    Some(Target::Respond {
        status: StatusCode::from_u16(u16::try_from(status.value.0).ok()?).ok()?,
        body: body.value.0.clone(),
        content_type: value(&table.content_type)?.0,
    })
}

pub(super) fn redirect(table: &file::Redirect, captures: Option<&Captures>, sink: &mut Sink<'_>) -> Option<Target> {
    if let Some(to) = &table.to {
        let names = to.value.0.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        let of_request = ["path", "path_and_query", "host", "scheme", "query"];
        for (name, _) in names.filter(|(name, _)| !of_request.contains(name)) {
            if let Err(refusal) = Variable::of(name, captures).and_then(|variable| match variable {
                Variable::Capture(_) => Ok(()),
                _ => Err(Refusal::why(format!("{{{name}}} does not stand in a Location")).help(
                    "there are {scheme}, {host}, {path}, {query}, {path_and_query} and what match.path has found",
                )),
            }) {
                sink.value(table.at.key("to"), to.span.clone(), refusal.why.unwrap_or_default(), refusal.help);
            }
        }
    }
    let status = table.status.as_ref()?;
    if !matches!(status.value.0, 301 | 302 | 303 | 307 | 308) {
        let message = "must be one of 301, 302, 303, 307, 308".to_owned();
        sink.value(table.at.key("status"), status.span.clone(), message, None);
    }
    let status = StatusCode::from_u16(u16::try_from(status.value.0).ok()?).ok()?;
    Some(Target::Redirect { to: value(&table.to)?.0, status })
}

/// Whether something in braces may stand for a capture.
fn has_names(table: &file::Route) -> bool {
    let in_redirect = table.redirect.as_ref().and_then(|redirect| redirect.value.to.as_ref());
    table.rewrite.is_some()
        || table.query.as_ref().is_some_and(|edits| edits.given)
        || table.request_headers.as_ref().is_some_and(|rules| rules.given)
        || table.response_headers.as_ref().is_some_and(|rules| rules.given)
        || in_redirect.is_some_and(|to| to.value.0.contains('{'))
}

/// Whether a path leaves something over.
fn leaves_rest(path: &PathMatch) -> bool {
    matches!(path, PathMatch::Prefix(_) | PathMatch::Template { is_prefix: true, .. })
}
