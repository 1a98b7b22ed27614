//! The command line as a user meets it: what is printed where, and with which exit code it ends.

use std::net::TcpListener;
use std::process::{Command, Output};

fn ringgate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringgate")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn repository(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn check_sums_up_a_file_that_is_fine() {
    // its log goes to a folder that this machine may not have
    let text = std::fs::read_to_string(repository("config/examples/failover.toml")).unwrap();
    let file = file(&text.replace("/var/log/ringgate", "/tmp"));
    let path = file.path().display().to_string();
    let output = ringgate(&["check", "-c", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let expected = format!("{path}: fine (2 listeners, 2 routes, 2 upstreams with 6 endpoints, ");
    assert!(stdout(&output).starts_with(&expected), "{}", stdout(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn check_warns_of_what_is_probably_forgotten_and_exits_0() {
    let file = file(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {}\n\
         [upstream.app]\nendpoints = [{ address = \"10.0.0.1:80\", weight = 0 }]\n",
    );
    let path = file.path().display();
    let output = ringgate(&["check", "-c", &path.to_string()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with(&format!("{path}: fine (")), "{}", stdout(&output));
    let expected = format!(
        "{path}: warning: upstream.app: no route uses it\n\
         {path}: warning: upstream.app: every endpoint has weight 0, so all its requests are answered with 503\n"
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn check_prints_every_error_and_exits_1() {
    let file = file("[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"app\"\ntimeot = \"2s\"\n");
    let path = file.path().display();
    let output = ringgate(&["check", "-c", &path.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let expected = format!(
        "{path}:4:12: route[0].upstream = \"app\"
    there is no such upstream, nor any other
    add [upstream.app]
{path}:5:1: route[0].timeot
    unknown key; known here: name, match, upstream, split, split_by, split_fallback, respond, redirect, auth, allow, deny, cors, strip_prefix, \
         rewrite, rewrite_location, query, request_headers, response_headers, timeout, limit, max_concurrent, max_body, body_timeout, \
         tunnel_timeout and 9 more
    did you mean \"timeout\"?
2 errors in {path}
"
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn every_command_with_a_wrong_file_exits_1() {
    for args in [&["run"][..], &["check"], &["explain", "GET", "/"]] {
        let output = ringgate(&[args, &["-c", "/nonexistent/ringgate.toml"]].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains("/nonexistent/ringgate.toml"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn wrong_usage_exits_2() {
    for args in [&[][..], &["rum"], &["explain", "GET"], &["explain", "G T", "/"], &["completions", "tcsh"]] {
        let output = ringgate(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!stderr(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn a_port_that_is_taken_exits_3_and_says_which() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = file(&format!(
        "gateway = {{ workers = 1, driver = \"epoll\" }}\nadmin = {{ listen = \"127.0.0.1:0\" }}\nlistener = [{{ listen = \"{address}\" }}]\n\
         route = [{{ respond = {{ body = \"hello\" }} }}]\n"
    ));
    let output = ringgate(&["run", "-c", &file.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn explain_answers_from_the_file() {
    let path = repository("config/examples/routing.toml");
    let output = ringgate(&["explain", "-c", &path, "GET", "http://a.example.com:8080/api/x?v=2", "-H", "x-beta: 1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("\nroute      beta (host *.example.com, path /api/*, "), "{}", stdout(&output));
}

#[test]
fn the_schema_is_the_one_in_the_repository() {
    let output = ringgate(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), std::fs::read_to_string(repository("config/ringgate.schema.json")).unwrap());
}

#[test]
fn version_help_and_completions_exit_0() {
    let version = ringgate(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(
        stdout(&version).starts_with("ringgate ") && stdout(&version).contains("\ndrivers "),
        "{}",
        stdout(&version)
    );
    let help = ringgate(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(
        stdout(&help).contains("Exit codes: 0 fine, 1 configuration, 2 usage, 3 cannot start, 4 could not go on"),
        "{}",
        stdout(&help)
    );
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = ringgate(&["completions", shell]);
        assert_eq!(completions.status.code(), Some(0), "{shell}");
        assert!(stdout(&completions).contains("explain"), "{shell}");
    }
}
