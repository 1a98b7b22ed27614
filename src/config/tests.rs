//! The configuration as a user meets it: files in, configurations or exact messages out.
//!
//! What is said about the files in `golden/` stands beside them, and the schema in `config/`. After an intended change run the tests
//! with `RINGGATE_GOLDEN=write` and read the difference.

use super::check::parse_for;
use super::*;
use http::Method;
use proptest::prelude::*;
use std::path::Path;

/// A machine with four cores, so that no test depends on where it runs.
const CORES: &[usize] = &[0, 1, 2, 3];

const MINIMAL: &str = include_str!("../../config/examples/minimal.toml");
const DOCUMENTED: &str = include_str!("../../config/ringgate.toml");

#[track_caller]
fn config(text: &str) -> Config {
    parse_for(text, "ringgate.toml", CORES).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// The minimal file with more lines in its `[upstream.app]`.
fn cluster(lines: &str) -> Cluster {
    (*config(&format!("{MINIMAL}{lines}")).clusters[0]).clone()
}

/// The minimal file with more lines in its `[[route]]`.
fn route(lines: &str) -> Route {
    config(&MINIMAL.replace("upstream = \"app\"", &format!("upstream = \"app\"\n{lines}"))).routes[0].clone()
}

/// The messages about the minimal file with more lines in its `[[route]]`, without help.
fn refusals(lines: &str) -> Vec<String> {
    let text = MINIMAL.replace("upstream = \"app\"", &format!("upstream = \"app\"\n{lines}"));
    match parse_for(&text, "f", CORES) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(errors) => {
            errors.problems().iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
        }
    }
}

/// Compares with the file, or writes it when that is asked for.
fn golden(file: &Path, actual: &str) {
    if std::env::var_os("RINGGATE_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(file, actual).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    assert!(expected == actual, "{} is not current; it should be:\n{actual}", file.display());
}

fn in_repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_error_is_reported_at_once_and_in_these_words() {
    for name in ["values", "agreements", "syntax", "empty", "shapes", "brackets", "words", "identity", "limits"] {
        let text = std::fs::read_to_string(in_repository(&format!("src/config/golden/{name}.toml"))).unwrap();
        let errors = parse_for(&text, "ringgate.toml", CORES).expect_err(name);
        golden(&in_repository(&format!("src/config/golden/{name}.txt")), &format!("{errors}\n"));
    }
}

#[test]
fn the_schema_in_the_repository_is_current() {
    golden(&in_repository("config/ringgate.schema.json"), &schema());
}

#[test]
fn the_documented_file_says_the_defaults() {
    let (documented, minimal) = (config(DOCUMENTED), config(MINIMAL));
    assert_eq!(format!("{documented:#?}"), format!("{minimal:#?}"));
}

#[test]
fn the_optional_keys_of_the_documented_file_load_too() {
    let uncommented: String = DOCUMENTED.lines().map(|line| format!("{}\n", uncomment(line))).collect();
    let config = config(&uncommented);
    let log = config.access_log.unwrap();
    assert_eq!((log.path, log.format), (LogPath::Stdout, LogFormat::Json));
    assert_eq!(log.redact, ["authorization", "cookie"]);
    let check = config.clusters[0].health_check.as_ref().unwrap();
    let Probe::Http(probe) = &check.probe else { panic!("{:?}", check.probe) };
    assert_eq!((&probe.method, probe.path.as_str(), probe.expect), (&Method::GET, "/healthz", (200, 399)));
    assert_eq!(probe.host.as_deref(), Some("app.example.com"));
    assert!(probe.headers.is_empty());
    assert_eq!(probe.body.as_ref().map(BodyMatch::as_str), Some("ok"));
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!((check.rise, check.fall), (2, 3));
}

/// `#key` is a key that may be used, `# text` is a remark.
fn uncomment(line: &str) -> &str {
    line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
}

#[test]
fn the_documented_file_names_every_key() {
    let keys = [
        file::File::KEYS,
        file::Gateway::KEYS,
        file::Admin::KEYS,
        file::Resolver::KEYS,
        file::AccessLog::KEYS,
        file::Listener::KEYS,
        file::Route::KEYS,
        file::Match::KEYS,
        file::SplitPart::KEYS,
        file::Respond::KEYS,
        file::Redirect::KEYS,
        file::HeaderRules::KEYS,
        file::Adaptive::KEYS,
        limit_keys::Limit::KEYS,
        limit_keys::SharedLimit::KEYS,
        limit_keys::Tier::KEYS,
        file::Retry::KEYS,
        file::Upstream::KEYS,
        sticky::StickyTable::KEYS,
        traffic::FaultTable::KEYS,
        traffic::MirrorTable::KEYS,
        compression::CompressionTable::KEYS,
        traffic::BufferingTable::KEYS,
        traffic::DelayTable::KEYS,
        traffic::AbortTable::KEYS,
        file::RetryBudget::KEYS,
        file::Endpoint::KEYS,
        file::HealthCheck::KEYS,
        file::Outlier::KEYS,
        identity_keys::Consumer::KEYS,
        identity_keys::KeyDigests::KEYS,
        identity_keys::Auth::KEYS,
        identity_keys::TokenKey::KEYS,
        identity_keys::Rule::KEYS,
        signatures::SigningKey::KEYS,
        signatures::SignatureTable::KEYS,
        tls_keys::ListenerTls::KEYS,
        tls_keys::ClientAuthTable::KEYS,
        tls_keys::CertificateFiles::KEYS,
        acme::AcmeTable::KEYS,
        tls_keys::UpstreamTls::KEYS,
    ];
    for key in keys.concat() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(DOCUMENTED.split(|c| !word(c)).any(|found| found == key), "{key} is not in config/ringgate.toml");
    }
}

