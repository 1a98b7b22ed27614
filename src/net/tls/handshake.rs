//! Handshakes, from the first flight to the last, on a connection that stands.
//!
//! A step costs as much as a hundred requests, where it has work with a private or a public key in it. So a turn of our event loops makes no
//! more than [`STEPS_A_TURN`] of them (monoio's have no turns that could be told apart), and who comes too late waits for the next one: what is established keeps its turn. How long a
//! handshake may take is the caller's affair, who has a watch over the socket, and how many there are at once.

use super::super::block::Block;
use super::super::plain::Plain;
use super::super::stream::Stream;
use super::super::{clock, driver};
use super::records::{give, small_block};
use super::session::Session;
use crate::tls::offer::rules_for;
use crate::units::Instant;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error as TlsError, PeerIncompatible};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Steps of a turn: a millisecond or two.
const STEPS_A_TURN: usize = 4;

thread_local! {
    /// The turn that steps were last made in, and how many.
    static STEPS: Cell<(Instant, usize)> = Cell::new((Instant::default(), 0));
}

/// Why there is no session.
#[derive(Debug)]
pub enum Failed {
    /// What came is a request in plain text.
    Plain,
    /// The peer has left without a word.
    Silent,
    /// The peer has left with half of one.
    Closed,
    /// The socket has failed.
    Broken(io::Error),
    /// They do not come together, or one of them does not believe the other.
    Refused(TlsError),
}

/// The same in a word, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Plain HTTP.
    PlainHttp,
    /// The peer has left.
    Closed,
    /// The socket has failed.
    Broken,
    /// They have no version in common.
    Version,
    /// They have no cipher suite, key exchange or signature in common.
    Cipher,
    /// The peer's certificate is of somebody who is not believed.
    Issuer,
    /// The peer's certificate has ended, or has not begun.
    Expired,
    /// The peer's certificate is for another name.
    Name,
    /// The peer has no certificate, or none that would do.
    Certificate,
    /// The peer says that it will not have us.
    Alert,
    /// What came is not TLS, or against its rules.
    Protocol,
}

impl Failed {
    /// Its kind.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Plain => Reason::PlainHttp,
            Self::Silent | Self::Closed => Reason::Closed,
            Self::Broken(_) => Reason::Broken,
            Self::Refused(error) => match error {
                TlsError::AlertReceived(_) => Reason::Alert,
                TlsError::InvalidCertificate(error) => match error {
                    // an issuer of the same name, and with another key, is another one
                    CertificateError::UnknownIssuer | CertificateError::BadSignature => Reason::Issuer,
                    CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. } => Reason::Expired,
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Reason::Name,
                    _ => Reason::Certificate,
                },
                TlsError::InvalidCertRevocationList(_)
                | TlsError::NoCertificatesPresented
                | TlsError::UnsupportedNameType => Reason::Certificate,
                TlsError::PeerIncompatible(
                    PeerIncompatible::Tls12NotOffered
                    | PeerIncompatible::Tls12NotOfferedOrEnabled
                    | PeerIncompatible::Tls13RequiredForQuic
                    | PeerIncompatible::SupportedVersionsExtensionRequired
                    | PeerIncompatible::ServerDoesNotSupportTls12Or13
                    | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
                ) => Reason::Version,
                TlsError::PeerIncompatible(_) => Reason::Cipher,
                _ => Reason::Protocol,
            },
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("plain HTTP where TLS is spoken"),
            Self::Silent | Self::Closed => f.write_str("the peer has closed the connection within the handshake"),
            Self::Broken(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

/// Makes a session with a client by the rules of `config`; `first` is what has arrived of it.
///
/// # Errors
/// There is none; where the client speaks TLS it has been told so.
pub async fn serve(stream: &mut Stream, config: &Arc<ServerConfig>, first: Block) -> Result<(), Failed> {
    let first = match first.is_empty() {
        true => first_of(stream.plain()).await?,
        false => first,
    };
    let rules = rules_for(config, first.unread());
    let connection = ServerConnection::new(rules).map_err(Failed::Refused)?;
    let session = Session::new(Connection::Server(connection));
    session.put_received(first);
    shake(stream.plain(), &session, is_request).await?;
    stream.set_session(session);
    Ok(())
}

/// Makes a session with a server that is asked for as `name`, by the rules of `config`.
///
/// # Errors
/// There is none.
pub async fn connect(stream: &mut Stream, config: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<(), Failed> {
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(Failed::Refused)?;
    let session = Session::new(Connection::Client(connection));
    shake(stream.plain(), &session, |_| false).await?;
    stream.set_session(session);
    Ok(())
}

/// What comes first.
async fn first_of(plain: &Plain) -> Result<Block, Failed> {
    match plain.receive(small_block()).await {
        (Ok(1..), block) => Ok(block),
        (Ok(0), block) => {
            give(block);
            Err(Failed::Silent)
        }
        (Err(error), block) => {
            give(block);
            Err(Failed::Broken(error))
        }
    }
}

async fn shake(plain: &Plain, session: &Session, is_plain: impl Fn(&[u8]) -> bool) -> Result<(), Failed> {
    let mut is_first = true;
    loop {
        session.send_flight(plain).await.map_err(Failed::Broken)?;
        if !session.is_handshaking() {
            return Ok(());
        }
        if !session.has_unread() {
            match plain.receive(small_block()).await {
                (Ok(1..), block) => session.put_received(block),
                (Ok(0), _) => return Err(if is_first { Failed::Silent } else { Failed::Closed }),
                (Err(error), _) => return Err(Failed::Broken(error)),
            }
        }
        if std::mem::take(&mut is_first) && session.with_unread(&is_plain) {
            return Err(Failed::Plain);
        }
        turn_with_room().await;
        session.read_flight(plain).map_err(Failed::Refused)?;
        if session.is_handshaking() && session.has_ended() {
            return Err(Failed::Closed);
        }
    }
}

/// Whether this is the beginning of a request and not of a handshake: every method is of letters, and no record begins with one (RFC 8446
/// §5.1).
fn is_request(first: &[u8]) -> bool {
    first.first().is_some_and(u8::is_ascii_alphabetic)
}

/// Waits for a turn of the event loop in which another step may be made, and counts it.
async fn turn_with_room() {
    loop {
        let now = clock::now();
        let (turn, steps) = STEPS.get();
        let steps = if turn == now { steps } else { 0 };
        if steps < STEPS_A_TURN {
            return STEPS.set((now, steps + 1));
        }
        driver::next_turn().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{on_our_loops, until};
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn a_turn_makes_so_many_steps_and_no_more() {
        on_our_loops(|_| async {
            let turns = Rc::new(RefCell::new(Vec::new()));
            for _ in 0..5 * STEPS_A_TURN {
                let turns = Rc::clone(&turns);
                driver::spawn(async move {
                    turn_with_room().await;
                    turns.borrow_mut().push(clock::now());
                });
            }
            until(|| turns.borrow().len() == 5 * STEPS_A_TURN).await;
            let turns = turns.borrow();
            for turn in turns.iter() {
                assert!(turns.iter().filter(|other| *other == turn).count() <= STEPS_A_TURN);
            }
        });
    }
}
