//! Windows, places and bounds over the life of a connection: what one step of a table cannot show.

use super::support::*;
use ringgate::http::h2::code::Code;
use ringgate::http::h2::connection::{CONTROL_BYTES_MAX, Connection, Event};
use ringgate::http::h2::frame::{FRAME_HEAD_BYTES, FrameHead, Kind};
use ringgate::http::h2::guard::{RESETS_MAX, USELESS_MAX};
use ringgate::http::h2::section::Section;
use ringgate::http::h2::settings::OwnSettings;
use ringgate::units::Instant;

const NOW: Instant = Instant::from_nanos(0);

/// Feeds all of it, and returns what there was to be told.
fn feed(connection: &mut Connection, bytes: &[u8]) -> Result<Vec<String>, Code> {
    let (mut at, mut section, mut events) = (0, Section::default(), Vec::new());
    loop {
        let fed = connection.feed(&bytes[at..], &mut section, NOW)?;
        at += fed.consumed;
        match fed.event {
            Some(event) => events.push(format!("{event:?}")),
            None if fed.consumed == 0 => return Ok(events),
            None => {}
        }
    }
}

fn connection() -> Connection {
    let mut connection = Connection::new(OWN, NOW);
    feed(&mut connection, &greeted(&[])).unwrap();
    connection.control_sent();
    connection
}

#[test]
fn a_body_stops_at_its_window_and_goes_on_when_it_was_taken() {
    let mut connection = connection();
    feed(&mut connection, &post(1)).unwrap();
    for _ in 0..3 {
        feed(&mut connection, &data(1, 0, 16_384)).unwrap();
    }
    feed(&mut connection, &data(1, 0, 16_383)).unwrap();
    assert_eq!(feed(&mut connection, &data(1, 0, 1)), Err(Code::FlowControl), "the connection's comes first");
    assert!(connection.control().ends_with(&(Code::FlowControl as u32).to_be_bytes()));
}

#[test]
fn a_stream_that_sends_too_much_is_reset_and_the_connection_gets_it_back() {
    let own = OwnSettings { connection_window: 200_000, ..OWN };
    let mut connection = Connection::new(own, NOW);
    feed(&mut connection, &greeted(&[post(1)])).unwrap();
    connection.control_sent();
    for _ in 0..3 {
        feed(&mut connection, &data(1, 0, 16_384)).unwrap();
    }
    let events = feed(&mut connection, &data(1, 0, 16_384)).unwrap();
    assert_eq!(events.len(), 1);
    assert!(events[0].starts_with("Reset { place: 0, code: FlowControl"), "{events:?}");
    connection.release(0);
    connection.control_sent();
    // all of it is given back, so that another body may have the whole window again
    feed(&mut connection, &post(3)).unwrap();
    let mut sent = 0;
    while sent < 300_000 {
        let events = feed(&mut connection, &data(3, 0, 10_000)).unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        connection.on_taken(0, 10_000, false);
        sent += 10_000;
    }
}

#[test]
fn credit_is_given_in_halves_and_grows_for_a_reader_that_keeps_up() {
    let own = OwnSettings { connection_window: 1 << 20, ..OWN };
    let mut connection = Connection::new(own, NOW);
    feed(&mut connection, &greeted(&[post(1)])).unwrap();
    connection.control_sent();
    feed(&mut connection, &data(1, 0, 16_384)).unwrap();
    connection.on_taken(0, 16_384, false);
    assert!(connection.control().is_empty(), "a quarter");
    feed(&mut connection, &data(1, 0, 16_384)).unwrap();
    connection.on_taken(0, 16_384, true);
    let head = FrameHead::parse(connection.control()).unwrap();
    assert_eq!((head.kind, head.id, connection.control().len()), (Kind::WindowUpdate, 1, 13));
    let more = u32::from_be_bytes(*connection.control().last_chunk::<4>().unwrap());
    assert_eq!(more, 2 * 16_384 + 65_535, "what it took, and as much again");
}

