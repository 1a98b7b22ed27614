//! Pages that a gateway has about itself, and whether it answers at all: over plain sockets, with a bound on time and length.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For connecting, and for each read.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest page.
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// The status with which `address` answers a GET of `path`, whatever it is.
pub(super) fn status(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = ask(address, path, "HTTP/1.1")?;
    // "HTTP/1.1 200"
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let status = line.strip_prefix(b"HTTP/1.").and_then(|rest| std::str::from_utf8(&rest[2..]).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::other("it does not answer in HTTP/1"))
}

/// The page at `path`, which has to come with status 200.
pub(super) fn page(address: SocketAddr, path: &str) -> io::Result<String> {
    // HTTP/1.0: the page ends with the connection, and is not in chunks
    let stream = ask(address, path, "HTTP/1.0")?;
    let mut bytes = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(format!("{path}: no answer")))?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("{path}: {}", head.lines().next().unwrap_or_default())));
    }
    Ok(body.to_owned())
}

fn ask(address: SocketAddr, path: &str, version: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request =
        format!("GET {path} {version}\r\nHost: {address}\r\nUser-Agent: ringgate-load\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// Samples of a page in Prometheus' text format: name with labels, as they stand there, and value. Comments, and what is no sample, are
/// left out, and so are timestamps.
pub(super) fn samples(text: &str) -> BTreeMap<String, f64> {
    let sample = |line: &str| {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        // a label's value may contain spaces and braces; the last brace ends the labels
        let end = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
        let (name, rest) = line.split_at(end);
        Some((name.to_owned(), rest.split_ascii_whitespace().next()?.parse().ok()?))
    };
    text.lines().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# HELP a A.\n# TYPE a counter\na 7\nb{x=\"1 }\",y=\"2\"} 1.5e3 1700000000\nc{le=\"+Inf\"} +Inf\n\nnonsense\nd{ 5\n";
        let read = samples(text);
        assert_eq!(read.get("a"), Some(&7.0));
        assert_eq!(read.get("b{x=\"1 }\",y=\"2\"}"), Some(&1500.0));
        assert_eq!(read.get("c{le=\"+Inf\"}"), Some(&f64::INFINITY));
        assert_eq!(read.get("d{"), Some(&5.0));
        assert_eq!(read.len(), 4);
    }

    #[test]
    fn only_http_is_an_answer() {
        for (answer, wanted) in
            [("HTTP/1.1 404 Not Found\r\n\r\n", Some(404)), ("SSH-2.0-whatever\r\n", None), ("", None)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
            let address = listener.local_addr().expect("bound");
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("the client");
                let mut bytes = [0; 1024];
                let length = stream.read(&mut bytes).expect("its request");
                stream.write_all(answer.as_bytes()).expect("it reads");
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            });
            assert_eq!(status(address, "/x").ok(), wanted);
            assert!(server.join().expect("no panic").starts_with("GET /x HTTP/1.1\r\n"));
        }
    }
}
