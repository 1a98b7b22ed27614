//! Endpoints that have names: they follow what a server of names says, and outlive what goes wrong with it.

use crate::support::dns::{Dns, Says};
use crate::support::gateway::behind_endpoints;
use crate::support::load::assert_no_failure_while;
use crate::support::{Driver, Gateway, Setup, Upstream, eventually, on_both_drivers};
use serde_json::Value;
use std::net::Ipv4Addr;

/// One with 127.0.0.n and so on, for no time at all: it is asked for again as soon as `min_ttl` allows.
fn addresses(last: &[u8]) -> Says {
    Says::Addresses(last.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last)).collect(), 0)
}

const QUICK: &str = "min_ttl = \"100ms\"\ntimeout = \"500ms\"";

/// A gateway before `svc.test` at that port.
fn start(driver: Driver, dns: &Dns, port: &str, keys: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { workers: 2, config: &config(dns, port, keys), ..Setup::default() })
}

fn config(dns: &Dns, port: &str, keys: &str) -> String {
    dns.resolver(QUICK) + &behind_endpoints(&format!("{{ address = \"svc.test:{port}\" }}"), "timeout = \"5s\"", keys)
}

fn upstream(gateway: &Gateway) -> Value {
    gateway.admin("/upstreams").json()["upstreams"][0].clone()
}

/// Addresses without port, as they stand in /upstreams.
fn shown(gateway: &Gateway) -> Vec<String> {
    let rows = upstream(gateway)["endpoints"].clone();
    let address = |row: &Value| row["address"].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned();
    rows.as_array().unwrap().iter().map(address).collect()
}

fn await_shown(gateway: &Gateway, expected: &[&str]) {
    eventually(&format!("{expected:?} are its endpoints"), || (shown(gateway) == expected).then_some(()));
}

