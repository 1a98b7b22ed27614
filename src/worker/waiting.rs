//! A request that waits between `route` and `admit`, because it is not known yet who sends it.
//!
//! It holds its head and its place in the connection, and nothing that the worker lends. When what it waits for is known it is planned anew
//! from that head: routes, ways and rules are looked at again, which is cheap, and nothing is counted twice.

use super::inbound::Inbound;
use super::plan::{self, Wait, Way};
use super::record::Record;
use crate::http::cycle::Cycle;
use crate::net::block::Block;
use crate::net::clock;

/// Waits until nothing is left to wait for: each way to be recognised is waited for once.
pub(super) async fn wait(
    inbound: &Inbound<'_>,
    inbox: &Block,
    cycle: &mut Cycle,
    record: &mut Record,
    wait: Wait,
) -> Way {
    let (mut heard, mut wait) = (Vec::new(), wait);
    loop {
        let verdict = wait.pending.verdict(inbound).await;
        let heard = match verdict {
            Ok(is_right) => {
                heard.push((wait.way, is_right));
                Ok(&*heard)
            }
            Err(error) => Err(error),
        };
        match plan::resume((inbound, wait.head, inbox), cycle, record, heard, clock::now()) {
            Way::Wait(next) => wait = next,
            way => return way,
        }
    }
}
