//! Where the configuration comes from: a file, read whole and checked whole, at a start and at each reload.

use crate::config::{self, Config, Followed};
use crate::policy::router::{Router, RouterError};
use crate::units::Instant;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When to read a file again that is right and could not be taken into use: an address may be free by then, a worker replaced.
const AGAIN: Duration = Duration::from_secs(10);

/// How long files are waited for that go on changing. Whoever swaps one of ten thousand certificates every second never stands still;
/// what is read in the middle of a change is refused, or whole.
const RESTLESS: Duration = Duration::from_secs(5);

/// A configuration's file.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    read: Followed,
}

/// Everything that is wrong with a configuration, each with its place; and how many there are in all where that is worth a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Wrong {
    text: String,
    /// One text an error.
    pub errors: Vec<String>,
}

/// Tells when files have changed and stand still: who writes them in pieces, or replaces one by another, is waited for, but not for ever
/// ([`RESTLESS`]).
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// As they were read, for better or worse.
    read: Followed,
    seen: Option<Followed>,
    /// Since when they have been others than those that were read.
    changed: Option<Instant>,
    again: Option<Instant>,
}

impl Watch {
    /// Of a configuration that has been read.
    pub(super) fn of(source: &Source) -> Self {
        Self { read: source.read.clone(), ..Self::default() }
    }

    /// It is about to be read: whatever comes of that, and be it nothing, these files are not read again before one of them changes.
    pub(super) fn on_begin(&mut self) {
        (self.read, self.again, self.changed) = (self.read.now(), None, None);
    }

    /// It was read.
    pub(super) fn on_read(&mut self, source: &Source) {
        (self.read, self.again) = (source.read.clone(), None);
    }

    /// What was read is right, and was not taken into use for a reason that may pass.
    pub(super) fn on_failed(&mut self, now: Instant) {
        self.again = Some(now + AGAIN);
    }

    /// Looks at the files' state now: whether they are to be read anew.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let state = self.read.now();
        let stands_still = self.seen.as_ref() == Some(&state);
        let has_changed = state != self.read;
        self.changed = has_changed.then(|| self.changed.unwrap_or(now));
        let is_restless = self.changed.is_some_and(|since| now >= since + RESTLESS);
        let is_due = has_changed || self.again.is_some_and(|again| now >= again);
        let wanted = state.can_be_read() && (stands_still || is_restless) && is_due;
        self.seen = Some(state);
        wanted
    }
}

impl Source {
    /// The file at `path`.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self { path: path.to_owned(), read: Followed::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and checks it, with all that it names. Its routes are compiled too, since all of them together can be more than the gateway
    /// takes.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&mut self) -> Result<(Config, Router), Wrong> {
        let config;
        (config, self.read) = config::load(&self.path);
        let config = config.map_err(|errors| Wrong {
            errors: errors.problems().iter().map(ToString::to_string).collect(),
            text: errors.to_string(),
        });
        config.and_then(|config| self.compile(config))
    }

    fn compile(&self, config: Config) -> Result<(Config, Router), Wrong> {
        match Router::try_new(&config) {
            Ok(router) => Ok((config, router)),
            Err(error) => {
                let place = match &error {
                    RouterError::Regex { route, .. } => config::place_of_route(&self.path, route.index()),
                    RouterError::TooManyMethods => None,
                };
                let text = format!("{}: {error}", place.unwrap_or_else(|| self.path.display().to_string()));
                Err(Wrong { errors: vec![text.clone()], text })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_a_gateway_starts_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, "one").unwrap();
        let mut source = Source::file(&path);
        assert!(source.load().is_err());
        std::fs::write(&path, "another").unwrap();
        let (mut watch, now) = (Watch::default(), Instant::from_nanos(1));
        watch.on_read(&source);
        assert_eq!([watch.look(now), watch.look(now)], [false, true]);
    }

    #[test]
    fn files_are_read_anew_once_they_have_changed_and_stand_still() {
        let now = Instant::from_nanos(1);
        let dir = tempfile::tempdir().unwrap();
        let mut source = Source::file(&dir.path().join("a.toml"));
        let path = source.path().to_owned();
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let mut watch = Watch::default();
        write("one");
        assert!(source.load().is_err());
        watch.on_read(&source);
        assert_eq!([watch.look(now), watch.look(now)], [false, false], "nothing has changed");
        write("half");
        assert!(!watch.look(now), "it may go on");
        write("more than half");
        assert_eq!([watch.look(now), watch.look(now)], [false, true]);
        assert!(source.load().is_err());
        watch.on_read(&source);
        assert!(!watch.look(now), "whatever came of that");
        watch.on_failed(now);
        assert!(!watch.look(now) && watch.look(now + AGAIN), "but for what may pass");
        watch.on_begin();
        assert!(!watch.look(now + AGAIN), "it hangs, and stays as it is");
        watch.on_read(&source);
        std::fs::remove_file(&path).unwrap();
        assert_eq!([watch.look(now), watch.look(now)], [false, false], "nothing is there to be read");
        let other = dir.path().join("b.toml");
        std::fs::write(&other, "more than half").unwrap();
        std::fs::rename(other, &path).unwrap();
        assert_eq!([watch.look(now), watch.look(now)], [false, true], "another file of the same length");
    }

    #[test]
    fn files_that_never_stand_still_are_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = Source::file(&dir.path().join("a.toml"));
        let mut text = "x".to_owned();
        std::fs::write(source.path(), &text).unwrap();
        assert!(source.load().is_err());
        let (mut watch, mut reads) = (Watch::of(&source), 0);
        let between = RESTLESS / 10;
        for look in 0..40 {
            text.push('x');
            std::fs::write(source.path(), &text).unwrap();
            if watch.look(Instant::from_nanos(1) + between * look) {
                watch.on_begin();
                assert!(source.load().is_err());
                watch.on_read(&source);
                reads += 1;
            }
        }
        // each time it is waited for as long, and no longer
        assert_eq!(reads, 3);
    }

    #[test]
    fn files_that_are_included_or_named_for_a_secret_are_looked_after_too() {
        let now = Instant::from_nanos(1);
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut source = Source::file(&at("main.toml"));
        let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        write("main.toml", "include = [\"*.part\"]\n[[listener]]\nlisten = \"127.0.0.1:80\"\n");
        let secret = at("secret");
        let part = format!(
            "[[route]]\nrespond = {{}}\nresponse_headers = {{ set = {{ x = {{ file = {:?} }} }} }}\n",
            secret.display().to_string()
        );
        write("a.part", &part);
        let mut watch = Watch::default();
        let mut read = |watch: &mut Watch| {
            let loaded = source.load();
            watch.on_read(&source);
            loaded.map_err(|wrong| wrong.to_string())
        };
        assert!(read(&mut watch).unwrap_err().contains("a.part:3:"), "the secret is not there");
        write("secret", "s3cr3t\n");
        assert_eq!([watch.look(now), watch.look(now)], [false, true]);
        assert!(read(&mut watch).is_ok());
        assert_eq!([watch.look(now), watch.look(now)], [false, false]);
        write("b.part", "[admin]\nlisten = 1\n");
        assert_eq!([watch.look(now), watch.look(now)], [false, true], "the pattern means it");
        assert!(read(&mut watch).unwrap_err().contains("b.part:2:10: admin.listen = 1"));
        write("b.part", "[admin]\n");
        assert_eq!([watch.look(now), watch.look(now)], [false, true], "what was wrong with it is mended");
        assert!(read(&mut watch).is_ok());
        write("secret", "another\n");
        assert_eq!([watch.look(now), watch.look(now)], [false, true]);
    }
}
