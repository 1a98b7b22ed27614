//! Every metric family moves when what it counts happens: a number that an alert watches is no use if it stands still.
//!
//! What families there are is the gateway's own word, the `# TYPE` lines of `/metrics`. One that is added and that no scene here moves
//! fails the test with its name, as does one of [`STILL`] that is gone.

use crate::operation::said;
use crate::support::dns::{Dns, Says};
use crate::support::gateway::series;
use crate::support::tls::{Authority, Session};
use crate::support::upstream::answer_each;
use crate::support::{
    Client, Driver, Gate, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, first_then, on_both_drivers,
};
use crate::tokens::JWK;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Families that nothing from outside moves, each with its reason.
const STILL: &[(&str, &str)] = &[
    ("ringgate_build_info", "always 1: its label is what it tells"),
    ("ringgate_worker_driver_info", "always 1: its label is what it tells"),
    (
        "ringgate_worker_restarts_total",
        "nothing that can be sent makes a worker fail: src/control/crew.rs does it from inside",
    ),
    (
        "ringgate_worker_panics_total",
        "nothing that can be sent makes a connection fail: src/control/crew.rs does it from inside",
    ),
    ("process_start_time_seconds", "the process begins once"),
    ("process_threads", "as many as it began with"),
    (
        "ringgate_access_log_lines_lost_total",
        "counted when nobody can ask any more: a line on standard error tells it (`a_full_disk`)",
    ),
];

const SCENES: &[fn(Driver) -> Moved] = &[
    requests,
    failing_services,
    dead_services,
    spent_budgets,
    stale_connections,
    tunnels,
    reloads,
    names,
    sessions,
    streams,
    consumers,
    fetched_keys,
    endpoints_of_http2,
    calls,
    rate_limits,
    shared_limits,
    traffic_rules,
    forgotten_clients,
    health_checks,
    crowds,
    the_process,
    a_full_disk,
    a_full_log,
    a_drain,
];

/// Families that were seen to move.
type Moved = BTreeSet<String>;

/// What `/metrics` showed at a moment.
struct Page {
    /// By family: `counter`, `gauge` or `histogram`.
    kinds: BTreeMap<String, String>,
    /// By name and labels.
    samples: BTreeMap<(String, String), f64>,
}

impl Page {
    fn of(gateway: &Gateway) -> Self {
        let text = gateway.admin("/metrics").text();
        let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let samples = text.lines().filter_map(series);
        Self {
            kinds: kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect(),
            samples: samples.map(|s| ((s.name.to_owned(), s.labels.to_owned()), s.value)).collect(),
        }
    }

    /// Whether something of the family differs from `before`: of a gauge a sample that was there, of anything else the sum, which has grown.
    fn has_moved(&self, family: &str, before: &Self) -> bool {
        let name = match self.kinds.get(family).unwrap_or_else(|| panic!("no family {family}")).as_str() {
            "gauge" => {
                let differs = |(key, value): (_, &f64)| before.samples.get(key).is_some_and(|before| before != value);
                return self.samples.iter().filter(|((name, _), _)| name == family).any(differs);
            }
            "histogram" => format!("{family}_count"),
            _ => family.to_owned(),
        };
        self.sum(&name) > before.sum(&name)
    }

    fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|((of, _), _)| of == name).map(|(_, value)| value).sum()
    }
}

/// A gateway whose metrics are compared with what they were at a moment.
struct Watched {
    gateway: Gateway,
    before: Page,
}

impl Watched {
    fn start(driver: Driver, config: &str) -> Self {
        Self::start_with(driver, &Setup { config, ..Setup::default() })
    }

    fn start_with(driver: Driver, setup: &Setup<'_>) -> Self {
        let gateway = Gateway::start_with(driver, setup);
        let before = Page::of(&gateway);
        Self { gateway, before }
    }

    fn have_moved(&self, families: &[&str]) -> bool {
        let now = Page::of(&self.gateway);
        families.iter().all(|family| now.has_moved(family, &self.before))
    }

    /// Waits until all of them have moved, and does something in between.
    fn moved_by(&self, families: &[&str], mut act: impl FnMut()) -> Moved {
        for family in families {
            eventually(family, || {
                act();
                self.have_moved(&[family]).then_some(())
            });
        }
        families.iter().map(|family| (*family).to_owned()).collect()
    }

