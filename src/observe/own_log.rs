//! The gateway's own log: lines for the operator, on standard error.
//!
//! Standard error is often a pipe, and who reads it may stop reading or be gone. Neither is a reason to stop serving. So nobody who logs
//! writes: a line is put into a bounded queue, and a thread of the log's own writes it. Only that thread may block, and a write that fails
//! costs it a line. Lines that find no room, or that are not taken, are counted, and the next one that is taken comes with their number.
//!
//! The log belongs to the process, as standard error does: [`start`] is called once, by the command line. Where it was not called (in
//! tests, in the demo) [`say`] does nothing.
//!
//! What this does not do: format, or choose what is worth a line; that is `tracing`'s.

use crate::limits::{OWN_LOG_BYTES_MAX, OWN_LOG_LINES_MAX};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// Between two tries to write to what is not ready, and between two looks whether all is written.
const PAUSE: Duration = Duration::from_millis(5);

static LOG: OnceLock<OwnLog> = OnceLock::new();

/// Has a thread write to standard error from now on what [`say`] is told.
///
/// # Errors
/// No thread can be started.
pub fn start() -> io::Result<()> {
    // a descriptor of its own: the lock of the standard library's handle would be held for as long as a write blocks
    let stderr = io::stderr();
    let own: Box<dyn Write + Send> = match stderr.as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(File::from(descriptor)),
        Err(_) => Box::new(stderr),
    };
    let _ = LOG.set(OwnLog::start(own)?);
    Ok(())
}

/// Logs a line, which ends with its line feed. Neither blocks nor fails.
pub fn say(line: &[u8]) {
    if let Some(log) = LOG.get() {
        log.say(line);
    }
}

/// Waits until everything that was said is written, but not longer than `patience`.
pub fn flush(patience: Duration) {
    if let Some(log) = LOG.get() {
        log.flush(patience);
    }
}

/// Lines that were lost, because standard error did not take them.
#[must_use]
pub fn lines_lost() -> u64 {
    LOG.get().map_or(0, |log| log.numbers.lost.load(Relaxed))
}

/// The queue's end that lines are put into.
struct OwnLog {
    lines: SyncSender<Line>,
    numbers: Arc<Numbers>,
}

struct Line {
    text: Box<[u8]>,
    /// Lines that had been lost when this one was said.
    lost_before: u64,
}

#[derive(Default)]
struct Numbers {
    /// Bytes of lines that were said and are neither written nor lost.
    waiting_bytes: AtomicU64,
    /// Lines.
    lost: AtomicU64,
}

impl OwnLog {
    fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queue) = sync_channel(OWN_LOG_LINES_MAX);
        let numbers = Arc::<Numbers>::default();
        let writer = Writer { sink, numbers: Arc::clone(&numbers), lost_told: 0, is_torn: false };
        thread::Builder::new().name("log".into()).spawn(move || writer.run(&queue))?;
        Ok(Self { lines, numbers })
    }

    fn say(&self, line: &[u8]) {
        let bytes = line.len() as u64;
        let waiting = self.numbers.waiting_bytes.fetch_add(bytes, Relaxed) + bytes;
        let line = || Line { text: line.into(), lost_before: self.numbers.lost.load(Relaxed) };
        if waiting > OWN_LOG_BYTES_MAX || self.lines.try_send(line()).is_err() {
            self.numbers.lost.fetch_add(1, Relaxed);
            self.numbers.waiting_bytes.fetch_sub(bytes, Release);
        }
    }

    fn flush(&self, patience: Duration) {
        for _ in 0..patience.as_nanos() / PAUSE.as_nanos() {
            if self.numbers.waiting_bytes.load(Acquire) == 0 {
                return;
            }
            thread::park_timeout(PAUSE);
        }
    }
}

