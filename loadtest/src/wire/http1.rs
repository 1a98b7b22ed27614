//! HTTP/1.1 from the client's side (RFC 9112): one request under way, its answer read as strictly as a browser would.

use super::chunks::Chunks;
use super::{Answer, Codec, Failure, Step};
use crate::load::Target;

/// A head may be so long, with so many fields.
const HEAD_BYTES_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 128;
/// Of a body that is looked into, so much is looked at.
const LOOKED_AT_MAX: usize = 1 << 20;

/// How a body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug)]
enum Body {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// Nothing is expected.
    Idle,
    Head,
    Body {
        status: u16,
        keeps: bool,
        body: Body,
    },
}

/// One connection's state.
#[derive(Debug)]
pub struct Http1 {
    at: At,
    /// A head that did not come at once.
    head: Vec<u8>,
    /// A body that is looked into.
    looked_at: Vec<u8>,
    has_begun: bool,
}

impl Default for Http1 {
    fn default() -> Self {
        Self { at: At::Idle, head: Vec::new(), looked_at: Vec::new(), has_begun: false }
    }
}

impl Codec for Http1 {
    fn begin(&mut self, _: &Target) {
        self.at = At::Head;
        self.head.clear();
        self.looked_at.clear();
        self.has_begun = false;
    }

    fn receive(&mut self, bytes: &[u8], target: &Target) -> Step {
        self.has_begun = true;
        match self.advance(bytes, target) {
            Ok(step) => step,
            Err(failure) => Step::Failed(failure),
        }
    }

    fn end(&mut self, target: &Target) -> Step {
        match self.at {
            At::Body { status, body: Body::UntilClose, .. } => self.answered(status, false, false, target),
            _ if self.has_begun => Step::Failed(Failure::Closed),
            _ => Step::Failed(Failure::Stale),
        }
    }

    fn has_begun(&self) -> bool {
        self.has_begun
    }
}

impl Http1 {
    fn advance(&mut self, bytes: &[u8], target: &Target) -> Result<Step, Failure> {
        match self.at {
            At::Idle => Err(Failure::Surplus),
            At::Body { .. } => self.body(bytes, target),
            At::Head if self.head.is_empty() => match self.heads(bytes, target)? {
                (taken, true) => self.body(&bytes[taken..], target),
                (taken, false) => {
                    self.head.extend_from_slice(&bytes[taken..]);
                    Ok(Step::More)
                }
            },
            At::Head => {
                self.head.extend_from_slice(bytes);
                let held = std::mem::take(&mut self.head);
                let (taken, is_whole) = self.heads(&held, target)?;
                if is_whole {
                    return self.body(&held[taken..], target);
                }
                self.head = held;
                self.head.drain(..taken);
                Ok(Step::More)
            }
        }
    }

    /// Takes heads, interim ones too, and says how many bytes they had and whether the last one was final.
    fn heads(&mut self, bytes: &[u8], target: &Target) -> Result<(usize, bool), Failure> {
        let mut taken = 0;
        loop {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
            let mut head = httparse::Response::new(&mut fields);
            match head.parse(&bytes[taken..]) {
                Ok(httparse::Status::Complete(length)) => taken += length,
                Ok(httparse::Status::Partial) if bytes.len() - taken <= HEAD_BYTES_MAX => return Ok((taken, false)),
                Ok(httparse::Status::Partial) | Err(_) => return Err(Failure::Garbage),
            }
            let status = head.code.ok_or(Failure::Garbage)?;
            match status {
                101 => return Err(Failure::Garbage), // nobody asked for another protocol
                100..=199 => {}
                200..=999 => {
                    let (keeps, body) = framing(&head, status, &target.method)?;
                    self.at = At::Body { status, keeps, body };
                    return Ok((taken, true));
                }
                _ => return Err(Failure::Garbage),
            }
        }
    }

    fn body(&mut self, bytes: &[u8], target: &Target) -> Result<Step, Failure> {
        let At::Body { status, keeps, body } = &mut self.at else { return Err(Failure::Garbage) };
        let mut looked_at = target.body_has.is_some().then_some(&mut self.looked_at);
        let mut look = |data: &[u8]| {
            if let Some(seen) = &mut looked_at {
                seen.extend_from_slice(&data[..data.len().min(LOOKED_AT_MAX - seen.len())]);
            }
        };
        let (taken, is_whole) = match body {
            Body::UntilClose => {
                look(bytes);
                (bytes.len(), false)
            }
            Body::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                look(&bytes[..taken]);
                *left -= taken as u64;
                (taken, *left == 0)
            }
            Body::Chunked(chunks) => {
                let taken = chunks.receive(bytes, look)?;
                (taken, chunks.has_ended())
            }
        };
        if !is_whole {
            return Ok(Step::More);
        }
        let (status, keeps) = (*status, *keeps);
        Ok(self.answered(status, keeps, taken < bytes.len(), target))
    }

    fn answered(&mut self, status: u16, keeps: bool, has_surplus: bool, target: &Target) -> Step {
        self.at = At::Idle;
        let misses = |wanted: &[u8]| !self.looked_at.windows(wanted.len().max(1)).any(|part| part == wanted);
        let failure = match &target.body_has {
            _ if !target.status.contains(&status) => Some(Failure::Status),
            _ if has_surplus => Some(Failure::Surplus),
            Some(wanted) if misses(wanted) => Some(Failure::Body),
            _ => None,
        };
        Step::Answered(Answer { status, failure, keeps: keeps && !has_surplus })
    }
}

