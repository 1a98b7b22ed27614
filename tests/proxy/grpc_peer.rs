//! gRPC as others speak it: a service and a client by Python's grpcio, the gateway between them.
//!
//! Where it is not installed this is a skip that says so. `RINGGATE_TESTS_PYTHON` names another interpreter than `python3`.

use crate::support::{Driver, Gateway, Setup, behind_endpoints, eventually, on_both_drivers};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// The interpreter, if it has grpcio.
fn python() -> Option<String> {
    let python = std::env::var("RINGGATE_TESTS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import grpc"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    eprintln!("skipped: {python} has no grpcio");
    None
}

/// The script, which is killed when this is dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // both fail only when it has ended already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

on_both_drivers! {
    fn grpcio_calls_grpcio(driver: Driver) {
        let Some(python) = python() else { return };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/peers/grpcio.py");
        let child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut peer = Peer(child);
        let mut said = BufReader::new(peer.0.stdout.take().expect("piped")).lines();
        let port = said.next().expect("a line").expect("text");
        let cluster = "protocol = \"h2\"\nhealth_check = { grpc = true, interval = \"100ms\", timeout = \"10s\" }";
        let route = behind_endpoints(&format!("{{ address = \"127.0.0.1:{port}\" }}"), "", cluster).replace("\"/*\"", "\"/test.Peer/*\"");
        let config = &(route + "[upstream.deaf]\nprotocol = \"h2\"\nhealth_check = { grpc = \"no.Service\", interval = \"100ms\" }\n\
                               endpoints = [{ address = \"127.0.0.1:1\" }]\n[[route]]\nname = \"deaf\"\nmatch = { path = \"/deaf/*\" }\nupstream = \"deaf\"\n");
        let gateway = Gateway::start_with(driver, &Setup { listener: "http2 = { cleartext = true }", config, ..Setup::default() });
        let checks = |upstream, result| gateway.metric("ringgate_health_checks_total", &[("upstream", upstream), ("result", result)]);
        eventually("its service says that it is well", || (checks("svc", "passed") > 0.0).then_some(()));
        let mut told = peer.0.stdin.take().expect("piped");
        writeln!(told, "{}", gateway.address("edge")).expect("it listens");
        assert_eq!(said.next().and_then(Result::ok).as_deref(), Some("done"), "the client's own words stand above");
        // its last calls may still be on their way into the numbers
        eventually("all calls are counted", || (gateway.metric("ringgate_http2_streams", &[]) == 0.0).then_some(()));
        assert_eq!(checks("svc", "failed"), 0.0);
        let count = |method, status| gateway.metric("ringgate_grpc_requests_total", &[("service", "test.Peer"), ("method", method), ("status", status)]);
        assert_eq!((count("Upper", "0"), count("Refuse", "5"), count("Chat", "0")), (1_002.0, 1.0, 1.0));
    }
}
