//! Connections that break at every byte position of a response and of a request: nobody is shown a part for the whole, nobody waits
//! for ever, and nothing of a broken exchange gets into the next one.

use crate::support::tls::{is_down, is_up};
use crate::support::{
    Client, Driver, Gateway, PATIENCE, Upstream, assert_same_bytes, behind, behind_endpoints, eventually, first_then,
    lock, noise, on_every_step,
};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

const NO_EJECTION: &str = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 100_000 }";

/// One response in each framing, with the same body.
const RESPONSES: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\nhello",
];
const UNTIL_CLOSE: usize = 2;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// FIN behind the last byte.
    Orderly,
    /// RST (SO_LINGER of zero).
    Reset,
}

const ENDS: [End; 2] = [End::Orderly, End::Reset];
const WHENS: [When; 2] = [When::AtOnce, When::Late];

/// What a client can make of what it got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// A 200 that looks whole, with this body.
    Whole(String),
    /// The connection broke.
    Broken,
    /// The gateway's own 502.
    Rejected(String),
}

#[track_caller]
fn seen(read: io::Result<crate::support::client::Response>) -> Seen {
    match read {
        Ok(response) if response.status == 200 => Seen::Whole(response.text()),
        Ok(response) if response.status == 502 => Seen::Rejected(response.json()["error"].as_str().unwrap().to_owned()),
        Ok(response) => panic!("{response:?}"),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Seen::Broken,
        Err(error) => panic!("{error}"),
    }
}

/// When a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// At once, so that the gateway may find the end together with what came before it.
    AtOnce,
    /// When the client has the beginning of the response.
    Late,
}

/// Reads a request for `/RESPONSE/END/WHEN/POSITION`, sends that much of the response, and ends; `late` says when it is late.
fn breaking(late: Receiver<()>) -> Upstream {
    let late = Mutex::new(late);
    Upstream::scripted(move |conn| {
        let Some(request) = conn.request() else { return };
        let words: Vec<usize> = request.target[1..].split('/').map(|word| word.parse().expect("a number")).collect();
        conn.send(&RESPONSES[words[0]][..words[3]]);
        if WHENS[words[2]] == When::Late {
            lock(&late).recv_timeout(PATIENCE).expect("the client gets the beginning");
        }
        match ENDS[words[1]] {
            End::Orderly => conn.stream().cut(),
            End::Reset => conn.reset(),
        }
    })
}

/// Whether this is what a client gets whose connection is cut.
fn is_cut(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionReset || (is_down() && error.kind() == ErrorKind::UnexpectedEof)
}

/// How a client asks.
const ASKS: [&str; 3] = ["GET", "POST", "GET 1.0"];

/// One request; tells `late` when the beginning of the response is there.
fn ask(gateway: &Gateway, how: &str, path: &str, late: Option<&Sender<()>>) -> Seen {
    let mut client = gateway.client();
    client.send(match how {
        "GET" => format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        "POST" => format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\npay"),
        _ => format!("GET {path} HTTP/1.0\r\n\r\n"),
    });
    if let Some(late) = late {
        client.read_more().expect("the beginning of the response");
        late.send(()).expect("the service waits for it");
    }
    let seen = seen(client.try_read("GET"));
    if seen == Seen::Broken || how == "GET 1.0" {
        client.assert_closed();
    }
    seen
}

/// Where the head of these bytes ends.
fn head_len(bytes: &str) -> usize {
    bytes.find("\r\n\r\n").expect("a head") + 4
}

/// What may be seen when a response ends before `position`.
fn allowed(how: &str, response: usize, end: End, when: When, position: usize) -> Vec<Seen> {
    let bytes = RESPONSES[response];
    let head = head_len(bytes);
    let rejected = |token: &str| Seen::Rejected(token.to_owned());
    if position < head {
        // what is idempotent is asked of the second endpoint, what is not of nobody
        return vec![if how == "POST" { rejected("upstream_reset") } else { Seen::Whole("second".to_owned()) }];
    }
    // a session that ends without a word is cut, whatever is behind it
    let ends_well = end == End::Orderly && !is_up();
    let whole = if response == UNTIL_CLOSE { ends_well } else { position == bytes.len() };
    match when {
        _ if whole && response == UNTIL_CLOSE => vec![Seen::Whole(bytes[head..position].to_owned())],
        _ if whole => vec![Seen::Whole("hello".to_owned())],
        // while nothing was passed on a reply is still possible
        When::AtOnce if how == "POST" => vec![Seen::Broken, rejected("upstream_truncated")],
        // and the second endpoint's answer is
        When::AtOnce => vec![Seen::Broken, Seen::Whole("second".to_owned())],
        When::Late => vec![Seen::Broken],
    }
}

