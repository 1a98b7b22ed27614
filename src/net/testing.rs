//! What the tests of this room need: an event loop of each kind, and sockets with a blocking peer.

pub(super) use super::driver::next_turn as yield_now;
use super::driver::{EventLoop, Step, spawn};
use super::ring::{self, Ring};
use super::stream::Stream;
use super::timer::Timers;
use std::future::Future;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Far more than any test here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` on our ring and on monoio's, as far as the kernel allows, and on epoll, with timers that run.
pub(crate) fn on_each_driver<F: Future<Output = ()>>(body: impl Fn(Rc<Timers>) -> F + Clone + Send + 'static) {
    for step in [Step::Multishot, Step::Defer, Step::Epoll] {
        on(step, body.clone());
    }
}

/// Runs `body` on our ring; nothing where the kernel has no such ring.
pub(super) fn on_our_ring<F: Future<Output = ()>>(body: impl Fn(&'static Ring) -> F + Send + 'static) {
    on(Step::Multishot, move |_| body(ring::current().expect("it runs on one")));
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
