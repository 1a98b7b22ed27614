//! The commands: exit codes, and that every error of a configuration is reported at once.

use crate::support::Driver;
use crate::support::Setup;
use crate::support::gateway::{Said, run_to_end, write_config};
use std::path::Path;

const FINE: &str = "[[route]]\nname = \"orders\"\nmatch = { path = \"/orders/*\" }\nupstream = \"orders\"\n\n\
    [upstream.orders]\nendpoints = [{ address = \"127.0.0.1:9\" }]\n";

/// Three mistakes in three places.
const BROKEN: &str = "[[route]]\nname = \"orders\"\nmatch = { path = \"/orders/*\" }\nupstream = \"order\"\ntimeuot = \"2s\"\n\n\
    [upstream.orders]\nconnect_timeout = \"soon\"\nendpoints = [{ address = \"127.0.0.1:9\" }]\n";

fn run(arguments: &[&str], config: &str) -> Said {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), &Setup { config, ..Setup::default() }.file(Driver::Epoll));
    let (command, more) = arguments.split_first().unwrap();
    run_to_end(&[&[*command, "-c", &file], more].concat())
}

fn text(output: &Said) -> String {
    format!("{}\n{}", output.stdout, output.stderr)
}

#[test]
fn check_accepts_what_is_fine() {
    let output = run(&["check"], FINE);
    assert_eq!(output.code, Some(0), "{}", text(&output));
}

#[test]
fn check_and_run_report_every_error_with_its_place_and_a_suggestion() {
    for command in ["check", "run"] {
        let output = run(&[command], BROKEN);
        let said = text(&output);
        assert_eq!(output.code, Some(1), "{said}");
        for part in ["timeuot", "timeout", "connect_timeout", "soon", "\"order\"", "orders", "ringgate.toml:"] {
            assert!(said.contains(part), "{command}: {part} is missing in:\n{said}");
        }
    }
}

#[test]
fn a_missing_file_is_a_configuration_error() {
    for command in ["check", "run"] {
        let output = run_to_end(&[command, "-c", "/nonexistent/ringgate.toml"]);
        assert_eq!(output.code, Some(1), "{}", text(&output));
        assert!(text(&output).contains("/nonexistent/ringgate.toml"), "{}", text(&output));
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [&["rnu"][..], &["run", "--nonsense"], &[]] {
        assert_eq!(run_to_end(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn version_schema_and_completions_print_what_they_promise() {
    let version = run_to_end(&["--version"]);
    assert!(version.code == Some(0) && text(&version).contains(env!("CARGO_PKG_VERSION")), "{}", text(&version));
    let schema = run_to_end(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).expect("the schema is JSON");
    assert!(schema["properties"]["listener"].is_object(), "{schema}");
    let completions = run_to_end(&["completions", "bash"]);
    assert!(completions.code == Some(0) && text(&completions).contains("ringgate"));
}

#[test]
fn explain_names_route_upstream_and_endpoint() {
    let output = run(&["explain", "GET", "http://api.example.com/orders/7"], FINE);
    let said = text(&output);
    assert_eq!(output.code, Some(0), "{said}");
    for part in ["edge", "orders", "127.0.0.1:9"] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
}

#[test]
fn many_errors_are_counted_and_what_a_file_says_never_reaches_a_terminal_raw() {
    let upstreams: String = (0..500)
        .map(|n| format!("[upstream.service-{n:05}]\nendpoints = [{{ address = \"127.0.0.1:9\" }}]\n"))
        .collect();
    let routes: String = (0..3_000)
        .map(|n| format!("[[route]]\nmatch = {{ path = \"/{n}\" }}\nupstream = \"servise-{n:05}\"\n"))
        .collect();
    let output = run(&["check"], &(routes + &upstreams));
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("did you mean \"service-00000\"?"), "{}", output.stderr);
    let ends = output.stderr.ends_with("3000 errors in ") || output.stderr.contains("… and 2900 more");
    assert!(ends && output.stderr.lines().count() < 600, "{}", output.stderr.lines().count());

    let output = run(&["check"], "[[route]]\nupstream = \"a\u{1b}]0;x\u{7}\u{202e}b\u{9b}2J\"\n");
    let odd = output.stderr.chars().find(|c| (c.is_control() && *c != '\n') || matches!(*c, '\u{202e}' | '\u{9b}'));
    assert_eq!((output.code, odd), (Some(1), None), "{}", output.stderr);
    assert!(output.stderr.contains("\\u{1b}]0;x"), "{}", output.stderr);
}

#[test]
fn run_warns_as_check_does() {
    let unused = format!("{FINE}[upstream.spare]\nendpoints = [{{ address = \"127.0.0.1:9\" }}]\n");
    let said = run(&["check"], &unused);
    assert!(said.code == Some(0) && said.stderr.contains("upstream.spare: no route uses it"), "{}", text(&said));
    // it says so before it finds that it cannot start
    let broken = unused + "[access_log]\npath = \"/nonexistent/folder/a.log\"\n";
    for (command, code) in [("check", 0), ("run", 3)] {
        let said = run(&[command], &broken);
        assert_eq!(said.code, Some(code), "{}", text(&said));
        for warning in ["upstream.spare: no route uses it", "there is no folder /nonexistent/folder"] {
            assert!(said.stderr.contains(warning), "{command}: {}", text(&said));
        }
    }
}

#[test]
fn a_log_that_is_something_else_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, link) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    let socket = format!("unix:{}", folder.join("edge.sock").display());
    let itself = link.join("ringgate.toml");
    let config = |log: &Path| format!("[access_log]\npath = \"{}\"\n\n{FINE}", log.display());
    for (log, word) in
        [(&link.join("edge.sock"), "socket that the gateway listens on"), (&itself, "is this file itself")]
    {
        let setup = Setup { listen: &socket, config: &config(log), ..Setup::default() };
        let file = write_config(&folder, &setup.file(Driver::Epoll));
        for command in ["check", "run"] {
            let said = run_to_end(&[command, "-c", &file]);
            assert_eq!(said.code, Some(1), "{}", text(&said));
            assert!(said.stderr.contains("access_log.path") && said.stderr.contains(word), "{}", text(&said));
        }
    }
    for (command, code) in [("check", 0), ("run", 3)] {
        let said = run(&[command], &config(&folder));
        assert_eq!(said.code, Some(code), "{}", text(&said));
        assert!(said.stderr.contains("is a folder"), "{}", text(&said));
    }
}

#[test]
fn two_listeners_at_one_path_are_found_whichever_way_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, link) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    let listen = format!("unix:{}", folder.join("edge.sock").display());
    let file = Setup { listen: &listen, config: FINE, ..Setup::default() }.file(Driver::Epoll).replace(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        &format!("[admin]\nlisten = \"unix:{}/edge.sock\"", link.display()),
    );
    let said = run_to_end(&["check", "-c", &write_config(dir.path(), &file)]);
    assert_eq!(said.code, Some(1), "{}", text(&said));
    assert!(said.stderr.contains("listens there already"), "{}", text(&said));
}
