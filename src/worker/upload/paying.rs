//! `bandwidth.upload_rate`: what the client sends goes on no faster than its route says ([`crate::worker::pacing`]).
//!
//! A piece is paid for when it is here and before it is sent up, and nothing more is received until then, so the client's TCP (or its stream's window) tells
//! it. That is the gateway's wait: neither `body_timeout` nor `min_body_rate` runs meanwhile, and T_max does, as for any slow upload.

use super::Upload;
use super::holding::Held;
use crate::error::ProxyError;
use crate::limits::BLOCK_SMALL;
use crate::net::block::Block;
use crate::worker::failure::Failure;
use crate::worker::pacing::Pace;
use std::future::Future;
use std::pin::Pin;

/// A wait for what the bucket lacks.
pub(super) type Paying<'p> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'p>>;

impl Upload<'_> {
    /// From now on its body is counted as this.
    pub(in crate::worker) fn pace_by(&self, pace: Pace) {
        self.holding().pace.set(Some(pace));
    }

    /// Waits until what has come and was not paid for may go on.
    pub(super) async fn pay(&self) -> Result<(), Failure> {
        match self.owes() {
            None => Ok(()),
            Some(paying) => paying.await,
        }
    }

    /// What that waits for. In a box, because few bodies wait and all of them would be as large.
    #[inline]
    pub(super) fn owes(&self) -> Option<Paying<'_>> {
        self.held.get().and_then(|held| self.owes_for(held))
    }

    #[cold]
    #[inline(never)]
    fn owes_for<'p>(&'p self, held: &'p Held) -> Option<Paying<'p>> {
        let pace = held.pace.get()?;
        let owed = self.body_bytes().saturating_sub(held.paid_bytes.get());
        let bytes = usize::try_from(owed).ok().filter(|bytes| *bytes > 0)?;
        Some(Box::pin(async move {
            let paid = |bytes: usize| held.paid_bytes.set(held.paid_bytes.get() + bytes as u64);
            match pace.take_noting(self.inbound, bytes, paid).await {
                true => Ok(()),
                false => Err(Failure::Downstream(ProxyError::ClientClosed)),
            }
        }))
    }

    /// Whether its body is counted, and so nothing is gained by large blocks.
    pub(super) fn is_paced(&self) -> bool {
        self.pace().is_some()
    }

    fn pace(&self) -> Option<Pace> {
        self.held.get()?.pace.get()
    }

    /// The block for the next piece, and what may be expected to come into it: a small one where a large one would take seconds.
    pub(super) fn paced_block(&self, block: Block, left: Option<u64>) -> (Block, Option<u64>) {
        if !self.pace().is_some_and(|pace| pace.is_slow()) {
            return (block, left);
        }
        let mut blocks = self.inbound.worker.blocks.borrow_mut();
        let block = match block.is_large() && block.is_empty() {
            true => {
                blocks.put(block);
                blocks.small()
            }
            false => block,
        };
        (block, Some(BLOCK_SMALL as u64))
    }
}
