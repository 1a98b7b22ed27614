//! A record as a line of text.
//!
//! Everything that came from a peer is escaped so that it cannot end the line, close a quote, or drive a terminal: in JSON control
//! characters (C0, DEL, C1, line separators, text direction) become `\u` escapes and what is not UTF-8 becomes U+FFFD; in the combined format every
//! byte that is not printable ASCII becomes `\xHH`, as nginx does.
//!
//! Redaction: the value of each listed query parameter, in the target and in `Referer`, and the value of each listed header is
//! replaced by `[redacted]`. Names are compared without case and after percent-decoding, so `%74oken=` does not slip by.

use super::chosen;
use super::dates::{Clf, Rfc3339};
use super::record::{LogRecord, LogTls};
use crate::config::{AccessLog, Cluster, Config, KeyPlace, LogFormat, Parameters};
use crate::units::ClusterId;
use rustls::CipherSuite;
use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;

const REDACTED: &[u8] = b"[redacted]";

fn version_word(tls: LogTls) -> &'static str {
    match tls.version {
        0x0303 => "1.2",
        0x0304 => "1.3",
        _ => "unknown",
    }
}

/// As IANA calls it, where it is one of those that are spoken: what stands before the last part of its name, and that.
fn suite_words(tls: LogTls) -> (&'static str, &'static str) {
    let name = CipherSuite::from(tls.suite).as_str().unwrap_or("unknown");
    // rustls has names of its own for those of TLS 1.3
    name.strip_prefix("TLS13_").map_or(("", name), |rest| ("TLS_", rest))
}

/// Turns records into lines; knows the names behind ids.
pub(super) struct Formatter {
    names: Names,
    format: LogFormat,
    redact: Redaction,
    /// What the file has chosen, with where parameters stand in it.
    chosen: Arc<[(String, Parameters)]>,
    /// A text on its way from redaction to escaping.
    text: Vec<u8>,
}

/// Names of ids, already escaped for the format.
struct Names {
    listeners: Arc<[String]>,
    routes: Arc<[String]>,
    clusters: Vec<Arc<(String, Vec<String>)>>,
}

/// What must not be written.
#[derive(Clone)]
struct Redaction {
    names: Vec<String>,
    host: bool,
    request_id: bool,
    user_agent: bool,
    referer: bool,
    /// Of whoever calls it as services are told of it.
    tls_client: bool,
}

impl Formatter {
    /// A formatter for the ids of `config`.
    pub(super) fn new(config: &Config, log: &AccessLog) -> Self {
        let format = log.format;
        let names = Names {
            listeners: config.listeners.iter().map(|listener| escaped(&listener.name, format)).collect(),
            routes: config.routes.iter().map(|route| escaped(&route.name, format)).collect(),
            clusters: config.clusters.iter().map(|cluster| cluster_names(cluster, format)).collect(),
        };
        let chosen = log.fields.iter().map(|field| (field.name.clone(), field.value.parameters())).collect();
        Self { names, format, redact: Redaction::new(&log.redact, config), chosen, text: Vec::new() }
    }

    /// The same for the ids of `config`, which differs in the endpoints of these clusters only.
    pub(super) fn with_endpoints(&self, config: &Config, changed: &[ClusterId]) -> Self {
        let mut clusters = self.names.clusters.clone();
        for row in changed.iter().map(|id| id.index()) {
            clusters[row] = cluster_names(&config.clusters[row], self.format);
        }
        let names =
            Names { listeners: Arc::clone(&self.names.listeners), routes: Arc::clone(&self.names.routes), clusters };
        let (redact, chosen) = (self.redact.clone(), Arc::clone(&self.chosen));
        Self { names, format: self.format, redact, chosen, text: Vec::new() }
    }

    /// Appends the record's line, with its line feed, to `out`.
    pub(super) fn line(&mut self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        match self.format {
            LogFormat::Json => self.json(record, out),
            LogFormat::Combined => self.combined(record, out),
        }
    }