/// How the body of this answer ends, and whether the connection may be used again.
fn framing(head: &httparse::Response<'_, '_>, status: u16, method: &str) -> Result<(bool, Body), Failure> {
    let mut keeps = head.version == Some(1);
    let (mut length, mut coded, mut is_chunked) = (None, false, false);
    for field in head.headers.iter() {
        let value = || std::str::from_utf8(field.value).map(str::trim).map_err(|_| Failure::Garbage);
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = value()?;
            let this: u64 = text
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| text.parse().ok())
                .flatten()
                .ok_or(Failure::Garbage)?;
            if length.is_some_and(|other| other != this) {
                return Err(Failure::Garbage);
            }
            length = Some(this);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            let last = value()?.rsplit(',').next().unwrap_or_default().trim();
            (coded, is_chunked) = (true, last.eq_ignore_ascii_case("chunked"));
        } else if field.name.eq_ignore_ascii_case("connection") {
            for word in value()?.split(',').map(str::trim) {
                if word.eq_ignore_ascii_case("close") {
                    keeps = false;
                } else if word.eq_ignore_ascii_case("keep-alive") && head.version == Some(0) {
                    keeps = true;
                }
            }
        }
    }
    let has_none = method == "HEAD" || status == 204 || status == 304;
    Ok(match (has_none, length) {
        (true, _) => (keeps, Body::Length(0)),
        (false, Some(_)) if coded => return Err(Failure::Garbage), // RFC 9112 §6.3: a smuggled answer
        _ if is_chunked => (keeps, Body::Chunked(Chunks::new())),
        _ if coded => (false, Body::UntilClose),
        (false, Some(length)) => (keeps, Body::Length(length)),
        (false, None) => (false, Body::UntilClose),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get() -> Target {
        Target::new("GET", "a.test", "/", &[], b"", false)
    }

    /// Feeds `text` in pieces of `size`, then the end.
    fn read_in(text: &str, target: &Target, size: usize) -> Step {
        let mut http = Http1::default();
        http.begin(target);
        for piece in text.as_bytes().chunks(size) {
            match http.receive(piece, target) {
                Step::More => {}
                step => return step,
            }
        }
        http.end(target)
    }

    /// The same whatever the pieces are.
    fn read(text: &str, target: &Target) -> Step {
        let whole = read_in(text, target, text.len().max(1));
        for size in 1..text.len() {
            assert_eq!(read_in(text, target, size), whole, "{text:?} in pieces of {size}");
        }
        whole
    }

    fn answered(status: u16, failure: Option<Failure>, keeps: bool) -> Step {
        Step::Answered(Answer { status, failure, keeps })
    }

    #[test]
    fn an_answer_ends_where_its_framing_says() {
        for (text, keeps) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", false),
        ] {
            assert_eq!(read(text, &get()), answered(200, None, keeps), "{text:?}");
        }
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n", &get()), answered(204, None, true));
        let head = Target::new("HEAD", "a.test", "/", &[], b"", false);
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", &head), answered(200, None, true));
    }

    #[test]
    fn an_answer_is_good_by_status_and_body() {
        let text = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(read(text, &get()), answered(502, Some(Failure::Status), true));
        let teapot = Target { status: 418..=418, ..get() };
        assert_eq!(read("HTTP/1.1 418 T\r\nContent-Length: 0\r\n\r\n", &teapot), answered(418, None, true));
        let looking = Target { body_has: Some(b"up".as_slice().into()), ..get() };
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nit up", &looking), answered(200, None, true));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nu\r\n1\r\np\r\n0\r\n\r\n";
        assert_eq!(read(chunked, &looking), answered(200, None, true));
        let down = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndown";
        assert_eq!(read(down, &looking), answered(200, Some(Failure::Body), true));
    }

    #[test]
    fn an_answer_that_breaks_is_a_failure_of_its_kind() {
        for (text, failure) in [
            ("", Failure::Stale),
            ("HTTP/1.1 200 OK\r\nConte", Failure::Closed),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", Failure::Closed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", Failure::Closed),
            ("SSH-2.0-OpenSSH\r\n\r\n", Failure::Garbage),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", Failure::Garbage),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Failure::Garbage),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", Failure::Garbage),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Failure::Garbage),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Failure::Garbage),
            ("HTTP/1.1 099 What\r\n\r\n", Failure::Garbage),
        ] {
            assert_eq!(read(text, &get()), Step::Failed(failure), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(100_000));
        assert_eq!(read_in(&endless, &get(), 4_096), Step::Failed(Failure::Garbage), "a head without an end");
    }

    #[test]
    fn more_than_the_answer_is_a_failure_and_ends_the_connection() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more";
        assert_eq!(read_in(text, &get(), text.len()), answered(200, Some(Failure::Surplus), false));
        let mut http = Http1::default();
        assert_eq!(http.receive(b"unasked", &get()), Step::Failed(Failure::Surplus));
    }
}
