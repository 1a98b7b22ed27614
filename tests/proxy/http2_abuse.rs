//! Attacks on HTTP/2: each ends with its connection, or gets no further, and a well-behaved neighbour on the same core does not notice.

use crate::support::{Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET http://test/`
const GET: &[u8] = b"\x82\x86\x84\x01\x04test";
/// The same with POST.
const POST: &[u8] = b"\x83\x86\x84\x01\x04test";
const ENHANCE_YOUR_CALM: u32 = 11;
/// As much as an attack may make a process grow, with all that a test's own load needs.
const GROWTH_MAX: u64 = 64 << 20;

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags][..], &id.to_be_bytes(), payload].concat()
}

fn get(id: u32) -> Vec<u8> {
    frame(1, 0x5, id, GET)
}

fn post(id: u32) -> Vec<u8> {
    frame(1, 0x4, id, POST)
}

/// A connection that begins as it must.
struct Attacker {
    socket: TcpStream,
    unread: Vec<u8>,
}

/// What the gateway has sent.
#[derive(Debug)]
struct Frame {
    kind: u8,
    id: u32,
    payload: Vec<u8>,
}

impl Attacker {
    fn connect(gateway: &Gateway) -> Self {
        Self::with_settings(gateway, &[])
    }

    fn with_settings(gateway: &Gateway, settings: &[u8]) -> Self {
        let socket = TcpStream::connect(gateway.address("edge")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut attacker = Self { socket, unread: Vec::new() };
        attacker.send(&[PREFACE, &frame(4, 0, 0, settings), &frame(4, 1, 0, b"")].concat());
        attacker
    }

    /// False: the connection is gone.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// The next frame; `None` at the end, by reset or in order.
    fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, _, i, j, k, l, behind @ ..] = &self.unread[..] {
                let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if behind.len() >= len {
                    let id = u32::from_be_bytes([*i, *j, *k, *l]);
                    let frame = Frame { kind: *kind, id, payload: behind[..len].to_vec() };
                    self.unread.drain(..9 + len);
                    return Some(frame);
                }
            }
            let mut piece = [0; 65_536];
            match self.socket.read(&mut piece) {
                Ok(count @ 1..) => self.unread.extend_from_slice(&piece[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the gateway neither answers nor ends the connection")
                }
                _ => return None,
            }
        }
    }

    /// The code of the GOAWAY that the connection ends with; `None` where it was reset before that could be read.
    fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == 7 {
                code = Some(u32::from_be_bytes(*frame.payload[4..].first_chunk().unwrap()));
            }
        }
        code
    }
}

fn gateway(driver: Driver, service: &Upstream, listener: &str) -> Gateway {
    let listener = format!("http2 = {{ cleartext = true }}\n{listener}");
    Gateway::start_with(driver, &Setup { listener: &listener, config: &behind(&[service], "", ""), ..Setup::default() })
}

/// Repeats `attack` on one connection until that is gone, while a neighbour is served; what the GOAWAY said, if it could be read.
fn repeat(driver: Driver, begin: &[u8], attack: impl Fn(u32) -> Vec<u8>, at_most: u32) {
    let service = Upstream::always("ok");
    let gateway = gateway(driver, &service, "");
    let mut neighbour = gateway.client();
    assert_eq!(neighbour.get("/").status, 200);
    let before = gateway.resident_bytes();
    let mut attacker = Attacker::connect(&gateway);
    attacker.send(begin);
    let mut reader = Attacker { socket: attacker.socket.try_clone().unwrap(), unread: Vec::new() };
    // what it is answered is read, so that the gateway's own bound on answers is not what ends it
    let reader = std::thread::spawn(move || reader.goaway());
    let mut rounds = 0;
    while rounds < at_most && attacker.send(&attack(rounds)) {
        rounds += 1;
        if rounds % 100 == 0 {
            assert_eq!(neighbour.get("/").text(), "ok", "the neighbour notices");
        }
    }
    let code = reader.join().unwrap();
    assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    assert_eq!(neighbour.get("/").text(), "ok");
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    eventually("nothing is left", || (gateway.get("/").status == 200).then_some(()));
    drop(neighbour);
    gateway.assert_nothing_left();
}

/// More than any of them needs.
const ENDLESS: u32 = 2_000_000;

