//! Compressing a response on its way down: a coder that takes pieces and gives pieces, so many of them at once on a worker.
//!
//! It works on the event loop, a block at a time, and others have their turn between two blocks ([`super::relay`]). What an endpoint has sent goes on when
//! nothing more of it has arrived: what is compressed does not wait for what may come an hour later.

use super::state::Worker;
use crate::config::ContentCoding;
use crate::limits::COMPRESSIONS_MAX;
use brotli::CompressorWriter;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder;

/// Levels at which a core does some 50 to 300 MB a second, as nginx's, Caddy's and Envoy's defaults do.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// Windows of 256 KiB: more of it costs memory, for each response under way, and brings pages little.
const WINDOW_LOG: u32 = 18;
/// Room of brotli's writer.
const BROTLI_ROOM: usize = 16 << 10;

/// A coder of one response.
pub(super) struct Coder {
    inner: Option<Inner>,
    out: Sink,
    worker: Rc<Worker>,
}

enum Inner {
    Gzip(GzEncoder<Sink>),
    Brotli(Box<CompressorWriter<Sink>>),
    Zstd(Encoder<'static, Sink>),
}

/// Where coders write.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Coder {
    /// `None`: so many are at work already, or there is no memory for one more.
    pub(super) fn new(worker: &Rc<Worker>, coding: ContentCoding) -> Option<Box<Self>> {
        if worker.compressions.get() >= COMPRESSIONS_MAX {
            return None;
        }
        let out = Sink::default();
        let inner = Inner::new(coding, out.clone()).ok()?;
        worker.compressions.set(worker.compressions.get() + 1);
        Some(Box::new(Self { inner: Some(inner), out, worker: Rc::clone(worker) }))
    }

    /// Compresses a piece; `done`: it is the last one, `flush`: what it makes must not wait for the next. Appends what has come of it.
    ///
    /// # Errors
    /// The coder has failed, or the last piece has been.
    pub(super) fn code(&mut self, piece: &[u8], (flush, done): (bool, bool), to: &mut Vec<u8>) -> io::Result<()> {
        let inner = self.inner.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
        inner.write(piece)?;
        if done {
            self.inner.take().map_or(Ok(()), Inner::finish)?;
        } else if flush {
            inner.flush()?;
        }
        let mut out = self.out.0.borrow_mut();
        to.extend_from_slice(&out);
        out.clear();
        Ok(())
    }
}

impl Drop for Coder {
    fn drop(&mut self) {
        let at_work = &self.worker.compressions;
        at_work.set(at_work.get() - 1);
    }
}

impl Inner {
    fn new(coding: ContentCoding, out: Sink) -> io::Result<Self> {
        Ok(match coding {
            ContentCoding::Gzip => Self::Gzip(GzEncoder::new(out, Level::new(GZIP_LEVEL))),
            ContentCoding::Brotli => {
                Self::Brotli(Box::new(CompressorWriter::new(out, BROTLI_ROOM, BROTLI_QUALITY, WINDOW_LOG)))
            }
            ContentCoding::Zstd => {
                let mut encoder = Encoder::new(out, ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(piece),
            Self::Brotli(encoder) => encoder.write_all(piece),
            Self::Zstd(encoder) => encoder.write_all(piece),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.finish().map(drop),
            Self::Brotli(encoder) => {
                encoder.into_inner();
                Ok(())
            }
            Self::Zstd(encoder) => encoder.finish().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn decoded(coding: ContentCoding, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        match coding {
            ContentCoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text),
            ContentCoding::Brotli => brotli::Decompressor::new(bytes, 4_096).read_to_end(&mut text),
            ContentCoding::Zstd => zstd::stream::read::Decoder::new(bytes).and_then(|mut it| it.read_to_end(&mut text)),
        }
        .unwrap();
        text
    }

    #[test]
    fn pieces_make_one_body_and_a_flush_brings_all_that_was_put_in() {
        let pieces: Vec<Vec<u8>> =
            (0..20_u32).map(|row| format!("{row} and some more of it; ").repeat(500).into_bytes()).collect();
        for coding in ContentCoding::ALL {
            let sink = Sink::default();
            let mut inner = Inner::new(coding, sink.clone()).unwrap();
            for piece in &pieces {
                inner.write(piece).unwrap();
            }
            inner.flush().unwrap();
            let flushed = sink.0.borrow().len();
            assert!(flushed > 100, "{coding:?}: {flushed}");
            inner.write(b"the end").unwrap();
            inner.finish().unwrap();
            let all = sink.0.borrow().clone();
            assert!(all.len() < pieces.concat().len() / 10, "{coding:?}");
            assert_eq!(decoded(coding, &all), [pieces.concat(), b"the end".to_vec()].concat(), "{coding:?}");
            let empty = Sink::default();
            Inner::new(coding, empty.clone()).unwrap().finish().unwrap();
            assert_eq!(decoded(coding, &empty.0.borrow()), b"", "{coding:?}");
        }
    }
}
