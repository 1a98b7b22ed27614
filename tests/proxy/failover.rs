//! Endpoints that die, fail, come back, and stand in tiers: what clients see of it, which is nothing.

use crate::support::load::assert_no_failure_while;
use crate::support::{
    Driver, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, first_then, on_both_drivers,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Ejections short enough to wait for, and retries that a handful of requests can pay for.
const BRISK: &str = "outlier = { consecutive = 3, eject = \"200ms\", eject_max = \"400ms\" }\nslow_start = \"200ms\"\n\
     retry_budget = { ratio = 1.0, min_per_second = 100 }";

/// A service whose answers are 503 while the switch is on.
fn failing_while(switch: &Arc<AtomicBool>) -> Upstream {
    let switch = Arc::clone(switch);
    Upstream::answering(
        move |_, conn| {
            if switch.load(Ordering::SeqCst) { conn.reply(503, "bad") } else { conn.reply(200, "good") }
        },
    )
}

/// Whether every worker would send the endpoint requests.
fn is_available(gateway: &Gateway, endpoint: &Upstream) -> bool {
    gateway.metric("ringgate_endpoint_available", &[("upstream", "svc"), ("endpoint", endpoint.address())]) > 0.0
}

on_both_drivers! {
    fn killing_one_of_two_services_under_load_loses_no_request(driver: Driver) {
        let (mut dying, living) = (Upstream::always("ok"), Upstream::always("ok"));
        let config = behind(&[&dying, &living], "", "outlier = { consecutive = 3, eject = \"200ms\", eject_max = \"400ms\" }");
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        assert_no_failure_while(&gateway, |load| {
            load.goes_on_for(300);
            for _ in 0..3 {
                dying.stop();
                load.goes_on_for(300);
                dying.start();
                let before = dying.requests().len();
                eventually("the service gets requests again", || {
                    (dying.requests().len() > before + 20 || load.has_failed()).then_some(())
                });
            }
        });
    }

    fn a_service_that_keeps_failing_is_ejected_and_returns(driver: Driver) {
        let failing = Arc::new(AtomicBool::new(false));
        let (sick, well) = (failing_while(&failing), Upstream::always("good"));
        let gateway = Gateway::start(driver, &behind(&[&sick, &well], "", &format!("balance = \"round_robin\"\n{BRISK}")));
        let mut client = gateway.client();
        failing.store(true, Ordering::SeqCst);
        eventually("the failing service is ejected", || {
            assert_eq!(client.get("/").text(), "good", "the retry goes to the other one");
            (!is_available(&gateway, &sick)).then_some(())
        });
        assert!(gateway.metric("ringgate_endpoint_ejections_total", &[("endpoint", sick.address())]) >= 1.0);
        assert!(is_available(&gateway, &well));
        failing.store(false, Ordering::SeqCst);
        let before = sick.requests().len();
        eventually("the service returns", || {
            assert_eq!(client.get("/").text(), "good");
            (sick.requests().len() > before + 5 && is_available(&gateway, &sick)).then_some(())
        });
    }

    fn a_service_that_never_listened_costs_no_request(driver: Driver) {
        let (mut absent, present) = (Upstream::always("absent"), Upstream::always("present"));
        absent.stop();
        let gateway = Gateway::start(driver, &behind(&[&absent, &present], "", ""));
        for _ in 0..30 {
            assert_eq!(gateway.get("/").text(), "present");
        }
    }

    fn the_last_service_is_not_ejected(driver: Driver) {
        let failing = Arc::new(AtomicBool::new(true));
        let only = failing_while(&failing);
        let gateway = Gateway::start(driver, &behind(&[&only], "[route.retry]\nattempts = 0", BRISK));
        let mut client = gateway.client();
        for _ in 0..20 {
            let response = client.get("/");
            assert_eq!((response.status, response.text().as_str()), (503, "bad"), "its own answer is passed on");
        }
        failing.store(false, Ordering::SeqCst);
        assert_eq!(client.get("/").text(), "good");
    }

    fn without_an_endpoint_to_try_there_is_a_503(driver: Driver) {
        let drained = Upstream::always("never");
        let endpoint = format!("{{ address = \"{}\", weight = 0 }}", drained.address());
        let gateway = Gateway::start(driver, &behind_endpoints(&endpoint, "", ""));
        gateway.get("/").assert_rejected(503, "no_healthy_endpoint");
        assert_eq!(drained.connections(), 0);
    }

    fn when_all_refuse_the_reply_says_so(driver: Driver) {
        let (mut a, mut b) = (Upstream::always("a"), Upstream::always("b"));
        a.stop();
        b.stop();
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &behind(&[&a, &b], "", ""), ..Setup::default() });
        for method in ["GET", "POST"].into_iter().cycle().take(20) {
            let response = gateway.request(method, "/", &[], b"x");
            response.assert_rejected(503, "no_healthy_endpoint");
            assert!(response.header("retry-after").is_some());
        }
        let refused = gateway.metric("ringgate_upstream_attempts_total", &[("outcome", "connect_failed")]);
        assert!(refused >= 10.0, "both are asked until they are known to be dead: {refused}");
        a.start();
        eventually("it is seen to be back", || (gateway.get("/").status == 200).then_some(()));
        assert!((0..50).all(|_| gateway.get("/").status == 200));
        let by = |reason| gateway.metric("ringgate_endpoint_readmissions_total", &[("endpoint", a.address()), ("reason", reason)]);
        eventually("its return is counted", || (by("last_resort") + by("probe") >= 1.0).then_some(()));
    }

    fn any_number_of_dead_endpoints_fails_nobody_and_is_learned_once_for_all_workers(driver: Driver) {
        let living = Upstream::always("ok");
        let dead: Vec<_> = (0..5).map(|_| { let mut dead = Upstream::always("never"); dead.stop(); dead }).collect();
        let all: Vec<&Upstream> = dead.iter().chain([&living]).collect();
        let config = behind(&all, "[route.retry]\nattempts = 0", "retry_budget = { ratio = 0.0, min_per_second = 0 }");
        let gateway = Gateway::start_with(driver, &Setup { workers: 4, config: &config, ..Setup::default() });
        for method in ["GET", "POST"].into_iter().cycle().take(300) {
            assert_eq!(gateway.request(method, "/", &[], b"body").text(), "ok", "{method}");
        }
        for endpoint in &dead {
            let outcome = |outcome| gateway.metric("ringgate_upstream_attempts_total", &[("endpoint", endpoint.address()), ("outcome", outcome)]);
            assert!(outcome("connect_failed") <= 8.0, "five, and those on their way meanwhile: {}", outcome("connect_failed"));
            let ejections = gateway.metric("ringgate_endpoint_ejections_total", &[("endpoint", endpoint.address())]);
            assert!(ejections <= 1.0, "once, not by each worker: {ejections}");
        }
        let attempts = gateway.metric("ringgate_upstream_attempts_total", &[]);
        assert_eq!(gateway.metric("ringgate_failovers_total", &[]), attempts - 300.0);
        assert_eq!(gateway.metric("ringgate_retries_total", &[]), 0.0);
    }

    fn an_ejected_endpoint_that_is_back_serves_when_the_other_one_goes(driver: Driver) {
        let (mut a, mut b) = (Upstream::always("ok"), Upstream::always("ok"));
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &behind(&[&a, &b], "", ""), ..Setup::default() });
        a.stop();
        eventually("a is ejected", || {
            assert_eq!(gateway.get("/").text(), "ok");
            (!is_available(&gateway, &a)).then_some(())
        });
        a.start();
        b.stop();
        for _ in 0..40 {
            assert_eq!(gateway.get("/").text(), "ok", "the ejection is a hint");
        }
    }

    fn soft_failures_eject_half_and_shun_the_rest(driver: Driver) {
        let sick: Vec<_> = (0..2).map(|_| Upstream::answering(|_, conn| conn.reply(500, "bad"))).collect();
        let well = Upstream::always("good");
        let gateway = Gateway::start(driver, &behind(&[&sick[0], &sick[1], &well], "", "balance = \"round_robin\""));
        let mut client = gateway.client();
        eventually("one is ejected, the other one shunned", || {
            client.get("/");
            let shunned = gateway.metric("ringgate_endpoint_shunnings_total", &[("reason", "consecutive_failures")]);
            (shunned == 1.0).then_some(())
        });
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 1.0);
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_refused_total", &[]), 1.0);
        assert!((0..20).all(|_| client.get("/").text() == "good"));
    }

    fn a_429_speaks_about_the_client_and_a_503_pauses_but_never_the_last(driver: Driver) {
        for (status, share) in [(429, 30), (503, 1)] {
            let services: Vec<_> = (0..2).map(|i| Upstream::answering(move |request, conn| match request.target.as_str() {
                "/busy" => drop(conn.send(format!("HTTP/1.1 {status} Busy\r\nRetry-After: 30\r\nContent-Length: 4\r\n\r\nbusy"))),
                _ => conn.reply(200, if i == 0 { "a" } else { "b" }),
            })).collect();
            let route = "[route.retry]\nattempts = 0";
            let gateway = Gateway::start(driver, &behind(&services.iter().collect::<Vec<_>>(), route, "balance = \"round_robin\""));
            let mut client = gateway.client();
            for _ in 0..2 {
                assert_eq!(client.get("/busy").status, status);
            }
            let answers: Vec<_> = (0..60).map(|_| client.get("/").text()).collect();
            let of_a = answers.iter().filter(|answer| *answer == "a").count();
            assert!(of_a.min(60 - of_a) <= share && (status == 503 || of_a == 30), "{status}: {of_a} of 60");
        }
    }

    fn a_hung_endpoint_costs_a_get_a_fraction_of_a_second_once_the_route_is_known(driver: Driver) {
        let hangs = Arc::new(AtomicBool::new(false));
        let hanging = {
            let hangs = Arc::clone(&hangs);
            Upstream::answering(move |_, conn| {
                if hangs.load(Ordering::SeqCst) { conn.wait_for_close() } else { conn.reply(200, "ok") }
            })
        };
        let well = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&hanging, &well], "", "balance = \"round_robin\""));
        let mut client = gateway.client();
        for _ in 0..30 {
            assert_eq!(client.get("/").text(), "ok");
        }
        hangs.store(true, Ordering::SeqCst);
        for _ in 0..10 {
            let sent = Instant::now();
            assert_eq!(client.get("/").text(), "ok");
            // the fair share of its thirty seconds would be ten
            assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());
        }
        assert!(gateway.metric("ringgate_retries_total", &[("reason", "timeout")]) >= 1.0);
    }

    fn without_its_hash_key_a_request_goes_anywhere(driver: Driver) {
        for (balance, hash) in [("ring_hash", "header:x-user"), ("maglev", "cookie:sid")] {
            let services: Vec<_> = (0..3).map(|_| Upstream::always("ok")).collect();
            let hashed = format!("balance = \"{balance}\"\nhash = \"{hash}\"");
            let gateway = Gateway::start(driver, &behind(&services.iter().collect::<Vec<_>>(), "", &hashed));
            let mut client = gateway.client();
            for _ in 0..100 {
                assert_eq!(client.request("GET", "/", &[("X-User", ""), ("Cookie", "other=1")], b"").status, 200);
            }
            let counts: Vec<_> = services.iter().map(|service| service.requests().len()).collect();
            assert!(counts.iter().all(|count| *count >= 10), "{balance}: {counts:?}");
        }
    }

    fn a_later_tier_is_used_only_while_the_first_one_fails(driver: Driver) {
        let (mut first, spare) = (Upstream::always("first"), Upstream::always("spare"));
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&first, &spare), "", BRISK));
        let mut client = gateway.client();
        for _ in 0..20 {
            assert_eq!(client.get("/").text(), "first");
        }
        assert_eq!(spare.connections(), 0);
        first.stop();
        for _ in 0..20 {
            assert_eq!(client.get("/").text(), "spare");
        }
        first.start();
        eventually("traffic goes back to the first tier", || {
            let answer = client.get("/");
            assert_eq!(answer.status, 200);
            (answer.text() == "first").then_some(())
        });
    }

    fn round_robin_and_weights_are_exact(driver: Driver) {
        for (balance, weights, expected) in [("round_robin", [1, 1], [20, 20]), ("weighted", [3, 1], [30, 10])] {
            let (a, b) = (Upstream::always("a"), Upstream::always("b"));
            let endpoints = format!(
                "{{ address = \"{}\", weight = {} }}, {{ address = \"{}\", weight = {} }}",
                a.address(), weights[0], b.address(), weights[1]
            );
            let gateway = Gateway::start(driver, &behind_endpoints(&endpoints, "", &format!("balance = \"{balance}\"")));
            let mut client = gateway.client();
            for _ in 0..40 {
                client.get("/");
            }
            assert_eq!([a.requests().len(), b.requests().len()], expected, "{balance}");
        }
    }

    fn a_hash_keeps_a_key_on_one_service(driver: Driver) {
        for balance in ["ring_hash", "maglev"] {
            let services: Vec<_> = (0..4).map(|_| Upstream::answering(|request, conn| conn.reply(200, &request.target))).collect();
            let hash = format!("balance = \"{balance}\"\nhash = \"header:x-user\"");
            let gateway = Gateway::start(driver, &behind(&services.iter().collect::<Vec<_>>(), "", &hash));
            let mut client = gateway.client();
            for user in 0..20 {
                for _ in 0..3 {
                    client.request("GET", &format!("/{user}"), &[("X-User", &format!("user-{user}"))], b"");
                }
            }
            let mut used = 0;
            for service in &services {
                let targets: Vec<_> = service.requests().into_iter().map(|request| request.target).collect();
                used += usize::from(!targets.is_empty());
                for target in &targets {
                    assert_eq!(targets.iter().filter(|other| *other == target).count(), 3, "{balance}: {target} was moved");
                }
            }
            assert!(used >= 2, "{balance}: twenty users all went to one of four services");
        }
    }

    fn a_failed_health_check_takes_a_service_out_before_clients_notice(driver: Driver) {
        let unhealthy = Arc::new(AtomicBool::new(true));
        let sick = {
            let unhealthy = Arc::clone(&unhealthy);
            Upstream::answering(move |request, conn| match request.target.as_str() {
                "/healthz" if unhealthy.load(Ordering::SeqCst) => conn.reply(500, "sick"),
                _ => conn.reply(200, "ok"),
            })
        };
        let well = Upstream::always("ok");
        let checks = "health_check = { path = \"/healthz\", interval = \"100ms\", timeout = \"5s\", rise = 2, fall = 2 }";
        let gateway = Gateway::start(driver, &behind(&[&sick, &well], "", checks));
        eventually("the checks find it", || (!is_available(&gateway, &sick)).then_some(()));
        let asked = |upstream: &Upstream| upstream.requests().iter().filter(|r| r.target == "/work").count();
        let before = asked(&sick);
        for _ in 0..20 {
            assert_eq!(gateway.get("/work").status, 200);
        }
        assert_eq!(asked(&sick), before, "an unhealthy service gets no request");
        unhealthy.store(false, Ordering::SeqCst);
        eventually("it gets work again", || {
            assert_eq!(gateway.get("/work").status, 200);
            (asked(&sick) > before).then_some(())
        });
    }
}
