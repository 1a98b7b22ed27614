//! Passwords as they are kept, and who logs in with them (RFC 7617).
//!
//! Only hashes that cost an attacker something are taken: argon2id (RFC 9106), bcrypt, and SHA-crypt (`$5$` and `$6$` of crypt(3)). What was made to be
//! fast, or is broken, is an error that names these. A cost has an upper bound, because it is paid here for everybody who tries. The
//! text of a hash is shown nowhere.

use super::identity_keys::PasswordText;
use super::problem::Sink;
use super::read::{Node, Read};
use crate::limits::{
    ARGON2_KIB_MAX, ARGON2_LANES_MAX, ARGON2_PASSES_MAX, BCRYPT_COST_MAX, PASSWORD_HASH_BYTES_MAX, SHA_CRYPT_ROUNDS_MAX,
};
use crate::units::ConsumerId;
use argon2::password_hash::PasswordVerifier as _;
use argon2::{Argon2, Params, PasswordHash as Phc};
use sha_crypt::{PasswordHashRef, ShaCrypt};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What the hashes are that are taken.
pub(super) const ALLOWED: &str =
    "the hash of a password by argon2id ($argon2id$…), bcrypt ($2a$, $2b$, $2y$) or SHA-crypt ($5$, $6$)";

/// A password, by what it is verified with.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    kind: Kind,
    text: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Argon2id,
    Bcrypt,
    ShaCrypt,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl PasswordHash {
    /// From the text of a hash.
    ///
    /// # Errors
    /// Why it is none that is taken, without a word of it: whoever has written a password there does not want to read it in a log.
    pub(super) fn try_new(text: &str) -> Result<Self, String> {
        if text.len() > PASSWORD_HASH_BYTES_MAX {
            return Err(format!("must be {ALLOWED}"));
        }
        let kind = match text {
            _ if text.starts_with("$argon2id$") => argon2id(text).map(|()| Kind::Argon2id)?,
            _ if ["$2a$", "$2b$", "$2y$"].iter().any(|id| text.starts_with(id)) => {
                bcrypt(text).map(|()| Kind::Bcrypt)?
            }
            _ if text.starts_with("$5$") || text.starts_with("$6$") => sha_crypt(text).map(|()| Kind::ShaCrypt)?,
            _ => return Err(refused(text)),
        };
        Ok(Self { kind, text: text.into() })
    }

    /// Whether it is of this password. Takes as long as the hash was made to cost.
    #[must_use]
    pub fn is_of(&self, password: &[u8]) -> bool {
        let text = &*self.text;
        match self.kind {
            Kind::Argon2id => {
                Phc::new(text).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
            }
            // it looks at 72 bytes: what is longer would be taken for all that begins like it
            Kind::Bcrypt => bcrypt::non_truncating_verify(password, text).unwrap_or(false),
            Kind::ShaCrypt => {
                PasswordHashRef::new(text).is_ok_and(|hash| ShaCrypt::SHA256.verify_password(password, hash).is_ok())
            }
        }
    }

    /// What tells it from others. To be hashed, and never to be shown.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

fn argon2id(text: &str) -> Result<(), String> {
    let broken = || "is no whole hash by argon2id: $argon2id$v=19$m=…,t=…,p=…$SALT$HASH".to_owned();
    let hash = Phc::new(text).map_err(|_| broken())?;
    let params = Params::try_from(&hash).map_err(|_| broken())?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(broken());
    }
    let costs =
        [(params.m_cost(), ARGON2_KIB_MAX), (params.t_cost(), ARGON2_PASSES_MAX), (params.p_cost(), ARGON2_LANES_MAX)];
    match costs.iter().all(|(cost, max)| cost <= max) {
        true => Ok(()),
        false => Err(format!(
            "costs too much for each who tries: at most m={ARGON2_KIB_MAX},t={ARGON2_PASSES_MAX},p={ARGON2_LANES_MAX}"
        )),
    }
}

fn bcrypt(text: &str) -> Result<(), String> {
    let parts: bcrypt::HashParts =
        text.parse().map_err(|_| "is no whole hash by bcrypt: $2b$COST$ and 53 characters".to_owned())?;
    match (4..=BCRYPT_COST_MAX).contains(&parts.get_cost()) {
        true => Ok(()),
        false => Err(format!("has a cost of bcrypt that is not 4 to {BCRYPT_COST_MAX}: it is paid for each who tries")),
    }
}

fn sha_crypt(text: &str) -> Result<(), String> {
    let broken = || "is no whole hash by SHA-crypt: $6$rounds=…$SALT$ and 86 characters, or $5$ and 43".to_owned();
    let len = if text.starts_with("$5$") { 43 } else { 86 };
    let (rounds, rest) = match text[3..].strip_prefix("rounds=").map(|rest| rest.split_once('$').ok_or_else(broken)) {
        None => (5_000, &text[3..]),
        Some(split) => {
            let (rounds, rest) = split?;
            (rounds.parse::<u32>().map_err(|_| broken())?, rest)
        }
    };
    let (salt, hash) = rest.split_once('$').ok_or_else(broken)?;
    let is_clean = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
    if !(1..=16).contains(&salt.len()) || hash.len() != len || !is_clean(salt) || !is_clean(hash) {
        return Err(broken());
    }
    match (1_000..=SHA_CRYPT_ROUNDS_MAX).contains(&rounds) {
        true => Ok(()),
        false => {
            Err(format!("has rounds that are not 1000 to {SHA_CRYPT_ROUNDS_MAX}: they are paid for each who tries"))
        }
    }
}

