//! The names of endpoints, and the files that say some: asks for each in its time, keeps what is known, and tells when that has changed.
//!
//! When a name is asked for again, and what is kept of it, is [`crate::policy::names`]' decision; what is on the wire is [`lookup`]'s. At most
//! [`LOOKUPS_MAX`] lookups are under way. Changes of names that were asked for together are told together: what follows from them
//! (another generation) is done once for all of them.
//!
//! What this does not do: change anything about a cluster (`control::supervisor::names` does), or wait for a name longer than
//! `resolver.timeout`, at a start either.

mod file;
mod lookup;

use crate::config::{Answer, Config, Lookup, Resolver};
use crate::limits::LOOKUPS_MAX;
use crate::net::clock;
use crate::observe::labels::LookupResult;
use crate::observe::stats::{ControlStats, NameView};
use crate::policy::names::{Learned, Name};
use crate::units::{Instant, Rng};
use lookup::Asker;
use rand::SeedableRng;
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a change waits for others that come with it.
const GATHER: Duration = Duration::from_millis(50);

/// All names of a configuration.
pub(super) struct Names {
    rules: Resolver,
    /// Of this runtime; `None`: not made yet.
    asker: Option<Arc<Asker>>,
    names: HashMap<Lookup, Known>,
    /// When names are due that are not under way; of one that is there twice the later counts.
    due: BinaryHeap<Reverse<(Instant, Lookup)>>,
    under_way: JoinSet<(Lookup, Learned, Option<String>)>,
    rng: Rng,
    /// When the first change was learned that has not been told.
    changed: Option<Instant>,
}

struct Known {
    name: Name,
    is_under_way: bool,
    /// It has been asked for, whatever came of it.
    is_asked: bool,
    /// Lookups so far, by [`LookupResult`].
    lookups: [u64; LookupResult::ALL.len()],
}

