//! The service behind the gateways: this program, started again with a hidden subcommand, as a process that can be killed.
//!
//! It speaks keep-alive HTTP/1.1 as far as gateways speak it here (no chunked requests, no pipelining), on one tokio thread. Its standard
//! input is a socket to the drill: a line there is a [`Mode`], each is acknowledged, and its end ends the service.

use anyhow::Context;
use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::LocalSet;

use crate::clock;
use crate::journal::{Entry, Journal};
use crate::mode::Mode;

/// Longest request, head and body, that it reads.
const REQUEST_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// What a service that is ready, or has understood, says.
pub(crate) const ACKNOWLEDGED: &str = "ok\n";

struct State {
    journal: Journal,
    mode: Cell<Mode>,
    /// Requests that [`Mode::HalfErrors`] and [`Mode::TooMany`] have met so far.
    counted: Cell<u32>,
    /// How long an answer takes.
    think: Duration,
}

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    /// `None` for health checks, which are not written down.
    id: Option<u64>,
    is_post: bool,
    /// Head and body.
    bytes: usize,
}

/// Serves until its standard input ends or it is killed.
pub(crate) fn run(port: u16, journal: &Path, think: Duration) -> anyhow::Result<()> {
    let state = State { journal: Journal::open(journal)?, mode: Cell::new(Mode::Fine), counted: Cell::new(0), think };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let listener = socket.listen(BACKLOG)?;
        let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        accept(&listener, listen_to(&control)?, control, &Rc::new(state)).await
    })
}

/// Lines of the control socket, read by a thread of their own; it ends the process at the socket's end.
fn listen_to(control: &UnixStream) -> anyhow::Result<UnboundedReceiver<String>> {
    let (sender, receiver) = unbounded_channel();
    let lines = BufReader::new(control.try_clone()?).lines();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    Ok(receiver)
}

async fn accept(
    listener: &TcpListener,
    mut lines: UnboundedReceiver<String>,
    mut control: UnixStream,
    state: &Rc<State>,
) -> anyhow::Result<()> {
    control.write_all(ACKNOWLEDGED.as_bytes())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let state = Rc::clone(state);
                // a connection that fails is its peer's affair
                tokio::task::spawn_local(async move { drop(serve(accepted?.0, &state).await); anyhow::Ok(()) });
            }
            line = lines.recv() => {
                let line = line.context("the control socket has ended")?;
                state.mode.set(line.parse().map_err(anyhow::Error::msg)?);
                state.counted.set(0);
                control.write_all(ACKNOWLEDGED.as_bytes())?;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let Some(request) = parse(&buffer)? else {
            anyhow::ensure!(buffer.len() < REQUEST_BYTES_MAX, "the request is too long");
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        buffer.drain(..request.bytes);
        let (status, retry_after_s) = state.verdict(request.id.is_some());
        if let Some(id) = request.id {
            state.journal.append(Entry { id, at: clock::now(), status, is_post: request.is_post })?;
        }
        if !state.think.is_zero() {
            tokio::time::sleep(state.think).await;
        }
        stream.write_all(answer(status, retry_after_s).as_bytes()).await?;
    }
}

impl State {
    /// Status of the next answer, and its `Retry-After`. Health checks do not use up what is meant for requests.
    fn verdict(&self, counts: bool) -> (u16, Option<u32>) {
        let counted = self.counted.get() + u32::from(counts);
        self.counted.set(counted);
        match self.mode.get() {
            Mode::HalfErrors if counted % 2 == 1 => (500, None),
            Mode::Unavailable => (503, None),
            Mode::TooMany { answers, retry_after_s } if counted <= answers => (429, Some(retry_after_s)),
            Mode::Fine | Mode::HalfErrors | Mode::TooMany { .. } => (200, None),
        }
    }
}

/// The request at the beginning of `buffer`, once it is whole.
fn parse(buffer: &[u8]) -> anyhow::Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = head.parse(buffer)? else { return Ok(None) };
    let is_post = head.method == Some("POST");
    let number = |name: &str| -> anyhow::Result<Option<u64>> {
        let field = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        field.map(|field| Ok(std::str::from_utf8(field.value)?.parse()?)).transpose()
    };
    let chunked = head.headers.iter().any(|header| header.name.eq_ignore_ascii_case("transfer-encoding"));
    anyhow::ensure!(!chunked, "no chunked requests here");
    let bytes = head_bytes + usize::try_from(number("content-length")?.unwrap_or(0))?;
    let request = Request { id: number("x-drill-id")?, is_post, bytes };
    Ok((buffer.len() >= bytes).then_some(request))
}

fn answer(status: u16, retry_after_s: Option<u32>) -> String {
    let retry_after = retry_after_s.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
    format!("HTTP/1.1 {status} Drill\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n{retry_after}\r\ndrill\n")
}
