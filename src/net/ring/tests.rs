//! The ring, with the peers at hand. Every test also sees that nothing is left when it is over: no row, and no block ahead.

mod breaking;
mod sending;

use super::socket::Socket;
use super::*;
use crate::limits::{BLOCK_SMALL, PIECES_AHEAD, RECEIVE_BUFFERS};
use crate::net::stream::Stream;
use crate::net::testing::{
    PATIENCE, block, on_our_ring, pair, pattern, poll_once, receive, receive_all, rest, until, yield_now,
};
use crate::net::upstream::Upstream;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::time::Duration;

/// Runs `body` on our ring, and waits until all that it has begun is over.
fn on_ring<F: Future<Output = ()>>(body: impl Fn(&'static Ring) -> F + std::marker::Send + 'static) {
    on_our_ring(move |ring| {
        let body = body(ring);
        async move {
            yield_now().await;
            let rows = || ring.operations.borrow().len();
            // that of the timers
            let before = rows();
            body.await;
            until(|| rows() == before && ring.ahead.get() == 0).await;
        }
    });
}

fn socket(stream: &Stream) -> &Socket {
    stream.on_ring().expect("it is on one")
}

/// The only operation that listens.
fn listening(ring: &Ring) -> Option<usize> {
    let operations = ring.operations.borrow();
    let mut found = operations.iter().filter(|(_, row)| matches!(row, Operation::Listen(_)));
    let first = found.next().map(|(number, _)| number);
    assert!(found.next().is_none(), "one at a time");
    first
}

/// Whether the kernel has let go of the only operation that listens.
fn is_over(ring: &Ring) -> bool {
    listening(ring).is_none_or(|number| !ring.operations.borrow()[number].is_in_flight())
}

#[test]
fn small_pieces_come_one_after_another_by_one_operation() {
    async fn check(ring: &Ring, stream: Stream, mut peer: impl Write) {
        assert!(stream.listen());
        let operation = listening(ring);
        // so many that each buffer is used more than once
        for round in 0..3 * RECEIVE_BUFFERS {
            let text = round.to_ne_bytes();
            peer.write_all(&text).unwrap();
            assert_eq!(receive(&stream).await.unwrap(), text);
            assert!(!is_over(ring) && listening(ring) == operation, "the same one");
            assert!(stream.listen());
        }
        peer.write_all(b"bye").unwrap();
        drop(peer);
        assert_eq!(receive(&stream).await.unwrap(), b"bye");
        assert_eq!(receive(&stream).await.unwrap(), b"", "the peer's end");
    }
    on_ring(|ring| async {
        let (stream, peer) = pair();
        check(ring, stream, peer).await;
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        check(ring, Stream::from_fd(ours.into()).unwrap(), peer).await;
    });
}

#[test]
fn a_dropped_wait_loses_no_byte() {
    on_ring(|_| async {
        for (listens, arrives_first) in [(true, true), (true, false), (false, true), (false, false)] {
            let (stream, mut peer) = pair();
            assert!(!listens || stream.listen());
            {
                let mut wait = pin!(stream.receive(block(b"", 64)));
                assert!(poll_once(wait.as_mut()).await.is_none(), "nothing was sent");
                if arrives_first {
                    peer.write_all(b"late").unwrap();
                    until(|| socket(&stream).has_received()).await;
                }
            }
            if !arrives_first {
                peer.write_all(b"late").unwrap();
            }
            assert_eq!(receive(&stream).await.unwrap(), b"late");
        }
    });
}

#[test]
fn a_peer_far_ahead_is_stopped_and_every_byte_arrives_in_order() {
    on_ring(|ring| async {
        let (stream, mut peer) = pair();
        assert!(stream.listen());
        let sent = pattern(4 << 20);
        let copy = sent.clone();
        let sender = std::thread::spawn(move || peer.write_all(&copy).map(|()| peer));
        until(|| is_over(ring)).await;
        let ahead = ring.ahead.get();
        // what a turn may bring, after the one that told
        let most = PIECES_AHEAD + usize::from(RECEIVE_BUFFERS) + 1;
        assert!((PIECES_AHEAD + 1..=most).contains(&ahead), "{ahead}");
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(ring.ahead.get(), ahead, "nobody listens any more");
        assert!(receive_all(&stream, sent.len()).await == sent);
        assert_eq!(ring.ahead.get(), 0);
        drop(sender.join().unwrap().unwrap());
        assert_eq!(receive(&stream).await.unwrap(), b"");
    });
}

#[test]
fn bulk_goes_into_large_blocks_and_what_is_small_is_listened_to_again() {
    on_ring(|ring| async {
        let (stream, mut peer) = pair();
        assert!(stream.listen());
        // the large block ends the listening, which has brought nothing
        let mut bulk = pin!(stream.receive(ring.stock.borrow_mut().large()));
        while listening(ring).is_some() {
            assert!(poll_once(bulk.as_mut()).await.is_none());
            yield_now().await;
        }
        peer.write_all(&[7; 3 * BLOCK_SMALL]).unwrap();
        let (received, got) = bulk.await;
        assert!(received.unwrap() > 0 && got.is_large(), "one receive into the block that was brought");
        assert!(!stream.listen(), "more of it is to be expected");
        receive_all(&stream, 3 * BLOCK_SMALL - got.unread().len()).await;
        // a receive into a small block that is not filled
        peer.write_all(b"small").unwrap();
        assert_eq!(receive_all(&stream, 5).await, b"small");
        assert!(stream.listen() && listening(ring).is_some());
        peer.write_all(b"again").unwrap();
        assert_eq!(receive(&stream).await.unwrap(), b"again");
    });
}

#[test]
fn a_large_block_gets_what_had_arrived_before_and_what_comes_after() {
    on_ring(|ring| async {
        let (stream, mut peer) = pair();
        assert!(stream.listen());
        peer.write_all(b"before").unwrap();
        until(|| socket(&stream).has_received()).await;
        let mut large = ring.stock.borrow_mut().large();
        large.clear_with_headroom(4);
        let (received, large) = stream.receive(large).await;
        assert_eq!((received.unwrap(), large.unread()), (6, &b"before"[..]));
        peer.write_all(b"after").unwrap();
        let (received, large) = stream.receive(large).await;
        assert_eq!((received.unwrap(), large.unread()), (5, &b"beforeafter"[..]));
    });
}

#[test]
fn what_does_not_fit_behind_what_is_there_waits_for_the_next_receive() {
    on_ring(|ring| async {
        let (stream, mut peer) = pair();
        assert!(stream.listen());
        peer.write_all(b"cdefgh").unwrap();
        let (received, got) = stream.receive(block(b"ab", 4)).await;
        assert_eq!((received.unwrap(), got.unread(), ring.ahead.get()), (4, &b"abcdef"[..], 1));
        assert!(stream.has_unread() && stream.is_spent());
        peer.write_all(b"ij").unwrap();
        assert_eq!(receive_all(&stream, 4).await, b"ghij");
        assert!(!stream.has_unread() && !stream.is_spent() && ring.ahead.get() == 0);
    });
}

#[test]
fn a_receive_that_is_under_way_appends_to_what_the_next_one_brings() {
    on_ring(|_| async {
        let (stream, mut peer) = pair();
        drop(stream.receive(block(b"gone", 64)));
        peer.write_all(b"cd").unwrap();
        let (received, got) = stream.receive(block(b"ab", 64)).await;
        assert_eq!((received.unwrap(), got.unread()), (2, &b"abcd"[..]));
        drop(stream.receive(block(b"gone", 64)));
        peer.write_all(b"ef").unwrap();
        assert_eq!(receive(&stream).await.unwrap(), b"ef");
        drop(stream.receive(block(b"gone", 64)));
        drop(peer);
        let (received, got) = stream.receive(got).await;
        assert_eq!((received.unwrap(), got.unread()), (0, &b"abcd"[..]), "not what somebody else had brought");
    });
}

#[test]
fn nobody_hangs_when_the_buffers_are_used_up() {
    on_ring(|ring| async {
        let pairs: Vec<_> = (0..8).map(|_| pair()).collect();
        assert!(pairs.iter().all(|(stream, _)| stream.listen()));
        yield_now().await;
        // from now on the kernel gets no more of them
        let others = PIECES_AHEAD_MAX.cast_signed();
        ring.count_ahead(others);
        let (first, mut peer) = (&pairs[0].0, &pairs[0].1);
        for round in 0..RECEIVE_BUFFERS - 3 {
            peer.write_all(&round.to_ne_bytes()).unwrap();
            assert_eq!(receive(first).await.unwrap(), round.to_ne_bytes());
        }
        // three are left, for eight
        for mut peer in pairs.iter().map(|(_, peer)| peer) {
            peer.write_all(b"all").unwrap();
        }
        for (stream, _) in &pairs {
            stream.readable().await.unwrap();
            assert_eq!(receive(stream).await.unwrap(), b"all");
            assert!(!stream.is_spent() && !stream.has_unread());
        }
        ring.count_ahead(-others);
        for (stream, mut peer) in pairs.iter().map(|(stream, peer)| (stream, peer)) {
            assert!(stream.listen());
            peer.write_all(b"again").unwrap();
            assert_eq!(receive(stream).await.unwrap(), b"again");
        }
    });
}

#[test]
fn the_kernel_has_twice_as_many_buffers_as_turns_take() {
    on_ring(|ring| async {
        let pairs: Vec<_> = (0..100).map(|_| pair()).collect();
        let count = || ring.buffers.borrow().count();
        yield_now().await;
        assert_eq!(count(), usize::from(RECEIVE_BUFFERS), "all of them, while nothing is known");
        let (stream, mut peer) = (&pairs[0].0, &pairs[0].1);
        let mut rounds = 0;
        while count() > 12 {
            assert!(stream.listen());
            peer.write_all(b"one").unwrap();
            assert_eq!(receive(stream).await.unwrap(), b"one");
            rounds += 1;
            assert!(rounds < 10_000, "still {}", count());
        }
        // many at once: who gets no buffer is received from all the same, and soon there is one for each
        for round in 0_u32..3 {
            assert!(pairs.iter().all(|(stream, _)| stream.listen()));
            yield_now().await;
            for mut peer in pairs.iter().map(|(_, peer)| peer) {
                peer.write_all(&round.to_ne_bytes()).unwrap();
            }
            for (stream, _) in &pairs {
                assert_eq!(receive(stream).await.unwrap(), round.to_ne_bytes());
            }
        }
        yield_now().await;
        assert!(count() > 100, "{}", count());
    });
}

#[test]
fn while_others_are_behind_nothing_more_is_listened_to() {
    on_ring(|ring| async {
        let (stream, mut peer) = pair();
        let upstream = Upstream::new(stream);
        let others = PIECES_AHEAD_MAX.cast_signed();
        ring.count_ahead(others);
        upstream.stand_by();
        assert!(!upstream.is_armed() && !upstream.is_spent());
        upstream.expect(|| block(b"", 64));
        assert!(upstream.is_armed() && listening(ring).is_none());
        peer.write_all(b"one").unwrap();
        assert_eq!(upstream.received().await.1.unread(), b"one");
        ring.count_ahead(-others);
        upstream.stand_by();
        assert!(upstream.is_armed() && listening(ring).is_some());
    });
}

#[test]
fn a_receive_that_came_to_nothing_is_no_sign_of_the_peer() {
    on_ring(|ring| async {
        let (stream, mut peer) = pair();
        let stop_listening = async || {
            assert!(stream.listen());
            let number = listening(ring).unwrap();
            ring.cancel(Number::try_from(number).unwrap());
            until(|| is_over(ring)).await;
        };
        stop_listening().await;
        assert!(!stream.is_spent() && listening(ring).is_none());
        stop_listening().await;
        assert!(!stream.has_unread());
        stop_listening().await;
        assert!(poll_once(pin!(stream.readable())).await.is_none());
        // the same while somebody waits
        assert!(stream.listen());
        let mut ready = pin!(stream.readable());
        assert!(poll_once(ready.as_mut()).await.is_none());
        stop_listening().await;
        assert!(poll_once(ready.as_mut()).await.is_none());
        peer.write_all(b"now").unwrap();
        ready.await.unwrap();
        assert!(stream.is_spent() && stream.has_unread());
        assert_eq!(receive(&stream).await.unwrap(), b"now");
        drop(peer);
        stream.readable().await.unwrap();
        assert!(stream.is_spent() && !stream.has_unread());
    });
}

#[test]
fn a_reset_and_an_end_of_our_own_end_the_listening() {
    on_ring(|_| async {
        let (stream, mut peer) = pair();
        assert!(stream.listen());
        peer.write_all(b"last").unwrap();
        until(|| socket(&stream).has_received()).await;
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(receive(&stream).await.unwrap(), b"last");
        assert_eq!(receive(&stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        // as a watch does it whose deadline passes
        let (stream, mut peer) = pair();
        assert!(stream.listen());
        let mut wait = pin!(receive(&stream));
        assert!(poll_once(wait.as_mut()).await.is_none());
        yield_now().await;
        stream.shutdown(Shutdown::Read);
        assert_eq!(wait.await.unwrap(), b"");
        peer.write_all(b"later").unwrap();
        assert_eq!(receive_all(&stream, 5).await, b"later", "what comes all the same can be read");
    });
}
