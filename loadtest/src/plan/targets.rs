//! What is asked: targets of a plan, or those that a log has.

use super::check::{Place, given, value, wrong};
use super::replay::{self, Replay};
use super::values::FileName;
use super::{Request, Upstream, file};
use ringgate::config::reading::{HeaderText, KeyOf, Sink, Written};
use std::collections::HashMap;
use std::io::Read;

/// Largest body that is read from a file, bytes: each target has its own in memory, ready to be sent.
pub(crate) const BODY_FILE_BYTES_MAX: u64 = 16 << 20;
/// Largest configuration of a gateway that is read, bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Headers that follow from other keys, and which.
const SETTLED_HEADERS: &[(&str, &str)] = &[
    ("host", "write host = \"…\" instead"),
    ("content-length", "the body decides it"),
    ("transfer-encoding", "the body decides how it is sent"),
    ("connection", "load.reconnect decides it"),
    ("expect", "requests are sent whole"),
    ("upgrade", "only HTTP/1.1 is spoken"),
];

/// A log as a load, where there is one; what it excludes is reported.
pub(super) fn replay(load: &file::Load, file: &file::File, place: &Place<'_>, sink: &mut Sink<'_>) -> Option<Replay> {
    let Some(log) = &load.from_log else {
        if let Some(speed) = given(&load.speed) {
            let help = "write from_log, or take it away".to_owned();
            wrong(sink, load.at.key("speed"), speed, "only a log has a speed".to_owned(), Some(help));
        }
        return None;
    };
    let line = sink.line(log.span.start);
    let mut exclude = |key: KeyOf<'_>, span: std::ops::Range<usize>| {
        let message = format!("from_log (line {line}) decides this");
        sink.value(key, span, message, Some("take one of them away".to_owned()));
    };
    if let Some(rate) = given(&load.rate) {
        exclude(load.at.key("rate"), rate.span.clone());
    }
    if let Some(pace) = given(&load.pace) {
        exclude(load.at.key("pace"), pace.span.clone());
    }
    if let Some(first) = file.target.as_ref().and_then(|list| list.value.0.first()) {
        sink.place("target[0]", first.span.start, format!("from_log (line {line}) says what is asked"), None);
    }
    let speed = value(&load.speed)?.0;
    match replay::open(&place.folder.join(&log.value.0), speed) {
        Ok(replay) => Some(replay),
        Err(error) => {
            wrong(sink, load.at.key("from_log"), log, error.to_string(), error.help());
            None
        }
    }
}

/// What is asked; `routes` are the plan's own, where they are all there are.
pub(super) fn requests(
    file: &file::File,
    load: &file::Load,
    replay: Option<&Replay>,
    routes: Option<&[Upstream]>,
    place: &Place<'_>,
    sink: &mut Sink<'_>,
) -> Option<Vec<Request>> {
    if load.from_log.is_some() {
        let requests = replay?.requests.iter().cloned();
        return Some(requests.map(|request| Request { upstream: routed(&request.path, routes), ..request }).collect());
    }
    let list = &file.target.as_ref()?.value.0;
    if let (Some(url), Some(first)) = (&load.url, list.first())
        && url.value.0.path != "/"
    {
        let message = format!("paths stand in [[target]] (line {}), and here too", sink.line(first.span.start));
        let help = format!("did you mean \"http://{}/\"?", url.value.0.authority);
        wrong(sink, load.at.key("url"), url, message, Some(help));
    }
    if list.is_empty() {
        let path = value(&load.url).map_or_else(|| "/".to_owned(), |url| url.0.path);
        let upstream = routed(&path, routes);
        if upstream.is_none() && routes.is_some() {
            let help = Some("write [[target]] with a path of an upstream".to_owned());
            sink.place("target", load.at.offset, "no upstream has the path \"/\", which is asked for".to_owned(), help);
        }
        return Some(vec![Request { upstream, ..Request::get(path) }]);
    }
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut requests = Vec::with_capacity(list.len());
    for table in list {
        let Some(mut request) = request(&table.value, place, sink) else { continue };
        if let Some(first) = names.insert(request.name.clone(), table.span.start) {
            let message = format!("the target in line {} is called {:?} too", sink.line(first), request.name);
            let at = table.value.name.as_ref().map_or(table.span.start, |name| name.span.start);
            sink.place(table.value.at.key("name"), at, message, Some("give it another name".to_owned()));
        }
        request.upstream = routed(&request.path, routes);
        if let (None, Some(routes), Some(path)) = (request.upstream, routes, &table.value.path) {
            let known: Vec<_> = routes.iter().map(|upstream| format!("{}/*", upstream.path.0)).collect();
            let message = format!("no upstream has this path; there are {}", known.join(", "));
            wrong(sink, table.value.at.key("path"), path, message, None);
        }
        requests.push(request);
    }
    (requests.len() == list.len()).then_some(requests)
}

