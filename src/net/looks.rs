//! What the timers see of a socket that they watch: whether its peer takes what is sent, and whether a client is still there.

use super::lane::socket as lane;
use super::stream::poll_now;
use super::wheel::{CLIENT_GONE, Doing, Row};
use crate::units::Instant;
use std::os::fd::RawFd;
use std::time::Duration;

/// How often in a row a wait is prolonged for that: a loop that is away again and again still has an end.
pub(super) const LATE_MAX: u8 = 3;
/// Looks at what is being sent within the time that its peer may take nothing of it.
pub(super) const SEND_LOOKS: u32 = 4;
/// Looks after which a client that has ended its direction counts as gone.
const CLIENT_ENDED_LOOKS: u8 = 2;

impl Row {
    /// What is watched from now on.
    pub(super) fn set(&mut self, fd: RawFd, doing: Doing) {
        (self.fd, self.doing) = (fd, doing);
        self.set_patience(Duration::ZERO);
    }

    /// Its deadline has passed while the loop was away: whether it is given another one.
    pub(super) fn is_excused(&mut self) -> bool {
        let waits = self.doing != Doing::Nothing && self.late < LATE_MAX;
        self.late += u8::from(waits);
        waits
    }

    /// The client has been heard, or something is being sent to it: what was seen of it before does not count.
    pub(super) fn begin_looks(&mut self) {
        self.client_ended = 0;
    }

    /// Looks after the client.
    pub(super) fn look(&mut self) {
        if self.has_left() {
            return;
        }
        let events = poll_now(self.fd, libc::POLLRDHUP);
        let reset = events & (libc::POLLERR | libc::POLLHUP) != 0;
        self.client_ended = if events & libc::POLLRDHUP == 0 { 0 } else { self.client_ended + 1 };
        if reset || self.client_ended > CLIENT_ENDED_LOOKS {
            self.client_ended = CLIENT_GONE;
        }
    }

    /// When to look again after what is being sent, if the peer has taken something of it lately.
    pub(super) fn send_goes_on(&mut self, now: Instant) -> Option<Instant> {
        let patience = self.patience();
        if patience.is_zero() {
            return None;
        }
        let queued = queued(self.fd);
        if queued < self.queued {
            self.since = now;
        }
        let is_first = std::mem::replace(&mut self.queued, queued) < 0;
        let end = self.since + patience;
        let next = now + patience / SEND_LOOKS;
        match end > now {
            // one look tells nothing, so there are two at least
            _ if is_first => Some(next),
            true => Some(end.min(next)),
            false => None,
        }
    }
}

/// Bytes of a socket that its peer has not taken yet (SIOCOUTQ: unacknowledged, or unread on a unix socket).
fn queued(fd: RawFd) -> libc::c_int {
    if lane::is_lane(fd) {
        return lane::queued(fd);
    }
    let mut bytes = 0;
    // SAFETY: the kernel writes one int. On an error it writes none, which reads as a peer that has taken everything.
    unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    bytes
}
