//! The header section of a head: a table of where each field stands, what it is, and whether it may go on.
//!
//! One pass over what httparse found does three things: it makes the parse strict (httparse takes bare LFs; RFC 9112 §2.2 lets us
//! refuse them), it sorts the fields whose meaning the gateway must know by length and spelling, and it notes what they say. The
//! table holds offsets, not slices, so that it is 16 bytes a field, can be kept by the connection, and lets runs of unchanged
//! lines be copied with one move.
//!
//! What it does not do: judge what the fields mean for this side; that is [`crate::http::head`] and [`crate::http::response`].

use super::framing::LengthFields;
use super::text::{is_token, list};
use crate::limits;

/// What a field is to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes on; the gateway does not know it.
    Other,
    /// Goes on even when `Connection` nominates it: meant for the recipient at the end (RFC 9110 §7.6.1).
    EndToEnd,
    /// Never goes on: hop-by-hop, nominated by `Connection`, or with an underscore in its name.
    Dropped,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    Te,
    Trailer,
    Upgrade,
    Expect,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    /// `Forwarded`, `X-Real-IP` and the rest of `X-Forwarded-*`.
    ForwardedOther,
    XRequestId,
    Date,
    RetryAfter,
    MaxForwards,
}

/// One field: offsets into the buffer that holds the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name_start: u32,
    pub(super) value_start: u32,
    pub(super) value_len: u32,
    pub(super) name_len: u16,
    pub(super) kind: Kind,
    /// Whether the line is exactly `name: value CRLF`, so that it may be copied as it stands.
    pub(super) canonical: bool,
}

const _: () = assert!(size_of::<Field>() == 16);

impl Field {
    pub(super) fn name<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        &buf[self.name_start as usize..][..self.name_len as usize]
    }

    pub(super) fn value<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        &buf[self.value_start as usize..][..self.value_len as usize]
    }

    /// Where the next line begins, if this one is canonical.
    pub(super) fn line_end(&self) -> usize {
        self.value_start as usize + self.value_len as usize + 2
    }
}

/// Buffers that a head is parsed into, kept by the caller from one head to the next. A fresh one grows with its first head.
#[derive(Debug, Default)]
pub struct HeadScratch {
    pub(super) fields: Vec<Field>,
    pub(super) path: String,
    pub(super) host: String,
}

/// The fields of a parsed head that are meant for others than the gateway's neighbour; a cheap view.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b> {
    pub(super) buf: &'b [u8],
    pub(super) table: &'b [Field],
}

impl<'b> Fields<'b> {
    /// The value of the first field `name`, which is compared without case. Not seen: fields that are never passed on (nominated
    /// by `Connection`, dropped for an underscore), so that nothing is decided on what the endpoint will not see.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.get_all(name).next()
    }

    /// The values of all fields `name`, in order; see [`Fields::get`].
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        let (buf, table) = (self.buf, self.table);
        let wanted = move |f: &&Field| {
            usize::from(f.name_len) == name.len()
                && f.kind != Kind::Dropped
                && f.name(buf).eq_ignore_ascii_case(name.as_bytes())
        };
        table.iter().filter(wanted).map(move |f| f.value(buf))
    }

    /// All fields, names as they were sent, those that are never passed on left out.
    pub fn iter(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        let buf = self.buf;
        self.table.iter().filter(|f| f.kind != Kind::Dropped).map(move |f| (f.name(buf), f.value(buf)))
    }

    /// The values of all fields of a kind, in order.
    pub(super) fn of(&self, kind: Kind) -> impl DoubleEndedIterator<Item = &'b [u8]> + use<'b> {
        let buf = self.buf;
        self.table.iter().filter(move |f| f.kind == kind).map(move |f| f.value(buf))
    }
}

/// The header section breaks a rule of RFC 9112; which side's fault that is, the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What an `Expect` field asks for (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expectation {
    #[default]
    None,
    Continue,
    Unknown,
}

/// What the fields said, noted in the one pass over them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen<'b> {
    pub(super) lengths: LengthFields,
    /// The value of `Host`.
    pub(super) host: Option<&'b [u8]>,
    pub(super) hosts: u32,
    /// `Connection: close`
    pub(super) close: bool,
    /// `Connection: keep-alive`
    pub(super) keep_alive: bool,
    /// `Connection: upgrade`
    pub(super) upgrade_option: bool,
    /// The value of `Upgrade`.
    pub(super) upgrade: Option<&'b [u8]>,
    /// `TE: trailers`
    pub(super) trailers: bool,
    pub(super) expect: Expectation,
    /// A `Connection` field names something that is not one of the options above.
    nominates: bool,
}

/// Reads the header section of `buf`, which is exactly one head, into `table`.
///
/// # Errors
/// [`Malformed`]: a line that does not end in CRLF, a bad option in `Connection`, too many of them.
pub(super) fn read<'b>(
    buf: &'b [u8],
    headers: &[httparse::Header<'b>],
    keep_underscores: bool,
    table: &mut Vec<Field>,
) -> Result<Seen<'b>, Malformed> {
    table.clear();
    let mut seen = Seen::default();
    for header in headers {
        let name = header.name.as_bytes();
        let (name_start, value_start) = (offset(buf, name), offset(buf, header.value));
        // RFC 9112 §2.2: the line before ends in CRLF; a bare LF is where parsers disagree
        if name_start < 2 || buf[name_start - 2] != b'\r' {
            return Err(Malformed);
        }
        if let Some(previous) = table.last_mut() {
            previous.canonical &= previous.line_end() == name_start;
        }
        let kind = classify(name, keep_underscores);
        if kind != Kind::Other {
            seen.note(kind, header.value)?;
        }
        let colon = name_start + name.len();
        table.push(Field {
            name_start: name_start as u32,
            value_start: value_start as u32,
            value_len: header.value.len() as u32,
            name_len: u16::try_from(name.len()).map_err(|_| Malformed)?,
            kind,
            canonical: value_start == colon + 2 && buf[colon + 1] == b' ',
        });
    }
    if !buf.ends_with(b"\r\n\r\n") {
        return Err(Malformed);
    }
    if let Some(last) = table.last_mut() {
        last.canonical &= last.line_end() == buf.len() - 2;
    }
    if seen.nominates {
        drop_nominated(buf, table)?;
    }
    Ok(seen)
}

