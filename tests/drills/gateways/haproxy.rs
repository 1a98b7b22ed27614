//! HAProxy, with `option redispatch`, `retries 3` and the timeouts of Debian's configuration (it has none by itself).
//!
//! `haproxy` has no health checks; `haproxy-check` has `option httpchk` with `check inter 1s`. Where a drill asks for it: `retry-on`
//! with 500 besides what it is by default, and a `backup` server, which without checks is never used.

use anyhow::Context;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;

use super::{Kind, Place, Setup, Variant};

pub(super) fn configuration(variant: &Variant, setup: &Setup, place: &Place<'_>) -> String {
    let Place { listen, admin, folder: _ } = place;
    let checks = variant.kind == Kind::HaproxyCheck;
    let mut backend = String::new();
    if checks {
        backend.push_str("  option httpchk GET /healthz\n");
    }
    if setup.retries_500 {
        backend.push_str("  retry-on conn-failure 500\n");
    }
    for (number, address) in setup.endpoints.iter().enumerate() {
        let backup = if setup.last_is_backup && number + 1 == setup.endpoints.len() { " backup" } else { "" };
        let check = if checks { " check inter 1s" } else { "" };
        let _ = writeln!(backend, "  server s{number} {address}{check}{backup}");
    }
    format!(
        "global\n  nbthread {}\n  maxconn 9000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 50s\n  \
         timeout server 50s\n  option redispatch\n  retries 3\nfrontend edge\n  bind {listen}\n  default_backend app\n\
         backend app\n{backend}frontend stats\n  bind {admin}\n  stats enable\n  stats uri /stats\n",
        variant.workers,
    )
}

/// Connection errors, retries and redispatches of each server: each follows one attempt that failed. `Err` if this is no such page.
pub(super) fn refused_attempts(page: &str, endpoints: &[SocketAddr]) -> anyhow::Result<HashMap<SocketAddr, u64>> {
    // it is sent in chunks, also to HTTP/1.0: their sizes stand between the lines
    let mut lines = page.lines().skip_while(|line| !line.starts_with("# "));
    let titles: Vec<_> = lines.next().context("no titles")?.trim_start_matches("# ").split(',').collect();
    let column = |name: &str| titles.iter().position(|title| *title == name).with_context(|| format!("no {name}"));
    let server = column("svname")?;
    let columns = ["econ", "wretr", "wredis"].map(column).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let attempts = |line: &str| {
        let cells: Vec<_> = line.split(',').collect();
        let number: usize = cells.get(server)?.strip_prefix('s')?.parse().ok()?;
        let count = columns.iter().filter_map(|column| cells.get(*column)?.parse::<u64>().ok()).sum();
        Some((*endpoints.get(number)?, count))
    };
    Ok(lines.filter_map(attempts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_their_titles() {
        let page =
            "1f\r\n# pxname,svname,econ,eresp,wretr,wredis,\nedge,FRONTEND,,,,,\napp,s0,2,9,3,1,\napp,s1,0,0,0,0,\n";
        let endpoints: Vec<SocketAddr> = ["127.0.0.1:9001", "127.0.0.1:9002"].map(|a| a.parse().expect("it is")).into();
        let counted = refused_attempts(page, &endpoints).expect("a page of figures");
        assert_eq!(counted, HashMap::from([(endpoints[0], 6), (endpoints[1], 0)]));
        assert!(refused_attempts("sorry", &endpoints).is_err());
    }
}
