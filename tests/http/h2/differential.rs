//! Beside the `h2` crate, as a client, and another decoder of HPACK: what they say is what we hear.

use super::support::OWN;
use h2::client;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use ringgate::config::{HeaderRules, ServerField};
use ringgate::http::encode::DownstreamResponse;
use ringgate::http::fields::HeadScratch;
use ringgate::http::h2::connection::{Connection, Event};
use ringgate::http::h2::decoder::Decoder;
use ringgate::http::h2::respond;
use ringgate::http::h2::section::{Bounds, Role, Section};
use ringgate::http::h2::settings::OwnSettings;
use ringgate::http::response::ResponseHead;
use ringgate::http::{Parsed, Version, date};
use ringgate::units::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// One exchange as both ends see it: fields and a body up, the same fields and body down, trailers behind both.
#[derive(Clone, Debug)]
struct Exchange {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    // few names, so that tables are used; values of all kinds, sensitive ones among them
    let name = prop_oneof!["x-[a-d]", "accept", "user-agent", "x-[a-z0-9-]{1,40}"];
    let value = "([!-~]([ -~]{0,60}[!-~])?)?";
    proptest::collection::vec((name, value), 0..12)
}

fn exchange() -> impl Strategy<Value = Exchange> {
    (fields(), proptest::collection::vec(any::<u8>(), 0..40_000), fields())
        .prop_map(|(fields, body, trailers)| Exchange { fields, body, trailers })
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let mut value = HeaderValue::from_str(value).unwrap();
        value.set_sensitive(name.ends_with('a'));
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    map
}

