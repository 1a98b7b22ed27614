//! The gateway as a process of its own, started from a configuration file on ports that the kernel chooses.

use super::client::{Client, Response};
use super::stream::Stream;
use super::tls::{self, Authority};
use super::upstream::Upstream;
use super::{eventually, lock};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use tempfile::TempDir;

/// Names the step of io_uring that the tests run on, as the configuration does: `io_uring-coop-taskrun`. Without it, the best one.
const STEP: &str = "RINGGATE_TEST_STEP";

/// The event loop that a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// `driver = "io_uring"`, or the step that [`STEP`] names.
    IoUring,
    /// Of io_uring, this step.
    Step(&'static str),
    /// `driver = "epoll"`
    Epoll,
}

impl Driver {
    /// The steps between the best and epoll, on which monoio runs.
    pub(crate) const GUESTS: [Self; 3] =
        [Self::Step("io_uring-defer-taskrun"), Self::Step("io_uring-coop-taskrun"), Self::Step("io_uring-plain")];

    /// Whether the kernel lets this process have it. A step that [`STEP`] asks for must be possible.
    pub(crate) fn is_possible(self) -> bool {
        static POSSIBLE: OnceLock<String> = OnceLock::new();
        let said = POSSIBLE.get_or_init(|| run_to_end(&["--version"]).stdout);
        let line = said.lines().find(|line| line.trim_start().starts_with("drivers")).unwrap_or_default();
        let is_there = |name: &str| line.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == name);
        match self {
            Self::Epoll => true,
            Self::IoUring if self.name() != "io_uring" => {
                assert!(is_there(self.name()), "{STEP} names a step that this kernel has: {said}");
                true
            }
            Self::IoUring => line.contains("io_uring"),
            Self::Step(name) => is_there(name),
        }
    }

    /// Its name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        static NAME: OnceLock<String> = OnceLock::new();
        match self {
            Self::IoUring => NAME.get_or_init(|| std::env::var(STEP).unwrap_or_else(|_| "io_uring".to_owned())),
            Self::Step(name) => name,
            Self::Epoll => "epoll",
        }
    }
}

/// What a test may want otherwise.
pub(crate) struct Setup<'a> {
    /// `gateway.workers`
    pub(crate) workers: usize,
    /// `gateway.drain_timeout`
    pub(crate) drain_timeout: &'a str,
    /// `listen` of the listener `edge`.
    pub(crate) listen: &'a str,
    /// More keys of the listener `edge`.
    pub(crate) listener: &'a str,
    /// Everything else.
    pub(crate) config: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { workers: 1, drain_timeout: "20s", listen: "127.0.0.1:0", listener: "", config: "" }
    }
}

impl Setup<'_> {
    /// The configuration file.
    pub(crate) fn file(&self, driver: Driver) -> String {
        let tls = if tls::is_down() { Authority::shared().listener("server") } else { String::new() };
        let listener = format!("{tls}{}", self.listener);
        format!(
            "[gateway]\nworkers = {}\ndriver = \"{}\"\ndrain_timeout = \"{}\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"test\", \"x\"]\n\n\
             [[listener]]\nname = \"edge\"\nlisten = \"{}\"\n{}\n\n{}\n",
            self.workers,
            driver.name(),
            self.drain_timeout,
            self.listen,
            listener,
            self.config
        )
    }
}

/// A route `all` for every path to a cluster `svc` of these services, with more keys for the route and for the cluster.
pub(crate) fn behind(services: &[&Upstream], route: &str, cluster: &str) -> String {
    let endpoints: Vec<_> =
        services.iter().map(|service| format!("{{ address = \"{}\" }}", service.address())).collect();
    behind_endpoints(&endpoints.join(", "), route, cluster)
}

/// The same with the endpoints as the configuration writes them.
pub(crate) fn behind_endpoints(endpoints: &str, route: &str, cluster: &str) -> String {
    let tls = match tls::is_up() && !endpoints.contains("unix:") {
        true => format!("tls = {{ ca = \"{}\", name = \"localhost\" }}\n", Authority::shared().ca()),
        false => String::new(),
    };
    format!(
        "[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"svc\"\n{route}\n\n\
         [upstream.svc]\nendpoints = [{endpoints}]\n{tls}{cluster}\n\n"
    )
}

/// Two endpoints of which the first gets every first attempt: the second stands in the next tier.
pub(crate) fn first_then(first: &Upstream, second: &Upstream) -> String {
    let (first, second) = (first.address(), second.address());
    format!("{{ address = \"{first}\", priority = 0 }}, {{ address = \"{second}\", priority = 1 }}")
}

