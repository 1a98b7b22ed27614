//! From a plan as it is written to a plan as it is used: what its places must agree on.
//!
//! Every check reports and goes on. A function that makes a part of [`Plan`] says `None` only when something was reported.

use super::cores::{Division, Wishes, divide};
use super::values::PaceWord;
use super::words::Prefix;
use super::{Capacity, Gateway, Offer, Pacing, Plan, Replay, Request, Sizing, Thresholds, Upstream, file};
use super::{phases, spoken, targets};
use crate::gateways::{Kind, Template};
use crate::result::PlanText;
use ringgate::config::reading::{Cores, KeyOf, Sink, Workers, Written};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Slices of one load: what a plot can show, and a histogram each.
const SLICES_MAX: u128 = 10_000;

/// What a plan is read for.
pub(super) struct Place<'a> {
    pub(super) text: &'a str,
    pub(super) file_name: &'a str,
    pub(super) folder: &'a Path,
    /// That this process may run on.
    pub(super) cores: &'a [usize],
}

/// The value of a key that was readable; what was not has been reported.
pub(super) fn value<T: Clone>(key: &Option<Written<T>>) -> Option<T> {
    key.as_ref().map(|written| written.value.clone())
}

/// The key's value and place when it stands in the file.
pub(super) fn given<T>(key: &Option<Written<T>>) -> Option<&Written<T>> {
    key.as_ref().filter(|written| written.given)
}

/// Something is wrong with a value that stands in the file.
pub(super) fn wrong<T>(
    sink: &mut Sink<'_>,
    key: KeyOf<'_>,
    written: &Written<T>,
    message: String,
    help: Option<String>,
) {
    sink.value(key, written.span.clone(), message, help);
}

