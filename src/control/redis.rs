//! Rates that several gateways share: what was taken here is told to Redis (or Valkey), and what is left of it comes back.
//!
//! A thread of its own, so that nothing else that the control plane does makes it late. Some hundred times a second it takes what workers have noted
//! ([`FarTable::report`]), has a script charge it there, and hands back how each bucket stands. The script is GCRA: a key holds the instant, in
//! microseconds of Redis' own clock, at which its bucket is full, and ends with that. What is charged may drive it below empty by a burst and
//! [`DEBT_MICROS`].
//!
//! Gateways make themselves known each second in a sorted set, so that each knows how many they are: that is its share while nobody answers. An
//! answer that does not come in time ends the connection, and the limits are counted without until there is another one.

mod link;

use self::link::Link;
use crate::config::{Redis, WithoutRedis};
use crate::net::clock;
use crate::observe::stats::Stats;
use crate::policy::far::{FarTable, Mode, Report};
use ::redis::{RedisError, Value, cmd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, interval, sleep, timeout};

/// Between two reports.
const EVERY: Duration = Duration::from_millis(5);
/// Between two signs of life.
const ATTEND: Duration = Duration::from_secs(1);
/// Who was not heard of for so long, in seconds, is not counted any more.
const GONE_SECONDS: u32 = 10;
/// Between two tries to connect; and for a try, whatever `timeout` says.
const RETRY: Duration = Duration::from_millis(200);
/// Who has shared for so long has not only begun.
const LASTING: Duration = Duration::from_secs(5);
/// Between two beginnings that did not last, at most; each pause is twice as long as the one before.
const PAUSE_MAX: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);
/// Keys that one call of the script charges: it holds up everybody else there.
const BATCH: usize = 256;
/// How far below empty a bucket may get besides its burst, in microseconds.
const DEBT_MICROS: u32 = 2_000_000;

/// Charges each key, and says in how many microseconds its bucket is full. Of each: tokens, microseconds between two of them, the burst.
const CHARGE: &str = r"
local time = redis.call('TIME')
local now, out = time[1] * 1000000 + time[2], {}
for i, key in ipairs(KEYS) do
  local used, interval, burst = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local tat = math.max(tonumber(redis.call('GET', key) or '0') or 0, now)
  tat = math.max(tat, math.min(tat + used * interval, now + 2 * burst * interval + tonumber(ARGV[1])))
  redis.call('SET', key, string.format('%.3f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
  out[i] = string.format('%.0f', (tat - now) * 1000)
end
return out";

/// Makes a gateway known, and says how many there are.
const COUNT: &str = r"
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[2]) * 6)
return redis.call('ZCARD', KEYS[1])";

/// The thread; dropping this ends it.
#[derive(Debug)]
pub(super) struct Sharing {
    config: Arc<Redis>,
    is_over: Arc<AtomicBool>,
}

