//! What TLS is spoken with: certificates and their keys, which of them a client gets, tickets, and the rules for both sides.
//!
//! Read and checked with the configuration, immutable from then on but for the keys of tickets, and shared by all cores. Sessions
//! themselves are made over sockets (`net::tls`).
//!
//! [`certificate`] reads what files hold, [`names`] chooses, [`offer`] and [`demand`] make the rules, [`judge`] believes clients or
//! does not, [`tickets`] lets sessions go on. Sources: RFC
//! 8446, RFC 5246, RFC 5280, RFC 6066, rustls 0.23.

pub mod certificate;
pub mod challenges;
pub mod demand;
mod der;
pub mod identity;
pub mod judge;
pub mod key_log;
pub mod names;
pub mod offer;
#[cfg(test)]
pub(crate) mod testing;
pub mod tickets;

pub use certificate::Certificate;
pub use identity::Identity;
pub use judge::Judge;
pub use names::Names;
pub use offer::{HTTP2, MinVersion};

use rustls::crypto::CryptoProvider;
use std::sync::{Arc, OnceLock};

/// The cryptography that all of it uses: aws-lc-rs, with its own order of suites and X25519MLKEM768 first.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}
