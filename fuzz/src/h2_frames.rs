//! A client's connection of HTTP/2, whatever is sent on it.
//!
//! However bytes arrive, the same events follow; what is handed on is what was sent; what is kept is bounded; and an error is said once,
//! with the GOAWAY that belongs to it.

use crate::Knobs;
use crate::feed::ways;
use ringgate::http::h2::connection::{CONTROL_BYTES_MAX, Connection, Event};
use ringgate::http::h2::frame::PREFACE;
use ringgate::http::h2::section::Section;
use ringgate::http::h2::settings::OwnSettings;
use ringgate::units::Instant;

const NOW: Instant = Instant::from_nanos(0);

/// Knobs: 0 the preface and SETTINGS stand before it; 1 streams are answered as they begin, and 2 their bodies taken; 3 few streams.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    let bytes = match knobs.bit(0) {
        true => [&PREFACE[..], b"\0\0\0\x04\0\0\0\0\0", bytes].concat(),
        false => bytes.to_vec(),
    };
    let whole = talk(knobs, &bytes, &[bytes.len()]);
    for ends in ways(&bytes) {
        assert_eq!(talk(knobs, &bytes, &ends), whole, "cut at {ends:?}: {}", bytes.escape_ascii());
    }
}

/// What comes of bytes that arrive in pieces with these ends: pieces of bodies put together, since they follow the pieces.
fn talk(knobs: Knobs, bytes: &[u8], ends: &[usize]) -> Vec<String> {
    let streams_max = if knobs.bit(3) { 2 } else { 100 };
    let own =
        OwnSettings { streams_max, window: 65_535, connection_window: 65_535, head_bytes_max: 2_048, fields_max: 20 };
    let (mut connection, mut section) = (Connection::new(own, NOW), Section::default());
    connection.control_sent();
    let (mut log, mut at, mut body): (Vec<String>, usize, Option<(usize, usize)>) = (Vec::new(), 0, None);
    for &end in ends {
        loop {
            let fed = match connection.feed(&bytes[at..end], &mut section, NOW) {
                Ok(fed) => fed,
                Err(code) => {
                    let said = connection.control();
                    assert!(said.len() >= 17 && said[said.len() - 17 + 3] == 7, "no GOAWAY at the end");
                    // credits before it follow the pieces
                    let said = &said[said.len() - 17..];
                    log.extend(body.take().map(|body| format!("{body:?}")));
                    log.push(format!("lost: {code} {}", said.escape_ascii()));
                    return log;
                }
            };
            at += fed.consumed;
            assert!(at <= end);
            let is_all = fed.consumed == 0 && fed.event.is_none();
            match fed.event {
                Some(Event::Data { place, payload, ended }) => {
                    let before = body.take_if(|(other, _)| *other == place).map_or(0, |(_, bytes)| bytes);
                    log.extend(body.take().map(|body| format!("{body:?}")));
                    body = Some((place, before + payload.len()));
                    if knobs.bit(2) {
                        connection.on_taken(place, payload.len(), false);
                    }
                    if ended {
                        log.extend(body.take().map(|body| format!("{body:?} whole")));
                    }
                }
                Some(event) => {
                    log.extend(body.take().map(|body| format!("{body:?}")));
                    log.push(format!("{event:?}"));
                    if let Event::Request { place, .. } = event
                        && knobs.bit(1)
                    {
                        connection.push_headers(&mut Vec::new(), place, b"\x88", true);
                        connection.release(place);
                    }
                }
                None => {}
            }
            assert!(connection.streams() <= streams_max as usize);
            assert!(connection.control().len() <= CONTROL_BYTES_MAX + 64);
            // a table of 4 KiB, a block in pieces, places for streams
            assert!(connection.memory() < 64 << 10, "{} bytes", connection.memory());
            connection.control_sent();
            if is_all {
                break;
            }
        }
    }
    log.extend(body.take().map(|body| format!("{body:?}")));
    log
}
