//! A gateway under everything at once, for as long as is asked for: what it holds stays what it was.
//!
//! Keep-alive GETs, clients that leave in the middle of a response, uploads, tunnels, connections for one request, scrapes, rotations of the
//! log; and every ten seconds a worker panics, or its event loop breaks. What a process holds can only be told for one that does nothing
//! else, so this program starts itself once more for the gateway of each driver. `RINGGATE_SOAK_MINUTES` is how long, and then what that
//! process holds has to be flat from the sixth part on; a line of numbers is printed every ten seconds. Without it a few seconds do for
//! everything to happen once.

#![expect(clippy::disallowed_types, reason = "threads of clients wait for the end of the test")]

use super::*;
use crate::control::process;
use crate::units::{ListenerId, WorkerId};
use crate::worker::failing::Way;
use std::env;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex};

const CHILD: &str = "control::supervisor::tests::soak::the_gateway_of_its_own";
/// Driver, address of the service, and the access log, for the child.
const WITH: &str = "RINGGATE_SOAK_WITH";
const MINUTES: &str = "RINGGATE_SOAK_MINUTES";
const BRIEFLY: Duration = Duration::from_secs(12);
/// Between two faults of workers, and then two lines of numbers.
const FAULTS: Duration = Duration::from_secs(10);
const ROTATIONS: Duration = Duration::from_secs(5);
/// Growth between the average of what was early and what was late that is no leak.
const GROWTH: f64 = 1.10;
const BIG: usize = 300_000;
/// What the gateway says of itself.
const COLUMNS: [&str; 6] = ["RSS KiB", "descriptors", "connections", "slots", "threads", "restarts"];
/// So many of them, from the first, have to be flat.
const FLAT: usize = 5;

/// What a client does, again and again.
type Act = fn(SocketAddr) -> io::Result<()>;

/// Tells everybody when it is over; whoever waits between two acts waits here.
#[derive(Default)]
struct End(Mutex<bool>, Condvar);

impl End {
    /// True when it is over.
    fn wait(&self, at_most: Duration) -> bool {
        let over = self.0.lock().unwrap();
        *self.1.wait_timeout_while(over, at_most, |over| !*over).unwrap().0
    }

