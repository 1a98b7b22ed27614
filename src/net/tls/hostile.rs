//! What a peer that has shaken hands may send and never should: records that its own library would not make, sealed here by hand.

use super::tests::{Peer, SIDES, Side, done, session};
use crate::net::block::Block;
use crate::net::stream::Stream;
use crate::net::testing::{block, on_each_driver, receive_all, until};
use crate::tls::testing::rules;
use crate::tls::{MinVersion, provider};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::pki_types::ServerName;
use rustls::{
    CipherSuite, ClientConnection, Connection, ConnectionTrafficSecrets, ServerConfig, ServerConnection, version,
};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// More than a peer may send without a byte of plaintext, and than both sockets hold.
const TOO_MUCH: usize = 64 << 20;

/// Inner types of records (RFC 8446 §5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// A peer whose library is out of the game.
struct Sealer {
    socket: TcpStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Sealer {
    /// Takes over what `peer` sends with from now on (RFC 8446 §5.2 and §5.3).
    fn take_over(peer: &mut Peer, rules: &super::tests::Rules) -> Self {
        let other = match peer.connection {
            Connection::Client(_) => {
                let name = ServerName::try_from("localhost").unwrap();
                Connection::Client(ClientConnection::new(Arc::clone(&rules.1), name).unwrap())
            }
            Connection::Server(_) => Connection::Server(ServerConnection::new(Arc::clone(&rules.0)).unwrap()),
        };
        let (sequence, secrets) =
            std::mem::replace(&mut peer.connection, other).dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("the first suite of both") };
        Self {
            socket: peer.socket.try_clone().unwrap(),
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap()),
            iv: iv.as_ref().try_into().unwrap(),
            sequence,
        }
    }

    /// A record of this type, with so many zeroes behind it.
    fn seal(&mut self, content: &[u8], inner: u8, padding: usize) -> Vec<u8> {
        let mut body = [content, &[inner][..], &vec![0; padding]].concat();
        let length = u16::try_from(body.len() + 16).unwrap().to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, length[0], length[1]];
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body).unwrap();
        [&header[..], &body].concat()
    }

    /// A record of this type in TLS 1.2 (RFC 5288 §3).
    fn seal_12(&mut self, content: &[u8], kind: u8) -> Vec<u8> {
        let mut body = content.to_vec();
        let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        let header = |bytes: usize| [&[kind, 3, 3][..], &length(bytes)].concat();
        let about = [&self.sequence.to_be_bytes()[..], &header(content.len())].concat();
        self.sequence += 1;
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), &mut body).unwrap();
        [&header(8 + body.len())[..], &nonce[4..], &body].concat()
    }

    /// Bytes that come until the end.
    fn listen(&mut self) -> usize {
        let mut told = Vec::new();
        let _ = self.socket.read_to_end(&mut told);
        told.len()
    }
}

/// Ours, with a peer that says hello and then does that by hand; what it has sent.
async fn against(
    ours: Side,
    act: impl FnOnce(&mut Sealer) -> usize + Send + 'static,
) -> (Stream, std::thread::JoinHandle<usize>) {
    let (server, client) = rules(MinVersion::Tls13);
    let (mut server, mut client) = (Arc::unwrap_or_clone(server), Arc::unwrap_or_clone(client));
    (server.enable_secret_extraction, client.enable_secret_extraction) = (true, true);
    let rules = (Arc::new(server), Arc::new(client));
    let theirs = rules.clone();
    let (stream, thread) = session(ours, &rules, move |peer| {
        peer.say(b"hello");
        // what follows comes by itself, and not with the end of the handshake
        peer.take(1);
        act(&mut Sealer::take_over(peer, &theirs))
    })
    .await;
    assert_eq!(receive_all(&stream, 5).await, b"hello");
    stream.send(block(b"!", 0)).await.0.unwrap();
    (stream, thread)
}

/// A ticket (RFC 8446 §4.6.1) that is for nothing; a client may be given as many as its server likes.
const TICKET: [u8; 4 + 9 + 3 + 2] = [4, 0, 0, 14, 0, 0, 14, 16, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0];

#[test]
fn records_without_end_that_say_nothing_end_the_session() {
    on_each_driver(|_| async {
        for ours in SIDES {
            for (is_looked_at, padding) in [(true, 0), (false, 0), (false, 1_000)] {
                let (stream, thread) = against(ours, move |sealer| {
                    let mut sent = 0;
                    loop {
                        let records: Vec<u8> = (0..64)
                            .flat_map(|_| match ours {
                                Side::Server => sealer.seal(b"", APPLICATION_DATA, padding),
                                Side::Client => sealer.seal(&TICKET, HANDSHAKE, padding),
                            })
                            .collect();
                        if sealer.socket.write_all(&records).is_err() {
                            return sent;
                        }
                        sent += records.len();
                        assert!(sent < TOO_MUCH, "nobody minds");
                    }
                })
                .await;
                if is_looked_at {
                    // as a pool does, which has to come to an end whatever comes
                    until(|| stream.is_spent()).await;
                }
                let (received, block) = stream.receive(Block::default()).await;
                assert_eq!(received.unwrap_err().kind(), io::ErrorKind::InvalidData);
                assert!(block.is_empty());
                drop(stream);
                assert!(done(thread).await > 0);
            }
        }
    });
}

