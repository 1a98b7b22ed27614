//! Bodies: the chunked coding above all, on every split of its bytes.

use ringgate::http::body::{
    Body, BodyError, CHUNK_HEADROOM, CHUNK_TAILROOM, Decoded, LAST_CHUNK, frame_chunk, push_chunk_size, push_last_chunk,
};
use ringgate::http::framing::Framing;
use ringgate::http::trailers::Trailers;

/// Payload, trailer lines and bytes consumed; `None` when the body did not end.
type Outcome = Result<Option<(Vec<u8>, Vec<u8>, usize)>, BodyError>;

/// What comes out when `bytes` arrive in pieces that end at `ends`.
fn decode(framing: Framing, bytes: &[u8], ends: &[usize]) -> Outcome {
    let mut body = Body::new(framing, u64::MAX);
    let (mut payload, mut trailers, mut start) = (Vec::new(), Trailers::default(), 0);
    for &end in ends {
        let mut block = bytes[start..end].to_vec();
        let decoded = body.decode(&mut block, 0..end - start, &mut trailers)?;
        payload.extend_from_slice(&block[decoded.payload]);
        if decoded.done {
            assert!(body.is_done());
            return Ok(Some((payload, trailers.lines().to_vec(), start + decoded.consumed)));
        }
        assert_eq!(decoded.consumed, end - start, "all is consumed before the end");
        start = end;
    }
    Ok(None)
}

fn every_way(bytes: &[u8]) -> Outcome {
    let whole = decode(Framing::Chunked, bytes, &[bytes.len()]);
    for split in 1..bytes.len() {
        let parts = decode(Framing::Chunked, bytes, &[split, bytes.len()]);
        assert_eq!(parts, whole, "split at {split}: {}", bytes.escape_ascii());
    }
    let ends: Vec<usize> = (1..=bytes.len()).collect();
    assert_eq!(decode(Framing::Chunked, bytes, &ends), whole, "one byte at a time: {}", bytes.escape_ascii());
    whole
}

/// What it shows, bytes, payload, trailers, number of bytes that follow.
type Case = (&'static str, &'static [u8], &'static [u8], &'static [u8], usize);