impl Names {
    /// Those of `config`, of which nothing is known yet.
    pub(super) fn new(config: &Config) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one seed of this generator")]
        let rng = Rng::from_rng(&mut rand::rng());
        let mut names = Self {
            rules: config.resolver.clone(),
            asker: None,
            names: HashMap::new(),
            due: BinaryHeap::new(),
            under_way: JoinSet::new(),
            rng,
            changed: None,
        };
        names.add(config);
        names
    }

    /// Asks for all of them on a runtime of its own, for at most as long as one lookup may take.
    ///
    /// # Errors
    /// There is no runtime to be had.
    pub(super) fn learn_at_start(&mut self) -> std::io::Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.learn());
        // not waiting for a file that hangs
        runtime.shutdown_background();
        // what is under way ends with the runtime
        self.asker = None;
        self.under_way = JoinSet::new();
        for (lookup, known) in self.names.iter_mut().filter(|(_, known)| known.is_under_way) {
            known.is_under_way = false;
            self.due.push(Reverse((known.name.due(), lookup.clone())));
        }
        Ok(())
    }

    /// Those of `config` too, from now on.
    pub(super) fn add(&mut self, config: &Config) {
        let now = clock::now();
        for lookup in config.lookups() {
            if let Entry::Vacant(entry) = self.names.entry(lookup.clone()) {
                self.due.push(Reverse((now, lookup.clone())));
                entry.insert(Known { name: Name::new(now), is_under_way: false, is_asked: false, lookups: [0; _] });
            }
        }
    }

    /// No others than those of `config`, by its rules.
    pub(super) fn keep_only(&mut self, config: &Config, stats: &ControlStats) {
        let kept: HashSet<&Lookup> = config.lookups().collect();
        self.names.retain(|lookup, _| kept.contains(lookup));
        let kept: HashSet<String> = kept.iter().map(|lookup| lookup.to_string()).collect();
        stats.forget_names(|name| kept.contains(name));
        // the system's configuration may be another by now
        self.asker = None;
        if self.rules != config.resolver {
            // others are asked, and may know something else
            self.rules = config.resolver.clone();
            let now = clock::now();
            for (lookup, known) in self.names.iter_mut().filter(|(_, known)| !known.is_under_way) {
                known.name.hurry(now);
                self.due.push(Reverse((now, lookup.clone())));
            }
        }
    }

    /// What is known of a name.
    pub(super) fn answer(&self, lookup: &Lookup) -> Option<Answer> {
        self.names.get(lookup).map(|known| Arc::clone(known.name.answer()))
    }

    /// Names of which nothing is known.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &Lookup> {
        self.names.iter().filter(|(_, known)| known.name.answer().is_empty()).map(|(lookup, _)| lookup)
    }

    /// Waits until each name has been asked for once, but no longer than one lookup may take.
    pub(super) async fn learn(&mut self) {
        let limit = self.rules.timeout;
        let all = async {
            while self.names.values().any(|known| !known.is_asked) {
                self.step(None).await;
            }
        };
        let _ = timeout(limit, all).await;
        self.changed = None;
    }

    /// Waits until names have other endpoints than before. May be dropped and called again.
    pub(super) async fn changed(&mut self, stats: &ControlStats) {
        loop {
            let left = self.changed.map(|at| (at + GATHER).since(clock::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.changed = None;
                return;
            }
            match left {
                None => self.step(Some(stats)).await,
                Some(left) => drop(timeout(left, self.step(Some(stats))).await),
            }
        }
    }

    /// Begins what is due, and waits until a lookup has ended or another is due.
    async fn step(&mut self, stats: Option<&ControlStats>) {
        let due = self.begin(clock::now());
        tokio::select! {
            () = sleep(due.map_or(Duration::ZERO, |due| due.since(clock::now()))), if due.is_some() => {}
            Some(ended) = self.under_way.join_next(), if !self.under_way.is_empty() => match ended {
                Ok((lookup, learned, why)) => self.on_end(&lookup, (learned, why), stats),
                // a lookup has no business panicking: a defect of ours, which must not end in silence
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            // there are no names
            else => std::future::pending().await,
        }
    }

    /// Begins the lookups that are due and have room; when the next one is due that is not.
    fn begin(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, lookup))) = self.due.peek() {
            let is_meant = |known: &&mut Known| !known.is_under_way && known.name.due() == *at;
            let Some(known) = self.names.get_mut(lookup).filter(is_meant) else {
                self.due.pop();
                continue;
            };
            if *at > now || self.under_way.len() >= LOOKUPS_MAX {
                return Some(*at).filter(|at| *at > now);
            }
            known.is_under_way = true;
            let asker = Arc::clone(self.asker.get_or_insert_with(|| Arc::new(Asker::new(&self.rules))));
            let lookup = lookup.clone();
            let before = Arc::clone(known.name.answer());
            self.due.pop();
            self.under_way.spawn(async move {
                let (learned, why) = asker.ask(&lookup, &before).await;
                (lookup, learned, why)
            });
        }
        None
    }

    fn on_end(&mut self, lookup: &Lookup, (learned, why): (Learned, Option<String>), stats: Option<&ControlStats>) {
        let Some(known) = self.names.get_mut(lookup) else { return };
        let now = clock::now();
        let result = match &learned {
            Learned::Endpoints(..) => LookupResult::Answered,
            Learned::Nothing => LookupResult::Nothing,
            Learned::Unknown => LookupResult::Failed,
        };
        let failed = known.name.failures();
        let of_file = file::rules(&self.rules);
        let rules = if matches!(lookup, Lookup::File(_)) { &of_file } else { &self.rules };
        let changed = known.name.on_lookup(learned, rules, now, &mut self.rng);
        (known.is_under_way, known.is_asked) = (false, true);
        known.lookups[result.index()] += 1;
        self.due.push(Reverse((known.name.due(), lookup.clone())));
        let count = known.name.answer().len();
        match (failed, known.name.failures()) {
            (0, 1) => {
                let why = why.unwrap_or_else(|| "it has no addresses".to_owned());
                tracing::warn!("name={lookup} is not learned: {why}; endpoints that are kept: {count}");
            }
            (1.., 0) => tracing::info!("name={lookup} is learned again endpoints={count}"),
            _ => {}
        }
        if changed {
            self.changed.get_or_insert(now);
        }
        if let Some(stats) = stats {
            stats.set_name(known.view(lookup, now));
        }
    }

    /// Says what is known of all of them.
    pub(super) fn publish(&self, stats: &ControlStats) {
        let now = clock::now();
        self.names.iter().for_each(|(lookup, known)| stats.set_name(known.view(lookup, now)));
    }
}

impl Known {
    fn view(&self, lookup: &Lookup, now: Instant) -> NameView {
        NameView {
            name: lookup.to_string(),
            endpoints: self.name.answer().len(),
            learned: self.name.age(now).map(|age| now - age),
            failures: self.name.failures(),
            lookups: self.lookups,
        }
    }
}
