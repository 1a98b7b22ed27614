//! Values that are made anew for each request: `"{client_ip}"`, `"{tls.client.subject}"`.
//!
//! They are taken apart once, when the configuration is read, so that a request only looks things up. What is no variable is an error and not a
//! text: whoever writes `$remote_addr` out of habit must not learn from his service's log that it went out as it stands.

use super::HeaderRules;
use super::captures::Captures;
use super::names::EditableHeader;
use super::place::KeyOf;
use super::problem::{Refusal, Sink, did_you_mean};
use super::read::Written;
use super::secret::SecretText;
use http::HeaderName;
use std::fmt;

/// A part of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfClient {
    /// Its subject, as RFC 4514 writes it.
    Subject,
    /// Its alternative names: `DNS:a.example,URI:spiffe://a/b`.
    Names,
    /// SHA-256 of its public key (SPKI), in hexadecimal.
    KeyHash,
    /// SHA-256 of all of it, in hexadecimal.
    Hash,
}

/// What is put into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The client's address, after `trusted_proxies`.
    ClientIp,
    /// The host that the request is for: in lower case, without port.
    Host,
    /// The path in its one spelling, before a rewrite.
    Path,
    /// What stands behind `?`, as it was sent.
    Query,
    /// The path, and the query behind its `?` if there is one.
    PathAndQuery,
    /// `http` or `https`: what the client speaks with this gateway.
    Scheme,
    /// The method.
    Method,
    /// The listener's name.
    Listener,
    /// The route's name.
    Route,
    /// Who was recognised.
    Consumer,
    /// The request's id: the client's if it has a fit one, else the gateway's.
    RequestId,
    /// A claim of the token that was shown, if a header can say it.
    Claim(String),
    /// The first field of this name, as the client sent it.
    Header(HeaderName),
    /// The value of this cookie, as the client sent it.
    Cookie(String),
    /// Of the client's certificate, which the gateway has verified.
    Certificate(OfClient),
    /// What the route's path has found under this name or number.
    Capture(String),
}

/// Variables without a name of their own.
const PLAIN: [(&str, Variable); 15] = [
    ("client_ip", Variable::ClientIp),
    ("host", Variable::Host),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("path_and_query", Variable::PathAndQuery),
    ("scheme", Variable::Scheme),
    ("method", Variable::Method),
    ("listener", Variable::Listener),
    ("route", Variable::Route),
    ("consumer", Variable::Consumer),
    ("request_id", Variable::RequestId),
    ("tls.client.subject", Variable::Certificate(OfClient::Subject)),
    ("tls.client.san", Variable::Certificate(OfClient::Names)),
    ("tls.client.spki", Variable::Certificate(OfClient::KeyHash)),
    ("tls.client.hash", Variable::Certificate(OfClient::Hash)),
];

/// Those with one, as they are listed.
const NAMED: [&str; 3] = ["claim.NAME", "header.NAME", "cookie.NAME"];

/// What others call it, without their marks, and what it is here.
const FOREIGN: [(&str, &str); 31] = [
    ("remote_addr", "client_ip"),
    ("realip_remote_addr", "client_ip"),
    ("proxy_add_x_forwarded_for", "client_ip"),
    ("remote_ip", "client_ip"),
    ("http.request.remote.host", "client_ip"),
    ("http.request.remote", "client_ip"),
    ("remote_host", "client_ip"),
    ("src", "client_ip"),
    ("DOWNSTREAM_REMOTE_ADDRESS", "client_ip"),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "client_ip"),
    ("http_host", "host"),
    ("server_name", "host"),
    ("http.request.host", "host"),
    ("http.request.hostport", "host"),
    ("hdr(host)", "host"),
    ("req.hdr(host)", "host"),
    ("uri", "path"),
    ("document_uri", "path"),
    ("http.request.uri.path", "path"),
    ("request_uri", "path_and_query"),
    ("http.request.uri", "path_and_query"),
    ("uri_path", "path"),
    ("args", "query"),
    ("query_string", "query"),
    ("http.request.uri.query", "query"),
    ("http.request.scheme", "scheme"),
    ("request_method", "method"),
    ("http.request.method", "method"),
    ("remote_user", "consumer"),
    ("ssl_client_s_dn", "tls.client.subject"),
    ("REQ(X-REQUEST-ID)", "request_id"),
];

