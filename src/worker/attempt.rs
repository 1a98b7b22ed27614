//! One try of a request at one endpoint: where it goes, until when, and the watch over everything that it waits for.
//!
//! A value of its own, with a deadline of its own, and for each connection that it gets a [`super::going::Delivery`] of the request.

use crate::net::timer::Watch;
use crate::units::{ClusterId, EndpointId, Instant};

/// Where an attempt goes and how long it may take.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) cluster: ClusterId,
    pub(super) endpoint: EndpointId,
    /// End of the connect phase.
    pub(super) connect_until: Instant,
    /// End of the attempt: a whole response head must be there by then.
    pub(super) until: Instant,
    /// The request may be sent a second time without asking anybody.
    pub(super) repeatable: bool,
    /// Not a byte of it may be sent a second time, whatever is known of the first.
    pub(super) strict: bool,
    /// Over the endpoint's connection, from the moment on when it is being made.
    pub(super) watch: Watch,
}
