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

    fn chosen_fields_stand_in_the_line(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = Upstream::scripted(|conn| while conn.request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nX-Cache: \"hit\"\r\nLocation: /x?token=hush\r\nContent-Length: 0\r\n\r\n");
        });
        let fields = "redact = [\"token\"]\nfields = { tenant = \"{header.x-tenant}\", to = \"{scheme}://{host}\", cache = \"{response.x-cache}\", \
             at = \"{response.location}\", all = \"{path_and_query}\", theme = \"{cookie.theme}\", from = \"{route}\", sub = \"{claim.sub}\" }";
        let routes = "[[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nrespond = {}\n";
        let config = log_to(&file, fields) + &behind(&[&upstream], "", "").replace("/*", "/a/*") + routes;
        let gateway = Gateway::start(driver, &config);
        let hostile = "t\" \\\u{e9}\u{202e}";
        let fields = [("X-Tenant", hostile), ("Cookie", "a=1; theme=dark"), ("Host", "A.example:80")];
        let mut client = gateway.client();
        assert_eq!(client.request("GET", "/a/b?token=hush&c", &fields, b"").status, 200);
        assert_eq!(client.request("GET", "/own", &[("X-Tenant", &"x".repeat(3000))], b"").status, 200);
        assert_eq!(client.request("GET", "/nowhere?token=hush", &fields, b"").status, 404);
        assert_eq!(client.request("GET", "/a/2", &[], b"").status, 200);
        let all = lines(&file, 4);
        assert!(!all.concat().contains("hush"), "{all:?}");
        let line = |row: usize| serde_json::from_str::<Value>(&all[row]).unwrap();
        let is = |line: Value, expected: &[(&str, Value)]| {
            for (name, value) in expected {
                assert_eq!(line.get(name), Some(value), "{name} in {line}");
            }
        };
        let scheme = if crate::support::tls::is_up() { "https" } else { "http" };
        is(line(0), &[("tenant", hostile.into()), ("to", format!("{scheme}://a.example").into()), ("cache", "\"hit\"".into())]);
        is(line(0), &[("at", "/x?token=[redacted]".into()), ("all", "/a/b?token=[redacted]&c".into()), ("theme", "dark".into())]);
        is(line(0), &[("from", "all".into()), ("sub", Value::Null)]);
        is(line(1), &[("tenant", "x".repeat(1024).into()), ("cache", Value::Null), ("from", "own".into()), ("all", "/own".into())]);
        is(line(2), &[("from", Value::Null), ("tenant", hostile.into()), ("cache", Value::Null)]);
        is(line(3), &[("tenant", Value::Null), ("cache", "\"hit\"".into()), ("theme", Value::Null)]);
    }

    fn what_has_refused_a_request_stands_in_the_line(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = Upstream::always("ok");
        let auth = Upstream::scripted(|conn| while let Some(request) = conn.request() {
            if request.header("x-who") == Some("mute") {
                return;
            }
            conn.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        });
        let more = format!(
            r#"
[auth.gate.forward]
upstream = "auth"
path = "/check"
send = ["x-who"]
[upstream.auth]
endpoints = [{{ address = "{}" }}]
[auth.keys]
header = "x-key"
[consumer.ann]
keys = [{{ sha256 = "9400f1b21cb527d7fa3d3eabba93557a18ebe7a2ca4e471cfe5e4c5b4ca7f767" }}]
[[guard]]
name = "dots"
match = {{ path = "/.env" }}
deny = true
[[route]]
name = "asked"
match = {{ path = "/asked" }}
auth = ["gate"]
upstream = "svc"
[[route]]
name = "denied"
match = {{ path = "/denied" }}
deny = [{{ method = ["PUT"] }}, {{ method = ["DELETE", "POST"] }}]
upstream = "svc"
[[route]]
name = "allowed"
match = {{ path = "/allowed" }}
auth = ["keys"]
allow = [{{ consumer = ["bea"] }}]
upstream = "svc"
"#,
            auth.address()
        );
        let gateway = Gateway::start(driver, &(log_to(&file, "") + &behind(&[&upstream], "", "") + &more));
        let mut client = gateway.client();
        let asked = [
            ("GET", "/.env", &[][..], 403, "guard.dots"),
            ("POST", "/denied", &[], 403, "route.deny[1]"),
            ("GET", "/allowed", &[("X-Key", "s3cret")], 401, ""),
            ("GET", "/allowed", &[("X-Key", "19")], 403, "route.allow"),
            ("GET", "/asked", &[], 401, "auth.gate"),
            ("GET", "/asked", &[("X-Who", "mute")], 503, "auth.gate"),
            ("GET", "/", &[], 200, ""),
        ];
        for (method, path, fields, status, _) in asked {
            assert_eq!(client.request(method, path, fields, b"").status, status, "{method} {path}");
        }
        for (line, (_, path, _, status, by)) in objects(&file, asked.len()).iter().zip(asked) {
            assert_eq!((line["status"].as_u64(), line["target"].as_str()), (Some(status.into()), Some(path)), "{line}");
            assert_eq!(line["refused_by"].as_str().unwrap_or_default(), by, "{line}");
        }
        let rejected = |route: &str, reason: &str| gateway.metric("ringgate_rejected_total", &[("route", route), ("reason", reason)]);
        assert_eq!((rejected("asked", "forward_auth"), rejected("dots", "guarded"), rejected("denied", "forbidden")), (1.0, 1.0, 1.0));
    }

    fn a_listener_that_keeps_somebody_out_says_so(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = Upstream::always("ok");
        let listener = "deny = [{ client_ip = [\"192.0.2.0/24\"] }, { method = [\"TRACE\"] }, { method = [\"PUT\"] }]";
        let gateway = crate::http2::gateway_with(driver, listener, &(log_to(&file, "") + &behind(&[&upstream], "", "")));
        gateway.request("PUT", "/", &[], b"").assert_rejected(403, "forbidden");
        assert_eq!(objects(&file, 1)[0]["refused_by"], "listener.deny[2]");
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
