//! `--version`: which ringgate this is, and what of the kernel it can use.
//!
//! Drivers are tried and not guessed from the kernel's version: containers and sysctls forbid io_uring on kernels that have it.

use ringgate::net::driver::{self, Step};
use std::fs;

/// All of it, with a final newline.
pub(crate) fn text() -> String {
    let revision = revision();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let cores = core_affinity::get_core_ids().map_or(0, |cores| cores.len());
    let steps = driver::available();
    let disabled = read("/proc/sys/kernel/io_uring_disabled");
    format!(
        "ringgate {} (revision {revision})\nkernel   {release}, may run on {}\ndrivers  {}\n",
        env!("CARGO_PKG_VERSION"),
        super::count(cores, "core"),
        drivers(&steps, disabled.as_deref()),
    )
}

/// The commit that this was built from, as far as the build knew it.
pub(super) fn revision() -> &'static str {
    option_env!("RINGGATE_REVISION").unwrap_or("unknown")
}

/// The steps of the ladder that hold, best first; where io_uring is not among them, why, as far as the kernel says.
fn drivers(steps: &[Step], disabled: Option<&str>) -> String {
    let mut text = steps.iter().map(|step| step.name()).collect::<Vec<_>>().join(", ");
    if !steps.iter().any(|step| *step != Step::Epoll) {
        text.push_str(match disabled {
            Some("1" | "2") => " (io_uring: forbidden by sysctl kernel.io_uring_disabled)",
            Some(_) => " (io_uring: forbidden to this process, as container runtimes do by default)",
            None => " (io_uring: this kernel has none, or a container forbids it)",
        });
    }
    text
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_names_the_package_the_kernel_and_the_drivers() {
        let text = text();
        assert!(text.starts_with(concat!("ringgate ", env!("CARGO_PKG_VERSION"), " (revision ")), "{text}");
        assert!(text.contains("\nkernel   ") && text.contains("\ndrivers  ") && text.contains("epoll"), "{text}");
    }

    #[test]
    fn a_missing_io_uring_is_explained() {
        assert_eq!(
            drivers(&Step::ALL, Some("0")),
            "io_uring-multishot, io_uring-defer-taskrun, io_uring-coop-taskrun, io_uring, epoll"
        );
        assert!(drivers(&[Step::Epoll], Some("2")).ends_with("kernel.io_uring_disabled)"));
        assert!(drivers(&[Step::Epoll], Some("0")).contains("container"));
    }
}
