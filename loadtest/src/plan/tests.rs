//! Plans as a user meets them: files in, plans or exact messages out.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::PathBuf;

/// A machine with four cores, so that no test depends on where it runs.
const CORES: &[usize] = &[0, 1, 2, 3];

/// Something of everything.
const FULL: &str = r#"name = "full"

[load]
rate = "2000/s"
warm_up = "1s"
timeout = "2s"
connections = 8
seed = 7

[gateway]
kinds = ["ringgate", "nginx"]

[upstream.svc]
instances = 3
service = "lognormal 2ms 8ms"
backup = 1
absent = [3]

[upstream.other]
path = "/other/*"

[[target]]
name = "get"
path = "/a?b=c"
weight = 3

[[target]]
name = "post"
method = "POST"
path = "/other"
headers = { x-a = "b" }
body = "hello"
status = "201"
body_has = "ok"
host = "a.example"

[[phase]]
name = "well"
length = "4s"

[[phase]]
name = "dead"
length = "6s"
rate = "1000/s"
faults = [{ upstream = "svc", instance = 1, do = "kill" }, { upstream = "svc", do = "start", after = "2s" }]
max_failed = "0.1%"
max_failed_of = { get = 0 }
max_bystanders_failed = 0
max_p99 = "50ms"
min_goodput = 0.99
max_amplification = 1.3
max_detection = "1500ms"
max_recovery = "2s"

[[phase]]
name = "reload"
length = "2s"
rate = 2.0
faults = [{ gateway = "reload" }, { gateway = "freeze 500ms", after = "1s" }]

[capacity]
p99 = "5ms"
width = "10%"

[size]
peak = "20000/s"
survive = 2

[thresholds]
max_p99 = "10ms"
max_cpu = "80us"
min_capacity = "4000/s"
max_hosts = 9
"#;

