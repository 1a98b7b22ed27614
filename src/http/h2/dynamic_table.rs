//! The fields that one peer has taught one decoder (RFC 7541 §2.3.2, §4).
//!
//! Kept as bytes, names and values one behind the other, and a row each: a table of ten fields is half a kilobyte, and a connection whose
//! peer teaches nothing has none at all. What is thrown out leaves a gap at the front, which is closed when there is no room at the end.

use super::name::What;
use std::collections::VecDeque;

/// The size that we let a peer fill, in bytes as §4.1 counts them: the default of SETTINGS_HEADER_TABLE_SIZE (RFC 9113 §6.5.2).
pub const TABLE_BYTES_MAX: usize = 4_096;
/// What a row counts beyond its name and value (§4.1).
pub(super) const FIELD_OVERHEAD: usize = 32;
/// Bytes of memory for them, at most: half as much again, so that the gap is closed once for two kilobytes that were added.
const MEMORY_MAX: usize = TABLE_BYTES_MAX + TABLE_BYTES_MAX / 2;

/// A row.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Where its name begins, in bytes since the first one that was ever added; wraps.
    at: u32,
    name_len: u16,
    value_len: u16,
    what: What,
}

impl Row {
    fn size(&self) -> usize {
        usize::from(self.name_len) + usize::from(self.value_len) + FIELD_OVERHEAD
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct DynamicTable {
    bytes: Vec<u8>,
    /// The newest first.
    rows: VecDeque<Row>,
    /// What `at` of a row at the front of `bytes` is.
    base: u32,
    size: usize,
    /// [`TABLE_BYTES_MAX`] less what it was lowered by.
    lowered: usize,
}

impl DynamicTable {
    /// The peer's encoder uses no more than this from now on (§6.3); at most [`TABLE_BYTES_MAX`].
    pub(super) fn set_max(&mut self, bytes: usize) {
        debug_assert!(bytes <= TABLE_BYTES_MAX, "the caller has compared");
        self.lowered = TABLE_BYTES_MAX - bytes;
        self.make_room(0);
    }

    /// Its size as §4.1 counts it.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Bytes of memory that it holds.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity() + self.rows.capacity() * size_of::<Row>()
    }

    fn max(&self) -> usize {
        TABLE_BYTES_MAX - self.lowered
    }

    /// The field with this index, counted from 0: the newest.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8], What)> {
        let row = self.rows.get(index)?;
        let start = row.at.wrapping_sub(self.base) as usize;
        let (name, rest) = self.bytes[start..].split_at(usize::from(row.name_len));
        Some((name, &rest[..usize::from(row.value_len)], row.what))
    }

    /// Adds a field; one that is larger than the table empties it (§4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], what: What) {
        let bytes = name.len() + value.len();
        self.make_room(bytes + FIELD_OVERHEAD);
        if bytes + FIELD_OVERHEAD > self.max() {
            return;
        }
        if self.bytes.len() + bytes > self.bytes.capacity() {
            self.grow(bytes);
        }
        let row = Row {
            at: self.base.wrapping_add(self.bytes.len() as u32),
            name_len: name.len() as u16,
            value_len: value.len() as u16,
            what,
        };
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.rows.push_front(row);
        self.size += row.size();
    }

    /// Throws the oldest out until `bytes` more fit, or none is left.
    fn make_room(&mut self, bytes: usize) {
        while self.size + bytes > self.max() {
            let Some(row) = self.rows.pop_back() else { return };
            self.size -= row.size();
        }
    }

    /// Gives back the room that it has for more.
    pub(super) fn shrink(&mut self) {
        self.close_gap();
        self.bytes.shrink_to_fit();
        self.rows.shrink_to_fit();
    }

    /// Moves what it has to the front; how far.
    fn close_gap(&mut self) -> usize {
        let gap = self.rows.back().map_or(self.bytes.len(), |oldest| oldest.at.wrapping_sub(self.base) as usize);
        self.bytes.drain(..gap);
        self.base = self.base.wrapping_add(gap as u32);
        gap
    }

    fn grow(&mut self, bytes: usize) {
        let gap = self.close_gap();
        let needed = self.bytes.len() + bytes;
        // grows by halves, so that a table of a few fields stays small; a full one gets what it can ever need
        if needed > self.bytes.capacity() || (gap < bytes && self.bytes.capacity() < MEMORY_MAX) {
            let wanted = (needed + needed / 2).clamp(64, MEMORY_MAX.max(needed));
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fields::Kind;
    use proptest::prelude::*;

    const OTHER: What = What::Field(Kind::Other);

    fn list(table: &DynamicTable) -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..).map_while(|i| table.get(i)).map(|(name, value, _)| (name.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn the_newest_has_the_first_index_and_the_oldest_leaves_first() {
        let mut table = DynamicTable::default();
        table.set_max(3 * 34);
        for name in [b"a", b"b", b"c", b"d"] {
            table.insert(name, b"1", OTHER);
        }
        let names: Vec<_> = list(&table).into_iter().map(|(name, _)| name).collect();
        assert_eq!((names, table.size()), (vec![b"d".to_vec(), b"c".to_vec(), b"b".to_vec()], 102));
        assert_eq!(table.get(3), None);
        table.set_max(40);
        assert_eq!((list(&table).len(), table.size()), (1, 34));
        table.insert(b"too", b"large", OTHER);
        assert_eq!((list(&table).len(), table.size()), (1, 40));
        table.insert(b"toomuch", b"large", OTHER);
        assert_eq!((list(&table).len(), table.size()), (0, 0), "RFC 7541 §4.4");
        table.set_max(0);
        table.insert(b"", b"", OTHER);
        assert_eq!(table.size(), 0);
    }

    /// Against a list of pairs, for as long as it takes for `base` to move often.
    #[test]
    fn it_is_the_same_as_a_plain_list_and_its_memory_is_bounded() {
        proptest!(|(steps in proptest::collection::vec((0_usize..80, 0_usize..1_200, 0_usize..20), 1..400))| {
            let (mut table, mut plain, mut max) = (DynamicTable::default(), Vec::new(), TABLE_BYTES_MAX);
            for (n, (name, value, resize)) in steps.into_iter().enumerate() {
                if resize == 0 {
                    max = value * 3;
                    table.set_max(max);
                } else if resize == 1 {
                    table.shrink();
                    prop_assert!(table.memory() <= table.size(), "no room for more");
                } else {
                    let field = (vec![n as u8; name], vec![!(n as u8); value]);
                    table.insert(&field.0, &field.1, OTHER);
                    plain.insert(0, field);
                }
                let mut size = 0;
                plain = plain.into_iter().take_while(|(name, value)| {
                    size += name.len() + value.len() + FIELD_OVERHEAD;
                    size <= max
                }).collect();
                prop_assert_eq!(list(&table), plain.clone());
                prop_assert!(table.size() <= max && table.memory() <= MEMORY_MAX + 128 * size_of::<Row>());
            }
        });
    }

    #[test]
    fn a_small_table_takes_little_memory_and_none_takes_none() {
        let mut table = DynamicTable::default();
        assert_eq!(table.memory(), 0);
        for n in 0..10_u8 {
            table.insert(b"x-some-field", &[b'0' + n; 12], OTHER);
        }
        assert!(table.memory() < 700, "{}", table.memory());
        table.shrink();
        assert_eq!(table.memory(), 10 * (12 + 12 + size_of::<Row>()));
    }
}
