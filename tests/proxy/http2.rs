//! HTTP/2 with clients: every stream is a request like any other, and none is in another's way.

use crate::support::tls::Authority;
use crate::support::{Driver, Gate, Gateway, Setup, Upstream, behind, eventually, noise, on_every_step};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// The keys of a listener that speaks it without TLS.
pub(crate) const CLEAR: &str = "http2 = { cleartext = true }";
/// Long for a test.
const LIMIT: Duration = Duration::from_secs(60);

/// A gateway whose listener speaks it, before this service.
fn gateway(driver: Driver, service: &Upstream, route: &str) -> Gateway {
    gateway_with(driver, CLEAR, &behind(&[service], route, ""))
}

pub(crate) fn gateway_with(driver: Driver, listener: &str, config: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { listener, config, ..Setup::default() })
}

/// Runs a client to its end, within a limit.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, client).await.expect("within the limit") })
}

/// A connection, whose task runs until the client is dropped.
pub(crate) async fn connect(gateway: &Gateway) -> SendRequest<Bytes> {
    connect_by(gateway, h2::client::Builder::new().initial_connection_window_size(1 << 24).initial_window_size(1 << 23))
        .await
}

async fn connect_by(gateway: &Gateway, builder: &h2::client::Builder) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(gateway.address("edge")).await.unwrap();
    let (sender, connection) = builder.handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}")).body(()).unwrap()
}

/// A request without a body.
pub(crate) async fn ask(sender: &SendRequest<Bytes>, request: Request<()>) -> Result<Response<RecvStream>, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    sender.send_request(request, true)?.0.await
}

/// All of a body, with its trailers.
pub(crate) async fn read(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        all.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok((all, body.trailers().await?))
}

/// The text that a request is answered with.
async fn text(sender: &SendRequest<Bytes>, request: Request<()>) -> (u16, String) {
    let response = ask(sender, request).await.expect("a response");
    let status = response.status().as_u16();
    let (body, _) = read(&mut response.into_body()).await.expect("a whole body");
    (status, String::from_utf8(body).unwrap())
}

/// A request with a body, in pieces as the windows allow.
pub(crate) async fn post(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
) -> Result<(u16, Vec<u8>), h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (response, mut stream) = sender.send_request(request, body.is_empty())?;
    let mut rest = body;
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len().min(16_384));
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("it goes on")?;
        let (piece, behind) = rest.split_at(room.min(rest.len()));
        rest = behind;
        stream.send_data(Bytes::copy_from_slice(piece), rest.is_empty())?;
    }
    let response = response.await?;
    let status = response.status().as_u16();
    Ok((status, read(&mut response.into_body()).await?.0))
}

/// Answers with the body that it got.
fn echo() -> Upstream {
    Upstream::answering(|request, conn| {
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()));
        conn.send(&request.body);
    })
}

