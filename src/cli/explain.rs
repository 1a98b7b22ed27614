//! `explain`: what a request would meet, and why, as far as the configuration decides it.
//!
//! The request is read as the gateway reads one: the path gets its one spelling, the host loses its port. Health, load and latency
//! are not known here; where they decide, that is said.

use super::access;
use super::traffic;
use super::words;
use http::{HeaderName, Method, header};
use ringgate::config::{Config, Cors, Listener, Rewrite, Route, Separators, Target};
use ringgate::http::path::{EmptySegments, EncodedSeparators, merged, normalize};
use ringgate::http::reply::{Asked, push_location, single_slash};
use ringgate::http::target::Authority;
use ringgate::policy::cors::{Grant, grant};
use ringgate::policy::router::{
    Considered, MatchOutcome, RequestView, Routed, Router, RouterCache, Source, rest_of, rewrite,
};
use ringgate::units::{ClusterId, ListenerId, RouteId, Weight};
use std::fmt::Write as _;

/// Routes that match host and path and are shown although they are not chosen; the rest is counted.
const OTHERS_SHOWN: usize = 10;

/// The request that is asked about.
#[derive(Debug)]
pub(crate) struct Ask {
    method: Method,
    /// As typed.
    url: String,
    host: Option<String>,
    port: Option<u16>,
    path: String,
    query: Option<String>,
    headers: Vec<(HeaderName, String)>,
}

impl Ask {
    /// From the command line's words.
    ///
    /// # Errors
    /// Says which word is wrong and how it should look.
    pub(crate) fn try_new(method: &str, url: &str, headers: &[String]) -> Result<Self, String> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no method"))?;
        let headers = headers.iter().map(|text| parse_header(text)).collect::<Result<Vec<_>, _>>()?;
        let (authority, default_port, target) = split_url(url)?;
        let of_header = headers.iter().find(|(name, _)| *name == header::HOST).map(|(_, value)| value.as_str());
        let parse = |text: &str| {
            let authority = Authority::try_new(text.as_bytes()).map_err(|_| format!("{text:?} is no host"))?;
            Ok::<_, String>((authority.host.to_ascii_lowercase(), authority.port))
        };
        let of_url = authority.map(parse).transpose()?;
        let port = of_url.as_ref().map(|(_, port)| port.unwrap_or(default_port));
        let host = match of_header {
            Some(text) => Some(parse(text)?.0),
            None => of_url.map(|(host, _)| host),
        };
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = if path.is_empty() { "/" } else { path };
        let mut scratch = String::new();
        // whether encoded separators are refused and empty segments merged depends on the listener, and is said there
        let path = normalize(path, EncodedSeparators::Keep, EmptySegments::Keep, &mut scratch);
        let path = path.map_err(|_| {
            format!("{target:?}: the gateway refuses this path with 400, since services read it in different ways")
        })?;
        let (path, query) = (path.to_owned(), query.map(str::to_owned));
        Ok(Self { method, url: url.to_owned(), host, port, path, query, headers })
    }

    /// Where it would come from; the client is whom X-Forwarded-For names.
    fn source<'l>(&self, listener: &'l Listener) -> Source<'l> {
        let scheme = if self.url.starts_with("https://") { "https" } else { "http" };
        let forwarded = self.headers.iter().find(|(name, _)| name == "x-forwarded-for");
        let client = forwarded.and_then(|(_, value)| value.split(',').next()?.trim().parse().ok());
        Source { listener: &listener.name, scheme, client }
    }

    /// Authority and target as they are typed.
    fn written(&self) -> (Option<&str>, &str) {
        let (authority, _, target) = split_url(&self.url).unwrap_or((None, 0, "/"));
        let of_header = self.headers.iter().find(|(name, _)| *name == header::HOST).map(|(_, value)| value.as_str());
        (of_header.or(authority), if target.is_empty() { "/" } else { target })
    }

    /// The method of the request that a preflight asks about; `None`: it is none.
    fn is_about(&self) -> Option<Method> {
        let value = |name| self.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value);
        let wanted = value(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| self.method == Method::OPTIONS)?;
        value(header::ORIGIN).and_then(|_| Method::from_bytes(wanted.as_bytes()).ok())
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, String), String> {
    let wrong = || format!("{text:?} is no header; write it as 'name: value'");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
    Ok((name, value.trim().to_owned()))
}

