//! What tells the timers of a worker that it is time: on our epoll the end of the turn's own wait, which costs nothing, elsewhere a timerfd.

use super::engine::{self, Engine};
use super::epoll::Epoll;
use super::stream::Stream;
use crate::units::Instant;
use std::future::poll_fn;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// See the module. At most one of an event loop.
#[derive(Debug)]
pub(super) enum Alarm {
    Turn(&'static Epoll),
    Timerfd(Stream),
}

impl Alarm {
    /// Must be made inside the worker's runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new() -> io::Result<Self> {
        match engine::current() {
            Some(Engine::Epoll(epoll)) => Ok(Self::Turn(epoll)),
            _ => Self::timerfd(),
        }
    }

    /// A timer of the kernel's.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn timerfd() -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor.
        Stream::from_fd(unsafe { OwnedFd::from_raw_fd(fd) }).map(Self::Timerfd)
    }

    /// Has it ring once at `at`, and not before, in the place of what was set last.
    pub(super) fn set(&self, at: Instant) {
        match self {
            Self::Turn(epoll) => epoll.set_alarm(at),
            Self::Timerfd(timerfd) => set_timerfd(timerfd, at),
        }
    }

    /// Waits until it rings.
    ///
    /// # Errors
    /// It is broken.
    pub(super) async fn rings(&self) -> io::Result<()> {
        match self {
            Self::Turn(epoll) => poll_fn(|cx| epoll.poll_alarm(cx)).await,
            Self::Timerfd(timerfd) => {
                timerfd.readable().await?;
                let mut expirations = [0_u8; 8];
                // SAFETY: eight bytes of room for the eight that a timerfd gives. A failure means that it has not expired.
                unsafe { libc::read(timerfd.fd(), expirations.as_mut_ptr().cast(), 8) };
            }
        }
        Ok(())
    }
}

fn set_timerfd(timerfd: &Stream, at: Instant) {
    let nanos = at.as_nanos();
    let at = libc::timespec {
        tv_sec: (nanos / 1_000_000_000).cast_signed(),
        tv_nsec: (nanos % 1_000_000_000).cast_signed(),
    };
    let spec = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
    // SAFETY: `spec` is live, and the old value is not asked for.
    unsafe { libc::timerfd_settime(timerfd.fd(), libc::TFD_TIMER_ABSTIME, &raw const spec, std::ptr::null_mut()) };
}