    fn tell(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[test]
fn a_gateway_under_everything_at_once_holds_what_it_held() {
    let minutes: Option<u32> = env::var(MINUTES).ok().map(|minutes| minutes.parse().unwrap());
    let length = minutes.map_or(BRIEFLY, |minutes| 60 * Duration::from_secs(minutes.into()));
    std::thread::scope(|scope| {
        for driver in ["auto", "epoll"] {
            scope.spawn(move || soak(driver, length, minutes.is_some()));
        }
    });
}

fn soak(driver: &str, length: Duration, is_judged: bool) {
    let (dir, service) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = service.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in service.incoming().flatten() {
            std::thread::spawn(move || serve(connection));
        }
    });
    let mut gateway = Apart::start(driver, address, &dir.path().join("access.log"));
    let (edge, admin) = (gateway.edge, gateway.admin);
    let (end, done) = (End::default(), Done::default());
    let samples = std::thread::scope(|scope| {
        let acts: [(&AtomicU64, u64, SocketAddr, Act); 6] = [
            (&done.kept, 5, edge, keep_alive),
            (&done.left, 20, edge, leave),
            (&done.uploaded, 20, edge, upload),
            (&done.tunnelled, 30, edge, tunnel),
            (&done.reconnected, 5, edge, |edge| once(edge, "/").map(drop)),
            (&done.scraped, 500, admin, |admin| once(admin, "/metrics").map(drop)),
        ];
        for (count, pause, address, act) in acts {
            let end = &end;
            scope.spawn(move || {
                while !end.wait(Duration::from_millis(pause)) {
                    // a worker that broke has dropped its clients; whoever hangs fails
                    match act(address) {
                        Ok(()) => {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert!(!hangs(&error), "{driver}: {error}"),
                    }
                }
            });
        }
        let samples = gateway.watch(driver, length);
        end.tell();
        samples
    });
    gateway.end();
    println!("{driver}: {done:?}");
    assert!(done.all().iter().all(|count| *count > 0), "{driver}: {done:?}");
    if is_judged {
        assert_flat(driver, &samples);
    }
}

/// A gateway in a process of its own, as the one who runs its clients sees it.
struct Apart {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
    edge: SocketAddr,
    admin: SocketAddr,
}

impl Apart {
    fn start(driver: &str, service: SocketAddr, log: &Path) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
            .env(WITH, format!("{driver} {service} {}", log.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let addresses = hear(&mut said, "listens");
        let [edge, admin] = &addresses[..] else { panic!("{addresses:?}") };
        Self { process, edge: edge.parse().unwrap(), admin: admin.parse().unwrap(), said }
    }

    /// Takes down what it holds until `length` is over.
    fn watch(&mut self, driver: &str, length: Duration) -> Vec<Vec<u64>> {
        let (began, mut samples) = (clock::now(), Vec::new());
        println!("{driver}: s, {}", COLUMNS.join(", "));
        while clock::now().since(began) < length {
            let held = hear(&mut self.said, "holds");
            println!("{driver}: {}, {}", clock::now().since(began).as_secs(), held.join(", "));
            samples.push(held.iter().map(|number| number.parse().unwrap()).collect());
        }
        samples
    }

    /// Its end of input is its drain.
    fn end(mut self) {
        drop(self.process.stdin.take());
        hear(&mut self.said, "has ended");
        self.said.for_each(drop);
        assert!(self.process.wait().unwrap().success());
    }
}

/// The rest of the next line that begins with `what`; other lines are the test harness's.
fn hear(said: &mut Lines<BufReader<ChildStdout>>, what: &str) -> Vec<String> {
    let line = said.find_map(|line| line.unwrap().split_once(what).map(|(_, rest)| rest.to_owned()));
    line.unwrap_or_else(|| panic!("ended before it said what it {what}"))
        .split(", ")
        .skip(1)
        .map(str::to_owned)
        .collect()
}

fn hangs(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The process of [`Apart`]; nothing, unless it is asked for. Has workers fail and the log rotated, and says what the process holds.
#[test]
fn the_gateway_of_its_own() {
    let Ok(with) = env::var(WITH) else { return };
    let [driver, service, log] = with.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{with}") };
    let log = Path::new(log);
    let gateway = logging_gateway(driver, service, log);
    let (Bind::Tcp(edge), Bind::Tcp(admin)) = (gateway.addresses()[0].1.clone(), gateway.addresses()[1].1.clone())
    else {
        panic!("TCP addresses")
    };
    println!("listens, {edge}, {admin}");
    let (told, tell) = channel();
    std::thread::spawn(move || io::copy(&mut io::stdin(), &mut io::sink()).map(|_| drop::<Sender<()>>(told)));
    let mut at = clock::now();
    for turn in 0.. {
        let way = if turn % 2 == 0 { Way::Panic } else { Way::Break };
        gateway.wish.send_replace(Wish::Fail(turn / 2 % 2, way));
        at += FAULTS;
        while clock::now() < at {
            if tell.recv_timeout(ROTATIONS.min(at.since(clock::now()))) == Err(RecvTimeoutError::Disconnected) {
                assert_eq!(gateway.drain_and_stop(), Ok(()));
                return println!("has ended");
            }
            std::fs::rename(log, log.with_extension("old")).unwrap();
            gateway.reopen_log();
        }
        println!("holds, {}", what_is_held(&gateway).map(|number| number.to_string()).join(", "));
    }
}

/// As the line of [`COLUMNS`] names them.
fn what_is_held(gateway: &Gateway) -> [u64; COLUMNS.len()] {
    let numbers = process::numbers().unwrap();
    let stats = gateway.stats();
    let connections = stats.listener_parts(ListenerId(0)).touched().map(|it| it.connections.get()).sum();
    let restarts = (0..2).map(|worker| gateway.stats().worker(WorkerId(worker)).restarts).sum();
    let slots = gateway.current().connection_slots[0].held() as u64;
    [numbers.resident_bytes >> 10, numbers.open_descriptors, connections, slots, numbers.threads, restarts]
}

fn logging_gateway(driver: &str, service: &str, log: &Path) -> Gateway {
    let text = format!(
        "[gateway]\nworkers = 2\ndriver = \"{driver}\"\ndrain_timeout = \"5s\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[access_log]\npath = {log:?}\n\
         [[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nmax_connections = 5_000\nmax_connections_per_client = 1_000\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"svc\"\nmax_concurrent = 1_000\n\
         limit = [ {{ rate = \"1000000/s\", burst = 100000, per = \"client_ip\" }} ]\n\
         [upstream.svc]\nendpoints = [{{ address = \"{service}\" }}]\nmax_requests = 1_000\n\
         health_check = {{ path = \"/\", interval = \"1s\" }}\n"
    );
    Gateway::start(config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"))).unwrap()
}

/// How often each has been done.
#[derive(Debug, Default)]
struct Done {
    kept: AtomicU64,
    left: AtomicU64,
    uploaded: AtomicU64,
    tunnelled: AtomicU64,
    reconnected: AtomicU64,
    scraped: AtomicU64,
}

impl Done {
    fn all(&self) -> [u64; 6] {
        [&self.kept, &self.left, &self.uploaded, &self.tunnelled, &self.reconnected, &self.scraped]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

/// The first sixth is for everything to be there; of the rest, the second half is not more than the first.
fn assert_flat(driver: &str, samples: &[Vec<u64>]) {
    let rest = &samples[samples.len() / 6..];
    let (early, late) = rest.split_at(rest.len() / 2);
    for (column, what) in COLUMNS.iter().enumerate().take(FLAT) {
        let average = |samples: &[Vec<u64>]| {
            samples.iter().map(|sample| sample[column] as f64).sum::<f64>() / samples.len() as f64
        };
        let (early, late) = (average(early), average(late));
        println!("{driver}: {what}: {early:.0} early, {late:.0} late");
        assert!(late <= early * GROWTH + 2.0, "{driver}: {what} grows from {early:.0} to {late:.0}");
    }
}

/// One connection of the service: answers, reads what is uploaded, echoes in a tunnel.
fn serve(mut connection: TcpStream) {
    while let Some(head) = read_head(&mut connection) {
        let answered = if head.starts_with("GET /tunnel") {
            connection
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
                .and_then(|()| io::copy(&mut connection.try_clone()?, &mut connection).map(drop))
                .and(Err(io::ErrorKind::UnexpectedEof.into()))
        } else if head.starts_with("GET /big") {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n");
            connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&vec![b'x'; BIG]))
        } else {
            let body = if head.starts_with("POST") { BIG } else { 0 };
            io::copy(&mut (&mut connection).take(body as u64), &mut io::sink())
                .and_then(|_| connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
        };
        if answered.is_err() {
            return;
        }
    }
}

fn read_head(connection: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn request(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n")
}

fn keep_alive(edge: SocketAddr) -> io::Result<()> {
    let mut stream = open(edge)?;
    for _ in 0..50 {
        stream.write_all(request("/", "").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let mut piece = [0; 512];
            match stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                received => answer.extend_from_slice(&piece[..received]),
            }
        }
    }
    Ok(())
}

/// Takes a part of a response and resets the connection, as a close does with what was not read.
fn leave(edge: SocketAddr) -> io::Result<()> {
    let mut stream = open(edge)?;
    stream.write_all(request("/big", "").as_bytes())?;
    stream.read_exact(&mut [0; 1_000])
}

fn upload(edge: SocketAddr) -> io::Result<()> {
    let mut stream = open(edge)?;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BIG}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&vec![b'y'; BIG])?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn tunnel(edge: SocketAddr) -> io::Result<()> {
    let mut stream = open(edge)?;
    stream.write_all(request("/tunnel", "Connection: upgrade\r\nUpgrade: echo\r\n").as_bytes())?;
    if read_head(&mut stream).is_none() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for _ in 0..10 {
        stream.write_all(b"there and back")?;
        stream.read_exact(&mut [0; 14])?;
    }
    Ok(())
}

fn once(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = open(address)?;
    stream.write_all(request(path, "Connection: close\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}
