//! What the two handshakes of a WebSocket have and have not in common: an Upgrade (RFC 6455 §4) and an extended CONNECT (RFC 8441 §5).
//!
//! Where the one is translated into the other, the gateway is the end of the first, so the key and the answer to it, which HTTP/2 does without,
//! are its own. No frame of a WebSocket is looked at.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The name of the protocol, in `Upgrade` and in `:protocol`.
pub const PROTOCOL: &[u8] = b"websocket";
/// The field of a request that has the key.
pub const KEY: &str = "sec-websocket-key";
/// The field of a response that answers it.
pub const ACCEPT: &str = "sec-websocket-accept";
/// What RFC 6455 §1.3 puts behind a key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An answer to a key: 28 bytes of base64.
pub type Accept = [u8; 28];

/// The key that 16 random bytes make (RFC 6455 §4.1).
#[must_use]
pub fn key(nonce: [u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    // 16 bytes are 24 of base64, so there is room
    let _ = STANDARD.encode_slice(nonce, &mut key);
    key
}

/// The answer to a key (RFC 6455 §4.2.2). SHA-1 is no secret's guard here: it only shows that the other end knows the protocol.
#[must_use]
pub fn accept(key: &[u8]) -> Accept {
    let mut text = Vec::with_capacity(key.len() + GUID.len());
    text.extend_from_slice(key);
    text.extend_from_slice(GUID);
    let mut accept = [0; 28];
    // 20 bytes are 28 of base64
    let _ = STANDARD.encode_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text), &mut accept);
    accept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_as_the_rfc_has_it() {
        // RFC 6455 §1.3
        assert_eq!(&key(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
