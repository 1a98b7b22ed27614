//! A process that does not outlive us: see `guard` for how.

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::guard::FAREWELL;
use super::usage::{self, Usage};
use crate::clock;

/// How long a guardian may take to start, on a machine that is busy.
const START: Duration = Duration::from_secs(20);
/// How long the end of a killed process may take to be told.
const DEATH: Duration = Duration::from_secs(10);
/// How long a process that was asked something may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// What is shown of what a process has said, if that is more: lines from its beginning and from its end, out of so many bytes each.
const WORDS_BYTES: u64 = 4096;
const FIRST_WORDS_LINES: usize = 3;
const LAST_WORDS_LINES: usize = 9;
/// Longest line shown, in characters.
const LINE_CHARS_MAX: usize = 400;

/// ringgate-load, where it is not the present program.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says where ringgate-load is, for who uses this library from another program; counts once.
pub fn use_program(path: impl Into<PathBuf>) {
    PROGRAM.get_or_init(|| path.into());
}

/// ringgate-load: the present program, even if its file was replaced, or as [`use_program`] says.
#[must_use]
pub fn this_program() -> &'static Path {
    PROGRAM.get().map_or(Path::new("/proc/self/exe"), PathBuf::as_path)
}

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// What it is called in messages: "upstream 1".
    pub name: String,
    /// A path, or a name on `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Cores that it may run on; empty for all.
    pub cores: Vec<usize>,
    /// Its niceness, -20 to 19; less than ours needs a permission.
    pub nice: Option<i32>,
    /// Its standard input and output are ours to talk to ([`Child::ask`]); else it has no input, and what it prints is among its last words.
    pub talks: bool,
    /// It starts processes of its own, which it ends on SIGTERM.
    pub has_children: bool,
    /// A folder that is removed with it, even if we are killed; its name begins with `ringgate-load-`.
    pub folder: Option<PathBuf>,
}

/// A process cannot be started, or did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("{name} cannot be started: {source}")]
    Start {
        /// Whose name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It has ended.
    #[error("{name} has ended ({how}){words}")]
    Ended {
        /// Whose name.
        name: String,
        /// With what.
        how: Ending,
        /// What it has said ([`Child::last_words`]); may be empty.
        words: String,
    },
    /// It runs, and has not done something in time.
    #[error("{name} did not {what} within {seconds} s{words}")]
    Late {
        /// Whose name.
        name: String,
        /// What is waited for: "listen".
        what: String,
        /// Patience.
        seconds: u64,
        /// What it has said ([`Child::last_words`]); may be empty.
        words: String,
    },
    /// It cannot be told or asked something.
    #[error("{name}: {what}")]
    Refused {
        /// Whose name.
        name: String,
        /// Why.
        what: String,
    },
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody knows: its guardian was killed.
    Unknown,
}

/// A running process. Dropping it asks it to end, and kills it a second later.
pub struct Child {
    name: String,
    guardian: std::process::Child,
    pid: Pid,
    /// Its closing ends the guardian, and with it the process. What is said here is heard by the process, if it talks.
    line: BufReader<UnixStream>,
    reports: BufReader<UnixStream>,
    ending: Option<Ending>,
    words: std::fs::File,
    usage: Usage,
}

impl Child {
    /// Starts it. It may end at once, for instance when there is no such program: who waits for it to become ready asks
    /// [`Child::has_ended`] meanwhile.
    ///
    /// # Errors
    /// The guardian cannot be started, or does not report.
    pub fn start(spec: &Spec) -> Result<Self, Error> {
        let failed = |source| Error::Start { name: spec.name.clone(), source };
        let mut child = Self::spawn(spec).map_err(failed)?;
        let report = child.reports.get_ref().set_read_timeout(Some(START)).and_then(|()| child.report());
        let pid = report.map_err(failed)?.and_then(|line| Pid::from_raw(line.strip_prefix("pid ")?.parse().ok()?));
        let Some(pid) = pid else {
            let source = io::Error::other(format!("its guardian has ended{}", child.last_words()));
            return Err(failed(source));
        };
        child.pid = pid;
        Ok(child)
    }

