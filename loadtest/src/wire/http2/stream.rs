//! One stream of a client (RFC 9113 §8.1): a request that goes up, and its answer.

use crate::load::Target;
use crate::wire::Failure;

/// Of a body that is looked into, so much is looked at.
const LOOKED_AT_MAX: usize = 1 << 20;

/// What has come of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing, or interim heads.
    Head,
    /// Its head.
    Body,
}

#[derive(Debug)]
pub(super) struct Stream {
    /// Row of the load's targets.
    pub(super) target: u32,
    at: At,
    status: u16,
    /// Bytes of the body, as the head says.
    length: Option<u64>,
    body_bytes: u64,
    looked_at: Vec<u8>,
    /// What may go up.
    pub(super) window: i64,
    /// What may come before it is told that it may be more.
    pub(super) room: i64,
    /// Bytes of the request's body that have gone.
    pub(super) gone: usize,
}

impl Stream {
    pub(super) fn new(target: u32, window: i64, room: i64) -> Self {
        Self {
            target,
            at: At::Head,
            status: 0,
            length: None,
            body_bytes: 0,
            looked_at: Vec::new(),
            window,
            room,
            gone: 0,
        }
    }

    /// A head or trailers came, of these fields; says whether the answer is whole.
    ///
    /// # Errors
    /// It is malformed (§8.1.1).
    pub(super) fn head(&mut self, fields: &Fields, ends: bool, target: &Target) -> Result<bool, Failure> {
        if fields.is_malformed {
            return Err(Failure::Garbage);
        }
        match (self.at, fields.status) {
            // trailers, which end it
            (At::Body, None) if ends => {}
            (At::Head, Some(100..=199)) if fields.status != Some(101) && !ends => return Ok(false),
            (At::Head, Some(status @ 200..=999)) => {
                let has_none = target.method == "HEAD" || status == 204 || status == 304;
                self.length = fields.length.filter(|_| !has_none);
                (self.at, self.status) = (At::Body, status);
            }
            _ => return Err(Failure::Garbage),
        }
        self.is_whole(ends)
    }

    /// Data came; says whether the answer is whole.
    ///
    /// # Errors
    /// There was no head, or it is more than that says.
    pub(super) fn data(&mut self, data: &[u8], ends: bool, target: &Target) -> Result<bool, Failure> {
        if self.at != At::Body {
            return Err(Failure::Garbage);
        }
        self.body_bytes += data.len() as u64;
        if target.body_has.is_some() {
            let room = LOOKED_AT_MAX - self.looked_at.len();
            self.looked_at.extend_from_slice(&data[..data.len().min(room)]);
        }
        self.is_whole(ends)
    }

    fn is_whole(&self, ends: bool) -> Result<bool, Failure> {
        match self.length {
            Some(length) if self.body_bytes > length || (ends && self.body_bytes < length) => Err(Failure::Garbage),
            _ => Ok(ends),
        }
    }

    /// Its status, and what is wrong with the answer, which is whole.
    pub(super) fn judged(&self, target: &Target) -> (u16, Option<Failure>) {
        let misses = |wanted: &[u8]| !self.looked_at.windows(wanted.len().max(1)).any(|part| part == wanted);
        let failure = match &target.body_has {
            _ if !target.status.contains(&self.status) => Some(Failure::Status),
            Some(wanted) if misses(wanted) => Some(Failure::Body),
            _ => None,
        };
        (self.status, failure)
    }
}

/// What a head says that a client has to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    status: Option<u16>,
    length: Option<u64>,
    is_malformed: bool,
    has_ordinary: bool,
}

impl Fields {
    /// The next field of it.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        if name.first() == Some(&b':') {
            let is_status = name == b":status" && value.len() == 3 && value.iter().all(u8::is_ascii_digit);
            self.is_malformed |= !is_status || self.status.is_some() || self.has_ordinary;
            self.status = Some(value.iter().fold(0, |status, digit| status * 10 + u16::from(digit.wrapping_sub(b'0'))));
            return;
        }
        self.has_ordinary = true;
        let is_name = !name.is_empty() && !name.iter().any(|byte| matches!(byte, 0..=b' ' | b'A'..=b'Z' | 0x7f..));
        let is_value = !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
        let is_of_http1 =
            matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade");
        self.is_malformed |= !is_name || !is_value || is_of_http1;
        if name == b"content-length" {
            let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
            self.is_malformed |= length.is_none() || self.length.is_some_and(|other| Some(other) != length);
            self.length = length;
        }
    }
}
