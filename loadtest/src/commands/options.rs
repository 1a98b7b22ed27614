//! What every command that makes a load can be told.

use crate::load::{Load, Pace, Protocol, STREAMS, STREAMS_MAX, Target};
use crate::machine;
use crate::plan::{BODY_FILE_BYTES_MAX, regular};
use crate::url::Url;
use crate::wire::{TlsSettings, is_of_connections};
use clap::{Args, ValueEnum};
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rates beyond this are beyond any generator.
pub const RATE_MAX: f64 = 10_000_000.0;

/// How requests are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PaceWord {
    /// As independent users: exponential gaps.
    Poisson,
    /// Evenly.
    Even,
}

/// A load, as flags. With a plan it is the plan that says most of it, and a flag that would do nothing is refused.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadOptions {
    /// Requests that are not judged come first, for so long.
    #[arg(long, conflicts_with = "plan", default_value = "1s", value_parser = time)]
    pub warm_up: Duration,
    /// How requests are spaced.
    #[arg(long, conflicts_with = "plan", value_enum, default_value = "poisson")]
    pub pace: PaceWord,
    /// Connections that are opened at the start.
    #[arg(long, conflicts_with = "plan", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Connections there may be when all are busy [default: 16 × connections, at least 1024; with --http2 as many as at the start].
    #[arg(long, conflicts_with = "plan", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: Option<u32>,
    /// One request a connection.
    #[arg(long, conflicts_with = "plan")]
    pub reconnect: bool,
    /// HTTP/2: by ALPN with https://, known beforehand (h2c) with http://.
    #[arg(long, conflicts_with = "plan")]
    pub http2: bool,
    /// Requests under way on a connection of --http2, or as many as the server allows [default: 100].
    #[arg(long, value_name = "N", requires = "http2", conflicts_with_all = ["reconnect", "plan"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(STREAMS_MAX)))]
    pub streams: Option<u32>,
    /// From when a request was due: what is answered later has failed.
    #[arg(long, conflicts_with = "plan", default_value = "5s", value_parser = time)]
    pub timeout: Duration,
    /// Cores of the generator, one thread each, such as 2,3 [default: the last one that this process may run on].
    #[arg(long, conflicts_with = "plan", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Arrivals and the mix are drawn from it [default: another one each time; it is printed].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Method of requests.
    #[arg(long, conflicts_with = "plan", short = 'X', default_value = "GET")]
    pub method: String,
    /// A header field of requests: "Name: value". May be given again.
    #[arg(long, conflicts_with = "plan", short = 'H', value_parser = field)]
    pub header: Vec<(String, String)>,
    /// Body of requests; @FILE reads it from a file.
    #[arg(long, conflicts_with = "plan", short = 'd')]
    pub body: Option<String>,
    /// Statuses of good answers: 200, or 200-299.
    #[arg(long, conflicts_with = "plan", default_value = "200-299", value_parser = statuses)]
    pub status: RangeInclusive<u16>,
    /// What the body of a good answer contains.
    #[arg(long, conflicts_with = "plan")]
    pub body_has: Option<String>,
    /// Whose word is taken for who the server is, in PEM [default: the authorities that this system believes].
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What the server's certificate must name, which is also asked for (SNI) [default: the host of the URL].
    #[arg(long, value_name = "NAME")]
    pub tls_name: Option<String>,
    /// Take any certificate for good.
    #[arg(long, conflicts_with = "ca")]
    pub insecure_skip_verify: bool,
    /// Every TLS handshake is a full one [default: later connections go on with the session of earlier ones].
    #[arg(long)]
    pub no_resumption: bool,
    /// The target is not on this host, and you may put load on it.
    #[arg(long)]
    pub i_own_this_target: bool,
}

/// Where results go.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Results")]
pub struct OutputOptions {
    /// Everything that was seen, for `report`, `compare` and `merge`.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The report: one page that opens without a network.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// What has to hold, as `[thresholds]` of a plan says it: exit code 1 where it does not.
    #[arg(long, value_name = "FILE")]
    pub thresholds: Option<PathBuf>,
    /// Say nothing but the result.
    #[arg(long, short)]
    pub quiet: bool,
}

