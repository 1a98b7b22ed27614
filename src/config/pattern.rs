//! A regex of the configuration that a worker searches with, each with memory of its own: they share no pool and no lock.

use super::paths::{compile_for_bytes, compile_regex};
use super::problem::Refusal;
use crate::limits::REGEX_CACHE_BYTES_MIN;
use regex_automata::Input;
use regex_automata::meta::{Cache, Config, Regex};
use std::fmt;

/// A regex, compiled. Two are equal that are written alike.
#[derive(Clone)]
pub struct Pattern {
    written: String,
    regex: Regex,
}

impl Pattern {
    /// One that matches somewhere in any bytes, unless it is anchored.
    ///
    /// # Errors
    /// It is no regex, or too large.
    pub(super) fn try_new(written: &str) -> Result<Self, Refusal> {
        Ok(Self { written: written.to_owned(), regex: compile_for_bytes(written, config())? })
    }

    /// One that matches a whole text, which is UTF-8 and one line.
    ///
    /// # Errors
    /// As [`Pattern::try_new`].
    pub(super) fn whole(written: &str) -> Result<Self, Refusal> {
        compile_regex(written, Regex::config())?; // what is wrong is told of what was written
        let regex = compile_regex(&format!("^(?:{written})$"), config())?;
        Ok(Self { written: written.to_owned(), regex })
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

fn config() -> Config {
    Regex::config().hybrid_cache_capacity(REGEX_CACHE_BYTES_MIN)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_sees_every_byte() {
        for (written, text) in [
            ("^.*passwd$", &b"\netc/passwd"[..]),
            ("^.*passwd$", b"\xffetc/passwd"),
            ("^[^;]*passwd$", b"\xff\xc3\n/passwd"),
            (r"^\W*passwd", b"\xff\npasswd"),
            (r"\S\D.passwd", b"\x80\x80\x00passwd"),
            ("^caf\u{e9}.$", b"caf\xc3\xa9\xfe"),
            ("(?i)PASSWD", b"\xffpassWd\xff"),
            (r"(?u:^\pL+)\xff$", b"caf\xc3\xa9\xff"),
        ] {
            let pattern = Pattern::try_new(written).unwrap();
            assert!(pattern.is_match(text, &mut pattern.cache()), "{written}: {text:?}");
        }
        let help = Pattern::try_new(r"\pL").unwrap_err().help.unwrap();
        assert!(help.contains("(?u:"), "{help}");
    }

    #[test]
    fn what_must_match_whole_is_one_line_of_utf8() {
        let pattern = Pattern::whole(".*\\.example").unwrap();
        for (text, is_it) in
            [(&b"a.example"[..], true), (b"a.example.org", false), (b"\xff.example", false), (b"a\n.example", false)]
        {
            assert_eq!(pattern.is_match(text, &mut pattern.cache()), is_it, "{text:?}");
        }
    }
}