/// A process of the binary, its output collected. It is killed, by its id, when this is dropped.
pub(crate) struct Process {
    child: Child,
    /// Those that have taken over from it, one from the other.
    heirs: Vec<u32>,
    stderr: Arc<Mutex<Vec<String>>>,
    stdout: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the binary with these arguments, its surroundings cleaned.
    #[track_caller]
    pub(crate) fn spawn(arguments: &[&str]) -> Self {
        Self::spawn_by(Command::new(env!("CARGO_BIN_EXE_ringgate")), arguments)
    }

    /// The same by a command that begins with the binary, and ends as it.
    #[track_caller]
    fn spawn_by(command: Command, arguments: &[&str]) -> Self {
        Self::spawn_telling(command, arguments, Stdio::piped(), Stdio::null())
    }

    /// The same with its standard error elsewhere, unless it is to be collected, and something at its standard input.
    #[track_caller]
    fn spawn_telling(mut command: Command, arguments: &[&str], stderr: Stdio, stdin: Stdio) -> Self {
        let mut child = command
            .args(arguments)
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let (stderr, stdout) = (Arc::default(), Arc::default());
        let mut readers = vec![collect(child.stdout.take().expect("piped"), &stdout)];
        readers.extend(child.stderr.take().map(|pipe| collect(pipe, &stderr)));
        Self { child, heirs: Vec::new(), stderr, stdout, readers }
    }

    /// Lines on standard error so far.
    pub(crate) fn stderr(&self) -> Vec<String> {
        lock(&self.stderr).clone()
    }

    /// Lines on standard output so far.
    pub(crate) fn stdout(&self) -> Vec<String> {
        lock(&self.stdout).clone()
    }

    /// Sends a signal by name (`TERM`, `INT`, `USR1`).
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(status.success(), "{kill}");
    }

    /// Sets how many descriptors it may have (RLIMIT_NOFILE, soft); returns what it was.
    pub(crate) fn limit_descriptors(&self, limit: &str) -> String {
        let id = self.child.id();
        let script =
            format!("prlimit --pid {id} --nofile --noheadings --output SOFT && prlimit --pid {id} --nofile={limit}:");
        let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our child")
    }

    /// Waits until it ends; fails after [`PATIENCE`].
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.ended())
    }

    /// The output, whole; call it when the process has ended.
    fn read_out(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("readers do not fail");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // both fail only when it has ended already
        for heir in &self.heirs {
            let _ = Command::new("sh").args(["-c", &format!("kill -KILL {heir}")]).stderr(Stdio::null()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.read_out();
        let stderr = self.stderr();
        if std::thread::panicking() {
            eprintln!("--- standard error of the process\n{}\n---", stderr.join("\n"));
        } else if let Some(line) = stderr.iter().find(|line| line.contains("panicked")) {
            panic!("the process panicked: {line}");
        }
    }
}

/// What a process said until it ended.
#[derive(Debug)]
pub(crate) struct Said {
    /// Exit code; `None`: killed by a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// Runs the binary to its end; fails after [`PATIENCE`].
#[track_caller]
pub(crate) fn run_to_end(arguments: &[&str]) -> Said {
    end_of(Process::spawn(arguments))
}

/// A process of the binary under limits, as the shell's `ulimit` has them.
#[track_caller]
fn limited(limits: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new("sh");
    let script = format!("ulimit {limits} && exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_ringgate")]);
    Process::spawn_by(command, arguments)
}

/// Runs the binary to its end under limits, as the shell's `ulimit` has them.
#[track_caller]
pub(crate) fn run_to_end_limited(limits: &str, arguments: &[&str]) -> Said {
    end_of(limited(limits, arguments))
}

/// Waits for its end.
#[track_caller]
fn end_of(mut process: Process) -> Said {
    let code = process.wait().code();
    process.read_out();
    Said { code, stdout: process.stdout().join("\n"), stderr: process.stderr().join("\n") }
}

/// A running gateway.
pub(crate) struct Gateway {
    process: Process,
    addresses: BTreeMap<String, String>,
    dir: TempDir,
}

impl Gateway {
    /// Starts with one worker, one listener `edge`, and `config` for the rest; returns when `/readyz` says so.
    #[track_caller]
    pub(crate) fn start(driver: Driver, config: &str) -> Self {
        Self::start_with(driver, &Setup { config, ..Setup::default() })
    }

