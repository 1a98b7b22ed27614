//! A regex of the configuration that a worker searches with, each with memory of its own: they share no pool and no lock.

use super::paths::compile_regex;
use super::problem::Refusal;
use crate::limits::REGEX_CACHE_BYTES_MIN;
use regex_automata::Input;
use regex_automata::meta::{Cache, Regex};
use std::fmt;

/// A regex, compiled. Two are equal that are written alike.
#[derive(Clone)]
pub struct Pattern {
    written: String,
    regex: Regex,
}

impl Pattern {
    /// One that matches somewhere in a text, unless it is anchored.
    ///
    /// # Errors
    /// It is no regex, or too large.
    pub(super) fn try_new(written: &str) -> Result<Self, Refusal> {
        Self::of(written, written)
    }

    /// One that matches a whole text.
    ///
    /// # Errors
    /// As [`Pattern::try_new`].
    pub(super) fn whole(written: &str) -> Result<Self, Refusal> {
        compile_regex(written, Regex::config())?; // what is wrong is told of what was written
        Self::of(written, &format!("^(?:{written})$"))
    }

    fn of(written: &str, pattern: &str) -> Result<Self, Refusal> {
        let config = Regex::config().hybrid_cache_capacity(REGEX_CACHE_BYTES_MIN);
        Ok(Self { written: written.to_owned(), regex: compile_regex(pattern, config)? })
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether it matches; `cache` is of this pattern.
    #[must_use]
    pub fn is_match(&self, text: &[u8], cache: &mut Cache) -> bool {
        self.regex.search_half_with(cache, &Input::new(text).earliest(true)).is_some()
    }

    /// Room for searches.
    #[must_use]
    pub fn cache(&self) -> Cache {
        self.regex.create_cache()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}
