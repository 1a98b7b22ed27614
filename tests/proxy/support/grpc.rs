//! A service of gRPC and a client of it, over the `h2` crate: messages are opaque, and what the service does stands in the method's name.

use super::{PATIENCE, lock};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// How a service answers all calls that it is not to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// `grpc-status`
    pub(crate) code: u8,
    /// It stands behind a body, and not in the head.
    pub(crate) behind: bool,
    /// `grpc-retry-pushback-ms`
    pub(crate) pushback: Option<&'static str>,
}

/// What has happened at a service.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) calls: AtomicUsize,
    /// Calls that wait, and calls of which the service was told that nobody waits any more.
    pub(crate) waiting: AtomicUsize,
    pub(crate) cancelled: AtomicUsize,
    pub(crate) refusal: Mutex<Option<Refusal>>,
    /// The fields of the last call.
    pub(crate) last: Mutex<HeaderMap>,
}

/// A service on a thread of its own. Dropped, it is gone with all of its connections.
pub(crate) struct Service {
    address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Service {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = listen(TcpListener::from_std(listener).unwrap(), shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, seen, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// As an entry of `endpoints`, in this tier.
    pub(crate) fn endpoint(&self, tier: usize) -> String {
        format!("{{ address = \"{}\", priority = {tier} }}", self.address)
    }

    pub(crate) fn refuse(&self, code: u8, behind: bool, pushback: Option<&'static str>) {
        *lock(&self.seen.refusal) = Some(Refusal { code, behind, pushback });
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.calls.load(SeqCst)
    }

    /// What a field of the last call has said.
    pub(crate) fn last(&self, name: &str) -> Option<String> {
        lock(&self.seen.last).get(name).map(|value| value.to_str().unwrap().to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

async fn listen(listener: TcpListener, seen: Arc<Seen>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let seen = Arc::clone(&seen);
        seen.connections.fetch_add(1, SeqCst);
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(1_000).initial_window_size(1 << 20).initial_connection_window_size(1 << 22);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(serve(request, respond, Arc::clone(&seen)));
            }
        });
    }
}

fn head() -> http::response::Builder {
    Response::builder().status(200).header("content-type", "application/grpc")
}

async fn serve(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    seen.calls.fetch_add(1, SeqCst);
    let (parts, mut body) = request.into_parts();
    *lock(&seen.last) = parts.headers.clone();
    let refusal = *lock(&seen.refusal);
    if let Some(refusal) = refusal {
        return refuse(refusal, &mut respond);
    }
    let method = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    if method == "Quiet" {
        seen.waiting.fetch_add(1, SeqCst);
        let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
        seen.cancelled.fetch_add(1, SeqCst);
        return;
    }
    if method == "Missing" {
        return refuse(Refusal { code: 12, behind: false, pushback: None }, &mut respond);
    }
    if method == "Misplaced" {
        // what stands in a head with a body behind it says nothing
        let mut stream = respond.send_response(head().header("grpc-status", 14).body(()).unwrap(), false).unwrap();
        send(&mut stream, &message(b"all of it")).await;
        return drop(
            stream.send_trailers(HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), 0.into())])),
        );
    }
    // as grpcio does it: the head goes with the first message
    let mut answer = None;
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else {
            seen.cancelled.fetch_add(1, SeqCst);
            return;
        };
        let _ = body.flow_control().release_capacity(piece.len());
        if method == "Chat" {
            let stream = answer.get_or_insert_with(|| respond.send_response(head().body(()).unwrap(), false).unwrap());
            send(stream, &piece).await;
        } else {
            all.extend_from_slice(&piece);
        }
    }
    let mut stream = match answer {
        Some(stream) => stream,
        None => match respond.send_response(head().body(()).unwrap(), false) {
            Ok(stream) => stream,
            Err(_) => return,
        },
    };
    if method == "Check" {
        // grpc.health.v1: SERVING
        all = message(b"\x08\x01");
    }
    let repeats = if method == "List" { 100 } else { 1 };
    for _ in 0..repeats {
        send(&mut stream, &all).await;
    }
    let mut behind = HeaderMap::new();
    behind.insert("grpc-status", 0.into());
    behind.insert("grpc-message", "fine".parse().unwrap());
    let _ = stream.send_trailers(behind);
}

fn refuse(refusal: Refusal, respond: &mut SendResponse<Bytes>) {
    let mut outcome = HeaderMap::new();
    outcome.insert("grpc-status", u16::from(refusal.code).into());
    outcome.insert("grpc-message", "not%20now".parse().unwrap());
    if let Some(pushback) = refusal.pushback {
        outcome.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    let mut response = head().body(()).unwrap();
    if !refusal.behind {
        response.headers_mut().extend(outcome);
        return drop(respond.send_response(response, true));
    }
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let _ = stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false);
    let _ = stream.send_trailers(outcome);
}

/// Sends all of it, as the windows allow.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut rest: &[u8]) {
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let (piece, behind) = rest.split_at(room.min(rest.len()));
        rest = behind;
        if stream.send_data(Bytes::copy_from_slice(piece), false).is_err() {
            return;
        }
    }
}

/// Runs a client to its end, within a limit.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, client).await.expect("within the limit") })
}

/// A connection, whose task runs until the client is dropped.
pub(crate) async fn connect(address: &str) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 24).initial_window_size(1 << 22);
    let (sender, connection) = builder.handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

/// What a call has come to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Of HTTP.
    pub(crate) status: u16,
    pub(crate) head: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Outcome {
    fn text(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).or_else(|| self.head.get(name)).map(|value| value.to_str().unwrap())
    }

    /// `grpc-status`, wherever it stands.
    pub(crate) fn code(&self) -> Option<u8> {
        self.text("grpc-status").map(|code| code.parse().unwrap())
    }

    /// `grpc-message`, wherever it stands.
    pub(crate) fn message(&self) -> &str {
        self.text("grpc-message").unwrap_or_default()
    }

    /// That all of it was a head that says so.
    #[track_caller]
    pub(crate) fn assert_trailers_only(&self, code: u8) {
        assert_eq!((self.status, self.code()), (200, Some(code)), "{self:?}");
        assert_eq!(self.head["content-type"], "application/grpc", "{self:?}");
        assert!(
            self.body.is_empty() && self.trailers.is_empty() && !self.head.contains_key("content-length"),
            "{self:?}"
        );
        assert!(!self.message().is_empty(), "{self:?}");
    }
}

/// The head of a call of this method, with more fields.
pub(crate) fn call(method: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://test/test.Echo/{method}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// A message with its prefix.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Makes a call with this body, half-closed behind it.
pub(crate) async fn unary(sender: &SendRequest<Bytes>, head: Request<()>, body: &[u8]) -> Result<Outcome, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (response, mut stream) = sender.send_request(head, false)?;
    send(&mut stream, body).await;
    let _ = stream.send_data(Bytes::new(), true);
    outcome(response.await?).await
}

/// All of an answer.
pub(crate) async fn outcome(response: Response<RecvStream>) -> Result<Outcome, h2::Error> {
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        body.extend_from_slice(&piece);
        stream.flow_control().release_capacity(piece.len())?;
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(Outcome { status: parts.status.as_u16(), head: parts.headers, body, trailers })
}