impl Variable {
    /// The one of this name, which stands in braces, where the route's paths have these captures.
    pub(super) fn of(word: &str, captures: Option<&Captures>) -> Result<Self, Refusal> {
        if captures.is_some_and(|captures| captures.has(word)) {
            return Ok(Self::Capture(word.to_owned()));
        }
        if let Some((_, variable)) = PLAIN.iter().find(|(name, _)| *name == word) {
            return Ok(variable.clone());
        }
        match word.split_once('.') {
            Some(("claim", name)) if !name.is_empty() => return Ok(Self::Claim(name.to_owned())),
            Some(("header", name)) => {
                let name = name.parse().map_err(|_| Refusal::why(format!("{name:?} is no name of a header")));
                return name.map(Self::Header);
            }
            Some(("cookie", name)) if !name.is_empty() => return Ok(Self::Cookie(name.to_owned())),
            _ => {}
        }
        Err(unknown(&format!("{{{word}}}"), word, captures))
    }

    /// What stands in the braces.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Capture(name) => name.clone(),
            Self::Claim(name) => format!("claim.{name}"),
            Self::Header(name) => format!("header.{name}"),
            Self::Cookie(name) => format!("cookie.{name}"),
            plain => PLAIN.iter().find(|(_, variable)| variable == plain).map_or("", |(name, _)| name).to_owned(),
        }
    }
}

/// Whether a variable without a name of its own is called so.
pub(super) fn is_plain(name: &str) -> bool {
    PLAIN.iter().any(|(known, _)| *known == name)
}

/// Why `written`, which is called `word` without its marks, stands for nothing.
fn unknown(written: &str, word: &str, captures: Option<&Captures>) -> Refusal {
    let known = PLAIN.iter().map(|(name, _)| *name);
    let captured = captures.map(Captures::names).unwrap_or_default();
    let captured = captured.iter().map(String::as_str);
    let listed: Vec<_> = captured.clone().chain(known.clone()).chain(NAMED).map(|name| format!("{{{name}}}")).collect();
    let refusal = Refusal::why(format!("{written} stands for nothing; there are {}", listed.join(", ")));
    let ours =
        FOREIGN.iter().find(|(foreign, _)| foreign.eq_ignore_ascii_case(word)).map(|(_, ours)| (*ours).to_owned());
    let ours = ours.or_else(|| {
        // $http_x_tenant, $cookie_theme
        let (kind, name) = word.split_once('_')?;
        let kind = [("http", "header"), ("cookie", "cookie")].into_iter().find(|(foreign, _)| *foreign == kind)?.1;
        Some(format!("{kind}.{}", if kind == "header" { name.replace('_', "-") } else { name.to_owned() }))
    });
    match ours.or_else(|| known.clone().find(|name| *name == word).map(str::to_owned)) {
        Some(ours) => refusal.help(format!("that is {{{ours}}} here")),
        None => refusal.help(
            did_you_mean(word, captured.chain(known))
                .unwrap_or_else(|| "write $$ for $, and {{ for { before a name".to_owned()),
        ),
    }
}

/// A piece of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands in the file.
    Text(String),
    /// What is put in.
    Variable(Variable),
}

