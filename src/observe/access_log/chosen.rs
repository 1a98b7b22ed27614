//! Fields that the file has chosen for the log (`access_log.fields`), as they lie in a record.
//!
//! Each is its row in the list, its length in two bytes, and its bytes. What is not there has no entry, so a request without any costs nothing; of
//! a row that stands there twice the last one counts, because a response that was begun anew replaces the one before.

use crate::limits::{LOG_CHOSEN_BYTES_MAX, LOG_CHOSEN_ONE_BYTES_MAX};

const HEAD_BYTES: usize = 3;

/// Appends the field of this row: what `write` appends, cut at [`LOG_CHOSEN_ONE_BYTES_MAX`]. Where that is nothing, where it says so, or where all that
/// stands from `start` on would be more than [`LOG_CHOSEN_BYTES_MAX`], nothing is appended.
pub fn push(out: &mut Vec<u8>, start: usize, row: usize, write: impl FnOnce(&mut Vec<u8>) -> bool) {
    let at = out.len();
    // LOG_CHOSEN_MAX fits in a byte
    out.extend_from_slice(&[row as u8, 0, 0]);
    let is_there = write(out);
    let end = out.len().min(at + HEAD_BYTES + LOG_CHOSEN_ONE_BYTES_MAX);
    out.truncate(end);
    let bytes = end - at - HEAD_BYTES;
    if !is_there || bytes == 0 || end - start > LOG_CHOSEN_BYTES_MAX {
        return out.truncate(at);
    }
    // LOG_CHOSEN_ONE_BYTES_MAX fits in 16 bits
    out[at + 1..at + HEAD_BYTES].copy_from_slice(&(bytes as u16).to_le_bytes());
}

/// The field of this row; empty where there is none.
pub(super) fn field(mut packed: &[u8], row: usize) -> &[u8] {
    let mut found = &[][..];
    while let Some(([at, low, high], rest)) = packed.split_first_chunk::<HEAD_BYTES>() {
        let Some((bytes, rest)) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into()) else { break };
        if usize::from(*at) == row {
            found = bytes;
        }
        packed = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(out: &mut Vec<u8>, row: usize, text: &[u8]) {
        push(out, 0, row, |out| {
            out.extend_from_slice(text);
            true
        });
    }

    #[test]
    fn fields_are_found_by_their_row_and_the_last_one_counts() {
        let mut packed = Vec::new();
        add(&mut packed, 2, b"two");
        add(&mut packed, 0, b"");
        push(&mut packed, 0, 1, |out| {
            out.extend_from_slice(b"half");
            false
        });
        assert_eq!([0, 1, 2, 3].map(|row| field(&packed, row)), [&b""[..], b"", b"two", b""]);
        add(&mut packed, 2, b"again");
        assert_eq!(field(&packed, 2), b"again");
        for len in 0..packed.len() {
            field(&packed[..len], 2);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_does_not_fit_is_left_out() {
        let (mut packed, long) = (vec![0; 5], vec![b'a'; 100_000]);
        for row in 0..20 {
            push(&mut packed, 5, row, |out| {
                out.extend_from_slice(&long);
                true
            });
        }
        assert!(packed.len() - 5 <= LOG_CHOSEN_BYTES_MAX);
        assert_eq!(field(&packed[5..], 0).len(), LOG_CHOSEN_ONE_BYTES_MAX);
        assert_eq!(field(&packed[5..], 19).len(), 0);
    }
}
