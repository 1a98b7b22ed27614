//! Splits whose sides people keep and that stand in for each other, and faults that are made for tests.

use crate::support::client::Response;
use crate::support::{Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use std::time::{Duration, Instant};

/// A route over two upstreams, each with these endpoints.
fn split(weights: [u32; 2], endpoints: [&str; 2], route: &str) -> String {
    format!(
        "[[route]]\nname = \"all\"\nsplit = [{{ upstream = \"a\", weight = {} }}, {{ upstream = \"b\", weight = {} }}]\n{route}\n\n\
         [upstream.a]\nendpoints = [{{ address = \"{}\" }}]\n[upstream.b]\nendpoints = [{{ address = \"{}\" }}]\n",
        weights[0], weights[1], endpoints[0], endpoints[1]
    )
}

fn event(gateway: &Gateway, event: &str) -> f64 {
    gateway.metric("ringgate_traffic_events_total", &[("route", "all"), ("event", event)])
}

fn with(gateway: &Gateway, name: &str, value: &str) -> Response {
    gateway.request("GET", "/", &[(name, value)], b"")
}

on_both_drivers! {
    fn who_brings_the_same_stays_on_the_same_side(driver: Driver) {
        let (a, b) = (Upstream::always("a"), Upstream::always("b"));
        for (key, header, value) in
            [("cookie:id", "Cookie", "x=1; id=NUMBER"), ("header:x-user", "X-User", "NUMBER"), ("consumer", "X-Key", "key-NUMBER")]
        {
            let consumers: String = match key {
                "consumer" => (0..16)
                    .map(|number| {
                        let hash = KEYS[number];
                        format!("[consumer.c{number}]\nkeys = [{{ sha256 = \"{hash}\" }}]\n")
                    })
                    .chain(["[auth.key]\nheader = \"x-key\"\n".to_owned()])
                    .collect(),
                _ => String::new(),
            };
            let auth = if consumers.is_empty() { "" } else { "auth = [\"key\"]" };
            let config = split([1, 1], [a.address(), b.address()], &format!("split_by = \"{key}\"\n{auth}")) + &consumers;
            // a worker each, and another process: the side is nobody's memory
            let gateways = [1, 2].map(|workers| Gateway::start_with(driver, &Setup { workers, config: &config, ..Setup::default() }));
            let sides: Vec<Vec<String>> = gateways
                .iter()
                .map(|gateway| {
                    let of = |number: usize| {
                        let value = value.replace("NUMBER", &number.to_string());
                        let texts = [0, 1, 2].map(|_| with(gateway, header, &value).text());
                        assert!(texts.iter().all(|text| *text == texts[0]), "{key} {number}: {texts:?}");
                        texts[0].clone()
                    };
                    (0..16).map(of).collect()
                })
                .collect();
            assert_eq!(sides[0], sides[1], "{key}");
            assert!(["a", "b"].iter().all(|side| sides[0].contains(&(*side).to_owned())), "{key}: {:?}", sides[0]);
        }
    }

    fn a_side_without_anybody_is_taken_by_the_other(driver: Driver) {
        let (mut a, b) = (Upstream::always("a"), Upstream::always("b"));
        let config = split([1_000, 1], [a.address(), b.address()], "");
        let gateway = Gateway::start(driver, &config);
        eventually("a answers", || (gateway.get("/").text() == "a").then_some(()));
        a.stop();
        for body in [&b""[..], b"hello"] {
            for _ in 0..10 {
                // not one is lost: the first ones go on when nobody could be reached
                let response = gateway.request(if body.is_empty() { "GET" } else { "POST" }, "/", &[], body);
                assert_eq!((response.status, response.text().as_str()), (200, "b"));
            }
        }
        assert!(event(&gateway, "split_fallback") >= 19.0);
        assert_eq!(b.requests().iter().filter(|request| request.body == b"hello").count(), 10);
    }

    fn a_side_that_is_full_is_taken_by_the_other(driver: Driver) {
        let a = Upstream::answering(|request, conn| match request.target.as_str() {
            "/hang" => conn.wait_for_close(),
            _ => conn.reply(200, "a"),
        });
        let b = Upstream::always("b");
        for (route, status) in [("", 200), ("split_fallback = false", 503)] {
            let config = split([65_535, 1], [a.address(), b.address()], route).replace("[upstream.b]", "max_requests = 1\n[upstream.b]");
            let gateway = Gateway::start(driver, &config);
            eventually("a answers", || (gateway.get("/").text() == "a").then_some(()));
            let mut hanging = gateway.client();
            let before = a.requests().len();
            eventually("one hangs there", || {
                hanging = gateway.client();
                hanging.send("GET /hang HTTP/1.1\r\nHost: x\r\n\r\n");
                eventually("it is somewhere", || (a.requests().len() + b.requests().len() > before).then_some(()));
                (a.requests().len() > before).then_some(())
            });
            for method in ["GET", "POST"] {
                let response = gateway.request(method, "/", &[], if method == "GET" { b"" } else { b"hello" });
                assert_eq!(response.status, status, "{route} {method}");
                match status {
                    200 => assert_eq!(response.text(), "b"),
                    _ => response.assert_rejected(503, "upstream_saturated"),
                }
            }
            drop(hanging);
            eventually("there is room again", || (gateway.get("/").text() == "a").then_some(()));
        }
    }

    fn responses_go_no_faster_than_their_bandwidth(driver: Driver) {
        const SIZE: usize = 600_000;
        let body = "x".repeat(SIZE);
        let text = body.clone();
        let service = Upstream::answering(move |request, conn| match request.target.as_str() {
            "/chunked" => {
                conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in text.as_bytes().chunks(50_000) {
                    conn.send(format!("{:x}\r\n", piece.len()));
                    conn.send(piece);
                    conn.send("\r\n");
                }
                conn.send("0\r\n\r\n");
            }
            "/small" => conn.reply(200, &text[..40_000]),
            _ => conn.reply(200, &text),
        });
        // 80 KiB at once, and a MiB a second from then on
        let of = |per: &str| behind(&[&service], &format!("bandwidth = {{ rate = \"1MiB/s\", burst = \"80KiB\", per = \"{per}\" }}"), "");
        let least = |bytes: usize| Duration::from_secs_f64((bytes as f64 - 2.0 * 81_920.0) / f64::from(1 << 20));
        let gateway = Gateway::start(driver, &of("connection"));
        for path in ["/fixed", "/chunked"] {
            let (mut client, began) = (gateway.client(), Instant::now());
            let response = client.get(path);
            assert!(response.status == 200 && response.text() == body, "{path}");
            assert!(began.elapsed() >= least(SIZE), "{path}: {:?}", began.elapsed());
        }
        assert!(event(&gateway, "bandwidth_wait") >= 2.0);
        // small ones count as well, also those that are there with their head
        let (mut client, began) = (gateway.client(), Instant::now());
        (0..15).for_each(|_| assert_eq!(client.get("/small").body.len(), 40_000));
        assert!(began.elapsed() >= least(15 * 40_000), "{:?}", began.elapsed());
        drop(client);
        gateway.assert_nothing_left();
        // shared by what has the same key, whatever connection it comes by; and who leaves is not waited for
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &of("header:x-key"), ..Setup::default() });
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(gateway.request("GET", "/fixed", &[("X-Key", "a")], b"").body.len(), SIZE));
            }
        });
        assert!(began.elapsed() >= least(3 * SIZE), "{:?}", began.elapsed());
        let mut client = gateway.client();
        client.send("GET /fixed HTTP/1.1\r\nHost: x\r\nX-Key: a\r\n\r\n");
        client.take(1).unwrap();
        drop(client);
        gateway.assert_nothing_left();
    }

    fn without_fallback_a_side_that_is_gone_is_gone(driver: Driver) {
        let b = Upstream::always("b");
        let config = split([1_000, 1], ["127.0.0.1:1", b.address()], "split_fallback = false");
        let gateway = Gateway::start(driver, &config);
        let refused = (0..20).map(|_| gateway.get("/")).filter(|response| response.status == 503).count();
        assert!(refused >= 18, "{refused}");
        assert_eq!(event(&gateway, "split_fallback"), 0.0);
    }

    fn a_session_decides_about_the_side(driver: Driver) {
        let (a, b) = (Upstream::always("a"), Upstream::always("b"));
        let sticky = "sticky = { key = \"0123456789abcdef\" }\n";
        let config = split([1, 1], [a.address(), b.address()], "").replace("[upstream.b]", &format!("{sticky}[upstream.b]")) + sticky;
        let gateway = Gateway::start(driver, &config);
        let first = gateway.get("/");
        let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        for _ in 0..12 {
            assert_eq!(with(&gateway, "Cookie", &cookie).text(), first.text());
        }
        let seen: Vec<_> = [&a, &b].into_iter().flat_map(Upstream::requests).collect();
        assert!(seen.iter().all(|request| request.header("cookie").is_none()));
    }

    fn faults_are_made_and_told(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let upstream = Upstream::always("ok");
        let fault = "fault = { delay = { time = \"30ms\" }, abort = { status = 418 }, header = \"x-fault\" }";
        let config = format!("[access_log]\npath = \"{}\"\n{}", log.display(), behind(&[&upstream], fault, ""));
        let gateway = Gateway::start(driver, &config);
        assert_eq!(gateway.get("/").status, 200);
        let began = Instant::now();
        let mut client = gateway.client();
        let refused = client.request("POST", "/", &[("X-Fault", "1")], b"hello");
        refused.assert_rejected(418, "fault_injected");
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert_eq!(client.get("/").status, 200, "the connection goes on");
        assert_eq!(upstream.requests().len(), 2);
        assert_eq!((event(&gateway, "fault_delay"), event(&gateway, "fault_abort")), (1.0, 1.0));
        let lines = eventually("the log is written", || {
            let text = std::fs::read_to_string(&log).ok()?;
            (text.lines().count() == 3).then_some(text)
        });
        let told: Vec<_> = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
        let of_fault = told.iter().find(|line| line["status"] == 418).unwrap_or_else(|| panic!("{lines}"));
        assert_eq!((&of_fault["fault"], &of_fault["error"]), (&"delay+abort".into(), &"fault_injected".into()));
        assert!(told.iter().filter(|line| line.get("fault").is_none()).count() == 2, "{lines}");
    }

    fn the_page_of_a_fault_is_that_of_its_status(driver: Driver) {
        let upstream = Upstream::always("ok");
        let listener = "errors = [{ status = [418], body = \"tea {status}\" }, { status = [503], body = \"no\" }]";
        let config = behind(&[&upstream], "fault = { abort = { status = 418 } }", "");
        let gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
        let refused = gateway.get("/");
        assert_eq!((refused.status, refused.text()), (418, "tea 418".into()));
    }

    fn a_delay_is_a_part_of_the_timeout_and_ends_with_its_client(driver: Driver) {
        let upstream = Upstream::always("ok");
        let route = |timeout: &str| format!("timeout = \"{timeout}\"\nfault = {{ delay = {{ time = \"1h\" }} }}");
        let gateway = Gateway::start(driver, &behind(&[&upstream], &route("50ms"), ""));
        gateway.get("/").assert_rejected(504, "upstream_timeout");
        let gateway = Gateway::start(driver, &behind(&[&upstream], &route("1h"), ""));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually("it waits", || (event(&gateway, "fault_delay") == 1.0).then_some(()));
        drop(client);
        gateway.assert_nothing_left();
        assert!(upstream.requests().is_empty());
    }
}

