//! Faults one after the other, under load: nothing of a worker that failed may stay.
//!
//! What a process holds can only be told for a process that does nothing else, so this program starts itself once more for each driver.
//! `RINGGATE_FAULTS` is the number of faults of each kind.

use super::*;
use crate::policy::client_slots::Taken;
use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CHILD: &str = "control::crew::tests::faults::what_a_child_does";
const DRIVER: &str = "RINGGATE_FAULTS_DRIVER";
const NUMBER: &str = "RINGGATE_FAULTS";
/// Faults of each kind, unless told otherwise.
const FAULTS: usize = 20;
/// A stall takes this long to be believed: there are so many times fewer of them, unless told otherwise.
const STALL: Duration = Duration::from_millis(1_500);
const STALLS_SHARE: usize = 10;
const CLIENTS: usize = 2;
/// More than a tenth of what one worker holds, times the number of faults.
const GROWTH: u64 = 16 << 20;
const KEYS: &str = "max_connections = 1_000\nmax_connections_per_client = 100";
const GATE: usize = 3;
/// Answers that a client of the other worker gets before the first fault.
const NEIGHBOUR_IN_PEACE: usize = 2_000;
/// Latencies of the neighbour that are kept, the newest ones: it shares this process, so what it keeps counts as resident too.
const NEIGHBOUR_KEEPS: usize = 1 << 16;

#[test]
fn nothing_stays_of_workers_that_failed() {
    for driver in DRIVERS {
        let child = process::Command::new(env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
            .env(DRIVER, driver)
            .output()
            .unwrap();
        let (said, complained) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert!(child.status.success() && said.contains("1 passed"), "{driver}: {said}\n{complained}");
        said.lines().filter(|line| line.contains("faults")).for_each(|line| println!("{driver}: {line}"));
    }
}

/// Nothing, unless it is asked for by [`nothing_stays_of_workers_that_failed`].
#[test]
fn what_a_child_does() {
    let Ok(driver) = env::var(DRIVER) else { return };
    let told = env::var(NUMBER).ok().map(|number| number.parse().unwrap());
    let faults = told.unwrap_or(FAULTS);
    let before = Held::now();
    let mut staffed = Staffed::start_with(&driver, KEYS);
    staffed.crew.stall = STALL;
    let shared = Arc::clone(staffed.crew.shared());
    let load = Load::start(staffed.address);
    // what is allocated once, and the allocator's own
    for way in [Way::Panic, Way::Break, Way::Stall { gate: GATE }] {
        staffed.suffer(way);
    }
    let begun = Held::now();
    let neighbour = Neighbour::start(staffed.client_of(1));
    staffed
        .look_without_client_until("the neighbour was served in peace", |_| neighbour.served() >= NEIGHBOUR_IN_PEACE);
    neighbour.tell("in peace");
    for (way, faults) in
        [(Way::Panic, faults), (Way::Break, faults), (Way::Stall { gate: GATE }, told.unwrap_or(FAULTS / STALLS_SHARE))]
    {
        for _ in 0..faults {
            staffed.suffer(way);
        }
        println!("{faults} faults ({way:?}): {:?}, before them {begun:?}", Held::now());
        neighbour.tell("beside these faults");
    }
    neighbour.end();
    load.end();
    staffed.drain();

    assert_eq!(shared.connection_slots[0].held(), 0, "every slot of the listener was given back");
    let slots = shared.client_slots[0].as_ref().unwrap();
    let all = (0..100).filter(|_| matches!(slots.acquire(IpAddr::V4(Ipv4Addr::LOCALHOST)), Taken::Slot(_))).count();
    assert_eq!(all, 100, "every slot of the client was given back");
    drop(shared);
    let deadline = clock::now() + PATIENCE;
    loop {
        // the kernel closes what a ring held a moment after the ring
        let after = Held::now();
        if after.descriptors <= before.descriptors && after.locked <= before.locked {
            break assert!(after.resident < begun.resident + GROWTH, "{after:?} after {begun:?}");
        }
        assert!(clock::now() < deadline, "{after:?}, and before {before:?}");
        std::thread::yield_now();
    }
}

impl Staffed {
    /// Has worker 0 fail, and returns when it is replaced and gone. On a busy machine one that only had no turn may be taken for one that
    /// stalled, and replaced as well.
    fn suffer(&mut self, way: Way) {
        let restarts = self.restarts()[0];
        let stalls = matches!(way, Way::Stall { .. });
        let victim = self.crew.posts[0].holder.as_ref().unwrap().thread.thread().clone();
        failing::close(GATE);
        self.order(0, way);
        self.look_without_client_until("worker 0 is replaced", |s| s.restarts()[0] > restarts);
        if stalls {
            failing::open(GATE, &victim);
        }
        self.look_without_client_until("who failed is gone", |s| s.crew.leavers.is_empty());
    }

    fn look_without_client_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = clock::now() + PATIENCE;
        while !done(self) {
            assert!(clock::now() < deadline, "{what}");
            self.crew.look(clock::now());
            std::thread::yield_now();
        }
    }
}

