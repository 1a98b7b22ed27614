//! A request that waits between `route` and `admit`, because it is not known yet who sends it.
//!
//! It holds its head and its place in the connection, and nothing that the worker lends. When what it waits for is known it is planned anew
//! from that head: routes, ways and rules are looked at again, which is cheap, and nothing is counted twice.

use super::inbound::Inbound;
use super::kept::Kept;
use super::logins::Pending;
use super::plan::{Planned, Way, planned};
use super::record::Record;
use crate::error::ProxyError;
use crate::http::cycle::Cycle;
use crate::net::block::Block;
use crate::net::clock;
use crate::units::{AuthId, Instant};
use std::rc::Rc;

/// A request that waits for something to be known of who sends it.
pub(super) struct Wait {
    /// Its head, whose bytes are in the inbox still.
    pub(super) head: Box<Kept>,
    /// What is looked at.
    pub(super) way: AuthId,
    pub(super) pending: Rc<Pending>,
}

/// What a request that waited has heard: which ways were believed.
pub(super) type Heard = [(AuthId, bool)];

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
        match resume((inbound, wait.head, inbox), cycle, record, heard, clock::now()) {
            Way::Wait(next) => wait = next,
            way => return way,
        }
    }
}

/// Plans anew for a request that has waited, with what it has heard; or ends it, if it has failed of that.
fn resume(
    (inbound, kept, inbox): (&Inbound<'_>, Box<Kept>, &Block),
    cycle: &mut Cycle,
    record: &mut Record,
    heard: Result<&Heard, ProxyError>,
    now: Instant,
) -> Way {
    planned((inbound, kept, inbox), now, heard.unwrap_or_default(), |planner| {
        let client = inbound.client_ip(planner.head);
        match heard {
            Ok(_) => planner.way(cycle, record, client),
            Err(error) => Planned::Answer(planner.give_up(cycle, record, error)),
        }
    })
}
