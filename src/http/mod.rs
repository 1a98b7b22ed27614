//! Bytes in, values out: HTTP/1.1 and HTTP/2 without sockets, clocks or waiting.
//!
//! In the order of a request: [`head`] parses it ([`scan`] says when that is worth trying, [`fields`] is the table of headers,
//! [`target`] and [`path`] take the request line apart, [`kept`] keeps it for later), [`framing`] decides where its body ends, [`headers`] which fields go on,
//! [`encode`] rebuilds it for the endpoint, [`body`] takes its body through, [`response`] parses the answer (`lines` reads its lines,
//! without httparse), [`reply`] is what the gateway says itself, [`upgrade`] which other protocols may be spoken, [`cycle`] whether the
//! connections live on, and [`glimpse`] what a request that was refused looked like.
//! [`proxy_header`] is what may stand before the first request.
//!
//! What leaves is rebuilt from what was understood, never passed through: one request line, one `Host`, one framing. Nothing here
//! allocates per request once the caller's scratch buffers have grown to the size of its traffic, and nothing here logs, waits or
//! reads a clock. TLS and content codings are not its business.
//!
//! [`grpc`] is what calls of gRPC are told by and answered with.
//! [`h2`] is HTTP/2 with clients: its heads become the same [`head::RequestHead`], and responses are encoded by the same rules.
//!
//! Sources: RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 9113 (HTTP/2), RFC 3986 (targets); sections stand beside the rules.

pub mod body;
pub mod coding;
pub mod cycle;
pub mod date;
pub mod encode;
pub mod fields;
pub mod framing;
pub mod glimpse;
pub mod grpc;
pub mod grpc_web;
pub mod h2;
pub mod head;
pub mod headers;
pub mod kept;
mod lines;
pub mod location;
pub mod path;
pub mod proxy_header;
pub mod reply;
pub mod response;
pub mod scan;
pub mod target;
mod text;
pub mod trailers;
pub mod upgrade;
pub mod websocket;

pub use text::{push_address, push_number};

/// The version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no interim responses, closes unless told otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 (RFC 9113): what HTTP/1.1 says and does, over streams that end by themselves.
    Http2,
}

/// What a parser found: all of it, or nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// What has arrived is fine and not all.
    Partial,
    /// The whole of it.
    Complete(T),
}
