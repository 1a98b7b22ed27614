//! What a client says of how urgent something is (RFC 9218): by its request, by a frame, before and after it.

use super::support::*;
use ringgate::http::h2::connection::{Connection, Event};
use ringgate::http::h2::priority::{Priority, Signal};
use ringgate::http::h2::section::Section;
use ringgate::http::h2::settings::OwnSettings;
use ringgate::units::Instant;

const NOW: Instant = Instant::from_nanos(0);
const UPDATE: u8 = 0x10;

fn update(id: u32, value: &str) -> Vec<u8> {
    raw(UPDATE, 0, 0, &[&id.to_be_bytes()[..], value.as_bytes()].concat())
}

fn asks(id: u32, priorities: &[&str]) -> Vec<u8> {
    let fields: Vec<_> = priorities.iter().map(|value| ("priority", *value)).collect();
    headers(id, WHOLE, &[GET, &block(&fields)].concat())
}

fn said(text: &str) -> Priority {
    Priority::default().with(Signal::parse(text.as_bytes()))
}

/// Feeds all of it; places of the requests, or that the connection was lost.
fn feed(connection: &mut Connection, bytes: &[u8]) -> Result<Vec<usize>, u32> {
    let (mut at, mut section, mut places) = (0, Section::default(), Vec::new());
    loop {
        let fed = connection.feed(&bytes[at..], &mut section, NOW).map_err(|code| code as u32)?;
        at += fed.consumed;
        match fed.event {
            Some(Event::Request { place, .. }) => places.push(place),
            Some(_) => {}
            None if fed.consumed == 0 => return Ok(places),
            None => {}
        }
    }
}

fn connection() -> Connection {
    let mut connection = Connection::new(OwnSettings { streams_max: 100, ..OWN }, NOW);
    feed(&mut connection, &greeted(&[])).unwrap();
    connection
}

#[test]
fn a_request_says_it_and_a_frame_says_something_else() {
    let mut connection = connection();
    let places = feed(&mut connection, &[get(1), asks(3, &["u=1, i"]), asks(5, &["u=6", "i"])].concat()).unwrap();
    let of = |connection: &Connection, nth: usize| connection.stream(places[nth]).priority();
    assert!(connection.is_prioritized());
    assert_eq!([0, 1, 2].map(|nth| of(&connection, nth)), [said(""), said("u=1, i"), said("u=6, i")]);
    feed(&mut connection, &[update(1, "u=0"), update(3, "u=2")].concat()).unwrap();
    assert_eq!([0, 1].map(|nth| of(&connection, nth)), [said("u=0"), said("u=2")], "what is not said is as by default");
    connection.correct_priority(places[2], Signal::parse(b"u=4"));
    assert_eq!(of(&connection, 2), said("u=4, i"), "a service knows better, where it says something");
}

#[test]
fn a_frame_may_come_first_and_counts_for_more_than_the_head() {
    let mut connection = connection();
    let frames = [update(3, "u=7"), update(3, "u=5, i"), asks(1, &["u=0"]), asks(3, &["u=1"]), get(5)];
    let places = feed(&mut connection, &frames.concat()).unwrap();
    let priorities: Vec<_> = places.iter().map(|&place| connection.stream(place).priority()).collect();
    assert_eq!(priorities, [said("u=0"), said("u=5, i"), said("")]);
}

#[test]
fn nobody_asks_until_somebody_does() {
    let mut connection = connection();
    feed(&mut connection, &[get(1), raw(2, 0, 1, &[0, 0, 0, 0, 255]), raw(0x11, 0, 0, b"\0\0\0\x01u=0")].concat())
        .unwrap();
    assert!(!connection.is_prioritized());
    feed(&mut connection, &update(9, "u=0")).unwrap();
    assert!(connection.is_prioritized());
}

#[test]
fn frames_have_a_form_and_a_bound() {
    for (name, frame, code) in [
        ("on a stream", raw(UPDATE, 0, 1, b"\0\0\0\x01u=0"), 1),
        ("about none", update(0, "u=0"), 1),
        ("about one of the server", update(2, "u=0"), 1),
        ("cut", raw(UPDATE, 0, 0, &[0; 3]), 6),
    ] {
        assert_eq!(feed(&mut connection(), &[get(1), frame].concat()), Err(code), "{name}");
    }
    let mut whole = connection();
    assert!(feed(&mut whole, &[update(1, ""), get(1), update(1, &"u=0,".repeat(4_000))].concat()).is_ok());
    let memory = whole.memory();
    let flood: Vec<u8> = (0..900_u32).flat_map(|n| update(2 * n + 3, "u=0")).collect();
    assert!(feed(&mut whole, &flood).is_ok());
    assert_eq!(whole.memory(), memory);
    assert_eq!(feed(&mut whole, &flood), Err(11), "as any frames that bring nothing");
    let mut endpoint = Connection::to_endpoint(OWN, NOW);
    feed(&mut endpoint, &settings(&[])).unwrap();
    assert_eq!(feed(&mut endpoint, &update(1, "u=0")), Err(1), "servers do not send it");
}