#[test]
fn what_is_sent_stops_at_the_smaller_of_two_windows() {
    let mut connection = connection();
    feed(&mut connection, &[get(1), get(3), settings(&[(4, 10)])].concat()).unwrap();
    let mut out = Vec::new();
    assert_eq!((connection.room(0), connection.room(1)), (10, 10));
    connection.push_data_head(&mut out, 0, 10, false);
    assert_eq!((connection.room(0), connection.room(1)), (0, 10));
    feed(&mut connection, &settings(&[(4, 5)])).unwrap();
    assert_eq!((connection.room(0), connection.room(1)), (0, 5), "RFC 9113 §6.9.2: below zero");
    feed(&mut connection, &window(1, 6)).unwrap();
    assert_eq!(connection.room(0), 1);
    feed(&mut connection, &[window(1, 100_000), window(3, 100_000)].concat()).unwrap();
    for _ in 0..3 {
        assert_eq!(connection.room(0), 16_384);
        connection.push_data_head(&mut out, 0, 16_384, false);
    }
    assert_eq!(connection.room(1), 65_535 - 10 - 3 * 16_384, "the connection's");
    connection.push_data_head(&mut out, 1, connection.room(1), true);
    assert_eq!((connection.room(0), connection.room(1)), (0, 0));
    feed(&mut connection, &window(0, 7)).unwrap();
    assert_eq!(connection.room(0), 7);
    let head = FrameHead::parse(&out).unwrap();
    assert_eq!((head.kind, head.id, head.len, out.len()), (Kind::Data, 1, 10, 5 * FRAME_HEAD_BYTES));
}

/// Rapid Reset (CVE-2023-44487): neither are there more places for it, nor does it go on.
#[test]
fn a_client_that_resets_what_it_asks_for_gets_no_further_than_its_places_and_is_sent_away() {
    let mut connection = connection();
    feed(&mut connection, &raw(4, 1, 0, b"")).unwrap();
    let (mut id, mut served) = (1, 0);
    let lost = loop {
        assert!(id < 10_000, "it is never sent away");
        match feed(&mut connection, &[get(id), reset(id, 8)].concat()) {
            Ok(events) => served += events.iter().filter(|event| event.starts_with("Request")).count(),
            Err(code) => break code,
        }
        assert!(connection.streams() <= OWN.streams_max as usize);
        id += 2;
    };
    assert_eq!((lost, served), (Code::EnhanceYourCalm, OWN.streams_max as usize));
}

/// The same where exchanges end at once, so that there are always places.
#[test]
fn a_client_that_resets_most_of_its_requests_is_sent_away_and_one_that_resets_some_is_not() {
    for (every, is_lost) in [(1, true), (2, true), (3, false)] {
        let mut connection = connection();
        let mut lost = None;
        for n in 0..2_000 {
            let id = 2 * n + 1;
            let is_reset = n % every == 0 || (every == 2 && n % 4 == 1);
            let bytes = if is_reset { [get(id), reset(id, 8)].concat() } else { get(id) };
            if let Err(code) = feed(&mut connection, &bytes) {
                lost = Some((code, n));
                break;
            }
            if !is_reset {
                connection.push_headers(&mut Vec::new(), 0, b"\x88", true);
            }
            connection.release(0);
            connection.control_sent();
        }
        match lost {
            Some((code, n)) => assert!(is_lost && code == Code::EnhanceYourCalm && n >= RESETS_MAX, "{every}: {n}"),
            None => assert!(!is_lost, "{every}"),
        }
    }
}

