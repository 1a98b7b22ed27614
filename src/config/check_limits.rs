//! Rate limits of the file: what is written where they count, and what is named.

use super::check::value;
use super::file;
use super::limit_keys::{self, LimitItem};
use super::measure::{Measure, measures};
use super::names::Name;
use super::place::KeyOf;
use super::problem::{Sink, listed};
use super::read::{List, Written};
use super::values::Int;
use super::{Limit, Tier};
use crate::units::Rate;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::Duration;

/// The limits that can be named.
pub(super) struct SharedLimits<'a> {
    /// `None`: something of it was reported.
    by_name: FxHashMap<&'a str, Option<Limit>>,
    names: Vec<&'a str>,
}

impl<'a> SharedLimits<'a> {
    pub(super) fn new(file: &'a file::File, sink: &mut Sink<'_>) -> Self {
        let tables = || file.limit.iter().flat_map(|map| &map.value.0);
        let mut of =
            |name: &'a str, table: &limit_keys::SharedLimit| (name, shared(name, table, file.redis.is_some(), sink));
        let by_name: FxHashMap<&str, _> = tables().map(|(name, table)| of(&name.value.0, &table.value)).collect();
        for (_, table) in tables() {
            let is_tiered = table.value.tiers.as_ref().filter(|tiers| !tiers.value.0.is_empty());
            let per = table.value.per.as_ref().map(|per| &per.value.0);
            if let (Some(tiers), Some(super::LimitKey::Route)) = (is_tiered, per) {
                let message = "have no effect: the limit counts all requests together, not those of consumers";
                let help = Some("per = \"consumer\" gives each consumer a rate of his own".to_owned());
                sink.value(table.value.at.key("tiers"), tiers.span.clone(), message.to_owned(), help);
            }
        }
        let mut names: Vec<&str> = by_name.keys().copied().collect();
        names.sort_unstable();
        Self { by_name, names }
    }

    /// All of them, in file order; `None` if something of one was reported.
    pub(super) fn all(&self, file: &file::File) -> Option<Vec<Limit>> {
        let tables = &file.limit.as_ref()?.value.0;
        tables.iter().map(|(name, _)| self.by_name.get(name.value.0.as_str()).cloned().flatten()).collect()
    }

    /// `limit` of a listener; `None` if something was reported.
    pub(super) fn of_listener<const MIN: usize, const MAX: usize>(
        &self,
        path: KeyOf<'_>,
        list: &Written<List<Name, MIN, MAX>>,
        sink: &mut Sink<'_>,
    ) -> Option<Vec<Limit>> {
        let mut found = Vec::with_capacity(list.value.0.len());
        for (row, name) in list.value.0.iter().enumerate() {
            let limit = self.find(format!("{path}[{row}]"), (&name.value.0, name.span.clone()), &found, sink);
            found.push(limit);
        }
        found.into_iter().collect()
    }

    /// `limit` of a route; `None` if something was reported.
    pub(super) fn of_route<const MIN: usize, const MAX: usize>(
        &self,
        path: KeyOf<'_>,
        list: &Written<List<LimitItem, MIN, MAX>>,
        sink: &mut Sink<'_>,
    ) -> Option<Vec<Limit>> {
        let mut found = Vec::with_capacity(list.value.0.len());
        for (row, item) in list.value.0.iter().enumerate() {
            let limit = match &item.value {
                LimitItem::Own(table) => own(table, sink),
                LimitItem::Charged(table) => table.name.as_ref().and_then(|name| {
                    let at = table.at.key("name").to_string();
                    let limit = self.find(at, (&name.value.0, name.span.clone()), &found, sink)?;
                    charged(limit, table, sink)
                }),
                LimitItem::Named(name) => {
                    self.find(format!("{path}[{row}]"), (&name.0, item.span.clone()), &found, sink)
                }
            };
            found.push(limit);
        }
        found.into_iter().collect()
    }

    fn find(
        &self,
        path: String,
        (name, span): (&str, std::ops::Range<usize>),
        before: &[Option<Limit>],
        sink: &mut Sink<'_>,
    ) -> Option<Limit> {
        let is_again = before.iter().flatten().any(|limit| limit.name.as_deref() == Some(name));
        match self.by_name.get(name) {
            Some(_) if is_again => sink.value(path, span, "stands there twice".to_owned(), None),
            Some(limit) => return limit.clone(),
            None => {
                let message = match self.names.as_slice() {
                    [] => "there is no such limit, nor any other".to_owned(),
                    names => format!("there is no such limit; there are: {}", listed(names)),
                };
                let near = sink.did_you_mean(name, &self.names);
                sink.value(path, span, message, near.or_else(|| Some(format!("add [limit.{name}]"))));
            }
        }
        None
    }
}

