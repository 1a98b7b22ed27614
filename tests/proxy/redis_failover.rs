//! Limits of several gateways by a Redis that fails over: sentinels that make another server the master, a cluster whose node is killed.
//!
//! Where `redis-server` and `redis-cli` are not installed these are skips that say so; with RINGGATE_TESTS_NEED_TOOLS set they are failures.

use crate::support::{Driver, Gateway, Setup, Upstream, behind, eventually};
use crate::tools::is_installed;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A process of Redis, with a folder of its own.
struct Server {
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl Server {
    fn start(port: u16, words: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port_word = port.to_string();
        let child = Command::new("redis-server")
            .args(words)
            .args(["--bind", "127.0.0.1", "--port", &port_word])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server");
        let server = Self { port, child, _dir: dir };
        eventually("redis answers", || server.tell(&["PING"]).contains("PONG").then_some(()));
        server
    }

    fn tell(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output =
            Command::new("redis-cli").args(["-a", "secret", "--no-auth-warning", "-p", &port]).args(words).output();
        String::from_utf8_lossy(&output.expect("redis-cli").stdout).into_owned()
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// So many ports that nobody has.
fn ports<const N: usize>() -> [u16; N] {
    let held: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    std::array::from_fn(|row| held[row].local_addr().expect("it is bound").port())
}

fn is_there() -> bool {
    is_installed("redis-server") && is_installed("redis-cli")
}

const PLAIN: [&str; 8] = ["--save", "", "--appendonly", "no", "--requirepass", "secret", "--masterauth", "secret"];

fn gateway(upstream: &Upstream, keys: &str) -> Gateway {
    let shared =
        format!("[redis]\n{keys}timeout = \"500ms\"\n[limit.all]\nrate = \"1/h\"\nburst = 100\nshared = \"redis\"\n");
    let config = behind(&[upstream], "limit = [\"all\"]", &shared);
    let gateway = Gateway::start_with(Driver::Epoll, &Setup { workers: 1, config: &config, ..Setup::default() });
    await_exchange(&gateway, "answered");
    gateway
}

/// Waits for one more that has come to this.
fn await_exchange(gateway: &Gateway, result: &str) {
    let count = || gateway.metric("ringgate_redis_exchanges_total", &[("result", result)]);
    let before = count();
    eventually(result, || (count() > before).then_some(()));
}

/// What is taken on one is missed on the other, now and after whoever counts has been killed.
fn both_share(upstream: &Upstream, keys: &[String; 2], kill: impl FnOnce()) {
    let (one, other) = (gateway(upstream, &keys[0]), gateway(upstream, &keys[1]));
    await_exchange(&one, "answered");
    let taken = (0..60).filter(|_| one.get("/").status == 200).count();
    assert!(taken > 0);
    await_exchange(&one, "answered");
    await_exchange(&other, "answered");
    let rest = (0..100).filter(|_| other.get("/").status == 200).count();
    assert!(taken + rest <= 110, "{taken} and {rest} of 100 are more than leases explain");

    kill();
    [&one, &other].into_iter().for_each(|gateway| await_exchange(gateway, "failed"));
    for gateway in [&one, &other] {
        let status = gateway.get("/").status;
        assert!(matches!(status, 200 | 429), "{status}: nobody waits for Redis");
        await_exchange(gateway, "answered");
        await_exchange(gateway, "answered");
    }
}

#[test]
fn the_server_that_sentinels_name_is_asked_also_when_it_is_another_one() {
    if !is_there() {
        return;
    }
    let [master_port, replica_port, sentinel_port, nobody] = ports();
    let mut master = Server::start(master_port, &PLAIN);
    let of = format!("127.0.0.1 {master_port}");
    let replica = Server::start(replica_port, &[&PLAIN[..], &["--replicaof", &of]].concat());
    eventually("the replica follows", || {
        replica.tell(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor edge 127.0.0.1 {master_port} 1\nsentinel auth-pass edge secret\nrequirepass secret\n\
         sentinel down-after-milliseconds edge 300\nsentinel failover-timeout edge 2000\n"
    );
    std::fs::write(&file, text).expect("the folder is writable");
    let sentinel = Server::start(sentinel_port, &[file.to_str().expect("utf-8"), "--sentinel"]);
    eventually("the sentinel knows the replica", || {
        sentinel.tell(&["SENTINEL", "REPLICAS", "edge"]).contains(&replica_port.to_string()).then_some(())
    });

    let upstream = Upstream::always("ok");
    let keys = |url: u16, node: u16| {
        format!(
            "url = \"redis://:secret@127.0.0.1:{url}\"\nkind = \"sentinel\"\nmaster = \"edge\"\n\
             nodes = [\"127.0.0.1:{node}\"]\nsentinel_password = \"secret\"\n"
        )
    };
    // where the first one that is named is away the next is asked
    both_share(&upstream, &[keys(sentinel_port, nobody), keys(nobody, sentinel_port)], || master.kill());
    assert!(replica.tell(&["ROLE"]).starts_with("master"));
}

#[test]
fn a_cluster_is_asked_where_the_keys_are_also_when_its_node_is_killed() {
    if !is_there() {
        return;
    }
    let all: [u16; 12] = ports();
    let mut nodes: Vec<Server> = all
        .chunks(2)
        .map(|pair| {
            let bus = pair[1].to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "600", "--cluster-port", &bus];
            Server::start(pair[0], &[&PLAIN[..], &cluster].concat())
        })
        .collect();
    let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut words: Vec<&str> = vec!["--cluster", "create"];
    words.extend(addresses.iter().map(String::as_str));
    words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
    let said = nodes[0].tell(&words);
    assert!(said.contains("All 16384 slots covered"), "{said}");
    let is_whole = |node: &Server| {
        let known = node.tell(&["CLUSTER", "NODES"]);
        node.tell(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            && known.lines().filter(|line| line.contains("slave")).count() == 3
            && !known.contains("fail")
    };
    eventually("the cluster is whole", || nodes.iter().all(is_whole).then_some(()));
    let is_linked = |node: &Server| {
        let said = node.tell(&["INFO", "replication"]);
        said.contains("role:master") || said.contains("master_link_status:up")
    };
    eventually("replicas follow", || nodes.iter().all(is_linked).then_some(()));

    let upstream = Upstream::always("ok");
    let keys = |first: usize| {
        let others: Vec<_> = addresses.iter().filter(|other| **other != addresses[first]).collect();
        format!("url = \"redis://:secret@{}\"\nkind = \"cluster\"\nnodes = {others:?}\n", addresses[first])
    };
    let keys = [keys(0), keys(1)];
    both_share(&upstream, &keys, || {
        let has_keys = |node: &Server| {
            node.tell(&["ROLE"]).starts_with("master")
                && node.tell(&["KEYS", "*gateways"]).contains("{ringgate}:gateways")
        };
        nodes.iter_mut().find(|node| has_keys(node)).expect("one has the keys").kill();
    });
}
