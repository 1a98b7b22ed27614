//! A request's head, from its arrival until it is encoded for the endpoint of an attempt.
//!
//! What was parsed is kept apart from the bytes, which stay at the front of the block that they arrived in until the body is received
//! into that. So the line may wait between any two of its verbs, and hold nothing of the worker's meanwhile.

use super::identify::Identified;
use super::request_id::RequestId;
use crate::http::head::RequestHead;
use crate::http::kept::KeptHead;
use crate::net::block::Block;

/// A head that has arrived whole. In a box, which goes from hand to hand.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) head: KeptHead,
    /// Where its bytes begin in the block that they arrived in.
    pub(super) at: usize,
    /// What the gateway calls the request, if that brings no name of its own.
    pub(super) id: Option<RequestId>,
    /// Who sends it, if that was asked.
    pub(super) identified: Option<Identified>,
}

impl Kept {
    /// The head, whose bytes are in this block still.
    pub(super) fn view<'b>(&'b self, inbox: &'b Block) -> RequestHead<'b> {
        self.head.view(&inbox.all()[self.at..])
    }
}