/// A value with at least one variable in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// What a value begins with.
enum Next<'w> {
    /// Text, so many bytes of it.
    Text(usize),
    /// A text that is written otherwise, and the bytes that it takes.
    Escaped(&'static str, usize),
    /// A name in braces.
    Name(&'w str),
    /// What another gateway would put something in for, and what that calls it.
    Foreign(&'w str, &'w str),
}

impl Template {
    /// `None`: there is no variable in it, and it stands for itself. Braces that hold no name are text, as JSON has them; `{{` before a name is a
    /// brace, `$$` before one a dollar.
    ///
    /// # Errors
    /// Something in it looks as if something were to be put in, and is no variable.
    pub(super) fn parse(written: &str, captures: Option<&Captures>) -> Result<Option<Self>, Refusal> {
        let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), written);
        let flush = |text: &mut String, pieces: &mut Vec<Piece>| {
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(text)));
            }
        };
        while !rest.is_empty() {
            let taken = match next(rest) {
                Next::Text(taken) => {
                    text.push_str(&rest[..taken]);
                    taken
                }
                Next::Escaped(meant, taken) => {
                    text.push_str(meant);
                    taken
                }
                Next::Foreign(written, word) => return Err(unknown(written, word, captures)),
                Next::Name(word) => {
                    flush(&mut text, &mut pieces);
                    pieces.push(Piece::Variable(Variable::of(word, captures)?));
                    word.len() + 2
                }
            };
            rest = &rest[taken..];
        }
        flush(&mut text, &mut pieces);
        let is_itself = match &pieces[..] {
            [] => true,
            [Piece::Text(text)] => text == written,
            _ => false,
        };
        Ok((!is_itself).then_some(Self(pieces)))
    }
}

fn next(rest: &str) -> Next<'_> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let begins = |text: &str| text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let length = |text: &str| text.bytes().take_while(|b| is_name(*b)).count();
    let special = |at: usize| rest[at..].find(['{', '$', '%']).map_or(rest.len(), |found| at + found);
    match rest.as_bytes()[0] {
        b'{' if rest.starts_with("{{") && begins(&rest[2..]) => Next::Escaped("{", 2),
        b'{' if begins(&rest[1..]) || rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => {
            let length = length(&rest[1..]);
            match rest.as_bytes().get(1 + length) {
                Some(b'}') => Next::Name(&rest[1..1 + length]),
                _ => Next::Text(special(1)),
            }
        }
        b'$' if rest.starts_with("$$") => Next::Escaped("$", 2),
        b'$' if begins(&rest[1..]) || rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => {
            let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
            let length = rest[1..].bytes().take_while(is_word).count();
            Next::Foreign(&rest[..1 + length], &rest[1..1 + length])
        }
        b'%' if rest.starts_with("%[") => {
            let end = rest.find(']').unwrap_or(rest.len() - 1);
            Next::Foreign(&rest[..=end], rest[2..=end].trim_end_matches(']'))
        }
        b'%' => {
            // %REQ(X-NAME)%
            let end = rest[1..].find('%').map_or(0, |end| end + 1);
            let word = rest.get(1..end).unwrap_or_default();
            let is_command = |b: u8| b.is_ascii_uppercase() || b == b'_';
            let named = word.split('(').next().unwrap_or_default();
            match named.len() > 2 && named.bytes().all(is_command) {
                true => Next::Foreign(&rest[..=end], word),
                false => Next::Text(special(1)),
            }
        }
        b'{' | b'$' => Next::Text(special(1)),
        _ => Next::Text(special(0)),
    }
}

