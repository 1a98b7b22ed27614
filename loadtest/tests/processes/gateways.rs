//! Gateways, as the tool starts them.

use ringgate_load::engine::{Measured, Watch, offer};
use ringgate_load::gateways::{Endpoint, Front, Gateway, Kind, Program, Route, Setup, Template};
use ringgate_load::load::{Load, Pace, Protocol, Target};
use ringgate_load::processes::Fleet;
use ringgate_load::url::Url;
use ringgate_load::wire::TlsSettings;
use std::time::Duration;

use crate::client::{Client, until};
use crate::{be_the_tool, fleet};

/// The program; `None`, with a message: it is not on this machine, which is an error where `RINGGATE_TESTS_NEED_TOOLS=1`.
fn program(kind: Kind) -> Option<Program> {
    be_the_tool();
    match kind.find() {
        Ok(program) => Some(program),
        Err(why)
            if std::env::var_os("RINGGATE_TESTS_NEED_TOOLS").is_some_and(|need| need == "1") && kind != Kind::Envoy =>
        {
            panic!("{why}")
        }
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn start(program: &Program, setup: &Setup) -> Gateway {
    Gateway::start(program, setup).unwrap_or_else(|error| panic!("{error}"))
}

fn requests(fleet: &mut Fleet, row: usize) -> u64 {
    fleet.counters(row).unwrap_or_else(|error| panic!("{error}")).requests
}

fn endpoint(fleet: &Fleet, row: usize) -> Endpoint {
    Endpoint { address: fleet.addresses()[row], is_backup: false }
}

/// Two endpoints behind `/`, one behind `/orders/`.
fn two_upstreams(fleet: &Fleet) -> Setup {
    let mut setup = Setup::plain(&fleet.addresses()[..2]);
    setup.routes.push(Route {
        prefix: "/orders/".to_owned(),
        upstream: "orders".to_owned(),
        endpoints: vec![endpoint(fleet, 2)],
    });
    Setup { workers: 2, cores: vec![0], retries_on_500: true, ..setup }
}

/// All that is true of every gateway.
fn passes_requests_and_survives_a_dead_endpoint(kind: Kind) {
    let Some(program) = program(kind) else { return };
    let mut fleet = fleet(3);
    let mut gateway = start(&program, &two_upstreams(&fleet));
    let mut client = Client::connect(gateway.address());
    let before = requests(&mut fleet, 2);
    assert_eq!(client.get("/orders/7").expect("an answer").status, 200);
    assert_eq!(requests(&mut fleet, 2) - before, 1);
    let before = requests(&mut fleet, 0) + requests(&mut fleet, 1);
    let answer = client.get("/other").expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 100));
    assert_eq!(requests(&mut fleet, 0) + requests(&mut fleet, 1) - before, 1);
    fleet.kill(0);
    // some end a client's connection when a kept one of theirs breaks under its request: here it is only about coming through
    until(&format!("{kind} has left the dead endpoint"), || {
        let mut client = Client::connect(gateway.address());
        (0..20).all(|_| client.get("/other").is_ok_and(|answer| answer.status == 200)).then_some(())
    });
    assert!(gateway.child().cpu_seconds() > 0.0 && gateway.child().resident_bytes() > 1 << 20);
    // killed, it is gone, and its port refuses
    gateway.kill().unwrap_or_else(|error| panic!("{error}"));
    assert!(std::net::TcpStream::connect(gateway.address()).is_err() && gateway.child().has_ended().is_some());
}

#[test]
fn ringgate_passes_requests_and_survives_a_dead_endpoint() {
    passes_requests_and_survives_a_dead_endpoint(Kind::Ringgate);
}

#[test]
fn nginx_passes_requests_and_survives_a_dead_endpoint() {
    passes_requests_and_survives_a_dead_endpoint(Kind::Nginx);
}

#[test]
fn haproxy_passes_requests_and_survives_a_dead_endpoint() {
    passes_requests_and_survives_a_dead_endpoint(Kind::Haproxy);
}

#[test]
fn envoy_passes_requests_and_survives_a_dead_endpoint() {
    passes_requests_and_survives_a_dead_endpoint(Kind::Envoy);
}

#[test]
fn a_backup_is_used_when_the_others_are_dead() {
    for kind in [Kind::Ringgate, Kind::Nginx, Kind::Haproxy, Kind::Envoy] {
        let Some(program) = program(kind) else { continue };
        let mut fleet = fleet(2);
        let mut setup = Setup { health_checks: true, ..Setup::plain(&fleet.addresses()) };
        setup.routes[0].endpoints[1].is_backup = true;
        let gateway = start(&program, &setup);
        fleet.kill(0);
        let mut client = Client::connect(gateway.address());
        // with health checks it may take a while until the dead one is known to be dead
        until(&format!("{kind} asks the backup"), || {
            client.get("/").is_ok_and(|answer| answer.status == 200).then_some(())
        });
    }
}

#[test]
fn a_reload_refuses_nobody() {
    for kind in [Kind::Ringgate, Kind::Nginx, Kind::Haproxy] {
        let Some(program) = program(kind) else { continue };
        let fleet = fleet(1);
        let mut gateway = start(&program, &Setup::plain(&fleet.addresses()));
        for _ in 0..2 {
            gateway.reload().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(Client::connect(gateway.address()).get("/").expect("an answer").status, 200);
            assert_eq!(gateway.child().has_ended(), None);
        }
    }
}

