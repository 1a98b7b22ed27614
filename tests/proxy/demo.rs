//! The demo: services fail one after another, and the clients it counts see nothing of it.

use crate::support::eventually;
use crate::support::gateway::{Process, run_to_end};

#[test]
fn the_demo_shows_a_failing_service_and_no_failure_for_clients() {
    let said = run_to_end(&["demo", "--seconds", "16"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in ["refuses connections", "came back", "curl -i http://127.0.0.1:"] {
        assert!(said.stdout.contains(part), "{part} is missing in:\n{}", said.stdout);
    }
    let last = said.stdout.lines().last().unwrap_or_default();
    assert!(last.contains(" 0 failures seen by clients") && !last.contains(" 0 requests"), "{}", said.stdout);
}

#[test]
fn ctrl_c_ends_the_demo() {
    let mut demo = Process::spawn(&["demo"]);
    eventually("it shows a line", || demo.stdout().iter().any(|line| line.contains("clients:")).then_some(()));
    demo.signal("INT");
    assert_eq!(demo.wait().code(), Some(0), "{:?}", demo.stdout());
}
