//! A service behind the gateway that does exactly what its script says, byte for byte, and remembers what it was sent.
//!
//! It can go and come back at the same address: a second socket, bound but not listening, keeps the port, so that nobody else can
//! take it and a connection attempt is refused at once.

use super::client::find;
use super::stream::Stream;
use super::tls::{self, Authority};
use super::{Gate, PATIENCE, lock};
use rustls::ServerConfig;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

type Script = Box<dyn Fn(&mut Conn) + Send + Sync>;

/// A scripted service; stops when dropped.
pub(crate) struct Upstream {
    address: String,
    shared: Arc<Shared>,
    acceptor: Option<(Arc<Listener>, JoinHandle<()>)>,
    tls: Option<Arc<ServerConfig>>,
    _place: Option<Socket>,
}

struct Shared {
    script: Script,
    accepted: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    open: Mutex<Vec<Weak<Stream>>>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method.
    pub(crate) method: String,
    /// Request target, as sent.
    pub(crate) target: String,
    /// Names lower-cased, values trimmed, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    /// Without transfer coding; empty when the script did not read it.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// How many headers have that name.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(n, _)| n == name).count()
    }
}

/// One accepted connection, in the hands of the script.
pub(crate) struct Conn {
    stream: Arc<Stream>,
    unread: Vec<u8>,
    shared: Arc<Shared>,
    /// Row of the accepted connection, from 0.
    pub(crate) number: usize,
    /// Its end is not said.
    is_cut: bool,
}

impl Upstream {
    /// Each connection is given to `script`, and closed when that returns.
    pub(crate) fn scripted(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        let (place, address) = keep_a_port();
        let mut upstream = Self::stopped(address.to_string(), Box::new(script));
        upstream._place = Some(place);
        upstream.start();
        upstream
    }

    /// Each request, read whole, is given to `answer`.
    pub(crate) fn answering(answer: impl Fn(&Request, &mut Conn) + Send + Sync + 'static) -> Self {
        Self::scripted(answer_each(answer))
    }

    /// The same, in TLS by these rules.
    pub(crate) fn encrypted(rules: Arc<ServerConfig>, script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        let (place, address) = keep_a_port();
        let mut upstream = Self::stopped(address.to_string(), Box::new(script));
        (upstream._place, upstream.tls) = (Some(place), Some(rules));
        upstream.start();
        upstream
    }

    /// Answers every request with 200 and this body.
    pub(crate) fn always(body: &'static str) -> Self {
        Self::answering(move |_, conn| conn.reply(200, body))
    }

    /// Answers every request with 200 and this body, on the port of `other` at another address of this machine.
    pub(crate) fn beside(other: &Self, ip: &str, body: &'static str) -> Self {
        let answer = answer_each(move |_: &Request, conn: &mut Conn| conn.reply(200, body));
        let mut upstream = Self::stopped(format!("{ip}:{}", other.port()), Box::new(answer));
        upstream.start();
        upstream
    }

    /// Its port.
    pub(crate) fn port(&self) -> &str {
        self.address.rsplit(':').next().expect("a port")
    }

    /// Answers every request with 200 and `ok`, those for `target` when the gate is open.
    pub(crate) fn holding(target: &'static str, gate: &Arc<Gate>) -> Self {
        let gate = Arc::clone(gate);
        Self::answering(move |request, conn| {
            if request.target == target {
                gate.wait();
            }
            conn.reply(200, "ok");
        })
    }

    /// The same as [`Upstream::answering`], on a unix socket.
    pub(crate) fn on_unix_socket(path: &Path, answer: impl Fn(&Request, &mut Conn) + Send + Sync + 'static) -> Self {
        Self::scripted_on_unix_socket(path, answer_each(answer))
    }

    /// The same as [`Upstream::scripted`], on a unix socket.
    pub(crate) fn scripted_on_unix_socket(path: &Path, script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        let mut upstream = Self::stopped(format!("unix:{}", path.display()), Box::new(script));
        upstream.start();
        upstream
    }

    fn stopped(address: String, script: Script) -> Self {
        let shared =
            Shared { script, accepted: AtomicUsize::new(0), requests: Mutex::default(), open: Mutex::default() };
        let tls = (tls::is_up() && !address.starts_with("unix:")).then(|| Authority::shared().server("server"));
        Self { address, shared: Arc::new(shared), acceptor: None, tls, _place: None }
    }

    /// Its address as the configuration writes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Requests seen so far, in the order their heads were read.
    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Listens (again).
    pub(crate) fn start(&mut self) {
        assert!(self.acceptor.is_none(), "already listening");
        let listener = match self.address.strip_prefix("unix:") {
            Some(path) => Listener::Unix(UnixListener::bind(path).expect("a free path")),
            None => Listener::Tcp(TcpListener::bind(&self.address).expect("the place is kept")),
        };
        let listener = Arc::new(listener);
        let (shared, accepting, tls) = (Arc::clone(&self.shared), Arc::clone(&listener), self.tls.clone());
        let thread = std::thread::spawn(move || accept_all(&accepting, &shared, tls.as_ref()));
        self.acceptor = Some((listener, thread));
    }