/// What else a text may be.
fn refused(text: &str) -> String {
    let what = match text {
        _ if text.starts_with("$apr1$") || text.starts_with("$1$") => "is a hash by MD5, which is tried by the billion",
        _ if text.starts_with("{SHA}") || text.starts_with("{SSHA}") => {
            "is a hash by SHA-1, which is tried by the billion"
        }
        _ if text.starts_with("$argon2") => {
            "is a hash by argon2i or argon2d; argon2id has what is good of both (RFC 9106 §4)"
        }
        _ if text.starts_with("$2x$") => "is a hash by a bcrypt with a known defect",
        _ if text.starts_with('$') => "is a hash that is not known here",
        _ => "is a password itself, or a hash by DES, and neither is taken",
    };
    format!("{what}; must be {ALLOWED}")
}

impl Read for PasswordText {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let read = match node.value.as_str() {
            Some(text) => PasswordHash::try_new(text),
            None => Err(format!("must be {ALLOWED}")),
        };
        let help = || Some("htpasswd -nB USER, or mkpasswd -m sha512crypt".to_owned());
        read.map_err(|why| sink.place(node.path, node.start, why, help())).ok().map(|hash| Self(Arc::new(hash)))
    }
}

/// Somebody who logs in.
#[derive(Clone)]
pub struct Login {
    /// The name that is typed; unique.
    pub user: Arc<str>,
    /// Who that is.
    pub consumer: ConsumerId,
    /// The password.
    pub hash: Arc<PasswordHash>,
}

/// `auth.basic`
#[derive(Clone)]
pub struct Logins {
    /// What the browser shows, and keeps passwords by.
    pub realm: String,
    /// Rising by user.
    pub all: Vec<Login>,
    /// `htpasswd`
    pub file: Option<PathBuf>,
    /// Of what that says.
    pub(super) fingerprint: String,
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // those of consumers are told with the consumers
        let Self { realm, file, fingerprint, .. } = self;
        f.debug_struct("Logins").field("realm", realm).field("file", file).field("fingerprint", fingerprint).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by libxcrypt, openssl and the reference implementation of argon2.
    const HASHES: [(&str, &str); 4] = [
        ("orange pie", "$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6"),
        (
            "blue moon",
            "$6$saltsalt$rH6trzSWq7Q3iN038j3uoVqSesglCJCj10JkjW/tSwzDPpqsf4zTUtS8RwQPoswTehQYVStVqNUeS4ME9WMR51",
        ),
        ("blue moon", "$5$saltsalt$/X0X0fnc0FfdbQM4NSwVJRAANgCz4g7XuUPhSpHZ4W6"),
        ("red brick", "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$OiYHnrZQ11zSDFk7/17PVaiEUSSnhoYInE3VoXjjBnI"),
    ];

    #[test]
    fn hashes_that_others_have_made_are_of_their_passwords_only() {
        for (password, text) in HASHES {
            let hash = PasswordHash::try_new(text).unwrap();
            assert!(hash.is_of(password.as_bytes()), "{text}");
            for wrong in ["", "Orange pie", &password[1..], &format!("{password}\0"), &"a".repeat(200)] {
                assert!(!hash.is_of(wrong.as_bytes()), "{text} {wrong:?}");
            }
            assert!(!format!("{hash:?}").contains('$'));
        }
    }

    #[test]
    fn what_bcrypt_does_not_look_at_is_not_ignored() {
        // 72 bytes; libxcrypt takes all that begin like it for it
        let hash = PasswordHash::try_new("$2b$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe").unwrap();
        assert!(!hash.is_of("a".repeat(73).as_bytes()));
    }

    #[test]
    fn what_is_cheap_or_broken_is_refused_with_what_is_taken_and_not_repeated() {
        for (text, why) in [
            ("hunter2-in-the-clear", "a password itself"),
            ("$apr1$abcdefgh$0123456789abcdefghijk.", "MD5"),
            ("$1$abcdefgh$0123456789abcdefghijk.", "MD5"),
            ("{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "SHA-1"),
            ("rqXexS6ZhobKA", "DES"),
            ("$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$u2bq0H6rSzQ36Mt0lXRjwWU8fiPQs/ZqUFULjoGUOOY", "argon2i or"),
            ("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0", "no whole hash"),
            (
                "$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHRzYWx0$OiYHnrZQ11zSDFk7/17PVaiEUSSnhoYInE3VoXjjBnI",
                "too much",
            ),
            ("$2b$31$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6", "4 to 14"),
            ("$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P", "no whole hash"),
            ("$2x$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6", "defect"),
            (
                "$6$rounds=999999999$saltsalt$rH6trzSWq7Q3iN038j3uoVqSesglCJCj10JkjW/tSwzDPpqsf4zTUtS8RwQPoswTehQYVStVqNUeS4ME9WMR51",
                "rounds",
            ),
            ("$6$saltsalt$rH6trzSWq7Q3iN", "no whole hash"),
            ("$y$j9T$abc$def", "not known"),
        ] {
            let told = PasswordHash::try_new(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
            assert!(text.len() < 20 || !told.contains(&text[12..]), "{told}");
        }
    }
}
