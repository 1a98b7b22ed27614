//! From the file as written to the configuration as used: all errors at once.
//!
//! What one value may be is decided where it is read; here stands what two places of the file must agree on: names that must exist or
//! be unique, addresses that must differ, keys that exclude or need each other. Every check reports and goes on. A function that
//! makes a part of [`Config`] says `None` only when something was reported, so without reports the configuration is complete.

use super::addresses::{FileMode, Listen, TrustedPeer};
use super::by_path;
use super::check_consumers::{self, Gathered};
use super::check_guard::guards;
use super::check_identity::{self, AccessReader};
use super::check_match::Firsts;
use super::check_route::routes;
use super::check_upstream::clusters;
use super::defaults::Givers;
use super::document::{Document, Entangled, Sections};
use super::encryption::{self, ServerSide};
use super::error_pages;
use super::file;
use super::followed::Followed;
use super::log_fields;
use super::names::{Cores, LogTo, Workers};
use super::place::KeyOf;
use super::problem::{Errors, Sink};
use super::read::{List, Read, Written};
use super::redis::redis;
use super::texts::{Texts, as_text, read_file};
use super::values::{DriverWord, FormatWord, duration};
use super::{
    Access, AccessLog, Admin, Bind, Config, Driver, ErrorPage, Gateway, Limit, Listener, LogFormat, LogPath, Resolver,
};
use super::{sticky, traffic};
use crate::limits::{CONFIG_BYTES_MAX, WORKERS_MAX};
use crate::units::AuthId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

/// Permissions of a unix socket where the file does not say: every local user may connect, as with nginx. Who may not is kept out by
/// the folder's permissions or by `mode`.
const UNIX_MODE_DEFAULT: u32 = 0o666;
/// What to do when there is no file.
const WHICH_FILE: &str = "say which file with -c FILE";

/// Reads and checks the file at `path` and those that it includes, and says which files that were.
///
/// The configuration, or everything that is wrong with it: that it cannot be read, too, and cores that the process may not run on.
pub fn load(path: &Path) -> (Result<Config, Errors>, Followed) {
    let followed = RefCell::default();
    let config = Texts::gather(path, WHICH_FILE, &followed).and_then(|texts| check_texts(&texts, &own_cores()));
    (config, followed.into_inner())
}

fn check_texts(texts: &Texts<'_>, cores: &[usize]) -> Result<Config, Errors> {
    if texts.text.len() as u64 > CONFIG_BYTES_MAX {
        let message = format!("larger than {CONFIG_BYTES_MAX} bytes, with what it includes");
        return Err(Errors::of_file(&texts.pieces[0].name, message, None));
    }
    let mut sink = texts.sink();
    texts.check_pieces(&mut sink);
    if !sink.is_empty() {
        return sink.finish().map(|()| unreachable!("something was reported"));
    }
    check_text(&texts.text, &|| texts.sink(), cores)
}

/// The text of the file at `path`; `missing` says what to do when there is none.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn text_of(path: &Path, missing: &str) -> Result<String, Errors> {
    let name = path.display().to_string();
    match read_file(path, CONFIG_BYTES_MAX) {
        Ok((bytes, _)) => as_text(&name, bytes),
        Err(error) => {
            let is_missing = error.kind() == std::io::ErrorKind::NotFound;
            let help = is_missing.then(|| missing.to_owned());
            Err(Errors::of_file(&name, format!("cannot be read: {error}"), help))
        }
    }
}

/// Where the admin API listens that the file at `path` is about, whatever else may be wrong with it: who asks a running gateway to read it
/// wants to hear that from there.
///
/// # Errors
/// It cannot be read, or its address is none.
pub fn admin_address(path: &Path) -> Result<super::Bind, Errors> {
    let followed = RefCell::default();
    let texts = Texts::gather(path, WHICH_FILE, &followed)?;
    let (table, _) = toml::de::DeTable::parse_recoverable(&texts.text);
    let listen =
        table.get_ref().get("admin").and_then(|admin| admin.get_ref().as_table()?.get("listen")?.get_ref().as_str());
    let listen = listen.map_or_else(String::new, |listen| format!("listen = {listen:?}\n"));
    let alone = format!("[admin]\n{listen}[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\n");
    parse(&alone, &path.display().to_string()).map(|config| config.admin.listen)
}