/// Authority, the scheme's port, and path with query.
fn split_url(url: &str) -> Result<(Option<&str>, u16, &str), String> {
    if !url.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(format!("{url:?}: a request's URL has only visible ASCII characters and no #"));
    }
    if url.starts_with('/') {
        return Ok((None, 80, url));
    }
    let (rest, port) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (rest, 80),
        (None, Some(rest)) => (rest, 443),
        (None, None) if url.contains("://") => return Err(format!("{url:?}: must be http://HOST/PATH or /PATH")),
        (None, None) => (url, 80),
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    Ok((Some(authority), port, target))
}

/// The answer, for people.
pub(crate) fn text(config: &Config, router: &Router, ask: &Ask) -> String {
    let header = |name: &HeaderName, is: &mut dyn FnMut(&[u8]) -> bool| {
        ask.headers.iter().any(|(other, value)| other == name && is(value.as_bytes()))
    };
    let mut scratch = String::new();
    let request = RequestView {
        host: ask.host.as_deref(),
        path: merged(&ask.path, &mut scratch),
        query: ask.query.as_deref(),
        method: &ask.method,
        source: ask.source(&config.listeners[listener_of(config, ask).index()]),
        header: &header,
    };
    let considered = router.explain(&request);
    let mut page = Page { text: format!("{} {}\n\n", ask.method, ask.url) };
    listeners(&mut page, config, ask);
    let (authority, target) = ask.written();
    let source = ask.source(&config.listeners[listener_of(config, ask).index()]);
    let (query, headers) = (ask.query.as_deref(), ask.headers.as_slice());
    let asked = access::Request { method: &ask.method, scheme: source.scheme, authority, target, query, headers };
    let kept_out = access::kept_out(config, listener_of(config, ask), &asked);
    let wanted = ask.is_about().filter(|_| kept_out.is_none());
    let about = RequestView { method: wanted.as_ref().unwrap_or(&ask.method), ..request };
    if wanted.is_some() && preflight(&mut page, config, router, &about, ask) {
        return page.text;
    }
    match router.route(&request, &mut RouterCache::new()) {
        Routed::Route(id) => {
            let route = &config.routes[id.index()];
            let label = if route.is_guard { "guard" } else { "route" };
            page.line(label, &format!("{} ({})", route.name, words::matcher(&route.matcher)));
            others(&mut page, config, &considered, Some(route));
            if let Some(answer) = kept_out.filter(|_| route.is_guard) {
                page.line("answer", &answer);
                return page.text;
            }
            if route.is_guard {
                self::route(&mut page, config, (route, None), ask);
                return page.text;
            }
            let told = access::told(config, (listener_of(config, ask), id), &asked);
            told.lines.iter().for_each(|(label, line)| page.line(label, line));
            self::route(&mut page, config, (route, told.refusal), ask);
            if let Some(cors) = &route.cors {
                page.line("cors", &words::cors(cors, of_page(cors, id, ask)));
            }
        }
        Routed::MethodNotAllowed(allow) => {
            let methods = allow.methods().map(Method::as_str).collect::<Vec<_>>().join(", ");
            let answer = kept_out.unwrap_or_else(|| format!("405 method_not_allowed, Allow: {methods}"));
            page.line("route", &format!("none: {answer}"));
            others(&mut page, config, &considered, None);
        }
        Routed::NoRoute => {
            page.line("route", &format!("none: {}", kept_out.as_deref().unwrap_or("404 no_route")));
            others(&mut page, config, &considered, None);
        }
    }
    page.text
}

/// Whether `wanted`, which a preflight asks about, goes to a route that has a say in it; then that is said.
fn preflight(page: &mut Page, config: &Config, router: &Router, wanted: &RequestView<'_>, ask: &Ask) -> bool {
    let Routed::Route(id) = router.route(wanted, &mut RouterCache::new()) else { return false };
    let route = &config.routes[id.index()];
    let Some(cors) = &route.cors else { return false };
    let granted = of_page(cors, id, ask);
    page.line(
        "route",
        &format!("{} ({}), which a {} would take", route.name, words::matcher(&route.matcher), wanted.method),
    );
    let answer = match granted {
        Some(Grant::Nobody) => "403 origin_not_allowed, from the gateway",
        _ => "204 No Content to the preflight, from the gateway",
    };
    page.line("answer", answer);
    page.line("cors", &words::cors(cors, granted));
    true
}

