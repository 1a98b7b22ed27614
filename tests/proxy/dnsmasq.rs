//! Endpoints whose names a real server of names knows: dnsmasq, with everything that goes wrong with one, under load.
//!
//! Where dnsmasq is not installed these are skips that say so; with RINGGATE_TESTS_NEED_TOOLS set (as .ci/run does) they are failures.

use crate::support::gateway::behind_endpoints;
use crate::support::load::assert_no_failure_while;
use crate::support::upstream::keep_a_port;
use crate::support::{Driver, Gateway, Setup, Upstream, eventually, on_both_drivers};
use crate::tools::is_installed;
use serde_json::Value;
use socket2::Socket;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

const NAME: &str = "svc.test";

/// A dnsmasq that is given the addresses of one name in a hosts file.
struct Dnsmasq {
    dir: TempDir,
    address: SocketAddr,
    child: Option<Child>,
    _place: Socket,
}

impl Dnsmasq {
    /// One whose answers hold for `ttl` seconds, and which knows these addresses, 127.0.0.n each.
    fn start(ttl: u32, last: &[u8]) -> Self {
        let (place, address) = keep_a_port();
        let mut server = Self { dir: tempfile::tempdir().expect("a folder"), address, child: None, _place: place };
        server.write(last);
        server.launch(&[format!("--local-ttl={ttl}")]);
        server
    }

    fn write(&self, last: &[u8]) {
        let lines: String = last.iter().map(|last| format!("127.0.0.{last} {NAME}\n")).collect();
        std::fs::write(self.dir.path().join("hosts"), lines).expect("writable");
    }

    /// Has it read the file anew (SIGHUP, as its manual says).
    fn set(&self, last: &[u8]) {
        self.write(last);
        self.signal(libc::SIGHUP);
    }

    fn launch(&mut self, more: &[String]) {
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--no-poll",
                "--cache-size=0",
            ])
            .args(["--user=", "--group=", "--pid-file=", "--bind-interfaces", "--listen-address=127.0.0.1"])
            .arg(format!("--port={}", self.address.port()))
            .arg(format!("--addn-hosts={}", self.dir.path().join("hosts").display()))
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq starts");
        self.child = Some(child);
        eventually("dnsmasq listens", || TcpStream::connect(self.address).ok());
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = self.child.as_ref().expect("it runs").id();
        // SAFETY: a system call on a number; the process is our child, so it is nobody else's
        assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
    }

    /// `kill -9`
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
    }

    /// A gateway before [`NAME`] at this port.
    fn gateway(&self, driver: Driver, port: &str) -> Gateway {
        let resolver =
            format!("[resolver]\nservers = [\"{}\"]\nmin_ttl = \"100ms\"\ntimeout = \"500ms\"\n", self.address);
        let endpoints =
            behind_endpoints(&format!("{{ address = \"{NAME}:{port}\" }}"), "timeout = \"5s\"", "slow_start = \"0s\"");
        Gateway::start_with(driver, &Setup { workers: 2, config: &(resolver + &endpoints), ..Setup::default() })
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.kill();
    }
}

fn upstream(gateway: &Gateway) -> Value {
    gateway.admin("/upstreams").json()["upstreams"][0].clone()
}

fn endpoints(gateway: &Gateway) -> usize {
    upstream(gateway)["endpoints"].as_array().expect("a list").len()
}

fn failures(gateway: &Gateway) -> u64 {
    upstream(gateway)["names"][0]["failures"].as_u64().expect("a number")
}

/// What is known stays as it is while `trouble` lasts, for as long as it takes the gateway to fail twice; then it is learned anew.
fn survives(
    what: &str,
    gateway: &Gateway,
    dns: &mut Dnsmasq,
    trouble: impl FnOnce(&mut Dnsmasq),
    mend: impl FnOnce(&mut Dnsmasq),
) {
    let known = endpoints(gateway);
    trouble(dns);
    eventually(&format!("{what}: it is not learned"), || (failures(gateway) >= 2).then_some(()));
    assert_eq!(endpoints(gateway), known, "{what}: the last answer stays");
    mend(dns);
    eventually(&format!("{what}: it is learned again"), || (failures(gateway) == 0).then_some(()));
}

