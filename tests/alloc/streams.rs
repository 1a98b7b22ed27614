//! A client of HTTP/2 that knows what to expect: plain literals, an index where it has taught one, and no Huffman code.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One kind of traffic on one connection.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    path: &'static str,
    body: &'static [u8],
    /// Streams that are open at once.
    pub(crate) at_once: usize,
}

pub(crate) const CASES: &[Case] = &[
    Case { name: "a stream at a time", path: "/small", body: b"", at_once: 1 },
    Case { name: "ten streams at once", path: "/small", body: b"", at_once: 10 },
    Case { name: "a hundred streams at once", path: "/small", body: b"", at_once: 100 },
    Case { name: "ten streams with bodies", path: "/small", body: b"hello, world", at_once: 10 },
    Case { name: "a chunked response on a stream", path: "/chunked", body: b"", at_once: 1 },
    Case { name: "a stream to a stream at a time", path: "/up", body: b"", at_once: 1 },
    Case { name: "ten streams to streams", path: "/up", body: b"", at_once: 10 },
    Case { name: "ten streams with bodies to streams", path: "/up", body: b"hello, world", at_once: 10 },
    Case { name: "the route's own response on a stream", path: "/own", body: b"", at_once: 10 },
];

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    next_id: u32,
    unread: Vec<u8>,
    out: Vec<u8>,
    has_taught: bool,
}

pub(crate) fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    assert!(text.len() < 127);
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // large windows, for streams and for the connection
        push_frame(&mut out, 4, 0, 0, &[&[0, 4][..], &(1_u32 << 30).to_be_bytes()].concat());
        push_frame(&mut out, 8, 0, 0, &(1_u32 << 30).to_be_bytes());
        push_frame(&mut out, 4, 1, 0, b"");
        Self { stream, next_id: 1, unread: Vec::new(), out, has_taught: false }
    }

    fn push_request(&mut self, case: &Case) {
        let mut block = vec![if case.body.is_empty() { 0x82 } else { 0x83 }, 0x86, 0x04];
        push_text(&mut block, case.path.as_bytes());
        if std::mem::replace(&mut self.has_taught, true) {
            // the newest is the user agent, the one before it the authority
            block.extend_from_slice(&[0xbf, 0xbe]);
        } else {
            block.push(0x41);
            push_text(&mut block, b"api.example.com");
            block.push(0x7a);
            push_text(&mut block, b"a client of streams");
        }
        let flags = 0x4 | u8::from(case.body.is_empty());
        push_frame(&mut self.out, 1, flags, self.next_id, &block);
        if !case.body.is_empty() {
            push_frame(&mut self.out, 0, 1, self.next_id, case.body);
        }
        self.next_id += 2;
    }

    /// Asks on so many streams at once, and reads until all of them have ended.
    pub(crate) fn exchange(&mut self, case: &Case) {
        (0..case.at_once).for_each(|_| self.push_request(case));
        self.stream.write_all(&self.out).expect("the gateway reads");
        self.out.clear();
        let mut ended = 0;
        while ended < case.at_once {
            while let [a, b, c, kind, flags, _, _, _, _, behind @ ..] = &self.unread[..] {
                let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if behind.len() < len {
                    break;
                }
                match kind {
                    0 | 1 => {
                        assert!(*kind == 0 || behind[0] == 0x88, "not 200: {:x?}", &behind[..len]);
                        ended += usize::from(flags & 1);
                    }
                    3 | 7 => panic!("the gateway resets: {:x?}", &behind[..len]),
                    _ => {}
                }
                self.unread.drain(..9 + len);
            }
            if ended < case.at_once {
                let mut piece = [0; 1 << 16];
                let count = self.stream.read(&mut piece).expect("an answer in time");
                assert!(count > 0, "the gateway closed");
                self.unread.extend_from_slice(&piece[..count]);
            }
        }
    }
}
