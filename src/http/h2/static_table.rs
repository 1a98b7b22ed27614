//! The fields that every HPACK decoder knows (RFC 7541 appendix A), and what they are.

use super::name::What::{self, Authority, Bad, Cookie, Field, Length, Method, Path, Scheme, Status};
use crate::http::fields::Kind::{Date, Dropped, EndToEnd, Expect, Host, MaxForwards, Other, RetryAfter, Server, Via};

/// Name, value (empty where the table has none), and what the field is; the first one has index 1.
pub(super) static STATIC: [(&str, &str, What); 61] = [
    (":authority", "", Authority),
    (":method", "GET", Method),
    (":method", "POST", Method),
    (":path", "/", Path),
    (":path", "/index.html", Path),
    (":scheme", "http", Scheme),
    (":scheme", "https", Scheme),
    (":status", "200", Status),
    (":status", "204", Status),
    (":status", "206", Status),
    (":status", "304", Status),
    (":status", "400", Status),
    (":status", "404", Status),
    (":status", "500", Status),
    ("accept-charset", "", Field(Other)),
    ("accept-encoding", "gzip, deflate", Field(Other)),
    ("accept-language", "", Field(Other)),
    ("accept-ranges", "", Field(Other)),
    ("accept", "", Field(Other)),
    ("access-control-allow-origin", "", Field(Other)),
    ("age", "", Field(Other)),
    ("allow", "", Field(Other)),
    ("authorization", "", Field(EndToEnd)),
    ("cache-control", "", Field(EndToEnd)),
    ("content-disposition", "", Field(Other)),
    ("content-encoding", "", Field(EndToEnd)),
    ("content-language", "", Field(Other)),
    ("content-length", "", Length),
    ("content-location", "", Field(Other)),
    ("content-range", "", Field(EndToEnd)),
    ("content-type", "", Field(EndToEnd)),
    ("cookie", "", Cookie),
    ("date", "", Field(Date)),
    ("etag", "", Field(Other)),
    ("expect", "", Field(Expect)),
    ("expires", "", Field(Other)),
    ("from", "", Field(Other)),
    ("host", "", Field(Host)),
    ("if-match", "", Field(Other)),
    ("if-modified-since", "", Field(Other)),
    ("if-none-match", "", Field(Other)),
    ("if-range", "", Field(Other)),
    ("if-unmodified-since", "", Field(Other)),
    ("last-modified", "", Field(Other)),
    ("link", "", Field(Other)),
    ("location", "", Field(EndToEnd)),
    ("max-forwards", "", Field(MaxForwards)),
    ("proxy-authenticate", "", Field(Dropped)),
    ("proxy-authorization", "", Field(Dropped)),
    ("range", "", Field(Other)),
    ("referer", "", Field(Other)),
    ("refresh", "", Field(Other)),
    ("retry-after", "", Field(RetryAfter)),
    ("server", "", Field(Server)),
    ("set-cookie", "", Field(EndToEnd)),
    ("strict-transport-security", "", Field(Other)),
    ("transfer-encoding", "", Bad),
    ("user-agent", "", Field(Other)),
    ("vary", "", Field(Other)),
    ("via", "", Field(Via)),
    ("www-authenticate", "", Field(EndToEnd)),
];

/// The index of a name that the table has, in any case; not of pseudo-fields. By length, because most lengths have one or two names.
pub(super) fn index_of_name(name: &[u8]) -> Option<u8> {
    let found: &[u8] = match name.len() {
        3 => &[21, 60],
        4 => &[33, 34, 37, 38, 45, 59],
        5 => &[22, 50],
        6 => &[19, 32, 35, 54],
        7 => &[36, 51, 52],
        8 => &[39, 42, 46],
        10 => &[55, 58],
        11 => &[53],
        12 => &[31, 47],
        13 => &[18, 23, 24, 30, 41, 44],
        14 => &[15, 28],
        15 => &[16, 17],
        16 => &[26, 27, 29, 61],
        17 => &[40, 57],
        18 => &[48],
        19 => &[25, 43, 49],
        25 => &[56],
        27 => &[20],
        _ => return None,
    };
    found.iter().copied().find(|&index| STATIC[usize::from(index) - 1].0.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fields_are_is_what_their_names_say() {
        for (name, value, what) in STATIC {
            assert_eq!(What::of(name.as_bytes(), value.as_bytes()), what, "{name}");
        }
    }

    #[test]
    fn every_name_has_its_first_index_and_no_other_name_has_one() {
        for (name, ..) in STATIC {
            let first = STATIC.iter().position(|(other, ..)| *other == name).unwrap() + 1;
            let found = index_of_name(name.as_bytes());
            assert_eq!(found.map(usize::from), (!name.starts_with(':')).then_some(first), "{name}");
        }
        for name in ["", "x", "via ", "datx", "accept-", "x-forwarded-for", "www-authenticatf"] {
            assert_eq!(index_of_name(name.as_bytes()), None);
        }
    }
}
