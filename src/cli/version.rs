//! `--version`: which ringgate this is, and what of the kernel it can use.
//!
//! Drivers are tried and not guessed from the kernel's version: containers and sysctls forbid io_uring on kernels that have it.

use ringgate::net::driver::{self, Refused, Step};
use ringgate::net::resources;
use std::fmt::Write as _;
use std::fs;

/// All of it, with a final newline.
pub(crate) fn text() -> String {
    let revision = revision();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let cores = core_affinity::get_core_ids().map_or(0, |cores| cores.len());
    // as `run` does before it tries them
    let _ = resources::raise_locked();
    let tried = driver::try_all();
    let disabled = read("/proc/sys/kernel/io_uring_disabled");
    format!(
        "ringgate {} (revision {revision})\nkernel   {release}, may run on {}\n{}",
        env!("CARGO_PKG_VERSION"),
        super::count(cores, "core"),
        drivers(&tried, disabled.as_deref()),
    )
}

/// The commit that this was built from, as far as the build knew it.
pub(super) fn revision() -> &'static str {
    option_env!("RINGGATE_REVISION").unwrap_or("unknown")
}

/// The steps of the ladder that hold, best first, and a line for each that was refused, with what to do about it.
fn drivers(tried: &[(Step, Result<(), Refused>)], disabled: Option<&str>) -> String {
    let held: Vec<_> = tried.iter().filter(|(_, held)| held.is_ok()).map(|(step, _)| step.name()).collect();
    let mut text = format!("drivers  {}\n", held.join(", "));
    for (step, held) in tried {
        if let Err(refused) = held {
            // writing to a string cannot fail
            let _ = writeln!(text, "refused  {step}: {}: {}", refused.error, refused.advice());
        }
    }
    if let Some(value @ ("1" | "2")) = disabled {
        let _ = writeln!(text, "sysctl   kernel.io_uring_disabled = {value}");
    }
    text
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_version_names_the_package_the_kernel_and_the_drivers() {
        let text = text();
        assert!(text.starts_with(concat!("ringgate ", env!("CARGO_PKG_VERSION"), " (revision ")), "{text}");
        assert!(text.contains("\nkernel   ") && text.contains("\ndrivers  ") && text.contains("epoll"), "{text}");
    }

    #[test]
    fn what_is_refused_is_explained() {
        let all: Vec<_> = Step::ALL.into_iter().map(|step| (step, Ok(()))).collect();
        let names = "io_uring-multishot, io_uring-defer-taskrun, io_uring-coop-taskrun, io_uring-plain, epoll";
        assert_eq!(drivers(&all, Some("0")), format!("drivers  {names}\n"));
        let refused = |step| match step {
            Step::Epoll => Ok(()),
            step => Err(Refused { step, error: io::Error::from_raw_os_error(1) }),
        };
        let tried: Vec<_> = Step::ALL.into_iter().map(|step| (step, refused(step))).collect();
        let text = drivers(&tried, Some("2"));
        assert!(text.starts_with("drivers  epoll\nrefused  io_uring-multishot: Operation not permitted"), "{text}");
        assert_eq!(text.matches("\nrefused  ").count(), 4);
        assert!(text.contains("seccomp") && text.ends_with("kernel.io_uring_disabled = 2\n"), "{text}");
    }
}
