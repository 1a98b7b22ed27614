//! Fault drills: ringgate beside nginx and HAProxy, with real processes that are killed, frozen and made to fail.
//!
//! ```console
//! $ cargo build --release
//! $ cargo run --release --example drills
//! $ cargo run --release --example drills -- --drill a,e --gateway ringgate --workers 1,2,16 --driver auto,epoll
//! ```
//!
//! Each drill has services of its own ([`service`], this program started once more), a gateway ([`gateways`]) and an open-loop load
//! ([`load`]). Services write down every request that they act on ([`journal`]), so that what clients were told can be held against what
//! was done. A script ([`scripts`]) says what happens and what is judged. The other gateways are there for comparison: only ringgate
//! can fail the run (exit code 1).
//!
//! Everything runs on loopback, on ports that the kernel chooses, and ends with this process, however that ends. All of it takes about four
//! minutes a gateway; `--scale 0.2` shortens what can be shortened. Times are only as good as the machine is idle: where the load itself
//! was late the tables say so, and `nice -n -10` helps.

// A drill is a client with a timetable: it reads the clock and sleeps.
#![allow(clippy::disallowed_methods)]

mod arguments;
mod child;
mod client;
mod clock;
mod fleet;
mod gateways;
mod journal;
mod load;
mod mode;
mod port;
mod report;
mod scripts;
mod service;
mod stage;
mod table;
mod traffic;

use clap::Parser;
use std::process::ExitCode;

use arguments::{Arguments, Hidden};
use gateways::{Kind, Variant};
use scripts::Drill;
use stage::Stage;
use table::Page;

/// What gateways and loads may need when every answer is late, two for each of 8,000 clients.
const DESCRIPTORS_MIN: u64 = 18_000;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Hidden::Service { port, journal, think_ms }) = &arguments.hidden {
        service::run(*port, journal, std::time::Duration::from_millis(*think_ms))?;
        return Ok(ExitCode::SUCCESS);
    }
    let descriptors = ringgate::net::resources::raise_descriptors();
    if descriptors < DESCRIPTORS_MIN {
        println!("only {descriptors} descriptors (ulimit -n): fast drills need {DESCRIPTORS_MIN}");
    }
    let drills = arguments.drills()?;
    let variants = arguments.variants()?;
    if arguments.configurations {
        variants.iter().for_each(|variant| println!("# {}\n{}", variant.label, gateways::example(variant)));
        return Ok(ExitCode::SUCCESS);
    }
    println!("seed {}, scale {}\n", arguments.seed(), arguments.scale);
    let pages: Vec<_> = drills.iter().map(|drill| page(drill, &variants, &arguments)).collect();
    if arguments.markdown {
        println!("{}", table::markdown(&pages));
    }
    Ok(conclude(&pages, &variants))
}

/// Runs one drill on every gateway, and prints its table.
fn page(drill: &Drill, variants: &[Variant], arguments: &Arguments) -> Page {
    let row = |variant: &Variant| {
        eprintln!("running ({}) on {}", drill.name, variant.label);
        let stage = Stage { variant, scale: arguments.scale, seed: arguments.seed() };
        (variant.label.clone(), (drill.run)(&stage))
    };
    let page = Page { name: drill.name, title: drill.title, rows: variants.iter().map(row).collect() };
    println!("{}", page.text());
    page
}

/// Counts ringgate's drills; the others only stand beside it.
fn conclude(pages: &[Page], variants: &[Variant]) -> ExitCode {
    let is_ours = |column: usize| variants[column].kind == Kind::Ringgate;
    let ours = pages.iter().flat_map(|page| page.rows.iter().enumerate()).filter(|(column, _)| is_ours(*column));
    let (passed, failed): (Vec<_>, Vec<_>) =
        ours.partition(|(_, (_, report))| report.as_ref().is_ok_and(report::Report::passed));
    println!("{} passed, {} failed", passed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
