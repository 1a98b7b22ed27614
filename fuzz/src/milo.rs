//! A second opinion on what is one message: milo, read to the end.
//!
//! It was chosen because it shares nothing with httparse, is strict (no bare CR or LF, no folded lines, one framing), is kept by the
//! people of Node's llhttp and runs its test cases, and needs no C. llhttp itself has no bindings among the published crates.
//!
//! Where it refuses what the RFCs allow, [`Refusal`] says so, and the caller decides.

use milo_parser::{
    EVENT_ACTIVE_ON_DATA, EVENT_ACTIVE_ON_HEADER_NAME, EVENT_ACTIVE_ON_HEADER_VALUE, EVENT_ACTIVE_ON_MESSAGE_COMPLETE,
    EVENT_ACTIVE_ON_METHOD, EVENT_ACTIVE_ON_REASON, EVENT_ACTIVE_ON_TRAILER_NAME, EVENT_ACTIVE_ON_TRAILER_VALUE,
    EVENT_ACTIVE_ON_UPGRADE, EVENT_ACTIVE_ON_URL, EVENT_DATA, EVENT_END, EVENT_HEADER_NAME, EVENT_HEADER_VALUE,
    EVENT_MESSAGE_COMPLETE, EVENT_METHOD, EVENT_REASON, EVENT_TRAILER_NAME, EVENT_TRAILER_VALUE, EVENT_UPGRADE,
    EVENT_URL, Parser, STATE_ERROR,
};

/// Type, offset and length, the numbers in four bytes each.
const EVENT_BYTES: usize = 9;
/// The parser's buffer of events.
const EVENTS_BYTES: usize = 65_536;
/// Longer than every input.
const LINE_BYTES_MAX: usize = 1 << 20;

const WANTED: u64 = EVENT_ACTIVE_ON_METHOD
    | EVENT_ACTIVE_ON_URL
    | EVENT_ACTIVE_ON_REASON
    | EVENT_ACTIVE_ON_HEADER_NAME
    | EVENT_ACTIVE_ON_HEADER_VALUE
    | EVENT_ACTIVE_ON_DATA
    | EVENT_ACTIVE_ON_TRAILER_NAME
    | EVENT_ACTIVE_ON_TRAILER_VALUE
    | EVENT_ACTIVE_ON_UPGRADE
    | EVENT_ACTIVE_ON_MESSAGE_COMPLETE;

/// Which side's messages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A request.
    Request,
    /// A response; `bodiless`: to a HEAD.
    Response {
        /// The request was a HEAD.
        bodiless: bool,
    },
}

/// Why milo does not take the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// Name and value.
pub type Line = (Vec<u8>, Vec<u8>);

/// The first message of the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Of a request.
    pub method: Vec<u8>,
    /// Of a request, as it stands in the request line.
    pub target: Vec<u8>,
    /// Of a response.
    pub status: u32,
    /// Of a response.
    pub reason: Vec<u8>,
    /// The header section.
    pub headers: Vec<Line>,
    /// The payload.
    pub body: Vec<u8>,
    /// The trailer section.
    pub trailers: Vec<Line>,
    /// All of it is there.
    pub complete: bool,
    /// It is a 101, behind which there is no HTTP.
    pub switched: bool,
    /// Bytes that it took.
    pub consumed: usize,
}

impl Message {
    /// The values of all headers `name`, which is in lower case.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let is_wanted = |line: &&Line| line.0.eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(is_wanted).map(|(_, value)| value.as_slice()).collect()
    }
}

/// Reads one message from the front of `bytes`; `closed`: the sender has closed behind them.
///
/// # Errors
/// What milo says against them.
pub fn read(side: Side, bytes: &[u8], closed: bool) -> Result<Message, Refusal> {
    let mut parser = Parser::new();
    parser.autodetect = false;
    parser.is_request = side == Side::Request;
    parser.skip_body = side == Side::Response { bodiless: true };
    parser.max_start_line_length = LINE_BYTES_MAX;
    parser.max_header_length = LINE_BYTES_MAX;
    parser.active_events = WANTED;
    let mut message = Message::default();
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let consumed = parser.parse(rest.as_ptr(), rest.len());
        let ended = take_events(&parser, rest, &mut message);
        if let Some(ended) = ended {
            message.consumed = at + ended;
            break;
        }
        at += consumed;
        message.consumed = at;
        if parser.state == STATE_ERROR {
            return Err(Refusal(parser.error_description_str().to_owned()));
        }
        if consumed == 0 {
            break; // it waits for more
        }
    }
    message.status = parser.status;
    if closed && !message.complete && message.consumed == bytes.len() {
        parser.finish();
        message.complete = parser.state != STATE_ERROR;
    }
    Ok(message)
}

/// Adds what the last call found; where the message ended, if it did.
fn take_events(parser: &Parser, bytes: &[u8], message: &mut Message) -> Option<usize> {
    // SAFETY: the parser owns a buffer of this size, which it initialised, and does not touch it while it is borrowed here.
    let events = unsafe { std::slice::from_raw_parts(parser.events, EVENTS_BYTES) };
    for event in events.chunks_exact(EVENT_BYTES) {
        if event[0] == EVENT_END {
            return None;
        }
        let number = |at: usize| u32::from_le_bytes(event[at..at + 4].try_into().expect("four bytes")) as usize;
        let (start, len) = (number(1), number(5));
        let text = || bytes[start..start + len].to_vec();
        match event[0] {
            EVENT_METHOD => message.method = text(),
            EVENT_URL => message.target = text(),
            EVENT_REASON => message.reason = text(),
            EVENT_HEADER_NAME => message.headers.push((text(), Vec::new())),
            EVENT_HEADER_VALUE => message.headers.last_mut().expect("a name came first").1 = text(),
            EVENT_DATA => message.body.extend_from_slice(&bytes[start..start + len]),
            EVENT_TRAILER_NAME => message.trailers.push((text(), Vec::new())),
            EVENT_TRAILER_VALUE => message.trailers.last_mut().expect("a name came first").1 = text(),
            EVENT_UPGRADE | EVENT_MESSAGE_COMPLETE => {
                message.complete = true;
                message.switched = event[0] == EVENT_UPGRADE;
                return Some(start);
            }
            other => panic!("an event that was not asked for: {other}"),
        }
    }
    None
}
