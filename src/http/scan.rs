//! When is it worth parsing a head? So that one that arrives a byte at a time costs O(n), not O(n²).
//!
//! A parse is tried on the first bytes, when an empty line has arrived, and when what has arrived doubled since the last try. The
//! first is the common case (the whole head in one read) and costs nothing here; the last finds garbage that never has an empty
//! line before the buffer is full. All tries together look at no more than three times the head.
//!
//! It does not judge: an empty line of bare LFs counts too, so that the parser gets to refuse it.

/// Remembers how far one head was searched. One per head: make a new one for the next request.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScanner {
    searched: usize,
    tried: usize,
}

impl HeadScanner {
    /// Whether `buf`, which holds the head from its first byte on and has grown since the last call, is worth a parse.
    pub fn is_ready(&mut self, buf: &[u8]) -> bool {
        let first = self.tried == 0;
        let ready = first && !buf.is_empty() || self.finds_end(buf) || buf.len() >= self.tried.saturating_mul(2).max(1);
        self.searched = buf.len();
        if ready {
            self.tried = buf.len();
        }
        ready
    }

    /// Whether an empty line ends in what was not searched yet. The three bytes before it may be the beginning of one.
    fn finds_end(&self, buf: &[u8]) -> bool {
        let from = self.searched.saturating_sub(3).min(buf.len());
        memchr::memchr_iter(b'\n', &buf[from..]).any(|at| {
            let rest = &buf[from + at + 1..];
            rest.first() == Some(&b'\n') || rest.starts_with(b"\r\n")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_and_the_empty_line_are_worth_a_parse() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: 12345678901234567890\r\n\r\n";
        let mut scanner = HeadScanner::default();
        let ready: Vec<usize> = (1..=head.len()).filter(|&n| scanner.is_ready(&head[..n])).collect();
        assert_eq!(ready.first(), Some(&1));
        assert_eq!(ready.last(), Some(&head.len()));
        assert!(!HeadScanner::default().is_ready(b""));
    }

    #[test]
    fn a_slow_head_is_parsed_a_logarithmic_number_of_times() {
        let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
        head.resize(64 << 10, b'x');
        let mut scanner = HeadScanner::default();
        let tries: usize = (1..=head.len()).filter(|&n| scanner.is_ready(&head[..n])).sum();
        assert!(tries <= 2 * head.len(), "{tries} bytes parsed for {}", head.len());
    }

    #[test]
    fn the_end_is_found_wherever_reads_split_it() {
        for head in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\nHost: a\n\r\n",
        ] {
            for split in 1..head.len() {
                let mut scanner = HeadScanner::default();
                scanner.is_ready(&head[..split]);
                assert!(scanner.is_ready(head), "split at {split}");
            }
        }
    }
}
