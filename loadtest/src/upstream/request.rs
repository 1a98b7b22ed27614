//! HTTP/1.1 requests as far as a service cares: where one ends, and how its sender wants to be answered. Pure: bytes in, values out.
//!
//! Bodies are counted and thrown away, in any pieces. What is no request is said to be none; a service under test closes then.

use std::mem::MaybeUninit;

/// Longest head that is read.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 100;
/// Hexadecimal digits of a chunk's size: 16 TiB.
const CHUNK_DIGITS_MAX: u8 = 11;

/// What a request's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the head, its empty line included.
    pub(super) bytes: usize,
    /// `HEAD`: the answer has no body.
    pub(super) is_head: bool,
    /// The connection ends with the answer.
    pub(super) closes: bool,
    /// The body comes after `100 Continue`.
    pub(super) expects: bool,
    /// What follows the head; `None`: nothing.
    pub(super) body: Option<Body>,
}

/// A body, as much of it as has not been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked(Chunks),
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In a chunk's size: its value and digits so far.
    Size(u64, u8),
    /// Behind the size, until the line ends: the value.
    Extension(u64),
    /// In the data, and the two bytes behind it: what is left of both.
    Data(u64),
    /// In a line of the trailer: its bytes so far, without a CR.
    Trailer(u32),
}

/// No request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The head at the beginning of `bytes`; `None`: there is more to come.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
        _ => return Err(Malformed),
    };
    let mut head = Head {
        bytes: length,
        is_head: request.method == Some("HEAD"),
        closes: request.version == Some(0),
        expects: false,
        body: None,
    };
    for field in request.headers.iter() {
        head.heed(field.name, field.value)?;
    }
    if head.body == Some(Body::Length(0)) {
        head.body = None;
    }
    Ok(Some(head))
}

impl Head {
    fn heed(&mut self, name: &str, value: &[u8]) -> Result<(), Malformed> {
        // most fields are none of these: their length says so
        match name.len() {
            14 if name.eq_ignore_ascii_case("content-length") && self.body.is_none() => {
                self.body = Some(Body::Length(decimal(value).ok_or(Malformed)?));
            }
            // both, or twice: a service that is asked like this by a gateway has found a defect
            14 if name.eq_ignore_ascii_case("content-length") => return Err(Malformed),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.body.is_some() || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                self.body = Some(Body::Chunked(Chunks::Size(0, 0)));
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                let has =
                    |option: &[u8]| value.split(|b| *b == b',').any(|o| o.trim_ascii().eq_ignore_ascii_case(option));
                self.closes = has(b"close") || (self.closes && !has(b"keep-alive"));
            }
            6 if name.eq_ignore_ascii_case("expect") => self.expects = value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Ok(())
    }
}

fn decimal(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Body {
    /// Takes what belongs to the body from the beginning of `bytes`: how many those are, and whether the body ends with them.
    pub(super) fn drain(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        match self {
            Self::Length(left) => {
                let taken = (bytes.len() as u64).min(*left);
                *left -= taken;
                Ok((taken as usize, *left == 0))
            }
            Self::Chunked(chunks) => chunks.drain(bytes),
        }
    }
}

impl Chunks {
    fn drain(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            if let Self::Data(left) = self {
                let taken = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                at += taken;
                if *left == 0 {
                    *self = Self::Size(0, 0);
                }
                continue;
            }
            let (next, is_end) = self.after(bytes[at])?;
            *self = next;
            at += 1;
            if is_end {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// One byte of a line on, and whether the body ends with it.
    fn after(self, byte: u8) -> Result<(Self, bool), Malformed> {
        let next = match (self, byte) {
            (Self::Size(value, digits), _) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                if digits == CHUNK_DIGITS_MAX {
                    return Err(Malformed);
                }
                Self::Size(value << 4 | u64::from(digit), digits + 1)
            }
            (Self::Size(_, 0), _) => return Err(Malformed),
            (Self::Size(0, _) | Self::Extension(0), b'\n') => Self::Trailer(0),
            (Self::Size(value, _) | Self::Extension(value), b'\n') => Self::Data(value + 2),
            (Self::Size(value, _), b'\r' | b';' | b' ' | b'\t') => Self::Extension(value),
            (Self::Extension(value), _) => Self::Extension(value),
            (Self::Trailer(0), b'\n') => return Ok((self, true)),
            (Self::Trailer(_), b'\n') => Self::Trailer(0),
            (Self::Trailer(bytes), b'\r') => Self::Trailer(bytes),
            (Self::Trailer(bytes), _) if (bytes as usize) < HEAD_BYTES_MAX => Self::Trailer(bytes + 1),
            _ => return Err(Malformed),
        };
        Ok((next, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Head {
        head(text.as_bytes()).expect("a request").expect("whole")
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(head(&text.as_bytes()[..end]), Ok(None), "{end}");
        }
        let plain = Head { bytes: text.len(), is_head: false, closes: false, expects: false, body: None };
        assert_eq!(parsed(text), plain);
        // what follows is not its own
        assert_eq!(parsed(&format!("{text}{text}")), plain);
    }

    #[test]
    fn fields_that_matter_are_heeded() {
        assert!(parsed("HEAD / HTTP/1.1\r\n\r\n").is_head);
        assert!(parsed("GET / HTTP/1.1\r\nconnection: x, Close\r\n\r\n").closes);
        assert!(parsed("GET / HTTP/1.0\r\n\r\n").closes);
        assert!(!parsed("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").closes);
        let post = parsed("POST / HTTP/1.1\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!((post.body, post.expects), (Some(Body::Length(12)), true));
        assert_eq!(parsed("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").body, None);
        let chunked = parsed("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n");
        assert_eq!(chunked.body, Some(Body::Chunked(Chunks::Size(0, 0))));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "nonsense\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ] {
            assert_eq!(head(text.as_bytes()), Err(Malformed), "{text}");
        }
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(head(endless.as_bytes()), Err(Malformed));
    }

    #[test]
    fn a_body_ends_where_it_should_in_any_pieces() {
        let chunked = "5;x=\"y\"\r\nhello\r\n00B\r\n0\r\n\r\nhello!\r\n0\r\nx-sum: 1\r\n\r\n";
        let bodies = [(Body::Length(7), "0123456"), (Body::Chunked(Chunks::Size(0, 0)), chunked)];
        for (body, text) in bodies {
            let bytes = [text.as_bytes(), b"GET / HTTP/1.1\r\n\r\n"].concat();
            for piece in [1, 2, 3, 7, bytes.len()] {
                let (mut body, mut at, mut is_done) = (body, 0, false);
                while !is_done {
                    let (taken, done) = body.drain(&bytes[at..bytes.len().min(at + piece)]).expect("a body");
                    at += taken;
                    is_done = done;
                }
                assert_eq!(at, text.len(), "{text} by {piece}");
            }
        }
    }

    #[test]
    fn a_broken_chunk_is_refused() {
        for text in ["x\r\n", "\r\n", "-1\r\n", "123456789012\r\n", "5x\r\n"] {
            assert!(Chunks::Size(0, 0).drain(text.as_bytes()).is_err(), "{text}");
        }
    }
}
