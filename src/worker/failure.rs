//! Why an attempt has nothing to show, and whose fault that is.

use crate::error::ProxyError;
use crate::net::fault;
use crate::policy::exchange::Event;
use crate::policy::retry::Sent;
use std::io;

/// Why an attempt has nothing to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection: nobody is there, or can be reached.
    Refused,
    /// The gateway lacks what a connection needs, or may not make it.
    Exhausted,
    /// No connection in time.
    ConnectTimedOut,
    /// There is a connection, on which the endpoint takes no streams.
    NoStreams,
    /// There is a connection, on which the endpoint does not begin as HTTP/2 does.
    NotSpoken,
    /// The connection ended or broke before a response.
    Reset {
        /// How much of the request may have reached the service.
        sent: Sent,
        /// Whose fault it was.
        ending: Ending,
    },
    /// What came is no response.
    BadHead(ProxyError),
    /// The attempt's time is over.
    TimedOut,
    /// The attempt's time has passed while the gateway itself stood still.
    Overslept {
        /// How much of the request may have reached the service.
        sent: Sent,
    },
    /// The client is at fault: its body was malformed, too large, too slow, or broke off.
    Downstream(ProxyError),
}

/// Why a connection has ended before a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The endpoint has failed.
    Failed,
    /// It came from the pool, and its server had closed it before the request was there.
    Stale {
        /// It is not known that the server has read nothing of the request.
        may_be_read: bool,
    },
    /// It was not taken, because too many others wait to be.
    Overrun,
    /// The gateway lacked what it takes to go on with it, or has stood still meanwhile.
    Short,
    /// Its connection was one of many requests', and its loss is counted for another one; or the endpoint has not looked at it.
    Shared,
    /// The endpoint has given up an upload that was waiting for its client.
    Starved,
}

impl Failure {
    /// The connection is of no more use, and nothing else is known.
    pub(super) const BROKEN: Self = Self::Reset { sent: Sent::Maybe, ending: Ending::Failed };

    /// The same of a connection with this error; `None`: its end.
    pub(super) fn broken(error: Option<&io::Error>, sent: Sent) -> Self {
        let ending = if error.is_some_and(fault::is_ours) { Ending::Short } else { Ending::Failed };
        Self::Reset { sent, ending }
    }

    /// Whether it was a connection's end that is not held against its endpoint.
    pub(super) fn is_excused(self) -> bool {
        matches!(self, Self::Reset { ending, .. } if ending != Ending::Failed)
    }

    /// The same for the policy. A client's failure never comes here.
    pub(super) fn event(self) -> Event {
        match self {
            Self::Refused => Event::ConnectFailed,
            Self::Exhausted => Event::Exhausted,
            Self::ConnectTimedOut => Event::ConnectTimedOut,
            Self::NoStreams => Event::NoStreams,
            Self::NotSpoken => Event::NotSpoken,
            Self::Reset { sent, ending } => Event::ResetBeforeHead { sent, excused: ending != Ending::Failed },
            Self::BadHead(error) => Event::BadHead(error),
            Self::TimedOut => Event::TimedOut,
            Self::Overslept { sent } => Event::Overslept { sent },
            Self::Downstream(_) => Event::DownstreamGone,
        }
    }
}
