//! The crew: one thread per worker, replaced when it panics or stalls.
//!
//! The listening sockets belong to the crew, the workers get duplicates. So when a worker is gone, connections wait in the kernel's
//! queue for its successor instead of being reset, and no other worker notices.
//!
//! A worker of which a task has panicked says so by retiring: it finishes the connections that it has while its successor takes the
//! new ones. A worker that has stalled cannot be ended from outside; it is marked as retired, and does the same if it ever goes on.

use crate::limits;
use crate::net::driver::Step;
use crate::net::{listener, mailbox};
use crate::observe::access_log::AccessLogThread;
use crate::observe::labels::WorkerState;
use crate::units::{Instant, WorkerId};
use crate::worker::{self, Command, Seat, Shared};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

/// Restarts of one worker are this far apart at least, so that one that cannot run does not burn its core.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// All workers.
pub(super) struct Crew {
    shared: Arc<Shared>,
    log: Option<Arc<AccessLogThread>>,
    posts: Vec<Post>,
    /// Who has been replaced and still finishes what it has.
    leavers: Vec<Leaver>,
    draining: bool,
    /// When they were last looked at.
    looked: Instant,
    /// [`limits::STALL`], but for tests.
    stall: Duration,
    /// [`RESTART_PAUSE`], but for tests.
    pause: Duration,
}

/// One worker's place, whoever holds it.
struct Post {
    id: WorkerId,
    /// One per listener.
    sockets: Vec<OwnedFd>,
    holder: Option<Holder>,
    /// When a holder was last put here.
    filled: Instant,
}

struct Leaver {
    thread: JoinHandle<()>,
    /// It may never go on; nobody waits for it.
    stalled: bool,
}

struct Holder {
    thread: JoinHandle<()>,
    mailbox: mailbox::Sender<Command>,
    retired: Arc<AtomicBool>,
}

impl Crew {
    /// Nobody works yet; `sockets[worker][listener]`.
    pub(super) fn new(shared: Arc<Shared>, log: Option<Arc<AccessLogThread>>, sockets: Vec<Vec<OwnedFd>>) -> Self {
        let post = |(index, sockets)| Post {
            id: WorkerId::from_index(index),
            sockets,
            holder: None,
            filled: Instant::default(),
        };
        let posts = sockets.into_iter().enumerate().map(post).collect();
        Self {
            shared,
            log,
            posts,
            leavers: Vec::new(),
            draining: false,
            looked: Instant::default(),
            stall: limits::STALL,
            pause: RESTART_PAUSE,
        }
    }

    /// Starts every worker and waits until each has its event loop.
    ///
    /// # Errors
    /// A thread could not be started, or its driver is refused.
    pub(super) fn start(&mut self, now: Instant) -> io::Result<Vec<Step>> {
        let (shared, log) = (&self.shared, self.log.as_deref());
        let ready = self.posts.iter_mut().map(|post| post.fill(shared, log, now)).collect::<io::Result<Vec<_>>>()?;
        let steps = ready
            .into_iter()
            .map(|ready| ready.recv().unwrap_or_else(|_| Err(io::Error::other("a worker ended at once"))))
            .collect::<io::Result<Vec<_>>>()?;
        for post in &self.posts {
            self.shared.stats.set_worker_state(post.id, WorkerState::Running);
        }
        Ok(steps)
    }

    /// What the workers share.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Delivers a command to every worker.
    pub(super) fn tell(&self, command: Command) {
        for post in &self.posts {
            let sent = post.holder.as_ref().map(|holder| holder.mailbox.send(command));
            if sent == Some(mailbox::Sent::Full) {
                tracing::warn!("worker {} does not read its mailbox; {command:?} is lost", post.id.index());
            }
        }
    }

