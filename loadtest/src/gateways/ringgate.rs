//! ringgate, with what an operator would leave on: metrics, a limit (far above what is offered), retries, ejection, deadlines.
//!
//! Where it is asked for: `[route.retry] on` with "500" besides the defaults, `eject = "3s"` and `slow_start = "3s"`;
//! `[upstream.NAME.health_check]`; backup endpoints have `priority = 1`.

use ringgate::control::source::Source;
use ringgate::control::supervisor;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use super::front::{CHAIN, KEY};
use super::setup::{KEEP_ALIVE_S, POOL, Place, Setup};

pub(super) fn configuration(setup: &Setup, place: Place<'_>) -> String {
    let Place { listen, admin, folder } = place;
    let mut text = format!("[gateway]\nworkers = {}\n", setup.workers);
    // it wants a core for each worker; where there are fewer, which it may use is decided from outside
    if let Some(cores) = setup.cores.get(..setup.workers) {
        let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "cores = [{}]", cores.join(", "));
    }
    let _ = write!(
        text,
        "\n[admin]\nlisten = \"{admin}\"\n\n[[listener]]\nlisten = \"{listen}\"\nidle_timeout = \"{KEEP_ALIVE_S}s\"\n"
    );
    if setup.front.is_tls {
        let folder = folder.display();
        let _ = write!(
            text,
            "[listener.tls]\ncertificates = [{{ chain = \"{folder}/{CHAIN}\", key = \"{folder}/{KEY}\" }}]\n"
        );
    }
    if setup.front.is_http2 {
        text.push_str(if setup.front.is_tls { "[listener.http2]\n" } else { "[listener.http2]\ncleartext = true\n" });
    }
    for route in &setup.routes {
        let prefix = route.prefix.trim_end_matches('/');
        let _ = write!(
            text,
            "\n[[route]]\nmatch = {{ path = \"{prefix}/*\" }}\nupstream = \"{}\"\n\
             limit = [{{ rate = \"1000000/s\", burst = 100000, per = \"route\" }}]\n",
            route.upstream
        );
        if setup.retries_on_500 {
            text.push_str(
                "[route.retry]\non = [\"connect\", \"reset\", \"timeout\", \"500\", \"502\", \"503\", \"504\"]\n",
            );
        }
    }
    for route in setup.upstreams() {
        let name = &route.upstream;
        let slow_start = if setup.retries_on_500 { "slow_start = \"3s\"\n" } else { "" };
        let _ = write!(text, "\n[upstream.{name}]\nmax_idle = {POOL}\n{slow_start}endpoints = [\n");
        for endpoint in &route.endpoints {
            let priority = if endpoint.is_backup { ", priority = 1" } else { "" };
            let _ = writeln!(text, "  {{ address = \"{}\"{priority} }},", endpoint.address);
        }
        text.push_str("]\n");
        if setup.retries_on_500 {
            let _ = write!(text, "[upstream.{name}.outlier]\neject = \"3s\"\n");
        }
        if setup.health_checks {
            let _ = write!(text, "[upstream.{name}.health_check]\npath = \"/healthz\"\ninterval = \"1s\"\n");
        }
    }
    text
}

/// Run the gateway that is built in (used by ringgate-load itself)
#[derive(Clone, Debug, clap::Args)]
pub struct BuiltIn {
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs the gateway of this library until SIGTERM, which drains it.
///
/// # Errors
/// The configuration is wrong (all that is, is said), an address is taken, or it could not go on.
pub fn built_in(arguments: &BuiltIn) -> io::Result<()> {
    let mut source = Source::file(&arguments.config);
    let (config, router) = source.load().map_err(|wrong| io::Error::other(wrong.to_string()))?;
    supervisor::run(config, router, source, None).map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::setup::tests::{local, place, rich};
    use super::*;
    use ringgate::config;
    use ringgate::policy::router::Router;

    #[test]
    fn every_configuration_is_one() {
        for setup in [rich(), Setup { cores: vec![1], ..rich() }, Setup::plain(&[local(9001)])] {
            let text = configuration(&setup, place());
            let config = config::parse(&text, "generated").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
            assert_eq!(config.routes.len(), setup.routes.len());
            assert!(Router::try_new(&config).is_ok());
            assert_eq!(config::warnings(&config, std::time::Duration::ZERO), Vec::<String>::new());
        }
    }
}
