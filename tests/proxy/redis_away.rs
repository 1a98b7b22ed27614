//! Limits of several gateways while there is no Redis, or one that only ever begins: what holds then, and that it fills no buckets.

use crate::support::upstream::keep_a_port;
use crate::support::{Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Of the limit: so slow that nothing comes back while a test runs.
const BURST: usize = 5;

fn file(driver: Driver, upstream: &Upstream, redis: SocketAddr, on_failure: &str) -> String {
    let shared = format!(
        "[redis]\nurl = \"redis://{redis}\"\non_failure = \"{on_failure}\"\n[limit.all]\nrate = \"1/h\"\nburst = {BURST}\nshared = \"redis\"\n"
    );
    let config = behind(&[upstream], "limit = [\"all\"]", &shared);
    Setup { config: &config, ..Setup::default() }.file(driver)
}

fn start(text: &str) -> Gateway {
    let gateway = Gateway::start_file(tempfile::tempdir().expect("a directory"), text);
    await_failure(&gateway);
    gateway
}

/// Waits until it has given Redis up once more.
fn await_failure(gateway: &Gateway) {
    let failed = || gateway.metric("ringgate_redis_exchanges_total", &[("result", "failed")]);
    let before = failed();
    eventually("redis is given up", || (failed() > before).then_some(()));
}

/// A command of a client: its words; `None`: it has gone.
fn command(from: &mut BufReader<TcpStream>) -> Option<Vec<Vec<u8>>> {
    let mut count = |kind: u8| {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|read| *read > 2)?;
        assert_eq!(line.as_bytes()[0], kind, "{line}");
        let number: usize = line[1..].trim_end().parse().expect("a number");
        if kind == b'*' {
            return Some((number, Vec::new()));
        }
        let mut word = vec![0; number + 2];
        from.read_exact(&mut word).ok()?;
        word.truncate(number);
        Some((number, word))
    };
    let (words, _) = count(b'*')?;
    (0..words).map(|_| count(b'$').map(|(_, word)| word)).collect()
}

/// Speaks with one client as a Redis does that goes away when something is charged there.
fn begin_only(stream: TcpStream) {
    let mut to = stream.try_clone().expect("a descriptor");
    let mut from = BufReader::new(stream);
    while let Some(words) = command(&mut from) {
        let answer = match words[0].eq_ignore_ascii_case(b"EVAL") {
            true if words[1].windows(5).any(|part| part == b"ZCARD") => ":1\r\n",
            true => return,
            false => "+OK\r\n",
        };
        if to.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

on_both_drivers! {
    fn a_reload_changes_what_holds_for_limits_that_were_there(driver: Driver) {
        let (upstream, (_kept, nobody)) = (Upstream::always("ok"), keep_a_port());
        let of = |on_failure: &str| file(driver, &upstream, nobody, on_failure);
        let mut gateway = start(&of("local"));
        let passed = |gateway: &Gateway| (0..2 * BURST).filter(|_| gateway.get("/").status == 200).count();
        assert_eq!(passed(&gateway), BURST, "its share is all of it");
        gateway.reload_well(&of("allow"));
        eventually("everything passes", || (passed(&gateway) == 2 * BURST).then_some(()));
        gateway.reload_well(&of("deny"));
        eventually("nothing passes", || (passed(&gateway) == 0).then_some(()));
        await_failure(&gateway);
        assert_eq!(passed(&gateway), 0, "and the one before says nothing any more");
        gateway.reload_well(&of("local"));
        await_failure(&gateway);
        assert!(passed(&gateway) <= BURST, "a share again");
    }

    fn a_redis_that_only_begins_may_do_so_ever_more_seldom(driver: Driver) {
        let upstream = Upstream::always("ok");
        let redis = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = redis.local_addr().expect("an address");
        let (tell, told) = channel();
        // it ends when nobody listens to it any more
        std::thread::spawn(move || {
            while let Ok((stream, _)) = redis.accept() {
                if tell.send(Instant::now()).is_err() {
                    return;
                }
                begin_only(stream);
            }
        });
        let gateway = Gateway::start_file(tempfile::tempdir().expect("a directory"), &file(driver, &upstream, address, "local"));
        let (mut client, mut passed, mut begun) = (gateway.client(), 0, Vec::new());
        eventually("it has begun three times", || {
            passed += usize::from(client.get("/").status == 200);
            begun.extend(told.try_iter());
            (begun.len() >= 3).then_some(())
        });
        // 400 and 800 ms where the pauses grow, and 200 each where they do not
        assert!(begun[2] - begun[0] >= Duration::from_millis(1_100), "{:?}", begun[2] - begun[0]);
        assert!(passed <= 4 * BURST, "{passed}: a bucket for each beginning, and its own share");
        drop((gateway, told));
        drop(TcpStream::connect(address));
    }
}
