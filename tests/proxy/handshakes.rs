//! Many handshakes at once: a storm of new clients, and one client that begins more than it ends, beside clients that are established.

use crate::support::client::Client;
use crate::support::stream::Stream;
use crate::support::tls::{Authority, Session};
use crate::support::{Driver, Gateway, Setup, eventually, on_both_drivers};
use rustls::{AlertDescription, ClientConfig};
use socket2::{Domain, Socket, Type};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

/// Places of one client on a worker (`limits.rs`).
const PER_CLIENT: usize = 512;

/// Half of a record's header: a handshake that has begun.
const BEGUN: &[u8] = b"\x16\x03\x01";

/// A connection from this address of the loopback network.
fn connect_from(source: [u8; 4], gateway: &Gateway) -> TcpStream {
    let address: SocketAddr = gateway.address("edge").parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from(source), 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

fn client(socket: TcpStream, rules: &Arc<ClientConfig>) -> Client {
    Client::over(Stream::Tls(Box::new(Session::connect(socket, Arc::clone(rules), "localhost").expect("a session"))))
}

fn start(driver: Driver, authority: &Authority) -> Gateway {
    authority.sign("server", &["localhost"]);
    let listener = format!("{}header_timeout = \"60s\"\n", authority.listener("server"));
    let config = "[[route]]\nrespond = { body = \"ok\" }\n";
    Gateway::start_with(driver, &Setup { listener: &listener, config, ..Setup::default() })
}

fn under_way(gateway: &Gateway) -> f64 {
    gateway.metric("ringgate_tls_handshakes_under_way", &[])
}

fn queued(gateway: &Gateway) -> f64 {
    gateway.metric("ringgate_tls_handshakes_queued_total", &[])
}

on_both_drivers! {
    fn who_begins_handshakes_and_ends_none_is_in_his_own_way_only(driver: Driver) {
        let authority = Authority::new();
        let gateway = start(driver, &authority);
        let rules = authority.client();
        let mut established = client(connect_from([127, 0, 0, 1], &gateway), &rules);
        assert_eq!(established.get("/").status, 200);
        // nothing has come on these: they have no place, and wait for nothing
        let silent: Vec<_> = (0..PER_CLIENT).map(|_| connect_from([127, 0, 0, 1], &gateway)).collect();
        let mut begun: Vec<_> = (0..PER_CLIENT + 20)
            .map(|_| {
                let mut socket = connect_from([127, 0, 0, 1], &gateway);
                socket.write_all(BEGUN).unwrap();
                socket
            })
            .collect();
        eventually("all of its places are taken", || (queued(&gateway) >= 20.0).then_some(()));
        assert_eq!((under_way(&gateway), queued(&gateway)), (PER_CLIENT as f64, 20.0));
        assert_eq!(established.get("/").status, 200, "who has a session needs no place");
        let mut other = client(connect_from([127, 0, 0, 2], &gateway), &rules);
        assert_eq!(other.get("/").status, 200, "another client has places of its own");
        // its next handshake waits behind its own
        let late = connect_from([127, 0, 0, 1], &gateway);
        let waits = std::thread::spawn({
            let rules = Arc::clone(&rules);
            move || client(late, &rules).get("/").status
        });
        eventually("it waits", || (queued(&gateway) == 21.0).then_some(()));
        assert!(!waits.is_finished());
        // with each that ends, one of those who wait has its place; here all do, the last first
        begun.truncate(1);
        assert_eq!(waits.join().unwrap(), 200);
        drop((begun, silent));
        eventually("every place is given back", || (under_way(&gateway) == 0.0).then_some(()));
    }

    fn a_storm_of_clients_and_of_half_clients_is_served_beside_those_who_are_here(driver: Driver) {
        const WAVES: usize = 4;
        const CLIENTS: usize = 60;
        let authority = Authority::new();
        let gateway = start(driver, &authority);
        let rules = authority.client();
        let mut established: Vec<_> =
            (0..8).map(|_| client(connect_from([127, 0, 0, 1], &gateway), &rules)).collect();
        let resident = || gateway.metric("process_resident_memory_bytes", &[]);
        let mut after_waves = Vec::new();
        for _ in 0..WAVES {
            std::thread::scope(|scope| {
                for host in 2..6 {
                    let (gateway, rules) = (&gateway, &rules);
                    scope.spawn(move || {
                        for number in 0..CLIENTS {
                            let mut socket = connect_from([127, 0, 0, host], gateway);
                            match number % 4 {
                                0 => socket.write_all(BEGUN).unwrap(),
                                1 => socket.write_all(b"\x16\x03\x01\x00\x02\x01\x00").unwrap(),
                                // as large as a flight may be, and never all there
                                2 => {
                                    let _ = socket.write_all(&[&b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"[..], &[0; 16_380]].concat());
                                }
                                _ => assert_eq!(client(socket, rules).get("/").status, 200),
                            }
                        }
                    });
                }
                for client in &mut established {
                    for _ in 0..20 {
                        assert_eq!(client.get("/").status, 200);
                    }
                }
            });
            eventually("every place is given back", || (under_way(&gateway) == 0.0).then_some(()));
            eventually("all are gone", || (gateway.metric("ringgate_connections", &[]) == 8.0).then_some(()));
            after_waves.push(resident());
        }
        let sessions = gateway.metric("ringgate_tls_handshakes_total", &[]);
        assert_eq!(sessions, (8 + WAVES * CLIENTS) as f64, "all that meant it");
        // the first wave makes the stock of blocks; those after it add nothing to speak of
        let (first, last) = (after_waves[0], after_waves[WAVES - 1]);
        assert!(last < first + f64::from(8 << 20), "resident memory after each wave: {after_waves:?}");
    }

    fn one_that_is_given_a_place_when_its_time_is_over_gives_it_back(driver: Driver) {
        let authority = Authority::new();
        authority.sign("server", &["localhost"]);
        let listener = format!("{}header_timeout = \"500ms\"\n", authority.listener("server"));
        let config = "[[route]]\nrespond = { body = \"ok\" }\n";
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config, ..Setup::default() });
        let mut begun: Vec<_> = (0..PER_CLIENT + 50)
            .map(|_| {
                let mut socket = connect_from([127, 0, 0, 1], &gateway);
                // it may be late already
                let _ = socket.write_all(BEGUN);
                socket
            })
            .collect();
        for socket in &mut begun {
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest);
            assert!(rest.is_empty());
            let _ = socket.shutdown(Shutdown::Both);
        }
        let failed = || gateway.metric("ringgate_tls_handshake_failures_total", &[("reason", "timeout")]);
        eventually("each is counted once", || (failed() == begun.len() as f64).then_some(()));
        assert_eq!(under_way(&gateway), 0.0);
        assert_eq!(client(connect_from([127, 0, 0, 1], &gateway), &authority.client()).get("/").status, 200);
    }

    fn who_is_refused_in_the_handshake_is_told_why_though_it_sends_on(driver: Driver) {
        let authority = Authority::new();
        authority.sign("server", &["localhost"]);
        let listener = format!(
            "[listener.tls]\ncertificates = [{}]\nclient_auth = {{ ca = \"{}\", mode = \"require\" }}\n",
            authority.files("server"),
            authority.ca()
        );
        let config = "[[route]]\nrespond = { body = \"ok\" }\n";
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config, ..Setup::default() });
        // the client of TLS 1.3 has a session before the gateway has seen that it has no certificate
        let socket = connect_from([127, 0, 0, 1], &gateway);
        let session = Session::connect(socket, authority.client(), "localhost").expect("so it believes");
        for _ in 0..64 {
            session.write(&[b'x'; 16 << 10]).expect("it is read");
        }
        let told = session.read(&mut [0; 16]).expect_err("no session");
        let why = told.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        assert_eq!(why, Some(&rustls::Error::AlertReceived(AlertDescription::CertificateRequired)), "{told}");
        let failed = || gateway.metric("ringgate_tls_handshake_failures_total", &[("reason", "certificate")]);
        eventually("it is counted", || (failed() == 1.0).then_some(()));
    }
}
