//! Cookies of a request, taken apart: the one rule for whoever asks for them, conditions of routes, keys, hashes, sides of a split and sessions.
//!
//! A name is what stands before the first `=`, byte by byte: `a =1` is no cookie of the name `a`, whatever some services make of it, so what
//! is hidden from an endpoint under a name is what is looked at under it. Quotes are a part of the value (RFC 6265 §4.1.1).

/// The pairs of a `Cookie` field (RFC 6265 §4.2.1), without the blanks around them; one of them may be empty.
pub fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// The value of a pair, if it is a cookie of this name.
#[must_use]
pub fn value_of<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// All values of the cookies of this name that stand in such fields, in their order.
pub fn values<'f>(fields: impl Iterator<Item = &'f [u8]>, name: &str) -> impl Iterator<Item = &'f [u8]> {
    fields.flat_map(pairs).filter_map(move |pair| value_of(pair, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_every_field() {
        let fields: [&[u8]; 3] = [b"xid=1; id=22;b=3", b"", b" id=\"4\" ;;id; id =5; ID=6; id==7"];
        let all =
            |name| values(fields.into_iter(), name).map(|value| str::from_utf8(value).unwrap()).collect::<Vec<_>>();
        assert_eq!(all("id"), ["22", "\"4\"", "=7"]);
        assert_eq!(all("b"), ["3"]);
        assert_eq!((all("d"), all("xid")), (vec![], vec!["1"]));
        assert_eq!(all("id "), ["5"]);
    }
}
