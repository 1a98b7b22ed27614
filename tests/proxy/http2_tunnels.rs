//! WebSockets over HTTP/2 (RFC 8441): with clients, with endpoints, and across both, with real WebSockets at the ends.

use crate::support::grpc::send;
use crate::support::{
    Driver, Gateway, PATIENCE, Setup, Upstream, behind, behind_endpoints, eventually, noise, on_both_drivers,
};
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

const CLEAR: &str = "http2 = { cleartext = true }";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Carries bytes between a stream and a socket until both directions have ended.
async fn pump(mut receive: RecvStream, mut sink: SendStream<Bytes>, socket: UnixStream) {
    socket.set_nonblocking(true).unwrap();
    let (mut from, mut to) = tokio::net::UnixStream::from_std(socket).unwrap().into_split();
    let down = async {
        while let Some(Ok(piece)) = receive.data().await {
            let _ = receive.flow_control().release_capacity(piece.len());
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        drop(to);
    };
    let up = async {
        let mut piece = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            send(&mut sink, &piece[..count]).await;
        }
        let _ = sink.send_data(Bytes::new(), true);
    };
    tokio::join!(down, up);
}

/// What the gateway answers to an extended CONNECT, and a socket whose other end is its stream.
fn connect(gateway: &Gateway, protocol: &'static str, path: &str) -> (u16, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (tell, told) = mpsc::channel();
    let (address, uri) = (gateway.address("edge").to_owned(), format!("http://test{path}"));
    thread::spawn(move || {
        runtime().block_on(async {
            let socket = tokio::net::TcpStream::connect(&address).await.unwrap();
            let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            while !sender.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
            let mut head = Request::builder().method(Method::CONNECT).uri(uri).header("sec-websocket-version", "13");
            head = head.extension(Protocol::from_static(protocol));
            let (response, sink) = sender.send_request(head.body(()).unwrap(), false).unwrap();
            let response = response.await.unwrap();
            assert!(!response.headers().contains_key("sec-websocket-accept"), "{response:?}");
            tell.send(response.status().as_u16()).unwrap();
            pump(response.into_body(), sink, theirs).await;
        });
    });
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    (told.recv_timeout(PATIENCE).expect("an answer"), ours)
}

/// Sends back all messages until the other end closes.
fn echo<S: Read + std::io::Write>(mut socket: WebSocket<S>) {
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).unwrap(),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Messages of all sizes, and the closing handshake.
fn talk<S: Read + std::io::Write>(mut socket: WebSocket<S>) {
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let message = Message::binary(noise(size as u64, size));
        socket.send(message.clone()).unwrap();
        assert!(socket.read().unwrap() == message, "{size} bytes");
    }
    socket.close(None).unwrap();
    while !matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)) {}
}

/// An endpoint of HTTP/1.1 that speaks WebSocket.
fn http1_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(|| echo(tungstenite::accept(socket).expect("a handshake")));
        }
    });
    address
}

/// One of HTTP/2, which says so if `connects`; else, and to all else, it answers 200.
fn http2_endpoint(connects: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    if connects {
                        builder.enable_connect_protocol();
                    }
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        assert!(!request.headers().contains_key("sec-websocket-key") || !connects, "{request:?}");
                        let protocol = request.extensions().get::<Protocol>().map(|it| it.as_str().to_owned());
                        let head = Response::builder().status(200).header("x-version", "2");
                        let is_tunnel = protocol.as_deref() == Some("websocket") && request.method() == Method::CONNECT;
                        let sink = respond.send_response(head.body(()).unwrap(), !is_tunnel).unwrap();
                        if is_tunnel {
                            let (ours, theirs) = UnixStream::pair().unwrap();
                            thread::spawn(|| echo(WebSocket::from_raw_socket(ours, Role::Server, None)));
                            tokio::spawn(pump(request.into_body(), sink, theirs));
                        }
                    }
                });
            }
        });
    });
    address
}

fn gateway(driver: Driver, endpoint: SocketAddr, cluster: &str) -> Gateway {
    let config = behind_endpoints(&format!("{{ address = \"{endpoint}\" }}"), "", cluster);
    Gateway::start_with(driver, &Setup { listener: CLEAR, config: &config, ..Setup::default() })
}

fn tunnels(gateway: &Gateway) -> f64 {
    gateway.metric("ringgate_tunnels", &[("listener", "edge")])
}

