//! The table: what a client sends, by the section that it is about, and what comes of it. Sections are of RFC 9113 unless they say otherwise.
//!
//! What comes of it is written as the events and the frames in their order: `request1` has begun (`request1.` has no body), `data1:5` and
//! `end1` of its body, `rst1:code` we have reset it, `reset1:code` the client has, `goaway:code` the connection is lost.

use super::support::*;
use ringgate::http::h2::frame::PREFACE;

pub(crate) struct Case {
    pub(crate) section: String,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) wanted: String,
}

const ALL: u8 = 0xff;
/// Kinds of frames whose names stand in a case's name.
const KINDS: [&str; 11] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
    "unknown",
];

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    /// Whole bytes of a connection.
    fn bytes(&mut self, section: &str, name: &str, bytes: Vec<u8>, wanted: &str) {
        self.0.push(Case { section: section.to_owned(), name: name.to_owned(), bytes, wanted: wanted.to_owned() });
    }

    /// Frames behind the preface and SETTINGS.
    fn frames(&mut self, section: &str, name: &str, frames: &[Vec<u8>], wanted: &str) {
        self.bytes(section, name, greeted(frames), wanted);
    }

    /// A request with these fields and without a body.
    fn head(&mut self, section: &str, name: &str, fields: &[(&str, &str)], wanted: &str) {
        self.frames(section, name, &[headers(1, WHOLE, &block(fields))], wanted);
    }

    /// One whose pseudo-fields are fine, with these fields behind them.
    fn fields(&mut self, section: &str, name: &str, fields: &[(&str, &str)], wanted: &str) {
        self.frames(section, name, &[headers(1, WHOLE, &[GET, &block(fields)].concat())], wanted);
    }
}

pub(crate) fn all() -> Vec<Case> {
    let mut table = Table::default();
    beginnings(&mut table);
    sizes(&mut table);
    sizes_of_controls(&mut table);
    places(&mut table);
    states(&mut table);
    bodies(&mut table);
    lengths(&mut table);
    trailers(&mut table);
    blocks(&mut table);
    padded_heads(&mut table);
    tables(&mut table);
    controls(&mut table);
    pseudo_fields(&mut table);
    fields(&mut table);
    bounds(&mut table);
    table.0
}

