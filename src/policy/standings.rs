//! Where each endpoint of a cluster stands, as all workers know it together.
//!
//! Workers learn together: what one finds out about an endpoint holds for all of them with their next pick. Each endpoint has one word
//! that says where it stands, and every change of it is one compare-and-swap, so that of several workers which see the same thing
//! exactly one makes the change (and counts and logs it). A version grows with each change; [`Standings::version`] is the only thing
//! that a pick reads here, and it stays in every core's cache for as long as nothing happens. What follows from a change (sets, ramps,
//! balancers) each worker makes for itself when it sees a new version ([`crate::policy::cluster`]).
//!
//! *Freshly dead.* An endpoint that was put aside and then failed hard once more, because nobody else was left to ask, is not asked
//! again for [`DEAD`] by anybody. After that one request at a time may ask, until a connection stands: a full outage costs some ten
//! attempts a second and endpoint whatever the load, and its end is seen within [`DEAD`]. An endpoint of which nobody has heard for a
//! while ([`DEAD_KNOWN`]) may be asked by everyone at once.
//!
//! There is no lock: a worker that stops at any point leaves nothing for others to wait for.

mod words;

pub use words::Words;

use crate::limits::{DEAD, DEAD_KNOWN, FAILURE_TIME_MAX};
use crate::policy::outlier::{Evidence, Track};
use crate::units::{EndpointId, Instant};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Where an endpoint stands. Times are kept to eight nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes requests.
    Serving,
    /// It fails softly, and the cap forbids to eject it: it takes requests when nobody else is left.
    Shunned {
        /// Until then, or until it has answered well for a while.
        until: Instant,
    },
    /// It asked to be left alone (Retry-After).
    Paused {
        /// Until then.
        until: Instant,
    },
    /// It takes none, unless all others have failed.
    Ejected {
        /// On which evidence.
        evidence: Evidence,
        /// From then on the next suitable request probes it.
        due: Instant,
    },
    /// One request probes it.
    Probing {
        /// On which evidence it was ejected.
        evidence: Evidence,
        /// When the probe's slot frees itself.
        lease: Instant,
    },
}

impl Standing {
    /// Whether it was put aside on evidence that the cap counts.
    #[must_use]
    pub fn is_soft(self) -> bool {
        matches!(
            self,
            Self::Paused { .. }
                | Self::Ejected { evidence: Evidence::Soft, .. }
                | Self::Probing { evidence: Evidence::Soft, .. }
        )
    }

    /// Whether it was put aside on evidence that leaves nothing to believe.
    #[must_use]
    pub fn is_hard(self) -> bool {
        matches!(self, Self::Ejected { evidence: Evidence::Hard, .. } | Self::Probing { evidence: Evidence::Hard, .. })
    }

    /// Why it was ejected, if it was.
    #[must_use]
    pub fn ejected_on(self) -> Option<Evidence> {
        match self {
            Self::Ejected { evidence, .. } | Self::Probing { evidence, .. } => Some(evidence),
            Self::Serving | Self::Shunned { .. } | Self::Paused { .. } => None,
        }
    }

    /// Whether the next suitable request may probe it, since when.
    #[must_use]
    pub fn ready_since(self, now: Instant) -> Option<Instant> {
        match self {
            Self::Ejected { due: since, .. } | Self::Probing { lease: since, .. } if since <= now => Some(since),
            _ => None,
        }
    }

    /// When time alone changes something about it next.
    #[must_use]
    pub fn changes_at(self, now: Instant) -> Instant {
        match self {
            Self::Serving => Instant::NEVER,
            Self::Shunned { until: at } | Self::Paused { until: at } => at,
            Self::Ejected { due: at, .. } | Self::Probing { lease: at, .. } if at > now => at,
            Self::Ejected { .. } | Self::Probing { .. } => Instant::NEVER,
        }
    }