on_every_step! {
    fn requests_and_bodies_of_all_sizes_go_both_ways(driver: Driver) {
        let service = echo();
        let gateway = gateway(driver, &service, "max_body = \"16MiB\"");
        run(async {
            let sender = connect(&gateway).await;
            for size in [0, 1, 100, 8_000, 16_384, 70_000, 300_000, 3 << 20] {
                for has_length in [true, false] {
                    let body = noise(size as u64, size);
                    let mut request = Request::post("http://test/echo");
                    if has_length {
                        request = request.header("content-length", size);
                    }
                    let (status, back) = post(&sender, request.body(()).unwrap(), &body).await.unwrap();
                    assert_eq!(status, 200, "{size} bytes");
                    assert!(back == body, "{size} bytes, {has_length}");
                }
            }
        });
        let requests = service.requests();
        let first = &requests[0];
        assert_eq!((first.method.as_str(), first.target.as_str()), ("POST", "/echo"));
        assert_eq!((first.header("host"), first.header("x-forwarded-proto")), (Some("test"), Some("http")));
        assert_eq!(first.header("via"), Some("2.0 ringgate"));
        assert!(requests.iter().any(|request| request.header("transfer-encoding").is_some()));
        gateway.assert_nothing_left();
    }

    fn trailers_and_bodies_of_unknown_length_come_down(driver: Driver) {
        let service = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\nX-Mixed-Case: y\r\n\r\n\
                       5\r\nhello\r\n7\r\n, world\r\n0\r\nGrpc-Status: 0\r\n\r\n");
        });
        let gateway = gateway(driver, &service, "");
        run(async {
            let sender = connect(&gateway).await;
            let response = ask(&sender, get("/")).await.unwrap();
            assert_eq!(response.headers()["x-mixed-case"], "y");
            assert!(!response.headers().contains_key("transfer-encoding"));
            let (body, trailers) = read(&mut response.into_body()).await.unwrap();
            assert_eq!(body, b"hello, world");
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        });
    }

    fn responses_without_a_body_and_the_gateway_s_own_are_whole(driver: Driver) {
        let service = Upstream::answering(|request, conn| match request.target.as_str() {
            "/204" => drop(conn.send("HTTP/1.1 204 No Content\r\n\r\n")),
            "/304" => drop(conn.send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n")),
            _ => drop(conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")),
        });
        let own = "[[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nrespond = { status = 200, body = \"mine\" }\n\
                   [[route]]\nname = \"away\"\nmatch = { path = \"/away\" }\nredirect = { to = \"https://other{path}\", status = 308 }\n";
        let gateway = gateway_with(driver, CLEAR, &(own.to_owned() + &behind(&[&service], "", "").replace("\"/*\"", "\"/s/*\"").replace("upstream = \"svc\"", "upstream = \"svc\"\nstrip_prefix = \"/s\"")));
        run(async {
            let sender = connect(&gateway).await;
            assert_eq!(text(&sender, get("/s/204")).await, (204, String::new()));
            assert_eq!(text(&sender, get("/s/304")).await, (304, String::new()));
            let head = Request::head("http://test/s/").body(()).unwrap();
            let response = ask(&sender, head).await.unwrap();
            assert_eq!(response.headers()["content-length"], "5");
            assert!(response.into_body().is_end_stream());
            assert_eq!(text(&sender, get("/own")).await, (200, "mine".to_owned()));
            let (status, body) = text(&sender, get("/nowhere")).await;
            assert_eq!(status, 404);
            assert!(body.contains("no_route"), "{body}");
            let away = ask(&sender, get("/away")).await.unwrap();
            assert_eq!((away.status().as_u16(), &away.headers()["location"]), (308, &"https://other/away".parse::<http::HeaderValue>().unwrap()));
        });
        gateway.assert_nothing_left();
    }

    fn a_body_that_ends_with_its_connection_ends_the_stream(driver: Driver) {
        let service = Upstream::scripted(|conn| {
            if conn.head().is_some() {
                conn.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
            }
        });
        let gateway = gateway(driver, &service, "");
        run(async {
            let sender = connect(&gateway).await;
            for _ in 0..3 {
                assert_eq!(text(&sender, get("/")).await, (200, "until the end".to_owned()));
            }
        });
        gateway.assert_nothing_left();
    }

    fn a_hundred_streams_at_once_are_a_hundred_requests(driver: Driver) {
        let service = Upstream::answering(|request, conn| conn.reply(200, &request.target));
        let gateway = gateway(driver, &service, "");
        run(async {
            let sender = connect(&gateway).await;
            for round in 0..5 {
                let asked = (0..100).map(|n| {
                    let (sender, path) = (sender.clone(), format!("/{round}/{n}"));
                    tokio::spawn(async move { (text(&sender, get(&path)).await, path) })
                });
                for answer in asked.collect::<Vec<_>>() {
                    let (answer, path) = answer.await.unwrap();
                    assert_eq!(answer, (200, path));
                }
            }
        });
        assert_eq!(service.requests().len(), 500);
        gateway.assert_nothing_left();
    }

    fn a_stream_that_nobody_reads_is_not_in_the_way_of_others(driver: Driver) {
        let large = noise(3, 2 << 20);
        let body = large.clone();
        let service = Upstream::answering(move |request, conn| match request.target.as_str() {
            "/large" => {
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
                conn.send(&body);
            }
            _ => conn.reply(200, "small"),
        });
        let gateway = gateway(driver, &service, "");
        run(async {
            let mut builder = h2::client::Builder::new();
            let sender = connect_by(&gateway, builder.initial_connection_window_size(1 << 24).initial_window_size(20_000)).await;
            let mut stalled = ask(&sender, get("/large")).await.unwrap().into_body();
            for _ in 0..20 {
                assert_eq!(text(&sender, get("/")).await, (200, "small".to_owned()));
            }
            let (all, _) = read(&mut stalled).await.unwrap();
            assert!(all == large);
        });
        gateway.assert_nothing_left();
    }

    fn an_upload_goes_no_faster_than_its_endpoint_and_holds_little(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let held = Arc::clone(&gate);
        let service = Upstream::scripted(move |conn| {
            let Some(head) = conn.head() else { return };
            held.wait();
            let bytes = conn.body(&head).map_or(0, |body| body.len());
            conn.reply(200, &bytes.to_string());
            conn.wait_for_close();
        });
        let gateway = gateway(driver, &service, "max_body = \"1GiB\"");
        let before = gateway.resident_bytes();
        run(async {
            let sender = connect(&gateway).await;
            let mut ready = sender.clone().ready().await.unwrap();
            let request = Request::post("http://test/").body(()).unwrap();
            let (response, mut stream) = ready.send_request(request, false).unwrap();
            let (piece, mut sent) = (Bytes::from(noise(5, 16_384)), 0);
            // until nothing more is taken: the windows and the kernels' buffers are full
            loop {
                stream.reserve_capacity(piece.len());
                let room = tokio::time::timeout(Duration::from_millis(500), std::future::poll_fn(|cx| stream.poll_capacity(cx)));
                let Ok(room) = room.await else { break };
                let bytes = room.expect("it goes on").unwrap().min(piece.len());
                stream.send_data(piece.slice(..bytes), false).unwrap();
                sent += bytes;
                assert!(sent < 128 << 20, "nothing holds it back");
            }
            let grown = gateway.resident_bytes().saturating_sub(before);
            assert!(grown < 16 << 20, "{grown} bytes");
            gate.open();
            stream.send_data(Bytes::new(), true).unwrap();
            let response = response.await.unwrap();
            let (body, _) = read(&mut response.into_body()).await.unwrap();
            assert_eq!(String::from_utf8(body).unwrap(), sent.to_string());
        });
        gateway.assert_nothing_left();
    }

    fn a_client_that_cancels_a_request_ends_it_at_the_endpoint_and_keeps_its_connection(driver: Driver) {
        let service = Upstream::answering(|request, conn| match request.target.as_str() {
            // never an answer: it ends with the connection
            "/hangs" => conn.wait_for_close(),
            _ => conn.reply(200, "fine"),
        });
        let gateway = gateway(driver, &service, "");
        run(async {
            let sender = connect(&gateway).await;
            let mut ready = sender.clone().ready().await.unwrap();
            let (response, mut stream) = ready.send_request(get("/hangs"), true).unwrap();
            while service.requests().is_empty() {
                assert_eq!(text(&sender, get("/")).await.0, 200);
            }
            stream.send_reset(Reason::CANCEL);
            drop(response);
            assert_eq!(text(&sender, get("/")).await, (200, "fine".to_owned()));
        });
        gateway.assert_nothing_left();
    }

    fn a_client_that_ends_its_direction_still_gets_what_it_has_asked_for(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let waiting = Arc::clone(&gate);
        let service = Upstream::answering(move |request, conn| match request.target.as_str() {
            "/waits" => {
                waiting.wait();
                conn.reply(200, &"late".repeat(5_000));
            }
            "/hangs" => conn.wait_for_close(),
            _ => conn.reply(200, "fine"),
        });
        let gateway = gateway(driver, &service, "");
        let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // GET of two paths, and a POST whose body never comes: :method, :scheme http, :authority test, :path
        for (stream, (method, path), flags) in [(1, (0x82, "/waits"), 5), (3, (0x82, "/waits"), 5), (5, (0x83, "/post"), 4)] {
            let mut block = vec![method, 0x86, 0x41, 4];
            block.extend_from_slice(b"test");
            block.extend_from_slice(&[0x44, path.len() as u8]);
            block.extend_from_slice(path.as_bytes());
            frames.extend_from_slice(&[0, 0, block.len() as u8, 1, flags, 0, 0, 0, stream]);
            frames.extend_from_slice(&block);
        }
        let mut socket = std::net::TcpStream::connect(gateway.address("edge")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        std::io::Write::write_all(&mut socket, &frames).unwrap();
        eventually("both have arrived", || (service.requests().len() >= 2).then_some(()));
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        eventually("what cannot be had any more is over", || (gateway.metric("ringgate_http2_streams", &[]) == 2.0).then_some(()));
        gate.open();
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut socket, &mut said).expect("the end, and no reset");
        // frames cut it anywhere
        assert!(said.len() > 40_000, "both are answered: {}", said.len());
        gateway.assert_nothing_left();
        // and one that never reads is waited for no longer than on HTTP/1.1
        let cut = frames.windows(6).position(|text| text == b"/waits").unwrap();
        frames[cut..cut + 6].copy_from_slice(b"/hangs");
        frames.truncate(cut + 6);
        let mut socket = std::net::TcpStream::connect(gateway.address("edge")).unwrap();
        std::io::Write::write_all(&mut socket, &frames).unwrap();
        eventually("it has arrived", || service.requests().iter().any(|it| it.target == "/hangs").then_some(()));
        drop(socket);
        eventually("it is over", || (gateway.metric("ringgate_http2_streams", &[]) == 0.0).then_some(()));
        gateway.assert_nothing_left();
    }

    fn an_early_answer_is_passed_on_and_the_rest_of_the_request_is_stopped(driver: Driver) {
        let service = Upstream::scripted(|conn| {
            if conn.head().is_some() {
                conn.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
                conn.wait_for_close();
            }
        });
        let gateway = gateway(driver, &service, "max_body = \"1GiB\"");
        run(async {
            let sender = connect(&gateway).await;
            let mut ready = sender.clone().ready().await.unwrap();
            let request = Request::post("http://test/").body(()).unwrap();
            let (response, mut stream) = ready.send_request(request, false).unwrap();
            stream.send_data(Bytes::from_static(b"a beginning"), false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 413);
            assert_eq!(read(&mut response.into_body()).await.unwrap().0, b"big");
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
            assert_eq!(reset, Reason::NO_ERROR, "RFC 9113 §8.1");
        });
        gateway.assert_nothing_left();
    }

    fn a_drain_lets_streams_end_and_takes_no_more(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let service = Upstream::holding("/held", &gate);
        let mut gateway = gateway(driver, &service, "");
        run(async {
            let socket = TcpStream::connect(gateway.address("edge")).await.unwrap();
            let (sender, connection) = h2::client::handshake(socket).await.unwrap();
            let connection = tokio::spawn(connection);
            let held = {
                let sender = sender.clone();
                tokio::spawn(async move { text(&sender, get("/held")).await })
            };
            while service.requests().is_empty() {
                tokio::task::yield_now().await;
            }
            gateway.running().signal("TERM");
            // told, but not before the connection knows that it leaves
            let mut refused = 0;
            while refused == 0 {
                if ask(&sender, get("/late")).await.is_err() {
                    refused += 1;
                }
            }
            gate.open();
            assert_eq!(held.await.unwrap().0, 200, "what was in flight ends");
            drop(sender);
            connection.await.unwrap().expect("an orderly end");
        });
        assert!(gateway.running().wait().success());
    }
}

#[test]
fn tls_clients_that_ask_for_it_get_it_and_others_do_not() {
    let authority = Authority::new();
    authority.sign("server", &["localhost", "test"]);
    let service = echo();
    let listener = format!("{}\nhttp2 = {{ max_streams = 10 }}", authority.listener("server"));
    for driver in [Driver::IoUring, Driver::Epoll].into_iter().filter(|driver| driver.is_possible()) {
        let gateway = gateway_with(driver, &listener, &behind(&[&service], "", ""));
        for (offered, speaks) in [(&[&b"h2"[..], b"http/1.1"][..], true), (&[b"http/1.1"], false)] {
            let mut rules = (*authority.client()).clone();
            rules.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
            run(async {
                let socket = TcpStream::connect(gateway.address("edge")).await.unwrap();
                let connector = tokio_rustls::TlsConnector::from(Arc::new(rules));
                let session = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
                assert_eq!(session.get_ref().1.alpn_protocol() == Some(b"h2"), speaks);
                if speaks {
                    let (sender, connection) = h2::client::handshake(session).await.unwrap();
                    tokio::spawn(async move { drop(connection.await) });
                    for size in [0, 10, 60_000] {
                        let body = noise(7, size);
                        let request = Request::post("https://test/").body(()).unwrap();
                        let (status, back) = post(&sender, request, &body).await.unwrap();
                        assert!(status == 200 && back == body, "{size} bytes: {status}");
                    }
                }
            });
        }
        gateway.assert_nothing_left();
    }
    let request = service.requests().pop().expect("there were some");
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_listener_without_the_table_and_one_with_both_speak_http_1_1() {
    let service = Upstream::always("ok");
    for listener in ["", CLEAR] {
        let gateway = gateway_with(Driver::Epoll, listener, &behind(&[&service], "", ""));
        for method in ["GET", "POST", "PRI", "P"] {
            let response = gateway.request(method, "/", &[], b"");
            assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{method}");
        }
    }
    let gateway = gateway_with(Driver::Epoll, "", &behind(&[&service], "", ""));
    let mut client = gateway.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.read("GET").status, 505);
}

#[test]
fn the_log_says_what_was_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let service = Upstream::always("ok");
    let log = format!("[access_log]\npath = \"{}\"\n\n", file.display());
    let gateway = gateway_with(Driver::Epoll, CLEAR, &(log + &behind(&[&service], "", "")));
    run(async {
        let sender = connect(&gateway).await;
        assert_eq!(text(&sender, get("/a?b")).await.0, 200);
        assert_eq!(text(&sender, get("/%2f")).await.0, 400);
    });
    let lines = eventually("two lines", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        (text.lines().count() == 2).then_some(text)
    });
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (line, (status, target)) in lines.iter().zip([(200, "/a?b"), (400, "/%2f")]) {
        assert_eq!((line["status"].as_u64(), &line["version"]), (Some(status), &"2.0".into()), "{line}");
        assert!(line.to_string().contains(target), "{line}");
    }
}
