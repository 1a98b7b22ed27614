//! One session of TLS on one socket.

use super::super::block::Block;
use super::super::plain::Plain;
use super::super::stream::{Boxed, Received, SEND_AT_ONCE};
use super::records::{OVERHEAD_BYTES, Records, block_like, give, small_block};
use crate::tls::{Identity, Judge};
use rustls::{Connection, HandshakeKind, ProtocolVersion, SupportedCipherSuite};
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A record with the fatal alert unexpected_message (RFC 8446 §6).
const UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];

/// See the module above.
pub struct Session {
    records: RefCell<Records>,
    /// For the next receive, as the event loop has given it back.
    wanted: Cell<Option<Block>>,
    /// A send is under way; or was, and half a record is gone with it.
    is_sending: Cell<bool>,
    /// What is sent next is the last.
    ends: Cell<bool>,
    /// What was sent is not all, and must not look so.
    is_cut: Cell<bool>,
    /// Who has believed the client last.
    judge: RefCell<Option<Arc<Judge>>>,
    identity: OnceCell<Box<Identity>>,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Box<Self> {
        Box::new(Self {
            records: RefCell::new(Records::new(connection)),
            wanted: Cell::default(),
            is_sending: Cell::default(),
            ends: Cell::default(),
            is_cut: Cell::default(),
            judge: RefCell::default(),
            identity: OnceCell::new(),
        })
    }

