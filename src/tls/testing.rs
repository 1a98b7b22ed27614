//! What tests of TLS need: certificates, and a peer that is rustls over a blocking socket.

use super::certificate::Certificate;
use super::demand::{Belief, demand, with_memory};
use super::judge::{ClientAuth, Judge};
use super::names::Names;
use super::offer::{MinVersion, offer};
use super::tickets::{TicketKeys, Tickets};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// Of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Algorithm {
    Rsa,
    Ecdsa,
}

/// A chain and a key in PEM, signed by itself.
pub(crate) fn pem(names: &[&str], algorithm: Algorithm) -> (String, String) {
    let key = match algorithm {
        Algorithm::Rsa => KeyPair::generate_for(&PKCS_RSA_SHA256),
        Algorithm::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
    };
    let key = key.unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

pub(crate) fn certificate(names: &[&str], algorithm: Algorithm) -> Certificate {
    let (chain, key) = pem(names, algorithm);
    Certificate::read(chain.as_bytes(), key.as_bytes(), None).unwrap()
}

/// Who believes nobody that there is.
pub(crate) fn judge(auth: ClientAuth, fingerprint: &str) -> Judge {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&["nobody"], Algorithm::Ecdsa).key.cert[0].clone()).unwrap();
    Judge::try_new(Arc::new(roots), Vec::new(), auth, fingerprint.to_owned()).unwrap()
}

/// Rules of both sides for `localhost`, where nothing older than `oldest` is spoken.
pub(crate) fn rules(oldest: MinVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let certificate = Arc::new(certificate(&["localhost"], Algorithm::Ecdsa));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.key.cert[0].clone()).unwrap();
    let tickets = Tickets::new(Arc::new(TicketKeys::random()), None);
    let server = offer(Arc::new(Names::new(vec![certificate])), oldest, tickets, None, None, None, false);
    let client = demand(Belief::Roots(Arc::new(roots)), oldest, None).unwrap();
    (server, with_memory(&client, &[b"http/1.1"]))
}
