//! A client against what servers may send, byte by byte.

use super::frame::{ACK, CONTINUATION, END_HEADERS, Frame, HEAD_BYTES, PING, word};
use super::*;

/// `:status: 200`.
const OK: &[u8] = &[0x88];

fn get() -> Target {
    Target::new("GET", "a.test", "/", &[], b"", false)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame_head(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// A client that has taken `bytes` in pieces of `size`; what has ended by them, and how it went.
fn fed(client: &mut Http2, targets: &[Target], bytes: &[u8], size: usize) -> (Vec<Ended>, Result<(), Failure>) {
    let mut ended = Vec::new();
    for piece in bytes.chunks(size) {
        if let Err(failure) = client.receive(piece, targets, &mut ended) {
            return (ended, Err(failure));
        }
    }
    (ended, Ok(()))
}

/// Frames that a client has ready to send, which go.
fn sent(client: &mut Http2, targets: &[Target]) -> Vec<(Frame, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let some = client.outgoing(targets).to_vec();
        if some.is_empty() {
            break;
        }
        client.gone(some.len());
        bytes.extend(some);
    }
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(&bytes);
    let mut frames = Vec::new();
    while let Some(head) = Frame::read(rest) {
        frames.push((head, rest[HEAD_BYTES..HEAD_BYTES + head.length].to_vec()));
        rest = &rest[HEAD_BYTES + head.length..];
    }
    assert!(rest.is_empty(), "whole frames");
    frames
}

/// A client whose server has said its settings, with requests for `targets` under way.
fn asking(targets: &[Target], said: &[(u16, u32)]) -> Http2 {
    let mut client = Http2::new(10, false);
    assert_eq!(client.room(), 0, "nothing goes before its settings");
    assert_eq!(fed(&mut client, targets, &settings(said), 100), (vec![], Ok(())));
    for (row, target) in targets.iter().enumerate() {
        assert!(client.room() > 0);
        client.begin(row as u32, target);
    }
    client
}

fn good(slot: usize) -> Ended {
    Ended { slot, status: Some(200), failure: None }
}

fn lost(slot: usize, failure: Failure) -> Ended {
    Ended { slot, status: None, failure: Some(failure) }
}

#[test]
fn answers_are_whole_where_their_stream_ends_however_they_are_cut() {
    let trailers = [&[0x00, 0x05][..], b"x-sum", &[0x01, b'1']].concat();
    let length_2 = [OK, &[0x0f, 0x0d, 0x01, b'2']].concat();
    let padded = [&[3][..], b"ok", &[0; 3]].concat();
    let weighted = [&[0, 0, 0, 0, 7][..], OK].concat();
    let interim = [0x08, 0x03, b'1', b'0', b'3'];
    for (name, frames) in [
        ("a head alone", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, OK)]),
        ("a body", vec![frame(HEADERS, END_HEADERS, 1, &length_2), frame(DATA, END_STREAM, 1, b"ok")]),
        (
            "padding",
            vec![frame(HEADERS, END_HEADERS, 1, &length_2), frame(DATA, END_STREAM | frame::PADDED, 1, &padded)],
        ),
        ("priority", vec![frame(HEADERS, END_HEADERS | END_STREAM | frame::HAS_PRIORITY, 1, &weighted)]),
        (
            "continuation and trailers",
            vec![
                frame(HEADERS, 0, 1, &length_2[..2]),
                frame(CONTINUATION, END_HEADERS, 1, &length_2[2..]),
                frame(DATA, 0, 1, b"o"),
                frame(DATA, 0, 1, b"k"),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
            ],
        ),
        (
            "an interim head",
            vec![frame(HEADERS, END_HEADERS, 1, &interim), frame(HEADERS, END_HEADERS | END_STREAM, 1, OK)],
        ),
        ("what nobody knows", vec![frame(0xbb, 9, 1, b"?"), frame(HEADERS, END_HEADERS | END_STREAM, 1, OK)]),
    ] {
        let bytes = frames.concat();
        for size in 1..=bytes.len() {
            let targets = [get()];
            let mut client = asking(&targets, &[]);
            assert_eq!(fed(&mut client, &targets, &bytes, size), (vec![good(0)], Ok(())), "{name} in pieces of {size}");
            assert_eq!((client.in_flight(), client.room()), (0, 10));
        }
    }
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let head = frame(HEADERS, END_HEADERS, 1, OK);
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, OK);
    let big = frame(DATA, 0, 1, &vec![0; frame::BYTES_MAX + 1]);
    let endless = [frame(HEADERS, 0, 1, OK), frame(CONTINUATION, 0, 1, b"").repeat(100)].concat();
    let long = [frame(HEADERS, 0, 1, OK), frame(CONTINUATION, 0, 1, &[0; 16_000]).repeat(5)].concat();
    let window = |more: u32| more.to_be_bytes();
    for (name, bytes, failure) in [
        ("no HTTP/2", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Failure::Garbage),
        ("an answer to nobody", frame(HEADERS, END_HEADERS | END_STREAM, 7, OK), Failure::Surplus),
        ("data for nobody", frame(DATA, 0, 9, b"x"), Failure::Surplus),
        ("a stream of the server's", frame(HEADERS, END_HEADERS, 2, OK), Failure::Surplus),
        ("a reset of nothing", frame(RST_STREAM, 0, 11, &[0; 4]), Failure::Surplus),
        ("two answers", [whole.clone(), whole.clone()].concat(), Failure::Surplus),
        ("data on no stream", frame(DATA, 0, 0, b"x"), Failure::Garbage),
        ("a push", frame(frame::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x88]), Failure::Garbage),
        ("a frame that is too long", big, Failure::Garbage),
        ("a head between a head", [frame(HEADERS, 0, 1, OK), head.clone()].concat(), Failure::Garbage),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, OK), Failure::Garbage),
        ("a head in a hundred frames", endless, Failure::Garbage),
        ("a head of 80 kB", long, Failure::Garbage),
        ("more padding than frame", frame(DATA, frame::PADDED, 1, &[9, 1]), Failure::Garbage),
        ("a head that is none", frame(HEADERS, END_HEADERS, 1, &[0xff]), Failure::Garbage),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &window(0)), Failure::Garbage),
        ("a window beyond the largest", frame(WINDOW_UPDATE, 0, 0, &window(u32::MAX)), Failure::Garbage),
        ("the same of a stream", frame(WINDOW_UPDATE, 0, 1, &window(u32::MAX)), Failure::Garbage),
        ("settings of half a pair", frame(SETTINGS, 0, 0, &[0; 7]), Failure::Garbage),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[]), Failure::Garbage),
        ("a window that is none", settings(&[(4, u32::MAX)]), Failure::Garbage),
        ("a frame size that is none", settings(&[(5, 100)]), Failure::Garbage),
        ("a ping of 7 bytes", frame(PING, 0, 0, &[0; 7]), Failure::Garbage),
        ("pings without end", frame(PING, 0, 0, &[0; 8]).repeat(100_000), Failure::Garbage),
    ] {
        let targets = [get()];
        let mut client = asking(&targets, &[]);
        assert_eq!(fed(&mut client, &targets, &bytes, 4_096).1, Err(failure), "{name}");
        client.say_goodbye(true);
        assert_eq!(sent(&mut client, &targets).last().map(|(frame, _)| frame.kind), Some(GOAWAY), "{name}");
    }
    let mut client = Http2::new(1, false);
    assert_eq!(fed(&mut client, &[], &frame(PING, 0, 0, &[0; 8]), 100).1, Err(Failure::Garbage), "no settings");
}

