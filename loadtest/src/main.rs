//! The command line.

use clap::Parser;
use ringgate_load::commands::{Line, obey};
use std::process::ExitCode;

fn main() -> ExitCode {
    obey(&Line::parse()).unwrap_or_else(|refusal| {
        eprintln!("ringgate-load: {refusal}");
        ExitCode::from(2)
    })
}
