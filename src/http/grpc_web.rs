//! gRPC-Web: calls as pages make them, whose browsers give them no trailers; and what makes calls of gRPC of them.
//!
//! A call of gRPC-Web has its messages in the body as gRPC has them, and behind them the trailers as one more, which bit 7 of its first byte
//! marks. In the text form all of that is base64, whose pieces may each be padded. Heads are the same but for the content type. An answer that is
//! all head tells its outcome there, in both.
//!
//! Messages are not looked into, and nothing is decided here. Source: the gRPC project's "gRPC Web" document (PROTOCOL-WEB).

use super::grpc::CONTENT_TYPE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The first byte of the frame that has the trailers.
const TRAILERS: u8 = 0x80;
/// Bytes that [`restate_response`] adds at most.
pub const GROWTH_MAX: usize = Form::Text.suffix().len();
/// What a call is answered with whose outcome a browser may read (Fetch standard, "CORS protocol").
pub const EXPOSED: &[u8] = b"grpc-status, grpc-message, grpc-status-details-bin";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/grpc-web`: as it is.
    Binary,
    /// `application/grpc-web-text`: in base64.
    Text,
}

impl Form {
    /// The form that a content type says, alone or followed by `+proto`, `+json`, … or parameters.
    #[must_use]
    pub fn of(content_type: &[u8]) -> Option<Self> {
        [Self::Text, Self::Binary].into_iter().find(|form| suffix_of(content_type, form.suffix()).is_some())
    }

    /// The content type of the gateway's own answers.
    #[must_use]
    pub const fn content_type(self) -> &'static [u8] {
        match self {
            Self::Binary => b"application/grpc-web+proto",
            Self::Text => b"application/grpc-web-text+proto",
        }
    }

    /// What stands between the type of gRPC and that of its messages.
    const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Binary => b"-web",
            Self::Text => b"-web-text",
        }
    }
}

/// Where a content type of gRPC goes on behind `suffix`, if it has that and nothing else before its messages' type.
fn suffix_of(content_type: &[u8], suffix: &[u8]) -> Option<usize> {
    let end = CONTENT_TYPE.len() + suffix.len();
    let (front, rest) = content_type.split_at_checked(end)?;
    let is_it = front[..CONTENT_TYPE.len()].eq_ignore_ascii_case(CONTENT_TYPE)
        && front[CONTENT_TYPE.len()..].eq_ignore_ascii_case(suffix)
        && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
    is_it.then_some(end)
}

/// Where the value of `Content-Type` stands in a head of HTTP/1.1.
fn content_type_in(head: &[u8]) -> Option<std::ops::Range<usize>> {
    const NAME: &[u8] = b"content-type:";
    let mut start = 0;
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        if line.len() <= 2 && start > 0 {
            return None; // the head is over
        }
        if line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
            let value = line[NAME.len()..].trim_ascii();
            let from =
                start + NAME.len() + line[NAME.len()..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            return Some(from..from + value.len());
        }
        start += line.len();
    }
    None
}

/// Makes the head of a request one of gRPC, as it goes to an endpoint.
pub fn restate_request(head: &mut Vec<u8>, form: Form) {
    if let Some(value) = content_type_in(head)
        && suffix_of(&head[value.clone()], form.suffix()).is_some()
    {
        let from = value.start + CONTENT_TYPE.len();
        head.drain(from..from + form.suffix().len());
    }
    if memchr::memmem::find(head, b"\r\nTE: ").is_none() && head.ends_with(b"\r\n\r\n") {
        head.truncate(head.len() - 2);
        // its outcome comes as trailers
        head.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n\r\n");
    }
}

/// Where, and what, is to be put into the head of a response to make it one of gRPC-Web; `None`: it is none of gRPC, or one already.
#[must_use]
pub fn restate_response(head: &[u8], form: Form) -> Option<(usize, &'static [u8])> {
    let value = content_type_in(head)?;
    suffix_of(&head[value.clone()], b"")?;
    Some((value.start + CONTENT_TYPE.len(), form.suffix()))
}

/// Appends the frame that has the trailers, which are lines of `name: value CRLF`.
pub fn push_trailers(out: &mut Vec<u8>, lines: &[u8]) {
    out.push(TRAILERS);
    // a section of trailers is bounded far below 4 GiB
    out.extend_from_slice(&(lines.len() as u32).to_be_bytes());
    let start = out.len();
    out.extend_from_slice(lines);
    let mut is_name = true;
    for byte in &mut out[start..] {
        match *byte {
            b':' => is_name = false,
            b'\n' => is_name = true,
            _ if is_name => byte.make_ascii_lowercase(),
            _ => {}
        }
    }
}

/// Appends a piece in base64, padded: whoever reads it takes piece after piece.
pub fn push_text(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // there is room for all of it
    let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
}

/// Not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads base64 as it comes, in pieces that may each be padded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text {
    held: [u8; 4],
    len: u8,
}

impl Text {
    /// Appends what the text says, as far as that is known by now.
    ///
    /// # Errors
    /// [`Malformed`]: a byte that base64 has not, or a padding that is none.
    pub fn decode(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        for &byte in text {
            self.held[usize::from(self.len)] = byte;
            self.len += 1;
            if self.len == 4 {
                self.len = 0;
                let mut bytes = [0; 3];
                let count = STANDARD.decode_slice(self.held, &mut bytes).map_err(|_| Malformed)?;
                out.extend_from_slice(&bytes[..count]);
            }
        }
        Ok(())
    }

    /// Whether what was read may be all.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_known_by_its_content_type() {
        for (value, form) in [
            ("application/grpc-web", Some(Form::Binary)),
            ("Application/gRPC-Web+proto", Some(Form::Binary)),
            ("application/grpc-web-text", Some(Form::Text)),
            ("application/grpc-web-text+json; x=y", Some(Form::Text)),
            ("application/grpc", None),
            ("application/grpc+proto", None),
            ("application/grpc-webx", None),
            ("application/grpc-web-textual", None),
            ("", None),
        ] {
            assert_eq!(Form::of(value.as_bytes()), form, "{value}");
        }
        for form in [Form::Binary, Form::Text] {
            assert_eq!(Form::of(form.content_type()), Some(form));
        }
    }

    #[test]
    fn heads_are_restated_and_nothing_else_of_them() {
        let restated = |head: &str, form| {
            let mut head = head.as_bytes().to_vec();
            restate_request(&mut head, form);
            String::from_utf8(head).unwrap()
        };
        let head = "POST /s/M HTTP/1.1\r\nHost: a\r\nContent-Type:  application/grpc-web-text+proto\r\nx: y\r\n\r\n";
        let wanted = "POST /s/M HTTP/1.1\r\nHost: a\r\nContent-Type:  application/grpc+proto\r\nx: y\r\n\
                      TE: trailers\r\nConnection: TE\r\n\r\n";
        assert_eq!(restated(head, Form::Text), wanted);
        let again = wanted.replace("application/grpc+", "application/grpc-web+");
        assert_eq!(restated(&again, Form::Binary), wanted);
        let put = |head: &str, form| {
            let mut out = head.as_bytes().to_vec();
            let (at, suffix) = restate_response(&out, form)?;
            out.splice(at..at, suffix.iter().copied());
            assert_eq!(restate_response(&out, form), None, "once");
            Some(String::from_utf8(out).unwrap())
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc+proto\r\n\r\ncontent-type: application/grpc";
        let wanted = head.replacen("grpc+", "grpc-web+", 1);
        assert_eq!(put(head, Form::Binary), Some(wanted));
        assert_eq!(put("HTTP/1.1 200 OK\r\n\r\ncontent-type: application/grpc\r\n", Form::Text), None);
        assert_eq!(put("HTTP/1.1 502 No\r\ncontent-type: text/html\r\n\r\n", Form::Text), None);
    }

    #[test]
    fn trailers_are_a_frame_with_lower_case_names() {
        let mut out = b"body".to_vec();
        push_trailers(&mut out, b"Grpc-Status: 0\r\ngrpc-message: All: Well\r\n");
        assert_eq!(out, b"body\x80\0\0\0\x29grpc-status: 0\r\ngrpc-message: All: Well\r\n");
    }

    #[test]
    fn text_is_read_at_any_split_and_piece_after_piece() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        for piece in [&bytes[..1], &bytes[1..3], &bytes[3..100], &bytes[100..]] {
            push_text(&mut text, piece);
        }
        for split in 0..text.len() {
            let (mut decoder, mut out) = (Text::default(), Vec::new());
            decoder.decode(&text[..split], &mut out).unwrap();
            assert_eq!(decoder.is_whole(), split % 4 == 0);
            decoder.decode(&text[split..], &mut out).unwrap();
            assert!(decoder.is_whole() && out == bytes, "{split}");
        }
        for bad in ["ab=c", "a===", "a b=", "ab\r\n", "abc!", "ab-_"] {
            assert_eq!(Text::default().decode(bad.as_bytes(), &mut Vec::new()), Err(Malformed), "{bad}");
        }
    }
}
