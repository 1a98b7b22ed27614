//! gRPC between clients and services: what calls are told, how long they may take, and where they go when a service fails them.

use crate::support::grpc::{Service, call, connect, message, outcome, run, send, unary};
use crate::support::{
    Driver, Gateway, Setup, assert_same_bytes, behind_endpoints, eventually, noise, on_both_drivers, tls,
};
use bytes::Bytes;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The keys of a listener that speaks HTTP/2 without TLS.
const CLEAR: &str = "http2 = { cleartext = true }";

/// A gateway before these services, each in a tier of its own, with one worker.
fn gateway(driver: Driver, services: &[&Service], route: &str, cluster: &str) -> Gateway {
    gateway_with(driver, CLEAR, &config(services, route, cluster))
}

fn config(services: &[&Service], route: &str, cluster: &str) -> String {
    let endpoints: Vec<_> = services.iter().enumerate().map(|(tier, service)| service.endpoint(tier)).collect();
    behind_endpoints(&endpoints.join(", "), route, &format!("protocol = \"h2\"\n{cluster}"))
}

fn gateway_with(driver: Driver, listener: &str, config: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { listener, config, ..Setup::default() })
}

/// Waits until it does, while the client's connection goes on; within the limit of what is run.
async fn happens(look: impl Fn() -> bool) {
    while !look() {
        tokio::task::yield_now().await;
    }
}