#[test]
fn padding_is_no_content_and_what_is_said_between_begins_anew() {
    on_each_driver(|_| async {
        for ours in SIDES {
            let (stream, thread) = against(ours, |sealer| {
                for _ in 0..20 {
                    let silent = sealer.seal(b"", APPLICATION_DATA, 15_000);
                    let records = [silent, sealer.seal(b"x", APPLICATION_DATA, 5_000)];
                    sealer.socket.write_all(&records.concat()).unwrap();
                }
                sealer.listen()
            })
            .await;
            assert_eq!(receive_all(&stream, 20).await, [b'x'; 20]);
            drop(stream);
            done(thread).await;
        }
    });
}

/// What it sends, by hand.
type Sends = fn(&mut Sealer) -> Vec<u8>;

const NEVER: [(&str, Sends); 10] = [
    ("warnings without end", |sealer| (0..8).flat_map(|_| sealer.seal(&[1, 90], ALERT, 0)).collect()),
    ("a fatal alert", |sealer| sealer.seal(&[2, 40], ALERT, 0)),
    ("half an alert", |sealer| sealer.seal(&[1], ALERT, 0)),
    ("a record of no type", |sealer| sealer.seal(b"", 0, 30)),
    ("a record of a type that there is not", |sealer| sealer.seal(b"x", 0x30, 0)),
    ("a change of cipher that is sealed", |sealer| sealer.seal(&[1], CHANGE_CIPHER_SPEC, 0)),
    ("changes of cipher in plain, without end", |_| [CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1].repeat(8)),
    ("another handshake", |sealer| sealer.seal(&[1, 0, 0, 2, 3, 3], HANDSHAKE, 0)),
    ("bytes in plain", |_| vec![APPLICATION_DATA, 3, 3, 0, 3, b'G', b'E', b'T']),
    ("a record that is too long", |sealer| sealer.seal(&[b'x'; (16 << 10) + 1], APPLICATION_DATA, 0)),
];

#[test]
fn what_no_peer_may_send_ends_the_session_and_nothing_of_it_is_passed_on() {
    on_each_driver(|_| async {
        for ours in SIDES {
            for (what, records) in NEVER {
                let (stream, thread) = against(ours, move |sealer| {
                    let records = records(sealer);
                    sealer.socket.write_all(&records).unwrap();
                    sealer.listen()
                })
                .await;
                let (received, block) = stream.receive(Block::default()).await;
                let error = received.map_err(|error| error.kind()).unwrap_err();
                assert_eq!((error, block.unread()), (io::ErrorKind::InvalidData, &b""[..]), "{ours:?}: {what}");
                drop(stream);
                done(thread).await;
            }
        }
    });
}

#[test]
fn who_asks_for_renegotiation_is_told_at_once_that_there_is_none() {
    on_each_driver(|_| async {
        for ours in SIDES {
            let (server, client) = rules(MinVersion::Tls12);
            let mut suites = (*provider()).clone();
            suites.cipher_suites.retain(|it| it.suite() == CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
            let mut only_12 = ServerConfig::builder_with_provider(Arc::new(suites))
                .with_protocol_versions(&[&version::TLS12])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&server.cert_resolver));
            let mut client = Arc::unwrap_or_clone(client);
            (only_12.enable_secret_extraction, client.enable_secret_extraction) = (true, true);
            let rules = (Arc::new(only_12), Arc::new(client));
            let theirs = rules.clone();
            let (stream, thread) = session(ours, &rules, move |peer| {
                peer.say(b"hello");
                peer.take(1);
                let asks = match ours {
                    Side::Server => {
                        let name = ServerName::try_from("localhost").unwrap();
                        let mut hello = Vec::new();
                        let mut again = ClientConnection::new(Arc::clone(&theirs.1), name).unwrap();
                        again.write_tls(&mut hello).unwrap();
                        hello.split_off(5)
                    }
                    // HelloRequest
                    Side::Client => vec![0; 4],
                };
                let mut sealer = Sealer::take_over(peer, &theirs);
                sealer.socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                let asks = sealer.seal_12(&asks, HANDSHAKE);
                sealer.socket.write_all(&asks).unwrap();
                let mut told = [0; 5];
                sealer.socket.read_exact(&mut told).unwrap();
                assert_eq!(told[0], ALERT);
                let more = sealer.seal_12(b"more", APPLICATION_DATA);
                sealer.socket.write_all(&more).unwrap();
                usize::from(told[0])
            })
            .await;
            assert_eq!(receive_all(&stream, 5).await, b"hello");
            stream.send(block(b"!", 0)).await.0.unwrap();
            assert_eq!(receive_all(&stream, 4).await, b"more");
            assert_eq!(done(thread).await, usize::from(ALERT));
        }
    });
}
