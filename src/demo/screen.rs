//! The demo's display: a table redrawn in place on a terminal, one line a second elsewhere.

use super::load::Tally;
use super::phases::Script;
use super::scrape::Scrape;
use super::service::Service;
use std::io::{self, IsTerminal, Stdout, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// The cluster's name in the demo's configuration.
const UPSTREAM: (&str, &str) = ("upstream", "fruit");

/// Attempts that do not speak against their endpoint.
const NO_FAILURES: [(&str, &str); 3] = [("outcome", "success"), ("outcome", "cancelled"), ("outcome", "stale")];

/// Where and how things are shown.
pub(super) struct Screen {
    out: Stdout,
    terminal: bool,
    edge: SocketAddr,
    admin: SocketAddr,
    /// Lines of the table that stands above the cursor.
    drawn: usize,
}

/// One endpoint as the gateway's metrics show it.
struct Row {
    attempts: f64,
    failures: f64,
    ejections: f64,
    state: &'static str,
}

impl Screen {
    /// Standard output, for a gateway at these addresses.
    pub(super) fn new(edge: SocketAddr, admin: SocketAddr) -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self { out, terminal, edge, admin, drawn: 0 }
    }

    /// Between two pictures.
    pub(super) fn interval(&self) -> Duration {
        if self.terminal { Duration::from_millis(500) } else { Duration::from_secs(1) }
    }

    /// What this is and what to try; said once.
    pub(super) fn introduce(&mut self, services: &[Service], wanted: SocketAddr) -> io::Result<()> {
        let (edge, admin) = (self.edge, self.admin);
        let mut text =
            String::from("ringgate demo: three services, one gateway before them, and something always fails.\n");
        if edge != wanted {
            text += &format!("{wanted} is taken by another process; this gateway listens on {edge} instead.\n");
        }
        for service in services {
            text += &format!("  service {:8} http://{}/\n", service.name(), service.address());
        }
        text += &format!(
            "  gateway          http://{edge}/\n\nTry it in another terminal:\n  curl -i http://{edge}/hello\n  \
             curl http://{admin}/metrics\n  curl http://{admin}/upstreams\nCtrl-C ends the demo.\n\n"
        );
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// One picture.
    pub(super) fn show(
        &mut self,
        elapsed: Duration,
        script: &Script,
        services: &[Service],
        scrape: &Scrape,
        tally: &Tally,
    ) -> io::Result<()> {
        let now = script.describe(services);
        let text = if self.terminal {
            let table = table(elapsed, &now, services, scrape, tally);
            let up = if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r\x1b[J", self.drawn) };
            self.drawn = table.matches('\n').count();
            up + &table
        } else {
            line(elapsed, &now, services, scrape, tally)
        };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// The last word.
    pub(super) fn conclude(&mut self, tally: &Tally) -> io::Result<()> {
        writeln!(
            self.out,
            "\nDone: {} requests seen by clients, {} failures seen by clients.",
            tally.requests, tally.failures
        )
    }
}

impl Row {
    fn of(service: &Service, scrape: &Scrape) -> Self {
        let address = service.address().to_string();
        let labels = [UPSTREAM, ("endpoint", address.as_str())];
        let state = match scrape.error() {
            Some(_) => "unknown",
            None if scrape.sum("ringgate_endpoint_available", &labels) > 0.0 => "available",
            None => "ejected",
        };
        Self {
            attempts: scrape.sum("ringgate_upstream_attempts_total", &labels),
            failures: scrape.sum_but("ringgate_upstream_attempts_total", &labels, &NO_FAILURES),
            ejections: scrape.sum("ringgate_endpoint_ejections_total", &labels),
            state,
        }
    }
}

/// The picture on a terminal.
fn table(elapsed: Duration, now: &str, services: &[Service], scrape: &Scrape, tally: &Tally) -> String {
    let mut text = format!("{:>4} s  {now}\n\n", elapsed.as_secs());
    text += "  endpoint                     attempts  failures  ejections  state\n";
    for service in services {
        let row = Row::of(service, scrape);
        let name = format!("{} {}", service.name(), service.address());
        text += &format!("  {name:26} {:>10} {:>9} {:>10}  {}\n", row.attempts, row.failures, row.ejections, row.state);
    }
    let retries = scrape.sum("ringgate_retries_total", &[UPSTREAM]);
    text += &format!("\n  retries by the gateway     {retries:>10}\n");
    text += &format!("  requests seen by clients   {:>10}\n", tally.requests);
    text += &format!("  failures seen by clients   {:>10}", tally.failures);
    text += &tally.last_failure.as_ref().map_or_else(String::new, |failure| format!("   last: {failure}"));
    text += &format!("\n  response time              p50 {}  p99 {}\n", millis(tally.p50), millis(tally.p99));
    if let Some(error) = scrape.error() {
        text += &format!("  the admin listener does not answer: {error}\n");
    }
    text
}

/// The picture elsewhere.
fn line(elapsed: Duration, now: &str, services: &[Service], scrape: &Scrape, tally: &Tally) -> String {
    let states: Vec<_> = services
        .iter()
        .map(|service| {
            let row = Row::of(service, scrape);
            format!("{} {} ({} attempts, {} failures)", service.name(), row.state, row.attempts, row.failures)
        })
        .collect();
    let states = scrape.error().map_or_else(|| states.join(", "), |error| format!("no metrics: {error}"));
    format!(
        "{:>3}s clients: {} requests, {} failures, p50 {}, p99 {} | retries {} | {states} | {now}\n",
        elapsed.as_secs(),
        tally.requests,
        tally.failures,
        millis(tally.p50),
        millis(tally.p99),
        scrape.sum("ringgate_retries_total", &[UPSTREAM]),
    )
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pictures_show_what_clients_saw_and_that_the_gateway_is_silent() {
        let services = vec![Service::start("apples").unwrap()];
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let scrape = Scrape::of(nobody);
        let tally = Tally { requests: 1234, failures: 5, last_failure: Some("status 503".into()), ..Tally::default() };
        for picture in [
            table(Duration::from_secs(3), "all is well", &services, &scrape, &tally),
            line(Duration::from_secs(3), "all is well", &services, &scrape, &tally),
        ] {
            for part in ["1234", "5", "all is well", scrape.error().unwrap()] {
                assert!(picture.contains(part), "{part:?} is missing in {picture}");
            }
        }
    }
}