on_both_drivers! {
    /// CVE-2023-44487
    fn rapid_reset_ends(driver: Driver) {
        let attack = |n| [get(2 * n + 1), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat();
        repeat(driver, b"", attack, ENDLESS);
    }

    /// CVE-2025-8671
    fn streams_that_the_gateway_is_made_to_reset_end_the_connection(driver: Driver) {
        repeat(driver, b"", |n| [get(2 * n + 1), frame(8, 0, 2 * n + 1, &[0; 4])].concat(), ENDLESS);
    }

    fn a_header_block_without_end_ends(driver: Driver) {
        repeat(driver, &frame(1, 0x1, 1, GET), |_| frame(9, 0, 1, &[0x82; 100]), ENDLESS);
    }

    fn pings_end(driver: Driver) {
        repeat(driver, b"", |_| frame(6, 0, 0, &[0; 8]), ENDLESS);
    }

    fn settings_end(driver: Driver) {
        repeat(driver, b"", |_| frame(4, 0, 0, b""), ENDLESS);
    }

    fn priorities_end(driver: Driver) {
        repeat(driver, b"", |n| frame(2, 0, 2 * n + 1, &[0, 0, 0, 0, 1]), ENDLESS);
    }

    fn empty_data_ends(driver: Driver) {
        repeat(driver, &post(1), |_| frame(0, 0, 1, b""), ENDLESS);
    }

    fn windows_opened_a_byte_at_a_time_end(driver: Driver) {
        repeat(driver, b"", |_| frame(8, 0, 0, &[0, 0, 0, 1]), ENDLESS);
    }

    fn frames_of_unknown_kinds_end(driver: Driver) {
        repeat(driver, b"", |_| frame(0xfe, 0, 0, b"?"), ENDLESS);
    }

    /// Answers that nobody reads: the gateway stops reading, and ends it when its patience does.
    fn answers_that_nobody_reads_are_bounded(driver: Driver) {
        let service = Upstream::always("ok");
        let gateway = gateway(driver, &service, "body_timeout = \"1s\"");
        let before = gateway.resident_bytes();
        let mut attacker = Attacker::connect(&gateway);
        attacker.socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut n = 0;
        // requests too, so that the account of useless frames is filled again
        while n < ENDLESS && attacker.send(&[frame(6, 0, 0, &[0; 8]), get(2 * n + 1)].concat()) {
            n += 1;
        }
        assert!(n < ENDLESS);
        let grown = gateway.resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes");
        drop(attacker);
        gateway.assert_nothing_left();
    }

    /// A small block that becomes large (CVE-2016-6581, CVE-2026-49975): refused, and the connection goes on.
    fn a_bomb_of_headers_is_refused(driver: Driver) {
        let service = Upstream::always("ok");
        let gateway = gateway(driver, &service, "");
        let before = gateway.resident_bytes();
        let mut attacker = Attacker::connect(&gateway);
        let teach = [GET, b"\x40\x01x\x7f\x81\x17", &[b'v'; 3_072][..]].concat();
        attacker.send(&frame(1, 0x5, 1, &teach));
        for n in 1..50 {
            attacker.send(&frame(1, 0x5, 2 * n + 1, &[GET, &[0xbe; 15_000]].concat()));
        }
        let mut statuses = Vec::new();
        while statuses.len() < 50 {
            let frame = attacker.next().expect("it goes on");
            if frame.kind == 1 {
                // 200 is an index, 431 is spelled
                statuses.push((frame.id, frame.payload[0] == 0x88, frame.payload.starts_with(b"\x08\x03431")));
            }
        }
        assert!(statuses.iter().all(|&(id, ok, refused)| if id == 1 { ok } else { refused }), "{statuses:?}");
        let grown = gateway.resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes");
    }

    /// Responses that are asked for and not taken: a stalled stream holds a block, for as long as `body_timeout` says.
    fn a_window_of_nothing_holds_little_and_not_for_long(driver: Driver) {
        let body = "x".repeat(60_000);
        let service = Upstream::answering(move |_, conn| conn.reply(200, &body));
        let gateway = gateway(driver, &service, "body_timeout = \"500ms\"");
        let before = gateway.resident_bytes();
        // SETTINGS_INITIAL_WINDOW_SIZE: 0
        let mut attacker = Attacker::with_settings(&gateway, &[0, 4, 0, 0, 0, 0]);
        for n in 0..100 {
            attacker.send(&get(2 * n + 1));
        }
        let mut resets = 0;
        while resets < 100 {
            let frame = attacker.next().expect("the connection goes on");
            assert!(frame.kind != 0 || frame.payload.is_empty(), "DATA without room for it");
            resets += u32::from(frame.kind == 3);
        }
        let grown = gateway.resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes");
        assert_eq!(gateway.get("/").status, 200);
        drop(attacker);
        gateway.assert_nothing_left();
    }

    /// Bodies that nobody takes, on many connections: a worker holds so much of them and no more, and all goes on when others have left.
    fn bodies_that_wait_share_one_bound(driver: Driver) {
        let service = Upstream::always("ok");
        let route = "timeout = \"60s\"\nfault = { delay = { time = \"1h\" }, header = \"x-fault\" }";
        let config = behind(&[&service], route, "");
        let setup = Setup { workers: 1, listener: "http2 = { cleartext = true }", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut neighbour = gateway.client();
        assert_eq!(neighbour.get("/").text(), "ok");
        let before = gateway.resident_bytes();
        let grown = || gateway.resident_bytes().saturating_sub(before);
        let head = [POST, b"\0\x07x-fault\x01a"].concat();
        let mut attackers: Vec<_> = (0..64).map(|_| Attacker::connect(&gateway)).collect();
        for attacker in &mut attackers {
            // as much as the windows allow
            for id in (1..30).step_by(2) {
                attacker.send(&frame(1, 0x4, id, &head));
                for _ in 0..4 {
                    attacker.send(&frame(0, 0, id, &[b'x'; 16_384]));
                }
            }
            attacker.send(&frame(6, 0, 0, b"all read"));
        }
        eventually("as much is held as may be", || (grown() > 20 << 20).then_some(()));
        for _ in 0..50 {
            assert_eq!(neighbour.get("/").text(), "ok", "the neighbour notices");
        }
        assert!(grown() < 56 << 20, "{} bytes", grown());
        attackers.drain(..48);
        for attacker in &mut attackers {
            while attacker.next().expect("the connection goes on").kind != 6 {}
        }
        drop(attackers);
        drop(neighbour);
        gateway.assert_nothing_left();
    }

    fn a_client_that_says_nothing_or_half_of_something_is_sent_away(driver: Driver) {
        let service = Upstream::always("ok");
        let gateway = gateway(driver, &service, "header_timeout = \"300ms\"");
        for begin in [&b""[..], &PREFACE[..10], PREFACE, &[PREFACE, &frame(4, 0, 0, b""), &frame(1, 0x1, 1, GET)].concat(),
            &[PREFACE, &frame(4, 0, 0, b""), &get(1)[..15]].concat()] {
            let mut socket = TcpStream::connect(gateway.address("edge")).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            socket.write_all(begin).unwrap();
            let mut all = Vec::new();
            let end = socket.read_to_end(&mut all).map_err(|error| error.kind());
            assert_ne!(end, Err(std::io::ErrorKind::WouldBlock), "{}", begin.escape_ascii());
        }
        gateway.assert_nothing_left();
    }

    /// Whoever has ended its direction gives no window any more: what waits for one is not held until its time is over.
    fn a_client_that_has_left_with_a_closed_window_holds_nothing(driver: Driver) {
        const WINDOW: usize = 1_000;
        let service = Upstream::answering(|_, conn| conn.reply(200, &"long ".repeat(50_000)));
        let gateway = gateway(driver, &service, "body_timeout = \"10m\"");
        let mut client = Attacker::with_settings(&gateway, &[0, 4, 0, 0, (WINDOW >> 8) as u8, WINDOW as u8]);
        client.send(&[get(1), get(3)].concat());
        let mut came = 0;
        while came < 2 * WINDOW {
            let frame = client.next().expect("what there is room for");
            came += if frame.kind == 0 { frame.payload.len() } else { 0 };
        }
        client.socket.shutdown(Shutdown::Write).unwrap();
        let (mut resets, mut last) = (Vec::new(), None);
        while let Some(frame) = client.next() {
            if frame.kind == 3 {
                resets.push(frame.id);
            }
            last = Some(frame.kind);
        }
        resets.sort_unstable();
        assert_eq!((resets, last), (vec![1, 3], Some(3)));
        gateway.assert_nothing_left();
    }
}