/// What the page that sends the request may do; `None`: no page does.
fn of_page(cors: &Cors, route: RouteId, ask: &Ask) -> Option<Grant> {
    let origin = ask.headers.iter().find(|(name, _)| *name == header::ORIGIN).map(|(_, value)| value.as_bytes())?;
    Some(grant(cors, route, origin, &mut RouterCache::new()))
}

/// Lines of a label and a text.
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, label: &str, text: &str) {
        writeln!(self.text, "{label:<11}{text}").expect("a String takes all");
    }
}

/// The listener that the URL's port belongs to; where none does, all of them, since routes are the same on each.
fn listeners(page: &mut Page, config: &Config, ask: &Ask) {
    let of_port = |listener: &&Listener| match listener.bind {
        ringgate::config::Bind::Tcp(address) => Some(address.port()) == ask.port,
        ringgate::config::Bind::Unix(_) => false,
    };
    let mut met: Vec<_> = config.listeners.iter().filter(of_port).collect();
    if met.is_empty() {
        met = config.listeners.iter().collect();
        if let Some(port) = ask.port {
            page.line("listener", &format!("none on port {port}; the same routes serve"));
        }
    }
    let claims = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip")
    };
    if let Some((name, _)) = ask.headers.iter().find(|(name, _)| claims(name)) {
        page.line("", &format!("{name} is taken for true here; it counts only if the peer is one of trusted_proxies"));
    }
    for listener in met {
        page.line("listener", &format!("{} ({})", listener.name, listener.bind));
        page.line("", &words::listener(listener));
        for limit in words::limits_of_listener(listener) {
            page.line("", &limit);
        }
        if let Some(tls) = &listener.tls {
            page.line("", &words::certificate(tls, ask.host.as_deref()));
        }
        if ask.path.contains("//") {
            let what = if listener.merge_slashes {
                "merges the path's empty segments (merge_slashes)"
            } else {
                "passes the path's empty segments on; routes do not see them"
            };
            page.line("", what);
        }
        let separates = ask.path.contains("%2F") || ask.path.contains("%5C");
        if separates && listener.encoded_separators == Separators::Reject {
            page.line(
                "",
                "refuses this path with 400: it has an encoded separator, which services read in different ways",
            );
        }
    }
}

/// The listener whose rules are shown: the one that the URL's port belongs to, else the first.
fn listener_of(config: &Config, ask: &Ask) -> ListenerId {
    let is_it = |listener: &Listener| match listener.bind {
        ringgate::config::Bind::Tcp(address) => Some(address.port()) == ask.port,
        ringgate::config::Bind::Unix(_) => false,
    };
    ListenerId::from_index(config.listeners.iter().position(is_it).unwrap_or_default())
}

/// Which routes were not chosen, and why.
fn others(page: &mut Page, config: &Config, considered: &[Considered], chosen: Option<&Route>) {
    let near =
        |one: &&Considered| !matches!(one.outcome, MatchOutcome::Host | MatchOutcome::Path | MatchOutcome::Chosen);
    let mut label = "not";
    for one in considered.iter().filter(near).take(OTHERS_SHOWN) {
        let route = &config.routes[one.route.index()];
        let why = match (&one.outcome, chosen) {
            (MatchOutcome::Outranked, Some(chosen)) if chosen.is_guard && !route.is_guard => {
                "matches too, but guards come first".to_owned()
            }
            (MatchOutcome::Outranked, Some(_)) => {
                less_specific(considered.iter().find(|one| one.outcome == MatchOutcome::Chosen), one)
            }
            (MatchOutcome::Header(name), _) => format!("header {name} is not what it wants"),
            (MatchOutcome::Query(name), _) => format!("query parameter {name} is not what it wants"),
            (MatchOutcome::Condition(condition), _) => format!("wants: {condition}"),
            (MatchOutcome::Method, _) => format!("only for {}", words::methods(&route.matcher)),
            (MatchOutcome::Outranked | MatchOutcome::Chosen | MatchOutcome::Host | MatchOutcome::Path, _) => continue,
        };
        page.line(std::mem::take(&mut label), &format!("{} ({}): {why}", route.name, words::matcher(&route.matcher)));
    }
    let unshown = considered.iter().filter(near).count().saturating_sub(OTHERS_SHOWN);
    let of = |outcome: MatchOutcome| considered.iter().filter(|one| one.outcome == outcome).count();
    let counts = [
        (unshown, "more that match host and path"),
        (of(MatchOutcome::Path), "for another path"),
        (of(MatchOutcome::Host), "for another host"),
    ];
    for (number, what) in counts.into_iter().filter(|(number, _)| *number > 0) {
        page.line(std::mem::take(&mut label), &format!("{} {what}", super::count(number, "route")));
    }
}

