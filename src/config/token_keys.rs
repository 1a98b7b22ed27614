//! Keys that tokens are verified with: PEM, JWK and JWK sets (RFC 7517), and shared secrets.
//!
//! What a key is decides which algorithms it may be used for, and the configuration which of those are: a token only picks among them, so
//! an RSA key is never taken for a shared secret (RFC 8725 §3.1, §3.5). Keys are read once, and a token is verified with what has been parsed.
//! Their `Debug` is their name.

use super::strict_json;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value};
use std::fmt;

macro_rules! algorithms {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// How a token is signed (RFC 7518 §3.1, RFC 8037 §3.1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Algorithm { $($(#[$doc])* $name),* }

        impl Algorithm {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As `alg` says it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

algorithms! {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256 = "RS256";
    /// With SHA-384.
    Rs384 = "RS384";
    /// With SHA-512.
    Rs512 = "RS512";
    /// RSASSA-PSS with SHA-256.
    Ps256 = "PS256";
    /// With SHA-384.
    Ps384 = "PS384";
    /// With SHA-512.
    Ps512 = "PS512";
    /// ECDSA over P-256 with SHA-256.
    Es256 = "ES256";
    /// ECDSA over P-384 with SHA-384.
    Es384 = "ES384";
    /// Ed25519.
    EdDsa = "EdDSA";
    /// HMAC with SHA-256, of a secret that both sides have.
    Hs256 = "HS256";
    /// With SHA-384.
    Hs384 = "HS384";
    /// With SHA-512.
    Hs512 = "HS512";
}

impl Algorithm {
    /// From what `alg` says.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.word() == word)
    }

    /// Whether both sides have one secret.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }

    fn of_rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }

    /// Of public keys, how they are parsed from SubjectPublicKeyInfo or as bare points.
    fn of_public(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::EdDsa => &signature::ED25519,
            other => other.of_rsa()?,
        })
    }

    fn of_secret(self) -> Option<hmac::Algorithm> {
        Some(match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
            _ => return None,
        })
    }

    /// Bytes that a secret has at least (RFC 7518 §3.2: the size of the hash).
    fn secret_bytes_min(self) -> usize {
        match self {
            Self::Hs384 => 48,
            Self::Hs512 => 64,
            _ => 32,
        }
    }
}

/// The shortest modulus (RFC 7518 §3.3: 2048 bits).
const RSA_BYTES_MIN: usize = 256;

/// A key, and what it may be used for.
pub struct VerifyKey {
    /// Its name; `None`: it has none.
    pub id: Option<String>,
    uses: Vec<(Algorithm, Material)>,
}

enum Material {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uses: Vec<_> = self.uses.iter().map(|(algorithm, _)| algorithm.word()).collect();
        f.debug_struct("VerifyKey").field("id", &self.id).field("uses", &uses).finish_non_exhaustive()
    }
}

impl VerifyKey {
    /// Whether it may be used so.
    #[must_use]
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        self.uses.iter().any(|(other, _)| *other == algorithm)
    }

    /// Whether `signature` is one of `message` by this key, made so.
    #[must_use]
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let material = self.uses.iter().find(|(other, _)| *other == algorithm).map(|(_, material)| material);
        material.is_some_and(|material| match material {
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        })
    }

    /// A secret, for those of `algorithms` that have one.
    ///
    /// # Errors
    /// It is too short.
    pub(super) fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, String> {
        let mut uses = Vec::new();
        for algorithm in algorithms {
            if let Some(of) = algorithm.of_secret() {
                let least = algorithm.secret_bytes_min();
                if secret.len() < least {
                    let word = algorithm.word();
                    return Err(format!("{word} needs a secret of at least {least} bytes (RFC 7518 §3.2)"));
                }
                uses.push((*algorithm, Material::Secret(Box::new(hmac::Key::new(of, secret)))));
            }
        }
        Ok(Self { id: None, uses })
    }
}

/// The keys that a text has: PEM (`BEGIN PUBLIC KEY`, one or several), a JWK, or a set of them. Of a set, keys for other purposes are left out.
///
/// # Errors
/// It has none that can be used, or one that should not be there: a private key.
pub(crate) fn keys(text: &str, algorithms: &[Algorithm]) -> Result<Vec<VerifyKey>, String> {
    let text = text.trim();
    let keys = match text.starts_with('{') {
        true => of_json(text, algorithms)?,
        false => of_pem(text, algorithms)?,
    };
    if keys.is_empty() {
        let words: Vec<_> = algorithms.iter().map(|algorithm| algorithm.word()).collect();
        return Err(format!("there is no key in it for {}", words.join(", ")));
    }
    Ok(keys)
}

