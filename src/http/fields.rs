//! The header section of a head: a table of where each field stands, what it is, and whether it may go on.
//!
//! One pass, for a request over what httparse found and for a response over its bytes (`lines`), does three things: it makes the parse
//! strict (httparse takes bare LFs; RFC 9112 §2.2 lets us refuse them), it sorts the fields whose meaning the gateway must know by length
//! and spelling, and it notes what they say. The table holds offsets, not slices, so that it is 16 bytes a field, can be kept by the
//! connection, and lets runs of unchanged lines be copied with one move.
//!
//! What it does not do: judge what the fields mean for this side; that is [`crate::http::head`] and [`crate::http::response`].

use super::framing::LengthFields;
use super::text::{is_token, list};
use crate::config::Underscores;
use crate::error::Rule;
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
    /// Has an underscore in its name where that is refused.
    Refused,
    Server,
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
    Via,
}

impl Kind {
    /// Whether the value of such a field matters to nobody who frames a message or manages a connection.
    pub(super) fn says_nothing(self) -> bool {
        matches!(self, Self::Other | Self::EndToEnd | Self::Server | Self::Date)
    }
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
    /// The path without empty segments.
    pub(super) merged: String,
    pub(super) host: String,
    /// A head whose minor version is above 1, as 1.1.
    pub(super) restated: Vec<u8>,
    /// What is wrong with the last head.
    pub(super) broken: Option<Rule>,
}

impl HeadScratch {
    /// The rule that the last request's head has broken, if it was refused with [`ProxyError::BadRequest`](crate::error::ProxyError).
    #[must_use]
    pub fn broken_rule(&self) -> Option<Rule> {
        self.broken
    }

    /// Bytes that its room takes.
    pub(super) fn room_bytes(&self) -> usize {
        let Self { fields, path, merged, host, restated, .. } = self;
        let texts = path.capacity() + merged.capacity() + host.capacity() + restated.capacity();
        texts + fields.capacity() * size_of::<Field>()
    }
}

/// The fields of a parsed head; a cheap view.
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

    /// All fields, names as they were sent, but for those that [`Fields::get`] does not see.
    pub fn iter(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        let buf = self.buf;
        self.table.iter().filter(|f| f.kind != Kind::Dropped).map(move |f| (f.name(buf), f.value(buf)))
    }

    /// All that the `Connection` fields name, at most [`limits::CONNECTION_OPTIONS_MAX`] of a head that nominates any. Taken apart once:
    /// the fields may be as long as the head, and every trailer is compared.
    pub(super) fn nominated(&self) -> Vec<Box<[u8]>> {
        self.of(Kind::Connection).flat_map(list).map(Box::from).collect()
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
    pub(super) nominates: bool,
}

/// Reads the header section of `buf`, which is exactly one head, into `table`.
///
/// # Errors
/// A line that does not end in CRLF, a bad option in `Connection`, too many of them, a name that is refused.
pub(super) fn read<'b>(
    buf: &'b [u8],
    headers: &[httparse::Header<'b>],
    underscores: Underscores,
    table: &mut Vec<Field>,
) -> Result<Seen<'b>, Rule> {
    table.clear();
    table.reserve(headers.len());
    let mut seen = Seen::default();
    for header in headers {
        let name = header.name.as_bytes();
        let (name_start, value_start) = (offset(buf, name), offset(buf, header.value));
        // RFC 9112 §2.2: the line before ends in CRLF; a bare LF is where parsers disagree
        if name_start < 2 || buf[name_start - 2] != b'\r' {
            return Err(Rule::LineEnd);
        }
        if let Some(previous) = table.last_mut() {
            previous.canonical &= previous.line_end() == name_start;
        }
        let kind = classify(name, underscores);
        let refused = if kind == Kind::Refused { Rule::Underscore } else { Rule::Connection };
        if !kind.says_nothing() {
            seen.note(kind, header.value).map_err(|_| refused)?;
        }
        let colon = name_start + name.len();
        table.push(Field {
            name_start: name_start as u32,
            value_start: value_start as u32,
            value_len: header.value.len() as u32,
            name_len: u16::try_from(name.len()).map_err(|_| Rule::HeaderName)?,
            kind,
            canonical: value_start == colon + 2 && buf[colon + 1] == b' ',
        });
    }
    if !buf.ends_with(b"\r\n\r\n") {
        return Err(Rule::LineEnd);
    }
    if let Some(last) = table.last_mut() {
        last.canonical &= last.line_end() == buf.len() - 2;
    }
    seen.settle(buf, table).map_err(|_| Rule::Connection)?;
    Ok(seen)
}

