//! One rate limit: whom it counts for, and where its tokens are.
//!
//! Requests are told apart by a hash of what the limit counts by ([`LimitKey`]); one that combines several hashes each with the one before. A
//! consumer whose group has a tier of its own takes from a bucket of that tier's rate.
//!
//! A quota of the calendar is a bucket that is full at the end of its window ([`Gcra::until`]). Its time is that of the wall, in whole seconds of
//! [`QUOTA_UNIT`] tokens each, so that what is taken means the same in every process; such buckets have a table of their own. Requests at once
//! are counters in a third one, and rates that several hosts share have a fourth ([`super::far`]).

use super::client_slots::{SlotTable, Taken};
use super::far::FarTable;
use super::key_table::{KeyHash, KeyTable, LimiterId};
use super::token_bucket::{Decision, Gcra, Lease, Quota, Reservoir};
use crate::config::limit_names::own_name;
use crate::config::{Limit, LimitKey, Measure};
use crate::limits::SHARED_KEYS_MAX;
use crate::units::{GroupId, Instant, Window};
use aws_lc_rs::digest;
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A second, in the units in which quotas are counted: more than a window has tokens, and twice that.
const QUOTA_UNIT: u64 = 1 << 31;

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock that never goes back.
    pub now: Instant,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub unix: u64,
}

impl Moment {
    /// As quotas count time.
    #[must_use]
    pub fn of_quotas(unix: u64) -> Instant {
        Instant::from_nanos(unix.saturating_mul(QUOTA_UNIT))
    }
}

impl From<Instant> for Moment {
    /// For whom both clocks began at once.
    fn from(now: Instant) -> Self {
        Self { now, unix: now.as_nanos() / 1_000_000_000 }
    }
}

/// Where limits keep what they count by key.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Rates.
    pub rates: Arc<KeyTable>,
    /// Quotas.
    pub quotas: Arc<KeyTable>,
    /// Requests at once.
    pub at_once: Arc<SlotTable>,
    /// Rates of several hosts together.
    pub far: Arc<FarTable>,
}

impl Tables {
    /// Empty ones beside those of rates, with its secret.
    #[must_use]
    pub fn new(rates: Arc<KeyTable>, quota_lines: usize, requests_max: usize) -> Self {
        let quotas = Arc::new(KeyTable::new(quota_lines, rates.secret()));
        let far = Arc::new(FarTable::new(SHARED_KEYS_MAX));
        Self { rates, quotas, at_once: Arc::new(SlotTable::new(requests_max)), far }
    }
}

/// Whom limits count for.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'c> {
    /// The client's address after `trusted_proxies`.
    pub client: IpAddr,
    /// The name of who was recognised.
    pub consumer: Option<&'c str>,
    /// Groups of who was recognised.
    pub groups: &'c [GroupId],
}

impl From<IpAddr> for Caller<'_> {
    /// Nobody was recognised.
    fn from(client: IpAddr) -> Self {
        Self { client, consumer: None, groups: &[] }
    }
}

/// Whose a limit is.
pub(super) enum Owner<'o> {
    /// All who name it.
    Shared(&'o str),
    /// One route, which has so many limits.
    Route {
        /// Its name.
        name: &'o str,
        /// How many.
        limits: usize,
    },
}

impl Owner<'_> {
    pub(super) fn name(&self) -> &str {
        let (Self::Shared(name) | Self::Route { name, .. }) = self;
        name
    }
}

/// A request as a limit by client sees it: its bucket, and how that fills. `None` where all requests have one.
pub type Marks = Option<(KeyHash, Gcra)>;

#[derive(Debug)]
enum Bucket {
    /// One for all.
    All(Arc<Reservoir>),
    /// One each.
    Keyed(Gcra),
    /// One for all or one each, anew with each window.
    Window(u64, Window),
    /// Requests at once, of all or of each.
    AtOnce(u32),
    /// One for all or one each, of several hosts together.
    Far(Gcra),
}