    /// Waits until all of them have moved.
    fn moved(&self, families: &[&str]) -> Moved {
        self.moved_by(families, || ())
    }
}

/// Fails until it is told otherwise.
fn failing_until(well: &Arc<AtomicBool>) -> Upstream {
    let well = Arc::clone(well);
    Upstream::answering(
        move |_, conn| {
            if well.load(Ordering::SeqCst) { conn.reply(200, "good") } else { conn.reply(503, "bad") }
        },
    )
}

fn requests(driver: Driver) -> Moved {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let waiting = Arc::clone(&gate);
    let upstream = Upstream::answering(move |_, conn| {
        waiting.wait();
        conn.reply(200, "ok");
    });
    let log = format!("[access_log]\npath = \"{}\"\n\n", dir.path().join("access.log").display());
    let config = log + &behind(&[&upstream], "timeout = \"600s\"", "");
    let setup = Setup { listener: "header_timeout = \"600s\"", config: &config, ..Setup::default() };
    let watched = Watched::start_with(driver, &setup);
    let mut client = watched.gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    // who has sent half a head holds a block for the other half
    let mut slow = watched.gateway.client();
    slow.send("GET / HTTP/1.1\r\nHo");
    let mut moved = watched.moved(&[
        "ringgate_connections",
        "ringgate_connections_accepted_total",
        "ringgate_endpoint_in_flight",
        "ringgate_upstream_connections",
        "ringgate_worker_buffers_in_use_bytes",
        "ringgate_worker_last_turn_age_seconds",
        "ringgate_worker_loop_turns_total",
    ]);
    gate.open();
    assert_eq!(client.read("GET").status, 200);
    drop(slow);
    moved.append(&mut watched.moved(&[
        "ringgate_access_log_lines_total",
        "ringgate_request_bytes_total",
        "ringgate_request_duration_seconds",
        "ringgate_requests_total",
        "ringgate_upstream_attempts_total",
        "ringgate_upstream_duration_seconds",
        "ringgate_worker_buffers_kept_bytes",
    ]));
    moved
}

fn failing_services(driver: Driver) -> Moved {
    let well = Arc::new(AtomicBool::new(false));
    let (sick, other, fine) = (failing_until(&well), failing_until(&well), Upstream::always("good"));
    let brisk = "balance = \"round_robin\"\noutlier = { eject = \"500ms\", eject_max = \"1s\" }\n\
                 retry_budget = { ratio = 1.0, min_per_second = 1000 }";
    let watched = Watched::start(driver, &behind(&[&sick, &other, &fine], "", brisk));
    let mut client = watched.gateway.client();
    let failures = [
        "ringgate_endpoint_available",
        "ringgate_endpoint_ejections_refused_total",
        "ringgate_endpoint_ejections_total",
        "ringgate_endpoint_shunnings_total",
        "ringgate_retries_total",
    ];
    let mut moved = watched.moved_by(&failures, || drop(client.get("/")));
    well.store(true, Ordering::SeqCst);
    moved.append(&mut watched.moved_by(&["ringgate_endpoint_readmissions_total"], || drop(client.get("/"))));
    moved
}

fn dead_services(driver: Driver) -> Moved {
    let (mut dead, living) = (Upstream::always("never"), Upstream::always("ok"));
    dead.stop();
    let watched = Watched::start(driver, &behind_endpoints(&first_then(&dead, &living), "", ""));
    assert_eq!(watched.gateway.get("/").text(), "ok");
    watched.moved(&["ringgate_failovers_total"])
}

fn spent_budgets(driver: Driver) -> Moved {
    let sick = Upstream::answering(|_, conn| conn.reply(503, "bad"));
    let budget = "retry_budget = { ratio = 0.0, min_per_second = 0 }";
    let watched = Watched::start(driver, &behind(&[&sick], "", budget));
    assert_eq!(watched.gateway.get("/").status, 503);
    watched.moved(&["ringgate_retry_budget_exhausted_total"])
}

