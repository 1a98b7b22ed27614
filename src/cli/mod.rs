//! Commands, their options and their exit codes: 0 fine, 1 configuration, 2 usage, 3 cannot start, 4 could not go on.
//!
//! A command says what it has to say on standard output, and what is wrong on standard error. The decisions are made elsewhere:
//! here they are put into words.

mod access;
mod asking;
mod explain;
mod start;
mod traffic;
mod version;
mod words;

use clap::{CommandFactory, Parser, Subcommand};
use ringgate::config::{self, Config};
use ringgate::control::source::Source;
use ringgate::control::supervisor::RunError;
use ringgate::control::upgrade::Inheritance;
use ringgate::net::clock;
use ringgate::policy::router::Router;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The configuration is wrong.
const EXIT_CONFIG: u8 = 1;
/// The command line is wrong; clap uses the same.
const EXIT_USAGE: u8 = 2;
/// The gateway cannot start: a port is taken, a permission is missing.
const EXIT_START: u8 = 3;
/// The gateway has run and could not go on: a defect of ours, after which it has drained.
const EXIT_FAULT: u8 = 4;

/// ringgate: an API gateway that keeps APIs answering while the services behind them fail.
#[derive(Debug, Parser)]
#[command(name = "ringgate", disable_version_flag = true, subcommand_required = false, after_help = EXIT_CODES)]
pub(crate) struct CommandLine {
    /// Print version, revision and the kernel features found
    #[arg(short = 'V', long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 fine, 1 configuration, 2 usage, 3 cannot start, 4 could not go on.\n\
    Signals to `run`: SIGTERM, SIGINT or SIGQUIT drains and exits 0, a second one ends at once with 143, 130 or 131;\n    SIGHUP reads the file anew (as `ringgate reload` does, which also tells what comes of it); SIGUSR1 opens the\n    access log anew; SIGUSR2 starts the next process, which takes over (as `ringgate upgrade` does).";

/// Where packages put the configuration.
const DEFAULT_FILE: &str = "/etc/ringgate/ringgate.toml";

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = DEFAULT_FILE)]
    path: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Show failover with nothing else installed: three small services, one failing now and then, and a gateway before them
    Demo {
        /// End after this many seconds; without it Ctrl-C ends it
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        seconds: Option<u64>,
    },
    /// Validate the configuration: every error at once
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Have the running gateway read its file anew; tell what changed, or every error
    ///
    /// The admin address is taken from this file, and the gateway reads its own.
    Reload {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Have the running gateway start its program anew, which takes over without a refused connection; for a new version
    ///
    /// The next process is started as the running one was, by the same path and with the same arguments. Once it serves, the one before
    /// drains; if it does not, nothing has changed. The admin address is taken from this file.
    Upgrade {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Tell which listener, route, limits, upstream and endpoints a request would meet, and why
    Explain {
        #[command(flatten)]
        file: ConfigFile,
        /// Such as GET
        method: String,
        /// Such as http://api.example.com/orders/7 or /orders/7
        url: String,
        /// A request header, such as 'x-beta: 1'; may be given more than once
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
    },
    /// Print the JSON schema of the configuration
    Schema,
    /// Print shell completions
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, ringgate.1 and one for each command
    Man {
        /// To this folder, which must be there
        folder: PathBuf,
    },
}

/// Does what the command line asks for.
pub(crate) fn run(line: CommandLine) -> ExitCode {
    if line.version {
        return print(&version::text());
    }
    match line.command {
        Some(Command::Run { file }) => match Inheritance::receive() {
            Ok(inherited) => start_up(Source::file(&file.path), inherited),
            Err(error) => fail(EXIT_START, error),
        },
        Some(Command::Demo { seconds }) => match start::demo(seconds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_START, error),
        },
        Some(Command::Check { file }) => with_config(&file.path, |config, _| {
            for warning in config::warnings(&config, clock::wall()) {
                let line = format!("{}: warning: {warning}", file.path.display());
                // standard error may be closed; the exit code still tells
                let _ = writeln!(std::io::stderr().lock(), "{}", config::printable(&line));
            }
            print(&summary(&file.path, &config))
        }),
        Some(Command::Reload { file }) => asking::reload(&file.path),
        Some(Command::Upgrade { file }) => asking::upgrade(&file.path),
        Some(Command::Explain { file, method, url, headers }) => match explain::Ask::try_new(&method, &url, &headers) {
            Ok(ask) => with_config(&file.path, |config, router| {
                print(&config::printable(&explain::text(&config, &router, &ask)))
            }),
            Err(error) => fail(EXIT_USAGE, error),
        },
        Some(Command::Schema) => print(&config::schema()),
        Some(Command::Completions { shell }) => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "ringgate", &mut out);
            print(&String::from_utf8_lossy(&out))
        }
        Some(Command::Man { folder }) => match clap_mangen::generate_to(CommandLine::command(), &folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_START, format!("{}: {error}", folder.display())),
        },
        None => fail(EXIT_USAGE, CommandLine::command().render_help().to_string().trim_end()),
    }
}

