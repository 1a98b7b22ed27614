//! Where a load goes: `http://HOST[:PORT][/PATH]`.

use std::net::{SocketAddr, ToSocketAddrs};

/// A server and a path on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it was written.
    pub text: String,
    /// What the `Host` field says.
    pub authority: String,
    /// Path with query, at least `/`.
    pub path: String,
    /// The first address of the host.
    pub address: SocketAddr,
}

impl Url {
    /// Reads a URL and looks its host up.
    ///
    /// # Errors
    /// It is none, it is not plain HTTP, or nobody knows the host; says what would do.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err(format!("{text}: TLS is not there yet; measure the plain listener (http://…)"));
        }
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: http::Uri = with_scheme.parse().map_err(|error| format!("{text}: no URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{text}: must begin with http://"));
        }
        let authority = uri.authority().map(ToString::to_string).filter(|it| !it.contains('@'));
        let authority = authority.ok_or_else(|| format!("{text}: must name a host, and no user"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let found = (host.as_str(), uri.port_u16().unwrap_or(80)).to_socket_addrs();
        let address = found.map_err(|error| format!("{text}: {error}"))?.next();
        let address = address.ok_or_else(|| format!("{text}: the host has no address"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { text: with_scheme, authority, path: if path.is_empty() { "/".to_owned() } else { path }, address })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_with_a_reason() {
        let url = Url::parse("http://127.0.0.1:8080/a/b?c=d").unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("127.0.0.1:8080", "/a/b?c=d"));
        assert_eq!(url.allow(false), Ok(()));
        assert_eq!(Url::parse("[::1]:81").unwrap().address, "[::1]:81".parse().unwrap());
        assert_eq!(Url::parse("127.0.0.1").unwrap().path, "/");
        for (text, reason) in [
            ("https://127.0.0.1/", "TLS is not there yet"),
            ("ftp://127.0.0.1/", "must begin with http://"),
            ("http://", "no URL"),
            ("http://a b/", "no URL"),
            ("http://me@127.0.0.1/", "no user"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let elsewhere = Url::parse("http://192.0.2.1/").unwrap();
        assert!(elsewhere.allow(false).unwrap_err().contains("--i-own-this-target"));
        assert_eq!(elsewhere.allow(true), Ok(()));
    }
}
