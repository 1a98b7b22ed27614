//! What the system lets the process have: descriptors, and memory that stays where it is.
//!
//! Distributions start services with a soft limit of 1,024 descriptors for the sake of programs that use `select(2)`, and with a soft limit
//! on locked memory, which some kernels count a ring against; the hard limit is what is meant.

/// Raises the soft limit on descriptors to the hard one, and returns what is allowed now.
#[must_use]
pub fn raise_descriptors() -> u64 {
    raise(libc::RLIMIT_NOFILE)
}

/// Raises the soft limit on locked memory to the hard one, and returns the bytes that are allowed now.
#[must_use]
pub fn raise_locked() -> u64 {
    raise(libc::RLIMIT_MEMLOCK)
}

/// How many descriptors are allowed now.
#[must_use]
pub fn descriptors_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

fn raise(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live, and both calls only read or write it.
    unsafe {
        if libc::getrlimit(resource, &raw mut limit) != 0 {
            return 0;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(resource, &raw const raised) == 0 {
            limit = raised;
        }
    }
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_once_and_stays() {
        for raise in [raise_descriptors, raise_locked] {
            let granted = raise();
            assert!(granted > 0);
            assert_eq!(raise(), granted);
        }
    }
}
