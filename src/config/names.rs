//! Texts with a form of their own: names, methods, headers, and the choices that carry one of them.
//!
//! Hop-by-hop headers belong to one connection (RFC 9110 §7.6.1), so rules about them would corrupt framing and are refused. A name
//! that a typing error made is not looked for among all names of the world: `x-reqest-id` is a header like any other.

use super::problem::{Refusal, did_you_mean, is_unprintable, nearest};
use super::read::Scalar;
use super::tables::scalar_schema;
use super::values::{integer, text};
use super::{HashKey, LogPath};
use crate::limits::{METHOD_BYTES_MAX, NAME_BYTES_MAX, WORKERS_MAX};
use http::{HeaderName, HeaderValue, Method};
use serde_json::json;
use std::path::PathBuf;
use toml::de::DeValue;

/// What stands in metrics and logs where something has no name.
const NO_NAME: &str = "-";

/// A name for metrics and logs: printable, without quotes or backslashes, which every format that shows it would have to escape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub String);

impl Scalar for Name {
    fn allowed() -> String {
        format!("a name of 1 to {NAME_BYTES_MAX} printable ASCII characters without quotes and backslashes")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = text(value)?;
        if name == NO_NAME {
            return Err(Refusal::why(format!("{NO_NAME:?} is what metrics and logs say where there is none")));
        }
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.trim() == name;
        let clean = name.bytes().all(|b| (b' '..=b'~').contains(&b) && !matches!(b, b'"' | b'\'' | b'\\'));
        if fits && clean { Ok(Self(name.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX })
    }
}

/// `auto`, or a number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per core.
    Auto,
    /// This many.
    Count(usize),
}

impl Scalar for Workers {
    fn allowed() -> String {
        format!("\"auto\" or a whole number from 1 to {WORKERS_MAX}")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            DeValue::String(word) if word.parse::<usize>().is_ok() => {
                Err(Refusal::plain().help(format!("without quotes: {word}")))
            }
            DeValue::String(word) => Err(Refusal { why: None, help: did_you_mean(word, ["auto"]) }),
            _ => {
                let count = integer(value).and_then(|n| usize::try_from(n).ok());
                count.filter(|n| (1..=WORKERS_MAX).contains(n)).map(Self::Count).ok_or_else(Refusal::plain)
            }
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": WORKERS_MAX }] })
    }
}

/// `auto`, or a list of cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Those the process may run on.
    Auto,
    /// These, in this order, each once.
    List(Vec<usize>),
}

impl Scalar for Cores {
    fn allowed() -> String {
        "\"auto\" or a list of different core numbers, such as [0, 2, 4]".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            DeValue::String(word) => Err(Refusal { why: None, help: did_you_mean(word, ["auto"]) }),
            DeValue::Array(array) if (1..=WORKERS_MAX).contains(&array.len()) => {
                let mut list = Vec::with_capacity(array.len());
                for entry in array.iter() {
                    let core = integer(entry.get_ref()).and_then(|n| usize::try_from(n).ok());
                    let core = core.ok_or_else(Refusal::plain)?;
                    if list.contains(&core) {
                        return Err(Refusal::why(format!("core {core} stands there twice")));
                    }
                    list.push(core);
                }
                Ok(Self::List(list))
            }
            _ => Err(Refusal::plain()),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [
            { "const": "auto" },
            { "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 1, "uniqueItems": true },
        ] })
    }
}

/// An entry of `match.method`, and `health_check.method`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodText(pub Method);

