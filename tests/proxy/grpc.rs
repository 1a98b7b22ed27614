//! gRPC between clients and services: what calls are told, how long they may take, and where they go when a service fails them.

use crate::support::grpc::{Service, call, connect, message, run, unary};
use crate::support::{Driver, Gateway, Setup, behind_endpoints, eventually, on_both_drivers};
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
        assert_eq!((refused.status, refused.header("grpc-status"), refused.body.len()), (200, Some("12"), 0));
        assert_eq!(client.request("POST", "/test.Echo/Limited", &grpc, b"").header("grpc-status"), Some("8"));
        assert_eq!(client.request("POST", "/other/Method", &[("Content-Type", "application/grpc-web")], b"").status, 404);
        assert_eq!(gateway.metric("ringgate_rejected_total", &[("reason", "no_route")]), 3.0);
        drop(client);
        gateway.assert_nothing_left();
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
                let answer = unary(&sender, call("Unary", &[("grpc-timeout", timeout)]), &message(b"x")).await.unwrap();
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
}
