//! What HTTP/1.1 costs per request: heads parsed and rebuilt, chunks decoded. One worker's whole request side (parse, decide,
//! encode) should stay well below a microsecond for a typical head.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::Method;
use ringgate::config::HeaderRules;
use ringgate::http::body::{Body, CHUNK_HEADROOM, CHUNK_TAILROOM, frame_chunk};
use ringgate::http::date;
use ringgate::http::encode::{self, DownstreamResponse, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::framing::Framing;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::headers::Forwarding;
use ringgate::http::response::ResponseHead;
use ringgate::http::scan::HeadScanner;
use ringgate::http::trailers::Trailers;
use ringgate::http::{Parsed, Version};
use std::hint::black_box;

const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: wrk\r\n\r\n";

const TYPICAL: &[u8] = b"GET /orders/8f14e45f/items?limit=50&sort=created HTTP/1.1\r\n\
Host: api.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n\
Accept: application/json, text/plain, */*\r\n\
Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
Referer: https://www.example.com/orders\r\n\
X-Request-Id: 7b1e2f5e-6f0c-4f0e-9d5b-0a1b2c3d4e5f\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.26.2\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: application/json; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Connection: keep-alive\r\n\
Cache-Control: no-store\r\n\
ETag: \"65f0a1b2-400\"\r\n\
Vary: Accept-Encoding\r\n\r\n";

/// The typical one with fifty more headers, one of which has to be rewritten.
fn large() -> Vec<u8> {
    let mut head = TYPICAL[..TYPICAL.len() - 2].to_vec();
    for i in 0..50 {
        head.extend_from_slice(format!("X-Custom-Header-{i}: a value of some length, number {i}\r\n").as_bytes());
    }
    head.extend_from_slice(b"X-Odd:value\r\n\r\n");
    head
}

fn parse<'b>(bytes: &'b [u8], scratch: &'b mut HeadScratch) -> RequestHead<'b> {
    let policy = HeadPolicy::default();
    assert!(HeadScanner::default().is_ready(bytes));
    match RequestHead::parse(bytes, &policy, scratch) {
        Ok(Parsed::Complete(head)) => head,
        other => panic!("{other:?}"),
    }
}

fn encode_up(out: &mut Vec<u8>, head: &RequestHead<'_>) {
    out.clear();
    let rules = HeaderRules::default();
    let forwarding = Forwarding {
        replaces: false,
        peer: Some([192, 0, 2, 1].into()),
        is_trusted: false,
        scheme: "http",
        request_id: b"0123456789abcdef0123456789abcdef",
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
        rules: &rules,
        forwarding: &forwarding,
        host_fallback: "10.0.0.1:8080",
        expect_continue: false,
        offer: None,
    };
    encode::request(out, &request);
}

fn requests(c: &mut Criterion) {
    let large = large();
    let mut scratch = HeadScratch::default();
    let mut out = Vec::new();
    let mut group = c.benchmark_group("request");
    for (name, bytes) in [("small", SMALL), ("typical", TYPICAL), ("large", &large)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("parse/{name}"), |b| {
            b.iter(|| parse(black_box(bytes), &mut scratch).head_bytes());
        });
        group.bench_function(format!("parse_and_encode/{name}"), |b| {
            b.iter(|| {
                encode_up(&mut out, &parse(black_box(bytes), &mut scratch));
                out.len()
            });
        });
    }
    group.bench_function("httparse_alone/typical", |b| {
        b.iter(|| {
            let mut space = [const { std::mem::MaybeUninit::uninit() }; 256];
            let mut request = httparse::Request::new(&mut []);
            request.parse_with_uninit_headers(black_box(TYPICAL), &mut space).unwrap().unwrap()
        });
    });
    let rest = &TYPICAL[b"GET /orders/8f14e45f/items".len()..];
    let unnormal = [b"GET /orders/./%38f14e45f//items/../items", rest].concat();
    group.bench_function("parse/path_to_normalize", |b| {
        b.iter(|| parse(black_box(&unnormal), &mut scratch).head_bytes());
    });
    group.finish();
}

fn responses(c: &mut Criterion) {
    let (mut scratch, mut out, date) = (HeadScratch::default(), Vec::new(), date::format(0));
    let mut group = c.benchmark_group("response");
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("parse", |b| {
        b.iter(|| match ResponseHead::parse(black_box(RESPONSE), &Method::GET, &mut scratch) {
            Ok(Parsed::Complete(head)) => head.head_bytes(),
            other => panic!("{other:?}"),
        });
    });
    let rules = HeaderRules::default();
    group.bench_function("parse_and_encode", |b| {
        b.iter(|| {
            out.clear();
            let Ok(Parsed::Complete(head)) = ResponseHead::parse(black_box(RESPONSE), &Method::GET, &mut scratch)
            else {
                panic!("the head is complete")
            };
            let response = DownstreamResponse {
                is_recoded: false,
                head: &head,
                version: Version::Http11,
                close: false,
                rules: &rules,
                server: &ringgate::config::ServerField::Pass,
                lines: b"",
                date: &date,
            };
            encode::response(&mut out, &response)
        });
    });
    group.finish();
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunked");
    for (name, chunk_bytes) in
        [("one_chunk_of_64_KiB", 64 << 10), ("chunks_of_1_KiB", 1 << 10), ("chunks_of_16_bytes", 16)]
    {
        let mut wire = vec![0; CHUNK_HEADROOM];
        for _ in 0..(64 << 10) / chunk_bytes {
            wire.extend_from_slice(format!("{chunk_bytes:x}\r\n").as_bytes());
            wire.resize(wire.len() + chunk_bytes, b'x');
            wire.extend_from_slice(b"\r\n");
        }
        let filled = CHUNK_HEADROOM..wire.len();
        wire.resize(wire.len() + CHUNK_TAILROOM, 0);
        let mut trailers = Trailers::default();
        group.throughput(Throughput::Bytes(64 << 10));
        group.bench_function(format!("decode_and_frame/{name}"), |b| {
            b.iter_batched_ref(
                || wire.clone(),
                |block| {
                    let mut body = Body::new(Framing::Chunked, u64::MAX);
                    let decoded = body.decode(block, filled.clone(), &mut trailers).unwrap();
                    frame_chunk(block, decoded.payload, false).unwrap()
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, requests, responses, chunks);
criterion_main!(benches);
