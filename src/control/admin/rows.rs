//! Large answers, made while they are sent: an iterator of texts becomes an HTTP body.
//!
//! hyper asks for the next piece when the socket has taken the last, so at most one piece (16 KiB and one row) is in memory.

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use http::header;
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Small texts are gathered into pieces of this size.
const PIECE_BYTES: usize = 16 << 10;

/// A body that is an iterator of texts.
pub(super) struct Pieces<I>(Option<I>);

impl<I: Iterator<Item = String>> Pieces<I> {
    /// The body of `texts`, in order.
    pub(super) fn new(texts: I) -> Self {
        Self(Some(texts))
    }
}

impl<I: Iterator<Item = String> + Unpin> HttpBody for Pieces<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(texts) = &mut self.0 else { return Poll::Ready(None) };
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES {
            match texts.next() {
                Some(text) => piece.push_str(&text),
                // An iterator that has ended is not asked again.
                None => {
                    self.0 = None;
                    break;
                }
            }
        }
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// A 200 with the JSON that `texts` make together.
pub(super) fn json(texts: impl Iterator<Item = String> + Send + 'static) -> Response {
    let texts: Box<dyn Iterator<Item = String> + Send> = Box::new(texts);
    ([(header::CONTENT_TYPE, "application/json")], Body::new(Pieces::new(texts))).into_response()
}

/// `"name":[` rows `]`, one text a row.
pub(super) fn array(name: &str, rows: impl Iterator<Item = serde_json::Value>) -> impl Iterator<Item = String> {
    let rows = rows.enumerate().map(|(n, row)| if n == 0 { format!("\n{row}") } else { format!(",\n{row}") });
    std::iter::once(format!("\"{name}\":[")).chain(rows).chain(std::iter::once("\n]".to_owned()))
}

/// One text as an iterator: the glue between arrays.
pub(super) fn glue(text: impl Into<String>) -> impl Iterator<Item = String> {
    std::iter::once(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn pieces(texts: impl Iterator<Item = String> + Unpin) -> Vec<String> {
        let mut body = Pieces::new(texts);
        let mut pieces = Vec::new();
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            let data = frame.expect("it cannot fail").into_data().expect("only data");
            pieces.push(String::from_utf8(data.to_vec()).unwrap());
        }
        pieces
    }

    #[test]
    fn small_texts_are_gathered_and_nothing_is_lost() {
        let all: String = (0..10_000).map(|n| format!("{n},")).collect();
        let pieces = pieces((0..10_000).map(|n| format!("{n},")));
        assert_eq!(pieces.concat(), all);
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() < 2 * PIECE_BYTES));
    }

    #[test]
    fn arrays_are_json_whatever_their_length() {
        for len in [0, 1, 3] {
            let texts = glue("{").chain(array("rows", (0..len).map(serde_json::Value::from))).chain(glue("}"));
            let value: serde_json::Value = serde_json::from_str(&texts.collect::<String>()).unwrap();
            assert_eq!(value["rows"].as_array().unwrap().len(), len);
        }
    }
}
