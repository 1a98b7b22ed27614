//! The words that stand as label values in the metrics: closed lists, so that no peer can make a metric grow without bound.
//!
//! Each list is an enum whose discriminants are the indices of the counters' arrays; `token` is the label's text and part of the
//! user's contract. [`crate::error::ProxyError`] is the list for `reason` of `ringgate_rejected_total`.

use http::Method;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $token:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// All of them, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The label's text.
            #[must_use]
            pub const fn token(self) -> &'static str {
                match self { $(Self::$variant => $token),* }
            }

            /// The place in [`Self::ALL`] and in the counters' arrays.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// `method`: the methods of RFC 9110 §9 and RFC 5789; everything else is one label.
    MethodLabel {
        /// GET
        Get = "GET";
        /// HEAD
        Head = "HEAD";
        /// POST
        Post = "POST";
        /// PUT
        Put = "PUT";
        /// DELETE
        Delete = "DELETE";
        /// CONNECT
        Connect = "CONNECT";
        /// OPTIONS
        Options = "OPTIONS";
        /// TRACE
        Trace = "TRACE";
        /// PATCH
        Patch = "PATCH";
        /// Any other method, and requests whose method could not be read.
        Other = "OTHER";
    }
}

impl From<&Method> for MethodLabel {
    #[inline]
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            Method::CONNECT => Self::Connect,
            Method::OPTIONS => Self::Options,
            Method::TRACE => Self::Trace,
            Method::PATCH => Self::Patch,
            _ => Self::Other,
        }
    }
}

labels! {
    /// `outcome` of `ringgate_upstream_attempts_total`: how one attempt at one endpoint ended.
    AttemptOutcome {
        /// A response below 500 was taken.
        Success = "success";
        /// A response of 500 or above, or one that the route retries.
        ErrorStatus = "error_status";
        /// No connection could be made.
        ConnectFailed = "connect_failed";
        /// The connection took longer than `connect_timeout`.
        ConnectTimeout = "connect_timeout";
        /// The connection broke before a whole response head.
        Reset = "reset";
        /// No response head in the attempt's time.
        Timeout = "timeout";
        /// The response was not HTTP/1.1, or its head too large.
        Protocol = "protocol";
        /// The response's body ended early or stalled.
        Truncated = "truncated";
        /// The client went away first, or the gateway itself stood still until the time was over; says nothing about the endpoint.
        Cancelled = "cancelled";
        /// The gateway was out of descriptors, ports or memory for a connection, or may not make it; says nothing about the endpoint, which saw nothing.
        Exhausted = "exhausted";
        /// It went out on a pooled connection that the endpoint was about to close, and once more on a new one; says nothing about it either.
        Stale = "stale";
    }
}

impl AttemptOutcome {
    /// Does it speak against the endpoint?
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::Cancelled | Self::Exhausted | Self::Stale)
    }

    /// Does the time that it took say something about the endpoint?
    #[must_use]
    pub const fn is_timed(self) -> bool {
        !matches!(self, Self::Cancelled | Self::Exhausted | Self::Stale)
    }
}

labels! {
    /// `reason` of `ringgate_retries_total`: what went wrong with the attempt before.
    RetryReason {
        /// No connection, or none in time.
        Connect = "connect";
        /// The connection broke before a response, or within it before anything of it was passed on.
        Reset = "reset";
        /// No response head in time.
        Timeout = "timeout";
        /// A response status that the route retries.
        Status = "status";
    }
}

labels! {
    /// `event` of `ringgate_traffic_events_total`: what was done with a request beyond passing it on.
    TrafficEvent {
        /// Nobody was left on the side of the split that was chosen, and another one has taken it.
        SplitFallback = "split_fallback";
        /// It was made to wait.
        FaultDelay = "fault_delay";
        /// It was refused to make a fault.
        FaultAbort = "fault_abort";
        /// A copy was sent on its way.
        Mirrored = "mirrored";
        /// None was, because too many were under way or its body is too large.
        MirrorDropped = "mirror_dropped";
        /// A copy was not answered.
        MirrorFailed = "mirror_failed";
        /// Its body was not awaited, because it is larger than the route or the worker holds.
        BufferingSkipped = "buffering_skipped";
        /// Its response was compressed.
        Compressed = "compressed";
        /// It was not, because as many were being compressed as may be at once.
        CompressionSkipped = "compression_skipped";
        /// A piece of its response has waited for bandwidth.
        BandwidthWait = "bandwidth_wait";
    }
}

labels! {
    /// `result` of `ringgate_name_lookups_total`: how a lookup of a name ended.
    LookupResult {
        /// It has addresses.
        Answered = "answered";
        /// It has none, or there is no such name.
        Nothing = "nothing";
        /// Nobody knows: no answer in time, or a server that says that it failed.
        Failed = "failed";
    }
}