impl Scalar for MethodText {
    fn allowed() -> String {
        "a method such as \"GET\", in upper case".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.bytes().any(|b| b.is_ascii_lowercase()) {
            let help = format!("did you mean {:?}?", written.to_ascii_uppercase());
            return Err(Refusal::why("methods are case-sensitive (RFC 9110 §9.1)").help(help));
        }
        if written == "CONNECT" {
            return Err(Refusal::why("the gateway opens no tunnels, and a CONNECT asks for one"));
        }
        if written.len() > METHOD_BYTES_MAX {
            return Err(Refusal::why(format!(
                "longer than {METHOD_BYTES_MAX} bytes, which no request's method may be"
            )));
        }
        Method::from_bytes(written.as_bytes()).map(Self).map_err(|_| Refusal::plain())
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A header's name, in lower case once read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header(pub HeaderName);

impl Scalar for Header {
    fn allowed() -> String {
        "a header name such as \"x-request-id\" (letters, digits and !#$%&'*+-.^_`|~)".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        header(text(value)?).map(Self)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

fn header(name: &str) -> Result<HeaderName, Refusal> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| match name.strip_suffix(':') {
        Some(bare) => Refusal::plain().help(format!("did you mean {bare:?}?")),
        None => Refusal::plain(),
    })
}

/// A header's name in `set` and `remove`: not one that belongs to the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditableHeader(pub HeaderName);

/// RFC 9110 §7.6.1 and RFC 9113 §8.2.2, what decides the body's length (RFC 9112 §6), and `Expect`, which the gateway answers.
const CONNECTION_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Scalar for EditableHeader {
    fn allowed() -> String {
        Header::allowed()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = header(text(value)?)?;
        if CONNECTION_HEADERS.contains(&name.as_str()) {
            let why =
                format!("{name} belongs to the connection (RFC 9110 §7.6.1), and the gateway sets or drops it itself");
            return Err(Refusal::why(why));
        }
        Ok(Self(name))
    }

    fn schema() -> serde_json::Value {
        Header::schema()
    }
}

/// A header's value: visible ASCII, spaces and tabs inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderText(pub HeaderValue);

impl Scalar for HeaderText {
    fn allowed() -> String {
        "a header value: visible ASCII characters, spaces and tabs only between them".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let trimmed = written.trim_matches([' ', '\t']) == written;
        let value = HeaderValue::from_str(written).ok().filter(|value| trimmed && value.as_bytes().is_ascii());
        value.map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// An entry of `include`: a path, whose last part may be a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludePath(pub String);

impl Scalar for IncludePath {
    fn allowed() -> String {
        "a file's path, seen from this file's folder, or a pattern such as \"conf.d/*.toml\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let path = text(value)?;
        if path.is_empty() || path.ends_with('/') || path.chars().any(is_unprintable) {
            return Err(Refusal::plain());
        }
        match path.rsplit_once('/') {
            Some((folder, _)) if folder.contains(['*', '?']) => {
                Err(Refusal::why("only the last part of a path may have * or ? in it"))
            }
            _ => Ok(Self(path.to_owned())),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// The absolute path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl Scalar for FilePath {
    fn allowed() -> String {
        "the absolute path of a file".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let path = text(value)?;
        let is_one = path.starts_with('/') && !path.ends_with('/') && !path.chars().any(is_unprintable);
        if is_one { Ok(Self(PathBuf::from(path))) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/" })
    }
}

/// A name that access logs hide: of a header or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted(pub String);

impl Scalar for Redacted {
    fn allowed() -> String {
        "the name of a header or a query parameter".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = text(value)?;
        let clean = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if clean { Ok(Self(name.to_ascii_lowercase())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX })
    }
}

/// `access_log.path`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTo(pub LogPath);

impl Scalar for LogTo {
    fn allowed() -> String {
        "\"stdout\" or the absolute path of a file".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match text(value)? {
            "stdout" => Ok(Self(LogPath::Stdout)),
            path if path.chars().any(is_unprintable) => Err(Refusal::why("a character of the path cannot be printed")),
            path if path.starts_with('/') && !path.ends_with('/') => Ok(Self(LogPath::File(PathBuf::from(path)))),
            other => Err(Refusal { why: None, help: did_you_mean(other, ["stdout"]) }),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(stdout|/.*[^/])$" })
    }
}

/// `upstream.hash`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash(pub HashKey);

impl Scalar for Hash {
    fn allowed() -> String {
        "one of client_ip, path, capture:NAME, header:NAME, cookie:NAME".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match keyed(text(value)?) {
            ("client_ip", None) => Ok(Self(HashKey::ClientIp)),
            ("path", None) => Ok(Self(HashKey::Path)),
            ("capture", Some(name)) => capture(name).map(|name| Self(HashKey::Capture(name))),
            ("header", Some(name)) => Ok(Self(HashKey::Header(header(name)?))),
            ("cookie", Some(name)) => header(name).map(|_| Self(HashKey::Cookie(name.to_owned()))),
            (word, name) => Err(refused_key(word, name, &["client_ip", "path"], &["capture", "header", "cookie"])),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(client_ip|path|(capture|header|cookie):.+)$" })
    }
}

/// `word` or `word:name`
pub(super) fn keyed(written: &str) -> (&str, Option<&str>) {
    written.split_once(':').map_or((written, None), |(word, name)| (word, Some(name)))
}

/// What stands in the braces of a path's placeholder, or the name or number of a regex's group.
pub(super) fn capture(name: &str) -> Result<String, Refusal> {
    if (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Ok(name.to_owned());
    }
    let bare = name.trim_matches(['{', '}']);
    let help = (bare != name && !bare.is_empty()).then(|| format!("without braces: \"capture:{bare}\""));
    Err(Refusal { why: Some(format!("{name:?} is no name or number of a capture")), help })
}

pub(super) fn refused_key(word: &str, name: Option<&str>, bare: &[&str], named: &[&str]) -> Refusal {
    if name.is_none() && named.contains(&word) {
        return Refusal::why(format!("the {word}'s name is missing")).help(format!("write \"{word}:NAME\""));
    }
    let near = nearest(word, bare.iter().chain(named).copied());
    let help = near.map(|near| match name {
        Some(name) if named.contains(&near) => format!("did you mean \"{near}:{name}\"?"),
        _ => format!("did you mean {near:?}?"),
    });
    Refusal { why: None, help }
}

/// `health_check.expect`: a status or an inclusive range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect(pub u16, pub u16);

impl Scalar for Expect {
    fn allowed() -> String {
        "a status from 200 to 599 or a range of them, such as \"200\" or \"200-399\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let Some(status) = integer(value) {
            return Err(Refusal::plain().help(format!("with quotes: \"{status}\"")));
        }
        let written = text(value)?;
        let (low, high) = written.split_once('-').unwrap_or((written, written));
        let (low, high) = status_code(low).zip(status_code(high)).ok_or_else(Refusal::plain)?;
        if low <= high { Ok(Self(low, high)) } else { Err(Refusal::why("the range is empty")) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[2-5][0-9][0-9](-[2-5][0-9][0-9])?$" })
    }
}

/// Three digits, 200 to 599.
pub(super) fn status_code(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| text.len() == 3 && (200..=599).contains(status))
}

scalar_schema!(
    Name,
    Workers,
    Cores,
    MethodText,
    Header,
    EditableHeader,
    HeaderText,
    FilePath,
    IncludePath,
    Redacted,
    LogTo,
    Hash,
    Expect,
);

#[cfg(test)]
mod tests {
    use super::super::retry_word::RetryWord;
    use super::*;
    use crate::config::values::tests::{accepts, accepts_values, refuses, refuses_values};

    #[test]
    fn names_are_printable_and_need_no_escapes() {
        accepts::<Name>(&["a", "api.example.com/orders/*", "with space", &"n".repeat(NAME_BYTES_MAX)]);
        refuses::<Name>(&["", "-", " a", "a ", "a\"b", "a\\b", "a\nb", "\u{e9}", &"n".repeat(NAME_BYTES_MAX + 1)]);
    }

    #[test]
    fn workers_and_cores_are_auto_or_numbers() {
        accepts_values::<Workers>(&["\"auto\"", "1", "512"]);
        refuses_values::<Workers>(&["0", "513", "\"4\"", "\"all\"", "-1", "1.5"]);
        accepts_values::<Cores>(&["\"auto\"", "[0]", "[0, 2, 4]"]);
        refuses_values::<Cores>(&["[]", "[0, 0]", "[-1]", "0", "\"0\"", "[\"0\"]"]);
    }

    #[test]
    fn methods_are_tokens_in_upper_case() {
        accepts::<MethodText>(&["GET", "PROPFIND", "M-SEARCH"]);
        refuses::<MethodText>(&["", "get", "G T", "CONNECT", &"M".repeat(METHOD_BYTES_MAX + 1)]);
    }

    #[test]
    fn headers_of_the_connection_cannot_be_edited() {
        accepts::<EditableHeader>(&["x-a", "Host", "proxy-authorization", "server"]);
        refuses::<EditableHeader>(CONNECTION_HEADERS);
        refuses::<EditableHeader>(&["", "a b", "a:", "TE", "Transfer-Encoding"]);
        accepts::<HeaderText>(&["", "a", "a b\tc"]);
        refuses::<HeaderText>(&["a\nb", "a\rb", " a", "a\t", "\u{e9}", "a\0"]);
    }

    #[test]
    fn keys_that_name_something_have_a_name() {
        accepts::<Hash>(&["client_ip", "path", "header:x", "cookie:Session"]);
        refuses::<Hash>(&["", "cookie", "cookie:a=b", "cookie:a;b", "client_ip:x"]);
    }

    #[test]
    fn statuses_are_ranges_that_are_not_empty() {
        accepts::<Expect>(&["200", "200-399", "599", "204-204"]);
        refuses::<Expect>(&["", "199", "600", "399-200", "200-", "2xx", "200-299-300", "0200", "+20"]);
        accepts::<RetryWord>(&["connect", "reset", "timeout", "400", "599", "unavailable", "deadline-exceeded"]);
        refuses::<RetryWord>(&["", "5xx", "399", "600", "Connect", "0502", "ok", "14", "Unavailable"]);
    }

    #[test]
    fn logs_go_to_stdout_or_an_absolute_file() {
        accepts::<LogTo>(&["stdout", "/var/log/a.log"]);
        refuses::<LogTo>(&["", "a.log", "stderr", "/var/log/"]);
    }
}
