//! HPACK, the decoder (RFC 7541): a header block becomes a [`Section`], in one pass and without an allocation of its own.
//!
//! A connection has one decoder for its life, whatever becomes of its messages: a block that is too large, malformed or for a stream that is
//! refused is decoded like any other, because the next one refers to what it has added.

use super::dynamic_table::{DynamicTable, TABLE_BYTES_MAX};
use super::huffman;
use super::integer::{self, Undecodable};
use super::name::What;
use super::section::{Bounds, Section};
use super::static_table::STATIC;

/// See the module.
#[derive(Debug, Default)]
pub struct Decoder {
    table: DynamicTable,
}

/// A name that a literal refers to, or brings.
enum Name {
    Static(usize),
    Dynamic,
    Literal,
}

impl Decoder {
    /// Decodes a whole block into `section`, which was cleared. What is wrong with the message is told by the section.
    ///
    /// # Errors
    /// [`Undecodable`]: the connection is lost (RFC 9113 §4.3).
    pub fn decode(&mut self, block: &[u8], bounds: &Bounds, section: &mut Section) -> Result<(), Undecodable> {
        let mut at = 0;
        // RFC 7541 §4.2: sizes change at the beginning of a block and nowhere else
        while let Some(0x20..=0x3f) = block.get(at) {
            let bytes = integer::read(block, &mut at, 5)?;
            if bytes > TABLE_BYTES_MAX {
                return Err(Undecodable); // §6.3
            }
            self.table.set_max(bytes);
        }
        while let Some(&first) = block.get(at) {
            match first {
                0x80.. => self.indexed(integer::read(block, &mut at, 7)?, bounds, section)?,
                0x40..=0x7f => {
                    let index = integer::read(block, &mut at, 6)?;
                    self.literal(block, &mut at, (index, true, false), bounds, section)?;
                }
                0x20..=0x3f => return Err(Undecodable),
                _ => {
                    let index = integer::read(block, &mut at, 4)?;
                    self.literal(block, &mut at, (index, false, first & 0x10 != 0), bounds, section)?;
                }
            }
        }
        section.finish();
        Ok(())
    }

    /// Gives back the room that its table has for fields that have not come.
    pub(super) fn shrink(&mut self) {
        self.table.shrink();
    }

    /// Bytes of memory that its table holds.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.table.memory()
    }

    /// A field that a table has (§6.1).
    #[inline]
    fn indexed(&mut self, index: usize, bounds: &Bounds, section: &mut Section) -> Result<(), Undecodable> {
        let (name, value, what) = match index.checked_sub(1).ok_or(Undecodable)? {
            place @ 0..STATIC_LEN => {
                let (name, value, what) = STATIC[place];
                (name.as_bytes(), value.as_bytes(), what)
            }
            place => self.table.get(place - STATIC_LEN).ok_or(Undecodable)?,
        };
        if section.fault().is_some() {
            return Ok(()); // nothing is stored any more, and a kilobyte must not be moved for a byte
        }
        let lines = &mut section.lines;
        let start = lines.len();
        lines.reserve(name.len() + value.len() + 4);
        lines.extend_from_slice(name);
        lines.extend_from_slice(b": ");
        let from = lines.len();
        lines.extend_from_slice(value);
        let value = from..lines.len();
        lines.extend_from_slice(b"\r\n");
        section.take(start, value, (what, false), bounds);
        Ok(())
    }

    /// A field whose value, and perhaps its name, stand here (§6.2).
    #[inline]
    fn literal(
        &mut self,
        block: &[u8],
        at: &mut usize,
        (index, is_indexed, never_indexed): (usize, bool, bool),
        bounds: &Bounds,
        section: &mut Section,
    ) -> Result<(), Undecodable> {
        let lines = &mut section.lines;
        let start = lines.len();
        let name = match index.checked_sub(1) {
            None => {
                string(block, at, lines)?;
                Name::Literal
            }
            Some(place @ 0..STATIC_LEN) => {
                lines.extend_from_slice(STATIC[place].0.as_bytes());
                Name::Static(place)
            }
            Some(place) => {
                lines.extend_from_slice(self.table.get(place - STATIC_LEN).ok_or(Undecodable)?.0);
                Name::Dynamic
            }
        };
        let name_end = lines.len();
        lines.extend_from_slice(b": ");
        let from = lines.len();
        string(block, at, lines)?;
        let value = from..lines.len();
        let what = match name {
            Name::Static(place) => STATIC[place].2.with(&lines[value.clone()]),
            Name::Dynamic | Name::Literal => What::of(&lines[start..name_end], &lines[value.clone()]),
        };
        if is_indexed {
            self.table.insert(&lines[start..name_end], &lines[value.clone()], what);
        }
        lines.extend_from_slice(b"\r\n");
        section.take(start, value, (what, never_indexed), bounds);
        Ok(())
    }
}

const STATIC_LEN: usize = STATIC.len();

/// Appends the string at `*at`, and goes behind it (§5.2).
#[inline]
fn string(block: &[u8], at: &mut usize, out: &mut Vec<u8>) -> Result<(), Undecodable> {
    let is_huffman = block.get(*at).ok_or(Undecodable)? & 0x80 != 0;
    let len = integer::read(block, at, 7)?;
    let text = block.get(*at..*at + len).ok_or(Undecodable)?;
    *at += len;
    if is_huffman {
        return huffman::decode(text, out);
    }
    out.extend_from_slice(text);
    Ok(())
}
