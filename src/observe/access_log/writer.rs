//! The log's thread: empties the rings, writes lines, and survives full disks, closed pipes and slow readers.
//!
//! Lines gather in a buffer that is written in one piece. What could not be written stays and is tried again at the next turn;
//! while the buffer is full the rings are left alone, so that in the end workers drop and count. A line is never written in two
//! files: when the file is reopened in the middle of a line, the new file gets that line from its start.
//!
//! The thread waits at most 50 ms, and not at all while a ring is half full. It may block in a write (standard output that nobody
//! reads): that is why it is a thread of its own, and why [`AccessLogThread::stop`] gives up after a while. A file is opened
//! without waiting for anybody, so that a named pipe that nobody reads yet hangs nothing: it is tried again, once a second.
//!
//! A record has the ids of the generation that it comes from, and each generation its own formatter, which is dropped once that has ended
//! and its last record is written.
//!
//! What goes wrong is counted, and said when it begins, once a minute while it lasts, and when it is over.

use super::format::Formatter;
use super::record::LogRecord;
use super::ring::{LogRing, LogSender};
use crate::config::{AccessLog, Config, LogPath};
use crate::limits;
use crate::observe::stats::{ControlStats, Stats};
use crate::units::ClusterId;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The longest that a line waits in its ring while the writer keeps up.
const TURN: Duration = Duration::from_millis(50);
/// Turns between two tries to open a named pipe that nobody reads: a second.
const TURNS_TO_OPEN: u32 = 20;
/// Turns between two lines about a log that cannot be written: a minute.
const TURNS_TO_COMPLAIN: u32 = 1_200;
/// Turns that the last lines wait for a pipe whose reader is slow: a second and a half.
const TURNS_TO_END: u32 = 30;

/// One ring for each worker that runs, and for each that has ended and left something. A lock, because the control thread adds to it
/// when a worker starts and the log's thread reads it; no worker ever sees it.
#[expect(clippy::disallowed_types, reason = "between two threads that may wait")]
type Rings = Arc<std::sync::Mutex<Vec<Arc<LogRing>>>>;

/// How the records of one generation become lines.
struct Words {
    generation: u64,
    formatter: Formatter,
    /// No more records come.
    is_over: bool,
}

/// Those of all generations that are in use. A lock as that of [`Rings`].
#[expect(clippy::disallowed_types, reason = "between two threads that may wait")]
type AllWords = Arc<std::sync::Mutex<Vec<Words>>>;

/// An access log: the rings of the workers and the thread that empties them.
pub struct AccessLogThread {
    rings: Rings,
    words: AllWords,
    orders: SyncSender<Order>,
    thread: JoinHandle<()>,
}

/// What the thread can be told.
enum Order {
    Reopen,
    Flush(SyncSender<()>),
    Stop(SyncSender<()>),
}

impl AccessLogThread {
    /// Opens the log and starts the thread, for the records of generation 1, which is that of `config`.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the thread not started.
    pub fn start(config: &Arc<Config>, log: &AccessLog, stats: &Arc<Stats>) -> io::Result<Self> {
        let thread = Self::open(log, stats)?;
        thread.begin(1, config, log);
        Ok(thread)
    }

