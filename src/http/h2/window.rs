//! Flow control (RFC 9113 §5.2, §6.9): how much may be sent, and how much was promised to be taken.

use super::code::Code;

/// The largest window (§6.9.1).
pub const WINDOW_MAX: u32 = u32::MAX >> 1;

/// Room for what we send. May be below zero, after the peer has made its initial window smaller (§6.9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow(i64);

impl SendWindow {
    /// A window of this size.
    #[must_use]
    pub const fn new(bytes: u32) -> Self {
        Self(bytes as i64)
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub fn room(self) -> usize {
        self.0.max(0) as usize
    }

    /// So much was sent, which was no more than there was room for.
    pub fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room(), "sent more than there was room for");
        self.0 -= bytes as i64;
    }

    /// The peer makes it larger, or by a change of its settings smaller.
    ///
    /// # Errors
    /// [`Code::FlowControl`] when it would be larger than a window can be.
    pub fn add(&mut self, bytes: i64) -> Result<(), Code> {
        let sum = self.0 + bytes;
        if sum > i64::from(WINDOW_MAX) {
            return Err(Code::FlowControl);
        }
        self.0 = sum;
        Ok(())
    }
}

/// Room that we have promised to the peer. It is given back when half of it has been taken by whoever the bytes are for, and not before: a
/// reader that stands still holds no more than one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveWindow {
    /// What it has when nothing is under way.
    size: u32,
    /// What the peer may still send.
    left: u32,
    /// What was taken and not given back yet.
    taken: u32,
}

impl ReceiveWindow {
    /// A window of this size, which the peer knows of.
    #[must_use]
    pub const fn new(size: u32) -> Self {
        Self { size, left: size, taken: 0 }
    }

    /// The peer has sent so much.
    ///
    /// # Errors
    /// [`Code::FlowControl`]: more than it had room for.
    pub fn receive(&mut self, bytes: usize) -> Result<(), Code> {
        let bytes = u32::try_from(bytes).ok().filter(|&bytes| bytes <= self.left).ok_or(Code::FlowControl)?;
        self.left -= bytes;
        Ok(())
    }

    /// So much of it has gone where it should. How much more the peer is to be told that it may send, if it is time.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> Option<u32> {
        self.taken += bytes as u32;
        debug_assert!(self.left + self.taken <= self.size, "taken more than there was");
        if self.taken < self.size / 2 || self.taken == 0 {
            return None;
        }
        self.left += self.taken;
        Some(std::mem::take(&mut self.taken))
    }

    /// Makes the window twice as large, up to `max`; the next credit says so.
    pub fn widen(&mut self, max: u32) {
        let wider = self.size.saturating_mul(2).min(max).max(self.size);
        self.taken += wider - self.size;
        self.size = wider;
    }

    /// What it has when nothing is under way.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// What was received and is still with us.
    #[must_use]
    pub fn held(&self) -> usize {
        (self.size - self.left - self.taken) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_was_made_smaller_has_no_room_until_it_was_made_larger_again() {
        let mut window = SendWindow::new(100);
        window.take(60);
        window.add(-80).unwrap();
        assert_eq!(window.room(), 0);
        window.add(50).unwrap();
        assert_eq!(window.room(), 10);
        assert_eq!(window.add(i64::from(WINDOW_MAX) - 9), Err(Code::FlowControl));
        window.add(i64::from(WINDOW_MAX) - 10).unwrap();
        assert_eq!(window.room(), WINDOW_MAX as usize);
    }

    #[test]
    fn credit_is_given_for_what_was_taken_and_for_half_a_window_at_once() {
        let mut window = ReceiveWindow::new(100);
        assert_eq!(window.receive(101), Err(Code::FlowControl));
        window.receive(100).unwrap();
        assert_eq!((window.receive(1), window.held()), (Err(Code::FlowControl), 100));
        assert_eq!(window.take(49), None);
        assert_eq!((window.take(1), window.held()), (Some(50), 50));
        window.receive(50).unwrap();
        assert_eq!((window.receive(1), window.held()), (Err(Code::FlowControl), 100));
        window.widen(150);
        assert_eq!((window.size(), window.held()), (150, 100));
        assert_eq!(window.take(100), Some(150));
        window.receive(150).unwrap();
        window.widen(100);
        assert_eq!(window.size(), 150);
    }
}
