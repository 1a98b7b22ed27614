//! Which names the admin API answers to, against DNS rebinding.
//!
//! A web page on a name of its owner's can have that name lead to 127.0.0.1 a moment later, and then its scripts talk to whatever listens
//! here as if it were their own server; only `Host` gives it away. So a TCP listener answers to its own address, to loopback addresses
//! and names of `localhost` (RFC 6761 §6.3), and to `[admin] hosts`. One that listens on all addresses answers to every address written as
//! such: which of them are the machine's cannot be known behind NAT, and a page cannot have an address as its name without being
//! served from there. Browsers open no unix sockets, so there every name will do.

use crate::config::{Bind, HostMatch};
use crate::policy::router::host_without_port;
use axum::http::{Request, header};
use std::net::IpAddr;

/// The names that requests may come to.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    /// `None`: a unix socket.
    own: Option<IpAddr>,
    configured: Vec<HostMatch>,
}

impl Hosts {
    /// Those of a listener at `bind`, and those of the file.
    pub(super) fn new(bind: &Bind, configured: &[HostMatch]) -> Self {
        let own = match bind {
            Bind::Tcp(address) => Some(address.ip()),
            Bind::Unix(_) => None,
        };
        Self { own, configured: configured.to_vec() }
    }

    /// Whether the request is for one of them. One without a name is: browsers always tell it.
    pub(super) fn are_asked<B>(&self, request: &Request<B>) -> bool {
        let target = request.uri().host().is_none_or(|host| self.answer_to(host));
        let mut fields = request.headers().get_all(header::HOST).iter();
        target && fields.all(|host| host.to_str().is_ok_and(|host| self.answer_to(host_without_port(host))))
    }

    fn answer_to(&self, host: &str) -> bool {
        let Some(own) = self.own else { return true };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            return own.is_unspecified() || ip == own.to_canonical() || ip.is_loopback() || self.is_configured(&host);
        }
        host == "localhost" || host.ends_with(".localhost") || self.is_configured(&host)
    }

    fn is_configured(&self, host: &str) -> bool {
        self.configured.iter().any(|name| match name {
            HostMatch::Any => true,
            HostMatch::Beginning(_) | HostMatch::Regex(_) => false, // which the file has of routes only
            HostMatch::Exact(name) => host == name,
            HostMatch::Wildcard(end) => {
                host.strip_suffix(end.as_str()).is_some_and(|before| before.len() > 1 && before.ends_with('.'))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn answers(bind: &str, target: &str, host: Option<&str>) -> bool {
        let configured = [HostMatch::Exact("edge.internal".into()), HostMatch::Wildcard("ops.example".into())];
        let hosts = Hosts::new(&Bind::Tcp(bind.parse().unwrap()), &configured);
        let mut request = Request::builder().uri(target).body(()).unwrap();
        if let Some(host) = host {
            request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        hosts.are_asked(&request)
    }

    #[test]
    fn a_listener_answers_to_its_own_address_and_local_names() {
        for host in
            ["127.0.0.1:9180", "127.0.0.2", "[::1]:9180", "localhost", "LocalHost.:1", "a.localhost", "10.0.0.5:9180"]
        {
            assert!(answers("10.0.0.5:9180", "/", Some(host)), "{host}");
        }
        for host in ["edge.internal:9180", "a.ops.example", "A.B.Ops.Example."] {
            assert!(answers("127.0.0.1:9180", "/", Some(host)), "{host}");
        }
        assert!(answers("127.0.0.1:9180", "/", None), "HTTP/1.0");
    }

    #[test]
    fn other_names_are_somebody_elses() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "10.0.0.6",
            "[::2]:1",
            "ops.example",
            ".ops.example",
            "xops.example",
            "edge.internal.evil.example",
            "",
            "[",
        ] {
            assert!(!answers("10.0.0.5:9180", "/", Some(host)), "{host}");
        }
        assert!(!answers("127.0.0.1:9180", "http://evil.example/metrics", Some("localhost")));
    }

    #[test]
    fn on_all_addresses_every_address_is_its_own_but_names_are_not() {
        for (bind, host) in [("0.0.0.0:9180", "203.0.113.9:9180"), ("[::]:9180", "[2001:db8::7]:9180")] {
            assert!(answers(bind, "/", Some(host)), "{host}");
            assert!(!answers(bind, "/", Some("evil.example")));
        }
    }

    #[test]
    fn a_unix_socket_answers_to_every_name() {
        let hosts = Hosts::new(&Bind::Unix("/run/admin.sock".into()), &[]);
        let request = Request::builder().header(header::HOST, "evil.example").body(()).unwrap();
        assert!(hosts.are_asked(&request));
    }
}
