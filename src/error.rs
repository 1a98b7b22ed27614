//! What can go wrong with a request: whose fault it is, which status it earns, whether a retry may help, and its name.
//!
//! One flat list, because the list *is* the contract: each kind's token stands in the reply's JSON body, the access log and the
//! metrics, and operators grep for it. A kind never carries text from a peer.

use http::StatusCode;

/// Who caused a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client.
    Downstream,
    /// The service behind the gateway.
    Upstream,
    /// The gateway itself, by its configuration or its limits.
    Gateway,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $token:literal, $fault:ident, $status:expr, $message:literal;)*) => {
        /// Every way in which a request can fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ProxyError { $($(#[$doc])* $name),* }

        impl ProxyError {
            /// All of them, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word for it in replies, logs and metrics.
            #[must_use]
            pub const fn token(self) -> &'static str {
                match self { $(Self::$name => $token),* }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault),* }
            }

            /// The status of the gateway's own reply. 499 (nginx's) is only logged: nobody is left to read it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                let code: u16 = match self { $(Self::$name => $status),* };
                StatusCode::from_u16(code).expect("statuses of the table are valid")
            }

            /// One sentence for the person who reads the reply.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message),* }
            }
        }
    };
}

kinds! {
    /// The request is not HTTP/1.1 as RFC 9112 has it.
    BadRequest = "bad_request", Downstream, 400, "the request is malformed";
    /// No whole head before `header_timeout`, or no body byte within `body_timeout` (RFC 9110 §15.5.9).
    RequestTimeout = "request_timeout", Downstream, 408, "the request took too long to arrive";
    /// The body is larger than `max_body` (RFC 9110 §15.5.14).
    PayloadTooLarge = "payload_too_large", Downstream, 413, "the request body is too large";
    /// The request line alone is larger than `max_head` (RFC 9110 §15.5.15).
    UriTooLong = "uri_too_long", Downstream, 414, "the request target is too long";
    /// An `Expect` other than `100-continue` (RFC 9110 §10.1.1).
    ExpectationFailed = "expectation_failed", Downstream, 417, "the expectation cannot be met";
    /// The head is larger than `max_head` or has more than `max_headers` headers (RFC 6585 §5).
    HeaderTooLarge = "header_too_large", Downstream, 431, "the request headers are too large";
    /// A method or transfer coding that the gateway does not forward (RFC 9110 §15.6.2).
    NotImplemented = "not_implemented", Downstream, 501, "the method or transfer coding is not supported";
    /// A major version other than 1 (RFC 9110 §15.6.6).
    VersionNotSupported = "version_not_supported", Downstream, 505, "this HTTP version is not supported";
    /// The client went away before it had its response.
    ClientClosed = "client_closed", Downstream, 499, "the client closed the connection";
    /// The client took no byte of its response within `body_timeout`; the connection is cut, so the status is only logged.
    ClientWriteTimeout = "client_write_timeout", Downstream, 408, "the client took too long to read its response";
    /// No route matches.
    NoRoute = "no_route", Gateway, 404, "no route matches this request";
    /// A route matches but for the method.
    MethodNotAllowed = "method_not_allowed", Gateway, 405, "the method is not allowed here";
    /// The route asks who sends the request, and nothing in it says so (RFC 9110 §15.5.2).
    Unauthenticated = "unauthenticated", Gateway, 401, "the request does not say who sends it, or not in a way that is believed";
    /// A preflight of a page that the route's `cors` does not name.
    OriginNotAllowed = "origin_not_allowed", Gateway, 403, "pages of this origin may not call this";
    /// Who sends the request may not (RFC 9110 §15.5.4).
    Forbidden = "forbidden", Gateway, 403, "the request is not allowed";
    /// A guard of the configuration.
    Guarded = "guarded", Gateway, 403, "the request is not allowed";
    /// A fault that the configuration has made (`route.fault`), whose status is what that says.
    FaultInjected = "fault_injected", Gateway, 503, "a fault was injected for a test";
    /// More passwords are to be verified than there is time for.
    AuthenticationBusy = "authentication_busy", Gateway, 503, "too many passwords are being verified";
    /// The body of a signed request is not what its `Content-Digest` says (RFC 9530).
    DigestMismatch = "digest_mismatch", Downstream, 400, "the body is not the one that content-digest says";
    /// As many nonces of signed requests are remembered as there is room for.
    NoncesExhausted = "nonces_exhausted", Gateway, 503, "too many signed requests are remembered to take another one";
    /// The service that decides about requests (`auth.forward`) has not decided in time, or not in words that are understood.
    Undecided = "authorization_unavailable", Gateway, 503, "it could not be found out whether the request is allowed";
    /// A rate limit (RFC 6585 §4).
    RateLimited = "rate_limited", Gateway, 429, "too many requests";
    /// The route's `max_concurrent`.
    ConcurrencyLimited = "concurrency_limited", Gateway, 503, "too many requests at once";
    /// Every endpoint that is left is at its `max_requests`.
    UpstreamSaturated = "upstream_saturated", Gateway, 503, "every endpoint is at its limit of requests";
    /// No endpoint could be reached, or none may be tried.
    NoHealthyEndpoint = "no_healthy_endpoint", Gateway, 503, "no endpoint is available";
    /// The gateway is out of descriptors, ports or memory for another connection.
    Exhausted = "gateway_exhausted", Gateway, 503, "the gateway has no room for another connection";
    /// The gateway is stopping.
    Draining = "draining", Gateway, 503, "the gateway is shutting down";
    /// An upgraded connection carried no byte for `tunnel_timeout`. Only logged and counted: a tunnel has no responses.
    TunnelTimeout = "tunnel_timeout", Gateway, 504, "the tunnel was idle for too long";
    /// The request has passed this gateway several times: it goes round (RFC 5842 §7.2).
    LoopDetected = "loop_detected", Gateway, 508, "the request has come back here too often";
    /// A defect of the gateway.
    Internal = "internal_error", Gateway, 500, "the gateway failed to serve this request";
    /// No response head within the request's or the attempt's time.
    UpstreamTimeout = "upstream_timeout", Upstream, 504, "the service did not answer in time";
    /// The connection broke before a whole response head.
    UpstreamReset = "upstream_reset", Upstream, 502, "the service closed the connection";
    /// It speaks HTTP/2 and takes no streams (RFC 9113 §5.1.2).
    UpstreamNoStreams = "upstream_no_streams", Upstream, 503, "the service takes no requests at the moment";
    /// The response is not HTTP/1.1 as RFC 9112 has it.
    UpstreamProtocol = "upstream_protocol_error", Upstream, 502, "the service sent an invalid response";
    /// The response head is larger than the gateway takes.
    UpstreamHeadTooLarge = "upstream_head_too_large", Upstream, 502, "the service sent too large a response head";
    /// No byte of the response's body within `body_timeout`; once its head was passed on the client's connection is cut.
    UpstreamBodyTimeout = "upstream_body_timeout", Upstream, 504, "the service stalled within its response";
    /// The body ended early; once its head was passed on the client's connection is cut, never a fake end.
    UpstreamTruncated = "upstream_truncated", Upstream, 502, "the service broke off its response";
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// Which rule a request breaks that is answered with [`ProxyError::BadRequest`]: one word in its reply and in the access log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Rule { $($(#[$doc])* $name),* }

        impl Rule {
            /// All of them, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

rules! {
    /// No `method SP target SP HTTP/1.x` (RFC 9112 §3).
    RequestLine = "request_line";
    /// Plain HTTP on a port where TLS is spoken.
    PlainHttp = "plain_http_on_a_tls_port";
    /// The beginning of a TLS handshake on a port where plain HTTP is spoken.
    Handshake = "tls_on_a_plain_http_port";
    /// A line does not end in CRLF, or an empty one stands where none may (RFC 9112 §2.2).
    LineEnd = "line_end";
    /// A name that is no token, a blank before its colon, a folded line (RFC 9112 §5.1, §5.2).
    HeaderName = "header_name";
    /// A control character in a value (RFC 9110 §5.5).
    HeaderValue = "header_value";
    /// A name with an underscore, where the listener rejects those.
    Underscore = "underscore";
    /// `Connection` is no list of tokens, or names too much (RFC 9110 §7.6.1).
    Connection = "connection";
    /// None of the forms of RFC 9112 §3.2.
    Target = "target";
    /// A path that services read in different ways.
    Path = "path";
    /// `Host` is missing, there twice, no host, or another than the target's (RFC 9112 §3.2).
    Host = "host";
    /// `Content-Length` and `Transfer-Encoding` do not say one length (RFC 9112 §6.3).
    Length = "length";
    /// The chunked coding or its trailers are broken (RFC 9112 §7.1).
    Chunk = "chunk";
    /// A text of gRPC-Web is no base64 (RFC 4648 §4).
    Base64 = "base64";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_are_distinct_and_statuses_are_errors() {
        let tokens: HashSet<_> = ProxyError::ALL.iter().map(|e| e.token()).collect();
        assert_eq!(tokens.len(), ProxyError::ALL.len());
        assert!(ProxyError::ALL.iter().all(|e| e.status().as_u16() >= 400));
        assert!(ProxyError::ALL.iter().enumerate().all(|(i, e)| *e as usize == i));
        assert!(Rule::ALL.iter().enumerate().all(|(i, rule)| *rule as usize == i));
    }
}