    /// Opens the log and starts the thread.
    ///
    /// # Errors
    /// As [`AccessLogThread::start`].
    pub fn open(log: &AccessLog, stats: &Arc<Stats>) -> io::Result<Self> {
        let (rings, words) = (Rings::default(), AllWords::default());
        let writer = Writer {
            rings: Arc::clone(&rings),
            words: Arc::clone(&words),
            output: Output::new(log.path.clone(), open(&log.path)?),
            stats: Arc::clone(&stats.control),
            failing: 0,
        };
        let (orders, inbox) = sync_channel(16);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run(&inbox))?;
        Ok(Self { rings, words, orders, thread })
    }

    /// Records of a generation will come, whose ids are rows of `config`, and are to be written as `log` says.
    pub fn begin(&self, generation: u64, config: &Config, log: &AccessLog) {
        let formatter = Formatter::new(config, log);
        lock(&self.words).push(Words { generation, formatter, is_over: false });
    }

    /// The same for the generation that comes after `before` and differs from it in the endpoints of these clusters only.
    pub fn follow(&self, before: u64, (generation, config): (u64, &Config), changed: &[ClusterId]) {
        let mut all = lock(&self.words);
        let before = all.iter().rfind(|words| words.generation == before);
        let formatter = before.map(|words| words.formatter.with_endpoints(config, changed));
        all.extend(formatter.map(|formatter| Words { generation, formatter, is_over: false }));
    }

    /// No more records of a generation will come than have been sent.
    pub fn end(&self, generation: u64) {
        lock(&self.words)
            .iter_mut()
            .filter(|words| words.generation == generation)
            .for_each(|words| words.is_over = true);
    }

    /// The sending end for a worker's thread, of a ring of its own: a worker that replaces another shares nothing with it, so that a
    /// stalled one that comes back disturbs nobody. The ring is freed when its sender is gone and all of it is written.
    #[must_use]
    pub fn sender(&self) -> LogSender {
        let ring = LogRing::new();
        lock(&self.rings).push(Arc::clone(&ring));
        LogSender::new(ring)
    }

    /// Asks for the file to be opened anew (SIGUSR1, after a rotation). Does not wait. When the file cannot be opened, the old one
    /// stays in use; the failure is logged and counted as a write error.
    pub fn reopen(&self) {
        // A full queue of orders already holds one to reopen, or the thread is stuck in a write and will not obey anyway.
        let _ = self.orders.try_send(Order::Reopen);
    }

    /// Writes all that workers have sent until now; false when that took longer than `timeout` or failed.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        self.orders.try_send(Order::Flush(done)).is_ok() && wait.recv_timeout(timeout).is_ok()
    }

    /// Writes what is left and ends the thread; false when it is still stuck in a write after `timeout`: it is then left behind.
    /// To be called after the workers have ended.
    #[must_use]
    pub fn stop(self, timeout: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        let told = self.orders.try_send(Order::Stop(done)).is_ok();
        told && wait.recv_timeout(timeout).is_ok() && self.thread.join().is_ok()
    }
}

#[expect(clippy::disallowed_types, reason = "between two threads that may wait")]
fn lock<T>(list: &Arc<std::sync::Mutex<T>>) -> std::sync::MutexGuard<'_, T> {
    // a panic while it is held leaves a list that is whole
    list.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `None`: a named pipe that nobody reads.