    /// Starts, and returns when `/readyz` says so.
    #[track_caller]
    pub(crate) fn start_with(driver: Driver, setup: &Setup<'_>) -> Self {
        Self::start_file(tempfile::tempdir().expect("a temporary directory"), &setup.file(driver))
    }

    /// Starts with this configuration, in a directory of its own, and returns when `/readyz` says so.
    #[track_caller]
    pub(crate) fn start_file(dir: TempDir, text: &str) -> Self {
        let file = write_config(dir.path(), text);
        let mut gateway = Self { process: Process::spawn(&["run", "-c", &file]), addresses: BTreeMap::new(), dir };
        gateway.await_ready();
        gateway
    }

    /// Starts under limits, as the shell's `ulimit` has them.
    #[track_caller]
    pub(crate) fn start_limited(driver: Driver, setup: &Setup<'_>, limits: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = write_config(dir.path(), &setup.file(driver));
        let mut gateway = Self { process: limited(limits, &["run", "-c", &file]), addresses: BTreeMap::new(), dir };
        gateway.await_ready();
        gateway
    }

    /// Starts with its standard error elsewhere, and so on unix sockets, whose addresses need not be told.
    #[track_caller]
    pub(crate) fn start_telling(driver: Driver, config: &str, stderr: impl Into<Stdio>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = |name: &str| format!("unix:{}", dir.path().join(name).display());
        let addresses: BTreeMap<_, _> = ["edge", "admin"].map(|name| (name.to_owned(), address(name))).into();
        let file = Setup { listen: &addresses["edge"], config, ..Setup::default() }
            .file(driver)
            .replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{}\"", addresses["admin"]));
        let file = write_config(dir.path(), &file);
        let command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        let process = Process::spawn_telling(command, &["run", "-c", &file], stderr.into(), Stdio::null());
        let mut gateway = Self { process, addresses, dir };
        gateway.await_ready();
        gateway
    }

    /// Starts by a command that begins with the binary, and ends as it, with something at its standard input.
    #[track_caller]
    pub(crate) fn start_by(command: Command, driver: Driver, setup: &Setup<'_>, stdin: impl Into<Stdio>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = write_config(dir.path(), &setup.file(driver));
        let process = Process::spawn_telling(command, &["run", "-c", &file], Stdio::piped(), stdin.into());
        let mut gateway = Self { process, addresses: BTreeMap::new(), dir };
        gateway.await_ready();
        gateway
    }

    fn await_ready(&mut self) {
        eventually("the gateway is ready", || {
            if let Some(status) = self.process.ended() {
                self.process.read_out();
                panic!("the gateway ended with {status}");
            }
            self.addresses.extend(self.process.stderr().iter().filter_map(|line| listening(line)));
            let admin = self.addresses.get("admin")?;
            let ready = Client::try_connect(admin).and_then(|mut client| client.try_get("/readyz"));
            ready.is_ok_and(|response| response.status == 200).then_some(())
        });
    }

    /// Its configuration's file.
    pub(crate) fn file(&self) -> String {
        self.dir.path().join("ringgate.toml").to_str().expect("UTF-8").to_owned()
    }

    /// Writes another configuration into its file, and has it read: what is answered.
    #[track_caller]
    pub(crate) fn reload(&mut self, text: &str) -> Response {
        write_config(self.dir.path(), text);
        let response = Client::connect(self.address("admin")).request("POST", "/reload", &[], b"");
        self.addresses.extend(self.process.stderr().iter().filter_map(|line| listening(line)));
        response
    }

    /// The same with what must be taken into use.
    #[track_caller]
    pub(crate) fn reload_well(&mut self, text: &str) {
        let response = self.reload(text);
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// Has the next process take over: its id.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) -> u32 {
        let response = Client::connect(self.address("admin")).request("POST", "/upgrade", &[], b"");
        let text = response.text();
        assert_eq!(response.status, 200, "{text}");
        let pid = text.split_once("\"pid\":").and_then(|(_, rest)| rest.split([',', '}']).next()?.parse().ok());
        let pid = pid.unwrap_or_else(|| panic!("a process id in {text}"));
        self.process.heirs.push(pid);
        pid
    }

    /// Waits until the log has told of the next process, which has taken over: its id.
    #[track_caller]
    pub(crate) fn await_upgrade(&mut self) -> u32 {
        let pid = eventually("the next process serves", || {
            let lines = self.process.stderr();
            let mut pids = lines
                .iter()
                .filter_map(|line| line.split_once("upgraded: process ")?.1.split(' ').next()?.parse().ok());
            let known = &self.process.heirs;
            pids.rfind(|pid| !known.contains(pid))
        });
        self.process.heirs.push(pid);
        pid
    }

    /// Waits until the log has told where that listener listens, which is new.
    #[track_caller]
    pub(crate) fn await_listener(&mut self, listener: &str) {
        eventually("the listener is told of", || {
            self.addresses.extend(self.process.stderr().iter().filter_map(|line| listening(line)));
            self.addresses.contains_key(listener).then_some(())
        });
    }

    /// Where that listener listens: `ip:port` or `unix:/path`.
    #[track_caller]
    pub(crate) fn address(&self, listener: &str) -> &str {
        self.addresses.get(listener).unwrap_or_else(|| panic!("no listener {listener} in {:?}", self.addresses))
    }

    /// A new connection to the listener `edge`.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        match tls::is_down() {
            true => self.tls_client(),
            false => Client::connect(self.address("edge")),
        }
    }

    /// A new connection that speaks TLS.
    #[track_caller]
    pub(crate) fn tls_client(&self) -> Client {
        let stream = Stream::connect(self.address("edge")).and_then(Stream::encrypted);
        Client::over(stream.unwrap_or_else(|error| panic!("no session: {error}")))
    }

    /// One GET on a new connection.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.client().get(path)
    }

    /// One request on a new connection.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.client().request(method, path, headers, body)
    }

    /// One GET to the admin listener.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> Response {
        Client::connect(self.address("admin")).get(path)
    }

    /// The sum of the metric's series that have these labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.admin("/metrics").text();
        page.lines().filter_map(series).filter(|s| s.name == name && s.has(labels)).map(|s| s.value).sum()
    }

    /// Waits until the gauges that are published now and then have been published once more.
    #[track_caller]
    pub(crate) fn await_gauges(&self) {
        let turns = || self.metric("ringgate_worker_loop_turns_total", &[]);
        let now = turns();
        eventually("the gauges are published", || (turns() > now).then_some(()));
    }

    /// Waits until no client is connected and nothing is left of them: no request in flight, no upstream connection in use, no buffer.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let is_zero = |name, labels: &[_]| eventually(name, || (self.metric(name, labels) == 0.0).then_some(()));
        is_zero("ringgate_connections", &[]);
        self.await_gauges();
        is_zero("ringgate_endpoint_in_flight", &[]);
        is_zero("ringgate_upstream_connections", &[("state", "active")]);
        is_zero("ringgate_worker_buffers_in_use_bytes", &[]);
        assert_eq!(self.metric("ringgate_worker_panics_total", &[]), 0.0);
    }

    /// The process behind it.
    pub(crate) fn running(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.child.id())).expect("it runs").count()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