/// `FILE:LINE` of the beginning of a route: for what shows only when all routes are compiled together.
#[must_use]
pub fn place_of_route(path: &Path, row: usize) -> Option<String> {
    let followed = RefCell::default();
    let texts = Texts::gather(path, WHICH_FILE, &followed).ok()?;
    let document = toml::de::DeTable::parse(&texts.text).ok()?;
    let route = document.get_ref().get("route")?.get_ref().as_array()?.get(row)?;
    let sink = Sink::of(&texts);
    Some(format!("{}:{}", sink.file_of(route.span().start), sink.line(route.span().start)))
}

/// Checks the text of a file that messages call `file_name`. What it includes is not read.
///
/// # Errors
/// Everything that is wrong with it. Cores that the process may not run on are errors too.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Errors> {
    parse_for(text, file_name, &own_cores())
}

fn own_cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect()
}

/// As [`parse`], for a process that may run on `cores`.
pub(crate) fn parse_for(text: &str, file_name: &str, cores: &[usize]) -> Result<Config, Errors> {
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Errors::of_file(file_name, format!("larger than {CONFIG_BYTES_MAX} bytes"), None));
    }
    check_text(text, &|| Sink::new(file_name, text), cores)
}

fn check_text<'t>(text: &str, sink: &dyn Fn() -> Sink<'t>, cores: &[usize]) -> Result<Config, Errors> {
    if let Some(sections) = Sections::cut(text)
        && let Ok(document) = Document::in_sections(&sections)
        && let Ok(outcome) = checked(&document, sink(), cores)
    {
        return outcome;
    }
    check_whole(text, sink(), cores)
}

/// As [`parse_for`], without taking the text apart: what that must agree with.
#[cfg(test)]
pub(super) fn parse_whole(text: &str, file_name: &str, cores: &[usize]) -> Result<Config, Errors> {
    check_whole(text, Sink::new(file_name, text), cores)
}

fn check_whole(text: &str, mut sink: Sink<'_>, cores: &[usize]) -> Result<Config, Errors> {
    match Document::whole(text) {
        Ok(document) => checked(&document, sink, cores).expect("a whole document has no sections"),
        Err(syntax) => {
            report_syntax(&syntax, (0, usize::MAX), &mut sink);
            Err(sink.finish().expect_err("there is at least one"))
        }
    }
}

fn checked(document: &Document<'_>, mut sink: Sink<'_>, cores: &[usize]) -> Result<Result<Config, Errors>, Entangled> {
    let config = match file::File::read(document.root(), &mut sink) {
        Some(file) => config(document, &file, cores, &mut sink)?,
        None => None,
    };
    Ok(sink.finish().map(|()| config.expect("what is missing was reported")))
}

/// The parser goes on after an error and may stumble over its consequences: one report a line is enough. `start` is where the text that was
/// parsed begins in the sink's, and `last` its last byte if it is not the end of that: what is missing there is missing in this text.
pub(super) fn report_syntax(errors: &[toml::de::Error], (start, last): (usize, usize), sink: &mut Sink<'_>) {
    let mut reported = std::collections::HashSet::new();
    for error in errors {
        let offset = (start + error.span().map_or(0, |span| span.start)).min(last);
        if reported.insert(sink.place_of(offset)) {
            let begin = sink.start_of_file(offset);
            let first = match error.message().starts_with("duplicate key") {
                true => first_of(&sink.text()[begin..], offset - begin).map(|first| begin + first),
                false => None,
            };
            let first = first.map(|first| format!(" (first in line {})", sink.line(first))).unwrap_or_default();
            sink.syntax(offset, format!("not TOML: {}{first}", error.message()));
        }
    }
}

/// Where the key or the header that stands at `offset` for a second time stood before, as far as lines tell: a key in the same table.
fn first_of(text: &str, offset: usize) -> Option<usize> {
    let start = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    let key = |line: &str| line.split(['=', '#']).next().unwrap_or_default().trim().to_owned();
    let again = key(text[start..].lines().next()?);
    let is_header = again.starts_with('[');
    let mut end = start;
    let mut first = None;
    for line in text[..start].split_inclusive('\n').rev() {
        end -= line.len();
        if key(line) == again {
            first = Some(end);
        }
        if !is_header && line.trim_start().starts_with('[') {
            break;
        }
    }
    first
}

