//! Sessions on each event loop, against rustls over a blocking socket.

use super::handshake::{self, Failed, Reason};
use crate::net::block::Block;
use crate::net::stream::Stream;
use crate::net::testing::{block, on_each_driver, pair, pattern, poll_once, receive_all, rest, until};
use crate::tls::MinVersion;
use crate::tls::testing::rules;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

pub(super) type Rules = (Arc<ServerConfig>, Arc<ClientConfig>);

/// Which side we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// The other side.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) socket: TcpStream,
}

impl Peer {
    fn new(ours: Side, rules: &Rules, socket: TcpStream) -> Self {
        let connection = match ours {
            Side::Server => {
                let name = ServerName::try_from("localhost").unwrap();
                Connection::Client(ClientConnection::new(Arc::clone(&rules.1), name).unwrap())
            }
            Side::Client => Connection::Server(ServerConnection::new(Arc::clone(&rules.0)).unwrap()),
        };
        Self { connection, socket }
    }

    fn shake(&mut self) {
        while self.connection.is_handshaking() || self.connection.wants_write() {
            self.connection.complete_io(&mut self.socket).unwrap();
        }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut got = vec![0; bytes];
        self.read_exact(&mut got).unwrap();
        got
    }

    pub(super) fn say(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(16 << 10) {
            let records = self.sealed(piece);
            self.socket.write_all(&records).unwrap();
        }
    }

    /// What it would send.
    fn sealed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.connection.writer().write_all(bytes).unwrap();
        let mut records = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut records).unwrap();
        }
        records
    }

    fn close(&mut self) {
        self.connection.send_close_notify();
        let last = self.sealed(b"");
        self.socket.write_all(&last).unwrap();
    }
}

impl io::Read for Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.connection.complete_io(&mut self.socket)?;
                }
                read => return read,
            }
        }
    }
}

/// A thread of the peer's own, which shakes hands and does that.
fn peer<T: Send + 'static>(
    ours: Side,
    rules: &Rules,
    socket: TcpStream,
    act: impl FnOnce(&mut Peer) -> T + Send + 'static,
) -> JoinHandle<T> {
    let mut peer = Peer::new(ours, rules, socket);
    std::thread::spawn(move || {
        peer.shake();
        act(&mut peer)
    })
}

async fn shake(stream: &mut Stream, ours: Side, rules: &Rules) -> Result<(), Failed> {
    match ours {
        Side::Server => handshake::serve(stream, &rules.0, Block::default()).await,
        Side::Client => handshake::connect(stream, &rules.1, ServerName::try_from("localhost").unwrap()).await,
    }
}

/// Ours, and the peer at work.
pub(super) async fn session<T: Send + 'static>(
    ours: Side,
    rules: &Rules,
    act: impl FnOnce(&mut Peer) -> T + Send + 'static,
) -> (Stream, JoinHandle<T>) {
    let (mut stream, socket) = pair();
    let thread = peer(ours, rules, socket, act);
    shake(&mut stream, ours, rules).await.unwrap();
    (stream, thread)
}

