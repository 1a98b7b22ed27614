//! A server of names on loopback, over UDP and TCP, whose records a test changes while it runs.

use super::lock;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Types of records (RFC 1035 §3.2.2, RFC 3596, RFC 2782).
const A: u16 = 1;
const SRV: u16 = 33;
/// The longest answer over UDP that says all (RFC 1035 §4.2.1).
const UDP_BYTES_MAX: usize = 512;
/// How often the threads look whether the server is gone.
const LOOK: Duration = Duration::from_millis(20);

/// What is answered when a name is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// These addresses, for so many seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// The same, and nothing at all to who asks for those of the other family.
    AddressesAlone(Vec<Ipv4Addr>),
    /// These services (priority, weight, port, host), for so many seconds.
    Services(Vec<(u16, u16, u16, &'static str)>, u32),
    /// NXDOMAIN.
    NoSuchName,
    /// SERVFAIL.
    Failure,
    /// Nothing at all.
    Silence,
}

/// The server; it ends when it is dropped.
pub(crate) struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    names: Mutex<HashMap<String, Says>>,
    by_udp: AtomicUsize,
    by_tcp: AtomicUsize,
    is_over: AtomicBool,
}

impl Dns {
    /// One that knows no name.
    pub(crate) fn start() -> Self {
        // a port that is free for both
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind("127.0.0.1:0").ok()?;
                let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("a port for both");
        let address = udp.local_addr().expect("bound");
        let shared = Arc::<Shared>::default();
        udp.set_read_timeout(Some(LOOK)).expect("a timeout");
        tcp.set_nonblocking(true).expect("it may be asked whether somebody comes");
        let (one, other) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads =
            vec![std::thread::spawn(move || one.serve_udp(&udp)), std::thread::spawn(move || other.serve_tcp(&tcp))];
        Self { address, shared, threads }
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on.
    pub(crate) fn set(&self, name: &str, says: Says) {
        lock(&self.shared.names).insert(name.to_owned(), says);
    }

    /// `[resolver]` of a gateway that asks this one, with more keys.
    pub(crate) fn resolver(&self, keys: &str) -> String {
        format!("[resolver]\nservers = [\"{}\"]\n{keys}\n\n", self.address)
    }

    /// Questions by UDP and by TCP, so far.
    pub(crate) fn asked(&self) -> (usize, usize) {
        (self.shared.by_udp.load(Ordering::SeqCst), self.shared.by_tcp.load(Ordering::SeqCst))
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve_udp(&self, socket: &UdpSocket) {
        let mut question = [0; 4_096];
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
            self.by_udp.fetch_add(1, Ordering::SeqCst);
            if let Some(mut answer) = self.answer(&question[..length]) {
                if answer.len() > UDP_BYTES_MAX {
                    // the question alone, marked as cut
                    answer.truncate(12 + question_length(&question[12..length]));
                    answer[2] |= 0x02;
                    answer[6..12].fill(0);
                }
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        while !self.is_over.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((stream, _)) => drop(self.converse(stream)),
                // nobody is there: the time of a look is over when UDP would have given up too
                Err(_) => std::thread::park_timeout(LOOK),
            }
        }
    }

    /// Answers one question, which is all that a client has whose first answer was cut.
    fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        self.by_tcp.fetch_add(1, Ordering::SeqCst);
        let Some(answer) = self.answer(&question) else { return Ok(()) };
        stream.write_all(&u16::try_from(answer.len()).expect("short enough").to_be_bytes())?;
        stream.write_all(&answer)
    }

    /// RFC 1035 §4.1; `None`: silence.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let asked = question.get(12..)?;
        let length = question_length(asked);
        let of = u16::from_be_bytes([asked[length - 4], asked[length - 3]]);
        let says = lock(&self.names).get(&name_of(asked)).cloned().unwrap_or(Says::NoSuchName);
        let (code, records): (u8, Vec<(u32, Vec<u8>)>) = match says {
            Says::Silence => return None,
            Says::AddressesAlone(_) if of != A => return None,
            Says::AddressesAlone(list) => (0, list.iter().map(|address| (0, address.octets().to_vec())).collect()),
            Says::Failure => (2, Vec::new()),
            Says::NoSuchName => (3, Vec::new()),
            Says::Addresses(list, ttl) if of == A => {
                (0, list.iter().map(|address| (ttl, address.octets().to_vec())).collect())
            }
            Says::Services(list, ttl) if of == SRV => {
                (0, list.iter().map(|service| (ttl, data_of(*service))).collect())
            }
            // it has records of another type
            Says::Addresses(..) | Says::Services(..) => (0, Vec::new()),
        };
        let mut answer = question[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1]);
        answer.extend(u16::try_from(records.len()).expect("few").to_be_bytes());
        answer.extend([0; 4]);
        answer.extend(&asked[..length]);
        for (ttl, data) in records {
            answer.extend([0xc0, 12]);
            answer.extend(of.to_be_bytes());
            answer.extend([0, 1]);
            answer.extend(ttl.to_be_bytes());
            answer.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }
}

/// Name, type and class.
fn question_length(asked: &[u8]) -> usize {
    let mut at = 0;
    while asked[at] != 0 {
        at += 1 + usize::from(asked[at]);
    }
    at + 5
}

fn name_of(asked: &[u8]) -> String {
    let (mut at, mut labels) = (0, Vec::new());
    while asked[at] != 0 {
        let end = at + 1 + usize::from(asked[at]);
        labels.push(String::from_utf8_lossy(&asked[at + 1..end]).to_lowercase());
        at = end;
    }
    labels.join(".")
}

fn data_of((priority, weight, port, host): (u16, u16, u16, &str)) -> Vec<u8> {
    let mut data: Vec<u8> = [priority, weight, port].iter().flat_map(|number| number.to_be_bytes()).collect();
    for label in host.split('.') {
        data.push(u8::try_from(label.len()).expect("a label"));
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}
