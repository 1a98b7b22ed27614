//! One simulation: a made-up cluster, its clients, a queue of virtual time, and the loop that asks the exchanges.

use crate::check::{self, Begun, GivenUp, Ledger, Probes};
use crate::fleet::{Meeting, Mood, Phase};
use crate::gate::{Gate, Said};
use http::StatusCode;
use rand::SeedableRng;
use ringgate::config::{self, Address, Balance, HashKey, Outlier, RetryBudget, RetryOn, Spill, Timeout};
use ringgate::error::ProxyError;
use ringgate::policy::attempt::ChangeKind;
use ringgate::policy::chance::{below, mix};
use ringgate::policy::cluster::{Cluster, Common};
use ringgate::policy::deadline::{Deadline, RouteDeadline};
use ringgate::policy::event::{Action, Event, Facts, Occasion};
use ringgate::policy::exchange::Exchange;
use ringgate::policy::retry::{Rules, Sent};
use ringgate::policy::standings::Standing;
use ringgate::policy::try_time::{TryTime, TryTimes};
use ringgate::units::{EndpointId, Instant, Ratio, Rng, RouteId, Weight};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

const REQUESTS: usize = 300;
/// Volleys at the gate beside them, which put the limits to the test.
const VOLLEYS: u64 = 24;

/// How long an endpoint may be back before everybody knows: it was asked a moment before, and that has yet to fail.
const SEEN: Duration = Duration::from_millis(110);

/// What happened, over one simulation or many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    requests: u64,
    relayed: u64,
    replied: u64,
    abandoned: u64,
    /// At the gate, volleys included.
    admission: Said,
    /// Requests that the gate did not let pass.
    refused: u64,
    attempts: u64,
    failovers: u64,
    retries: u64,
    backoffs: u64,
    budget_stops: u64,
    saturated: u64,
    ejected: u64,
    shunned: u64,
    readmitted: u64,
    unreachable: u64,
    held_back: u64,
    probes: u64,
    /// Of every action in order.
    trace: u64,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.relayed += other.relayed;
        self.replied += other.replied;
        self.abandoned += other.abandoned;
        self.admission += other.admission;
        self.refused += other.refused;
        self.attempts += other.attempts;
        self.failovers += other.failovers;
        self.retries += other.retries;
        self.backoffs += other.backoffs;
        self.budget_stops += other.budget_stops;
        self.saturated += other.saturated;
        self.ejected += other.ejected;
        self.shunned += other.shunned;
        self.readmitted += other.readmitted;
        self.unreachable += other.unreachable;
        self.held_back += other.held_back;
        self.probes += other.probes;
        self.trace ^= other.trace;
    }
}

impl Report {
    /// A simulation in which nothing ever went wrong would prove nothing.
    pub(crate) fn assert_that_everything_happened(&self) {
        let Self { requests, relayed, replied, abandoned, refused, .. } = *self;
        assert_eq!(requests, relayed + replied + abandoned + refused, "every request ended in one way");
        let Said { passed, limited_by_route, limited_by_client, crowded } = self.admission;
        let seen = [
            relayed,
            replied,
            abandoned,
            refused,
            passed,
            limited_by_route,
            limited_by_client,
            crowded,
            self.failovers,
            self.retries,
            self.backoffs,
            self.budget_stops,
            self.saturated,
            self.ejected,
            self.shunned,
            self.readmitted,
            self.unreachable,
            self.held_back,
            self.probes,
        ];
        assert!(seen.iter().all(|count| *count >= 100), "{self:?}");
    }
}

enum Due {
    Arrival,
    /// For the exchange, if it still waits with this serial.
    Step {
        exchange: usize,
        serial: u32,
        event: Event,
    },
    Leave(usize),
    Mood(usize),
    Check(usize),
    /// Its number.
    Volley(u64),
}

struct Live {
    exchange: Exchange,
    /// Whose slot it holds.
    gate: usize,
    /// Whose cluster it uses.
    worker: usize,
    deadline: Deadline,
    /// Idempotent, and its body can be sent again.
    repeatable: bool,
    /// Attempts that an endpoint may have seen.
    deliveries: u32,
    refused: Vec<EndpointId>,
    serial: u32,
    on: Option<EndpointId>,
    meeting: Option<Meeting>,
}

