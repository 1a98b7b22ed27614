//! The commands, and what they share.

pub mod bench;
pub mod capacity;
pub mod curve;
pub mod drill;
pub mod files;
pub mod find;
pub mod options;
pub mod peers;
pub mod progress;
pub mod rig;
pub mod run;
pub mod selftest;
pub mod session;
pub mod size;

use clap::{Parser, Subcommand};
use session::Refusal;
use std::process::ExitCode;

/// Plans capacity: offers requests when they are due, looks for the rate that still meets a bound, injects faults meanwhile, and says INVALID
/// rather than print a number that it cannot stand behind.
///
/// Exit codes: 0 all is well, 1 a threshold was missed, 2 it cannot be done as asked, 3 INVALID or ended early, 4 the gateway under test has died.
#[derive(Debug, Parser)]
#[command(name = "ringgate-load", version)]
pub struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One rate, for some time.
    Run(run::RunOptions),
    /// The highest rate at which a percentile is still met.
    Capacity(find::CapacityOptions),
    /// Latency against rate.
    Curve(curve::CurveOptions),
    /// Faults in phases under load.
    Drill(drill::DrillOptions),
    /// How many hosts a peak needs, so that some of them may fail.
    Size(size::SizeOptions),
    /// Gateways side by side at the same rate.
    Peers(peers::PeersOptions),
    /// Results as one page.
    Report(files::ReportOptions),
    /// Two results beside each other.
    Compare(files::CompareOptions),
    /// Results of several generator hosts, as one.
    Merge(files::MergeOptions),
    /// Servers of which is known what has to come out, and whether it does.
    Selftest(selftest::SelftestOptions),
    /// A service with a known service time, and faults on command.
    Upstream(crate::upstream::Upstream),
    #[command(hide = true)]
    Guard(crate::processes::Guard),
    #[command(hide = true)]
    Gateway(crate::gateways::BuiltIn),
}

/// Does what the line says.
///
/// # Errors
/// It cannot be done as asked.
pub fn obey(line: &Line) -> Result<ExitCode, Refusal> {
    let told = |error: std::io::Error| Refusal(error.to_string());
    match &line.command {
        Command::Run(options) => run::run(options),
        Command::Capacity(options) => find::capacity(options),
        Command::Curve(options) => curve::curve(options),
        Command::Drill(options) => drill::drill(options),
        Command::Size(options) => size::size(options),
        Command::Peers(options) => peers::peers(options),
        Command::Selftest(options) => selftest::selftest(options),
        Command::Report(options) => files::report(options),
        Command::Compare(options) => files::compare(options),
        Command::Merge(options) => files::merge(options),
        Command::Upstream(options) => crate::upstream::command(options).map(|()| ExitCode::SUCCESS).map_err(told),
        Command::Guard(options) => crate::processes::guard(options).map_err(told),
        Command::Gateway(options) => crate::gateways::built_in(options).map(|()| ExitCode::SUCCESS).map_err(told),
    }
}