const TAKEN: &[Case] = &[
    ("no payload", b"0\r\n\r\n", b"", b"", 0),
    ("one chunk", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"", 0),
    ("many chunks", b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n", b"abcdef", b"", 0),
    ("digits in both cases", b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", b"", 0),
    ("leading zeros (9112 7.1: 1*HEXDIG)", b"0005\r\nhello\r\n0000\r\n\r\n", b"hello", b"", 0),
    ("many leading zeros", b"00000000000000000000000005\r\nhello\r\n00000000000000000000\r\n\r\n", b"hello", b"", 0),
    ("the next request stays", b"1\r\na\r\n0\r\n\r\nGET /", b"a", b"", 5),
    ("payload that looks like framing", b"7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n\r\n", b"", 0),
    ("an extension (9112 7.1.1)", b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x", b"", 0),
    ("extensions with blanks and quotes", b"1 ; a = \"b;\\\"c\" ;d\r\nx\r\n0\r\n\r\n", b"x", b"", 0),
    ("trailers that go on (9110 6.5)", b"0\r\ngrpc-status: 0\r\nX-Sum:1\t\r\n\r\n", b"", b"grpc-status: 0\r\nX-Sum: 1\r\n", 0),
    (
        "trailers that must not (9110 6.5.1)",
        b"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: c\r\nSet-Cookie: d\r\n\
          Content-Type: e\r\nX-Forwarded-For: f\r\nConnection: g\r\nX_Y: h\r\nIf-Match: i\r\nCache-Control: j\r\nX-Z: k\r\n\r\n",
        b"",
        b"X-Z: k\r\n",
        0,
    ),
];

#[test]
fn chunked_bodies_are_decoded_however_they_arrive() {
    for (reason, bytes, payload, trailers, after) in TAKEN {
        let decoded = every_way(bytes).unwrap_or_else(|e| panic!("{reason}: {e:?}"));
        assert_eq!(decoded, Some((payload.to_vec(), trailers.to_vec(), bytes.len() - after)), "{reason}");
    }
}

const REFUSED: &[(&str, &[u8])] = &[
    ("no size (9112 7.1)", b"\r\nhello\r\n0\r\n\r\n"),
    ("an extension without a size", b";a\r\n\r\n"),
    ("a sign", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("a minus", b"-1\r\n\r\n"),
    ("a prefix", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("a blank before the size", b" 5\r\nhello\r\n0\r\n\r\n"),
    ("a blank behind the size", b"5 \r\nhello\r\n0\r\n\r\n"),
    ("a blank inside the size", b"1 0\r\n"),
    ("an underscore", b"1_0\r\n"),
    ("no hexadecimal", b"g\r\n"),
    ("a size beyond 63 bits", b"8000000000000000\r\n"),
    ("a size beyond 64 bits", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("seventeen digits that count", b"10000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("bare LF behind the size (9112 2.2)", b"5\nhello\r\n0\r\n\r\n"),
    ("bare CR behind the size", b"5\rhello\r\n0\r\n\r\n"),
    ("CR CR LF behind the size", b"5\r\r\nhello\r\n0\r\n\r\n"),
    ("payload longer than its size", b"4\r\nhello\r\n0\r\n\r\n"),
    ("payload shorter than its size", b"6\r\nhello\r\n0\r\n\r\n"),
    ("no CRLF behind the payload", b"5\r\nhello0\r\n\r\n"),
    ("bare LF behind the payload", b"5\r\nhello\n0\r\n\r\n"),
    ("bare CR behind the payload", b"5\r\nhello\r0\r\n\r\n"),
    ("bare LF behind the last chunk", b"0\n\n"),
    ("bare LF as the empty line", b"0\r\n\n"),
    ("bare LF inside an extension (TERM.EXT)", b"1;a\nb\r\nx\r\n0\r\n\r\n"),
    ("bare CR inside an extension", b"1;a\rb\r\nx\r\n0\r\n\r\n"),
    ("an extension without a name", b"1;\r\nx\r\n0\r\n\r\n"),
    ("a control byte in an extension", b"1;a=\x00\r\nx\r\n0\r\n\r\n"),
    ("a separator in an extension", b"1;a@b\r\nx\r\n0\r\n\r\n"),
    ("an open quote in an extension", b"1;a=\"b\r\nx\r\n0\r\n\r\n"),
    ("a trailer without a colon (9112 5)", b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    ("a trailer with a blank before its colon", b"0\r\nX : y\r\n\r\n"),
    ("a folded trailer", b"0\r\nX: y\r\n z\r\n\r\n"),
    ("a trailer without a name", b"0\r\n: y\r\n\r\n"),
    ("bare LF behind a trailer", b"0\r\nX: y\n\r\n"),
    ("bare CR in a trailer", b"0\r\nX: y\rz\r\n\r\n"),
    ("NUL in a trailer", b"0\r\nX: \x00\r\n\r\n"),
];

#[test]
fn chunked_bodies_that_could_be_read_in_two_ways_are_refused_however_they_arrive() {
    for (reason, bytes) in REFUSED {
        assert_eq!(every_way(bytes), Err(BodyError::Malformed), "{reason}");
    }
}

#[test]
fn chunk_lines_extensions_and_trailers_are_bounded() {
    let line = |bytes: usize| [b"1;".to_vec(), vec![b'a'; bytes - 3], b"\r\nx\r\n0\r\n\r\n".to_vec()].concat();
    assert!(every_way(&line(256)).is_ok());
    assert_eq!(every_way(&line(257)), Err(BodyError::Malformed));
    let chunks = |count: usize| {
        [[b"1;".to_vec(), vec![b'a'; 200], b"\r\nx\r\n".to_vec()].concat().repeat(count), b"0\r\n\r\n".to_vec()]
            .concat()
    };
    let whole = |bytes: &[u8]| decode(Framing::Chunked, bytes, &[bytes.len()]).map(|found| found.is_some());
    assert_eq!(whole(&chunks(80)), Ok(true), "201 bytes a chunk, 1 paid for by its payload: 16,000");
    assert_eq!(whole(&chunks(83)), Err(BodyError::Malformed), "above 16 KiB");
    let signed = [b"400;chunk-signature=0123456789\r\n".to_vec(), vec![b'x'; 1024], b"\r\n".to_vec()].concat();
    assert_eq!(whole(&[signed.repeat(2_000), LAST_CHUNK.to_vec()].concat()), Ok(true), "payload pays for extensions");
    let zeros = |count: usize| [vec![b'0'; count], b"1\r\nx\r\n0\r\n\r\n".to_vec()].concat();
    assert_eq!(whole(&zeros(16 << 10)), Ok(true), "nor does their number matter");
    assert_eq!(whole(&zeros((16 << 10) + 2)), Err(BodyError::Malformed), "but that they are nothing but zeros does");
    assert_eq!(whole(&[b'0'; 40 << 10]), Err(BodyError::Malformed), "also without an end");
    let trailer = |bytes: usize| [b"0\r\nX: ".to_vec(), vec![b'y'; bytes - 7], b"\r\n\r\n".to_vec()].concat();
    assert_eq!(whole(&trailer(8192)), Ok(true));
    assert_eq!(whole(&trailer(8193)), Err(BodyError::Malformed));
}

#[test]
fn payload_beyond_the_limit_is_refused_before_it_arrives() {
    let mut trailers = Trailers::default();
    let mut at_limit = Body::new(Framing::Chunked, 5);
    let mut block = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec();
    let filled = 0..block.len();
    assert!(at_limit.decode(&mut block, filled, &mut trailers).unwrap().done);
    let mut above = Body::new(Framing::Chunked, 5);
    let mut block = b"3\r\nabc\r\n3\r\n".to_vec();
    let filled = 0..block.len();
    assert_eq!(above.decode(&mut block, filled, &mut trailers), Err(BodyError::TooLarge));
    assert!(Framing::Fixed(6).exceeds(5) && !Framing::Fixed(5).exceeds(5) && !Framing::Chunked.exceeds(0));
    let mut until_close = Body::new(Framing::UntilClose, 5);
    assert!(until_close.decode(&mut [0; 5], 0..5, &mut trailers).is_ok());
    assert_eq!(until_close.decode(&mut [0; 1], 0..1, &mut trailers), Err(BodyError::TooLarge));
}

#[test]
fn lengths_are_counted_and_what_follows_is_left() {
    let mut body = Body::new(Framing::Fixed(5), u64::MAX);
    let mut block = *b"..helloGET /";
    let mut trailers = Trailers::default();
    let decoded = body.decode(&mut block, 2..4, &mut trailers).unwrap();
    assert_eq!(decoded, Decoded { payload: 2..4, consumed: 4, done: false });
    assert_eq!((body.left(), body.on_eof()), (Some(3), Err(BodyError::Truncated)));
    let decoded = body.decode(&mut block, 4..12, &mut trailers).unwrap();
    assert_eq!(decoded, Decoded { payload: 4..7, consumed: 7, done: true });
    assert_eq!((body.left(), body.on_eof()), (Some(0), Ok(())));
    assert!(Body::new(Framing::None, 0).is_done() && Body::new(Framing::Fixed(0), 0).is_done());
}

#[test]
fn the_end_of_the_stream_ends_only_bodies_that_have_no_other_end() {
    let mut trailers = Trailers::default();
    for (bytes, expected) in [
        (&b"5\r\nhello\r\n0\r\n"[..], Err(BodyError::Truncated)),
        (b"", Err(BodyError::Truncated)),
        (LAST_CHUNK, Ok(())),
    ] {
        let mut body = Body::new(Framing::Chunked, u64::MAX);
        body.decode(&mut bytes.to_vec(), 0..bytes.len(), &mut trailers).unwrap();
        assert_eq!(body.on_eof(), expected);
    }
    assert_eq!(Body::new(Framing::UntilClose, u64::MAX).on_eof(), Ok(()));
    assert!(!Body::new(Framing::UntilClose, u64::MAX).is_done());
}

#[test]
fn a_block_of_chunks_goes_out_as_one() {
    let wire = b"1\r\na\r\n2;x\r\nbc\r\n0\r\n\r\nNEXT";
    let mut block = vec![b'.'; CHUNK_HEADROOM];
    block.extend_from_slice(wire);
    let (filled, mut trailers) = (CHUNK_HEADROOM..block.len(), Trailers::default());
    let decoded = Body::new(Framing::Chunked, u64::MAX).decode(&mut block, filled, &mut trailers).unwrap();
    assert!(decoded.done);
    let chunk = frame_chunk(&mut block, decoded.payload, true).unwrap();
    assert_eq!(&block[chunk.clone()], b"3\r\nabc\r\n0\r\n\r\n");
    assert!(chunk.end <= decoded.consumed, "the next message is untouched");
    assert_eq!(&block[decoded.consumed..], b"NEXT");
}

#[test]
fn chunks_are_framed_in_place_when_there_is_room() {
    for bytes in [1_usize, 15, 16, 255, 256, 4_095, 65_536] {
        let mut block = vec![b'x'; CHUNK_HEADROOM + bytes + CHUNK_TAILROOM];
        let payload = CHUNK_HEADROOM..CHUNK_HEADROOM + bytes;
        let chunk = frame_chunk(&mut block, payload.clone(), false).unwrap();
        let mut written = Vec::new();
        push_chunk_size(&mut written, bytes as u64);
        assert_eq!(written, format!("{bytes:x}\r\n").into_bytes());
        written.extend(std::iter::repeat_n(b'x', bytes));
        written.extend_from_slice(b"\r\n");
        assert_eq!(block[chunk], written);
        let with_last = frame_chunk(&mut block, payload, true).unwrap();
        assert_eq!(block[with_last], [&written, LAST_CHUNK].concat());
    }
    let mut block = vec![b'x'; 32];
    assert_eq!(frame_chunk(&mut block, 2..18, false), None, "three bytes before the payload are too few for 10 CRLF");
    assert_eq!(frame_chunk(&mut block, 10..31, false), None, "no room for CRLF");
    assert_eq!(frame_chunk(&mut block, 10..29, true), None, "no room for the last chunk");
    assert_eq!(frame_chunk(&mut block, 7..7, false), Some(7..7), "an empty chunk would end the body");
    assert_eq!(frame_chunk(&mut block, 7..7, true), Some(7..12));
    assert_eq!(&block[7..12], LAST_CHUNK);
}

#[test]
fn the_end_carries_the_trailers() {
    let mut out = Vec::new();
    push_last_chunk(&mut out, b"");
    assert_eq!(out, LAST_CHUNK);
    out.clear();
    push_last_chunk(&mut out, b"grpc-status: 0\r\n");
    assert_eq!(every_way(&out).unwrap().unwrap().1, b"grpc-status: 0\r\n");
}
