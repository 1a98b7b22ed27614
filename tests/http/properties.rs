//! What must hold for any bytes: nothing is understood that httparse alone would not take, and what is rebuilt means the same and is
//! canonical. The seed is fixed, so a failure repeats.

use crate::support::{describe_request, fed_every_way, see_request};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use ringgate::config::HeaderRules;
use ringgate::http::Parsed;
use ringgate::http::body::{Body, CHUNK_HEADROOM, CHUNK_TAILROOM, frame_chunk};
use ringgate::http::encode::{self, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::framing::Framing;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::headers::Forwarding;
use ringgate::http::response::ResponseHead;
use ringgate::http::trailers::Trailers;

const SEED: u64 = 0x9112;

fn config(cases: u32) -> Config {
    println!("seed {SEED:#x}");
    Config { cases, rng_seed: RngSeed::Fixed(SEED), failure_persistence: None, ..Config::default() }
}

/// Lines that are often right and sometimes wrong in the ways that matter.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[A-Za-z][A-Za-z0-9-]{0,12}: ?[ -~]{0,20}",
        1 => "[!-~]{1,5}:[ -~\t]{0,8}[ \t]{0,2}",
        1 => Just("Content-Length: 5".to_owned()),
        1 => "Content-Length: [0-9, +x]{1,4}",
        1 => Just("Transfer-Encoding: chunked".to_owned()),
        1 => "Transfer-Encoding: [chunked, ]{1,8}",
        1 => "Connection: (close|keep-alive|x|te|host|,| ){1,4}",
        1 => "X-Forwarded-For: [0-9., ]{0,12}",
        1 => "(Host|Host |host|X_Y|TE|Expect|Upgrade): ?[a-z0-9:.-]{0,9}",
    ]
}

fn end() -> impl Strategy<Value = &'static str> {
    prop_oneof![60 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n ")]
}

fn head() -> impl Strategy<Value = Vec<u8>> {
    let target = prop_oneof![4 => "/[a-z./%25]{0,12}(\\?[!-~]{0,8})?", 1 => "http://a(:80)?/[a-z]{0,3}", 1 => "[!-~]{1,6}", 1 => Just("*".to_owned())];
    let method = prop_oneof![4 => Just("GET".to_owned()), 1 => "(POST|OPTIONS|HEAD|[A-Z]{1,6}|TRACE|CONNECT)"];
    let version = prop_oneof![8 => Just("HTTP/1.1".to_owned()), 1 => "HTTP/[0-3].[0-2]"];
    let lines = proptest::collection::vec((line(), end()), 0..8);
    (method, target, version, end(), prop_oneof![8 => Just("Host: a\r\n"), 1 => Just("")], lines).prop_map(
        |(method, target, version, first_end, host, lines)| {
            let mut text = format!("{method} {target} {version}{first_end}{host}");
            lines.iter().for_each(|(line, end)| text += &format!("{line}{end}"));
            (text + "\r\n").into_bytes()
        },
    )
}

fn rebuild(head: &RequestHead<'_>) -> Vec<u8> {
    let forwarding = Forwarding {
        replaces: false,
        peer: Some([192, 0, 2, 1].into()),
        is_trusted: true,
        scheme: "http",
        request_id: b"id",
        identity: None,
        tells_certificate: false,
    };
    let request = UpstreamRequest {
        grpc_timeout: None,
        lines: b"",
        head,
        path: head.path(),
        query: head.query(),
        framing: head.framing(),
        rules: &HeaderRules::default(),
        forwarding: &forwarding,
        host_fallback: "fallback:80",
        expect_continue: false,
        offer: head.upgrade(),
    };
    let mut out = Vec::new();
    encode::request(&mut out, &request);
    out
}

#[test]
fn how_a_head_arrives_does_not_change_what_it_means() {
    let taken = std::cell::Cell::new(0);
    proptest!(config(600), |(bytes in head())| {
        let seen = fed_every_way(&bytes, |buf| see_request(buf, &HeadPolicy::default()));
        taken.set(taken.get() + u32::from(matches!(seen, Ok(Some(_)))));
    });
    assert!(taken.get() > 40, "the generator makes too few good heads: {}", taken.get());
}

