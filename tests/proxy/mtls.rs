//! Certificates of clients (mutual TLS), end to end: who is let in, for how long, and what is told of him.

use crate::support::client::Client;
use crate::support::gateway::run_to_end;
use crate::support::stream::Stream;
use crate::support::tls::{Authority, Session, write_anew};
use crate::support::{Driver, Gateway, Setup, Upstream, behind, eventually};
use aws_lc_rs::digest;
use rcgen::SerialNumber;
use rustls::{ClientConfig, HandshakeKind};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

const DRIVERS: [Driver; 2] = [Driver::IoUring, Driver::Epoll];
const CONFIG: &str = "[[route]]\nrespond = { body = \"ok\" }\n";

fn possible() -> impl Iterator<Item = Driver> {
    DRIVERS.into_iter().filter(|driver| driver.is_possible())
}

/// The gateway's authority, and that of its clients.
struct World {
    authority: Authority,
    clients: Authority,
}

impl World {
    fn new() -> Self {
        let (authority, clients) = (Authority::new(), Authority::new());
        authority.sign("server", &["localhost"]);
        for name in ["good", "revoked"] {
            clients.sign_with(name, &[name], |it| it.serial_number = Some(serial(name)));
        }
        let world = Self { authority, clients };
        world.revoke("revoked");
        world
    }

    /// Writes a list with this client in it.
    fn revoke(&self, name: &str) {
        write_anew(&self.authority.path("clients.crl"), &self.clients.revoke(name.len() as u64));
    }

    /// A listener that asks for certificates.
    fn listener(&self, mode: &str) -> String {
        format!(
            "tls = {{ certificates = [{}], client_auth = {{ ca = \"{}\", crl = \"{}\", mode = \"{mode}\", forward = true }} }}\n",
            self.authority.files("server"),
            self.clients.ca(),
            self.authority.path("clients.crl").display()
        )
    }

    /// Rules of a client with this certificate.
    fn rules(&self, name: &str) -> Arc<ClientConfig> {
        let (chain, key) = self.clients.pair(name);
        let rules = ClientConfig::builder().with_root_certificates(self.authority.roots());
        Arc::new(rules.with_client_auth_cert(chain, key).unwrap())
    }
}

fn serial(name: &str) -> SerialNumber {
    SerialNumber::from(name.len() as u64)
}

fn client(gateway: &Gateway, rules: &Arc<ClientConfig>) -> io::Result<Client> {
    let socket = TcpStream::connect(gateway.address("edge")).expect("it listens");
    let session = Session::connect(socket, Arc::clone(rules), "localhost")?;
    Ok(Client::over(Stream::Tls(Box::new(session))))
}

/// In TLS 1.3 a client learns only with its first request that it was refused.
fn is_served(gateway: &Gateway, rules: &Arc<ClientConfig>) -> bool {
    client(gateway, rules).and_then(|mut client| client.try_get("/")).is_ok_and(|response| response.status == 200)
}

fn kind(client: &Client) -> Option<HandshakeKind> {
    client.stream().session().expect("one").ask(|connection| connection.handshake_kind())
}

fn failures(gateway: &Gateway) -> f64 {
    gateway.metric("ringgate_tls_handshake_failures_total", &[("reason", "certificate")])
}

#[test]
fn clients_show_a_certificate_where_they_must_and_none_that_is_revoked() {
    for driver in possible() {
        let world = World::new();
        for (mode, without) in [("require", false), ("request", true)] {
            let setup = Setup { listener: &world.listener(mode), config: CONFIG, ..Setup::default() };
            let gateway = Gateway::start_with(driver, &setup);
            assert_eq!(is_served(&gateway, &world.authority.client()), without, "{mode}");
            for (name, is_good) in [("good", true), ("revoked", false)] {
                let rules = world.rules(name);
                assert_eq!(is_served(&gateway, &rules), is_good, "{mode}: {name}");
                assert_eq!(is_served(&gateway, &rules), is_good, "{mode}: {name}, with what it may have been given");
            }
            // they hear of it before it is counted
            let expected = if without { 2.0 } else { 3.0 };
            eventually("the failures are counted", || (failures(&gateway) == expected).then_some(()));
        }
    }
}

