//! ringgate, with all defaults: a listener, a route, an upstream.
//!
//! Where a drill asks for it: `[route.retry] on` with "500" besides the defaults, `[upstream.app.outlier] eject = "3s"` and
//! `slow_start = "3s"`; the backup endpoint has `priority = 1`.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{Place, Setup, Variant};

pub(super) fn configuration(variant: &Variant, setup: &Setup, place: &Place<'_>) -> String {
    let Variant { workers, driver, extra, .. } = variant;
    let Place { listen, admin, .. } = place;
    let last = setup.endpoints.len().saturating_sub(1);
    let endpoint = |(number, address): (usize, &SocketAddr)| {
        let priority = if setup.last_is_backup && number == last { ", priority = 1" } else { "" };
        format!("  {{ address = \"{address}\"{priority} }},\n")
    };
    let endpoints: String = setup.endpoints.iter().enumerate().map(endpoint).collect();
    let (retry, slow_start, outlier) = if setup.retries_500 {
        (
            "\n[route.retry]\non = [\"connect\", \"reset\", \"timeout\", \"500\", \"502\", \"503\", \"504\"]\n",
            "slow_start = \"3s\"\n",
            "\n[upstream.app.outlier]\neject = \"3s\"\n",
        )
    } else {
        ("", "", "")
    };
    format!(
        "[gateway]\nworkers = {workers}\ndriver = \"{driver}\"\n\n[admin]\nlisten = \"{admin}\"\n\n\
         [[listener]]\nlisten = \"{listen}\"\n\n[[route]]\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\n{retry}\n\
         [upstream.app]\n{slow_start}endpoints = [\n{endpoints}]\n{outlier}{extra}"
    )
}

/// `ringgate_upstream_attempts_total` with `outcome="connect_failed"`.
pub(super) fn refused_attempts(metrics: &str) -> HashMap<SocketAddr, u64> {
    let attempts = |line: &str| {
        let rest = line.strip_prefix("ringgate_upstream_attempts_total{")?;
        let (labels, value) = rest.split_once("} ")?;
        let endpoint = labels.split_once("endpoint=\"")?.1.split('"').next()?.parse().ok()?;
        labels.contains("outcome=\"connect_failed\"").then_some((endpoint, value.trim().parse().ok()?))
    };
    metrics.lines().filter_map(attempts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attempts_that_could_not_connect_are_counted() {
        let metrics = "# TYPE ringgate_upstream_attempts_total counter\n\
            ringgate_upstream_attempts_total{upstream=\"app\",endpoint=\"127.0.0.1:9001\",outcome=\"success\"} 7\n\
            ringgate_upstream_attempts_total{upstream=\"app\",endpoint=\"127.0.0.1:9001\",outcome=\"connect_failed\"} 5\n";
        let endpoint = "127.0.0.1:9001".parse().expect("an address");
        assert_eq!(refused_attempts(metrics), HashMap::from([(endpoint, 5)]));
    }
}