/// Waits for the peer without keeping the loop from turning.
pub(super) async fn done<T>(thread: JoinHandle<T>) -> T {
    until(|| thread.is_finished()).await;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(super) const SIDES: [Side; 2] = [Side::Server, Side::Client];
const VERSIONS: [MinVersion; 2] = [MinVersion::Tls12, MinVersion::Tls13];

#[test]
fn large_and_small_go_both_ways() {
    on_each_driver(|_| async {
        for (ours, oldest) in SIDES.into_iter().zip(VERSIONS) {
            let rules = rules(oldest);
            for bytes in [1, 5_000, 16 << 10, 100_000, 1 << 20] {
                let (stream, thread) = session(ours, &rules, move |peer| {
                    let got = peer.take(bytes);
                    peer.say(&got);
                    peer.take(bytes)
                })
                .await;
                let sent = pattern(bytes);
                let (result, block) = stream.send(block(&sent, 0)).await;
                assert!(result.is_ok() && block.is_empty(), "{result:?}");
                assert_eq!(receive_all(&stream, bytes).await, sent);
                stream.send(self::block(&sent, 0)).await.0.unwrap();
                assert!(done(thread).await == sent);
            }
        }
    });
}

#[test]
fn records_may_come_in_any_pieces() {
    on_each_driver(|_| async {
        let rules = rules(MinVersion::Tls13);
        for piece in [1, 2, 3, 4, 5, 6, 21, 22, 23, 100, 4_095, 4_096, 4_097] {
            let (stream, thread) = session(Side::Server, &rules, move |peer| {
                let sizes: &[usize] = if piece < 100 { &[1, 30, 0, 200] } else { &[1, 20_000, 0, 30_000] };
                let records: Vec<u8> = sizes.iter().flat_map(|bytes| peer.sealed(&pattern(*bytes))).collect();
                for piece in records.chunks(piece) {
                    peer.socket.write_all(piece).unwrap();
                }
                peer.take(1);
                sizes.iter().flat_map(|bytes| pattern(*bytes)).collect::<Vec<u8>>()
            })
            .await;
            let mut got = Vec::new();
            let mut room = 0;
            let total = if piece < 100 { 231 } else { 50_001 };
            while got.len() < total {
                // with a little room, with more, and with none of one's own
                room = (room * 7 + 1) % 9_000;
                let into = if room % 3 == 0 { Block::default() } else { block(b"before", room) };
                let before = into.unread().len();
                let (received, block) = stream.receive(into).await;
                assert_eq!(received.unwrap(), block.unread().len() - before);
                got.extend_from_slice(&block.unread()[before..]);
            }
            stream.send(block(b"!", 0)).await.0.unwrap();
            assert!(got == done(thread).await, "in pieces of {piece}");
        }
    });
}

#[test]
fn the_end_is_a_word_and_without_it_all_is_cut() {
    on_each_driver(|_| async {
        for (ours, oldest) in SIDES.into_iter().flat_map(|side| VERSIONS.map(|version| (side, version))) {
            let rules = rules(oldest);
            for is_said in [true, false] {
                let (stream, thread) = session(ours, &rules, move |peer| {
                    peer.say(b"last");
                    if is_said {
                        peer.close();
                    }
                    peer.socket.shutdown(Shutdown::Write).unwrap();
                    // half of it goes on
                    peer.take(3)
                })
                .await;
                assert_eq!(receive_all(&stream, 4).await, b"last");
                for _ in 0..2 {
                    let (end, _) = stream.receive(Block::default()).await;
                    match is_said {
                        true => assert_eq!(end.unwrap(), 0),
                        false => assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
                    }
                }
                stream.send(block(b"yes", 0)).await.0.unwrap();
                assert_eq!(done(thread).await, b"yes");
            }
        }
    });
}

#[test]
fn our_end_is_told_with_the_last_bytes_or_alone_or_not_at_all() {
    on_each_driver(|_| async {
        let rules = rules(MinVersion::Tls13);
        for how in ["with", "alone", "farewell", "dropped", "cut"] {
            let (stream, thread) = session(Side::Server, &rules, |peer| {
                let mut got = Vec::new();
                let end = peer.read_to_end(&mut got).map_err(|error| error.kind());
                (got, end)
            })
            .await;
            match how {
                "with" => stream.end_with_next_send(),
                "cut" => {
                    stream.reset_on_close();
                    stream.end_with_next_send();
                }
                _ => {}
            }
            stream.send(block(&pattern(20_000), 0)).await.0.unwrap();
            match how {
                "alone" => stream.end().await.unwrap(),
                "farewell" => stream.say_farewell(),
                _ => {}
            }
            drop(stream);
            let (got, end) = done(thread).await;
            match how {
                "dropped" => assert_eq!((got, end), (pattern(20_000), Err(io::ErrorKind::UnexpectedEof))),
                "cut" => assert!(end.is_err(), "{end:?}"),
                _ => assert_eq!((got, end), (pattern(20_000), Ok(20_000)), "{how}"),
            }
        }
    });
}

#[test]
fn tickets_do_not_spend_a_connection_and_all_else_does() {
    on_each_driver(|_| async {
        let rules = rules(MinVersion::Tls13);
        for what in ["nothing", "bytes", "the end", "cut"] {
            let (told, wait) = channel();
            let (go, gone) = channel::<()>();
            let (stream, thread) = session(Side::Client, &rules, move |peer| {
                // the tickets are there before anything else
                peer.say(b"hello");
                told.send(()).unwrap();
                gone.recv().unwrap();
                match what {
                    "bytes" => peer.say(b"408"),
                    "the end" => peer.close(),
                    "cut" => peer.socket.shutdown(Shutdown::Both).unwrap(),
                    _ => {}
                }
            })
            .await;
            until(|| wait.try_recv().is_ok()).await;
            assert_eq!(receive_all(&stream, 5).await, b"hello");
            stream.listen();
            assert!(!stream.is_spent());
            go.send(()).unwrap();
            if what == "nothing" {
                done(thread).await;
                continue; // its socket is closed now
            }
            until(|| stream.is_spent()).await;
            done(thread).await;
        }
    });
}

#[test]
fn a_ticket_alone_leaves_a_connection_as_it_was() {
    on_each_driver(|_| async {
        let rules = rules(MinVersion::Tls13);
        let (go, gone) = channel::<()>();
        let (stream, thread) = session(Side::Client, &rules, move |_| gone.recv().unwrap()).await;
        // two tickets come with the end of the handshake
        until(|| stream.has_more()).await;
        for _ in 0..3 {
            assert!(!stream.is_spent());
            crate::net::driver::next_turn().await;
        }
        go.send(()).unwrap();
        done(thread).await;
        until(|| stream.is_spent()).await;
    });
}

#[test]
fn who_leaves_takes_no_byte_with_it() {
    on_each_driver(|_| async {
        let rules = rules(MinVersion::Tls13);
        let (go, gone) = channel::<()>();
        let (stream, thread) = session(Side::Server, &rules, move |peer| {
            gone.recv().unwrap();
            peer.say(b"late");
            peer.take(1)
        })
        .await;
        assert!(poll_once(pin!(stream.receive(block(b"", 64)))).await.is_none());
        assert!(poll_once(pin!(stream.readable())).await.is_none());
        go.send(()).unwrap();
        stream.readable().await.unwrap();
        assert!(poll_once(pin!(stream.readable())).await.is_some(), "it stays so");
        assert_eq!(receive_all(&stream, 4).await, b"late");
        stream.send(block(b"x", 0)).await.0.unwrap();
        done(thread).await;
    });
}

#[test]
fn what_is_posted_arrives_in_order() {
    on_each_driver(|_| async {
        let rules = rules(MinVersion::Tls13);
        let (stream, thread) = session(Side::Server, &rules, |peer| {
            let mut got = Vec::new();
            for _ in 0..20 {
                got.extend(peer.take(300));
                peer.say(b"?");
            }
            got
        })
        .await;
        let all = pattern(6_000);
        for piece in all.chunks(300) {
            if let Err(rest) = stream.post(block(piece, 0)) {
                stream.send(rest).await.0.unwrap();
            }
            receive_all(&stream, 1).await;
        }
        assert!(done(thread).await == all);
    });
}

#[test]
fn what_is_no_handshake_is_told_apart() {
    on_each_driver(|_| async {
        let rules = rules(MinVersion::Tls13);
        let failed = async |bytes: &'static [u8]| {
            let (mut stream, mut peer) = pair();
            peer.write_all(bytes).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            let failed = shake(&mut stream, Side::Server, &rules).await.unwrap_err();
            drop(stream);
            (failed.reason(), rest(peer).await.0)
        };
        assert_eq!(failed(b"GET / HTTP/1.1\r\n").await, (Reason::PlainHttp, Vec::new()));
        assert_eq!(failed(b"").await.0, Reason::Closed);
        assert_eq!(failed(b"\x16\x03\x01").await.0, Reason::Closed);
        let (reason, told) = failed(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await;
        assert_eq!((reason, told.first()), (Reason::Protocol, Some(&21)), "an alert");
        assert_eq!(failed(b"\x00\x00\x00\x00\x00\x00\x00").await.0, Reason::Protocol);
        // half a hello, and a change of cipher before the rest of it
        let (reason, told) = failed(b"\x16\x03\x01\x00\x06\x01\x00\x00\x64\x03\x03\x14\x03\x01\x00\x01\x01").await;
        assert_eq!((reason, &told[..]), (Reason::Protocol, &[21, 3, 3, 0, 2, 2, 10][..]), "unexpected_message, once");
        // an alert is not answered with one
        assert_eq!(failed(b"\x15\x03\x01\x00\x02\x02\x28").await, (Reason::Alert, Vec::new()));
    });
}

#[test]
fn an_idle_session_holds_no_block() {
    on_each_driver(|_| async {
        let rules = rules(MinVersion::Tls13);
        let (go, gone) = channel::<()>();
        let (stream, thread) = session(Side::Server, &rules, move |peer| {
            peer.say(&pattern(100_000));
            gone.recv().unwrap();
        })
        .await;
        let mut got = 0;
        while got < 100_000 {
            got += receive_all(&stream, 1).await.len();
        }
        if stream.on_ring().is_some() || stream.on_epoll().is_some() {
            assert!(poll_once(pin!(stream.readable())).await.is_none());
            assert_eq!(super::records::lent_bytes(), 0, "all are in the stock");
        }
        go.send(()).unwrap();
        done(thread).await;
    });
}

#[test]
fn a_session_goes_on_with_a_ticket() {
    on_each_driver(|_| async {
        for oldest in VERSIONS {
            let rules = rules(oldest);
            for round in 0..2 {
                for ours in SIDES {
                    let (stream, thread) = session(ours, &rules, |peer| {
                        peer.say(b"hello");
                        peer.take(2)
                    })
                    .await;
                    assert_eq!(receive_all(&stream, 5).await, b"hello");
                    stream.send(block(b"ok", 0)).await.0.unwrap();
                    done(thread).await;
                    let session = stream.tls().unwrap();
                    // both sides share the memory of the client
                    assert_eq!(session.is_resumed(), round > 0 || ours == Side::Client, "{ours:?}");
                    session.with_server_name(|name| assert_eq!(name.is_some(), ours == Side::Server));
                }
            }
        }
    });
}

#[test]
fn no_byte_of_a_record_may_change_on_its_way() {
    on_each_driver(|_| async {
        for oldest in VERSIONS {
            let rules = rules(oldest);
            // type and version are always the same two of TLS 1.3, whatever the header says
            let mut at = 3;
            loop {
                let (stream, thread) = session(Side::Server, &rules, move |peer| {
                    // not with the end of the handshake
                    peer.take(1);
                    let mut record = peer.sealed(b"pay 1 to A");
                    let is_over = at >= record.len();
                    if !is_over {
                        record[at] ^= 1;
                    }
                    peer.socket.write_all(&record).unwrap();
                    // what is longer now is waited for in vain
                    peer.socket.shutdown(Shutdown::Write).unwrap();
                    let _ = peer.read(&mut [0; 64]);
                    is_over
                })
                .await;
                stream.send(block(b"?", 0)).await.0.unwrap();
                let (received, block) = stream.receive(Block::default()).await;
                let (got, is_over) = (block.unread().to_vec(), {
                    drop(stream);
                    done(thread).await
                });
                if is_over {
                    assert_eq!((received.unwrap(), &*got), (10, &b"pay 1 to A"[..]));
                    break;
                }
                assert!(received.is_err() && got.is_empty(), "byte {at}: {received:?} {got:?}");
                at += 1;
            }
        }
    });
}