on_both_drivers! {
    fn endpoints_follow_dnsmasq_and_outlive_what_goes_wrong_with_it(driver: Driver) {
        if !is_installed("dnsmasq") {
            return;
        }
        let mut dns = Dnsmasq::start(1, &[1]);
        let first = Upstream::always("first");
        let second = Upstream::beside(&first, "127.0.0.2", "second");
        let gateway = dns.gateway(driver, first.port());
        assert_eq!(endpoints(&gateway), 1);
        assert_no_failure_while(&gateway, |load| {
            load.goes_on_for(50);
            // added, then the other one removed: the gateway moves within the TTL of 1 s and a second
            for (last, moved) in [(&[1, 2][..], &second), (&[2], &second), (&[1, 2], &first), (&[1], &first)] {
                let asked = moved.requests().len();
                let changed = Instant::now();
                dns.set(last);
                eventually("the endpoints are those that it says", || (endpoints(&gateway) == last.len()).then_some(()));
                eprintln!("{last:?} after {:?}", changed.elapsed());
                eventually("who is there is asked", || (moved.requests().len() > asked).then_some(()));
            }
            let left = second.requests().len();
            load.goes_on_for(100);
            assert_eq!(second.requests().len(), left, "who is gone gets nothing new");

            // no answer at all
            survives("silence", &gateway, &mut dns, |dns| dns.signal(libc::SIGSTOP), |dns| dns.signal(libc::SIGCONT));
            // nobody there
            survives("nobody", &gateway, &mut dns, Dnsmasq::kill, |dns| dns.launch(&["--local-ttl=1".to_owned()]));
            // REFUSED: it knows no such name, and nobody whom it could ask
            survives("refusal", &gateway, &mut dns, |dns| dns.set(&[]), |dns| dns.set(&[1]));
            // SERVFAIL: whom it would ask is not there
            survives(
                "failure",
                &gateway,
                &mut dns,
                |dns| {
                    dns.kill();
                    dns.write(&[]);
                    dns.launch(&[format!("--server=/{NAME}/127.0.0.1#1")]);
                },
                |dns| {
                    dns.kill();
                    dns.write(&[1]);
                    dns.launch(&["--local-ttl=0".to_owned()]);
                },
            );
            // TTL 0: asked for as often as min_ttl allows
            dns.set(&[2]);
            let asked = second.requests().len();
            eventually("a TTL of 0 is followed", || (second.requests().len() > asked).then_some(()));
            load.goes_on_for(50);
        });
        eventually("older generations are gone", || {
            (gateway.admin("/generations").json()["generations"].as_array().unwrap().len() == 1).then_some(())
        });
    }

    fn a_hundred_addresses_come_by_tcp_and_each_is_asked(driver: Driver) {
        if !is_installed("dnsmasq") {
            return;
        }
        let all: Vec<u8> = (1..=100).collect();
        let mut dns = Dnsmasq::start(0, &all);
        dns.kill();
        // more than one packet holds: the answer is cut, and asked for by TCP (RFC 1035 §4.2.1)
        dns.launch(&["--local-ttl=0".to_owned(), "--edns-packet-max=512".to_owned()]);
        let first = Upstream::always("ok");
        let others: Vec<Upstream> = all[1..].iter().map(|last| Upstream::beside(&first, &format!("127.0.0.{last}"), "ok")).collect();
        let gateway = dns.gateway(driver, first.port());
        assert_eq!(endpoints(&gateway), 100);
        assert_no_failure_while(&gateway, |_| {
            eventually("each is asked", || others.iter().all(|other| !other.requests().is_empty()).then_some(()));
            dns.set(&all[..50]);
            eventually("half of them are gone", || (endpoints(&gateway) == 50).then_some(()));
        });
    }
}
