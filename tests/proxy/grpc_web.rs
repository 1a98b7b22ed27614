//! gRPC-Web: what pages call in it are calls of gRPC for the service, over both versions of HTTP and in both forms.

use crate::support::grpc::{Service, call, connect, message, run, unary};
use crate::support::{Driver, Gateway, Setup, assert_same_bytes, behind_endpoints, noise, on_both_drivers};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const CLEAR: &str = "http2 = { cleartext = true }";

fn gateway(driver: Driver, service: &Service, route: &str) -> Gateway {
    let route = format!("grpc_web = true\n{route}");
    let plain = "[[route]]\nname = \"plain\"\nmatch = { path = \"/plain/*\" }\nupstream = \"svc\"\n";
    let config =
        behind_endpoints(&service.endpoint(0), &route, "protocol = \"h2\"").replace("\"/*\"", "\"/test.Echo/*\"");
    Gateway::start_with(driver, &Setup { listener: CLEAR, config: &(config + plain), ..Setup::default() })
}

/// Reads base64 whose pieces are padded.
fn from_text(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|group| STANDARD.decode(group).expect("base64")).collect()
}

/// What a whole answer has in its body: the messages, and the trailers behind them.
fn answer(payload: &[u8]) -> Vec<u8> {
    let trailers = b"grpc-status: 0\r\ngrpc-message: fine\r\n";
    [payload, &[0x80, 0, 0, 0, trailers.len() as u8], trailers].concat()
}