    fn json(&mut self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        put(out, format_args!("{{\"time\":\"{}\"", Rfc3339(record.time_unix_ms)));
        put(out, format_args!(",\"listener\":\"{}\"", self.listener(record)));
        optional_json(out, "route", self.route(record));
        optional_json(out, "client", record.client);
        if !record.consumer.is_empty() {
            self.json_text(out, "consumer", record.consumer, false);
        }
        self.json_text(out, "method", record.method, false);
        self.json_text(out, "host", record.host, self.redact.host);
        self.json_url(out, "target", record.target, false);
        match record.version {
            Some((major, minor)) => put(out, format_args!(",\"version\":\"{major}.{minor}\"")),
            None => out.extend_from_slice(b",\"version\":null"),
        }
        put(out, format_args!(",\"status\":{}", record.status.as_u16()));
        if let Some(code) = record.grpc_status {
            put(out, format_args!(",\"grpc_status\":{code}"));
        }
        optional_json(out, "error", record.error.map(|error| error.token()));
        if !record.limit.is_empty() {
            self.json_text(out, "limit", record.limit, false);
        }
        if !record.refused_by.is_empty() {
            self.json_text(out, "refused_by", record.refused_by, false);
        }
        if !record.fault.is_empty() {
            self.json_text(out, "fault", record.fault, false);
        }
        if let Some(rule) = record.rule {
            put(out, format_args!(",\"rule\":\"{}\"", rule.word()));
        }
        put(out, format_args!(",\"request_bytes\":{}", record.request_bytes));
        put(out, format_args!(",\"response_bytes\":{}", record.response_bytes));
        put(out, format_args!(",\"duration_ms\":{:.3}", record.duration.as_secs_f64() * 1e3));
        match record.upstream_time {
            Some(time) => put(out, format_args!(",\"upstream_ms\":{:.3}", time.as_secs_f64() * 1e3)),
            None => out.extend_from_slice(b",\"upstream_ms\":null"),
        }
        optional_json(out, "upstream", self.upstream(record));
        put(out, format_args!(",\"attempts\":{},\"endpoints\":[", record.attempts));
        for (n, endpoint) in self.endpoints(record).enumerate() {
            put(out, format_args!("{}\"{endpoint}\"", if n > 0 { "," } else { "" }));
        }
        out.extend_from_slice(b"],\"outcomes\":[");
        for (n, outcome) in record.outcomes.iter().enumerate() {
            put(out, format_args!("{}\"{}\"", if n > 0 { "," } else { "" }, outcome.token()));
        }
        out.push(b']');
        self.json_text(out, "request_id", record.request_id, self.redact.request_id);
        self.json_text(out, "user_agent", record.user_agent, self.redact.user_agent);
        self.json_url(out, "referer", record.referer, self.redact.referer);
        if let Some(tls) = record.tls {
            let (version, (tls_, suite), resumed) = (version_word(tls), suite_words(tls), tls.is_resumed);
            put(out, format_args!(",\"tls_version\":\"{version}\",\"tls_cipher\":\"{tls_}{suite}\""));
            self.json_text(out, "sni", record.sni, self.redact.host);
            put(out, format_args!(",\"tls_resumed\":{resumed}"));
            if !record.client_subject.is_empty() {
                self.json_text(out, "tls_client", record.client_subject, self.redact.tls_client);
            }
        }
        if !self.chosen.is_empty() {
            self.chosen(record, out);
        }
        out.extend_from_slice(b"}\n");
    }

    /// What the file has chosen: null or `-` where it is not there.
    fn chosen(&mut self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        let (all, mut text) = (Arc::clone(&self.chosen), std::mem::take(&mut self.text));
        for (row, (name, parameters)) in all.iter().enumerate() {
            let written = chosen::field(record.chosen, row);
            text.clear();
            match parameters {
                Parameters::Nowhere => text.extend_from_slice(written),
                Parameters::OfUrl => self.redact.url(written, &mut text),
                Parameters::OfQuery => self.redact.query(written, &mut text),
            }
            match self.format {
                LogFormat::Json => self.json_text(out, name, &text, false),
                LogFormat::Combined => {
                    put(out, format_args!(" {name}="));
                    combined_quoted(out, &text, false);
                }
            }
        }
        self.text = text;
    }

    fn json_text(&self, out: &mut Vec<u8>, name: &str, text: &[u8], redacted: bool) {
        put(out, format_args!(",\"{name}\":"));
        match text {
            [] => out.extend_from_slice(b"null"),
            text => {
                out.push(b'"');
                escape_json(out, if redacted { REDACTED } else { text });
                out.push(b'"');
            }
        }
    }

