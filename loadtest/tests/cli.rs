//! The binary as users start it: codes, files, Ctrl-C.
//!
//! What a busy machine may do to a measurement is no failure here: a result may be INVALID (3), and has to be there all the same.

use ringgate_load::result::Outcome;
use ringgate_load::upstream::Time;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_ringgate-load");
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn load(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn outcome(file: &Path) -> Outcome {
    serde_json::from_str(&std::fs::read_to_string(file).expect("a result was written")).expect("it is one")
}

/// A service of the tool's own, in a process of its own.
struct Service(Child);

impl Service {
    fn start(address: SocketAddr) -> Self {
        let time = Time::Fixed(Duration::ZERO).to_string();
        let arguments = ["upstream", "--listen", &address.to_string(), "--time", &time];
        let child = Command::new(BINARY).args(arguments).stdout(Stdio::null()).spawn().expect("it runs");
        until("it listens", || std::net::TcpStream::connect(address).is_ok());
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test waits for a condition with a deadline")]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback")
}

#[test]
fn a_run_is_a_result_a_report_and_a_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("result.json"), folder.path().join("report.html"));
    let (json_name, html_name) = (json.to_str().unwrap(), html.to_str().unwrap());
    let address = free_address();
    let _service = Service::start(address);
    let url = format!("http://{address}/");
    let run = load(&["run", &url, "--rate", "500", "--for", "2s", "--json", json_name, "--html", html_name]);
    assert!(matches!(run.status.code(), Some(0 | 3)), "{}", text(&run.stderr));
    let seen = outcome(&json);
    assert_eq!((seen.command.as_str(), seen.runs[0].due, seen.runs[0].good), ("run", 1_000, 1_000));
    assert!(text(&run.stdout).trim_end().ends_with("0 passed, 0 failed"), "{}", text(&run.stdout));
    assert!(
        text(&run.stdout).contains(&format!("Seed {}\n", seen.seed)),
        "it can be made again: {}",
        text(&run.stdout)
    );
    assert!(std::fs::read_to_string(&html).unwrap().contains("<svg"), "plots");

    let other = folder.path().join("page.html");
    assert!(load(&["report", json_name, "-o", other.to_str().unwrap()]).status.success());
    assert!(other.is_file());
    let mut unheard =
        Command::new(BINARY).args(["compare", json_name, json_name]).stdout(Stdio::piped()).spawn().unwrap();
    drop(unheard.stdout.take());
    assert_eq!(unheard.wait().unwrap().code(), Some(0), "whoever reads it may go, as `head` does");
    let compared = load(&["compare", json_name, json_name]);
    assert!(compared.status.success() && text(&compared.stdout).contains("p99"), "{}", text(&compared.stdout));
    let merged = folder.path().join("merged.json");
    let twice = load(&["merge", json_name, json_name, "-o", merged.to_str().unwrap()]);
    assert!(twice.status.code() == Some(2) && text(&twice.stderr).contains("twice"), "{}", text(&twice.stderr));
    let second = folder.path().join("second.json");
    let part = Outcome { seed: seen.seed.wrapping_add(1), ..seen };
    std::fs::write(&second, serde_json::to_string(&part).unwrap()).unwrap();
    let code = load(&["merge", json_name, second.to_str().unwrap(), "-o", merged.to_str().unwrap()]).status.code();
    assert!(matches!(code, Some(0 | 3)));
    assert_eq!(outcome(&merged).runs[0].due, 2_000);

    let refused = load(&["run", "http://127.0.0.1:1/", "--rate", "100", "--for", "1s"]);
    assert!(text(&refused.stdout).contains("100 refused (nobody listens there)"), "{}", text(&refused.stdout));

    let thresholds = folder.path().join("ci.toml");
    std::fs::write(&thresholds, "max_p50 = \"1us\"\n").unwrap();
    let missed = ["run", &url, "--rate", "200", "--for", "1s", "--thresholds", thresholds.to_str().unwrap()];
    let missed = load(&missed);
    assert!(text(&missed.stdout).trim_end().ends_with("0 passed, 1 failed"), "{}", text(&missed.stdout));
    assert!(matches!(missed.status.code(), Some(1 | 3)));
}

