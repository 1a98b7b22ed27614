//! Files of TLS: keys that are written elsewhere, a log of secrets, an endpoint's own certificate as its authority.

use crate::operation::said;
use crate::support::client::Client;
use crate::support::gateway::run_to_end;
use crate::support::stream::Stream;
use crate::support::tls::{Authority, Session, write_anew};
use crate::support::upstream::answer_each;
use crate::support::{Driver, Gateway, Setup, Upstream, behind, eventually};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;

const CONFIG: &str = "[[route]]\nrespond = { body = \"ok\" }\n";
const DRIVERS: [Driver; 2] = [Driver::IoUring, Driver::Epoll];

fn session(gateway: &Gateway, rules: &Arc<ClientConfig>) -> std::io::Result<Client> {
    let socket = TcpStream::connect(gateway.address("edge")).expect("it listens");
    let session = Session::connect(socket, Arc::clone(rules), "localhost")?;
    Ok(Client::over(Stream::Tls(Box::new(session))))
}

#[test]
fn a_key_may_lie_among_the_credentials_of_a_service_or_be_a_file_as_secrets_are() {
    let authority = Authority::new();
    authority.sign("server", &["localhost"]);
    let (chain, key) = (authority.path("server.pem"), authority.path("server.key"));
    for written in ["\"${CREDENTIALS_DIRECTORY}/server.key\"".to_owned(), format!("{{ file = {key:?} }}")] {
        let listener = format!("tls = {{ certificates = [{{ chain = {chain:?}, key = {written} }}] }}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.env("CREDENTIALS_DIRECTORY", authority.path("").to_str().unwrap().trim_end_matches('/'));
        let setup = Setup { listener: &listener, config: CONFIG, ..Setup::default() };
        let gateway = Gateway::start_by(command, Driver::Epoll, &setup, std::process::Stdio::null());
        assert_eq!(session(&gateway, &authority.client()).expect("a session").get("/").status, 200, "{written}");
    }
    let file = authority.path("wrong.toml");
    for (written, why) in [
        ("\"${NO_SUCH_VARIABLE}/server.key\"", "the environment has no NO_SUCH_VARIABLE"),
        ("\"server.key\"", "the absolute path of a file"),
        ("{ path = \"/x\" }", "the absolute path of a file"),
    ] {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = [{{ chain = {chain:?}, key = {written} }}]\n{CONFIG}"
        );
        std::fs::write(&file, text).unwrap();
        let said = run_to_end(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert!(said.stderr.contains(why) && said.stderr.contains("certificates[0].key"), "{}", said.stderr);
    }
}

#[test]
fn secrets_are_logged_where_the_file_says_so_with_a_warning_and_nowhere_else() {
    for driver in DRIVERS.into_iter().filter(|driver| driver.is_possible()) {
        let authority = Authority::new();
        authority.sign("server", &["localhost"]);
        let log = authority.path("secrets.log");
        let listener = format!("tls = {{ certificates = [{}], key_log = {log:?} }}", authority.files("server"));
        let mut gateway =
            Gateway::start_with(driver, &Setup { listener: &listener, config: CONFIG, ..Setup::default() });
        said(&mut gateway, &["WARN", "tls.key_log", "can read all that is said"]);
        assert_eq!(session(&gateway, &authority.client()).expect("a session").get("/").status, 200);
        let text = eventually("the secrets are there", || {
            let text = std::fs::read_to_string(&log).ok()?;
            text.contains("SERVER_TRAFFIC_SECRET_0").then_some(text)
        });
        assert!(text.lines().all(|line| line.split(' ').count() == 3), "{text}");
        assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
        let check = run_to_end(&["check", "-c", &gateway.file()]);
        assert!(check.stderr.contains("tls.key_log"), "{}", check.stderr);
    }
}

/// What `openssl req -x509` makes: signed by itself, and CA:TRUE.
fn own_certificate(change: impl FnOnce(&mut CertificateParams)) -> (String, Arc<ServerConfig>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let made = params.self_signed(&key).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(made.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let rules = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    (made.pem(), Arc::new(rules))
}

#[test]
fn an_endpoint_s_own_certificate_may_be_its_authority_and_is_nobody_else_s() {
    for driver in DRIVERS.into_iter().filter(|driver| driver.is_possible()) {
        let authority = Authority::new();
        authority.sign("server", &["localhost"]);
        let (listed, rules) = own_certificate(|_| ());
        let (ended, ended_rules) = own_certificate(|params| params.not_after = date_time_ymd(2020, 1, 1));
        let (_, unknown) = own_certificate(|params| params.is_ca = IsCa::NoCa);
        let ca = authority.path("endpoints.pem");
        std::fs::write(&ca, [listed, ended].concat()).unwrap();
        for (rules, name, expected) in [
            (Arc::clone(&rules), "localhost", Ok(())),
            (rules, "other.example", Err("wrong_name")),
            (ended_rules, "localhost", Err("expired")),
            (unknown, "localhost", Err("unknown_issuer")),
        ] {
            let service = Upstream::encrypted(rules, answer_each(|_, conn| conn.reply(200, "own")));
            let tls = format!(
                "tls = {{ ca = {ca:?}, name = {name:?} }}\nhealth_check = {{ path = \"/\", interval = \"100ms\" }}"
            );
            let config = behind(&[&service], "retry = { attempts = 0 }", &tls);
            let gateway = Gateway::start_with(driver, &Setup { config: &config, ..Setup::default() });
            let response = gateway.client().get("/");
            let page = gateway.admin("/upstreams").text();
            match expected {
                Ok(()) => assert_eq!((response.status, response.text().as_str()), (200, "own"), "{page}"),
                Err(reason) => {
                    assert!(response.status >= 502, "{response:?}");
                    // a request's or a check's, whichever was first
                    assert!(page.contains(&format!("\"reason\":\"{reason}\"")), "{reason}: {page}");
                }
            }
        }
    }
}

#[test]
fn certificates_change_among_many_while_clients_come() {
    const MANY: usize = 1_000;
    const SWAPS: usize = 20;
    for driver in DRIVERS.into_iter().filter(|driver| driver.is_possible()) {
        let authority = Authority::new();
        let folder = authority.path("many");
        std::fs::create_dir(&folder).unwrap();
        let sign = |number: usize| {
            authority.sign(&format!("many/{number}"), &[&format!("n{number}.example")]);
        };
        (0..MANY).for_each(sign);
        let listener = format!("tls = {{ certificate_dir = {folder:?} }}");
        let setup = Setup { listener: &listener, config: CONFIG, ..Setup::default() };
        let mut gateway = Gateway::start_with(driver, &setup);
        let text = setup.file(driver);
        let address = gateway.address("edge").to_owned();
        let rules = authority.client();
        let shown = |number: usize| {
            let socket = TcpStream::connect(&address).unwrap();
            let session = Session::connect(socket, Arc::clone(&rules), &format!("n{number}.example"));
            session.map(|session| session.ask(|it| it.peer_certificates().expect("one")[0].to_vec()))
        };
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let mut number = 0;
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    number = (number + 37) % MANY;
                    shown(number).unwrap_or_else(|error| panic!("n{number}: {error}"));
                }
                number
            });
            for swap in 0..SWAPS {
                let before = shown(swap).expect("a session");
                sign(swap);
                gateway.reload_well(&text);
                assert_ne!(shown(swap).expect("a session"), before);
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            clients.join().expect("no handshake fails");
        });
        assert_eq!(gateway.metric("ringgate_tls_handshake_failures_total", &[]), 0.0);
    }
}