/// One simulation.
pub(crate) struct World {
    rng: Rng,
    /// Of the policies, so that what the simulator draws does not shift what they draw.
    policy_rng: Rng,
    /// Of the gate and who comes to it, for the same reason.
    gate_rng: Rng,
    now: Instant,
    common: Common,
    /// By worker.
    clusters: Vec<Cluster>,
    try_times: TryTimes,
    /// By worker.
    tries: Vec<TryTime>,
    config: config::Cluster,
    rules: Rc<Rules>,
    route: RouteDeadline,
    /// With when they began.
    moods: Vec<(Mood, Instant)>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    /// By serial, which also orders what is due at the same time.
    dues: HashMap<u64, Due>,
    live: BTreeMap<usize, Live>,
    /// By worker.
    in_flight: Vec<HashMap<EndpointId, u32>>,
    gate: Gate,
    /// Workers' slots that the last volley holds.
    held: Vec<usize>,
    ledger: Ledger,
    probes: Probes,
    report: Report,
    scheduled: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let mut policy_rng = Rng::seed_from_u64(!seed);
        let mut gate_rng = Rng::seed_from_u64(mix(!seed));
        let config = draw_cluster(&mut rng);
        let budget = config.retry_budget;
        let workers = 1 + below(&mut rng, 4);
        let common = Common::new(&config, workers);
        let now = Instant::from_nanos(mix(seed) >> 16);
        let mut world = Self {
            clusters: (0..workers).map(|_| Cluster::new(&config, &common, &mut policy_rng)).collect(),
            common,
            try_times: TryTimes::new(1),
            tries: vec![TryTime::default(); workers],
            rules: Rc::new(Rules::new(&draw_retry(&mut rng))),
            route: RouteDeadline::new(draw_timeout(&mut rng)),
            moods: config.endpoints.iter().map(|_| (Mood::draw(&mut rng), now)).collect(),
            ledger: Ledger::new(budget.ratio.get(), budget.min_per_second, workers),
            config,
            rng,
            policy_rng,
            now,
            queue: BinaryHeap::new(),
            dues: HashMap::new(),
            live: BTreeMap::new(),
            in_flight: vec![HashMap::new(); workers],
            gate: Gate::draw(&mut gate_rng),
            gate_rng,
            held: Vec::new(),
            probes: Probes::default(),
            report: Report::default(),
            scheduled: 0,
        };
        world.schedule(Duration::ZERO, Due::Arrival);
        world.schedule(Duration::ZERO, Due::Volley(0));
        for endpoint in 0..world.moods.len() {
            let (mood, check) = (world.upto(8_000), world.upto(5_000));
            world.schedule(mood, Due::Mood(endpoint));
            world.schedule(check, Due::Check(endpoint));
        }
        world
    }

    pub(crate) fn run(mut self) -> Report {
        while let Some(Reverse((at, serial))) = self.queue.pop() {
            self.now = at;
            let due = self.dues.remove(&serial).expect("everything queued is due once");
            self.turn(due);
            self.clusters.iter().zip(&self.in_flight).for_each(|(cluster, live)| check::cluster(cluster, live));
            check::common(&self.common, &self.clusters[0]);
        }
        assert!(self.live.is_empty(), "every exchange ends");
        let mut endpoints = self.clusters.iter().flat_map(|cluster| cluster.endpoints());
        assert!(endpoints.all(|e| e.in_flight == 0 && e.started == e.finished));
        self.held.drain(..).for_each(|worker| self.gate.release(worker));
        self.gate.assert_empty();
        self.report.probes = self.probes.seen;
        self.report.admission = self.gate.said;
        self.report
    }

    fn turn(&mut self, due: Due) {
        let active = (self.report.requests as usize) < REQUESTS;
        match due {
            Due::Arrival => {
                self.arrive();
                if active {
                    // bursts, with quiet stretches in which ejections end
                    let pause = if below(&mut self.rng, 50) == 0 { self.upto(15_000) } else { self.upto(60) };
                    self.schedule(pause, Due::Arrival);
                }
            }
            Due::Step { exchange, serial, event } => {
                if self.live.get(&exchange).is_some_and(|live| live.serial == serial) {
                    self.step(exchange, event);
                }
            }
            Due::Leave(exchange) => {
                if self.live.contains_key(&exchange) {
                    self.step(exchange, Event::DownstreamGone);
                }
            }
            Due::Mood(endpoint) if active => {
                self.moods[endpoint] = (Mood::draw(&mut self.rng), self.now);
                let next = self.upto(12_000);
                self.schedule(next, Due::Mood(endpoint));
            }
            Due::Check(endpoint) if active => {
                let well = !matches!(self.moods[endpoint].0, Mood::Refuses | Mood::Unreachable | Mood::Hangs);
                let id = EndpointId::from_index(endpoint);
                if well {
                    self.common.standings.on_check_passed(id, self.now);
                }
                for cluster in &mut self.clusters {
                    cluster.on_probe(id, well, self.now);
                    cluster.set_health(id, well, self.now);
                }
                let next = self.upto(20_000);
                self.schedule(next, Due::Check(endpoint));
            }
            Due::Volley(number) => {
                let pause = self.gate.volley(number, &mut self.held, self.now, &mut self.gate_rng);
                if number < VOLLEYS {
                    self.schedule(pause, Due::Volley(number + 1));
                }
            }
            Due::Mood(_) | Due::Check(_) => {}
        }
        for change in self.clusters.iter_mut().flat_map(Cluster::take_changes) {
            match change.kind {
                ChangeKind::Ejected { until, .. } => {
                    assert!(until > change.at);
                    self.report.ejected += 1;
                }
                ChangeKind::Readmitted { .. } => self.report.readmitted += 1,
                ChangeKind::Shunned { .. } => self.report.shunned += 1,
                ChangeKind::Paused { until } => assert!(until > change.at),
                ChangeKind::EjectionRefused { .. } | ChangeKind::Unhealthy | ChangeKind::Healthy => {}
            }
        }
    }

    fn arrive(&mut self) {
        let incoming =
            (below(&mut self.rng, 10) == 0).then(|| Duration::from_millis(1 + below(&mut self.rng, 500) as u64));
        let deadline = self.route.start(incoming, self.now);
        let idempotent = below(&mut self.rng, 3) > 0;
        let key = (below(&mut self.rng, 5) > 0).then(|| below(&mut self.rng, 50) as u64);
        let session = (below(&mut self.rng, 8) == 0)
            .then(|| EndpointId(below(&mut self.rng, self.clusters[0].endpoints().len()) as u16));
        let replayable = below(&mut self.rng, 5) > 0;
        let worker = below(&mut self.rng, self.clusters.len());
        let try_time = self.tries[worker].get(RouteId(0), &self.try_times, self.now);
        let retry = Rc::clone(&self.rules);
        let exchange = Exchange::new(Facts { deadline, retry, idempotent, replayable, session, key, try_time });
        let id = self.report.requests as usize;
        self.report.requests += 1;
        let Some(gate) = self.gate.admit(self.now, &mut self.gate_rng) else {
            self.report.refused += 1;
            return;
        };
        self.ledger.on_request(self.now);
        self.live.insert(
            id,
            Live {
                exchange,
                gate,
                worker,
                deadline,
                repeatable: idempotent && replayable,
                deliveries: 0,
                refused: Vec::new(),
                serial: 0,
                on: None,
                meeting: None,
            },
        );
        if below(&mut self.rng, 10) == 0 {
            let patience = self.upto(1_500);
            self.schedule(patience, Due::Leave(id));
        }
        self.step(id, Event::Start);
    }

    fn step(&mut self, id: usize, event: Event) {
        let mut live = self.live.remove(&id).expect("it lives");
        let tried = live.exchange.tried().to_vec();
        let was_waiting = live.on.is_none() && !tried.is_empty();
        if let Some(endpoint) = live.on.take() {
            *self.in_flight[live.worker].get_mut(&endpoint).expect("counted") -= 1;
            self.probes.on_end(id);
        }
        live.deliveries += u32::from(was_seen(event));
        assert!(live.repeatable || live.deliveries <= 1, "delivered twice: {event:?}");
        let cluster = &mut self.clusters[live.worker];
        let mut action = live.exchange.step(event, cluster, self.now, &mut self.policy_rng);
        // as if the endpoint had not been chosen: it was full over all cores
        if matches!(event, Event::Start | Event::BackoffOver) {
            live.refused.clear();
        }
        while let Action::Attempt { endpoint, .. } = action
            && below(&mut self.rng, 60) == 0
        {
            live.refused.push(endpoint);
            action = live.exchange.step(Event::Saturated, cluster, self.now, &mut self.policy_rng);
            self.report.saturated += 1;
        }
        live.serial += 1;
        self.trace(id, event, action);
        let goes_on = matches!(action, Action::Attempt { .. } | Action::Backoff { .. });
        assert!(!goes_on || may_repeat(event, &live), "{event:?} was retried");
        let is_retry = matches!(live.exchange.occasion(), Occasion::Retry(_));
        match action {
            Action::Backoff { .. } => self.ledger.on_retry(self.now),
            Action::Attempt { .. } if is_retry && !was_waiting => self.ledger.on_retry(self.now),
            Action::Reply(_) | Action::Finish if was_waiting => self.ledger.on_refund(self.now),
            _ => {}
        }
        match action {
            Action::Attempt { endpoint, connect_until, until } => {
                self.attempt(id, &mut live, endpoint, &tried, (connect_until, until));
            }
            Action::Backoff { until } => {
                assert!(until < live.deadline.at, "a backoff beyond the deadline");
                self.report.backoffs += 1;
                self.due_step(id, live.serial, until, Event::BackoffOver);
            }
            Action::Relay => {
                let fits = matches!(event, Event::Head { .. } | Event::Saturated);
                assert!(fits, "{event:?} was relayed");
                let meeting = live.meeting.take().expect("an attempt met something");
                // of a retry that found its endpoint full, the answer before it
                live.on = tried.last().copied();
                *self.in_flight[live.worker].entry(tried[tried.len() - 1]).or_default() += 1;
                self.route.on_latency(live.deadline.total - live.deadline.at.since(self.now), self.now);
                self.due_step(id, live.serial, self.now + meeting.body_time, meeting.body);
            }
            Action::Reply(_) | Action::Finish => return self.conclude(&live, event, action),
        }
        self.live.insert(id, live);
    }

    fn attempt(
        &mut self,
        id: usize,
        live: &mut Live,
        endpoint: EndpointId,
        tried: &[EndpointId],
        (connect_until, until): (Instant, Instant),
    ) {
        let (now, worker) = (self.now, live.worker);
        let requests_max = self.config.requests_max.unwrap_or(u32::MAX);
        let begun = Begun { endpoint, tried, refused: &live.refused, until, deadline: live.deadline.at, now };
        let is_probe = check::attempt(&begun, &mut self.clusters[worker], requests_max);
        assert_eq!(live.exchange.tried().len(), tried.len() + 1);
        *self.in_flight[worker].entry(endpoint).or_default() += 1;
        live.on = Some(endpoint);
        if is_probe {
            self.probes.on_attempt(endpoint, id, live.deadline.at, now);
        }
        live.exchange.on_entered(&mut self.clusters[worker], now);
        self.report.attempts += 1;
        match live.exchange.occasion() {
            Occasion::First => {}
            Occasion::Failover => self.report.failovers += 1,
            Occasion::Retry(_) => self.report.retries += 1,
        }
        let mood = self.moods[endpoint.index()].0;
        let meeting = mood.meet(&mut self.rng);
        if mood.is_reachable() {
            self.clusters[worker].on_connected(endpoint, now);
        }
        live.meeting = Some(meeting);
        let (at, met) = match meeting.phase {
            Phase::Connect(after) if now + after < connect_until => (now + after, meeting.event),
            Phase::Connect(_) | Phase::NoConnection => (connect_until, Event::ConnectTimedOut),
            Phase::Head(after) if now + after < until => (now + after, meeting.event),
            Phase::Head(_) | Phase::NoHead => (until, Event::TimedOut),
        };
        self.due_step(id, live.serial, at, met);
    }

    fn conclude(&mut self, live: &Live, event: Event, action: Action) {
        let saturated = action == Action::Reply(ProxyError::UpstreamSaturated);
        assert!(live.exchange.is_over() || saturated);
        self.gate.release(live.gate);
        self.report.budget_stops += u64::from(live.exchange.was_stopped_by_budget());
        match (event, action) {
            (Event::DownstreamGone, _) => self.report.abandoned += 1,
            (_, Action::Reply(reply)) => {
                // T_max is the head's, and that was there
                let had_head = matches!(event, Event::AnswerBroken { .. });
                assert!(had_head || self.now <= live.deadline.at, "the reply comes after T_max");
                if event == Event::TimedOut {
                    self.route.on_latency(live.deadline.total, self.now);
                }
                if reply == ProxyError::NoHealthyEndpoint {
                    self.give_up(live);
                }
                if live.exchange.was_held_back() {
                    self.hold_back(live);
                }
                self.report.replied += 1;
            }
            _ => self.report.relayed += 1,
        }
    }

    /// Nobody could be reached: then everybody was asked who could be, for as long as that takes to be seen.
    fn give_up(&mut self, live: &Live) {
        self.report.unreachable += 1;
        let since = |began: Instant| self.now.since(began) > SEEN;
        let moods = self.moods.iter().enumerate().filter(|(_, (mood, began))| mood.is_reachable() && since(*began));
        let reachable: Vec<_> = moods.map(|(row, _)| EndpointId::from_index(row)).collect();
        let up = GivenUp { tried: live.exchange.tried(), reachable: &reachable, now: self.now };
        let requests_max = self.config.requests_max.unwrap_or(u32::MAX);
        check::given_up(&up, &self.clusters[live.worker], requests_max);
    }

    /// A retry was not made because nobody serves well: then there is nobody who has been well for a while, unless it failed just now.
    fn hold_back(&mut self, live: &Live) {
        self.report.held_back += 1;
        let requests_max = self.config.requests_max.unwrap_or(u32::MAX);
        for (row, (mood, began)) in self.moods.iter().enumerate() {
            let (id, endpoint) = (EndpointId::from_index(row), &self.clusters[live.worker].endpoints()[row]);
            let takes = endpoint.weight > 0 && endpoint.healthy && endpoint.in_flight < requests_max;
            let is_well = matches!(mood, Mood::Well) && self.now.since(*began) > SEEN;
            let is_paused = matches!(endpoint.standing, Standing::Paused { .. });
            let may_serve = is_well && takes && !is_paused && !live.exchange.tried().contains(&id);
            let has_rested = self.common.standings.has_rested(id, self.now);
            assert!(!may_serve || !has_rested, "{id:?} is {:?} and well, and was not asked", endpoint.standing);
        }
    }

    fn trace(&mut self, id: usize, event: Event, action: Action) {
        let text = format!("{id} {event:?} {action:?}");
        self.report.trace = mix(self.report.trace ^ ringgate::policy::chance::hash_key(text.as_bytes()));
    }

    fn upto(&mut self, millis: usize) -> Duration {
        Duration::from_micros(below(&mut self.rng, millis * 1_000) as u64)
    }

    fn due_step(&mut self, exchange: usize, serial: u32, at: Instant, event: Event) {
        self.schedule(at.since(self.now), Due::Step { exchange, serial, event });
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        let serial = self.scheduled;
        self.scheduled += 1;
        self.queue.push(Reverse((self.now + after, serial)));
        self.dues.insert(serial, due);
    }
}

