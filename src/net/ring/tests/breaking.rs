//! A ring that the kernel refuses, and one that closes without waiting for its turn.

use super::*;
use crate::net::guarded::caught;

/// A ring without an event loop, on a thread of its own; nothing where the kernel has no such ring.
fn on_bare_ring(body: impl FnOnce(Owner) + std::marker::Send + 'static) {
    let on_its_thread = || match Ring::leak(Rc::default()) {
        Ok(owner) => body(owner),
        Err(error) => println!("no ring: {error}"),
    };
    std::thread::spawn(on_its_thread).join().unwrap();
}

type Sending<'s> = Pin<Box<dyn Future<Output = (io::Result<()>, Block)> + 's>>;

/// Queues so many sends.
fn flood(stream: &Stream, count: u32) -> Vec<Sending<'_>> {
    let mut sends: Vec<_> = (0..count).map(|_| Box::pin(stream.send(block(b"x", 0))) as Sending<'_>).collect();
    for sending in &mut sends {
        assert!(sending.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    sends
}

fn is_at_end(peer: &mut std::net::TcpStream) -> bool {
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(peer.read(&mut [0; 8]), Ok(0))
}

#[test]
fn what_a_kernel_that_takes_nothing_any_more_was_not_given_is_given_back() {
    on_bare_ring(|owner| {
        let ring = owner.ring();
        let ((stream, mut peer), (other, mut other_peer)) = (pair(), pair());
        ring.refuses.set(true);
        drop(other); // its close is queued
        let sends = flood(&stream, ENTRIES + 2);
        assert!(ring.is_broken.get(), "there was no room, and the kernel makes none");
        assert_eq!(ring.unsubmitted.get(), 3, "beside the close there was room for all but these");
        drop(sends);
        drop(stream);
        assert!(caught(|| ring.turn_or_panic(false)).is_none(), "the loop ends with its next turn");
        assert_eq!(owner.end(), 0);
        assert!(is_at_end(&mut peer) && is_at_end(&mut other_peer));
    });
}

#[test]
fn a_broken_ring_is_not_waited_for() {
    let (told, tell) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        on_bare_ring(|owner| {
            let ring = owner.ring();
            // nothing is in flight, and nothing will be
            ring.break_it();
            assert!(caught(|| ring.turn_or_panic(true)).is_none());
            assert_eq!(owner.end(), 0);
        });
        told.send(()).unwrap();
    });
    assert_eq!(tell.recv_timeout(PATIENCE), Ok(()), "it ends");
}

#[test]
fn a_drop_in_the_middle_of_a_panic_may_be_the_first_to_meet_a_broken_ring() {
    on_bare_ring(|owner| {
        let ring = owner.ring();
        let ((stream, _peer), (other, mut other_peer)) = (pair(), pair());
        // no room is left
        let sends = flood(&stream, ENTRIES);
        ring.refuses.set(true);
        let unwound = caught(|| {
            let _dropped = other;
            panic!("on purpose");
        });
        assert!(unwound.is_none() && ring.is_broken.get());
        drop(sends);
        drop(stream);
        owner.end();
        assert!(is_at_end(&mut other_peer));
    });
}

#[test]
fn where_descriptors_are_few_a_dropped_socket_is_closed_without_a_turn() {
    on_bare_ring(|owner| {
        let ring = owner.ring();
        ring.close_at_once();
        let (stream, mut peer) = pair();
        let fd = stream.fd();
        let mut last_words = Box::pin(stream.send(block(b"bye", 0)));
        assert!(last_words.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(last_words);
        drop(stream);
        // SAFETY: no memory is involved.
        assert!(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, "its number is free");
        let mut got = Vec::new();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"bye", "what was submitted before was sent to it, and to nobody else");
        assert_eq!(owner.end(), 0);
    });
}