fn config(
    document: &Document<'_>,
    file: &file::File,
    cores: &[usize],
    sink: &mut Sink<'_>,
) -> Result<Option<Config>, Entangled> {
    let include = file.include.as_ref().map(|list| list.value.0.iter().map(|path| path.value.0.clone()).collect());
    let gateway = file.gateway.as_ref().and_then(|table| gateway(&table.value, cores, sink));
    let admin = file.admin.as_ref().and_then(|table| admin(&table.value));
    let resolver = file.resolver.as_ref().and_then(|table| resolver(&table.value, sink));
    let access_log = file.access_log.as_ref().map(|table| access_log(&table.value));
    let mut gathered = check_consumers::gather(file, sink);
    let names = file.upstream.as_ref().map(|map| map.value.0.iter().map(|(name, _)| name.value.0.as_str()).collect());
    let names: Vec<&str> = names.unwrap_or_default();
    let unmirrorable = file.upstream.as_ref().map(|map| traffic::unmirrorable(&map.value)).unwrap_or_default();
    let auth = gathered.as_mut().and_then(|gathered| check_identity::auth(file, (gathered, &names), sink));
    log_fields::nothing_secret(file, auth.as_deref().unwrap_or_default(), sink);
    let consumers = gathered.map(Gathered::finish);
    let mut access = AccessReader::new(file, sink);
    let listeners = file.listener.as_ref().and_then(|list| listeners(list, &mut access, sink));
    binds(file, sink);
    log_is_nothing_else(file, sink);
    let givers = Givers::of(file);
    let (routes, mut firsts) = match &file.route {
        Some(list) => routes(document, &list.value, (&names, unmirrorable), (&givers, &mut access), sink)?,
        None => (None, Firsts::new("route", 0, givers.listeners())),
    };
    let limits = access.limits.all(file);
    let redis = file.redis.as_ref().map(|table| redis(table, sink));
    let guards = file.guard.as_ref().and_then(|list| guards(&list.value, &mut firsts, sink));
    let clusters = file.upstream.as_ref().and_then(|map| clusters(map, sink));
    let complete = || {
        let (mut routes, listeners, auth) = (routes?, listeners?, auth?);
        let clusters = clusters?;
        check_identity::strip(&mut routes, &listeners, &auth);
        sticky::strip(&mut routes, &clusters);
        traffic::strip(&mut routes);
        routes.extend(guards?);
        by_path::keep(&mut routes, &listeners, &clusters);
        routes.iter_mut().for_each(|route| route.is_plain = route.has_no_extras());
        Some(Config {
            include: include?,
            gateway: gateway?,
            admin: admin?,
            resolver: resolver?,
            access_log: access_log.map_or(Some(None), |log| log.map(Some))?,
            listeners,
            routes: routes.into(),
            clusters,
            limits: limits?,
            redis: redis.map_or(Some(None), |redis| redis.map(|redis| Some(std::sync::Arc::new(redis))))?,
            consumers: consumers?.into(),
            auth: auth.into(),
        })
    };
    Ok(complete())
}

/// The value of a key that was readable; what was not has been reported.
pub(super) fn value<T: Clone>(key: &Option<Written<T>>) -> Option<T> {
    key.as_ref().map(|written| written.value.clone())
}

