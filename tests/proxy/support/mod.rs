//! What the tests stand on: the gateway as a process, a raw client, scripted upstreams, and waiting with a deadline.
//!
//! Nothing here knows the gateway's code: it is driven through its command line, its configuration file and its sockets, as a user
//! would. Nothing waits without a deadline, and nothing sleeps in order to wait: see [`eventually`] and [`Gate`].

pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod gateway;
pub(crate) mod grpc;
pub(crate) mod load;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod upstream;

pub(crate) use client::Client;
pub(crate) use gateway::{Driver, Gateway, Setup, behind, behind_endpoints, first_then};
pub(crate) use upstream::Upstream;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up; far above what a busy machine needs, because it is only spent on failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until `look` finds something; fails after [`PATIENCE`].
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "did not happen within {PATIENCE:?}: {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// A door that stays open once it was opened.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Lets everybody through, now and later.
    pub(crate) fn open(&self) {
        *lock(&self.open) = true;
        self.changed.notify_all();
    }

    /// Waits until it is open; fails after [`PATIENCE`].
    pub(crate) fn wait(&self) {
        let (open, _) = self
            .changed
            .wait_timeout_while(lock(&self.open), PATIENCE, |open| !*open)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(*open, "nobody opened the gate within {PATIENCE:?}");
    }
}

/// The lock, whether or not another thread of the test failed while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `len` bytes that do not repeat, the same for the same seed (xorshift64*, Vigna 2016).
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Compares long bodies without printing them.
#[track_caller]
pub(crate) fn assert_same_bytes(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len(), "length of the body");
    if let Some(at) = got.iter().zip(expected).position(|(a, b)| a != b) {
        panic!("bodies differ first at byte {at} of {}", expected.len());
    }
}

/// Makes of each function two tests, one on each event loop: `name::io_uring` and `name::epoll`.
macro_rules! on_both_drivers {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident: Driver) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            pub(super) fn case($driver: Driver) $body

            #[test]
            fn io_uring() {
                if Driver::IoUring.is_possible() {
                    case(Driver::IoUring);
                } else {
                    eprintln!("skipped: this kernel or sandbox does not allow io_uring");
                }
            }

            #[test]
            fn epoll() {
                case(Driver::Epoll);
            }
        }
    )*};
}
pub(crate) use on_both_drivers;

/// The same, and each a third time on the steps between: `between::name`. For what rests on the event loop most; all the others run there with
/// `RINGGATE_TEST_STEP`.
macro_rules! on_every_step {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident: Driver) $body:block)*) => {
        crate::support::on_both_drivers! { $($(#[$meta])* fn $name($driver: Driver) $body)* }

        mod between {
            use super::Driver;

            $(#[test]
            fn $name() {
                for step in Driver::GUESTS.into_iter().filter(|step| step.is_possible()) {
                    eprintln!("on {}", step.name());
                    super::$name::case(step);
                }
            })*
        }
    };
}
pub(crate) use on_every_step;
