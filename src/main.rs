//! The command line: what an operator types, and nothing else. See `ringgate --help`.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(<cli::CommandLine as clap::Parser>::parse())
}