/// Runs the gateway, in the place of another process if there is one to take over from, which is told if that comes to nothing.
fn start_up(mut source: Source, inherited: Option<Inheritance>) -> ExitCode {
    match source.load() {
        Ok((config, router)) => match start::run(config, router, source, inherited) {
            Ok(()) => ExitCode::SUCCESS,
            Err(RunError::Start(_)) => ExitCode::from(EXIT_START),
            Err(RunError::Fault(_)) => ExitCode::from(EXIT_FAULT),
        },
        Err(wrong) => {
            let why = wrong.to_string();
            if let Some(inherited) = inherited {
                inherited.decline(wrong.errors);
            }
            fail(EXIT_CONFIG, why)
        }
    }
}

/// Loads the file and goes on with it, or says everything that is wrong with it.
fn with_config(path: &Path, go_on: impl FnOnce(Config, Router) -> ExitCode) -> ExitCode {
    match Source::file(path).load() {
        Ok((config, router)) => go_on(config, router),
        Err(wrong) => fail(EXIT_CONFIG, wrong),
    }
}

/// A summary of a configuration that is fine.
fn summary(path: &Path, config: &Config) -> String {
    let endpoints: usize = config.clusters.iter().map(|cluster| cluster.endpoints.len() + cluster.names.len()).sum();
    format!(
        "{}: fine ({}, {}, {} with {}, {})\n",
        path.display(),
        count(config.listeners.len(), "listener"),
        count(config.routes.len(), "route"),
        count(config.clusters.len(), "upstream"),
        count(endpoints, "endpoint"),
        count(config.gateway.cores.len(), "worker"),
    )
}

/// `1 route`, `2 routes`
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Writes to standard output; a reader that has gone (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(EXIT_START, format!("standard output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(code: u8, error: impl Display) -> ExitCode {
    // standard error may be closed; the exit code still tells
    let _ = writeln!(std::io::stderr().lock(), "{}", config::printable(&error.to_string()));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn commands_take_the_options_that_are_documented() {
        let accepted = [
            "ringgate run",
            "ringgate run -c a.toml",
            "ringgate demo",
            "ringgate check -c a.toml",
            "ringgate reload",
            "ringgate reload -c a.toml",
            "ringgate explain GET http://a/ -H k:v -H x:y",
            "ringgate explain -c a.toml GET /",
            "ringgate schema",
            "ringgate completions bash",
            "ringgate man /tmp",
            "ringgate --version",
        ];
        for line in accepted {
            CommandLine::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in ["ringgate rum", "ringgate explain GET", "ringgate completions tcsh", "ringgate demo --seconds 0"] {
            let error = CommandLine::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(EXIT_USAGE), "{line}");
        }
    }

    #[test]
    fn a_summary_counts_in_words() {
        let text = "[[listener]]\nlisten = \"0.0.0.0:1\"\n[[route]]\nupstream = \"a\"\n\
                    [upstream.a]\nendpoints = [{ address = \"10.0.0.1:1\" }, { address = \"10.0.0.2:1\" }]\n\
                    [gateway]\nworkers = 1\n";
        let config = config::parse(text, "f").unwrap();
        let expected = "f: fine (1 listener, 1 route, 1 upstream with 2 endpoints, 1 worker)\n";
        assert_eq!(summary(Path::new("f"), &config), expected);
    }
}
