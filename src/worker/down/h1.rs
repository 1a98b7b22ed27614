//! `read_head` of HTTP/1.1: a request is what comes next on its connection.
//!
//! From the first bytes of a request to its whole head, within `header_timeout`, and so to what the line begins with ([`Request`]); or to the
//! one reply that a head gets which cannot be read.

use crate::error::{ProxyError, Rule};
use crate::http::Version;
use crate::http::glimpse::Glimpse;
use crate::http::head::HeadPolicy;
use crate::http::reply::{self, ReplyTo};
use crate::http::scan::HeadScanner;
use crate::net::block::Block;
use crate::net::clock;
use crate::units::Instant;
use crate::worker::discard::Served;
use crate::worker::exchange::Request;
use crate::worker::inbound::Inbound;
use crate::worker::kept::Kept;
use crate::worker::record::Record;
use std::net::Shutdown;

/// How every TLS handshake begins: a record of that kind, of version 3 (RFC 8446 §5.1). No method begins so.
const HANDSHAKE: &[u8] = b"\x16\x03";

/// The beginning of a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct Arrival {
    /// When its first byte has arrived.
    pub(in crate::worker) at: Instant,
    /// More of it has arrived since.
    pub(in crate::worker) due: bool,
}

/// A head that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Unread {
    error: ProxyError,
    /// The rule that it breaks, if that is why.
    rule: Option<Rule>,
}

impl From<ProxyError> for Unread {
    fn from(error: ProxyError) -> Self {
        Self { error, rule: None }
    }
}

/// Receives until the head is whole, within `header_timeout` of its first byte, and takes it from the inbox. `None`: there is no room to wait
/// in here.
pub(in crate::worker) async fn read_head(
    inbound: &Inbound<'_>,
    inbox: &mut Block,
    Arrival { at: arrived, mut due }: Arrival,
) -> Result<Option<Request>, Unread> {
    let (worker, config) = (inbound.worker, inbound.config());
    let mut scanner = HeadScanner::default();
    // a head may take long to arrive, and what is decided about it must not be decided for the moment of its first byte
    let mut now = if due { clock::now() } else { arrived };
    // one that was waited for elsewhere has been given its time there, and that of a gateway which stood still
    let is_over = inbound.watch.expired() || !worker.timers.was_away(now);
    if now >= arrived + config.header_timeout && is_over {
        return Err(ProxyError::RequestTimeout.into());
    }
    loop {
        if !std::mem::take(&mut due) {
            // a head that has reached its limit is judged even without an end in sight
            if (scanner.is_ready(inbox.unread()) || inbox.unread().len() >= config.head_bytes_max)
                && let Some(kept) = parse(inbound, inbox)?
            {
                return Ok(Some(Request { kept, arrived, now }));
            }
            if inbox.unread().starts_with(HANDSHAKE) {
                return Err(Unread { error: ProxyError::BadRequest, rule: Some(Rule::Handshake) });
            }
            if worker.is_crowded() {
                return Ok(None);
            }
        }
        let _armed = worker.arm();
        inbox.compact();
        if inbox.room() == 0 {
            worker.grow(inbox, config.head_bytes_max);
        }
        let deadline = arrived + config.header_timeout;
        let _guard = inbound.watch.over(inbound.stream, deadline, Shutdown::Read);
        let (received, block) = inbound.stream.receive(std::mem::take(inbox)).await;
        *inbox = block;
        match received {
            // also when some bytes have come with it: what follows would be the end that it has made
            _ if inbound.watch.expired() => return Err(ProxyError::RequestTimeout.into()),
            Ok(1..) => now = clock::now(),
            _ => return Err(ProxyError::ClientClosed.into()),
        }
    }
}

/// Parses what is in the inbox, and takes the head from it if it is whole.
fn parse(inbound: &Inbound<'_>, inbox: &mut Block) -> Result<Option<Box<Kept>>, Unread> {
    let worker = inbound.worker;
    let policy = HeadPolicy::of(inbound.config());
    let mut kept = worker.room_for_head();
    kept.at = inbox.consumed();
    let parsed = kept.head.parse(inbox.unread(), &policy).map_err(|error| {
        let is_handshake = inbox.unread().starts_with(HANDSHAKE);
        let rule = if is_handshake { Some(Rule::Handshake) } else { kept.head.broken_rule() };
        Unread { error, rule: rule.filter(|_| error == ProxyError::BadRequest) }
    });
    match parsed {
        Ok(true) => {
            inbox.consume(kept.head.head_bytes());
            Ok(Some(kept))
        }
        other => {
            worker.put_head(kept);
            other.map(|_| None)
        }
    }
}

/// A request that could not be read: one reply, then the end.
pub(in crate::worker) fn refuse(
    inbound: &Inbound<'_>,
    inbox: &mut Block,
    record: &mut Record,
    Unread { error, rule }: Unread,
) -> Served {
    let worker = inbound.worker;
    let mut last = worker.blocks.borrow_mut().small();
    let now = clock::now();
    if error != ProxyError::ClientClosed {
        let server = &inbound.config().server;
        // RFC 9110 §9.3.2: no content for HEAD, whatever is wrong with the rest of it
        let head_only = Glimpse::of(inbox.unread()).method == b"HEAD";
        let to = ReplyTo {
            version: Version::Http11,
            head_only,
            close: true,
            date: &worker.date(now),
            server,
            rules: None,
            lines: b"",
            call_type: None,
            errors: &inbound.config().errors,
            id: b"",
        };
        match rule {
            Some(rule) => {
                record.on_malformed(rule);
                reply::malformed(last.vec_mut(), rule, &to);
            }
            None => reply::error(last.vec_mut(), error, &[], &to),
        }
    }
    record.on_unread(inbound, inbox.unread());
    record.on_error(error);
    record.response_bytes = last.unread().len() as u64;
    inbox.clear();
    Served { last, close: true, linger: true, at: now }
}