fn open(path: &LogPath) -> io::Result<Option<Box<dyn Write + Send>>> {
    let LogPath::File(path) = path else {
        // The descriptor itself: `Stdout` would flush at every line.
        return Ok(Some(Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))));
    };
    // Logs are nobody else's business: no access for others, whatever the umask.
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK);
    match options.open(path) {
        Ok(file) => Ok(Some(Box::new(file))),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The thread's own state.
struct Writer {
    rings: Rings,
    words: AllWords,
    output: Output,
    stats: Arc<ControlStats>,
    /// Turns in a row in which the log could not be written.
    failing: u32,
}

/// Where lines go, and the lines that are not there yet.
struct Output {
    path: LogPath,
    /// `None`: a named pipe that nobody reads.
    sink: Option<Box<dyn Write + Send>>,
    /// Turns without one.
    waiting: u32,
    /// Whole lines.
    pending: Vec<u8>,
    /// Bytes of `pending` that the sink has taken.
    written: usize,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            let busy = self.turn();
            let order = inbox.recv_timeout(if busy { Duration::ZERO } else { TURN });
            match order {
                Ok(Order::Reopen) => self.reopen(),
                Ok(Order::Flush(done)) => {
                    if self.drain() {
                        let _ = done.send(());
                    }
                }
                Ok(Order::Stop(done)) => {
                    let waits = |inbox: &Receiver<Order>| inbox.recv_timeout(TURN).is_err();
                    let mut turns = 0;
                    while !self.drain() && self.failing == 0 && turns < TURNS_TO_END && waits(inbox) {
                        turns += 1;
                    }
                    self.count_lost();
                    let _ = done.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Whoever held the handle is gone without stopping: write what there is.
                Err(RecvTimeoutError::Disconnected) => {
                    self.drain();
                    return;
                }
            }
        }
    }

    /// Formats what fits and writes it; true when it should be called again at once.
    fn turn(&mut self) -> bool {
        let crowded = {
            let mut rings = lock(&self.rings);
            // once its sender is gone (nobody else has the ring), nothing comes any more
            rings.retain_mut(|ring| Arc::get_mut(ring).is_none() || ring.waiting() > 0);
            rings.iter().any(|ring| ring.is_half_full())
        };
        self.gather();
        let wrote = self.write();
        crowded && wrote
    }

    /// Writes until rings and buffer are empty; false when the output does not take it.
    fn drain(&mut self) -> bool {
        loop {
            self.gather();
            if self.output.pending.is_empty() {
                return true;
            }
            if !self.write() {
                return false;
            }
        }
    }

    /// Moves records from the rings into the buffer, as lines, until it is full.
    fn gather(&mut self) {
        let mut packed = Vec::new();
        let mut all = lock(&self.words);
        for ring in lock(&self.rings).iter() {
            while self.output.pending.len() < limits::LOG_PENDING_BYTES && ring.pop(&mut packed) {
                let mut tried = super::record::Tries::default();
                let record = LogRecord::unpack(&packed, &mut tried);
                let words =
                    record.as_ref().and_then(|it| all.iter_mut().rfind(|words| words.generation == it.generation));
                match record.zip(words) {
                    Some((record, words)) => words.formatter.line(&record, &mut self.output.pending),
                    // Only a defect of ours makes such a record; the log goes on without it.
                    None => {
                        self.stats.log_lines_lost.fetch_add(1, Relaxed);
                    }
                }
            }
        }
        // what was over when this began has nothing left in the rings, if they are empty
        if self.output.pending.len() < limits::LOG_PENDING_BYTES {
            all.retain(|words| !words.is_over);
        }
    }

    fn write(&mut self) -> bool {
        let (lines, result) = self.output.write();
        self.stats.log_lines_written.fetch_add(lines, Relaxed);
        match &result {
            // a pipe whose reader is slow
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                self.stats.log_write_errors.fetch_add(1, Relaxed);
                if self.failing.is_multiple_of(TURNS_TO_COMPLAIN) {
                    let path = &self.output.path;
                    tracing::warn!(
                        "the access log cannot be written, lines wait and are then dropped: {path}: {error}"
                    );
                }
                self.failing = self.failing.wrapping_add(1);
            }
            Ok(()) if self.failing > 0 => {
                tracing::info!("the access log is written again: {}", self.output.path);
                self.failing = 0;
            }
            Ok(()) => {}
        }
        result.is_ok()
    }

    fn reopen(&mut self) {
        // What the old file still takes is written there.
        self.write();
        match open(&self.output.path) {
            Ok(sink) => self.output.replace_sink(sink),
            Err(error) => {
                self.stats.log_write_errors.fetch_add(1, Relaxed);
                let path = &self.output.path;
                tracing::warn!("the access log cannot be opened anew, the old file stays in use: {path}: {error}");
            }
        }
    }

    /// Counts what the output did not take, and what is behind that in the rings; says so, as nobody can ask for metrics any more.
    fn count_lost(&self) {
        let mut lost = count_lines(&self.output.pending[self.output.written..]);
        let mut packed = Vec::new();
        for ring in lock(&self.rings).iter() {
            while ring.pop(&mut packed) {
                lost += 1;
            }
        }
        self.stats.log_lines_lost.fetch_add(lost, Relaxed);
        if lost > 0 {
            tracing::warn!(
                "the access log ends without its last lines, which its file does not take: lost lines={lost}"
            );
        }
    }
}

impl Output {
    fn new(path: LogPath, sink: Option<Box<dyn Write + Send>>) -> Self {
        Self { path, sink, waiting: 0, pending: Vec::new(), written: 0 }
    }

    /// Writes what is pending: how many lines were completed, and whether the sink took all of it.
    fn write(&mut self) -> (u64, io::Result<()>) {
        let before = self.written;
        let result = self.write_pending();
        let lines = count_lines(&self.pending[before..self.written]);
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        (lines, result)
    }

