//! Where the command line meets the gateway itself: what these say in an error is shown to the operator as it is, with exit code 3.

use super::version;
use anyhow::{Context, anyhow};
use ringgate::config::{self, Bind, Config};
use ringgate::control::source::Source;
use ringgate::control::supervisor::{self, Gateway, RunError};
use ringgate::control::upgrade::Inheritance;
use ringgate::demo::{self, Options, Running};
use ringgate::net::clock;
use ringgate::observe::own_log;
use ringgate::policy::router::Router;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic::PanicHookInfo;
use std::time::Duration;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// How long the last lines of the log may take: nobody may be there to read them.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs the gateway with the configuration that `source` has loaded and its compiled routes; returns after a drain. An error has been said.
pub(crate) fn run(
    config: Config,
    router: Router,
    source: Source,
    inherited: Option<Inheritance>,
) -> Result<(), RunError> {
    let ended = log_to_stderr().and_then(|()| run_logged(config, router, source, inherited));
    if let Err(error) = &ended {
        own_log::say(format!("{}\n", config::printable(&error.to_string())).as_bytes());
    }
    own_log::flush(FLUSH);
    ended
}

fn run_logged(config: Config, router: Router, source: Source, inherited: Option<Inheritance>) -> Result<(), RunError> {
    let file = source.path();
    let (version, revision) = (env!("CARGO_PKG_VERSION"), version::revision());
    tracing::info!("ringgate version={version} revision={revision} config={}", file.display());
    for warning in config::warnings(&config, clock::wall()) {
        tracing::warn!("{}: {}", file.display(), config::printable(&warning));
    }
    supervisor::run(config, router, source, inherited)
}

/// Runs the demo; returns when it was ended.
pub(crate) fn demo(seconds: Option<u64>) -> anyhow::Result<()> {
    demo::run(&Options { seconds }, |text| {
        let config = config::parse(text, "the demo's configuration").map_err(|errors| anyhow!("{errors}"))?;
        let gateway = Gateway::start(config)?;
        let (edge, admin) = (address(&gateway, "edge")?, address(&gateway, "admin")?);
        Ok(Running { edge, admin, stop: Box::new(move || gateway.drain_and_stop().map_err(io::Error::other)) })
    })
}

fn address(gateway: &Gateway, name: &str) -> anyhow::Result<SocketAddr> {
    let found = gateway.addresses().iter().find(|(listener, _)| listener == name);
    match found.with_context(|| format!("the demo has no listener {name:?}"))? {
        (_, Bind::Tcp(address)) => Ok(*address),
        (_, bind) => Err(anyhow!("the demo listens on {bind}, not on a port")),
    }
}

/// What the gateway has to say goes to standard error, one line an event; `RUST_LOG` selects. Panics go the same way, and nothing else
/// writes there from now on: it may block, or fail.
fn log_to_stderr() -> Result<(), RunError> {
    own_log::start().map_err(|e| supervisor::StartError::new(format!("cannot start the log's thread: {e}")))?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .log_internal_errors(false)
        .with_writer(|| Lines)
        .init();
    std::panic::set_hook(Box::new(say_panic));
    Ok(())
}

/// Takes events from `tracing`, each in one piece.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        own_log::say(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line for a panic, with what the standard library's own hook says; a backtrace behind it where RUST_BACKTRACE asks for one. Not by
/// `tracing`, in which the panic may have been.
fn say_panic(panic: &PanicHookInfo<'_>) {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut format::Writer::new(&mut time));
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = config::printable(text.unwrap_or("no message")).replace('\n', " ");
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("{backtrace}"),
        _ => String::new(),
    };
    own_log::say(format!("{time} ERROR thread {thread:?} panicked at {place}: {text}\n{backtrace}").as_bytes());
}
