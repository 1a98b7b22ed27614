//! Health checks of one endpoint: how they ended, and why the last one failed.
//!
//! The verdict and the reason of the last failure lie in one word, so that nobody reads an endpoint as unhealthy for a reason that is
//! not there yet. The control thread alone writes.

use super::ProbeView;
use crate::observe::labels::{FailureReason, HandshakeFailure, ProbeState};
use crate::units::Instant;
use http::StatusCode;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Why a health check failed: the word, and the status where that is why. As text `status 503`, `timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    reason: FailureReason,
    status: Option<StatusCode>,
}

impl Failure {
    /// The endpoint answered with this status, which is not one of those that pass.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        Self { reason: FailureReason::Status, status: Some(status) }
    }

    /// The word for it.
    #[must_use]
    pub fn reason(self) -> FailureReason {
        self.reason
    }

    /// In 24 bits.
    fn pack(self) -> u64 {
        (self.reason.index() as u64 + 1) << 16 | u64::from(self.status.map_or(0, |status| status.as_u16()))
    }

    /// `None` for 0, which [`Failure::pack`] does not give.
    fn unpack(word: u64) -> Option<Self> {
        let reason = *FailureReason::ALL.get(usize::try_from(word >> 16).ok()?.checked_sub(1)?)?;
        // cut back to what `pack` put there
        Some(Self { reason, status: StatusCode::from_u16(word as u16).ok() })
    }
}

impl From<FailureReason> for Failure {
    fn from(reason: FailureReason) -> Self {
        Self { reason, status: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.token())?;
        self.status.map_or(Ok(()), |status| write!(f, " {}", status.as_u16()))
    }
}

/// Where the checks of one endpoint are counted.
#[derive(Debug, Default)]
pub(crate) struct ProbeCell {
    /// A [`ProbeState`]'s index, and above its eight bits a packed [`Failure`], the last one.
    verdict: AtomicU64,
    /// Instant in nanoseconds of the end of the last check that counted; 0: none yet.
    checked: AtomicU64,
    /// The last checks in a row that contradict the verdict.
    against: AtomicU64,
    passed: AtomicU64,
    failed: [AtomicU64; FailureReason::ALL.len()],
    exhausted: AtomicU64,
    /// Verdicts that took the endpoint out.
    downs: AtomicU64,
    /// The last handshake with it that came to nothing, a worker's or a check's: when, in nanoseconds, and below that in eight bits a
    /// [`HandshakeFailure`]'s index and one. 0: none has. Whoever makes handshakes writes it, which is rare when it happens.
    handshake: AtomicU64,
}

impl ProbeCell {
    /// One check that counted, and the verdict after it.
    pub(super) fn record(&self, result: Result<(), Failure>, state: ProbeState, now: Instant) {
        let failure = match result {
            Ok(()) => {
                self.passed.fetch_add(1, Relaxed);
                self.verdict.load(Relaxed) >> 8
            }
            Err(failure) => {
                self.failed[failure.reason.index()].fetch_add(1, Relaxed);
                failure.pack()
            }
        };
        let contradicts = state == if result.is_ok() { ProbeState::Unhealthy } else { ProbeState::Healthy };
        self.against.store(if contradicts { self.against.load(Relaxed) + 1 } else { 0 }, Relaxed);
        let before = self.verdict.swap(failure << 8 | state.index() as u64, Relaxed) & 0xFF;
        if state == ProbeState::Unhealthy && before != state.index() as u64 {
            self.downs.fetch_add(1, Relaxed);
        }
        self.checked.store(now.as_nanos().max(1), Release);
    }

    /// Verdicts that took the endpoint out, so far.
    pub(super) fn downs(&self) -> u64 {
        self.downs.load(Relaxed)
    }

    pub(super) fn record_handshake(&self, reason: HandshakeFailure, now: Instant) {
        self.handshake.store(now.as_nanos() << 8 | (reason.index() as u64 + 1), Relaxed);
    }

    /// Why the last handshake that came to nothing did, and when.
    pub(super) fn handshake(&self) -> Option<(HandshakeFailure, Instant)> {
        let word = self.handshake.load(Relaxed);
        let reason = HandshakeFailure::ALL.get(usize::from(word as u8).checked_sub(1)?)?;
        Some((*reason, Instant::from_nanos(word >> 8)))
    }

    pub(super) fn record_exhausted(&self) {
        self.exhausted.fetch_add(1, Relaxed);
    }

    pub(super) fn view(&self) -> ProbeView {
        let checked = self.checked.load(Acquire);
        let verdict = self.verdict.load(Relaxed);
        ProbeView {
            state: ProbeState::ALL[usize::from(verdict as u8)],
            last_failure: Failure::unpack(verdict >> 8),
            against: u32::try_from(self.against.load(Relaxed)).unwrap_or(u32::MAX),
            checked: (checked > 0).then(|| Instant::from_nanos(checked)),
            passed: self.passed.load(Relaxed),
            failed: std::array::from_fn(|reason| self.failed[reason].load(Relaxed)),
            exhausted: self.exhausted.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_reason_and_its_status_in_one_word() {
        for reason in FailureReason::ALL {
            assert_eq!(Failure::unpack(Failure::from(*reason).pack()), Some(Failure::from(*reason)));
        }
        for status in [100, 503, 999] {
            let failure = Failure::of_status(StatusCode::from_u16(status).unwrap());
            assert_eq!(Failure::unpack(failure.pack()), Some(failure));
        }
        assert_eq!(Failure::unpack(0), None);
    }

    #[test]
    fn a_handshake_keeps_its_reason_and_its_time_in_one_word() {
        let cell = ProbeCell::default();
        assert_eq!(cell.handshake(), None);
        for reason in HandshakeFailure::ALL {
            let now = Instant::from_nanos(86_400_000_000_000);
            cell.record_handshake(*reason, now);
            assert_eq!(cell.handshake(), Some((*reason, now)));
        }
    }

    #[test]
    fn a_check_that_passes_keeps_why_the_last_one_failed() {
        let cell = ProbeCell::default();
        assert_eq!(cell.view().last_failure, None);
        let failure = Failure::of_status(StatusCode::SERVICE_UNAVAILABLE);
        cell.record(Err(failure), ProbeState::Unhealthy, Instant::from_nanos(5));
        cell.record(Ok(()), ProbeState::Unhealthy, Instant::from_nanos(7));
        cell.record_exhausted();
        let view = cell.view();
        assert_eq!((view.state, view.last_failure), (ProbeState::Unhealthy, Some(failure)));
        assert_eq!((view.passed, view.failed(), view.exhausted), (1, 1, 1));
        assert_eq!(view.failed[FailureReason::Status.index()], 1);
        assert_eq!(view.checked, Some(Instant::from_nanos(7)), "a check that tells nothing is none");
        assert_eq!(failure.to_string(), "status 503");
        assert_eq!(Failure::from(FailureReason::Refused).to_string(), "refused");
    }
}
