//! A small HTTP service on loopback that can be told to fail: the thing behind the gateway that has a bad day.
//!
//! A thread accepts, a thread serves each connection (the gateway pools them, so there are few). It knows as much HTTP/1.1 as the
//! gateway sends: no chunked requests (411), no pipelining.

use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest request head it reads.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a hanging service takes for an answer.
const HANG: Duration = Duration::from_secs(5);

/// What a service does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Answers 200.
    Well,
    /// Nobody listens, and open connections are cut: the process is gone.
    Gone,
    /// Answers every second request with 503.
    HalfErrors,
    /// Takes requests and answers five seconds later.
    Hanging,
}

/// One service. Its port stays its own while it is gone.
pub(super) struct Service {
    name: &'static str,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<(Arc<TcpListener>, JoinHandle<()>)>,
    /// Bound, never listening: keeps the port while nobody listens, so that connecting is refused.
    _place: Socket,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    requests: u64,
    open: Vec<TcpStream>,
}

impl Service {
    /// Listens on a port that the kernel chooses.
    pub(super) fn start(name: &'static str) -> io::Result<Self> {
        let place = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        place.set_reuse_address(true)?;
        place.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = place.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let state = State { mode: Mode::Well, requests: 0, open: Vec::new() };
        let shared = Arc::new(Shared { name, state: Mutex::new(state), changed: Condvar::new() });
        let mut service = Self { name, address, shared, acceptor: None, _place: place };
        service.listen()?;
        Ok(service)
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens when it does.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves like this from now on.
    pub(super) fn set_mode(&mut self, mode: Mode) -> io::Result<()> {
        self.shared.lock().mode = mode;
        self.shared.changed.notify_all();
        match (mode, self.acceptor.is_some()) {
            (Mode::Gone, _) => self.leave(),
            (_, false) => self.listen()?,
            (_, true) => {}
        }
        Ok(())
    }

    fn listen(&mut self) -> io::Result<()> {
        let listener = Arc::new(TcpListener::bind(self.address)?);
        let (accepting, shared) = (Arc::clone(&listener), Arc::clone(&self.shared));
        let thread =
            std::thread::Builder::new().name(self.name.to_owned()).spawn(move || accept(&accepting, &shared))?;
        self.acceptor = Some((listener, thread));
        Ok(())
    }

    fn leave(&mut self) {
        let Some((listener, thread)) = self.acceptor.take() else { return };
        // wakes the accept; it fails only if the socket is closed already
        let _ = SockRef::from(&*listener).shutdown(Shutdown::Both);
        let _ = thread.join();
        for stream in self.shared.lock().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.lock().mode = Mode::Gone;
        self.shared.changed.notify_all();
        self.leave();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status for one more request, after the wait that its mode asks for.
    fn next_status(&self) -> u16 {
        let mut state = self.lock();
        state.requests += 1;
        if state.mode == Mode::Hanging {
            let waited = self.changed.wait_timeout_while(state, HANG, |state| state.mode == Mode::Hanging);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.mode == Mode::HalfErrors && state.requests.is_multiple_of(2) { 503 } else { 200 }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        let Ok(kept) = stream.try_clone() else { continue };
        {
            let mut state = shared.lock();
            // a connection that has ended has no peer any more
            state.open.retain(|open| open.peer_addr().is_ok());
            state.open.push(kept);
        }
        let shared = Arc::clone(shared);
        // errors end the connection; the gateway's view of that is what the demo shows
        let _ = std::thread::Builder::new().name(shared.name.to_owned()).spawn(move || serve(&stream, &shared));
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = stream;
    let mut unread = Vec::new();
    while let Some(head) = read_head(&mut reader, &mut unread)? {
        let length = match content_length(&head) {
            Some(length) => length,
            None => return respond(stream, shared.name, 411, true),
        };
        let buffered = unread.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        unread.drain(..buffered);
        io::copy(&mut reader.take(length - buffered as u64), &mut io::sink())?;
        respond(stream, shared.name, shared.next_status(), false)?;
    }
    stream.shutdown(Shutdown::Both)
}

/// The next head, without the empty line; `None` at the end of the connection.
fn read_head(reader: &mut impl Read, unread: &mut Vec<u8>) -> io::Result<Option<String>> {
    let mut block = [0; 4096];
    loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = unread.split_off(at + 4);
            let head = std::mem::replace(unread, rest);
            return Ok(Some(String::from_utf8_lossy(&head[..at]).into_owned()));
        }
        if unread.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match reader.read(&mut block)? {
            0 => return Ok(None),
            read => unread.extend_from_slice(&block[..read]),
        }
    }
}

/// The length of the body; `None` when it is chunked.
fn content_length(head: &str) -> Option<u64> {
    let field = |name: &str| {
        head.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    };
    match (field("transfer-encoding"), field("content-length")) {
        (Some(_), _) => None,
        (None, length) => Some(length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)),
    }
}

fn respond(mut stream: &TcpStream, name: &str, status: u16, close: bool) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        411 => "Length Required",
        _ => "Service Unavailable",
    };
    let body = format!("{{\"service\":\"{name}\",\"status\":{status}}}\n");
    let connection = if close { "Connection: close\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{connection}\r\n"
    );
    stream.write_all((head + &body).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(stream: &mut TcpStream) -> io::Result<String> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut bytes = Vec::new();
        let mut block = [0; 512];
        while !bytes.ends_with(b"}\n") {
            match stream.read(&mut block)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => bytes.extend_from_slice(&block[..read]),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn it_goes_and_comes_back_at_the_same_address() {
        let mut service = Service::start("apples").unwrap();
        let mut stream = TcpStream::connect(service.address()).unwrap();
        assert!(ask(&mut stream).unwrap().starts_with("HTTP/1.1 200 OK"));
        service.set_mode(Mode::Gone).unwrap();
        assert!(ask(&mut stream).is_err(), "open connections are cut");
        let refused = TcpStream::connect(service.address()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        service.set_mode(Mode::Well).unwrap();
        assert!(ask(&mut TcpStream::connect(service.address()).unwrap()).is_ok());
    }

    #[test]
    fn half_of_the_answers_are_errors_when_told_so() {
        let mut service = Service::start("pears").unwrap();
        service.set_mode(Mode::HalfErrors).unwrap();
        let mut stream = TcpStream::connect(service.address()).unwrap();
        let errors = (0..10).filter(|_| ask(&mut stream).unwrap().starts_with("HTTP/1.1 503")).count();
        assert_eq!(errors, 5);
    }

    #[test]
    fn a_hanging_service_answers_as_soon_as_it_is_well_again() {
        let mut service = Service::start("plums").unwrap();
        service.set_mode(Mode::Hanging).unwrap();
        let mut stream = TcpStream::connect(service.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 1]).is_err(), "no byte while it hangs");
        service.set_mode(Mode::Well).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);
    }

    #[test]
    fn bodies_with_a_length_are_skipped_and_chunked_ones_refused() {
        assert_eq!(content_length("POST / HTTP/1.1\r\ncontent-length: 12\r\n"), Some(12));
        assert_eq!(content_length("GET / HTTP/1.1\r\nHost: x\r\n"), Some(0));
        assert_eq!(content_length("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"), None);
    }
}
