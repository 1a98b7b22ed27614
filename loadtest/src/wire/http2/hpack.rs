//! Heads of answers out of their compressed form (RFC 7541), as a client reads them, with a bound on everything.

use super::fields::Dynamic;
use super::huffman;
use crate::wire::Failure;

/// Fields of one head may have so many bytes together: a few bytes can refer to a long field again and again.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// An integer has so many bytes at most: more than four billion is meant by none.
const INTEGER_BYTES_MAX: usize = 5;

/// What a connection's answers have told so far.
#[derive(Debug)]
pub(super) struct Decoder {
    dynamic: Dynamic,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { dynamic: Dynamic::new(), name: Vec::new(), value: Vec::new() }
    }

    /// Hands each field of a whole block on.
    ///
    /// # Errors
    /// It is none, or `field` refuses one. The first one means that nothing more can be understood on this connection.
    pub(super) fn decode(&mut self, block: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), Failure> {
        let mut reader = Reader { rest: block };
        let (mut bytes, mut may_resize) = (0, true);
        while let Some(&first) = reader.rest.first() {
            if first & 0xe0 == 0x20 {
                // §4.2: at the beginning of a block
                let size = reader.integer(5)?;
                if !may_resize || !self.dynamic.resize(size) {
                    return Err(Failure::Garbage);
                }
                continue;
            }
            may_resize = false;
            let is_whole = first & 0x80 != 0;
            let adds = first & 0xc0 == 0x40;
            let index = reader.integer(if is_whole {
                7
            } else if adds {
                6
            } else {
                4
            })?;
            self.name.clear();
            self.value.clear();
            if index > 0 || is_whole {
                let (name, value) = self.dynamic.get(index).ok_or(Failure::Garbage)?;
                self.name.extend_from_slice(name);
                if is_whole {
                    self.value.extend_from_slice(value);
                }
            } else {
                reader.string(&mut self.name)?;
            }
            if !is_whole {
                reader.string(&mut self.value)?;
            }
            if adds {
                self.dynamic.add(&self.name, &self.value);
            }
            bytes += self.name.len() + self.value.len();
            if bytes > HEAD_BYTES_MAX {
                return Err(Failure::Garbage);
            }
            field(&self.name, &self.value);
        }
        Ok(())
    }
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Failure> {
        let (first, rest) = self.rest.split_first().ok_or(Failure::Garbage)?;
        self.rest = rest;
        Ok(*first)
    }

    /// §5.1, of which the first byte has `bits`.
    fn integer(&mut self, bits: u32) -> Result<usize, Failure> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for row in 0..INTEGER_BYTES_MAX {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << (7 * row);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Failure::Garbage)
    }

    /// §5.2.
    fn string(&mut self, into: &mut Vec<u8>) -> Result<(), Failure> {
        let is_coded = self.rest.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        if length > self.rest.len() {
            return Err(Failure::Garbage);
        }
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        if is_coded {
            return huffman::decode(text, into);
        }
        into.extend_from_slice(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn read(decoder: &mut Decoder, hex: &str) -> Result<Vec<String>, Failure> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(&bytes(hex), |name, value| fields.push(format!("{}: {}", text(name), text(value))))?;
        Ok(fields)
    }

    #[test]
    fn answers_of_the_standards_examples_are_read() {
        // RFC 7541 §C.5 and §C.6: the same answers, plain and in Huffman's code, with a table of 256 bytes from which entries fall
        let head = |status: &str, date: &str| {
            vec![
                format!(":status: {status}"),
                "cache-control: private".to_owned(),
                format!("date: Mon, 21 Oct 2013 20:13:{date} GMT"),
                "location: https://www.example.com".to_owned(),
            ]
        };
        let mut third = head("200", "22");
        third.extend(
            ["content-encoding: gzip", "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"]
                .map(str::to_owned),
        );
        let plain = [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        ];
        let coded = [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::new();
            decoder.dynamic.resize(256);
            assert_eq!(read(&mut decoder, blocks[0]), Ok(head("302", "21")));
            assert_eq!(read(&mut decoder, blocks[1]), Ok(head("307", "21")));
            assert_eq!(read(&mut decoder, blocks[2]), Ok(third.clone()));
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for (hex, what) in [
            ("80", "index 0"),
            ("be", "nothing was added"),
            ("ffffffffffff00", "a huge index"),
            ("ff80808080808080", "an integer without an end"),
            ("4803", "a string that stops"),
            ("0005 6162", "a name that stops"),
            ("883f e11f", "a size that comes late"),
            ("3fe21f", "a size above what was offered"),
            ("4082 ffff 00", "a name in a code that is none"),
        ] {
            assert_eq!(read(&mut Decoder::new(), hex), Err(Failure::Garbage), "{what}");
        }
        assert_eq!(read(&mut Decoder::new(), "3fe11f 20 88"), Ok(vec![":status: 200".to_owned()]));
    }

    #[test]
    fn a_few_bytes_do_not_become_many() {
        let mut decoder = Decoder::new();
        let value = "61".repeat(3_000);
        assert!(read(&mut decoder, &format!("0001 61 7f b916 {value}")).is_ok());
        assert!(read(&mut decoder, &format!("4001 61 7f b916 {value}")).is_ok());
        assert_eq!(read(&mut decoder, &"be".repeat(100)), Err(Failure::Garbage), "300 kB of fields");
    }

    #[test]
    fn it_reads_what_another_writes() {
        let mut encoder = fluke_hpack::Encoder::new();
        let mut decoder = Decoder::new();
        for round in 0..300_u32 {
            let fields: Vec<(Vec<u8>, Vec<u8>)> = (0..round % 7)
                .map(|row| {
                    (format!("name-{}", row * round % 11).into_bytes(), vec![b'a' + (row as u8); round as usize % 90])
                })
                .collect();
            let block = encoder.encode(fields.iter().map(|(name, value)| (&name[..], &value[..])));
            let mut seen = Vec::new();
            decoder.decode(&block, |name, value| seen.push((name.to_vec(), value.to_vec()))).unwrap();
            assert_eq!(seen, fields, "round {round}");
        }
    }
}