pub(super) fn plan(file: &file::File, place: &Place<'_>, sink: &mut Sink<'_>) -> Option<Plan> {
    let load = file.load.as_ref().map(|load| &load.value);
    let stem = Path::new(place.file_name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = value(&file.name).map(|name| name.0).or(stem).unwrap_or_default();
    server(file, sink);
    let upstreams = upstreams(file, place, sink);
    let names: Vec<(&str, usize)> =
        upstreams.iter().flatten().map(|upstream| (&*upstream.name, upstream.instances)).collect();
    let gateway = file.gateway.as_ref().map(|table| gateway(&table.value, place, &names, sink));
    let replay = load.and_then(|load| targets::replay(load, file, place, sink));
    let routes = routes(file, upstreams.as_deref());
    let requests = load.and_then(|load| targets::requests(file, load, replay.as_ref(), routes, place, sink));
    let phases = load.and_then(|load| phases::phases(file, load, requests.as_deref(), sink));
    let offer = load.and_then(|load| offer(load, file, replay.as_ref(), requests, place, sink));
    let capacity = file.capacity.as_ref().map(|table| capacity(&table.value, file, place, sink));
    let size = file.size.as_ref().map(|table| size(&table.value, file, sink));
    let thresholds = file.thresholds.as_ref().map(|table| {
        needs_capacity(file, &table.value, sink);
        thresholds(&table.value)
    });
    let mut plan = Plan {
        name,
        text: PlanText {
            name: Path::new(place.file_name).file_name().unwrap_or_default().to_string_lossy().into_owned(),
            text: place.text.to_owned(),
        },
        load: offer?,
        gateway: gateway.map_or(Some(None), |gateway| gateway.map(Some))?,
        upstreams: upstreams?,
        phases: phases?,
        capacity: capacity.map_or(Some(None), |capacity| capacity.map(Some))?,
        size: size.map_or(Some(None), |size| size.map(Some))?,
        thresholds: thresholds?,
        remarks: replay.iter().flat_map(Replay::remarks).collect(),
    };
    settle_cores(&mut plan, file, place);
    Some(plan)
}

/// Whose server it is: exactly one of url and gateway.
fn server(file: &file::File, sink: &mut Sink<'_>) {
    let Some(load) = file.load.as_ref().map(|load| &load.value) else { return };
    match (&load.url, &file.gateway) {
        (Some(url), Some(gateway)) => {
            let line = sink.line(gateway.span.start);
            let message = format!(
                "[gateway] (line {line}) starts the server of this plan, and url is for one that is there already"
            );
            wrong(sink, load.at.key("url"), url, message, Some("take one of them away".to_owned()));
        }
        (None, None) if !sink.reported(load.at.key("url")) && !sink.reported("gateway") => {
            let help =
                "write url = \"http://HOST:PORT/\" for one that is there already, or [gateway] for one that is started";
            sink.place("load.url", load.at.offset, "no server is named".to_owned(), Some(help.to_owned()));
        }
        _ => {}
    }
    let Some(first) = file.upstream.as_ref().and_then(|map| map.value.0.first()) else { return };
    if file.gateway.is_none() && !sink.reported("gateway") {
        let message = "upstreams stand behind a gateway that this plan starts, and it starts none".to_owned();
        sink.place(
            format_args!("upstream.{}", first.0.value.0),
            first.0.span.start,
            message,
            Some("write [gateway]".to_owned()),
        );
    }
}

fn gateway(
    table: &file::Gateway,
    place: &Place<'_>,
    upstreams: &[(&str, usize)],
    sink: &mut Sink<'_>,
) -> Option<Gateway> {
    check_cores(&table.cores, table.at.key("cores"), place, sink);
    let kinds: Vec<_> = table.kinds.as_ref()?.value.0.iter().collect();
    for (row, kind) in kinds.iter().enumerate() {
        if kinds[..row].iter().any(|other| other.value == kind.value) {
            wrong(
                sink,
                table.at.key("kinds"),
                kind,
                format!("{} stands there twice", Kind::from(kind.value).name()),
                None,
            );
        }
    }
    let kinds: Vec<Kind> = kinds.iter().map(|kind| kind.value.into()).collect();
    let mut configs = Vec::new();
    for (kind, name) in &table.config.as_ref()?.value.0 {
        let kind = Kind::from(kind.value);
        let key = format!("config.{}", kind.name());
        if !kinds.contains(&kind) {
            let help = "name it in kinds, or take it away".to_owned();
            wrong(sink, table.at.key(&key), name, format!("{} is not among kinds", kind.name()), Some(help));
            continue;
        }
        let Some(text) = targets::text_of_file(&table.at, &key, name, place, sink) else { continue };
        match Template::try_new(&text, upstreams) {
            Ok(template) => configs.push((kind, template)),
            Err(message) => wrong(sink, table.at.key(&key), name, message, None),
        }
    }
    if upstreams.is_empty()
        && !sink.reported("upstream")
        && kinds.iter().any(|kind| configs.iter().all(|(own, _)| own != kind))
    {
        let help = "write [upstream.NAME], or bring a configuration for every kind".to_owned();
        sink.place("gateway", table.at.offset, "there is nothing behind the gateway".to_owned(), Some(help));
    }
    let workers = match value(&table.workers)? {
        Workers::Auto => 0,
        Workers::Count(count) => count,
    };
    let cores = match value(&table.cores)? {
        Cores::Auto => Vec::new(),
        Cores::List(list) => list,
    };
    Some(Gateway { kinds, is_tls: value(&table.tls)?, workers, cores, configs })
}

/// Cores that are not there are reported.
fn check_cores(cores: &Option<Written<Cores>>, key: KeyOf<'_>, place: &Place<'_>, sink: &mut Sink<'_>) {
    let Some(written) = cores else { return };
    let Cores::List(list) = &written.value else { return };
    let absent: Vec<_> = list.iter().filter(|core| !place.cores.contains(core)).map(ToString::to_string).collect();
    if !absent.is_empty() {
        let message = format!("this process may not run on {}; it may on {:?}", absent.join(", "), place.cores);
        wrong(sink, key, written, message, Some("\"auto\" fits every machine".to_owned()));
    }
}

fn upstreams(file: &file::File, place: &Place<'_>, sink: &mut Sink<'_>) -> Option<Vec<Upstream>> {
    let map = file.upstream.as_ref()?;
    let mut paths: HashMap<Prefix, usize> = HashMap::new();
    let mut upstreams = Vec::with_capacity(map.value.0.len());
    for (name, table) in &map.value.0 {
        let table = &table.value;
        check_cores(&table.cores, table.at.key("cores"), place, sink);
        if let Some(path) = &table.path
            && let Some(first) = paths.insert(path.value.clone(), name.span.start)
        {
            let message = format!("the upstream in line {} has these paths already", sink.line(first));
            let help = format!("give this one paths of its own: path = \"/{}/*\"", name.value.0);
            sink.place(
                table.at.key("path"),
                if path.given { path.span.start } else { name.span.start },
                message,
                Some(help),
            );
        }
        upstreams.extend(upstream(&name.value.0, table, sink));
    }
    (upstreams.len() == map.value.0.len()).then_some(upstreams)
}

fn upstream(name: &str, table: &file::Upstream, sink: &mut Sink<'_>) -> Option<Upstream> {
    let instances = usize::try_from(value(&table.instances)?.0).ok()?;
    let backup = usize::try_from(value(&table.backup)?.0).ok()?;
    if backup >= instances
        && let Some(written) = &table.backup
    {
        let message = format!("of {instances} instances, at least one is no backup");
        let help = format!("write instances = {}", backup + 1);
        wrong(sink, table.at.key("backup"), written, message, Some(help));
    }
    let mut absent = Vec::new();
    for entry in &table.absent.as_ref()?.value.0 {
        let number = usize::try_from(entry.value.0).ok()?;
        match number {
            _ if number > instances => {
                let message = format!("there are only {instances} instances");
                wrong(sink, table.at.key("absent"), entry, message, Some(format!("write instances = {number}")));
            }
            _ if absent.contains(&(number - 1)) => {
                wrong(sink, table.at.key("absent"), entry, format!("{number} stands there twice"), None);
            }
            _ => absent.push(number - 1),
        }
    }
    Some(Upstream {
        name: name.to_owned(),
        instances,
        time: value(&table.service)?.0,
        body_bytes: usize::try_from(value(&table.body)?.0).ok()?,
        path: value(&table.path)?,
        backup,
        absent,
        cores: match value(&table.cores)? {
            Cores::Auto => Vec::new(),
            Cores::List(list) => list,
        },
    })
}

/// The plan's own routes, when they are all there are: with a configuration of the user's somebody else decides.
fn routes<'a>(file: &file::File, upstreams: Option<&'a [Upstream]>) -> Option<&'a [Upstream]> {
    let gateway = &file.gateway.as_ref()?.value;
    let is_ours = gateway.config.as_ref().is_some_and(|config| config.value.0.is_empty());
    upstreams.filter(|upstreams| is_ours && !upstreams.is_empty())
}