/// What holds for the consumers of a group.
#[derive(Debug)]
struct OwnRate {
    group: GroupId,
    id: LimiterId,
    measure: Measure,
}

/// A limit and where its tokens are.
#[derive(Debug)]
pub(super) struct Limiter {
    /// Says whether a limit of another configuration is the same one.
    id: LimiterId,
    /// Its name in the `RateLimit` fields.
    pub(super) name: String,
    pub(super) limit: Limit,
    bucket: Bucket,
    /// The bucket of the same limit before its rate or burst changed.
    before: Option<Arc<Reservoir>>,
    tiers: Box<[OwnRate]>,
}

impl Limiter {
    /// The limits of one owner. `groups` are all that consumers are in, `old` the limits of the same owner before.
    pub(super) fn all(
        owner: &Owner<'_>,
        limits: &[Limit],
        (groups, workers): (&[Arc<str>], usize),
        old: &[&Self],
    ) -> Vec<Self> {
        let ids = identities(owner, limits);
        (0..limits.len()).map(|row| Self::new(owner, (row, limits, &ids), (groups, workers), old)).collect()
    }

    fn new(
        owner: &Owner<'_>,
        (row, limits, ids): (usize, &[Limit], &[LimiterId]),
        (groups, workers): (&[Arc<str>], usize),
        old: &[&Self],
    ) -> Self {
        let (id, limit) = (ids[row], &limits[row]);
        let name = match owner {
            Owner::Shared(name) => (*name).to_owned(),
            Owner::Route { name, limits } => own_name(name, row, *limits),
        };
        let same = old.iter().find(|limiter| limiter.id == id);
        // what stood in this row, unless it goes on in another
        let changed = old.get(row).filter(|changed| !ids.contains(&changed.id));
        let (bucket, before) = match (limit.measure, &limit.per, same.and_then(|same| same.shared())) {
            (Measure::Quota { count, window }, ..) => (Bucket::Window(count, window), None),
            (Measure::Concurrency(most), ..) => (Bucket::AtOnce(most), None),
            (Measure::Rate { rate, burst }, ..) if limit.is_shared => (Bucket::Far(Gcra::new(rate, burst)), None),
            (_, LimitKey::Route, Some(reservoir)) => (Bucket::All(Arc::clone(reservoir)), None),
            (Measure::Rate { rate, burst }, LimitKey::Route, None) => {
                let reservoir = Arc::new(Reservoir::new(rate, burst, workers));
                (Bucket::All(reservoir), changed.and_then(|changed| changed.shared()).map(Arc::clone))
            }
            (Measure::Rate { rate, burst }, ..) => (Bucket::Keyed(Gcra::new(rate, burst)), None),
        };
        let tier = |tier: &crate::config::Tier| {
            let group = groups.iter().position(|group| **group == *tier.group)?;
            let mut hasher = FxHasher::default();
            (id.0, &tier.group).hash(&mut hasher);
            hash_measure(tier.measure, &mut hasher);
            let (group, id) = (GroupId::from_index(group), LimiterId(hasher.finish()));
            Some(OwnRate { group, id, measure: tier.measure })
        };
        let tiers = limit.tiers.iter().filter_map(tier).collect();
        Self { id, name, limit: limit.clone(), bucket, before, tiers }
    }

    /// Whether it has to be known who sends a request.
    pub(super) fn asks_for_somebody(&self) -> bool {
        let asks = |key: &LimitKey| matches!(key, LimitKey::Consumer | LimitKey::Group | LimitKey::Claim(_));
        let by_key = match &self.limit.per {
            LimitKey::Several(keys) => keys.iter().any(asks),
            key => asks(key),
        };
        by_key || !self.tiers.is_empty()
    }

    fn shared(&self) -> Option<&Arc<Reservoir>> {
        match &self.bucket {
            Bucket::All(reservoir) => Some(reservoir),
            Bucket::Keyed(_) | Bucket::Window(..) | Bucket::AtOnce(_) | Bucket::Far(_) => None,
        }
    }

