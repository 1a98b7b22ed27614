//! The part of structured fields (RFC 8941) that signatures are written in, read strictly and within bounds.
//!
//! What is read is written out anew as RFC 8941 §4.1 has it, because that is what was signed: blanks and spellings that are allowed beside the one
//! do no harm. Where the RFC lets the last of two decide (labels, parameters), both are refused here, because two readers might take different
//! ones. Kinds of values that no parameter of signatures has (decimals, dates, bytes) are refused too. Nothing here is copied but what goes out.

use crate::limits::{SIGNATURE_COMPONENTS_MAX, SIGNATURE_FIELD_BYTES_MAX, SIGNATURE_LABELS_MAX};

/// A text that is read from its front.
pub(super) struct Cursor<'m>(&'m str);

/// It is not written as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A component that is covered, by its name and the parameter that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Component<'m> {
    pub(super) name: &'m str,
    pub(super) parameter: Parameter<'m>,
}

/// What stands behind a component's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter<'m> {
    None,
    /// `;name="…"`
    Name(&'m str),
    /// Anything else.
    Other,
}

/// One signature's input: what it covers, and its own parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Input<'m> {
    pub(super) label: &'m str,
    pub(super) components: Vec<Component<'m>>,
    /// What `@signature-params` is: all of it, as it is written out.
    pub(super) params: Vec<u8>,
    pub(super) created: Option<i64>,
    pub(super) expires: Option<i64>,
    /// Strings as they are written, escapes included, which have one spelling.
    pub(super) nonce: Option<&'m str>,
    pub(super) alg: Option<&'m str>,
    pub(super) keyid: Option<&'m str>,
    pub(super) tag: Option<&'m str>,
}

/// A value without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bare<'m> {
    Integer(i64),
    String(&'m str),
    Token(&'m str),
    True,
    False,
}

impl<'m> Cursor<'m> {
    /// Over one line of a field.
    pub(super) fn new(line: &'m [u8]) -> Result<Self, Malformed> {
        let text = str::from_utf8(line).ok().filter(|text| text.len() <= SIGNATURE_FIELD_BYTES_MAX);
        let is_plain = |text: &&str| text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        Ok(Self(text.filter(is_plain).ok_or(Malformed)?.trim_matches(' ')))
    }

    fn eat(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(char::from(byte));
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.eat(byte) { Ok(()) } else { Err(Malformed) }
    }

    /// As many bytes as are fit.
    fn take(&mut self, is_fit: impl Fn(u8) -> bool) -> &'m str {
        let end = self.0.bytes().position(|byte| !is_fit(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip_spaces(&mut self) {
        self.take(|byte| byte == b' ');
    }

    /// RFC 8941 §3.1.2
    fn key(&mut self) -> Result<&'m str, Malformed> {
        let key = self.take(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'));
        if key.starts_with(|first: char| first.is_ascii_lowercase() || first == '*') { Ok(key) } else { Err(Malformed) }
    }

    /// The next label of a dictionary; `None`: there is no more.
    pub(super) fn label(&mut self, is_first: bool) -> Result<Option<&'m str>, Malformed> {
        if !is_first {
            self.take(|byte| matches!(byte, b' ' | b'\t'));
            if self.0.is_empty() {
                return Ok(None);
            }
            self.expect(b',')?;
            self.take(|byte| matches!(byte, b' ' | b'\t'));
        } else if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.key()?;
        self.expect(b'=')?;
        Ok(Some(key))
    }

    /// Base64 between colons (RFC 8941 §3.3.5), undecoded.
    pub(super) fn bytes(&mut self) -> Result<&'m str, Malformed> {
        self.expect(b':')?;
        let bytes = self.take(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
        self.expect(b':')?;
        Ok(bytes)
    }

    /// A string as it is written (RFC 8941 §3.3.3), without its quotes.
    fn string(&mut self) -> Result<&'m str, Malformed> {
        self.expect(b'"')?;
        let (text, mut at) = (self.0, 0);
        loop {
            match text.as_bytes().get(at).ok_or(Malformed)? {
                b'"' => break,
                b'\\' if matches!(text.as_bytes().get(at + 1), Some(b'"' | b'\\')) => at += 2,
                b'\\' | b'\t' => return Err(Malformed),
                _ => at += 1,
            }
        }
        self.0 = &text[at + 1..];
        Ok(&text[..at])
    }

    fn bare(&mut self) -> Result<Bare<'m>, Malformed> {
        match self.0.as_bytes().first().ok_or(Malformed)? {
            b'"' => self.string().map(Bare::String),
            b'-' | b'0'..=b'9' => {
                let digits = self.take(|byte| byte == b'-' || byte.is_ascii_digit());
                // RFC 8941 §3.3.1: 15 digits; a decimal goes on with its point, and what goes on is refused behind
                let is_one = (1..=15).contains(&digits.trim_start_matches('-').len());
                digits.parse().ok().filter(|_| is_one).map(Bare::Integer).ok_or(Malformed)
            }
            b'?' => {
                self.expect(b'?')?;
                if self.eat(b'1') { Ok(Bare::True) } else { self.expect(b'0').map(|()| Bare::False) }
            }
            first if first.is_ascii_alphabetic() || *first == b'*' => {
                let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b":/!#$%&'*+-.^_`|~".contains(&byte);
                Ok(Bare::Token(self.take(is_token)))
            }
            _ => Err(Malformed),
        }
    }

    /// The next parameter; `None`: there is no more.
    fn parameter(&mut self) -> Result<Option<(&'m str, Bare<'m>)>, Malformed> {
        if !self.eat(b';') {
            return Ok(None);
        }
        self.skip_spaces();
        let key = self.key()?;
        let value = if self.eat(b'=') { self.bare()? } else { Bare::True };
        Ok(Some((key, value)))
    }

    fn component(&mut self) -> Result<Component<'m>, Malformed> {
        let name = self.string()?;
        let mut parameter = Parameter::None;
        while let Some((key, value)) = self.parameter()? {
            parameter = match (parameter, key, value) {
                (Parameter::None, "name", Bare::String(name)) => Parameter::Name(name),
                _ => Parameter::Other,
            };
        }
        Ok(Component { name, parameter })
    }

    fn input(&mut self, label: &'m str) -> Result<Input<'m>, Malformed> {
        let mut input = Input { label, ..Input::default() };
        self.expect(b'(')?;
        self.skip_spaces();
        while !self.eat(b')') {
            let component = self.component()?;
            // those with other parameters are not told apart here, and refused where they are asked for; they may be for somebody else
            let is_twice = component.parameter != Parameter::Other && input.components.contains(&component);
            if input.components.len() >= SIGNATURE_COMPONENTS_MAX || is_twice {
                return Err(Malformed);
            }
            input.components.push(component);
            match self.0.as_bytes().first() {
                Some(b' ') => self.skip_spaces(),
                Some(b')') => {}
                _ => return Err(Malformed),
            }
        }
        input.write_components();
        let mut seen: Vec<&str> = Vec::new();
        while let Some((key, value)) = self.parameter()? {
            if seen.contains(&key) || seen.len() >= SIGNATURE_COMPONENTS_MAX {
                return Err(Malformed);
            }
            seen.push(key);
            input.take(key, value)?;
        }
        Ok(input)
    }
}

