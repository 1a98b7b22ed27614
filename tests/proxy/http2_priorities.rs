//! Clients that say what is urgent (RFC 9218): what waits for their windows is sent in that order.

use crate::support::{Driver, Gateway, Setup, Upstream, behind, on_both_drivers};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const BODY: usize = 1_000;

/// A client that opens its window by hand.
struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// `GET http://test/PATH` with a `priority`, if there is one.
fn asks(id: u32, path: &str, priority: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let mut block = [b"\x82\x86\x04".to_vec(), text(path), b"\x01\x04test".to_vec()].concat();
    if !priority.is_empty() {
        block.extend_from_slice(&[vec![0], text("priority"), text(priority)].concat());
    }
    frame(1, 0x5, id, &block)
}

impl Client {
    /// One whose connection has no room left for a single byte, though its streams have some.
    fn start(gateway: &Gateway) -> Self {
        let socket = TcpStream::connect(gateway.address("edge")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Self { socket, unread: Vec::new() };
        client.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[0, 4, 0, 1, 0, 0])[..]].concat());
        client.send(&asks(1, "/fill", ""));
        let mut filled = 0;
        while filled < 65_535 {
            filled += client.data().1;
        }
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn next(&mut self) -> (u8, u32, usize) {
        loop {
            if let [a, b, c, kind, _, i, j, k, l, behind @ ..] = &self.unread[..] {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if behind.len() >= length {
                    let told = (*kind, u32::from_be_bytes([*i, *j, *k, *l]), length);
                    self.unread.drain(..9 + length);
                    return told;
                }
            }
            let mut piece = [0; 16_384];
            let count = self.socket.read(&mut piece).expect("the gateway says something");
            assert!(count > 0, "the gateway has ended the connection");
            self.unread.extend_from_slice(&piece[..count]);
        }
    }

    /// Waits for the heads of so many responses: their bodies wait behind them.
    fn heads(&mut self, count: usize) {
        for _ in 0..count {
            while self.next().0 != 1 {}
        }
    }

    /// The next piece of a body: whose, and its bytes.
    fn data(&mut self) -> (u32, usize) {
        loop {
            if let (0, id, length) = self.next() {
                return (id, length);
            }
        }
    }

    /// Has room for so many bytes more, and gets them. Whose they are.
    fn more(&mut self, bytes: u32) -> Vec<u32> {
        self.send(&frame(8, 0, 0, &bytes.to_be_bytes()));
        let (mut left, mut ids) = (bytes as usize, Vec::new());
        while left > 0 {
            let (id, length) = self.data();
            (left, ids) = (left - length, [ids, vec![id]].concat());
        }
        ids.dedup();
        ids
    }
}

fn service() -> Upstream {
    Upstream::answering(|request, conn| {
        let (line, bytes) = match request.target.as_str() {
            "/fill" => ("", 65_535),
            "/late" => ("Priority: u=7\r\n", BODY),
            "/soon" => ("Priority: u=0\r\n", BODY),
            _ => ("", BODY),
        };
        let head = format!("HTTP/1.1 200 OK\r\n{line}Content-Length: {bytes}\r\n\r\n");
        conn.send([head.as_bytes(), &vec![b'x'; bytes]].concat());
    })
}

fn gateway(driver: Driver, service: &Upstream) -> Gateway {
    let config = behind(&[service], "", "");
    Gateway::start_with(
        driver,
        &Setup { listener: "http2 = { cleartext = true }", config: &config, ..Setup::default() },
    )
}

on_both_drivers! {
    fn the_most_urgent_goes_first_and_what_is_as_urgent_in_its_order(driver: Driver) {
        let service = service();
        let gateway = gateway(driver, &service);
        let mut client = Client::start(&gateway);
        for (id, priority) in [(3, "u=5"), (5, ""), (7, "u=1"), (9, "u=1, x=2"), (11, "u=3")] {
            client.send(&asks(id, "/", priority));
            client.heads(1);
        }
        assert_eq!(client.more(5 * BODY as u32), [7, 9, 5, 11, 3]);
        let told: Vec<_> = service.requests().iter().filter_map(|it| it.header("priority").map(str::to_owned)).collect();
        assert_eq!(told, ["u=5", "u=1", "u=1, x=2", "u=3"], "the service is told as well");
        drop(client);
        gateway.assert_nothing_left();
    }

    fn what_is_of_use_in_parts_takes_turns(driver: Driver) {
        let service = service();
        let gateway = gateway(driver, &service);
        let mut client = Client::start(&gateway);
        for (id, priority) in [(3, "u=2, i"), (5, "i, u=2"), (7, "u=6")] {
            client.send(&asks(id, "/", priority));
            client.heads(1);
        }
        let turns: Vec<_> = (0..4).map(|_| client.more(100)).collect();
        assert_eq!(turns, [[3], [5], [3], [5]]);
        // one of no use in parts is neither kept waiting by those that are, nor keeps them
        client.send(&asks(9, "/", "u=2"));
        client.heads(1);
        let turns: Vec<_> = (0..6).flat_map(|_| client.more(100)).collect();
        assert_eq!([3, 5, 9].map(|id| turns.iter().filter(|&&other| other == id).count() > 0), [true; 3], "{turns:?}");
        client.more(2_000);
        assert_eq!(client.more(1_000), [7], "and the rest is behind them");
    }

    fn a_client_may_say_something_else_later_and_a_service_knows_better(driver: Driver) {
        let service = service();
        let gateway = gateway(driver, &service);
        let mut client = Client::start(&gateway);
        for (id, priority) in [(3, "u=2"), (5, "u=2")] {
            client.send(&asks(id, "/", priority));
            client.heads(1);
        }
        client.send(&frame(0x10, 0, 0, b"\0\0\0\x05u=0"));
        assert_eq!(client.more(2 * BODY as u32), [5, 3]);
        for (id, path, priority) in [(7, "/late", "u=1"), (9, "/", "u=3"), (11, "/soon", "u=6")] {
            client.send(&asks(id, path, priority));
            client.heads(1);
        }
        assert_eq!(client.more(3 * BODY as u32), [11, 9, 7]);
    }
}
