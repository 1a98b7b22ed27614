//! Tables of fields that both sides know (RFC 7541 §2.3): the static one, and what a server has added to the dynamic one.

use std::collections::VecDeque;

/// What a dynamic table may take at first, in bytes (RFC 9113 §6.5.2), and here at any time.
pub(super) const TABLE_BYTES: usize = 4_096;
/// What an entry takes besides its bytes (RFC 7541 §4.1).
pub(super) const ENTRY_BYTES: usize = 32;

/// RFC 7541 appendix A; the first one has index 1.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Name and value.
type Entry = (Box<[u8]>, Box<[u8]>);

/// Fields that were added, the youngest first.
#[derive(Debug)]
pub(super) struct Dynamic {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Dynamic {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES }
    }

    /// The field with this index, static ones before dynamic ones (RFC 7541 §2.3.3).
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let row = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(row) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        self.entries.get(row - STATIC.len()).map(|(name, value)| (&name[..], &value[..]))
    }

    /// Adds one, for which the eldest make room; one that is larger than the table empties it (RFC 7541 §4.4).
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        let bytes = name.len() + value.len() + ENTRY_BYTES;
        self.shrink(self.bytes_max.saturating_sub(bytes));
        if bytes <= self.bytes_max {
            self.entries.push_front((name.into(), value.into()));
            self.bytes += bytes;
        }
    }

    /// Takes so many bytes at most from now on; false: more than were offered.
    pub(super) fn resize(&mut self, bytes_max: usize) -> bool {
        if bytes_max > TABLE_BYTES {
            return false;
        }
        self.bytes_max = bytes_max;
        self.shrink(bytes_max);
        true
    }

    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some((name, value)) = self.entries.pop_back() else { break };
            self.bytes -= name.len() + value.len() + ENTRY_BYTES;
        }
    }
}
