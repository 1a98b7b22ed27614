//! Whether a page of another origin may read what a route answers (Fetch standard, "CORS protocol").
//!
//! Intuition: the browser says where the page comes from, and no script can say it otherwise; who is no browser may say anything, and
//! gains nothing by it. So this keeps nobody out: it tells browsers whom they may let read.
//!
//! Origins are compared byte for byte with the configuration's, which are written as browsers send them. A regex searches with memory of
//! the worker's own, so that workers share no pool.

use crate::config::{Cors, CorsOrigin};
use crate::policy::router::RouterCache;
use crate::units::RouteId;

/// What a page is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// As everybody is.
    Everybody,
    /// As one of those that are named.
    Named,
    /// Nothing.
    Nobody,
}

/// What a page of `origin` is allowed on `route`, which says `cors`.
#[must_use]
pub fn grant(cors: &Cors, route: RouteId, origin: &[u8], cache: &mut RouterCache) -> Grant {
    if cors.is_for_all() {
        return Grant::Everybody;
    }
    let is_named = cors.origins.iter().enumerate().any(|(row, named)| match named {
        CorsOrigin::Any => true,
        CorsOrigin::Exact(exact) => exact.as_bytes() == origin,
        CorsOrigin::Wildcard(before, behind) => {
            let labels = origin.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_suffix(behind.as_bytes()));
            labels.is_some_and(are_labels)
        }
        CorsOrigin::Regex(regex) => regex.is_match(origin, cache.of((route, row), || regex.cache())),
    });
    if is_named { Grant::Named } else { Grant::Nobody }
}

/// `a` or `a.b`: what `*` stands for, and nothing that would make another host of it.
fn are_labels(text: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        !label.is_empty() && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.split(|byte| *byte == b'.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(origins: &str, asked: &[(&str, Grant)]) {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\ncors = {{ origins = {origins} }}\n"
        );
        let config = crate::config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}"));
        let cors = config.routes[0].cors.as_ref().unwrap();
        let mut cache = RouterCache::default();
        for (origin, expected) in asked {
            assert_eq!(grant(cors, RouteId(0), origin.as_bytes(), &mut cache), *expected, "{origin} of {origins}");
        }
    }

    #[test]
    fn an_origin_is_the_whole_of_it() {
        use Grant::{Everybody, Named, Nobody};
        granted("['*']", &[("https://a", Everybody), ("null", Everybody), ("", Everybody)]);
        granted(
            "['https://a.example', 'http://localhost:3000']",
            &[
                ("https://a.example", Named),
                ("http://localhost:3000", Named),
                ("http://a.example", Nobody),
                ("https://a.example:8443", Nobody),
                ("https://a.example.evil", Nobody),
                ("https://xa.example", Nobody),
                ("https://A.example", Nobody),
                ("https://a.example ", Nobody),
                ("null", Nobody),
                ("", Nobody),
            ],
        );
        granted(
            "['https://*.a.example']",
            &[
                ("https://b.a.example", Named),
                ("https://c.b.a.example", Named),
                ("https://a.example", Nobody),
                ("https://.a.example", Nobody),
                ("https://c..a.example", Nobody),
                ("https://evil.net/.a.example", Nobody),
                ("https://evil.net#.a.example", Nobody),
                ("https://u@b.a.example", Nobody),
                ("https://b.a.example:8443", Nobody),
                ("http://b.a.example", Nobody),
            ],
        );
        granted(
            "['https://c.example', '~https://[a-z]+\\.a\\.example(:[0-9]+)?']",
            &[
                ("https://c.example", Named),
                ("https://b.a.example", Named),
                ("https://b.a.example:1", Named),
                ("https://b.a.example.evil", Nobody),
                ("xhttps://b.a.example", Nobody),
            ],
        );
    }
}