/// MadeYouReset (CVE-2025-8671): what it makes us reset counts as if it had done it.
#[test]
fn a_client_that_has_us_reset_its_streams_is_sent_away() {
    for wrong in [|id| window(id, 0), |id| data(id, 0, 1), |id| raw(2, 0, id, &[0; 4]), |id| headers(id, WHOLE, b"")] {
        let mut connection = connection();
        let lost = (0..10_000).find_map(|n| {
            let id = 2 * n + 1;
            let fed = feed(&mut connection, &[get(id), wrong(id)].concat());
            if fed.is_ok() {
                connection.release(0);
                connection.control_sent();
            }
            fed.err().map(|code| (code, n))
        });
        assert_eq!(lost, Some((Code::EnhanceYourCalm, RESETS_MAX)));
    }
}

#[test]
fn floods_of_frames_that_carry_nothing_end() {
    type Flood = (&'static str, fn() -> Vec<u8>);
    let floods: [Flood; 8] = [
        ("PING", || ping(0)),
        ("SETTINGS", || settings(&[(4, 65_535)])),
        ("PRIORITY", || raw(2, 0, 3, &[0; 5])),
        ("empty DATA", || data(1, 0, 0)),
        ("padded DATA", || raw(0, PADDED, 1, &[3, 0, 0, 0])),
        ("WINDOW_UPDATE", || window(0, 1)),
        ("unknown", || raw(0xaa, 0, 0, b"")),
        ("GOAWAY", || raw(7, 0, 0, &[0; 8])),
    ];
    for (name, frame) in floods {
        let mut connection = connection();
        feed(&mut connection, &post(1)).unwrap();
        let count = (0..100_000).take_while(|_| {
            let fed = feed(&mut connection, &frame());
            connection.control_sent();
            fed.is_ok()
        });
        assert!(count.count() <= USELESS_MAX as usize, "{name}");
    }
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let mut connection = connection();
    let mut frames = 0;
    while connection.takes_more() && feed(&mut connection, &[get(2 * frames + 1), ping(0)].concat()).is_ok() {
        frames += 1;
    }
    assert!(connection.control().len() <= CONTROL_BYTES_MAX + 64, "{}", connection.control().len());
}

#[test]
fn after_goaway_streams_end_and_no_others_begin() {
    let mut connection = connection();
    feed(&mut connection, &post(1)).unwrap();
    connection.go_away(Code::NoError, Some(u32::MAX));
    let events = feed(&mut connection, &get(3)).unwrap();
    assert_eq!(events.len(), 1, "it cannot know yet");
    connection.go_away(Code::NoError, None);
    assert_eq!(feed(&mut connection, &[get(5), data(5, 0, 0)].concat()).map(|events| events.len()), Ok(0));
    let events = feed(&mut connection, &data(1, 1, 4)).unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    let goaway = connection.control()[connection.control().len() - 17 - 13..].to_vec();
    assert_eq!(goaway.len(), 30);
}

#[test]
fn a_response_before_the_end_of_the_request_tells_the_client_to_stop() {
    let mut connection = connection();
    feed(&mut connection, &[post(1), data(1, 0, 100)].concat()).unwrap();
    let mut out = Vec::new();
    connection.push_headers(&mut out, 0, b"\x88", true);
    connection.release(0);
    assert_eq!(connection.control(), reset(1, 0), "RFC 9113 §8.1: NO_ERROR");
    connection.control_sent();
    assert_eq!(feed(&mut connection, &data(1, 1, 100)).map(|events| events.len()), Ok(0), "it was under way");
    assert!(connection.control().is_empty());
    assert_eq!(connection.streams(), 0);
}

#[test]
fn an_idle_connection_is_small() {
    let mut connection = connection();
    for n in 0..50 {
        // a client that teaches nothing
        feed(&mut connection, &headers(2 * n + 1, WHOLE, b"\x82\x86\x84\x01\x01a")).unwrap();
        connection.push_headers(&mut Vec::new(), 0, b"\x88", true);
        connection.release(0);
    }
    connection.shrink();
    let bytes = size_of::<Connection>() + connection.memory();
    assert!(bytes < 1_000, "{bytes}");
}

#[test]
fn places_are_used_again() {
    let mut connection = connection();
    for n in 0..100 {
        let mut section = Section::default();
        let bytes = get(2 * n + 1);
        let fed = connection.feed(&bytes, &mut section, NOW).unwrap();
        assert_eq!(fed.event, Some(Event::Request { place: 0, ended: true }));
        connection.push_headers(&mut Vec::new(), 0, b"\x88", true);
        connection.release(0);
    }
}

/// As many uploads as there are places, all answered before they were here (429, say): what was under way of each of them is nobody's fault.
#[test]
fn many_uploads_that_are_answered_early_do_not_cost_their_client_its_connection() {
    const STREAMS: u32 = 100;
    let own = OwnSettings { streams_max: STREAMS, connection_window: 1 << 20, ..OWN };
    let mut connection = Connection::new(own, NOW);
    feed(&mut connection, &greeted(&[])).unwrap();
    for n in 0..STREAMS {
        feed(&mut connection, &[post(2 * n + 1), data(2 * n + 1, 0, 100)].concat()).unwrap();
    }
    for place in 0..STREAMS as usize {
        connection.push_headers(&mut Vec::new(), place, b"\x88", true);
        connection.release(place);
    }
    connection.control_sent();
    for piece in 0..4 {
        for n in 0..STREAMS {
            // half of them end with trailers
            let last = if n % 2 == 0 { data(2 * n + 1, 1, 100) } else { headers(2 * n + 1, 5, &field("sum", "1")) };
            let late = if piece == 3 { last } else { data(2 * n + 1, 0, 100) };
            let late = feed(&mut connection, &late);
            assert_eq!(late.map(|events| events.len()), Ok(0), "piece {piece} of stream {}", 2 * n + 1);
        }
    }
    // nothing but credit for what was thrown away
    let control = connection.control();
    let kinds: Vec<_> = control.chunks(13).map(|frame| frame[3]).collect();
    assert!(kinds.iter().all(|&kind| kind == 8), "{kinds:?}");
    assert_eq!(feed(&mut connection, &get(9_999)).map(|events| events.len()), Ok(1));
    // it has left ids out now, and what comes for one of those comes for a stream that never was (RFC 9113 §5.1.1)
    assert_eq!(feed(&mut connection, &headers(5_001, 5, &field("sum", "1"))), Err(Code::Protocol));
}

/// RFC 9113 §4.3.1: decoders that have asked for a smaller table end a connection that does not say that it is.
#[test]
fn whoever_keeps_a_smaller_table_is_told_so_once_in_the_next_block() {
    let blocks = |settings: &[Vec<u8>]| {
        let mut connection = connection();
        feed(&mut connection, &settings.concat()).unwrap();
        feed(&mut connection, &[get(1), get(3)].concat()).unwrap();
        let mut out = Vec::new();
        connection.push_headers(&mut out, 0, b"\x88", true);
        connection.push_headers(&mut out, 1, b"\x88", true);
        out.into_iter().skip(FRAME_HEAD_BYTES).collect::<Vec<u8>>()
    };
    let behind = [&FrameHead { len: 1, kind: Kind::Headers, flags: WHOLE, id: 3 }.to_bytes()[..], b"\x88"].concat();
    for (settings, first) in [
        (vec![], &b"\x88"[..]),
        (vec![settings(&[(1, 4_096)])], b"\x88"),
        (vec![settings(&[(1, 65_536)])], b"\x88"),
        (vec![settings(&[(1, 4_095)])], b"\x20\x88"),
        (vec![settings(&[(1, 0)])], b"\x20\x88"),
        (vec![settings(&[(1, 0), (1, 4_096)])], b"\x20\x88"),
        (vec![settings(&[(1, 100)]), settings(&[(1, 4_096)]), settings(&[(1, 10)])], b"\x20\x88"),
    ] {
        assert_eq!(blocks(&settings), [first, &behind].concat(), "{settings:?}");
    }
}