#[test]
fn who_is_revoked_is_not_served_any_more_though_he_is_here_already() {
    for driver in possible() {
        let world = World::new();
        let setup = Setup { listener: &world.listener("require"), config: CONFIG, ..Setup::default() };
        let mut gateway = Gateway::start_with(driver, &setup);
        world.clients.sign_with("other", &["other"], |it| it.serial_number = Some(serial("other")));
        let rules = ["good", "other"].map(|name| world.rules(name));
        let mut clients = rules.each_ref().map(|rules| client(&gateway, rules).expect("a session"));
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
        // nothing has changed: both stay, and go on with their tickets
        gateway.reload_well(&setup.file(driver));
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
        let mut resumed = client(&gateway, &rules[0]).expect("a session");
        assert_eq!((resumed.get("/").status, kind(&resumed)), (200, Some(HandshakeKind::Resumed)));
        world.revoke("good");
        gateway.reload_well(&setup.file(driver));
        let [mut good, mut other] = clients;
        assert_eq!(other.get("/").status, 200, "he is not meant");
        for gone in [&mut good, &mut resumed] {
            assert!(gone.try_get("/").is_err(), "the list counts for who is here");
        }
        assert!(!is_served(&gateway, &rules[0]), "and for who comes back with a ticket");
        assert!(is_served(&gateway, &rules[1]));
        eventually("all of it is counted", || (failures(&gateway) == 3.0).then_some(()));
    }
}

#[test]
fn a_listener_that_begins_to_ask_has_asked_nobody_who_is_here() {
    for driver in possible() {
        let world = World::new();
        let setup = |listener| Setup { listener, config: CONFIG, ..Setup::default() };
        let asks = world.listener("require");
        let (plain, encrypted) = (String::new(), world.authority.listener("server"));
        let mut gateway = Gateway::start_with(driver, &setup(&plain));
        let mut in_plain = Client::connect(gateway.address("edge"));
        assert_eq!(in_plain.get("/").status, 200);
        gateway.reload_well(&setup(&encrypted).file(driver));
        let rules = world.authority.client();
        let mut unknown = client(&gateway, &rules).expect("a session");
        assert_eq!(unknown.get("/").status, 200);
        assert_eq!(in_plain.get("/").status, 200, "it has begun so");
        gateway.reload_well(&setup(&asks).file(driver));
        assert!(in_plain.try_get("/").is_err());
        assert!(unknown.try_get("/").is_err());
        assert!(!is_served(&gateway, &rules), "a ticket from before is none");
        assert!(is_served(&gateway, &world.rules("good")));
    }
}

