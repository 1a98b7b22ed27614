//! Names and passwords (RFC 7617): who is let in, what a reload changes, and that nobody waits for a password but who has shown it.

use crate::support::gateway::{run_to_end, write_config};
use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::{Duration, Instant};

/// Of "orange pie", by libxcrypt.
const ORANGE: &str = "$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6";
/// Of "blue moon", by openssl.
const BLUE: &str = "$6$saltsalt$rH6trzSWq7Q3iN038j3uoVqSesglCJCj10JkjW/tSwzDPpqsf4zTUtS8RwQPoswTehQYVStVqNUeS4ME9WMR51";
/// Of "red brick", by the reference implementation of argon2.
const RED: &str = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$OiYHnrZQ11zSDFk7/17PVaiEUSSnhoYInE3VoXjjBnI";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn ask(gateway: &Gateway, user: &str, password: &str) -> u16 {
    gateway.request("GET", "/", &[("Authorization", &basic(user, password))], b"").status
}

/// A way to log in; wile is of the file's tables.
fn people(way: &str, hash: &str) -> String {
    format!(
        "[auth.login]\n{way}\n[consumer.acme]\ngroups = [\"partners\"]\nbasic = {{ user = \"wile\", password = \"{hash}\" }}\n"
    )
}

on_both_drivers! {
    fn who_guesses_is_limited_like_everybody_and_a_limit_by_name_counts_who_was_let_in(driver: Driver) {
        let upstream = Upstream::always("ok");
        let limits = "limit = [{ rate = \"4/h\", burst = 4, per = \"client_ip\" }, { rate = \"2/h\", burst = 2, per = \"consumer\" }]";
        let config = behind(&[&upstream], &format!("auth = [\"login\"]\n{limits}"), "") + &people("basic = {}", ORANGE);
        let gateway = Gateway::start(driver, &config);
        assert_eq!([ask(&gateway, "wile", "a"), ask(&gateway, "wile", "orange pie")], [401, 200]);
        assert_eq!([ask(&gateway, "wile", "b"), ask(&gateway, "wile", "orange pie")], [401, 200]);
        assert_eq!(ask(&gateway, "wile", "orange pie"), 429);
        assert_eq!(ask(&gateway, "wile", "c"), 429, "nobody asks whether it is right");
    }

    fn a_password_opens_the_route_and_nothing_else_does(driver: Driver) {
        let upstream = Upstream::always("ok");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("htpasswd");
        std::fs::write(&file, format!("# people\n\nann:{BLUE}\r\nacme:{RED}\n")).unwrap();
        let way = format!("basic = {{ realm = \"orders\", htpasswd = \"{}\" }}\nheaders = {{ x-who = \"{{consumer}}\", x-groups = \"{{groups}}\" }}", file.display());
        let more = "[[route]]\nname = \"two\"\nmatch = { path = \"/two\" }\nauth = [\"key\", \"login\"]\nupstream = \"svc\"\n\
            [auth.key]\nheader = \"authorization\"\nscheme = \"Key\"\n";
        let config = behind(&[&upstream], &format!("auth = [\"login\"]\n{more}"), "") + &people(&way, ORANGE);
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        let bare = client.get("/");
        bare.assert_rejected(401, "unauthenticated");
        assert_eq!(bare.header("www-authenticate"), Some("Basic realm=\"orders\", charset=\"UTF-8\""));
        let both = client.get("/two");
        let challenges = "Key realm=\"key\", Basic realm=\"orders\", charset=\"UTF-8\"";
        assert_eq!((both.status, both.header("www-authenticate")), (401, Some(challenges)));
        for (user, password) in [("wile", ""), ("wile", "Orange pie"), ("", "orange pie"), ("nobody", "orange pie"), ("ann", "orange pie"), ("acme", "orange pie")] {
            client.request("GET", "/", &[("Authorization", &basic(user, password))], b"").assert_rejected(401, "unauthenticated");
        }
        for shown in ["Basic", "Basic ", "Basic ***", "Basic d2lsZQ==", &basic("wile", "orange pie").replace("Basic ", "Bearer ")] {
            client.request("GET", "/", &[("Authorization", shown)], b"").assert_rejected(401, "unauthenticated");
        }
        let right = basic("wile", "orange pie");
        client.request("GET", "/", &[("Authorization", &right), ("Authorization", &right)], b"").assert_rejected(401, "unauthenticated");
        assert_eq!(upstream.requests().len(), 0);
        let body = vec![b'x'; 300_000];
        for (user, password) in [("wile", "orange pie"), ("ann", "blue moon"), ("acme", "red brick"), ("wile", "orange pie")] {
            // the body waits with its request, and the connection goes on
            let authorization = basic(user, password);
            assert_eq!(client.request("POST", "/two", &[("Authorization", &authorization)], &body).status, 200, "{user}");
        }
        let requests = upstream.requests();
        let who: Vec<_> = requests.iter().map(|request| (request.header("x-who").unwrap(), request.header("x-groups").unwrap_or(""))).collect();
        assert_eq!(who, [("acme", "partners"), ("ann", ""), ("acme", "partners"), ("acme", "partners")]);
        assert!(requests.iter().all(|request| request.header("authorization").is_none() && request.body.len() == body.len()));
        eventually("it is counted once", || {
            let rejected = gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "unauthenticated")]);
            let acme = gateway.metric("ringgate_consumer_requests_total", &[("consumer", "acme")]);
            let all = gateway.metric("ringgate_requests_total", &[("route", "two"), ("code", "200")]);
            (rejected == 13.0 && acme == 3.0 && all == 4.0).then_some(())
        });
    }

    fn a_reload_changes_whose_password_it_changes(driver: Driver) {
        let upstream = Upstream::always("ok");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("htpasswd");
        std::fs::write(&file, format!("ann:{BLUE}\nbob:{BLUE}\n")).unwrap();
        let way = format!("basic = {{ htpasswd = \"{}\" }}", file.display());
        let config = behind(&[&upstream], "auth = [\"login\"]", "") + &people(&way, ORANGE);
        let mut gateway = Gateway::start(driver, &config);
        let statuses = |gateway: &Gateway| {
            [("wile", "orange pie"), ("wile", "red brick"), ("ann", "blue moon"), ("bob", "blue moon")].map(|(user, password)| ask(gateway, user, password))
        };
        assert_eq!(statuses(&gateway), [200, 401, 200, 200]);
        let text = std::fs::read_to_string(gateway.file()).unwrap();
        std::fs::write(&file, format!("ann:{BLUE}\n")).unwrap();
        gateway.reload_well(&text.replace(ORANGE, RED));
        assert_eq!(statuses(&gateway), [401, 200, 200, 401]);
        for wrong in ["ann\n", "ann:planted-password\n", &format!("ann:{BLUE}\nann:{ORANGE}\n"), &format!("wile:{BLUE}\n")] {
            std::fs::write(&file, wrong).unwrap();
            let refused = gateway.reload(&text);
            assert_ne!(refused.status, 200, "{wrong}");
            let told = refused.text();
            assert!(told.contains("auth.login.basic.htpasswd") && told.contains("line ") && !told.contains("planted") && !told.contains("$6$salt"), "{told}");
        }
        assert_eq!(statuses(&gateway), [401, 200, 200, 401], "the configuration before stays");
    }

    fn a_full_queue_is_said_and_nobody_else_waits(driver: Driver) {
        let upstream = Upstream::always("ok");
        // a second of work, and more where tests run
        let slow = BLUE.replace("$6$", "$6$rounds=1000000$");
        let more = "[[route]]\nname = \"open\"\nmatch = { path = \"/open\" }\nupstream = \"svc\"\n";
        let config = behind(&[&upstream], &format!("auth = [\"login\"]\n{more}"), "") + &people("basic = {}", &slow)
            + &format!("[consumer.quick]\nbasic = {{ password = \"{ORANGE}\" }}\n");
        let setup = Setup { config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        assert_eq!(ask(&gateway, "quick", "orange pie"), 200);
        // of ten clients, because one may have eight at once
        let from = |row: usize| Client::connect_from(&format!("127.0.1.{}", 1 + row % 10), gateway.address("edge"));
        let mut waiting: Vec<_> = (0..80).map(from).collect();
        for (row, client) in waiting.iter_mut().enumerate() {
            client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nAuthorization: {}\r\n\r\n", basic("wile", &format!("wrong {row}"))));
        }
        eventually("the queue is full", || {
            (gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "authentication_busy")]) >= 8.0).then_some(())
        });
        assert_eq!(gateway.get("/open").status, 200);
        // known to the worker that has verified it; the other one has no time either
        let busy: Vec<_> = (0..8).map(|_| gateway.request("GET", "/", &[("Authorization", &basic("quick", "orange pie"))], b"")).collect();
        assert!(busy.iter().all(|answer| answer.status == 200 || answer.header("retry-after") == Some("1")));
        assert!(busy.iter().any(|answer| answer.status == 200), "who is known is not asked again");
        drop(waiting);
        eventually("those who have left are let go", || {
            (gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "client_closed")]) >= 8.0).then_some(())
        });
    }

    fn who_guesses_by_the_hundred_keeps_nobody_else_out(driver: Driver) {
        let upstream = Upstream::always("ok");
        let slow = BLUE.replace("$6$", "$6$rounds=200000$");
        let users: String = (0..4).map(|n| format!("[consumer.good{n}]\nbasic = {{ password = \"{ORANGE}\" }}\n")).collect();
        let config = behind(&[&upstream], "auth = [\"login\"]", "") + &people("basic = {}", &slow) + &users;
        let gateway = Gateway::start(driver, &config);
        let mut guessers: Vec<_> = (0..80).map(|_| Client::connect_from("127.0.0.2", gateway.address("edge"))).collect();
        for (row, client) in guessers.iter_mut().enumerate() {
            let guess = |n: usize| format!("GET / HTTP/1.1\r\nHost: test\r\nAuthorization: {}\r\n\r\n", basic("wile", &format!("{row}.{n}")));
            client.send((0..40).map(guess).collect::<String>());
        }
        let busy = || gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "authentication_busy")]);
        eventually("they have more than a client may", || (busy() >= 100.0).then_some(()));
        for n in 0..4 {
            assert_eq!(ask(&gateway, &format!("good{n}"), "orange pie"), 200, "who has not guessed has his turn");
        }
        let verified = gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "unauthenticated")]);
        assert!(verified < 3_200.0 / 2.0, "there is more to come: {verified}");
    }

    fn a_password_and_its_hash_are_found_nowhere(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let upstream = Upstream::always("ok");
        let config = format!("[access_log]\npath = \"{}\"\n\n", log.display())
            + &behind(&[&upstream], "auth = [\"login\"]", "") + &people("basic = {}", ORANGE);
        let mut gateway = Gateway::start(driver, &config);
        assert_eq!((ask(&gateway, "wile", "orange pie"), ask(&gateway, "wile", "orange pies")), (200, 401));
        let logged = eventually("the log has its lines", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text.lines().count() >= 2).then_some(text)
        });
        assert!(logged.contains("\"consumer\":\"acme\""), "{logged}");
        let header = format!("authorization: {}", basic("wile", "orange pie"));
        let explained = run_to_end(&["explain", "-c", &gateway.file(), "GET", "/", "-H", &header]).stdout;
        assert!(explained.contains("login recognises acme, in partners"), "{explained}");
        let shown = gateway.admin("/config").text();
        assert!(shown.contains("\"user\": \"wile\"") || shown.contains("\"user\":\"wile\""), "{shown}");
        let mut pages = vec![logged, explained, shown];
        for page in ["/metrics", "/usage", "/routes"] {
            pages.push(gateway.admin(page).text());
        }
        let mistaken = std::fs::read_to_string(gateway.file()).unwrap().replace(ORANGE, "orange pie");
        let refused = gateway.reload(&mistaken);
        assert_ne!(refused.status, 200);
        pages.push(refused.text());
        pages.push(run_to_end(&["check", "-c", &write_config(dir.path(), &mistaken)]).stderr);
        pages.push(gateway.running().stderr().join("\n"));
        for (row, page) in pages.iter().enumerate() {
            for secret in ["orange pie", &ORANGE[7..], &header[22..]] {
                assert!(!page.contains(secret), "{secret} in {row}: {page}");
            }
        }
    }
}

#[test]
fn who_is_not_there_costs_as_much_as_a_wrong_password() {
    let upstream = Upstream::always("ok");
    let hash = BLUE.replace("$6$", "$6$rounds=60000$");
    let config = behind(&[&upstream], "auth = [\"login\"]", "") + &people("basic = {}", &hash);
    let gateway = Gateway::start(Driver::Epoll, &config);
    // what else the machine does only adds: the best of each comes to be what it costs, however many have to be asked for that
    let (mut wrong, mut unknown, begun) = (Duration::MAX, Duration::MAX, Instant::now());
    let is_alike = |wrong: Duration, unknown: Duration| unknown > wrong / 2 && wrong > unknown / 2;
    let took = |user: &str, best: &mut Duration| {
        let begun = Instant::now();
        assert_eq!(ask(&gateway, user, "wrong"), 401);
        *best = begun.elapsed().min(*best);
    };
    for row in 0.. {
        took("wile", &mut wrong);
        took("nobody", &mut unknown);
        if row >= 3 && (is_alike(wrong, unknown) || begun.elapsed() > Duration::from_secs(60)) {
            break;
        }
    }
    assert!(is_alike(wrong, unknown), "a wrong password takes {wrong:?}, a wrong name {unknown:?}");
}
