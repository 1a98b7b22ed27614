//! TLS sessions of the gateway against peers that a seed makes up; the property is that of the fuzz target `session`.
//!
//! Two thousand conversations here; `RINGGATE_TLS_SEEDS=100000` for the long run, `RINGGATE_TLS_SEED=7` for one.

#[path = "../../fuzz/src/session.rs"]
#[expect(unreachable_pub, reason = "there it is a library's")]
mod session;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// A conversation: mostly what a peer would do, so that it comes to a session, and then anything.
fn conversation(rng: &mut StdRng) -> Vec<u8> {
    let mut steps = vec![rng.random_range(0..4)];
    for at in 0..rng.random_range(1..40) {
        // the first steps of a whole handshake send what there is, each way
        let is_honest = at < 6 || rng.random_bool(0.7);
        let step = if is_honest { [0, 0, 3, 4, 7][rng.random_range(0..5)] } else { rng.random_range(0..8) };
        let count = rng.random::<u8>();
        steps.extend([step | rng.random::<u8>() & 0xf8, count]);
        if step == 2 {
            steps.extend((0..count).map(|_| rng.random::<u8>()));
        }
    }
    steps
}

#[test]
fn whatever_a_peer_sends_the_session_ends_and_says_nothing_that_was_not_said() {
    let one = number("RINGGATE_TLS_SEED");
    let seeds = one.map_or(0..number("RINGGATE_TLS_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    for seed in seeds {
        // what a failure must tell
        println!("RINGGATE_TLS_SEED={seed}");
        session::check(&conversation(&mut StdRng::seed_from_u64(seed)));
    }
}