#[test]
fn what_cannot_be_done_is_said_and_is_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    let mistakes = "name = \"wrong\"\n[load]\nrate = \"2000\"\npace = \"poison\"\n[gateway]\nkinds = [\"ngnix\"]\n\
                    [upstream.svc]\nservice = \"5\"\n[[target]]\nwait = 3\n";
    std::fs::write(&plan, mistakes).unwrap();
    let refused = load(&["drill", plan.to_str().unwrap()]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    for (line, suggestion) in [(3, "2000/s"), (4, "poisson"), (6, "nginx"), (8, "5ms"), (10, "wait")] {
        let at = format!("plan.toml:{line}:");
        assert!(said.contains(&at) && said.contains(suggestion), "{at} {suggestion}: {said}");
    }
    let hosts = folder.path().join("hosts.toml");
    std::fs::write(&hosts, "max_hosts = 3\n").unwrap();
    for (arguments, reason) in [
        (&["run", "http://192.0.2.1/", "--rate", "5"][..], "--i-own-this-target"),
        (&["run", "ftp://127.0.0.1/", "--rate", "5"], "http"),
        (&["run", "http://127.0.0.1:1/", "--rate", "5", "--no-resumption"], "https"),
        (&["report", "/nowhere.json"], "/nowhere.json"),
        (&["run", "http://127.0.0.1:1/", "--rate", "x"], "20k"),
        (&["run", "--plan", "x.toml", "--connections", "3"], "--plan"),
        (&["run", "http://127.0.0.1:1/", "--rate", "5", "--direct", "http://127.0.0.1:2/"], "asks one server"),
        (&["size", "x.json", "--from-result", "--peak", "5k", "--p99", "5ms"], "--p99"),
        (&["peers", "--plan", "x.toml", "--body-bytes", "3"], "--plan"),
        (&["peers", "--thresholds", hosts.to_str().unwrap()], "judges nothing"),
        (&["curve", "http://127.0.0.1:1/", "--to", "2k", "--thresholds", hosts.to_str().unwrap()], "judges nothing"),
        (&["run", "http://127.0.0.1:1/", "--rate", "5", "--thresholds", hosts.to_str().unwrap()], "max_hosts"),
    ] {
        let refused = load(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(text(&refused.stderr).contains(reason), "{arguments:?}: {}", text(&refused.stderr));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    for file in [folder.path().join("nowhere/result.json"), folder.path().to_owned()] {
        let refused =
            load(&["run", "http://127.0.0.1:1/", "--rate", "50", "--for", "1s", "--json", file.to_str().unwrap()]);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains("cannot write"), "{said}");
        assert!(!said.contains("p99"), "before: {said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left there");
}

#[test]
fn a_drill_is_judged_phase_by_phase() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, json) = (folder.path().join("plan.toml"), folder.path().join("result.json"));
    let text_of_plan = "name = \"short\"\n[load]\nrate = \"200/s\"\nwarm_up = \"1s\"\n[gateway]\nkinds = [\"ringgate\"]\n\
         [upstream.svc]\ninstances = 2\nservice = \"1ms\"\n[[target]]\npath = \"/a\"\n\
         [[phase]]\nname = \"well\"\nlength = \"2s\"\nmax_failed = 0\n\
         [[phase]]\nname = \"dead\"\nlength = \"2s\"\nfaults = [{ upstream = \"svc\", do = \"kill\" }]\nmax_failed = 0\n\
         [[phase]]\nname = \"back\"\nlength = \"4s\"\nfaults = [{ upstream = \"svc\", do = \"start\" }]\n";
    std::fs::write(&plan, text_of_plan).unwrap();
    let run = load(&["drill", plan.to_str().unwrap(), "--json", json.to_str().unwrap()]);
    let (seen, said) = (outcome(&json), format!("{}\n{}", text(&run.stdout), text(&run.stderr)));
    assert!(matches!(run.status.code(), Some(1 | 3)), "{said}");
    let phases = &seen.drills[0].phases;
    let failed = |row: usize| phases[row].count.due - phases[row].count.good;
    // who was under way when the services were killed, and lost with them, counts where they were dead
    let due = phases[0].count.due + phases[1].count.due;
    assert_eq!((phases.len(), due, failed(0)), (3, 800, 0), "{said}");
    assert!(failed(1) >= 390, "nobody was there: {said}");
    assert!(failed(2) < 400, "they came back: {said}");
    assert!(phases[0].amplification.is_some_and(|times| (0.95..1.1).contains(&times)), "{said}");
    assert!(phases[0].verdicts[0].passed && !phases[1].verdicts[0].passed, "{said}");
    assert!(seen.drills[0].metrics.keys().any(|name| name.starts_with("ringgate_requests_total")), "its own numbers");
}

/// Processes that descend from this one, by their pids.
fn descendants(of: u32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut parents = vec![of.to_string()];
    while let Some(parent) = parents.pop() {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        for child in children.split_ascii_whitespace() {
            found.push(child.parse().expect("a pid"));
            parents.push(child.to_owned());
        }
    }
    found
}

#[test]
fn ctrl_c_leaves_a_partial_result_and_nobody_behind() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    let text_of_plan = "name = \"long\"\n[load]\nrate = \"200/s\"\n[gateway]\nkinds = [\"ringgate\"]\n[upstream.svc]\n\
         service = \"1ms\"\n[[phase]]\nname = \"well\"\nlength = \"100s\"\nmax_failed = 0\n";
    std::fs::write(&plan, text_of_plan).unwrap();
    is_ended_early(&["capacity", "--demo"], folder.path());
    if let Some(seen) = is_ended_early(&["drill", plan.to_str().unwrap()], folder.path()) {
        // of a phase that was not gone through nothing is known, good or bad
        assert!(seen.drills[0].phases.is_empty() && seen.all_verdicts().next().is_none(), "{:?}", seen.drills);
    }
}

/// Ends a command when everything was started, and looks whether it is gone and what it leaves.
fn is_ended_early(command: &[&str], folder: &Path) -> Option<Outcome> {
    let json = folder.join("result.json");
    let _ = std::fs::remove_file(&json);
    let arguments = [command, &["--json", json.to_str().unwrap()]].concat();
    let mut running =
        Command::new(BINARY).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    // two guardians with the gateway and the service under them
    until("everything was started", || descendants(running.id()).len() >= 4);
    let all = descendants(running.id());
    let pid = Pid::from_child(&running);
    kill_process(pid, Signal::INT).expect("it is there");
    let mut code = None;
    until("it ends", || {
        code = running.try_wait().expect("a child");
        code.is_some()
    });
    let is_gone = |pid: &i32| Pid::from_raw(*pid).is_none_or(|pid| test_kill_process(pid).is_err());
    until("nobody is left", || all.iter().all(is_gone));
    // the signal may have come before there was anything to say
    json.is_file().then(|| {
        let seen = outcome(&json);
        assert!(seen.is_partial, "{code:?}");
        assert_eq!(code.and_then(|code| code.code()), Some(3), "who was told half may not take it for a success");
        seen
    })
}