/// In the order of their names, which is what a map keeps.
fn sorted(map: &HeaderMap) -> Vec<(String, String)> {
    let mut all: Vec<_> =
        map.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// A request's place, the head of its response, its body, and its trailers.
type Echoed = (usize, Vec<u8>, Vec<u8>, Vec<u8>);

/// Answers every request with what it brought, until the client leaves.
async fn echo(mut socket: DuplexStream, pieces: usize) {
    let own = OwnSettings { streams_max: 100, head_bytes_max: 64 << 10, fields_max: 100, ..OWN };
    let mut connection = Connection::new(own, Instant::from_nanos(0));
    let (mut section, mut inbox, mut out) = (Section::default(), Vec::new(), Vec::new());
    let mut requests: Vec<Echoed> = Vec::new();
    loop {
        loop {
            let fed = connection.feed(&inbox, &mut section, Instant::from_nanos(0)).expect("a good client");
            let (mut ended, mut taken) = (None, None);
            match fed.event {
                Some(Event::Request { place, ended: all }) => {
                    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
                    let lines = section.lines();
                    let regular = lines.windows(3).position(|w| w[0] == b'\n' && w[2] != b':' && w[1] != b':');
                    head.extend_from_slice(regular.map_or(&[], |at| &lines[at + 1..]));
                    requests.push((place, head, Vec::new(), Vec::new()));
                    ended = all.then_some(place);
                }
                Some(Event::Data { place, payload, ended: all }) => {
                    requests.iter_mut().find(|request| request.0 == place).unwrap().2.extend_from_slice(payload);
                    taken = Some((place, payload.len()));
                    ended = all.then_some(place);
                }
                Some(Event::Trailers { place }) => {
                    requests.iter_mut().find(|request| request.0 == place).unwrap().3 = section.lines().to_vec();
                    ended = Some(place);
                }
                Some(Event::Reset { .. }) => panic!("nobody resets"),
                None if fed.consumed == 0 => break,
                _ => {}
            }
            if let Some((place, bytes)) = taken {
                connection.on_taken(place, bytes, true);
            }
            inbox.drain(..fed.consumed);
            if let Some(place) = ended {
                let at = requests.iter().position(|request| request.0 == place).unwrap();
                answer(&mut connection, requests.remove(at), &mut out);
            }
        }
        socket.write_all(connection.control()).await.unwrap();
        connection.control_sent();
        socket.write_all(&std::mem::take(&mut out)).await.unwrap();
        let mut piece = vec![0; pieces];
        match socket.read(&mut piece).await {
            Ok(count @ 1..) => inbox.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
}

fn answer(connection: &mut Connection, request: Echoed, out: &mut Vec<u8>) {
    let (place, mut head, body, trailers) = request;
    head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    let mut scratch = HeadScratch::default();
    let Ok(Parsed::Complete(parsed)) = ResponseHead::parse(&head, &http::Method::POST, &mut scratch) else {
        panic!("not a head: {}", head.escape_ascii())
    };
    let mut block = Vec::new();
    let response = DownstreamResponse {
        is_recoded: false,
        head: &parsed,
        version: Version::Http2,
        close: false,
        rules: &HeaderRules::default(),
        server: &ServerField::Remove,
        lines: b"X-Extra: 1\r\n",
        date: &date::format(0),
    };
    respond::response(&mut block, &response);
    connection.push_headers(out, place, &block[9..], false);
    // windows are those of a client that was told to have large ones
    for piece in body.chunks(16_384) {
        assert!(connection.room(place) >= piece.len());
        connection.push_data_head(out, place, piece.len(), false);
        out.extend_from_slice(piece);
    }
    block.clear();
    respond::trailers(&mut block, &trailers);
    connection.push_headers(out, place, &block[9..], true);
    connection.release(place);
}

async fn talk(exchanges: Vec<Exchange>, pieces: usize) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(echo(ours, pieces));
    let mut builder = client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (mut sender, connection) = builder.handshake::<_, bytes::Bytes>(theirs).await.unwrap();
    let driver = tokio::spawn(connection);
    for wanted in exchanges {
        let mut request = Request::post("https://a.example/b?c");
        *request.headers_mut().unwrap() = map(&wanted.fields);
        sender = sender.ready().await.unwrap();
        let (response, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(wanted.body.clone().into(), false).unwrap();
        body.send_trailers(map(&wanted.trailers)).unwrap();
        let response = response.await.unwrap();
        let mut got = response.headers().clone();
        for ours in ["date", "content-length", "x-extra"] {
            assert!(got.remove(ours).is_some(), "{ours}");
        }
        assert_eq!(sorted(&got), sorted(&map(&wanted.fields)));
        let (mut stream, mut received) = (response.into_body(), Vec::new());
        while let Some(piece) = stream.data().await {
            received.extend_from_slice(&piece.unwrap());
        }
        assert!(received == wanted.body);
        let trailers = stream.trailers().await.unwrap().unwrap_or_default();
        assert_eq!(sorted(&trailers), sorted(&map(&wanted.trailers)));
    }
    drop(sender);
    let _ = driver.await.unwrap();
    server.await.unwrap();
}

proptest! {
    #![proptest_config(Config { cases: 40, rng_seed: RngSeed::Fixed(17), ..Config::default() })]
    #[test]
    fn a_client_of_the_h2_crate_gets_back_what_it_sent(
        exchanges in proptest::collection::vec(exchange(), 1..8), pieces in 1_usize..20_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(talk(exchanges, pieces));
    }
}

const BOUNDS: Bounds = Bounds { bytes_max: usize::MAX, fields_max: 256 };

/// Names and values that a block stands for; `None` when it cannot be decoded.
fn ours(decoder: &mut Decoder, block: &[u8]) -> Option<Result<Vec<u8>, ()>> {
    let mut section = Section::default();
    section.clear(Role::Response);
    decoder.decode(block, &BOUNDS, &mut section).ok()?;
    Some(section.fault().map_or_else(|| Ok(section.lines().to_vec()), |_| Err(())))
}

fn theirs(decoder: &mut fluke_hpack::Decoder<'_>, block: &[u8]) -> Option<Vec<u8>> {
    let mut lines = Vec::new();
    for (name, value) in decoder.decode(block).ok()? {
        lines.extend_from_slice(&[&name, &b": "[..], &value, b"\r\n"].concat());
    }
    Some(lines)
}

proptest! {
    #![proptest_config(Config { cases: 2_000, rng_seed: RngSeed::Fixed(7541), ..Config::default() })]
    /// Blocks of another encoder, one behind the other over one table.
    #[test]
    fn another_encoder_is_understood(blocks in proptest::collection::vec(fields(), 1..10)) {
        let mut encoder = fluke_hpack::Encoder::new();
        let mut decoder = Decoder::default();
        for fields in blocks {
            let mut wanted = b":status: 200\r\n".to_vec();
            let mut all = vec![(&b":status"[..], &b"200"[..])];
            all.extend(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            for (name, value) in &fields {
                wanted.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            let block = encoder.encode(all);
            prop_assert_eq!(ours(&mut decoder, &block), Some(Ok(wanted)));
        }
    }

    /// Indices and literals of all kinds: whatever both take is the same, and what we take the other one takes. Not made up of any bytes,
    /// which the other one does not survive.
    #[test]
    fn another_decoder_reads_the_same(
        pieces in proptest::collection::vec(prop_oneof![
            (0x80_u8..0xc8).prop_map(|byte| vec![byte]),
            ("[a-z]{1,9}", "[!-~]{0,20}").prop_map(|(n, v)| [&[0x40, n.len() as u8], n.as_bytes(), &[v.len() as u8], v.as_bytes()].concat()),
            ("[a-z]{1,9}", "[!-~]{0,20}").prop_map(|(n, v)| [&[0x10, n.len() as u8], n.as_bytes(), &[v.len() as u8], v.as_bytes()].concat()),
        ], 0..30)
    ) {
        let block = [&[0x88][..], &pieces.concat()].concat();
        let (mut decoder, mut other) = (Decoder::default(), fluke_hpack::Decoder::new());
        let (ours, theirs) = (ours(&mut decoder, &block), theirs(&mut other, &block));
        if let (Some(Ok(ours)), Some(theirs)) = (&ours, &theirs) {
            prop_assert_eq!(ours, theirs);
        }
        prop_assert!(ours.is_none() || theirs.is_some(), "{:x?}", block);
    }
}
