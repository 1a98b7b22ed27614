//! Children, and that nobody outlives us.

use ringgate_load::gateways::{Gateway, Kind, Setup};
use ringgate_load::processes::{Child, Ending, Spec};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::until;
use crate::{PATIENCE, be_the_tool, fleet};

fn shell(script: &str) -> Spec {
    be_the_tool();
    let arguments = vec!["-c".into(), script.into()];
    Spec { name: "shell".to_owned(), program: PathBuf::from("sh"), arguments, ..Spec::default() }
}

fn start(spec: &Spec) -> Child {
    Child::start(spec).unwrap_or_else(|error| panic!("{error}"))
}

/// It is there, and no zombie.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    let (_, rest) = stat.rsplit_once(") ").expect("a name in brackets");
    rest.split(' ').nth(1).and_then(|parent| parent.parse().ok()).expect("a parent")
}

fn await_end_of(pids: &[u32]) {
    until(&format!("{pids:?} are gone"), || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

/// Waits until it has started `count` processes of its own.
fn family(child: &mut Child, count: usize) -> Vec<u32> {
    let pid = child.pid();
    let family = child.until("start its children", PATIENCE, || {
        let found = Command::new("ps").args(["-o", "pid=", "--ppid", &pid.to_string()]).output().ok()?;
        let found: Vec<u32> =
            String::from_utf8_lossy(&found.stdout).lines().filter_map(|l| l.trim().parse().ok()).collect();
        (found.len() >= count).then_some(found)
    });
    family.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn who_ends_early_says_why() {
    let mut child = start(&shell("echo first; echo no luck >&2; exit 3"));
    let error = child.until("listen", PATIENCE, || None::<()>).expect_err("it has ended");
    assert_eq!(error.to_string(), "shell has ended (exit code 3)\n  first\n  no luck");
    let mut child = start(&shell("kill -9 $$"));
    assert_eq!(until("it ends", || child.has_ended()), Ending::Signal(9));
    assert_eq!(child.has_ended(), Some(Ending::Signal(9)));
    let mut child = start(&shell("sleep 1000"));
    let error = child.until("listen", Duration::from_millis(10), || None::<()>).expect_err("it does not listen");
    assert_eq!(error.to_string(), "shell did not listen within 0 s");
}

#[test]
fn of_many_words_the_first_and_the_last_are_shown() {
    for (count, last) in [(40, "40"), (4_000, "4000")] {
        let mut child = start(&shell(&format!("seq {count}")));
        until("it ends", || child.has_ended());
        let words: Vec<_> = child.last_words().split_whitespace().map(str::to_owned).collect();
        assert_eq!((&words[..4], words.len()), (&["1", "2", "3", "…"].map(str::to_owned)[..], 13));
        assert_eq!(words.last().map(String::as_str), Some(last));
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    for (spec, why) in [
        (Spec { program: "/nowhere/server".into(), ..shell("") }, "/nowhere/server: No such file or directory"),
        (Spec { cores: vec![1023], ..shell("") }, "it may not run on cores 1023"),
        (Spec { cores: vec![100_000], ..shell("") }, "there is no core 100000"),
    ] {
        let mut child = start(&spec);
        assert_eq!(until("it ends", || child.has_ended()), Ending::Exit(127));
        assert!(child.last_words().contains(why), "{}", child.last_words());
    }
}

#[test]
fn a_child_is_as_it_was_asked_for() {
    let spec = Spec {
        cores: vec![0],
        nice: Some(5),
        ..shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 1000")
    };
    let mut child = start(&spec);
    until("it has worked", || (child.cpu_seconds() > 0.05).then_some(()));
    let [sleeper] = family(&mut child, 1)[..] else { panic!("one sleep") };
    assert_eq!(child.descendants(), [sleeper]);
    let status = std::fs::read_to_string(format!("/proc/{sleeper}/status")).expect("it sleeps");
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    let nice = Command::new("ps").args(["-o", "nice=", "-p", &sleeper.to_string()]).output().expect("ps");
    assert_eq!(String::from_utf8_lossy(&nice.stdout).trim(), "5");
    assert!(child.resident_bytes() > 100_000);
    child.freeze().expect("it runs");
    let is_stopped = || std::fs::read_to_string(format!("/proc/{sleeper}/stat")).ok()?.contains(") T ").then_some(());
    until("all are stopped", is_stopped);
    child.thaw().expect("it runs");
    until("all go on", || is_stopped().is_none().then_some(()));
    child.kill();
    assert_eq!(child.has_ended(), Some(Ending::Signal(9)));
    assert!(!is_alive(sleeper) && !is_alive(child.pid()));
    // what it has used is remembered
    assert!(child.cpu_seconds() > 0.05);
}

#[test]
fn a_dropped_child_is_gone_however_stubborn() {
    // ignores SIGTERM, has a child that does too, and one that has left its group and session
    let mut child = start(&shell("trap '' TERM; setsid sleep 1000 & sleep 1000 & wait; wait"));
    let mut pids = family(&mut child, 2);
    pids.push(child.pid());
    drop(child);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
    // stopped, it hears nothing
    let mut child = start(&shell("sleep 1000; true"));
    let mut pids = family(&mut child, 1);
    pids.push(child.pid());
    child.freeze().expect("it runs");
    drop(child);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
}

#[test]
fn what_a_child_leaves_behind_when_it_ends_is_ended() {
    let mut child = start(&shell("sleep 1000 & echo $! >&2"));
    until("it ends", || child.has_ended());
    let sleeper = child.last_words().trim().parse().expect("a number");
    assert!(!is_alive(sleeper));
}

#[test]
fn a_child_does_not_outlive_its_guardian() {
    for signal in ["-KILL", "-TERM"] {
        let mut child = start(&shell("sleep 1000"));
        let guardian = parent_of(child.pid());
        let sent = Command::new("kill").args([signal, &guardian.to_string()]).status().expect("kill");
        assert!(sent.success());
        await_end_of(&[child.pid(), guardian]);
        assert!(child.has_ended().is_some());
    }
}

/// Set for a second process of this test, which starts everything and waits to be killed.
const IS_PARENT: &str = "RINGGATE_LOAD_TEST_PARENT";

#[test]
fn starts_everything_and_waits_to_be_killed() {
    if std::env::var_os(IS_PARENT).is_none() {
        return;
    }
    let mut fleet = fleet(3);
    let mut pids: Vec<u32> = (0..3).map(|row| fleet.child(row).expect("it runs").pid()).collect();
    let (programs, _) = ringgate_load::gateways::find(&[Kind::Ringgate, Kind::Nginx, Kind::Haproxy]);
    let start = |program| Gateway::start(program, &Setup::plain(&fleet.addresses())).unwrap_or_else(|e| panic!("{e}"));
    let mut gateways: Vec<_> = programs.iter().map(start).collect();
    let mut folders = Vec::new();
    for gateway in &mut gateways {
        pids.push(gateway.child().pid());
        pids.extend(gateway.child().descendants());
        folders.push(gateway.folder().display().to_string());
    }
    let guardians: Vec<_> = pids.iter().map(|pid| parent_of(*pid)).collect();
    let all: Vec<_> = pids.into_iter().chain(guardians).map(|pid| pid.to_string()).collect();
    println!("\npids {}\nfolders {}", all.join(" "), folders.join(" "));
    // the test that has started us kills us, or goes, which ends this input
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn nobody_outlives_a_killed_parent() {
    be_the_tool();
    for signal in ["-KILL", "-INT"] {
        let mut parent = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "children::starts_everything_and_waits_to_be_killed", "--nocapture"])
            .env(IS_PARENT, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test");
        let mut lines = BufReader::new(parent.stdout.take().expect("piped")).lines();
        let mut words = |name: &str| -> Vec<String> {
            let line = lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(name).map(str::to_owned));
            line.expect("it says so").split_whitespace().map(str::to_owned).collect()
        };
        let pids: Vec<u32> = words("pids ").iter().map(|pid| pid.parse().expect("a number")).collect();
        let folders = words("folders ");
        // three services, a gateway that is built in, and its guardians
        assert!(
            pids.len() >= 8 && pids.iter().all(|pid| is_alive(*pid)) && !folders.is_empty(),
            "{pids:?} {folders:?}"
        );
        let sent = Command::new("kill").args([signal, &parent.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        parent.wait().expect("it is ours");
        let pids: Vec<_> = pids.into_iter().filter(|pid| *pid != parent.id()).collect();
        await_end_of(&pids);
        let are_gone = || folders.iter().all(|folder| !PathBuf::from(folder).exists()).then_some(());
        until("their folders are gone", are_gone);
    }
}
