//! Chunked bodies: one answer however they arrive, never above the limit, and what is encoded anew means the same.

use crate::feed::ways;
use crate::milo::{self, Side};
use crate::{Knobs, is_field_value, is_token};
use ringgate::http::body::{Body, BodyError, CHUNK_HEADROOM, frame_piece, push_piece};
use ringgate::http::framing::Framing;
use ringgate::http::trailers::Trailers;
use ringgate::limits;

/// What came of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    payload: Vec<u8>,
    trailers: Vec<u8>,
    consumed: usize,
    done: bool,
    /// As it goes up, appended piece by piece …
    up: Vec<u8>,
    /// … and as it goes down, framed in place.
    down: Vec<u8>,
}

/// Knobs: 0–5 the limit of payload bytes, 63: none.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    let bytes_max = match knobs.number(0, 6) {
        63 => u64::MAX,
        small => small as u64,
    };
    let whole = decode(bytes, &[bytes.len()], bytes_max);
    for ends in ways(bytes) {
        let pieces = decode(bytes, &ends, bytes_max);
        assert_eq!(pieces.as_ref().map(meaning), whole.as_ref().map(meaning), "in pieces {ends:?}");
        if let Ok(outcome) = pieces.as_ref() {
            check_encoded(outcome);
        }
    }
    let Ok(outcome) = whole else { return };
    assert!(outcome.payload.len() as u64 <= bytes_max && outcome.trailers.len() <= limits::TRAILER_BYTES_MAX * 2);
    check_encoded(&outcome);
    if outcome.done {
        check_second_opinion(&bytes[..outcome.consumed], &outcome);
    }
}

fn meaning(outcome: &Outcome) -> (&[u8], &[u8], usize, bool) {
    (&outcome.payload, &outcome.trailers, outcome.consumed, outcome.done)
}

/// What comes out when `bytes` arrive in pieces that end at `ends`.
fn decode(bytes: &[u8], ends: &[usize], bytes_max: u64) -> Result<Outcome, BodyError> {
    let mut body = Body::new(Framing::Chunked, bytes_max);
    let (mut trailers, mut outcome) = (Trailers::default(), Outcome::default());
    for &end in ends {
        let piece = &bytes[outcome.consumed..end];
        let mut block = vec![b'.'; CHUNK_HEADROOM];
        block.extend_from_slice(piece);
        let filled = CHUNK_HEADROOM..block.len();
        let decoded = body.decode(&mut block, filled.clone(), &mut trailers)?;
        assert!(filled.contains(&decoded.payload.start) || decoded.payload.is_empty());
        assert!(decoded.payload.end <= decoded.consumed && decoded.consumed <= filled.end, "{decoded:?} of {filled:?}");
        assert_eq!(decoded.done, body.is_done());
        assert_eq!(
            block[decoded.consumed..],
            bytes[outcome.consumed + decoded.consumed - CHUNK_HEADROOM..end],
            "not ours"
        );
        let payload = &block[decoded.payload.clone()];
        outcome.payload.extend_from_slice(payload);
        let lines = decoded.done.then(|| trailers.lines());
        push_piece(&mut outcome.up, Framing::Chunked, payload, lines);
        let framed = frame_piece(&mut block, decoded.payload, lines).expect("a block with room before its payload");
        outcome.down.extend_from_slice(&block[framed]);
        outcome.consumed += decoded.consumed - CHUNK_HEADROOM;
        if decoded.done {
            outcome.done = true;
            break;
        }
        assert_eq!(outcome.consumed, end, "all is consumed before the end");
    }
    assert_eq!(body.on_eof().is_ok(), outcome.done);
    assert_eq!(body.left(), outcome.done.then_some(0));
    outcome.trailers = trailers.lines().to_vec();
    Ok(outcome)
}

/// Both encodings are the same bytes' meaning again, to the end or as far as the body came.
fn check_encoded(outcome: &Outcome) {
    for encoded in [&outcome.up, &outcome.down] {
        let mut block = encoded.clone();
        let mut trailers = Trailers::default();
        let filled = 0..block.len();
        let decoded = Body::new(Framing::Chunked, outcome.payload.len() as u64)
            .decode(&mut block, filled, &mut trailers)
            .unwrap_or_else(|error| panic!("{error:?}: {}", encoded.escape_ascii()));
        assert_eq!(block[decoded.payload], outcome.payload);
        assert_eq!((decoded.done, decoded.consumed), (outcome.done, encoded.len()), "an end where there was none");
        if outcome.done {
            assert_eq!(trailers.lines(), outcome.trailers, "trailers are cut down once");
            let message = read(encoded).unwrap_or_else(|error| panic!("{error:?}: {}", encoded.escape_ascii()));
            assert!(message.complete && message.body == outcome.payload);
            for (name, value) in &message.trailers {
                assert!(is_token(name) && is_field_value(value));
            }
        }
    }
}

/// What is taken, somebody else takes too, with the same meaning. He is stricter about chunk extensions, which never go on.
fn check_second_opinion(bytes: &[u8], outcome: &Outcome) {
    match read(bytes) {
        Ok(message) => {
            assert!(message.complete, "it goes on: {}", bytes.escape_ascii());
            assert_eq!(message.body, outcome.payload, "{}", bytes.escape_ascii());
        }
        Err(milo::Refusal(why)) => {
            // RFC 9112 §7.1.1: BWS may stand before the semicolon
            let has_blank =
                bytes.windows(2).any(|pair| matches!(pair, [b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F', b' ' | b'\t']));
            let is_extension = why.contains("extension") || (has_blank && why == "Invalid chunk length character");
            // RFC 9112 §7.1: any number of leading zeros
            let has_zeros =
                bytes.windows(2).any(|pair| matches!(pair, [b'0', b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F']));
            let is_long = why == "Invalid chunk length size" && (has_blank || has_zeros);
            assert!(is_extension || is_long, "{why}: {}", bytes.escape_ascii());
        }
    }
}

fn read(body: &[u8]) -> Result<milo::Message, milo::Refusal> {
    let head: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let message = milo::read(Side::Request, &[head, body].concat(), false)?;
    assert!(!message.complete || message.consumed == head.len() + body.len(), "it ends early: {}", body.escape_ascii());
    Ok(message)
}
