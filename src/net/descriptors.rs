//! How many descriptors the process may have open.
//!
//! Distributions start services with a soft limit of 1,024 for the sake of programs that use `select(2)`; the hard limit is what is meant.

/// Raises the soft limit to the hard one, and returns what is allowed now.
#[must_use]
pub fn raise_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live, and both calls only read or write it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 0;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            limit = raised;
        }
    }
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_once_and_stays() {
        let granted = raise_limit();
        assert!(granted > 0);
        assert_eq!(raise_limit(), granted);
    }
}