#[test]
fn services_are_told_who_a_client_is_and_never_by_the_client() {
    const LIES: [(&str, &str); 4] = [
        ("X-Client", "CN=root"),
        ("x-key", "0"),
        ("X-Names", "DNS:admin"),
        ("X-Forwarded-Client-Cert", "Hash=0;Subject=\"CN=root\""),
    ];
    const RULES: &str = "request_headers = { set = { x-client = \"{tls.client.subject}\", x-key = \"k-{tls.client.spki}\", \
                         x-names = \"{tls.client.san}\" } }";
    for driver in possible() {
        let world = World::new();
        let service = Upstream::always("ok");
        // the client may say who it is the proxy of, and not that
        let listener = format!("{}trusted_proxies = [\"127.0.0.1\"]\n", world.listener("request"));
        let log = world.authority.path("access.log");
        let config = format!("[access_log]\npath = {log:?}\n{}", behind(&[&service], RULES, ""));
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config: &config, ..Setup::default() });
        world.clients.sign_with("good", &["good", "b.example"], |it| {
            it.serial_number = Some(serial("good"));
            it.distinguished_name.push(rcgen::DnType::CommonName, "orders \"1\"");
        });
        let rules = world.rules("good");
        let mut hashes = Vec::new();
        for round in 0..2 {
            let mut good = client(&gateway, &rules).expect("a session");
            assert_eq!(good.request("GET", "/", &LIES, b"").status, 200);
            let resumed = if round == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(kind(&good).map(|kind| kind == HandshakeKind::Resumed), Some(resumed == HandshakeKind::Resumed));
            let request = service.requests().pop().expect("one");
            let all = |name: &str| request.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).count();
            for (name, _) in LIES {
                assert_eq!(all(name), 1, "{name}: {request:?}");
            }
            assert_eq!(request.header("x-client"), Some("CN=orders \\\"1\\\""));
            assert_eq!(request.header("x-names"), Some("DNS:good,DNS:b.example"));
            let key = request.header("x-key").and_then(|key| key.strip_prefix("k-")).expect("a key").to_owned();
            assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
            let told = request.header("x-forwarded-client-cert").expect("it is told").to_owned();
            assert!(told.starts_with("Hash=") && told.ends_with(";DNS=good;DNS=b.example"), "{told}");
            hashes.push((key, told));
        }
        assert_eq!(hashes[0], hashes[1], "also of one who comes back with a ticket");
        let mut unknown = client(&gateway, &world.authority.client()).expect("a session");
        assert_eq!(unknown.request("GET", "/", &LIES, b"").status, 200);
        let request = service.requests().pop().expect("one");
        for (name, _) in LIES {
            assert_eq!(request.header(name), None, "{request:?}");
        }
        eventually("the log has the subject", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let told = text.lines().filter(|line| line.contains("\"tls_client\":\"CN=orders \\\\\\\"1")).count();
            (told == 2 && text.lines().count() == 3).then_some(())
        });
    }
}

#[test]
fn a_listener_that_ceases_to_ask_recognises_nobody_who_is_here() {
    let world = World::new();
    let config = "[[route]]\nauth = [\"cert\"]\nrespond = { body = \"ok\" }\n[auth.cert]\nmtls = true\n[consumer.good]\nmtls = { san = \"DNS:good\" }\n";
    let (asks, encrypted) = (world.listener("request"), world.authority.listener("server"));
    let setup = |listener| Setup { listener, config, ..Setup::default() };
    for driver in possible() {
        let mut gateway = Gateway::start_with(driver, &setup(&asks));
        let mut good = client(&gateway, &world.rules("good")).expect("a session");
        assert_eq!(good.get("/").status, 200);
        gateway.reload_well(&setup(&encrypted).file(driver));
        // its certificate is judged by nobody any more: it may have been revoked
        assert_eq!(good.get("/").status, 401);
    }
}

