//! ringgate-load beside tools of other hands: the rate that a server sees of each of them when the same is asked for, and percentiles of a
//! server whose times are known.
//!
//! ```console
//! $ cargo build --release -p ringgate-load && cargo run --release -p ringgate-load --example beside
//! ```
//!
//! The server counts requests itself, so nobody's word is taken. `oha` and `h2load` are looked for on PATH (`OHA`, `H2LOAD` name others), nginx
//! stands before the server for HTTP/2; who is not there is left out, which is said. Exit code 1: ringgate-load is further off than 0.5 % and 3 %.

use ringgate_load::gateways::{Front, Gateway, Kind, Setup};
use ringgate_load::machine;
use ringgate_load::processes::{Fleet, use_program};
use ringgate_load::upstream::{Service, Time};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Requests a second, for so many seconds, over so many connections with so many streams of HTTP/2.
const RATE: u32 = 1_000;
const SECONDS: u32 = 8;
const CONNECTIONS: u32 = 20;
const STREAMS: u32 = 10;
/// How far a rate may be from what was asked for, and a percentile from what it is known to be.
const RATE_OFF: f64 = 0.005;
const TIME_OFF: f64 = 0.03;

type Failed = Box<dyn std::error::Error>;

/// What a tool was seen to do.
struct Seen {
    /// Requests a second, as the server counted.
    rate: f64,
    /// Seconds, where the tool tells them.
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Tool {
    Ringgate,
    Oha,
    H2load,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Ringgate => "ringgate-load",
            Self::Oha => "oha",
            Self::H2load => "h2load",
        }
    }

    /// What runs it; ringgate-load leaves its result in `json`.
    fn command(self, tool: &Path, address: SocketAddr, is_http2: bool, json: &Path) -> Command {
        let url = format!("http://{address}/");
        let text = |number: u32| number.to_string();
        let (rate, seconds, connections) = (text(RATE), text(SECONDS), text(CONNECTIONS));
        let program = match self {
            Self::Ringgate => tool.to_owned(),
            Self::Oha => std::env::var_os("OHA").unwrap_or("oha".into()).into(),
            Self::H2load => std::env::var_os("H2LOAD").unwrap_or("h2load".into()).into(),
        };
        let mut command = Command::new(program);
        match self {
            Self::Ringgate => {
                command.args(["run", &url, "--quiet", "--pace", "even", "--warm-up", "0s"]).arg("--json").arg(json);
                command.args(["--rate", &rate, "--for", &format!("{seconds}s"), "--connections", &connections]);
                command.args(["--seed", "1"]);
                if is_http2 {
                    command.args(["--http2", "--streams", &text(STREAMS)]);
                }
            }
            Self::Oha => {
                command.args(["--no-tui", "--output-format", "json", "--latency-correction", "-q", &rate]);
                command.args(["-z", &format!("{seconds}s"), "-c", &connections]);
                if is_http2 {
                    command.args(["--http2", "-p", &text(STREAMS)]);
                }
                command.arg(&url);
            }
            Self::H2load => {
                command.args(["-D", &seconds, "-c", &connections, "--rps", &text(RATE / CONNECTIONS)]);
                command.args(["-m", &text(if is_http2 { STREAMS } else { 1 })]);
                if !is_http2 {
                    command.arg("--h1");
                }
                command.arg(&url);
            }
        }
        command
    }

    /// Runs it against a server of which `counted` tells the requests.
    fn run(
        self,
        tool: &Path,
        address: SocketAddr,
        is_http2: bool,
        mut counted: impl FnMut() -> Result<u64, Failed>,
    ) -> Result<Seen, Failed> {
        let before = counted()?;
        let folder = tempfile::tempdir()?;
        let json = folder.path().join("result.json");
        let output = self.command(tool, address, is_http2, &json).output()?;
        let rate = (counted()? - before) as f64 / f64::from(SECONDS);
        let text = if self == Self::Ringgate { std::fs::read(&json)? } else { output.stdout };
        let told: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        let (p50, p99) = match self {
            Self::Ringgate => (&told["runs"][0]["latency"]["p50"], &told["runs"][0]["latency"]["p99"]),
            Self::Oha => (&told["latencyPercentiles"]["p50"], &told["latencyPercentiles"]["p99"]),
            Self::H2load => (&Value::Null, &Value::Null),
        };
        Ok(Seen { rate, p50: p50.as_f64(), p99: p99.as_f64() })
    }
}