#[track_caller]
fn plan(text: &str) -> Plan {
    Plan::parse(text, "plan.toml", Path::new(""), CORES).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

#[track_caller]
fn errors(text: &str) -> String {
    match Plan::parse(text, "plan.toml", Path::new(""), CORES) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

fn plans() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let files = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("there are plans").map(|entry| entry.expect("readable").path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect::<Vec<_>>()
    };
    let is_plan = |path: &PathBuf| !path.to_string_lossy().ends_with(".ringgate.toml");
    [files(&folder), files(&folder.join("drills"))].concat().into_iter().filter(is_plan).collect()
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

#[test]
fn a_plan_is_typed_and_complete() {
    let plan = plan(FULL);
    assert_eq!((plan.name.as_str(), plan.text.name.as_str(), plan.upstreams.len()), ("full", "plan.toml", 2));
    let gateway = plan.gateway.as_ref().expect("there is one");
    assert_eq!((gateway.kinds.as_slice(), gateway.workers), ([Kind::Ringgate, Kind::Nginx].as_slice(), 2));
    assert_eq!((&gateway.cores, &plan.upstreams[0].cores, &plan.load.cores), (&vec![0, 1], &vec![2], &vec![3]));
    let svc = &plan.upstreams[0];
    assert_eq!((svc.instances, svc.backup, svc.absent.as_slice(), svc.body_bytes), (3, 1, [2].as_slice(), 1_024));
    assert_eq!(svc.time.to_string(), "lognormal 2ms 8ms");
    let upstreams: Vec<_> = plan.load.requests.iter().map(|request| request.upstream).collect();
    assert_eq!(upstreams, [Some(0), Some(1)]);
    assert_eq!(plan.load.length, Duration::from_secs(12));
    let dead = &plan.phases[1];
    let faults: Vec<_> = dead.faults.iter().map(|timed| timed.fault.to_string()).collect();
    assert_eq!(faults, ["upstream svc 1: kill", "upstream svc 1, 3: start"]);
    assert_eq!((dead.factor, dead.bystanders.as_slice()), (0.5, [1].as_slice()));
    assert_eq!(dead.thresholds.max_failed_of, [(0, Allowed::Count(0))]);
    assert_eq!(plan.phases[2].faults[1].fault.to_string(), "gateway: freeze 500ms");
    assert!(plan.phases[0].bystanders.is_empty() || !svc.absent.is_empty());
    assert!(plan.phases[2].bystanders.is_empty(), "whoever uses the gateway is concerned");
    let capacity = plan.capacity.as_ref().expect("there is one");
    assert_eq!((capacity.quantile, capacity.bound, capacity.width), (0.99, Duration::from_millis(5), 0.1));
    assert_eq!(capacity.bound_in_words(), "p99 < 5.00 ms");
    assert_eq!(plan.size, Some(Sizing { peak: 20_000.0, survive: 2 }));
    assert_eq!(plan.thresholds.max_cpu, Some(Duration::from_micros(80)));
}

#[test]
fn a_plan_becomes_a_load() {
    let load = plan(FULL).load(address());
    assert_eq!(load.phases, [4, 10, 12].map(Duration::from_secs));
    assert_eq!(load.factors, [1.0, 0.5, 2.0]);
    assert!(matches!(load.pace, Pace::Poisson(rate) if rate == 2_000.0));
    assert_eq!((load.seed, load.timeout, load.connections), (7, Duration::from_secs(2), 8));
    let get = String::from_utf8_lossy(&load.targets[0].bytes).into_owned();
    assert!(get.starts_with("GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"), "{get}");
    let post = String::from_utf8_lossy(&load.targets[1].bytes).into_owned();
    assert!(
        post.contains("Host: a.example\r\n") && post.contains("x-a: b\r\n") && post.ends_with("\r\n\r\nhello"),
        "{post}"
    );
    assert!(post.contains("Content-Length: 5\r\n"), "{post}");
    assert_eq!((load.targets[1].status.clone(), load.targets[1].weight), (201..=201, 1.0));
    assert_eq!(load.targets[1].body_has.as_deref(), Some(b"ok".as_slice()));
}

#[test]
fn a_plan_may_speak_http2_over_tls() {
    let plan = plan(
        &FULL
            .replace("rate = \"2000/s\"", "protocol = \"h2\"\nstreams = 4\nrate = \"2000/s\"")
            .replace("[gateway]", "[gateway]\ntls = true"),
    );
    let load = plan.load(address());
    assert_eq!((load.protocol, load.connections, load.connections_max), (Protocol::Http2 { streams: 4 }, 8, 8));
    assert!(plan.gateway.as_ref().is_some_and(|gateway| gateway.is_tls));
    assert!(load.is_alone, "the last core is the generator's alone");
}

#[test]
fn the_shortest_plan_has_defaults() {
    let plan = plan("load = { url = \"http://localhost:8080/x?y\" }");
    assert_eq!((plan.name.as_str(), plan.load.rate, plan.load.length), ("plan", 1_000.0, Duration::from_secs(30)));
    assert_eq!((plan.load.timeout, plan.load.warm_up), (Duration::from_secs(5), Duration::from_secs(5)));
    assert!(!plan.starts_gateway() && plan.phases.is_empty() && plan.thresholds == Thresholds::default());
    let load = plan.load(address());
    assert!(load.phases.is_empty() && load.factors.is_empty());
    let text = String::from_utf8_lossy(&load.targets[0].bytes).into_owned();
    assert!(text.starts_with("GET /x?y HTTP/1.1\r\nHost: localhost:8080\r\n"), "{text}");
    assert_eq!(load.targets[0].name, "/x?y");
}

#[test]
fn five_mistakes_are_told_at_once_with_their_lines() {
    let text = FULL
        .replace("rate = \"2000/s\"", "rate = \"2000\"")
        .replace("kinds = [\"ringgate\", \"nginx\"]", "kinds = [\"ringgate\", \"ngnix\"]")
        .replace("weight = 3", "wieght = 3")
        .replace(
            "{ upstream = \"svc\", instance = 1, do = \"kill\" }",
            "{ upstream = \"svcs\", instance = 1, do = \"kil\" }",
        );
    let said = errors(&text);
    for line in [
        "plan.toml:4:8: load.rate = \"2000\"",
        "did you mean \"2000/s\"?",
        "plan.toml:11:22: gateway.kinds[1] = \"ngnix\"",
        "did you mean \"nginx\"?",
        "plan.toml:25:1: target[0].wieght",
        "did you mean \"weight\"?",
        "phase[1].faults[0].upstream = \"svcs\"",
        "did you mean \"svc\"?",
        "phase[1].faults[0].do = \"kil\"",
        "did you mean \"kill\"?",
        "5 errors in plan.toml",
    ] {
        assert!(said.contains(line), "{line} is not in:\n{said}");
    }
}

/// A change of [`FULL`], and what is said about it.
const WRONG: &[(&str, &str, &str)] = &[
    // the load
    ("rate = \"2000/s\"", "rate = \"20000000/s\"", "load.rate"),
    ("rate = \"2000/s\"", "rate = \"200k\"", "did you mean \"200000/s\"?"),
    ("rate = \"2000/s\"", "pace = \"poison\"", "did you mean \"poisson\"?"),
    ("rate = \"2000/s\"", "pace = \"closed\"", "capacity is looked for with an open loop"),
    ("rate = \"2000/s\"", "url = \"http://127.0.0.1/\"", "[gateway] (line 10) starts the server"),
    ("rate = \"2000/s\"", "url = \"https://127.0.0.1/\"", "[gateway] (line 10) starts the server"),
    ("[gateway]", "[load.tls]\ninsecure_skip_verify = true\n[gateway]", "nor is gateway.tls true"),
    ("rate = ", "protocol = \"h3\"\nrate = ", "must be one of http1, h2"),
    ("rate = ", "streams = 4\nrate = ", "HTTP/1.1 has one request on a connection"),
    ("rate = ", "protocol = \"h2\"\nreconnect = true\nstreams = 4\nrate = ", "a connection has one request"),
    ("rate = ", "protocol = \"h2\"\nstreams = 1001\nrate = ", "from 1 to 1000"),
    ("[gateway]", "[load.tls]\nresumption = 1\n[gateway]", "true or false"),
    ("[gateway]", "[load.tls]\nca = \"/nowhere.pem\"\n[gateway]", "/nowhere.pem: No such file"),
    ("[gateway]", "[load.tls]\nname = \"a b\"\n[gateway]", "is no host name"),
    ("rate = \"2000/s\"", "length = \"13s\"", "write length = \"12s\""),
    ("rate = \"2000/s\"", "speed = 2.0", "only a log has a speed"),
    ("rate = \"2000/s\"", "slice = \"1ms\"", "load.slice"),
    ("rate = \"2000/s\"", "cores = [4]", "this process may not run on 4"),
    ("rate = \"2000/s\"", "reconnect = \"true\"", "without quotes: true"),
    ("rate = \"2000/s\"", "connections_max = 4", "write connections_max = 8"),
    ("rate = \"2000/s\"", "from_log = \"no-such.log\"", "the log cannot be read"),
    ("warm_up = \"1s\"", "warm_up = 1", "a duration has a unit"),
    ("timeout = \"2s\"", "timeout = \"3s\"", "longer than the phase \"reload\""),
    ("timeout = \"2s\"", "timeout = \"4ms\"", "after which nothing comes any more"),
    ("connections = 8", "connections = 0", "load.connections"),
    ("connections = 8", "connections = 5000", "more than connections_max (4096)"),
    ("seed = 7", "seed = -1", "load.seed"),
    // the gateway
    ("kinds = [\"ringgate\", \"nginx\"]", "kinds = [\"nginx\", \"nginx\"]", "stands there twice"),
    ("kinds = [\"ringgate\", \"nginx\"]", "kinds = []", "gateway.kinds"),
    ("kinds = [\"ringgate\", \"nginx\"]", "workers = 0", "gateway.workers"),
    ("kinds = [\"ringgate\", \"nginx\"]", "cores = [0, 9]", "this process may not run on 9"),
    ("kinds = [\"ringgate\", \"nginx\"]", "config = { envoy = \"x\" }", "envoy is not among kinds"),
    ("kinds = [\"ringgate\", \"nginx\"]", "config = { ringgate = \"no-such\" }", "cannot be read"),
    // upstreams
    ("instances = 3", "instances = 0", "upstream.svc.instances"),
    ("instances = 3", "instances = 2", "write instances = 3"),
    ("service = \"lognormal 2ms 8ms\"", "service = \"lognormal 8ms 2ms\"", "did you mean \"lognormal 2ms 8ms\"?"),
    ("service = \"lognormal 2ms 8ms\"", "service = \"fixed 1ms\"", "did you mean \"1ms\"?"),
    ("service = \"lognormal 2ms 8ms\"", "body = 12", "a size has a unit"),
    ("backup = 1", "backup = 3", "at least one is no backup"),
    ("absent = [3]", "absent = [3, 3]", "3 stands there twice"),
    ("path = \"/other/*\"", "path = \"/*\"", "has these paths already"),
    ("path = \"/other/*\"", "path = \"/other\"", "did you mean \"/other/*\"?"),
    ("path = \"/other/*\"", "cores = [7]", "this process may not run on 7"),
    // targets
    ("path = \"/a?b=c\"", "path = \"a\"", "did you mean \"/a\"?"),
    ("path = \"/a?b=c\"", "", "target[0].path"),
    ("name = \"get\"", "name = \"post\"", "is called \"post\" too"),
    ("weight = 3", "weight = 0", "target[0].weight"),
    ("method = \"POST\"", "method = \"post\"", "did you mean \"POST\"?"),
    ("headers = { x-a = \"b\" }", "headers = { content-length = \"5\" }", "the body decides it"),
    ("headers = { x-a = \"b\" }", "headers = { \"x a\" = \"5\" }", "a header name"),
    ("body = \"hello\"", "body = \"hello\"\nbody_file = \"x\"", "a request has one body"),
    ("body = \"hello\"", "body_file = \"no-such-file\"", "cannot be read"),
    ("method = \"POST\"", "method = \"HEAD\"", "an answer to HEAD has no body"),
    ("status = \"201\"", "status = 201", "with quotes: \"201\""),
    ("body_has = \"ok\"", "body_has = \"\"", "target[1].body_has"),
    ("host = \"a.example\"", "host = \"http://a/\"", "did you mean \"a\"?"),
    // phases
    ("name = \"dead\"", "name = \"well\"", "the phase in line"),
    ("name = \"dead\"", "", "phase[1].name"),
    ("length = \"6s\"", "length = \"0s\"", "phase[1].length"),
    ("length = \"6s\"", "length = \"2s\"", "the phase is over after 2s"),
    ("rate = \"1000/s\"", "rate = 300", "did you mean \"300/s\"?"),
    ("rate = 2.0", "rate = 100.1", "phase[2].rate"),
    ("instance = 1, do = \"kill\"", "instance = 4, do = \"kill\"", "svc has only 3 instances"),
    ("instance = 1, do = \"kill\"", "instance = 3, do = \"kill\"", "write do = \"start\" before"),
    ("instance = 1, do = \"kill\"", "instance = 1, do = \"start\"", "it is there already"),
    ("instance = 1, do = \"kill\"", "instance = 1", "write do = \"kill\""),
    ("instance = 1, do = \"kill\"", "gateway = \"reload\"", "one fault is done to one"),
    ("{ gateway = \"reload\" }", "{ gateway = \"relaod\" }", "did you mean \"reload\"?"),
    ("{ gateway = \"reload\" }", "{ gateway = \"reload\", do = \"kill\" }", "this is for upstreams"),
    ("{ gateway = \"reload\" }", "{ after = \"1s\" }", "nobody is named"),
    ("freeze 500ms", "freeze 1500ms", "the phase is over before it ends"),
    ("max_failed = \"0.1%\"", "max_failed = -1", "phase[1].max_failed"),
    ("max_p99 = \"50ms\"", "max_p50 = \"50\"", "did you mean \"50ms\"?"),
    ("max_p99 = \"50ms\"", "max_p999 = \"11m\"", "phase[1].max_p999"),
    ("max_p99 = \"50ms\"", "max_slowest = true", "phase[1].max_slowest"),
    ("max_failed_of = { get = 0 }", "max_failed_of = { gett = 0 }", "did you mean \"get\"?"),
    (
        "length = \"4s\"",
        "length = \"4s\"\nmax_recovery = \"1s\"",
        "the first phase is what later ones are compared with",
    ),
    ("length = \"4s\"", "length = \"4s\"\nmax_detection = \"1s\"", "nothing is done in this phase"),
    ("rate = 2.0", "max_bystanders_failed = 0", "nobody is a bystander here"),
    ("rate = 2.0", "rate = 0.01\nmax_p99 = \"1s\"", "40 requests are due"),
    ("max_p99 = \"50ms\"", "max_p99 = \"0ms\"", "phase[1].max_p99"),
    ("min_goodput = 0.99", "min_goodput = 99", "did you mean \"99%\"?"),
    ("max_amplification = 1.3", "max_amplification = 0.5", "phase[1].max_amplification"),
    ("max_detection = \"1500ms\"", "max_detection = \"2h\"", "phase[1].max_detection"),
    ("max_recovery = \"2s\"", "max_recovery = 2", "a duration has a unit"),
    ("max_detection = \"1500ms\"", "max_detection = \"90ms\"", "never less than one"),
    ("max_recovery = \"2s\"", "max_recovery = \"99ms\"", "never less than one"),
    // capacity, size, thresholds
    ("p99 = \"5ms\"", "p99 = \"5\"", "did you mean \"5ms\"?"),
    ("p99 = \"5ms\"", "p99 = \"5ms\"\np50 = \"1ms\"", "capacity has one bound"),
    ("p99 = \"5ms\"", "trial = \"10s\"", "one of p50, p99 and p999 is needed"),
    ("p99 = \"5ms\"", "p99 = \"5ms\"\ndirect = \"http://127.0.0.1:1/\"", "the upstreams of this plan are known"),
    ("width = \"10%\"", "width = \"0.1%\"", "must be from \"0.5%\" to \"50%\""),
    ("p99 = \"5ms\"", "p999 = \"0ms\"", "capacity.p999"),
    ("width = \"10%\"", "max_rate = \"0/s\"", "capacity.max_rate"),
    ("width = \"10%\"", "failures = 2", "did you mean \"2%\"?"),
    ("[capacity]\np99 = \"5ms\"\nwidth = \"10%\"", "", "follows from the capacity of one"),
    ("peak = \"20000/s\"", "", "size.peak"),
    ("survive = 2", "survive = 101", "size.survive"),
    ("max_p99 = \"10ms\"", "max_p99 = \"10 ms\"", "did you mean \"10ms\"?"),
    ("max_cpu = \"80us\"", "max_cpu = \"80µs\"", "did you mean \"80us\"?"),
    ("max_hosts = 9", "max_hosts = 0", "thresholds.max_hosts"),
    ("max_hosts = 9", "max_memory = 64", "a size has a unit"),
    ("name = \"full\"", "nam = \"full\"", "did you mean \"name\"?"),
    ("name = \"full\"", "name = \"\"", "a name of 1 to"),
    ("name = \"full\"", "name = ", "not TOML"),
];

#[test]
fn each_key_is_told_when_it_is_wrong() {
    for (right, changed, expected) in WRONG {
        assert!(FULL.contains(right), "{right}");
        let said = errors(&FULL.replacen(right, changed, 1));
        assert!(said.contains(expected), "{changed}: {expected:?} is not in\n{said}");
    }
}

#[test]
fn plans_without_their_parts_are_told() {
    for (text, expected) in [
        ("", "no server is named"),
        ("[upstream.a]\n", "this plan starts, and it starts none"),
        ("[gateway]\n", "there is nothing behind the gateway"),
        ("[gateway]\n[upstream.a]\npath = \"/a/*\"\n", "no upstream has the path \"/\""),
        (
            "[gateway]\n[upstream.a]\npath = \"/a/*\"\n[[target]]\npath = \"/b\"\n",
            "no upstream has this path; there are /a/*",
        ),
        ("load = { url = \"http://a/x\" }\n[[target]]\npath = \"/\"\n", "did you mean \"http://a/\"?"),
        ("load = { url = \"http://a/\", pace = \"closed\", rate = \"1/s\" }", "a closed loop has no rate"),
        ("load = { url = \"http://a/\", length = \"1d\" }", "more than 10000 slices"),
        ("load = { url = \"http://a/\" }\n[thresholds]\nmax_cpu = \"1ms\"\n", "is not known"),
        ("load = { url = \"http://a/\" }\n[thresholds]\nmin_capacity = \"1/s\"\n", "does not look for capacity"),
        ("load = { url = \"http://a/\" }\n[size]\npeak = \"9/s\"\n", "follows from the capacity of one"),
        (
            "load = { url = \"http://a/\" }\n[[phase]]\nname = \"a\"\nlength = \"9s\"\nfaults = [{ gateway = \"reload\" }]\n",
            "starts no gateway",
        ),
        (
            "load = { url = \"http://a/\" }\n[[phase]]\nname = \"a\"\nlength = \"9s\"\nfaults = [{ upstream = \"x\", do = \"kill\" }]\n",
            "this plan has no upstreams",
        ),
        (
            "load = { url = \"http://a/\" }\n[[phase]]\nname = \"a\"\nlength = \"9s\"\nmax_amplification = 2\n",
            "are not this plan's",
        ),
        ("load = 1\nphase = 2\ntarget = {}\nupstream = []\ngateway = \"x\"\n", "must be a table"),
    ] {
        let said = errors(text);
        assert!(said.contains(expected), "{text}: {expected:?} is not in\n{said}");
    }
}

#[test]
fn a_default_timeout_gives_way_to_the_shortest_phase() {
    let text = "load = { url = \"http://a/\" }\n[[phase]]\nname = \"a\"\nlength = \"9s\"\n[[phase]]\nname = \"b\"\nlength = \"2s\"\n";
    let plan = plan(text);
    assert_eq!((plan.load.timeout, plan.load.length), (Duration::from_secs(2), Duration::from_secs(11)));
}

#[test]
fn every_shipped_plan_is_one() {
    let paths = plans();
    assert!(paths.len() >= 16, "{paths:?}");
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable");
        let folder = path.parent().expect("it is in one");
        for cores in [&[0][..], &[0, 1], CORES] {
            let plan = Plan::parse(&text, &path.display().to_string(), folder, cores)
                .unwrap_or_else(|errors| panic!("{errors}"));
            let load = plan.load(address());
            assert!(!load.targets.is_empty() && load.length > Duration::ZERO, "{}", path.display());
            assert!(plan.load.cores.iter().all(|core| cores.contains(core)), "{}", path.display());
        }
        assert!(text.starts_with("# "), "{} does not say what it is for", path.display());
    }
}

#[test]
fn the_smoke_plan_takes_a_minute() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/smoke.toml");
    let plan = Plan::open(&path).unwrap_or_else(|errors| panic!("{errors}"));
    let takes = plan.load.warm_up + plan.load.length;
    assert!(takes <= Duration::from_secs(60), "{takes:?}");
}