/// SHA-256 of `key-0` and so on.
const KEYS: [&str; 16] = [
    "d5ead6fdd3d16630aad4f07f5e49486337a42e58fb4eef0deaabb814c003b134",
    "be2974546978e3739e6d6da85c4be9f334ce32df2b9fd4b6ff1b55c0d57e9d44",
    "7c36b0a9dedde119c75165957c6c9c187e65df1ee5db87c4c58ad503ad88cbe3",
    "d9ef8196557c9da69806fb5d777f4e5ad6d5c18593039e0ff62f9fdf003b0198",
    "f5404d68a86b01ee138f6d135cb9952fc6f804f5ab4104a8d4a5fb06e4e1b197",
    "043e30951bc4eac6c587191be09ec64110933b6c5e633e695462333318561e55",
    "f3166bdf439d0b1da048ef0d3ad2459c77c99ba779b9f5e32cf2bc42559b58c6",
    "78ed7d2bf2a8c4af4a3d3652a89fe8b9f46addb8bc8e7cb69106a6467900f5e6",
    "2ef94a67f93c79a6fe2710bb5f2907658c1f96d8cc6bae6bf8c8e180119897e1",
    "1a4d5bcb1c7d0500b0f6566d599bf7a5492d0fded14c7bed41a682815d6bec92",
    "8cfe286af19b18d866b425865ff494fcd329d4a73274d67ad0643b305040d350",
    "0e6f3e7f1be7ab10cdbe06ac405cbbffa2af6f4a64289540c9b7799989d3973a",
    "0022cbd1934aa946a5c78aed5ec201e127ef41c4e907158b46b62b7d7ee4dd6a",
    "a826010dd7b981830969edf0a1157dfa6a7fc814f343734a54ebd67797d4031d",
    "6270b724015e19ea7a27c9a085ec99b7a476951ccceaf5a2e019e9e17113be89",
    "17205a402de0ad4b3294b961bdac027dbc875a485c5f178995a63fd033d34ac6",
];
