//! Where the configuration comes from: a file, read whole and checked whole, at a start and at each reload.

use crate::config::{self, Config};
use crate::policy::router::{Router, RouterError};
use crate::units::Instant;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When to read a file again that is right and could not be taken into use: an address may be free by then, a worker replaced.
const AGAIN: Duration = Duration::from_secs(10);

/// A configuration's file.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    /// Of the file when this was made, which is before it was first read.
    first: Option<Stamp>,
}

/// Everything that is wrong with a configuration, each with its place; and how many there are in all where that is worth a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Wrong {
    text: String,
    /// One text an error.
    pub errors: Vec<String>,
}

/// A file's state: which file it is, how large, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([u64; 5]);

/// Tells when a file has changed and stands still: who writes it in pieces, or replaces it by another, is waited for.
#[derive(Debug, Default)]
pub(super) struct Watch {
    read: Option<Stamp>,
    seen: Option<Stamp>,
    again: Option<Instant>,
}

impl Watch {
    /// The file was read in this state, for better or worse.
    pub(super) fn on_read(&mut self, stamp: Option<Stamp>) {
        (self.read, self.again) = (stamp, None);
    }

    /// What was read is right, and was not taken into use for a reason that may pass.
    pub(super) fn on_failed(&mut self, now: Instant) {
        self.again = Some(now + AGAIN);
    }

    /// Looks at the file's state now: whether it is to be read anew.
    pub(super) fn look(&mut self, stamp: Option<Stamp>, now: Instant) -> bool {
        let stands_still = std::mem::replace(&mut self.seen, stamp) == stamp;
        let is_due = stamp != self.read || self.again.is_some_and(|again| now >= again);
        stamp.is_some() && stands_still && is_due
    }
}

impl Source {
    /// The file at `path`. To be made before it is read: what changes from now on is to be read anew.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self { path: path.to_owned(), first: stamp(path) }
    }

    /// The state that a start has read it in, or an earlier one.
    pub(super) fn first_stamp(&self) -> Option<Stamp> {
        self.first
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells its state from another; `None` while it cannot be found, as in the middle of a replacement.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        stamp(&self.path)
    }

    /// Reads and checks it. Its routes are compiled too, since all of them together can be more than the gateway takes.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<(Config, Router), Wrong> {
        let config = config::load(&self.path).map_err(|errors| Wrong {
            errors: errors.problems().iter().map(ToString::to_string).collect(),
            text: errors.to_string(),
        })?;
        match Router::try_new(&config) {
            Ok(router) => Ok((config, router)),
            Err(error) => {
                let line = match &error {
                    RouterError::Regex { route, .. } => config::line_of_route(&self.path, route.index()),
                    RouterError::TooManyMethods => None,
                };
                let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                let text = format!("{}{line}: {error}", self.path.display());
                Err(Wrong { errors: vec![text.clone()], text })
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp([
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime().cast_unsigned(),
        found.mtime_nsec().cast_unsigned(),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_a_gateway_starts_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, "one").unwrap();
        let source = Source::file(&path);
        std::fs::write(&path, "another").unwrap();
        let (mut watch, now) = (Watch::default(), Instant::from_nanos(1));
        watch.on_read(source.first_stamp());
        assert_eq!([watch.look(source.stamp(), now), watch.look(source.stamp(), now)], [false, true]);
    }

    #[test]
    fn a_file_is_read_anew_once_it_has_changed_and_stands_still() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::file(&dir.path().join("a.toml"));
        let write = |text: &str| std::fs::write(source.path(), text).unwrap();
        let mut watch = Watch::default();
        write("one");
        watch.on_read(source.stamp());
        let now = Instant::from_nanos(1);
        let look = |watch: &mut Watch| watch.look(source.stamp(), now);
        assert_eq!([look(&mut watch), look(&mut watch)], [false, false], "nothing has changed");
        write("half");
        assert!(!look(&mut watch), "it may go on");
        write("more than half");
        assert_eq!([look(&mut watch), look(&mut watch)], [false, true]);
        watch.on_read(source.stamp());
        assert!(!look(&mut watch), "whatever came of that");
        watch.on_failed(now);
        assert!(!look(&mut watch) && watch.look(source.stamp(), now + AGAIN), "but for what may pass");
        watch.on_read(source.stamp());
        std::fs::remove_file(source.path()).unwrap();
        assert_eq!([look(&mut watch), look(&mut watch)], [false, false], "nothing is there to be read");
        let other = dir.path().join("b.toml");
        std::fs::write(&other, "more than half").unwrap();
        std::fs::rename(other, source.path()).unwrap();
        assert_eq!([look(&mut watch), look(&mut watch)], [false, true], "another file of the same length");
    }
}
