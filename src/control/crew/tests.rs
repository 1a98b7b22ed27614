//! Workers that fail on purpose.

#![expect(clippy::disallowed_types, reason = "the test looks at what another thread writes")]

mod faults;
mod reload;

use super::*;
use crate::config::{self, Bind};
use crate::limits::WORKER_LIVES_MAX;
use crate::net::clock;
use crate::observe::stats::Stats;
use crate::policy::descriptors::Fit;
use crate::policy::router::Router;
use crate::units::{ListenerId, RouteId};
use crate::worker::failing::{self, HEADER, Way};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Mutex;

/// Far more than anything here takes: while the machine is too busy to look in time nobody is judged, and that may be as long as other tests take.
const PATIENCE: Duration = Duration::from_secs(240);
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
        Self::start_with(driver, "")
    }

    /// With more keys of the listener.
    fn start_with(driver: &str, keys: &str) -> Self {
        let text = format!(
            "[gateway]\nworkers = 2\ndriver = \"{driver}\"\n\
             [[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n{keys}\n\
             [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"hello\" }}\n"
        );
        let config = Arc::new(config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}")));
        let bound = listener::bind(&config.listeners[0].bind, 0o666, 2).unwrap();
        let Bind::Tcp(address) = bound.address else { panic!("a TCP address") };
        let stats = Stats::new(&config, 2);
        let router = Router::try_new(&config).unwrap();
        let shared = Arc::new(Shared::new(config, router, Arc::clone(&stats), &Fit::WHOLE));
        let sockets = bound.sockets.into_iter().map(|socket| vec![socket]).collect();
        let mut crew = Crew::new(shared, None, sockets, tokio::sync::mpsc::channel(16).0);
        (crew.stall, crew.pause) = (SHORT_STALL, Duration::ZERO);
        let mustered = crew.muster(clock::now()).unwrap();
        crew.begin(mustered).unwrap();
        Self { crew, stats, address, answered: Rc::default() }
    }

    fn accepted(&self, worker: usize) -> u64 {
        let parts = worker * WORKER_LIVES_MAX..(worker + 1) * WORKER_LIVES_MAX;
        let listener = self.stats.listener_parts(ListenerId(0));
        parts.filter_map(|part| listener.get(part)).map(|listener| listener.accepted.get()).sum()
    }

    fn restarts(&self) -> [u64; 2] {
        [0, 1].map(|worker| self.stats.worker(WorkerId(worker)).restarts)
    }

    fn panics(&self) -> [u64; 2] {
        [0, 1].map(|worker| self.stats.lives_of(worker).map(|life| life.event_loop.panics.get()).sum())
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
        // a body of five bytes
        while !read[..read.len().saturating_sub(5)].ends_with(b"\r\n\r\n") {
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
        self.body();
    }

    /// What is answered.
    fn body(&mut self) -> String {
        self.send("");
        let answer = self.receive();
        assert!(answer.starts_with("HTTP/1.1 200 "));
        self.1.set(self.1.get() + 1);
        answer[answer.len() - 5..].to_owned()
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
        staffed.look_until("who stalled ends", &mut bystander, |s| s.crew.leavers.is_empty());
        staffed.answered.set(staffed.answered.get() + 1);
        successor.get();
        let counted = staffed.settled();
        assert!(counted > before);
        assert_eq!(counted, staffed.answered.get(), "also what it finished");
        let connections =
            || staffed.stats.listener_parts(ListenerId(0)).touched().map(|it| it.connections.get()).sum::<u64>();
        assert_eq!(connections(), 2, "those of the bystander and of the successor");
        assert_eq!(staffed.restarts(), [1, 0]);
        staffed.drain();
    }
}

#[test]
fn a_break_of_the_one_who_looks_is_not_held_against_the_workers() {
    let mut staffed = Staffed::start("auto");
    let mut bystander = staffed.client_of(1);
    let start = clock::now();
    // what is seen after a break is old: again and again until the workers have had their time
    for away in [SHORT_STALL / 2, SHORT_STALL, 4 * SHORT_STALL] {
        staffed.crew.look(start);
        for later in [Duration::ZERO, Duration::ZERO, SHORT_STALL / 5] {
            staffed.crew.look(start + away + later);
            assert_eq!(staffed.restarts(), [0, 0], "away for {away:?}");
        }
        staffed.crew.looked = start;
    }
    assert!(staffed.stats.all_workers_running());
    bystander.get();
    staffed.drain();
}