/// The rule in other words: a request that may have arrived goes out again only if that does no harm.
fn may_repeat(event: Event, live: &Live) -> bool {
    // an answer that breaks was counted as seen with its head
    live.repeatable || !(was_seen(event) || matches!(event, Event::AnswerBroken { .. }))
}

/// Whether an attempt that ends like this may have reached a service.
fn was_seen(event: Event) -> bool {
    match event {
        Event::ResetBeforeHead { sent, .. } => sent == Sent::Maybe,
        Event::Head { .. } | Event::BadHead(_) | Event::TimedOut => true,
        _ => false,
    }
}

fn draw_timeout(rng: &mut Rng) -> Timeout {
    let most = Duration::from_millis(200 + below(rng, 4_000) as u64);
    if below(rng, 3) > 0 { Timeout::Fixed(most) } else { Timeout::Adaptive { k: 3.0, min: most / 10, max: most } }
}

fn ratio(value: f64) -> Ratio {
    Ratio::try_new(value).expect("a share")
}

fn draw_retry(rng: &mut Rng) -> config::Retry {
    let statuses = [429, 502, 503, 504].map(|code| StatusCode::from_u16(code).expect("a status"));
    config::Retry {
        attempts: below(rng, 5) as u32,
        on: RetryOn {
            connect: below(rng, 8) > 0,
            reset: below(rng, 8) > 0,
            timeout: below(rng, 8) > 0,
            statuses: statuses[below(rng, 4)..].to_vec(),
            codes: Vec::new(),
        },
        non_idempotent: false,
        backoff_max: Duration::from_millis(1 + below(rng, 400) as u64),
        per_try_timeout: (below(rng, 2) == 0).then(|| Duration::from_millis(50 + below(rng, 500) as u64)),
        min_remaining: ratio(below(rng, 30) as f64 / 100.0),
    }
}

