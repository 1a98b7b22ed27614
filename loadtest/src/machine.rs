//! The machine that a load runs on: what it is, and what it did meanwhile.

use crate::clock;
use crate::result::Environment;
use procfs::{Current as _, CurrentSI as _};
use rustix::process::{Resource, Rlimit};

/// Time of all cores, in ticks, at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticks {
    all: u64,
    steal: u64,
}

impl Ticks {
    /// Now; nothing where /proc cannot be read.
    #[must_use]
    pub fn now() -> Self {
        let Ok(stat) = procfs::KernelStats::current() else { return Self::default() };
        let total = &stat.total;
        let some = [total.iowait, total.irq, total.softirq, total.steal];
        let all = total.user + total.nice + total.system + total.idle + some.iter().flatten().sum::<u64>();
        Self { all, steal: total.steal.unwrap_or(0) }
    }

    /// Share of the time since then that other guests of the host took.
    #[must_use]
    pub fn steal_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        if all == 0 { 0.0 } else { self.steal.saturating_sub(before.steal) as f64 / all as f64 }
    }
}

/// Cores that this process may run on.
#[must_use]
pub fn cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// As many descriptors as this process may have: a connection takes one. Where that fails, as many as there are have to do.
pub fn take_descriptors() {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}

/// What is known of this machine.
#[must_use]
pub fn environment() -> Environment {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let cpu = procfs::CpuInfo::current().ok().and_then(|info| info.model_name(0).map(str::to_owned));
    Environment {
        host: text(uname.nodename()),
        kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
        cpu: cpu.unwrap_or_else(|| text(uname.machine())),
        cores: cores(),
        memory_bytes: procfs::Meminfo::current().map_or(0, |memory| memory.mem_total),
        clock_offset: clock::wall() - clock::now().0 as f64 / 1e9,
        ..Environment::default()
    }
}
