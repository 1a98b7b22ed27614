//! Certificates from an authority, end to end, with Pebble for one, Let's Encrypt's server for tests; names are resolved by a server of our own.

use crate::support::client::Client;
use crate::support::dns::{Dns, Says};
use crate::support::stream::Stream;
use crate::support::tls::{Authority, Session};
use crate::support::{Driver, Gateway, PATIENCE, Setup, eventually};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const NAME: &str = "a.acme.test";

/// Ports that nobody has at this moment.
fn ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

struct Pebble {
    child: Child,
    _dns: Dns,
}

impl Pebble {
    /// `None`: it is not installed, which is said.
    fn start(authority: &Authority, listens: u16, comes_to: u16) -> Option<Self> {
        if Command::new("pebble").arg("-h").output().is_err() {
            assert!(std::env::var_os("RINGGATE_TESTS_NEED_TOOLS").is_none(), "pebble is not installed");
            eprintln!("skipped: pebble is not installed");
            return None;
        }
        let dns = Dns::start();
        dns.set(NAME, Says::Addresses(vec![Ipv4Addr::LOCALHOST], 0));
        authority.sign("pebble", &["localhost", "127.0.0.1"]);
        let [management] = ports();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{listens}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": authority.path("pebble.pem"),
            "privateKey": authority.path("pebble.key"),
            "httpPort": comes_to,
            "tlsPort": comes_to,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        } });
        let file = authority.path("pebble.json");
        std::fs::write(&file, config.to_string()).expect("it is written");
        let child = Command::new("pebble")
            .args(["-config", file.to_str().expect("UTF-8"), "-dnsserver", &dns.address()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let pebble = Self { child, _dns: dns };
        eventually("pebble listens", || TcpStream::connect(("127.0.0.1", listens)).ok());
        Some(pebble)
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Believes everybody: what is shown is looked at by the test.
#[derive(Debug)]
struct Looks;

impl ServerCertVerifier for Looks {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }
}

fn shown(address: &str, rules: &Arc<ClientConfig>) -> Vec<CertificateDer<'static>> {
    let socket = TcpStream::connect(address).expect("it listens");
    let session = Session::connect(socket, Arc::clone(rules), NAME).expect("a session");
    session.ask(|it| it.peer_certificates().expect("a chain").iter().map(|it| it.clone().into_owned()).collect())
}

fn issues(driver: Driver, challenge: &str) {
    let authority = Authority::new();
    let [listens, edge] = ports();
    let Some(_pebble) = Pebble::start(&authority, listens, edge) else { return };
    let cache = authority.path("cache");
    let acme = format!(
        "{{ directory = \"https://localhost:{listens}/dir\", directory_ca = \"{}\", contact = [\"mailto:ops@acme.test\"], \
         names = [\"{NAME}\"], challenge = \"{challenge}\", cache = {cache:?} }}",
        authority.ca()
    );
    // the authority comes to the listener that its challenge is for
    let (listen, plain) = match challenge {
        "http-01" => ("127.0.0.1:0".to_owned(), format!("127.0.0.1:{edge}")),
        _ => (format!("127.0.0.1:{edge}"), "127.0.0.1:0".to_owned()),
    };
    let config =
        format!("[[listener]]\nname = \"plain\"\nlisten = \"{plain}\"\n[[route]]\nrespond = {{ body = \"ok\" }}\n");
    let listener = format!("[listener.tls]\nacme = {acme}\n");
    let gateway = Gateway::start_with(
        driver,
        &Setup { listen: &listen, listener: &listener, config: &config, ..Setup::default() },
    );
    let rules = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Looks));
    let rules = Arc::new(rules.with_no_client_auth());
    // until then there is one that it has signed itself
    let address = gateway.address("edge");
    let deadline = std::time::Instant::now() + PATIENCE;
    let chain = loop {
        let chain = shown(address, &rules);
        if chain.len() > 1 {
            break chain;
        }
        assert!(std::time::Instant::now() < deadline, "no certificate was issued");
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    };
    let written = std::fs::read(cache.join(format!("{NAME}.pem"))).expect("it lies in the cache");
    let first = rustls::pki_types::pem::PemObject::from_pem_slice(&written);
    let first: CertificateDer<'static> = first.expect("PEM");
    assert_eq!(chain[0], first);
    for file in [format!("{NAME}.key"), "account.json".to_owned()] {
        let mode = std::fs::metadata(cache.join(&file)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // the proofs are gone, and a path among theirs is one like others
    let mut client = Client::connect(gateway.address("plain"));
    assert_eq!(client.get("/.well-known/acme-challenge/x").text(), "ok");
    let session = Session::connect(TcpStream::connect(address).unwrap(), rules, NAME).expect("a session");
    assert_eq!(Client::over(Stream::Tls(Box::new(session))).get("/").text(), "ok");
    // whoever comes later finds it, and orders nothing
    drop(gateway);
    let gateway = Gateway::start_with(
        driver,
        &Setup { listen: &listen, listener: &listener, config: &config, ..Setup::default() },
    );
    let rules = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Looks));
    assert_eq!(shown(gateway.address("edge"), &Arc::new(rules.with_no_client_auth()))[0], first);
}

#[test]
fn a_certificate_is_issued_by_tls_alpn() {
    for driver in [Driver::IoUring, Driver::Epoll].into_iter().filter(|driver| driver.is_possible()) {
        issues(driver, "tls-alpn-01");
    }
}

#[test]
fn a_certificate_is_issued_by_http() {
    issues(Driver::Epoll, "http-01");
}
