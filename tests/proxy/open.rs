//! What should hold and does not yet; each of these moves to the file of its feature when it does.

use crate::support::stream::Stream;
use crate::support::{
    Driver, Gate, Gateway, Setup, Upstream, assert_same_bytes, behind, eventually, noise, on_both_drivers,
};
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Responses in each framing, as far as they come.
const BEGINNINGS: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
    "HTTP/1.1 200 OK\r\n\r\nhell",
];
/// More than the kernel's buffers of both hops can hold together.
const BODY: usize = 64 << 20;
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
    // the reset of a response that breaks off takes what the client has not received of the one before
    fn a_response_before_one_that_breaks_off_arrives_whole(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            if request.target == "/whole" {
                conn.send([b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n", &noise(1, 500_000)[..]].concat());
            } else {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                conn.stream().cut();
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", "outlier = { enabled = false }"));
        let mut client = gateway.client();
        client.stream().set_small_buffers();
        client.send("GET /whole HTTP/1.1\r\nHost: x\r\n\r\nGET /half HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually("both are answered", || (upstream.requests().len() == 2).then_some(()));
        gateway.await_gauges();
        assert_same_bytes(&client.read("GET").body, &noise(1, 500_000));
        client.try_read("GET").expect_err("half a body is none");
    }

    // a relay does not look after its client while the service says nothing
    fn a_client_that_leaves_within_a_response_frees_its_place(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            let Some(request) = conn.request() else { return };
            conn.send(BEGINNINGS[request.target[1..].parse::<usize>().expect("a number")]);
            conn.wait_for_close();
        });
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "body_timeout = \"600s\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        for reset in [false, true] {
            for (response, bytes) in BEGINNINGS.iter().enumerate() {
                let mut client = gateway.client();
                client.send(format!("GET /{response} HTTP/1.1\r\nHost: x\r\n\r\n"));
                assert_eq!(client.read_head().unwrap().0, 200, "{bytes}");
                if reset {
                    client.stream().reset_on_close();
                }
            }
        }
        gateway.assert_nothing_left();
    }

    // an upload that goes on beside an answer is taken to end with it: the connection closes and nobody was told
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

    // progress of a send is what the kernel takes, which comes in steps of a third of its buffer
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

    // a byte that comes together with the deadline has it forgotten, and the end that it has made is taken for the client's
    fn a_byte_that_comes_with_the_deadline_does_not_undo_it(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let setup = Setup {
            listener: "header_timeout = \"100ms\"\nmax_head = \"256KiB\"",
            config: &config,
            ..Setup::default()
        };
        let gateway = Gateway::start_with(driver, &setup);
        for _ in 0..20 {
            let mut client = gateway.client();
            client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_millis(130) && client.try_send("x").is_ok() {
                std::thread::yield_now();
            }
            client.read("GET").assert_rejected(408, "request_timeout");
        }
    }
}
