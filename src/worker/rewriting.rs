//! What goes up in place of a request's path and query, where captures or variables say so.
//!
//! A client has a say in what is put in, so what comes out is looked at as a path that a client sends is: it must be in its one spelling, without
//! dot segments, separators in disguise, `?` and `#`. It is looked at when the request is planned, and made again for the endpoint.

use super::state::Scratch;
use super::variables::Known;
use crate::config::{PathPiece, Piece, QueryRules, Route, Separators, Template, Variable};
use crate::http::path::{EmptySegments, EncodedSeparators, normalize};
use crate::http::reply::single_slash;
use crate::policy::router::{edit_query, push_encoded, rest_of};

impl Known<'_> {
    /// Appends the path that these pieces make; `None`: one of them is not there, or has a separator in it.
    pub(super) fn push_path(&self, (route, pieces): (&Route, &[PathPiece]), out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        for piece in pieces {
            let from = out.len();
            match piece {
                PathPiece::Text(text) => out.extend_from_slice(text.as_bytes()),
                PathPiece::Rest => out.extend_from_slice(rest_of(&route.matcher, self.head.path()).as_bytes()),
                PathPiece::Path => out.extend_from_slice(self.head.path().as_bytes()),
                PathPiece::Variable(Variable::Capture(name)) => self.push_capture(name, out)?,
                PathPiece::Variable(variable) => {
                    self.push(variable, out)?;
                    if out[from..].iter().any(|byte| matches!(byte, b'/' | b'\\' | 0)) {
                        return None; // encoded ones are separators to some services
                    }
                    encode_from(out, from);
                }
            }
            if from == out.len() && matches!(piece, PathPiece::Variable(_)) {
                return None;
            }
            // two slashes that meet are one
            if from > start && out[from - 1] == b'/' && out.get(from) == Some(&b'/') {
                out.remove(from);
            }
        }
        let slashes = out[start..].iter().take_while(|byte| **byte == b'/').count();
        match slashes {
            0 => out.insert(start, b'/'),
            _ => drop(out.drain(start..start + slashes - 1)),
        }
        Some(())
    }

    /// Whether such a path may go up.
    pub(super) fn has_path(&self, made: (&Route, &[PathPiece]), scratch: &mut Scratch) -> bool {
        let Scratch { text, spelling, .. } = scratch;
        text.clear();
        let separators = match self.inbound.config().encoded_separators {
            Separators::Reject => EncodedSeparators::Refuse,
            Separators::Keep => EncodedSeparators::Keep,
        };
        let is_whole = self.push_path(made, text).is_some();
        is_whole && str::from_utf8(text).is_ok_and(|path| is_path(path, separators, spelling))
    }

    /// Appends what becomes of a query. Parameters that are set stand behind the others.
    pub(super) fn push_query(&self, rules: &QueryRules, query: Option<&str>, out: &mut Vec<u8>) {
        let start = out.len();
        if let Some(query) = query {
            edit_query(query, rules, out);
        }
        for (name, Template(pieces)) in &rules.set {
            let before = out.len();
            if before > start {
                out.push(b'&');
            }
            push_encoded(out, name.as_bytes());
            out.push(b'=');
            let is_whole = pieces.iter().all(|piece| {
                let from = out.len();
                let is_there = match piece {
                    Piece::Text(text) => {
                        out.extend_from_slice(text.as_bytes());
                        true
                    }
                    Piece::Variable(variable) => {
                        let is_there = self.push(variable, out).is_some() && out.len() > from;
                        if matches!(variable, Variable::Capture(_)) {
                            decode_from(out, from);
                        }
                        is_there
                    }
                };
                encode_from(out, from);
                is_there
            });
            if !is_whole {
                out.truncate(before);
            }
        }
    }

    /// A template of a `Location` with its captures filled in.
    pub(super) fn captured<'t>(&self, template: &'t str, room: &'t mut Vec<u8>) -> &'t str {
        room.clear();
        self.push_captured(template, room);
        let location = str::from_utf8(room).unwrap_or(template);
        // a capture that is empty, or not there, makes no host of what stands behind it
        if template.starts_with("//") { location } else { single_slash(location) }
    }

    /// Appends a template of a `Location` with its captures filled in, so that none of them means more than a piece of a path or of a query.
    fn push_captured(&self, template: &str, out: &mut Vec<u8>) {
        let mut rest = template;
        while let Some((text, behind)) = rest.split_once('{') {
            out.extend_from_slice(text.as_bytes());
            let (word, behind) = behind.split_once('}').unwrap_or((behind, ""));
            rest = behind;
            let from = out.len();
            if matches!(word, "path" | "path_and_query" | "host" | "scheme" | "query") {
                out.push(b'{');
                out.extend_from_slice(word.as_bytes());
                out.push(b'}');
            } else if self.push_capture(word, out).is_some() {
                let is_in_query = out[..from].contains(&b'?');
                match is_in_query {
                    true => {
                        decode_from(out, from);
                        encode_from(out, from);
                    }
                    false => tame(out, from),
                }
            }
        }
        out.extend_from_slice(rest.as_bytes());
    }
}