labels! {
    /// `reason` of `ringgate_connections_refused_total`.
    RefuseReason {
        /// The listener has `max_connections`.
        MaxConnections = "max_connections";
        /// The descriptors that the system allows are given away (`RLIMIT_NOFILE`).
        Descriptors = "descriptors";
        /// The gateway lacked what it takes to serve it: memory, epoll watches.
        Exhausted = "exhausted";
        /// The client has `max_connections_per_client`.
        MaxPerClient = "max_connections_per_client";
        /// No PROXY header in time, a malformed one, or one from nobody who may send it.
        ProxyProtocol = "proxy_protocol";
    }
}

labels! {
    /// `reason` of `ringgate_tls_handshake_failures_total`: why there was no session.
    HandshakeFailure {
        /// It took longer than `header_timeout`, or an endpoint's than `connect_timeout`.
        Timeout = "timeout";
        /// The peer has left.
        Closed = "closed";
        /// The socket has failed.
        Broken = "broken";
        /// Plain HTTP where TLS is spoken.
        PlainHttp = "plain_http";
        /// No version of TLS in common.
        Version = "version";
        /// No cipher suite, key exchange or signature in common.
        Cipher = "cipher";
        /// The peer's certificate is of somebody who is not believed.
        Issuer = "unknown_issuer";
        /// The peer's certificate has ended, or has not begun.
        Expired = "expired";
        /// The peer's certificate is for another name.
        Name = "wrong_name";
        /// The peer has no certificate, or none that would do.
        Certificate = "certificate";
        /// The peer has said that it will not have us.
        Alert = "alert";
        /// What came is not TLS, or against its rules.
        Protocol = "protocol";
    }
}

labels! {
    /// `version` of `ringgate_tls_handshakes_total`.
    TlsVersion {
        /// TLS 1.2
        Tls12 = "1.2";
        /// TLS 1.3
        Tls13 = "1.3";
    }
}

labels! {
    /// `code` of `ringgate_http2_goaways_total` and of `ringgate_http2_resets_total`: the error codes of RFC 9113 §7, in the order of their
    /// numbers.
    StreamCode {
        /// Nothing is wrong.
        NoError = "no_error";
        /// Against the protocol.
        Protocol = "protocol_error";
        /// A defect.
        Internal = "internal_error";
        /// More was sent than a window had room for.
        FlowControl = "flow_control_error";
        /// SETTINGS were not acknowledged.
        SettingsTimeout = "settings_timeout";
        /// A frame for a stream that was over.
        StreamClosed = "stream_closed";
        /// A frame of a wrong size.
        FrameSize = "frame_size_error";
        /// Nothing was done with it.
        RefusedStream = "refused_stream";
        /// It is not needed any more.
        Cancel = "cancel";
        /// The tables of HPACK differ.
        Compression = "compression_error";
        /// The connection of a CONNECT broke.
        Connect = "connect_error";
        /// More work than is taken.
        EnhanceYourCalm = "enhance_your_calm";
        /// TLS below what is asked for.
        InadequateSecurity = "inadequate_security";
        /// Only HTTP/1.1 will do.
        Http11Required = "http_1_1_required";
    }
}

labels! {
    /// `side` of `ringgate_http2_resets_total`: who has reset the stream.
    StreamSide {
        /// The client.
        Client = "client";
        /// The gateway.
        Gateway = "gateway";
    }
}

labels! {
    /// `reason` of `ringgate_endpoint_http2_failures_total`: what an endpoint has done to a connection that many requests share.
    Http2Failure {
        /// It has asked for less: ENHANCE_YOUR_CALM.
        EnhanceYourCalm = "enhance_your_calm";
        /// It has answered in HTTP/1.1.
        PlainHttp1 = "plain_http1";
        /// A frame, or the block of a head, has not come to its end.
        PartTimeout = "part_timeout";
        /// It has not answered a PING.
        PingTimeout = "ping_timeout";
        /// It has broken another rule of the protocol.
        Protocol = "protocol";
    }
}

labels! {
    /// `reason` of `ringgate_endpoint_ejections_total`, of ejections that the cap refused, and of shunnings.
    EjectReason {
        /// `outlier.consecutive` failures in a row.
        Consecutive = "consecutive_failures";
        /// Share of successes below `outlier.min_success`.
        SuccessRatio = "success_ratio";
        /// The probe request after an ejection failed.
        ProbeFailed = "probe_failed";
        /// Active health checks found it unhealthy.
        HealthCheck = "health_check";
        /// The endpoint asked to be left alone (Retry-After).
        RetryAfter = "retry_after";
        /// An operator asked for it.
        ByHand = "by_hand";
    }
}