/// Why `other`, which matches too, comes after `chosen`: the first step of precedence at which they differ.
fn less_specific(chosen: Option<&Considered>, other: &Considered) -> String {
    let chosen = chosen.map(|chosen| chosen.rank.clone()).unwrap_or_default();
    let steps = [
        (chosen.0 != other.rank.0, "its host is less specific"),
        (chosen.1 != other.rank.1, "its path is less specific"),
        (chosen.2 != other.rank.2, "it has fewer conditions"),
    ];
    let first = steps.iter().find(|(differ, _)| *differ).map_or("it stands later in the file", |(_, why)| *why);
    format!("matches too, but {first}")
}

/// What the chosen route does; what it would do, if the request is refused.
fn route(page: &mut Page, config: &Config, (route, refusal): (&Route, Option<&str>), ask: &Ask) {
    for (label, limit) in label_first("limits", words::limits(route)) {
        page.line(label, &limit);
    }
    let mut answer = "answer";
    if let Some(refusal) = refusal {
        page.line(answer, &format!("{refusal}, from the gateway; what follows is for who may"));
        answer = "";
    }
    match &route.target {
        Target::Respond { status, body, content_type } => {
            let content_type = String::from_utf8_lossy(content_type.as_bytes()).into_owned();
            page.line(
                answer,
                &format!("{status}, {} of {content_type}, from the gateway", super::count(body.len(), "byte")),
            );
        }
        Target::Deny => page.line("answer", "403 guarded, from the gateway"),
        Target::Redirect { to, status } => {
            let mut location = Vec::new();
            let host = ask.host.as_deref().unwrap_or_default();
            let filled = captured(route, &ask.path, to);
            push_location(
                &mut location,
                if to.starts_with("//") { &filled } else { single_slash(&filled) },
                Asked {
                    scheme: if ask.url.starts_with("https://") { "https" } else { "http" },
                    host,
                    path: &ask.path,
                    query: ask.query.as_deref(),
                },
            );
            page.line(answer, &format!("{status}, Location: {}", String::from_utf8_lossy(&location)));
        }
        Target::Upstream(split) => upstreams(page, config, (route, split), ask),
    }
    for (label, rule) in label_first("headers", words::header_rules(route)) {
        page.line(label, &rule);
    }
    let of = &route.defaulted;
    let from =
        |keys: &[&str], table| (!keys.is_empty()).then(|| format!("{}: all or in part from {table}", keys.join(", ")));
    let lines = [from(&of.by_listener, "[listener.defaults]"), from(&of.by_file, "[defaults]")];
    for (label, line) in label_first("defaults", lines.into_iter().flatten().collect()) {
        page.line(label, &line);
    }
}

/// Where it would go, and what is done on the way.
fn upstreams(page: &mut Page, config: &Config, (route, split): (&Route, &[(ClusterId, Weight)]), ask: &Ask) {
    page.line("path", &path_line(route, ask));
    page.line("timeout", &words::timeout(&route.timeout));
    let serving = |id: ClusterId| {
        let cluster = &config.clusters[id.index()];
        let served = cluster.endpoints.iter().filter(|e| e.weight.0 > 0).count();
        // a name may have any number of addresses
        served + 2 * cluster.names.iter().filter(|e| e.weight.0 > 0).count()
    };
    let elsewhere = split.iter().any(|(id, _)| serving(*id) > 1);
    if let Some(first) = words::first_try(route, &ask.method, elsewhere) {
        page.line("", &first);
    }
    page.line("retries", &words::retry(route, &ask.method));
    for (label, line) in traffic::of_route(route, config) {
        page.line(label, &line);
    }
    let sum: u64 = split.iter().map(|(_, weight)| u64::from(weight.0)).sum();
    for (id, weight) in split {
        let cluster = &config.clusters[id.index()];
        let share = if split.len() == 1 { String::new() } else { format!(", {} of {sum} requests", weight.0) };
        page.line("upstream", &format!("{}: {}{share}", cluster.name, words::cluster(cluster)));
        if let Some(line) = traffic::sticky(cluster, &ask.headers) {
            page.line("", &line);
        }
        let names = cluster.names.iter().map(words::named);
        let endpoints = cluster.endpoints.iter().map(words::endpoint).chain(names).collect();
        for (label, endpoint) in label_first("endpoints", endpoints) {
            page.line(label, &endpoint);
        }
    }
}