/// A limit that can be named where requests cost what is said there.
fn charged(limit: Limit, table: &limit_keys::ChargedLimit, sink: &mut Sink<'_>) -> Option<Limit> {
    let written = table.cost.as_ref()?;
    let measures = || limit.tiers.iter().map(|tier| tier.measure).chain([limit.measure]);
    let least = measures().map(Measure::most).min()?;
    let cost = affordable(table.at.key("cost"), written, least, sink)?;
    let lease = measures().map(Measure::lease).min()?;
    if limit.is_shared && u64::from(cost) > lease {
        let message = format!("is more than a gateway holds at once of what is shared, {lease}");
        let help = "a 64th of the burst, or what comes in 20 ms: allow a larger burst".to_owned();
        sink.value(table.at.key("cost"), written.span.clone(), message, Some(help));
        return None;
    }
    let is_payable = is_payable(table.at.key("cost_header"), table.cost_header.as_ref(), &limit, sink);
    let cost_header = table.cost_header.as_ref().map(|header| header.value.0.clone());
    is_payable.then_some(Limit { cost, cost_header, ..limit })
}

/// What a request costs, if a full bucket holds so much.
fn affordable<const MIN: u64, const MAX: u64>(
    path: KeyOf<'_>,
    cost: &Written<Int<MIN, MAX>>,
    burst: u64,
    sink: &mut Sink<'_>,
) -> Option<u32> {
    if cost.value.0 > burst {
        let message = format!("is more than the limit ever has, {burst}: no request could ever pass");
        sink.value(path, cost.span.clone(), message, None);
        return None;
    }
    u32::try_from(cost.value.0).ok()
}

fn own(table: &limit_keys::Limit, sink: &mut Sink<'_>) -> Option<Limit> {
    let measure = measures!(table).read(sink)?;
    let (per, dry_run) = (value(&table.per)?.0, value(&table.dry_run)?);
    let cost = affordable(table.at.key("cost"), table.cost.as_ref()?, measure.most(), sink)?;
    let cost_header = table.cost_header.as_ref().map(|header| header.value.0.clone());
    let limit = Limit { name: None, measure, per, dry_run, tiers: Arc::default(), cost, cost_header, is_shared: false };
    is_payable(table.at.key("cost_header"), table.cost_header.as_ref(), &limit, sink).then_some(limit)
}

/// Whether there is something to be paid: requests at once cost nothing.
fn is_payable<T>(path: KeyOf<'_>, header: Option<&Written<T>>, limit: &Limit, sink: &mut Sink<'_>) -> bool {
    let Some(header) = header.filter(|_| matches!(limit.measure, Measure::Concurrency(_))) else { return true };
    sink.value(path, header.span.clone(), "the limit counts requests at once, which cost nothing".to_owned(), None);
    false
}

fn shared(name: &str, table: &limit_keys::SharedLimit, has_redis: bool, sink: &mut Sink<'_>) -> Option<Limit> {
    let measure = measures!(table).read(sink);
    let mut tier = |group: &Written<Name>, tier: &limit_keys::Tier| {
        let of_tier = measures!(tier).read(sink)?;
        if measure.is_some_and(|measure| !measure.is_like(of_tier)) {
            let message = format!("is another kind of limit than {}", measure?);
            sink.place(&tier.at.path, tier.at.offset, message, None);
            return None;
        }
        Some(Tier { group: group.value.0.clone(), measure: of_tier })
    };
    let tables = &table.tiers.as_ref()?.value.0;
    // all of them are looked at, whatever is wrong with one
    let tiers: Vec<Option<Tier>> = tables.iter().map(|(group, table)| tier(group, &table.value)).collect();
    let tiers: Option<Vec<Tier>> = tiers.into_iter().collect();
    let (per, dry_run) = (value(&table.per)?.0, value(&table.dry_run)?);
    let (cost, cost_header, measure) = (1, None, measure?);
    let is_shared = table.shared.is_some();
    if let Some(shared) = table.shared.as_ref().filter(|_| !matches!(measure, Measure::Rate { .. }) || !has_redis) {
        let (message, help) = match has_redis {
            true => ("is for rates: nobody counts others over several hosts", None),
            false => ("there is no [redis] that could count", Some("add [redis]".to_owned())),
        };
        sink.value(table.at.key("shared"), shared.span.clone(), message.to_owned(), help);
        return None;
    }
    Some(Limit { name: Some(name.into()), measure, per, dry_run, tiers: tiers?.into(), cost, cost_header, is_shared })
}

/// What the rate admits in a second, at least one request.
pub(super) fn default_burst(rate: Rate) -> u64 {
    let second = Duration::from_secs(1).as_nanos();
    u64::try_from(u128::from(rate.count()) * second / rate.per().as_nanos()).map_or(u64::MAX, |burst| burst.max(1))
}