#[test]
fn ringgate_has_metrics() {
    let Some(program) = program(Kind::Ringgate) else { return };
    let fleet = fleet(1);
    let gateway = start(&program, &Setup::plain(&fleet.addresses()));
    let mut client = Client::connect(gateway.address());
    for _ in 0..10 {
        client.get("/").expect("an answer");
    }
    // with the one that showed that it answers
    let answered = || {
        let metrics = gateway.metrics().unwrap_or_else(|error| panic!("{error}"));
        let of_requests = metrics.iter().filter(|(name, _)| name.starts_with("ringgate_upstream_attempts_total{"));
        (of_requests.map(|(_, value)| value).sum::<f64>() >= 11.0).then_some(())
    };
    until("all are counted", answered);
}

#[test]
fn a_configuration_of_ones_own_is_used_and_its_mistakes_are_shown() {
    let Some(program) = program(Kind::Nginx) else { return };
    let fleet = fleet(1);
    let own = "daemon off;\npid @folder@/pid;\nerror_log stderr;\nevents {}\nhttp {\n  access_log off;\n  client_body_temp_path @folder@/a;\n  \
               proxy_temp_path @folder@/b;\n  fastcgi_temp_path @folder@/c;\n  uwsgi_temp_path @folder@/d;\n  scgi_temp_path @folder@/e;\n  \
               server { listen @listen@; location / { proxy_pass http://@app.1@; } }\n}\n";
    let setup = |own: &str| {
        let own = Template::try_new(own, &[("app", 1)]).expect("all of its marks are known");
        Setup { own: Some(own), ..Setup::plain(&fleet.addresses()) }
    };
    let gateway = start(&program, &setup(own));
    assert_eq!(Client::connect(gateway.address()).get("/").expect("an answer").status, 200);
    let broken = own.replace("events {}", "happenings {}");
    let error = Gateway::start(&program, &setup(&broken)).err().expect("nginx does not know that").to_string();
    assert!(error.starts_with("nginx has ended (exit code 1)\n"), "{error}");
    assert!(error.contains("unknown directive \"happenings\""), "{error}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let Some(program) = program(Kind::Ringgate) else { return };
    let fleet = fleet(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let setup = Setup { listen: Some(address), ..Setup::plain(&fleet.addresses()) };
    let error = Gateway::start(&program, &setup).err().expect("somebody listens there").to_string();
    assert!(error.starts_with(&format!("ringgate cannot be started: cannot have {address}: ")), "{error}");
}

/// What a client of this load tester sees of a gateway with this front.
fn offered(gateway: &Gateway, front: Front, streams: usize, body: &[u8]) -> Measured {
    let url = Url::parse(&gateway.url()).expect("it is one");
    let settings = TlsSettings { ca: gateway.ca().map(Into::into), ..TlsSettings::default() };
    let target = Target::new(if body.is_empty() { "GET" } else { "POST" }, &url.authority, "/", &[], body, false);
    let load = Load {
        address: url.address,
        tls: url.tls(&settings, front.is_http2).expect("they can be used"),
        protocol: if front.is_http2 { Protocol::Http2 { streams } } else { Protocol::Http1 },
        targets: [target].into(),
        pace: Pace::Even(500.0),
        warm_up: Duration::ZERO,
        length: Duration::from_millis(200),
        phases: Vec::new(),
        factors: Vec::new(),
        harms: Vec::new(),
        slice: Duration::from_millis(100),
        connections: 2,
        connections_max: 2,
        reconnects: false,
        timeout: Duration::from_secs(20),
        cores: Vec::new(),
        is_alone: false,
        seed: 7,
    };
    offer(&load, &Watch::default()).expect("a generator runs here")
}

#[test]
fn every_gateway_speaks_what_it_was_asked_to() {
    let body = vec![b'x'; 200_000];
    let fleet = fleet(1);
    for kind in [Kind::Ringgate, Kind::Nginx, Kind::Haproxy, Kind::Envoy] {
        let Some(program) = program(kind) else { continue };
        for (is_http2, is_tls) in [(true, false), (true, true), (false, true)] {
            if !is_http2 && kind == Kind::Haproxy {
                continue; // what is left to show is shown by the others
            }
            let front = Front { is_http2, is_tls };
            let mut gateway = start(&program, &Setup { front, ..Setup::plain(&fleet.addresses()) });
            for body in [&[], &body[..]] {
                let measured = offered(&gateway, front, 5, body);
                let tallies = &measured.tallies;
                let seen =
                    format!("{kind} with {front:?}: {:?} {:?}", tallies.failures(), tallies.handshakes.times.len());
                assert_eq!((tallies.due(), tallies.latency.len(), tallies.statuses[200]), (100, 100, 100), "{seen}");
                assert_eq!(measured.connections_opened, 2, "{seen}");
                assert_eq!(tallies.handshakes.times.len(), if is_tls { 2 } else { 0 }, "{seen}");
            }
            if kind == Kind::Nginx && is_http2 && is_tls {
                gateway.reload().unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(offered(&gateway, front, 5, &[]).tallies.latency.len(), 100, "{kind} after a reload");
            }
        }
    }
}