fn draw_cluster(rng: &mut Rng) -> config::Cluster {
    let balance = match below(rng, 7) {
        0 => Balance::Random,
        1 => Balance::RoundRobin,
        2 => Balance::Weighted,
        3 => Balance::LeastRequest,
        4 => Balance::PeakEwma,
        5 => Balance::RingHash(HashKey::Path),
        _ => Balance::Maglev(HashKey::ClientIp),
    };
    let endpoints = 1 + below(rng, 7);
    let tiers = 1 + below(rng, 3);
    let mut endpoint = |i: usize| config::Endpoint {
        name: None,
        address: Address::Tcp(SocketAddr::from((Ipv4Addr::new(10, 0, 0, i as u8), 80))),
        weight: Weight(if i > 0 && below(rng, 10) == 0 { 0 } else { 1 + below(rng, 4) as u32 * 50 }),
        priority: below(rng, tiers) as u8,
    };
    let endpoints = (0..endpoints).map(&mut endpoint).collect();
    let eject = Duration::from_millis(200 + below(rng, 5_000) as u64);
    let outlier = Outlier {
        consecutive: 1 + below(rng, 6) as u32,
        min_success: ratio(0.5),
        min_requests: 3 + below(rng, 20) as u32,
        window: Duration::from_secs(1 + below(rng, 10) as u64),
        eject,
        eject_max: eject * 20,
    };
    config::Cluster {
        name: "simulated".to_owned(),
        balance,
        connect_timeout: Duration::from_millis(20 + below(rng, 1_000) as u64),
        idle_timeout: Duration::from_secs(55),
        idle_max: 256,
        proxy_protocol: ringgate::config::ProxyVersion::Off,
        requests_max: (below(rng, 3) == 0).then(|| 1 + below(rng, 8) as u32),
        retry_budget: RetryBudget { ratio: ratio(below(rng, 5) as f64 / 10.0), min_per_second: below(rng, 4) as u32 },
        endpoints,
        names: Vec::new(),
        health_check: None,
        outlier: (below(rng, 8) > 0).then_some(outlier),
        retry_after_max: Duration::from_millis(below(rng, 2) as u64 * 30_000),
        spill: if below(rng, 2) == 0 { Spill::Proportional } else { Spill::None },
        sticky: None,
        slow_start: Duration::from_millis(below(rng, 2) as u64 * 3_000),
        protocol: ringgate::config::Protocol::default(),
        streams_max: 100,
        tls: None,
    }
}
