//! One rate limit: whom it counts for, and where its tokens are.
//!
//! Requests are told apart by a hash of what the limit counts by ([`LimitKey`]); one that combines several hashes each with the one before. A
//! consumer whose group has a tier of its own takes from a bucket of that tier's rate.

use super::key_table::{KeyHash, KeyTable, LimiterId};
use super::token_bucket::{Decision, Gcra, Lease, Reservoir};
use crate::config::limit_names::own_name;
use crate::config::{Limit, LimitKey};
use crate::units::{GroupId, Instant, Rate};
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

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
}

/// What holds for the consumers of a group.
#[derive(Debug)]
struct OwnRate {
    group: GroupId,
    id: LimiterId,
    rate: Rate,
    gcra: Gcra,
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
        let (bucket, before) = match (&limit.per, same.and_then(|same| same.shared())) {
            (LimitKey::Route, Some(reservoir)) => (Bucket::All(Arc::clone(reservoir)), None),
            (LimitKey::Route, None) => {
                let reservoir = Arc::new(Reservoir::new(limit.rate, limit.burst, workers));
                (Bucket::All(reservoir), changed.and_then(|changed| changed.shared()).map(Arc::clone))
            }
            _ => (Bucket::Keyed(Gcra::new(limit.rate, limit.burst)), None),
        };
        let tier = |tier: &crate::config::Tier| {
            let group = groups.iter().position(|group| **group == *tier.group)?;
            let mut hasher = FxHasher::default();
            (id.0, &tier.group, tier.rate.count(), tier.rate.per(), tier.burst).hash(&mut hasher);
            let (group, id) = (GroupId::from_index(group), LimiterId(hasher.finish()));
            Some(OwnRate { group, id, rate: tier.rate, gcra: Gcra::new(tier.rate, tier.burst) })
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
            Bucket::Keyed(_) => None,
        }
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

    /// The rate and the burst for who is in these groups.
    pub(super) fn rate_for(&self, groups: &[GroupId]) -> (Rate, u64) {
        let own = (self.limit.rate, self.limit.burst);
        self.tier(groups).map_or(own, |tier| (tier.rate, tier.gcra.burst()))
    }

    pub(super) fn marks<'h>(
        &self,
        table: &KeyTable,
        caller: Caller<'_>,
        value: &dyn Fn(&LimitKey) -> Option<&'h [u8]>,
    ) -> Marks {
        let Bucket::Keyed(gcra) = self.bucket else { return None };
        let (id, gcra) = self.tier(caller.groups).map_or((self.id, gcra), |tier| (tier.id, tier.gcra));
        let one = |id: LimiterId, key: &LimitKey| match key {
            LimitKey::ClientIp => table.client(id, caller.client),
            LimitKey::ClientNetwork { v4, v6 } => table.network(id, caller.client, (*v4, *v6)),
            LimitKey::Consumer => table.header(id, caller.consumer.map(str::as_bytes)),
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
        Some((hash, gcra))
    }

    /// Takes `cost` tokens, or none.
    pub(super) fn take(
        &self,
        lease: &mut Lease,
        table: &KeyTable,
        (marks, cost): (Marks, u32),
        now: Instant,
    ) -> Decision {
        match (&self.bucket, marks) {
            (Bucket::All(reservoir), _) => lease.take_many(reservoir, cost.into(), now),
            (Bucket::Keyed(_), marks) => {
                let (key, gcra) = marks.expect("limits by key have one");
                table.take_many(key, gcra, cost.into(), now)
            }
        }
    }

    pub(super) fn peek(&self, lease: &Lease, table: &KeyTable, (marks, cost): (Marks, u32), now: Instant) -> Decision {
        match (&self.bucket, marks) {
            (Bucket::All(reservoir), _) => lease.peek_many(reservoir, cost.into(), now),
            (Bucket::Keyed(_), marks) => {
                let (key, gcra) = marks.expect("limits by key have one");
                table.peek_many(key, gcra, cost.into(), now)
            }
        }
    }

    /// Takes `cost` tokens, whether they are there or not.
    pub(super) fn charge(&self, table: &KeyTable, marks: Marks, cost: u64, now: Instant) {
        match (&self.bucket, marks) {
            (Bucket::All(reservoir), _) => reservoir.charge(cost, now),
            (Bucket::Keyed(_), Some((key, gcra))) => table.charge(key, gcra, cost, now),
            (Bucket::Keyed(_), None) => {}
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
    (owner.name(), twin, limit.rate.count(), limit.rate.per(), limit.burst).hash(&mut hasher);
    hash_key(&limit.per, &mut hasher);
    LimiterId(hasher.finish())
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
        LimitKey::Several(keys) => {
            (9_u8, keys.len()).hash(hasher);
            keys.iter().for_each(|key| hash_key(key, hasher));
        }
    }
}
