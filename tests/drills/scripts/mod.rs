//! The drills: each a straight line of things that happen, and what is judged afterwards.

mod absent;
mod failing;
mod frozen;
mod kills;
mod outage;
mod pause;
mod restarts;

use crate::report::Report;
use crate::stage::Stage;

/// One drill.
#[derive(Clone, Copy)]
pub(crate) struct Drill {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) run: fn(&Stage<'_>) -> anyhow::Result<Report>,
}

/// All of them, in their order.
pub(crate) const ALL: &[Drill] = &[
    Drill {
        name: "a",
        title: "two of three endpoints refuse connections; 5,000 GETs, 5,000 POSTs",
        run: absent::dead_ports,
    },
    Drill { name: "b", title: "one of three killed every 3 s for 60 s, and started again", run: kills::in_turn },
    Drill { name: "c", title: "one of three frozen (SIGSTOP) for 8 s", run: frozen::one_of_three },
    Drill { name: "d", title: "one of two answers 500 to every second request for 25 s", run: failing::half_of_one },
    Drill {
        name: "e",
        title: "the only endpoint refuses connections, a backup is well; 1,000 requests",
        run: absent::backup,
    },
    Drill { name: "f", title: "rolling restarts of two", run: restarts::rolling },
    Drill { name: "g", title: "one of three answers 429 with Retry-After: 30 twice", run: pause::two_refusals },
    Drill {
        name: "h1-500",
        title: "both endpoints refuse connections for 10 s, at 500/s",
        run: outage::refusing_at_500,
    },
    Drill {
        name: "h1-5000",
        title: "both endpoints refuse connections for 10 s, at 5,000/s",
        run: outage::refusing_at_5000,
    },
    Drill { name: "h2", title: "both endpoints answer 503 for 10 s, at 500/s", run: outage::unavailable },
];
