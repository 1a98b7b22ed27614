//! What a route does to the query: parameters that are removed or renamed on their way up.

use super::conditions::decodes_to;
use crate::config::QueryRules;

/// Appends `query` without the parameters that are removed or set, and with those renamed that are; the others stay as they were sent, in their
/// order.
pub fn edit_query(query: &str, rules: &QueryRules, out: &mut Vec<u8>) {
    let mut is_first = true;
    for pair in query.split('&') {
        let (name, value) = pair.split_at(pair.find('=').unwrap_or(pair.len()));
        let is = |other: &str| decodes_to(name.as_bytes(), other.as_bytes());
        let is_set = |name: &str| rules.set.iter().any(|(set, _)| set == name);
        let renamed = rules.rename.iter().find(|(from, _)| is(from)).map(|(_, to)| to.as_str());
        // a name that is set has that value alone, and one that another gets is that one's alone
        let is_replaced = rules.set.iter().any(|(set, _)| is(set)) || rules.rename.iter().any(|(_, to)| is(to));
        let is_gone = match renamed {
            Some(to) => is_set(to),
            None => is_replaced,
        };
        if is_gone || rules.remove.iter().any(|removed| is(removed)) {
            continue;
        }
        if !is_first {
            out.push(b'&');
        }
        is_first = false;
        match renamed {
            Some(to) => push_encoded(out, to.as_bytes()),
            None => out.extend_from_slice(name.as_bytes()),
        }
        out.extend_from_slice(value.as_bytes());
    }
}

/// Appends a text percent-encoded, but for what means nothing in a URL (RFC 3986 §2.3).
pub fn push_encoded(out: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ if byte.is_ascii_alphanumeric() => out.push(byte),
            _ => out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Template;

    #[test]
    fn parameters_are_removed_and_renamed_by_what_their_names_mean() {
        let rules = QueryRules {
            set: vec![("tenant".into(), Template(vec![]))],
            remove: vec!["debug".into(), "a b".into()],
            rename: vec![("q".into(), "search text".into()), ("team".into(), "tenant".into())],
        };
        for (query, edited) in [
            ("q=1&debug=2&x=%31", "search%20text=1&x=%31"),
            ("%64ebug&a+b=1&%71=&a%20b", "search%20text="),
            ("tenant=evil&t=1&tenan%74", "t=1"),
            ("team=evil&t=1", "t=1"),
            ("search%20text=2&q=1&search+text", "search%20text=1"),
            ("debugging&q", "debugging&search%20text"),
            ("&&x", "&&x"),
            ("", ""),
        ] {
            let mut out = b"/?".to_vec();
            edit_query(query, &rules, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("/?{edited}"), "{query}");
        }
    }
}
