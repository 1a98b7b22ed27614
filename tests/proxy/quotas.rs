//! Quotas outlive their process: killed, ended, upgraded; a damaged file is no harm.

use crate::support::{Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use std::path::Path;

/// A gateway with five requests a month for each key, which are kept in that file.
fn file(driver: Driver, upstream: &Upstream, path: &Path) -> String {
    let limit = "limit = [{ quota = \"5/month\", per = \"header:X-Key\" }]";
    let config = behind(&[upstream], limit, "");
    let setup = Setup { workers: 2, config: &config, ..Setup::default() };
    setup.file(driver).replace("drain_timeout", &format!("quota_file = \"{}\"\ndrain_timeout", path.display()))
}

fn start(text: &str) -> Gateway {
    Gateway::start_file(tempfile::tempdir().expect("a directory"), text)
}

/// Requests that pass until one does not.
fn left(gateway: &Gateway, key: &str) -> usize {
    (0..9).take_while(|_| gateway.request("GET", "/", &[("X-Key", key)], b"").status == 200).count()
}

/// What the only client of the file has taken: the low bits of the second word behind the head.
fn taken(path: &Path) -> Option<u64> {
    let bytes = std::fs::read(path).ok()?;
    let word = bytes.get(48..56)?;
    Some(u64::from_le_bytes(word.try_into().ok()?) & ((1 << 31) - 1))
}

on_both_drivers! {
    fn a_quota_outlives_a_process_that_is_killed_and_one_that_ends(driver: Driver) {
        let (upstream, dir) = (Upstream::always("ok"), tempfile::tempdir().expect("a directory"));
        let path = dir.path().join("quotas");
        let text = file(driver, &upstream, &path);
        let mut gateway = start(&text);
        let ask = |gateway: &Gateway| gateway.request("GET", "/", &[("X-Key", "a")], b"").status;
        assert_eq!([ask(&gateway), ask(&gateway)], [200, 200]);
        eventually("it is written", || (taken(&path) == Some(2)).then_some(()));
        gateway.running().signal("KILL");
        gateway.running().wait();
        let mut gateway = start(&text);
        assert_eq!(ask(&gateway), 200);
        // at the end it is written at once
        gateway.running().signal("TERM");
        assert!(gateway.running().wait().success());
        assert_eq!(taken(&path), Some(3));
        let mut gateway = start(&text);
        assert_eq!(ask(&gateway), 200);
        // what the next process is told is later than what is written
        gateway.upgrade();
        assert_eq!((left(&gateway, "a"), left(&gateway, "b")), (1, 5));
    }

    fn a_reload_may_keep_quotas_elsewhere(driver: Driver) {
        let (upstream, dir) = (Upstream::always("ok"), tempfile::tempdir().expect("a directory"));
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let ask = |gateway: &Gateway| gateway.request("GET", "/", &[("X-Key", "a")], b"").status;
        let mut gateway = start(&file(driver, &upstream, &first));
        assert_eq!([ask(&gateway), ask(&gateway)], [200, 200]);
        eventually("it is written", || (taken(&first) == Some(2)).then_some(()));
        gateway.reload_well(&file(driver, &upstream, &second));
        eventually("what was taken is written there, without a request", || (taken(&second) == Some(2)).then_some(()));
        assert_eq!(ask(&gateway), 200);
        eventually("and what is taken", || (taken(&second) == Some(3)).then_some(()));
        assert_eq!(taken(&first), Some(2), "the other one stays as it was");
        // back again: what it says is older than what is known
        gateway.reload_well(&file(driver, &upstream, &first));
        eventually("the first one has all of it", || (taken(&first) == Some(3)).then_some(()));
        gateway.running().signal("KILL");
        gateway.running().wait();
        let gateway = start(&file(driver, &upstream, &first));
        assert_eq!(left(&gateway, "a"), 2);
    }

    fn a_damaged_file_is_left_out_with_a_warning(driver: Driver) {
        let (upstream, dir) = (Upstream::always("ok"), tempfile::tempdir().expect("a directory"));
        let path = dir.path().join("quotas");
        std::fs::write(&path, b"ringgate quota 1 and what is left of it after a disk has failed").expect("a file");
        let mut gateway = start(&file(driver, &upstream, &path));
        assert_eq!(left(&gateway, "a"), 5);
        let said = gateway.running().stderr();
        assert!(said.iter().any(|line| line.contains("quotas begin anew") && line.contains("is damaged")), "{said:?}");
        eventually("a whole one takes its place", || (taken(&path) == Some(5)).then_some(()));
    }
}