    fn word(self) -> u64 {
        let (kind, at) = match self {
            Self::Serving => (0, Instant::default()),
            Self::Shunned { until } => (1, until),
            Self::Paused { until } => (2, until),
            Self::Ejected { evidence: Evidence::Soft, due } => (3, due),
            Self::Ejected { evidence: Evidence::Hard, due } => (4, due),
            Self::Probing { evidence: Evidence::Soft, lease } => (5, lease),
            Self::Probing { evidence: Evidence::Hard, lease } => (6, lease),
        };
        coarse(at).as_nanos() | kind
    }

    fn of(word: u64) -> Self {
        let at = Instant::from_nanos(word & !KIND);
        match word & KIND {
            1 => Self::Shunned { until: at },
            2 => Self::Paused { until: at },
            3 => Self::Ejected { evidence: Evidence::Soft, due: at },
            4 => Self::Ejected { evidence: Evidence::Hard, due: at },
            5 => Self::Probing { evidence: Evidence::Soft, lease: at },
            6 => Self::Probing { evidence: Evidence::Hard, lease: at },
            _ => Self::Serving,
        }
    }
}

/// The bits of a word that say what it is; the others say until when.
const KIND: u64 = 0b111;

/// `at` as a [`Standing`] keeps it.
#[must_use]
pub fn coarse(at: Instant) -> Instant {
    Instant::from_nanos(at.as_nanos() & !KIND)
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
struct Row {
    standing: AtomicU64,
    /// When it last began to serve; what was attempted before tells nothing about it. Zero: it has served from the start.
    readmitted: AtomicU64,
    /// When its ramp began; zero: none.
    ramp_from: AtomicU64,
    /// The end of its ejection, doublings included.
    whole: AtomicU64,
    /// Zero: not dead.
    dead_until: AtomicU64,
    /// When it was last reached though it was put aside.
    reached: AtomicU64,
    /// When an attempt at it last failed, and longer by what that took beyond [`DEAD_KNOWN`].
    failed: AtomicU64,
    /// The last who tried could not connect to it.
    unreached: AtomicBool,
    /// Active checks call it down.
    down: AtomicBool,
    track: Track,
}

/// One cluster's endpoints, shared by all workers.
#[derive(Debug)]
pub struct Standings {
    version: Version,
    /// Endpoints that are put aside softly, those included whose worker is about to.
    soft: AtomicU32,
    /// When a retry was last made though nobody was left that serves well.
    retried: AtomicU64,
    rows: Box<[Row]>,
}

/// On a line of its own: every pick reads it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Version(AtomicU64);

impl Standings {
    /// All of them serving, nothing seen.
    #[must_use]
    pub fn new(endpoints: usize) -> Self {
        Self {
            version: Version::default(),
            soft: AtomicU32::new(0),
            retried: AtomicU64::new(0),
            rows: (0..endpoints).map(|_| Row::default()).collect(),
        }
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        // Acquire: who sees the version sees what was changed before it grew
        self.version.0.load(Ordering::Acquire)
    }

    /// Where an endpoint stands.
    #[must_use]
    pub fn get(&self, id: EndpointId) -> Standing {
        Standing::of(self.row(id).standing.load(Ordering::Acquire))
    }

    /// The failures of an endpoint.
    #[must_use]
    pub fn track(&self, id: EndpointId) -> &Track {
        &self.row(id).track
    }

    /// When it last began to serve, and when its ramp began, if it has one.
    #[must_use]
    pub fn returned(&self, id: EndpointId) -> (Instant, Option<Instant>) {
        let row = self.row(id);
        let at = |word: &AtomicU64| Instant::from_nanos(word.load(Ordering::Relaxed));
        (at(&row.readmitted), Some(at(&row.ramp_from)).filter(|from| *from > Instant::default()))
    }

    /// The end of its ejection, doublings included.
    #[must_use]
    pub fn whole(&self, id: EndpointId) -> Instant {
        Instant::from_nanos(self.row(id).whole.load(Ordering::Relaxed))
    }

    /// Makes a change that does not put the endpoint aside softly, if it still stands where it did. True for the one who made it.
    pub fn change(&self, id: EndpointId, from: Standing, to: Standing) -> bool {
        debug_assert!(from.is_soft() || !to.is_soft(), "counted first");
        let swapped = self.swap(id, from, to);
        if swapped && from.is_soft() && !to.is_soft() {
            self.soft.fetch_sub(1, Ordering::Relaxed);
        }
        if swapped {
            self.grow();
        }
        swapped
    }

    /// Endpoints that are put aside softly, as [`Standings::put_aside`] wants to hear it.
    #[must_use]
    pub fn soft(&self) -> u32 {
        self.soft.load(Ordering::Relaxed)
    }

    /// Puts an endpoint aside softly, if it still stands where it did and nobody else was put aside since there were `soft`.
    pub fn put_aside(&self, id: EndpointId, from: Standing, to: Standing, soft: u32) -> bool {
        debug_assert!(!from.is_soft() && to.is_soft());
        if self.soft.compare_exchange(soft, soft + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        let swapped = self.swap(id, from, to);
        if swapped {
            self.grow();
        } else {
            self.soft.fetch_sub(1, Ordering::Relaxed);
        }
        swapped
    }

    /// Sets when its ejection is over, doublings included; before the change that ejects it.
    pub fn set_whole(&self, id: EndpointId, whole: Instant) {
        self.row(id).whole.store(whole.as_nanos(), Ordering::Relaxed);
    }

    /// Lets it serve again, with a clean slate; with `ramps` its load grows from now on. True for the one who made the change.
    pub fn readmit(&self, id: EndpointId, from: Standing, now: Instant, ramps: bool) -> bool {
        if !self.swap(id, from, Standing::Serving) {
            return false;
        }
        let row = self.row(id);
        if from.is_soft() {
            self.soft.fetch_sub(1, Ordering::Relaxed);
        }
        row.readmitted.store(now.as_nanos(), Ordering::Relaxed);
        row.ramp_from.store(if ramps { now.as_nanos() } else { 0 }, Ordering::Relaxed);
        row.dead_until.store(0, Ordering::Relaxed);
        row.track.clear();
        self.grow();
        true
    }

    /// A health check has passed: an ejection becomes due for its probe.
    pub fn on_check_passed(&self, id: EndpointId, now: Instant) {
        self.revive(id, now);
        if let from @ Standing::Ejected { evidence, due } = self.get(id)
            && due > now
        {
            self.change(id, from, Standing::Ejected { evidence, due: now });
        }
    }

    /// An attempt that began at `began` has just failed hard though the endpoint was put aside. One that has waited for long tells of the
    /// time when it began, and one from before it was reached tells nothing.
    pub fn set_dead(&self, id: EndpointId, began: Instant, now: Instant) {
        let Row { dead_until, reached, .. } = self.row(id);
        if began.as_nanos() >= reached.load(Ordering::Relaxed) {
            dead_until.store((began + DEAD).max(now).as_nanos(), Ordering::Relaxed);
        }
    }

    /// An attempt at it that began at `began` has failed. Where failing takes long, nobody can have failed for as long again, whatever is under
    /// way there: that is no sign of life.
    pub fn set_failed(&self, id: EndpointId, began: Instant, now: Instant) {
        let beyond = now.since(began).min(FAILURE_TIME_MAX).saturating_sub(DEAD_KNOWN);
        self.row(id).failed.fetch_max((now + beyond).as_nanos(), Ordering::Relaxed);
    }

    /// Whether nobody has failed at it for [`DEAD_KNOWN`], or for as long as the last failure took if that is longer: what put it aside may
    /// be over.
    #[must_use]
    pub fn has_rested(&self, id: EndpointId, now: Instant) -> bool {
        now.since(Instant::from_nanos(self.row(id).failed.load(Ordering::Relaxed))) >= DEAD_KNOWN
    }

    /// A connection to it could not be made.
    pub fn set_unreached(&self, id: EndpointId) {
        self.row(id).unreached.store(true, Ordering::Relaxed);
    }

    /// Whether the last who tried could not connect to it: a request that has failed elsewhere asks others first.
    #[must_use]
    pub fn is_unreached(&self, id: EndpointId) -> bool {
        self.row(id).unreached.load(Ordering::Relaxed)
    }

    /// Active checks have changed their mind about it. Workers hear of it by [`crate::policy::cluster::Cluster::set_health`]; this is for
    /// those that begin later.
    pub fn set_healthy(&self, id: EndpointId, healthy: bool) {
        self.row(id).down.store(!healthy, Ordering::Relaxed);
    }

    /// Whether active checks do not call it down.
    #[must_use]
    pub fn is_healthy(&self, id: EndpointId) -> bool {
        !self.row(id).down.load(Ordering::Relaxed)
    }

    /// A connection to it stands, or a check has passed. Writes only if it could not be reached before.
    pub fn revive(&self, id: EndpointId, now: Instant) {
        let Row { dead_until, unreached, .. } = self.row(id);
        if unreached.load(Ordering::Relaxed) {
            unreached.store(false, Ordering::Relaxed);
        }
        if dead_until.load(Ordering::Relaxed) != 0 {
            self.on_reached(id, now);
        }
    }

    /// It has answered though it was put aside.
    pub fn on_reached(&self, id: EndpointId, now: Instant) {
        let Row { dead_until, reached, .. } = self.row(id);
        reached.store(now.as_nanos(), Ordering::Relaxed);
        dead_until.store(0, Ordering::Relaxed);
    }

    /// Whether it is freshly dead: nobody is to ask.
    #[must_use]
    pub fn is_dead(&self, id: EndpointId, now: Instant) -> bool {
        now.as_nanos() < self.row(id).dead_until.load(Ordering::Relaxed)
    }

    /// Whether this request may ask an endpoint that is put aside. While it is known to be dead one may at a time.
    #[must_use]
    pub fn claim(&self, id: EndpointId, now: Instant) -> bool {
        let dead_until = &self.row(id).dead_until;
        let until = dead_until.load(Ordering::Relaxed);
        if now.as_nanos() < until {
            return false;
        }
        if until == 0 || now.since(Instant::from_nanos(until)) >= DEAD_KNOWN {
            return true;
        }
        let next = (now + DEAD).as_nanos();
        dead_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether a retry may be made though nobody is left that serves well: one in [`DEAD`] may.
    #[must_use]
    pub fn is_retry_due(&self, now: Instant) -> bool {
        let before = self.retried.load(Ordering::Relaxed);
        before == 0 || now.since(Instant::from_nanos(before)) >= DEAD
    }

    /// Makes this retry the one that may be made.
    #[must_use]
    pub fn claim_retry(&self, now: Instant) -> bool {
        let before = self.retried.load(Ordering::Relaxed);
        self.is_retry_due(now)
            && self.retried.compare_exchange(before, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes over what `old` knows of one of its endpoints. Nobody else uses these standings yet.
    pub fn inherit(&self, id: EndpointId, old: &Self, old_id: EndpointId) {
        let (row, from) = (self.row(id), old.row(old_id));
        // a probe in flight is the old cluster's
        let standing = match old.get(old_id) {
            Standing::Probing { evidence, .. } => Standing::Ejected { evidence, due: Instant::default() },
            standing => standing,
        };
        row.standing.store(standing.word(), Ordering::Relaxed);
        self.soft.fetch_add(u32::from(standing.is_soft()), Ordering::Relaxed);
        for (to, from) in [
            (&row.readmitted, &from.readmitted),
            (&row.ramp_from, &from.ramp_from),
            (&row.whole, &from.whole),
            (&row.dead_until, &from.dead_until),
            (&row.failed, &from.failed),
        ] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for (to, from) in [(&row.unreached, &from.unreached), (&row.down, &from.down)] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        row.track.inherit(&from.track);
        self.grow();
    }

    fn swap(&self, id: EndpointId, from: Standing, to: Standing) -> bool {
        self.row(id).standing.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn grow(&self) {
        self.version.0.fetch_add(1, Ordering::Release);
    }

    fn row(&self, id: EndpointId) -> &Row {
        &self.rows[id.index()]
    }
}

#[cfg(test)]
mod tests;
