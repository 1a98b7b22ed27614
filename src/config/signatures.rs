//! Signed requests (HTTP Message Signatures, RFC 9421): the keys that consumers sign with, and what a signature has to be.
//!
//! What a key is for stands beside it in the file, and a message never chooses: one that names another `alg` is refused. The signatures are those
//! that tokens have too, under other names, so the keys are the same ([`super::token_keys`]). A secret is shown nowhere; what a reload has to
//! notice of it is a digest.

use super::identity::fingerprint;
use super::names::{FilePath, Header};
use super::paths::Body;
use super::problem::{Refusal, Sink, did_you_mean};
use super::read::{List, Scalar, Written};
use super::secret::SecretText;
use super::tables::{scalar_schema, table};
use super::token_keys::{self, Algorithm, VerifyKey};
use super::values::{HOUR, SECOND, Size, Time, text, words};
use crate::limits::{REQUEST_BUFFER_BYTES_MAX, SIGNATURE_COMPONENTS_MAX, SIGNATURE_KEY_ID_BYTES_MAX};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::de::DeValue;
use zeroize::Zeroizing;

table! {
    /// A key that a consumer signs requests with: exactly one of secret, file and inline.
    SigningKey {
        /// What keyid of a signature says. It is one consumer's, and no secret.
        required keyid: KeyId;
        /// What the key is for; a signature that names another alg is refused: hmac-sha256 for a secret, or ed25519, ecdsa-p256-sha256,
        /// ecdsa-p384-sha384, rsa-pss-sha512 or rsa-v1_5-sha256 for a public key.
        default algorithm: SignatureAlgorithm = "hmac-sha256";
        /// A secret that both sides have, at least 32 bytes; written as in request_headers.set.
        optional secret: SecretText;
        /// true: the secret is written in base64 (RFC 4648 §4). false: its bytes are the key.
        default base64: bool = false;
        /// A file with the public key: PEM or a JWK. It is read with this one.
        optional file: FilePath;
        /// The same, written here.
        optional inline: Body;
    }
}

table! {
    /// What a signature has to cover, and how old it may be.
    SignatureTable {
        /// Components that it has to cover: @method, @target-uri, @authority, @scheme, @request-target, @path, @query, or names of headers.
        default components: List<ComponentText, 1, SIGNATURE_COMPONENTS_MAX> = ["@method", "@authority", "@path", "@query"];
        /// true: a request with a body has to have a Content-Digest (RFC 9530) that is covered, and its body has to be that. false: bodies are not looked at.
        default content_digest: bool = true;
        /// The largest such body. It is held until it is known to be right, and the endpoint sees none of it before; a larger one is answered with 413.
        default max_body: Size<1, { REQUEST_BUFFER_BYTES_MAX as u64 }> = "1MiB";
        /// How long a signature is good after it was created, 1s to 1h.
        default max_age: Time<SECOND, HOUR> = "5m";
        /// By how much clocks may differ when created and expires are looked at, 0s to 1h.
        default leeway: Time<0, HOUR> = "30s";
        /// "required": a signature has a nonce, and each is taken once. "optional": those that have one are taken once.
        default nonce: NonceRule = "required";
        /// What tag has to be; anything where it is not given.
        optional tag: KeyId;
    }
}

words! {
    /// `signature.nonce`
    NonceRule {
        /// A signature has one.
        Required = "required",
        /// It may have one.
        Optional = "optional",
    }
}

impl NonceRule {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}

words! {
    /// How a request is signed (RFC 9421 §3.3).
    SignatureAlgorithm {
        /// HMAC with SHA-256.
        HmacSha256 = "hmac-sha256",
        /// EdDSA with curve 25519.
        Ed25519 = "ed25519",
        /// ECDSA over P-256 with SHA-256.
        EcdsaP256Sha256 = "ecdsa-p256-sha256",
        /// ECDSA over P-384 with SHA-384.
        EcdsaP384Sha384 = "ecdsa-p384-sha384",
        /// RSASSA-PSS with SHA-512.
        RsaPssSha512 = "rsa-pss-sha512",
        /// RSASSA-PKCS1-v1_5 with SHA-256.
        RsaV15Sha256 = "rsa-v1_5-sha256",
    }
}