    /// Tells every worker to finish what it has and end.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.tell(Command::Drain);
        // without these, the kernel would still accept into queues that nobody empties
        self.posts.iter_mut().for_each(|post| post.sockets.clear());
    }

    /// True when no worker runs any more, except for those that have stalled and were replaced.
    pub(super) fn is_done(&self) -> bool {
        let mut holders = self.posts.iter().filter_map(|post| post.holder.as_ref());
        holders.all(|holder| holder.thread.is_finished())
            && self.leavers.iter().all(|leaver| leaver.stalled || leaver.thread.is_finished())
    }

    /// Replaces who panicked or stalled; in a drain, marks who has ended.
    pub(super) fn look(&mut self, now: Instant) {
        if self.draining {
            for post in self.posts.iter().filter(|post| !post.is_held()) {
                self.shared.stats.set_worker_state(post.id, WorkerState::Stopped);
            }
            return;
        }
        self.leavers.retain(|leaver| !leaver.thread.is_finished());
        // a control thread that was held up too (SIGSTOP, a frozen container or machine) is in no position to judge
        let was_away = now.since(std::mem::replace(&mut self.looked, now)) > self.stall;
        for post in &mut self.posts {
            let stats = &self.shared.stats;
            let held = post.is_held();
            let last_turn = stats.worker(post.id).last_turn.unwrap_or_default().max(post.filled);
            let stalled = held && !was_away && now.since(last_turn) > self.stall;
            if held && !stalled {
                stats.set_worker_state(post.id, WorkerState::Running);
                continue;
            }
            stats.set_worker_state(post.id, if held { WorkerState::Stalled } else { WorkerState::Stopped });
            if now.since(post.filled) < self.pause {
                continue;
            }
            let what = if held { "has stalled" } else { "has panicked" };
            tracing::error!("worker {} {what}; it is replaced, the other workers go on", post.id.index());
            stats.count_worker_restart(post.id);
            if let Some(holder) = post.holder.take() {
                // Relaxed: it is looked at now and then, by a thread that stands still at the moment
                holder.retired.store(true, Ordering::Relaxed);
                self.leavers.push(Leaver { thread: holder.thread, stalled });
            }
            if let Err(error) = post.fill(&self.shared, self.log.as_deref(), now) {
                tracing::error!("worker {} cannot be replaced: {error}", post.id.index());
            }
        }
    }
}

impl Post {
    /// Somebody is here and has not retired.
    fn is_held(&self) -> bool {
        // Relaxed: a worker that retires between two looks is seen by the next
        let works = |holder: &Holder| !holder.thread.is_finished() && !holder.retired.load(Ordering::Relaxed);
        self.holder.as_ref().is_some_and(works)
    }

    fn fill(
        &mut self,
        shared: &Arc<Shared>,
        log: Option<&AccessLogThread>,
        now: Instant,
    ) -> io::Result<Receiver<io::Result<Step>>> {
        self.filled = now;
        let (sender, mailbox) = mailbox::mailbox()?;
        let retired = Arc::new(AtomicBool::new(false));
        let seat = Seat {
            id: self.id,
            sockets: self.sockets.iter().map(listener::duplicate).collect::<io::Result<_>>()?,
            mailbox,
            log: log.map(AccessLogThread::sender),
            retired: Arc::clone(&retired),
        };
        let (ready_sender, ready) = std::sync::mpsc::channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(format!("worker-{}", self.id.index())).spawn(move || {
            worker::run(seat, &shared, |step| {
                let _ = ready_sender.send(step);
            });
        })?;
        self.holder = Some(Holder { thread, mailbox: sender, retired });
        Ok(ready)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "the test looks at what another thread writes")]
mod tests {
    use super::*;
    use crate::config::{self, Bind};
    use crate::net::clock;
    use crate::observe::stats::Stats;
    use crate::policy::router::Router;
    use crate::units::RouteId;
    use crate::worker::failing::{self, HEADER, Way};
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::rc::Rc;
    use std::sync::Mutex;

    /// Far more than anything here takes, far less than a test run waits.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// Several beats, so that a worker on a busy machine is not taken for a stalled one.
    const SHORT_STALL: Duration = Duration::from_secs(3);
    const DRIVERS: [&str; 2] = ["auto", "epoll"];

    /// Two workers whose only route answers by itself.
    struct Staffed {
        crew: Crew,
        stats: Arc<Stats>,
        address: SocketAddr,
        /// Answers that clients have read.
        answered: Rc<Cell<u64>>,
    }

