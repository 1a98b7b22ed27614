//! Conditions beyond host and path: methods as a set of bits, headers, query parameters that are decoded while they are compared, cookies, and where
//! a request comes from.

use super::{RequestView, RouterCache, RouterError};
use crate::config::{Condition, Match, Test};
use crate::limits;
use crate::policy::cookies::values;
use crate::units::RouteId;
use http::Method;
use std::cell::RefCell;

/// The methods that routes name; a set of them is the bits of their rows.
#[derive(Debug)]
pub(super) struct Methods {
    names: Box<[Method]>,
}

impl Methods {
    pub(super) fn try_new(rules: &[Match]) -> Result<Self, RouterError> {
        let mut names: Vec<Method> = Vec::new();
        for method in rules.iter().flat_map(|rule| &rule.methods) {
            for name in [Some(method), (*method == Method::GET).then_some(&Method::HEAD)].into_iter().flatten() {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        if names.len() > limits::METHODS_MAX {
            return Err(RouterError::TooManyMethods);
        }
        Ok(Self { names: names.into() })
    }

    /// 0 when no route names it.
    pub(super) fn bit(&self, method: &Method) -> u64 {
        self.names.iter().position(|name| name == method).map_or(0, |row| 1 << row)
    }

    /// `GET` brings `HEAD` with it.
    pub(super) fn set(&self, methods: &[Method]) -> u64 {
        let head = if methods.contains(&Method::GET) { self.bit(&Method::HEAD) } else { 0 };
        methods.iter().fold(head, |set, method| set | self.bit(method))
    }

    pub(super) fn allow(&self, set: u64) -> Allow<'_> {
        Allow { names: &self.names, set }
    }
}

/// The methods that a resource takes: the value of `Allow` (RFC 9110 §10.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allow<'r> {
    names: &'r [Method],
    set: u64,
}

impl<'r> Allow<'r> {
    /// Each method once, in the order in which the configuration names them first.
    pub fn methods(self) -> impl Iterator<Item = &'r Method> {
        self.names.iter().enumerate().filter(move |(row, _)| self.set & (1 << row) != 0).map(|(_, name)| name)
    }

    /// Appends the field value: `GET, HEAD, POST`.
    pub fn write(self, out: &mut Vec<u8>) {
        for (index, method) in self.methods().enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(method.as_str().as_bytes());
        }
    }
}

/// Whether everything besides host, path and method is as the route wants it.
pub(super) fn conditions_hold(
    rule: &Match,
    route: RouteId,
    request: &RequestView<'_>,
    cache: &mut RouterCache,
) -> bool {
    rule.headers.iter().all(|(name, value)| (request.header)(name, &mut |found| found == value.as_bytes()))
        && rule.query.iter().all(|(name, value)| query_has(request.query, name, value))
        && rule.more.iter().enumerate().all(|(row, condition)| holds(condition, (route, row), request, cache))
}

/// Conditions are numbered behind the origins of a route, which have single regexes, too.
const FIRST_CONDITION: usize = 1 << 16;
const _: () = assert!(limits::ENTRIES_MAX <= FIRST_CONDITION);

/// Whether a condition holds, which is that of a route in this row. Where a name stands there more than once it is enough that one of the
/// values is so: nobody knows which of them the endpoint takes, and a guard must see them all.
pub(super) fn holds(
    condition: &Condition,
    (route, row): (RouteId, usize),
    request: &RequestView<'_>,
    cache: &mut RouterCache,
) -> bool {
    let at = (route, FIRST_CONDITION + row);
    match condition {
        Condition::Header(name, test) => passes(test, at, cache, &|is| (request.header)(name, is)),
        Condition::Cookie(name, test) => {
            let cookies = |is: &mut dyn FnMut(&[u8]) -> bool| {
                (request.header)(&http::header::COOKIE, &mut |field| values([field].into_iter(), name).any(&mut *is))
            };
            passes(test, at, cache, &cookies)
        }
        Condition::Query(name, test) => {
            let mut text = cache.take_text();
            let room = RefCell::new(&mut text);
            let values = |is: &mut dyn FnMut(&[u8]) -> bool| {
                let mut room = room.borrow_mut();
                query_values(request.query, name).any(|value| {
                    room.clear();
                    decode(value, &mut room);
                    is(&room)
                })
            };
            let passes = passes(test, at, cache, &values);
            cache.put_text(text);
            passes
        }
        Condition::Listener(names) => names.iter().any(|name| name == request.source.listener),
        Condition::Scheme(scheme) => scheme.as_str() == request.source.scheme,
        Condition::ClientIp(networks) => request.source.client.is_some_and(|client| {
            let client = client.to_canonical();
            networks.iter().any(|network| network.contains(&client))
        }),
    }
}