on_both_drivers! {
    fn endpoints_follow_their_name_and_outlive_its_server_under_load(driver: Driver) {
        let dns = Dns::start();
        let first = Upstream::always("first");
        let second = Upstream::beside(&first, "127.0.0.2", "second");
        dns.set("svc.test", addresses(&[1]));
        let mut gateway = start(driver, &dns, first.port(), "slow_start = \"0s\"");
        assert_eq!(shown(&gateway), ["127.0.0.1"], "it is known before the first request");
        assert_no_failure_while(&gateway, |load| {
            load.goes_on_for(50);
            assert!(second.requests().is_empty());
            dns.set("svc.test", addresses(&[2, 1]));
            await_shown(&gateway, &["127.0.0.1", "127.0.0.2"]);
            eventually("the new one is asked", || (!second.requests().is_empty()).then_some(()));
            for trouble in [Says::Failure, Says::Silence, Says::NoSuchName] {
                let before = upstream(&gateway)["names"][0]["failures"].as_u64().unwrap();
                assert_eq!(before, 0);
                dns.set("svc.test", trouble);
                eventually("it is not learned", || (upstream(&gateway)["names"][0]["failures"].as_u64() > Some(0)).then_some(()));
                load.goes_on_for(50);
                assert_eq!(shown(&gateway), ["127.0.0.1", "127.0.0.2"], "what was known stays");
                dns.set("svc.test", addresses(&[1, 2]));
                eventually("it is learned again", || (upstream(&gateway)["names"][0]["failures"].as_u64() == Some(0)).then_some(()));
            }
            dns.set("svc.test", addresses(&[2]));
            await_shown(&gateway, &["127.0.0.2"]);
            load.goes_on_for(20);
            let asked = first.requests().len();
            load.goes_on_for(100);
            assert_eq!(first.requests().len(), asked, "who is gone gets nothing new");
        });
        let name = upstream(&gateway)["names"][0].clone();
        assert_eq!((name["name"].as_str(), name["endpoints"].as_u64()), (Some(format!("svc.test:{}", first.port()).as_str()), Some(1)));
        assert!(name["answer_age_seconds"].as_f64().unwrap() < 60.0, "{name}");
        let label = format!("svc.test:{}", first.port());
        for result in ["answered", "nothing", "failed"] {
            assert!(gateway.metric("ringgate_name_lookups_total", &[("name", &label), ("result", result)]) >= 1.0, "{result}");
        }
        assert_eq!(gateway.metric("ringgate_name_endpoints", &[("name", &label)]), 1.0);
        let endpoint = format!("{label}/127.0.0.2:{}", first.port());
        assert!(gateway.metric("ringgate_upstream_attempts_total", &[("endpoint", &endpoint), ("outcome", "success")]) > 0.0);
        eventually("older generations are gone", || {
            (gateway.admin("/generations").json()["generations"].as_array().unwrap().len() == 1).then_some(())
        });
        let log = gateway.running().stderr().join("\n");
        assert!(log.contains("added=1 removed=0") && log.contains("is learned again"), "{log}");
        gateway.running().signal("TERM");
        assert!(gateway.running().wait().success());
    }

    fn a_name_that_has_nothing_at_the_start_is_a_warning_and_503(driver: Driver) {
        let dns = Dns::start();
        let service = Upstream::always("ok");
        let mut gateway = start(driver, &dns, service.port(), "");
        assert_eq!(gateway.get("/").status, 503);
        let warned = |line: &String| line.contains("WARN") && line.contains("svc.test") && line.contains("503");
        assert!(gateway.running().stderr().iter().any(warned), "{:?}", gateway.running().stderr());
        assert!(upstream(&gateway)["names"][0]["answer_age_seconds"].is_null());
        dns.set("svc.test", addresses(&[1]));
        eventually("it serves once it has an address", || (gateway.get("/").status == 200).then_some(()));
    }

    fn a_name_that_has_nothing_any_more_is_empty_after_max_stale_and_not_before(driver: Driver) {
        let dns = Dns::start();
        let service = Upstream::always("ok");
        dns.set("svc.test", addresses(&[1]));
        let config = config(&dns, service.port(), "").replace("[resolver]", "[resolver]\nmax_stale = \"2s\"");
        let gateway = Gateway::start_with(driver, &Setup { config: &config, ..Setup::default() });
        assert_eq!(gateway.get("/").status, 200);
        dns.set("svc.test", Says::NoSuchName);
        eventually("it is empty", || {
            let row = upstream(&gateway);
            let age = row["names"][0]["answer_age_seconds"].as_f64().unwrap();
            let is_empty = row["endpoints"].as_array().unwrap().is_empty();
            assert!(is_empty || age < 3.5, "late: {row}");
            assert!(!is_empty || age >= 2.0, "early: {row}");
            is_empty.then_some(())
        });
        assert_eq!(gateway.get("/").status, 503);
    }

    fn a_family_that_nobody_answers_for_does_not_keep_the_other_from_being_learned(driver: Driver) {
        let dns = Dns::start();
        let service = Upstream::always("ok");
        let alone = |last: &[u8]| Says::AddressesAlone(last.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last)).collect());
        dns.set("svc.test", alone(&[1]));
        dns.set("_http._tcp.svc.test", Says::Services(vec![(1, 1, service.port().parse().unwrap(), "svc.test")], 0));
        let gateway = start(driver, &dns, service.port(), "");
        assert_eq!(gateway.get("/").status, 200, "at the start too");
        dns.set("svc.test", alone(&[1, 2]));
        await_shown(&gateway, &["127.0.0.1", "127.0.0.2"]);
        let config = dns.resolver(QUICK) + &behind_endpoints("{ srv = \"_http._tcp.svc.test\" }", "", "");
        let gateway = Gateway::start_with(driver, &Setup { config: &config, ..Setup::default() });
        assert_eq!(shown(&gateway), ["127.0.0.1", "127.0.0.2"], "nor the hosts of a service");
    }

    fn a_service_of_many_hosts_is_learned_in_the_time_of_one_lookup(driver: Driver) {
        let dns = Dns::start();
        let service = Upstream::always("ok");
        let port = service.port().parse().unwrap();
        let hosts: Vec<&'static str> = (0..100).map(|n| &*Box::leak(format!("host-{n}.test").into_boxed_str())).collect();
        for (n, host) in (0..).zip(&hosts) {
            dns.set(host, Says::Addresses(vec![Ipv4Addr::new(127, 0, 2, n)], 0));
        }
        dns.set("_http._tcp.svc.test", Says::Services(hosts.iter().map(|host| (1, 1, port, *host)).collect(), 0));
        let config = dns.resolver("min_ttl = \"100ms\"\ntimeout = \"10s\"") + &behind_endpoints("{ srv = \"_http._tcp.svc.test\" }", "", "");
        let gateway = Gateway::start_with(driver, &Setup { config: &config, ..Setup::default() });
        assert_eq!(shown(&gateway).len(), 100);
        dns.set(hosts[7], Says::Failure);
        eventually("without one of them it is not learned", || (upstream(&gateway)["names"][0]["failures"].as_u64() > Some(0)).then_some(()));
        assert_eq!(shown(&gateway).len(), 100);
        dns.set(hosts[7], Says::NoSuchName);
        eventually("one that is not there is left out", || (shown(&gateway).len() == 99).then_some(()));
    }

    fn services_bring_ports_tiers_and_weights(driver: Driver) {
        let dns = Dns::start();
        let services = [Upstream::always("a"), Upstream::always("b"), Upstream::always("c")];
        let port = |row: usize| services[row].port().parse::<u16>().unwrap();
        dns.set("host.test", Says::Addresses(vec![Ipv4Addr::LOCALHOST], 0));
        dns.set("_http._tcp.svc.test", Says::Services(vec![(20, 0, port(2), "host.test"), (10, 30, port(1), "host.test"), (10, 10, port(0), "host.test")], 0));
        let config = dns.resolver(QUICK) + &behind_endpoints("{ srv = \"_http._tcp.svc.test\", priority = 3 }", "", "balance = \"weighted\"\nslow_start = \"0s\"");
        let gateway = Gateway::start_with(driver, &Setup { config: &config, ..Setup::default() });
        let rows = upstream(&gateway)["endpoints"].clone();
        let shown: Vec<_> = rows.as_array().unwrap().iter().map(|row| (row["tier"].as_u64().unwrap(), row["weight"].as_u64().unwrap(), row["address"].as_str().unwrap().to_owned())).collect();
        for (row, tier, weight) in [(0, 3, 10), (1, 3, 30), (2, 4, 1)] {
            assert!(shown.contains(&(tier, weight, services[row].address().to_owned())), "{shown:?}");
        }
        let bodies: Vec<_> = (0..40).map(|_| gateway.get("/").text()).collect();
        let count = |body: &str| bodies.iter().filter(|it| *it == body).count();
        assert_eq!((count("a"), count("b"), count("c")), (10, 30, 0));
        assert_eq!(gateway.admin("/config").json()["upstream"]["svc"]["endpoints"][0]["srv"], "_http._tcp.svc.test");
        dns.set("_http._tcp.svc.test", Says::Services(vec![(10, 1, port(2), "host.test")], 0));
        eventually("the other one serves", || (gateway.get("/").text() == "c").then_some(()));
    }

    fn an_answer_that_is_cut_is_asked_for_by_tcp(driver: Driver) {
        let dns = Dns::start();
        let service = Upstream::always("ok");
        dns.set("svc.test", Says::Addresses((0..100).map(|n| Ipv4Addr::new(127, 0, 1, n)).collect(), 0));
        let gateway = start(driver, &dns, service.port(), "");
        assert_eq!(shown(&gateway).len(), 100);
        assert!(dns.asked().1 >= 1, "{:?}", dns.asked());
        dns.set("svc.test", addresses(&[1]));
        await_shown(&gateway, &["127.0.0.1"]);
        assert_eq!(gateway.get("/").status, 200);
    }

    fn a_reload_keeps_what_is_known_and_asks_for_what_is_new(driver: Driver) {
        let dns = Dns::start();
        let service = Upstream::always("ok");
        dns.set("svc.test", addresses(&[1]));
        let mut gateway = start(driver, &dns, service.port(), "");
        dns.set("svc.test", Says::Silence);
        dns.set("new.test", addresses(&[1]));
        let more = format!(
            "{}[[route]]\nname = \"new\"\nmatch = {{ path = \"/new\" }}\nupstream = \"new\"\n[upstream.new]\nendpoints = [{{ address = \"new.test:{}\" }}]\n",
            config(&dns, service.port(), "max_requests = 9"),
            service.port()
        );
        let file = |config: &str| Setup { workers: 2, config, ..Setup::default() }.file(driver);
        assert_no_failure_while(&gateway, |load| {
            std::fs::write(gateway.file(), file(&more)).unwrap();
            let response = crate::support::Client::connect(gateway.address("admin")).request("POST", "/reload", &[], b"");
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(gateway.get("/new").status, 200, "it is known when it comes into use");
            load.goes_on_for(50);
        });
        assert_eq!(shown(&gateway), ["127.0.0.1"]);
        gateway.reload_well(&file(&config(&dns, service.port(), "")));
        let names = gateway.admin("/metrics").text();
        assert!(!names.contains("name=\"new.test"), "it is forgotten");
        let other = Dns::start();
        other.set("svc.test", addresses(&[1]));
        other.set("new.test", addresses(&[1]));
        gateway.reload_well(&file(&more.replace(&dns.resolver(QUICK), &other.resolver(QUICK))));
        assert_eq!(gateway.get("/new").status, 200, "those are asked that the new file names");
        gateway.reload_well(&file(&config(&dns, service.port(), "")));
        let wrong = format!("{}[upstream.more]\nendpoints = [{{ address = \"more.test:1\" }}]\n[gateway]\n", config(&dns, service.port(), ""));
        assert_eq!(gateway.reload(&file(&wrong)).status, 422);
        assert_eq!(gateway.get("/").status, 200);
    }

    fn what_is_known_of_an_endpoint_stays_when_others_come_and_go(driver: Driver) {
        let dns = Dns::start();
        let mut first = Upstream::always("first");
        let second = Upstream::beside(&first, "127.0.0.2", "second");
        let third = Upstream::beside(&first, "127.0.0.3", "third");
        first.stop();
        dns.set("svc.test", addresses(&[1, 2]));
        let keys = "health_check = { tcp = true, interval = \"100ms\", fall = 2, rise = 2 }\nslow_start = \"0s\"";
        let gateway = start(driver, &dns, first.port(), keys);
        let check = |row: usize| upstream(&gateway)["endpoints"][row]["health_check"]["state"].clone();
        eventually("one is down", || (check(0) == "unhealthy" && check(1) == "healthy").then_some(()));
        dns.set("svc.test", addresses(&[1, 2, 3]));
        await_shown(&gateway, &["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        assert_eq!((check(0), check(1)), ("unhealthy".into(), "healthy".into()), "as it was");
        eventually("the new one is checked", || (check(2) == "healthy").then_some(()));
        let bodies: Vec<_> = (0..40).map(|_| gateway.get("/").text()).collect();
        assert!(bodies.iter().any(|body| body == "second") && bodies.iter().any(|body| body == "third"), "{bodies:?}");
        dns.set("svc.test", addresses(&[1, 3]));
        await_shown(&gateway, &["127.0.0.1", "127.0.0.3"]);
        first.start();
        eventually("the first comes back by its own checks", || (check(0) == "healthy").then_some(()));
        eventually("and is asked", || (gateway.get("/").text() == "first").then_some(()));
        drop((second, third));
    }

    fn a_file_says_endpoints_and_counts_as_a_whole_or_not_at_all(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("svc.json");
        let first = Upstream::always("first");
        let second = Upstream::beside(&first, "127.0.0.2", "second");
        let write = |text: &str| {
            std::fs::write(path.with_extension("new"), text).unwrap();
            std::fs::rename(path.with_extension("new"), &path).unwrap();
        };
        let saying = |services: &[&Upstream]| {
            let rows: Vec<_> = services.iter().map(|service| format!("{{ \"address\": \"{}\", \"weight\": 7 }}", service.address())).collect();
            format!("{{ \"endpoints\": [{}] }}", rows.join(", "))
        };
        let config = format!("[[route]]\nupstream = \"svc\"\n[upstream.svc]\nslow_start = \"0s\"\nendpoints_file = {:?}\n", path.display().to_string());
        let mut gateway = Gateway::start_with(driver, &Setup { config: &config, ..Setup::default() });
        assert_eq!(gateway.get("/").status, 503, "it is not there");
        write(&saying(&[&first]));
        eventually("it is read", || (gateway.get("/").text() == "first").then_some(()));
        assert_no_failure_while(&gateway, |load| {
            write(&saying(&[&second, &first]));
            await_shown(&gateway, &["127.0.0.1", "127.0.0.2"]);
            write("{ \"endpoints\": [");
            eventually("what is wrong is told", || (upstream(&gateway)["names"][0]["failures"].as_u64() > Some(0)).then_some(()));
            load.goes_on_for(50);
            std::fs::remove_file(&path).unwrap();
            load.goes_on_for(50);
            assert_eq!(shown(&gateway), ["127.0.0.1", "127.0.0.2"]);
            write(&saying(&[&second]));
            await_shown(&gateway, &["127.0.0.2"]);
        });
        assert_eq!(gateway.metric("ringgate_endpoint_available", &[("endpoint", &format!("file/{}", second.address()))]), 1.0);
        assert!(gateway.running().stderr().iter().any(|line| line.contains("is not learned: EOF")));
        write(&saying(&[]));
        eventually("a list without endpoints is taken at its word", || (gateway.get("/").status == 503).then_some(()));
    }

    fn endpoints_are_changed_by_hand_until_the_next_reload(driver: Driver) {
        let first = Upstream::always("first");
        let second = Upstream::beside(&first, "127.0.0.2", "second");
        let config = crate::support::behind(&[&first], "", "slow_start = \"0s\"\noutlier = { eject = \"300s\" }");
        let mut gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        let ask = |gateway: &Gateway, method: &str, endpoint: &str, body: &str| {
            let path = format!("/upstreams/svc/endpoints/{endpoint}");
            crate::support::Client::connect(gateway.address("admin")).request(method, &path, &[], body.as_bytes())
        };
        let done = |gateway: &Gateway, method: &str, endpoint: &str, body: &str| {
            let response = ask(gateway, method, endpoint, body);
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.json()["persisted"], false);
        };
        let (one, other) = (first.address().to_owned(), second.address().to_owned());
        let all = |gateway: &Gateway, body: &str| (0..20).all(|_| gateway.get("/").text() == body);
        assert_no_failure_while(&gateway, |load| {
            done(&gateway, "PUT", &other, "{ \"weight\": 30 }");
            await_shown(&gateway, &["127.0.0.1", "127.0.0.2"]);
            eventually("it is asked", || (gateway.get("/").text() == "second").then_some(()));
            done(&gateway, "POST", &format!("{one}/drain"), "");
            eventually("the other has all", || all(&gateway, "second").then_some(()));
            done(&gateway, "PUT", &one, "{ \"weight\": 100 }");
            eventually("both are asked", || (gateway.get("/").text() == "first").then_some(()));
            done(&gateway, "POST", &format!("{one}/eject"), "");
            eventually("it is put aside", || all(&gateway, "second").then_some(()));
            let available = || gateway.metric("ringgate_endpoint_available", &[("endpoint", &one)]);
            eventually("that is seen", || (available() == 0.0).then_some(()));
            let by_hand = [("endpoint", one.as_str()), ("reason", "by_hand")];
            assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &by_hand), 1.0);
            done(&gateway, "POST", &format!("{one}/readmit"), "");
            assert_eq!(gateway.metric("ringgate_endpoint_readmissions_total", &by_hand), 1.0);
            eventually("it is back", || (gateway.get("/").text() == "first").then_some(()));
            done(&gateway, "DELETE", &one, "");
            await_shown(&gateway, &["127.0.0.2"]);
            // one of the ways to write [::1]
            done(&gateway, "PUT", "%5B0:0:0:0:0:0:0:1%5D:1", "{ \"weight\": 0 }");
            await_shown(&gateway, &["127.0.0.2", "[::1]"]);
            assert_eq!(upstream(&gateway)["endpoints"][1]["weight"], 0);
            done(&gateway, "DELETE", "%5B::1%5D:1", "");
            await_shown(&gateway, &["127.0.0.2"]);
            load.goes_on_for(50);
        });
        assert_eq!(ask(&gateway, "POST", &format!("{one}/drain"), "").status, 404, "it is gone");
        assert_eq!(ask(&gateway, "PUT", "a.test:80", "").status, 400);
        assert_eq!(ask(&gateway, "PUT", &one, "{ \"priority\": 16 }").status, 400);
        gateway.reload_well(&Setup { workers: 2, config: &config, ..Setup::default() }.file(driver));
        assert_eq!(shown(&gateway), ["127.0.0.1"], "the file is what counts");
        assert!(all(&gateway, "first"));
    }
}
