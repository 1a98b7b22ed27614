//! The admin API's socket: TCP or unix, with bounds on connections and on patience.
//!
//! One rule bounds slow clients of every kind: a connection must have been written to within [`limits::ADMIN_IDLE`], or it is
//! closed. A request that dribbles in, an answer that is not read and a connection that idles all fall under it. And there is always
//! room: when all places are taken, a new connection gets that of whoever has not been written to for longest, so that stuck clients
//! cannot keep a scraper out. The one after it is accepted when that has gone, because what has no place holds a descriptor all the same.

use super::{AdminState, Now, handover, router};
use crate::config::Bind;
use crate::limits;
use crate::net::socket_file::SocketFile;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

/// How long to wait when a connection could not be accepted: the process is out of descriptors, and trying at once will not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
/// Permissions of a unix socket: the API has no authentication, so others than owner and group have no business there.
const UNIX_MODE: u32 = 0o660;
/// How long a predecessor that has agreed to let go of the address may take to do so, and how often to look.
const HANDOVER: Duration = Duration::from_secs(2);
const HANDOVER_LOOK: Duration = Duration::from_millis(10);

/// The open admin socket.
#[derive(Debug)]
pub struct AdminListener {
    /// `None` once it was handed over.
    socket: Option<Arc<Socket>>,
    seats: Vec<Seat>,
    seats_max: usize,
    /// Told by the end of the connection that has lost its place.
    leaving: Option<oneshot::Receiver<()>>,
    /// Counts writes over all connections, to know whose is the longest ago.
    writes: Arc<AtomicU64>,
    /// A successor wants the address.
    wanted: Arc<Notify>,
    /// It is to close.
    closing: Arc<Notify>,
}

/// The place of one connection, as the listener sees it.
#[derive(Debug)]
struct Seat {
    /// Of [`AdminListener::writes`], when this connection was last written to.
    written: Arc<AtomicU64>,
    /// Ends it; closed when it has ended.
    end: oneshot::Sender<()>,
    /// Told by the end of the connection.
    gone: oneshot::Receiver<()>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// The file first, as fields are dropped: who finds that nobody listens there takes the path, and must not lose it again.
    Unix(SocketFile, UnixListener),
}

/// See [`AdminListener::passing`].
#[derive(Debug, Default)]
pub struct Passing(Weak<Socket>);

impl Passing {
    /// Another descriptor of the socket; `None`: it does not listen any more.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> io::Result<Option<OwnedFd>> {
        let Some(socket) = self.0.upgrade() else { return Ok(None) };
        let socket = match &*socket {
            Socket::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Socket::Unix(_, listener) => listener.as_fd().try_clone_to_owned(),
        };
        socket.map(Some)
    }

    /// Another process has it: its file stays.
    pub fn leave(&self) {
        if let Some(Socket::Unix(file, _)) = self.0.upgrade().as_deref() {
            file.leaver().leave();
        }
    }
}