#[test]
fn a_drain_waits_for_who_stalled_and_came_back_and_not_for_who_did_not() {
    for (driver, gate) in DRIVERS.into_iter().zip(2..) {
        for comes_back in [true, false] {
            let mut staffed = Staffed::start_with(driver, "header_timeout = \"10m\"");
            let (mut caught, mut bystander) = (staffed.client_of(0), staffed.client_of(1));
            let stalled = staffed.crew.posts[0].holder.as_ref().unwrap().thread.thread().clone();
            caught.0.write_all(b"GET / HT").unwrap();
            let gate = 2 * gate + usize::from(comes_back);
            staffed.order(0, Way::Stall { gate });
            staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
            let leaver = Arc::clone(&staffed.crew.leavers[0].holder.notice);
            if comes_back {
                failing::open(gate, &stalled);
                staffed.look_until("it comes back", &mut bystander, |_| leaver.is_heard());
            }
            staffed.crew.drain();
            drop(bystander);
            let deadline = clock::now() + PATIENCE;
            let is_finished = |s: &Staffed| s.crew.posts.iter().all(|post| !post.is_held());
            while !is_finished(&staffed) {
                assert!(clock::now() < deadline, "{driver}: the others end");
                std::thread::yield_now();
            }
            assert_eq!(staffed.crew.is_done(), !comes_back, "{driver}: who came back has half a request");
            if comes_back {
                caught.0.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").unwrap();
                assert!(caught.receive().starts_with("HTTP/1.1 200 "), "{driver}");
            } else {
                failing::open(gate, &stalled);
            }
            drop(caught);
            while staffed.crew.leavers.iter().any(|leaver| !leaver.holder.thread.is_finished()) {
                assert!(clock::now() < deadline, "{driver}: it ends");
                std::thread::yield_now();
            }
            assert!(staffed.crew.is_done());
        }
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
    staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
    staffed.drain();
}

#[test]
fn a_crew_of_which_one_cannot_begin_ends_as_a_whole() {
    let mut staffed = Staffed::start("auto");
    let mut served = staffed.client_of(0);
    // as if it had failed after the others had begun
    let (roll, _) = muster::roll();
    let failed = staffed.crew.begin(Mustered(vec![roll]));
    assert!(matches!(failed, Err(NoCrew::Begin(_))));
    assert!(staffed.crew.is_done(), "nobody works");
    served.assert_closed();
}

#[test]
fn a_worker_that_never_began_is_not_said_to_have_panicked() {
    let log = log_of(|| {
        let mut staffed = Staffed::start("auto");
        let mut bystander = staffed.client_of(0);
        let notice = Arc::clone(&staffed.crew.posts[1].holder.as_ref().unwrap().notice);
        notice.give(Reason::Loopless);
        staffed.look_until("worker 1 is replaced", &mut bystander, |s| s.restarts() == [0, 1]);
        assert_eq!(staffed.crew.posts[1].failures, 1);
        staffed.drain();
    });
    assert!(log.contains("worker 1 has no event loop; it is replaced") && !log.contains("panicked"), "{log}");
}

#[test]
fn a_worker_whose_event_loop_breaks_drops_its_clients_and_is_replaced() {
    let mut staffed = Staffed::start("auto");
    let (mut victim, mut bystander) = (staffed.client_of(0), staffed.client_of(1));
    staffed.order(0, Way::Break);
    victim.assert_closed();
    staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
    let mut successor = staffed.client_of(0);
    successor.get();
    staffed.look_until("who broke has ended", &mut bystander, |s| s.crew.leavers.is_empty());
    assert!(staffed.stats.all_workers_running());
    staffed.drain();
}

/// False: the worker was gone before it had read the beginning of the request, and there was nothing to wait for.
fn hears_of_the_end(driver: &'static str) -> bool {
    let mut staffed = Staffed::start_with(driver, "header_timeout = \"10m\"");
    let (mut unfinished, mut bystander) = (staffed.client_of(0), staffed.client_of(1));
    unfinished.0.write_all(b"GET / HT").unwrap();
    staffed.order(0, Way::Panic);
    staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
    let waits = staffed.crew.leavers.len() == 1;
    staffed.crew.drain();
    staffed.crew.tell(|| Command::Cut);
    let deadline = clock::now() + PATIENCE;
    while !staffed.crew.is_done() {
        assert!(clock::now() < deadline, "it waits no longer");
        std::thread::yield_now();
    }
    waits
}

#[test]
fn who_was_replaced_hears_of_the_end() {
    for driver in DRIVERS {
        assert!((0..20).any(|_| hears_of_the_end(driver)), "it waits for the rest of a request");
    }
}
