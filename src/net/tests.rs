//! What sockets promise whichever event loop runs, with the peers at hand.

use super::block::{Block, Blocks};
use super::clock;
use super::driver::spawn;
use super::testing::{block, on_each_driver, on_our_loops, pair, pattern, poll_once, receive_all, rest, yield_now};
use super::timer::TICK;
use crate::limits::BLOCK_SMALL;
use crate::units::Rng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;

#[test]
fn a_dropped_socket_is_closed_at_once_whatever_is_in_flight() {
    on_our_loops(|_| async {
        for (listens, resets) in [(false, false), (false, true), (true, false), (true, true)] {
            let (stream, peer) = pair();
            assert!(!listens || stream.listen());
            let waits = (!listens).then(|| stream.receive(block(b"", 64)));
            yield_now().await;
            if resets {
                stream.reset_on_close();
            }
            drop(waits);
            drop(stream);
            let (got, end) = rest(peer).await;
            assert_eq!(
                (got.len(), end.err().map(|error| error.kind())),
                (0, resets.then_some(io::ErrorKind::ConnectionReset))
            );
        }
        // a send that its peer does not take
        let (stream, peer) = pair();
        {
            let mut sending = pin!(stream.send(block(&pattern(16 << 20), 0)));
            assert!(poll_once(sending.as_mut()).await.is_none());
            yield_now().await;
        }
        drop(stream);
        let (got, end) = rest(peer).await;
        assert!(end.is_ok() && got.len() < 16 << 20 && got == pattern(got.len()));
    });
}

#[test]
fn what_was_sent_before_a_drop_goes_nowhere_else() {
    on_our_loops(|_| async {
        for _ in 0..50 {
            let (first, first_peer) = pair();
            assert!(first.listen());
            // submitted, or sent, by the first poll
            drop(poll_once(pin!(first.send(block(b"last words", 0)))).await);
            drop(first);
            // in the same turn, and with the number that would be free by now
            let (second, second_peer) = pair();
            second.send(block(b"something else", 0)).await.0.unwrap();
            assert_eq!(rest(first_peer).await.0, b"last words");
            drop(second);
            assert_eq!(rest(second_peer).await.0, b"something else");
        }
    });
}

/// A receive ends in front of them, whatever room it has (RFC 6093 §3.1 tells what systems do).
#[test]
fn what_comes_behind_urgent_bytes_is_received_like_all_the_rest() {
    on_each_driver(|_| async {
        let (stream, mut peer) = pair();
        for round in 0..3 {
            peer.write_all(b"before").unwrap();
            socket2::SockRef::from(&peer).send_out_of_band(b"!").unwrap();
            peer.write_all(b"behind").unwrap();
            assert_eq!(receive_all(&stream, 12).await, b"beforebehind", "round {round}");
        }
        assert!(poll_once(pin!(stream.receive(block(b"", 64)))).await.is_none(), "that was all");
        // they are none of it themselves
        let (stream, mut peer) = pair();
        let mut waits = pin!(stream.readable());
        assert!(poll_once(waits.as_mut()).await.is_none());
        socket2::SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        for _ in 0..100 {
            yield_now().await;
            assert!(poll_once(waits.as_mut()).await.is_none());
        }
        peer.write_all(b"x").unwrap();
        waits.await.unwrap();
    });
}

/// Does this and that with a connection, and checks what arrives.
async fn fumble(stock: &RefCell<Blocks>, all: &[u8], rng: &mut Rng) {
    let (stream, mut peer) = pair();
    peer.set_nonblocking(true).unwrap();
    let (mut sent, mut got) = (0, 0);
    let bring = |rng: &mut Rng| match rng.random_range(0..5) {
        0 => Block::default(),
        1 => stock.borrow_mut().small(),
        2 => stock.borrow_mut().large(),
        3 => block(b"head", rng.random_range(1..100)),
        _ => block(b"head", BLOCK_SMALL),
    };
    let mut check = |(received, block): (io::Result<usize>, Block)| {
        let (count, unread) = (received.unwrap(), block.unread());
        assert!(unread.len() == count || (unread.len() == count + 4 && unread.starts_with(b"head")));
        assert!(unread.ends_with(&all[got..got + count]), "after {got} bytes");
        got += count;
        count
    };
    for _ in 0..rng.random_range(1..200) {
        match rng.random_range(0..6) {
            0 | 1 => {
                let most = if rng.random_bool(0.1) { 300_000 } else { 100 };
                let end = (sent + rng.random_range(1..most)).min(all.len());
                sent += peer.write(&all[sent..end]).unwrap_or_default();
            }
            2 => drop(stream.listen()),
            3 => drop(poll_once(pin!(stream.receive(bring(rng)))).await.map(&mut check)),
            4 => drop(poll_once(pin!(stream.readable())).await.map(|ready| ready.unwrap())),
            _ => yield_now().await,
        }
    }
    peer.shutdown(Shutdown::Write).unwrap();
    if rng.random_bool(0.8) {
        while check(stream.receive(bring(rng)).await) > 0 {}
        assert_eq!(got, sent);
    }
}

#[test]
fn whatever_is_done_in_whatever_order_every_byte_arrives_once() {
    on_each_driver(|timers| async move {
        let (all, pause) = (Rc::new(pattern(1 << 20)), timers.watch());
        let stock = Rc::new(RefCell::new(Blocks::default()));
        for seeds in (0..256_u64).collect::<Vec<_>>().chunks(16) {
            // side by side, so that they take the buffers from each other
            println!("seeds {seeds:?}");
            let left = Rc::new(Cell::new(seeds.len()));
            for seed in seeds {
                let (mut rng, all, left) = (Rng::seed_from_u64(*seed), Rc::clone(&all), Rc::clone(&left));
                let stock = Rc::clone(&stock);
                spawn(async move {
                    fumble(&stock, &all, &mut rng).await;
                    left.set(left.get() - 1);
                });
            }
            // not by waking itself, which is all that monoio would do then
            while left.get() > 0 {
                pause.sleep_until(clock::now() + TICK).await;
            }
        }
    });
}
