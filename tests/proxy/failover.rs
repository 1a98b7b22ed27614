//! Endpoints that die, fail, come back, and stand in tiers: what clients see of it, which is nothing.

use crate::support::load::assert_no_failure_while;
use crate::support::{
    Driver, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, first_then, on_both_drivers,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
        let gateway = Gateway::start(driver, &behind(&[&a, &b], "", ""));
        gateway.get("/").assert_rejected(502, "upstream_connect_failed");
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
