//! What is counted of clients' connections, their sessions and their streams, by listener.

use super::Recorder;
use crate::observe::labels::{HandshakeFailure, RefuseReason, StreamCode, StreamSide, TlsVersion};
use crate::units::{self, ListenerId};
use std::time::Duration;

impl Recorder {
    /// Counts a downstream connection that was accepted, whatever becomes of it.
    pub fn connection_accepted(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.accepted.add(1);
        }
    }

    /// Counts a downstream connection that has a place, until it is closed.
    pub fn connection_opened(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.connections.add(1);
        }
    }

    /// Counts a downstream connection that is closed.
    pub fn connection_closed(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.connections.sub_one();
        }
    }

    /// Counts a downstream connection that was accepted, and closed before its first request.
    pub fn connection_refused(&self, listener: ListenerId, reason: RefuseReason) {
        if let Some(listener) = self.listener(listener) {
            listener.refused[reason.index()].add(1);
        }
    }

    /// Counts a session that was made with a client, in so much time.
    pub fn handshake(&self, listener: ListenerId, version: TlsVersion, is_resumed: bool, duration: Duration) {
        if let Some(listener) = self.listener(listener) {
            listener.handshakes[version.index()][usize::from(is_resumed)].add(1);
            listener.handshake_duration.observe(units::nanos(duration));
        }
    }

    /// Counts a handshake with a client that has to wait for a place.
    pub fn handshake_queued(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.handshakes_queued.add(1);
        }
    }

    /// Counts a handshake with a client that has a place, until it is over.
    pub fn handshake_begins(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.handshakes_under_way.add(1);
        }
    }

    /// Counts a handshake with a client that has given its place back.
    pub fn handshake_ends(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.handshakes_under_way.sub_one();
        }
    }

    /// Counts a handshake with a client that has come to nothing.
    pub fn handshake_failed(&self, listener: ListenerId, reason: HandshakeFailure) {
        if let Some(listener) = self.listener(listener) {
            listener.handshake_failures[reason.index()].add(1);
        }
    }

    /// Counts a downstream connection that has become a tunnel.
    pub fn tunnel_opened(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.tunnels_opened.add(1);
            listener.tunnels.add(1);
        }
    }

    /// Counts a tunnel that is over.
    pub fn tunnel_closed(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.tunnels.sub_one();
        }
    }

    /// Counts a request that is a stream of HTTP/2, until it is over.
    pub fn stream_opened(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.streams.add(1);
        }
    }

    /// Counts that it is over.
    pub fn stream_closed(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.streams.sub_one();
        }
    }

    /// Counts a stream that was reset.
    pub fn stream_reset(&self, listener: ListenerId, side: StreamSide, code: StreamCode) {
        if let Some(listener) = self.listener(listener) {
            listener.stream_resets[side.index()][code.index()].add(1);
        }
    }

    /// Counts a connection of HTTP/2 that was ended, and why.
    pub fn goaway(&self, listener: ListenerId, code: StreamCode) {
        if let Some(listener) = self.listener(listener) {
            listener.goaways[code.index()].add(1);
        }
    }

    /// Counts that accepting paused because no descriptor or no memory was left.
    pub fn accept_exhausted(&self, listener: ListenerId) {
        if let Some(listener) = self.listener(listener) {
            listener.exhausted.add(1);
        }
    }

    /// Moves open connections from one listener's numbers to another's: that is what it is called from now on. `from` is of the configuration
    /// of `before`.
    pub fn connections_renamed(&self, (before, from): (&Self, ListenerId), to: ListenerId, count: u64) {
        let (Some(from), Some(to)) = (before.listener(from), self.listener(to)) else { return };
        from.connections.set(from.connections.get().saturating_sub(count));
        to.connections.add(count);
    }
}