/// The label stands only before the first line.
fn label_first(label: &str, lines: Vec<String>) -> impl Iterator<Item = (&str, String)> {
    lines.into_iter().enumerate().map(move |(row, line)| (if row == 0 { label } else { "" }, line))
}

fn path_line(route: &Route, ask: &Ask) -> String {
    if let Rewrite::Made { written, .. } = &route.rewrite {
        let sent = captured(route, &ask.path, written);
        // what only the request knows is in braces still
        let is_known = !sent.contains('{');
        let spelt = |sent: &str| {
            normalize(sent, EncodedSeparators::Keep, EmptySegments::Keep, &mut String::new())
                .is_ok_and(|path| path == sent)
        };
        if is_known && !spelt(&sent) {
            return format!(
                "{} would go up as {sent}, which is no path of one spelling: 400 (rewrite {written})",
                ask.path
            );
        }
        return format!("{} goes up as {sent} (rewrite {written})", ask.path);
    }
    let mut sent = Vec::new();
    rewrite(&route.rewrite, &route.matcher, &ask.path, &mut sent);
    let sent = String::from_utf8_lossy(&sent).into_owned();
    let why = match &route.rewrite {
        Rewrite::None => return sent,
        Rewrite::StripPrefix(prefix) => format!("strip_prefix {prefix}"),
        Rewrite::Template(template) | Rewrite::Made { written: template, .. } => format!("rewrite {template}"),
    };
    format!("{} goes up as {sent} ({why})", ask.path)
}