/// What the process has of the system.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    /// Bytes.
    resident: u64,
    /// Bytes.
    locked: u64,
}

impl Held {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let bytes = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
        };
        Self {
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            resident: bytes("VmRSS:"),
            locked: bytes("VmLck:"),
        }
    }
}

/// How long answers took; the newest of them.
struct Took {
    newest: Vec<Duration>,
    answers: usize,
}

impl Took {
    fn none() -> Self {
        Self { newest: Vec::with_capacity(NEIGHBOUR_KEEPS), answers: 0 }
    }

    fn push(&mut self, took: Duration) {
        let place = self.answers % NEIGHBOUR_KEEPS;
        match self.newest.get_mut(place) {
            Some(oldest) => *oldest = took,
            None => self.newest.push(took),
        }
        self.answers += 1;
    }
}

/// A client of worker 1, which fails only when the machine is so busy that it is taken for stalled. How long its answers take is told, and
/// not judged: this is no place for a measurement that must hold everywhere.
struct Neighbour {
    stop: Arc<AtomicBool>,
    took: Arc<Mutex<Took>>,
    client: std::thread::JoinHandle<()>,
}

impl Neighbour {
    fn start(client: Client) -> Self {
        let (stop, took) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Took::none())));
        let (stopped, taken, mut stream) = (Arc::clone(&stop), Arc::clone(&took), client.0);
        let client = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let began = clock::now();
                if ask(&mut stream).is_none() {
                    return;
                }
                taken.lock().unwrap().push(clock::now().since(began));
            }
        });
        Self { stop, took, client }
    }

    fn served(&self) -> usize {
        self.took.lock().unwrap().answers
    }

    /// Of those since the last time.
    fn tell(&self, when: &str) {
        let Took { mut newest, answers } = std::mem::replace(&mut *self.took.lock().unwrap(), Took::none());
        newest.sort_unstable();
        let rank = |percent: usize| newest.get(newest.len() * percent / 100).copied().unwrap_or_default();
        println!(
            "faults: a neighbour {when}: {answers} answers, p50 {:?}, p99 {:?} (no faults of its own)",
            rank(50),
            rank(99)
        );
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().unwrap();
    }
}

/// Clients that are served, or see an end; none of them ever waits in vain.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..CLIENTS).map(|_| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    ask_until_it_ends(address, &stop, &answers);
                }
            })
        });
        Self { clients: clients.collect(), stop, answers }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        assert!(self.answers.load(Ordering::Relaxed) > 0);
    }
}

fn ask_until_it_ends(address: SocketAddr, stop: &AtomicBool, answers: &AtomicU64) {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while !stop.load(Ordering::Relaxed) && ask(&mut stream).is_some() {
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// One GET; `None` when the connection has ended instead.
fn ask(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nhello") {
        let mut piece = [0; 512];
        match stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(received) => answer.extend_from_slice(&piece[..received]),
            Err(error) => {
                let hangs = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(!hangs, "an answer or an end comes");
                return None;
            }
        }
    }
    Some(())
}