on_both_drivers! {
    fn calls_of_pages_are_calls_for_the_service_in_both_forms_over_http1(driver: Driver) {
        let service = Service::start();
        let gateway = gateway(driver, &service, "");
        let mut client = gateway.client();
        for size in [0, 1, 2, 3, 100, 16_384, 300_000] {
            let sent = message(&noise(size as u64, size));
            let types = [("Content-Type", "application/grpc-web+proto"), ("X-Grpc-Web", "1"), ("grpc-timeout", "20S")];
            let response = client.request("POST", "/test.Echo/Unary", &types, &sent);
            assert_eq!((response.status, response.header("content-type")), (200, Some("application/grpc-web")));
            assert_same_bytes(&response.body, &answer(&sent));
            let types = [("Content-Type", "application/grpc-web-text"), ("X-Grpc-Web", "1")];
            let response = client.request("POST", "/test.Echo/Unary", &types, STANDARD.encode(&sent).as_bytes());
            assert_eq!((response.status, response.header("content-type")), (200, Some("application/grpc-web-text")));
            assert_same_bytes(&from_text(&response.body), &answer(&sent));
        }
        assert_eq!(service.last("te").as_deref(), Some("trailers"));
        assert_eq!(service.last("content-type").as_deref(), Some("application/grpc"));
        let list = client.request("POST", "/test.Echo/List", &[("Content-Type", "application/grpc-web")], &message(b"many"));
        assert_same_bytes(&list.body, &answer(&message(b"many").repeat(100)));
        // text that comes in chunks of a byte, in two pieces that are padded each
        let text = [STANDARD.encode(&message(b"ab")[..4]), STANDARD.encode(&message(b"ab")[4..])].concat();
        let chunks: String = text.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
        client.send(format!("POST /test.Echo/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web-text+proto\r\n\
                             Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"));
        assert_same_bytes(&from_text(&client.read("POST").body), &answer(&message(b"ab")));
        drop(client);
        gateway.assert_nothing_left();
        let count = |method, status| gateway.metric("ringgate_grpc_requests_total", &[("method", method), ("status", status)]);
        assert_eq!((count("Unary", "0"), count("List", "0")), (15.0, 1.0));
    }

    fn a_piece_of_text_may_be_more_than_a_bandwidth_has_at_once(driver: Driver) {
        let service = Service::start();
        let gateway = gateway(driver, &service, "bandwidth = { rate = \"16MiB/s\", burst = \"80KiB\" }");
        let mut client = gateway.client();
        let sent = message(&noise(7, 600_000));
        let types = [("Content-Type", "application/grpc-web-text"), ("X-Grpc-Web", "1")];
        let response = client.request("POST", "/test.Echo/Unary", &types, STANDARD.encode(&sent).as_bytes());
        assert_same_bytes(&from_text(&response.body), &answer(&sent));
    }

    fn over_http2_too_and_calls_of_grpc_stay_what_they_are(driver: Driver) {
        let service = Service::start();
        let gateway = gateway(driver, &service, "");
        run(async {
            let sender = connect(gateway.address("edge")).await;
            let web = |content_type: &str| {
                let mut head = call("Unary", &[]);
                head.headers_mut().insert("content-type", content_type.parse().unwrap());
                head
            };
            let sent = message(&noise(7, 70_000));
            let binary = unary(&sender, web("application/grpc-web+proto"), &sent).await.unwrap();
            assert_eq!((&binary.head["content-type"], binary.trailers.len()), (&"application/grpc-web".parse().unwrap(), 0));
            assert_same_bytes(&binary.body, &answer(&sent));
            let text = unary(&sender, web("application/grpc-web-text+proto"), STANDARD.encode(&sent).as_bytes()).await.unwrap();
            assert_same_bytes(&from_text(&text.body), &answer(&sent));
            let grpc = unary(&sender, call("Unary", &[]), &sent).await.unwrap();
            assert_eq!((grpc.code(), grpc.head["content-type"].to_str().unwrap()), (Some(0), "application/grpc"));
            assert_same_bytes(&grpc.body, &sent);
        });
        gateway.assert_nothing_left();
    }

    fn failures_are_told_in_its_form_and_a_page_may_read_them(driver: Driver) {
        let service = Service::start();
        let cors = "cors = { origins = [\"https://app.test\"], expose = [\"x-a\"] }\nlimit = [{ rate = \"4/h\", burst = 4 }]\ntimeout = \"300ms\"";
        let gateway = gateway(driver, &service, cors);
        let mut client = gateway.client();
        let mut ask = |path: &str, content_type: &str, body: &[u8]| {
            client.request("POST", path, &[("Content-Type", content_type), ("Origin", "https://app.test")], body)
        };
        let (binary, text) = ("application/grpc-web+proto", "application/grpc-web-text+proto");
        let missing = ask("/test.Echo/Missing", binary, &message(b"x"));
        assert_eq!((missing.status, missing.header("grpc-status"), missing.body.len()), (200, Some("12"), 0));
        assert_eq!(missing.header("content-type"), Some("application/grpc-web"));
        assert_eq!(missing.header("access-control-allow-origin"), Some("https://app.test"));
        let exposed: Vec<_> = missing.headers.iter().filter(|(name, _)| name == "access-control-expose-headers").collect();
        assert!(exposed.iter().any(|(_, names)| names.contains("grpc-status, grpc-message")), "{missing:?}");
        let late = ask("/test.Echo/Quiet", text, STANDARD.encode(message(b"x")).as_bytes());
        assert_eq!((late.status, late.header("grpc-status"), late.header("content-type")), (200, Some("4"), Some(text)));
        let broken = ask("/test.Echo/Unary", text, b"no base64!");
        assert_eq!((broken.status, broken.header("grpc-status")), (200, Some("13")));
        let mut client = gateway.client();
        let mut ask = |path: &str, body: &[u8]| {
            client.request("POST", path, &[("Content-Type", binary), ("Origin", "https://app.test")], body)
        };
        assert_eq!(ask("/test.Echo/Unary", &message(b"x")).status, 200);
        let limited = ask("/test.Echo/Unary", &message(b"x"));
        assert_eq!((limited.status, limited.header("grpc-status"), limited.header("content-type")), (200, Some("8"), Some(binary)));
        assert_eq!(limited.header("access-control-allow-origin"), Some("https://app.test"));
        assert!(limited.header("grpc-message").is_some_and(|text| !text.is_empty()));
        // where no route makes anything of it, it is a request like any other
        assert_eq!(ask("/nowhere", &message(b"x")).status, 404);
        let plain = ask("/plain/Unary", &message(b"x"));
        assert_eq!((plain.status, plain.header("content-type")), (200, Some("application/grpc")), "as the service has answered");
        assert_eq!(service.last("content-type").as_deref(), Some(binary));
        drop(client);
        gateway.assert_nothing_left();
    }
}
