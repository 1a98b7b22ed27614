//! The gateway between tools that everybody knows: curl before it, nginx behind it.
//!
//! A tool that is not installed is a skip that says so; with RINGGATE_TESTS_NEED_TOOLS set (as .ci/run does) it is a failure.

use crate::support::load::assert_no_failure_while;
use crate::support::upstream::keep_a_port;
use crate::support::{Driver, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, noise, on_both_drivers};
use socket2::Socket;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Whether the tool answers to `-V`.
pub(crate) fn is_installed(tool: &str) -> bool {
    let installed = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !installed {
        assert!(std::env::var_os("RINGGATE_TESTS_NEED_TOOLS").is_none(), "{tool} is not installed");
        eprintln!("skipped: {tool} is not installed");
    }
    installed
}

/// An nginx of one process that answers with its name.
struct Nginx {
    prefix: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
    _place: Socket,
}

impl Nginx {
    fn start(dir: &Path, name: &str) -> Self {
        let (place, address) = keep_a_port();
        let prefix = dir.join(name);
        std::fs::create_dir(&prefix).expect("a fresh directory");
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {};\n", prefix.join(kind).display()))
            .collect();
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}\
             server {{ listen {address}; keepalive_requests 100000; location / {{ return 200 \"{name}\"; }} }}\n}}\n"
        );
        std::fs::write(prefix.join("nginx.conf"), config).expect("writable");
        let mut nginx = Self { prefix, address, child: None, _place: place };
        nginx.launch();
        nginx
    }

    fn launch(&mut self) {
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(&self.prefix)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        self.child = Some(child);
        eventually("nginx listens", || TcpStream::connect(self.address).ok());
    }

    /// `kill -9`
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two endpoints of equal weight, ejected for a short time.
fn between(a: &Nginx, b: &Nginx) -> String {
    let endpoints = format!("{{ address = \"{}\" }}, {{ address = \"{}\" }}", a.address, b.address);
    let cluster =
        "balance = \"weighted\"\noutlier = { eject = \"300ms\", eject_max = \"600ms\" }\nslow_start = \"300ms\"";
    behind_endpoints(&endpoints, "", cluster)
}

on_both_drivers! {
    fn curl_uploads_and_downloads(driver: Driver) {
        if !is_installed("curl") {
            return;
        }
        let upstream = Upstream::answering(|request, conn| {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()));
            conn.send(&request.body);
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let dir = tempfile::tempdir().unwrap();
        let (sent, got) = (dir.path().join("sent"), dir.path().join("got"));
        // above 1 MiB curl asks with Expect: 100-continue first
        std::fs::write(&sent, noise(9, 3 << 20)).unwrap();
        for chunked in [false, true] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--data-binary"]);
            curl.arg(format!("@{}", sent.display())).arg("--output").arg(&got);
            if chunked {
                curl.args(["--header", "Transfer-Encoding: chunked"]);
            }
            let output = curl.arg(format!("http://{}/echo", gateway.address("edge"))).output().expect("curl runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(std::fs::read(&got).unwrap() == std::fs::read(&sent).unwrap(), "chunked: {chunked}");
        }
    }

    fn two_nginx_share_requests_evenly(driver: Driver) {
        if !is_installed("nginx") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Nginx::start(dir.path(), "a"), Nginx::start(dir.path(), "b"));
        let gateway = Gateway::start(driver, &between(&a, &b));
        let mut client = gateway.client();
        let to_a = (0..1000).filter(|_| client.get("/").text() == "a").count();
        assert!((490..=510).contains(&to_a), "{to_a} of 1000 went to the first of two");
    }

    fn an_nginx_that_is_killed_and_started_again_costs_no_request(driver: Driver) {
        if !is_installed("nginx") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (mut a, b) = (Nginx::start(dir.path(), "a"), Nginx::start(dir.path(), "b"));
        let config = between(&a, &b);
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        assert_no_failure_while(&gateway, |load| {
            load.goes_on_for(500);
            a.kill();
            load.goes_on_for(500);
            a.launch();
            let address = a.address.to_string();
            let successes = || {
                let labels = [("endpoint", address.as_str()), ("outcome", "success")];
                gateway.metric("ringgate_upstream_attempts_total", &labels)
            };
            let before = successes();
            eventually("it gets traffic again", || (successes() > before + 20.0 || load.has_failed()).then_some(()));
        });
    }
}