const PRIVATE: &str = "there is a private key in it; the gateway needs the public one only";

fn of_pem(text: &str, algorithms: &[Algorithm]) -> Result<Vec<VerifyKey>, String> {
    if text.contains("PRIVATE KEY") {
        return Err(PRIVATE.to_owned());
    }
    let mut keys = Vec::new();
    for der in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|_| "it is neither PEM (BEGIN PUBLIC KEY) nor JSON".to_owned())?;
        let parse = |algorithm: &Algorithm| {
            let key = ParsedPublicKey::new(algorithm.of_public()?, &der).ok()?;
            Some((*algorithm, Material::Public(key)))
        };
        let uses: Vec<_> = algorithms.iter().filter_map(parse).collect();
        if !uses.is_empty() {
            keys.push(VerifyKey { id: None, uses });
        }
    }
    Ok(keys)
}

fn of_json(text: &str, algorithms: &[Algorithm]) -> Result<Vec<VerifyKey>, String> {
    let object = strict_json::object(text.as_bytes())
        .ok_or_else(|| "it is no JSON object, or says something twice".to_owned())?;
    let rows: Vec<Map<String, Value>> = match object.get("keys") {
        Some(Value::Array(rows)) => rows
            .iter()
            .map(|row| row.as_object().cloned())
            .collect::<Option<_>>()
            .ok_or("a key of the set is no object")?,
        Some(_) => return Err("keys is no list".to_owned()),
        None => vec![object],
    };
    if rows.len() > crate::limits::TOKEN_KEYS_MAX {
        return Err(format!("it has more than {} keys", crate::limits::TOKEN_KEYS_MAX));
    }
    let mut keys = Vec::new();
    for row in rows {
        keys.extend(of_jwk(&row, algorithms)?);
    }
    Ok(keys)
}

/// `None`: it is for something else.
fn of_jwk(jwk: &Map<String, Value>, algorithms: &[Algorithm]) -> Result<Option<VerifyKey>, String> {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    if jwk.contains_key("d") {
        return Err(PRIVATE.to_owned());
    }
    let verifies = |operations: &Value| {
        operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    };
    let is_elsewhere = jwk.get("use").is_some_and(|purpose| purpose != "sig")
        || jwk.get("key_ops").is_some_and(|operations| !verifies(operations));
    if is_elsewhere {
        return Ok(None);
    }
    let own = member("alg");
    let allowed = algorithms.iter().copied().filter(|algorithm| own.is_none_or(|own| own == algorithm.word()));
    let decoded = |name: &str| member(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let mut uses = Vec::new();
    for algorithm in allowed {
        let material = match (member("kty"), member("crv"), algorithm) {
            (Some("RSA"), _, algorithm) if algorithm.of_rsa().is_some() => {
                decoded("n").filter(|n| n.len() >= RSA_BYTES_MIN).zip(decoded("e")).zip(algorithm.of_rsa()).and_then(
                    |((n, e), of)| RsaPublicKeyComponents { n, e }.to_parsed_public_key(of).ok().map(Material::Public),
                )
            }
            (Some("EC"), Some("P-256"), Algorithm::Es256) => point(decoded("x"), decoded("y"), 32, algorithm),
            (Some("EC"), Some("P-384"), Algorithm::Es384) => point(decoded("x"), decoded("y"), 48, algorithm),
            (Some("OKP"), Some("Ed25519"), Algorithm::EdDsa) => decoded("x")
                .filter(|x| x.len() == 32)
                .and_then(|x| ParsedPublicKey::new(&signature::ED25519, x).ok().map(Material::Public)),
            (Some("oct"), _, algorithm) if algorithm.is_symmetric() => decoded("k")
                .filter(|secret| secret.len() >= algorithm.secret_bytes_min())
                .zip(algorithm.of_secret())
                .map(|(secret, of)| Material::Secret(Box::new(hmac::Key::new(of, &secret)))),
            _ => continue,
        };
        uses.push((algorithm, material.ok_or_else(|| "a key of it is not as RFC 7518 §6 has it".to_owned())?));
    }
    Ok((!uses.is_empty()).then(|| VerifyKey { id: member("kid").map(str::to_owned), uses }))
}

/// A public key of a curve, from its coordinates.
fn point(x: Option<Vec<u8>>, y: Option<Vec<u8>>, bytes: usize, algorithm: Algorithm) -> Option<Material> {
    let (x, y) = x.zip(y).filter(|(x, y)| x.len() == bytes && y.len() == bytes)?;
    let uncompressed = [&[4][..], &x, &y].concat();
    ParsedPublicKey::new(algorithm.of_public()?, uncompressed).ok().map(Material::Public)
}
