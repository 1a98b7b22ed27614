//! Which requests a route or a guard takes, and which of two that match comes first.
//!
//! The order is the router's: a host that is written out, then the longest `*.x`, then the longest `x.*`, then regexes, then any host. Paths are
//! compared segment by segment: one that is written out comes before a placeholder, and that before `/*`; behind all of them regexes, then `/*`
//! alone. Then more conditions, then the order in the file.

use super::Condition;
use http::{HeaderName, HeaderValue, Method};
use std::fmt;

/// `route.match`: all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// The request's host: this, or one of the others.
    pub host: HostMatch,
    /// As `host`; the file has a list.
    pub other_hosts: Vec<HostMatch>,
    /// The request's path: this, or one of the others.
    pub path: PathMatch,
    /// As `path`; the file has a list.
    pub other_paths: Vec<PathMatch>,
    /// Allowed methods; empty: any.
    pub methods: Vec<Method>,
    /// Headers that must be there with exactly this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Query parameters (after percent-decoding) that must be there with exactly this value.
    pub query: Vec<(String, String)>,
    /// What else must hold.
    pub more: Vec<Condition>,
}

impl Match {
    /// The hosts, one of which it must be; in file order.
    pub fn hosts(&self) -> impl Iterator<Item = &HostMatch> + Clone {
        std::iter::once(&self.host).chain(&self.other_hosts)
    }

    /// The paths, one of which it must be; in file order.
    pub fn paths(&self) -> impl Iterator<Item = &PathMatch> + Clone {
        std::iter::once(&self.path).chain(&self.other_paths)
    }

    /// How many conditions there are beyond host and path; more win.
    #[must_use]
    pub fn conditions(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len() + self.query.len() + self.more.len()
    }
}

/// `match.host`, lower case, without port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// Any host.
    #[default]
    Any,
    /// `a.example`
    Exact(String),
    /// `*.example`: one or more labels before it; holds `example`.
    Wildcard(String),
    /// `shop.*`: one or more labels behind it; holds `shop`.
    Beginning(String),
    /// `~regex`, of the whole host in lower case; holds the pattern without `~`.
    Regex(String),
}

impl HostMatch {
    /// Greater is more specific. Regexes are equal here; of those the first in the file is asked first.
    #[must_use]
    pub fn rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(_) => (4, 0),
            Self::Wildcard(name) => (3, name.len()),
            Self::Beginning(name) => (2, name.len()),
            Self::Regex(_) => (1, 0),
            Self::Any => (0, 0),
        }
    }

    /// The pattern that a regex is compiled as: of the whole host, in any case.
    #[must_use]
    pub fn whole(pattern: &str) -> String {
        format!("(?i)^(?:{pattern})$")
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(name) => write!(f, "*.{name}"),
            Self::Beginning(name) => write!(f, "{name}.*"),
            Self::Regex(pattern) => write!(f, "~{pattern}"),
        }
    }
}

/// `match.path`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// `/exact`
    Exact(String),
    /// `/prefix/*`: `/prefix` and whole segments below it; holds `/prefix`, and the empty string for `/*`.
    Prefix(String),
    /// `/users/{id}`, or `/users/{id}/*`: each placeholder is one segment that is not empty.
    Template {
        /// The path, without `/*`.
        path: String,
        /// `/*` stands behind it.
        is_prefix: bool,
    },
    /// `~regex`, in linear time; holds the pattern without `~`. Not anchored unless it says so.
    Regex(String),
}

/// How specific a path is; greater is more so, of two that match the same request.
pub type PathRank = (u8, Vec<u8>);

/// What a segment counts.
const LITERAL: u8 = 3;
const PLACEHOLDER: u8 = 2;
const END: u8 = 1;
const ANY_REST: u8 = 0;

