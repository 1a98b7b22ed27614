//! Values that may be secrets and need not stand in the file: `"Bearer ${TOKEN}"`, `{ file = "/run/secrets/token" }`.
//!
//! What came from elsewhere is marked ([`HeaderValue::is_sensitive`]) and shown nowhere; a message repeats what the file says, never what was
//! put in its place. The environment is that of the start; a file is read with each reload, and is one of those that
//! `gateway.watch` looks after.

use super::names::HeaderText;
use super::problem::{Refusal, Sink, is_unprintable};
use super::read::{Node, Read, Scalar};
use super::texts::read_file;
use crate::limits::SECRET_BYTES_MAX;
use http::{HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::borrow::Cow;
use std::path::Path;
use toml::de::DeValue;

/// What the values allow.
const ALLOWED: &str =
    "a header value, in which ${NAME} is a variable of the environment, or { file = \"/run/secrets/x\" }";

/// A header's value, written out or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretText(pub HeaderValue);

impl Read for SecretText {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let read = match node.value {
            DeValue::String(written) => of_text(written, &|name| std::env::var(name).ok()),
            DeValue::Table(_) => of_table(&node, sink),
            _ => Err(Refusal::plain()),
        };
        read.map_err(|refusal| sink.refuse(node.path, node.start, Some(node.span()), ALLOWED.to_owned(), refusal)).ok()
    }
}

impl JsonSchema for SecretText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": { "file": { "type": "string", "pattern": "^/" } },
                "required": ["file"],
                "additionalProperties": false,
            },
        ] })
    }
}

fn of_text(written: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<SecretText, Refusal> {
    let (text, is_secret) = expand(written, variable)?;
    match is_secret {
        false => HeaderText::parse(&DeValue::String(text)).map(|HeaderText(value)| SecretText(value)),
        true => secret(&text, "what the environment says"),
    }
}

/// The text with variables put in, and whether there are any.
pub(super) fn expand<'w>(
    written: &'w str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(Cow<'w, str>, bool), Refusal> {
    if !written.contains("${") {
        return Ok((written.into(), false));
    }
    let (mut text, mut rest, mut is_secret) = (String::new(), written, false);
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            text.push_str(before);
            text.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        text.push_str(&rest[..at]);
        let Some((name, behind)) = rest[at + 2..].split_once('}') else {
            return Err(Refusal::why("${ has no }").help("write $${ for ${ itself"));
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_name) {
            let why = format!("{name:?} is no name of a variable");
            return Err(Refusal::why(why).help("write $${ for ${ itself"));
        }
        let value = variable(name).filter(|value| !value.is_empty());
        text.push_str(&value.ok_or_else(|| Refusal::why(format!("the environment has no {name}, or it is empty")))?);
        (rest, is_secret) = (behind, true);
    }
    text.push_str(rest);
    Ok((text.into(), is_secret))
}

fn of_table(node: &Node<'_>, sink: &Sink<'_>) -> Result<SecretText, Refusal> {
    let table = node.value.as_table().ok_or_else(Refusal::plain)?;
    let path = table.get("file").and_then(|file| file.get_ref().as_str()).filter(|_| table.len() == 1);
    let path = path.ok_or_else(Refusal::plain)?;
    if !path.starts_with('/') || path.chars().any(is_unprintable) {
        return Err(Refusal::why("the path of a secret is absolute"));
    }
    let read = read_file(Path::new(path), SECRET_BYTES_MAX);
    sink.follow(Path::new(path), read.as_ref().ok().map(|(_, stamp)| *stamp));
    let (bytes, _) = read.map_err(|error| Refusal::why(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(Refusal::why(format!("the file has more than {SECRET_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Refusal::why("what the file says is no header value"))?;
    // editors and `echo` end a file with a line
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(Refusal::why("the file is empty"));
    }
    secret(text, "what the file says")
}

/// A value that is not to be shown, not even where it is wrong.
fn secret(text: &str, source: &str) -> Result<SecretText, Refusal> {
    let value = HeaderText::parse(&DeValue::String(text.into()));
    let HeaderText(mut value) = value.map_err(|_| Refusal::why(format!("{source} is no header value")))?;
    value.set_sensitive(true);
    Ok(SecretText(value))
}

/// What a comparison has to know besides what is shown: the secrets among these values. To be compared, and never to be shown.
#[must_use]
pub fn words(headers: &[(HeaderName, HeaderValue)]) -> String {
    let secrets = headers.iter().filter(|(_, value)| value.is_sensitive());
    secrets.map(|(name, value)| format!("{name}={}\n", String::from_utf8_lossy(value.as_bytes()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "TOKEN" => Some("s3cr3t".to_owned()),
            "_A1" => Some("${TOKEN}".to_owned()),
            "EMPTY" => Some(String::new()),
            "LINES" => Some("a\nb".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_put_in_once_and_marked() {
        for (written, expected, is_secret) in [
            ("plain", "plain", false),
            ("Bearer ${TOKEN}", "Bearer s3cr3t", true),
            ("${TOKEN}${TOKEN}!", "s3cr3ts3cr3t!", true),
            ("${_A1}", "${TOKEN}", true),
            ("$${TOKEN} $5 $", "${TOKEN} $5 $", false),
            ("$$${TOKEN}", "$${TOKEN}", false),
            ("{\"a\": 1}", "{\"a\": 1}", false),
        ] {
            let SecretText(value) = of_text(written, &variable).unwrap();
            assert_eq!((value.as_bytes(), value.is_sensitive()), (expected.as_bytes(), is_secret), "{written}");
        }
    }

    #[test]
    fn what_is_refused_says_why_and_tells_no_secret() {
        for (written, why) in [
            ("${NONE}", "the environment has no NONE, or it is empty"),
            ("${EMPTY}", "the environment has no EMPTY, or it is empty"),
            ("${TOKEN", "${ has no }"),
            ("${}", "\"\" is no name of a variable"),
            ("${1A}", "\"1A\" is no name of a variable"),
            ("${A-B}", "\"A-B\" is no name of a variable"),
            ("${LINES}", "what the environment says is no header value"),
        ] {
            assert_eq!(of_text(written, &variable).unwrap_err().why.as_deref(), Some(why), "{written}");
        }
    }

    #[test]
    fn secrets_are_compared_by_what_they_are() {
        let header = |written: &str| (HeaderName::from_static("x"), of_text(written, &variable).unwrap().0);
        assert_eq!(words(&[header("plain")]), "");
        assert_eq!(words(&[header("${TOKEN}")]), "x=s3cr3t\n");
    }
}
