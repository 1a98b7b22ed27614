//! What a limit measures: a rate, a quota of the calendar, or how many at once.

use super::check_limits::default_burst;
use super::limit_keys::{AtOnce, Burst, PerWindow};
use super::place::Place;
use super::problem::Sink;
use super::read::Written;
use super::values::PerTime;
use crate::units::{Rate, Window, nanos};
use std::fmt;
use std::time::Duration;

/// What a limit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// r = n / t.
    Rate {
        /// Of tokens.
        rate: Rate,
        /// Tokens that are there at most; at least 1.
        burst: u64,
    },
    /// So many tokens in each hour, day or month of UTC.
    Quota {
        /// At least 1.
        count: u64,
        /// When it begins anew.
        window: Window,
    },
    /// So many requests at once; at least 1.
    Concurrency(u32),
}

impl Measure {
    /// Tokens that a request can take at most.
    #[must_use]
    pub fn most(self) -> u64 {
        match self {
            Self::Rate { burst, .. } => burst,
            Self::Quota { count, .. } => count,
            Self::Concurrency(_) => 1,
        }
    }

    /// Tokens that a gateway may hold of those that it shares with others: no request can take more at once. Of a rate, the only one that is shared.
    #[must_use]
    pub fn lease(self) -> u64 {
        match self {
            Self::Rate { rate, burst } => lease_tokens(rate.interval_nanos(), burst),
            other => other.most(),
        }
    }

    /// Whether both measure the same thing.
    #[must_use]
    pub fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// What a gateway holds of a shared bucket of `burst` tokens, one of which comes each `interval_nanos`: at least one.
#[must_use]
pub fn lease_tokens(interval_nanos: u64, burst: u64) -> u64 {
    /// A lease lasts so long at the full rate, unless the burst allows more.
    const LASTS: Duration = Duration::from_millis(20);
    /// The part of a burst that a lease may be.
    const SHARE: u64 = 64;
    (burst / SHARE).max(nanos(LASTS) / interval_nanos.max(1)).clamp(1, burst.max(1))
}

impl fmt::Display for Measure {
    /// `100/s`, `10000/day`, `5 at once`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate { rate, .. } => rate.fmt(f),
            Self::Quota { count, window } => write!(f, "{count}/{window}"),
            Self::Concurrency(most) => write!(f, "{most} at once"),
        }
    }
}

/// The keys of a table that say what is measured.
pub(super) struct Measures<'m> {
    pub(super) at: &'m Place,
    pub(super) rate: Option<&'m Written<PerTime>>,
    pub(super) burst: Option<&'m Written<Burst>>,
    pub(super) quota: Option<&'m Written<PerWindow>>,
    pub(super) concurrency: Option<&'m Written<AtOnce>>,
}

/// [`Measures`] of a table that has those keys.
macro_rules! measures {
    ($table:expr) => {
        $crate::config::measure::Measures {
            at: &$table.at,
            rate: $table.rate.as_ref(),
            burst: $table.burst.as_ref(),
            quota: $table.quota.as_ref(),
            concurrency: $table.concurrency.as_ref(),
        }
    };
}
pub(super) use measures;

/// Keys of which one is given.
const KEYS: [&str; 3] = ["rate", "quota", "concurrency"];

impl Measures<'_> {
    /// The one that is given; `None` if something was reported.
    pub(super) fn read(&self, sink: &mut Sink<'_>) -> Option<Measure> {
        let spans = [
            self.rate.map(|it| it.span.clone()),
            self.quota.map(|it| it.span.clone()),
            self.concurrency.map(|it| it.span.clone()),
        ];
        let mut given = KEYS.iter().zip(spans).filter_map(|(key, span)| Some((*key, span?)));
        let Some((first, _)) = given.next() else {
            if !KEYS.iter().any(|key| sink.reported(self.at.key(key))) {
                let message = "missing: exactly one of rate, quota, concurrency".to_owned();
                sink.place(&self.at.path, self.at.offset, message, None);
            }
            return None;
        };
        if let Some((second, span)) = given.next() {
            let message = format!("{first} stands there too; must be exactly one of rate, quota, concurrency");
            let help = Some("a route may have several limits: give each a table of its own".to_owned());
            sink.value(self.at.key(second), span, message, help);
            return None;
        }
        if let Some(burst) = self.burst.filter(|_| self.rate.is_none()) {
            let message = format!("is about a rate, and here stands {first}");
            sink.value(self.at.key("burst"), burst.span.clone(), message, None);
            return None;
        }
        let burst = self.burst.map(|burst| burst.value.0);
        let rate = self.rate.map(|it| it.value.0);
        let rate = rate.map(|rate| Measure::Rate { rate, burst: burst.unwrap_or_else(|| default_burst(rate)) });
        let quota = || self.quota.map(|it| Measure::Quota { count: it.value.count, window: it.value.window });
        rate.or_else(quota).or_else(|| self.concurrency.map(|it| Measure::Concurrency(it.value.0 as u32)))
    }
}