#[test]
fn a_server_may_not_send_more_than_it_was_allowed_to() {
    let targets = [get()];
    let mut client = asking(&targets, &[]);
    let _ = fed(&mut client, &targets, &frame(HEADERS, END_HEADERS, 1, OK), 100);
    let piece = frame(DATA, 0, 1, &[0; 16_000]);
    for _ in 0..1_000 {
        assert_eq!(fed(&mut client, &targets, &piece, 4_096), (vec![], Ok(())));
        let more: u32 =
            sent(&mut client, &targets).iter().filter(|(it, _)| it.stream == 1).map(|(_, by)| word(by)).sum();
        assert!(more == 0 || i64::from(more) > STREAM_ROOM / 2, "it is told seldom: {more}");
    }
    client.streams[0].room = 15_999;
    assert_eq!(fed(&mut client, &targets, &piece, 4_096).1, Err(Failure::Garbage));
}

#[test]
fn one_answer_that_is_wrong_is_one_failure() {
    let status = |digits: &[u8]| [&[0x08, digits.len() as u8][..], digits].concat();
    let upper = [OK, &[0x00, 0x01, b'X', 0x01, b'1']].concat();
    let of_http1 = [OK, &[0x00, 0x0a][..], b"connection", &[0x05][..], b"close"].concat();
    let late = [&[0x00, 0x01, b'x', 0x01, b'1'][..], OK].concat();
    let length_3 = [OK, &[0x0f, 0x0d, 0x01, b'3']].concat();
    for (name, head, data) in [
        ("no status", vec![], None),
        ("two", [OK, OK].concat(), None),
        ("one of two digits", status(b"20"), None),
        ("one of no digits", status(b"2x0"), None),
        ("below all", status(b"099"), None),
        ("another protocol", status(b"101"), None),
        ("a name in capitals", upper, None),
        ("a field of HTTP/1.1", of_http1, None),
        ("a status behind fields", late, None),
        ("less than it says", length_3.clone(), Some(&b"ok"[..])),
        ("more than it says", length_3, Some(&b"okay"[..])),
    ] {
        let targets = [get(), get()];
        let mut client = asking(&targets, &[]);
        let ends = if data.is_none() { END_STREAM } else { 0 };
        let mut bytes = frame(HEADERS, END_HEADERS | ends, 1, &head);
        bytes.extend(data.into_iter().flat_map(|data| frame(DATA, END_STREAM, 1, data)));
        // what comes of it later is of no interest, and the neighbour is well
        bytes.extend(frame(DATA, END_STREAM, 1, b"late"));
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 3, OK));
        let wanted = vec![lost(0, Failure::Garbage), good(1)];
        assert_eq!(fed(&mut client, &targets, &bytes, 7), (wanted, Ok(())), "{name}");
        let resets: Vec<_> = sent(&mut client, &targets).into_iter().filter(|(it, _)| it.kind == RST_STREAM).collect();
        assert_eq!(resets.len(), 1, "{name}");
    }
}

