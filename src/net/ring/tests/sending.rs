//! What is sent, whoever waits for it.

use super::*;

/// A connection that takes no more.
fn clogged() -> (Stream, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let stream = Stream::from_fd(ours.into()).unwrap();
    // SAFETY: the bytes live as long as the call.
    let send = |bytes: &[u8]| unsafe {
        libc::send(stream.fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    for bytes in [&[b'7'; 64 << 10][..], b"7"] {
        while send(bytes) > 0 {}
    }
    (stream, peer)
}

#[test]
fn what_nobody_waits_for_holds_nobody_up() {
    on_ring(|_| async {
        let (clogged, (stream, mut peer)) = ((0..16).map(|_| clogged()).collect::<Vec<_>>(), pair());
        assert!(clogged.iter().all(|(clogged, _)| clogged.post(block(b"posted", 0)).is_ok()));
        peer.write_all(b"x").unwrap();
        assert_eq!(receive(&stream).await.unwrap(), b"x");
    });
}

#[test]
fn what_was_posted_to_a_slow_reader_that_has_ended_is_waited_for() {
    on_ring(|_| async {
        let (stream, mut peer) = clogged();
        assert!(stream.post(block(b"posted", 0)).is_ok());
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive(&stream).await.unwrap(), b"");
        assert!(poll_once(pin!(stream.posted())).await.is_none(), "nothing was read yet");
        peer.set_nonblocking(true).unwrap();
        let mut got = Vec::new();
        {
            let mut posted = pin!(stream.posted());
            while poll_once(posted.as_mut()).await.is_none() {
                let _ = peer.read_to_end(&mut got);
                yield_now().await;
            }
        }
        drop(stream);
        got.extend(rest(peer).await.0);
        assert!(got.ends_with(b"7posted"));
    });
}

#[test]
fn more_than_the_queue_has_room_for_is_carried_out_in_order() {
    on_ring(|_| async {
        const MANY: usize = 3 * ENTRIES as usize;
        let (stream, mut peer) = pair();
        let mut sends: Vec<_> =
            pattern(MANY).into_iter().map(|byte| Box::pin(stream.send(block(&[byte], 0)))).collect();
        for sending in &mut sends {
            assert!(poll_once(sending.as_mut()).await.is_none_or(|(sent, _)| sent.is_ok()));
        }
        // some of them are over since, as the queue had to be emptied
        yield_now().await;
        let mut got = vec![0; MANY];
        peer.read_exact(&mut got).unwrap();
        assert!(got == pattern(MANY));
        let waits: Vec<_> = (0..MANY).map(|_| stream.readable()).collect();
        peer.write_all(b"x").unwrap();
        for ready in waits {
            ready.await.unwrap();
        }
        assert_eq!(receive(&stream).await.unwrap(), b"x");
        // and called off all at once
        drop((0..MANY).map(|_| stream.readable()).collect::<Vec<_>>());
    });
}