on_both_drivers! {
    fn a_route_that_answers_itself_makes_no_tunnel(driver: Driver) {
        let config = "[[route]]\nmatch = { path = \"/\" }\nrespond = { body = \"own\" }\n[[route]]\nmatch = { path = \"/gone\" }\n\
             respond = { status = 410 }\n[[route]]\nmatch = { path = \"/away\" }\nredirect = { to = \"/\", status = 307 }\n";
        let gateway = Gateway::start_with(driver, &Setup { listener: CLEAR, config, ..Setup::default() });
        // 2xx would be a tunnel to nobody (RFC 9110 §9.3.6)
        for (path, status) in [("/", 501), ("/gone", 410), ("/away", 307)] {
            assert_eq!(connect(&gateway, "websocket", path).0, status, "{path}");
        }
    }

    fn a_websocket_of_http2_reaches_an_endpoint_of_http1(driver: Driver) {
        let gateway = gateway(driver, http1_endpoint(), "");
        let (status, socket) = connect(&gateway, "websocket", "/chat");
        assert_eq!((status, tunnels(&gateway)), (200, 1.0));
        talk(WebSocket::from_raw_socket(socket, Role::Client, None));
        eventually("it is over", || (tunnels(&gateway) == 0.0).then_some(()));
        gateway.assert_nothing_left();
    }

    fn one_of_http1_reaches_an_endpoint_of_http2_and_so_does_one_of_http2(driver: Driver) {
        let gateway = gateway(driver, http2_endpoint(true), "protocol = \"h2\"");
        let stream = TcpStream::connect(gateway.address("edge")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // the client looks at the answer to its key itself
        let (socket, response) = tungstenite::client("ws://ringgate.test/chat", stream).expect("a handshake");
        assert_eq!((response.status().as_u16(), &response.headers()["x-version"]), (101, &"2".parse().unwrap()));
        talk(socket);
        let (status, socket) = connect(&gateway, "websocket", "/chat");
        assert_eq!(status, 200);
        talk(WebSocket::from_raw_socket(socket, Role::Client, None));
        eventually("both are over", || (tunnels(&gateway) == 0.0).then_some(()));
        gateway.assert_nothing_left();
    }

    fn what_cannot_be_a_tunnel_is_refused_and_no_success(driver: Driver) {
        let page = Upstream::answering(|request, conn| match request.target.as_str() {
            "/forbidden" => conn.reply(403, "no"),
            "/lies" => {
                conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n");
            }
            _ => conn.reply(200, "a page"),
        });
        let config = behind(&[&page], "retry = { attempts = 0 }", "");
        let before = Gateway::start_with(driver, &Setup { listener: CLEAR, config: &config, ..Setup::default() });
        let answer = |gateway: &Gateway, protocol, path| connect(gateway, protocol, path).0;
        assert_eq!(answer(&before, "connect-udp", "/"), 501, "RFC 9220 §3");
        assert_eq!(page.requests().len(), 0);
        assert_eq!(answer(&before, "websocket", "/"), 501, "its endpoint speaks no WebSocket");
        assert_eq!(answer(&before, "websocket", "/forbidden"), 403);
        assert_eq!(answer(&before, "websocket", "/lies"), 502, "the key is not answered");
        let seen = page.requests();
        assert!(seen.iter().all(|it| it.method == "GET" && it.header("upgrade") == Some("websocket")), "{seen:?}");
        assert_eq!(seen[0].header("sec-websocket-key").map(str::len), Some(24));
        assert_ne!(seen[0].header("sec-websocket-key"), seen[1].header("sec-websocket-key"));
        before.assert_nothing_left();
        let silent = gateway(driver, http2_endpoint(false), "protocol = \"h2\"");
        assert_eq!(answer(&silent, "websocket", "/"), 501, "it has not said that it takes any");
        silent.assert_nothing_left();
    }

    fn ends_resets_and_silence_of_a_stream_are_those_of_the_tunnel(driver: Driver) {
        let (tell, told) = mpsc::channel();
        let accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: ";
        let service = Upstream::scripted(move |conn| {
            let Some(request) = conn.request() else { return };
            let key = request.header("sec-websocket-key").unwrap_or_default();
            let answer = ringgate::http::websocket::accept(key.as_bytes());
            conn.send([accept.as_bytes(), &answer, b"\r\n\r\nhello"].concat());
            let heard = conn.take(3);
            conn.send("late");
            conn.wait_for_close();
            tell.send(heard).unwrap();
        });
        let listener = format!("{CLEAR}\ntunnel_timeout = \"300ms\"");
        let config = behind(&[&service], "", "");
        let gateway = Gateway::start_with(driver, &Setup { listener: &listener, config: &config, ..Setup::default() });
        let (status, mut socket) = connect(&gateway, "websocket", "/");
        assert_eq!(status, 200);
        std::io::Write::write_all(&mut socket, b"one").unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hellolate", "what came behind the 101, and behind our own end");
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().as_deref(), Some(&b"one"[..]));
        // silent for longer than it may be
        let (_, mut socket) = connect(&gateway, "websocket", "/");
        said.clear();
        let _ = socket.read_to_string(&mut said);
        assert_eq!(said, "hello");
        drop(socket);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), None);
        eventually("both are over", || (tunnels(&gateway) == 0.0).then_some(()));
        gateway.assert_nothing_left();
        assert_eq!(gateway.metric("ringgate_rejected_total", &[("reason", "tunnel_timeout")]), 1.0);
    }
}