on_both_drivers! {
    fn own_errors_have_the_form_of_grpc(driver: Driver) {
        let service = Service::start();
        let dead = "[upstream.dead]\nendpoints = [{ address = \"127.0.0.1:1\" }]\nprotocol = \"h2\"\n";
        let routes = "\n[[route]]\nname = \"limited\"\nmatch = { path = \"/test.Echo/Limited\" }\nupstream = \"svc\"\nlimit = [{ rate = \"1/h\" }]\n\
                      [[route]]\nname = \"dead\"\nmatch = { path = \"/test.Echo/Dead\" }\nupstream = \"dead\"\n\
                      [[route]]\nname = \"known\"\nmatch = { path = \"/test.Echo/Known\" }\nupstream = \"svc\"\nallow = { client_ip = [\"192.0.2.1\"] }\n";
        let file = config(&[&service], "timeout = \"300ms\"", "").replace("path = \"/*\"", "path = \"/test.Echo/*\"");
        let gateway = gateway_with(driver, CLEAR, &(file + dead + routes));
        run(async {
            let sender = connect(gateway.address("edge")).await;
            let ask = async |method: &str| unary(&sender, call(method, &[]), &message(b"x")).await.unwrap();
            let nowhere = http::Request::post("http://test/other/Method").header("content-type", "application/grpc").body(());
            let refused = unary(&sender, nowhere.unwrap(), b"").await.unwrap();
            refused.assert_trailers_only(12);
            assert_eq!(refused.message(), "no route matches this request");
            assert_eq!(ask("Limited").await.code(), Some(0));
            let limited = ask("Limited").await;
            limited.assert_trailers_only(8);
            assert!(limited.head.contains_key("retry-after"), "what else it is told stays: {limited:?}");
            ask("Dead").await.assert_trailers_only(14);
            ask("Known").await.assert_trailers_only(7);
            ask("Quiet").await.assert_trailers_only(4);
        });
        let mut client = gateway.client();
        let grpc = [("Content-Type", "application/grpc"), ("TE", "trailers")];
        let refused = client.request("POST", "/other/Method", &grpc, b"");
        assert_eq!((refused.status, refused.header("grpc-status")), (404, None), "HTTP/1.1 cannot carry calls");
        assert_eq!(client.request("POST", "/test.Echo/Limited", &grpc, b"").status, 429);
        drop(client);
        gateway.assert_nothing_left();
        assert_eq!(gateway.metric("ringgate_rejected_total", &[("reason", "no_route")]), 2.0);
    }

    fn a_client_s_deadline_shortens_the_request_s_and_goes_on_shortened(driver: Driver) {
        let service = Service::start();
        let gateway = gateway(driver, &[&service], "timeout = \"50s\"", "");
        let left = |text: &str| {
            let (count, unit) = text.split_at(text.len() - 1);
            let nanos = match unit { "n" => 1, "u" => 1_000, "m" => 1_000_000, _ => panic!("{text}") };
            Duration::from_nanos(count.parse::<u64>().unwrap() * nanos)
        };
        run(async {
            let sender = connect(gateway.address("edge")).await;
            for (timeout, at_most) in [("20S", 20), ("20000m", 20), ("20000000u", 20), ("1M", 50), ("99999999H", 50)] {
                // of a length that is known: such a call is no stream, and its T_max runs from the beginning
                let fields = [("grpc-timeout", timeout), ("content-length", "6")];
                let answer = unary(&sender, call("Unary", &fields), &message(b"x")).await.unwrap();
                assert_eq!(answer.code(), Some(0));
                let told = left(&service.last("grpc-timeout").unwrap());
                assert!(told <= Duration::from_secs(at_most) && told > Duration::from_secs(at_most / 2), "{timeout}: {told:?}");
            }
            assert_eq!(service.last("te").as_deref(), Some("trailers"));
            for bad in ["100000000S", "5", "-1S", "5s"] {
                let answer = unary(&sender, call("Unary", &[("grpc-timeout", bad)]), &message(b"x")).await.unwrap();
                assert_eq!((answer.code(), service.last("grpc-timeout").as_deref()), (Some(0), Some(bad)));
            }
            unary(&sender, call("Unary", &[]), &message(b"x")).await.unwrap();
            assert_eq!(service.last("grpc-timeout"), None, "who says nothing is not answered for");
            let began = Instant::now();
            let late = unary(&sender, call("Quiet", &[("grpc-timeout", "100m")]), &message(b"x")).await.unwrap();
            late.assert_trailers_only(4);
            assert!(began.elapsed() >= Duration::from_millis(90) && began.elapsed() < Duration::from_secs(40));
            unary(&sender, call("Quiet", &[("grpc-timeout", "0n")]), &message(b"x")).await.unwrap().assert_trailers_only(4);
        });
        eventually("the service is told", || (service.seen.cancelled.load(SeqCst) >= 1).then_some(()));
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 0.0);
        gateway.assert_nothing_left();
    }

    fn a_refused_call_goes_to_another_service_and_its_message_with_it(driver: Driver) {
        let (first, second) = (Service::start(), Service::start());
        let retry = "[route.retry]\non = [\"unavailable\", \"resource-exhausted\"]";
        let gateway = gateway(driver, &[&first, &second], retry, "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 1000 }");
        run(async {
            let sender = connect(gateway.address("edge")).await;
            let ask = async || unary(&sender, call("Unary", &[("grpc-timeout", "30S")]), &message(b"once")).await.unwrap();
            for (code, calls) in [(14, 1), (8, 2)] {
                first.refuse(code, false, None);
                let answer = ask().await;
                assert_eq!((answer.code(), &answer.body), (Some(0), &message(b"once")), "{code}");
                assert_eq!((first.calls(), second.calls()), (calls, calls), "{code}");
            }
            let told = [&first, &second].map(|service| service.last("grpc-timeout").unwrap());
            assert_ne!(told[0], told[1], "the second hears what is left by then");
            first.refuse(14, false, Some("-1"));
            let refused = ask().await;
            refused.assert_trailers_only(14);
            assert_eq!((refused.message(), second.calls()), ("not%20now", 2), "who pushes back is not asked for again");
            first.refuse(5, false, None);
            ask().await.assert_trailers_only(5);
            first.refuse(14, true, None);
            let late = ask().await;
            assert_eq!((late.code(), late.body.len(), second.calls()), (Some(14), 6, 2), "something went to the client");
            first.refuse(14, false, Some("60000"));
            assert_eq!(ask().await.code(), Some(0));
            let calls = first.calls();
            assert_eq!(ask().await.code(), Some(0));
            assert_eq!(first.calls(), calls, "it has asked to be left alone");
        });
        gateway.assert_nothing_left();
        assert_eq!(gateway.metric("ringgate_retries_total", &[("reason", "status")]), 3.0);
        let count = |status| gateway.metric("ringgate_grpc_requests_total", &[("service", "test.Echo"), ("method", "Unary"), ("status", status)]);
        assert_eq!([count("0"), count("5"), count("14")], [4.0, 1.0, 2.0]);
    }

    fn a_service_whose_calls_fail_behind_their_bodies_is_ejected(driver: Driver) {
        let (first, second) = (Service::start(), Service::start());
        first.refuse(13, true, None);
        // in turn: who compares the two does not ask one that has just failed for a second, however many calls there are
        let cluster = "balance = \"round_robin\"\noutlier = { consecutive = 3, eject = \"10m\", eject_max = \"10m\" }";
        let file = config(&[&first, &second], "", cluster).replace("priority = 1", "priority = 0");
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let gateway = gateway_with(driver, CLEAR, &format!("[access_log]\npath = \"{}\"\n{file}", log.display()));
        run(async {
            let sender = connect(gateway.address("edge")).await;
            let mut failed = 0;
            for _ in 0..60 {
                let answer = unary(&sender, call("Unary", &[]), &message(b"x")).await.unwrap();
                failed += usize::from(answer.code() == Some(13));
            }
            assert_eq!((failed, first.calls()), (3, 3));
            unary(&sender, call("Missing", &[]), &message(b"x")).await.unwrap().assert_trailers_only(12);
        });
        gateway.assert_nothing_left();
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 1.0);
        let count = |labels: &[(&str, &str)]| gateway.metric("ringgate_grpc_requests_total", labels);
        assert_eq!(count(&[("route", "all"), ("service", "test.Echo"), ("method", "Unary"), ("status", "13")]), 3.0);
        assert_eq!(count(&[("service", "other"), ("status", "12")]), 1.0, "what no service knows has no name");
        let text = eventually("the log is written", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text.lines().count() >= 61 && text.ends_with('\n')).then_some(text)
        });
        let logged = |code: &str| text.lines().filter(|line| line.contains(&format!("\"status\":200,\"grpc_status\":{code},"))).count();
        assert_eq!([logged("0"), logged("13"), logged("12")], [57, 3, 1]);
    }

    fn a_stream_lasts_as_long_as_something_moves_on_it(driver: Driver) {
        let service = Service::start();
        let listener = format!("{CLEAR}\nbody_timeout = \"100ms\"\ntunnel_timeout = \"2s\"");
        let gateway = gateway_with(driver, &listener, &config(&[&service], "timeout = \"100ms\"", ""));
        run(async {
            let sender = connect(gateway.address("edge")).await;
            // a call that nobody answers is over after T_max, and so time passes
            let pass_time = async || unary(&sender, call("Quiet", &[]), b"").await.unwrap().assert_trailers_only(4);
            let (answer, mut stream) = sender.clone().ready().await.unwrap().send_request(call("Chat", &[]), false).unwrap();
            pass_time().await;
            pass_time().await;
            send(&mut stream, &message(b"one")).await;
            let (head, mut echo) = answer.await.unwrap().into_parts();
            assert_eq!((head.status.as_u16(), echo.data().await.unwrap().unwrap()), (200, message(b"one").into()));
            pass_time().await;
            pass_time().await;
            send(&mut stream, &message(b"two")).await;
            assert_eq!(echo.data().await.unwrap().unwrap(), message(b"two"));
            stream.send_data(Bytes::new(), true).unwrap();
            assert!(echo.data().await.is_none());
            assert_eq!(echo.trailers().await.unwrap().unwrap()["grpc-status"], "0");
            // thirty times a tenth of a second, in which only the client has something to say
            let (answer, mut stream) = sender.clone().ready().await.unwrap().send_request(call("Collect", &[]), false).unwrap();
            for _ in 0..30 {
                pass_time().await;
                send(&mut stream, b"x").await;
            }
            stream.send_data(Bytes::new(), true).unwrap();
            let collected = outcome(answer.await.unwrap()).await.unwrap();
            assert_eq!((collected.code(), collected.body.len()), (Some(0), 30));
            let limited = call("Chat", &[("grpc-timeout", "300m")]);
            let (answer, _open) = sender.clone().ready().await.unwrap().send_request(limited, false).unwrap();
            outcome(answer.await.unwrap()).await.unwrap().assert_trailers_only(4);
        });
        gateway.assert_nothing_left();
    }

    fn a_silent_stream_is_ended_and_so_is_one_that_its_client_gives_up(driver: Driver) {
        let service = Service::start();
        let gateway = gateway_with(driver, &format!("{CLEAR}\ntunnel_timeout = \"200ms\""), &config(&[&service], "", ""));
        run(async {
            let sender = connect(gateway.address("edge")).await;
            let (answer, mut stream) = sender.clone().ready().await.unwrap().send_request(call("Chat", &[]), false).unwrap();
            send(&mut stream, &message(b"one")).await;
            let silent = outcome(answer.await.unwrap()).await;
            assert!(silent.is_err(), "it is cut, and has no outcome: {silent:?}");
            let (answer, _open) = sender.clone().ready().await.unwrap().send_request(call("Chat", &[]), false).unwrap();
            outcome(answer.await.unwrap()).await.unwrap().assert_trailers_only(4);
            let (answer, mut stream) = sender.clone().ready().await.unwrap().send_request(call("Quiet", &[]), true).unwrap();
            happens(|| service.seen.waiting.load(SeqCst) == 1).await;
            stream.send_reset(h2::Reason::CANCEL);
            drop(answer);
            happens(|| service.seen.cancelled.load(SeqCst) == 3).await;
        });
        assert_eq!(service.seen.connections.load(SeqCst), 1, "streams have ended, and not their connection");
        gateway.assert_nothing_left();
        assert_eq!(gateway.metric("ringgate_grpc_requests_total", &[("status", "none")]), 2.0);
    }

    fn an_endpoint_that_takes_nothing_of_a_call_has_no_more_than_its_time(driver: Driver) {
        let service = Service::start();
        let gateway = gateway(driver, &[&service], "timeout = \"300ms\"", "");
        run(async {
            let sender = connect(gateway.address("edge")).await;
            // twice what its windows allow: the end of the request stays with the client
            let deaf = unary(&sender, call("Quiet", &[]), &vec![b'x'; 8 << 20]).await.unwrap();
            deaf.assert_trailers_only(4);
            // of this one the gateway has all, and the endpoint has not
            let length = (1 << 20) + 1_000;
            unary(&sender, call("Quiet", &[]), &vec![b'x'; length]).await.unwrap().assert_trailers_only(4);
            assert_eq!(unary(&sender, call("Unary", &[]), &message(b"x")).await.unwrap().code(), Some(0));
        });
        eventually("it is told that nobody waits", || (service.seen.cancelled.load(SeqCst) == 2).then_some(()));
        gateway.assert_nothing_left();
        assert_eq!(gateway.metric("ringgate_retries_total", &[]), 0.0);
    }

    fn an_outcome_in_a_head_counts_only_where_nothing_follows_it(driver: Driver) {
        let (first, second) = (Service::start(), Service::start());
        let gateway = gateway(driver, &[&first, &second], "[route.retry]\non = [\"unavailable\"]", "");
        run(async {
            let sender = connect(gateway.address("edge")).await;
            let answer = unary(&sender, call("Misplaced", &[]), &message(b"x")).await.unwrap();
            assert_eq!((answer.body, answer.trailers["grpc-status"].to_str().unwrap()), (message(b"all of it"), "0"));
        });
        assert_eq!((first.calls(), second.calls()), (1, 0), "it is no refusal");
        gateway.assert_nothing_left();
        let count = |status| gateway.metric("ringgate_grpc_requests_total", &[("method", "Misplaced"), ("status", status)]);
        assert_eq!([count("0"), count("14")], [1.0, 0.0]);
    }

    fn messages_of_all_sizes_go_both_ways(driver: Driver) {
        let service = Service::start();
        let gateway = gateway(driver, &[&service], "", "");
        run(async {
            let sender = connect(gateway.address("edge")).await;
            for size in [0, 1, 1_000, 70_000, 4 << 20] {
                let sent = message(&noise(size as u64, size));
                let answer = unary(&sender, call("Unary", &[]), &sent).await.unwrap();
                assert_eq!((answer.code(), answer.message()), (Some(0), "fine"));
                assert_same_bytes(&answer.body, &sent);
            }
            let list = unary(&sender, call("List", &[]), &message(b"many")).await.unwrap();
            assert_eq!((list.code(), list.body), (Some(0), message(b"many").repeat(100)));
        });
        gateway.assert_nothing_left();
    }
}