#[test]
fn shipped_configurations_of_gateways_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let mut filled = 0;
    for path in plans() {
        let plan = Plan::open(&path).unwrap_or_else(|errors| panic!("{errors}"));
        for (kind, template) in plan.gateway.iter().flat_map(|gateway| &gateway.configs) {
            assert_eq!(*kind, Kind::Ringgate);
            let text = template.fill(
                address(),
                SocketAddr::from(([127, 0, 0, 1], 9180)),
                Path::new("/folder"),
                |upstream, instance| {
                    let port = 10_000 + upstream * 100 + instance;
                    SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port")))
                },
            );
            ringgate::config::parse(&text, "config.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
            filled += 1;
        }
    }
    assert!(filled > 0, "{}", folder.display());
}

#[test]
fn a_log_is_replayed_from_the_folder_of_the_plan() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = |second: u32, method: &str| {
        format!(
            "{{\"time\":\"2026-11-22T09:15:{second:02}.000Z\",\"method\":\"{method}\",\"target\":\"/a\",\"host\":\"h.example\",\"status\":200,\
             \"request_bytes\":400,\"duration_ms\":1.000}}\n"
        )
    };
    let log: String = (0..20).map(|second| line(second, if second % 4 == 3 { "POST" } else { "GET" })).collect();
    std::fs::write(folder.path().join("access.log"), format!("{log}no request\n")).expect("written");
    let parse = |load: &str| {
        Plan::parse(&format!("load = {{ url = \"http://a/\", {load} }}"), "plan.toml", folder.path(), CORES)
    };
    let plan = parse("from_log = \"access.log\", speed = 2.0").unwrap_or_else(|errors| panic!("{errors}"));
    let load = plan.load(address());
    let Pace::Recorded(times) = &load.pace else { panic!("{:?}", load.pace) };
    assert_eq!((times.len(), load.warm_up, load.length), (20, Duration::ZERO, Duration::from_millis(9_501)));
    assert_eq!(load.targets.iter().map(|target| target.weight).collect::<Vec<_>>(), [15.0, 5.0]);
    assert!(String::from_utf8_lossy(&load.targets[0].bytes).contains("Host: h.example"));
    assert_eq!(plan.remarks, ["1 lines of the log are no requests and were left out"]);
    for (keys, expected) in [
        ("from_log = \"access.log\", rate = \"1/s\"", "from_log (line 1) decides this"),
        ("from_log = \"access.log\", pace = \"even\"", "from_log (line 1) decides this"),
        ("from_log = \"access.log\", length = \"1m\"", "the log has 19.001s after the warm-up"),
        ("from_log = \"access.log\", warm_up = \"1m\"", "longer than the log"),
        ("from_log = \".\"", "not a regular file"),
    ] {
        let said = parse(keys).map(|plan| plan.name).unwrap_err().to_string();
        assert!(said.contains(expected), "{keys}: {said}");
    }
    std::fs::write(folder.path().join("empty.log"), "").expect("written");
    assert!(parse("from_log = \"empty.log\"").unwrap_err().to_string().contains("no line"));
}

