//! A slow side slows the other side down; the gateway does not buffer the difference.

use crate::support::stream::Stream;
use crate::support::{Driver, Gate, Gateway, Setup, Upstream, assert_same_bytes, behind, noise, on_both_drivers};
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// More than the kernel's buffers of both hops can hold together.
const BODY: usize = 64 << 20;
/// What the gateway may grow by while a side stands still: its own blocks and nothing of the body.
const GROWTH: u64 = 8 << 20;
/// A write that waits this long is held back; if a busy machine fakes it, the test only measures earlier.
const HELD_BACK: Duration = Duration::from_millis(700);

/// Writes until the other side holds it back, says so, waits for `go_on`, writes the rest.
fn write_until_held_back(stream: &Stream, body: &[u8], held_back: &Gate, go_on: &Gate, written: &AtomicUsize) {
    stream.limit(HELD_BACK).expect("a timeout can be set");
    let mut left = body;
    while !left.is_empty() {
        match (&mut &*stream).write(&left[..left.len().min(64 << 10)]) {
            Ok(taken) => {
                written.fetch_add(taken, Ordering::SeqCst);
                left = &left[taken..];
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                held_back.open();
                go_on.wait();
            }
            Err(_) => return,
        }
    }
    held_back.open();
}

on_both_drivers! {
    fn a_client_that_does_not_read_stops_the_service(driver: Driver) {
        let body: Arc<[u8]> = noise(11, BODY).into();
        let (held_back, go_on, written) = (Arc::new(Gate::default()), Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
        let upstream = {
            let (body, held_back, go_on, written) = (body.clone(), held_back.clone(), go_on.clone(), written.clone());
            Upstream::answering(move |request, conn| {
                if request.target == "/warm" {
                    return conn.reply(200, "warm");
                }
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
                write_until_held_back(conn.stream(), &body, &held_back, &go_on, &written);
            })
        };
        let gateway = Gateway::start(driver, &behind(&[&upstream], "timeout = \"120s\"", ""));
        assert_eq!(gateway.get("/warm").status, 200);
        let before = gateway.resident_bytes();
        let mut client = gateway.client();
        client.stream().set_small_buffers();
        client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
        held_back.wait();
        let grown = gateway.resident_bytes().saturating_sub(before);
        let taken = written.load(Ordering::SeqCst);
        assert!(taken < BODY, "all of the body was taken though nobody read it");
        assert!(grown < GROWTH, "the gateway grew by {grown} bytes");
        go_on.open();
        assert_same_bytes(&client.read("GET").body, &body);
    }

    fn a_service_that_does_not_read_stops_the_client(driver: Driver) {
        let body: Arc<[u8]> = noise(12, BODY).into();
        let go_on = Arc::new(Gate::default());
        let upstream = {
            let (body, go_on) = (body.clone(), go_on.clone());
            Upstream::scripted(move |conn| {
                conn.stream().set_small_buffers();
                while let Some(head) = conn.head() {
                    if head.method == "POST" {
                        go_on.wait();
                    }
                    let Some(got) = conn.body(&head) else { return };
                    conn.reply(200, if got == *body { "same" } else { "different" });
                }
            })
        };
        let config = behind(&[&upstream], "timeout = \"120s\"", "");
        let setup = Setup { listener: "max_body = \"100MiB\"\nbody_timeout = \"60s\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        assert_eq!(gateway.get("/warm").status, 200);
        let before = gateway.resident_bytes();
        let mut client = gateway.client();
        client.stream().set_small_buffers();
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n"));
        let (held_back, written) = (Gate::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| write_until_held_back(client.stream(), &body, &held_back, &go_on, &written));
            held_back.wait();
            let grown = gateway.resident_bytes().saturating_sub(before);
            assert!(written.load(Ordering::SeqCst) < BODY, "all of the body was taken though nobody read it");
            assert!(grown < GROWTH, "the gateway grew by {grown} bytes");
            go_on.open();
        });
        client.limit(crate::support::PATIENCE);
        assert_eq!(client.read("POST").text(), "same");
    }

    fn a_client_that_asks_and_asks_and_does_not_read_is_held_back(driver: Driver) {
        let answer: &str = Box::leak("a".repeat(10_000).into_boxed_str());
        let upstream = Upstream::always(answer);
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        assert_eq!(gateway.get("/warm").status, 200);
        let before = gateway.resident_bytes();
        let mut client = gateway.client();
        client.stream().set_small_buffers();
        let requests = "GET /again HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200_000).into_bytes();
        let (held_back, go_on, written) = (Gate::default(), Gate::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let stream = client.stream_handle();
            let (held_back, go_on, written) = (&held_back, &go_on, &written);
            scope.spawn(move || write_until_held_back(&stream, &requests, held_back, go_on, written));
            held_back.wait();
            let grown = gateway.resident_bytes().saturating_sub(before);
            assert!(grown < GROWTH, "the gateway grew by {grown} bytes");
            let asked = upstream.requests().len();
            assert!(asked < 20_000, "{asked} requests were served though nobody read their answers");
            // what was asked is still answered, in its order
            client.limit(crate::support::PATIENCE);
            for _ in 0..100 {
                assert_eq!(client.read("GET").body.len(), answer.len());
            }
            client.stream().cut();
            go_on.open();
        });
        drop(client);
        gateway.assert_nothing_left();
    }

    fn an_early_answer_that_does_not_say_close_keeps_the_connection(driver: Driver) {
        let (held_back, go_on) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
        let (stuck, waiting) = (held_back.clone(), go_on.clone());
        let upstream = Upstream::scripted(move |conn| {
            while let Some(head) = conn.head() {
                if head.method == "POST" {
                    stuck.wait();
                }
                conn.reply(200, &head.method);
                if head.method == "POST" {
                    // it has answered before it reads
                    waiting.wait();
                    conn.body(&head);
                }
            }
        });
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "max_body = \"100MiB\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n"));
        let body = noise(14, BODY);
        let written = AtomicUsize::new(0);
        let early = std::thread::scope(|scope| {
            let stream = client.stream_handle();
            let (body, held_back, go_on, written) = (&body, &held_back, &go_on, &written);
            scope.spawn(move || write_until_held_back(&stream, body, held_back, go_on, written));
            held_back.wait();
            client.limit(crate::support::PATIENCE);
            let early = client.read("POST");
            go_on.open();
            early
        });
        assert_eq!((early.status, early.text().as_str()), (200, "POST"));
        if early.header("connection") != Some("close") {
            assert_eq!(written.load(Ordering::SeqCst), BODY, "the body was promised to be taken");
            assert_eq!(client.get("/").text(), "GET");
        }
    }

    fn a_client_that_reads_slowly_is_not_cut(driver: Driver) {
        let body: Arc<[u8]> = noise(13, 24 << 20).into();
        let sent = body.clone();
        let upstream = Upstream::answering(move |_, conn| {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len()));
            conn.send(&sent);
        });
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "body_timeout = \"1s\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.stream().set_small_buffers();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let began = Instant::now();
        let mut got = 0;
        assert_eq!(client.read_head().unwrap().0, 200);
        // for twice the timeout a little every now and then, which is less than one of the gateway's writes
        while began.elapsed() < Duration::from_millis(2200) {
            let piece = client.take(20_000).expect("the gateway waits as long as something is read");
            assert_same_bytes(&piece, &body[got..got + piece.len()]);
            got += piece.len();
            std::thread::park_timeout(Duration::from_millis(50));
        }
        assert_same_bytes(&client.take(body.len() - got).unwrap(), &body[got..]);
    }
}
