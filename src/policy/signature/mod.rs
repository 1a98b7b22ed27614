//! A signed request (HTTP Message Signatures, RFC 9421) in, whose it is out, or why it is not believed.
//!
//! Cheap questions come first: is there a key of that name, does the signature cover what it has to, is it neither old nor of the future; only then
//! is the base built and the signature looked at. Which algorithm it is says the key, and a message that names another one is refused. A request may
//! have several signatures, of which one has to be good. What a signature covers beyond what is asked is checked with it and means nothing more.
//!
//! Not here: that a nonce is taken once ([`super::replay`]), because that needs a memory; and whether the body is what its digest says
//! ([`digest::ContentDigest`]), because that comes later. `;sf`, `;key`, `;bs`, `;req` and `;tr` of components are refused.

pub mod digest;
mod message;
mod structured;
#[cfg(test)]
mod tests;

use self::digest::ContentDigest;
pub use self::message::{Message, ValuesOf};
use self::structured::{Input, Malformed, Parameter, byte_members, inputs};
use crate::config::{NonceRule, SignatureRules, Signer};
use crate::limits::{SIGNATURE_BYTES_MAX, SIGNATURE_NONCE_BYTES_MAX};
use crate::units::ConsumerId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;

/// A signature that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<'m> {
    /// Whose key it is.
    pub consumer: ConsumerId,
    /// What the key is called.
    pub keyid: &'m str,
    /// What must not come again while any signature of this age is good.
    pub nonce: Option<&'m str>,
    /// When it was made, since 1970, by its own clock; or another one with the same nonce, if that was later.
    pub created: Duration,
    /// What the body has to be.
    pub digest: Option<ContentDigest>,
    /// Key, nonce and `created` of its other signatures that are by keys known here, whatever they cover. They are taken with this one: who leaves
    /// this one out could send the request again by another one.
    pub beside: Vec<(&'m str, &'m str, Duration)>,
}

impl<'m> Verified<'m> {
    /// What another signature names is taken too. A nonce that two of them share is taken once, for as long as the later one may be good; one that was made
    /// later than `at_most` counts as if it was made then.
    fn add(&mut self, named: Option<(&'m str, &'m str, Duration)>, at_most: Duration) {
        let Some((keyid, nonce, created)) = named else { return };
        let created = created.min(at_most);
        if (self.keyid, self.nonce) == (keyid, Some(nonce)) {
            self.created = self.created.max(created);
        } else if let Some(same) = self.beside.iter_mut().find(|(key, other, _)| (*key, *other) == (keyid, nonce)) {
            same.2 = same.2.max(created);
        } else {
            self.beside.push((keyid, nonce, created));
        }
    }
}

/// Why a request's signature is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// There is none that is for us.
    Missing,
    /// `Signature-Input`, `Signature` or `Content-Digest` is not written as it has to be, says something twice, or is too much.
    Form,
    /// It covers a component that is not known here.
    Unsupported,
    /// It does not cover what it has to.
    Coverage,
    /// Nobody has a key of that name, or the key is for another `alg`.
    Key,
    /// It is too old, over, of the future, or does not say when it was made.
    Time,
    /// It has no nonce, or too large a one.
    Nonce,
    /// It covers what the request has not, or has in two ways.
    Component,
    /// There is no digest of the body that could be checked.
    Digest,
    /// It is none of the key's.
    Signature,
}

impl From<Malformed> for Disbelief {
    fn from(_: Malformed) -> Self {
        Self::Form
    }
}

impl Disbelief {
    /// Why, in words for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => {
                "there is no Signature-Input with a Signature of the same label, or none with the wanted tag"
            }
            Self::Form => {
                "Signature-Input, Signature or Content-Digest is malformed, says something twice, or is too large"
            }
            Self::Unsupported => "it covers a component that is not taken here",
            Self::Coverage => "it does not cover all that it has to",
            Self::Key => "nobody has a key of its keyid, or its alg is not the key's",
            Self::Time => "created is missing, too old or in the future, or expires is over",
            Self::Nonce => "it has no nonce, or one that is too large",
            Self::Component => {
                "it covers what the request does not have, has twice, or has in other bytes than printable ASCII"
            }
            Self::Digest => "Content-Digest has neither sha-256 nor sha-512, or is not of this body",
            Self::Signature => "it is not a signature of this request by that key",
        }
    }
}

/// Finds a key by its name, and whose it is.
pub type Keys<'k> = &'k dyn Fn(&str) -> Option<(&'k Signer, ConsumerId)>;

/// Whose request this is, at `now` since 1970: by the first of its signatures that is good. `base` is room for what is signed.
///
/// # Errors
/// It is not believed; why not its last signature that could have been meant.
pub fn verify<'m>(
    rules: &SignatureRules,
    message: &Message<'m>,
    keys: Keys<'_>,
    now: Duration,
    base: &mut Vec<u8>,
) -> Result<Verified<'m>, Disbelief> {
    let lines = (message.values_of)("signature-input");
    if lines.is_empty() {
        return Err(Disbelief::Missing);
    }
    let inputs = inputs(&lines)?;
    let signatures = byte_members(&(message.values_of)("signature"))?;
    let signature_of = |input: &Input<'_>| Some(signatures.iter().find(|(label, _)| *label == input.label)?.1);
    let mut why = Disbelief::Missing;
    for (row, input) in inputs.iter().enumerate() {
        let is_tagged = rules.tag.as_deref().is_none_or(|tag| input.tag == Some(tag));
        let Some(signature) = signature_of(input).filter(|_| is_tagged) else { continue };
        match judge(rules, (message, input, signature), keys, now, base) {
            Ok(mut verified) => {
                let others = inputs.iter().enumerate().filter(|(other, _)| *other != row);
                for (_, other) in others {
                    let named = signature_of(other).and_then(|of| nonce_of((message, other, of), keys, base));
                    verified.add(named, now.saturating_add(rules.age_max));
                }
                return Ok(verified);
            }
            Err(other) => why = other,
        }
    }
    Err(why)
}

