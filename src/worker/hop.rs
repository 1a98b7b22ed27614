//! One hop of a request: an attempt, the connection that it has got, and the request on its way to that.

use super::attempt::Attempt;
use super::going::Delivery;
use super::lease::Lease;
use super::upload::Upload;
use crate::net::upstream::Upstream;

/// See the module. An attempt makes another one when its pooled connection turns out to be closed.
pub(super) struct Hop<'h> {
    pub(super) attempt: &'h Attempt,
    pub(super) lease: &'h Lease,
    pub(super) delivery: &'h Delivery,
    pub(super) upload: &'h Upload<'h>,
}

impl<'h> Hop<'h> {
    /// The connection.
    pub(super) fn upstream(&self) -> &'h Upstream {
        self.lease.upstream()
    }

    /// Whether the whole request is here, and the kernel takes it at once: then nobody waits for its being sent.
    pub(super) fn goes_at_once(&self) -> bool {
        self.upload.goes_at_once(self.delivery)
    }

    /// Whether a byte of the request was handed to the connection.
    pub(super) fn has_sent(&self) -> bool {
        self.upload.has_sent(self.delivery)
    }
}