fn offer(
    load: &file::Load,
    file: &file::File,
    replay: Option<&Replay>,
    requests: Option<Vec<Request>>,
    place: &Place<'_>,
    sink: &mut Sink<'_>,
) -> Option<Offer> {
    check_cores(&load.cores, load.at.key("cores"), place, sink);
    if let (Some(least), Some(most)) = (&load.connections, &load.connections_max)
        && least.value.0 > most.value.0
        && spoken::is_elastic(load)
    {
        let at = if least.given { least } else { most };
        let message = format!("connections ({}) are more than connections_max ({})", least.value.0, most.value.0);
        let help = format!("write connections_max = {}", least.value.0);
        wrong(sink, load.at.key(if least.given { "connections" } else { "connections_max" }), at, message, Some(help));
    }
    let pace = value(&load.pace)?;
    if let (PaceWord::Closed, Some(rate)) = (pace, given(&load.rate)) {
        let message = "a closed loop has no rate: it asks as fast as it is answered".to_owned();
        wrong(sink, load.at.key("rate"), rate, message, Some("take it away, or pace = \"closed\"".to_owned()));
    }
    let warm_up = match (given(&load.warm_up), replay) {
        (None, Some(_)) => Duration::ZERO,
        _ => value(&load.warm_up)?.0,
    };
    let length = phases::length(load, file, replay, warm_up, sink);
    let slice = value(&load.slice)?.0;
    if length.is_some_and(|length| length.as_millis() / slice.as_millis() > SLICES_MAX)
        && let Some(written) = &load.slice
    {
        let message = format!("more than {SLICES_MAX} slices of the length of {:?}", length.unwrap_or_default());
        let help = "write slice = \"1m\"".to_owned();
        wrong(sink, load.at.key("slice"), written, message, Some(help));
    }
    Some(Offer {
        url: value(&load.url).map(|url| url.0),
        tls: spoken::tls(load, file, place, sink)?,
        protocol: spoken::protocol(load, file, sink)?,
        rate: value(&load.rate)?.0,
        pace: match (replay, pace) {
            (Some(replay), _) => Pacing::Recorded(replay.times.clone()),
            (None, PaceWord::Poisson) => Pacing::Poisson,
            (None, PaceWord::Even) => Pacing::Even,
            (None, PaceWord::Closed) => Pacing::Closed,
        },
        requests: requests?,
        warm_up,
        length: length?,
        slice,
        connections: usize::try_from(value(&load.connections)?.0).ok()?,
        connections_max: spoken::connections_max(load)?,
        reconnect: value(&load.reconnect)?,
        timeout: phases::timeout(load, file, sink)?,
        seed: value(&load.seed)?.0,
        cores: match value(&load.cores)? {
            Cores::Auto => Vec::new(),
            Cores::List(list) => list,
        },
    })
}

