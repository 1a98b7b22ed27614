//! TLS sessions of the gateway, as a client or an endpoint meets them: whatever the peer sends, in whatever pieces, the gateway comes to an end,
//! and what it takes for plaintext is what the peer has said, in its order and from its beginning.
//!
//! The peer is rustls, so that the input reaches what lies behind a handshake; what it sends goes through the hands of somebody on the way,
//! who flips bits, adds bytes, or lets the rest be lost. `tests/http` runs the same on inputs from a seed.

use ringgate::config::Driver;
use ringgate::net::block::Block;
use ringgate::net::driver::{self, EventLoop, Step};
use ringgate::net::stream::Stream;
use ringgate::net::tls::handshake;
use ringgate::tls::demand::{Belief, demand, with_memory};
use ringgate::tls::offer::offer;
use ringgate::tls::tickets::{TicketKeys, Tickets};
use ringgate::tls::{Certificate, MinVersion, Names};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// Turns of the loop within which whatever was sent has been taken, and an end found.
const TURNS_MAX: usize = 5_000;
/// Turns after a step of the peer's.
const TURNS: usize = 3;
/// Flights of a handshake, and what waits for its end.
const FLIGHTS_MAX: usize = 5;
/// Key updates that rustls takes in a row.
const KEYS_MAX: usize = 30;

/// What has come of it on the gateway's side.
#[derive(Debug, Default)]
struct Got {
    has_session: bool,
    plaintext: Vec<u8>,
    /// The end: it was said, or it was not.
    end: Option<Result<(), ErrorKind>>,
}

/// Rules of both sides, for TLS 1.2 and 1.3.
fn rules(is_13: bool) -> &'static (Arc<ServerConfig>, Arc<ClientConfig>) {
    static RULES: [OnceLock<(Arc<ServerConfig>, Arc<ClientConfig>)>; 2] = [OnceLock::new(), OnceLock::new()];
    RULES[usize::from(is_13)].get_or_init(|| {
        let (chain, key) = (include_bytes!("session/server.pem"), include_bytes!("session/server.key"));
        let certificate = Certificate::read(chain, key, None).expect("they belong together");
        let oldest = if is_13 { MinVersion::Tls13 } else { MinVersion::Tls12 };
        let tickets = Tickets::new(Arc::new(TicketKeys::random()), None);
        let server = offer(Arc::new(Names::new(vec![Arc::new(certificate)])), oldest, tickets, None, None, None, false);
        let client = demand(Belief::Anybody, oldest, None).expect("rules");
        (server, with_memory(&client, &[]))
    })
}

/// Knobs: 0 TLS 1.3 (else what both know), 1 the gateway is the client. Behind them steps of the peer: what, how much, and bytes where it
/// brings some.
pub fn check(input: &[u8]) {
    let Some((&knobs, steps)) = input.split_first() else { return };
    let (is_13, is_client) = (knobs & 1 == 1, knobs & 2 == 2);
    let mut event_loop = EventLoop::new(Driver::Epoll, Step::Epoll, &mut Vec::new()).expect("epoll is everywhere");
    let (got, peer) = event_loop.block_on(play(rules(is_13), is_client, steps));
    assert_eq!(event_loop.end(), 0, "everything is given back");
    let got = got.borrow();
    assert!(peer.said.starts_with(&got.plaintext), "it has heard what nobody has said: {got:?}");
    if !peer.is_spoiled && got.has_session {
        assert_eq!(got.plaintext.len(), peer.said.len(), "not all of it has arrived: {:?}", got.end);
        let end = if peer.has_ended { Ok(()) } else { Err(ErrorKind::UnexpectedEof) };
        assert_eq!(got.end, Some(end));
    }
}

/// The gateway's side as a task, and the peer's steps.
async fn play(
    rules: &'static (Arc<ServerConfig>, Arc<ClientConfig>),
    is_client: bool,
    steps: &[u8],
) -> (Rc<RefCell<Got>>, Peer) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket");
    theirs.set_nonblocking(true).expect("a socket");
    let got = Rc::new(RefCell::new(Got::default()));
    let mut stream = Stream::from_fd(ours.into()).expect("a stream");
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = match is_client {
        true => Connection::Server(ServerConnection::new(Arc::clone(&rules.0)).expect("rules")),
        false => Connection::Client(ClientConnection::new(Arc::clone(&rules.1), name.clone()).expect("rules")),
    };
    let mut peer = Peer::new(connection, theirs);
    let results = Rc::clone(&got);
    driver::spawn(async move {
        let made = match is_client {
            true => handshake::connect(&mut stream, &rules.1, name).await,
            false => handshake::serve(&mut stream, &rules.0, Block::default()).await,
        };
        if made.is_err() {
            results.borrow_mut().end = Some(Err(ErrorKind::Other));
            return;
        }
        results.borrow_mut().has_session = true;
        listen(&stream, &results).await;
    });
    let mut steps = steps;
    while let Some((&step, rest)) = steps.split_first() {
        let (count, rest) = rest.split_first().map_or((0, rest), |(count, rest)| (usize::from(*count), rest));
        steps = peer.step(step, count, rest);
        turns(&mut peer, TURNS).await;
    }
    // whoever is within a handshake ends it, and says what has waited for that
    for _ in 0..FLIGHTS_MAX {
        peer.flush(|_| ());
        turns(&mut peer, TURNS).await;
    }
    let _ = peer.socket.shutdown(Shutdown::Write);
    for _ in 0..TURNS_MAX {
        if got.borrow().end.is_some() {
            return (got, peer);
        }
        turns(&mut peer, 1).await;
    }
    panic!("it does not come to an end: {got:?}");
}

