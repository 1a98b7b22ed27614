//! A gateway under everything at once, for as long as is asked for: what it holds stays what it was.
//!
//! Keep-alive GETs, clients that leave in the middle of a response, uploads, tunnels, connections for one request, scrapes, rotations of the
//! log; and every ten seconds a worker panics, or its event loop breaks. `RINGGATE_SOAK_MINUTES` is how long, and then what the process holds
//! has to be flat from the sixth part on; a line of numbers is printed every ten seconds. Without it a few seconds do for everything to
//! happen once, and nothing is said of memory: other tests run in the same process.

#![expect(clippy::disallowed_types, reason = "threads of clients wait for the end of the test")]

use super::*;
use crate::control::process;
use crate::worker::failing::Way;
use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

const BRIEFLY: Duration = Duration::from_secs(12);
/// Between two faults of workers.
const FAULTS: Duration = Duration::from_secs(10);
const SAMPLES: Duration = Duration::from_secs(10);
/// Growth between the average of what was early and what was late that is no leak.
const GROWTH: f64 = 1.10;
const BIG: usize = 300_000;

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
    let minutes: Option<u32> = env::var("RINGGATE_SOAK_MINUTES").ok().map(|minutes| minutes.parse().unwrap());
    let (length, dir) =
        (minutes.map_or(BRIEFLY, |minutes| 60 * Duration::from_secs(minutes.into())), tempfile::tempdir().unwrap());
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in service.incoming().flatten() {
            std::thread::spawn(move || serve(connection));
        }
    });
    let log = dir.path().join("access.log");
    let gateway = logging_gateway(address, &log);
    let (Bind::Tcp(edge), Bind::Tcp(admin)) = (gateway.addresses()[0].1.clone(), gateway.addresses()[1].1.clone())
    else {
        panic!("TCP addresses")
    };
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
                        Err(error) => assert!(!hangs(&error), "{error}"),
                    }
                }
            });
        }
        let (end, gateway, log) = (&end, &gateway, &log);
        scope.spawn(move || {
            while !end.wait(Duration::from_secs(5)) {
                std::fs::rename(log, log.with_extension("old")).unwrap();
                gateway.reopen_log();
            }
        });
        let samples = watch(gateway, end, length);
        end.tell();
        samples
    });
    println!("{done:?}");
    assert!(done.all().iter().all(|count| *count > 0), "{done:?}");
    if minutes.is_some() {
        assert_flat(&samples);
    }
    assert_eq!(gateway.drain_and_stop(), Ok(()));
}

fn hangs(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn logging_gateway(service: SocketAddr, log: &Path) -> Gateway {
    let text = format!(
        "[gateway]\nworkers = 2\ndrain_timeout = \"5s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[access_log]\npath = {log:?}\n\
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

/// What the process holds at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident: f64,
    descriptors: f64,
    connections: f64,
}

/// Has workers fail and takes samples until `length` is over.
fn watch(gateway: &Gateway, end: &End, length: Duration) -> Vec<Sample> {
    let (began, mut samples, mut fault) = (clock::now(), Vec::new(), 0);
    println!("{:>6} {:>9} {:>5} {:>5} {:>8}", "s", "RSS KiB", "fds", "conns", "restarts");
    while clock::now().since(began) < length {
        let way = if fault % 2 == 0 { Way::Panic } else { Way::Break };
        gateway.wish.send_replace(Wish::Fail(fault / 2 % 2, way));
        fault += 1;
        end.wait(FAULTS.min(SAMPLES).min(length - clock::now().since(began).min(length)));
        let numbers = process::numbers().unwrap();
        let workers = &gateway.stats().workers;
        let connections: u64 = workers.iter().map(|worker| worker.listeners[0].connections.get()).sum();
        let restarts: u64 = (0..2).map(|worker| gateway.stats().worker(crate::units::WorkerId(worker)).restarts).sum();
        samples.push(Sample {
            resident: numbers.resident_bytes as f64,
            descriptors: numbers.open_descriptors as f64,
            connections: connections as f64,
        });
        let kibibytes = numbers.resident_bytes >> 10;
        let seconds = clock::now().since(began).as_secs();
        println!("{seconds:>6} {kibibytes:>9} {:>5} {connections:>5} {restarts:>8}", numbers.open_descriptors);
    }
    samples
}

/// The first sixth is for everything to be there; of the rest, the second half is not more than the first.
fn assert_flat(samples: &[Sample]) {
    let rest = &samples[samples.len() / 6..];
    let (early, late) = rest.split_at(rest.len() / 2);
    for (what, number) in [
        ("resident", (|sample| sample.resident) as fn(&Sample) -> f64),
        ("descriptors", |sample| sample.descriptors),
        ("connections", |sample| sample.connections),
    ] {
        let average = |samples: &[Sample]| samples.iter().map(number).sum::<f64>() / samples.len() as f64;
        let (early, late) = (average(early), average(late));
        println!("{what}: {early:.0} early, {late:.0} late");
        assert!(late <= early * GROWTH + 2.0, "{what} grows from {early:.0} to {late:.0}");
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
