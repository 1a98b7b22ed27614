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

pub(crate) const NAME: &str = "a.acme.test";
const OTHER: &str = "b.acme.test";

/// Ports that nobody has at this moment.
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

pub(crate) struct Pebble {
    child: Child,
    _dns: Dns,
}

impl Pebble {
    /// `None`: it is not installed, which is said.
    pub(crate) fn start(authority: &Authority, listens: u16, comes_to: u16) -> Option<Self> {
        if Command::new("pebble").arg("-h").output().is_err() {
            assert!(std::env::var_os("RINGGATE_TESTS_NEED_TOOLS").is_none(), "pebble is not installed");
            eprintln!("skipped: pebble is not installed");
            return None;
        }
        let dns = Dns::start();
        for name in [NAME, OTHER] {
            dns.set(name, Says::Addresses(vec![Ipv4Addr::LOCALHOST], 0));
        }
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

/// The chain that is shown, once it is as it should be.
pub(crate) fn awaited(
    address: &str,
    rules: &Arc<ClientConfig>,
    is_right: impl Fn(&[CertificateDer<'static>]) -> bool,
) -> Vec<CertificateDer<'static>> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let chain = shown(address, rules);
        if is_right(&chain) {
            return chain;
        }
        assert!(std::time::Instant::now() < deadline, "no certificate was issued");
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

/// The table of one certificate, in the cache of that name.
pub(crate) fn acme(authority: &Authority, listens: u16, challenge: &str) -> String {
    format!(
        "{{ directory = \"https://localhost:{listens}/dir\", directory_ca = \"{}\", contact = [\"mailto:ops@acme.test\"], \
         names = [\"{NAME}\"], challenge = \"{challenge}\", cache = {:?} }}",
        authority.ca(),
        authority.path("cache")
    )
}

/// Rules of a client that believes everybody.
pub(crate) fn looking() -> Arc<ClientConfig> {
    let rules = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Looks));
    Arc::new(rules.with_no_client_auth())
}

fn issues(driver: Driver, challenge: &str) {
    let authority = Authority::new();
    let [listens, edge] = ports();
    let Some(_pebble) = Pebble::start(&authority, listens, edge) else { return };
    let cache = authority.path("cache");
    let acme = acme(&authority, listens, challenge);
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
    let rules = looking();
    // until then there is one that it has signed itself
    let address = gateway.address("edge");
    let chain = awaited(address, &rules, |chain| chain.len() > 1);
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
    let rules = looking();
    assert_eq!(shown(gateway.address("edge"), &rules)[0], first);
    drop(gateway);
    // for one more name it is ordered anew, with a new account where the old one was lost
    std::fs::write(cache.join("account.json"), "{").expect("it is written");
    let listener = listener.replace(&format!("[\"{NAME}\"]"), &format!("[\"{NAME}\", \"{OTHER}\"]"));
    let gateway = Gateway::start_with(
        driver,
        &Setup { listen: &listen, listener: &listener, config: &config, ..Setup::default() },
    );
    awaited(gateway.address("edge"), &rules, |chain| chain.len() > 1 && chain[0] != first);
    assert!(cache.join("account.json.old").exists() && cache.join("account.json").exists());
    assert!(!cache.join(format!("{NAME}.order.json")).exists(), "nothing is under way");
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

/// A directory that answers every request with this.
fn directory(authority: &Authority, answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    authority.sign("directory", &["localhost"]);
    let rules = authority.server("directory");
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let Ok(session) = Session::accept(socket, Arc::clone(&rules)) else { continue };
            let _ = session.read(&mut [0; 4_096]);
            // whoever has heard enough closes
            let _ = answer.chunks(16 << 10).try_for_each(|piece| session.write(piece).map(drop));
        }
    });
    format!("https://localhost:{}/dir", address.port())
}

#[test]
fn whatever_a_directory_answers_the_gateway_serves_and_asks_again_when_it_may() {
    let answer = |head: &str, body: Vec<u8>| [format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), &body].concat();
    let limited = br#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slowly"}"#.to_vec();
    let too_many = format!("429 x\r\nretry-after: 7200\r\ncontent-length: {}", limited.len());
    for (answer, why, again) in [
        (answer("200 OK\r\ncontent-length: 10485760", vec![b' '; 10 << 20]), "length limit exceeded", ""),
        (answer("200 OK\r\ntransfer-encoding: chunked", b"ffffffffffffff\r\n".to_vec()), "no account", ""),
        (answer("200 OK\r\ncontent-length: 3", b"{}}".to_vec()), "JSON", ""),
        (b"\0\x01\x02 what\r\n\r\n".to_vec(), "no account", ""),
        (answer(&too_many, limited), "no account", "again in 7200s"),
    ] {
        let authority = Authority::new();
        let listener = format!(
            "[listener.tls]\nacme = {{ directory = \"{}\", directory_ca = \"{}\", names = [\"{NAME}\"], cache = {:?} }}\n",
            directory(&authority, answer),
            authority.ca(),
            authority.path("cache")
        );
        let config = "[[route]]\nrespond = { body = \"ok\" }\n";
        let setup = Setup { listener: &listener, config, ..Setup::default() };
        let mut gateway = Gateway::start_with(Driver::Epoll, &setup);
        let is_said = |line: &String| line.contains("no certificate for") && line.contains(why) && line.contains(again);
        eventually(why, || gateway.running().stderr().iter().any(is_said).then_some(()));
        let socket = TcpStream::connect(gateway.address("edge")).expect("it listens");
        let session = Session::connect(socket, looking(), NAME).expect("a session");
        assert_eq!(Client::over(Stream::Tls(Box::new(session))).get("/").text(), "ok");
    }
}
