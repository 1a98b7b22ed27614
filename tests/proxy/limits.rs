//! Rate and concurrency limits: exact over all workers, told to the client, and silent when they only watch.

use crate::support::{Client, Driver, Gate, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A service that answers `/hold` only when let through.
fn holding(gate: &Arc<Gate>) -> Upstream {
    let gate = Arc::clone(gate);
    Upstream::answering(move |request, conn| {
        if request.target == "/hold" {
            gate.wait();
        }
        conn.reply(200, "ok");
    })
}

/// Tries of a measurement for which the machine may be too busy.
const MEASUREMENTS: usize = 5;

/// Offers more than the limit allows for three seconds; false when nothing can be said, because the machine stood still meanwhile.
fn is_exact_at(driver: Driver, connections: usize, rate: f64, burst: f64) -> bool {
    let upstream = Upstream::always("ok");
    let limit = format!("limit = [ {{ rate = \"{rate}/s\", burst = {burst}, per = \"route\" }} ]");
    let config = behind(&[&upstream], &limit, "");
    let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
    let clients: Vec<_> = (0..connections).map(|_| gateway.client()).collect();
    let Hammered { admitted, began, rejections } = hammer(clients, Duration::from_secs(3));
    let most = burst + rate * began.elapsed().as_secs_f64();
    assert!(admitted as f64 <= most, "{admitted} admitted, {most} allowed, {connections} connections");
    // empty at a rejection, the bucket takes a second to be full again: nothing was lost while rejections were closer than that
    let Some(gap) = rejections.windows(2).map(|two| two[1] - two[0]).max() else { return false };
    if gap >= Duration::from_millis(800) {
        return false;
    }
    let since_empty = rejections[rejections.len() - 1] - rejections[0];
    let least = 0.98 * (burst + rate * since_empty.as_secs_f64()) - 32.0;
    assert!(admitted as f64 >= least, "{admitted} admitted, {least} due, {connections} connections");
    true
}

on_both_drivers! {
    fn above_the_rate_is_429_with_what_a_client_needs_to_know(driver: Driver) {
        let upstream = Upstream::always("ok");
        let limit = "limit = [ { rate = \"3/h\", burst = 3, per = \"route\" } ]";
        let gateway = Gateway::start(driver, &behind(&[&upstream], limit, ""));
        let mut client = gateway.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").status, 200);
        }
        let refused = client.get("/");
        refused.assert_rejected(429, "rate_limited");
        let wait: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((1..=1200).contains(&wait), "one token comes in 20 minutes, not in {wait} s");
        let left = refused.header("ratelimit").expect("RateLimit");
        assert!(left.contains(";r=0") && left.contains(";t="), "{left}");
        let policy = refused.header("ratelimit-policy").expect("RateLimit-Policy");
        assert!(policy.contains(";q=3") && policy.contains(";w=3600"), "{policy}");
        assert_eq!(client.get("/").status, 429, "the connection stays");
        assert_eq!(upstream.requests().len(), 3);
        eventually("it is counted", || {
            (gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "rate_limited")]) == 2.0).then_some(())
        });
    }

    fn each_header_value_has_its_own_count(driver: Driver) {
        let upstream = Upstream::always("ok");
        let limit = "limit = [ { rate = \"2/h\", burst = 2, per = \"header:X-Key\" } ]";
        let gateway = Gateway::start(driver, &behind(&[&upstream], limit, ""));
        let mut client = gateway.client();
        for key in ["a", "b"] {
            let statuses: Vec<_> = (0..3).map(|_| client.request("GET", "/", &[("X-Key", key)], b"").status).collect();
            assert_eq!(statuses, [200, 200, 429], "{key}");
        }
    }

    fn each_client_address_has_its_own_count(driver: Driver) {
        let upstream = Upstream::always("ok");
        let limit = "limit = [ { rate = \"2/h\", burst = 2, per = \"client_ip\" } ]";
        let gateway = Gateway::start(driver, &behind(&[&upstream], limit, ""));
        for source in ["127.0.0.2", "127.0.0.3"] {
            let statuses: Vec<_> =
                (0..3).map(|_| Client::connect_from(source, gateway.address("edge")).get("/").status).collect();
            assert_eq!(statuses, [200, 200, 429], "{source}");
        }
    }

    fn a_dry_run_counts_and_rejects_nobody(driver: Driver) {
        let upstream = Upstream::always("ok");
        let limit = "limit = [ { rate = \"1/h\", burst = 1, per = \"route\", dry_run = true } ]";
        let gateway = Gateway::start(driver, &behind(&[&upstream], limit, ""));
        let mut client = gateway.client();
        for _ in 0..5 {
            let response = client.get("/");
            assert_eq!((response.status, response.header("retry-after")), (200, None));
        }
        eventually("it is counted", || {
            let labels = [("route", "all"), ("reason", "rate_limited_dry_run")];
            (gateway.metric("ringgate_rejected_total", &labels) == 4.0).then_some(())
        });
    }

    fn routes_and_listeners_share_limits_by_their_names(driver: Driver) {
        let upstream = Upstream::always("ok");
        let shared = "[limit.keys]\nrate = \"2/h\"\nburst = 2\nper = [\"header:X-Key\", \"cookie:plan\"]\n\
            [limit.everybody]\nrate = \"6/h\"\nburst = 6\n";
        let config = behind(&[&upstream], "limit = [\"keys\"]", shared);
        let second = "[[route]]\nname = \"second\"\nmatch = { path = \"/second\" }\nupstream = \"svc\"\nlimit = [\"keys\"]\n";
        let config = format!("{config}{second}");
        let listener = "limit = [\"everybody\"]\n";
        let setup = Setup { workers: 2, config: &config, listener, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let ask = |path: &str, key: &str, plan: &str| {
            let cookie = format!("a=b; plan={plan}");
            gateway.client().request("GET", path, &[("X-Key", key), ("Cookie", &cookie)], b"")
        };
        assert_eq!([ask("/", "k", "x").status, ask("/second", "k", "x").status], [200, 200]);
        let refused = ask("/", "k", "x");
        refused.assert_rejected(429, "rate_limited");
        assert!(refused.header("ratelimit").is_some_and(|limit| limit.starts_with("\"keys\";r=0")), "{refused:?}");
        let policy = refused.header("ratelimit-policy").expect("RateLimit-Policy");
        assert!(policy.contains("\"everybody\";q=6") && policy.contains("\"keys\";q=2"), "{policy}");
        assert_eq!([ask("/", "k", "y").status, ask("/second", "l", "x").status], [200, 200], "another combination");
        assert_eq!([ask("/", "m", "").status, ask("/", "n", "").status], [200, 200], "six of six");
        let refused = ask("/second", "o", "");
        refused.assert_rejected(429, "rate_limited");
        assert!(refused.header("ratelimit").is_some_and(|limit| limit.starts_with("\"everybody\"")), "{refused:?}");
    }

    fn requests_take_what_they_cost_and_each_limit_counts_whom_it_has_rejected(driver: Driver) {
        let upstream = Upstream::always("ok");
        let shared = "[limit.work]\nrate = \"10/h\"\nburst = 10\n";
        let limit = "limit = [ { name = \"work\", cost = 4 }, { rate = \"9/h\", burst = 9, cost = 5, dry_run = true } ]";
        let gateway = Gateway::start(driver, &behind(&[&upstream], limit, shared));
        let mut client = gateway.client();
        assert_eq!([client.get("/").status, client.get("/").status], [200, 200]);
        let refused = client.get("/");
        refused.assert_rejected(429, "rate_limited");
        assert!(refused.header("ratelimit").is_some_and(|limit| limit.starts_with("\"work\";r=2;t=")), "{refused:?}");
        for (limit, dry_run) in [("work", "false"), ("all-1", "true")] {
            let counted = || gateway.metric("ringgate_limited_total", &[("limit", limit), ("dry_run", dry_run)]);
            eventually("it is counted", || (counted() == 1.0).then_some(()));
        }
    }

    fn a_response_says_what_its_request_has_cost(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            let cost = request.header("x-ask").unwrap_or_default();
            conn.send(format!("HTTP/1.1 200 OK\r\nX-Cost: {cost}\r\nContent-Length: 0\r\n\r\n"));
        });
        let limit = "limit = [ { rate = \"100/h\", burst = 100, per = \"header:X-Key\", cost = 2, cost_header = \"X-Cost\" } ]";
        let config = behind(&[&upstream], limit, "");
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        let ask = |key: &str, cost: &str| gateway.request("GET", "/", &[("X-Key", key), ("X-Ask", cost)], b"");
        assert_eq!(["", "-5", "1", "7e", "2"].map(|cost| ask("a", cost).status), [200; 5], "ten tokens");
        assert_eq!(ask("a", "90").status, 200, "all that is left");
        let refused = ask("a", "1");
        refused.assert_rejected(429, "rate_limited");
        assert_eq!(ask("b", "999999999999").status, 200, "another one");
        // below zero, by a burst: two more tokens are there after 102 of them have come
        let wait = |key: &str| ask(key, "1").header("retry-after").expect("429").parse::<u64>().expect("seconds");
        assert!((3_600..=3_672).contains(&wait("b")), "{}", wait("b"));
        assert!((36..=72).contains(&wait("a")), "{}", wait("a"));
    }

    fn each_client_has_so_many_requests_at_once_however_they_end(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = holding(&gate);
        let shared = "[limit.few]\nconcurrency = 2\nper = \"header:X-Key\"\n";
        let config = behind(&[&upstream], "limit = [\"few\"]\ntimeout = \"600s\"", shared);
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        let hold = || {
            let mut client = gateway.client();
            client.send("GET /hold HTTP/1.1\r\nHost: x\r\nX-Key: a\r\n\r\n");
            client
        };
        let ask = |key: &str| gateway.request("GET", "/", &[("X-Key", key)], b"");
        for round in 1..=8 {
            let (mut one, two) = (hold(), hold());
            eventually("both are with the service", || {
                let held = upstream.requests().iter().filter(|request| request.target == "/hold").count();
                (held == 2 * round).then_some(())
            });
            let refused = ask("a");
            refused.assert_rejected(429, "rate_limited");
            assert_eq!(refused.header("ratelimit"), Some("\"few\";r=0;t=0"));
            assert_eq!(refused.header("ratelimit-policy"), Some("\"few\";q=2;qu=\"concurrent-requests\""));
            assert_eq!(ask("b").status, 200);
            // they leave, one of them with more to say
            drop(two);
            one.send("POST / HTTP/1.1\r\nHost: x\r\nX-K");
            drop(one);
            let connections = || gateway.metric("ringgate_connections", &[("listener", "edge")]);
            eventually("both are gone", || (connections() == 0.0).then_some(()));
            assert_eq!(ask("a").status, 200, "the places are free again");
        }
        gate.open();
        let mut again = gateway.client();
        assert!((0..9).all(|_| again.request("GET", "/hold", &[("X-Key", "a")], b"").status == 200), "none is lost");
        let counted = || gateway.metric("ringgate_limited_total", &[("limit", "few"), ("dry_run", "false")]);
        eventually("it is counted", || (counted() == 8.0).then_some(()));
    }

    fn a_tunnel_holds_its_place_to_its_end(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
            conn.wait_for_close();
        });
        let config = behind(&[&upstream], "limit = [{ concurrency = 1, per = \"client_ip\" }]", "");
        let gateway = Gateway::start(driver, &config);
        let head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        for _ in 0..5 {
            let mut tunnel = eventually("there is a place", || {
                let mut client = gateway.client();
                client.send(head);
                (client.read("GET").status == 101).then_some(client)
            });
            gateway.get("/").assert_rejected(429, "rate_limited");
            tunnel.send("more");
        }
    }

    fn a_quota_is_each_clients_own_and_says_when_there_is_more(driver: Driver) {
        let upstream = Upstream::always("ok");
        let limit = "limit = [{ quota = \"3/month\", per = \"header:X-Key\" }]";
        let config = behind(&[&upstream], limit, "");
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        let ask = |key: &str| gateway.request("GET", "/", &[("X-Key", key)], b"");
        assert_eq!([(); 3].map(|()| ask("a").status), [200; 3]);
        let refused = ask("a");
        refused.assert_rejected(429, "rate_limited");
        assert_eq!(refused.header("ratelimit-policy"), Some("\"all\";q=3"));
        let wait: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((1..=31 * 86_400).contains(&wait), "{wait}");
        assert_eq!(ask("b").status, 200);
    }

    fn every_limit_of_a_route_must_admit(driver: Driver) {
        let upstream = Upstream::always("ok");
        let limit = "limit = [ { rate = \"100/h\", burst = 100, per = \"route\" }, { rate = \"2/h\", burst = 2, per = \"client_ip\" } ]";
        let gateway = Gateway::start(driver, &behind(&[&upstream], limit, ""));
        let mut client = gateway.client();
        let statuses: Vec<_> = (0..4).map(|_| client.get("/").status).collect();
        assert_eq!(statuses, [200, 200, 429, 429]);
    }

    fn a_low_rate_is_exact_over_two_workers(driver: Driver) {
        let upstream = Upstream::always("ok");
        let limit = "limit = [ { rate = \"10/h\", burst = 100, per = \"route\" } ]";
        let config = behind(&[&upstream], limit, "");
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        // many connections, so that the kernel gives some to each worker
        let mut clients: Vec<_> = (0..32).map(|_| gateway.client()).collect();
        let admitted = (0..10).flat_map(|_| clients.iter_mut().map(|client| client.get("/").status).collect::<Vec<_>>());
        // a token comes in six minutes: none does during the test
        assert_eq!(admitted.filter(|status| *status == 200).count(), 100);
    }

    fn a_high_rate_is_exact_over_two_workers_however_the_load_falls(driver: Driver) {
        const RATE: f64 = 500.0;
        const BURST: f64 = 500.0;
        for connections in [1, 16] {
            // on a busy machine again, and again, until something can be said
            let said = (0..MEASUREMENTS).any(|_| is_exact_at(driver, connections, RATE, BURST));
            println!("{connections} connections: {}", if said { "exact" } else { "the machine was too busy to tell" });
        }
    }

    fn a_route_has_at_most_so_many_requests_at_once(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = holding(&gate);
        let config = behind(&[&upstream], "max_concurrent = 2\ntimeout = \"600s\"", "");
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        let mut held: Vec<_> = (0..2).map(|_| gateway.client()).collect();
        for client in &mut held {
            client.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        eventually("both are with the service", || (upstream.requests().len() == 2).then_some(()));
        for _ in 0..8 {
            gateway.get("/").assert_rejected(503, "concurrency_limited");
        }
        gate.open();
        for client in &mut held {
            assert_eq!(client.read("GET").status, 200);
        }
        eventually("the places are free again", || (gateway.get("/").status == 200).then_some(()));
    }

    fn an_endpoint_has_at_most_so_many_requests_at_once(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = holding(&gate);
        let config = behind(&[&upstream], "timeout = \"600s\"", "max_requests = 1");
        let gateway = Gateway::start(driver, &config);
        let mut held = gateway.client();
        held.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually("it is with the service", || (upstream.requests().len() == 1).then_some(()));
        gateway.get("/").assert_rejected(503, "upstream_saturated");
        gate.open();
        assert_eq!(held.read("GET").status, 200);
        eventually("the place is free again", || (gateway.get("/").status == 200).then_some(()));
    }

    fn a_listener_takes_at_most_so_many_connections(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "max_connections = 2", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut first = gateway.client();
        let mut second = gateway.client();
        assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
        let third = Client::try_connect(gateway.address("edge")).and_then(|mut client| client.try_get("/"));
        assert!(third.is_err(), "a third connection was served: {third:?}");
        drop(first);
        eventually("there is room again", || {
            let again = Client::try_connect(gateway.address("edge")).and_then(|mut client| client.try_get("/"));
            again.is_ok_and(|response| response.status == 200).then_some(())
        });
    }
}

