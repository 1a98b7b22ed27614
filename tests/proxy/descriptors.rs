//! Few descriptors: who is there is served, the newest is refused, nobody else is blamed, and operators get their answers.

use crate::support::gateway::{run_to_end_limited, write_config};
use crate::support::{
    Client, Driver, Gate, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, first_then, on_every_step,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const LIMIT: u32 = 64;
/// Everybody is served by an endpoint, whom an error would put aside at once.
const STRICT: &str = "outlier = { consecutive = 1 }";

/// How many clients the gateway says that it takes.
fn seats(gateway: &mut Gateway) -> usize {
    let lines = gateway.running().stderr();
    let said = lines.iter().find_map(|line| line.split_once("at most ")?.1.split(' ').next()?.parse().ok());
    said.unwrap_or_else(|| panic!("{lines:?}"))
}

on_every_step! {
    fn a_gateway_with_few_descriptors_serves_some_and_refuses_the_rest(driver: Driver) {
        let services = [Upstream::always("one"), Upstream::always("two")];
        let config = behind(&[&services[0], &services[1]], "retry = { attempts = 0 }", STRICT);
        let setup = Setup { config: &config, ..Setup::default() };
        let gateway = Gateway::start_limited(driver, &setup, &format!("-n {LIMIT}"));
        for crowd in [100, 300] {
            let mut clients: Vec<_> = (0..crowd).filter_map(|_| Client::try_connect(gateway.address("edge")).ok()).collect();
            let mut served = 0;
            for _ in 0..2 {
                let answers = clients.iter_mut().map(|client| client.try_get("/"));
                let answers: Vec<_> = answers.map(|answer| answer.ok().map(|answer| answer.status)).collect();
                assert!(answers.iter().flatten().all(|status| *status == 200), "{answers:?}");
                served = answers.iter().flatten().count();
                assert!((1..crowd).contains(&served), "{served} of {crowd} were served");
            }
            println!("{served} of {crowd} are served, with descriptors open: {}", gateway.descriptors());
            let refused = gateway.metric("ringgate_connections_refused_total", &[("reason", "descriptors")]);
            assert!(refused as usize >= crowd - served, "{refused}");
            assert!(gateway.metric("process_open_fds", &[]) <= f64::from(LIMIT));
            assert_eq!(gateway.metric("process_max_fds", &[]), f64::from(LIMIT));
            assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 0.0, "nobody is blamed");
            assert_eq!(gateway.metric("ringgate_accept_exhausted_total", &[]), 0.0, "there was always one to refuse with");
            assert_eq!(gateway.metric("ringgate_upstream_attempts_total", &[("outcome", "exhausted")]), 0.0);
            drop(clients);
            gateway.await_gauges();
        }
        eventually("there is room again", || {
            let mut client = Client::try_connect(gateway.address("edge")).ok()?;
            client.try_get("/").is_ok_and(|answer| answer.status == 200).then_some(())
        });
    }

    fn all_who_have_a_place_may_go_on_to_another_endpoint_at_once(driver: Driver) {
        let (filled, broken) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
        let (filling, breaking) = (Arc::clone(&filled), Arc::clone(&broken));
        let keeper = Upstream::answering(move |_, conn| {
            filling.wait();
            conn.reply(200, "kept");
        });
        let resets = Arc::new(AtomicUsize::new(0));
        let reset = Arc::clone(&resets);
        let first = Upstream::scripted(move |conn| {
            conn.head();
            breaking.wait();
            conn.reset();
            reset.fetch_add(1, Ordering::SeqCst);
        });
        let second = Upstream::always("second");
        let kept = format!(
            "[[route]]\nname = \"kept\"\nmatch = {{ path = \"/kept\" }}\nupstream = \"kept\"\n\
             [upstream.kept]\nendpoints = [{{ address = \"{}\" }}]\n",
            keeper.address()
        );
        let budget = "retry_budget = { ratio = 1.0, min_per_second = 1000 }";
        let config = behind_endpoints(&first_then(&first, &second), "timeout = \"60s\"", budget) + &kept;
        let setup = Setup { config: &config, ..Setup::default() };
        let mut gateway = Gateway::start_limited(driver, &setup, "-n 100");
        let seats = seats(&mut gateway);
        let mut clients: Vec<_> = (0..seats).map(|_| gateway.client()).collect();
        // as many idle connections to endpoints as there may be, and as many operators
        let ask = |clients: &mut [Client], path: &str| {
            clients.iter_mut().for_each(|client| client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")));
        };
        ask(&mut clients, "/kept");
        eventually("all are on their way", || (keeper.requests().len() == seats).then_some(()));
        filled.open();
        assert!(clients.iter_mut().all(|client| client.read("GET").status == 200));
        let mut operators: Vec<_> = (0..40).map(|_| Client::connect(gateway.address("admin"))).collect();
        ask(&mut clients, "/");
        eventually("all wait", || (first.requests().len() == seats).then_some(()));
        gateway.running().signal("STOP");
        broken.open();
        eventually("all are cut off", || (resets.load(Ordering::SeqCst) == seats).then_some(()));
        gateway.running().signal("CONT");
        for client in &mut clients {
            assert_eq!(client.read("GET").text(), "second");
        }
        operators.clear();
        let attempts = |outcome| gateway.metric("ringgate_upstream_attempts_total", &[("outcome", outcome)]);
        assert_eq!((attempts("exhausted"), attempts("reset") as usize), (0.0, seats));
        assert_eq!(gateway.metric("ringgate_retries_total", &[("reason", "connect")]), 0.0);
        let lines = gateway.running().stderr();
        assert!(!lines.iter().any(|line| line.contains("could not accept")), "operators have their own: {lines:?}");
    }
}

#[test]
fn too_few_descriptors_for_anybody_are_an_error_that_says_how_many() {
    let service = Upstream::always("one");
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup { config: &behind(&[&service], "", ""), workers: 8, ..Setup::default() };
    let file = write_config(dir.path(), &setup.file(Driver::Epoll));
    let said = run_to_end_limited(&format!("-n {LIMIT}"), &["run", "-c", &file]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("64 descriptors are allowed (RLIMIT_NOFILE), and 8 workers need"), "{said:?}");
}

#[test]
fn the_soft_limit_is_raised_before_anything_is_bound_and_the_hard_one_is_named() {
    let service = Upstream::always("one");
    let more = |n| format!("[[listener]]\nname = \"edge{n}\"\nlisten = \"127.0.0.1:0\"\n\n");
    let config = (0..7).map(more).collect::<String>() + &behind(&[&service], "", "");
    let setup = Setup { config: &config, workers: 8, ..Setup::default() };
    let gateway = Gateway::start_limited(Driver::Epoll, &setup, "-S -n 40");
    assert_eq!(gateway.get("/").text(), "one");
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), &setup.file(Driver::Epoll));
    let said = run_to_end_limited("-n 40", &["run", "-c", &file]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("no descriptor is left (RLIMIT_NOFILE): raise the limit"), "{said:?}");
}
