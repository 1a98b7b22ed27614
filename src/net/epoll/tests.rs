//! Our epoll, with the peers at hand. What all event loops promise is tested for all of them elsewhere.

use super::socket::Socket;
use super::*;
use crate::limits::BLOCK_SMALL;
use crate::net::block::Block;
use crate::net::driver::{EventLoop, Step, spawn};
use crate::net::guarded::caught;
use crate::net::stream::Stream;
use crate::net::testing::{
    PATIENCE, block, on_our_epoll, pair, pattern, poll_once, receive, receive_all, until, yield_now,
};
use crate::net::timer::TICK;
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::pin::pin;

fn socket(stream: &Stream) -> &Socket {
    stream.on_epoll().expect("it is on one")
}

/// Waits until the kernel has told of something.
async fn told(stream: &Stream) {
    until(|| socket(stream).may_receive()).await;
}

#[test]
fn nothing_is_tried_in_vain_and_an_end_is_not_overlooked() {
    on_our_epoll(|_| async {
        let (stream, mut peer) = pair();
        assert!(!socket(&stream).may_receive(), "nobody has sent anything");
        for text in [&b"one"[..], b"two"] {
            peer.write_all(text).unwrap();
            assert_eq!(receive(&stream).await.unwrap(), text);
            assert!(!socket(&stream).may_receive() && !stream.is_spent(), "that was all");
        }
        // what fills the room may be more
        peer.write_all(b"abcdef").unwrap();
        let (received, got) = stream.receive(block(b"", 3)).await;
        assert_eq!((received.unwrap(), got.unread()), (3, &b"abc"[..]));
        assert!(socket(&stream).may_receive() && stream.is_spent());
        assert_eq!(receive(&stream).await.unwrap(), b"def");
        // and so may what comes with the end, which is told once
        peer.write_all(b"bye").unwrap();
        drop(peer);
        until(|| socket(&stream).is_unsure()).await;
        assert_eq!(receive(&stream).await.unwrap(), b"bye");
        for _ in 0..3 {
            assert_eq!(receive(&stream).await.unwrap(), b"");
        }
        assert!(stream.is_spent());
    });
}

#[test]
fn an_end_that_comes_behind_the_last_bytes_is_told_by_itself() {
    on_our_epoll(|_| async {
        for _ in 0..20 {
            let (stream, mut peer) = pair();
            peer.write_all(b"bye").unwrap();
            assert_eq!(receive(&stream).await.unwrap(), b"bye");
            let mut waits = pin!(receive(&stream));
            assert!(poll_once(waits.as_mut()).await.is_none());
            drop(peer);
            assert_eq!(waits.await.unwrap(), b"");
        }
    });
}

#[test]
fn who_waits_holds_no_block_and_may_leave() {
    on_our_epoll(|epoll| async {
        let (stream, mut peer) = pair();
        let lent = epoll.stock.borrow().lent_bytes();
        assert!(stream.listen());
        {
            let mut waits = pin!(stream.receive(Block::default()));
            assert!(poll_once(waits.as_mut()).await.is_none());
            assert_eq!(epoll.stock.borrow().lent_bytes(), lent);
            peer.write_all(b"late").unwrap();
            told(&stream).await;
        }
        let (received, got) = stream.receive(Block::default()).await;
        assert_eq!((received.unwrap(), got.unread()), (4, &b"late"[..]));
        assert!(epoll.stock.borrow().lent_bytes() > lent);
        epoll.stock.borrow_mut().put(got);
    });
}

/// What a task gets in a turn that receives a kilobyte at a time.
const MOST_OF_A_TURN: usize = (SHARE / SHARE_LEAST) << 10;

