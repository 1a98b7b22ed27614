//! A listener's door on one core: its socket, and which generation those who come in through it begin under.
//!
//! A door stands as long as the configuration has its address; what else is said of the listener may change. One whose address is gone is
//! closed: what the kernel has accepted for it is still served, idle connections are ended, and each of the others with its next response.
//! Until then they live under the last configuration that had the listener.

use super::generation::{Generation, Pinned};
use super::state::Worker;
use crate::config::{self, Bind};
use crate::net::listener::Listener;
use crate::units::{Instant, ListenerId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// By what a door is known over generations: its address, and where the kernel chooses the port, also its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DoorKey {
    bind: Bind,
    name: Option<String>,
}

impl DoorKey {
    /// The one of this listener.
    #[must_use]
    pub fn of(listener: &config::Listener) -> Self {
        let is_chosen = matches!(&listener.bind, Bind::Tcp(address) if address.port() == 0);
        Self { bind: listener.bind.clone(), name: is_chosen.then(|| listener.name.clone()) }
    }
}

/// One listener on one core.
pub(super) struct Door {
    pub(super) key: DoorKey,
    pub(super) worker: Rc<Worker>,
    pub(super) listener: Rc<Listener>,
    /// Tells its idle connections from those of other doors.
    pub(super) tag: u16,
    at: RefCell<At>,
    is_closed: Cell<bool>,
    /// Connections that came in through it and are open.
    pub(super) connections: Cell<u64>,
}

/// A listener in one generation.
#[derive(Clone)]
pub(super) struct At {
    pub(super) generation: Rc<Generation>,
    pub(super) row: ListenerId,
}

impl At {
    pub(super) fn config(&self) -> &config::Listener {
        &self.generation.shared.config.listeners[self.row.index()]
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Door {
    /// An open one.
    pub(super) fn new(key: DoorKey, tag: u16, listener: Rc<Listener>, at: At) -> Rc<Self> {
        Rc::new(Self {
            key,
            worker: Rc::clone(at.generation.worker()),
            listener,
            tag,
            at: RefCell::new(at),
            is_closed: Cell::new(false),
            connections: Cell::new(0),
        })
    }

    /// Where it stands now. Not to be kept over a wait: see [`Door::pin`].
    pub(super) fn at(&self) -> At {
        self.at.borrow().clone()
    }

    /// The generation in use, for one request, and the listener's row in it.
    pub(super) fn pin(&self) -> (Pinned, ListenerId) {
        let At { generation, row } = self.at();
        (Pinned::new(generation), row)
    }

    /// Asks something of the listener's configuration.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&config::Listener) -> T) -> T {
        ask(self.at.borrow().config())
    }

    /// Those who come from now on begin under another generation. Under another name, open connections are counted there.
    pub(super) fn move_to(&self, next: At) {
        let before = self.at.replace(next);
        let next = self.at.borrow();
        if before.config().name != next.config().name {
            let from = (&before.generation.recorder, before.row);
            next.generation.recorder.connections_renamed(from, next.row, self.connections.get());
        }
    }

    /// Nobody comes in any more, and whoever idles goes.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.worker.timers.hurry_idle_of(self.tag);
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// How long a connection that has been idle since then may be so.
    pub(super) fn idle_until(&self, since: Instant, idle_timeout: Duration) -> Instant {
        match self.is_leaving() {
            // what is past ends it at once
            true => self.worker.idle_until.get().min(since + idle_timeout),
            false => since + idle_timeout,
        }
    }

    /// Whether its connections are to end: the worker drains, or the listener is gone.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_closed.get() || self.worker.is_draining()
    }
}