fn fleet(time: Time) -> Result<Fleet, Failed> {
    let service = Service { listen: "127.0.0.1:0".parse()?, time, body_bytes: 1_024, seed: 1 };
    Ok(Fleet::start_all(&[service], &machine::cores()[..1])?)
}

fn line(what: &str, name: &str, seen: &Seen) {
    let shown = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{:.3} ms", time * 1e3));
    println!("{what:24} {name:14} {:9.1}/s   p50 {:>10}   p99 {:>10}", seen.rate, shown(seen.p50), shown(seen.p99));
}

/// All tools at the same rate; false: ringgate-load's is not what was asked for.
fn rates(tool: &Path) -> Result<bool, Failed> {
    let mut fleet = fleet(Time::Fixed(Duration::ZERO))?;
    let mut is_right = true;
    for is_http2 in [false, true] {
        let front = Front { is_http2, is_tls: false };
        let nginx = match Kind::Nginx.find() {
            _ if !is_http2 => None,
            Err(why) => {
                println!("HTTP/2 is left out: {why}");
                continue;
            }
            Ok(program) => Some(Gateway::start(&program, &Setup { front, ..Setup::plain(&fleet.addresses()) })?),
        };
        let address = nginx.as_ref().map_or(fleet.addresses()[0], Gateway::address);
        let what = if is_http2 { "HTTP/2 (nginx)" } else { "HTTP/1.1" };
        for each in [Tool::Ringgate, Tool::Oha, Tool::H2load] {
            match each.run(tool, address, is_http2, || Ok(fleet.counters(0)?.requests)) {
                Ok(seen) => {
                    line(&format!("{what}, {RATE}/s"), each.name(), &seen);
                    is_right &= each != Tool::Ringgate || (seen.rate / f64::from(RATE) - 1.0).abs() <= RATE_OFF;
                }
                Err(why) => println!("{} is left out: {why}", each.name()),
            }
        }
    }
    Ok(is_right)
}

/// A server whose times are known; false: ringgate-load's percentiles are not those.
fn times(tool: &Path) -> Result<bool, Failed> {
    let mut is_right = true;
    // long against what a timer and a wake-up are late by: 3 % of 20 ms are 600 µs
    for (text, p50, p99) in [("20ms", 0.020, 0.020), ("lognormal 10ms 40ms", 0.010, 0.040)] {
        let mut fleet = fleet(text.parse::<Time>()?)?;
        let address = fleet.addresses()[0];
        for each in [Tool::Ringgate, Tool::Oha] {
            match each.run(tool, address, false, || Ok(fleet.counters(0)?.requests)) {
                Ok(seen) => {
                    line(&format!("service of {text}"), each.name(), &seen);
                    let off = |seen: Option<f64>, known: f64| (seen.unwrap_or(f64::INFINITY) / known - 1.0).abs();
                    is_right &=
                        each != Tool::Ringgate || (off(seen.p50, p50) <= TIME_OFF && off(seen.p99, p99) <= TIME_OFF);
                }
                Err(why) => println!("{} is left out: {why}", each.name()),
            }
        }
    }
    Ok(is_right)
}

fn main() -> Result<ExitCode, Failed> {
    // beside this program's folder `examples`
    let here = std::env::current_exe()?;
    let beside = here.parent().and_then(|folder| folder.parent()).map(|folder| folder.join("ringgate-load"));
    let tool = beside.filter(|tool| tool.exists()).ok_or("build ringgate-load first, in the same profile")?;
    use_program(&tool);
    let (rates, times) = (rates(&tool)?, times(&tool)?);
    println!("rate within {} %: {rates}; percentiles within {} %: {times}", RATE_OFF * 100.0, TIME_OFF * 100.0);
    Ok(if rates && times { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