    /// As when the process is killed: nobody listens any more and every connection is cut.
    pub(crate) fn stop(&mut self) {
        let Some((listener, thread)) = self.acceptor.take() else { return };
        listener.wake();
        thread.join().expect("the acceptor does not fail");
        drop(listener);
        for stream in lock(&self.shared.open).drain(..) {
            if let Some(stream) = stream.upgrade() {
                stream.cut();
            }
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Makes a waiting accept fail.
    fn wake(&self) {
        let socket = match self {
            Self::Tcp(listener) => SockRef::from(listener),
            Self::Unix(listener) => SockRef::from(listener),
        };
        socket.shutdown(Shutdown::Both).expect("a listening socket can be shut down");
    }
}

impl Conn {
    /// The next request, whole, or `None` when the gateway closed the connection.
    pub(crate) fn request(&mut self) -> Option<Request> {
        let mut request = self.read_head()?;
        request.body = self.body(&request)?;
        self.remember(&request);
        Some(request)
    }

    /// The next request's head alone.
    pub(crate) fn head(&mut self) -> Option<Request> {
        let request = self.read_head()?;
        self.remember(&request);
        Some(request)
    }

    /// The body that belongs to a head, or `None` when the gateway closed the connection before its end.
    pub(crate) fn body(&mut self, head: &Request) -> Option<Vec<u8>> {
        if head.header("transfer-encoding").is_some() {
            return self.chunked();
        }
        let length = head.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        self.take(length)
    }

    /// Exactly `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            self.read_more()?;
        }
        let rest = self.unread.split_off(length);
        Some(std::mem::replace(&mut self.unread, rest))
    }

    /// All that has arrived and was not taken.
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    /// Sends exactly these bytes; whether the kernel took them all.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        (&*self.stream).write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a response with Content-Length.
    pub(crate) fn reply(&mut self, status: u16, body: &str) {
        self.send(format!("HTTP/1.1 {status} Reason\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }

    /// A session ends without a word when the script returns.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// The connection ends with RST when the script returns.
    pub(crate) fn reset(&mut self) {
        self.cut();
        self.stream.reset_on_close();
    }

    /// Waits until the gateway closes the connection, and drops what it sends until then.
    pub(crate) fn wait_for_close(&mut self) {
        while self.read_more().is_some() {
            self.unread.clear();
        }
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    fn remember(&self, request: &Request) {
        lock(&self.shared.requests).push(request.clone());
    }

    fn read_head(&mut self) -> Option<Request> {
        let head = String::from_utf8(self.take_until(b"\r\n\r\n")?).expect("the gateway sends clean heads");
        let mut lines = head.trim_end().split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers = lines
            .map(|line| line.split_once(':').expect("the gateway sends clean headers"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Request { method, target, headers, body: Vec::new() })
    }

    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_until(b"\r\n")?;
            let line = String::from_utf8(line).expect("a chunk size");
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size");
            if size == 0 {
                while self.take_until(b"\r\n")? != b"\r\n" {}
                return Some(body);
            }
            body.append(&mut self.take(size)?);
            assert_eq!(self.take(2)?, b"\r\n", "end of chunk");
        }
    }

    fn take_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len());
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> Option<()> {
        let mut block = [0; 64 << 10];
        match (&*self.stream).read(&mut block) {
            Ok(0) | Err(_) => None,
            Ok(read) => {
                self.unread.extend_from_slice(&block[..read]);
                Some(())
            }
        }
    }
}

/// Accepts nothing and answers no SYN: the queue of connections that nobody takes is full.
pub(crate) struct Blackhole {
    address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl Blackhole {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        listener.listen(0).expect("listens");
        let address = listener.local_addr().expect("bound").as_socket().expect("IPv4");
        let mut sockets = vec![listener];
        for _ in 0..8 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("always allowed");
            // in progress is all that it may be
            let _ = socket.connect(&address.into());
            sockets.push(socket);
        }
        Self { address, _sockets: sockets }
    }

    /// Its address as the configuration writes it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

/// A socket that keeps a port without listening on it, and its address: who listens there with SO_REUSEADDR may come and go.
pub(crate) fn keep_a_port() -> (Socket, SocketAddr) {
    let place = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    place.set_reuse_address(true).expect("SO_REUSEADDR is always allowed");
    place.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = place.local_addr().expect("bound").as_socket().expect("IPv4");
    (place, address)
}

pub(crate) fn answer_each(answer: impl Fn(&Request, &mut Conn)) -> impl Fn(&mut Conn) {
    move |conn| {
        while let Some(request) = conn.request() {
            answer(&request, conn);
        }
    }
}

fn accept_all(listener: &Listener, shared: &Arc<Shared>, tls: Option<&Arc<ServerConfig>>) {
    while let Ok(stream) = listener.accept() {
        stream.limit(PATIENCE * 2).expect("a timeout can be set");
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(shared);
        let serve = move |stream: Stream| {
            let stream = Arc::new(stream);
            let mut open = lock(&shared.open);
            open.retain(|stream| stream.strong_count() > 0);
            open.push(Arc::downgrade(&stream));
            drop(open);
            let mut conn = Conn { stream, unread: Vec::new(), shared: Arc::clone(&shared), number, is_cut: false };
            move || {
                (shared.script)(&mut conn);
                // a service that closes a connection in good order says so
                if let Some(session) = conn.stream.session().filter(|_| !conn.is_cut) {
                    session.end();
                }
            }
        };
        match tls {
            None => drop(std::thread::spawn(serve(stream))),
            Some(rules) => {
                let rules = Arc::clone(rules);
                // a handshake waits for its client, and nobody else is to
                std::thread::spawn(move || stream.serving(rules).map(|stream| serve(stream)()));
            }
        }
    }
}