/// Where `part`, a slice of `buf`, begins in it.
pub(super) fn offset(buf: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - buf.as_ptr() as usize
}

impl<'b> Seen<'b> {
    /// Notes one field.
    pub(super) fn note(&mut self, kind: Kind, value: &'b [u8]) -> Result<(), Malformed> {
        match kind {
            Kind::Other | Kind::EndToEnd => {}
            Kind::Refused => return Err(Malformed),
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

    /// The same without the texts that it borrows.
    pub(super) fn without_texts(&self) -> Seen<'static> {
        let Self { lengths, hosts, close, keep_alive, upgrade_option, trailers, expect, nominates, .. } = *self;
        let (host, upgrade) = (None, None);
        Seen { lengths, host, hosts, close, keep_alive, upgrade_option, upgrade, trailers, expect, nominates }
    }

    /// Marks what was nominated, when all fields are in the table.
    pub(super) fn settle(&self, buf: &[u8], table: &mut [Field]) -> Result<(), Malformed> {
        if self.nominates { drop_nominated(buf, table) } else { Ok(()) }
    }

    fn note_options(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if is(value, b"keep-alive") {
            // nearly all of them
            self.keep_alive = true;
            return Ok(());
        }
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

/// What a field is, by its length and first letter: most names are settled by one jump. `name` is a token.
pub(super) fn classify(name: &[u8], underscores: Underscores) -> Kind {
    let first = name.first().map_or(0, |first| first | 0x20);
    match (name.len(), first) {
        (2, b't') if is(name, b"te") => Kind::Te,
        (3, b'v') if is(name, b"via") => Kind::Via,
        (4, b'h') if is(name, b"host") => Kind::Host,
        (4, b'd') if is(name, b"date") => Kind::Date,
        (5, b'p') if is(name, b"proxy") => Kind::Dropped, // becomes HTTP_PROXY in a CGI's environment ("httpoxy")
        (6, b'e') if is(name, b"expect") => Kind::Expect,
        (6, b'c') if is(name, b"cookie") => Kind::EndToEnd,
        (6, b's') if is(name, b"server") => Kind::Server,
        (7, b'u') if is(name, b"upgrade") => Kind::Upgrade,
        (7, b't') if is(name, b"trailer") => Kind::Trailer,
        (8, b'l') if is(name, b"location") => Kind::EndToEnd,
        (9, b'x') if is(name, b"x-real-ip") => Kind::ForwardedOther,
        (9, b'f') if is(name, b"forwarded") => Kind::ForwardedOther,
        (10, b'c') if is(name, b"connection") => Kind::Connection,
        (10, b'k') if is(name, b"keep-alive") => Kind::KeepAlive,
        (10, b's') if is(name, b"set-cookie") => Kind::EndToEnd,
        (11, b'r') if is(name, b"retry-after") => Kind::RetryAfter,
        (12, b'x') if is(name, b"x-request-id") => Kind::XRequestId,
        (12, b'm') if is(name, b"max-forwards") => Kind::MaxForwards,
        (12, b'c') if is(name, b"content-type") => Kind::EndToEnd,
        (13, b'a') if is(name, b"authorization") => Kind::EndToEnd,
        (13, b'c') if is(name, b"cache-control") || is(name, b"content-range") => Kind::EndToEnd,
        (14, b'c') if is(name, b"content-length") => Kind::ContentLength,
        (14, b'h') if is(name, b"http2-settings") => Kind::Dropped, // RFC 9113 §3.1: of an upgrade that is never forwarded
        (15, b'x') if is(name, b"x-forwarded-for") => Kind::XForwardedFor,
        (16, b'x') if is(name, b"x-forwarded-host") => Kind::XForwardedHost,
        (16, b'p') if is(name, b"proxy-connection") => Kind::Dropped,
        (16, b'c') if is(name, b"content-encoding") => Kind::EndToEnd,
        (16, b'w') if is(name, b"www-authenticate") => Kind::EndToEnd,
        (17, b'x') if is(name, b"x-forwarded-proto") => Kind::XForwardedProto,
        (17, b't') if is(name, b"transfer-encoding") => Kind::TransferEncoding,
        // RFC 9110 §11.7: between a client and its proxy, which the gateway is not
        (18, b'p') if is(name, b"proxy-authenticate") => Kind::Dropped,
        (19, b'p') if is(name, b"proxy-authorization") => Kind::Dropped,
        (25, b'p') if is(name, b"proxy-authentication-info") => Kind::Dropped,
        // CGI and its heirs cannot tell `X_User` from `X-User`; nor `X-Forwarded-Client_Cert`, which is why this comes first
        _ if underscores != Underscores::Keep && name.iter().fold(false, |found, &b| found | (b == b'_')) => {
            if underscores == Underscores::Drop {
                Kind::Dropped
            } else {
                Kind::Refused
            }
        }
        (12.., b'x') if is(&name[..12], b"x-forwarded-") => Kind::ForwardedOther,
        _ => Kind::Other,
    }
}

/// Whether the token `name` is `lower`, in any case. Known lengths make this a few instructions. Setting the bit that tells cases apart
/// changes, among what tokens are made of, only letters, `^` and `_`, and makes of those two what stands in no known name; of what else a
/// value may hold, only HTAB, which becomes `)`.
#[inline(always)] // a call costs more than the comparison
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    let mut difference = 0;
    for at in 0..N {
        difference |= (name[at] | 0x20) ^ lower[at];
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Parsed;
    use crate::http::head::{HeadPolicy, RequestHead};

    #[test]
    fn known_names_are_known_in_any_case_and_nothing_else_is() {
        for (name, kind) in [
            ("host", Kind::Host),
            ("content-length", Kind::ContentLength),
            ("transfer-encoding", Kind::TransferEncoding),
            ("connection", Kind::Connection),
            ("x-forwarded-for", Kind::XForwardedFor),
            ("x-forwarded-port", Kind::ForwardedOther),
            ("x-forwarded-", Kind::ForwardedOther),
            ("forwarded", Kind::ForwardedOther),
            ("proxy-authorization", Kind::Dropped),
            ("proxy-status", Kind::Other),
            ("x-forwarded", Kind::Other),
            ("server", Kind::Server),
            ("hosts", Kind::Other),
            ("hos", Kind::Other),
            ("hose", Kind::Other),
        ] {
            assert_eq!(classify(name.as_bytes(), Underscores::Drop), kind, "{name}");
            assert_eq!(classify(name.to_uppercase().as_bytes(), Underscores::Drop), kind, "{name}");
            assert_eq!(
                classify(name.replace('-', "_").as_bytes(), Underscores::Drop) == kind,
                !name.contains('-') || kind == Kind::Dropped
            );
        }
        assert_eq!(classify(b"", Underscores::Drop), Kind::Other);
    }

    /// Each trailer is compared with them: what is compared must be names, few of them, and not a field's text read again.
    #[test]
    fn what_connection_nominates_is_taken_apart_once() {
        for (connection, names) in [(format!("close, b{}", ", ".repeat(7_000)), 2), ("b".repeat(14_000), 1)] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            let mut scratch = HeadScratch::default();
            let parsed = RequestHead::parse(head.as_bytes(), &HeadPolicy::default(), &mut scratch);
            let Ok(Parsed::Complete(head)) = parsed else { panic!("{parsed:?}") };
            assert_eq!(head.fields().nominated().len(), names);
        }
    }
}