/// What became of a storm of requests.
struct Hammered {
    admitted: usize,
    /// When the first request was sent.
    began: Instant,
    /// When requests were sent that were rejected, in order.
    rejections: Vec<Instant>,
}

/// Asks as fast as it goes for `duration` and then until every client was rejected once more.
fn hammer(clients: Vec<Client>, duration: Duration) -> Hammered {
    // several at once, so that even one client asks for more than there is on a machine that does other things as well
    const AT_ONCE: usize = 16;
    let admitted = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let mut rejections: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let (admitted, over) = (&admitted, &over);
                scope.spawn(move || {
                    let mut rejections = Vec::new();
                    loop {
                        let sent = Instant::now();
                        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(AT_ONCE));
                        let count = (0..AT_ONCE).filter(|_| was_admitted(&mut client)).count();
                        admitted.fetch_add(count, Ordering::SeqCst);
                        if count < AT_ONCE {
                            rejections.push(sent);
                            if over.load(Ordering::SeqCst) {
                                return rejections;
                            }
                        }
                        if sent.duration_since(began) >= duration {
                            over.store(true, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
    });
    rejections.sort_unstable();
    Hammered { admitted: admitted.into_inner(), began, rejections }
}

fn was_admitted(client: &mut Client) -> bool {
    match client.read("GET").status {
        200 => true,
        429 => false,
        status => panic!("status {status}"),
    }
}
