//! All path regexes of one host as one automaton: a single pass over the path finds every pattern that matches. The same of hosts.
//!
//! Time is linear in the path whatever the patterns are (no backtracking). The automaton is immutable; the states that a search builds
//! on its way live in the worker's [`RouterCache`], so workers share no lock and no pool. Its memory is bounded: when it is full it
//! starts anew.

use super::{Candidate, RouterError};
use crate::config::{CaptureRoom, Captures};
use crate::limits;
use crate::units::RouteId;
use regex_automata::meta::{Cache, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::{Input, MatchKind, PatternID, PatternSet};
use rustc_hash::FxHashMap;

/// The regexes of one host, in order of precedence.
#[derive(Debug)]
pub(super) struct Patterns {
    regex: Regex,
    candidates: Box<[Candidate]>,
}

impl Patterns {
    /// `regexes` in order of precedence, at least one; `sets` hosts share the memory that a worker's cache may use.
    pub(super) fn try_new(regexes: &[(&str, Candidate)], sets: usize) -> Result<Self, RouterError> {
        let config = Regex::config()
            .match_kind(MatchKind::All)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(limits::REGEX_SET_BYTES_MAX))
            .hybrid_cache_capacity((limits::REGEX_CACHE_BYTES_MAX / sets.max(1)).max(limits::REGEX_CACHE_BYTES_MIN));
        let patterns: Vec<&str> = regexes.iter().map(|(pattern, _)| *pattern).collect();
        let regex = Regex::builder().configure(config).build_many(&patterns).map_err(|error| {
            let at = error.pattern().map_or(0, |pattern| pattern.as_usize());
            let reason = match (error.syntax_error(), error.size_limit()) {
                (Some(syntax), _) => syntax.to_string(),
                (None, Some(_)) => {
                    format!("the regexes of this host need more than {} bytes", limits::REGEX_SET_BYTES_MAX)
                }
                (None, None) => error.to_string(),
            };
            RouterError::Regex { route: regexes[at].1.route, reason }
        })?;
        Ok(Self { regex, candidates: regexes.iter().map(|(_, candidate)| *candidate).collect() })
    }

    pub(super) fn candidate(&self, index: usize) -> &Candidate {
        &self.candidates[index]
    }
}

/// One worker's scratch memory for regex searches. Belongs to the router it was first used with.
///
/// Empty until a host with regexes is asked for; then at most [`limits::REGEX_CACHE_BYTES_MAX`] for all hosts together (a little more
/// with very many hosts).
#[derive(Debug, Default)]
pub struct RouterCache {
    rows: Vec<Option<Box<(Cache, PatternSet)>>>,
    /// Of single regexes that routes have besides, by the route and their number in it.
    singles: FxHashMap<(RouteId, usize), Cache>,
    /// A text that is decoded.
    text: Vec<u8>,
    /// Of routes that have captures.
    captures: FxHashMap<RouteId, CaptureRoom>,
}

impl RouterCache {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The memory of a single regex, which `make` makes when it is first asked for.
    pub(in crate::policy) fn of(&mut self, regex: (RouteId, usize), make: impl FnOnce() -> Cache) -> &mut Cache {
        self.singles.entry(regex).or_insert_with(make)
    }

    /// What `name` stands for in the path of a request that this route takes.
    pub fn captured<'p>(&mut self, route: RouteId, captures: &Captures, path: &'p str, name: &str) -> Option<&'p str> {
        let room = self.captures.entry(route).or_insert_with(|| captures.room());
        captures.get(path, name, room)
    }

    /// Room for a text, empty.
    pub(super) fn take_text(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        text
    }

    /// Gives it back.
    pub(super) fn put_text(&mut self, text: Vec<u8>) {
        self.text = text;
    }

    /// Finds all of `patterns` that match `text`.
    pub(super) fn search(&mut self, row: u32, patterns: &Patterns, text: &[u8]) {
        let row = row as usize;
        if self.rows.len() <= row {
            self.rows.resize_with(row + 1, || None);
        }
        let (cache, matches) = &mut **self.rows[row].get_or_insert_with(|| {
            Box::new((patterns.regex.create_cache(), PatternSet::new(patterns.regex.pattern_len())))
        });
        matches.clear();
        patterns.regex.which_overlapping_matches_with(cache, &Input::new(text), matches);
    }

    /// The first pattern at or behind `from` that the last search of `row` found.
    pub(super) fn next_match(&self, row: u32, from: usize) -> Option<usize> {
        let (_, matches) = &**self.rows.get(row as usize)?.as_ref()?;
        (from..matches.capacity()).find(|&index| PatternID::new(index).is_ok_and(|id| matches.contains(id)))
    }
}
