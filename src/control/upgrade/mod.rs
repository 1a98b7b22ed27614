//! An upgrade: the next process is given what this one listens on, and this one drains once that one serves.
//!
//! The next process is started by this one, with the same arguments, and finds at its standard input the other end of a socket that nobody
//! else has. What goes over it:
//!
//! | who | what |
//! |---|---|
//! | old | [`Legacy`]: what it listens on; then the sockets, in that order |
//! | new | [`Reply::Prepared`]: it could begin at once; or [`Reply::Failed`] |
//! | old | [`Estate`]: where endpoints stand, and what rate limits have left, as of now |
//! | new | [`Reply::Serving`], and which sockets it has taken; or [`Reply::Failed`] |
//!
//! Both accept for a moment, from the same queues, so that no connection waits in a queue that is closed. Whatever goes wrong before the last
//! reply (an end, a timeout, nonsense) ends the new process, and the old one goes on as if nothing had been asked.
//!
//! What is not passed on: numbers, which begin at zero as after any start. What is in flight ends where it is, within `drain_timeout`.

mod giver;
mod heir;
mod wire;

pub use heir::Inheritance;

pub(super) use giver::{Given, give};

use crate::config::Bind;
#[cfg(doc)]
use crate::worker::Estate;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Tells a process that it is the next one; the value is the version of what is said here.
pub const VARIABLE: &str = "RINGGATE_UPGRADE";
/// What is said here; another version is refused, and the old process goes on.
const PROTOCOL: u32 = 1;

/// What the old process has to give.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Legacy {
    /// Listeners, each with as many sockets as it has workers.
    doors: Vec<Door>,
    /// The admin API's, behind those.
    admin: Option<Door>,
}

impl Legacy {
    fn sockets(&self) -> usize {
        self.doors.iter().chain(&self.admin).map(|door| door.sockets).sum()
    }
}

/// A place that is listened on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Door {
    /// The listener's.
    pub(super) name: String,
    /// As the configuration has it.
    pub(super) place: Place,
    /// As it is, with the port that the kernel chose.
    pub(super) at: Place,
    pub(super) sockets: usize,
}

/// [`Bind`], as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    Tcp(std::net::SocketAddr),
    Unix(PathBuf),
}

impl Place {
    fn bind(&self) -> Bind {
        match self {
            Self::Tcp(address) => Bind::Tcp(*address),
            Self::Unix(path) => Bind::Unix(path.clone()),
        }
    }
}

impl From<&Bind> for Place {
    fn from(bind: &Bind) -> Self {
        match bind {
            Bind::Tcp(address) => Self::Tcp(*address),
            Bind::Unix(path) => Self::Unix(path.clone()),
        }
    }
}

impl Door {
    /// Whether it is this listener's: where the kernel chooses the port, by its name.
    fn is_of(&self, name: &str, bind: &Bind) -> bool {
        let is_chosen = matches!(bind, Bind::Tcp(address) if address.port() == 0);
        self.place == Place::from(bind) && (!is_chosen || self.name == name)
    }
}

/// What the new process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// It has everything that it needs, and waits for the estate.
    Prepared,
    /// It serves.
    Serving(Serving),
    /// It does not, for these reasons.
    Failed(Vec<String>),
}

/// Of a process that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Serving {
    pub(super) version: String,
    /// How many sockets of each door it has taken, the first ones; 0 of one that it does not have.
    pub(super) taken: Vec<usize>,
}

/// Why there was no upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotUpgraded {
    /// The gateway drains.
    Draining,
    /// The next process could not be started, or did not serve, for these reasons.
    Failed(Vec<String>),
}

impl NotUpgraded {
    fn because(why: impl fmt::Display) -> Self {
        Self::Failed(vec![why.to_string()])
    }

    /// Why, one text each.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        match self {
            Self::Draining => vec!["the gateway drains".to_owned()],
            Self::Failed(errors) => errors.clone(),
        }
    }
}

/// The process that serves now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

#[cfg(test)]
mod tests;
