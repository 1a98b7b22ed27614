//! What the system says about this process.

use crate::net::resources;
use crate::observe::exposition::ProcessNumbers;
use procfs::WithCurrentSystemInfo as _;
use procfs::process::Process;

/// What a scrape shows; `None` where /proc cannot be read.
pub(super) fn numbers() -> Option<ProcessNumbers> {
    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks = procfs::ticks_per_second() as f64;
    // seconds since the epoch, when the machine began; the process did so many ticks later
    let booted = procfs::boot_time_secs().ok()? as f64;
    Some(ProcessNumbers {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        open_descriptors: process.fd_count().ok()? as u64,
        descriptors_max: resources::descriptors_max(),
        virtual_bytes: stat.vsize,
        resident_bytes: stat.rss_bytes().get(),
        threads: u64::try_from(stat.num_threads).unwrap_or_default(),
        start_seconds: booted + stat.starttime as f64 / ticks,
    })
}

/// Descriptors that are open now; a plausible few where /proc cannot be read.
pub(super) fn open_descriptors() -> u64 {
    const USUAL: u64 = 32;
    Process::myself().and_then(|process| process.fd_count()).map_or(USUAL, |count| count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_numbers_are_this_process_own() {
        let first = numbers().expect("/proc is there");
        assert!(first.resident_bytes > 1 << 20 && first.virtual_bytes >= first.resident_bytes, "{first:?}");
        assert!(first.threads >= 1 && first.start_seconds > 1.7e9, "{first:?}");
        assert!(first.open_descriptors >= 3 && first.descriptors_max >= first.open_descriptors, "{first:?}");
        let opened: Vec<_> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
        // others open and close some meanwhile
        assert!(open_descriptors() >= 100 && opened.len() == 100);
    }
}