#[test]
fn resets_and_goodbyes_are_failures_of_their_own() {
    let targets = [get(), get(), get(), get()];
    let mut client = asking(&targets, &[]);
    let code = |code: u32| code.to_be_bytes();
    let bytes = [
        frame(RST_STREAM, 0, 1, &code(2)),
        frame(RST_STREAM, 0, 3, &code(frame::REFUSED_STREAM)),
        frame(GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0]),
        frame(HEADERS, END_HEADERS | END_STREAM, 7, OK),
        frame(HEADERS, END_HEADERS | END_STREAM, 5, OK),
    ];
    let wanted = [lost(0, Failure::StreamReset), lost(1, Failure::StreamRefused), lost(3, Failure::Goaway), good(2)];
    assert_eq!(fed(&mut client, &targets, &bytes.concat(), 5), (wanted.to_vec(), Ok(())));
    assert!(client.is_closing() && client.has_goaway() && client.room() == 0);
}

#[test]
fn limits_of_the_server_are_kept_to() {
    let targets: Vec<Target> = (0..3).map(|_| get()).collect();
    let mut client = asking(&targets, &[(3, 3)]);
    assert_eq!((client.room(), client.in_flight()), (0, 3));
    fed(&mut client, &targets, &settings(&[(3, 2)]), 100).1.unwrap();
    client.cancel(0);
    assert_eq!((client.room(), client.stream(0)), (0, None), "two are left, and no more allowed");
    fed(&mut client, &targets, &settings(&[(3, 100)]), 100).1.unwrap();
    assert_eq!(client.room(), 8, "of its own limit");
    let late = frame(HEADERS, END_HEADERS | END_STREAM, 1, OK);
    assert_eq!(fed(&mut client, &targets, &late, 100), (vec![], Ok(())), "of one that was given up");
    let acks = sent(&mut client, &targets).iter().filter(|(it, _)| it.kind == SETTINGS && it.has(ACK)).count();
    assert_eq!(acks, 3);
}