    fn json_url(&mut self, out: &mut Vec<u8>, name: &str, url: &[u8], redacted: bool) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        self.redact.url(url, &mut text);
        self.json_text(out, name, &text, redacted);
        self.text = text;
    }

    fn combined(&mut self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        match record.client {
            Some(client) => put(out, client),
            None => out.push(b'-'),
        }
        put(out, format_args!(" - - [{}] \"", Clf(record.time_unix_ms)));
        self.request_line(record, out);
        put(out, format_args!("\" {} {} ", record.status.as_u16(), record.response_bytes));
        self.combined_url(out, record.referer, true);
        out.push(b' ');
        combined_quoted(out, record.user_agent, self.redact.user_agent);
        put(out, format_args!(" listener=\"{}\"", self.listener(record)));
        put(out, format_args!(" route=\"{}\"", self.route(record).unwrap_or("-")));
        if !record.consumer.is_empty() {
            out.extend_from_slice(b" consumer=");
            combined_quoted(out, record.consumer, false);
        }
        out.extend_from_slice(b" host=");
        combined_quoted(out, record.host, self.redact.host);
        put(out, format_args!(" error={}", record.error.map_or("-", |error| error.token())));
        if !record.limit.is_empty() {
            out.extend_from_slice(b" limit=");
            combined_quoted(out, record.limit, false);
        }
        if !record.refused_by.is_empty() {
            out.extend_from_slice(b" refused_by=");
            combined_quoted(out, record.refused_by, false);
        }
        if !record.fault.is_empty() {
            out.extend_from_slice(b" fault=");
            combined_quoted(out, record.fault, false);
        }
        if let Some(code) = record.grpc_status {
            put(out, format_args!(" grpc_status={code}"));
        }
        if let Some(rule) = record.rule {
            put(out, format_args!(" rule={}", rule.word()));
        }
        put(out, format_args!(" request_bytes={}", record.request_bytes));
        put(out, format_args!(" duration={:.6}", record.duration.as_secs_f64()));
        match record.upstream_time {
            Some(time) => put(out, format_args!(" upstream_time={:.6}", time.as_secs_f64())),
            None => out.extend_from_slice(b" upstream_time=-"),
        }
        put(out, format_args!(" upstream=\"{}\"", self.upstream(record).unwrap_or("-")));
        put(out, format_args!(" attempts={} endpoints=\"", record.attempts));
        for (n, endpoint) in self.endpoints(record).enumerate() {
            put(out, format_args!("{}{endpoint}", if n > 0 { "," } else { "" }));
        }
        out.extend_from_slice(b"\" outcomes=\"");
        for (n, outcome) in record.outcomes.iter().enumerate() {
            put(out, format_args!("{}{}", if n > 0 { "," } else { "" }, outcome.token()));
        }
        out.extend_from_slice(b"\" request_id=");
        combined_quoted(out, record.request_id, self.redact.request_id);
        if let Some(tls) = record.tls {
            let (version, (tls_, suite), resumed) = (version_word(tls), suite_words(tls), tls.is_resumed);
            put(out, format_args!(" tls_version={version} tls_cipher={tls_}{suite} sni="));
            combined_quoted(out, record.sni, self.redact.host);
            put(out, format_args!(" tls_resumed={resumed}"));
            if !record.client_subject.is_empty() {
                out.extend_from_slice(b" tls_client=");
                combined_quoted(out, record.client_subject, self.redact.tls_client);
            }
        }
        if !self.chosen.is_empty() {
            self.chosen(record, out);
        }
        out.push(b'\n');
    }

    /// Of a request that could not be read, what there is of it; `-` when that is nothing.
    fn request_line(&mut self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        if record.method.is_empty() {
            return out.push(b'-');
        }
        escape_combined(out, record.method);
        if !record.target.is_empty() {
            out.push(b' ');
            self.combined_url(out, record.target, false);
        }
        if let Some((major, minor)) = record.version {
            put(out, format_args!(" HTTP/{major}.{minor}"));
        }
    }

    /// A URL with its listed parameters cut: the target as it stands, or the quoted referer.
    fn combined_url(&mut self, out: &mut Vec<u8>, url: &[u8], referer: bool) {
        self.text.clear();
        self.redact.url(url, &mut self.text);
        if referer {
            combined_quoted(out, &self.text, self.redact.referer);
        } else {
            escape_combined(out, &self.text);
        }
    }

    fn listener(&self, record: &LogRecord<'_>) -> &str {
        self.names.listeners.get(record.listener.index()).map_or("-", String::as_str)
    }

    fn route(&self, record: &LogRecord<'_>) -> Option<&str> {
        self.names.routes.get(record.route?.index()).map(String::as_str)
    }

    fn upstream(&self, record: &LogRecord<'_>) -> Option<&str> {
        self.names.clusters.get(record.upstream?.index()).map(|names| names.0.as_str())
    }

    fn endpoints(&self, record: &LogRecord<'_>) -> impl Iterator<Item = &str> {
        let cluster = record.upstream.and_then(|upstream| self.names.clusters.get(upstream.index()));
        let names = cluster.map_or(&[][..], |names| &names.1);
        record.endpoints.iter().map(|endpoint| names.get(endpoint.index()).map_or("-", String::as_str))
    }
}

