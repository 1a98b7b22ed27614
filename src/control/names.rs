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

use crate::config::{Answer, Config, Followed, Lookup, Resolver};
use crate::limits::{LOOKUPS_MAX, NAMES_KEPT_MAX};
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
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a change waits for others that come with it.
const GATHER: Duration = Duration::from_millis(50);

/// Where a system says who is asked, and what is known without asking (resolv.conf(5), hosts(5)).
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// How often these are looked at.
const SYSTEM_LOOK: Duration = Duration::from_secs(1);

/// Lookups of one name so far, by [`LookupResult`].
type Lookups = [u64; LookupResult::ALL.len()];

/// All names of a configuration.
pub(super) struct Names {
    rules: Resolver,
    /// The system's files as they were when they were last read.
    system: Followed,
    /// When to look at them again.
    system_due: Instant,
    /// Of this runtime; `None`: not made yet.
    asker: Option<Arc<Asker>>,
    /// Rules of a configuration that may come into use, and who asks by these for names that only it has.
    next: Option<(Resolver, Arc<Asker>)>,
    names: HashMap<Lookup, Known>,
    /// When names are due that are not under way; of one that is there twice the later counts.
    due: BinaryHeap<Reverse<(Instant, Lookup)>>,
    under_way: JoinSet<(Lookup, Learned, Option<String>)>,
    rng: Rng,
    /// When the first change was learned that has not been told.
    changed: Option<Instant>,
    /// Lookups of names that no configuration has any more: counters go on where one returns.
    gone: HashMap<Lookup, Lookups>,
}

struct Known {
    name: Name,
    is_under_way: bool,
    /// It has been asked for, whatever came of it.
    is_asked: bool,
    /// Who is asked for it just now is nobody any more who is to be asked.
    is_outdated: bool,
    lookups: Lookups,
}

impl Names {
    /// Those of `config`, of which nothing is known yet.
    pub(super) fn new(config: &Config) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one seed of this generator")]
        let rng = Rng::from_rng(&mut rand::rng());
        let mut system = Followed::default();
        SYSTEM_FILES.iter().for_each(|path| system.add(Path::new(path), None));
        let mut names = Self {
            rules: config.resolver.clone(),
            system: system.now(),
            system_due: clock::now(),
            asker: None,
            next: None,
            names: HashMap::new(),
            due: BinaryHeap::new(),
            under_way: JoinSet::new(),
            rng,
            changed: None,
            gone: HashMap::new(),
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

    /// Those of `config` too, which may come into use: by its rules, if they are others. Within a runtime.
    pub(super) fn add_next(&mut self, config: &Config) {
        let is_other = config.resolver != self.rules;
        self.next = is_other.then(|| (config.resolver.clone(), Arc::new(Asker::new(&config.resolver))));
        self.add(config);
    }

    /// Those of `config` too, from now on.
    pub(super) fn add(&mut self, config: &Config) {
        let now = clock::now();
        for lookup in config.lookups() {
            if let Entry::Vacant(entry) = self.names.entry(lookup.clone()) {
                self.due.push(Reverse((now, lookup.clone())));
                let lookups = self.gone.get(lookup).copied().unwrap_or_default();
                entry.insert(Known {
                    name: Name::new(now),
                    is_under_way: false,
                    is_asked: false,
                    is_outdated: false,
                    lookups,
                });
            }
        }
    }

    /// No others than those of `config`, by its rules.
    pub(super) fn keep_only(&mut self, config: &Config, stats: &ControlStats) {
        self.next = None;
        let kept: HashSet<&Lookup> = config.lookups().collect();
        for (lookup, known) in self.names.extract_if(|lookup, _| !kept.contains(lookup)) {
            if self.gone.len() < NAMES_KEPT_MAX && known.lookups.iter().any(|count| *count > 0) {
                self.gone.insert(lookup, known.lookups);
            }
        }
        self.gone.retain(|lookup, _| !kept.contains(lookup));
        let kept: HashSet<String> = kept.iter().map(|lookup| lookup.to_string()).collect();
        stats.forget_names(|name| kept.contains(name));
        if self.rules != config.resolver {
            self.rules = config.resolver.clone();
            self.ask_others(clock::now());
        }
        // without those that are gone, and those that were due at another time
        let waiting = self.names.iter().filter(|(_, known)| !known.is_under_way);
        self.due = waiting.map(|(lookup, known)| Reverse((known.name.due(), lookup.clone()))).collect();
    }

    /// Others are asked from now on, and may know something else: of all names at once.
    fn ask_others(&mut self, now: Instant) {
        self.asker = None;
        for (lookup, known) in self.names.iter_mut().filter(|(lookup, _)| !matches!(lookup, Lookup::File(_))) {
            known.name.hurry(now);
            match known.is_under_way {
                // whoever was asked before may be the one that does not answer
                true => known.is_outdated = true,
                false => self.due.push(Reverse((now, lookup.clone()))),
            }
        }
    }

    /// Looks at the system's files, now and then: what they say counts from then on.
    pub(super) fn look_at_system(&mut self, now: Instant) {
        if now < self.system_due || self.rules.servers.is_some() || self.names.is_empty() {
            return;
        }
        self.system_due = now + SYSTEM_LOOK;
        let found = self.system.now();
        if found != self.system {
            self.system = found;
            tracing::info!("{} has changed: names are asked for anew", SYSTEM_FILES.join(" or "));
            self.ask_others(now);
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

    /// Waits until each name has been asked for once, but no longer than one lookup may take, and a moment.
    pub(super) async fn learn(&mut self) {
        // a family that nobody answers for takes all of a lookup's time
        let limit = self.next.as_ref().map_or(self.rules.timeout, |(rules, _)| rules.timeout) + GATHER;
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
            let asker = match &self.next {
                Some((_, asker)) if !known.is_asked => Arc::clone(asker),
                _ => Arc::clone(self.asker.get_or_insert_with(|| Arc::new(Asker::new(&self.rules)))),
            };
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
        if std::mem::take(&mut known.is_outdated) {
            known.name.hurry(now);
        }
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

#[cfg(test)]
mod tests;