    /// Whether it counts requests at once, each of which gives back what it has taken.
    pub(super) fn is_at_once(&self) -> bool {
        matches!(self.bucket, Bucket::AtOnce(_))
    }

    /// The tokens of all, if they are.
    pub(super) fn reservoir(&self) -> Option<&Reservoir> {
        self.shared().map(|reservoir| &**reservoir)
    }

    /// What tells its tokens apart from those of others, also in another process.
    pub(super) fn key(&self) -> String {
        match &self.limit.name {
            Some(name) => format!("[limit.{name}]"),
            None => self.name.clone(),
        }
    }

    /// It counts from now on.
    pub(super) fn begin(&self, now: Instant) {
        if let (Bucket::All(reservoir), Some(before)) = (&self.bucket, &self.before) {
            reservoir.begin_with(before, now);
        }
    }

    fn tier(&self, groups: &[GroupId]) -> Option<&OwnRate> {
        self.tiers.iter().find(|tier| groups.contains(&tier.group))
    }

    /// What holds for who is in these groups.
    pub(super) fn measure_for(&self, groups: &[GroupId]) -> Measure {
        self.tier(groups).map_or(self.limit.measure, |tier| tier.measure)
    }

    pub(super) fn marks<'h>(
        &self,
        tables: &Tables,
        caller: Caller<'_>,
        value: &dyn Fn(&LimitKey) -> Option<&'h [u8]>,
        at: Moment,
    ) -> Marks {
        let table = match &self.bucket {
            Bucket::All(_) => return None,
            Bucket::Window(..) => &*tables.quotas,
            Bucket::Keyed(_) | Bucket::AtOnce(_) | Bucket::Far(_) => &*tables.rates,
        };
        let (id, own) = self.tier(caller.groups).map_or((self.id, None), |tier| (tier.id, Some(tier.measure)));
        let gcra = match (own, &self.bucket) {
            (Some(Measure::Rate { rate, burst }), _) => Gcra::new(rate, burst),
            (Some(Measure::Quota { count, window }), _) | (None, &Bucket::Window(count, window)) => {
                Gcra::until(Moment::of_quotas(window.end(at.unix)), count)
            }
            (Some(Measure::Concurrency(most)), _) | (None, &Bucket::AtOnce(most)) => {
                Gcra::until(Instant::default(), most.into())
            }
            (None, Bucket::Keyed(gcra) | Bucket::Far(gcra)) => *gcra,
            (None, Bucket::All(_)) => return None,
        };
        let one = |id: LimiterId, key: &LimitKey| match key {
            LimitKey::ClientIp => table.client(id, caller.client),
            LimitKey::ClientNetwork { v4, v6 } => table.network(id, caller.client, (*v4, *v6)),
            LimitKey::Consumer => table.header(id, caller.consumer.map(str::as_bytes)),
            LimitKey::Route => table.header(id, None),
            other => table.header(id, value(other)),
        };
        let hash = match &self.limit.per {
            LimitKey::Several(keys) => {
                let mut id = id;
                let mut hash = table.header(id, None);
                for key in keys {
                    hash = one(id, key);
                    id = hash.as_limiter();
                }
                hash
            }
            key => one(id, key),
        };
        if let Bucket::Far(_) = self.bucket {
            let tier = self.tier(caller.groups).map(|tier| tier.id);
            tables.far.ensure(hash, gcra, || self.name_of(tier, caller, value));
        }
        Some((hash, gcra))
    }

    /// What a client is called in every process that has this limit. A hash that nobody turns back, because it is told to others.
    fn name_of<'h>(
        &self,
        tier: Option<LimiterId>,
        caller: Caller<'_>,
        value: &dyn Fn(&LimitKey) -> Option<&'h [u8]>,
    ) -> [u64; 2] {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        add(self.key().as_bytes());
        add(&tier.map_or(0, |tier| tier.0).to_le_bytes());
        let keys = match &self.limit.per {
            LimitKey::Several(keys) => keys,
            key => std::slice::from_ref(key),
        };
        for key in keys {
            add(key.to_string().as_bytes());
            match key {
                LimitKey::Route => {}
                LimitKey::ClientIp => add(&masked(caller.client, (32, 64))),
                LimitKey::ClientNetwork { v4, v6 } => add(&masked(caller.client, (*v4, *v6))),
                LimitKey::Consumer => add(caller.consumer.unwrap_or_default().as_bytes()),
                other => {
                    // none is not the same as an empty one
                    let value = value(other);
                    add(&[u8::from(value.is_some())]);
                    add(value.unwrap_or_default());
                }
            }
        }
        let name = context.finish();
        [0, 8].map(|at| u64::from_le_bytes(name.as_ref()[at..at + 8].try_into().unwrap_or_default()))
    }

    /// Takes `cost` tokens, or none.
    pub(super) fn take(&self, lease: &mut Lease, tables: &Tables, (marks, cost): (Marks, u32), at: Moment) -> Decision {
        match (&self.bucket, marks) {
            (Bucket::All(reservoir), _) => lease.take_many(reservoir, cost.into(), at.now),
            (Bucket::Keyed(_), Some((key, gcra))) => tables.rates.take_many(key, gcra, cost.into(), at.now),
            (Bucket::Window(..), Some((key, gcra))) => {
                in_seconds(tables.quotas.take_many(key, gcra, cost.into(), Moment::of_quotas(at.unix)), gcra, at)
            }
            (Bucket::Far(_), Some((key, gcra))) => {
                let taken = tables.far.take(key, gcra, cost.into(), at.now);
                taken.unwrap_or_else(|| tables.rates.take_many(key, FarTable::alone(gcra), cost.into(), at.now))
            }
            // which is taken on its own, see `enter`
            (Bucket::AtOnce(_), _) | (_, None) => Decision::Admit,
        }
    }

    pub(super) fn peek(&self, lease: &Lease, tables: &Tables, (marks, cost): (Marks, u32), at: Moment) -> Decision {
        match (&self.bucket, marks) {
            (Bucket::All(reservoir), _) => lease.peek_many(reservoir, cost.into(), at.now),
            (Bucket::Keyed(_), Some((key, gcra))) => tables.rates.peek_many(key, gcra, cost.into(), at.now),
            (Bucket::Window(..), Some((key, gcra))) => {
                in_seconds(tables.quotas.peek_many(key, gcra, cost.into(), Moment::of_quotas(at.unix)), gcra, at)
            }
            (Bucket::Far(_), Some((key, gcra))) => {
                let peeked = tables.far.peek(key, gcra, cost.into(), at.now);
                peeked.unwrap_or_else(|| tables.rates.peek_many(key, FarTable::alone(gcra), cost.into(), at.now))
            }
            (Bucket::AtOnce(_), _) | (_, None) => Decision::Admit,
        }
    }

    /// Takes `cost` tokens, whether they are there or not.
    pub(super) fn charge(&self, tables: &Tables, marks: Marks, cost: u64, at: Moment) {
        match (&self.bucket, marks) {
            (Bucket::All(reservoir), _) => reservoir.charge(cost, at.now),
            (Bucket::Keyed(_), Some((key, gcra))) => tables.rates.charge(key, gcra, cost, at.now),
            (Bucket::Window(..), Some((key, gcra))) => {
                tables.quotas.charge(key, gcra, cost, Moment::of_quotas(at.unix));
            }
            (Bucket::Far(_), Some((key, gcra))) => tables.far.charge(key, gcra, cost, at.now),
            (Bucket::AtOnce(_), _) | (_, None) => {}
        }
    }

    /// Takes the place of one more request at once.
    pub(super) fn enter(&self, tables: &Tables, marks: Marks) -> Taken {
        let Some((key, most)) = marks.filter(|_| self.is_at_once()) else { return Taken::Uncounted };
        tables.at_once.acquire(key.get(), u32::try_from(most.burst()).unwrap_or(u32::MAX))
    }
}

