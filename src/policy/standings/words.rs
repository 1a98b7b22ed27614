//! Where endpoints stand, as words that outlive the process: an upgrade passes them on.

use super::{EndpointId, Ordering, Row, Standing, Standings};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64};

/// What is known of one endpoint. Instants are nanoseconds of one machine's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Words {
    standing: u64,
    readmitted: u64,
    ramp_from: u64,
    whole: u64,
    dead_until: u64,
    failed: u64,
    consecutive: u32,
    severity: u32,
    unreached: bool,
    /// Active checks call it down.
    pub down: bool,
}

impl Row {
    fn words(&self) -> [&AtomicU64; 6] {
        [&self.standing, &self.readmitted, &self.ramp_from, &self.whole, &self.dead_until, &self.failed]
    }
}

impl Standings {
    /// What is known of an endpoint; `None` where nothing is. Of its failures only how many were in a row, and how many ejections are not
    /// forgiven.
    #[must_use]
    pub fn words(&self, id: EndpointId) -> Option<Words> {
        let row = self.row(id);
        let (consecutive, severity) = row.track.summary();
        let [standing, readmitted, ramp_from, whole, dead_until, failed] =
            row.words().map(|word| word.load(Ordering::Relaxed));
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let (unreached, down) = (is(&row.unreached), is(&row.down));
        let words = Words {
            standing,
            readmitted,
            ramp_from,
            whole,
            dead_until,
            failed,
            consecutive,
            severity,
            unreached,
            down,
        };
        (words != Words::default()).then_some(words)
    }

    /// Standings of which this was known, for [`Standings::inherit`]. What is no standing counts as serving.
    #[must_use]
    pub fn from_words(words: &[Words]) -> Self {
        let standings = Self::new(words.len());
        for (row, words) in standings.rows.iter().zip(words) {
            let standing = Standing::of(words.standing).word();
            let values = [standing, words.readmitted, words.ramp_from, words.whole, words.dead_until, words.failed];
            row.words().into_iter().zip(values).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
            row.unreached.store(words.unreached, Ordering::Relaxed);
            row.down.store(words.down, Ordering::Relaxed);
            row.track.resume(words.consecutive, words.severity);
        }
        standings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::outlier::Evidence;
    use crate::units::Instant;

    #[test]
    fn what_was_known_is_known_again() {
        let before = Standings::new(3);
        let [ejected, down, well] = [0, 1, 2].map(EndpointId::from_index);
        let standing = Standing::Ejected { evidence: Evidence::Hard, due: Instant::from_nanos(80) };
        assert!(before.change(ejected, Standing::Serving, standing));
        before.set_whole(ejected, Instant::from_nanos(4_000));
        before.set_healthy(down, false);
        assert_eq!(before.words(well), None);
        let words = [ejected, down].map(|id| before.words(id).unwrap());
        let text = serde_json::to_string(&words).unwrap();
        let read: Vec<Words> = serde_json::from_str(&text).unwrap();
        let after = Standings::from_words(&read);
        assert_eq!((after.get(ejected), after.whole(ejected)), (standing, Instant::from_nanos(4_000)));
        assert!(after.is_healthy(ejected) && !after.is_healthy(down));
    }
}