/// Key, nonce and `created` of a signature that is good by its key, be it for other rules or another time.
fn nonce_of<'m>(
    (message, input, signature): (&Message<'m>, &Input<'m>, &str),
    keys: Keys<'_>,
    base: &mut Vec<u8>,
) -> Option<(&'m str, &'m str, Duration)> {
    let (keyid, nonce) = (input.keyid?, input.nonce.filter(|nonce| is_nonce(nonce))?);
    let created = Duration::from_secs(u64::try_from(input.created?).ok()?);
    let (signer, _) = keys(keyid)?;
    let is_good = is_signed((message, input, signature), signer, base).is_ok();
    is_good.then_some((keyid, nonce, created))
}

fn is_nonce(nonce: &str) -> bool {
    (1..=SIGNATURE_NONCE_BYTES_MAX).contains(&nonce.len())
}

fn is_signed(
    (message, input, signature): (&Message<'_>, &Input<'_>, &str),
    signer: &Signer,
    base: &mut Vec<u8>,
) -> Result<(), Disbelief> {
    if signature.len() > SIGNATURE_BYTES_MAX {
        return Err(Disbelief::Form);
    }
    let signature = STANDARD.decode(signature).map_err(|_| Disbelief::Form)?;
    base.clear();
    message.write_base(input, base)?;
    if signer.verify(base, &signature) { Ok(()) } else { Err(Disbelief::Signature) }
}

fn judge<'m>(
    rules: &SignatureRules,
    (message, input, signature): (&Message<'m>, &Input<'m>, &str),
    keys: Keys<'_>,
    now: Duration,
    base: &mut Vec<u8>,
) -> Result<Verified<'m>, Disbelief> {
    let keyid = input.keyid.ok_or(Disbelief::Key)?;
    let (signer, consumer) = keys(keyid).ok_or(Disbelief::Key)?;
    if input.alg.is_some_and(|alg| alg != signer.algorithm.word()) {
        return Err(Disbelief::Key);
    }
    if !rules.components.iter().all(|wanted| covers(input, wanted)) {
        return Err(Disbelief::Coverage);
    }
    let created = created(rules, input, now)?;
    match input.nonce {
        None if rules.nonce == NonceRule::Required => return Err(Disbelief::Nonce),
        Some(nonce) if !is_nonce(nonce) => return Err(Disbelief::Nonce),
        _ => {}
    }
    let digest = digest(rules, message, input)?;
    is_signed((message, input, signature), signer, base)?;
    Ok(Verified { consumer, keyid, nonce: input.nonce, created, digest, beside: Vec::new() })
}

fn has(input: &Input<'_>, name: &str) -> bool {
    input.components.iter().any(|component| component.name == name && component.parameter == Parameter::None)
}

/// Whether it covers this, be it as a part of something larger.
fn covers(input: &Input<'_>, wanted: &str) -> bool {
    has(input, wanted)
        || match wanted {
            "@path" | "@query" => has(input, "@target-uri") || has(input, "@request-target"),
            "@authority" | "@scheme" => has(input, "@target-uri"),
            "@target-uri" => ["@scheme", "@authority", "@path", "@query"].iter().all(|part| has(input, part)),
            _ => false,
        }
}

/// When it was made, if it is good now.
fn created(rules: &SignatureRules, input: &Input<'_>, now: Duration) -> Result<Duration, Disbelief> {
    let at = |seconds: i64| u64::try_from(seconds).map(Duration::from_secs).map_err(|_| Disbelief::Time);
    let created = input.created.ok_or(Disbelief::Time).and_then(at)?;
    let expires = input.expires.map(at).transpose()?.unwrap_or(Duration::MAX);
    let until = created.saturating_add(rules.age_max).min(expires).saturating_add(rules.leeway);
    let has_begun = created <= now.saturating_add(rules.leeway);
    if has_begun && created <= expires && now < until { Ok(created) } else { Err(Disbelief::Time) }
}

/// What the body has to be, if that is looked at.
fn digest(
    rules: &SignatureRules,
    message: &Message<'_>,
    input: &Input<'_>,
) -> Result<Option<ContentDigest>, Disbelief> {
    match (rules.content_digest, has(input, "content-digest")) {
        (true, false) if message.has_body => Err(Disbelief::Coverage),
        (true, true) => {
            let digest = ContentDigest::read(&(message.values_of)("content-digest"))?;
            match message.has_body || digest.is_of(b"") {
                true => Ok(Some(digest)),
                false => Err(Disbelief::Digest),
            }
        }
        _ => Ok(None),
    }
}
