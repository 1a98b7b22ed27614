//! The credentials of `Authorization: Basic` (RFC 7617), and whose they claim to be.
//!
//! Only what is claimed is found here; whether the password is the one takes long on purpose, and is somebody else's work. A user who is not there
//! claims the password of somebody who is: it is verified all the same, and counts for nothing, so that nobody learns by the
//! time that an answer takes who has a login.

use crate::config::{Consumer, Login, Logins, PasswordHash};
use crate::limits::CREDENTIALS_BYTES_MAX;
use crate::units::ConsumerId;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A name and a password as they were shown; gone from memory when they are dropped.
pub struct Credentials {
    room: Zeroizing<[u8; CREDENTIALS_BYTES_MAX]>,
    colon: usize,
    len: usize,
}

impl Credentials {
    /// From what stands behind `Basic`. `None`: it is not base64 of `user:password` in UTF-8, has a control character (RFC 7617 §2), or is too long.
    #[must_use]
    pub fn decode(shown: &[u8]) -> Option<Self> {
        if shown.len() > CREDENTIALS_BYTES_MAX {
            return None;
        }
        let mut room = Zeroizing::new([0; CREDENTIALS_BYTES_MAX]);
        let len = BASE64.decode_slice(shown, &mut room[..]).ok()?;
        let text = str::from_utf8(&room[..len]).ok()?;
        let colon = text.find(':').filter(|_| !text.contains(char::is_control))?;
        Some(Self { room, colon, len })
    }

    /// The name.
    #[must_use]
    pub fn user(&self) -> &str {
        str::from_utf8(&self.room[..self.colon]).unwrap_or_default()
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> &[u8] {
        &self.room[self.colon + 1..self.len]
    }

    /// Both.
    #[must_use]
    pub fn whole(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

/// What somebody claims.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'l> {
    /// To be this consumer; `None`: nobody who logs in.
    pub owner: Option<ConsumerId>,
    /// What the password is to be verified with.
    pub hash: &'l Arc<PasswordHash>,
}

/// Whose password is to be verified for this name. `None`: nobody logs in at all.
#[must_use]
pub fn claim<'l>(logins: &'l Logins, user: &str) -> Option<Claim<'l>> {
    let claim = |owner, login: &'l Login| Claim { owner, hash: &login.hash };
    match logins.all.binary_search_by(|login| (*login.user).cmp(user)) {
        Ok(row) => Some(&logins.all[row]).map(|login| claim(Some(login.consumer), login)),
        Err(_) => {
            let rows = u64::try_from(logins.all.len()).ok().filter(|rows| *rows > 0)?;
            // always the same one for a name, as a user who is there always has the same one
            let row = usize::try_from(Consumer::number_of(user) % rows).ok()?;
            Some(claim(None, &logins.all[row]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn decoded(shown: &str) -> Option<(String, String)> {
        let both = Credentials::decode(shown.as_bytes())?;
        Some((both.user().to_owned(), String::from_utf8(both.password().to_vec()).unwrap()))
    }

    #[test]
    fn credentials_are_a_name_a_colon_and_a_password() {
        let long = base64::engine::general_purpose::STANDARD.encode(format!("a:{}", "b".repeat(400)));
        for (shown, expected) in [
            ("dGVzdDoxMjPCow==", Some(("test", "123\u{a3}"))), // RFC 7617 §2.1
            ("dGVzdDoxMjPCow", Some(("test", "123\u{a3}"))),
            ("YTpiOmM=", Some(("a", "b:c"))),
            ("Og==", Some(("", ""))),
            ("dGVzdA==", None),
            ("dGVzdDoxMjOj", None),
            ("YTpiAA==", None),
            ("YTpi\n", None),
            ("Y*pi", None),
            ("", None),
            (&long, None),
        ] {
            let expected = expected.map(|(user, password)| (user.to_owned(), password.to_owned()));
            assert_eq!(decoded(shown), expected, "{shown}");
        }
    }

    #[test]
    fn who_is_not_there_claims_the_password_of_somebody_and_to_be_nobody() {
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nauth = [\"login\"]\nrespond = {}\n[auth.login]\nbasic = {}\n\
            [consumer.acme]\nbasic = { user = \"wile\", password = \"$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6\" }\n\
            [consumer.bolt]\nbasic = { password = \"$5$saltsalt$/X0X0fnc0FfdbQM4NSwVJRAANgCz4g7XuUPhSpHZ4W6\" }\n";
        let config = config::check::parse_for(text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        let logins = config.auth[0].logins().unwrap();
        let owner = |user: &str| claim(logins, user).unwrap().owner;
        assert_eq!([owner("wile"), owner("bolt"), owner("acme")], [Some(ConsumerId(0)), Some(ConsumerId(1)), None]);
        let rows: std::collections::HashSet<_> =
            (0..64).map(|n| claim(logins, &format!("nobody-{n}")).unwrap().hash.secret().to_vec()).collect();
        assert_eq!(rows.len(), 2, "all costs occur among those who are not there");
    }
}
