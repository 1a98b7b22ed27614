//! The chunked transfer coding (RFC 9112 §7.1), of which a client needs only to know where data is and where it ends.

use super::Failure;

/// A chunk's line may be so long, extensions included; trailers may have so many bytes.
const LINE_BYTES_MAX: u32 = 8 << 10;

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a chunk's size.
    Size { value: u64, digits: u8 },
    /// Behind the size, up to the line's end.
    Extension { value: u64 },
    /// In data.
    Data { left: u64 },
    /// Data has ended, its line not.
    DataEnd,
    /// In the trailers; `true` at the beginning of a line.
    Trailer { is_line_start: bool },
    /// Behind everything.
    End,
}

/// Reads chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    at: At,
    /// Bytes since data was last seen.
    overhead: u32,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { at: At::Size { value: 0, digits: 0 }, overhead: 0 }
    }

    /// Takes what belongs to the coding, hands data on, and says how many bytes were taken; fewer than there are means the end.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn receive(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Failure> {
        let mut row = 0;
        while row < bytes.len() && self.at != At::End {
            if let At::Data { left } = self.at {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - row);
                data(&bytes[row..row + taken]);
                row += taken;
                let left = left - taken as u64;
                self.at = if left == 0 { At::DataEnd } else { At::Data { left } };
                self.overhead = 0;
                continue;
            }
            self.at = self.after(bytes[row])?;
            self.overhead += 1;
            if self.overhead > LINE_BYTES_MAX {
                return Err(Failure::Garbage);
            }
            row += 1;
        }
        Ok(row)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.at == At::End
    }

    fn after(&self, byte: u8) -> Result<At, Failure> {
        let digit = (byte as char).to_digit(16).map(u64::from);
        Ok(match (self.at, byte) {
            (At::Size { value, digits }, _) if digit.is_some() => {
                let value =
                    value.checked_mul(16).and_then(|value| value.checked_add(digit?)).ok_or(Failure::Garbage)?;
                At::Size { value, digits: digits.saturating_add(1) }
            }
            (At::Size { digits: 0, .. }, _) => return Err(Failure::Garbage),
            (At::Size { value, .. } | At::Extension { value }, b'\n') => match value {
                0 => At::Trailer { is_line_start: true },
                left => At::Data { left },
            },
            (At::Size { value, .. }, b';' | b' ' | b'\t' | b'\r') | (At::Extension { value }, _) => {
                At::Extension { value }
            }
            (At::DataEnd, b'\r') => At::DataEnd,
            (At::DataEnd, b'\n') => At::Size { value: 0, digits: 0 },
            (At::Trailer { is_line_start }, b'\r') => At::Trailer { is_line_start },
            (At::Trailer { is_line_start: true }, b'\n') => At::End,
            (At::Trailer { .. }, byte) => At::Trailer { is_line_start: byte == b'\n' },
            (At::Size { .. } | At::DataEnd | At::Data { .. } | At::End, _) => return Err(Failure::Garbage),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, piece: usize) -> Result<(String, usize), Failure> {
        let (mut chunks, mut data, mut taken) = (Chunks::new(), Vec::new(), 0);
        for bytes in text.as_bytes().chunks(piece) {
            if chunks.has_ended() {
                break;
            }
            taken += chunks.receive(bytes, |some| data.extend_from_slice(some))?;
        }
        assert!(chunks.has_ended(), "{text:?} ends");
        Ok((String::from_utf8(data).unwrap(), taken))
    }

    #[test]
    fn chunks_are_read_in_pieces_of_any_size() {
        let text = "5\r\nhello\r\n00006;a=\"b\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
        for piece in 1..text.len() + 4 {
            assert_eq!(read(&format!("{text}more"), piece), Ok(("hello world".to_owned(), text.len())));
        }
        assert_eq!(read("0\r\n\r\n", 2), Ok((String::new(), 5)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for text in ["x\r\n", "\r\n\r\n", "5\r\nhelloX", "ffffffffffffffff0\r\n", "-1\r\n", "1 2"] {
            let mut chunks = Chunks::new();
            let read = chunks.receive(text.as_bytes(), |_| {});
            assert!(read == Err(Failure::Garbage) || text == "1 2", "{text:?}");
        }
        let mut endless = Chunks::new();
        let line = format!("1;{}", "a".repeat(20_000));
        assert_eq!(endless.receive(line.as_bytes(), |_| {}), Err(Failure::Garbage), "an extension without an end");
    }
}