/// Three requests, of which each byte matters, to a service that answers with what it was sent.
const REQUESTS: [&str; 3] = [
    "GET /get HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /fixed HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
];

/// A service that tells request heads from whole requests.
struct Careful {
    upstream: Upstream,
    /// How often each target came whole.
    whole: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Careful {
    fn new() -> Self {
        let whole: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let seen = Arc::clone(&whole);
        let upstream = Upstream::scripted(move |conn| {
            while let Some(head) = conn.head() {
                let Some(body) = conn.body(&head) else { return };
                let body = String::from_utf8_lossy(&body);
                *lock(&seen).entry(format!("{} {body}", head.target)).or_default() += 1;
                conn.reply(200, &format!("{} {body}", head.target));
            }
        });
        Self { upstream, whole }
    }
}

/// How a client leaves.
const LEAVES: [fn(Client); 3] = [
    drop,
    |client| client.stream().reset_on_close(),
    |mut client| {
        client.stream().end();
        match client.try_read("GET") {
            // a refusal, or the answer to a request that was whole
            Ok(response) => assert!(response.status == 200 || response.json()["error"].is_string(), "{response:?}"),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
            }
        }
        client.assert_closed();
    },
];

on_every_step! {
    fn a_response_that_breaks_at_any_byte_never_looks_whole(driver: Driver) {
        let (late, waiting) = std::sync::mpsc::channel();
        let (first, second) = (breaking(waiting), Upstream::always("second"));
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&first, &second), "", NO_EJECTION));
        let number = |n: usize| (ASKS[n / 12], n / 4 % 3, n / 2 % 2, n % 2);
        for (how, response, end, when) in (0..36).map(number) {
            let bytes = RESPONSES[response];
            let late = (WHENS[when] == When::Late).then_some(&late);
            // the last response was whole, and its connection may be in the pool although it is about to end
            assert_eq!(ask(&gateway, "GET", "/0/0/0/0", None), Seen::Whole("second".to_owned()));
            for position in if late.is_some() { head_len(bytes) } else { 0 }..=bytes.len() {
                let seen = ask(&gateway, how, &format!("/{response}/{end}/{when}/{position}"), late);
                let allowed = allowed(how, response, ENDS[end], WHENS[when], position);
                let case = format!("{how}, {:?} {:?} before {position} of {bytes:?}", ENDS[end], WHENS[when]);
                assert!(allowed.contains(&seen), "{case}: {seen:?}, not one of {allowed:?}");
            }
        }
        assert!(second.requests().iter().all(|request| request.method == "GET"), "a POST is not sent twice");
        gateway.assert_nothing_left();
    }

    fn a_client_that_leaves_at_any_byte_of_its_request_leaves_nothing_behind(driver: Driver) {
        let careful = Careful::new();
        let gateway = Gateway::start(driver, &behind(&[&careful.upstream], "timeout = \"600s\"", NO_EJECTION));
        for (leave, request) in LEAVES.iter().flat_map(|leave| REQUESTS.map(|request| (leave, request))) {
            for position in 0..=request.len() {
                let heads = careful.upstream.requests().len();
                let mut client = gateway.client();
                client.send(&request[..position]);
                if position >= head_len(request) && position % 2 == 0 {
                    // in every other case the attempt is under way
                    eventually("the service is asked", || (careful.upstream.requests().len() > heads).then_some(()));
                }
                leave(client);
            }
        }
        gateway.assert_nothing_left();
        let mut client = gateway.client();
        assert_eq!(client.get("/next").text(), "/next ");
        assert_eq!(client.request("POST", "/last", &[], b"body").text(), "/last body");
        let whole = lock(&careful.whole).clone();
        for (target, count) in &whole {
            let known = ["/get ", "/fixed hello", "/chunked hello", "/next ", "/last body"];
            assert!(known.contains(&target.as_str()) && *count <= LEAVES.len(), "{whole:?}");
        }
    }

    fn a_whole_request_of_a_client_that_ends_its_direction_is_answered(driver: Driver) {
        let careful = Careful::new();
        let gateway = Gateway::start(driver, &behind(&[&careful.upstream], "", ""));
        for (request, answer) in REQUESTS.iter().zip(["/get ", "/fixed hello", "/chunked hello"]) {
            let mut client = gateway.client();
            client.send(request);
            client.stream().end();
            assert_eq!(client.read("GET").text(), answer);
            client.assert_closed();
        }
    }

    fn a_message_in_two_parts_is_the_same_message(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            match request.target.split_once('?') {
                Some((_, split)) => {
                    let (response, position) = split.split_once('/').expect("two numbers");
                    let response = RESPONSES[response.parse::<usize>().expect("a number")];
                    let (one, other) = response.split_at(position.parse().expect("a number"));
                    conn.send(one);
                    conn.send(other);
                }
                None => conn.reply(200, &format!("{} {}", request.target, String::from_utf8_lossy(&request.body))),
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        let mut client = gateway.client();
        for (request, answer) in REQUESTS.iter().zip(["/get ", "/fixed hello", "/chunked hello"]) {
            for position in 0..=request.len() {
                client.send(&request[..position]);
                // with the beginning of the next one behind it
                client.send(format!("{}GET /nex", &request[position..]));
                assert_eq!(client.read("GET").text(), answer, "{position}");
                client.send("t HTTP/1.1\r\nHost: x\r\n\r\n");
                assert_eq!(client.read("GET").text(), "/next ", "{position}");
            }
        }
        for (number, response) in RESPONSES[..UNTIL_CLOSE].iter().enumerate() {
            for position in 0..=response.len() {
                assert_eq!(client.get(&format!("/?{number}/{position}")).text(), "hello", "{position}");
            }
        }
        assert_eq!(upstream.connections(), 1);
    }

    fn a_101_that_breaks_at_any_byte_is_no_tunnel(driver: Driver) {
        const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello";
        let upstream = Upstream::scripted(|conn| {
            let Some(request) = conn.request() else { return };
            let (end, position) = request.target[1..].split_once('/').expect("two numbers");
            conn.send(&ACCEPT[..position.parse().expect("a number")]);
            match ENDS[end.parse::<usize>().expect("a number")] {
                End::Orderly => conn.stream().cut(),
                End::Reset => conn.reset(),
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "[route.retry]\nattempts = 0", NO_EJECTION));
        for (number, end) in ENDS.into_iter().enumerate() {
            for position in 0..=ACCEPT.len() {
                let mut client = gateway.client();
                client.send(format!(
                    "GET /{number}/{position} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
                ));
                if position < head_len(ACCEPT) {
                    client.read("GET").assert_rejected(502, "upstream_reset");
                    continue;
                }
                let tunnel = client.read_head().and_then(|(status, _)| {
                    assert_eq!(status, 101);
                    client.read_to_end()
                });
                match (end, tunnel) {
                    (End::Orderly, Ok(bytes)) if !is_up() => {
                        assert_eq!(bytes, &ACCEPT.as_bytes()[head_len(ACCEPT)..position]);
                    }
                    // nor is one whole that ends without a word
                    (End::Orderly, Err(error)) if is_up() => assert!(is_cut(&error), "{error}"),
                    (End::Reset, Err(error)) => assert!(is_cut(&error), "{error}"),
                    (_, other) => panic!("{end:?} before {position}: {other:?}"),
                }
            }
        }
        gateway.assert_nothing_left();
        assert_eq!(gateway.metric("ringgate_tunnels", &[]), 0.0);
    }

    fn a_client_that_leaves_at_any_byte_of_an_offer_or_behind_it_leaves_nothing_behind(driver: Driver) {
        const OFFER: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n";
        let upstream = Upstream::scripted(|conn| {
            while let Some(request) = conn.request() {
                if request.header("upgrade").is_none() {
                    conn.reply(200, &request.target);
                    continue;
                }
                conn.send("HTTP/1.1 101 Go\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
                return conn.wait_for_close();
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        for position in 0..=OFFER.len() {
            for reset in [false, true] {
                let mut client = gateway.client();
                client.send(&OFFER[..position]);
                if reset {
                    client.stream().reset_on_close();
                }
            }
        }
        gateway.assert_nothing_left();
        assert_eq!(gateway.metric("ringgate_tunnels", &[]), 0.0);
        assert_eq!(gateway.get("/next").text(), "/next");
        assert!(upstream.requests().iter().all(|request| request.target != "/smuggled"));
    }

    fn a_response_before_one_that_breaks_off_arrives_whole(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            if request.target == "/whole" {
                conn.send([b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n", &noise(1, 500_000)[..]].concat());
            } else {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf");
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
}
