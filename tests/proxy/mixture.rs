//! Everything at once, from a seed: several clients that pipeline requests of all kinds in pieces of all sizes, to a service that answers
//! early, late, in pieces, breaks off, or says too much. Each answer must belong to its request, and each body be what was sent.

use crate::support::client::Response;
use crate::support::upstream::{Conn, Request};
use crate::support::{Client, Driver, Gateway, Upstream, behind, noise, on_both_drivers};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::{ErrorKind, Write};

const CLIENTS: u64 = 3;
const BATCHES: u64 = 100;
const NO_EJECTION: &str = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 100_000 }";
const SIZES: [usize; 10] = [0, 1, 2, 100, 8_191, 8_192, 8_193, 20_000, 66_000, 300_000];

/// What the service makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Fixed,
    Chunked,
    UntilClose,
    /// Two interim responses first.
    Hints,
    /// Answers before it has read the body.
    Early,
    /// … and does not read it at all.
    EarlyEnd,
    /// A response that nobody asked for, behind the one that was.
    Stray,
    /// Half a body.
    HalfFixed,
    HalfChunked,
    /// No answer.
    Reset,
}

const WAYS: [Way; 10] = [
    Way::Fixed,
    Way::Chunked,
    Way::UntilClose,
    Way::Hints,
    Way::Early,
    Way::EarlyEnd,
    Way::Stray,
    Way::HalfFixed,
    Way::HalfChunked,
    Way::Reset,
];

/// One request of a batch; its path tells the service all of it: `/ID/WAY/RESPONSE SIZE`.
#[derive(Clone, Debug)]
struct Ask {
    id: u64,
    method: &'static str,
    way: usize,
    chunked: bool,
    sends: usize,
    gets: usize,
}

impl Ask {
    fn random(id: u64, rng: &mut StdRng) -> Self {
        let method = ["GET", "HEAD", "POST", "PUT"][rng.random_range(0..4)];
        let sends = if method == "GET" || method == "HEAD" { 0 } else { SIZES[rng.random_range(0..SIZES.len())] };
        // what goes wrong ends the batch, so most of it goes well
        let way = if rng.random_bool(0.8) { rng.random_range(0..5) } else { rng.random_range(5..WAYS.len()) };
        let gets = SIZES[rng.random_range(0..SIZES.len())];
        Self { id, method, way, chunked: sends > 0 && rng.random(), sends, gets }
    }

    fn bytes(&self, rng: &mut StdRng) -> Vec<u8> {
        let Self { id, method, way, gets, sends, .. } = self;
        let head = format!("{method} /{id}/{way}/{gets} HTTP/1.1\r\nHost: x\r\n");
        let body = noise(*id, *sends);
        if self.chunked {
            [head.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n", &in_chunks(&body, rng)].concat()
        } else if *sends > 0 {
            [head.as_bytes(), format!("Content-Length: {sends}\r\n\r\n").as_bytes(), &body].concat()
        } else {
            [head.as_bytes(), b"\r\n"].concat()
        }
    }

    /// Whether the gateway may send it a second time, and still can.
    fn may_be_repeated(&self) -> bool {
        self.method != "POST" && self.sends <= 64 << 10
    }

    /// That this is the answer to it, or a failure that its way explains; whether the connection goes on.
    #[track_caller]
    fn check(&self, answer: std::io::Result<Response>) -> bool {
        let way = WAYS[self.way];
        match answer {
            Ok(response) if response.status == 200 => {
                assert!(!matches!(way, Way::Reset), "{self:?}: nobody has answered");
                let half = matches!(way, Way::HalfFixed | Way::HalfChunked);
                let is_whole = !half || self.method == "HEAD" || (way == Way::HalfFixed && self.gets == 0);
                assert!(is_whole, "{self:?}: half a body looks whole");
                assert_eq!(response.header("x-id"), Some(self.id.to_string().as_str()), "{self:?}");
                if !half && self.method != "HEAD" {
                    assert!(response.body == noise(self.id, self.gets), "{self:?}: another body");
                }
                if let Some(sum) = response.header("x-sum") {
                    assert_eq!(sum, checksum(&noise(self.id, self.sends)), "{self:?}: the service got another body");
                }
                response.header("connection") != Some("close")
            }
            Ok(response) => {
                let explained = matches!(way, Way::Reset | Way::HalfFixed | Way::HalfChunked);
                // whoever comes next on a connection with a stray response may only find out once its own request is on the way
                let met_a_stray = !self.may_be_repeated() && response.text().contains("upstream_reset");
                assert!(response.status == 502 && (explained || met_a_stray), "{self:?}: {response:?}");
                response.header("connection") != Some("close")
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
                    "{self:?}: {error}"
                );
                assert!(matches!(way, Way::HalfFixed | Way::HalfChunked), "{self:?}: {error}");
                false
            }
        }
    }
}