impl SignatureAlgorithm {
    /// As `alg` says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, other)| *other == self).map_or("", |(word, _)| word)
    }

    /// The same of tokens.
    #[must_use]
    pub fn of_tokens(self) -> Algorithm {
        match self {
            Self::HmacSha256 => Algorithm::Hs256,
            Self::Ed25519 => Algorithm::EdDsa,
            Self::EcdsaP256Sha256 => Algorithm::Es256,
            Self::EcdsaP384Sha384 => Algorithm::Es384,
            Self::RsaPssSha512 => Algorithm::Ps512,
            Self::RsaV15Sha256 => Algorithm::Rs256,
        }
    }
}

/// A key that requests are signed with.
#[derive(Clone)]
pub struct Signer {
    /// What `keyid` says.
    pub id: Box<str>,
    /// What it is for.
    pub algorithm: SignatureAlgorithm,
    /// It was written in base64.
    pub is_base64: bool,
    /// Where it was read from, if it is a public key that has a file.
    pub file: Option<PathBuf>,
    key: Arc<VerifyKey>,
    /// Of the key; nothing to be shown.
    pub(super) fingerprint: Box<str>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?}, {})", self.id, self.algorithm.word())
    }
}

impl Signer {
    /// A key of a secret's bytes, or of the text of a public key.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn try_new(id: &str, algorithm: SignatureAlgorithm, key: Material<'_>) -> Result<Self, String> {
        let of = algorithm.of_tokens();
        let is_base64 = matches!(key, Material::Secret(_, true));
        let (key, fingerprint) = match key {
            Material::Secret(..) if !of.is_symmetric() => {
                return Err(format!("a secret is for hmac-sha256; {} needs a public key", algorithm.word()));
            }
            Material::Public(_) if of.is_symmetric() => {
                return Err("hmac-sha256 needs a secret; a public key must never be taken for one".to_owned());
            }
            Material::Secret(written, is_base64) => {
                let secret = Zeroizing::new(match is_base64 {
                    true => STANDARD.decode(written).map_err(|_| "the secret is no base64".to_owned())?,
                    false => written.to_vec(),
                });
                let key = VerifyKey::secret(&secret, &[of]).map_err(|_| {
                    "hmac-sha256 needs a secret of at least 32 bytes, the size of its hash (RFC 2104 §3)".to_owned()
                })?;
                (key, fingerprint(&secret))
            }
            Material::Public(text) => {
                let mut keys =
                    token_keys::keys(text, &[of]).map_err(|why| match why.starts_with("there is no key") {
                        true => format!("there is no key in it for {}", algorithm.word()),
                        false => why,
                    })?;
                match keys.pop().filter(|_| keys.is_empty()) {
                    Some(key) => (key, fingerprint(text.as_bytes())),
                    None => return Err("there are several keys in it; a keyid is for one".to_owned()),
                }
            }
        };
        let (key, fingerprint) = (Arc::new(key), fingerprint.into());
        Ok(Self { id: id.into(), algorithm, is_base64, file: None, key, fingerprint })
    }

    /// Whether `signature` is one of `base` by this key. In constant time where the key is a secret.
    #[must_use]
    pub fn verify(&self, base: &[u8], signature: &[u8]) -> bool {
        self.key.verify(self.algorithm.of_tokens(), base, signature)
    }
}