#[test]
fn who_has_always_more_to_receive_gives_others_their_turn() {
    on_our_epoll(|_| async {
        let (stream, mut peer) = pair();
        peer.set_nonblocking(true).unwrap();
        let all = pattern(1 << 20);
        let sent = peer.write(&all).unwrap();
        told(&stream).await;
        let got = Rc::new(RefCell::new(Vec::new()));
        let taken = Rc::clone(&got);
        spawn(async move {
            while taken.borrow().len() < sent {
                let (received, piece) = stream.receive(block(b"", 1 << 10)).await;
                received.unwrap();
                taken.borrow_mut().extend_from_slice(piece.unread());
            }
        });
        let mut turns = 0;
        while got.borrow().len() < sent {
            let before = got.borrow().len();
            yield_now().await;
            turns += 1;
            let more = got.borrow().len() - before;
            assert!(more <= MOST_OF_A_TURN, "{more} after {turns} turns");
        }
        assert!(turns > 1 && *got.borrow() == all[..sent]);
    });
}

#[test]
fn bulk_is_drained_in_parts_and_each_has_its_part_of_a_round() {
    on_our_epoll(|_| async {
        // tasks that are not there: waking one does nothing
        let [first, second, third] = [1_000_001, 1_000_002, 1_000_003].map(Waiter::numbered);
        let mut bulk = Bulk::default();
        [first, second, third].into_iter().for_each(|waiter| bulk.put(waiter));
        let mut woken = Vec::new();
        for _ in 0..3 * ROUND / SHARE {
            bulk.wake_next();
            woken.push(bulk.ahead);
            bulk.put(bulk.ahead);
        }
        let runs: Vec<(Waiter, usize)> = woken.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() * SHARE)).collect();
        for (at, (waiter, bytes)) in runs.iter().enumerate().take(runs.len() - 1) {
            assert_eq!(*waiter, [first, second, third][at % 3], "{runs:?}");
            assert!(*bytes <= ROUND / 3 + SHARE && *bytes > ROUND / 3 - SHARE, "{runs:?}");
        }
        assert!(runs.len() >= 9, "{runs:?}");
        [first, second, first].into_iter().for_each(|waiter| bulk.put(waiter));
        assert_eq!(bulk.waiting.len(), 3, "each has one place");
        // one for whom nothing comes any more is not waited for, and many have a share each
        bulk.wake_next();
        let gone = bulk.ahead;
        (0..1_000).map(|row| Waiter::numbered(2_000_000 + row)).for_each(|waiter| bulk.put(waiter));
        for _ in 0..1_002 {
            let before = bulk.ahead;
            bulk.wake_next();
            assert!(bulk.ahead != before && bulk.ahead != gone);
            bulk.put(bulk.ahead);
        }
    });
}

#[test]
fn what_is_ready_for_ever_gives_others_their_turn() {
    on_our_epoll(|_| async {
        let (stream, peer) = pair();
        drop(peer);
        let looks = Rc::new(Cell::new(0_u64));
        let looked = Rc::clone(&looks);
        spawn(async move {
            loop {
                stream.readable().await.unwrap();
                looked.set(looked.get() + 1);
            }
        });
        until(|| looks.get() > 10_000).await;
    });
}

#[test]
fn what_was_not_taken_is_given_back_and_goes_on_when_there_is_room() {
    on_our_epoll(|epoll| async {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = Stream::from_fd(ours.into()).unwrap();
        let all = pattern(4 << 20);
        let left = stream.post(block(&all, 0)).unwrap_err();
        let taken = all.len() - left.unread().len();
        assert!(taken > 0 && left.unread() == &all[taken..]);
        // one that is known to be full is not tried
        assert_eq!(stream.post(block(b"x", 0)).unwrap_err().unread(), b"x");
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            got
        });
        let (sent, _) = stream.send(left).await;
        sent.unwrap();
        // the last of it was taken whole, and may have left no room
        let mut more = block(b"and more", 0);
        while let Err(back) = stream.post(more) {
            stream.writable().await.unwrap();
            more = back;
        }
        drop(stream);
        assert!(thread.join().unwrap() == [&all[..], b"and more"].concat());
        assert!(epoll.rows.borrow().is_empty());
    });
}

