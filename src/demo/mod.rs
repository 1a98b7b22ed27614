//! `ringgate demo`: three small services, a gateway before them, clients that keep asking, and services that fail in turn.
//!
//! The point is one number: failures that *clients* see, while services refuse connections, answer 503 or hang. What is shown about
//! endpoints is read from the gateway's own admin listener, as any user would read it; what is shown about clients is counted by the
//! clients. Nothing here reaches into the gateway: it is given as a function that starts one from the text of a configuration.
//!
//! What it does not do: measure. The load is a few hundred requests a second so that the machine stays usable.

// The demo is its own client, services and display: it lives outside both planes and may read the clock and lock.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod load;
mod phases;
mod scrape;
mod screen;
mod service;
mod stop;

use load::Load;
use phases::Script;
use scrape::Scrape;
use screen::Screen;
use service::Service;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stop::Stop;

/// Where the demo's gateway listens when nobody else does.
const EDGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where its admin listener listens when nobody else does.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// What the command line says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// End by itself after this many seconds; `None`: until Ctrl-C.
    pub seconds: Option<u64>,
}

/// A gateway that was started for the demo.
pub struct Running {
    /// Where it takes requests (the listener `edge`).
    pub edge: SocketAddr,
    /// Where its admin listener is.
    pub admin: SocketAddr,
    /// Drains and stops it; returns when it has, with an error if it could not go on to its end.
    pub stop: Box<dyn FnOnce() -> io::Result<()>>,
}

/// Runs the demo to its end: Ctrl-C, SIGTERM, or `options.seconds`. `start` makes a gateway from the text of a configuration file.
///
/// # Errors
/// What `start` returns, or an I/O error when the services cannot be started on loopback or the terminal cannot be written.
pub fn run<E: From<io::Error>>(options: &Options, start: impl Fn(&str) -> Result<Running, E>) -> Result<(), E> {
    let stop = Arc::new(Stop::default());
    stop::on_signal(&stop)?;
    let services = ["apples", "pears", "plums"].map(Service::start);
    let mut services = services.into_iter().collect::<io::Result<Vec<_>>>()?;
    let (edge, admin) = (free_or_any(EDGE), free_or_any(ADMIN));
    // somebody may have taken a port since; any two will do then
    let any = SocketAddr::new(EDGE.ip(), 0);
    let running = start(&config(edge, admin, &services)).or_else(|_| start(&config(any, any, &services)))?;
    let load = Load::start(running.edge, &stop);
    let outcome = show(options, &running, &mut services, &load, &stop);
    stop.stop();
    load.join();
    outcome.and((running.stop)()).map_err(E::from)
}

/// Plays the phases and shows what happens, until `stop`.
fn show(options: &Options, running: &Running, services: &mut [Service], load: &Load, stop: &Stop) -> io::Result<()> {
    let started = Instant::now();
    let mut script = Script::new(services.len());
    let mut screen = Screen::new(running.edge, running.admin);
    screen.introduce(services, EDGE)?;
    let mut next = started;
    loop {
        let elapsed = started.elapsed();
        script.play(elapsed, services)?;
        let scrape = Scrape::of(running.admin);
        screen.show(elapsed, &script, services, &scrape, &load.tally())?;
        if options.seconds.is_some_and(|seconds| elapsed >= Duration::from_secs(seconds)) {
            break;
        }
        // late pictures are not made up for
        next = (next + screen.interval()).max(Instant::now());
        if stop.wait_until(next) {
            break;
        }
    }
    screen.conclude(&load.tally())
}

/// `wanted`, or any free port of the same address when somebody else has it.
fn free_or_any(wanted: SocketAddr) -> SocketAddr {
    match TcpListener::bind(wanted) {
        Ok(_) => wanted,
        Err(_) => SocketAddr::new(wanted.ip(), 0),
    }
}

/// The gateway's configuration file. Times are shorter than the defaults, so that there is something to see.
fn config(edge: SocketAddr, admin: SocketAddr, services: &[Service]) -> String {
    let endpoints: String = services.iter().map(|s| format!("  {{ address = \"{}\" }},\n", s.address())).collect();
    format!(
        r#"[gateway]
drain_timeout = "2s"

[admin]
listen = "{admin}"

[[listener]]
name = "edge"
listen = "{edge}"

[[route]]
name = "fruit"
match = {{ path = "/*" }}
upstream = "fruit"
timeout = "2s"

[route.retry]
attempts = 2
per_try_timeout = "250ms"

[upstream.fruit]
balance = "least_request"
endpoints = [
{endpoints}]
outlier = {{ consecutive = 5, eject = "2s", eject_max = "4s" }}
slow_start = "2s"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_every_service_and_is_toml() {
        let services: Vec<_> = ["a", "b"].into_iter().map(|name| Service::start(name).unwrap()).collect();
        let text = config(EDGE, ADMIN, &services);
        let file: toml::Table = text.parse().unwrap();
        let endpoints = file["upstream"]["fruit"]["endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 2);
        assert_eq!(endpoints[1]["address"].as_str().unwrap(), services[1].address().to_string());
    }

    #[test]
    fn a_taken_port_becomes_any_port() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(free_or_any(address), SocketAddr::new(address.ip(), 0));
    }
}