fn beginnings(table: &mut Table) {
    table.bytes("§3.4", "preface and settings", greeted(&[]), "");
    table.bytes("§3.4", "half a preface", PREFACE[..12].to_vec(), "");
    table.bytes("§3.4", "HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "goaway:protocol_error");
    table.bytes("§3.4", "TLS", b"\x16\x03\x01\x02\x00\x01".to_vec(), "goaway:protocol_error");
    table.bytes(
        "§3.4",
        "a preface with another end",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r".to_vec(),
        "goaway:protocol_error",
    );
    let first = |frame: Vec<u8>| [&PREFACE[..], &frame].concat();
    table.bytes("§3.4", "settings that acknowledge come first", first(raw(4, 1, 0, b"")), "goaway:protocol_error");
    for (kind, name) in (0..).zip(KINDS).filter(|(kind, _)| *kind != 4) {
        let frame = raw(kind, WHOLE, 1, GET);
        table.bytes("§3.4", &format!("{name} comes first"), first(frame), "goaway:protocol_error");
    }
    table.frames("§3.4", "a request follows", &[get(1)], "request1.");
}

fn sizes(table: &mut Table) {
    let large = vec![0; 16_385];
    for (kind, name) in (0..).zip(KINDS) {
        // the head alone is enough
        let mut frame = raw(kind, 0, 1, &large);
        frame.truncate(9);
        table.frames("§4.2", &format!("{name} of 16,385 bytes"), &[frame], "goaway:frame_size_error");
    }
    table.frames("§4.2", "DATA of 16,384 bytes", &[post(1), data(1, 1, 300)], "request1 data1:300 end1");
    table.frames("§6.3", "PRIORITY of four bytes", &[get(1), raw(2, 0, 1, &[0; 4])], "request1. rst1:frame_size_error");
    table.frames("§6.3", "PRIORITY of six bytes", &[get(1), raw(2, 0, 1, &[0; 6])], "request1. rst1:frame_size_error");
    table.frames(
        "§6.3",
        "PRIORITY of four bytes for an idle stream",
        &[raw(2, 0, 1, &[0; 4])],
        "goaway:frame_size_error",
    );
    for len in [0, 3, 5] {
        let payload = vec![0; len];
        let of = |kind| raw(kind, 0, 1, &payload);
        table.frames(
            "§6.4",
            &format!("RST_STREAM of {len} bytes"),
            &[get(1), of(3)],
            "request1. goaway:frame_size_error",
        );
        table.frames(
            "§6.9",
            &format!("WINDOW_UPDATE of {len} bytes"),
            &[get(1), of(8)],
            "request1. goaway:frame_size_error",
        );
    }
}

fn sizes_of_controls(table: &mut Table) {
    for len in [1, 5, 7] {
        table.frames(
            "§6.5",
            &format!("SETTINGS of {len} bytes"),
            &[raw(4, 0, 0, &vec![0; len])],
            "goaway:frame_size_error",
        );
    }
    table.frames(
        "§6.5",
        "SETTINGS that acknowledge and say something",
        &[raw(4, 1, 0, &[0; 6])],
        "goaway:frame_size_error",
    );
    for len in [0, 7, 9] {
        table.frames(
            "§6.7",
            &format!("PING of {len} bytes"),
            &[raw(6, 0, 0, &vec![0; len])],
            "goaway:frame_size_error",
        );
    }
    for len in [0, 7] {
        table.frames(
            "§6.8",
            &format!("GOAWAY of {len} bytes"),
            &[raw(7, 0, 0, &vec![0; len])],
            "goaway:frame_size_error",
        );
    }
    table.frames("§6.2", "padded HEADERS of no byte", &[headers(1, WHOLE | PADDED, b"")], "goaway:frame_size_error");
    table.frames(
        "§6.2",
        "HEADERS too short for a priority",
        &[headers(1, WHOLE | PRIORITY, &[0; 4])],
        "goaway:frame_size_error",
    );
    table.frames(
        "§6.1",
        "padded DATA of no byte",
        &[post(1), raw(0, PADDED, 1, b"")],
        "request1 goaway:frame_size_error",
    );
}

/// Frames for the connection where a stream must be, and the other way round.
fn places(table: &mut Table) {
    let lost = "goaway:protocol_error";
    for (kind, payload) in [(0, &[][..]), (1, GET), (2, &[0; 5]), (3, &[0; 4]), (5, &[0; 4]), (9, GET)] {
        let name = format!("{} for stream 0", KINDS[usize::from(kind)]);
        table.frames("§5.1.1", &name, &[raw(kind, END_HEADERS, 0, payload)], lost);
    }
    for (kind, payload) in [(4, &[][..]), (6, &[0; 8]), (7, &[0; 8])] {
        let name = format!("{} for stream 1", KINDS[usize::from(kind)]);
        table.frames("§6", &name, &[get(1), raw(kind, 0, 1, payload)], "request1. goaway:protocol_error");
    }
    for (kind, payload) in [(0, &[0][..]), (3, &[0; 4]), (8, &[0, 0, 0, 1])] {
        for id in [1, 2, 7] {
            let name = format!("{} for the idle stream {id}", KINDS[usize::from(kind)]);
            table.frames("§5.1", &name, &[raw(kind, 0, id, payload)], lost);
        }
    }
    table.frames("§5.1.1", "a request of an even stream", &[get(2)], lost);
    table.frames("§5.1.1", "a smaller id", &[get(5), get(3)], "request5. goaway:protocol_error");
    table.frames("§5.1.1", "ids with gaps", &[get(1), get(9), get(11)], "request1. request9. request11.");
    table.frames("§5.1.1", "the largest id", &[get(0x7fff_ffff)], "request2147483647.");
    table.frames("§4.1", "the bit that is reserved", &[raw(1, WHOLE, 0x8000_0001, GET)], "request1.");
    table.frames(
        "§8.4",
        "PUSH_PROMISE",
        &[get(1), raw(5, END_HEADERS, 1, &[0, 0, 0, 2])],
        "request1. goaway:protocol_error",
    );
    table.frames("§5.1", "PRIORITY for an idle stream", &[raw(2, 0, 7, &[0; 5]), get(1)], "request1.");
}

fn states(table: &mut Table) {
    let ended = [get(1)];
    let after = |frame: Vec<u8>| [&ended[..], &[frame]].concat();
    table.frames("§5.1", "DATA behind the end", &after(data(1, 0, 3)), "request1. rst1:stream_closed");
    table.frames("§5.1", "empty DATA behind the end", &after(data(1, 1, 0)), "request1. rst1:stream_closed");
    table.frames(
        "§5.1",
        "HEADERS behind the end",
        &after(headers(1, WHOLE, &field("a", "b"))),
        "request1. rst1:stream_closed",
    );
    table.frames(
        "§5.1",
        "CONTINUATION behind the end",
        &after(continuation(1, END_HEADERS, b"")),
        "request1. goaway:protocol_error",
    );
    table.frames("§5.1", "WINDOW_UPDATE behind the end", &after(window(1, 7)), "request1. room1");
    table.frames("§5.1", "RST_STREAM behind the end", &after(reset(1, 8)), "request1. reset1:cancel");
    table.frames("§5.1", "PRIORITY behind the end", &after(raw(2, 0, 1, &[0; 5])), "request1.");
    let gone = |frame: Vec<u8>| [post(1), reset(1, 8), frame];
    table.frames("§5.1", "DATA behind a reset", &gone(data(1, 0, 3)), "request1 reset1:cancel");
    table.frames("§5.1", "HEADERS behind a reset", &gone(get(1)), "request1 reset1:cancel goaway:stream_closed");
    table.frames("§5.1", "WINDOW_UPDATE behind a reset", &gone(window(1, 7)), "request1 reset1:cancel");
    table.frames("§5.1", "RST_STREAM behind a reset", &gone(reset(1, 8)), "request1 reset1:cancel");
    table.frames("§5.1", "PRIORITY behind a reset", &gone(raw(2, 0, 1, &[0; 5])), "request1 reset1:cancel");
    table.frames("§5.1", "another request behind a reset", &gone(get(3)), "request1 reset1:cancel request3.");
    // one that we have reset: what is under way is passed over
    let broken = |frame: Vec<u8>| {
        [headers(1, END_HEADERS, &[POST, &field("content-length", "1")].concat()), data(1, 0, 2), frame]
    };
    let seen = "request1 rst1:protocol_error";
    table.frames("§5.1", "DATA behind our reset", &broken(data(1, 0, 3)), seen);
    table.frames("§5.1", "the end behind our reset", &broken(data(1, 1, 3)), seen);
    table.frames("§5.1", "trailers behind our reset", &broken(headers(1, WHOLE, &field("a", "b"))), seen);
    table.frames("§5.1", "RST_STREAM behind our reset", &broken(reset(1, 5)), seen);
    table.frames("§5.1", "WINDOW_UPDATE behind our reset", &broken(window(1, 5)), seen);
    for (code, word) in
        [(0, "no_error"), (7, "refused_stream"), (8, "cancel"), (11, "enhance_your_calm"), (99, "internal_error")]
    {
        let name = format!("a reset with code {code}");
        table.frames("§7", &name, &[get(1), reset(1, code)], &format!("request1. reset1:{word}"));
    }
    let five: Vec<_> = [1, 3, 5, 7, 9].map(get).into();
    table.frames("§5.1.2", "one stream too many", &five, "request1. request3. request5. request7. rst9:refused_stream");
    let told = [&[raw(4, 1, 0, b"")][..], &five].concat();
    table.frames(
        "§5.1.2",
        "one too many for who knows",
        &told,
        "request1. request3. request5. request7. rst9:refused_stream",
    );
    let mut reset_first = five.clone();
    reset_first.insert(1, reset(1, 8));
    let wanted = "request1. reset1:cancel request3. request5. request7. rst9:refused_stream";
    table.frames("§5.1.2", "one that was reset keeps its place", &reset_first, wanted);
}

fn bodies(table: &mut Table) {
    table.frames("§8.1", "a body of one frame", &[post(1), data(1, 1, 5)], "request1 data1:5 end1");
    table.frames(
        "§8.1",
        "a body of three",
        &[post(1), data(1, 0, 5), data(1, 0, 1), data(1, 1, 2)],
        "request1 data1:8 end1",
    );
    table.frames("§8.1", "an empty end", &[post(1), data(1, 0, 5), data(1, 1, 0)], "request1 data1:5 end1");
    table.frames("§8.1", "no body at all", &[post(1), data(1, 1, 0)], "request1 end1");
    table.frames(
        "§8.1",
        "two bodies at once",
        &[post(1), post(3), data(1, 0, 2), data(3, 1, 3), data(1, 1, 1)],
        "request1 request3 data1:2 data3:3 end3 data1:1 end1",
    );
    table.frames("§6.1", "padding", &[post(1), raw(0, PADDED | 1, 1, b"\x03abc\0\0\0")], "request1 data1:3 end1");
    table.frames("§6.1", "padding of no byte", &[post(1), raw(0, PADDED | 1, 1, b"\0abc")], "request1 data1:3 end1");
    table.frames("§6.1", "nothing but padding", &[post(1), raw(0, PADDED | 1, 1, b"\x02\0\0")], "request1 end1");
    table.frames(
        "§6.1",
        "nothing but padding, and more",
        &[post(1), raw(0, PADDED, 1, b"\x02\0\0"), data(1, 1, 1)],
        "request1 data1:1 end1",
    );
    for padding in [4, 255] {
        let frame = raw(0, PADDED, 1, &[padding, 0, 0, 0]);
        table.frames(
            "§6.1",
            &format!("padding of {padding} in three bytes"),
            &[post(1), frame],
            "request1 goaway:protocol_error",
        );
    }
}

fn lengths(table: &mut Table) {
    let long = |bytes: &str| headers(1, END_HEADERS, &[POST, &field("content-length", bytes)].concat());
    table.frames("§8.1.1", "as long as announced", &[long("5"), data(1, 0, 2), data(1, 1, 3)], "request1 data1:5 end1");
    table.frames("§8.1.1", "longer than announced", &[long("5"), data(1, 0, 6)], "request1 rst1:protocol_error");
    table.frames("§8.1.1", "shorter than announced", &[long("5"), data(1, 1, 4)], "request1 rst1:protocol_error");
    table.frames(
        "§8.1.1",
        "ended too early by an empty frame",
        &[long("5"), data(1, 0, 4), data(1, 1, 0)],
        "request1 data1:4 rst1:protocol_error",
    );
    table.frames(
        "§8.1.1",
        "ended too early by trailers",
        &[long("5"), data(1, 0, 4), headers(1, WHOLE, &field("a", "b"))],
        "request1 data1:4 rst1:protocol_error",
    );
    table.frames(
        "§8.1.1",
        "none where one was announced",
        &[headers(1, WHOLE, &[POST, &field("content-length", "5")].concat())],
        "rst1:protocol_error",
    );
    table.frames(
        "§8.1.1",
        "none, and none was announced",
        &[headers(1, WHOLE, &[POST, &field("content-length", "0")].concat())],
        "request1.",
    );
    table.frames(
        "§8.1.1",
        "padding does not count",
        &[long("3"), raw(0, PADDED | 1, 1, b"\x03abc\0\0\0")],
        "request1 data1:3 end1",
    );
}

fn trailers(table: &mut Table) {
    let trailers = |fields: &[(&str, &str)]| headers(1, WHOLE, &block(fields));
    table.frames(
        "§8.1",
        "trailers",
        &[post(1), data(1, 0, 3), trailers(&[("grpc-status", "0")])],
        "request1 data1:3 trailers1",
    );
    table.frames("§8.1", "trailers of nothing", &[post(1), data(1, 0, 3), trailers(&[])], "request1 data1:3 trailers1");
    table.frames("§8.1", "trailers without a body", &[post(1), trailers(&[("a", "b")])], "request1 trailers1");
    table.frames(
        "§8.1",
        "trailers that do not end it",
        &[post(1), headers(1, END_HEADERS, &field("a", "b"))],
        "request1 rst1:protocol_error",
    );
    table.frames(
        "§8.1",
        "a pseudo-field in trailers",
        &[post(1), trailers(&[(":path", "/")])],
        "request1 rst1:protocol_error",
    );
    table.frames(
        "§8.1",
        "a status in trailers",
        &[post(1), trailers(&[(":status", "200")])],
        "request1 rst1:protocol_error",
    );
    table.frames(
        "§8.2.1",
        "upper case in trailers",
        &[post(1), trailers(&[("A", "b")])],
        "request1 rst1:protocol_error",
    );
    table.frames(
        "§8.1",
        "DATA behind trailers",
        &[post(1), trailers(&[("a", "b")]), data(1, 1, 1)],
        "request1 trailers1 rst1:stream_closed",
    );
}

fn blocks(table: &mut Table) {
    let (front, back) = GET.split_at(2);
    table.frames(
        "§6.10",
        "a block in two frames",
        &[headers(1, END_STREAM, front), continuation(1, END_HEADERS, back)],
        "request1.",
    );
    table.frames(
        "§6.10",
        "a block in three, two of them empty",
        &[headers(1, END_STREAM, b""), continuation(1, 0, b""), continuation(1, END_HEADERS, GET)],
        "request1.",
    );
    table.frames("§6.10", "a block that does not end", &[headers(1, END_STREAM, front)], "");
    table.frames(
        "§6.10",
        "a block of another stream",
        &[headers(1, END_STREAM, front), continuation(3, END_HEADERS, back)],
        "goaway:protocol_error",
    );
    table.frames("§6.10", "CONTINUATION of nothing", &[continuation(1, END_HEADERS, GET)], "goaway:protocol_error");
    for (kind, name) in (0..).zip(KINDS).filter(|(kind, _)| *kind != 9) {
        let frame = raw(kind, 0, u32::from(kind < 4), b"");
        table.frames(
            "§6.10",
            &format!("{name} within a block"),
            &[headers(1, END_STREAM, front), frame],
            "goaway:protocol_error",
        );
    }
    let pieces = |count: usize| -> Vec<Vec<u8>> {
        let mut frames = vec![headers(1, END_STREAM, b"")];
        frames.extend((2..count).map(|_| continuation(1, 0, b"")));
        frames.push(continuation(1, END_HEADERS, GET));
        frames
    };
    table.frames("§10.5.1", "a block in eight frames", &pieces(8), "request1.");
    table.frames("§10.5.1", "a block in nine", &pieces(9), "goaway:enhance_your_calm");
    let large = [headers(1, END_STREAM, &[GET, &[0; 4_000]].concat()), continuation(1, 0, &[0; 200])];
    table.frames("§10.5.1", "a block in pieces that is too large", &large, "goaway:enhance_your_calm");
}

fn padded_heads(table: &mut Table) {
    table.frames(
        "§6.2",
        "padded HEADERS",
        &[headers(1, WHOLE | PADDED, &[&[2][..], GET, &[0; 2]].concat())],
        "request1.",
    );
    table.frames(
        "§6.2",
        "HEADERS with a priority",
        &[headers(1, WHOLE | PRIORITY, &[&[0, 0, 0, 3, 9][..], GET].concat())],
        "request1.",
    );
    table.frames(
        "§6.2",
        "HEADERS with both",
        &[headers(1, WHOLE | PADDED | PRIORITY, &[&[1, 0x80, 0, 0, 0, 9][..], GET, &[0]].concat())],
        "request1.",
    );
    table.frames(
        "§6.2",
        "more padding than there is",
        &[headers(1, WHOLE | PADDED, &[&[200][..], GET].concat())],
        "goaway:protocol_error",
    );
    table.frames(
        "RFC 7540 §5.3.1",
        "HEADERS that depend on themselves",
        &[headers(1, WHOLE | PRIORITY, &[&[0, 0, 0, 1, 9][..], GET].concat()), get(3)],
        "rst1:protocol_error request3.",
    );
    table.frames(
        "RFC 7540 §5.3.1",
        "PRIORITY that depends on itself",
        &[get(1), raw(2, 0, 1, &[0, 0, 0, 1, 9])],
        "request1. rst1:protocol_error",
    );
    table.frames(
        "RFC 7540 §5.3.1",
        "PRIORITY of an idle stream that does",
        &[raw(2, 0, 1, &[0, 0, 0, 1, 9])],
        "goaway:protocol_error",
    );
}

fn tables(table: &mut Table) {
    for (bytes, name) in [
        (&[0x80][..], "index 0"),
        (&[0xbe], "an index of nothing"),
        (&[0x82, 0x20], "a size behind a field"),
        (&[0x41, 5], "a string that is cut"),
    ] {
        table.frames("§4.3", &format!("{name} in a block"), &[headers(1, WHOLE, bytes)], "goaway:compression_error");
        table.frames(
            "§4.3",
            &format!("{name} in trailers"),
            &[post(1), headers(1, WHOLE, bytes)],
            "request1 goaway:compression_error",
        );
    }
    // what a refused stream has added to the table is there for the next one
    let adds = [GET, b"\x40\x01x\x01y"].concat();
    let refers = [GET, b"\xbe"].concat();
    let broken = [GET, b"\x40\x01x\x01y", &field("X", "z")].concat();
    table.frames(
        "§4.3",
        "an index of what was added",
        &[headers(1, WHOLE, &adds), headers(3, WHOLE, &refers)],
        "request1. request3.",
    );
    table.frames(
        "§4.3",
        "an index of what a malformed head added",
        &[headers(1, WHOLE, &broken), headers(3, WHOLE, &refers)],
        "rst1:protocol_error request3.",
    );
    let late = [get(1), get(3), get(5), get(7), headers(9, WHOLE, &adds), reset(7, 8), headers(11, WHOLE, &refers)];
    table.frames(
        "§4.3",
        "an index of what a refused stream added",
        &late,
        "request1. request3. request5. request7. rst9:refused_stream reset7:cancel rst11:refused_stream",
    );
}

fn controls(table: &mut Table) {
    table.frames("§6.7", "PING is answered", &[ping(0)], "ponged");
    table.frames("§6.7", "an answer is not", &[ping(1)], "pong");
    table.frames("§6.7", "unknown flags", &[ping(ALL & !1)], "ponged");
    table.frames("§6.8", "GOAWAY", &[get(1), raw(7, 0, 0, &[0; 8]), ping(0)], "request1. leaves:no_error ponged");
    table.frames("§6.8", "GOAWAY with a code", &[raw(7, 0, 0, b"\0\0\0\0\0\0\0\x02why")], "leaves:internal_error");
    table.frames("§6.5.2", "a larger initial window", &[settings(&[(4, 70_000)])], "room");
    table.frames("§6.5.2", "a smaller one", &[settings(&[(4, 10)])], "");
    table.frames("§6.5.2", "the largest", &[settings(&[(4, 0x7fff_ffff)])], "room");
    table.frames("§6.5.2", "one that is too large", &[settings(&[(4, 0x8000_0000)])], "goaway:flow_control_error");
    for (value, wanted) in [
        (16_384, ""),
        (16_777_215, ""),
        (16_383, "goaway:protocol_error"),
        (16_777_216, "goaway:protocol_error"),
        (0, "goaway:protocol_error"),
    ] {
        table.frames("§6.5.2", &format!("a largest frame of {value}"), &[settings(&[(5, value)])], wanted);
    }
    for (value, wanted) in [(0, ""), (1, ""), (2, "goaway:protocol_error")] {
        table.frames("§6.5.2", &format!("pushes: {value}"), &[settings(&[(2, value)])], wanted);
    }
    for id in [0, 1, 3, 6, 7, 0xffff] {
        table.frames("§6.5.2", &format!("setting {id} of any value"), &[settings(&[(id, u32::MAX)])], "");
    }
    table.frames("§6.5.3", "the last of a setting that is there twice counts", &[settings(&[(4, 1), (4, 65_535)])], "");
    table.frames("§6.5", "an acknowledgement", &[raw(4, 1, 0, b"")], "");
    table.frames("§6.9", "more room on the connection", &[window(0, 1)], "room");
    table.frames("§6.9", "no more room on the connection", &[window(0, 0)], "goaway:protocol_error");
    table.frames("§6.9", "no more room on a stream", &[get(1), window(1, 0)], "request1. rst1:protocol_error");
    table.frames("§6.9.1", "the connection's window at its largest", &[window(0, 0x7fff_ffff - 65_535)], "room");
    table.frames("§6.9.1", "the connection's window above it", &[window(0, 0x7fff_ffff)], "goaway:flow_control_error");
    table.frames(
        "§6.9.1",
        "a stream's window at its largest",
        &[get(1), window(1, 0x7fff_ffff - 65_535)],
        "request1. room1",
    );
    table.frames(
        "§6.9.1",
        "a stream's window above it",
        &[get(1), window(1, 0x7fff_ffff)],
        "request1. rst1:flow_control_error",
    );
    table.frames(
        "§6.9.2",
        "a stream's window above it by settings",
        &[get(1), window(1, 0x7fff_ffff - 65_535), settings(&[(4, 65_536)])],
        "request1. room1 goaway:flow_control_error",
    );
    table.frames("§6.9", "the bit that is reserved", &[get(1), window(1, 0x8000_0001)], "request1. room1");
    for (kind, len) in [(10, 0), (10, 5), (0x16, 100), (0xff, 40)] {
        table.frames(
            "§5.5",
            &format!("an unknown frame {kind:#x} of {len} bytes"),
            &[raw(kind, ALL, 3, &vec![7; len]), get(1)],
            "request1.",
        );
    }
    table.frames("§4.1", "flags that have no meaning", &[headers(1, WHOLE | 0xd2, GET)], "request1.");
}

fn pseudo_fields(table: &mut Table) {
    let get = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let bad = "rst1:protocol_error";
    table.head("§8.3.1", "all four", &get, "request1.");
    let reversed: Vec<_> = get.into_iter().rev().collect();
    table.head("§8.3.1", "in another order", &reversed, "request1.");
    for missing in 0..3 {
        let mut fields = get.to_vec();
        let (name, _) = fields.remove(missing);
        table.head("§8.3.1", &format!("without {name}"), &fields, bad);
    }
    table.head("§8.3.1", "without :authority", &get[..3], "request1.");
    for (name, value) in get {
        table.head("§8.3", &format!("{name} twice"), &[&get[..], &[(name, value)]].concat(), bad);
        let behind: Vec<_> =
            get.into_iter().filter(|(other, _)| *other != name).chain([("a", "b"), (name, value)]).collect();
        table.head("§8.3", &format!("{name} behind a field"), &behind, bad);
    }
    for (name, value) in [
        (":status", "200"),
        (":protocol", "websocket"),
        (":host", "a"),
        (":", "a"),
        (":Path", "/"),
        (":method ", "GET"),
    ] {
        table.head("§8.3", &format!("{name:?} in a request"), &[&get[..], &[(name, value)]].concat(), bad);
    }
    table.head("§8.3.1", "an empty path", &[get[0], get[1], (":path", ""), get[3]], bad);
    table.head("§8.3.1", "no field at all", &[], bad);
    table.head("§8.5", "CONNECT", &[(":method", "CONNECT"), (":authority", "a:1")], "request1.");
    table.head("§8.5", "CONNECT with a path", &[(":method", "CONNECT"), get[1], get[2], get[3]], bad);
    table.head("§8.5", "CONNECT without :authority", &[(":method", "CONNECT")], bad);
    let connect = [(":method", "CONNECT"), (":protocol", "websocket"), get[1], get[2], get[3]];
    table.head("§8.5", "an extended CONNECT (RFC 8441 §4)", &connect, "request1.");
    for missing in 2..5 {
        let mut fields = connect.to_vec();
        let (name, _) = fields.remove(missing);
        table.head("§8.5", &format!("an extended CONNECT without {name}"), &fields, bad);
    }
    table.head("§8.5", ":protocol twice", &[&connect[..], &[connect[1]]].concat(), bad);
    for value in ["/ ", " /", "/\r\n", "/\0", "/a\nb", "\t/"] {
        table.head("§8.2.1", &format!("the path {value:?}"), &[get[0], get[1], (":path", value), get[3]], bad);
    }
    for value in ["a ", "a\r\nx: y", "\0"] {
        table.head(
            "§8.2.1",
            &format!("the authority {value:?}"),
            &[get[0], get[1], get[2], (":authority", value)],
            bad,
        );
    }
}

fn fields(table: &mut Table) {
    let bad = "rst1:protocol_error";
    for name in ["A", "aB", "a b", "", " a", "a ", "a:", "a\0", "a\r\nb", "\u{e9}", "a\"", "(a)", "a,b", "\u{7f}"] {
        table.fields("§8.2.1", &format!("the name {name:?}"), &[(name, "x")], bad);
    }
    for name in ["a", "a-b", "a_b", "a.b", "1", "!#$%&'*+-.^_`|~"] {
        table.fields("§8.2.1", &format!("the name {name:?}"), &[(name, "x")], "request1.");
    }
    for value in [" x", "x ", "\tx", "x\t", " ", "x\ry", "x\ny", "x\0y", "x\r\ny: z", "\u{1}", "\u{7f}"] {
        table.fields("§8.2.1", &format!("the value {value:?}"), &[("a", value)], bad);
    }
    for value in ["", "x y", "x\ty", "\u{e9}", ":", "\"\\"] {
        table.fields("§8.2.1", &format!("the value {value:?}"), &[("a", value)], "request1.");
    }
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x"),
        ("keep-alive", "timeout=1"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
    ] {
        table.fields("§8.2.2", &format!("{name}: {value}"), &[(name, value)], bad);
    }
    for (value, wanted) in
        [("trailers", "request1."), ("Trailers", "request1."), ("gzip", bad), ("trailers, gzip", bad), ("", bad)]
    {
        table.fields("§8.2.2", &format!("te: {value:?}"), &[("te", value)], wanted);
    }
    table.fields("§8.2.3", "crumbs of cookies", &[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")], "request1.");
}

fn bounds(table: &mut Table) {
    let many = |count: usize| vec![("a", "b"); count];
    table.fields("§10.5.1", "twenty fields", &many(20), "request1.");
    table.fields("§10.5.1", "twenty-one", &many(21), "request1(TooLarge).");
    table.fields("§10.5.1", "twenty-one crumbs", &vec![("cookie", "a=b"); 21], "request1(TooLarge).");
    let long = "v".repeat(126);
    let count = (4_096_usize - 170).div_ceil(126 + 32 + 1);
    let fields = vec![("a", long.as_str()); 20];
    table.fields("§6.5.2", "as many bytes as are taken", &fields, "request1.");
    assert!(count > 20, "fields run out before bytes do");
    // each of these bytes is a field of half a kilobyte
    let teaches = [GET, b"\x40\x01x\x7f\x81\x03", &[b'v'; 512][..]].concat();
    let repeats = [GET, &[0xbe; 2_000][..]].concat();
    table.frames(
        "§10.5.1",
        "a bomb of one-byte indices",
        &[headers(1, WHOLE, &teaches), headers(3, WHOLE, &repeats), get(5)],
        "request1. request3(TooLarge). request5.",
    );
    table.frames(
        "§10.5.1",
        "too large, and malformed behind that",
        &[headers(1, WHOLE, &[GET, &[0xbe - 0x2e; 30][..], &field("X", "y")].concat())],
        "rst1:protocol_error",
    );
}
