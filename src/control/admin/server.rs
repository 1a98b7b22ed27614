//! The admin API's socket: TCP or unix, with bounds on connections and on patience.
//!
//! One rule bounds slow clients of every kind: a connection must have been written to within [`limits::ADMIN_IDLE`], or it is
//! closed. A request that dribbles in, an answer that is not read and a connection that idles all fall under it.

use super::{AdminState, router};
use crate::config::Bind;
use crate::limits;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// How long to wait when a connection could not be accepted: the process is out of descriptors, and trying at once will not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// The open admin socket.
#[derive(Debug)]
pub struct AdminListener {
    socket: Socket,
    slots: Arc<Semaphore>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AdminListener {
    /// Opens the socket. Must be called within the control thread's runtime. A socket file that nobody listens on any more is
    /// replaced; a new one is for owner and group only.
    ///
    /// # Errors
    /// When the address is taken or may not be used.
    pub fn bind(bind: &Bind) -> io::Result<Self> {
        let socket = match bind {
            Bind::Tcp(address) => Socket::Tcp(bind_tcp(*address)?),
            Bind::Unix(path) => Socket::Unix(bind_unix(path)?),
        };
        Ok(Self { socket, slots: Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX)) })
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local(&self) -> io::Result<Bind> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Bind::Tcp),
            Socket::Unix(listener) => {
                let path = listener.local_addr()?.as_pathname().map(Path::to_path_buf);
                path.map(Bind::Unix).ok_or_else(|| io::ErrorKind::Unsupported.into())
            }
        }
    }

    async fn accept_one(&mut self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// Answers until the future is dropped.
///
/// # Errors
/// Never in practice: failures to accept are waited out.
pub async fn serve(listener: AdminListener, state: AdminState) -> io::Result<()> {
    axum::serve(listener, router(state)).await
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

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if is_stale_socket(path) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// A socket file that a process left behind when it ended.
fn is_stale_socket(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
}

impl axum::serve::Listener for AdminListener {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        let slots = Arc::clone(&self.slots);
        let slot = slots.acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.accept_one().await {
                Ok(stream) => {
                    let patience = Box::pin(sleep_until(Instant::now() + limits::ADMIN_IDLE));
                    return (Connection { stream, patience, _slot: slot }, ());
                }
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
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    /// What to say when the socket is not ready: wait, unless patience has run out.
    fn poll_patience<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
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