fn gateway(table: &file::Gateway, available: &[usize], sink: &mut Sink<'_>) -> Option<Gateway> {
    let (workers, cores) = (table.workers.as_ref(), table.cores.as_ref());
    if let (Some(Cores::List(list)), Some(written)) = (cores.map(|cores| &cores.value), cores) {
        let absent: Vec<_> = list.iter().filter(|core| !available.contains(core)).map(ToString::to_string).collect();
        if !absent.is_empty() {
            let message = format!("this process may not run on {}; it may on {available:?}", absent.join(", "));
            sink.value(table.at.key("cores"), written.span.clone(), message, None);
        }
    }
    let cores = match (workers?.value, &cores?.value) {
        (Workers::Auto, Cores::Auto) if available.is_empty() => vec![None],
        (Workers::Auto, Cores::Auto) => available.iter().copied().take(WORKERS_MAX).map(Some).collect(),
        (Workers::Auto, Cores::List(list)) => list.iter().copied().map(Some).collect(),
        (Workers::Count(count), Cores::Auto) => (0..count).map(|worker| available.get(worker).copied()).collect(),
        (Workers::Count(count), Cores::List(list)) => {
            if count != list.len() {
                let message = format!("gateway.cores lists {}; must be as many, or left out", list.len());
                sink.value(table.at.key("workers"), workers?.span.clone(), message, None);
            }
            list.iter().copied().map(Some).collect()
        }
    };
    let driver = match value(&table.driver)? {
        DriverWord::Auto => Driver::Auto,
        DriverWord::IoUring => Driver::IoUring,
        DriverWord::Multishot => Driver::Multishot,
        DriverWord::DeferTaskrun => Driver::DeferTaskrun,
        DriverWord::CoopTaskrun => Driver::CoopTaskrun,
        DriverWord::Plain => Driver::Plain,
        DriverWord::Epoll => Driver::Epoll,
    };
    let (drain_delay, drain_timeout) = (value(&table.drain_delay)?.0, value(&table.drain_timeout)?.0);
    let quota_file = table.quota_file.as_ref().map(|path| path.value.0.clone());
    Some(Gateway { cores, driver, drain_delay, drain_timeout, quota_file, watch: value(&table.watch)? })
}

fn admin(table: &file::Admin) -> Option<Admin> {
    let hosts = table.hosts.as_ref()?.value.0.iter().map(|host| host.value.0.clone()).collect();
    Some(Admin { listen: value(&table.listen)?.0, hosts })
}

fn resolver(table: &file::Resolver, sink: &mut Sink<'_>) -> Option<Resolver> {
    let (least, most) = (table.min_ttl.as_ref()?, table.max_ttl.as_ref()?);
    if least.value.0 > most.value.0 {
        // one of the two may be a default: the report stands at one that was written
        let (key, span) = if most.given { ("max_ttl", &most.span) } else { ("min_ttl", &least.span) };
        let message =
            format!("min_ttl ({}) is longer than max_ttl ({})", duration(least.value.0), duration(most.value.0));
        sink.value(table.at.key(key), span.clone(), message, None);
    }
    Some(Resolver {
        servers: value(&table.servers)?.0,
        min_ttl: least.value.0,
        max_ttl: most.value.0,
        timeout: value(&table.timeout)?.0,
        max_stale: value(&table.max_stale)?.0,
    })
}

fn access_log(table: &file::AccessLog) -> Option<AccessLog> {
    let format = match value(&table.format)? {
        FormatWord::Json => LogFormat::Json,
        FormatWord::Combined => LogFormat::Combined,
    };
    let redact = table.redact.as_ref()?.value.0.iter().map(|name| name.value.0.clone()).collect();
    Some(AccessLog { path: value(&table.path)?.0, format, redact, fields: log_fields::fields(table)? })
}

fn listeners<const MIN: usize, const MAX: usize>(
    list: &Written<List<file::Listener, MIN, MAX>>,
    access: &mut AccessReader<'_>,
    sink: &mut Sink<'_>,
) -> Option<Vec<Listener>> {
    let mut names: HashMap<String, (String, usize)> = HashMap::new();
    let mut listeners = Vec::with_capacity(list.value.0.len());
    for written in &list.value.0 {
        let table = &written.value;
        if let Some(name) = listener_name(table) {
            match names.get(&name) {
                Some((first, offset)) => {
                    let first = format!("{first} ({})", sink.place_of(*offset));
                    duplicate_name(&table.at, table.name.as_ref().map(|name| name.span.clone()), &first, sink);
                }
                None => drop(names.insert(name, (table.at.path.clone(), table.at.offset))),
            }
        }
        only_unix(table, sink);
        proxy_protocol(table, sink);
        let tls = match &table.tls {
            None => Some(None),
            Some(tls) => encryption::server_side(&tls.value, sink).map(Some),
        };
        let auth = table.auth.as_ref().map(|list| access.ways(table.at.key("auth"), list, sink));
        let limits = table.limit.as_ref().and_then(|list| access.limits.of_listener(table.at.key("limit"), list, sink));
        let access = access.access(table.allow.as_ref(), table.deny.as_ref(), sink);
        let errors = table.errors.as_ref().and_then(|list| error_pages::pages(list, sink));
        listeners.extend(listener(table, tls, errors, (auth, access, limits)));
    }
    (listeners.len() == list.value.0.len()).then_some(listeners)
}

