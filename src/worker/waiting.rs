//! A request that waits between `route` and `admit`, because it is not known yet who sends it.
//!
//! It holds its head and its place in the connection, and nothing that the worker lends. When what it waits for is known it is planned anew
//! from that head: routes, ways and rules are looked at again, which is cheap, and nothing is counted twice.

use super::decision::{self, Decision};
use super::inbound::Inbound;
use super::kept::Kept;
use super::logins::Pending;
use super::plan::{Way, planned};
use super::record::Record;
use crate::error::ProxyError;
use crate::http::cycle::Cycle;
use crate::net::block::Block;
use crate::net::clock;
use crate::units::{AuthId, Instant, RouteId};
use std::rc::Rc;

/// A request that waits for something to be known of who sends it.
pub(super) struct Wait {
    pub(super) route: RouteId,
    /// What is looked at.
    pub(super) way: AuthId,
    pub(super) on: On,
}

/// What a request waits for.
pub(super) enum On {
    /// A password to be verified.
    Password(Rc<Pending>),
    /// What somebody else says of it.
    Decision,
}

/// What it hears.
pub(super) enum Told {
    /// Whether the password is right.
    Password(bool),
    /// That.
    Decided(Decision),
}

/// What a request that waited has heard, by ways.
pub(super) type Heard = [(AuthId, Told)];

/// Waits until nothing is left to wait for: each way to be recognised is waited for once. The head's bytes are in the inbox still.
pub(super) async fn wait(
    (inbound, kept, inbox): (&Inbound<'_>, &mut Kept, &Block),
    cycle: &mut Cycle,
    record: &mut Record,
    wait: Wait,
) -> Way {
    let (mut heard, mut wait) = (Vec::new(), wait);
    // T_max is from the request's first byte, with all waits
    let until = record.started() + inbound.worker.shared.config.routes[wait.route.index()].timeout.longest();
    loop {
        let told = match &wait.on {
            On::Password(pending) => pending.verdict(inbound, until).await.map(Told::Password),
            On::Decision => decision::ask((inbound, kept, inbox), &wait, until).await.map(Told::Decided),
        };
        let heard = match told {
            Ok(told) => {
                heard.push((wait.way, told));
                Ok(&*heard)
            }
            Err(error) => Err(error),
        };
        match resume((inbound, &mut *kept, inbox), cycle, record, heard, clock::now()) {
            Way::Wait(next) => wait = next,
            way => return way,
        }
    }
}

/// Plans anew for a request that has waited, with what it has heard; or ends it, if it has failed of that.
fn resume(
    of: (&Inbound<'_>, &mut Kept, &Block),
    cycle: &mut Cycle,
    record: &mut Record,
    heard: Result<&Heard, ProxyError>,
    now: Instant,
) -> Way {
    planned(of, now, heard.unwrap_or_default(), |planner| {
        let client = planner.inbound.client_ip(planner.head);
        match heard {
            Ok(_) => planner.way_and_fields(cycle, record, client),
            Err(error) => {
                let way = Way::Answer(planner.give_up(cycle, record, error));
                planner.note_fields(record, &way);
                way
            }
        }
    })
}