impl LoadOptions {
    /// The load on `url` with this pace, for `length`.
    ///
    /// # Errors
    /// A value does not fit; says which and what would.
    pub fn load(&self, url: &Url, length: Duration) -> Result<Load, String> {
        url.allow(self.i_own_this_target)?;
        let here = machine::cores();
        let cores = if self.cores.is_empty() { here.last().copied().into_iter().collect() } else { self.cores.clone() };
        if let Some(missing) = cores.iter().find(|core| !here.contains(core)) {
            return Err(format!("--cores {missing}: this process may run on {here:?}"));
        }
        let connections = self.connections as usize;
        let elastic = if self.http2 && !self.reconnect { connections } else { (connections * 16).max(1_024) };
        let connections_max = self.connections_max.map_or(elastic, |max| max as usize);
        if connections_max < connections {
            return Err(format!("--connections-max {connections_max}: less than the {connections} of the start"));
        }
        if length < Duration::from_millis(100) {
            return Err("a load of less than 100ms says nothing".to_owned());
        }
        Ok(Load {
            address: url.address,
            tls: url.tls(&self.tls(), self.http2)?,
            protocol: self.protocol(),
            targets: [self.target(url)?].into(),
            pace: Pace::Closed,
            warm_up: self.warm_up,
            length,
            phases: Vec::new(),
            harms: Vec::new(),
            factors: Vec::new(),
            slice: slice_of(length),
            connections,
            connections_max,
            reconnects: self.reconnect,
            timeout: self.timeout,
            cores,
            is_alone: false,
            seed: self.seed.unwrap_or_else(fresh_seed),
        })
    }

    /// How TLS is spoken.
    #[must_use]
    pub fn tls(&self) -> TlsSettings {
        TlsSettings {
            ca: self.ca.clone(),
            name: self.tls_name.clone(),
            skips_verify: self.insecure_skip_verify,
            never_resumes: self.no_resumption,
        }
    }

    /// What is spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        let streams = self.streams.unwrap_or(if self.reconnect { 1 } else { STREAMS }) as usize;
        if self.http2 { Protocol::Http2 { streams } } else { Protocol::Http1 }
    }

    /// The same for a service behind a gateway: HTTP/1.1, with nothing said of TLS where it `is_plain`.
    #[must_use]
    pub fn of_upstream(&self, is_plain: bool) -> Self {
        let same = Self { http2: false, streams: None, ..self.clone() };
        if !is_plain {
            return same;
        }
        Self { ca: None, tls_name: None, insecure_skip_verify: false, no_resumption: false, ..same }
    }

    fn target(&self, url: &Url) -> Result<Target, String> {
        if self.method.is_empty()
            || !self.method.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&b))
        {
            return Err(format!("--method {:?}: no method", self.method));
        }
        if let Some((name, _)) = self.header.iter().find(|(name, value)| self.http2 && is_of_connections(name, value)) {
            return Err(format!("--header {name:?}: HTTP/2 has no such field (RFC 9113 §8.2.2)"));
        }
        let body = match self.body.as_deref().map(|body| (body, body.strip_prefix('@'))) {
            None => Vec::new(),
            Some((_, Some(file))) => body_of(Path::new(file)).map_err(|error| format!("--body @{file}: {error}"))?,
            Some((text, None)) => text.as_bytes().to_vec(),
        };
        let target = Target::new(&self.method, &url.authority, &url.path, &self.header, &body, self.reconnect);
        let body_has = self.body_has.as_ref().map(|text| text.as_bytes().into());
        Ok(Target { status: self.status.clone(), body_has, ..target })
    }

    /// So many requests a second, spaced as was asked for.
    #[must_use]
    pub fn paced(&self, rate: f64) -> Pace {
        match self.pace {
            PaceWord::Poisson => Pace::Poisson(rate),
            PaceWord::Even => Pace::Even(rate),
        }
    }
}

