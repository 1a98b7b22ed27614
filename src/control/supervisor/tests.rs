//! A gateway that cannot go on ends as one that was told to.

mod soak;

use super::*;
use crate::config;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn gateway(driver: &str, service: SocketAddr) -> Gateway {
    let text = format!(
        "[gateway]\nworkers = 2\ndriver = \"{driver}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"svc\"\ntimeout = \"60s\"\n\
         [upstream.svc]\nendpoints = [{{ address = \"{service}\" }}]\n"
    );
    Gateway::start(config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"))).unwrap()
}

fn connect(gateway: &Gateway) -> TcpStream {
    let Bind::Tcp(address) = gateway.addresses()[0].1 else { panic!("a TCP address") };
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes until the end of the connection, or of a head and its body of two bytes.
fn receive(stream: &mut TcpStream) -> String {
    let (mut read, mut piece) = (Vec::new(), [0; 512]);
    while !read.ends_with(b"\r\n\r\nok") {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(received) => read.extend_from_slice(&piece[..received]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&read)),
        }
    }
    String::from_utf8(read).unwrap()
}

#[test]
fn workers_that_cannot_begin_are_told_with_what_to_do() {
    use crate::control::crew::NoCrew;
    use crate::net::driver::{Refused, Step};
    let sentence = |driver: &str, why: NoCrew| {
        let text = format!(
            "gateway = {{ driver = \"{driver}\" }}\nlistener = [{{ listen = \"127.0.0.1:0\" }}]\nroute = [{{ respond = {{}} }}]\n"
        );
        no_worker(&config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}")), &why).to_string()
    };
    let error = io::Error::from_raw_os_error;
    let refused = |errno| {
        let steps = &Step::ALL[..2];
        NoCrew::Refused(steps.iter().map(|step| Refused { step: *step, error: error(errno) }).collect())
    };
    assert_eq!(
        sentence("io_uring", refused(libc::ENOMEM)),
        "cannot start the workers with driver = \"io_uring\": io_uring-multishot, io_uring-defer-taskrun refused: Cannot allocate memory \
         (os error 12): too little memory may be locked: raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= of a service); \
         driver = \"auto\" runs on epoll instead"
    );
    assert!(sentence("auto", refused(libc::EMFILE)).contains("raise RLIMIT_NOFILE"));
    let threads = sentence("auto", NoCrew::Thread(error(libc::EAGAIN)));
    assert!(threads.contains("RLIMIT_NPROC") && !threads.contains("io_uring"), "{threads}");
    assert!(sentence("auto", NoCrew::Begin(error(libc::EMFILE))).contains("RLIMIT_NOFILE"));
}

#[test]
fn a_panic_of_the_control_thread_ends_the_gateway_once_everything_is_answered() {
    for driver in ["auto", "epoll"] {
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = gateway(driver, service.local_addr().unwrap());
        let mut client = connect(&gateway);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let (mut asked, _) = service.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            asked.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }

        gateway.wish.send_replace(Wish::Panic);
        // nobody is taken any more, while the one request is under way
        let deadline = clock::now() + PATIENCE;
        let Bind::Tcp(address) = gateway.addresses()[0].1 else { panic!("a TCP address") };
        while TcpStream::connect(address).is_ok() {
            assert!(clock::now() < deadline, "{driver}: it drains");
            std::thread::yield_now();
        }
        assert!(!gateway.has_ended(), "{driver}");
        asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        let answer = receive(&mut client);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{driver}: {answer}");
        let Err(Fault(reason)) = gateway.join() else { panic!("{driver}: as if it had been told to end") };
        assert!(reason.contains("control thread has panicked"), "{reason}");
    }
}

#[test]
fn who_was_told_to_end_has_no_fault() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = gateway("auto", service.local_addr().unwrap());
    assert_eq!(gateway.drain_and_stop(), Ok(()));
}
