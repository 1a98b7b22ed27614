//! `access_log.fields`: what the log says of a request beyond what it always says.
//!
//! Each value is looked up when the request is planned, or when its endpoint has answered, and escaped by the log's own thread. What must not be
//! written cannot be chosen: names on `access_log.redact`, and where keys stand. A value with parameters in it stands alone in its field, so that
//! those on the list are found in it.

use super::check::value;
use super::file;
use super::names::{LogTo, Redacted};
use super::problem::{Refusal, Sink};
use super::read::{List, Map, Scalar, Written};
use super::tables::{scalar_schema, table};
use super::values::{FormatWord, text};
use super::variables::{Piece, Template, Variable};
use super::{Auth, KeyPlace};
use crate::limits::{ENTRIES_MAX, LOG_CHOSEN_MAX, NAME_BYTES_MAX};
use http::{HeaderName, header};
use serde_json::json;
use std::fmt;
use toml::de::DeValue;

table! {
    /// The access log; without this table there is none.
    AccessLog {
        /// "stdout", or a file's absolute path, which is reopened on SIGUSR1.
        default path: LogTo = "stdout";
        /// "json" or "combined".
        default format: FormatWord = "json";
        /// Names of headers and query parameters whose values are never written.
        default redact: List<Redacted, 0, ENTRIES_MAX> = ["authorization", "cookie"];
        /// More that a line says, by name: { agent = "{header.user-agent}", sub = "{claim.sub}", cache = "{response.x-cache}" }, at most 32. A value
        /// is cut at 1KiB.
        default fields: Map<LogName, LogValue, LOG_CHOSEN_MAX> = {};
    }
}

/// What a line says anyway, in either format: a field of the same name would stand there twice.
pub(crate) const LINE_MEMBERS: [&str; 34] = [
    "time",
    "listener",
    "route",
    "client",
    "consumer",
    "method",
    "host",
    "target",
    "version",
    "status",
    "grpc_status",
    "error",
    "limit",
    "refused_by",
    "fault",
    "rule",
    "request_bytes",
    "response_bytes",
    "duration",
    "duration_ms",
    "upstream",
    "upstream_ms",
    "upstream_time",
    "attempts",
    "endpoints",
    "outcomes",
    "request_id",
    "user_agent",
    "referer",
    "tls_version",
    "tls_cipher",
    "tls_resumed",
    "tls_client",
    "sni",
];

/// A field that the file has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogField {
    /// What it is called in a line.
    pub name: String,
    /// What it says.
    pub value: LogValue,
}

/// What a chosen field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogValue {
    /// Of the request, or of who sends it.
    Request(Template),
    /// The first header of this name that the endpoint has answered with.
    Response(HeaderName),
}

/// Where parameters stand in a value whose names may be on the list of what is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameters {
    Nowhere,
    /// Behind its question mark.
    OfUrl,
    /// Everywhere.
    OfQuery,
}

impl LogValue {
    /// Where parameters stand in it.
    pub(crate) fn parameters(&self) -> Parameters {
        match self {
            Self::Response(name) if *name == header::LOCATION || *name == header::CONTENT_LOCATION => Parameters::OfUrl,
            Self::Response(_) => Parameters::Nowhere,
            Self::Request(Template(pieces)) => match &pieces[..] {
                [Piece::Variable(Variable::Query)] => Parameters::OfQuery,
                [Piece::Variable(variable)] if has_parameters(variable) => Parameters::OfUrl,
                _ => Parameters::Nowhere,
            },
        }
    }
}

fn has_parameters(variable: &Variable) -> bool {
    match variable {
        Variable::Query | Variable::PathAndQuery => true,
        Variable::Header(name) => *name == header::REFERER,
        _ => false,
    }
}

impl fmt::Display for LogValue {
    /// As the file writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(template) => template.fmt(f),
            Self::Response(name) => write!(f, "{{response.{name}}}"),
        }
    }
}

/// The name of a chosen field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName(pub String);

