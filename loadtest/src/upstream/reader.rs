//! A connection's requests, one after the other, from whatever pieces its bytes come in. Pure.

use super::request::{self, Body, Head, Malformed};

/// Where a connection's input stands.
#[derive(Default)]
pub(super) struct Reader {
    /// Bytes of a head that is not whole.
    rest: Vec<u8>,
    /// A body that is not whole, and the head before it.
    body: Option<(Body, Head)>,
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A request, to its last byte.
    Request(Head),
    /// The head of one that sends its body when it is told to go on.
    Expects,
}

impl Reader {
    /// Takes from the beginning of `input` until something has come; `None`: all is taken, and nothing has.
    ///
    /// # Errors
    /// This is no request. Nothing that follows means anything.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Malformed> {
        while !input.is_empty() {
            if let Some((body, head)) = &mut self.body {
                let (taken, is_done) = body.drain(input)?;
                let head = *head;
                *input = &input[taken..];
                if is_done {
                    self.body = None;
                    return Ok(Some(Event::Request(head)));
                }
                continue;
            }
            let Some(head) = self.head(input)? else { return Ok(None) };
            let Some(body) = head.body else { return Ok(Some(Event::Request(head))) };
            self.body = Some((body, head));
            if head.expects && input.is_empty() {
                return Ok(Some(Event::Expects));
            }
        }
        Ok(None)
    }

    fn head(&mut self, input: &mut &[u8]) -> Result<Option<Head>, Malformed> {
        let kept = self.rest.len();
        let head = if kept == 0 {
            request::head(input)?
        } else {
            self.rest.extend_from_slice(input);
            request::head(&self.rest)?
        };
        match head {
            Some(head) => {
                // it was not whole before this input
                *input = &input[head.bytes - kept..];
                self.rest.clear();
            }
            None => {
                if kept == 0 {
                    self.rest.extend_from_slice(input);
                }
                *input = &[];
            }
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_one_by_one_in_any_pieces() {
        let text: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloHEAD /c HTTP/1.1\r\n\r\n\
            PUT /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /e HTTP/1.1\r\nConnection: close\r\n\r\n";
        for piece in 1..=text.len() {
            let (mut reader, mut heads) = (Reader::default(), Vec::new());
            for mut input in text.chunks(piece) {
                while let Some(event) = reader.next(&mut input).expect("requests") {
                    let Event::Request(head) = event else { panic!("nobody waits") };
                    heads.push((head.is_head, head.closes));
                }
                assert!(input.is_empty());
            }
            let (plain, head, last) = ((false, false), (true, false), (false, true));
            assert_eq!(heads, [plain, plain, head, plain, last], "in pieces of {piece}");
        }
    }

    #[test]
    fn a_client_that_waits_is_told_to_go_on_once() {
        let mut reader = Reader::default();
        let mut input: &[u8] = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(reader.next(&mut input), Ok(Some(Event::Expects)));
        assert_eq!(reader.next(&mut input), Ok(None));
        input = b"hi";
        assert!(matches!(reader.next(&mut input), Ok(Some(Event::Request(_)))));
        // who does not wait is not told
        input = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
        assert!(matches!(reader.next(&mut input), Ok(Some(Event::Request(_)))));
    }
}
