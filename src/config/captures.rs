//! What a path condition has found: `{id}` of a placeholder, `{1}` and `{name}` of a regex, for rewrites, redirects and headers.
//!
//! A name stands for the same thing whichever of a route's paths matches, so all of them must have it. Which of them has matched is asked again, in
//! the order in which the router asks: that is one search, of routes that use captures only.

use super::matching::{Match, PathMatch, placeholder, segments};
use super::paths::compile_regex;
use crate::limits::REGEX_CACHE_BYTES_MIN;
use regex_automata::Input;
use regex_automata::meta::{Cache, Regex};
use regex_automata::util::captures::Captures as Groups;
use std::cmp::Reverse;
use std::fmt;

/// The paths of a route that has captures, the most specific first.
#[derive(Clone)]
pub struct Captures(Box<[CapturedPath]>);

/// They follow from the paths, which are shown where the route is.
impl fmt::Debug for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[derive(Clone)]
enum CapturedPath {
    Template(PathMatch),
    Regex(Regex),
}

/// What searches write to; of one route's captures.
#[derive(Debug)]
pub struct CaptureRoom(Box<[Option<(Cache, Groups)>]>);

impl Captures {
    /// Those of a route's paths; `None`: one of them has none.
    pub(super) fn of(matcher: &Match) -> Option<Self> {
        let mut paths: Vec<&PathMatch> = matcher.paths().collect();
        paths.sort_by_key(|path| Reverse(path.rank()));
        let captured = |path: &PathMatch| match path {
            PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            PathMatch::Template { .. } => Some(CapturedPath::Template(path.clone())),
            PathMatch::Regex(pattern) => {
                let config = Regex::config().hybrid_cache_capacity(REGEX_CACHE_BYTES_MIN);
                Some(CapturedPath::Regex(compile_regex(pattern, config).ok()?))
            }
        };
        paths.into_iter().map(captured).collect::<Option<_>>().map(Self)
    }

    /// Whether every path has a capture of this name, or a group of this number.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().all(|path| match path {
            CapturedPath::Template(PathMatch::Template { path, .. }) => {
                segments(path).any(|segment| placeholder(segment) == Some(name))
            }
            CapturedPath::Template(_) => false,
            CapturedPath::Regex(regex) => group(regex, name).is_some(),
        })
    }

    /// Their names, of the first path.
    pub(super) fn names(&self) -> Vec<String> {
        match self.0.first() {
            Some(CapturedPath::Template(PathMatch::Template { path, .. })) => {
                segments(path).filter_map(placeholder).map(str::to_owned).collect()
            }
            Some(CapturedPath::Regex(regex)) => {
                let names = regex.group_info().pattern_names(regex_automata::PatternID::ZERO).enumerate().skip(1);
                names.map(|(number, name)| name.map_or(number.to_string(), str::to_owned)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Room for searches.
    #[must_use]
    pub fn room(&self) -> CaptureRoom {
        let room = |path: &CapturedPath| match path {
            CapturedPath::Template(_) => None,
            CapturedPath::Regex(regex) => Some((regex.create_cache(), regex.create_captures())),
        };
        CaptureRoom(self.0.iter().map(room).collect())
    }

    /// What `name` stands for in `path`, by which the request was routed; `None`: that part is not there.
    #[must_use]
    pub fn get<'p>(&self, path: &'p str, name: &str, room: &mut CaptureRoom) -> Option<&'p str> {
        for (by, room) in self.0.iter().zip(&mut room.0) {
            match (by, room) {
                (CapturedPath::Regex(regex), Some((cache, groups))) => {
                    regex.search_captures_with(cache, &Input::new(path), groups);
                    if groups.is_match() {
                        return groups.get_group(group(regex, name)?).map(|span| &path[span.range()]);
                    }
                }
                (CapturedPath::Template(template), _) if template.rest(path).is_some() => {
                    return template.placed(path, name);
                }
                _ => {}
            }
        }
        None
    }
}

/// The group of a name or a number, from 1 on.
fn group(regex: &Regex, name: &str) -> Option<usize> {
    let groups = regex.group_info();
    let of_number =
        name.parse().ok().filter(|number| (1..groups.group_len(regex_automata::PatternID::ZERO)).contains(number));
    of_number.or_else(|| groups.to_index(regex_automata::PatternID::ZERO, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(paths: &[&str]) -> Match {
        let mut paths = paths.iter().map(|path| match path.strip_prefix('~') {
            Some(pattern) => PathMatch::Regex(pattern.to_owned()),
            None if path.contains('{') => PathMatch::Template { path: (*path).to_owned(), is_prefix: false },
            None => PathMatch::Exact((*path).to_owned()),
        });
        Match { path: paths.next().unwrap(), other_paths: paths.collect(), ..Match::default() }
    }

    #[test]
    fn names_and_numbers_stand_for_what_was_found() {
        let captures =
            Captures::of(&matcher(&["~^/u-(?P<id>[0-9]+)(/.*)?$", "/users/{id}", "/users/me/{id}"])).unwrap();
        let mut room = captures.room();
        for (path, name, found) in [
            ("/u-7/x", "id", Some("7")),
            ("/u-7/x", "1", Some("7")),
            ("/u-7/x", "2", Some("/x")),
            ("/u-7", "2", None),
            ("/users/8", "id", Some("8")),
            ("/users/me/9", "id", Some("9")),
            ("/other", "id", None),
        ] {
            assert_eq!(captures.get(path, name, &mut room), found, "{path} {name}");
        }
        assert!(captures.has("id") && !captures.has("1") && !captures.has("x"));
        assert!(Captures::of(&matcher(&["/users/{id}", "/users"])).is_none());
        let groups = Captures::of(&matcher(&["~^/(a)(?P<b>.)(?:c)$"])).unwrap();
        assert_eq!(groups.names(), ["1", "b"]);
        assert!(groups.has("2") && !groups.has("3") && !groups.has("0"));
    }
}
