//! The files that a configuration is read from, each in the state in which it was read: what tells whether to read it anew.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file's state: which file it is, how large, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp([u64; 5]);

impl Stamp {
    pub(crate) fn of(found: &Metadata) -> Self {
        Self([
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime().cast_unsigned(),
            found.mtime_nsec().cast_unsigned(),
        ])
    }

    /// `None` while there is no such file, as in the middle of a replacement.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

/// Files of one folder: `conf.d/*.toml`. `*` stands for any characters, `?` for one; a name that begins with a dot is meant only by a pattern
/// that does so too, as in a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    folder: PathBuf,
    name: String,
}

impl Pattern {
    /// `None`: nothing in it stands for anything else, it is one file's path.
    pub(crate) fn try_new(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        name.contains(['*', '?']).then(|| Self { folder: path.with_file_name(""), name: name.to_owned() })
    }

    /// The files that are there, by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name();
            let is_meant =
                |name: &str| name.starts_with('.') == self.name.starts_with('.') && matches(&self.name, name);
            if name.to_str().is_some_and(is_meant) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names.into_iter().map(|name| self.folder.join(name)).collect())
    }
}

/// Whether a name is one that a pattern stands for; in time of the product of their lengths at most.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut here, mut star) = (0, 0, None);
    while here < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[here] => (at, here) = (at + 1, here + 1),
            _ => match star {
                // the last star takes one character more
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, here) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// The files that a configuration was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// By their paths: the first is the one that names all others.
    named: Vec<PathBuf>,
    patterns: Vec<Pattern>,
    seen: BTreeMap<PathBuf, Option<Stamp>>,
}

impl Followed {
    /// A file that was read in this state; `None`: it is not there, or cannot be read.
    pub(crate) fn add(&mut self, path: &Path, stamp: Option<Stamp>) {
        if !self.named.iter().any(|known| known == path) {
            self.named.push(path.to_owned());
        }
        self.seen.insert(path.to_owned(), stamp);
    }

    /// Files of a folder, of which these are there.
    pub(crate) fn add_pattern(&mut self, pattern: Pattern) {
        self.patterns.push(pattern);
    }

    /// One of those.
    pub(crate) fn add_found(&mut self, path: &Path, stamp: Option<Stamp>) {
        self.seen.insert(path.to_owned(), stamp);
    }

    /// The same files as they are now.
    #[must_use]
    pub fn now(&self) -> Self {
        let found = self.patterns.iter().filter_map(|pattern| pattern.files().ok()).flatten();
        let seen = self.named.iter().cloned().chain(found).map(|path| {
            let stamp = Stamp::at(&path);
            (path, stamp)
        });
        Self { named: self.named.clone(), patterns: self.patterns.clone(), seen: seen.collect() }
    }

    /// Whether the file that names all others is there to be read.
    #[must_use]
    pub fn can_be_read(&self) -> bool {
        self.named.first().is_some_and(|main| self.seen.get(main).is_some_and(Option::is_some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, yes, no) in [
            ("*.toml", &["a.toml", ".toml", "a.b.toml"][..], &["a.tom", "atoml", "a.toml~"][..]),
            ("a?c", &["abc", "a\u{e9}c"], &["ac", "abbc"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a", ""]),
            ("**", &["", "a"], &[]),
            ("10-*", &["10-", "10-x"], &["1-x", "x10-"]),
        ] {
            assert!(yes.iter().all(|name| matches(pattern, name)), "{pattern}");
            assert!(!no.iter().any(|name| matches(pattern, name)), "{pattern}");
        }
    }

    #[test]
    fn files_of_a_pattern_come_by_name_without_hidden_ones() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", ".c.toml", "d.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let files = |pattern: &str| Pattern::try_new(&dir.path().join(pattern)).unwrap().files().unwrap();
        assert_eq!(files("*.toml"), [dir.path().join("a.toml"), dir.path().join("b.toml")]);
        assert_eq!(files(".*"), [dir.path().join(".c.toml")]);
        assert!(Pattern::try_new(&dir.path().join("a.toml")).is_none());
        assert!(Pattern::try_new(&dir.path().join("none/*")).unwrap().files().is_err());
    }

    #[test]
    fn what_comes_goes_or_changes_among_the_files_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("main", "");
        write("a.toml", "");
        let mut followed = Followed::default();
        followed.add(&dir.path().join("main"), None);
        followed.add(&dir.path().join("secret"), None);
        followed.add_pattern(Pattern::try_new(&dir.path().join("*.toml")).unwrap());
        let before = followed.now();
        assert!(before.can_be_read() && before == followed.now());
        write("secret", "1");
        let secret = followed.now();
        assert_ne!(secret, before, "it has come");
        write("b.toml", "");
        let more = followed.now();
        assert_ne!(more, secret, "one more is meant by the pattern");
        write("a.toml", "longer");
        assert_ne!(followed.now(), more);
        std::fs::remove_file(dir.path().join("b.toml")).unwrap();
        std::fs::remove_file(dir.path().join("main")).unwrap();
        assert!(!followed.now().can_be_read());
    }
}