fn capacity(table: &file::Capacity, file: &file::File, place: &Place<'_>, sink: &mut Sink<'_>) -> Option<Capacity> {
    let bounds = [("p50", 0.5, &table.p50), ("p99", 0.99, &table.p99), ("p999", 0.999, &table.p999)];
    let set: Vec<_> =
        bounds.iter().filter_map(|(key, q, bound)| bound.as_ref().map(|bound| (*key, *q, bound))).collect();
    for (key, _, bound) in set.iter().skip(1) {
        let message = format!("capacity has one bound, and {} is given too", set[0].0);
        wrong(sink, table.at.key(key), bound, message, Some("take one of them away".to_owned()));
    }
    if set.is_empty() && !bounds.iter().any(|(key, ..)| sink.reported(table.at.key(key))) {
        let help = Some("write p99 = \"5ms\"".to_owned());
        sink.place(&table.at.path, table.at.offset, "one of p50, p99 and p999 is needed".to_owned(), help);
    }
    if let (Some(direct), true) = (&table.direct, file.gateway.is_some()) {
        let message =
            "the upstreams of this plan are known: direct is for those behind a gateway that is there already"
                .to_owned();
        wrong(sink, table.at.key("direct"), direct, message, Some("take it away".to_owned()));
    }
    let pace = file.load.as_ref().and_then(|load| given(&load.value.pace));
    if let Some(pace) = pace.filter(|pace| pace.value == PaceWord::Closed) {
        let message = "capacity is looked for with an open loop".to_owned();
        wrong(
            sink,
            file.load.as_ref()?.value.at.key("pace"),
            pace,
            message,
            Some("did you mean \"poisson\"?".to_owned()),
        );
    }
    let width = match &table.width {
        Some(width) if !(0.005..=0.5).contains(&width.value.0.get()) => {
            wrong(sink, table.at.key("width"), width, "must be from \"0.5%\" to \"50%\"".to_owned(), None);
            return None;
        }
        Some(width) => width.value.0.get(),
        None if place.cores.len() <= 4 => 0.05,
        None => 0.025,
    };
    let (_, quantile, bound) = *set.first()?;
    if let Some(timeout) = file.load.as_ref().and_then(|load| load.value.timeout.as_ref())
        && timeout.value.0 <= bound.value.0
    {
        let message = format!("not below load.timeout ({:?}), after which nothing comes any more", timeout.value.0);
        wrong(sink, table.at.key(set[0].0), bound, message, None);
    }
    Some(Capacity {
        quantile,
        bound: bound.value.0,
        failures: value(&table.failures)?.0.get(),
        width,
        trial: value(&table.trial)?.0,
        max_rate: value(&table.max_rate)?.0,
        direct: value(&table.direct).map(|url| url.0),
    })
}