/// Whether one of some values is what is looked for.
type Any<'a> = dyn Fn(&mut dyn FnMut(&[u8]) -> bool) -> bool + 'a;

fn passes(test: &Test, at: (RouteId, usize), cache: &mut RouterCache, any: &Any<'_>) -> bool {
    match test {
        Test::Absent => !any(&mut |_| true),
        Test::Present => any(&mut |_| true),
        Test::Is(text) => any(&mut |value| value == text.as_bytes()),
        Test::Not(text) => !any(&mut |_| true) || any(&mut |value| value != text.as_bytes()),
        Test::Prefix(text) => any(&mut |value| value.starts_with(text.as_bytes())),
        Test::Regex(pattern) => any(&mut |value| pattern.is_match(value, cache.of(at, || pattern.cache()))),
    }
}

/// The values of parameters called `name`, not decoded.
fn query_values<'q>(query: Option<&'q str>, name: &str) -> impl Iterator<Item = &'q [u8]> {
    let pairs = query.into_iter().flat_map(|query| query.as_bytes().split(|&byte| byte == b'&'));
    pairs.filter_map(move |pair| {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        decodes_to(&pair[..equals], name.as_bytes()).then(|| pair.get(equals + 1..).unwrap_or_default())
    })
}

/// Whether a parameter called `name` has `value`, both after decoding.
pub(super) fn query_has(query: Option<&str>, name: &str, value: &str) -> bool {
    query_values(query, name).any(|found| decodes_to(found, value.as_bytes()))
}

/// Whether `encoded` means `plain`.
pub(super) fn decodes_to(mut encoded: &[u8], plain: &[u8]) -> bool {
    for &wanted in plain {
        let Some((byte, taken)) = first(encoded) else { return false };
        if byte != wanted {
            return false;
        }
        encoded = &encoded[taken..];
    }
    encoded.is_empty()
}

/// Appends what `encoded` means.
fn decode(mut encoded: &[u8], out: &mut Vec<u8>) {
    while let Some((byte, taken)) = first(encoded) {
        out.push(byte);
        encoded = &encoded[taken..];
    }
}

/// The first byte of what is meant, and how many stand for it: `%41` is `A` and `+` a space, as forms write them; a `%` without two digits is
/// itself.
fn first(encoded: &[u8]) -> Option<(u8, usize)> {
    Some(match *encoded {
        [] => return None,
        [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => (hex(high) << 4 | hex(low), 3),
        [b'+', ..] => (b' ', 1),
        [byte, ..] => (byte, 1),
    })
}

/// The value of an ASCII hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_compared_after_decoding_and_one_of_a_name_is_enough() {
        for (query, holds) in [
            ("v=2", true),
            ("a=1&v=2", true),
            ("%76=%32", true),
            ("v=2&v=3", true),
            ("v=3&v=2", true),
            ("v=22", false),
            ("v=", false),
            ("v", false),
            ("vv=2", false),
            ("", false),
        ] {
            assert_eq!(query_has(Some(query), "v", "2"), holds, "{query}");
        }
        assert!(!query_has(None, "v", "2"));
        assert!(query_has(Some("flag"), "flag", ""));
    }

    #[test]
    fn percent_and_plus_decode_as_in_forms_and_broken_escapes_stand_for_themselves() {
        assert!(decodes_to(b"a+b%2Bc%2bd", b"a b+c+d"));
        assert!(decodes_to(b"100%", b"100%"));
        assert!(decodes_to(b"%zz%4", b"%zz%4"));
        assert!(decodes_to("%C3%A9".as_bytes(), "é".as_bytes()));
        assert!(!decodes_to(b"ab", b"a"));
        assert!(!decodes_to(b"a", b"ab"));
    }
}