pub(super) fn listener_name(table: &file::Listener) -> Option<String> {
    let given = table.name.as_ref().map(|name| name.value.0.clone());
    given.or_else(|| table.listen.as_ref().map(|listen| listen.value.0.to_string()))
}

/// Two tables of one kind have one name.
pub(super) fn duplicate_name(
    at: &super::place::Place,
    name: Option<std::ops::Range<usize>>,
    first: &str,
    sink: &mut Sink<'_>,
) {
    let message = format!("{first} has this name too; names must be unique");
    match name {
        Some(span) => sink.value(at.key("name"), span, message, None),
        None => sink.place(at.key("name"), at.offset, message, Some("give it a name".to_owned())),
    }
}

/// Keys that only mean something where the listener is a unix socket.
fn only_unix(table: &file::Listener, sink: &mut Sink<'_>) {
    if !table.listen.as_ref().is_some_and(|listen| matches!(listen.value.0, Bind::Tcp(_))) {
        return;
    }
    if let Some(mode) = &table.mode {
        let message = "has no effect: only a unix socket has permissions".to_owned();
        sink.value(table.at.key("mode"), mode.span.clone(), message, None);
    }
    let trusted = table.trusted_proxies.iter().flat_map(|list| list.value.0.iter().enumerate());
    for (row, peer) in trusted.filter(|(_, peer)| peer.value == TrustedPeer::Unix) {
        let message = "has no effect: this listener is no unix socket".to_owned();
        sink.value(format!("{}[{row}]", table.at.key("trusted_proxies")), peer.span.clone(), message, None);
    }
}

/// A listener that takes PROXY headers from nobody would refuse every connection.
fn proxy_protocol(table: &file::Listener, sink: &mut Sink<'_>) {
    if let (Some(wanted), Some(listen), Some(trusted)) = (&table.proxy_protocol, &table.listen, &table.trusted_proxies)
        && wanted.value
        && trusted.value.0.is_empty()
        && matches!(listen.value.0, Bind::Tcp(_))
    {
        let message = "needs trusted_proxies: PROXY headers are taken from those only".to_owned();
        let help = "name the balancers in front: trusted_proxies = [\"10.0.0.0/8\"]".to_owned();
        sink.value(table.at.key("proxy_protocol"), wanted.span.clone(), message, Some(help));
    }
}

fn listener(
    table: &file::Listener,
    tls: Option<Option<ServerSide>>,
    errors: Option<Vec<ErrorPage>>,
    (auth, access, limits): (Option<Vec<AuthId>>, Option<Access>, Option<Vec<Limit>>),
) -> Option<Listener> {
    let (auth, access, limits, errors) = (auth?, access?, limits?, errors?);
    let peers = &table.trusted_proxies.as_ref()?.value.0;
    let trusted = || peers.iter().map(|peer| peer.value);
    let network = |peer| match peer {
        TrustedPeer::Network(network) => Some(network),
        TrustedPeer::Unix => None,
    };
    Some(Listener {
        name: listener_name(table)?,
        has_defaults: table.defaults.is_some(),
        bind: value(&table.listen)?.0,
        header_timeout: value(&table.header_timeout)?.0,
        idle_timeout: value(&table.idle_timeout)?.0,
        body_timeout: value(&table.body_timeout)?.0,
        tunnel_timeout: value(&table.tunnel_timeout)?.0,
        head_bytes_max: usize::try_from(value(&table.max_head)?.0).ok()?,
        headers_max: usize::try_from(value(&table.max_headers)?.0).ok()?,
        body_bytes_max: value(&table.max_body)?.0,
        errors,
        connections_max: usize::try_from(value(&table.max_connections)?.0).ok()?,
        client_connections_max: u32::try_from(value(&table.max_connections_per_client)?.0).ok().filter(|max| *max > 0),
        connection_requests_max: Some(value(&table.max_requests_per_connection)?.0).filter(|max| *max > 0),
        connection_age_max: value(&table.max_connection_age)?.0,
        body_rate_min: value(&table.min_body_rate)?.0,
        trusted_proxies: trusted().filter_map(network).collect(),
        unix_trusted: trusted().any(|peer| peer == TrustedPeer::Unix),
        unix_mode: value(&table.mode).map_or(UNIX_MODE_DEFAULT, |FileMode(mode)| mode),
        proxy_protocol: value(&table.proxy_protocol)?,
        header_underscores: value(&table.header_underscores)?,
        encoded_separators: value(&table.encoded_separators)?,
        forwarded_for: value(&table.x_forwarded_for)?,
        merge_slashes: value(&table.merge_slashes)?,
        server: value(&table.server)?,
        auth,
        limits,
        access,
        tls: tls?,
        http2: encryption::http2(table)?,
    })
}

