//! Where the command line meets the gateway itself: what these say in an error is shown to the operator as it is, with exit code 3.

use super::version;
use anyhow::{Context, anyhow};
use ringgate::config::{self, Bind, Config};
use ringgate::control::supervisor::{self, Gateway, RunError};
use ringgate::demo::{self, Options, Running};
use ringgate::policy::router::Router;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Runs the gateway with the configuration of `file` and its compiled routes; returns after a drain.
pub(crate) fn run(config: Config, router: Router, file: &Path) -> Result<(), RunError> {
    log_to_stderr();
    let (version, revision) = (env!("CARGO_PKG_VERSION"), version::revision());
    tracing::info!("ringgate version={version} revision={revision} config={}", file.display());
    for warning in config::warnings(&config) {
        tracing::warn!("{}: {}", file.display(), config::printable(&warning));
    }
    supervisor::run(config, router)
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

/// What the gateway has to say goes to standard error, one line an event; `RUST_LOG` selects.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
}
