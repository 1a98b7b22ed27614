//! `Content-Digest` (RFC 9530): what a body has to be, and whether it is.
//!
//! sha-256 and sha-512 are looked at, each that is there has to be right, and one has to be there. Others are left alone: those that the RFC calls
//! insecure say nothing, and no more are registered.

use super::Disbelief;
use super::structured::byte_members;
use aws_lc_rs::digest::{Context, SHA256, SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a body has to be: of its two digests at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentDigest {
    sha256: Option<[u8; 32]>,
    sha512: Option<[u8; 64]>,
}

impl ContentDigest {
    /// From all lines of the field.
    ///
    /// # Errors
    /// `Form`, or `Digest` if there is none that is known.
    pub fn read(lines: &[&[u8]]) -> Result<Self, Disbelief> {
        let (mut sha256, mut sha512) = (None, None);
        for (algorithm, digest) in byte_members(lines)? {
            match algorithm {
                "sha-256" => sha256 = Some(decode(digest)?),
                "sha-512" => sha512 = Some(decode(digest)?),
                _ => {}
            }
        }
        match (sha256, sha512) {
            (None, None) => Err(Disbelief::Digest),
            _ => Ok(Self { sha256, sha512 }),
        }
    }

    /// Whether it is of this body.
    #[must_use]
    pub fn is_of(&self, body: &[u8]) -> bool {
        let mut running = self.begin();
        running.update(body);
        running.is_right()
    }

    /// To be shown a body piece by piece.
    #[must_use]
    pub fn begin(&self) -> Running {
        let sha256 = self.sha256.map(|expected| (Context::new(&SHA256), expected));
        let sha512 = self.sha512.map(|expected| (Context::new(&SHA512), expected));
        Running { sha256, sha512 }
    }
}

fn decode<const BYTES: usize>(digest: &str) -> Result<[u8; BYTES], Disbelief> {
    STANDARD.decode(digest).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(Disbelief::Form)
}

/// A body that is being looked at.
#[derive(Clone)]
pub struct Running {
    sha256: Option<(Context, [u8; 32])>,
    sha512: Option<(Context, [u8; 64])>,
}

impl Running {
    /// More of it.
    pub fn update(&mut self, piece: &[u8]) {
        self.sha256.iter_mut().for_each(|(context, _)| context.update(piece));
        self.sha512.iter_mut().for_each(|(context, _)| context.update(piece));
    }

    /// That was all: whether it is what it has to be. A digest is no secret, and is compared as any bytes.
    #[must_use]
    pub fn is_right(self) -> bool {
        self.sha256.is_none_or(|(context, expected)| context.finish().as_ref() == expected)
            && self.sha512.is_none_or(|(context, expected)| context.finish().as_ref() == expected)
    }
}
