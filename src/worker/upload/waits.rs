//! One at a time waits for a client's next bytes: whoever does says so, until it is dropped.

use std::cell::Cell;

/// The client's next bytes are being waited for, until it is dropped.
pub(super) struct Waits<'c>(&'c Cell<bool>);

impl<'c> Waits<'c> {
    pub(super) fn begin(waits: &'c Cell<bool>) -> Self {
        debug_assert!(!waits.get(), "one at a time");
        waits.set(true);
        Self(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