/// A piece of a path from `from` on: no slash at its beginning, which may make another host of a path, and no braces, which are variables here.
fn tame(out: &mut Vec<u8>, from: usize) {
    let slashes = out[from..].iter().take_while(|byte| **byte == b'/').count();
    out.drain(from..from + slashes);
    let mut at = from;
    while let Some(brace) = out[at..].iter().position(|byte| matches!(byte, b'{' | b'}')) {
        at += brace;
        let escape = if out[at] == b'{' { b"%7B" } else { b"%7D" };
        out.splice(at..=at, *escape);
        at += escape.len();
    }
}

/// Has what stands from `from` on, a piece of a path, be what it means: in a query it is encoded anew.
fn decode_from(out: &mut Vec<u8>, from: usize) {
    let (mut at, mut end) = (from, from);
    while at < out.len() {
        let pair = out[at..].get(1..3).and_then(|pair| str::from_utf8(pair).ok());
        let meant = pair.filter(|_| out[at] == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out[end] = meant.unwrap_or(out[at]);
        at += if meant.is_some() { 3 } else { 1 };
        end += 1;
    }
    out.truncate(end);
}

/// Percent-encodes what stands from `from` on.
fn encode_from(out: &mut Vec<u8>, from: usize) {
    let end = out.len();
    if out[from..].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')) {
        return;
    }
    for at in from..end {
        let byte = out[at];
        push_encoded(out, &[byte]);
    }
    out.drain(from..end);
}

/// Whether a path may go up as it is.
fn is_path(path: &str, separators: EncodedSeparators, scratch: &mut String) -> bool {
    path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'))
        && normalize(path, separators, EmptySegments::Keep, scratch).is_ok_and(|normal| normal == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_encoded_or_tamed() {
        let mut out = b"/a?b=".to_vec();
        encode_from(&mut out, 5);
        out.extend_from_slice(b"x y&\xff");
        encode_from(&mut out, 5);
        assert_eq!(out, b"/a?b=x%20y%26%FF");
        let mut out = b"/a/".to_vec();
        out.extend_from_slice(b"//evil/{host}");
        tame(&mut out, 3);
        assert_eq!(out, b"/a/evil/%7Bhost%7D");
        let mut out = b"/%41?c=".to_vec();
        out.extend_from_slice(b"a%20b%C3%A9%2");
        decode_from(&mut out, 7);
        assert_eq!(out, b"/%41?c=a b\xC3\xA9%2");
    }

    #[test]
    fn only_a_path_in_its_one_spelling_goes_up() {
        for path in ["/", "/a/b", "/a//b", "/a%20b"] {
            assert!(is_path(path, EncodedSeparators::Refuse, &mut String::new()), "{path}");
        }
        for path in ["/a/..", "/../a", "/a/.", "/%2e%2e/a", "/a%2Fb", "/a?b", "/a#b", "/a b", "/a%2", "/..;x/a", "/%41"]
        {
            assert!(!is_path(path, EncodedSeparators::Refuse, &mut String::new()), "{path}");
        }
    }
}
