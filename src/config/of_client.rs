//! Values of headers that say who the client is by its certificate: `"{tls.client.subject}"`.

use super::HeaderRules;
use super::names::EditableHeader;
use super::place::KeyOf;
use super::problem::{Refusal, Sink, did_you_mean};
use super::read::Written;
use super::secret::SecretText;
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

impl OfClient {
    const ALL: [(Self, &str); 4] = [
        (Self::Subject, "tls.client.subject"),
        (Self::Names, "tls.client.san"),
        (Self::KeyHash, "tls.client.spki"),
        (Self::Hash, "tls.client.hash"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(part, _)| *part == self).map_or("", |(_, word)| word)
    }
}

/// A piece of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands in the file.
    Text(String),
    /// Of the client's certificate.
    Client(OfClient),
}

/// A value with at least one part of a client's certificate in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientText(pub Vec<Piece>);

impl ClientText {
    /// `None`: there is no such part in it. Other braces are text.
    ///
    /// # Errors
    /// There is no such part of a certificate.
    pub(super) fn parse(written: &str) -> Result<Option<Self>, Refusal> {
        let (mut pieces, mut rest) = (Vec::new(), written);
        while let Some(at) = rest.find("{tls.") {
            let Some(end) = rest[at..].find('}') else { break };
            let word = &rest[at + 1..at + end];
            let known = OfClient::ALL.into_iter().find(|(_, known)| *known == word);
            let Some((part, _)) = known else {
                let known = OfClient::ALL.map(|(_, word)| word);
                let why = format!("there is no {{{word}}}; there are {{{}}}", known.join("}, {"));
                let refusal = Refusal::why(why);
                return Err(did_you_mean(word, known).into_iter().fold(refusal, Refusal::help));
            };
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            pieces.push(Piece::Client(part));
            rest = &rest[at + end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let is_one = pieces.iter().any(|piece| matches!(piece, Piece::Client(_)));
        Ok(is_one.then_some(Self(pieces)))
    }
}

impl HeaderRules {
    /// Sets a header to what the file says: a text, or something of the client's certificate, of which responses know nothing.
    pub(super) fn add(
        &mut self,
        (name, value): (&Written<EditableHeader>, &Written<SecretText>),
        of_request: bool,
        key: KeyOf<'_>,
        sink: &mut Sink<'_>,
    ) {
        let (name, SecretText(text)) = (name.value.0.clone(), &value.value);
        let written = text.to_str().ok().filter(|_| !text.is_sensitive()).unwrap_or_default();
        let parsed = ClientText::parse(written).and_then(|parsed| match parsed {
            Some(_) if !of_request => {
                Err(Refusal::why("a client's certificate is told to services, in request_headers"))
            }
            Some(_) if name == http::header::HOST => Err(Refusal::why("Host is not said by a certificate")),
            parsed => Ok(parsed),
        });
        match parsed {
            Ok(Some(text)) => self.of_client.push((name, text)),
            Ok(None) => self.set.push((name, text.clone())),
            Err(Refusal { why, help }) => {
                sink.value(format!("{key}.{name}"), value.span.clone(), why.unwrap_or_default(), help);
            }
        }
    }
}

impl fmt::Display for ClientText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Client(part) => write!(f, "{{{}}}", part.word()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_certificate_are_found_and_other_braces_are_text() {
        for written in ["", "plain", "{}", "{client_ip}", "{\"a\": 1}", "{tls", "{tls.client.subject"] {
            assert_eq!(ClientText::parse(written).unwrap(), None, "{written}");
        }
        let text = |text: &str| Piece::Text(text.to_owned());
        let (subject, key) = (Piece::Client(OfClient::Subject), Piece::Client(OfClient::KeyHash));
        for (written, pieces) in [
            ("{tls.client.subject}", vec![subject.clone()]),
            ("a {tls.client.subject}{tls.client.spki} b", vec![text("a "), subject, key, text(" b")]),
            ("{x}{tls.client.san}", vec![text("{x}"), Piece::Client(OfClient::Names)]),
        ] {
            let parsed = ClientText::parse(written).unwrap().unwrap();
            assert_eq!((parsed.to_string().as_str(), &parsed.0), (written, &pieces));
        }
        let refused = ClientText::parse("{tls.client.sans}").unwrap_err();
        assert!(refused.why.unwrap().contains("{tls.client.san}"));
    }
}