/// A text with what the route's path has found; other variables stay as they are written, for they are not known here.
fn captured(route: &Route, path: &str, text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    let mut room = route.captures.as_ref().map(|captures| (captures, captures.room()));
    let mut scratch = String::new();
    let routed = merged(path, &mut scratch);
    while let Some((before, behind)) = rest.split_once('{') {
        let (word, behind) = behind.split_once('}').unwrap_or((behind, ""));
        out.push_str(before);
        let found = room.as_mut().and_then(|(captures, room)| captures.get(routed, word, room));
        match (found, word) {
            (Some(found), _) => out.push_str(found),
            (None, "path") if matches!(route.rewrite, Rewrite::Made { .. }) => out.push_str(path),
            (None, "rest") => out.push_str(rest_of(&route.matcher, path)),
            (None, word) => out.push_str(&format!("{{{word}}}")),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[listener]]
name = "edge"
listen = "0.0.0.0:8080"
[[listener]]
name = "local"
listen = "unix:/run/r.sock"

[[route]]
name = "all"
upstream = "app"

[[route]]
name = "orders"
match = { host = "api.example.com", path = "/orders/*" }
upstream = "orders"
strip_prefix = "/orders"
timeout = "2s"
limit = [{ rate = "100/s", burst = 200, per = "client_ip" }, { rate = "6000/min", dry_run = true }]
max_concurrent = 1000
max_body = "1MiB"
request_headers = { set = { x-env = "prod" }, remove = ["x-debug"] }
retry = { per_try_timeout = "500ms" }

[[route]]
name = "beta"
match = { host = "api.example.com", path = "/orders/*", header = { x-beta = "1" } }
split = [{ upstream = "app", weight = 95 }, { upstream = "orders", weight = 5 }]
timeout = { adaptive = true }

[[route]]
name = "ping"
match = { host = "ops.example.com", path = "/ping", method = ["GET"] }
respond = { body = "pong" }

[[route]]
name = "old"
match = { host = "old.example.com" }
redirect = { to = "https://new.example.com{path}" }

[upstream.app]
endpoints = [{ address = "10.0.0.9:80" }]

[upstream.orders]
balance = "ring_hash"
hash = "cookie:session"
max_requests = 50
endpoints = [{ address = "10.0.0.1:8080" }, { address = "10.0.1.1:8080", weight = 50, priority = 1 }]
"#;

    fn answer(file: &str, method: &str, url: &str, headers: &[&str]) -> String {
        let config = ringgate::config::parse(file, "f").unwrap_or_else(|errors| panic!("{errors}"));
        let headers: Vec<_> = headers.iter().map(ToString::to_string).collect();
        let router = Router::try_new(&config).unwrap();
        text(&config, &router, &Ask::try_new(method, url, &headers).unwrap())
    }

    #[test]
    fn a_request_meets_its_route_limits_upstream_and_endpoints() {
        let expected = "\
GET http://api.example.com:8080/orders/7?x=1

listener   edge (0.0.0.0:8080)
           head 16KiB with 100 headers in 10s, body 16MiB (30s without a byte), 65536 connections
route      orders (host api.example.com, path /orders/*)
not        beta (host api.example.com, path /orders/*, header x-beta: 1): header x-beta is not what it wants
           all (any host, path /*): matches too, but its host is less specific
           2 routes for another host
limits     100/s for a client address, 200 at once, else 429
           6000/min for the route, 100 at once, only counted (dry_run)
           1000 requests at once, else 503
           body 1MiB, else 413
path       /orders/7 goes up as /7 (strip_prefix /orders)
timeout    2s to the response's head, all tries together, then 504
retries    2 on connect, reset, timeout, 502, 503, 504, 500ms a try, while 10% of the timeout is left; \
GET is idempotent: also after it was sent
upstream   orders: ring_hash by cookie session, connect in 1s, 50 requests at once each, failing ones ejected
endpoints  10.0.0.1:8080, weight 100, priority 0
           10.0.1.1:8080, weight 50, priority 1
headers    request: x-debug removed
           request: x-env set to prod
";
        assert_eq!(answer(FILE, "GET", "http://api.example.com:8080/orders/7?x=1", &[]), expected);
    }

    #[test]
    fn who_has_said_what_a_route_does_not_is_shown() {
        let file = FILE.replace(
            "[[listener]]\nname = \"local\"",
            "[listener.defaults]\nretry = { attempts = 1 }\n[[listener]]\nname = \"local\"",
        );
        let file = file.replace(
            "upstream = \"app\"\n\n[[route]]\nname = \"orders\"",
            "retry = { attempts = 2 }\nupstream = \"app\"\n\n[[route]]\nname = \"orders\"",
        );
        let file = file.replace("match = { ", "match = { listener = [\"edge\"], ");
        let file = format!("[defaults]\nmax_concurrent = 9\n{file}");
        let answer = answer(&file, "GET", "http://api.example.com:8080/orders/7", &["x-beta: 1"]);
        let lines = [
            "defaults   retry: all or in part from [listener.defaults]",
            "           max_concurrent: all or in part from [defaults]",
        ];
        assert!(answer.ends_with(&format!("{}\n{}\n", lines[0], lines[1])), "{answer}");
        assert!(answer.contains("\nretries    1 on connect"), "{answer}");
    }

    #[test]
    fn a_split_shows_its_shares_and_what_the_winner_had_more() {
        let answer = answer(FILE, "POST", "api.example.com/x/../orders/7", &["X-Beta: 1"]);
        let lines = [
            "listener   none on port 80; the same routes serve",
            "route      beta (host api.example.com, path /orders/*, header x-beta: 1)",
            "not        orders (host api.example.com, path /orders/*): matches too, but it has fewer conditions",
            "path       /orders/7",
            "timeout    3 times the route's latency, 50ms to 5s, to the response's head, then 504",
            "upstream   app: least_request, connect in 1s, failing ones ejected, 95 of 100 requests",
            "endpoints  10.0.0.9:80, weight 100, priority 0",
        ];
        for line in lines {
            assert!(answer.lines().any(|found| found == line), "{line:?} is not in\n{answer}");
        }
        assert!(answer.contains("POST is not idempotent: only what nobody has read\n"), "{answer}");
    }

    #[test]
    fn a_first_try_that_does_not_get_the_whole_timeout_is_shown() {
        let file = FILE.replace("per_try_timeout = \"500ms\"", "attempts = 3").replace(
            "limit = [{ rate = \"100/s\", burst = 200, per = \"client_ip\" }",
            "limit = [{ rate = \"5/d\", per = \"header:x-key\" }",
        );
        let first = "\n           first try at most 500ms (then another endpoint), once the route is known 3 × its p99, at least 250ms\n";
        let url = "http://api.example.com/orders/7";
        let get = answer(&file, "GET", url, &[]);
        assert!(get.contains(first), "{get}");
        assert!(get.contains("5/d for a value of x-key (requests without it count together), 1 at once"), "{get}");
        let adaptive = answer(&file, "GET", url, &["X-Beta: 1"]);
        assert!(adaptive.contains("first try at most 1/3 of that"), "{adaptive}");
        for whole in [
            answer(&file, "POST", url, &[]),
            answer(&file.replace("attempts = 3", "attempts = 0"), "GET", url, &[]),
            answer(&file.replace("attempts = 3", "on = [\"connect\"]"), "GET", url, &[]),
            answer(&file.replace("weight = 50", "weight = 0"), "GET", url, &[]),
            answer(FILE, "GET", url, &[]),
        ] {
            assert!(!whole.contains("first try"), "{whole}");
        }
    }

    #[test]
    fn what_the_gateway_answers_itself_is_shown() {
        let ping = answer(FILE, "GET", "/ping", &["Host: OPS.example.com:80"]);
        assert!(
            ping.contains("\nanswer     200 OK, 4 bytes of text/plain; charset=utf-8, from the gateway\n"),
            "{ping}"
        );
        let old = answer(FILE, "GET", "https://old.example.com/a?b=1", &[]);
        assert!(
            old.contains("\nanswer     308 Permanent Redirect, Location: https://new.example.com/a?b=1\n"),
            "{old}"
        );
    }

    #[test]
    fn who_is_refused_is_not_told_that_he_is_served() {
        let guarded = |rules: &str| {
            FILE.replace(
                "respond = { body = \"pong\" }",
                &format!("auth = [\"key\"]\n{rules}\nrespond = {{ body = \"pong\" }}"),
            ) + "[auth.key]\nheader = \"x-key\"\n[consumer.acme]\nkeys = [{ sha256 = \"2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\" }]\n"
        };
        let url = "http://ops.example.com:8080/ping";
        let unknown = answer(&guarded(""), "GET", url, &[]);
        let said = "\nverdict    401 unauthenticated\nanswer     401 unauthenticated, from the gateway; what follows is for who may\n           200 OK, 4 bytes";
        assert!(unknown.contains(said), "{unknown}");
        let known = answer(&guarded(""), "GET", url, &["x-key: key"]);
        assert!(known.contains("\nverdict    allowed\nanswer     200 OK, 4 bytes"), "{known}");
        let denied = answer(&guarded("deny = { consumer = [\"acme\"] }"), "GET", url, &["x-key: key"]);
        assert!(
            denied.contains("\nanswer     403 forbidden, from the gateway; what follows is for who may\n"),
            "{denied}"
        );
    }

    #[test]
    fn a_request_without_a_route_is_told_why() {
        let file = FILE.replace("name = \"all\"", "name = \"all\"\nmatch = { host = \"x.example\" }");
        let method = answer(&file, "POST", "http://ops.example.com:8080/ping", &[]);
        assert!(method.contains("\nroute      none: 405 method_not_allowed, Allow: GET, HEAD\n"), "{method}");
        assert!(
            method.contains("\nnot        ping (host ops.example.com, path /ping, GET): only for GET\n"),
            "{method}"
        );
        let nothing = answer(&file, "GET", "/", &[]);
        assert!(
            nothing.ends_with("\nroute      none: 404 no_route\nnot        5 routes for another host\n"),
            "{nothing}"
        );
    }

    #[test]
    fn a_route_has_the_spelling_that_the_gateway_gives_to_paths() {
        let loads = |path: &str| {
            let file = FILE.replace("path = \"/ping\"", &format!("path = {path:?}"));
            ringgate::config::parse(&file, "f").is_ok()
        };
        let stays = |path: &str| {
            let mut scratch = String::new();
            normalize(path, EncodedSeparators::Refuse, EmptySegments::Merge, &mut scratch)
                .is_ok_and(|normal| normal == path)
        };
        for path in ["/a", "/a%20b", "/a%C3%A9", "/a;b=c", "/a/", "/...", "/.a"] {
            assert!(stays(path) && loads(path), "{path}");
        }
        for path in ["//", "/./a", "/a/..", "/%41", "/%7E", "/%c3", "/%2F", "/a/.", "/%", "/%0", "/..;/a"] {
            assert!(!stays(path) && !loads(path), "{path}");
        }
    }

    #[test]
    fn a_listener_s_opinion_of_encoded_separators_is_said() {
        let page = |file: &str| {
            let config = ringgate::config::parse(file, "f").unwrap();
            let router = Router::try_new(&config).unwrap();
            text(&config, &router, &Ask::try_new("GET", "/a%2fb", &[]).unwrap())
        };
        assert!(page(FILE).contains("refuses this path with 400"));
        let keep = FILE.replace("[[listener]]\n", "[[listener]]\nencoded_separators = \"keep\"\n");
        assert_ne!(keep, FILE);
        assert!(!page(&keep).contains("refuses this path"));
    }

    #[test]
    fn a_listener_that_keeps_somebody_out_does_so_wherever_it_would_go() {
        let file = FILE.replace(
            "[[listener]]\n",
            "[[listener]]\ndeny = [{ method = [\"TRACE\"] }, { client_ip = [\"192.0.2.0/24\"] }]\n",
        );
        // else there is a route for everything
        let file = file.replace("[[route]]\nname = \"all\"\nupstream = \"app\"\n", "");
        let file =
            format!("{file}\n[[guard]]\nname = \"env\"\nmatch = {{ path = '~/\\.' }}\nrespond = {{ status = 404 }}\n");
        let said = "403 forbidden, from the gateway: deny[1] of the listener holds, wherever it would go";
        let from = |client: &str| format!("x-forwarded-for: {client}");
        for (method, path, otherwise) in [
            ("GET", "http://api.example.com:8080/nowhere", "404 no_route"),
            ("DELETE", "http://ops.example.com:8080/ping", "405 method_not_allowed"),
            ("GET", "http://ops.example.com:8080/.env", "404 Not Found"),
        ] {
            let page = answer(&file, method, path, &[&from("192.0.2.7")]);
            assert!(page.contains(said) && !page.contains(otherwise), "{method} {path}: {page}");
            let page = answer(&file, method, path, &[&from("192.0.3.7")]);
            assert!(!page.contains("403") && page.contains(otherwise), "{method} {path}: {page}");
        }
    }

    #[test]
    fn a_guard_is_shown_before_the_routes_that_match_too() {
        let file = format!("{FILE}\n[[guard]]\nname = \"env\"\nmatch = {{ path = '~/\\.' }}\ndeny = true\n");
        let guarded = answer(&file, "GET", "http://api.example.com:8080/orders/.env", &[]);
        let lines = [
            "guard      env (any host, path ~/\\.)",
            "           orders (host api.example.com, path /orders/*): matches too, but guards come first",
            "answer     403 guarded, from the gateway",
        ];
        for line in lines {
            assert!(guarded.lines().any(|found| found == line), "{line:?} is not in\n{guarded}");
        }
        assert!(!answer(&file, "GET", "http://api.example.com:8080/orders/env", &[]).contains("guard"));
    }

    #[test]
    fn what_a_page_may_do_is_shown() {
        let file = FILE.replace(
            "respond = { body = \"pong\" }",
            "respond = { body = \"pong\" }\ncors = { origins = [\"https://a.example\"], credentials = true, expose = [\"etag\"], headers = [\"*\"] }",
        );
        let url = "http://ops.example.com:8080/ping";
        let said = "pages of https://a.example, with credentials, may use GET, with whatever headers they ask for, and read etag; asked again after 10m";
        let plain = answer(&file, "GET", url, &[]);
        assert!(plain.ends_with(&format!("\ncors       {said}\n")), "{plain}");
        let other = answer(&file, "GET", url, &["Origin: https://b.example"]);
        assert!(other.ends_with(&format!("\ncors       not this page; {said}\n")), "{other}");
        let asked = ["Origin: https://a.example", "Access-Control-Request-Method: GET"];
        let preflight = answer(&file, "OPTIONS", url, &asked);
        assert!(
            preflight.contains("\nroute      ping (host ops.example.com, path /ping, GET), which a GET would take\n"),
            "{preflight}"
        );
        assert!(preflight.contains("\nanswer     204 No Content to the preflight, from the gateway\n"), "{preflight}");
        let refused = answer(&file, "OPTIONS", url, &["Origin: null", asked[1]]);
        assert!(refused.contains("\nanswer     403 origin_not_allowed, from the gateway\n"), "{refused}");
    }

    #[test]
    fn words_that_are_no_request_are_refused() {
        let refused = |method: &str, url: &str, header: &str| {
            let headers: Vec<_> = (!header.is_empty()).then(|| header.to_owned()).into_iter().collect();
            Ask::try_new(method, url, &headers).expect_err(url)
        };
        assert!(refused("G T", "/", "").contains("is no method"));
        assert!(refused("GET", "ftp://a/", "").contains("must be http://HOST/PATH"));
        assert!(refused("GET", "http://a b/", "").contains("visible ASCII"));
        assert!(refused("GET", "http:///x", "").contains("is no host"));
        assert!(refused("GET", "/a%00", "").contains("refuses this path with 400"));
        assert!(refused("GET", "/", "x-beta").contains("write it as 'name: value'"));
    }
}