labels! {
    /// `reason` of `ringgate_endpoint_readmissions_total`.
    ReadmitReason {
        /// An operator asked for it.
        ByHand = "by_hand";
        /// The probe request after an ejection succeeded.
        Probe = "probe";
        /// It answered a request that nobody else could answer.
        LastResort = "last_resort";
        /// Active health checks call it healthy again.
        HealthCheck = "health_check";
        /// The time for which it was paused or shunned is over.
        Time = "time";
        /// It was shunned and has answered well.
        Answers = "answers";
    }
}

labels! {
    /// What one worker thinks of one endpoint.
    EndpointState {
        /// It gets its share of requests.
        Available = "available";
        /// Readmitted and ramping up (`slow_start`).
        Ramping = "ramping";
        /// Its ejection is over; one request is let through to see.
        Probing = "probing";
        /// Ejected by its failures.
        Ejected = "ejected";
        /// Left alone for a time because it asked for it (Retry-After).
        Paused = "paused";
        /// Failing, and asked only when nobody else is left.
        Shunned = "shunned";
        /// Unhealthy by active checks.
        Unhealthy = "unhealthy";
        /// Weight 0.
        Drained = "drained";
    }
}

impl EndpointState {
    /// Would the worker send it requests?
    #[must_use]
    pub const fn is_available(self) -> bool {
        matches!(self, Self::Available | Self::Ramping)
    }
}

labels! {
    /// What the control thread knows of a worker.
    WorkerState {
        /// Its thread is being started.
        Starting = "starting";
        /// Its loop turns.
        Running = "running";
        /// Its loop has not turned for `limits::STALL`.
        Stalled = "stalled";
        /// Its thread ended.
        Stopped = "stopped";
    }
}

labels! {
    /// `result` of `ringgate_config_reloads_total`.
    ReloadResult {
        /// The new configuration is in use.
        Succeeded = "succeeded";
        /// It is wrong, or could not be prepared everywhere; the one before stays in use.
        Failed = "failed";
    }
}

labels! {
    /// The event loop that a worker found, best first.
    DriverRung {
        /// Not known yet.
        Unknown = "unknown";
        /// io_uring, multishot receives into buffers that the kernel chooses (Linux 6.1).
        IoUringMultishot = "io_uring_multishot";
        /// io_uring, SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1).
        IoUringDeferTaskrun = "io_uring_defer_taskrun";
        /// io_uring, COOP_TASKRUN (Linux 5.19).
        IoUringCoopTaskrun = "io_uring_coop_taskrun";
        /// io_uring without flags.
        IoUring = "io_uring";
        /// epoll.
        Epoll = "epoll";
    }
}

labels! {
    /// Result of active health checks.
    ProbeState {
        /// Not checked yet.
        Unknown = "unknown";
        /// Passed.
        Healthy = "healthy";
        /// Failed.
        Unhealthy = "unhealthy";
    }
}

labels! {
    /// `reason` of `ringgate_health_check_failures_total`: why an active health check failed.
    FailureReason {
        /// Nobody takes connections there.
        Refused = "refused";
        /// No way there: no route, no such socket, forbidden.
        Unreachable = "unreachable";
        /// It took longer than `health_check.timeout`.
        Timeout = "timeout";
        /// A status that does not pass.
        Status = "status";
        /// A body without what `health_check.body` looks for.
        Body = "body";
        /// A service that does not say SERVING (`health_check.grpc`).
        NotServing = "not_serving";
        /// No TLS session: see the log for why.
        Tls = "tls";
        /// Something that is not the protocol that it was asked in.
        Protocol = "protocol";
        /// The connection ended before a response head, or within a body that is looked at.
        Closed = "closed";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_share_one_label() {
        let odd = Method::from_bytes(b"PROPFIND").unwrap();
        assert_eq!(MethodLabel::from(&odd), MethodLabel::Other);
        assert_eq!(MethodLabel::from(&Method::PATCH), MethodLabel::Patch);
    }

    #[test]
    fn a_label_s_index_is_its_place_in_the_list() {
        assert!(MethodLabel::ALL.iter().enumerate().all(|(i, m)| m.index() == i));
        assert!(AttemptOutcome::ALL.iter().enumerate().all(|(i, o)| o.index() == i));
        assert!(EjectReason::ALL.iter().enumerate().all(|(i, o)| o.index() == i));
        assert!(ReadmitReason::ALL.iter().enumerate().all(|(i, o)| o.index() == i));
        assert!(EndpointState::ALL.iter().enumerate().all(|(i, o)| o.index() == i));
    }
}