impl Request {
    /// A plain GET.
    pub(super) fn get(path: String) -> Self {
        Self {
            name: path.clone(),
            method: "GET".to_owned(),
            host: None,
            path,
            headers: Vec::new(),
            body: Vec::new(),
            weight: 1.0,
            status: (200, 299),
            body_has: None,
            upstream: None,
        }
    }
}

/// The upstream with the longest prefix that takes the path.
fn routed(path: &str, routes: Option<&[Upstream]>) -> Option<usize> {
    let takers = routes?.iter().enumerate().filter(|(_, upstream)| upstream.path.takes(path));
    takers.max_by_key(|(_, upstream)| upstream.path.0.len()).map(|(row, _)| row)
}

fn request(table: &file::Target, place: &Place<'_>, sink: &mut Sink<'_>) -> Option<Request> {
    let method = value(&table.method).map(|method| method.0.as_str().to_owned());
    let headers = table.headers.as_ref().map(|map| {
        for (name, _) in &map.value.0 {
            let known = SETTLED_HEADERS.iter().find(|(settled, _)| *settled == name.value.0.as_str());
            if let Some((settled, help)) = known {
                let message = format!("{settled} is not set here");
                sink.place(
                    format_args!("{}.{settled}", table.at.key("headers")),
                    name.span.start,
                    message,
                    Some((*help).to_owned()),
                );
            }
        }
        let text = |value: &HeaderText| value.0.to_str().unwrap_or_default().to_owned();
        map.value.0.iter().map(|(name, value)| (name.value.0.as_str().to_owned(), text(&value.value))).collect()
    });
    let body = body(table, place, sink);
    if let (Some(method), Some(body_has)) = (&method, &table.body_has)
        && method == "HEAD"
    {
        wrong(sink, table.at.key("body_has"), body_has, "an answer to HEAD has no body".to_owned(), None);
    }
    let (method, path) = (method?, value(&table.path)?.0);
    let unnamed = || if method == "GET" { path.clone() } else { format!("{method} {path}") };
    let status = value(&table.status)?;
    Some(Request {
        name: value(&table.name).map_or_else(unnamed, |name| name.0),
        host: value(&table.host).map(|host| host.0),
        headers: headers?,
        body: body?,
        weight: value(&table.weight)?.0 as f64,
        status: (status.0, status.1),
        body_has: value(&table.body_has).map(|text| text.0),
        method,
        path,
        upstream: None,
    })
}

/// The body, from the plan or from its file; `None` when that was reported.
fn body(table: &file::Target, place: &Place<'_>, sink: &mut Sink<'_>) -> Option<Vec<u8>> {
    match (&table.body, &table.body_file) {
        (Some(_), Some(name)) => {
            let message = "a request has one body, and `body` is given too".to_owned();
            wrong(sink, table.at.key("body_file"), name, message, Some("take one of them away".to_owned()));
            None
        }
        (Some(body), None) => Some(body.value.0.clone().into_bytes()),
        (None, Some(name)) => bytes_of_file(&table.at, "body_file", name, BODY_FILE_BYTES_MAX, place, sink),
        (None, None) => Some(Vec::new()),
    }
}

/// A file that the plan names, as text; a configuration of a gateway.
pub(super) fn text_of_file(
    at: &ringgate::config::reading::Place,
    key: &str,
    name: &Written<FileName>,
    place: &Place<'_>,
    sink: &mut Sink<'_>,
) -> Option<String> {
    let bytes = bytes_of_file(at, key, name, CONFIG_BYTES_MAX, place, sink)?;
    let text = String::from_utf8(bytes);
    text.map_err(|_| wrong(sink, at.key(key), name, "the file is not UTF-8".to_owned(), None)).ok()
}

fn bytes_of_file(
    at: &ringgate::config::reading::Place,
    key: &str,
    name: &Written<FileName>,
    bytes_max: u64,
    place: &Place<'_>,
    sink: &mut Sink<'_>,
) -> Option<Vec<u8>> {
    let path = place.folder.join(&name.value.0);
    let mut bytes = Vec::new();
    let read = regular(&path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > bytes_max => {
            let message = format!("larger than {}", ringgate::config::reading::bytes(bytes_max));
            wrong(sink, at.key(key), name, message, None);
            None
        }
        Ok(_) => Some(bytes),
        Err(error) => {
            let help = "it is looked for in the folder of the plan".to_owned();
            wrong(sink, at.key(key), name, format!("{} cannot be read: {error}", path.display()), Some(help));
            None
        }
    }
}

/// A file that has an end: not a pipe, which nobody might write to.
pub(crate) fn regular(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    let kind = std::fs::metadata(path)?;
    if !kind.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    std::fs::File::open(path)
}
