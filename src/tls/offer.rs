//! By which rules sessions with clients are made.

use super::challenges::{self, Challenges, Shown};
use super::judge::Judge;
use super::key_log::KeyLogFile;
use super::names::Names;
use super::provider;
use super::tickets::Tickets;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion, version};
use std::sync::Arc;

/// The oldest version that is spoken; there are no others than these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and authenticated encryption only.
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl MinVersion {
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::Tls12 => &VERSIONS,
            Self::Tls13 => &VERSIONS[..1],
        }
    }
}

/// What is spoken over it (RFC 7301). Who offers something and none of these is refused.
pub(super) const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// What is spoken before those, where a listener speaks it (RFC 9113 §3.2).
pub const HTTP2: &[u8] = b"h2";

const AES_128: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];
const CHACHA20: [CipherSuite; 3] = [
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The rules of a listener, which speaks HTTP/2 too, or does not. Sessions go on by tickets alone, so nothing is kept of them; there is no early data, which could be repeated
/// (RFC 8446 §8), and no renegotiation, which rustls does not know.
#[must_use]
pub fn offer(
    names: Arc<Names>,
    oldest: MinVersion,
    tickets: Tickets,
    clients: Option<&Judge>,
    key_log: Option<Arc<KeyLogFile>>,
    challenges: Option<Arc<Challenges>>,
    http2: bool,
) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(with_order()).with_protocol_versions(oldest.versions());
    let config = config.expect("the provider has suites of both versions");
    let config = match clients {
        Some(judge) => config.with_client_cert_verifier(Arc::clone(&judge.verifier)),
        None => config.with_no_client_auth(),
    };
    let is_asked = challenges.is_some();
    let mut config = config.with_cert_resolver(match challenges {
        Some(challenges) => Arc::new(Shown { names, challenges }),
        None => names,
    });
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(tickets);
    if let Some(key_log) = key_log {
        config.key_log = key_log;
    }
    let first: &[&[u8]] = if http2 { &[HTTP2] } else { &[] };
    let last: &[&[u8]] = if is_asked { &[challenges::PROTOCOL] } else { &[] };
    config.alpn_protocols = first.iter().chain(&PROTOCOLS).chain(last).map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// The suites in the order in which a listener prefers them. All of them are strong; AES-128 costs both sides a seventh less than AES-256.
fn with_order() -> Arc<CryptoProvider> {
    let mut ordered = (*provider()).clone();
    ordered.cipher_suites.sort_by_key(|suite| !AES_128.contains(&suite.suite()));
    Arc::new(ordered)
}

/// The rules for the client whose first bytes these are: those of `config`, in whose order suites are chosen, but for one that would have
/// ChaCha20 first. It has no AES in its processor, where AES costs it several times as much, so its own order counts.
#[must_use]
pub fn rules_for(config: &Arc<ServerConfig>, first: &[u8]) -> Arc<ServerConfig> {
    if !prefers_chacha20(first) {
        return Arc::clone(config);
    }
    let mut config = (**config).clone();
    config.ignore_client_order = false;
    Arc::new(config)
}

/// Whether the first suite of a ClientHello (RFC 8446 §4.1.2) is one with ChaCha20; one that only greases (RFC 8701) is not looked at. What
/// has not arrived yet prefers nothing.
fn prefers_chacha20(first: &[u8]) -> bool {
    // headers of record and message, version, random
    const BEFORE_SESSION: usize = 5 + 4 + 2 + 32;
    let [22, _, _, _, _, 1, ..] = first else { return false };
    let Some((&session, rest)) = first.get(BEFORE_SESSION..).and_then(<[u8]>::split_first) else { return false };
    let Some(suites) = rest.get(usize::from(session) + 2..) else { return false };
    let mut suites = suites.as_chunks().0.iter().map(|suite| u16::from_be_bytes(*suite));
    suites.find(|suite| suite & 0x0f0f != 0x0a0a).is_some_and(|first| CHACHA20.contains(&first.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::rules;
    use rustls::{ClientConfig, ClientConnection, ServerConnection};

    /// What a client's first flight begins with, and the suite that it gets; `first` is the suite that it has first, if it offers that.
    fn agreed(
        oldest: MinVersion,
        newest: &'static SupportedProtocolVersion,
        first: CipherSuite,
    ) -> (Vec<u8>, CipherSuite) {
        let (server, _) = rules(oldest);
        let mut offered = (*provider()).clone();
        offered.cipher_suites.sort_by_key(|suite| suite.suite() != first);
        let client = ClientConfig::builder_with_provider(Arc::new(offered))
            .with_protocol_versions(&[newest])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut server = ServerConnection::new(rules_for(&server, &hello)).unwrap();
        server.read_tls(&mut &hello[..]).unwrap();
        server.process_new_packets().unwrap();
        (hello, server.negotiated_cipher_suite().unwrap().suite())
    }

    #[test]
    fn suites_are_chosen_in_our_order_but_for_who_has_no_aes() {
        let (v12, v13) = (&version::TLS12, &version::TLS13);
        for (newest, first, agreed_on) in [
            (v13, CipherSuite::TLS13_AES_256_GCM_SHA384, AES_128[0]),
            (v13, CHACHA20[0], CHACHA20[0]),
            (v12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, AES_128[1]),
            (v12, CHACHA20[1], CHACHA20[1]),
        ] {
            assert_eq!(agreed(MinVersion::Tls12, newest, first).1, agreed_on, "{first:?}");
        }
    }

    #[test]
    fn what_begins_no_hello_or_ends_before_its_suites_prefers_nothing() {
        let (hello, _) = agreed(MinVersion::Tls13, &version::TLS13, CHACHA20[0]);
        let ends = (0..hello.len()).find(|end| prefers_chacha20(&hello[..*end])).unwrap();
        assert!(ends < 100, "it takes no more than that: {ends}");
        assert!((ends..hello.len()).all(|end| prefers_chacha20(&hello[..end])));
        let mut greased = hello.clone();
        greased.splice(ends - 2..ends - 2, [0x5a, 0x5a]);
        assert!(prefers_chacha20(&greased));
        for (at, byte) in [(0, 23), (5, 2), (43, 255)] {
            let mut other = hello.clone();
            other[at] = byte;
            assert!(!prefers_chacha20(&other), "{at}");
        }
        assert!(!prefers_chacha20(&[22; 64]) && !prefers_chacha20(b"GET / HTTP/1.1"));
    }
}