#[test]
fn a_post_that_fails_is_given_back_to_who_hears_of_it() {
    on_our_epoll(|_| async {
        let (stream, peer) = pair();
        socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        told(&stream).await;
        let left = stream.post(block(b"lost", 0)).unwrap_err();
        assert!(stream.send(left).await.0.is_err());
    });
}

#[test]
fn what_is_told_of_a_descriptor_that_lives_on_elsewhere_is_told_to_nobody() {
    on_our_epoll(|epoll| async {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let elsewhere = ours.as_fd().try_clone_to_owned().unwrap();
        let first = Stream::from_fd(ours.into()).unwrap();
        let number = epoll.rows.borrow().iter().next().map(|(number, _)| number);
        drop(first);
        let (second, _second_peer) = pair();
        assert_eq!(epoll.rows.borrow().iter().next().map(|(number, _)| number), number, "the same row");
        peer.write_all(b"to the first").unwrap();
        // what comes later is told no sooner
        let (third, mut third_peer) = pair();
        third_peer.write_all(b"x").unwrap();
        told(&third).await;
        yield_now().await;
        assert!(!socket(&second).may_receive());
        drop(elsewhere);
    });
}

#[test]
fn what_cannot_be_watched_is_refused_and_leaves_nothing() {
    on_our_epoll(|epoll| async {
        let file = tempfile::tempfile().unwrap();
        let refused = Stream::from_fd(file.into()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(epoll.rows.borrow().is_empty());
    });
}

#[test]
fn large_pieces_go_into_the_block_of_who_brings_one() {
    on_our_epoll(|_| async {
        let (stream, mut peer) = pair();
        let all = pattern(1 << 20);
        let sent = all.clone();
        let thread = std::thread::spawn(move || peer.write_all(&sent).map(|()| peer).unwrap());
        let first = receive(&stream).await.unwrap();
        assert!(!first.is_empty() && first.len() <= BLOCK_SMALL, "into a small one, where nobody brings any");
        let (received, got) = stream.receive(block(b"head", 100 << 10)).await;
        assert_eq!(got.unread().len(), 4 + received.unwrap());
        assert!(got.unread().starts_with(b"head"));
        let so_far = [&first[..], &got.unread()[4..]].concat();
        let rest = receive_all(&stream, all.len() - so_far.len()).await;
        assert!([so_far, rest].concat() == all);
        drop(thread.join().unwrap());
    });
}

#[test]
fn one_alarm_rings_for_what_was_set_last() {
    // without timers, which have the alarm otherwise
    let on_its_thread = || {
        let owner = Epoll::leak(Rc::default()).unwrap();
        let epoll = owner.epoll();
        let began = clock::read_now();
        epoll.tasks().block_on(Engine::Epoll(epoll), async {
            epoll.set_alarm(began + PATIENCE);
            epoll.set_alarm(began + 2 * TICK);
            poll_fn(|cx| epoll.poll_alarm(cx)).await;
            assert!(clock::now() >= began + 2 * TICK && clock::now() < began + PATIENCE);
            assert_eq!(epoll.alarm.at.get(), Instant::NEVER, "it rings once");
        });
        assert_eq!(owner.end(), 0);
    };
    std::thread::spawn(on_its_thread).join().unwrap();
}

#[test]
fn a_loop_that_the_kernel_refuses_ends_and_gives_everything_back() {
    std::thread::spawn(|| {
        let mut event_loop = EventLoop::at(Step::Epoll).unwrap();
        let mut peer = None;
        let broken = caught(|| {
            event_loop.block_on(async {
                let (stream, its_peer) = pair();
                peer = Some(its_peer);
                spawn(async move { drop(stream.readable().await) });
                yield_now().await;
                assert!(crate::net::driver::break_it());
                yield_now().await;
            });
        });
        assert!(broken.is_none());
        assert_eq!(event_loop.end(), 0);
        let mut peer = peer.unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "it is closed");
    })
    .join()
    .unwrap();
}