fn escaped(name: &str, format: LogFormat) -> String {
    let mut escaped = Vec::new();
    match format {
        LogFormat::Json => escape_json(&mut escaped, name.as_bytes()),
        LogFormat::Combined => escape_combined(&mut escaped, name.as_bytes()),
    }
    String::from_utf8(escaped).expect("both escapes write UTF-8")
}

fn cluster_names(cluster: &Cluster, format: LogFormat) -> Arc<(String, Vec<String>)> {
    let endpoints = cluster.endpoints.iter().map(|endpoint| escaped(&endpoint.address.to_string(), format));
    Arc::new((escaped(&cluster.name, format), endpoints.collect()))
}

/// Writing into memory cannot fail.
fn put(out: &mut Vec<u8>, text: impl Display) {
    let _ = write!(out, "{text}");
}

/// A member whose value needs no escaping, or null.
fn optional_json(out: &mut Vec<u8>, name: &str, value: Option<impl Display>) {
    match value {
        Some(value) => put(out, format_args!(",\"{name}\":\"{value}\"")),
        None => put(out, format_args!(",\"{name}\":null")),
    }
}

fn combined_quoted(out: &mut Vec<u8>, text: &[u8], redacted: bool) {
    out.push(b'"');
    match text {
        [] => out.push(b'-'),
        _ if redacted => out.extend_from_slice(REDACTED),
        text => escape_combined(out, text),
    }
    out.push(b'"');
}

/// Escapes for the inside of a JSON string (RFC 8259 §7), and what could drive a terminal or break a line reader.
fn escape_json(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                ' '..='~' => out.push(c as u8),
                '\0'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    put(out, format_args!("\\u{:04x}", u32::from(c)));
                }
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Escapes as nginx's default: quote, backslash and all that is not printable ASCII.
fn escape_combined(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => put(out, format_args!("\\x{byte:02X}")),
            printable => out.push(printable),
        }
    }
}

impl Redaction {
    /// What is listed, and the parameters that keys stand in.
    fn new(names: &[String], config: &Config) -> Self {
        let keys = config.auth.iter().flat_map(|way| &way.places).filter_map(|place| match place {
            KeyPlace::Query(name) => Some(name),
            KeyPlace::Header(..) | KeyPlace::Cookie(_) => None,
        });
        let names: Vec<String> = names.iter().chain(keys).map(|name| name.to_ascii_lowercase()).collect();
        let listed = |name: &str| names.iter().any(|listed| listed == name);
        Self {
            host: listed("host"),
            request_id: listed("x-request-id"),
            user_agent: listed("user-agent"),
            referer: listed("referer"),
            tls_client: listed("x-forwarded-client-cert"),
            names,
        }
    }

    /// Copies a URL, with the values of listed query parameters replaced. `&` and `;` both end a parameter, because services
    /// disagree on the second.
    fn url(&self, url: &[u8], out: &mut Vec<u8>) {
        let query = url.iter().position(|byte| *byte == b'?').map_or(url.len(), |mark| mark + 1);
        out.extend_from_slice(&url[..query]);
        self.query(&url[query..], out);
    }

