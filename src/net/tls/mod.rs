//! TLS under [`super::stream::Stream`]: rustls' connections, on our event loop, over our blocks.
//!
//! A [`Session`] stands between whoever has the stream and its socket. What the socket brings goes record by record into the connection, and
//! what comes of that into the block of whoever receives; what is to be sent is sealed into a block of its own, which goes out like any
//! other. What has been decrypted belongs to the session, as what has been received belongs to the socket, so a wait may be dropped. A send
//! may not: half a record is gone with it, and the session of no more use.
//!
//! The end of a session is a word (close_notify), and what ends without it is cut: that is an error, never `Ok(0)`. While nothing moves a
//! session holds no block; what rustls keeps for the next record (4 KiB) is its own.
//!
//! [`handshake`] makes sessions, by the rules of [`crate::tls`].

pub mod handshake;
#[cfg(test)]
mod hostile;
mod records;
mod session;
#[cfg(test)]
mod tests;

pub(super) use records::give;
pub use session::Session;