impl PathMatch {
    /// Greater is more specific.
    #[must_use]
    pub fn rank(&self) -> PathRank {
        let (path, is_prefix) = match self {
            Self::Exact(path) => (path, false),
            Self::Prefix(path) if path.is_empty() => return (0, Vec::new()),
            Self::Prefix(path) => (path, true),
            Self::Template { path, is_prefix } => (path, *is_prefix),
            Self::Regex(_) => return (1, Vec::new()),
        };
        let is_template = matches!(self, Self::Template { .. });
        let segment = |segment| if is_template && placeholder(segment).is_some() { PLACEHOLDER } else { LITERAL };
        let ranks = segments(path).map(segment).chain([if is_prefix { ANY_REST } else { END }]);
        (2, ranks.collect())
    }

    /// Whether it matches, and what of `path` a prefix leaves over; nothing where it is no prefix. Not of regexes, which never match here.
    #[must_use]
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self {
            Self::Exact(wanted) => (wanted == path).then_some(""),
            Self::Prefix(prefix) if prefix.is_empty() => Some(path),
            Self::Prefix(prefix) => path.strip_prefix(prefix.as_str()).filter(|rest| is_end(rest)),
            Self::Template { path: wanted, is_prefix } => {
                let mut rest = path;
                for segment in segments(wanted) {
                    let (found, behind) = first_segment(rest)?;
                    let fits = if placeholder(segment).is_some() { !found.is_empty() } else { found == segment };
                    if !fits {
                        return None;
                    }
                    rest = behind;
                }
                (*is_prefix || rest.is_empty()).then_some(rest)
            }
            Self::Regex(_) => None,
        }
    }

    /// The segment of `path`, which matches, that a placeholder stands for.
    #[must_use]
    pub fn placed<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        let Self::Template { path: wanted, .. } = self else { return None };
        let at = segments(wanted).position(|segment| placeholder(segment) == Some(name))?;
        segments(path).nth(at)
    }
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix(String::new())
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}/*"),
            Self::Template { path, is_prefix } => write!(f, "{path}{}", if *is_prefix { "/*" } else { "" }),
            Self::Regex(pattern) => write!(f, "~{pattern}"),
        }
    }
}

/// What stands between the slashes of a path.
pub(crate) fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').into_iter().flat_map(|path| path.split('/'))
}

/// The name of a segment that is a placeholder.
pub(crate) fn placeholder(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// The first segment, and what is behind it, from its slash on.
fn first_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

/// Whether a prefix may end before this.
fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;

    fn template(path: &str) -> PathMatch {
        let (path, is_prefix) = path.strip_suffix("/*").map_or((path, false), |path| (path, true));
        PathMatch::Template { path: path.to_owned(), is_prefix }
    }

    #[test]
    fn what_is_written_out_comes_before_a_placeholder_and_that_before_the_rest() {
        let exact = |path: &str| PathMatch::Exact(path.to_owned());
        let prefix = |path: &str| PathMatch::Prefix(path.to_owned());
        let ordered = [
            exact("/a/b"),
            prefix("/a/b"),
            template("/a/{x}"),
            template("/a/{x}/*"),
            prefix("/a"),
            template("/{x}/b"),
            template("/{x}/{y}"),
            template("/{x}/*"),
            PathMatch::Regex("^/a".into()),
            prefix(""),
        ];
        assert!(ordered.is_sorted_by_key(|path| Reverse(path.rank())));
    }

    #[test]
    fn placeholders_are_whole_segments() {
        for (written, path, rest) in [
            ("/users/{id}", "/users/7", Some("")),
            ("/users/{id}", "/users/", None),
            ("/users/{id}", "/users", None),
            ("/users/{id}", "/users/7/", None),
            ("/users/{id}/*", "/users/7", Some("")),
            ("/users/{id}/*", "/users/7/a/b", Some("/a/b")),
            ("/{a}/x/{b}", "/1/x/2", Some("")),
            ("/{a}/x/{b}", "/1/y/2", None),
            ("/{a}/*", "*", None),
        ] {
            assert_eq!(template(written).rest(path), rest, "{written} {path}");
        }
        assert_eq!(template("/{a}/x/{b}").placed("/1/x/2", "b"), Some("2"));
        assert_eq!(template("/{a}/x/{b}").placed("/1/x/2", "c"), None);
    }
}