/// Workers share ports (SO_REUSEPORT), so the kernel would let two listeners share one silently; it is refused here.
fn binds(file: &file::File, sink: &mut Sink<'_>) {
    let listeners = file.listener.iter().flat_map(|list| &list.value.0);
    let listeners =
        listeners.filter_map(|written| written.value.listen.as_ref().map(|listen| (&written.value.at, listen)));
    let admin =
        file.admin.as_ref().and_then(|table| table.value.listen.as_ref().map(|listen| (&table.value.at, listen)));
    let mut taken: Vec<(KeyOf<'_>, usize, &Bind)> = Vec::new();
    for (at, listen) in admin.into_iter().chain(listeners) {
        let (path, bind) = (at.key("listen"), &listen.value.0);
        if let Some((other, offset, address)) = taken.iter().find(|(_, _, other)| overlap(other, bind)) {
            // the admin listener's default stands nowhere
            let is_written = file.admin.as_ref().is_none_or(|admin| admin.given || *offset != admin.value.at.offset);
            let line = if is_written { format!(", {}", sink.place_of(*offset)) } else { String::new() };
            let message = format!("{other} listens there already ({address}{line})");
            sink.value(path, listen.span.clone(), message, None);
        }
        taken.push((path, listen.span.start, bind));
    }
}

/// Whether a connection to one could be a connection to the other. Port 0 is a port of its own each time.
fn overlap(one: &Bind, other: &Bind) -> bool {
    match (one, other) {
        (Bind::Tcp(one), Bind::Tcp(other)) => {
            let any = |ip: IpAddr| ip.is_unspecified();
            let same = one.ip() == other.ip() || any(one.ip()) || any(other.ip());
            one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && same
        }
        (Bind::Unix(one), Bind::Unix(other)) => is_same_place(one, other),
        _ => false,
    }
}

/// What is written there is no log: the configuration itself, and what is listened on.
fn log_is_nothing_else(file: &file::File, sink: &mut Sink<'_>) {
    let Some(table) = &file.access_log else { return };
    let Some(Written { value: LogTo(LogPath::File(log)), span, .. }) = table.value.path.as_ref() else { return };
    let listens = |listen: &Option<Written<Listen>>| matches!(listen.as_ref().map(|listen| &listen.value.0), Some(Bind::Unix(path)) if is_same_place(path, log));
    let mut listeners = file.listener.iter().flat_map(|list| &list.value.0);
    let message = if sink.files().any(|file| is_same_file(Path::new(file), log)) {
        "is this file itself"
    } else if file.admin.as_ref().is_some_and(|admin| listens(&admin.value.listen))
        || listeners.any(|listener| listens(&listener.value.listen))
    {
        "is a socket that the gateway listens on"
    } else {
        return;
    };
    sink.value(table.value.at.key("path"), span.clone(), message.to_owned(), None);
}

/// Whether both lead to one file, which is there.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(one).is_some_and(|one| real(other) == Some(one))
}

/// Whether a file made at one would be at the other, by whichever way their folder is reached.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| path.parent().and_then(|folder| std::fs::canonicalize(folder).ok());
    one == other || (one.file_name() == other.file_name() && folder(one).is_some_and(|one| folder(other) == Some(one)))
}
