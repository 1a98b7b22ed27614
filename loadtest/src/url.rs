//! Where a load goes: `http://HOST[:PORT][/PATH]`, or the same with `https`.

use crate::wire::{TlsClient, TlsSettings};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long somebody on this machine may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// A server and a path on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it was written.
    pub text: String,
    /// `https`.
    pub is_tls: bool,
    /// Without port and brackets.
    pub host: String,
    /// What the `Host` field says.
    pub authority: String,
    /// Path with query, at least `/`.
    pub path: String,
    /// The address of the host; of several of this machine the first one where somebody listens.
    pub address: SocketAddr,
}

impl Url {
    /// Reads a URL and looks its host up.
    ///
    /// # Errors
    /// It is none, it is not HTTP, or nobody knows the host; says what would do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: http::Uri = with_scheme.parse().map_err(|error| format!("{text}: no URL: {error}"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{text}: must begin with http:// or https://")),
        };
        let authority = uri.authority().map(ToString::to_string).filter(|it| !it.contains('@'));
        let authority = authority.ok_or_else(|| format!("{text}: must name a host, and no user"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let found = (host.as_str(), uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 })).to_socket_addrs();
        let address = answering(&found.map_err(|error| format!("{text}: {error}"))?.collect::<Vec<_>>());
        let address = address.ok_or_else(|| format!("{text}: the host has no address"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        Ok(Self { text: with_scheme, is_tls, host, authority, path, address })
    }

    /// How TLS is spoken with it, if it is, and which HTTP over it.
    ///
    /// # Errors
    /// It is not, and `settings` say how; or they cannot be used.
    pub fn tls(&self, settings: &TlsSettings, is_http2: bool) -> Result<Option<TlsClient>, String> {
        if self.is_tls {
            return TlsClient::try_new(&self.host, settings, is_http2).map(Some);
        }
        if *settings == TlsSettings::default() {
            return Ok(None);
        }
        Err(format!("{}: how TLS is spoken is said, and it is not spoken there; write https://", self.text))
    }

    /// Refuses to put load on a host that is not this one, unless the user says that it is theirs.
    ///
    /// # Errors
    /// It is another host, and nobody said so.
    pub fn allow(&self, is_owned: bool) -> Result<(), String> {
        if is_owned || self.address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(format!(
            "{} is not on this host: load is only put on loopback unless you say --i-own-this-target",
            self.text
        ))
    }
}

/// One of a host's addresses: the first, but `localhost` is `::1` and `127.0.0.1`, and many servers listen at one of them only.
/// Nobody on another host is asked.
pub(crate) fn answering(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let is_here = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
    let listens = |address: &&SocketAddr| TcpStream::connect_timeout(address, PATIENCE).is_ok();
    let found = if is_here && addresses.len() > 1 { addresses.iter().find(listens) } else { None };
    found.or(addresses.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_addresses_here_the_one_where_somebody_listens_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let [nobody, foreign]: [SocketAddr; 2] = ["127.0.0.1:1", "192.0.2.1:1"].map(|address| address.parse().unwrap());
        assert_eq!(answering(&[nobody, there]), Some(there));
        assert_eq!(answering(&[nobody]), Some(nobody));
        assert_eq!(answering(&[nobody, nobody]), Some(nobody), "who refuses is measured as such");
        assert_eq!(answering(&[foreign, there]), Some(foreign), "another host is not asked before that is allowed");
        assert_eq!(answering(&[]), None);
    }

    #[test]
    fn urls_are_read_or_refused_with_a_reason() {
        let url = Url::parse("http://127.0.0.1:8080/a/b?c=d").unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("127.0.0.1:8080", "/a/b?c=d"));
        assert_eq!(url.allow(false), Ok(()));
        assert_eq!(Url::parse("[::1]:81").unwrap().address, "[::1]:81".parse().unwrap());
        assert_eq!(Url::parse("127.0.0.1").unwrap().path, "/");
        for (text, reason) in [
            ("ftp://127.0.0.1/", "must begin with http:// or https://"),
            ("http://", "no URL"),
            ("http://a b/", "no URL"),
            ("http://me@127.0.0.1/", "no user"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let secure = Url::parse("https://[::1]/").unwrap();
        assert_eq!((secure.address.port(), secure.host.as_str(), secure.is_tls), (443, "::1", true));
        let settings = TlsSettings { skips_verify: true, ..TlsSettings::default() };
        assert!(
            secure.tls(&settings, true).unwrap().is_some() && url.tls(&TlsSettings::default(), true).unwrap().is_none()
        );
        assert!(url.tls(&settings, false).unwrap_err().contains("write https://"));
        let elsewhere = Url::parse("http://192.0.2.1/").unwrap();
        assert!(elsewhere.allow(false).unwrap_err().contains("--i-own-this-target"));
        assert_eq!(elsewhere.allow(true), Ok(()));
    }
}
