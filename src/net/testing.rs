//! What the tests of this room need: an event loop of each kind, and sockets with a blocking peer.

use super::block::{Block, TAILROOM};
use super::clock;
pub(super) use super::driver::next_turn as yield_now;
use super::driver::{EventLoop, Step, spawn};
use super::engine::{self, Engine};
use super::epoll::Epoll;
use super::ring::Ring;
use super::stream::Stream;
use super::timer::Timers;
use std::future::{Future, poll_fn};
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::Poll;
use std::time::Duration;

/// Far more than any test here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` on our ring and on monoio's, as far as the kernel allows, and on our epoll, with timers that run.
pub(crate) fn on_each_driver<F: Future<Output = ()>>(body: impl Fn(Rc<Timers>) -> F + Clone + Send + 'static) {
    for step in [Step::Multishot, Step::Coop, Step::Epoll] {
        on(step, body.clone());
    }
}

/// The same on those of our own.
pub(crate) fn on_our_loops<F: Future<Output = ()>>(body: impl Fn(Rc<Timers>) -> F + Clone + Send + 'static) {
    for step in [Step::Multishot, Step::Epoll] {
        on(step, body.clone());
    }
}

/// Runs `body` on our ring; nothing where the kernel has no such ring.
pub(super) fn on_our_ring<F: Future<Output = ()>>(body: impl Fn(&'static Ring) -> F + Send + 'static) {
    on(Step::Multishot, move |_| match engine::current() {
        Some(Engine::Ring(ring)) => body(ring),
        _ => panic!("it runs on one"),
    });
}

/// Runs `body` on our epoll.
pub(super) fn on_our_epoll<F: Future<Output = ()>>(body: impl Fn(&'static Epoll) -> F + Send + 'static) {
    on(Step::Epoll, move |_| match engine::current() {
        Some(Engine::Epoll(epoll)) => body(epoll),
        _ => panic!("it runs on it"),
    });
}

fn on<F: Future<Output = ()>>(step: Step, body: impl Fn(Rc<Timers>) -> F + Send + 'static) {
    let (done, wait) = channel();
    // a thread of its own: so is a worker
    let thread = std::thread::spawn(move || {
        let mut event_loop = match EventLoop::at(step) {
            Err(error) if step != Step::Epoll => return println!("not on {step}: {error}"),
            tried => tried.unwrap(),
        };
        println!("on {step}");
        event_loop.block_on(async {
            let timers = Timers::new().unwrap();
            let running = Rc::clone(&timers);
            spawn(async move { running.run().await });
            body(timers).await;
        });
        assert_eq!(event_loop.end(), 0, "everything is given back");
        done.send(()).unwrap();
    });
    match wait.recv_timeout(PATIENCE) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
        Err(RecvTimeoutError::Timeout) => panic!("still waiting on {step}"),
    }
}

/// A connection: our end, and the peer's.
pub(crate) fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ours.set_nonblocking(true).unwrap();
    ours.set_nodelay(true).unwrap();
    let (peer, _) = listener.accept().unwrap();
    (Stream::from_fd(ours.into()).unwrap(), peer)
}

/// Lets the loop turn until it is so.
pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    let end = clock::now() + PATIENCE;
    while !is_so() {
        assert!(clock::now() < end, "still not so");
        yield_now().await;
    }
}

pub(super) async fn poll_once<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// With room for so many bytes more.
pub(super) fn block(bytes: &[u8], room: usize) -> Block {
    let mut block = Block::from_vec(Vec::with_capacity(bytes.len() + room + TAILROOM));
    block.vec_mut().extend_from_slice(bytes);
    block
}

/// The next bytes; whoever asks brings no block.
pub(super) async fn receive(stream: &Stream) -> io::Result<Vec<u8>> {
    let (received, block) = stream.receive(Block::default()).await;
    assert!(received.as_ref().is_ok_and(|count| *count == block.unread().len()) || block.is_empty());
    received.map(|_| block.unread().to_vec())
}

pub(super) async fn receive_all(stream: &Stream, bytes: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < bytes {
        let piece = receive(stream).await.unwrap();
        assert!(!piece.is_empty(), "the end, after {} bytes", got.len());
        got.extend(piece);
    }
    got
}

/// All that the peer gets until the connection is closed, and the error if there is one.
pub(super) async fn rest(peer: impl Into<OwnedFd>) -> (Vec<u8>, io::Result<usize>) {
    let mut peer = socket2::Socket::from(peer.into());
    peer.set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    let mut end = Ok(0);
    until(|| {
        end = peer.read_to_end(&mut got);
        !end.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    })
    .await;
    (got, end)
}

/// What can be told apart wherever it is cut.
pub(super) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}
