//! What the tables share: feeding a head in every way it may arrive, and telling what came of it.

use http::Method;
use ringgate::error::ProxyError;
use ringgate::http::Parsed;
use ringgate::http::fields::HeadScratch;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::response::ResponseHead;
use ringgate::http::scan::HeadScanner;

/// All that a caller can see of a head, so that two ways to the same head can be compared.
pub(crate) type Seen = Result<Option<String>, ProxyError>;

pub(crate) fn see_request(buf: &[u8], policy: &HeadPolicy) -> Seen {
    let mut scratch = HeadScratch::default();
    match RequestHead::parse(buf, policy, &mut scratch)? {
        Parsed::Partial => Ok(None),
        Parsed::Complete(head) => Ok(Some(describe_request(&head))),
    }
}

pub(crate) fn see_response(buf: &[u8], method: &Method) -> Seen {
    let mut scratch = HeadScratch::default();
    match ResponseHead::parse(buf, method, &mut scratch)? {
        Parsed::Partial => Ok(None),
        Parsed::Complete(head) => Ok(Some(describe_response(&head))),
    }
}

/// `METHOD path?query host framing persistent`, then what is set beyond it.
pub(crate) fn describe_request(head: &RequestHead<'_>) -> String {
    let query = head.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut text = format!("{} {}{query} {}", head.method(), head.path(), head.host().unwrap_or("-"));
    text += &format!(" {:?} {}", head.framing(), if head.is_persistent() { "keep" } else { "close" });
    if head.expects_continue() {
        text += " continue";
    }
    if let Some(upgrade) = head.upgrade() {
        text += &format!(" upgrade={}", upgrade.as_bytes().escape_ascii());
    }
    for (name, value) in head.fields().iter() {
        text += &format!(" | {}: {}", name.escape_ascii(), value.escape_ascii());
    }
    text
}

pub(crate) fn describe_response(head: &ResponseHead<'_>) -> String {
    let mut text = format!("{} {:?} {:?}", head.status().as_str(), head.reason(), head.framing());
    text += if head.is_persistent() { " keep" } else { " close" };
    for (name, value) in head.fields().iter() {
        text += &format!(" | {}: {}", name.escape_ascii(), value.escape_ascii());
    }
    text
}

/// Feeds `bytes` whole, in two parts split everywhere, and one at a time; all must end the same. What the scanner leaves unparsed
/// when the bytes end is parsed once more, as the gateway does when a deadline or the end of the stream comes.
pub(crate) fn fed_every_way(bytes: &[u8], see: impl Fn(&[u8]) -> Seen) -> Seen {
    let whole = see(bytes);
    for split in 1..bytes.len() {
        let parts = arrive(bytes, &[split, bytes.len()], &see);
        assert_eq!(parts, whole, "split at {split}: {}", bytes.escape_ascii());
    }
    let ends: Vec<usize> = (1..=bytes.len()).collect();
    assert_eq!(arrive(bytes, &ends, &see), whole, "one byte at a time: {}", bytes.escape_ascii());
    whole
}

fn arrive(bytes: &[u8], ends: &[usize], see: impl Fn(&[u8]) -> Seen) -> Seen {
    let mut scanner = HeadScanner::default();
    for &end in ends {
        if !scanner.is_ready(&bytes[..end]) {
            continue;
        }
        match see(&bytes[..end]) {
            Ok(None) => {}
            seen => return seen,
        }
    }
    see(bytes)
}