/// The network of an address: so many bits of IPv4 (also mapped into IPv6) and of IPv6.
fn masked(address: IpAddr, (v4, v6): (u8, u8)) -> [u8; 17] {
    let (kind, bits, kept) = match address.to_canonical() {
        IpAddr::V4(address) => (4, u128::from(address.to_bits()) << 96, v4),
        IpAddr::V6(address) => (6, address.to_bits(), v6),
    };
    let kept = u128::MAX.checked_shl(128 - u32::from(kept.min(128))).unwrap_or_default();
    let mut text = [kind; 17];
    text[1..].copy_from_slice(&(bits & kept).to_be_bytes());
    text
}

/// A decision about a quota, for a client who counts seconds: there is more when the window is over, which may be that of a tier.
fn in_seconds(decision: Decision, quota: Gcra, at: Moment) -> Decision {
    match decision {
        Decision::Admit => Decision::Admit,
        Decision::Reject(left) => {
            let end = quota.end().as_nanos() / QUOTA_UNIT;
            let reset = Duration::from_secs(end.saturating_sub(at.unix));
            Decision::Reject(Quota { reset, ..left })
        }
    }
}

/// A number for each limit of an owner that stays the same as long as the limit does, in whatever row; the second of the same rate, burst and
/// key is another one. Not secret and not aimed at by anyone but the operator.
fn identities(owner: &Owner<'_>, limits: &[Limit]) -> Vec<LimiterId> {
    let mut ids: Vec<LimiterId> = Vec::with_capacity(limits.len());
    for limit in limits {
        let id = |twin| identity(owner, twin, limit);
        let twin = (0..).find(|twin| !ids.contains(&id(*twin))).unwrap_or_default();
        ids.push(id(twin));
    }
    ids
}

