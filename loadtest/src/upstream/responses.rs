//! Answers, made once.

use std::rc::Rc;

/// Answers to everything a service may be asked. Cloning one copies no bytes.
pub(super) struct Responses {
    fine: [Response; 2],
    error: [Response; 2],
    malformed: Response,
    /// What a client that waits before it sends a body is told.
    pub(super) go_on: Response,
}

/// An answer's bytes: head, and body.
#[derive(Clone)]
pub(super) struct Response {
    /// All of them.
    pub(super) bytes: Rc<[u8]>,
    /// Of these, the head's.
    pub(super) head_bytes: usize,
}

impl Responses {
    /// Fine answers have a body of `body_bytes`.
    pub(super) fn new(body_bytes: usize) -> Self {
        let body: Vec<u8> = b"ringgate-load upstream\n".iter().copied().cycle().take(body_bytes).collect();
        let both = |status: &str, body: &[u8]| [Response::new(status, body, false), Response::new(status, body, true)];
        Self {
            fine: both("200 OK", &body),
            error: both("503 Service Unavailable", b"error\n"),
            malformed: Response::new("400 Bad Request", b"malformed\n", true),
            go_on: Response { bytes: Rc::from(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]), head_bytes: 25 },
        }
    }

    /// 200; `closes`: it says that the connection ends with it.
    pub(super) fn fine(&self, closes: bool) -> &Response {
        &self.fine[usize::from(closes)]
    }

    /// 503.
    pub(super) fn error(&self, closes: bool) -> &Response {
        &self.error[usize::from(closes)]
    }

    /// 400, with the connection's end.
    pub(super) fn malformed(&self) -> &Response {
        &self.malformed
    }
}

impl Response {
    fn new(status: &str, body: &[u8], closes: bool) -> Self {
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{connection}\r\n",
            body.len()
        );
        Self { head_bytes: head.len(), bytes: [head.as_bytes(), body].concat().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_it_is() {
        let responses = Responses::new(30);
        let fine = responses.fine(false);
        assert_eq!(
            &fine.bytes[..],
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 30\r\n\r\nringgate-load upstream\nringgat"
        );
        assert_eq!(fine.bytes.len() - fine.head_bytes, 30);
        let closing = String::from_utf8_lossy(&responses.error(true).bytes).into_owned();
        assert!(closing.starts_with("HTTP/1.1 503 ") && closing.contains("\r\nConnection: close\r\n\r\n"));
        assert_eq!(responses.go_on.bytes.len(), responses.go_on.head_bytes);
    }
}
