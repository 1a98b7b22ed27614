//! The command line.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
enum Line {
    Upstream(ringgate_load::upstream::Upstream),
    #[command(hide = true)]
    Guard(ringgate_load::processes::Guard),
    #[command(hide = true)]
    Gateway(ringgate_load::gateways::BuiltIn),
}

fn main() -> ExitCode {
    let outcome = match Line::parse() {
        Line::Upstream(arguments) => ringgate_load::upstream::command(&arguments).map(|()| ExitCode::SUCCESS),
        Line::Gateway(arguments) => ringgate_load::gateways::built_in(&arguments).map(|()| ExitCode::SUCCESS),
        Line::Guard(arguments) => ringgate_load::processes::guard(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}
