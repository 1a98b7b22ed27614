//! One whole exchange through the real gateway over loopback.
//!
//! Client, gateway (one worker) and service run in this process, on threads of their own; the number for many connections is per
//! exchange, with one request in flight on each. Most of it is the kernel's TCP; what the gateway itself computes for a request is what
//! `decisions` measures.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgate::config::{self, Bind, Config};
use ringgate::control::supervisor::Gateway;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

const REQUEST: &[u8] = b"GET /orders/8f14e45f/items?limit=50 HTTP/1.1\r\n\
Host: api.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\
Accept: application/json, text/plain, */*\r\n\
Accept-Encoding: gzip, deflate, br\r\n\
Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.26.2\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: application/json; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Cache-Control: no-store\r\n\r\n";
const BODY_BYTES: usize = 1_024;

/// Every feature of the request path on.
fn config(endpoints: [SocketAddr; 2]) -> Config {
    let [first, second] = endpoints;
    let text = format!(
        r#"
        [gateway]
        workers = 1
        [admin]
        listen = "127.0.0.1:0"
        [[listener]]
        name = "edge"
        listen = "127.0.0.1:0"
        [[route]]
        name = "orders"
        match = {{ host = "api.example.com", path = "/orders/*" }}
        upstream = "orders"
        timeout = {{ adaptive = true, k = 3.0, min = "1s", max = "5s" }}
        limit = [{{ rate = "1000000/s", burst = 1000000, per = "client_ip" }}, {{ rate = "1000000/s", burst = 1000000, per = "route" }}]
        request_headers = {{ set = {{ x-env = "bench" }} }}
        response_headers = {{ remove = ["server"] }}
        [upstream.orders]
        endpoints = [{{ address = "{first}" }}, {{ address = "{second}" }}]
        "#
    );
    config::parse(&text, "the bench's configuration").unwrap_or_else(|errors| panic!("{errors}"))
}

/// A service that answers every request at once; its threads live as long as the process.
fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            std::thread::spawn(move || {
                let answer = [RESPONSE_HEAD, &[b'x'; BODY_BYTES]].concat();
                // one request is in flight on a connection, so what ends in an empty line is one whole request
                let mut read = Vec::new();
                while read_some(&mut stream, &mut read).is_ok_and(|received| received > 0) {
                    if read.ends_with(b"\r\n\r\n") {
                        read.clear();
                        if stream.write_all(&answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 8 << 10];
    loop {
        match stream.read(&mut piece) {
            Ok(received) => {
                into.extend_from_slice(&piece[..received]);
                return Ok(received);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    fn send(&mut self) {
        self.stream.write_all(REQUEST).expect("the gateway reads");
    }

    fn receive(&mut self) {
        self.read.clear();
        loop {
            let head_bytes = memchr::memmem::find(&self.read, b"\r\n\r\n").map(|at| at + 4);
            if head_bytes.is_some_and(|head_bytes| self.read.len() == head_bytes + BODY_BYTES) {
                break;
            }
            let received = read_some(&mut self.stream, &mut self.read).expect("the gateway answers");
            assert!(received > 0, "the gateway closed");
        }
        assert!(self.read.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&self.read));
    }
}

fn loopback(criterion: &mut Criterion) {
    let gateway = Gateway::start(config([service(), service()])).expect("it starts");
    let Bind::Tcp(address) = gateway.addresses()[0].1 else { panic!("a TCP listener") };
    let mut group = criterion.benchmark_group("loopback");
    for connections in [1, 64] {
        let mut clients: Vec<_> = (0..connections).map(|_| Client::connect(address)).collect();
        group.throughput(Throughput::Elements(connections));
        group.bench_function(format!("{connections}_connections"), |bench| {
            bench.iter(|| {
                clients.iter_mut().for_each(Client::send);
                clients.iter_mut().for_each(Client::receive);
            });
        });
    }
    group.finish();
    gateway.drain_and_stop().expect("it drains");
}

criterion_group!(benches, loopback);
criterion_main!(benches);
