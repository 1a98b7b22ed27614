//! Both directions at once: a service may answer while it is still reading (RFC 9112 §9.5), and whoever breaks off then must not leave
//! something that looks whole.

use crate::support::upstream::Conn;
use crate::support::{
    Client, Driver, Gate, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, first_then, noise,
    on_every_step,
};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PIECE: usize = 1_000;
const PIECES: usize = 20;

/// Answers at once, and sends back every piece of the request as a chunk of its own before it reads the next.
fn echo() -> Upstream {
    Upstream::scripted(|conn| {
        while let Some(head) = conn.head() {
            let length: usize = head.header("content-length").map_or(0, |length| length.parse().unwrap());
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for _ in 0..length / PIECE {
                let Some(piece) = conn.take(PIECE) else { return };
                conn.send([format!("{PIECE:x}\r\n").as_bytes(), &piece, b"\r\n"].concat());
            }
            conn.send("0\r\n\r\n");
        }
    })
}

fn post(length: usize) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

/// Sends a piece, and takes it back as a chunk.
fn play_ping_pong(client: &mut Client, piece: &[u8]) {
    client.send(piece);
    let back = client.take(format!("{PIECE:x}\r\n").len() + PIECE + 2).unwrap();
    assert_eq!(&back[back.len() - PIECE - 2..back.len() - 2], piece);
}

on_every_step! {
    fn an_echo_comes_back_while_its_request_is_still_going_up(driver: Driver) {
        let upstream = echo();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for round in 0..3 {
            client.send(post(PIECES * PIECE));
            assert_eq!(client.read_head().unwrap().0, 200);
            for piece in noise(round, PIECES * PIECE).chunks(PIECE) {
                play_ping_pong(&mut client, piece);
            }
            assert_eq!(client.take(5).unwrap(), b"0\r\n\r\n");
        }
        assert_eq!(upstream.connections(), 1, "a whole exchange leaves both connections good");
    }

    fn a_client_that_leaves_in_the_middle_ends_the_service_s_connection_too(driver: Driver) {
        let upstream = echo();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send(post(PIECES * PIECE));
        assert_eq!(client.read_head().unwrap().0, 200);
        play_ping_pong(&mut client, &noise(1, PIECE));
        drop(client);
        eventually("the end of the exchange", || {
            let labels = [("reason", "client_closed")];
            (gateway.metric("ringgate_rejected_total", &labels) == 1.0).then_some(())
        });
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!(upstream.connections(), 2, "half a request was sent on the first");
    }

    fn a_request_that_breaks_in_the_middle_does_not_end_the_answer(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        assert_eq!(client.read_head().unwrap().0, 200);
        assert_eq!(client.take(10).unwrap(), b"5\r\nfirst\r\n");
        client.send("this is no chunk size\r\n");
        // reset or closed, but without the last chunk
        assert_eq!(client.read_to_end().unwrap_or_default(), b"");
    }

    fn a_refusal_in_the_middle_of_an_upload_sends_all_of_it_elsewhere(driver: Driver) {
        let refusing = Upstream::scripted(|conn| {
            conn.head();
            conn.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
            conn.wait_for_close();
        });
        let taking = Upstream::answering(|request, conn| conn.reply(200, &request.body.len().to_string()));
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&refusing, &taking), "", ""));
        let mut client = gateway.client();
        let body = noise(7, PIECES * PIECE);
        client.send(post(body.len()).replace("POST", "PUT"));
        client.send(&body[..PIECE]);
        // the second service has the head, and so the beginning of the body, once the first has refused
        eventually("the retry", || (taking.connections() == 1).then_some(()));
        client.send(&body[PIECE..]);
        assert_eq!(client.read("PUT").text(), body.len().to_string());
        assert_eq!(taking.requests()[0].body, body);
    }

    fn a_refusal_by_a_service_that_does_not_read_on_is_passed_on(driver: Driver) {
        let over = Arc::new(Gate::default());
        let held = over.clone();
        let script = move |conn: &mut Conn| {
            conn.head();
            conn.send("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno");
            // reads nothing and keeps the connection
            held.wait();
        };
        let dir = tempfile::tempdir().unwrap();
        let services = [Upstream::scripted(script.clone()), Upstream::scripted_on_unix_socket(&dir.path().join("s.sock"), script)];
        for service in &services {
            let config = behind(&[service], "[route.retry]\nattempts = 1", "");
            let setup = Setup { listener: "max_body = \"100MiB\"", config: &config, ..Setup::default() };
            let gateway = Gateway::start_with(driver, &setup);
            let mut client = gateway.client();
            let stream = client.stream_handle();
            std::thread::scope(|scope| {
                // more than all buffers on the way can hold; it ends when the gateway has closed the connection
                scope.spawn(move || (&*stream).write_all(&[post(64 << 20).into_bytes(), noise(3, 64 << 20)].concat()));
                let response = client.read("POST");
                assert_eq!((response.status, response.text().as_str()), (503, "no"), "{}", service.address());
                client.stream().cut();
            });
            gateway.assert_nothing_left();
        }
        over.open();
    }

    fn a_steady_reader_is_not_cut_for_uploading_too(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 24 << 20));
            conn.send(noise(4, 24 << 20));
            conn.wait_for_close();
        });
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "body_timeout = \"1s\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.stream().set_small_buffers();
        client.send(post(60));
        assert_eq!(client.read_head().unwrap().0, 200);
        let began = Instant::now();
        let mut sent = 0;
        // a byte up and a little down, for longer than the timeout; then nothing goes up any more, and reading goes on
        while began.elapsed() < Duration::from_millis(2_500) {
            if sent < 30 {
                client.send("x");
                sent += 1;
            }
            client.take(10_000).expect("the gateway waits as long as something is read");
            std::thread::park_timeout(Duration::from_millis(40));
        }
    }
}
