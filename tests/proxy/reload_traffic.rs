//! Traffic of every kind beside reloads that change everything that may change; and what a reload does to addresses, gauges and descriptors.

use crate::support::load::assert_no_failure_while;
use crate::support::upstream::{Conn, keep_a_port};
use crate::support::{
    Client, Driver, Gate, Gateway, Setup, Upstream, assert_same_bytes, behind, eventually, noise, on_both_drivers,
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Pieces of a slow download, and the bytes of one.
const PIECES: usize = 24;
const PIECE: usize = 3_000;

fn file(driver: Driver, config: &str) -> String {
    Setup { workers: 2, config, ..Setup::default() }.file(driver)
}

fn start(driver: Driver, config: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { workers: 2, config, ..Setup::default() })
}

/// Answers `/echo` with a tunnel that says what it hears, `/slow` with pieces, one for each that `paid` gives, and the rest with what came.
fn service(paid: Arc<AtomicUsize>) -> Upstream {
    Upstream::scripted(move |conn: &mut Conn| {
        while let Some(head) = conn.head() {
            match head.target.as_str() {
                "/special/echo" => {
                    conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
                    while let Some(byte) = conn.take(1) {
                        conn.send(byte);
                    }
                }
                "/special/slow" => {
                    conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECES * PIECE));
                    for piece in 0..PIECES {
                        eventually("the next piece is due", || (paid.load(Ordering::SeqCst) > piece).then_some(()));
                        conn.send(noise(piece as u64, PIECE));
                    }
                }
                _ => {
                    let Some(body) = conn.body(&head) else { return };
                    conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
                    conn.send(body);
                }
            }
        }
    })
}

/// One configuration of many, with these services behind it.
fn variant(round: usize, special: &Upstream, services: &[Upstream; 3]) -> String {
    let address = |service: &Upstream| format!("{{ address = \"{}\", weight = {} }}", service.address(), 1 + round % 3);
    let endpoints: Vec<_> = services.iter().cycle().skip(round % 3).take(1 + round % 3).map(address).collect();
    let more = match round % 4 {
        1 => "[[listener]]\nname = \"second\"\nlisten = \"127.0.0.1:0\"\n\n",
        _ => "",
    };
    let route = match round % 3 {
        0 => "",
        1 => "limit = [ { rate = \"100000/s\", burst = 100000, per = \"route\" } ]\nmax_concurrent = 900",
        _ => "limit = [ { rate = \"200000/s\", burst = 200000, per = \"client_ip\" } ]\ntimeout = \"30s\"",
    };
    let balance = ["least_request", "round_robin", "maglev\"\nhash = \"path"][round % 3];
    let others: String = (0..round % 5)
        .map(|row| {
            format!("[[route]]\nname = \"n{row}-{}\"\nmatch = {{ path = \"/n{row}\" }}\nrespond = {{}}\n\n", round % 7)
        })
        .collect();
    format!(
        "{more}{others}[[route]]\nname = \"special\"\nmatch = {{ path = \"/special/*\" }}\nupstream = \"special\"\ntimeout = \"600s\"\n\n\
         [[route]]\nname = \"all\"\nupstream = \"all\"\n{route}\n\n\
         [upstream.special]\nconnect_timeout = \"{}s\"\nendpoints = [ {{ address = \"{}\" }} ]\n\n\
         [upstream.all]\nbalance = \"{balance}\"\nmax_requests = {}\nendpoints = [ {} ]\n",
        1 + round % 3,
        special.address(),
        600 + round % 4,
        endpoints.join(", ")
    )
}

