//! A request as a signature sees it: its components and their values (RFC 9421 §2), and the base that is signed (§2.5).
//!
//! Values are of the request as its client sent it, before the gateway has put its path into one spelling or added a header. What has two readings
//! has none here: a query parameter that is there twice, a value that is not printable ASCII (which `;bs` would be for).

use super::Disbelief;
use super::structured::{Component, Input, Parameter};
use crate::policy::identity::{decoded, is_named};

/// Gives all values of a header, whose name is in small letters, in their order.
pub type ValuesOf<'m> = &'m dyn Fn(&str) -> Vec<&'m [u8]>;

/// A request.
#[derive(Clone, Copy)]
pub struct Message<'m> {
    /// The method.
    pub method: &'m str,
    /// `http` or `https`, by which the client has come.
    pub scheme: &'m str,
    /// `host[:port]` as it was sent, if it was.
    pub authority: Option<&'m str>,
    /// The target as it was sent; of HTTP/2 `:path`.
    pub target: &'m str,
    /// Whether a body follows, be it empty in the end.
    pub has_body: bool,
    /// Its headers.
    pub values_of: ValuesOf<'m>,
}

impl<'m> Message<'m> {
    /// Path and query of the target.
    fn place(&self) -> (&'m str, Option<&'m str>) {
        let behind_scheme = self.target.split_once("://").filter(|_| !self.target.starts_with('/'));
        let place = match behind_scheme {
            None => self.target,
            Some((_, rest)) => &rest[rest.find(['/', '?']).unwrap_or(rest.len())..],
        };
        let (path, query) = place.split_once('?').map_or((place, None), |(path, query)| (path, Some(query)));
        (if path.is_empty() { "/" } else { path }, query)
    }

    /// RFC 9421 §2.2.3: in small letters, without the scheme's own port.
    fn write_authority(&self, out: &mut Vec<u8>) -> Result<(), Disbelief> {
        let authority = self.authority.filter(|authority| !authority.is_empty()).ok_or(Disbelief::Component)?;
        let port = if self.scheme == "https" { ":443" } else { ":80" };
        let authority = authority.strip_suffix(port).unwrap_or(authority);
        out.extend(authority.bytes().map(|byte| byte.to_ascii_lowercase()));
        Ok(())
    }

    fn write_place(&self, out: &mut Vec<u8>) {
        let (path, query) = self.place();
        out.extend_from_slice(path.as_bytes());
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }

    /// RFC 9421 §2.2.8. `name` is encoded as the signer has done it.
    fn write_parameter(&self, name: &str, out: &mut Vec<u8>) -> Result<(), Disbelief> {
        let plain: Vec<u8> = decoded(name.as_bytes()).collect();
        let plain = str::from_utf8(&plain).map_err(|_| Disbelief::Component)?;
        let mut written = Vec::new();
        encode(plain.bytes(), &mut written);
        let query = self.place().1.filter(|_| written == name.as_bytes()).ok_or(Disbelief::Component)?;
        let mut found = query.split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            is_named(key, plain).then_some(value)
        });
        match (found.next(), found.next()) {
            (Some(value), None) => encode(decoded(value.as_bytes()), out),
            _ => return Err(Disbelief::Component),
        }
        Ok(())
    }

    fn write_field(&self, name: &str, out: &mut Vec<u8>) -> Result<(), Disbelief> {
        let values = (self.values_of)(name);
        let is_plain = |value: &&[u8]| value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if values.is_empty() || !values.iter().all(is_plain) || self.is_nominated(name) {
            return Err(Disbelief::Component);
        }
        for (row, value) in values.iter().enumerate() {
            if row > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(value.trim_ascii());
        }
        Ok(())
    }

    /// Whether a header ends here because `Connection` says so (RFC 9110 §7.6.1): nobody behind would see what was signed, and anybody on the way
    /// could have added that.
    fn is_nominated(&self, name: &str) -> bool {
        let lines = (self.values_of)("connection");
        let mut options = lines.iter().flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        options.any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }

    fn write_value(&self, component: &Component<'_>, out: &mut Vec<u8>) -> Result<(), Disbelief> {
        match (component.name, component.parameter) {
            ("@query-param", Parameter::Name(name)) => return self.write_parameter(name, out),
            (_, Parameter::Name(_) | Parameter::Other) => return Err(Disbelief::Unsupported),
            ("@method", _) => out.extend_from_slice(self.method.as_bytes()),
            ("@scheme", _) => out.extend_from_slice(self.scheme.as_bytes()),
            ("@authority", _) => return self.write_authority(out),
            ("@request-target", _) => out.extend_from_slice(self.target.as_bytes()),
            ("@path", _) => out.extend_from_slice(self.place().0.as_bytes()),
            ("@query", _) => {
                out.push(b'?');
                out.extend_from_slice(self.place().1.unwrap_or_default().as_bytes());
            }
            ("@target-uri", _) => {
                out.extend_from_slice(self.scheme.as_bytes());
                out.extend_from_slice(b"://");
                self.write_authority(out)?;
                self.write_place(out);
            }
            (name, _) if !name.is_empty() && name.bytes().all(is_small_token) => return self.write_field(name, out),
            _ => return Err(Disbelief::Unsupported),
        }
        Ok(())
    }

    /// What `input` is a signature over.
    pub(super) fn write_base(&self, input: &Input<'_>, out: &mut Vec<u8>) -> Result<(), Disbelief> {
        for component in &input.components {
            component.write(out);
            out.extend_from_slice(b": ");
            self.write_value(component, out)?;
            out.push(b'\n');
        }
        out.extend_from_slice(b"\"@signature-params\": ");
        out.extend_from_slice(&input.params);
        Ok(())
    }
}

/// A header's name in small letters (RFC 9110 §5.6.2).
fn is_small_token(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The form encoding's set of bytes that stay (WHATWG URL, application/x-www-form-urlencoded), but a space as `%20`.
fn encode(bytes: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(byte),
            _ => out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
        }
    }
}
