//! Lanes without an event loop: whoever waits is polled by hand.

use super::*;
use crate::net::stream::{Stream, poll_now, shutdown_fd};
use std::future::Future;
use std::pin::pin;

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn lane(framing: Framing) -> (Rc<Lane>, Stream, Rc<Bells>, RefCell<Blocks>) {
    let (lane, bells) = (Lane::new(), Rc::default());
    let stream = Stream::of_lane(&lane);
    lane.begin(&bells, 7, framing);
    (lane, stream, bells, RefCell::default())
}

fn rung(bells: &Bells) -> Option<usize> {
    match bells.poll_next(&Context::from_waker(Waker::noop())) {
        Poll::Ready(place) => Some(place),
        Poll::Pending => None,
    }
}

fn received(stream: &Stream, into: Block) -> (io::Result<usize>, String) {
    match poll(stream.receive(into)) {
        Poll::Ready((received, block)) => (received, String::from_utf8(block.unread().to_vec()).unwrap()),
        Poll::Pending => panic!("nothing is there"),
    }
}

fn block(bytes: &[u8], room: usize) -> Block {
    let mut block = Block::from_vec(Vec::with_capacity(bytes.len() + room + super::super::block::TAILROOM));
    block.vec_mut().extend_from_slice(bytes);
    block
}

#[test]
fn a_body_of_unknown_length_comes_in_chunks_and_has_an_end() {
    let (lane, stream, bells, blocks) = lane(Framing::Chunked);
    assert!(poll(stream.receive(Block::default())).is_pending());
    lane.deliver(b"hello", &blocks);
    lane.deliver(b", world", &blocks);
    lane.deliver(b"", &blocks);
    assert!(matches!(received(&stream, Block::default()), (Ok(17), text) if text == "c\r\nhello, world\r\n"));
    assert_eq!((rung(&bells), lane.take_taken()), (Some(7), 12));
    assert!(poll(stream.receive(Block::default())).is_pending());
    lane.deliver(b"x", &blocks);
    lane.end(b"a: b\r\n");
    assert_eq!(received(&stream, Block::default()).1, "1\r\nx\r\n0\r\na: b\r\n\r\n");
    assert!(matches!(received(&stream, Block::default()), (Ok(0), text) if text.is_empty()));
}

#[test]
fn a_body_of_known_length_comes_as_it_is() {
    let (lane, stream, _bells, blocks) = lane(Framing::Fixed(5));
    lane.deliver(b"hello", &blocks);
    lane.end(b"");
    assert_eq!(received(&stream, Block::default()).1, "hello");
    assert!(matches!(received(&stream, Block::default()), (Ok(0), _)));
}

#[test]
fn what_is_there_stays_there_and_what_does_not_fit_comes_later() {
    let (lane, stream, _bells, blocks) = lane(Framing::Chunked);
    lane.deliver(&[b'y'; 100], &blocks);
    let (got, text) = received(&stream, block(b"before", 40));
    assert_eq!((got.unwrap(), text), (13, "before8\r\nyyyyyyyy\r\n".to_owned()));
    assert_eq!(lane.take_taken(), 8);
    lane.end(b"");
    let (_, text) = received(&stream, Block::default());
    assert_eq!(text, format!("5c\r\n{}\r\n0\r\n\r\n", "y".repeat(92)));
}

#[test]
fn large_bodies_are_whole() {
    for size in [10_000, 70_000, 200_000] {
        let (lane, stream, _bells, blocks) = lane(Framing::Fixed(size));
        let body: Vec<u8> = (0..size).map(|n| b'a' + (n % 23) as u8).collect();
        body.chunks(16_384).for_each(|piece| lane.deliver(piece, &blocks));
        assert_eq!(received(&stream, Block::default()).1.as_bytes(), body);
    }
}

#[test]
fn a_send_is_over_when_the_connection_has_taken_it() {
    let (lane, stream, bells, _) = lane(Framing::None);
    let mut sending = pin!(stream.send(block(b"frames", 0)));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(sending.as_mut().poll(&mut cx).is_pending());
    assert_eq!((rung(&bells), rung(&bells)), (Some(7), None));
    lane.on_rung();
    lane.outgoing(|block| block.consume(2));
    assert!(sending.as_mut().poll(&mut cx).is_pending());
    lane.outgoing(|block| block.consume(4));
    assert!(matches!(sending.as_mut().poll(&mut cx), Poll::Ready((Ok(()), block)) if block.is_empty()));
    lane.finish();
    assert_eq!((rung(&bells), lane.is_finished()), (Some(7), true));
}

#[test]
fn a_client_that_has_left_ends_every_wait_and_looks_as_if_it_had_reset_its_connection() {
    let (lane, stream, _bells, _) = lane(Framing::Chunked);
    assert!(!stream.is_reset() && poll_now(stream.fd(), libc::POLLIN) == 0);
    lane.lose();
    assert!(stream.is_reset());
    assert_eq!(received(&stream, Block::default()).0.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let Poll::Ready((sent, _)) = poll(stream.send(block(b"x", 0))) else { panic!("it waits for nobody") };
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// As a deadline does it.
#[test]
fn a_descriptor_reaches_its_lane_and_no_other_one() {
    let ((first, stream, ..), (second, other, ..)) = (lane(Framing::Chunked), lane(Framing::Chunked));
    assert!(stream.fd() < -1 && other.fd() < -1 && stream.fd() != other.fd());
    shutdown_fd(stream.fd(), Shutdown::Read);
    assert!(matches!(received(&stream, Block::default()), (Ok(0), _)));
    assert!(!first.is_cut(), "it may still be answered");
    shutdown_fd(stream.fd(), Shutdown::Both);
    assert!(first.is_cut() && !second.is_cut());
    let fd = other.fd();
    drop(other);
    shutdown_fd(fd, Shutdown::Both);
    assert!(!second.is_cut(), "nobody's descriptor any more");
    second.begin(&Rc::default(), 0, Framing::None);
    let again = Stream::of_lane(&second);
    assert!(again.fd() < -1 && !second.is_cut());
}

#[test]
fn half_of_what_was_handed_over_is_followed_by_nothing() {
    let (lane, stream, _bells, _) = lane(Framing::None);
    {
        let sending = pin!(stream.send(block(b"frames", 0)));
        assert!(poll(sending).is_pending());
    }
    assert!(lane.is_cut(), "it was given up");
}

/// A runner, and so its lane, serves one client after the other.
#[test]
fn room_for_large_trailers_is_not_kept_for_the_next_stream() {
    let (lane, _stream, _bells, _) = lane(Framing::Chunked);
    lane.end(&[b'x'; 100_000]);
    assert!(lane.incoming.borrow().trailers.capacity() >= 100_000);
    drop(lane.take_blocks());
    assert!(lane.incoming.borrow().trailers.capacity() <= TRAILERS_KEPT);
}

/// It may be wanted again, for another endpoint.
#[test]
fn what_was_not_taken_to_its_end_comes_back_to_its_sender_whole() {
    for ends in [Lane::part, Lane::leave] {
        let (lane, stream, _bells, _) = lane(Framing::None);
        let mut sending = pin!(stream.send(block(b"head and body", 0)));
        assert!(poll(sending.as_mut()).is_pending());
        lane.outgoing(|outgoing| outgoing.consume(5));
        ends(&lane);
        drop(lane.take_blocks());
        let Poll::Ready((Err(_), block)) = poll(sending) else { panic!("it has failed") };
        assert_eq!(block.all(), b"head and body");
    }
}
