//! A seeded simulation of the policies: admission, clusters, exchanges and everything below them, on a virtual clock.
//!
//! Each seed makes up a cluster, a route, its limits, endpoints that refuse, reset, hang, slow down, throttle, truncate and flap, and clients that come
//! in bursts and sometimes leave. After every step the invariants of `check` must hold; at the end everything drains. A failure
//! prints its seed, and `RINGGATE_SIM_SEED=n cargo test --test sim` replays just that one.

mod check;
mod fleet;
mod gate;
mod world;

use world::World;

const SEEDS: u64 = 1_000;

/// Prints the seed when the simulation under it fails.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with RINGGATE_SIM_SEED={}", self.0);
        }
    }
}

fn simulate(seed: u64) -> world::Report {
    let _announce = Announce(seed);
    World::new(seed).run()
}

fn seeds() -> Vec<u64> {
    match std::env::var("RINGGATE_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("RINGGATE_SIM_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

#[test]
fn every_invariant_holds_at_every_step_of_every_seed() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut total = world::Report::default();
    std::thread::scope(|scope| {
        let part = |n: usize| seeds.iter().skip(n).step_by(threads).map(|seed| simulate(*seed));
        let parts: Vec<_> = (0..threads).map(|n| scope.spawn(move || part(n).collect::<Vec<_>>())).collect();
        for part in parts {
            part.join().expect("every invariant holds").into_iter().for_each(|report| total += report);
        }
    });
    println!("{total:?}");
    if seeds.len() as u64 == SEEDS {
        total.assert_that_everything_happened();
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 2, 3] {
        assert_eq!(simulate(seed), simulate(seed));
    }
}