#[test]
fn one_broken_pair_of_a_folder_keeps_its_certificate_and_nobody_else_s_from_being_renewed() {
    let authority = Authority::new();
    let folder = authority.path("some");
    std::fs::create_dir(&folder).unwrap();
    let sign = |name: &str| authority.sign(&format!("some/{name}"), &[&format!("{name}.example")]);
    ["a", "b"].into_iter().for_each(sign);
    let listener = format!("tls = {{ certificate_dir = {folder:?} }}");
    let setup = Setup { listener: &listener, config: CONFIG, ..Setup::default() };
    let mut gateway = Gateway::start_with(Driver::Epoll, &setup);
    let text = setup.file(Driver::Epoll);
    let (address, rules) = (gateway.address("edge").to_owned(), authority.client());
    // whoever gets a chain that is not that of the key, or of another name, has no session
    let shown = |name: &str| {
        let socket = TcpStream::connect(&address).unwrap();
        let session = Session::connect(socket, Arc::clone(&rules), &format!("{name}.example")).expect("a session");
        session.ask(|it| it.peer_certificates().expect("one")[0].to_vec())
    };
    let first = shown("a");
    let whole = std::fs::read_to_string(folder.join("b.key")).unwrap();
    for broken in [Some(""), Some("no key"), Some(&whole[..60]), Some(&whole.replace('\n', "")), None] {
        sign("a");
        let before = [shown("a"), shown("b")];
        let key = folder.join("a.key");
        match broken {
            Some(text) => write_anew(&key, text),
            None => std::fs::remove_file(&key).unwrap(),
        }
        sign("b");
        let response = gateway.reload(&text);
        let said = response.text();
        assert_eq!(response.status, 200, "{said}");
        assert!(said.contains("the certificate that was there before goes on: "), "{said}");
        assert!(!said.contains(&whole[40..60]), "{said}");
        assert_eq!(shown("a"), before[0]);
        assert_ne!(shown("b"), before[1]);
    }
    sign("a");
    gateway.reload_well(&text);
    assert_ne!(shown("a"), first);
    // who begins with it has none before it
    std::fs::write(folder.join("a.key"), "").unwrap();
    let file = authority.path("begin.toml");
    std::fs::write(&file, &text).unwrap();
    let said = run_to_end(&["check", "-c", file.to_str().expect("UTF-8")]);
    assert!(said.code != Some(0) && format!("{said:?}").contains("holds no private key"), "{said:?}");
}