#[test]
fn what_is_taken_httparse_takes_too_and_reads_the_same() {
    proptest!(config(4_000), |(bytes in head())| {
        let mut scratch = HeadScratch::default();
        let Ok(Parsed::Complete(head)) = RequestHead::parse(&bytes, &HeadPolicy::default(), &mut scratch) else { return Ok(()) };
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut plain = httparse::Request::new(&mut fields);
        prop_assert_eq!(plain.parse(&bytes).unwrap(), httparse::Status::Complete(head.head_bytes()));
        prop_assert_eq!(plain.method, Some(head.method().as_str()));
        prop_assert_eq!(plain.path, Some(head.target()));
        let mut wanted = plain.headers.iter();
        for (name, value) in head.fields().iter() {
            // in order, with nothing that httparse did not see
            prop_assert!(wanted.any(|h| h.name.as_bytes() == name && h.value == value));
        }
    });
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let version =
        prop_oneof![12 => Just("HTTP/1.1"), 2 => Just("HTTP/1.0"), 1 => Just("HTTP/1.2"), 1 => Just("http/1.1")];
    let code = prop_oneof![12 => "[1-5][0-9][0-9]", 1 => "[0-9x ]{0,4}"];
    let reason = prop_oneof![8 => " [ -~]{0,9}", 2 => Just(String::new()), 1 => "[ \t]{0,3}é?[!-~]{0,3}[ \t]{0,2}"];
    // the others have bytes that are no text
    let lines =
        proptest::collection::vec((prop_oneof![9 => line(), 1 => "[A-Za-z]{1,3}:[\\x00-\\x7fé]{0,12}"], end()), 0..8);
    (version, code, reason, end(), lines).prop_map(|(version, code, reason, first_end, lines)| {
        let mut text = format!("{version} {code}{reason}{first_end}");
        lines.iter().for_each(|(line, end)| text += &format!("{line}{end}"));
        (text + "\r\nbody").into_bytes()
    })
}