impl<'m> Input<'m> {
    fn write_components(&mut self) {
        self.params.push(b'(');
        for (row, component) in self.components.iter().enumerate() {
            if row > 0 {
                self.params.push(b' ');
            }
            component.write(&mut self.params);
        }
        self.params.push(b')');
    }

    /// A parameter of the signature's own, which is written out too. Those that are not known are signed all the same.
    fn take(&mut self, key: &'m str, value: Bare<'m>) -> Result<(), Malformed> {
        match (key, value) {
            ("created", Bare::Integer(at)) => self.created = Some(at),
            ("expires", Bare::Integer(at)) => self.expires = Some(at),
            ("nonce", Bare::String(text)) => self.nonce = Some(text),
            ("alg", Bare::String(text)) => self.alg = Some(text),
            ("keyid", Bare::String(text)) => self.keyid = Some(text),
            ("tag", Bare::String(text)) => self.tag = Some(text),
            ("created" | "expires" | "nonce" | "alg" | "keyid" | "tag", _) => return Err(Malformed),
            _ => {}
        }
        let out = &mut self.params;
        out.push(b';');
        out.extend_from_slice(key.as_bytes());
        match value {
            Bare::Integer(number) => out.extend_from_slice(format!("={number}").as_bytes()),
            Bare::String(text) => [b"=\"", text.as_bytes(), b"\""].iter().for_each(|part| out.extend_from_slice(part)),
            Bare::Token(text) => [b"=", text.as_bytes()].iter().for_each(|part| out.extend_from_slice(part)),
            Bare::True => {}
            Bare::False => out.extend_from_slice(b"=?0"),
        }
        Ok(())
    }
}

impl Component<'_> {
    /// Its identifier as the signature base has it (RFC 9421 §2). Nothing of one with other parameters is ever compared.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        [b"\"", self.name.as_bytes(), b"\""].iter().for_each(|part| out.extend_from_slice(part));
        if let Parameter::Name(name) = self.parameter {
            [b";name=\"", name.as_bytes(), b"\""].iter().for_each(|part| out.extend_from_slice(part));
        }
    }
}

/// `Signature-Input`: what each signature is over. A label stands there once, over all lines.
pub(super) fn inputs<'m>(lines: &[&'m [u8]]) -> Result<Vec<Input<'m>>, Malformed> {
    let mut all: Vec<Input<'m>> = Vec::new();
    for line in lines {
        let (mut cursor, mut is_first) = (Cursor::new(line)?, true);
        while let Some(label) = cursor.label(is_first)? {
            is_first = false;
            if all.len() >= SIGNATURE_LABELS_MAX || all.iter().any(|other| other.label == label) {
                return Err(Malformed);
            }
            all.push(cursor.input(label)?);
        }
    }
    Ok(all)
}

/// Bytes by their labels, undecoded: `Signature`, `Content-Digest`. A label stands there once, over all lines.
pub(super) fn byte_members<'m>(lines: &[&'m [u8]]) -> Result<Vec<(&'m str, &'m str)>, Malformed> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for line in lines {
        let (mut cursor, mut is_first) = (Cursor::new(line)?, true);
        while let Some(label) = cursor.label(is_first)? {
            is_first = false;
            if all.len() >= SIGNATURE_LABELS_MAX || all.iter().any(|(other, _)| *other == label) {
                return Err(Malformed);
            }
            all.push((label, cursor.bytes()?));
        }
    }
    Ok(all)
}
