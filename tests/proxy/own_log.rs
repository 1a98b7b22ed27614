//! The gateway's own log: whoever reads standard error may stop, or be gone, and nobody else notices.

use crate::support::{Client, Driver, Gate, Gateway, Upstream, behind, eventually, on_both_drivers};
use socket2::SockRef;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

/// A service that answers when it is let through, a gateway before it, the end of its standard error that is read, and the other.
struct Told {
    gate: Arc<Gate>,
    upstream: Upstream,
    gateway: Gateway,
    read: UnixStream,
    written: UnixStream,
}

impl Told {
    fn start(driver: Driver, config: &str) -> Self {
        let gate = Arc::new(Gate::default());
        let waiting = Arc::clone(&gate);
        let upstream = Upstream::answering(move |request, conn| {
            if request.target == "/hold" {
                waiting.wait();
            }
            conn.reply(200, "whole");
        });
        let (read, written) = UnixStream::pair().unwrap();
        let stderr = OwnedFd::from(written.try_clone().unwrap());
        let config = config.to_owned() + &behind(&[&upstream], "timeout = \"600s\"", "");
        let gateway = Gateway::start_telling(driver, &config, stderr);
        Self { gate, upstream, gateway, read, written }
    }

    /// Nothing more can be written, and nobody reads.
    fn fill(&self) {
        // of both, the gateway's end too: it waits then, as it does for a reader that is slow
        self.written.set_nonblocking(true).unwrap();
        let socket = SockRef::from(&self.written);
        for size in [1 << 12, 1] {
            loop {
                match socket.send(&[b'x'; 1 << 12][..size]) {
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
        }
        self.written.set_nonblocking(false).unwrap();
    }

    /// A client whose request the service holds.
    fn hold(&self) -> Client {
        let mut client = self.gateway.client();
        client.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        let is_asked = || self.upstream.requests().iter().any(|request| request.target == "/hold");
        eventually("the request is with the service", || is_asked().then_some(()));
        client
    }

    /// A line is logged; the admin API and clients are answered afterwards.
    fn log_a_line(&mut self) {
        self.gateway.running().signal("HUP");
        assert_eq!(self.gateway.admin("/healthz").status, 200);
        assert_eq!(self.gateway.get("/").text(), "whole");
    }

    fn lines_lost(&self) -> f64 {
        self.gateway.metric("ringgate_log_lines_lost_total", &[])
    }

    /// It drains, and ends as if nothing were.
    fn drain(mut self, mut held: Client) {
        self.gateway.running().signal("TERM");
        eventually("it drains", || Client::try_connect(self.gateway.address("edge")).is_err().then_some(()));
        assert!(self.gateway.running().ended().is_none(), "a request is in flight");
        self.gate.open();
        assert_eq!(held.read("GET").text(), "whole");
        assert_eq!(self.gateway.running().wait().code(), Some(0));
    }
}

fn lines(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

on_both_drivers! {
    fn a_reader_of_the_log_that_is_gone_is_counted_and_no_more(driver: Driver) {
        let mut told = Told::start(driver, "");
        assert_eq!(told.lines_lost(), 0.0);
        told.read = UnixStream::pair().unwrap().0;
        for lost in 1..=3 {
            told.log_a_line();
            eventually("it is counted", || (told.lines_lost() >= f64::from(lost)).then_some(()));
        }
        let held = told.hold();
        told.drain(held);
    }

    fn a_log_that_nobody_reads_holds_nothing_up(driver: Driver) {
        let mut told = Told::start(driver, "");
        told.fill();
        told.log_a_line();
        let held = told.hold();
        told.drain(held);
    }

    fn a_second_signal_ends_at_once_though_nobody_reads_the_log(driver: Driver) {
        let mut told = Told::start(driver, "");
        told.fill();
        told.log_a_line();
        let _held = told.hold();
        told.gateway.running().signal("TERM");
        eventually("it drains", || Client::try_connect(told.gateway.address("edge")).is_err().then_some(()));
        told.gateway.running().signal("TERM");
        assert_eq!(told.gateway.running().wait().code(), Some(143));
        told.gate.open();
    }

    fn the_access_log_goes_on_when_what_it_complains_of_is_not_heard(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let (folder, away) = (dir.path().join("logs"), dir.path().join("away"));
        std::fs::create_dir(&folder).unwrap();
        let log = folder.join("access.log");
        let mut told = Told::start(driver, &format!("[access_log]\npath = \"{}\"\n\n", log.display()));
        told.read = UnixStream::pair().unwrap().0;
        std::fs::rename(&folder, &away).unwrap();
        told.gateway.running().signal("USR1");
        eventually("it complains", || (told.lines_lost() >= 1.0).then_some(()));
        std::fs::rename(&away, &folder).unwrap();
        let before = lines(&log);
        assert_eq!(told.gateway.get("/").text(), "whole");
        eventually("the request is logged", || (lines(&log) > before).then_some(()));
        let held = told.hold();
        told.drain(held);
    }
}
