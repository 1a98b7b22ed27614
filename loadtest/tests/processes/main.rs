//! Real processes: the built-in services, children that never outlive us, gateways that are started.

mod children;
mod client;
mod gateways;
mod upstream;

use ringgate_load::processes::{Fleet, use_program};
use ringgate_load::upstream::{Service, Time};
use std::time::Duration;

/// How long something may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service like this on a port of its own.
fn service(time: Time, body_bytes: usize) -> Service {
    Service { listen: "127.0.0.1:0".parse().expect("an address"), time, body_bytes, seed: 1 }
}

/// That many instances of a service that answers at once.
fn fleet(count: usize) -> Fleet {
    fleet_of(&vec![service(Time::Fixed(Duration::ZERO), 100); count])
}

fn fleet_of(services: &[Service]) -> Fleet {
    be_the_tool();
    Fleet::start_all(services, &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// Guardians and services are ringgate-load, not this test.
fn be_the_tool() {
    use_program(env!("CARGO_BIN_EXE_ringgate-load"));
}