#[test]
fn bodies_and_configurations_come_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("body.bin"), [0, 255, 10]).expect("written");
    std::fs::write(folder.path().join("nginx.conf"), "listen @listen@; server @a.2@;").expect("written");
    let text = "[gateway]\nkinds = [\"nginx\"]\nconfig = { nginx = \"nginx.conf\" }\n[upstream.a]\ninstances = 2\n\
                [[target]]\nmethod = \"PUT\"\npath = \"/x\"\nbody_file = \"body.bin\"\n";
    let plan = Plan::parse(text, "plan.toml", folder.path(), CORES).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(plan.load(address()).targets[0].bytes.ends_with(&[13, 10, 13, 10, 0, 255, 10]));
    assert_eq!(plan.gateway.as_ref().map(|gateway| gateway.configs.len()), Some(1));
    let fewer = text.replace("instances = 2", "instances = 1");
    let said = Plan::parse(&fewer, "plan.toml", folder.path(), CORES).map(|plan| plan.name).unwrap_err().to_string();
    assert!(said.contains("gateway.config.nginx") && said.contains("a has 1 instances"), "{said}");
}

#[test]
fn thresholds_have_a_file_of_their_own() {
    let read = thresholds("ci.toml", "max_p99 = \"5ms\"\nmax_failed = 0\n").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((read.max_p99, read.max_failed), (Some(Duration::from_millis(5)), Some(Allowed::Count(0))));
    let said = thresholds("ci.toml", "max_p9 = \"5ms\"\nmax_failed = \"x\"\n").unwrap_err().to_string();
    assert!(said.contains("ci.toml:1:1") && said.contains("max_p99") && said.contains("2 errors in ci.toml"), "{said}");
}

