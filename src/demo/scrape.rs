//! What the gateway says about itself: its `/metrics`, read over HTTP like any scraper would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Loopback answers in microseconds; a gateway that does not is shown as not answering.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest page read.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// One scrape.
pub(super) struct Scrape {
    /// Series of the page, or why there is none.
    series: Result<Vec<Series>, String>,
}

#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Scrape {
    /// Reads `/metrics` now.
    pub(super) fn of(admin: SocketAddr) -> Self {
        Self { series: page(admin).map(|page| parse(&page)).map_err(|error| error.to_string()) }
    }

    /// Why there is nothing to show.
    pub(super) fn error(&self) -> Option<&str> {
        self.series.as_ref().err().map(String::as_str)
    }

    /// The sum of the metric's series for which every one of `labels` holds.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        total(self.matching(name, labels))
    }

    /// The same without the series that have one of the labels `but`.
    pub(super) fn sum_but(&self, name: &str, labels: &[(&str, &str)], but: &[(&str, &str)]) -> f64 {
        let excepted = |series: &&Series| but.iter().any(|label| series.has(*label));
        total(self.matching(name, labels).filter(|series| !excepted(series)))
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Series> {
        let all = self.series.as_deref().unwrap_or_default();
        all.iter().filter(move |series| series.name == name && labels.iter().all(|label| series.has(*label)))
    }
}

impl Series {
    fn has(&self, (name, value): (&str, &str)) -> bool {
        self.labels.iter().any(|(n, v)| n == name && v == value)
    }
}

/// Added up from 0.0: the sum of no floats is -0.0, and would be shown as that.
fn total<'a>(series: impl Iterator<Item = &'a Series>) -> f64 {
    series.fold(0.0, |total, series| total + series.value)
}

fn page(admin: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0 and close: the end of the connection is the end of the page
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    match text.split_once("\r\n\r\n") {
        Some((head, page)) if head.contains(" 200 ") => Ok(page.to_owned()),
        Some((head, _)) => Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The Prometheus text format, as far as the demo needs it: label values hold neither commas nor escapes here.
fn parse(page: &str) -> Vec<Series> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Series> {
    let (key, value) = line.rsplit_once(' ')?;
    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
    let labels = labels
        .trim_end_matches('}')
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    Some(Series { name: name.to_owned(), labels, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP ringgate_x_total help\n# TYPE ringgate_x_total counter\n\
        ringgate_x_total{upstream=\"fruit\",outcome=\"ok\"} 7\n\
        ringgate_x_total{upstream=\"fruit\",outcome=\"reset\"} 2\n\
        ringgate_x_total{upstream=\"other\",outcome=\"reset\"} 5\nringgate_up 1\n";

    #[test]
    fn series_are_summed_over_the_labels_that_are_asked_for() {
        let scrape = Scrape { series: Ok(parse(PAGE)) };
        assert_eq!(scrape.sum("ringgate_x_total", &[("upstream", "fruit")]), 9.0);
        assert_eq!(scrape.sum_but("ringgate_x_total", &[("upstream", "fruit")], &[("outcome", "ok")]), 2.0);
        assert_eq!(scrape.sum("ringgate_up", &[]), 1.0);
        assert_eq!(scrape.sum("ringgate_y", &[]).to_string(), "0");
    }

    #[test]
    fn a_gateway_that_does_not_answer_is_an_error_to_show() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        drop(silent);
        assert!(Scrape::of(address).error().is_some());
    }
}