/// What a key is made of.
pub(super) enum Material<'m> {
    /// A secret, and whether it is base64.
    Secret(&'m [u8], bool),
    /// PEM or a JWK.
    Public(&'m str),
}

/// `[auth.NAME.signature]`: what a signature has to be.
#[derive(Clone, Debug)]
pub struct SignatureRules {
    /// What it has to cover, in small letters.
    pub components: Vec<Box<str>>,
    /// A body has to have a digest that is covered.
    pub content_digest: bool,
    /// The largest body that is looked at.
    pub body_bytes_max: usize,
    /// From `created` on.
    pub age_max: Duration,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// Whether there has to be a nonce.
    pub nonce: NonceRule,
    /// What `tag` has to be.
    pub tag: Option<Box<str>>,
}

/// From the table.
pub(super) fn rules(table: &SignatureTable, sink: &mut Sink<'_>) -> Option<SignatureRules> {
    let written = &table.components.as_ref()?.value.0;
    let mut components: Vec<Box<str>> = Vec::with_capacity(written.len());
    for (row, component) in written.iter().enumerate() {
        if components.contains(&component.value.0) {
            let path = format!("{}[{row}]", table.at.key("components"));
            sink.value(path, component.span.clone(), "stands there twice".to_owned(), None);
        }
        components.push(component.value.0.clone());
    }
    Some(SignatureRules {
        components,
        content_digest: table.content_digest.as_ref()?.value,
        body_bytes_max: usize::try_from(table.max_body.as_ref()?.value.0).unwrap_or(usize::MAX),
        age_max: table.max_age.as_ref()?.value.0,
        leeway: table.leeway.as_ref()?.value.0,
        nonce: table.nonce.as_ref()?.value,
        tag: table.tag.as_ref().map(|tag| tag.value.0.clone()),
    })
}

/// The keys of a consumer's table; what is none is reported.
pub(super) fn signers<const MAX: usize>(
    list: Option<&Written<List<SigningKey, 0, MAX>>>,
    sink: &mut Sink<'_>,
) -> Vec<Signer> {
    let tables = list.iter().flat_map(|list| &list.value.0);
    tables.filter_map(|table| signer(&table.value, sink)).collect()
}

fn signer(table: &SigningKey, sink: &mut Sink<'_>) -> Option<Signer> {
    let (id, algorithm) = (&table.keyid.as_ref()?.value.0, table.algorithm.as_ref()?.value);
    let is_base64 = table.base64.as_ref()?.value;
    // a value that is none was told where it stands
    if ["secret", "file", "inline"].iter().any(|key| sink.reported(table.at.key(key))) {
        return None;
    }
    if let Some(key) = table.base64.as_ref().filter(|key| key.given && table.secret.is_none()) {
        sink.value(table.at.key("base64"), key.span.clone(), "has no effect: there is no secret".to_owned(), None);
    }
    let read = match (&table.secret, &table.file, &table.inline) {
        (Some(secret), None, None) => {
            Signer::try_new(id, algorithm, Material::Secret(secret.value.0.as_bytes(), is_base64))
        }
        (None, Some(path), None) => {
            super::check_consumers::text_of(&path.value.0, crate::limits::TOKEN_KEYS_FILE_BYTES_MAX, sink)
                .and_then(|text| Signer::try_new(id, algorithm, Material::Public(&text)))
                .map(|signer| Signer { file: Some(path.value.0.clone()), ..signer })
        }
        (None, None, Some(text)) => Signer::try_new(id, algorithm, Material::Public(&text.value.0)),
        _ => Err("must be exactly one of secret, file, inline".to_owned()),
    };
    // never the text itself: it is the secret, or a key that should not be there
    read.map_err(|why| sink.place(&table.at.path, table.at.offset, why, None)).ok()
}

/// `keyid` and `tag`: what a structured string has without escapes (RFC 8941 §3.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId(pub Box<str>);

impl Scalar for KeyId {
    fn allowed() -> String {
        format!("1 to {SIGNATURE_KEY_ID_BYTES_MAX} bytes of printable ASCII without \" and \\")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if is_key_id(written) { Ok(Self(written.into())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[ !#-\\[\\]-~]+$", "maxLength": SIGNATURE_KEY_ID_BYTES_MAX })
    }
}

pub(super) fn is_key_id(written: &str) -> bool {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\');
    (1..=SIGNATURE_KEY_ID_BYTES_MAX).contains(&written.len()) && written.bytes().all(is_plain)
}

/// What a signature has to cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentText(pub Box<str>);

/// Derived components that can be asked for (RFC 9421 §2.2).
const DERIVED: [&str; 7] = ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"];

impl Scalar for ComponentText {
    fn allowed() -> String {
        "@method, @target-uri, @authority, @scheme, @request-target, @path, @query, or the name of a header".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.starts_with('@') {
            return match DERIVED.contains(&written) {
                true => Ok(Self(written.into())),
                false => Err(Refusal { why: None, help: did_you_mean(written, DERIVED) }),
            };
        }
        match Header::parse(value)?.0.as_str() {
            "signature" | "signature-input" => Err(Refusal::why("no signature covers itself")),
            name => Ok(Self(name.into())),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

scalar_schema!(KeyId, ComponentText);