/// A body from a file, which has an end and is not larger than one of a plan may be.
fn body_of(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = regular(file).and_then(|file| file.take(BODY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > BODY_FILE_BYTES_MAX {
        return Err(format!("larger than {} MiB, which is as much as a body may have", BODY_FILE_BYTES_MAX >> 20));
    }
    Ok(bytes)
}

/// Slices of a run: a hundred, between 100 ms and 1 s each.
#[must_use]
pub fn slice_of(length: Duration) -> Duration {
    (length / 100).clamp(Duration::from_millis(100), Duration::from_secs(1))
}

/// One that was not used before, short enough to be typed.
#[must_use]
pub fn fresh_seed() -> u64 {
    use std::hash::BuildHasher as _;
    std::hash::RandomState::new().hash_one(std::process::id()) % 1_000_000
}

/// `"1.5s"`, `"5ms"`, `"250us"`, `"2m"`.
///
/// # Errors
/// It is none; says what would be.
pub fn time(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let seconds = match &text[end..] {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "" => return Err(format!("a time has a unit: {text}ms or {text}s")),
        unit => return Err(format!("unknown unit {unit:?}: must be us, ms, s, m or h")),
    };
    let number: f64 = text[..end].parse().map_err(|_| "must be a time such as 5ms or 2s".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// `"2000"`, `"2000/s"`, `"200k"`, `"1.5M"` requests a second.
///
/// # Errors
/// It is none, or beyond [`RATE_MAX`].
pub fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let (number, factor) = match number.as_bytes().last() {
        Some(b'k') => (&number[..number.len() - 1], 1e3),
        Some(b'M') => (&number[..number.len() - 1], 1e6),
        _ => (number, 1.0),
    };
    let rate = number.parse::<f64>().map(|number| number * factor).ok().filter(|rate| *rate > 0.0 && *rate <= RATE_MAX);
    rate.ok_or_else(|| "must be requests a second, such as 500, 20k or 1.5M (10M at most)".to_owned())
}

/// `"0.01%"` or `0.0001`.
///
/// # Errors
/// It is no share.
pub fn share(text: &str) -> Result<f64, String> {
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    value
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "must be a share such as 0.01% or 0.0001".to_owned())
}

fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse().ok().filter(|status| (100..=999).contains(status));
    match (status(low), status(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        _ => Err("must be a status such as 200 or a range such as 200-299".to_owned()),
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("must be \"Name: value\"")?;
    let is_name = !name.is_empty() && http::HeaderName::from_bytes(name.as_bytes()).is_ok();
    let is_value = http::HeaderValue::from_str(value.trim()).is_ok();
    if is_name && is_value { Ok((name.to_owned(), value.trim().to_owned())) } else { Err("no header field".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_or_refused_with_what_would_do() {
        assert_eq!(time("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1_500)));
        assert!(time("5").unwrap_err().contains("5ms or 5s") && time("5 ms").is_err() && time("-1s").is_err());
        assert_eq!(rate("200k"), Ok(200_000.0));
        assert_eq!(rate("1.5M"), Ok(1_500_000.0));
        assert_eq!(rate("30/s"), Ok(30.0));
        assert!(["0", "-5", "1e9", "x", "", "k", "nan", "inf"].iter().all(|text| rate(text).is_err()));
        assert_eq!(share("0.01%"), Ok(0.000_1));
        assert!(share("2").is_err() && share("nan").is_err());
        assert_eq!(statuses("200"), Ok(200..=200));
        assert!(statuses("300-200").is_err() && statuses("20").is_err());
        assert_eq!(field("X-A:  b"), Ok(("X-A".to_owned(), "b".to_owned())));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body");
        std::fs::write(&file, "hello").unwrap();
        assert_eq!(body_of(&file), Ok(b"hello".to_vec()));
        std::fs::File::create(&file).and_then(|file| file.set_len(BODY_FILE_BYTES_MAX + 1)).unwrap();
        assert!(body_of(&file).unwrap_err().contains("larger"));
        assert!(body_of(Path::new("/dev/zero")).unwrap_err().contains("regular"), "it has no end");
        assert!(field("X A: b").is_err() && field("X-A: b\r\nC: d").is_err() && field("none").is_err());
    }
}
