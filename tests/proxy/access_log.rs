//! The access log: a line per request with what happened to it, nothing secret, and nothing a client can forge.

use crate::support::{Driver, Gateway, Upstream, behind, behind_endpoints, eventually, first_then, on_both_drivers};
use serde_json::Value;
use std::path::Path;

/// The configuration of a log to `file`.
fn log_to(file: &Path, more: &str) -> String {
    format!("[access_log]\npath = \"{}\"\n{more}\n\n", file.display())
}

/// The log's lines, once there are `count`.
fn lines(file: &Path, count: usize) -> Vec<String> {
    eventually("the log has its lines", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

/// The same as JSON.
fn objects(file: &Path, count: usize) -> Vec<Value> {
    lines(file, count).iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

on_both_drivers! {
    fn a_json_line_tells_what_happened(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let (mut refusing, second) = (Upstream::always("never"), Upstream::always("second"));
        refusing.stop();
        let config = log_to(&file, "") + &behind_endpoints(&first_then(&refusing, &second), "", "");
        let gateway = Gateway::start(driver, &config);
        let headers = [("User-Agent", "test/1"), ("X-Request-Id", "id-7")];
        assert_eq!(gateway.request("GET", "/a?b=c", &headers, b"").text(), "second");
        let line = &objects(&file, 1)[0];
        for (key, value) in [("method", "GET"), ("route", "all"), ("upstream", "svc"), ("request_id", "id-7"), ("user_agent", "test/1")] {
            assert_eq!(line[key], value, "{key} in {line}");
        }
        assert_eq!((line["status"].as_u64(), line["attempts"].as_u64()), (Some(200), Some(2)), "{line}");
        let endpoints = line["endpoints"].to_string();
        assert!(endpoints.contains(refusing.address()) && endpoints.contains(second.address()), "{line}");
        let outcomes: Vec<_> = line["outcomes"].as_array().unwrap().iter().map(|outcome| outcome.as_str().unwrap()).collect();
        assert_eq!(outcomes, ["connect_failed", "success"], "{line}");
        assert!(line.to_string().contains("/a?b=c") && line.to_string().contains("127.0.0.1"), "{line}");
    }

    fn a_failure_has_its_token(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let mut refusing = Upstream::always("never");
        refusing.stop();
        let config = log_to(&file, "") + &behind(&[&refusing], "[route.retry]\nattempts = 0", "");
        let gateway = Gateway::start(driver, &config);
        gateway.get("/").assert_rejected(503, "no_healthy_endpoint");
        let line = &objects(&file, 1)[0];
        assert_eq!((line["error"].as_str(), line["status"].as_u64()), (Some("no_healthy_endpoint"), Some(503)), "{line}");
        assert_eq!(line["outcomes"][0].as_str(), Some("connect_failed"), "{line}");
    }

    fn secrets_are_not_written(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = Upstream::always("ok");
        let config = log_to(&file, "redact = [\"token\", \"authorization\", \"user-agent\"]") + &behind(&[&upstream], "", "");
        let gateway = Gateway::start(driver, &config);
        let headers = [("Authorization", "Bearer hush"), ("Cookie", "a=hush"), ("User-Agent", "hush/1")];
        assert_eq!(gateway.request("GET", "/x?page=2&token=hush&z=1", &headers, b"").status, 200);
        assert_eq!(upstream.requests()[0].target, "/x?page=2&token=hush&z=1", "the service gets it as it came");
        let line = &lines(&file, 1)[0];
        assert!(!line.contains("hush") && line.contains("page=2"), "{line}");
    }

    fn a_client_cannot_forge_lines(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        for (format, name) in [("json", "a"), ("combined", "b")] {
            let file = dir.path().join(name);
            let upstream = Upstream::always("ok");
            let config = log_to(&file, &format!("format = \"{format}\"")) + &behind(&[&upstream], "", "");
            let gateway = Gateway::start(driver, &config);
            let hostile = "a\" 200 \\ \t\u{e9}\u{202e}";
            assert_eq!(gateway.request("GET", "/%22%0d%0a", &[("User-Agent", hostile)], b"").status, 200);
            let all = lines(&file, 1);
            assert_eq!(all.len(), 1, "{all:?}");
            for line in &all {
                assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
                if format == "json" {
                    serde_json::from_str::<Value>(line).expect("still JSON");
                }
            }
        }
    }

    fn a_combined_line_begins_as_every_tool_expects(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = Upstream::always("hello");
        let config = log_to(&file, "format = \"combined\"") + &behind(&[&upstream], "", "");
        let gateway = Gateway::start(driver, &config);
        gateway.request("GET", "/p?q", &[("User-Agent", "test/1"), ("Referer", "https://r.example/")], b"");
        let line = &lines(&file, 1)[0];
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(line.contains("] \"GET /p?q HTTP/1.1\" 200 "), "{line}");
        assert!(line.contains("\"https://r.example/\" \"test/1\""), "{line}");
    }

    fn a_log_that_was_moved_away_is_opened_again(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let (file, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let upstream = Upstream::always("ok");
        let mut gateway = Gateway::start(driver, &(log_to(&file, "") + &behind(&[&upstream], "", "")));
        gateway.get("/before");
        assert!(lines(&file, 1)[0].contains("/before"));
        std::fs::rename(&file, &moved).unwrap();
        gateway.running().signal("USR1");
        eventually("the file is there again", || file.exists().then_some(()));
        gateway.get("/after");
        assert!(lines(&file, 1)[0].contains("/after"));
        assert_eq!(lines(&moved, 1).len(), 1);
    }

    fn standard_output_takes_the_log_and_a_drain_writes_the_last_line(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = format!("[access_log]\npath = \"stdout\"\n\n{}", behind(&[&upstream], "", ""));
        let mut gateway = Gateway::start(driver, &config);
        for i in 0..20 {
            gateway.get(&format!("/{i}"));
        }
        gateway.running().signal("TERM");
        assert!(gateway.running().wait().success());
        eventually("every line was written", || (gateway.running().stdout().len() == 20).then_some(()));
    }

    fn a_named_pipe_without_a_reader_does_not_hang_the_start(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("access.fifo");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut gateway = Gateway::start(driver, &(log_to(&pipe, "") + "[[route]]\nrespond = { body = \"ok\" }\n"));
        assert_eq!(gateway.get("/first").text(), "ok");
        eventually("it says that nobody reads", || {
            gateway.running().stderr().iter().any(|line| line.contains("the access log cannot be written")).then_some(())
        });
        let text = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(std::fs::File::open(pipe).unwrap()), &mut text).unwrap();
            text
        });
        assert!(text.join().unwrap().contains("/first"));
        gateway.running().signal("TERM");
        assert_eq!(gateway.running().wait().code(), Some(0));
    }
}