    /// The protocol's version, once it is agreed on.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.records.borrow().connection.protocol_version()
    }

    /// The suite, once it is agreed on.
    #[must_use]
    pub fn suite(&self) -> Option<SupportedCipherSuite> {
        self.records.borrow().connection.negotiated_cipher_suite()
    }

    /// Whether this protocol was agreed on (RFC 7301).
    #[must_use]
    pub fn is_for(&self, protocol: &[u8]) -> bool {
        self.records.borrow().connection.alpn_protocol() == Some(protocol)
    }

    /// Whether it goes on with the keys of one before.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.records.borrow().connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Asks for the name that the client has asked for (RFC 6066 §3), of a server's session.
    pub fn with_server_name<T>(&self, ask: impl FnOnce(Option<&str>) -> T) -> T {
        match &self.records.borrow().connection {
            Connection::Server(server) => ask(server.server_name()),
            Connection::Client(_) => ask(None),
        }
    }

    /// Whether the client would be let in by `judge`, which is asked once only.
    pub fn is_believed_by(&self, judge: &Arc<Judge>) -> bool {
        let mut last = self.judge.borrow_mut();
        if last.as_ref().is_some_and(|last| Arc::ptr_eq(last, judge)) {
            return true;
        }
        let is_same = last.as_ref().is_some_and(|last| **last == **judge);
        let is_believed =
            is_same || judge.believes(self.records.borrow().connection.peer_certificates().unwrap_or_default());
        if is_believed {
            *last = Some(Arc::clone(judge));
        }
        is_believed
    }

    /// This judge has let the client in, within the handshake.
    pub fn set_judge(&self, judge: &Arc<Judge>) {
        *self.judge.borrow_mut() = Some(Arc::clone(judge));
        if let Some([first, ..]) = self.records.borrow().connection.peer_certificates() {
            self.identity.get_or_init(|| Box::new(Identity::of(first)));
        }
    }

    /// Who the client is by its certificate, if it has shown one that was believed.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.get().map(|identity| &**identity)
    }

    /// Whether the peer has ended it because of our certificate, or because we have none; with TLS 1.3 a server says so only after the
    /// handshake (RFC 8446 §4.4.2.4), and has read nothing of what was sent meanwhile.
    #[must_use]
    pub fn refusal(&self) -> Option<rustls::Error> {
        use rustls::AlertDescription as Alert;
        let alert = self.records.borrow().alert?;
        let is_about_us = matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::CertificateRequired
        );
        is_about_us.then_some(rustls::Error::AlertReceived(alert))
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.records.borrow().connection.is_handshaking()
    }

    /// Whether the peer has ended it.
    pub(super) fn has_ended(&self) -> bool {
        self.records.borrow().end.is_some()
    }

    pub(super) fn has_unread(&self) -> bool {
        self.records.borrow().has_unread()
    }

    /// Asks about what has been received and not read.
    pub(super) fn with_unread<T>(&self, ask: impl Fn(&[u8]) -> T) -> T {
        ask(self.records.borrow().unread())
    }

    /// Takes what somebody else has received.
    pub(super) fn put_received(&self, block: Block) {
        let count = block.unread().len();
        self.records.borrow_mut().take_in((Ok(count), block));
    }

    /// Reads what has been received of a handshake.
    ///
    /// # Errors
    /// It cannot go on, of which the peer has been told.
    pub(super) fn read_flight(&self, plain: &Plain) -> Result<(), rustls::Error> {
        let read = self.records.borrow_mut().read();
        if let Err(error) = &read {
            self.refuse(plain, error);
        }
        read
    }

    /// Tells what is wrong with a handshake (RFC 8446 §6.2). For some of it the library has no alert, such as a record of another kind
    /// amid a message; while nothing is sealed yet we have one.
    #[cold]
    fn refuse(&self, plain: &Plain, error: &rustls::Error) {
        let records = self.records.borrow();
        let (connection, is_answer) = (&records.connection, matches!(error, rustls::Error::AlertReceived(_)));
        let is_plain = match connection.protocol_version() {
            None => true,
            Some(version) => {
                version == ProtocolVersion::TLSv1_2 && connection.handshake_kind() != Some(HandshakeKind::Resumed)
            }
        };
        let has_alert = connection.wants_write();
        drop(records);
        if !has_alert && is_plain && !is_answer && !self.is_sending.get() {
            send_now(plain, &UNEXPECTED_MESSAGE);
        }
        self.flush_now(plain);
    }

    /// Sends what a handshake has to say.
    pub(super) async fn send_flight(&self, plain: &Plain) -> io::Result<()> {
        self.send_records(plain, &mut Block::default(), false, &mut || {}).await
    }

    /// Has what comes received, for somebody who will put it into `into`.
    pub(in super::super) fn ask(&self, plain: &Plain, into: Block) -> Block {
        let wanted = self.wanted.take();
        let is_waiting = wanted.is_some() || self.has_received();
        self.wanted.set(match is_waiting {
            true => wanted,
            // a large one also where it is listened to, which ends then
            false if into.is_large() || !Self::is_heard(plain) => plain.ask(block_like(&into)),
            false => None,
        });
        into
    }

    /// Whether the socket receives without a block of ours.
    fn is_heard(plain: &Plain) -> bool {
        plain.is_receiving() || plain.listen()
    }

    /// Takes what has been received, into `into`.
    pub(in super::super) fn poll_received(
        &self,
        plain: &Plain,
        into: &mut Option<Block>,
        cx: &mut Context<'_>,
    ) -> Poll<Received> {
        loop {
            if let Some(received) = self.records.borrow_mut().hand_out(into) {
                return Poll::Ready(received);
            }
            if self.poll_records(plain, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Has the socket's next bytes taken in.
    fn poll_records(&self, plain: &Plain, cx: &mut Context<'_>) -> Poll<()> {
        let mut wanted = self.wanted.take();
        let received = plain.poll_received(&mut wanted, cx);
        self.wanted.set(wanted);
        received.map(|received| self.take_in(plain, received))
    }

    fn take_in(&self, plain: &Plain, received: Received) {
        let mut records = self.records.borrow_mut();
        records.take_in(received);
        let read = records.read();
        let has_to_say = records.connection.wants_write();
        drop(records);
        if read.is_err() {
            // it is told what is wrong (RFC 8446 §6.2), if it listens
            self.flush_now(plain);
        } else if has_to_say {
            self.answer(plain);
        }
    }

    /// Says what the peer waits for and no plaintext brings: that there is no renegotiation (RFC 5746 §4.5). What the kernel does not take,
    /// and all of it while something else is on its way, goes with the next send.
    #[cold]
    fn answer(&self, plain: &Plain) {
        let mut records = self.records.borrow_mut();
        if self.is_sending.get() || !records.unsent.is_empty() || plain.is_posting() {
            return;
        }
        let mut sealed = records.seal(&mut Block::default(), false);
        sealed.consume(send_now(plain, sealed.unread()));
        match sealed.is_empty() {
            true => give(sealed),
            false => records.unsent = sealed,
        }
    }

    /// Whether a receive would be over at once.
    pub(in super::super) fn has_received(&self) -> bool {
        self.records.borrow_mut().is_ready()
    }

    /// Waits until a receive would be over at once. Holds no block while nothing comes.
    pub(in super::super) fn readable<'a>(&'a self, plain: &'a Plain) -> Boxed<'a, io::Result<()>> {
        Box::pin(async move {
            while !self.has_received() {
                if !Self::is_heard(plain) {
                    plain.readable().await?;
                }
                poll_fn(|cx| self.poll_records(plain, cx)).await;
            }
            Ok(())
        })
    }

    /// Whether the peer has ended it, or sent what nobody asked for. Tickets and new keys are neither.
    pub(in super::super) fn is_spent(&self, plain: &Plain) -> bool {
        while !self.has_received() {
            let Some(received) = plain.take_arrived(small_block) else { return self.is_sending.get() };
            self.take_in(plain, received);
        }
        true
    }

    /// Sends all that is unread in the block.
    pub(in super::super) fn send<'a>(
        &'a self,
        plain: &'a Plain,
        mut block: Block,
        mut progress: impl FnMut() + 'a,
    ) -> Boxed<'a, (io::Result<()>, Block)> {
        Box::pin(async move {
            let sent = self.send_records(plain, &mut block, false, &mut progress).await;
            (sent, block)
        })
    }

    /// The same of what is taken at once: see [`super::super::stream::Stream::send_unawaited`].
    pub(in super::super) fn send_unawaited<'a>(
        &'a self,
        plain: &'a Plain,
        mut block: Block,
    ) -> Boxed<'a, (io::Result<()>, Block)> {
        Box::pin(async move {
            let sent = self.send_records(plain, &mut block, true, &mut || {}).await;
            (sent, block)
        })
    }

    async fn send_records(
        &self,
        plain: &Plain,
        block: &mut Block,
        mut at_once: bool,
        progress: &mut impl FnMut(),
    ) -> io::Result<()> {
        if self.is_sending.replace(true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        plain.posted().await;
        loop {
            let records = self.records.borrow_mut().seal(block, self.ends.get());
            if records.is_empty() {
                give(records);
                break;
            }
            at_once &= records.unread().len() <= SEND_AT_ONCE;
            let (sent, records) = match at_once {
                true => plain.send_unawaited(records).await,
                false => plain.send_noting(records, &mut *progress).await,
            };
            give(records);
            sent?;
            at_once = false;
            if !block.is_empty() {
                progress();
            }
        }
        self.is_sending.set(false);
        Ok(())
    }

    /// Sends what is small without waiting for it: see [`super::super::stream::Stream::post`].
    pub(in super::super) fn post(&self, plain: &Plain, mut block: Block) -> Result<(), Block> {
        let is_small = block.unread().len() + 4 * OVERHEAD_BYTES <= SEND_AT_ONCE;
        if !is_small || self.is_sending.get() || self.ends.get() || !plain.may_post() {
            return Err(block);
        }
        let mut records = self.records.borrow_mut();
        let sealed = records.seal(&mut block, false);
        match plain.post(sealed) {
            Ok(()) if block.is_empty() => {
                give(block);
                Ok(())
            }
            Ok(()) => Err(block),
            Err(rest) => {
                records.unsent = rest;
                Err(block)
            }
        }
    }

    /// What is sent next is the last.
    pub(in super::super) fn end_with_next_send(&self) {
        self.ends.set(!self.is_cut.get());
    }

    /// What was sent is not all, and must not look so.
    pub(in super::super) fn cut(&self) {
        self.is_cut.set(true);
        self.ends.set(false);
    }

    /// Says that nothing more will come, if that can be done here and now.
    pub(in super::super) fn say_farewell(&self, plain: &Plain) {
        self.end_with_next_send();
        self.flush_now(plain);
    }

    /// Has the kernel take what is to be sent, without waiting, if nothing else is on its way.
    fn flush_now(&self, plain: &Plain) {
        let mut records = self.records.borrow_mut();
        if self.is_sending.get() || !records.unsent.is_empty() || plain.is_posting() {
            return;
        }
        let last = records.seal(&mut Block::default(), self.ends.get());
        // who does not take it has other worries
        send_now(plain, last.unread());
        give(last);
    }

    /// Bytes on the wire of the last `plaintext` bytes that were sent, or of more; `None`: not known.
    pub(in super::super) fn wire_bytes(&self, plaintext: usize) -> Option<usize> {
        self.records.borrow().wire_bytes(plaintext)
    }
}

/// Has the kernel take what it takes without waiting: so many bytes.
fn send_now(plain: &Plain, bytes: &[u8]) -> usize {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    plain.with_socket(|socket| socket.send_with_flags(bytes, flags)).unwrap_or_default()
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("records", &self.records).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        give(self.wanted.take().unwrap_or_default());
    }
}