/// Takes all, in blocks of its own and in such that the session finds, and says a word now and then.
async fn listen(stream: &Stream, got: &RefCell<Got>) {
    for round in 0.. {
        let into = match round % 3 {
            0 => Block::default(),
            1 => Block::from_vec(Vec::with_capacity(100)),
            _ => Block::from_vec(Vec::with_capacity(20_000)),
        };
        if round % 5 == 4 {
            let _ = stream.readable().await;
        }
        let (received, block) = stream.receive(into).await;
        got.borrow_mut().plaintext.extend_from_slice(block.unread());
        match received {
            Ok(1..) => {}
            end => {
                stream.say_farewell();
                got.borrow_mut().end = Some(end.map(|_| ()).map_err(|error| error.kind()));
                return;
            }
        }
        let _ = stream.send(Block::from_vec(b"heard".to_vec())).await;
    }
}

async fn turns(peer: &mut Peer, count: usize) {
    for _ in 0..count {
        peer.hear();
        driver::next_turn().await;
    }
}

/// The other side, and what happens to its bytes on their way.
struct Peer {
    connection: Connection,
    socket: UnixStream,
    /// Plaintext that its library has taken.
    said: Vec<u8>,
    has_ended: bool,
    /// Something else than its own bytes has been sent, or not all of them.
    is_spoiled: bool,
    keys: usize,
}

impl Peer {
    fn new(connection: Connection, socket: UnixStream) -> Self {
        Self { connection, socket, said: Vec::new(), has_ended: false, is_spoiled: false, keys: 0 }
    }

    /// Does one thing; what is left of the steps.
    fn step<'s>(&mut self, step: u8, count: usize, rest: &'s [u8]) -> &'s [u8] {
        match step % 8 {
            0 => self.flush(|_| ()),
            1 => self.flush(|flight| {
                if !flight.is_empty() {
                    let at = (count * 7) % flight.len();
                    flight[at] ^= 1 << (step >> 3 & 7);
                }
            }),
            2 => {
                let (bytes, rest) = rest.split_at(count.min(rest.len()));
                self.is_spoiled |= !self.has_ended;
                self.send(bytes);
                return rest;
            }
            3 if !self.has_ended => {
                let from = self.said.len();
                let bytes: Vec<u8> = (from..from + count * 50).map(|at| (at % 251) as u8).collect();
                let taken = self.connection.writer().write(&bytes).unwrap_or_default();
                self.said.extend_from_slice(&bytes[..taken]);
                // an empty one is no record, and so no end of a row
                if taken > 0 {
                    self.keys = 0;
                }
                self.flush(|_| ());
            }
            // as little at a time as there may be
            4 => {
                let flight = self.flight();
                for piece in flight.chunks(1 + count % 7) {
                    self.send(piece);
                }
            }
            5 => self.flush(|flight| flight.truncate(count)),
            6 => {
                if !self.connection.is_handshaking() && !self.has_ended {
                    self.connection.send_close_notify();
                    self.has_ended = true;
                }
                self.flush(|_| ());
            }
            7 if !self.has_ended && self.keys < KEYS_MAX => {
                // there are none in TLS 1.2
                let _ = self.connection.refresh_traffic_keys();
                self.keys += 1;
                self.flush(|_| ());
            }
            _ => {}
        }
        rest
    }

    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut flight).expect("a vector takes all");
        }
        flight
    }

    /// Sends what the library has to send, after somebody has had a hand in it.
    fn flush(&mut self, meddle: impl FnOnce(&mut Vec<u8>)) {
        let flight = self.flight();
        let mut sent = flight.clone();
        meddle(&mut sent);
        self.is_spoiled |= sent != flight;
        self.send(&sent);
    }

    /// What the socket does not take is lost, as on a connection that breaks.
    fn send(&mut self, bytes: &[u8]) {
        let sent = self.socket.write(bytes).unwrap_or_default();
        self.is_spoiled |= sent < bytes.len();
    }

    fn hear(&mut self) {
        let mut block = [0; 4_096];
        while let Ok(count @ 1..) = self.socket.read(&mut block) {
            let mut rest = &block[..count];
            while !rest.is_empty() && self.connection.read_tls(&mut rest).is_ok_and(|taken| taken > 0) {
                self.is_spoiled |= self.connection.process_new_packets().is_err();
                let _ = self.connection.reader().read(&mut [0; 4_096]);
            }
        }
    }
}