fn in_chunks(body: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let (mut bytes, mut left) = (Vec::new(), body);
    while !left.is_empty() {
        let size = rng.random_range(1..=left.len().min(30_000));
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        bytes.extend_from_slice(&left[..size]);
        bytes.extend_from_slice(b"\r\n");
        left = &left[size..];
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Length and a sum that depends on the order (FNV-1a).
fn checksum(bytes: &[u8]) -> String {
    let sum = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{}-{sum:x}", bytes.len())
}

/// Sends in pieces, mostly few.
fn in_pieces(bytes: &[u8], rng: &mut StdRng, mut send: impl FnMut(&[u8]) -> bool) {
    let mut left = bytes;
    while !left.is_empty() {
        let max = [left.len(), left.len(), 9_000, 50][rng.random_range(0..4)].max(left.len() / 20);
        let (piece, rest) = left.split_at(rng.random_range(1..=max.min(left.len())));
        if !send(piece) {
            return;
        }
        left = rest;
    }
}

/// Answers one request; false when the connection is over.
fn answer(conn: &mut Conn, head: &Request, rng: &mut StdRng) -> bool {
    let words: Vec<u64> = head.target[1..].split('/').map(|word| word.parse().expect("a number")).collect();
    let (id, way, size) = (words[0], WAYS[words[1] as usize], words[2] as usize);
    let mut fields = format!("X-Id: {id}\r\n");
    if !matches!(way, Way::Early | Way::EarlyEnd) {
        let Some(body) = conn.body(head) else { return false };
        fields += &format!("X-Sum: {}\r\n", checksum(&body));
    }
    if matches!(way, Way::UntilClose | Way::EarlyEnd | Way::HalfFixed | Way::HalfChunked) {
        // or an end that follows a response without a body could meet the next request
        fields += "Connection: close\r\n";
    }
    let body = if head.method == "HEAD" { Vec::new() } else { noise(id, size) };
    let half = &body[..body.len() / 2];
    let fixed = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {size}\r\n");
    let chunked = format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
    let chunks = if head.method == "HEAD" { Vec::new() } else { in_chunks(&body, rng) };
    let stray = b"HTTP/1.1 200 OK\r\nX-Id: 0\r\nContent-Length: 0\r\n\r\n";
    let hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\n";
    let bytes = match way {
        Way::Fixed | Way::Early | Way::EarlyEnd => [fixed.as_bytes(), b"\r\n", &body].concat(),
        Way::Hints => [hints, fixed.as_bytes(), b"\r\n", &body].concat(),
        Way::HalfFixed => [fixed.as_bytes(), b"\r\n", half].concat(),
        Way::Chunked => [chunked.as_bytes(), &chunks].concat(),
        Way::HalfChunked => [chunked.as_bytes(), &chunks[..chunks.len() / 2]].concat(),
        Way::UntilClose => [format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes(), &body].concat(),
        Way::Stray => return conn.send([fixed.as_bytes(), b"\r\n", &body, stray].concat()),
        Way::Reset => {
            conn.reset();
            return false;
        }
    };
    in_pieces(&bytes, rng, |piece| conn.send(piece));
    match way {
        Way::Early => conn.body(head).is_some(),
        Way::UntilClose | Way::EarlyEnd | Way::HalfFixed | Way::HalfChunked => {
            conn.stream().end();
            // what is still sent is read, so that the close resets nothing that is on its way
            conn.wait_for_close();
            false
        }
        _ => true,
    }
}

/// The next answer that is not interim.
fn final_answer(client: &mut Client, method: &str) -> std::io::Result<Response> {
    loop {
        match client.try_read(method) {
            Ok(response) if response.status < 200 => {}
            read => return read,
        }
    }
}

/// One client: batch after batch, with a new connection when the last one has ended.
fn run(gateway: &Gateway, seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = gateway.client();
    let (mut checked, mut may_end) = (0, false);
    for batch in 0..BATCHES {
        let asks: Vec<_> = (0..rng.random_range(1..5))
            .map(|row| Ask::random((seed << 20) + (batch << 8) + row + 1, &mut rng))
            .collect();
        let bytes: Vec<u8> = asks.iter().flat_map(|ask| ask.bytes(&mut rng)).collect();
        let mut pieces = StdRng::seed_from_u64(rng.random());
        let goes_on = std::thread::scope(|scope| {
            let stream = client.stream_handle();
            // fails when the gateway has closed the connection, which whoever reads finds out
            scope.spawn(move || in_pieces(&bytes, &mut pieces, |piece| (&*stream).write_all(piece).is_ok()));
            let goes_on = asks.iter().all(|ask| {
                checked += 1;
                let answer = final_answer(&mut client, ask.method);
                if may_end && answer.is_err() {
                    return false;
                }
                // nobody can say of an early answer whether the chunks that are still to come will be too many to be skipped
                may_end |= ask.chunked && ask.sends > 60_000 && matches!(WAYS[ask.way], Way::Early | Way::EarlyEnd);
                ask.check(answer)
            });
            if !goes_on {
                client.stream().cut();
            }
            goes_on
        });
        if !goes_on {
            may_end = false;
            client = gateway.client();
        }
    }
    checked
}

on_both_drivers! {
    fn every_answer_belongs_to_its_request(driver: Driver) {
        let seed: u64 = std::env::var("RINGGATE_MIXTURE_SEED").map_or(1, |seed| seed.parse().expect("a number"));
        println!("replay with RINGGATE_MIXTURE_SEED={seed}");
        let upstream = Upstream::scripted(move |conn| {
            let mut rng = StdRng::seed_from_u64(seed ^ conn.number as u64);
            while let Some(head) = conn.head() {
                if !answer(conn, &head, &mut rng) {
                    return;
                }
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "[route.retry]\nattempts = 1", NO_EJECTION));
        let checked: usize = std::thread::scope(|scope| {
            let gateway = &gateway;
            let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || run(gateway, seed * CLIENTS + client))).collect();
            clients.into_iter().map(|client| client.join().expect("a client found what it asked for")).sum()
        });
        gateway.assert_nothing_left();
        println!("{checked} answers checked over {} connections to the service", upstream.connections());
        assert!(checked > 100, "{checked}");
    }
}
