//! The command line: which drills, on which gateways.

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::clock;
use crate::gateways::{Kind, Variant};
use crate::scripts::{self, Drill};

/// Where servers are installed that are not on everybody's PATH.
const SYSTEM_FOLDERS: &[&str] = &["/usr/sbin", "/usr/local/sbin"];

/// Drills ringgate beside nginx and HAProxy.
#[derive(Parser)]
#[command(name = "drills")]
pub(crate) struct Arguments {
    /// Gateways, in the order of the table's columns; those that are not installed are skipped.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ringgate,nginx,haproxy,haproxy-check")]
    pub(crate) gateway: Vec<Kind>,
    /// The binary that is drilled; the one beside this program unless given.
    #[arg(long, value_name = "PATH")]
    ringgate: Option<PathBuf>,
    /// Workers of ringgate, one column each; the others run with the first number of them.
    #[arg(long, value_delimiter = ',', default_value = "2")]
    workers: Vec<usize>,
    /// Drivers of ringgate, one column each.
    #[arg(long, value_delimiter = ',', default_value = "auto")]
    driver: Vec<String>,
    /// Drills by the beginning of their names (h for h1-500, h1-5000 and h2); all of them unless given.
    #[arg(long, value_delimiter = ',')]
    drill: Vec<String>,
    /// Of durations and numbers of requests.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// For what is left to chance: how long something stays away. From the clock unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// TOML that is added to ringgate's configurations, for what another setting would bring.
    #[arg(long, value_name = "FILE")]
    extra: Option<PathBuf>,
    /// Print the table for the README as well.
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Print how the gateways are configured, and do nothing else.
    #[arg(long)]
    pub(crate) configurations: bool,
    #[command(subcommand)]
    pub(crate) hidden: Option<Hidden>,
}

/// What this program starts itself as.
#[derive(Subcommand)]
pub(crate) enum Hidden {
    /// A service behind the gateways.
    #[command(hide = true)]
    Service {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        journal: PathBuf,
        #[arg(long)]
        think_ms: u64,
    },
}

impl Arguments {
    /// The drills that were asked for.
    pub(crate) fn drills(&self) -> anyhow::Result<Vec<Drill>> {
        anyhow::ensure!(self.scale > 0.0 && self.scale <= 10.0, "--scale {}: more than 0, at most 10", self.scale);
        // h1-500 is not h1-5000
        let is_whole = |word: &String| scripts::ALL.iter().any(|drill| drill.name == *word);
        let is_meant = |drill: &Drill, word: &String| match is_whole(word) {
            true => drill.name == *word,
            false => !word.is_empty() && drill.name.starts_with(word.as_str()),
        };
        for word in &self.drill {
            anyhow::ensure!(scripts::ALL.iter().any(|drill| is_meant(drill, word)), "--drill {word}: no such drill");
        }
        let chosen = |drill: &&Drill| self.drill.is_empty() || self.drill.iter().any(|word| is_meant(drill, word));
        Ok(scripts::ALL.iter().filter(chosen).copied().collect())
    }

    /// The columns of the table. Says which programs they are, and which are missing.
    pub(crate) fn variants(&self) -> anyhow::Result<Vec<Variant>> {
        let extra = self.extra.as_ref().map(fs::read_to_string).transpose().context("--extra")?.unwrap_or_default();
        let first = *self.workers.first().context("--workers: at least one number")?;
        let mut variants = Vec::new();
        for kind in &self.gateway {
            let Some((program, version)) = self.program(*kind)? else {
                println!("{} is not installed: skipped", kind.name());
                continue;
            };
            println!("{}: {version}", kind.name());
            let (workers, drivers) = match kind {
                Kind::Ringgate => (self.workers.as_slice(), self.driver.as_slice()),
                _ => (&[first][..], &self.driver[..1]),
            };
            for (workers, driver) in workers.iter().flat_map(|workers| drivers.iter().map(move |d| (*workers, d))) {
                let label = label(*kind, workers, driver, self.workers.len() * self.driver.len() > 1);
                let (program, driver, extra) = (program.clone(), driver.clone(), extra.clone());
                variants.push(Variant { kind: *kind, program, workers, driver, extra, label });
            }
        }
        anyhow::ensure!(!variants.is_empty(), "there is no gateway to drill");
        Ok(variants)
    }

    /// The same for all of a run.
    pub(crate) fn seed(&self) -> u64 {
        static SEED: OnceLock<u64> = OnceLock::new();
        let from_clock = || u64::from(clock::now().subsec_nanos());
        *SEED.get_or_init(|| self.seed.unwrap_or_else(from_clock))
    }

    /// Where a gateway is, and what it says about its version; nothing if it is not installed.
    fn program(&self, kind: Kind) -> anyhow::Result<Option<(PathBuf, String)>> {
        if kind == Kind::Ringgate {
            let program = self.ringgate.clone().map_or_else(beside_this_program, Ok)?;
            let version = version(&program, kind);
            let version = version.with_context(|| format!("{}: build it first", program.display()))?;
            return Ok(Some((program, version)));
        }
        let folders = std::iter::once("").chain(SYSTEM_FOLDERS.iter().copied());
        let places = folders.map(|folder| PathBuf::from(folder).join(kind.program()));
        Ok(places.into_iter().find_map(|program| version(&program, kind).map(|version| (program, version))))
    }
}

fn label(kind: Kind, workers: usize, driver: &str, is_one_of_many: bool) -> String {
    match kind {
        Kind::Ringgate if is_one_of_many => format!("ringgate, {workers} {driver}"),
        _ => kind.name().to_owned(),
    }
}

/// `target/release/ringgate`, where this is `target/release/examples/drills`.
fn beside_this_program() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().and_then(|examples| examples.parent()).context("this program is in no folder")?;
    Ok(folder.join(Kind::Ringgate.program()))
}

/// The first line that it says about its version.
fn version(program: &PathBuf, kind: Kind) -> Option<String> {
    let output = Command::new(program).arg(kind.version_argument()).output().ok()?;
    // nginx says it on standard error
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}