#[test]
fn the_schema_has_every_key() {
    let schema = schema();
    let keys = [
        file::File::KEYS,
        file::Load::KEYS,
        file::Tls::KEYS,
        file::Target::KEYS,
        file::Gateway::KEYS,
        file::Upstream::KEYS,
        file::Phase::KEYS,
        file::Fault::KEYS,
        file::Capacity::KEYS,
        file::Sizing::KEYS,
        file::Thresholds::KEYS,
    ];
    let mut untried = Vec::new();
    for key in keys.concat() {
        assert!(schema.contains(&format!("\"{key}\": {{")), "{key}");
        let is_tried = |(_, wrong, _): &(&str, &str, &str)| wrong.contains(key);
        if !WRONG.iter().any(is_tried) && !FULL.contains(key) {
            untried.push(key);
        }
    }
    assert!(untried.is_empty(), "{untried:?}");
}

#[test]
fn damaged_plans_are_refused_or_read_and_nothing_else() {
    let mut rng = StdRng::seed_from_u64(0x706c_616e);
    let texts: Vec<String> =
        plans().iter().map(|path| std::fs::read_to_string(path).expect("readable")).chain([FULL.to_owned()]).collect();
    let pieces: Vec<&str> = FULL.split_inclusive([' ', '\n', '=', '"']).collect();
    let odd = [
        "",
        "\"",
        "[[",
        "é",
        "\u{0}",
        "-1",
        "1e999",
        "nan",
        "\"99999999999999999999/s\"",
        "{ }",
        "[[phase]]\n",
        "= {",
        "all",
    ];
    for _ in 0..2_000 {
        let mut text = texts[rng.random_range(0..texts.len())].clone();
        for _ in 0..rng.random_range(1..4) {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let Some(from) = places.get(rng.random_range(0..places.len().max(1))).copied() else { break };
            let to = places.iter().copied().find(|at| *at >= from + rng.random_range(0..20)).unwrap_or(text.len());
            let piece = match rng.random_range(0..3) {
                0 => odd[rng.random_range(0..odd.len())],
                _ => pieces[rng.random_range(0..pieces.len())],
            };
            text.replace_range(from..to, piece);
        }
        if let Ok(plan) = Plan::parse(&text, "plan.toml", Path::new("/no-such-folder"), CORES) {
            assert!(!plan.load(address()).targets.is_empty(), "{text}");
        }
    }
}