/// The thread's own state.
struct Writer<W> {
    sink: W,
    numbers: Arc<Numbers>,
    /// Of the lines that were lost, those that the log has told of.
    lost_told: u64,
    /// The last line was written in part.
    is_torn: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self, queue: &Receiver<Line>) {
        loop {
            let line = match queue.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    // nothing is behind those that were lost last
                    self.tell_lost(self.numbers.lost.load(Relaxed));
                    let Ok(line) = queue.recv() else { return };
                    line
                }
            };
            self.tell_lost(line.lost_before);
            if self.write(&line.text).is_err() {
                self.numbers.lost.fetch_add(1, Relaxed);
            }
            self.numbers.waiting_bytes.fetch_sub(line.text.len() as u64, Release);
        }
    }

    /// Says how many lines are missing here, if some are.
    fn tell_lost(&mut self, lost: u64) {
        let missing = lost.saturating_sub(self.lost_told);
        if missing > 0 {
            let line = format!("ringgate: lines of this log were lost, as nobody took them: lines={missing}\n");
            if self.write(line.as_bytes()).is_ok() {
                self.lost_told = lost;
            }
        }
    }

    /// Writes all of it, however long that takes.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_on(b"\n")?;
            self.is_torn = false;
        }
        self.write_on(text)
    }

    fn write_on(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            match self.sink.write(text) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    text = &text[written..];
                    self.is_torn = !text.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // somebody who shares the pipe has made it non-blocking
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "the test looks at what another thread writes")]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// What a sink does with a write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Mood {
        Takes,
        TakesHalf,
        NotNow,
        Fails,
        Blocks,
    }

    #[derive(Clone)]
    struct Sink(Arc<(Mutex<Inside>, Condvar)>);

    /// What it has taken, and what it does with more.
    type Inside = (Vec<u8>, Mood);

    impl Sink {
        fn new(mood: Mood) -> Self {
            Self(Arc::new((Mutex::new((Vec::new(), mood)), Condvar::new())))
        }

        fn set(&self, mood: Mood) {
            self.0.0.lock().unwrap().1 = mood;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let inside = self.0.0.lock().unwrap();
            let mut inside = self.0.1.wait_while(inside, |(_, mood)| *mood == Mood::Blocks).unwrap();
            let taken = match inside.1 {
                Mood::NotNow => return Err(io::ErrorKind::WouldBlock.into()),
                Mood::Fails => return Err(io::ErrorKind::BrokenPipe.into()),
                Mood::TakesHalf => {
                    inside.1 = Mood::Fails;
                    bytes.len() / 2
                }
                Mood::Takes | Mood::Blocks => bytes.len(),
            };
            inside.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(mood: Mood) -> (OwnLog, Sink) {
        let sink = Sink::new(mood);
        (OwnLog::start(sink.clone()).unwrap(), sink)
    }

    fn settle(log: &OwnLog) {
        log.flush(PATIENCE);
        assert_eq!(log.numbers.waiting_bytes.load(Acquire), 0);
    }

    #[test]
    fn who_logs_does_not_wait_for_a_reader_and_the_gap_is_told_where_it_is() {
        let (log, sink) = log(Mood::Blocks);
        let mut said = 0_u64;
        while log.numbers.lost.load(Relaxed) < 10 {
            log.say(format!("{said}\n").as_bytes());
            said += 1;
        }
        assert!(said <= OWN_LOG_LINES_MAX as u64 + 11, "{said} lines are kept");
        log.flush(Duration::from_millis(20));
        assert_eq!(sink.text(), "", "and neither does who ends");
        sink.set(Mood::Takes);
        settle(&log);
        log.say(b"after\n");
        settle(&log);
        let text = sink.text();
        let lines: Vec<_> = text.lines().collect();
        let kept = lines.len() - 2;
        let expected: Vec<_> = (0..kept).map(|n| n.to_string()).collect();
        assert_eq!(lines[..kept], expected);
        assert!(lines[kept].ends_with(&format!("lines={}", said - kept as u64)), "{}", lines[kept]);
        assert_eq!(lines[kept + 1], "after");
    }

    #[test]
    fn long_lines_are_bounded_too() {
        let (log, sink) = log(Mood::Blocks);
        let line = [b'x'; 100_000];
        (0..100).for_each(|_| log.say(&line));
        assert!(log.numbers.waiting_bytes.load(Acquire) <= OWN_LOG_BYTES_MAX);
        assert!(log.numbers.lost.load(Relaxed) >= 100 - OWN_LOG_BYTES_MAX / 100_000);
        sink.set(Mood::Takes);
        settle(&log);
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_one_that_comes_back_hears_how_many() {
        let (log, sink) = log(Mood::TakesHalf);
        (0..3).for_each(|_| log.say(b"lost\n"));
        settle(&log);
        assert_eq!((log.numbers.lost.load(Relaxed), sink.text().as_str()), (3, "lo"));
        sink.set(Mood::Takes);
        log.say(b"heard\n");
        settle(&log);
        let text = sink.text();
        assert!(text.starts_with("lo\nringgate: ") && text.ends_with(" lines=3\nheard\n"), "{text}");
    }

    #[test]
    fn what_is_not_ready_is_waited_for() {
        let (log, sink) = log(Mood::NotNow);
        log.say(b"late\n");
        log.flush(Duration::from_millis(20));
        sink.set(Mood::Takes);
        settle(&log);
        assert_eq!((log.numbers.lost.load(Relaxed), sink.text().as_str()), (0, "late\n"));
    }
}
