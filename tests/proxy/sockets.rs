//! Where the gateway listens and connects: IPv4, IPv6, unix sockets, and ports that are taken.

use crate::support::gateway::{run_to_end, write_config};
use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, on_both_drivers};
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

/// Whether this host has the IPv6 loopback address; says so if not.
fn has_ipv6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        eprintln!("skipped: this host has no IPv6 loopback address");
    }
    has
}

on_both_drivers! {
    fn a_unix_socket_is_listened_on_and_connected_to(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::on_unix_socket(&dir.path().join("service.sock"), |request, conn| {
            conn.reply(200, &format!("{} {}", request.target, request.header("x-forwarded-for").unwrap_or("-")));
        });
        let listen = format!("unix:{}", dir.path().join("gateway.sock").display());
        let config = behind(&[&upstream], "", "");
        let gateway = Gateway::start_with(driver, &Setup { listen: &listen, config: &config, ..Setup::default() });
        assert_eq!(gateway.address("edge"), listen);
        let mut client = gateway.client();
        for path in ["/a", "/b"] {
            assert!(client.get(path).text().starts_with(path));
        }
        assert_eq!(upstream.connections(), 1);
    }

    fn a_unix_socket_lets_everybody_in_unless_told_otherwise(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        for (key, expected) in [("", 0o666), ("mode = \"0660\"", 0o660)] {
            let path = dir.path().join(format!("{expected:o}.sock"));
            let listen = format!("unix:{}", path.display());
            let setup = Setup { listen: &listen, listener: key, config: &config, ..Setup::default() };
            let _gateway = Gateway::start_with(driver, &setup);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{mode:o}");
        }
    }

    fn the_peers_of_a_unix_socket_are_believed_where_the_file_says_so(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::always("ok");
        let limit = "limit = [{ rate = \"1/h\", burst = 1, per = \"client_ip\" }]";
        let config = behind(&[&upstream], limit, "");
        for (key, second) in [("", 429), ("trusted_proxies = [\"unix\"]", 200)] {
            let listen = format!("unix:{}", dir.path().join(format!("{second}.sock")).display());
            let setup = Setup { listen: &listen, listener: key, config: &config, ..Setup::default() };
            let gateway = Gateway::start_with(driver, &setup);
            let status = |client: &str| gateway.request("GET", "/", &[("X-Forwarded-For", client)], b"").status;
            assert_eq!(status("203.0.113.7"), 200);
            assert_eq!(status("203.0.113.8"), second, "another client, if it is believed");
            assert_eq!(status("203.0.113.7"), 429);
        }
    }

    fn ipv6_is_listened_on_and_connected_to(driver: Driver) {
        if !has_ipv6() {
            return;
        }
        let upstream = Upstream::always("ok");
        // the same service by its IPv4 address in IPv6 clothes would not be IPv6: a relay on [::1] is
        let relay = TcpListener::bind("[::1]:0").unwrap();
        let endpoint = format!("{{ address = \"{}\" }}", relay.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut from, _) = relay.accept().unwrap();
            let mut head = [0; 4096];
            let read = std::io::Read::read(&mut from, &mut head).unwrap();
            std::io::Write::write_all(&mut from, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nsix").unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let config = behind_endpoints(&endpoint, "", "") + "[[route]]\nname = \"four\"\nmatch = { path = \"/four\" }\nupstream = \"four\"\n\n"
            + &format!("[upstream.four]\nendpoints = [{{ address = \"{}\" }}]\n", upstream.address());
        let gateway = Gateway::start_with(driver, &Setup { listen: "[::1]:0", config: &config, ..Setup::default() });
        assert!(gateway.address("edge").starts_with("[::1]:"));
        assert_eq!(gateway.get("/six").text(), "six");
        let head = thread.join().unwrap().to_ascii_lowercase();
        assert!(head.contains("x-forwarded-for: ::1\r\n"), "{head}");
        assert_eq!(gateway.get("/four").text(), "ok");
    }

    fn several_listeners_serve_the_same_routes(driver: Driver) {
        let upstream = Upstream::always("ok");
        let second = "[[listener]]\nname = \"second\"\nlisten = \"127.0.0.1:0\"\n\n";
        let config = second.to_owned() + &behind(&[&upstream], "", "");
        let gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        for listener in ["edge", "second"] {
            for _ in 0..8 {
                assert_eq!(Client::connect(gateway.address(listener)).get("/").text(), "ok");
            }
        }
    }

    fn a_taken_port_is_named_and_ends_with_3(driver: Driver) {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        let route = "[[route]]\nname = \"one\"\nmatch = { path = \"/\" }\nrespond = { status = 200, body = \"1\" }\n";
        let file = Setup { listen: &address, config: route, ..Setup::default() }.file(driver);
        let output = run_to_end(&["run", "-c", &write_config(dir.path(), &file)]);
        assert_eq!(output.code, Some(3), "{output:?}");
        assert!(output.stderr.contains(&address), "{output:?}");
    }

    fn an_admin_socket_of_somebody_who_takes_nothing_holds_no_start_up(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listening = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listening.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listening.listen(0).unwrap();
        let mut waiting = Vec::new();
        let why = loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
            match socket.connect(&SockAddr::unix(&path).unwrap()) {
                Ok(()) => waiting.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(why.kind(), std::io::ErrorKind::WouldBlock, "its queue is full");
        let file = Setup { config: "[[route]]\nrespond = {}\n", ..Setup::default() }
            .file(driver)
            .replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"unix:{}\"", path.display()));
        let said = run_to_end(&["run", "-c", &write_config(dir.path(), &file)]);
        assert_eq!(said.code, Some(3), "{}", said.stderr);
        assert!(said.stderr.contains("another process listens there"), "{}", said.stderr);
    }

    fn a_successor_waits_for_the_socket_of_one_that_is_about_to_let_go(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", dir.path().join("edge.sock").display());
        let setup = Setup { listen: &listen, drain_timeout: "600s", config: "[[route]]\nrespond = {}\n", ..Setup::default() };
        let file = setup.file(driver).replace("drain_timeout", "drain_delay = \"500ms\"\ndrain_timeout");
        let mut old = Gateway::start_file(tempfile::tempdir().unwrap(), &file);
        old.running().signal("TERM");
        let new = Gateway::start_with(driver, &setup);
        assert_eq!(old.running().wait().code(), Some(0));
        assert_eq!(new.get("/").status, 200);
    }

    fn only_a_socket_is_replaced_and_only_ones_own_removed(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious.db");
        std::fs::write(&precious, "data").unwrap();
        let path = format!("unix:{}", precious.display());
        let route = "[[route]]\nrespond = {}\n";
        let listener = Setup { listen: &path, config: route, ..Setup::default() }.file(driver);
        let admin = Setup { config: route, ..Setup::default() }
            .file(driver)
            .replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{path}\""));
        for file in [listener, admin] {
            let said = run_to_end(&["run", "-c", &write_config(dir.path(), &file)]);
            assert_eq!(said.code, Some(3), "{}", said.stderr);
            assert!(said.stderr.contains("no socket") && said.stderr.contains("move it away"), "{}", said.stderr);
            assert_eq!(std::fs::read_to_string(&precious).unwrap(), "data");
        }
        let listen = format!("unix:{}", dir.path().join("edge.sock").display());
        let setup = Setup { listen: &listen, drain_timeout: "600s", config: route, ..Setup::default() };
        let mut old = Gateway::start_with(driver, &setup);
        let mut held = old.client();
        held.send("GET / HTTP/1.1\r\nHost: x\r\nX-");
        eventually("it has begun", || (old.metric("ringgate_connections", &[]) == 1.0).then_some(()));
        old.running().signal("TERM");
        eventually("nothing new is taken", || Client::try_connect(&listen).is_err().then_some(()));
        let new = Gateway::start_with(driver, &setup);
        held.send("Y: z\r\n\r\n");
        held.read("GET");
        assert_eq!(old.running().wait().code(), Some(0));
        assert_eq!(new.get("/").status, 200, "its socket is still there");
    }
}
