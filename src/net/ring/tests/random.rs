//! Whatever is done with connections, in an order that a seed chooses.

use super::*;
use crate::units::Rng;
use rand::{RngExt as _, SeedableRng as _};

/// Does this and that with a connection, and checks what arrives.
async fn fumble(ring: &'static Ring, all: &[u8], rng: &mut Rng) {
    let (stream, mut peer) = pair();
    peer.set_nonblocking(true).unwrap();
    let (mut sent, mut got) = (0, 0);
    let bring = |rng: &mut Rng| match rng.random_range(0..5) {
        0 => Block::default(),
        1 => ring.stock.borrow_mut().small(),
        2 => ring.stock.borrow_mut().large(),
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
    on_ring(|ring| async move {
        let all = Rc::new(pattern(1 << 20));
        for seeds in (0..256_u64).collect::<Vec<_>>().chunks(16) {
            // side by side, so that they take the buffers from each other
            println!("seeds {seeds:?}");
            let left = Rc::new(Cell::new(seeds.len()));
            for seed in seeds {
                let (mut rng, all, left) = (Rng::seed_from_u64(*seed), Rc::clone(&all), Rc::clone(&left));
                ring.tasks().spawn(async move {
                    fumble(ring, &all, &mut rng).await;
                    left.set(left.get() - 1);
                });
            }
            until(|| left.get() == 0).await;
        }
    });
}