#[test]
fn the_example_does_what_it_says() {
    if tls::is_up() || tls::is_down() {
        return; // it is plain on both sides
    }
    let (first, second) = (Service::start(), Service::start());
    let example = include_str!("../../config/examples/grpc.toml");
    let text = example
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:9001", &first.address())
        .replace("127.0.0.1:9002", &second.address())
        .replace("interval = \"2s\"", "interval = \"100ms\"");
    let text = format!("[gateway]\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"test\"]\n{text}");
    let gateway = Gateway::start_file(tempfile::tempdir().unwrap(), &text);
    let checks = |result| gateway.metric("ringgate_health_checks_total", &[("result", result)]);
    eventually("both have said that they serve", || (checks("passed") >= 2.0).then_some(()));
    assert_eq!(first.last("content-type").as_deref(), Some("application/grpc"));
    let head = || {
        let request =
            http::Request::post("http://test/orders.v1.Orders/Get").header("content-type", "application/grpc");
        request.header("te", "trailers").body(()).unwrap()
    };
    run(async {
        let sender = connect(gateway.address("edge")).await;
        assert_eq!(unary(&sender, head(), &message(b"7")).await.unwrap().code(), Some(0));
        first.refuse(14, false, None);
        for _ in 0..10 {
            assert_eq!(unary(&sender, head(), &message(b"7")).await.unwrap().code(), Some(0), "the other one serves");
        }
    });
    let page = || gateway.admin("/upstreams").text();
    eventually("the first is taken out by its checks", || page().contains("not_serving").then_some(()));
    assert_eq!(checks("exhausted"), 0.0);
}