    impl Staffed {
        fn start(driver: &str) -> Self {
            let text = format!(
                "[gateway]\nworkers = 2\ndriver = \"{driver}\"\n[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n\
                 [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"hello\" }}\n"
            );
            let config = Arc::new(config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}")));
            let bound = listener::bind(&config.listeners[0].bind, 0o666, 2).unwrap();
            let Bind::Tcp(address) = bound.address else { panic!("a TCP address") };
            let stats = Stats::new(&config, 2);
            let router = Router::try_new(&config).unwrap();
            let shared = Arc::new(Shared::new(config, router, Arc::clone(&stats), tokio::sync::mpsc::channel(16).0));
            let sockets = bound.sockets.into_iter().map(|socket| vec![socket]).collect();
            let mut crew = Crew::new(shared, None, sockets);
            (crew.stall, crew.pause) = (SHORT_STALL, Duration::ZERO);
            crew.start(clock::now()).unwrap();
            Self { crew, stats, address, answered: Rc::default() }
        }

        fn accepted(&self, worker: usize) -> u64 {
            self.stats.workers[worker].listeners[0].accepted.get()
        }

        fn restarts(&self) -> [u64; 2] {
            [0, 1].map(|worker| self.stats.worker(WorkerId(worker)).restarts)
        }

        fn panics(&self) -> [u64; 2] {
            [0, 1].map(|worker| self.stats.workers[worker].event_loop.panics.get())
        }

        fn counted(&self) -> u64 {
            self.stats.route(Some(RouteId(0))).usage().requests
        }

        /// Requests counted, once everything that was answered is: a worker counts a moment after the client has its answer.
        fn settled(&self) -> u64 {
            let deadline = clock::now() + PATIENCE;
            while self.counted() < self.answered.get() {
                assert!(clock::now() < deadline, "what was answered is counted");
                std::thread::yield_now();
            }
            self.counted()
        }

        /// A connection that this worker has; the kernel deals them out, so it takes a few.
        fn client_of(&self, worker: usize) -> Client {
            let deadline = clock::now() + PATIENCE;
            while clock::now() < deadline {
                let before = self.accepted(worker);
                let mut client = Client::connect(self.address, &self.answered);
                client.get();
                if self.accepted(worker) > before {
                    return client;
                }
            }
            panic!("worker {worker} takes no connections");
        }

        fn order(&self, worker: usize, way: Way) {
            let holder = self.crew.posts[worker].holder.as_ref().unwrap();
            assert_eq!(holder.mailbox.send(Command::Fail(way)), mailbox::Sent::Delivered);
        }

        /// Looks as the control thread does until `done`, while `bystander` is served without a break.
        fn look_until(&mut self, what: &str, bystander: &mut Client, done: impl Fn(&Self) -> bool) {
            let deadline = clock::now() + PATIENCE;
            while !done(self) {
                assert!(clock::now() < deadline, "{what}");
                self.crew.look(clock::now());
                bystander.get();
            }
        }

        fn drain(mut self) {
            self.crew.drain();
            let deadline = clock::now() + PATIENCE;
            while !self.crew.is_done() {
                assert!(clock::now() < deadline, "the workers drain");
                std::thread::yield_now();
            }
        }
    }

    struct Client(TcpStream, Rc<Cell<u64>>);

    impl Client {
        fn connect(address: SocketAddr, answered: &Rc<Cell<u64>>) -> Self {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Self(stream, Rc::clone(answered))
        }

        fn send(&mut self, header: &str) {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n");
            self.0.write_all(request.as_bytes()).unwrap();
        }