/// The lines of a response are read by this crate alone: httparse says what they are.
#[test]
fn a_response_is_read_as_httparse_reads_it() {
    let (taken, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    proptest!(config(8_000), |(bytes in response(), cut in prop_oneof![3 => Just(usize::MAX), 1 => 0_usize..200])| {
        let bytes = &bytes[..bytes.len().min(cut)];
        let mut scratch = HeadScratch::default();
        let ours = ResponseHead::parse(bytes, &http::Method::GET, &mut scratch);
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut plain = httparse::Response::new(&mut fields);
        // minor versions above 1 are 1.1 to us (RFC 9110 §2.5), and an error to httparse
        let mut restated = bytes.to_vec();
        if restated.starts_with(b"HTTP/1.2") {
            restated[b"HTTP/1.".len()] = b'1';
        }
        let theirs = plain.parse(&restated);
        match &ours {
            Ok(Parsed::Complete(head)) => {
                taken.set(taken.get() + 1);
                prop_assert_eq!(theirs.unwrap(), httparse::Status::Complete(head.head_bytes()));
                prop_assert_eq!(plain.code, Some(head.status().as_u16()));
                prop_assert_eq!(plain.version, Some(u8::from(head.version() == ringgate::http::Version::Http11)));
                prop_assert_eq!(plain.reason, Some(head.reason()));
                let passed: Vec<_> = head.fields().iter().collect();
                let mut wanted = plain.headers.iter();
                for (name, value) in &passed {
                    prop_assert!(wanted.any(|h| h.name.as_bytes() == *name && h.value == *value));
                }
                if !String::from_utf8_lossy(bytes).to_lowercase().contains("connection") {
                    prop_assert_eq!(passed.len(), plain.headers.len());
                }
            }
            Ok(Parsed::Partial) => prop_assert_eq!(theirs, Ok(httparse::Status::Partial)),
            // it takes more: bare LFs, codes outside of 100 to 599, lengths that differ
            Err(_) => refused.set(refused.get() + u32::from(theirs.is_err())),
        }
    });
    println!("{} taken, {} refused by both", taken.get(), refused.get());
    assert!(taken.get() > 1_500 && refused.get() > 400, "{} taken, {} refused by both", taken.get(), refused.get());
}

#[test]
fn a_rebuilt_request_is_canonical_and_means_the_same() {
    proptest!(config(4_000), |(bytes in head())| {
        let mut scratch = HeadScratch::default();
        let Ok(Parsed::Complete(head)) = RequestHead::parse(&bytes, &HeadPolicy::default(), &mut scratch) else { return Ok(()) };
        let once = rebuild(&head);
        let mut again = HeadScratch::default();
        let Ok(Parsed::Complete(second)) = RequestHead::parse(&once, &HeadPolicy::default(), &mut again) else {
            return Err(TestCaseError::fail(format!("{} became {}", bytes.escape_ascii(), once.escape_ascii())));
        };
        prop_assert_eq!(second.head_bytes(), once.len(), "one request and nothing behind it");
        prop_assert_eq!((second.method(), second.path(), second.query()), (head.method(), head.path(), head.query()));
        prop_assert_eq!(second.framing(), head.framing());
        prop_assert_eq!(second.host(), head.host().or(Some("fallback")));
        let text = String::from_utf8(once.clone()).unwrap();
        for line in text.strip_suffix("\r\n\r\n").unwrap().split("\r\n").skip(1) {
            let (_, value) = line.split_once(": ").expect("name, colon, one blank");
            prop_assert_eq!(value.trim_matches([' ', '\t']), value);
        }
        prop_assert_eq!(text.to_lowercase().matches("\r\nhost: ").count(), 1);
        prop_assert!(text.to_lowercase().matches("\r\ncontent-length: ").count() + text.to_lowercase().matches("\r\ntransfer-encoding: ").count() <= 1);
        prop_assert!(describe_request(&second).contains("x-forwarded-for") || text.contains("X-Forwarded-For: "));
    });
}

#[test]
fn chunks_survive_any_split_and_are_rebuilt_as_single_chunks() {
    let chunks = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6);
    proptest!(config(2_000), |(chunks in chunks, cuts in proptest::collection::vec(1_usize..60, 1..40))| {
        let mut wire = Vec::new();
        chunks.iter().for_each(|chunk| wire.extend([format!("{:X};e\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()));
        wire.extend_from_slice(b"0\r\nX: y\r\n\r\nrest");
        let (mut body, mut trailers) = (Body::new(Framing::Chunked, u64::MAX), Trailers::default());
        let (mut rebuilt, mut at, mut cuts) = (Vec::new(), 0, cuts.into_iter().cycle());
        loop {
            let piece = &wire[at..wire.len().min(at + cuts.next().unwrap())];
            let mut block = vec![0; CHUNK_HEADROOM];
            block.extend_from_slice(piece);
            let filled = CHUNK_HEADROOM..block.len();
            block.resize(filled.end + CHUNK_TAILROOM, 0);
            let decoded = body.decode(&mut block, filled, &mut trailers).unwrap();
            let framed = frame_chunk(&mut block, decoded.payload, false).unwrap();
            rebuilt.extend_from_slice(&block[framed]);
            at += decoded.consumed - CHUNK_HEADROOM;
            if decoded.done {
                break;
            }
        }
        prop_assert_eq!(&wire[at..], b"rest");
        prop_assert_eq!(trailers.lines(), b"X: y\r\n");
        rebuilt.extend_from_slice(b"0\r\n\r\n");
        let mut second = Body::new(Framing::Chunked, u64::MAX);
        let filled = 0..rebuilt.len();
        let decoded = second.decode(&mut rebuilt, filled, &mut Trailers::default()).unwrap();
        prop_assert!(decoded.done);
        prop_assert_eq!(&rebuilt[decoded.payload], chunks.concat());
    });
}

#[test]
fn any_bytes_end_in_a_value() {
    proptest!(config(4_000), |(bytes in proptest::collection::vec(any::<u8>(), 0..200), split in 0_usize..200)| {
        let seen = see_request(&bytes, &HeadPolicy::default());
        prop_assert!(!matches!(seen, Ok(Some(_))) || bytes.windows(4).any(|w| w == b"\r\n\r\n"));
        let (mut body, mut trailers) = (Body::new(Framing::Chunked, 50), Trailers::default());
        let mut block = bytes.clone();
        let split = split.min(block.len());
        if let Ok(decoded) = body.decode(&mut block, 0..split, &mut trailers) {
            prop_assert!(decoded.payload.len() <= 50 && decoded.consumed <= split);
        }
    });
}