impl Scalar for LogName {
    fn allowed() -> String {
        format!("a name of 1 to {NAME_BYTES_MAX} letters, digits and underscores that begins with no digit")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = text(value)?;
        if LINE_MEMBERS.contains(&name) {
            return Err(Refusal::why(format!("a line says {name} anyway, and would say it twice")));
        }
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.as_bytes()[0].is_ascii_digit();
        let clean = fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if clean { Ok(Self(name.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" })
    }
}

impl Scalar for LogValue {
    fn allowed() -> String {
        "a text with variables, such as \"{header.x-tenant}\" and \"{claim.sub}\", or \"{response.NAME}\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if let Some((before, rest)) = written.split_once("{response.") {
            let Some(name) = rest.strip_suffix('}').filter(|_| before.is_empty()).filter(|name| !name.contains('{'))
            else {
                return Err(Refusal::why("a header of the response stands alone: \"{response.NAME}\""));
            };
            let parsed = name.parse().map(Self::Response);
            return parsed.map_err(|_| Refusal::why(format!("{name:?} is no name of a header")));
        }
        let Some(template) = Template::parse(written, None)? else {
            return Err(Refusal::why("there is no variable in it, so it would be the same in every line"));
        };
        let variables = || {
            template.0.iter().filter_map(|piece| match piece {
                Piece::Variable(variable) => Some(variable),
                Piece::Text(_) => None,
            })
        };
        if variables().next().is_none() {
            return Err(Refusal::why("there is no variable in it, so it would be the same in every line"));
        }
        if template.0.len() > 1 && variables().any(has_parameters) {
            let why = "what has parameters stands alone in its field, so that those on access_log.redact are found";
            return Err(Refusal::why(why));
        }
        Ok(Self::Request(template))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "\\{" })
    }
}

scalar_schema!(LogName, LogValue);

/// The fields that `[access_log]` chooses.
pub(super) fn fields(table: &file::AccessLog) -> Option<Vec<LogField>> {
    let field = |(name, value): &(Written<LogName>, Written<LogValue>)| LogField {
        name: name.value.0.clone(),
        value: value.value.clone(),
    };
    Some(table.fields.as_ref()?.value.0.iter().map(field).collect())
}

/// What is not to be written is not chosen.
pub(super) fn nothing_secret(file: &file::File, auth: &[Auth], sink: &mut Sink<'_>) {
    let Some(table) = file.access_log.as_ref().map(|table| &table.value) else { return };
    let redact = value(&table.redact).map(|list| list.0).unwrap_or_default();
    let is_redacted = |name: &str| redact.iter().any(|redacted| redacted.value.0 == name);
    let places = || auth.iter().flat_map(|way| &way.places);
    for (name, written) in table.fields.iter().flat_map(|map| &map.value.0) {
        let headers: Vec<&HeaderName> = match &written.value {
            LogValue::Response(header) => vec![header],
            LogValue::Request(template) => template.0.iter().filter_map(of_header).collect(),
        };
        let hides = |header: &HeaderName| match *header == header::SET_COOKIE {
            true => is_redacted("set-cookie") || is_redacted("cookie"),
            false => is_redacted(header.as_str()),
        };
        let is_key = |place: &KeyPlace| match (place, &written.value) {
            (KeyPlace::Header(name, _), LogValue::Request(_)) => headers.contains(&name),
            (KeyPlace::Cookie(name), LogValue::Request(template)) => template.0.contains(&of_cookie(name)),
            _ => false,
        };
        let message = match headers.iter().find(|header| hides(header)) {
            Some(header) => format!("{header} is not to be written, by access_log.redact"),
            None if places().any(is_key) => "keys stand there (auth), which are not written".to_owned(),
            None => continue,
        };
        sink.value(format!("{}.{}", table.at.key("fields"), name.value.0), written.span.clone(), message, None);
    }
}

fn of_header(piece: &Piece) -> Option<&HeaderName> {
    match piece {
        Piece::Variable(Variable::Header(name)) => Some(name),
        _ => None,
    }
}

fn of_cookie(name: &str) -> Piece {
    Piece::Variable(Variable::Cookie(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::check::parse;

    /// What is wrong with a file whose `[access_log]` has these lines.
    fn errors(log: &str, more: &str) -> String {
        let text =
            format!("[access_log]\n{log}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\n{more}");
        parse(&text, "a.toml").map_or_else(|errors| errors.to_string(), |_| String::new())
    }

    #[test]
    fn fields_are_variables_and_headers_of_the_response() {
        let all = "fields = { agent = \"{header.user-agent}\", sub = \"{claim.sub}/{client_ip}\", cache = \"{response.x-cache}\", q = \"{query}\" }";
        assert_eq!(errors(all, ""), "");
        for (value, why) in [
            ("\"plain\"", "there is no variable in it"),
            ("\"{{host}\"", "there is no variable in it"),
            ("\"{hosst}\"", "did you mean \"host\"?"),
            ("\"$http_x_tenant\"", "that is {header.x-tenant} here"),
            ("\"{1}\"", "stands for nothing"),
            ("\"a {response.x-cache}\"", "a header of the response stands alone"),
            ("\"{response.x-cache}{host}\"", "a header of the response stands alone"),
            ("\"{response. }\"", "is no name of a header"),
            ("\"a {query}\"", "stands alone in its field"),
            ("\"{path_and_query}{host}\"", "stands alone in its field"),
            ("7", "must be a text with variables"),
        ] {
            let errors = errors(&format!("fields = {{ a = {value} }}"), "");
            assert!(errors.contains("access_log.fields.a") && errors.contains(why), "{value}: {errors}");
        }
        for (name, why) in
            [("status", "a line says status anyway"), ("\"a b\"", "must be a name"), ("9a", "must be a name")]
        {
            let errors = errors(&format!("fields = {{ {name} = \"{{host}}\" }}"), "");
            assert!(errors.contains(why), "{name}: {errors}");
        }
    }

    #[test]
    fn what_is_not_to_be_written_cannot_be_chosen() {
        let keys = "[auth.api_key]\nheader = \"x-key\"\ncookie = \"key\"\n";
        for (value, why) in [
            ("{header.Authorization}", "authorization is not to be written"),
            ("a {header.cookie}", "cookie is not to be written"),
            ("{response.set-cookie}", "set-cookie is not to be written"),
            ("{header.x-key}", "keys stand there"),
            ("{cookie.key}", "keys stand there"),
        ] {
            let errors = errors(&format!("fields = {{ a = \"{value}\" }}"), keys);
            assert!(errors.contains("access_log.fields.a") && errors.contains(why), "{value}: {errors}");
        }
        let fine =
            "redact = []\nfields = { a = \"{response.x-key}\", b = \"{cookie.theme}\", c = \"{response.set-cookie}\" }";
        assert_eq!(errors(fine, keys), "");
    }
}