    fn write_pending(&mut self) -> io::Result<()> {
        while self.written < self.pending.len() {
            self.look_for_reader()?;
            let Some(sink) = &mut self.sink else {
                return Err(io::Error::other("nobody reads the named pipe"));
            };
            match sink.write(&self.pending[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tries to open a named pipe that nobody has read, now and then.
    fn look_for_reader(&mut self) -> io::Result<()> {
        if self.sink.is_none() {
            if self.waiting.is_multiple_of(TURNS_TO_OPEN) {
                self.sink = open(&self.path)?;
            }
            self.waiting = self.waiting.wrapping_add(1);
        }
        Ok(())
    }

    /// Goes on in another file, with the line that the old one has no end of.
    fn replace_sink(&mut self, sink: Option<Box<dyn Write + Send>>) {
        self.sink = sink;
        let line_start = self.pending[..self.written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.pending.drain(..line_start);
        self.written = 0;
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "the test looks at what another thread writes")]
mod tests {
    use super::super::record::tests::full;
    use super::*;
    use crate::config::LogFormat;
    use crate::observe::fixture;
    use std::sync::Mutex;

    /// A sink that takes at most `room` bytes, then fails until it is given more.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn with_room(room: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), room))))
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (taken, room) = &mut *self.0.lock().unwrap();
            let n = bytes.len().min(*room);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            taken.extend_from_slice(&bytes[..n]);
            *room -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer(sink: &Disk) -> (Writer, LogSender) {
        let config = fixture::config();
        let stats = Stats::new(&config, 1);
        let ring = LogRing::new();
        let output = Output::new(LogPath::Stdout, Some(Box::new(sink.clone())));
        let (path, format) = (LogPath::Stdout, LogFormat::Combined);
        let formatter = Formatter::new(&config, &AccessLog { path, format, redact: Vec::new(), fields: Vec::new() });
        let words = Arc::new(Mutex::new(vec![Words { generation: 1, formatter, is_over: false }]));
        let (rings, stats) = (Arc::new(Mutex::new(vec![Arc::clone(&ring)])), Arc::clone(&stats.control));
        (Writer { rings, words, output, stats, failing: 0 }, LogSender::new(ring))
    }

    fn send(sender: &LogSender, n: u64) {
        assert!(sender.send(&LogRecord { request_bytes: n, ..full() }));
    }

    fn assert_whole_lines(text: &str, numbers: std::ops::Range<u64>) {
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len() as u64, numbers.end - numbers.start, "{text}");
        for (line, n) in lines.iter().zip(numbers) {
            assert!(line.starts_with("2001:db8::1 - - ") && line.contains(&format!(" request_bytes={n} ")), "{line}");
        }
    }

    #[test]
    fn a_full_disk_loses_nothing_once_it_has_room_again() {
        let disk = Disk::with_room(500);
        let (mut writer, sender) = writer(&disk);
        (0..10).for_each(|n| send(&sender, n));
        writer.turn();
        writer.turn();
        assert_eq!(disk.text().len(), 500);
        assert_eq!(writer.stats.log_write_errors.load(Relaxed), 2);
        disk.0.lock().unwrap().1 = usize::MAX;
        assert!(writer.drain());
        assert_whole_lines(&disk.text(), 0..10);
        assert_eq!(writer.stats.log_lines_written.load(Relaxed), 10);
    }

    #[test]
    fn a_line_torn_by_a_reopened_file_is_written_whole_into_the_new_one() {
        let (old, new) = (Disk::with_room(600), Disk::with_room(usize::MAX));
        let (mut writer, sender) = writer(&old);
        (0..10).for_each(|n| send(&sender, n));
        writer.turn();
        writer.output.replace_sink(Some(Box::new(new.clone())));
        assert!(writer.drain());
        let whole_in_old = count_lines(old.text().as_bytes());
        assert!(whole_in_old > 0 && !old.text().ends_with('\n'));
        assert_whole_lines(&new.text(), whole_in_old..10);
    }

    #[test]
    fn a_ring_is_kept_until_its_sender_is_gone_and_its_lines_are_written() {
        let disk = Disk::with_room(usize::MAX);
        let (mut writer, sender) = writer(&disk);
        writer.turn();
        assert_eq!(lock(&writer.rings).len(), 1, "it is empty, but its sender lives");
        send(&sender, 0);
        drop(sender);
        writer.turn();
        assert_whole_lines(&disk.text(), 0..1);
        writer.turn();
        assert_eq!(lock(&writer.rings).len(), 0);
    }

    #[test]
    fn memory_stays_bounded_while_nothing_can_be_written() {
        let disk = Disk::with_room(0);
        let (mut writer, sender) = writer(&disk);
        let mut dropped = 0;
        for n in 0..100_000 {
            if n % 100 == 0 {
                assert!(!writer.turn());
            }
            dropped += u64::from(!sender.send(&full()));
        }
        assert!(dropped > 0);
        assert!(writer.output.pending.len() < limits::LOG_PENDING_BYTES + 16 * limits::LOG_FIELD_BYTES_MAX);
        writer.count_lost();
        let lost = writer.stats.log_lines_lost.load(Relaxed);
        assert_eq!(lost + dropped, 100_000, "what waits in the ring is lost too");
    }

    #[test]
    fn the_thread_writes_reopens_and_flushes_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog {
            path: LogPath::File(path.clone()),
            format: LogFormat::Combined,
            redact: Vec::new(),
            fields: Vec::new(),
        };
        let config = fixture::config();
        let stats = Stats::new(&config, 2);
        let thread = AccessLogThread::start(&config, &log, &stats).unwrap();
        let (first, second) = (thread.sender(), thread.sender());
        send(&first, 0);
        assert!(thread.flush(Duration::from_secs(60)));
        assert_whole_lines(&std::fs::read_to_string(&path).unwrap(), 0..1);

        let rotated = folder.path().join("access.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        thread.reopen();
        assert!(thread.flush(Duration::from_secs(60)));
        send(&second, 0);
        assert!(thread.stop(Duration::from_secs(60)));
        assert_whole_lines(&std::fs::read_to_string(&path).unwrap(), 0..1);
        assert_whole_lines(&std::fs::read_to_string(&rotated).unwrap(), 0..1);
        assert_eq!(stats.control.log_lines_written.load(Relaxed), 2);
    }

    #[test]
    fn a_named_pipe_that_nobody_reads_holds_up_nothing_and_gets_its_lines_once_somebody_does() {
        use std::io::Read;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let log = AccessLog {
            path: LogPath::File(path.clone()),
            format: LogFormat::Combined,
            redact: Vec::new(),
            fields: Vec::new(),
        };
        let config = fixture::config();
        let stats = Stats::new(&config, 1);
        let thread = AccessLogThread::start(&config, &log, &stats).unwrap();
        let sender = thread.sender();
        send(&sender, 0);
        assert!(!thread.flush(Duration::from_secs(60)), "nobody reads");
        assert!(stats.control.log_write_errors.load(Relaxed) > 0);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            File::open(path).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        while !thread.flush(Duration::from_secs(60)) {
            std::thread::yield_now();
        }
        assert!(thread.stop(Duration::from_secs(60)));
        assert_whole_lines(&reader.join().unwrap(), 0..1);
    }

    #[test]
    fn what_cannot_be_written_is_said_now_and_then_and_not_at_every_turn() {
        let disk = Disk::with_room(0);
        let (mut writer, sender) = writer(&disk);
        send(&sender, 0);
        (0..3).for_each(|_| assert!(!writer.turn()));
        assert_eq!(writer.failing, 3, "said at the first of them");
        disk.0.lock().unwrap().1 = usize::MAX;
        writer.turn();
        assert_eq!(writer.failing, 0, "said that it is over");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_start() {
        let log = AccessLog {
            path: LogPath::File("/nonexistent/folder/access.log".into()),
            format: LogFormat::Json,
            redact: Vec::new(),
            fields: Vec::new(),
        };
        let config = fixture::config();
        assert!(AccessLogThread::start(&config, &log, &Stats::new(&config, 1)).is_err());
    }
}