        /// The answer's head.
        fn receive(&mut self) -> String {
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\nhello") {
                let mut byte = [0; 512];
                match self.0.read(&mut byte) {
                    Ok(received @ 1..) => read.extend_from_slice(&byte[..received]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&read)),
                }
            }
            String::from_utf8(read).unwrap()
        }

        fn get(&mut self) {
            self.send("");
            assert!(self.receive().starts_with("HTTP/1.1 200 "));
            self.1.set(self.1.get() + 1);
        }

        /// That nothing comes any more.
        fn assert_closed(&mut self) {
            loop {
                match self.0.read(&mut [0]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) => return,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// A log that can be read.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `test` logs on this thread, which is the one that looks.
    fn log_of(test: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, test);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_replacement_is_logged_with_its_reason() {
        let log = log_of(|| {
            let mut staffed = Staffed::start("auto");
            let mut bystander = staffed.client_of(0);
            staffed.order(1, Way::Panic);
            staffed.look_until("worker 1 is replaced", &mut bystander, |s| s.restarts() == [0, 1]);
            staffed.drain();
        });
        assert!(log.contains("ERROR") && log.contains("worker 1 has panicked; it is replaced"), "{log}");
    }

    #[test]
    fn a_worker_that_panics_is_replaced_and_the_other_does_not_notice() {
        for driver in DRIVERS {
            let mut staffed = Staffed::start(driver);
            let (mut victim, mut bystander) = (staffed.client_of(0), staffed.client_of(1));
            staffed.order(0, Way::Panic);
            staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
            assert_eq!(staffed.panics(), [1, 0]);
            victim.assert_closed();
            let mut successor = staffed.client_of(0);
            successor.get();
            staffed.look_until("who panicked ends", &mut bystander, |s| s.crew.leavers.is_empty());
            assert!(staffed.stats.all_workers_running());
            assert_eq!(staffed.restarts(), [1, 0]);
            staffed.drain();
        }
    }

    #[test]
    fn a_worker_that_stalls_is_replaced_and_ends_when_it_comes_back() {
        for (gate, driver) in DRIVERS.into_iter().enumerate() {
            let mut staffed = Staffed::start(driver);
            let (mut caught, mut bystander) = (staffed.client_of(0), staffed.client_of(1));
            let stalled = staffed.crew.posts[0].holder.as_ref().unwrap().thread.thread().clone();
            staffed.order(0, Way::Stall { gate });
            staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
            let mut successor = staffed.client_of(0);
            assert_eq!(staffed.crew.leavers.len(), 1);

            caught.send("");
            let before = staffed.settled();
            failing::open(gate, &stalled);
            let head = caught.receive().to_ascii_lowercase();
            assert!(head.contains("connection: close"), "what it had is finished, and nothing after it: {head}");
            caught.assert_closed();
            assert_eq!(staffed.counted(), before, "the memory is its successor's");
            staffed.look_until("who stalled ends", &mut bystander, |s| s.crew.leavers.is_empty());
            successor.get();
            assert!(staffed.settled() > before);
            assert_eq!(staffed.restarts(), [1, 0]);
            staffed.drain();
        }
    }

    #[test]
    fn a_panic_in_one_connection_ends_only_that() {
        for driver in DRIVERS {
            let mut staffed = Staffed::start(driver);
            let (mut victim, mut neighbour, mut bystander) =
                (staffed.client_of(0), staffed.client_of(0), staffed.client_of(1));
            victim.send(&format!("{HEADER}: now\r\n"));
            victim.assert_closed();
            staffed.look_until("the panic is counted", &mut bystander, |s| s.panics() == [1, 0]);
            neighbour.get();
            staffed.crew.look(clock::now());
            assert_eq!(staffed.restarts(), [0, 0]);
            staffed.drain();
        }
    }

    #[test]
    fn a_worker_is_not_replaced_more_often_than_the_pause_allows() {
        let mut staffed = Staffed::start("auto");
        staffed.crew.pause = Duration::from_secs(3_600);
        let mut bystander = staffed.client_of(1);
        staffed.order(0, Way::Panic);
        staffed.look_until("worker 0 has stopped", &mut bystander, |s| !s.stats.all_workers_running());
        staffed.crew.look(clock::now());
        assert_eq!(staffed.restarts(), [0, 0]);
        staffed.crew.look(clock::now() + Duration::from_secs(3_601));
        assert!(staffed.restarts()[0] == 1);
        staffed.drain();
    }
}