impl AdminListener {
    /// Opens the socket. Must be called within the control thread's runtime, before it turns. A socket file that nobody listens on any
    /// more is replaced; a new one is for owner and group only. A gateway that listens there and drains is asked to let go.
    ///
    /// # Errors
    /// When the address is taken or may not be used.
    pub fn bind(bind: &Bind) -> io::Result<Self> {
        let socket = match Socket::open(bind) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && handover::ask(bind) => take_over(bind)?,
            opened => opened?,
        };
        Ok(Self::of(socket))
    }

    /// Takes over the listening socket of another process, at `bind`. Must be called within the control thread's runtime.
    ///
    /// # Errors
    /// It is none.
    pub fn inherit(socket: OwnedFd, bind: &Bind) -> io::Result<Self> {
        Ok(Self::of(match bind {
            Bind::Tcp(_) => Socket::Tcp(TcpListener::from_std(socket.into())?),
            Bind::Unix(path) => Socket::Unix(SocketFile::adopt(path)?, UnixListener::from_std(socket.into())?),
        }))
    }

    fn of(socket: Socket) -> Self {
        Self {
            socket: Some(Arc::new(socket)),
            seats: Vec::new(),
            seats_max: limits::ADMIN_CONNECTIONS_MAX,
            leaving: None,
            writes: Arc::default(),
            wanted: Arc::default(),
            closing: Arc::default(),
        }
    }

    /// What gives its socket to another process, for as long as it listens.
    #[must_use]
    pub fn passing(&self) -> Passing {
        Passing(self.socket.as_ref().map(Arc::downgrade).unwrap_or_default())
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    ///
    /// # Errors
    /// When the system does not tell, or it has been handed over.
    pub fn local(&self) -> io::Result<Bind> {
        match &**self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)? {
            Socket::Tcp(listener) => listener.local_addr().map(Bind::Tcp),
            Socket::Unix(_, listener) => {
                let path = listener.local_addr()?.as_pathname().map(Path::to_path_buf);
                path.map(Bind::Unix).ok_or_else(|| io::ErrorKind::Unsupported.into())
            }
        }
    }

    /// What has it close its address, and go on with the connections that it has, once it serves.
    #[must_use]
    pub fn closing(&self) -> Arc<Notify> {
        Arc::clone(&self.closing)
    }

    /// Takes no more connections at once than descriptors allow.
    #[must_use]
    pub fn limited(mut self, seats_max: usize) -> Self {
        self.seats_max = seats_max.clamp(1, limits::ADMIN_CONNECTIONS_MAX);
        self
    }

    /// The next connection; never one, once the address has been handed over.
    async fn next(&mut self) -> io::Result<Stream> {
        if let Some(gone) = self.leaving.take() {
            // it goes at once, unless its client takes what it is being sent
            let _ = timeout(ACCEPT_PAUSE, gone).await;
        }
        let Some(socket) = &self.socket else { return std::future::pending().await };
        tokio::select! {
            accepted = socket.accept() => accepted,
            () = self.wanted.notified() => {
                self.socket = None;
                tracing::info!("the admin address is handed over to another process");
                std::future::pending().await
            }
            () = self.closing.notified() => {
                self.socket = None;
                std::future::pending().await
            }
        }
    }

    /// A place for one more: a free one, or that of the connection that was written to longest ago.
    fn seat(&mut self, stream: Stream) -> Connection {
        self.seats.retain(|seat| !seat.end.is_closed());
        if self.seats.len() >= self.seats_max {
            let longest = self.seats.iter().enumerate().min_by_key(|(_, seat)| seat.written.load(Relaxed));
            let (row, _) = longest.expect("there is at least one");
            let Seat { end, gone, .. } = self.seats.swap_remove(row);
            // it may just have ended by itself
            let _ = end.send(());
            self.leaving = Some(gone);
        }
        let written = Arc::new(AtomicU64::new(self.writes.fetch_add(1, Relaxed)));
        let (end, ended) = oneshot::channel();
        let (going, gone) = oneshot::channel();
        self.seats.push(Seat { written: Arc::clone(&written), end, gone });
        let patience = Box::pin(sleep_until(Instant::now() + limits::ADMIN_IDLE));
        Connection { stream, patience, ended: Some(ended), written, writes: Arc::clone(&self.writes), _going: going }
    }
}

impl Socket {
    fn open(bind: &Bind) -> io::Result<Self> {
        match bind {
            Bind::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            Bind::Unix(path) => bind_unix(path),
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(_, listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// Answers until the future is dropped, each request by what `state` tells when it comes.
///
/// # Errors
/// When the listener does not know where it listens; failures to accept are waited out.
pub async fn serve(
    listener: AdminListener,
    state: impl Fn() -> Arc<AdminState> + Send + Sync + 'static,
) -> io::Result<()> {
    let (local, wanted) = (listener.local()?, Arc::clone(&listener.wanted));
    axum::serve(listener, router(Now(Arc::new(state)), local, wanted)).await
}

#[expect(clippy::disallowed_methods, reason = "nothing else runs yet, and the predecessor needs a moment")]
fn take_over(bind: &Bind) -> io::Result<Socket> {
    let until = Instant::now() + HANDOVER;
    loop {
        match Socket::open(bind) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(HANDOVER_LOOK);
            }
            opened => return opened,
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::ADMIN_CONNECTIONS_MAX as i32)?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let (socket, file) = SocketFile::bind(path, UNIX_MODE)?;
    socket.listen(limits::ADMIN_CONNECTIONS_MAX as i32)?;
    Ok(Socket::Unix(file, UnixListener::from_std(socket.into())?))
}

impl axum::serve::Listener for AdminListener {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            match self.next().await {
                Ok(stream) => return (self.seat(stream), ()),
                Err(error) => {
                    tracing::warn!(%error, "the admin API could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection of the admin API.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Ends when nothing was written for too long.
    patience: Pin<Box<Sleep>>,
    /// Ends when somebody else needs the place; `None` once it has.
    ended: Option<oneshot::Receiver<()>>,
    written: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    /// Dropped when the stream has been: fields are dropped in their order.
    _going: oneshot::Sender<()>,
}

impl Connection {
    /// What to say when the socket is not ready: wait, unless patience has run out or the place is needed.
    fn poll_patience<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let is_needed = self.ended.as_mut().is_none_or(|ended| Pin::new(ended).poll(cx).is_ready());
        if is_needed {
            self.ended = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(self.patience.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if polled.is_pending() { self.poll_patience(cx) } else { polled }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        if polled.is_pending() {
            return self.poll_patience(cx);
        }
        self.patience.as_mut().reset(Instant::now() + limits::ADMIN_IDLE);
        self.written.store(self.writes.fetch_add(1, Relaxed), Relaxed);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