impl Sharing {
    /// Begins to share the limits in `table`, if it is asked for; goes on if it does so already.
    pub(super) fn follow(
        before: Option<Self>,
        config: Option<&Arc<Redis>>,
        table: &Arc<FarTable>,
        stats: &Arc<Stats>,
    ) -> Option<Self> {
        let config = Arc::clone(config?);
        if let Some(before) = before.filter(|before| before.config == config) {
            return Some(before);
        }
        let is_over = Arc::<AtomicBool>::default();
        let teller = Teller {
            redis: Arc::clone(&config),
            table: Arc::clone(table),
            stats: Arc::clone(stats),
            is_over: Arc::clone(&is_over),
            gateways: 1,
            tries: 0,
            began: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let run = |runtime: tokio::runtime::Runtime| {
            std::thread::Builder::new().name("redis".to_owned()).spawn(move || runtime.block_on(teller.run()))
        };
        if let Err(error) = runtime.and_then(run) {
            tracing::error!("no thread for redis: {error}; limits are not shared");
        }
        Some(Self { config, is_over })
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

struct Teller {
    redis: Arc<Redis>,
    table: Arc<FarTable>,
    stats: Arc<Stats>,
    is_over: Arc<AtomicBool>,
    /// As many as were seen last, this one among them.
    gateways: u32,
    /// To connect.
    tries: usize,
    /// When this connection began to share.
    began: Option<Instant>,
}

impl Teller {
    async fn run(mut self) {
        let (mut said, mut pause) = (String::new(), RETRY);
        while !self.is_over.load(Ordering::Relaxed) {
            let Err(why) = self.share(&mut said).await else { return };
            if self.is_over.load(Ordering::Relaxed) {
                return; // another one shares them now, and says how
            }
            // each beginning forgives what was taken: who only ever begins may not do so often
            pause = match self.began.take() {
                None => RETRY,
                Some(began) if began.elapsed() >= LASTING => RETRY,
                Some(_) => (2 * pause).min(PAUSE_MAX),
            };
            self.table.set_mode(match self.redis.on_failure {
                WithoutRedis::Local => Mode::Alone(self.gateways),
                WithoutRedis::Allow => Mode::Open,
                WithoutRedis::Deny => Mode::Closed,
            });
            self.stats.count_redis(false);
            let why = why.to_string();
            if why != said {
                let (url, without) = (&self.redis.shown, self.redis.on_failure.word());
                tracing::warn!(
                    "redis: {url}: {why}; limits are counted without it: {without}, gateways={}",
                    self.gateways
                );
                said = why;
            }
            sleep(pause).await;
        }
    }

    /// Shares limits until nobody answers any more, or it is over.
    async fn share(&mut self, said: &mut String) -> Result<(), RedisError> {
        self.tries = self.tries.wrapping_add(1);
        let mut link = timeout(CONNECT, Link::open(&self.redis, self.tries)).await.map_err(|_| late())??;
        let (known, connected) = (self.gateways, Instant::now());
        self.attend(&mut link).await?;
        if self.is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        // what was taken meanwhile was this gateway's share
        self.gateways = self.gateways.max(known);
        self.table.begin(clock::read_now());
        self.began = Some(Instant::now());
        tracing::info!("redis: {} counts for gateways={}", self.redis.shown, self.gateways);
        said.clear();
        let (mut tick, mut attended) = (interval(EVERY), Instant::now());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reports = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            tick.tick().await;
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            if attended.elapsed() >= ATTEND {
                self.attend(&mut link).await?;
                if connected.elapsed() < 3 * ATTEND {
                    // one that has lost its keys does not know the others yet
                    self.gateways = self.gateways.max(known);
                }
                // one that was given up may have said otherwise at its end
                self.table.set_mode(Mode::Shared);
                self.table.sweep(clock::read_now());
                attended = Instant::now();
            }
            reports.clear();
            self.table.report(|report| reports.push(report));
            for batch in reports.chunks(BATCH) {
                self.charge(&mut link, batch).await?;
            }
        }
        Ok(())
    }

    async fn attend(&mut self, link: &mut Link) -> Result<(), RedisError> {
        let mut count = cmd("EVAL");
        count.arg(COUNT).arg(1).arg(self.key("gateways")).arg(self.id()).arg(GONE_SECONDS);
        let asked = link.ask::<u32>(&count);
        self.gateways = timeout(self.redis.timeout, asked).await.map_err(|_| late())??.max(1);
        self.stats.count_redis(true);
        Ok(())
    }

    async fn charge(&self, link: &mut Link, reports: &[Report]) -> Result<(), RedisError> {
        let mut charge = cmd("EVAL");
        charge.arg(CHARGE).arg(reports.len());
        for report in reports {
            charge.arg(self.key(&format!("{:016x}{:016x}", report.name[0], report.name[1])));
        }
        charge.arg(DEBT_MICROS);
        for report in reports {
            charge.arg(report.used).arg(report.interval_nanos as f64 / 1e3).arg(report.burst);
        }
        let asked = link.ask::<Vec<Value>>(&charge);
        let answers = timeout(self.redis.timeout, asked).await.map_err(|_| late())??;
        let now = clock::read_now();
        for (report, answer) in reports.iter().zip(&answers) {
            let nanos: u64 = ::redis::from_redis_value_ref(answer)?;
            self.table.answer(report, Duration::from_nanos(nanos), now);
        }
        self.stats.count_redis(true);
        Ok(())
    }

    /// All are in one slot of a cluster.
    fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.redis.prefix)
    }

    /// This process among all gateways.
    fn id(&self) -> String {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{host}/{}", std::process::id())
    }
}

fn late() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}