    fn spawn(spec: &Spec) -> io::Result<Self> {
        let ((line, theirs), (reports, reporter)) = (UnixStream::pair()?, UnixStream::pair()?);
        let words = std::fs::File::from(memfd_create("words", MemfdFlags::CLOEXEC)?);
        let mut command = Command::new(this_program());
        command.arg0("ringgate-load").args(guard_arguments(spec)).arg("--").arg(&spec.program).args(&spec.arguments);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(OwnedFd::from(reporter)));
        // a Ctrl-C is for us first
        command.stderr(Stdio::from(words.try_clone()?)).process_group(0);
        let guardian = command.spawn()?;
        line.set_write_timeout(Some(ANSWER))?;
        Ok(Self {
            name: spec.name.clone(),
            pid: Pid::from_child(&guardian),
            guardian,
            line: BufReader::new(line),
            reports: BufReader::new(reports),
            ending: None,
            words,
            usage: Usage::default(),
        })
    }

    /// The process's number; its group has the same. It is nobody else's while this value is there, even when the process has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// How it has ended, if it has; all that it has started has ended then.
    pub fn has_ended(&mut self) -> Option<Ending> {
        if self.ending.is_none() {
            self.await_end(Duration::ZERO);
        }
        self.ending
    }

    /// Sends it a signal; to it alone, not to what it has started.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// Stops it and all that it has started (SIGSTOP): they keep their sockets and do nothing.
    ///
    /// # Errors
    /// They have ended.
    pub fn freeze(&self) -> io::Result<()> {
        Ok(kill_process_group(self.pid, Signal::STOP)?)
    }

    /// Lets them go on (SIGCONT).
    ///
    /// # Errors
    /// They have ended.
    pub fn thaw(&self) -> io::Result<()> {
        Ok(kill_process_group(self.pid, Signal::CONT)?)
    }

    /// Kills it and all that it has started (SIGKILL), and returns when they are gone. The kernel may take a moment longer to close the
    /// sockets of a process that had an io_uring.
    pub fn kill(&mut self) {
        if self.has_ended().is_none() {
            // fails only when all of them have gone already
            let _ = kill_process_group(self.pid, Signal::KILL);
            self.await_end(DEATH);
        }
    }

    /// CPU seconds that it and all that it has started have used since their start; threads of the kernel that work for its io_uring, and
    /// threads and processes that have ended, included.
    pub fn cpu_seconds(&mut self) -> f64 {
        self.usage.cpu(self.pid()).as_secs_f64()
    }

    /// Resident bytes of it and all that it has started; what they share counts for each.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        usage::resident_bytes(self.pid())
    }

    /// Processes that it has started, and theirs, which are alive.
    #[must_use]
    pub fn descendants(&self) -> Vec<u32> {
        super::family::living_descendants(self.pid())
    }

    /// Sends a line to a process that talks, and gives the one with which it answers.
    ///
    /// # Errors
    /// It has ended, or does not answer within ten seconds.
    pub fn ask(&mut self, line: &str) -> Result<String, Error> {
        self.ask_within(ANSWER, line)
    }

    /// The same, with a patience of one's own. Who did not answer in time may do so later and be misunderstood: it is not to be asked again.
    ///
    /// # Errors
    /// It has ended, or does not answer in time.
    pub fn ask_within(&mut self, patience: Duration, line: &str) -> Result<String, Error> {
        // an error shows when the answer is awaited
        let _ = self.line.get_mut().write_all(format!("{line}\n").as_bytes());
        self.listen(patience, &format!("answer {line:?}"))
    }

    /// The next line of a process that talks; `what` it does by saying it is for the error: "listen".
    ///
    /// # Errors
    /// It has ended, or says nothing in time.
    pub fn listen(&mut self, patience: Duration, what: &str) -> Result<String, Error> {
        let mut line = String::new();
        let timeout = self.line.get_ref().set_read_timeout(Some(patience));
        match timeout.and_then(|()| self.line.read_line(&mut line)) {
            Ok(_) if line.ends_with('\n') => {
                line.pop();
                Ok(line)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(self.late(what, patience)),
            // it has ended, or closed its output, which for us is the same
            _ => {
                self.await_end(DEATH);
                Err(self.has_gone())
            }
        }
    }

    /// Waits until `condition` has a value. `what` it is that the process does then is for the error: "listen".
    ///
    /// # Errors
    /// It has ended, or there is no value after `patience`.
    pub fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, Error> {
        self.until_it(what, patience, |_| condition())
    }

    /// The same, for a condition that looks at the process, or tells it something.
    ///
    /// # Errors
    /// As [`Child::until`].
    pub fn until_it<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Error> {
        let mut is_over = false;
        let value = clock::wait_for(patience, || {
            is_over = self.has_ended().is_some();
            if is_over { Some(None) } else { condition(self).map(Some) }
        });
        match value {
            Some(Some(value)) => Ok(value),
            Some(None) => Err(self.has_gone()),
            None => Err(self.late(what, patience)),
        }
    }

    /// What it has said on standard error, each line after a line break; the first and the last lines, if that is much. Empty if it was
    /// silent.
    #[must_use]
    pub fn last_words(&self) -> String {
        let length = self.words.metadata().map_or(0, |data| data.len());
        let lines_from = |start: u64, bytes: u64| -> Vec<String> {
            let mut bytes = vec![0; bytes as usize];
            // it is in memory; what is short was said since
            if self.words.read_exact_at(&mut bytes, start).is_err() {
                return Vec::new();
            }
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().map(|line| line.chars().take(LINE_CHARS_MAX).collect::<String>());
            lines.filter(|line| !line.trim().is_empty()).map(|line| format!("\n  {}", line.trim_end())).collect()
        };
        if length <= WORDS_BYTES {
            let lines = lines_from(0, length);
            if lines.len() <= FIRST_WORDS_LINES + LAST_WORDS_LINES {
                return lines.concat();
            }
            return abridged(&lines, &lines);
        }
        abridged(&lines_from(0, WORDS_BYTES), &lines_from(length - WORDS_BYTES, WORDS_BYTES))
    }

    pub(crate) fn has_gone(&self) -> Error {
        let how = self.ending.unwrap_or(Ending::Unknown);
        Error::Ended { name: self.name.clone(), how, words: self.last_words() }
    }

    fn late(&self, what: &str, patience: Duration) -> Error {
        let (name, what, words) = (self.name.clone(), what.to_owned(), self.last_words());
        Error::Late { name, what, seconds: patience.as_secs(), words }
    }

    /// Waits for the guardian's report of the end.
    fn await_end(&mut self, patience: Duration) {
        let stream = self.reports.get_ref();
        let prepared = match patience {
            Duration::ZERO => stream.set_nonblocking(true),
            _ => stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(patience))),
        };
        self.ending = match prepared.and_then(|()| self.report()) {
            Ok(Some(line)) => Some(Ending::of(&line)),
            Ok(None) => Some(Ending::Unknown),
            Err(_) => None,
        };
    }

    /// The guardian's next line; `None`: there will be none. A line is written at once, so it is never cut by a timeout.
    fn report(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let length = self.reports.read_line(&mut line)?;
        Ok((length > 0).then(|| line.trim_end().to_owned()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.line.get_ref().shutdown(Shutdown::Both);
        let has_gone =
            clock::wait_for(FAREWELL + DEATH, || (!matches!(self.guardian.try_wait(), Ok(None))).then_some(()));
        if has_gone.is_none() {
            // the kernel kills the process with it
            let _ = self.guardian.kill();
            let _ = self.guardian.wait();
        }
    }
}

impl Ending {
    fn of(report: &str) -> Self {
        let mut words = report.split(' ').skip(1);
        match (words.next(), words.next().and_then(|number| number.parse().ok())) {
            (Some("exit"), Some(code)) => Self::Exit(code),
            (Some("signal"), Some(signal)) => Self::Signal(signal),
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("its guardian was killed"),
        }
    }
}

/// The beginning of the first and the end of the last lines.
fn abridged(first: &[String], last: &[String]) -> String {
    let first = &first[..first.len().min(FIRST_WORDS_LINES)];
    let last = &last[last.len().saturating_sub(LAST_WORDS_LINES)..];
    [first.concat(), "\n  …".to_owned(), last.concat()].concat()
}

fn guard_arguments(spec: &Spec) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["guard".into()];
    if !spec.cores.is_empty() {
        let cores: Vec<_> = spec.cores.iter().map(ToString::to_string).collect();
        arguments.extend(["--cores".into(), cores.join(",").into()]);
    }
    if let Some(nice) = spec.nice {
        arguments.extend(["--nice".into(), nice.to_string().into()]);
    }
    if let Some(folder) = &spec.folder {
        arguments.extend(["--folder".into(), folder.into()]);
    }
    arguments.extend(spec.talks.then(|| "--talks".into()));
    arguments.extend(spec.has_children.then(|| "--has-children".into()));
    arguments
}
