//! Key pairs of every kind that signs tokens, and what they sign.

use crate::tokens::encode;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A key pair of one's own.
pub(crate) enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Secret(Vec<u8>),
}

impl Pair {
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")),
            Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key")),
            Self::Ed25519(Ed25519KeyPair::generate().expect("a key")),
            Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")),
            Self::Secret(b"a-secret-of-at-least-32-bytes-of-which-nobody-knows".to_vec()),
        ]
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
            Self::Secret(_) => "HS256",
        }
    }

    pub(crate) fn jwk(&self) -> String {
        let of_point = |crv: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            format!(
                "{{\"kty\":\"EC\",\"crv\":\"{crv}\",\"kid\":\"a\",\"x\":\"{}\",\"y\":\"{}\"}}",
                encode(x),
                encode(y)
            )
        };
        match self {
            Self::P256(pair) => of_point("P-256", pair.public_key().as_ref()),
            Self::P384(pair) => of_point("P-384", pair.public_key().as_ref()),
            Self::Ed25519(pair) => {
                format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"a\",\"x\":\"{}\"}}", encode(pair.public_key()))
            }
            Self::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let [n, e] = [n, e].map(|number| encode(number.big_endian_without_leading_zero()));
                format!("{{\"kty\":\"RSA\",\"kid\":\"a\",\"n\":\"{n}\",\"e\":\"{e}\"}}")
            }
            Self::Secret(secret) => format!("{{\"kty\":\"oct\",\"kid\":\"a\",\"k\":\"{}\"}}", encode(secret)),
        }
    }

    /// What everybody knows of it, in every form in which somebody could take it for a secret.
    pub(crate) fn public(&self) -> Vec<Vec<u8>> {
        let (raw, der): (&[u8], PublicKeyX509Der<'_>) = match self {
            Self::P256(pair) | Self::P384(pair) => {
                (pair.public_key().as_ref(), pair.public_key().as_der().expect("DER"))
            }
            Self::Ed25519(pair) => (pair.public_key().as_ref(), pair.public_key().as_der().expect("DER")),
            Self::Rsa(pair) => {
                let key: &rsa::PublicKey = pair.public_key();
                (key.as_ref(), key.as_der().expect("DER"))
            }
            Self::Secret(_) => return vec![Vec::new(), b"secret".to_vec(), vec![0; 32]],
        };
        let lines: Vec<_> = STANDARD.encode(der.as_ref()).into_bytes();
        let lines: Vec<_> = lines.chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let trimmed = pem.trim_end().as_bytes().to_vec();
        vec![raw.to_vec(), der.as_ref().to_vec(), pem.into_bytes(), trimmed, self.jwk().into_bytes(), Vec::new()]
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::P256(pair) | Self::P384(pair) => pair.sign(&random, message).expect("it signs").as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut out).expect("it signs");
                out
            }
            Self::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
        }
    }

    pub(crate) fn token(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        signed(header, payload, |message| self.sign(message))
    }
}

pub(crate) fn signed(
    header: impl AsRef<[u8]>,
    payload: impl AsRef<[u8]>,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}