fn stale_connections(driver: Driver) -> Moved {
    // the second request of each connection meets its end
    let upstream = Upstream::scripted(|conn| {
        if conn.request().is_some() {
            conn.reply(200, "ok");
            conn.request();
            conn.reset();
        }
    });
    let calm = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 1000 }";
    let watched = Watched::start(driver, &behind(&[&upstream], "", calm));
    let mut client = watched.gateway.client();
    watched.moved_by(&["ringgate_stale_connections_total"], || assert_eq!(client.get("/").text(), "ok"))
}

fn tunnels(driver: Driver) -> Moved {
    let upstream = Upstream::scripted(|conn| {
        conn.head();
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
        conn.wait_for_close();
    });
    let watched = Watched::start(driver, &behind(&[&upstream], "", ""));
    let mut client = watched.gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.read("GET").status, 101);
    watched.moved(&["ringgate_tunnels", "ringgate_tunnels_opened_total"])
}

fn reloads(driver: Driver) -> Moved {
    let upstream = Upstream::scripted(|conn| {
        conn.head();
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
        conn.wait_for_close();
    });
    let config = behind(&[&upstream], "", "");
    let mut watched = Watched::start(driver, &config);
    let mut client = watched.gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.read("GET").status, 101);
    let file = Setup { config: &config, ..Setup::default() }.file(driver);
    watched.gateway.reload_well(&file);
    let names = ["generation", "generations_old", "reloads_total", "last_reload_timestamp_seconds"];
    let mut moved = watched.moved(&names.map(|name| format!("ringgate_config_{name}")).each_ref().map(String::as_str));
    assert_eq!(watched.gateway.reload("wrong").status, 422);
    moved.extend(watched.moved(&["ringgate_config_last_reload_success"]));
    moved
}

fn names(driver: Driver) -> Moved {
    let dns = Dns::start();
    let address = std::net::Ipv4Addr::LOCALHOST;
    dns.set("svc.test", Says::Addresses(vec![address], 0));
    let config = dns.resolver("min_ttl = \"100ms\"") + &behind_endpoints("{ address = \"svc.test:80\" }", "", "");
    let watched = Watched::start(driver, &config);
    let mut moved = watched.moved(&["ringgate_name_lookups_total", "ringgate_name_answer_age_seconds"]);
    dns.set("svc.test", Says::Addresses(vec![address, std::net::Ipv4Addr::new(127, 0, 0, 2)], 0));
    moved.extend(watched.moved(&["ringgate_name_endpoints"]));
    moved
}

fn sessions(driver: Driver) -> Moved {
    let authority = Authority::new();
    authority.sign("server", &["localhost"]);
    let config = "[[route]]\nrespond = { body = \"ok\" }\n";
    let setup = Setup { listener: &authority.listener("server"), config, ..Setup::default() };
    let mut watched = Watched::start_with(driver, &setup);
    let socket = std::net::TcpStream::connect(watched.gateway.address("edge")).unwrap();
    let _session = Session::connect(socket, authority.client(), "localhost").expect("a session");
    Client::connect(watched.gateway.address("edge")).send("GET / HTTP/1.1\r\n\r\n");
    // more than one client has places for, of handshakes that are under way
    let begun: Vec<_> = (0..520)
        .map(|_| {
            let mut socket = std::net::TcpStream::connect(watched.gateway.address("edge")).unwrap();
            std::io::Write::write_all(&mut socket, b"\x16").unwrap();
            socket
        })
        .collect();
    let names = [
        "handshakes_total",
        "handshake_failures_total",
        "handshake_duration_seconds",
        "handshakes_under_way",
        "handshakes_queued_total",
    ];
    let mut moved = watched.moved(&names.map(|name| format!("ringgate_tls_{name}")).each_ref().map(String::as_str));
    drop(begun);
    authority.sign_with("server", &["localhost"], |it| it.not_after = rcgen::date_time_ymd(2040, 1, 1));
    watched.gateway.reload_well(&setup.file(driver));
    moved.extend(watched.moved(&["ringgate_certificate_expiry_seconds"]));
    moved
}