/// Writes a configuration into `dir` and gives its path.
pub(crate) fn write_config(dir: &Path, text: &str) -> String {
    let file = dir.join("ringgate.toml");
    std::fs::write(&file, text).expect("the temporary directory is writable");
    file.to_str().expect("UTF-8").to_owned()
}

/// One line of the Prometheus text format.
pub(crate) struct Series<'a> {
    /// Metric name.
    pub(crate) name: &'a str,
    /// What stands between the braces.
    pub(crate) labels: &'a str,
    /// Its value.
    pub(crate) value: f64,
}

impl Series<'_> {
    /// Whether it has all these labels.
    pub(crate) fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| {
            self.labels.split("\",").any(|label| label.trim_end_matches('"') == format!("{name}=\"{value}"))
        })
    }
}

/// A line of the Prometheus text format; `None` for comments.
pub(crate) fn series(line: &str) -> Option<Series<'_>> {
    if line.starts_with('#') || line.is_empty() {
        return None;
    }
    let (key, value) = line.rsplit_once(' ')?;
    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
    Some(Series { name, labels: labels.trim_end_matches('}'), value: value.parse().ok()? })
}

/// `… listening listener=NAME address=ADDRESS`
fn listening(line: &str) -> Option<(String, String)> {
    let (_, fields) = line.split_once("listening ")?;
    let field = |name: &str| {
        let word = fields.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        Some(word.trim_matches('"').to_owned())
    };
    Some((field("listener")?, field("address")?))
}

fn collect(pipe: impl Read + Send + 'static, into: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            lock(&into).push(line);
        }
    })
}
