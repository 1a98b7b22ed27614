//! What HTTP/2 costs per request: a later header block of a browser's kind, decoded into a head; and a request in with 1 KiB out.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::Method;
use ringgate::config::{HeaderRules, ServerField};
use ringgate::http::encode::{self, DownstreamResponse};
use ringgate::http::fields::HeadScratch;
use ringgate::http::h2::connection::{Connection, Event};
use ringgate::http::h2::decoder::Decoder;
use ringgate::http::h2::frame::PREFACE;
use ringgate::http::h2::section::{Bounds, Role, Section};
use ringgate::http::h2::settings::OwnSettings;
use ringgate::http::head::HeadPolicy;
use ringgate::http::kept::KeptHead;
use ringgate::http::response::ResponseHead;
use ringgate::http::{Parsed, Version, date};
use ringgate::units::Instant;
use std::hint::black_box;

const BOUNDS: Bounds = Bounds { bytes_max: 16 << 10, fields_max: 100 };

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.26.2\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: application/json; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Cache-Control: no-store\r\n\
ETag: \"65f0a1b2-400\"\r\n\
Vary: Accept-Encoding\r\n\r\n";

/// A browser's fields: the first block teaches, the later ones refer to it but for the path and a trace.
fn blocks() -> (Vec<u8>, Vec<u8>) {
    let mut encoder = fluke_hpack::Encoder::new();
    let mut encode = |n: u32| {
        let (path, trace) = (format!("/orders/{n}/items?limit=50"), format!("00-{n:032x}-00f067aa0ba902b7-01"));
        let fields: [(&[u8], &[u8]); 10] = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"api.example.com"),
            (b":path", path.as_bytes()),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"),
            (b"accept", b"application/json, text/plain, */*"),
            (b"accept-encoding", b"gzip, deflate, br, zstd"),
            (
                b"authorization",
                b"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0",
            ),
            (b"cookie", b"session=0123456789abcdef0123456789abcdef; theme=dark"),
            (b"traceparent", trace.as_bytes()),
        ];
        encoder.encode(fields)
    };
    (encode(1), encode(2))
}

fn head(criterion: &mut Criterion) {
    let (first, later) = blocks();
    let mut group = criterion.benchmark_group("h2_head");
    group.throughput(Throughput::Elements(1));
    let (mut decoder, mut section) = (Decoder::default(), Section::default());
    section.clear(Role::Request);
    decoder.decode(&first, &BOUNDS, &mut section).expect("a block");
    let (mut kept, policy) = (KeptHead::default(), HeadPolicy::default());
    group.bench_function("a later block", |bencher| {
        bencher.iter(|| {
            section.clear(Role::Request);
            decoder.decode(black_box(&later), &BOUNDS, &mut section).expect("a block");
            black_box(section.lines().len())
        });
    });
    group.bench_function("a later block to a head", |bencher| {
        bencher.iter(|| {
            section.clear(Role::Request);
            decoder.decode(black_box(&later), &BOUNDS, &mut section).expect("a block");
            kept.take(&mut section, true, &policy).expect("a head");
            black_box(kept.head_bytes())
        });
    });
    group.finish();
}

/// A request on the next stream.
fn push_request(out: &mut Vec<u8>, id: &mut u32, block: &[u8]) {
    out.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[1, 5]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(block);
    *id += 2;
}

fn exchange(criterion: &mut Criterion) {
    let own = OwnSettings {
        streams_max: 100,
        window: 1 << 16,
        connection_window: 1 << 20,
        head_bytes_max: 16 << 10,
        fields_max: 100,
    };
    let now = Instant::from_nanos(0);
    let (first, later) = blocks();
    let (mut connection, mut section) = (Connection::new(own, now), Section::default());
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let room = [&b"\0\0\x04\x08\0\0\0\0\0"[..], &0x7fff_0000_u32.to_be_bytes()].concat();
    let mut start = [&PREFACE[..], settings, &room].concat();
    let body = vec![b'x'; 1_024];
    let mut id = 1;
    push_request(&mut start, &mut id, &first);
    let (mut kept, policy, mut scratch) = (KeptHead::default(), HeadPolicy::default(), HeadScratch::default());
    let (rules, date) = (HeaderRules::default(), date::format(784_111_777));
    let (mut inbox, mut block, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut serve = |bytes: &[u8]| {
        let mut at = 0;
        loop {
            let fed = connection.feed(&bytes[at..], &mut section, now).expect("a good client");
            at += fed.consumed;
            match fed.event {
                Some(Event::Request { place, ended }) => {
                    kept.take(&mut section, ended, &policy).expect("a head");
                    let Ok(Parsed::Complete(head)) = ResponseHead::parse(RESPONSE, &Method::GET, &mut scratch) else {
                        unreachable!("a head")
                    };
                    let response = DownstreamResponse {
                        is_recoded: false,
                        head: &head,
                        version: Version::Http2,
                        close: false,
                        rules: &rules,
                        server: &ServerField::Pass,
                        lines: b"",
                        date: &date,
                    };
                    block.clear();
                    encode::response(&mut block, &response);
                    connection.push_headers(&mut out, place, &block[9..], false);
                    let room = connection.room(place).min(body.len());
                    connection.push_data_head(&mut out, place, room, true);
                    out.extend_from_slice(&body[..room]);
                    connection.release(place);
                }
                None if fed.consumed == 0 => break,
                _ => {}
            }
        }
        connection.control_sent();
        black_box(out.len());
        out.clear();
    };
    serve(&start);
    let mut group = criterion.benchmark_group("h2_exchange");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a request in and 1 KiB out", |bencher| {
        bencher.iter(|| {
            inbox.clear();
            push_request(&mut inbox, &mut id, &later);
            serve(&inbox);
        });
    });
    group.finish();
}

criterion_group!(benches, head, exchange);
criterion_main!(benches);