#[test]
fn bodies_go_as_windows_let_them() {
    let body: Vec<u8> = (0..100_000_u32).map(|row| row as u8).collect();
    let post = |body: &[u8]| Target::new("POST", "a.test", "/", &[], body, false);
    let targets = [post(&body), post(b"small")];
    let mut client = asking(&targets, &[(4, 40_000)]);
    let mut seen = [Vec::new(), Vec::new()];
    let mut ends = [false, false];
    let mut take = |client: &mut Http2| {
        let mut count = 0;
        for (head, data) in sent(client, &targets).into_iter().filter(|(head, _)| head.kind == DATA) {
            let row = (head.stream / 2) as usize;
            count += data.len();
            seen[row].extend(data);
            ends[row] |= head.has(END_STREAM);
        }
        (count, ends)
    };
    assert_eq!(take(&mut client), (40_005, [false, true]), "the stream's window");
    assert_eq!(take(&mut client).0, 0);
    let wider = |stream: u32, more: u32| frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    fed(&mut client, &targets, &wider(1, 60_000), 100).1.unwrap();
    assert_eq!(take(&mut client).0, 65_535 - 40_005, "the connection's window");
    fed(&mut client, &targets, &settings(&[(4, 0)]), 100).1.unwrap();
    fed(&mut client, &targets, &wider(0, 100_000), 100).1.unwrap();
    assert_eq!(take(&mut client).0, 0, "less than nothing is left of the stream's window");
    fed(&mut client, &targets, &wider(1, 40_000), 100).1.unwrap();
    assert_eq!(take(&mut client), (100_005 - 65_535, [true, true]));
    assert_eq!((seen[0] == body, &seen[1][..]), (true, &b"small"[..]));

    // an answer that comes before the body has gone makes it needless
    let mut client = asking(&targets, &[(4, 10)]);
    let early = frame(HEADERS, END_HEADERS | END_STREAM, 1, OK);
    assert_eq!(fed(&mut client, &targets, &early, 100), (vec![good(0)], Ok(())));
    let last = sent(&mut client, &targets).into_iter().rfind(|(head, _)| head.stream == 1);
    assert_eq!(last.map(|(head, code)| (head.kind, word(&code))), Some((RST_STREAM, NO_ERROR)));
}

#[test]
fn a_long_head_goes_in_several_frames() {
    let fields = [("x-long".to_owned(), "\u{7f}".repeat(40_000))];
    let targets = [Target::new("GET", "a.test", "/", &fields, b"", false)];
    let mut client = asking(&targets, &[]);
    let frames = sent(&mut client, &targets);
    let heads: Vec<_> = frames.iter().filter(|(head, _)| head.stream == 1).collect();
    assert!(heads.len() > 2 && heads[0].0.kind == HEADERS && heads[0].0.flags == END_STREAM, "{}", heads.len());
    assert!(heads[1..].iter().all(|(head, _)| head.kind == CONTINUATION));
    assert_eq!(heads.iter().filter(|(head, _)| head.has(END_HEADERS)).count(), 1);
    let block: Vec<u8> = heads.iter().flat_map(|(_, part)| part.clone()).collect();
    let fields = fluke_hpack::Decoder::new().decode(&block).expect("it is one");
    assert_eq!(fields.last().map(|(_, value)| value.len()), Some(40_000));
}