fn identity(owner: &Owner<'_>, twin: usize, limit: &Limit) -> LimiterId {
    let mut hasher = FxHasher::default();
    if let Owner::Shared(_) = owner {
        "[limit]".hash(&mut hasher);
    }
    (owner.name(), twin).hash(&mut hasher);
    hash_measure(limit.measure, &mut hasher);
    limit.is_shared.hash(&mut hasher);
    hash_key(&limit.per, &mut hasher);
    LimiterId(hasher.finish())
}

/// What a limit that changes begins anew with: not a quota whose number changes, nor requests at once, who are there.
fn hash_measure(measure: Measure, hasher: &mut FxHasher) {
    match measure {
        Measure::Rate { rate, burst } => (rate.count(), rate.per(), burst).hash(hasher),
        Measure::Quota { window, .. } => (1_u8, window).hash(hasher),
        Measure::Concurrency(_) => 2_u8.hash(hasher),
    }
}

fn hash_key(key: &LimitKey, hasher: &mut FxHasher) {
    match key {
        LimitKey::Route => 0_u8.hash(hasher),
        LimitKey::ClientIp => 1_u8.hash(hasher),
        LimitKey::Header(name) => (2_u8, name).hash(hasher),
        LimitKey::ClientCertificate => 3_u8.hash(hasher),
        LimitKey::Consumer => 4_u8.hash(hasher),
        LimitKey::ClientNetwork { v4, v6 } => (5_u8, v4, v6).hash(hasher),
        LimitKey::Group => 6_u8.hash(hasher),
        LimitKey::Claim(name) => (7_u8, name).hash(hasher),
        LimitKey::Cookie(name) => (8_u8, name).hash(hasher),
        LimitKey::Template => 10_u8.hash(hasher),
        LimitKey::Capture(name) => (11_u8, name).hash(hasher),
        LimitKey::Several(keys) => {
            (9_u8, keys.len()).hash(hasher);
            keys.iter().for_each(|key| hash_key(key, hasher));
        }
    }
}