fn streams(driver: Driver) -> Moved {
    let gate = Arc::new(Gate::default());
    let service = Upstream::holding("/held", &gate);
    let config = behind(&[&service], "", "");
    let setup = Setup { listener: "http2 = { cleartext = true }", config: &config, ..Setup::default() };
    let watched = Watched::start_with(driver, &setup);
    let mut client = Client::connect(watched.gateway.address("edge"));
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    // GET http://test/held as stream 1: HEADERS with END_HEADERS and END_STREAM
    client.send(b"\0\0\x0f\x01\x05\0\0\0\x01\x82\x86\x04\x05/held\x01\x04test");
    let mut moved = watched.moved(&["ringgate_http2_streams"]);
    client.send(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08"); // RST_STREAM, CANCEL
    moved.extend(watched.moved(&["ringgate_http2_resets_total"]));
    client.send(b"\0\0\0\0\0\0\0\0\0"); // DATA of no stream
    moved.extend(watched.moved(&["ringgate_http2_goaways_total"]));
    gate.open();
    moved
}

fn rate_limits(driver: Driver) -> Moved {
    let upstream = Upstream::always("ok");
    let limits = "limit = [ { rate = \"1/h\", burst = 1, dry_run = true }, { rate = \"2/h\", burst = 2 } ]";
    let watched = Watched::start(driver, &behind(&[&upstream], limits, ""));
    let mut client = watched.gateway.client();
    let statuses: Vec<_> = (0..3).map(|_| client.get("/").status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    for reason in ["rate_limited", "rate_limited_dry_run"] {
        let counted = || watched.gateway.metric("ringgate_rejected_total", &[("reason", reason)]);
        eventually(reason, || (counted() >= 1.0).then_some(()));
    }
    watched.moved(&["ringgate_rejected_total", "ringgate_limited_total"])
}

fn shared_limits(driver: Driver) -> Moved {
    let upstream = Upstream::always("ok");
    // nobody listens there
    let shared = "[redis]\nurl = \"redis://127.0.0.1:1\"\n[limit.all]\nrate = \"9/s\"\nshared = \"redis\"\n";
    let watched = Watched::start(driver, &behind(&[&upstream], "limit = [\"all\"]", shared));
    watched.moved(&["ringgate_redis_exchanges_total"])
}

fn traffic_rules(driver: Driver) -> Moved {
    let upstream = Upstream::always("ok");
    let watched = Watched::start(driver, &behind(&[&upstream], "fault = { abort = { status = 500 } }", ""));
    assert_eq!(watched.gateway.get("/").status, 500);
    watched.moved(&["ringgate_traffic_events_total"])
}

fn consumers(driver: Driver) -> Moved {
    let key = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"; // of "key"
    let config = format!(
        "[[route]]\nauth = [\"key\"]\nrespond = {{ body = \"ok\" }}\n[auth.key]\nheader = \"x-key\"\n\
         [consumer.acme]\nkeys = [{{ sha256 = \"{key}\" }}]\n"
    );
    let watched = Watched::start(driver, &config);
    assert_eq!(watched.gateway.request("GET", "/", &[("X-Key", "key")], b"").status, 200);
    watched.moved(&["ringgate_consumer_requests_total", "ringgate_consumer_bytes_total"])
}

fn fetched_keys(driver: Driver) -> Moved {
    let authority = Authority::shared();
    let gate = Arc::new(Gate::default());
    let waits = Arc::clone(&gate);
    let script = answer_each(move |_, conn| {
        waits.wait();
        conn.reply(200, &format!("{{\"keys\":[{JWK}]}}"));
    });
    let issuer = Upstream::encrypted(authority.server("server"), script);
    let config = format!(
        "[[route]]\nauth = [\"jwt\"]\nrespond = {{}}\n[auth.jwt]\njwks = \"https://{}/\"\nalgorithms = [\"EdDSA\"]\ntls = {{ ca = \"{}\" }}\n",
        issuer.address(),
        authority.ca()
    );
    let watched = Watched::start(driver, &config);
    gate.open();
    watched.moved(&[
        "ringgate_jwks_fetches_total",
        "ringgate_jwks_last_success_timestamp_seconds",
        "ringgate_jwks_keys",
    ])
}

fn endpoints_of_http2(driver: Driver) -> Moved {
    let service = Upstream::always("text of HTTP/1.1");
    let watched = Watched::start(driver, &behind(&[&service], "", "protocol = \"h2\""));
    assert_eq!(watched.gateway.get("/").status, 502);
    watched.moved(&["ringgate_endpoint_http2_failures_total"])
}

fn calls(driver: Driver) -> Moved {
    let service = Upstream::always("ok");
    let config = behind(&[&service], "deny = { method = [\"POST\"] }", "");
    let setup = Setup { listener: "http2 = { cleartext = true }", config: &config, ..Setup::default() };
    let watched = Watched::start_with(driver, &setup);
    let mut client = Client::connect(watched.gateway.address("edge"));
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    // POST http://test/a.B/C of application/grpc as stream 1, without a body
    client.send(b"\0\0\x23\x01\x05\0\0\0\x01\x83\x86\x04\x06/a.B/C\x01\x04test\x0f\x10\x10application/grpc");
    watched.moved(&["ringgate_grpc_requests_total"])
}

/// The table has 2^18 lines of four clients each. A line has a fifth one, all of them in debt, after some 60,000 clients: it is the birthday
/// problem. With eight limits a request is eight clients.
fn forgotten_clients(driver: Driver) -> Moved {
    const AT_ONCE: usize = 128;
    let limits: Vec<_> =
        (1..=8).map(|rate| format!("{{ rate = \"{rate}/h\", burst = 1, per = \"header:x-key\" }}")).collect();
    let config = format!(
        "[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"ok\" }}\nlimit = [ {} ]\n",
        limits.join(", ")
    );
    let watched = Watched::start(driver, &config);
    let mut client = watched.gateway.client();
    let mut keys = 0..;
    watched.moved_by(&["ringgate_rate_limit_evictions_total"], || {
        for _ in 0..8 {
            let requests = keys
                .by_ref()
                .take(AT_ONCE)
                .map(|key: u32| format!("GET / HTTP/1.1\r\nHost: x\r\nX-Key: {key}\r\n\r\n"));
            client.send(requests.collect::<String>());
            for _ in 0..AT_ONCE {
                assert_eq!(client.read("GET").status, 200);
            }
        }
    })
}

fn health_checks(driver: Driver) -> Moved {
    let well = Arc::new(AtomicBool::new(true));
    let upstream = failing_until(&well);
    let check = "health_check = { path = \"/\", interval = \"100ms\", timeout = \"60s\", fall = 1 }";
    let mut watched = Watched::start(driver, &behind(&[&upstream], "", check));
    let mut moved = watched.moved(&["ringgate_health_checks_total"]);
    // what is not there before the first check
    let healthy = || watched.gateway.metric("ringgate_health_check_healthy", &[]);
    eventually("it is found healthy", || (healthy() == 1.0).then_some(()));
    watched.before = Page::of(&watched.gateway);
    well.store(false, Ordering::SeqCst);
    moved.append(&mut watched.moved(&[
        "ringgate_health_check_age_seconds",
        "ringgate_health_check_failures_total",
        "ringgate_health_check_healthy",
    ]));
    moved
}

fn crowds(driver: Driver) -> Moved {
    let upstream = Upstream::always("ok");
    let config = behind(&[&upstream], "", "");
    let setup = Setup { listener: "max_connections = 2", config: &config, ..Setup::default() };
    let mut watched = Watched::start_with(driver, &setup);
    let mut first = watched.gateway.client();
    assert_eq!(first.get("/").status, 200);
    let before = watched.gateway.running().limit_descriptors("1");
    let mut second = watched.gateway.client();
    second.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    said(&mut watched.gateway, &["ERROR", "connections wait"]);
    watched.gateway.running().limit_descriptors(&before);
    assert_eq!(second.read("GET").status, 200);
    watched.gateway.client().assert_closed();
    watched.moved(&["ringgate_accept_exhausted_total", "ringgate_connections_refused_total"])
}

/// Half a head, in so many blocks that memory has to be had from the system.
fn the_process(driver: Driver) -> Moved {
    let config = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nrespond = { status = 200, body = \"ok\" }\n";
    let setup = Setup { listener: "header_timeout = \"600s\"", config, ..Setup::default() };
    let mut watched = Watched::start_with(driver, &setup);
    let _ = watched.gateway.running().limit_descriptors("4096");
    let (address, mut held) = (watched.gateway.address("edge").to_owned(), Vec::new());
    let half = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(6_000));
    let families = [
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
    ];
    watched.moved_by(&families, || {
        // not without end, should one of them stand still
        for _ in 0..if held.len() < 2_000 { 20 } else { 0 } {
            let mut client = Client::connect(&address);
            client.send(&half);
            held.push(client);
        }
    })
}

fn a_full_disk(driver: Driver) -> Moved {
    let config = "[access_log]\npath = \"/dev/full\"\n\n\
                  [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nrespond = { status = 200, body = \"ok\" }\n";
    let mut watched = Watched::start(driver, config);
    let mut client = watched.gateway.client();
    // three fields of two KiB: what waits for the disk, in the ring and behind it, is full after some hundred of them
    let long = "x".repeat(2_000);
    let request = format!("GET /{long} HTTP/1.1\r\nHost: x\r\nUser-Agent: {long}\r\nReferer: {long}\r\n\r\n");
    let moved = watched.moved_by(
        &["ringgate_access_log_write_errors_total", "ringgate_worker_log_lines_dropped_total"],
        || {
            client.send(request.repeat(32));
            for _ in 0..32 {
                assert_eq!(client.read("GET").status, 200);
            }
        },
    );
    drop(client);
    watched.gateway.running().signal("TERM");
    assert_eq!(watched.gateway.running().wait().code(), Some(0));
    said(&mut watched.gateway, &["WARN", "access log", "lost lines="]);
    moved
}

fn a_full_log(driver: Driver) -> Moved {
    let config = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nrespond = { status = 200, body = \"ok\" }\n";
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let gateway = Gateway::start_telling(driver, config, full);
    let mut watched = Watched { before: Page::of(&gateway), gateway };
    watched.gateway.running().signal("HUP");
    watched.moved(&["ringgate_log_lines_lost_total"])
}

fn a_drain(driver: Driver) -> Moved {
    let gate = Arc::new(Gate::default());
    let waiting = Arc::clone(&gate);
    let upstream = Upstream::answering(move |_, conn| {
        waiting.wait();
        conn.reply(200, "ok");
    });
    let config = behind(&[&upstream], "timeout = \"600s\"", "");
    let setup = Setup { workers: 2, drain_timeout: "600s", config: &config, ..Setup::default() };
    let mut watched = Watched::start_with(driver, &setup);
    let mut client = watched.gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually("the request is with the service", || (upstream.requests().len() == 1).then_some(()));
    watched.gateway.running().signal("TERM");
    // the worker that has no request has nothing left to do
    let moved = watched.moved(&["ringgate_worker_running"]);
    assert_eq!(watched.gateway.metric("ringgate_worker_running", &[]), 1.0);
    gate.open();
    assert_eq!(client.read("GET").status, 200);
    assert_eq!(watched.gateway.running().wait().code(), Some(0));
    moved
}

on_both_drivers! {
    fn every_family_moves(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let exported: BTreeSet<String> = Page::of(&gateway).kinds.into_keys().collect();
        let moved: Moved = SCENES.iter().flat_map(|scene| scene(driver)).collect();
        let still: BTreeSet<String> = STILL.iter().map(|(family, _)| (*family).to_owned()).collect();
        assert_eq!(moved.intersection(&still).next(), None, "it moves and is said not to");
        let known: BTreeSet<String> = moved.union(&still).cloned().collect();
        assert_eq!(exported.difference(&known).collect::<Vec<_>>(), [""; 0], "exported, and no scene moves it");
        assert_eq!(known.difference(&exported).collect::<Vec<_>>(), [""; 0], "known here, and not exported");
    }

    fn what_the_readme_names_is_exported(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let exported = Page::of(&gateway).kinds;
        for file in ["README.md", "CHANGELOG.md"] {
            let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<_> = words.filter(|word| word.strip_prefix("ringgate_").is_some_and(|rest| !rest.is_empty())).collect();
            assert!(!names.is_empty(), "{file}");
            for name in names {
                // a name may be a histogram's series, or the beginning of several (`…_{a,b}`)
                let series = |family: &str| ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(family));
                let is_meant = |family: &String| name == family || series(family) || name.ends_with('_') && family.starts_with(name);
                assert!(exported.keys().any(is_meant), "{file}: {name}");
            }
        }
    }
}