/// Where `part`, a slice of `buf`, begins in it.
pub(super) fn offset(buf: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - buf.as_ptr() as usize
}

impl<'b> Seen<'b> {
    fn note(&mut self, kind: Kind, value: &'b [u8]) -> Result<(), Malformed> {
        match kind {
            Kind::Host => {
                self.hosts += 1;
                self.host = Some(value);
            }
            Kind::ContentLength => self.lengths.note_content_length(value),
            Kind::TransferEncoding => self.lengths.note_transfer_encoding(value),
            Kind::Connection => self.note_options(value)?,
            Kind::Upgrade => self.upgrade = Some(value),
            Kind::Te => self.trailers |= list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
            Kind::Expect => {
                let known = value.eq_ignore_ascii_case(b"100-continue") && self.expect != Expectation::Unknown;
                self.expect = if known { Expectation::Continue } else { Expectation::Unknown };
            }
            _ => {}
        }
        Ok(())
    }

    fn note_options(&mut self, value: &[u8]) -> Result<(), Malformed> {
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade_option = true;
            } else if is_token(option) {
                self.nominates = true;
            } else {
                return Err(Malformed); // RFC 9110 §7.6.1: connection-option = token
            }
        }
        Ok(())
    }
}

/// Marks what the `Connection` fields nominate as hop-by-hop (RFC 9110 §7.6.1), unless it is end-to-end by its definition: a client
/// must not be able to take `X-Forwarded-For` or `Authorization` off its own request.
fn drop_nominated(buf: &[u8], table: &mut [Field]) -> Result<(), Malformed> {
    let mut options = 0;
    for at in 0..table.len() {
        if table[at].kind != Kind::Connection {
            continue;
        }
        for option in list(table[at].value(buf)) {
            options += 1;
            if options > limits::CONNECTION_OPTIONS_MAX {
                return Err(Malformed);
            }
            for field in table.iter_mut().filter(|f| f.kind == Kind::Other && usize::from(f.name_len) == option.len()) {
                if field.name(buf).eq_ignore_ascii_case(option) {
                    field.kind = Kind::Dropped;
                }
            }
        }
    }
    Ok(())
}

/// What a field is, by its length first: most names are settled by one jump.
pub(super) fn classify(name: &[u8], keep_underscores: bool) -> Kind {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let kind = match name.len() {
        2 if is("te") => Kind::Te,
        3 if is("via") => Kind::EndToEnd,
        4 if is("host") => Kind::Host,
        4 if is("date") => Kind::Date,
        5 if is("proxy") => Kind::Dropped, // becomes HTTP_PROXY in a CGI's environment ("httpoxy")
        6 if is("expect") => Kind::Expect,
        6 if is("cookie") => Kind::EndToEnd,
        7 if is("upgrade") => Kind::Upgrade,
        7 if is("trailer") => Kind::Trailer,
        8 if is("location") => Kind::EndToEnd,
        9 if is("x-real-ip") || is("forwarded") => Kind::ForwardedOther,
        10 if is("connection") => Kind::Connection,
        10 if is("keep-alive") => Kind::KeepAlive,
        10 if is("set-cookie") => Kind::EndToEnd,
        11 if is("retry-after") => Kind::RetryAfter,
        12 if is("x-request-id") => Kind::XRequestId,
        12 if is("max-forwards") => Kind::MaxForwards,
        12 if is("content-type") => Kind::EndToEnd,
        13 if is("authorization") || is("cache-control") || is("content-range") => Kind::EndToEnd,
        14 if is("content-length") => Kind::ContentLength,
        14 if is("http2-settings") => Kind::Dropped, // RFC 9113 §3.1: belongs to an upgrade that is not forwarded
        15 if is("x-forwarded-for") => Kind::XForwardedFor,
        16 if is("x-forwarded-host") => Kind::XForwardedHost,
        16 if is("content-encoding") || is("www-authenticate") => Kind::EndToEnd,
        17 if is("x-forwarded-proto") => Kind::XForwardedProto,
        17 if is("transfer-encoding") => Kind::TransferEncoding,
        _ => Kind::Other,
    };
    if kind != Kind::Other {
        return kind;
    }
    if starts_with(name, b"x-forwarded-") {
        Kind::ForwardedOther
    } else if starts_with(name, b"proxy-") {
        Kind::Dropped // for this hop: Proxy-Connection, Proxy-Authorization (RFC 9110 §11.7) …
    } else if !keep_underscores && name.contains(&b'_') {
        Kind::Dropped // CGI and its heirs cannot tell `X_User` from `X-User`
    } else {
        Kind::Other
    }
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|front| front.eq_ignore_ascii_case(prefix))
}
