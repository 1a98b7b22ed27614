//! PROXY headers, as connections meet them: taken before the first request, sent before the first one to an endpoint.
//!
//! What they say is parsed and written by [`crate::http::proxy_header`]. Here is who may say it (`trusted_proxies`, or whoever may
//! open a unix socket), what it changes (who the [`Peer`] is, and so limits, hashes, logs and `X-Forwarded-For`), and what an endpoint
//! is told: the client of the connection, not what `X-Forwarded-For` claims.

use super::client::Peer;
use super::inbound::Inbound;
use crate::config::ProxyVersion;
use crate::http::Parsed;
use crate::http::proxy_header::{self, NotProxy, Relayed};
use crate::net::block::Block;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::observe::labels::RefuseReason;
use std::io;
use std::net::SocketAddr;

/// A header that was taken.
pub(super) struct Taken {
    /// Who the client is.
    pub(super) client: Peer,
    /// What the client connected to, if the header says.
    pub(super) destination: Option<SocketAddr>,
    /// What has arrived behind the header.
    pub(super) behind: Block,
}

/// Receives the header that the connection must begin with, whole within `header_timeout`. `None`: the connection is to be closed,
/// which has been counted.
pub(super) async fn take_header(inbound: &Inbound<'_>) -> Option<Taken> {
    let (worker, config) = (inbound.worker, inbound.config());
    let mut inbox = worker.blocks.borrow_mut().small();
    let _guard = inbound.watch.over_idle(inbound.stream, clock::now() + config.header_timeout);
    loop {
        match proxy_header::parse(inbox.unread()) {
            Ok(Parsed::Complete(header)) => {
                inbox.consume(header.len);
                inbox.compact();
                let (client, destination) = behind(inbound.client.peer, header.relayed, &config.trusted_proxies);
                return Some(Taken { client, destination, behind: inbox });
            }
            Ok(Parsed::Partial) => {}
            Err(NotProxy) => break,
        }
        let (received, block) = inbound.stream.receive(inbox).await;
        inbox = block;
        if !matches!(received, Ok(1..)) {
            break;
        }
    }
    // whoever leaves without a byte only looked whether the port answers, as balancers do
    if !inbox.is_empty() || inbound.watch.expired() {
        worker.recorder.connection_refused(inbound.listener, RefuseReason::ProxyProtocol);
    }
    worker.put(inbox);
    None
}

/// Who is at the other end of what `proxy` relays, and what that one connected to.
fn behind(proxy: Peer, relayed: Relayed, trusted: &[ipnet::IpNet]) -> (Peer, Option<SocketAddr>) {
    match relayed {
        Relayed::Local => (proxy, None),
        // a balancer vouches for itself, not for those whom it cannot name
        Relayed::Unknown => (Peer { trusted: false, ..proxy }, None),
        Relayed::From { source, destination } => (Peer::new(Some(source), trusted), Some(destination)),
    }
}

/// Tells a new connection to an endpoint for whom it is.
pub(super) async fn introduce(inbound: &Inbound<'_>, upstream: &Stream, version: ProxyVersion) -> io::Result<()> {
    let push = match version {
        ProxyVersion::Off => return Ok(()),
        ProxyVersion::V1 => proxy_header::push_v1,
        ProxyVersion::V2 => proxy_header::push_v2,
    };
    let destination = || inbound.client.destination.as_deref().copied().or_else(|| inbound.stream.local_address());
    let ends = inbound.client.peer.address.and_then(|source| Some((source, destination()?)));
    let worker = inbound.worker;
    let mut block = worker.blocks.borrow_mut().small();
    push(block.vec_mut(), ends);
    let (sent, block) = upstream.send(block).await;
    worker.put(block);
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_decides_whose_word_is_believed() {
        let trusted: Vec<ipnet::IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let proxy = Peer::new(Some("10.0.0.1:5".parse().unwrap()), &trusted);
        let from = |source: &str| Relayed::From {
            source: source.parse().unwrap(),
            destination: "192.0.2.80:443".parse().unwrap(),
        };
        let peer = |relayed| {
            let (peer, destination) = behind(proxy, relayed, &trusted);
            (peer.ip().to_string(), peer.trusted, destination.map(|end| end.to_string()))
        };
        assert_eq!(peer(Relayed::Local), ("10.0.0.1".to_owned(), true, None));
        assert_eq!(peer(Relayed::Unknown), ("10.0.0.1".to_owned(), false, None));
        let to = Some("192.0.2.80:443".to_owned());
        assert_eq!(peer(from("198.51.100.7:9")), ("198.51.100.7".to_owned(), false, to.clone()));
        assert_eq!(peer(from("10.2.3.4:9")), ("10.2.3.4".to_owned(), true, to), "another proxy before this one");
    }
}
