//! What a client may cost without bringing anything: attacks on HTTP/2 are frames that are cheap to send and dear to take.
//!
//! Two accounts a connection, and neither needs a table. *Useless frames*: whatever asks for work and carries no request (PING, SETTINGS,
//! PRIORITY, empty DATA, WINDOW_UPDATE, unknown frames, frames for streams that are over) is paid from a budget that requests, bodies and
//! time fill again. *Resets*: a client may change its mind about requests, but not about most of them (Rapid Reset, CVE-2023-44487), and
//! what it makes us reset counts the same (MadeYouReset, CVE-2025-8671). That a stream holds its place until its exchange has ended is
//! [`super::connection`]'s part of the answer.

use super::code::Code;
use crate::units::Instant;
use std::time::Duration;

/// Useless frames that a connection may send at once.
pub const USELESS_MAX: u32 = 1_000;
/// How often one more is allowed for no reason: pings that keep a connection alive.
const REFILL: Duration = Duration::from_millis(100);
/// DATA that carries less than this brings nothing.
pub const USEFUL_BYTES_MIN: usize = 64;
/// What a piece of a body pays for: the two WINDOW_UPDATEs that it makes its receiver send, and one more.
const PIECE: u32 = 3;
/// Frames that may be under way for a stream that we call off: its window in small messages.
const CANCELLED: u32 = 4_096;
const CANCELLED_MAX: u32 = 4 * CANCELLED;
/// Resets that a connection may make …
pub const RESETS_MAX: u32 = 100;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    budget: u32,
    filled_at: Instant,
    streams: u32,
    resets: u32,
}

impl Guard {
    /// Of a connection that begins at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { budget: USELESS_MAX, filled_at: now, streams: 0, resets: 0 }
    }

    /// A frame that carries nothing.
    ///
    /// # Errors
    /// [`Code::EnhanceYourCalm`]: it was one too many.
    pub fn on_useless(&mut self, now: Instant) -> Result<(), Code> {
        if self.budget == 0 {
            let due = now.since(self.filled_at).as_nanos() / REFILL.as_nanos();
            self.budget = due.min(u128::from(USELESS_MAX)) as u32;
            self.filled_at = now;
        }
        self.budget = self.budget.checked_sub(1).ok_or(Code::EnhanceYourCalm)?;
        Ok(())
    }

    /// A piece of a body, in either direction, of so many bytes.
    pub fn on_piece(&mut self, bytes: usize) {
        if bytes >= USEFUL_BYTES_MIN {
            self.fill(PIECE);
        }
    }

    /// A stream has begun.
    pub fn on_stream(&mut self) {
        self.streams = self.streams.saturating_add(1);
    }

    /// A stream has ended as it should.
    pub fn on_finished(&mut self) {
        self.fill(2 * PIECE);
    }

    /// We have called off a stream that we had begun: what is under way for it is nobody's fault.
    pub fn on_cancelled(&mut self) {
        self.budget = (self.budget + CANCELLED).min(CANCELLED_MAX.max(self.budget));
    }

    /// A stream was reset by the client, or by us for what the client did.
    ///
    /// # Errors
    /// [`Code::EnhanceYourCalm`]: more than [`RESETS_MAX`], and more than half of all its streams.
    pub fn on_reset(&mut self) -> Result<(), Code> {
        self.resets = self.resets.saturating_add(1);
        if self.resets > RESETS_MAX && self.resets > self.streams / 2 {
            return Err(Code::EnhanceYourCalm);
        }
        Ok(())
    }

    fn fill(&mut self, frames: u32) {
        self.budget = (self.budget + frames).min(USELESS_MAX.max(self.budget));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn useless_frames_end_a_connection_unless_something_comes_of_them() {
        let start = Instant::from_nanos(7);
        let mut guard = Guard::new(start);
        let count = (0..10_000).take_while(|_| guard.on_useless(start).is_ok()).count();
        assert_eq!(count, USELESS_MAX as usize);
        guard.on_piece(USEFUL_BYTES_MIN - 1);
        assert_eq!(guard.on_useless(start), Err(Code::EnhanceYourCalm));
        guard.on_piece(USEFUL_BYTES_MIN);
        guard.on_finished();
        let count = (0..10_000).take_while(|_| guard.on_useless(start).is_ok()).count();
        assert_eq!(count, 3 * PIECE as usize);
    }

    #[test]
    fn one_that_pings_now_and_then_does_so_for_ever() {
        let mut guard = Guard::new(Instant::from_nanos(0));
        for n in 0..100_000 {
            assert_eq!(guard.on_useless(Instant::from_nanos(0) + n * Duration::from_secs(1)), Ok(()), "{n}");
        }
        let now = Instant::from_nanos(0) + Duration::from_secs(100_000);
        let count = (0..10_000).take_while(|_| guard.on_useless(now).is_ok()).count();
        assert!(count <= USELESS_MAX as usize, "{count}");
    }

    #[test]
    fn a_client_may_change_its_mind_but_not_about_most_requests() {
        let mut guard = Guard::new(Instant::from_nanos(0));
        for _ in 0..RESETS_MAX {
            guard.on_stream();
            assert_eq!(guard.on_reset(), Ok(()));
        }
        guard.on_stream();
        assert_eq!(guard.on_reset(), Err(Code::EnhanceYourCalm));
        let mut busy = Guard::new(Instant::from_nanos(0));
        for _ in 0..1_000 {
            busy.on_stream();
            busy.on_stream();
            busy.on_finished();
            assert_eq!(busy.on_reset(), Ok(()), "half of them");
        }
    }

    #[test]
    fn what_is_under_way_for_a_stream_that_was_called_off_is_paid_for_and_no_more() {
        let start = Instant::from_nanos(0);
        let mut guard = Guard::new(start);
        guard.on_cancelled();
        guard.on_finished();
        let count = (0..100_000).take_while(|_| guard.on_useless(start).is_ok()).count();
        assert_eq!(count, (USELESS_MAX + CANCELLED) as usize);
        (0..1_000).for_each(|_| guard.on_cancelled());
        let count = (0..100_000).take_while(|_| guard.on_useless(start).is_ok()).count();
        assert_eq!(count, CANCELLED_MAX as usize);
    }
}
