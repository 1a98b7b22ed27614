//! What of a request goes no further than here, and is not said by variables either: keys that the route does not forward, and cookies that the
//! gateway has set itself.

use super::identify::other_parameters;
use super::sticky::OwnCookies;
use super::variables::Known;
use crate::config::{self, Auth, KeyPlace};
use crate::policy::cookies::{pairs, value_of};
use http::HeaderName;

impl Known<'_> {
    /// Ways by which somebody may have been recognised, and whose keys are not passed on.
    fn hidden(&self) -> impl Iterator<Item = &Auth> + Clone {
        let config = &self.inbound.worker.shared.config;
        let ways = match (self.identified, self.route) {
            (Some(_), Some(route)) => config::identity::ways(&config.routes[route.index()], self.inbound.config()),
            _ => &[],
        };
        ways.iter().map(|way| &config.auth[way.index()]).filter(|way| !way.forwards)
    }

    /// Whether what a client sends as this header is not passed on, or not as it is.
    pub(super) fn is_stripped(&self, name: &HeaderName) -> bool {
        let routes = &self.inbound.worker.shared.config.routes;
        self.route.is_some_and(|route| routes[route.index()].request_headers.strip.contains(name))
    }

    /// Appends the query behind `mark`, without the keys that stand in it; `None`: there is none.
    pub(super) fn push_public_query(&self, mark: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let query = self.head.query()?;
        let mut others = Vec::new();
        other_parameters(self.hidden(), self.head, &mut others);
        let query = match others.strip_prefix(b"?") {
            None => query.as_bytes(),
            Some([]) => return None,
            Some(others) => others,
        };
        out.extend_from_slice(mark);
        out.extend_from_slice(query);
        Some(())
    }

    /// Appends the first cookie of this name that is passed on.
    pub(super) fn push_public_cookie(&self, name: &str, out: &mut Vec<u8>) -> Option<()> {
        let mut found = None;
        self.public_cookies(|pair| {
            if let Some(value) = value_of(pair, name).filter(|_| found.is_none()) {
                out.extend_from_slice(value);
                found = Some(());
            }
        });
        found
    }

    /// Appends the cookies that are passed on.
    pub(super) fn push_public_cookies(&self, out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        self.public_cookies(|pair| {
            out.extend_from_slice(if out.len() == start { b"" } else { b"; " });
            out.extend_from_slice(pair);
        });
        (out.len() > start).then_some(())
    }

    fn public_cookies(&self, mut each: impl FnMut(&[u8])) {
        let own = self.route.and_then(|route| OwnCookies::of(&self.inbound.worker.shared, route));
        let is_key = |pair: &[u8]| {
            self.hidden().flat_map(|way| &way.places).any(|place| match place {
                KeyPlace::Cookie(name) => value_of(pair, name).is_some(),
                KeyPlace::Header(..) | KeyPlace::Query(_) => false,
            })
        };
        let (mut read, fields) = (0, self.head.fields());
        for pair in fields.get_all("cookie").flat_map(pairs).filter(|pair| !pair.is_empty() && !is_key(pair)) {
            if !own.as_ref().is_some_and(|own| own.has(pair, &mut read)) {
                each(pair);
            }
        }
    }
}