/// Sends bodies until it is told that that is enough; each comes back as it was.
fn upload(mut client: Client, over: &AtomicBool) {
    for round in 0.. {
        let body = noise(round, 1 + (round as usize * 7_919) % 90_000);
        let response = client.request("POST", "/special/up", &[], &body);
        assert_eq!(response.status, 200);
        assert_same_bytes(&response.body, &body);
        if over.load(Ordering::SeqCst) {
            return;
        }
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn change_under_traffic(
    driver: Driver,
    gateway: &mut Gateway,
    special: &Upstream,
    services: &[Upstream; 3],
    paid: &AtomicUsize,
) {
    let mut tunnels: Vec<Client> = (0..4).map(|_| gateway.client()).collect();
    for tunnel in &mut tunnels {
        tunnel.send("GET /special/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(tunnel.read("GET").status, 101);
    }
    let mut slow = gateway.client();
    slow.send("GET /special/slow HTTP/1.1\r\nHost: x\r\n\r\n");
    let (admin, path, uploader) = (gateway.address("admin").to_owned(), gateway.file(), gateway.client());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = Over(&over);
        scope.spawn(|| upload(uploader, &over));
        assert_no_failure_while(gateway, |load| {
            for round in 1..=PIECES {
                std::fs::write(&path, file(driver, &variant(round, special, services))).unwrap();
                let response = Client::connect(&admin).request("POST", "/reload", &[], b"");
                assert_eq!(response.status, 200, "{}", response.text());
                paid.store(round, Ordering::SeqCst);
                for (tunnel, letter) in tunnels.iter_mut().zip(*b"abcd") {
                    tunnel.send([letter; 9]);
                    assert_eq!(tunnel.take(9).unwrap(), [letter; 9], "round {round}");
                }
                load.goes_on_for(10);
            }
        });
        drop(end);
    });
    let response = slow.read("GET");
    let pieces: Vec<u8> = (0..PIECES).flat_map(|piece| noise(piece as u64, PIECE)).collect();
    assert_same_bytes(&response.body, &pieces);
    assert_eq!(gateway.metric("ringgate_tunnels", &[]), 4.0);
    drop((tunnels, slow));
    gateway.assert_nothing_left();
    gateway.running().signal("TERM");
    assert!(gateway.running().wait().success());
}

on_both_drivers! {
    fn nothing_fails_and_no_tunnel_is_lost_whatever_changes(driver: Driver) {
        for tries_left in (0..5).rev() {
            let paid = Arc::new(AtomicUsize::new(0));
            let special = service(Arc::clone(&paid));
            let services = [Upstream::always("ok"), Upstream::always("ok"), Upstream::always("ok")];
            let mut gateway = start(driver, &variant(0, &special, &services));
            let changes = AssertUnwindSafe(|| change_under_traffic(driver, &mut gateway, &special, &services, &paid));
            let Err(failure) = catch_unwind(changes) else { return };
            // a machine that takes a core away for seconds has a worker replaced, which ends connections: only that is tried again
            let has_ended = gateway.running().ended().is_some();
            let was_replaced = !has_ended && gateway.metric("ringgate_worker_restarts_total", &[]) > 0.0;
            if !was_replaced || tries_left == 0 {
                resume_unwind(failure);
            }
        }
    }

    fn a_listener_may_get_all_addresses_of_its_port_and_one_again(driver: Driver) {
        let (_place, address) = keep_a_port();
        let route = "[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n";
        let at = |address: &str| format!("[[listener]]\nname = \"moving\"\nlisten = \"{address}\"\n\n{route}");
        let (one, all) = (address.to_string(), format!("0.0.0.0:{}", address.port()));
        let mut gateway = start(driver, &at(&one));
        for listen in [&all, &one, &all] {
            gateway.reload_well(&file(driver, &at(listen)));
            assert_eq!(Client::connect(&one).get("/").text(), "ok");
            let elsewhere = Client::try_connect(&format!("127.0.0.2:{}", address.port()));
            assert_eq!(elsewhere.is_ok(), *listen == all, "{listen}");
        }
    }

    fn what_is_in_flight_since_before_its_upstream_changed_is_in_the_gauges(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = Upstream::holding("/slow", &gate);
        let config = |seconds| behind(&[&upstream], "timeout = \"600s\"", &format!("connect_timeout = \"{seconds}s\""));
        let mut gateway = start(driver, &config(1));
        let mut busy = [gateway.client(), gateway.client(), gateway.client()];
        for (round, client) in busy.iter_mut().enumerate() {
            client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
            eventually("it is asked", || (upstream.requests().len() > round).then_some(()));
            gateway.reload_well(&file(driver, &config(2 + round)));
        }
        gateway.await_gauges();
        assert_eq!(gateway.metric("ringgate_endpoint_in_flight", &[]), 3.0);
        assert_eq!(gateway.metric("ringgate_upstream_connections", &[("state", "active")]), 3.0);
        gate.open();
        assert!(busy.iter_mut().all(|client| client.read("GET").status == 200));
        eventually("they are over", || (gateway.metric("ringgate_endpoint_in_flight", &[]) == 0.0).then_some(()));
    }

    fn a_cap_of_descriptors_that_comes_with_a_reload_counts_who_is_there(driver: Driver) {
        let config = |body: &str| format!("[[route]]\nname = \"all\"\nrespond = {{ body = \"{body}\" }}\n");
        let mut gateway = start(driver, &config("one"));
        let mut clients: Vec<Client> = (0..60).map(|_| gateway.client()).collect();
        assert!(clients.iter_mut().all(|client| client.get("/").status == 200));
        // room for what is open and half as many again, which is not for clients alone
        let limit = gateway.descriptors() + 40;
        gateway.running().limit_descriptors(&limit.to_string());
        gateway.reload_well(&file(driver, &config("two")));
        let refused = |gateway: &Gateway| gateway.metric("ringgate_connections_refused_total", &[("reason", "descriptors")]);
        assert!(gateway.client().try_get("/").is_err(), "there are more than the cap");
        assert_eq!(refused(&gateway), 1.0);
        assert!(clients.iter_mut().all(|client| client.get("/").text() == "two"), "who is there stays");
        clients.truncate(5);
        eventually("there is room again", || gateway.client().try_get("/").ok());
    }

    fn who_has_the_admin_address_changed_is_answered(driver: Driver) {
        let (_place, address) = keep_a_port();
        let route = "[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n";
        let mut gateway = start(driver, route);
        let text = file(driver, route).replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{address}\""));
        assert!(text.contains(&address.to_string()));
        let before = gateway.address("admin").to_owned();
        let response = gateway.reload(&text);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(Client::connect(&address.to_string()).get("/readyz").status, 200);
        eventually("the one before is closed", || Client::try_connect(&before).is_err().then_some(()));
    }

    fn a_file_that_hangs_keeps_nobody_from_ending_the_gateway(driver: Driver) {
        let mut gateway = start(driver, "[[route]]\nname = \"all\"\nrespond = { body = \"ok\" }\n");
        let path = gateway.file();
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut operator = Client::connect(gateway.address("admin"));
        operator.send("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(gateway.get("/").text(), "ok");
        assert_eq!(gateway.admin("/healthz").status, 200);
        gateway.running().signal("TERM");
        let response = operator.read("POST");
        assert_eq!((response.status, &response.json()["error"]), (409, &"draining".into()));
        assert!(gateway.running().wait().success());
    }

    fn a_mounted_configuration_is_read_when_its_link_is_swapped(driver: Driver) {
        let watching = |body: &str| {
            let route = format!("[[route]]\nname = \"all\"\nrespond = {{ body = \"{body}\" }}\n");
            file(driver, &route).replacen("[gateway]", "[gateway]\nwatch = true", 1)
        };
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let mut gateway = Gateway::start_file(dir, &watching("zero"));
        let mut client = gateway.client();
        // as Kubernetes mounts a ConfigMap: the file is a link through `..data`, which is swapped for one to another folder
        let data = root.join("..data");
        for (version, body) in ["one", "two", "three"].into_iter().enumerate() {
            let folder = root.join(format!("..{version}"));
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("ringgate.toml"), watching(body)).unwrap();
            std::os::unix::fs::symlink(&folder, root.join("..data_tmp")).unwrap();
            std::fs::rename(root.join("..data_tmp"), &data).unwrap();
            if version == 0 {
                std::os::unix::fs::symlink(data.join("ringgate.toml"), root.join("link")).unwrap();
                std::fs::rename(root.join("link"), root.join("ringgate.toml")).unwrap();
            }
            eventually("it is read", || (client.get("/").text() == body).then_some(()));
            if version > 0 {
                std::fs::remove_dir_all(root.join(format!("..{}", version - 1))).unwrap();
            }
        }
        assert_eq!(gateway.metric("ringgate_config_reloads_total", &[("result", "failed")]), 0.0);
        gateway.running().signal("TERM");
        assert!(gateway.running().wait().success());
    }
}