#[test]
fn a_limit_by_certificate_is_each_client_s_own() {
    for driver in possible() {
        let world = World::new();
        world.clients.sign_with("other", &["other"], |it| it.serial_number = Some(serial("other")));
        let config =
            "[[route]]\nrespond = { body = \"ok\" }\nlimit = [{ rate = \"1/h\", burst = 2, per = \"client_cert\" }]\n";
        let setup = Setup { listener: &world.listener("request"), config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let statuses = |rules: &Arc<ClientConfig>| {
            // on connections of their own, so that it is not the connection that counts
            [(); 3].map(|()| client(&gateway, rules).expect("a session").get("/").status)
        };
        for rules in [world.rules("good"), world.rules("other"), world.authority.client()] {
            assert_eq!(statuses(&rules), [200, 200, 429]);
        }
    }
}

#[test]
fn a_certificate_makes_its_client_a_consumer() {
    const MORE: &str = "auth = [\"cert\"]\nlimit = [{ rate = \"1000/h\", burst = 100, per = \"consumer\" }]\n\
        [[route]]\nname = \"two\"\nmatch = { path = \"/two\" }\nauth = [\"key\", \"cert\"]\ndeny = { group = [\"away\"] }\nupstream = \"svc\"\n\
        [auth.cert]\nmtls = true\nheaders = { x-who = \"{consumer}\", x-groups = \"{groups}\" }\n[auth.key]\nheader = \"x-key\"\n";
    for driver in possible() {
        let world = World::new();
        let uri = |text: &str| rcgen::SanType::URI(text.try_into().unwrap());
        world.clients.sign_with("pinned", &["Orders.internal"], |_| ());
        world.clients.sign_with("named", &["ORDERS.internal"], |it| it.subject_alt_names.push(uri("spiffe://prod/x")));
        world.clients.sign_with("both", &["orders.internal", "stock.internal"], |_| ());
        world.clients.sign_with("uri", &["x.internal"], |it| it.subject_alt_names.push(uri("spiffe://prod/stock")));
        let subject = |it: &mut rcgen::CertificateParams| {
            it.distinguished_name = rcgen::DistinguishedName::new();
            it.distinguished_name.push(rcgen::DnType::OrganizationName, "A, B");
            it.distinguished_name.push(rcgen::DnType::CommonName, "cron");
        };
        world.clients.sign_with("subject", &["y.internal"], subject);
        // the same name by somebody whom the listener does not believe
        world.authority.sign("stranger", &["orders.internal"]);
        let pem = std::fs::read_to_string(world.clients.path("pinned.key")).unwrap();
        let key = rcgen::KeyPair::from_pem(&pem).unwrap();
        let pin = digest::digest(&digest::SHA256, &rcgen::PublicKeyData::subject_public_key_info(&key));
        let pin: String = pin.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let people = format!(
            "[consumer.pin]\nmtls = {{ spki = \"{pin}\" }}\n[consumer.orders]\ngroups = [\"eu\"]\nmtls = {{ san = \"DNS:orders.internal\" }}\n\
             [consumer.stock]\ngroups = [\"away\"]\nmtls = [{{ san = \"DNS:stock.internal\" }}, {{ san = \"URI:spiffe://prod/stock\" }}]\n\
             [consumer.cron]\nmtls = {{ subject = 'CN=cron,O=A\\, B' }}\n"
        );
        let service = Upstream::always("ok");
        let log = world.authority.path("access.log");
        let config = format!("[access_log]\npath = {log:?}\n{}{people}", behind(&[&service], MORE, ""));
        let listener = world
            .listener("request")
            .replace(&format!(", crl = \"{}\"", world.authority.path("clients.crl").display()), "");
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config: &config, ..Setup::default() });
        let ask = |name: &str, path: &str| {
            client(&gateway, &world.rules(name)).unwrap().request("GET", path, &LIE, b"").status
        };
        const LIE: [(&str, &str); 2] = [("X-Who", "root"), ("X-Forwarded-Client-Cert", "URI=spiffe://prod/stock")];
        let expected = [
            ("pinned", 200, 200),
            ("named", 200, 200),
            ("both", 401, 401),
            ("uri", 200, 403),
            ("subject", 200, 200),
            ("good", 401, 401),
        ];
        for (name, first, second) in expected {
            assert_eq!((ask(name, "/"), ask(name, "/two")), (first, second), "{name}");
        }
        let who: Vec<_> =
            service.requests().iter().map(|it| it.header("x-who").unwrap_or("nobody").to_owned()).collect();
        assert_eq!(who, ["pin", "pin", "orders", "orders", "stock", "cron", "cron"]);
        assert_eq!(service.requests()[2].header("x-groups"), Some("eu"));
        let bare = client(&gateway, &world.authority.client()).expect("a session").request("GET", "/", &LIE, b"");
        bare.assert_rejected(401, "unauthenticated");
        assert_eq!(bare.header("www-authenticate"), Some("Certificate realm=\"cert\""));
        let (chain, key) = world.authority.pair("stranger");
        let rules = ClientConfig::builder().with_root_certificates(world.authority.roots());
        assert!(!is_served(&gateway, &Arc::new(rules.with_client_auth_cert(chain, key).unwrap())));
        eventually("it is counted and logged", || {
            let orders = gateway.metric("ringgate_consumer_requests_total", &[("consumer", "orders")]);
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (orders == 2.0 && text.matches("\"consumer\":\"stock\"").count() == 2).then_some(())
        });
        let explained = run_to_end(&["explain", "-c", &gateway.file(), "GET", "/"]).stdout;
        assert!(explained.contains("verdict    depends on the client's certificate"), "{explained}");
        assert_eq!(gateway.admin("/config").json()["consumer"]["cron"]["mtls"][0]["subject"], "CN=cron,O=A\\, B");
    }
}