impl HeaderRules {
    /// Sets a header to what the file says: a text, or one that is made for each request.
    pub(super) fn add(
        &mut self,
        (name, value): (&Written<EditableHeader>, &Written<SecretText>),
        (key, captures): (KeyOf<'_>, Option<&Captures>),
        sink: &mut Sink<'_>,
    ) {
        let (name, SecretText(text)) = (name.value.0.clone(), &value.value);
        let written = text.to_str().ok().filter(|_| !text.is_sensitive()).unwrap_or_default();
        if text.is_empty() && name != http::header::HOST {
            self.remove.push(name); // as nginx and others read it
            return;
        }
        let has_variables = |template: &Template| template.0.iter().any(|it| matches!(it, Piece::Variable(_)));
        let parsed = Template::parse(written, captures).and_then(|parsed| match parsed {
            Some(template) if name == http::header::HOST && has_variables(&template) => {
                Err(Refusal::why("Host is one text, or what the client has sent, which it is without a rule"))
            }
            None if text.is_empty() => Err(Refusal::why("a request has a Host (RFC 9112 §3.2)")),
            parsed => Ok(parsed),
        });
        match parsed {
            Ok(Some(template)) => match &template.0[..] {
                [Piece::Text(text)] => self.set.extend(text.parse().ok().map(|text| (name, text))),
                _ => self.templates.push((name, template)),
            },
            Ok(None) => self.set.push((name, text.clone())),
            Err(Refusal { why, help }) => {
                sink.value(format!("{key}.{name}"), value.span.clone(), why.unwrap_or_default(), help);
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Variable(variable) => write!(f, "{{{}}}", variable.name()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_name_stands_for_itself() {
        for written in [
            "",
            "plain",
            "{}",
            "{\"a\": 1}",
            "{\"a\":{\"b\":1}}",
            "{host",
            "{ host }",
            "50%",
            "a%20b",
            "$",
            "5 $",
            "{:x}",
            "é{",
        ] {
            assert_eq!(Template::parse(written, None).unwrap(), None, "{written}");
        }
    }

    #[test]
    fn variables_are_found_between_texts() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let of = |variable| Piece::Variable(variable);
        let header = Variable::Header(HeaderName::from_static("x-tenant"));
        for (written, pieces) in [
            ("{tls.client.subject}", vec![of(Variable::Certificate(OfClient::Subject))]),
            ("a {client_ip}{host} b", vec![text("a "), of(Variable::ClientIp), of(Variable::Host), text(" b")]),
            ("{}{path_and_query}", vec![text("{}"), of(Variable::PathAndQuery)]),
            ("{header.x-tenant}", vec![of(header.clone())]),
            ("{claim.https://a}", vec![text("{claim.https://a}")]),
            ("{claim.realm.roles}", vec![of(Variable::Claim("realm.roles".into()))]),
            ("{cookie.theme};", vec![of(Variable::Cookie("theme".into())), text(";")]),
        ] {
            let parsed = Template::parse(written, None).unwrap();
            let parsed = parsed.unwrap_or_else(|| Template(vec![text(written)]));
            assert_eq!((parsed.to_string().as_str(), &parsed.0), (written, &pieces));
        }
        for (written, meant) in [("{{host}", "{host}"), ("$$1", "$1"), ("a$$", "a$"), ("{{a}{{b}", "{a}{b}")] {
            assert_eq!(Template::parse(written, None).unwrap(), Some(Template(vec![text(meant)])), "{written}");
        }
    }

    #[test]
    fn what_others_write_is_refused_and_named() {
        for (written, help) in [
            ("{tls.client.sans}", "tls.client.san"),
            ("{clientip}", "client_ip"),
            ("$remote_addr", "{client_ip}"),
            ("a$host:8080", "{host}"),
            ("$http_x_tenant", "{header.x-tenant}"),
            ("$cookie_theme", "{cookie.theme}"),
            ("%[src]", "{client_ip}"),
            ("%[req.hdr(host)]", "{host}"),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "{client_ip}"),
            ("{http.request.host}", "{host}"),
            ("{remote_host}", "{client_ip}"),
        ] {
            let refused = Template::parse(written, None).unwrap_err();
            assert!(refused.help.as_ref().is_some_and(|said| said.contains(help)), "{written}: {refused:?}");
            assert!(refused.why.unwrap().contains("{client_ip}"));
        }
        for written in ["$1", "{1}", "{id}", "$anything", "%[path,lower]", "%REQ(X-A)%", "{header.}", "{claim.}"] {
            assert!(Template::parse(written, None).is_err(), "{written}");
        }
    }
}
