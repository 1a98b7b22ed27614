//! Asks a running gateway something, at its admin address: `ringgate reload`.
//!
//! Blocking, for a command that does nothing else; an answer is read whole, to the end of the connection.

use crate::config::Bind;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Who listens there is on this machine, most likely.
const CONNECT: Duration = Duration::from_secs(5);
/// An answer of the admin API, however much it has to say.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Text of the body.
    pub body: String,
}

/// Posts to `path`, and waits no longer than `patience` for the answer to begin.
///
/// # Errors
/// Nobody listens there, or what comes is no answer.
pub fn post(bind: &Bind, path: &str, patience: Duration) -> io::Result<Answer> {
    match bind {
        Bind::Tcp(address) => {
            let mut there = *address;
            if there.ip().is_unspecified() {
                there.set_ip(match there.is_ipv4() {
                    true => Ipv4Addr::LOCALHOST.into(),
                    false => Ipv6Addr::LOCALHOST.into(),
                });
            }
            let stream = TcpStream::connect_timeout(&there, CONNECT)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(CONNECT))?;
            exchange(stream, path)
        }
        Bind::Unix(file) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_write_timeout(Some(CONNECT))?;
            socket.connect(&SockAddr::unix(file)?)?;
            let stream = UnixStream::from(socket);
            stream.set_read_timeout(Some(patience))?;
            exchange(stream, path)
        }
    }
}

fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<Answer> {
    // HTTP/1.0: the body ends with the connection, and comes as it is
    stream.write_all(format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    let status =
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what answers there is no gateway"))?;
    Ok(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answer(text: &'static str) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = Bind::Tcp(listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(text.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        });
        let answer = post(&bind, "/reload", Duration::from_secs(60));
        assert!(server.join().unwrap().starts_with("POST /reload HTTP/1.0\r\nHost: localhost\r\n"));
        answer
    }

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let got = answer("HTTP/1.0 422 Unprocessable Entity\r\ncontent-type: x\r\n\r\n{}\n").unwrap();
        assert_eq!(got, Answer { status: 422, body: "{}\n".to_owned() });
        assert_eq!(answer("SSH-2.0-x\r\n\r\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(answer("HTTP/1.1 200").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