#[test]
fn every_example_loads() {
    let mut loaded = 0;
    for entry in std::fs::read_dir(in_repository("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("tls.toml") {
            continue; // it needs certificates, which its own test makes
        }
        let text = std::fs::read_to_string(&path).unwrap();
        parse_for(&text, &path.display().to_string(), CORES).unwrap_or_else(|errors| panic!("{errors}"));
        loaded += 1;
    }
    assert!(loaded >= 3);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = config(MINIMAL);
    let seconds = Duration::from_secs;
    assert_eq!(config.gateway.cores, [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!((config.gateway.driver, config.gateway.drain_timeout), (Driver::Auto, seconds(30)));
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9180");
    assert!(config.access_log.is_none());
    let listener = &config.listeners[0];
    assert_eq!(listener.name, "0.0.0.0:8080");
    assert_eq!((listener.header_timeout, listener.idle_timeout), (seconds(10), seconds(60)));
    assert_eq!((listener.body_timeout, listener.tunnel_timeout), (seconds(30), seconds(3600)));
    assert_eq!((listener.head_bytes_max, listener.headers_max), (16 << 10, 100));
    assert_eq!((listener.body_bytes_max, listener.connections_max), (16 << 20, 65_536));
    assert_eq!((listener.client_connections_max, listener.connection_requests_max), (None, Some(1_000_000)));
    assert_eq!((listener.connection_age_max, listener.body_rate_min), (seconds(86_400), 0));
    assert_eq!((listener.header_underscores, listener.encoded_separators), (Underscores::Drop, Separators::Reject));
    assert_eq!((listener.proxy_protocol, &listener.server), (false, &ServerField::Pass));
    let route = &config.routes[0];
    assert_eq!((route.name.as_str(), route.timeout), ("/*", Timeout::Fixed(seconds(30))));
    assert_eq!((route.retry.attempts, route.retry.min_remaining.get()), (2, 0.1));
    assert!(route.retry.on.connect && route.retry.on.reset && route.retry.on.timeout && !route.retry.non_idempotent);
    assert_eq!(route.retry.on.statuses, [502_u16, 503, 504].map(|status| StatusCode::from_u16(status).unwrap()));
    assert!(route.limits.is_empty() && route.concurrent_max.is_none() && route.retry.per_try_timeout.is_none());
    let cluster = &config.clusters[0];
    assert_eq!((&cluster.balance, cluster.connect_timeout), (&Balance::LeastRequest, seconds(1)));
    assert_eq!((cluster.idle_timeout, cluster.idle_max, cluster.requests_max), (seconds(55), 256, None));
    assert_eq!((cluster.retry_budget.ratio.get(), cluster.retry_budget.min_per_second), (0.2, 3));
    assert_eq!((cluster.endpoints[0].weight, cluster.endpoints[0].priority), (Weight(100), 0));
    assert_eq!(cluster.proxy_protocol, ProxyVersion::Off);
    assert!(cluster.health_check.is_none());
    assert_eq!(cluster.slow_start, seconds(10));
    let outlier = cluster.outlier.unwrap();
    assert_eq!((outlier.consecutive, outlier.min_success.get(), outlier.min_requests), (5, 0.5, 10));
    assert_eq!((outlier.window, outlier.eject, outlier.eject_max), (seconds(10), seconds(10), seconds(300)));
}

#[test]
fn workers_are_pinned_to_the_cores_that_are_left() {
    let cores = |gateway: &str| config(&format!("{MINIMAL}[gateway]\n{gateway}")).gateway.cores;
    assert_eq!(cores("workers = 2"), [Some(0), Some(1)]);
    assert_eq!(cores("workers = 6"), [Some(0), Some(1), Some(2), Some(3), None, None]);
    assert_eq!(cores("cores = [3, 1]"), [Some(3), Some(1)]);
    assert_eq!(cores("cores = [3, 1]\nworkers = 2"), [Some(3), Some(1)]);
}

#[test]
fn splits_refer_to_upstreams_in_file_order() {
    let text = "listener = [{ listen = \"unix:/a\" }]\nroute = [{ split = [{ upstream = \"a\", weight = 1 }, { upstream = \"z\", weight = 3 }] }]\n\
                [upstream.z]\nendpoints = [{ address = \"10.0.0.1:1\" }]\n[upstream.a]\nendpoints = [{ address = \"10.0.0.2:1\" }]\n";
    let config = config(text);
    assert_eq!(config.clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    let Target::Upstream(split) = &config.routes[0].target else { panic!("{:?}", config.routes[0].target) };
    assert_eq!(split, &[(ClusterId(1), Weight(1)), (ClusterId(0), Weight(3))]);
}

#[test]
fn paths_and_hosts_are_taken_apart() {
    let matcher = |text: &str| route(&format!("match = {{ {text} }}")).matcher;
    assert_eq!(matcher("path = \"/a\"").path, PathMatch::Exact("/a".to_owned()));
    assert_eq!(matcher("path = \"/a/*\"").path, PathMatch::Prefix("/a".to_owned()));
    assert_eq!(matcher("path = \"/*\"").path, PathMatch::Prefix(String::new()));
    assert_eq!(matcher("path = \"~^/a$\"").path, PathMatch::Regex("^/a$".to_owned()));
    assert_eq!(matcher("host = \"API.example.com\"").host, HostMatch::Exact("api.example.com".to_owned()));
    assert_eq!(matcher("host = \"*.Example.com\"").host, HostMatch::Wildcard("example.com".to_owned()));
    assert_eq!(matcher("host = \"Shop.*\"").host, HostMatch::Beginning("shop".to_owned()));
    assert_eq!(matcher("host = '~a+'").host, HostMatch::Regex("a+".to_owned()));
    let many = matcher("host = [\"a\", \"b\"], path = [\"/a/{x}/*\", \"/b\"]");
    assert_eq!((many.hosts().count(), many.other_paths), (2, vec![PathMatch::Exact("/b".to_owned())]));
    assert_eq!(many.path, PathMatch::Template { path: "/a/{x}".to_owned(), is_prefix: true });
    assert_eq!(matcher("host = \"[::1]\"").host, HostMatch::Exact("[::1]".to_owned()));
}

#[test]
fn a_password_in_the_wrong_place_is_not_repeated() {
    for wrong in [
        "basic = \"hunter2\"",
        "basic = { password = \"hunter2\" }",
        "basic = { pass = \"hunter2\" }",
        "basic = [\"hunter2\"]",
        "keys = \"hunter2\"",
        "keys = [\"hunter2\"]",
        "keys = [{ sha256 = \"hunter2\" }]",
        "keys = { sha256 = \"hunter2\" }",
    ] {
        let text = format!("{MINIMAL}\n[consumer.f]\n{wrong}\n");
        let told = parse_for(&text, "f", CORES).unwrap_err().to_string();
        assert!(told.contains("consumer.f") && !told.contains("hunter2"), "{wrong}: {told}");
    }
}

#[test]
fn bursts_default_to_a_second_of_the_rate() {
    let burst = |rate: &str| route(&format!("limit = [{{ rate = \"{rate}\" }}]")).limits[0].measure.most();
    assert_eq!([burst("100/s"), burst("6000/min"), burst("10/h"), burst("1/d")], [100, 100, 1, 1]);
}

#[test]
fn a_switched_off_outlier_is_none_and_hashes_have_keys() {
    assert!(cluster("outlier = { enabled = false }").outlier.is_none());
    assert_eq!(cluster("balance = \"maglev\"").balance, Balance::Maglev(HashKey::ClientIp));
    let cookie = cluster("balance = \"ring_hash\"\nhash = \"cookie:Session\"").balance;
    assert_eq!(cookie, Balance::RingHash(HashKey::Cookie("Session".to_owned())));
}

#[test]
fn a_probe_connects_or_asks() {
    let probe = |keys: &str| cluster(&format!("health_check = {{ {keys} }}")).health_check.unwrap().probe;
    assert_eq!(probe("tcp = true"), Probe::Tcp);
    assert_eq!(probe("path = \"/\""), Probe::Http(HttpProbe::get("/", (200, 399))));
    let asked = probe(
        "path = \"/h?x\", method = \"OPTIONS\", host = \"a:80\", headers = { X-A = \"1\" }, expect = \"204\", body = \"~^ok\"",
    );
    let expected = HttpProbe {
        method: Method::OPTIONS,
        host: Some("a:80".to_owned()),
        headers: vec![(HeaderName::from_static("x-a"), HeaderValue::from_static("1"))],
        body: Some(BodyMatch::try_new("~^ok").unwrap()),
        ..HttpProbe::get("/h?x", (204, 204))
    };
    assert_eq!(asked, Probe::Http(expected));
}

#[test]
fn zero_is_no_limit_for_a_connection() {
    let listener =
        |lines: &str| config(&MINIMAL.replace("[[route]]", &format!("{lines}\n[[route]]"))).listeners.remove(0);
    let listener =
        listener("max_connections_per_client = 7\nmax_requests_per_connection = 0\nmin_body_rate = \"1KiB/s\"");
    assert_eq!((listener.client_connections_max, listener.connection_requests_max), (Some(7), None));
    assert_eq!(listener.body_rate_min, 1 << 10);
}

#[test]
fn proxy_headers_need_somebody_to_take_them_from() {
    let with = |listen: &str, lines: &str| {
        let text = MINIMAL.replace("0.0.0.0:8080", listen).replace("[[route]]", &format!("{lines}\n[[route]]"));
        parse_for(&text, "f", CORES).map_err(|errors| errors.problems()[0].path.clone())
    };
    let on = "proxy_protocol = true";
    assert_eq!(with("0.0.0.0:8080", on).unwrap_err(), "listener[0].proxy_protocol");
    assert!(with("unix:/run/edge.sock", on).unwrap().listeners[0].proxy_protocol);
    let trusting = with("0.0.0.0:8080", &format!("{on}\ntrusted_proxies = [\"10.0.0.0/8\"]"));
    assert!(trusting.unwrap().listeners[0].proxy_protocol);
}

#[test]
fn keys_of_later_features_are_unknown() {
    for key in ["queue = { max = 1 }", "hedge = { max = 1 }", "tls = true"] {
        let name = key.split(' ').next().unwrap();
        let refusals = refusals(key);
        assert!(
            refusals.len() == 1 && refusals[0].starts_with(&format!("route[0].{name}: unknown key")),
            "{refusals:?}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_said_so() {
    let errors = load(Path::new("/nonexistent/ringgate.toml")).0.unwrap_err().to_string();
    assert!(errors.starts_with("/nonexistent/ringgate.toml:\n    cannot be read: No such file"), "{errors}");
    assert!(errors.contains("-c FILE"), "{errors}");
}

#[test]
fn more_methods_than_a_router_takes_are_refused() {
    let method = |n: usize| format!("\"X-{n}\"");
    let list = |count: usize| (0..count).map(method).collect::<Vec<_>>().join(", ");
    let methods = crate::limits::METHODS_MAX;
    assert_eq!(route(&format!("match = {{ method = [{}] }}", list(methods))).matcher.methods.len(), methods);
    let refusals = refusals(&format!("match = {{ method = [{}] }}", list(methods + 1)));
    assert_eq!(refusals, [format!("route[0].match.method: all routes together name more than {methods} methods")]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, rng_seed: proptest::test_runner::RngSeed::Fixed(0x7269_6e67), ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\n]{0,200}") {
        let _ = parse_for(&text, "f", CORES);
    }

    /// One place of a good file is overwritten: the reader never panics, and what it refuses has a place and a reason.
    #[test]
    fn a_damaged_file_is_refused_with_a_place_or_loads(at in 0..DOCUMENTED.len(), damage in "[ -~]{0,6}") {
        let mut text = String::from_utf8_lossy(&DOCUMENTED.as_bytes()[..at]).into_owned();
        text.push_str(&damage);
        text.push_str(&String::from_utf8_lossy(&DOCUMENTED.as_bytes()[at..]));
        if let Err(errors) = parse_for(&text, "f", CORES) {
            prop_assert!(!errors.problems().is_empty());
            prop_assert!(errors.problems().iter().all(|problem| problem.line > 0 && !problem.message.is_empty()));
        }
    }

    #[test]
    fn durations_and_sizes_keep_their_value(millis in 1..86_400_000_u64, bytes in 0..(1_u64 << 40)) {
        let route = route(&format!("timeout = \"{millis}ms\"\nmax_body = \"{bytes}B\""));
        prop_assert_eq!(route.timeout, Timeout::Fixed(Duration::from_millis(millis)));
        prop_assert_eq!(route.body_bytes_max, Some(bytes));
    }
}