    /// The same of the parameters alone.
    fn query(&self, query: &[u8], out: &mut Vec<u8>) {
        for parameter in query.split_inclusive(|byte| matches!(byte, b'&' | b';')) {
            match parameter.iter().position(|byte| *byte == b'=') {
                Some(equals) if self.is_listed(&parameter[..equals]) => {
                    out.extend_from_slice(&parameter[..=equals]);
                    out.extend_from_slice(REDACTED);
                    out.extend(parameter.last().filter(|byte| matches!(byte, b'&' | b';')));
                }
                _ => out.extend_from_slice(parameter),
            }
        }
    }

    fn is_listed(&self, name: &[u8]) -> bool {
        self.names.iter().any(|listed| {
            let mut decoded = PercentDecoded(name);
            listed.bytes().all(|byte| decoded.next().is_some_and(|other| other.eq_ignore_ascii_case(&byte)))
                && decoded.next().is_none()
        })
    }
}

/// Percent-decoded bytes of a query name; a `%` without two digits stands for itself.
struct PercentDecoded<'a>(&'a [u8]);

impl Iterator for PercentDecoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
        let decoded = (first == b'%').then(|| digit(0).zip(digit(1))).flatten();
        self.0 = if decoded.is_some() { &rest[2..] } else { rest };
        // Two hexadecimal digits fit in a byte.
        Some(decoded.map_or(first, |(high, low)| (high * 16 + low) as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::full;
    use super::*;
    use crate::error::{ProxyError, Rule};
    use crate::observe::fixture;

    /// What stands under `[access_log]` in a file.
    fn log(table: &str) -> AccessLog {
        let file =
            format!("[access_log]\n{table}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\n");
        let document = crate::config::parse(&file, "a.toml").unwrap();
        document.access_log.unwrap()
    }

    fn line(format: LogFormat, redact: &[&str], record: &LogRecord<'_>) -> String {
        let redact: Vec<String> = redact.iter().map(|name| (*name).to_owned()).collect();
        let mut out = Vec::new();
        let log = AccessLog { format, redact, ..log("") };
        Formatter::new(&fixture::config(), &log).line(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn chosen_fields_follow_and_are_escaped_and_redacted() {
        let log = log(
            "redact = [\"token\"]\nfields = { agent = \"{header.user-agent}\", all = \"{query}\", to = \"{response.location}\", \
             none = \"{claim.sub}\" }",
        );
        let mut packed = Vec::new();
        for (row, text) in [(0, "a\"\\\n\u{e9}"), (1, "a=1&token=hush;b"), (2, "/x?token=hush#y")] {
            chosen::push(&mut packed, 0, row, |out| {
                out.extend_from_slice(text.as_bytes());
                true
            });
        }
        let record = LogRecord { chosen: &packed, refused_by: b"route.deny[0]", ..full() };
        let line = |format| {
            let mut out = Vec::new();
            Formatter::new(&fixture::config(), &AccessLog { format, ..log.clone() }).line(&record, &mut out);
            String::from_utf8(out).unwrap()
        };
        let json = line(LogFormat::Json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["agent"], "a\"\\\n\u{e9}");
        assert_eq!(value["all"], "a=1&token=[redacted];b");
        assert_eq!(value["to"], "/x?token=[redacted]");
        assert_eq!((&value["none"], &value["refused_by"]), (&serde_json::Value::Null, &"route.deny[0]".into()));
        let expected = " refused_by=\"route.deny[0]\"";
        let combined = line(LogFormat::Combined);
        assert!(combined.contains(expected), "{combined}");
        let expected = " agent=\"a\\x22\\x5C\\x0A\\xC3\\xA9\" all=\"a=1&token=[redacted];b\" to=\"/x?token=[redacted]\" none=\"-\"\n";
        assert!(combined.ends_with(expected), "{combined}");
    }

    #[test]
    fn no_chosen_field_is_called_what_a_line_says_anyway() {
        let tls = LogTls { version: 0x0304, suite: 0x1301, is_resumed: true };
        let record = LogRecord {
            tls: Some(tls),
            client_subject: b"CN=a",
            consumer: b"a",
            limit: b"a",
            refused_by: b"a",
            fault: b"a",
            grpc_status: Some(1),
            rule: Some(Rule::Host),
            ..full()
        };
        let value: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, &[], &record)).unwrap();
        let combined = line(LogFormat::Combined, &[], &record);
        let tail = &combined[combined.find(" listener=").unwrap()..];
        let words = tail.split(' ').filter_map(|part| part.split_once('=')).map(|(name, _)| name);
        for name in value.as_object().unwrap().keys().map(String::as_str).chain(words) {
            assert!(crate::config::log_fields::LINE_MEMBERS.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_json_line_says_everything() {
        let line = line(LogFormat::Json, &[], &full());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2023-11-14T22:13:20.123Z", "listener": "edge", "route": "orders", "client": "2001:db8::1",
            "method": "GET", "host": "api.example.com", "target": "/orders/7?token=secret&page=2", "version": "1.1",
            "status": 502, "error": "upstream_reset", "request_bytes": 300, "response_bytes": 5_000_000_000u64,
            "duration_ms": 12.345, "upstream_ms": 11.0, "upstream": "orders", "attempts": 2,
            "endpoints": ["10.0.0.2:8080", "10.0.0.1:8080"], "outcomes": ["connect_failed", "reset"], "request_id": "01J", "user_agent": "curl/8",
            "referer": "https://example.com/",
        });
        assert_eq!(value, expected);
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn what_is_absent_is_null_or_a_dash() {
        let bare = LogRecord {
            route: None,
            client: None,
            error: None,
            upstream_time: None,
            upstream: None,
            endpoints: &[],
            outcomes: &[],
            attempts: 0,
            host: b"",
            request_id: b"",
            user_agent: b"",
            referer: b"",
            ..full()
        };
        let value: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, &[], &bare)).unwrap();
        for name in
            ["route", "client", "error", "upstream_ms", "upstream", "host", "request_id", "user_agent", "referer"]
        {
            assert!(value[name].is_null(), "{name}");
        }
        assert!(value["endpoints"].as_array().unwrap().is_empty());
        assert_eq!(
            line(LogFormat::Combined, &[], &bare),
            "- - - [14/Nov/2023:22:13:20 +0000] \"GET /orders/7?token=secret&page=2 HTTP/1.1\" 502 5000000000 \"-\" \"-\" \
             listener=\"edge\" route=\"-\" host=\"-\" error=- request_bytes=300 duration=0.012345 upstream_time=- \
             upstream=\"-\" attempts=0 endpoints=\"\" outcomes=\"\" request_id=\"-\"\n"
        );
    }

    #[test]
    fn a_session_is_told_of_where_there_is_one() {
        let tls = LogTls { version: 0x0304, suite: 0x1301, is_resumed: true };
        let record = LogRecord { tls: Some(tls), sni: b"api.example.com", client_subject: b"CN=\"a\\0a", ..full() };
        let written = line(LogFormat::Json, &[], &record);
        assert!(
            written.ends_with(",\"sni\":\"api.example.com\",\"tls_resumed\":true,\"tls_client\":\"CN=\\\"a\\\\0a\"}\n")
        );
        assert!(written.contains(",\"tls_version\":\"1.3\",\"tls_cipher\":\"TLS_AES_128_GCM_SHA256\","), "{written}");
        let hidden = line(LogFormat::Json, &["x-forwarded-client-cert"], &record);
        assert!(hidden.contains("\"tls_client\":\"[redacted]\""), "{hidden}");
        let tls = LogTls { version: 0x0303, suite: 0xc02b, is_resumed: false };
        let record = LogRecord { tls: Some(tls), ..full() };
        assert!(line(LogFormat::Combined, &[], &record).ends_with(
            " tls_version=1.2 tls_cipher=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 sni=\"-\" tls_resumed=false\n"
        ));
        assert!(!line(LogFormat::Json, &[], &full()).contains("tls_"));
    }

    #[test]
    fn a_malformed_request_says_which_rule_it_breaks() {
        let record = LogRecord { error: Some(ProxyError::BadRequest), rule: Some(Rule::Host), ..full() };
        assert!(line(LogFormat::Json, &[], &record).contains("\"error\":\"bad_request\",\"rule\":\"host\","));
        assert!(line(LogFormat::Combined, &[], &record).contains(" error=bad_request rule=host "));
    }

    #[test]
    fn a_request_that_was_not_read_is_shown_as_far_as_it_was() {
        let cut = LogRecord { version: None, ..full() };
        let value: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, &["token"], &cut)).unwrap();
        assert!(value["version"].is_null());
        let combined = line(LogFormat::Combined, &["token"], &cut);
        assert!(combined.contains("] \"GET /orders/7?token=[redacted]&page=2\" 502 "), "{combined}");
        let garbage = LogRecord { method: b"", target: b"", version: None, ..full() };
        let combined = line(LogFormat::Combined, &[], &garbage);
        assert!(combined.contains("] \"-\" 502 "), "{combined}");
    }

    #[test]
    fn a_combined_line_begins_as_ncsa_has_it() {
        assert_eq!(
            line(LogFormat::Combined, &["token"], &full()),
            "2001:db8::1 - - [14/Nov/2023:22:13:20 +0000] \"GET /orders/7?token=[redacted]&page=2 HTTP/1.1\" 502 5000000000 \
             \"https://example.com/\" \"curl/8\" listener=\"edge\" route=\"orders\" host=\"api.example.com\" \
             error=upstream_reset request_bytes=300 duration=0.012345 upstream_time=0.011000 upstream=\"orders\" attempts=2 \
             endpoints=\"10.0.0.2:8080,10.0.0.1:8080\" outcomes=\"connect_failed,reset\" request_id=\"01J\"\n"
        );
    }

    #[test]
    fn hostile_bytes_neither_end_the_line_nor_close_a_quote() {
        let all: Vec<u8> = (0..=255).collect();
        let separators = "a\u{2028}b\u{202e}c\u{9b}d\u{7f}".as_bytes();
        for evil in [&b"x\" 200 0 \"-\"\r\n127.0.0.1 - - forged"[..], b"\x1b[2J\\\"", &all, separators] {
            let record = LogRecord {
                method: evil,
                target: evil,
                host: evil,
                user_agent: evil,
                referer: evil,
                request_id: evil,
                ..full()
            };
            let json = line(LogFormat::Json, &[], &record);
            assert_eq!(json.matches('\n').count(), 1);
            assert!(!json.trim_end().chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}'), "{json}");
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(value["user_agent"], String::from_utf8_lossy(evil).as_ref());
            let combined = line(LogFormat::Combined, &[], &record);
            assert!(combined.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let plain = line(LogFormat::Combined, &[], &full());
            assert_eq!(combined.matches('"').count(), plain.matches('"').count(), "{combined}");
        }
    }

    #[test]
    fn listed_parameters_and_headers_are_never_written() {
        let cases: &[(&[u8], &str)] = &[
            (b"/p?token=s3cr3t", "/p?token=[redacted]"),
            (b"/p?a=1&token=s3cr3t&b=2", "/p?a=1&token=[redacted]&b=2"),
            (b"/p?a=1;TOKEN=s3cr3t;b", "/p?a=1;TOKEN=[redacted];b"),
            (b"/p?%74oke%6E=s3cr3t", "/p?%74oke%6E=[redacted]"),
            (b"/p?token=s3cr3t=s3cr3t?s3cr3t", "/p?token=[redacted]"),
            (b"/p?x=?&token=s3cr3t", "/p?x=?&token=[redacted]"),
            (b"/p?token", "/p?token"),
            (b"/p?tokens=1&atoken=2&%zz=3&%7=4", "/p?tokens=1&atoken=2&%zz=3&%7=4"),
            (b"/token=1", "/token=1"),
        ];
        for (target, expected) in cases {
            let record = LogRecord { target, referer: target, ..full() };
            let value: serde_json::Value =
                serde_json::from_str(&line(LogFormat::Json, &["authorization", "token"], &record)).unwrap();
            assert_eq!(value["target"], *expected);
            assert_eq!(value["referer"], *expected);
            assert!(!line(LogFormat::Combined, &["token"], &record).contains("s3cr3t"));
        }
        let hidden = &["user-agent", "Referer", "host", "x-request-id"];
        for format in [LogFormat::Json, LogFormat::Combined] {
            let line = line(format, hidden, &full());
            assert!(!["curl", "example.com", "01J"].iter().any(|secret| line.contains(secret)), "{line}");
        }
    }
}