fn size(table: &file::Sizing, file: &file::File, sink: &mut Sink<'_>) -> Option<Sizing> {
    if file.capacity.is_none() && !sink.reported("capacity") {
        let help = Some("write [capacity] with p99 = \"5ms\"".to_owned());
        sink.place("size", table.at.offset, "how many hosts follows from the capacity of one".to_owned(), help);
    }
    Some(Sizing { peak: value(&table.peak)?.0, survive: u32::try_from(value(&table.survive)?.0).ok()? })
}

/// Thresholds of what is not looked for would never be judged.
fn needs_capacity(file: &file::File, table: &file::Thresholds, sink: &mut Sink<'_>) {
    if let (Some(least), None) = (&table.min_capacity, &file.capacity) {
        let help = Some("write [capacity] with p99 = \"5ms\"".to_owned());
        wrong(sink, table.at.key("min_capacity"), least, "this plan does not look for capacity".to_owned(), help);
    }
    if let (Some(most), None) = (&table.max_hosts, &file.size) {
        let help = Some("write [size] with peak = \"10000/s\"".to_owned());
        wrong(sink, table.at.key("max_hosts"), most, "this plan does not ask how many hosts".to_owned(), help);
    }
    let own = [
        ("max_cpu", table.max_cpu.as_ref().map(|w| w.span.clone())),
        ("max_memory", table.max_memory.as_ref().map(|w| w.span.clone())),
    ];
    for (key, span) in own.into_iter().filter_map(|(key, span)| Some((key, span?))) {
        if file.gateway.is_none() {
            let message = "the process of a server that is there already is not known".to_owned();
            sink.value(table.at.key(key), span, message, Some("start it: write [gateway]".to_owned()));
        }
    }
}

pub(super) fn thresholds(table: &file::Thresholds) -> Thresholds {
    Thresholds {
        max_p50: value(&table.max_p50).map(|bound| bound.0),
        max_p99: value(&table.max_p99).map(|bound| bound.0),
        max_p999: value(&table.max_p999).map(|bound| bound.0),
        max_failed: value(&table.max_failed),
        min_goodput: value(&table.min_goodput).map(|share| share.0.get()),
        min_capacity: value(&table.min_capacity).map(|rate| rate.0),
        max_cpu: value(&table.max_cpu).map(|time| time.0),
        max_memory: value(&table.max_memory).map(|size| size.0),
        max_hosts: value(&table.max_hosts).map(|count| count.0),
    }
}

/// Gives "auto" its cores, and says where somebody shares one with the gateway.
fn settle_cores(plan: &mut Plan, file: &file::File, place: &Place<'_>) {
    let is_auto = |cores: &Option<Written<Cores>>| cores.as_ref().is_none_or(|cores| cores.value == Cores::Auto);
    let named: Vec<usize> = plan.upstreams.iter().flat_map(|upstream| upstream.cores.iter().copied()).collect();
    let tables = file.upstream.iter().flat_map(|map| &map.value.0);
    let gateway_named = plan.gateway.as_ref().map(|gateway| gateway.cores.clone()).filter(|cores| !cores.is_empty());
    let generator_named = Some(plan.load.cores.clone()).filter(|cores| !cores.is_empty());
    let wishes = Wishes {
        generator: generator_named.as_deref(),
        gateway: gateway_named.as_deref(),
        upstreams: &named,
        starts: plan.gateway.is_some(),
        is_upstream_auto: tables.clone().any(|(_, table)| is_auto(&table.value.cores)),
    };
    let Division { generator, gateway, upstreams } = divide(place.cores, &wishes);
    plan.load.cores = generator;
    for (upstream, (_, table)) in plan.upstreams.iter_mut().zip(tables) {
        if is_auto(&table.value.cores) {
            upstream.cores.clone_from(&upstreams);
        }
    }
    let Some(own) = &mut plan.gateway else { return };
    own.cores = gateway;
    if own.workers == 0 {
        own.workers = if own.cores.is_empty() { place.cores.len().max(1) } else { own.cores.len() };
    }
    let others = plan.load.cores.iter().chain(plan.upstreams.iter().flat_map(|upstream| &upstream.cores));
    if own.cores.is_empty() || others.clone().any(|core| own.cores.contains(core)) {
        let remark = "the gateway shares cores with the generator or with upstreams: its latency is partly theirs";
        plan.remarks.push(remark.to_owned());
    }
}
