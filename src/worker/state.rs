//! A worker's own things, whatever the configuration, and the small operations on them.
//!
//! All fields are reached by shared reference from the tasks of one thread. A `RefCell` is borrowed for the length of one call and
//! never across an await; what could be a cell is one. What follows from the configuration is the [`super::generation::Generation`]'s;
//! this knows nothing of it, nor of connections.

use super::charges::{Charges, Places};
use super::down::h2::runner::Runners;
use super::handshakes::Handshakes;
use super::kept::Kept;
use super::logins::Logins;
use super::notice::Notice;
use super::own_lines::OwnLines;
use super::report::{Complaints, Report};
use crate::config::Config;
use crate::http::date::{self, HttpDate};
use crate::http::fields::HeadScratch;
use crate::limits::{ARMED_RECEIVES_MAX, BLOCK_BULK, BLOCK_LARGE, BLOCK_SMALL, CUT_BEFORE_DRAIN_ENDS};
use crate::net::block::{Block, Blocks, TAILROOM};
use crate::net::clock;
use crate::net::timer::Timers;
use crate::observe::recorder::Life;
use crate::units::{Instant, Rng};
use rand::SeedableRng;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// Texts of access log records, and lines of responses, that are kept for reuse.
const LOG_TEXTS_KEPT: usize = 256;
/// Heads whose room is kept for reuse: no more than arrive in one turn, because most are encoded in the turn that they arrive in. Streams
/// arrive by the hundred.
const HEADS_KEPT: usize = 256;
/// Room beyond which a head's is not kept: one that grew to it is rare.
const HEAD_ROOM_KEPT_BYTES: usize = 32 << 10;

/// One core's state.
pub(super) struct Worker {
    pub(super) life: Rc<Life>,
    /// To the control thread, which tells the operator.
    reports: Sender<(Arc<Config>, Report)>,
    pub(super) timers: Rc<Timers>,
    pub(super) blocks: Rc<RefCell<Blocks>>,
    pub(super) rng: RefCell<Rng>,
    pub(super) scratch: RefCell<Scratch>,
    /// Connections that wait for a request, or the rest of its head, with a receive armed.
    pub(super) armed: Cell<usize>,
    /// `Retry-After` and `RateLimit` of a rejection.
    pub(super) limit_texts: RefCell<[Vec<u8>; 3]>,
    log_texts: RefCell<Vec<LogTexts>>,
    own_lines: RefCell<Vec<OwnLines>>,
    charges: RefCell<Vec<Charges>>,
    places: RefCell<Vec<Places>>,
    /// Passwords that are known to be right.
    pub(super) logins: RefCell<Logins>,
    /// Tasks that serve streams.
    pub(super) runners: RefCell<Runners>,
    /// Room for heads that arrive.
    #[expect(
        clippy::vec_box,
        reason = "a head's room goes from hand to hand with its request, and is a pointer there"
    )]
    heads: RefCell<Vec<Box<Kept>>>,
    /// What [`clock::wall`] is ahead of [`clock::now`].
    epoch: Cell<Duration>,
    /// A formatted second, and when it is over.
    date: Cell<(Instant, HttpDate)>,
    /// Downstream connections, over all listeners.
    pub(super) connections: Cell<usize>,
    /// Copies of requests under way.
    pub(super) mirrors: Cell<usize>,
    /// Responses that are being compressed.
    pub(super) compressions: super::compression::Turns,
    /// Bytes of bodies that are awaited.
    pub(super) held: Cell<usize>,
    /// Memory for pieces of bodies that are put into another form.
    restated: Cell<Vec<u8>>,
    /// Bytes of blocks in which bodies of streams wait.
    pub(super) streams_ahead: Cell<usize>,
    /// Places for handshakes with clients.
    pub(super) handshakes: Handshakes,
    pub(super) draining: Cell<bool>,
    /// The drain's time is over: what is still in flight is ended.
    pub(super) cutting: Cell<bool>,
    /// Until then idle connections may stay in a drain, because their clients do not know of it.
    pub(super) idle_until: Cell<Instant>,
    /// When tunnels end whatever they carry; `NEVER` before a drain.
    tunnels_end: Cell<Instant>,
    pub(super) notice: Arc<Notice>,
    /// It cannot go on: what it still has is dropped with it.
    pub(super) is_broken: Cell<bool>,
    pub(super) waiting_for_end: RefCell<Option<Waker>>,
    pub(super) complaints: Complaints,
}

/// What a worker begins with.
pub(super) struct Hands {
    pub(super) life: Rc<Life>,
    pub(super) reports: Sender<(Arc<Config>, Report)>,
    pub(super) notice: Arc<Notice>,
    pub(super) stock: Rc<RefCell<Blocks>>,
}

/// So many texts are there.
pub(super) const TEXTS: usize = 12;

/// Copies of what the access log wants of a request's head: method, target, host, request id, user agent, referer; the names of the session and
/// of its client; the consumer's; what has refused it, and the fault that was made for it.
#[derive(Debug, Default)]
pub(super) struct LogTexts {
    /// The texts one behind the other, and behind those what the file has chosen.
    pub(super) bytes: Vec<u8>,
    pub(super) ends: [u16; TEXTS],
}

/// Buffers that one call at a time parses and encodes with.
#[derive(Default)]
pub(super) struct Scratch {
    /// For heads of responses.
    pub(super) head: HeadScratch,
    /// What is too small to have a name.
    pub(super) text: Vec<u8>,
    /// A response's head for the client.
    pub(super) response: Vec<u8>,
    /// Lines for the endpoint that the gateway makes for this request.
    pub(super) lines: Vec<u8>,
    /// A query without the keys that stood in it, behind its `?`.
    pub(super) query: Vec<u8>,
    /// A query by the route's rules.
    pub(super) edited: Vec<u8>,
    /// A path in its one spelling.
    pub(super) spelling: String,
}

impl Worker {
    /// Takes the seat. Must be called inside the worker's runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(hands: Hands) -> io::Result<Rc<Self>> {
        let Hands { life, reports, notice, stock } = hands;
        #[expect(clippy::disallowed_methods, reason = "the one seed of this worker's own generator")]
        let rng = Rng::from_rng(&mut rand::rng());
        Ok(Rc::new(Self {
            life,
            reports,
            timers: Timers::new()?,
            blocks: stock,
            rng: RefCell::new(rng),
            scratch: RefCell::default(),
            armed: Cell::new(0),
            limit_texts: RefCell::default(),
            log_texts: RefCell::default(),
            mirrors: Cell::default(),
            compressions: Default::default(),
            held: Cell::default(),
            restated: Cell::default(),
            streams_ahead: Cell::default(),
            own_lines: RefCell::default(),
            charges: RefCell::default(),
            places: RefCell::default(),
            logins: RefCell::default(),
            runners: RefCell::default(),
            heads: RefCell::new(Vec::with_capacity(HEADS_KEPT)),
            epoch: Cell::new(epoch()),
            date: Cell::new((Instant::default(), date::format(0))),
            connections: Cell::new(0),
            handshakes: Handshakes::default(),
            draining: Cell::new(false),
            cutting: Cell::new(false),
            idle_until: Cell::new(Instant::default()),
            tunnels_end: Cell::new(Instant::NEVER),
            notice,
            is_broken: Cell::new(false),
            waiting_for_end: RefCell::default(),
            complaints: Complaints::default(),
        }))
    }

    /// Tells the control thread, without waiting: a full queue loses the report's line in the log, not what the metrics say. `config` has
    /// the rows that the report's ids are of.
    pub(super) fn report(&self, config: &Arc<Config>, report: Report) {
        let _ = self.reports.try_send((Arc::clone(config), report));
    }

    /// When a tunnel must end that has just carried a byte.
    pub(super) fn tunnel_deadline(&self, idle_timeout: Duration) -> Instant {
        (clock::now() + idle_timeout).min(self.tunnels_end.get())
    }

    /// Whether the time of tunnels is over.
    pub(super) fn tunnels_have_ended(&self) -> bool {
        clock::now() >= self.tunnels_end.get()
    }

    /// Gives the tunnels what the drain has, but for the moment that it takes to close and log them.
    pub(super) fn end_tunnels(&self, drain_timeout: Duration) {
        let limit = drain_timeout;
        let end = clock::now() + (limit - (limit / 10).min(CUT_BEFORE_DRAIN_ENDS));
        self.tunnels_end.set(end);
        self.timers.hurry_tunnels(end);
    }

    /// Shows that the loop turns, and does what is due now and then.
    pub(super) fn beat(&self, now: Instant) {
        self.life.turn(now);
        self.epoch.set(epoch());
        self.timers.look_for_gone_clients();
        self.runners.borrow_mut().trim();
        let mut blocks = self.blocks.borrow_mut();
        blocks.trim();
        self.life.publish_buffers(blocks.lent_bytes(), blocks.kept_bytes());
    }

    // ---- buffers ----

    /// Gives a block back.
    pub(super) fn put(&self, block: Block) {
        self.blocks.borrow_mut().put(block);
    }

    /// Room for a receive: an empty block is exchanged for one that fits what is still to come (`None`: unknown). `fast`: the last receive
    /// has filled its block, so more may be there already than a large block holds.
    pub(super) fn widen(&self, block: Block, left: Option<u64>, fast: bool) -> Block {
        if !block.is_empty() {
            return block;
        }
        let mut blocks = self.blocks.borrow_mut();
        let exceeds = |bytes: usize| left.is_none_or(|left| left > bytes as u64);
        let wanted = match (block.is_large(), exceeds(BLOCK_SMALL)) {
            (true, true) if fast && exceeds(BLOCK_LARGE) && !block.is_bulk() => blocks.bulk(),
            (true, true) if !fast && block.is_bulk() => Some(blocks.large()),
            (false, true) => Some(blocks.large()),
            (_, false) if block.room() == 0 => Some(blocks.small()),
            _ => None,
        };
        let Some(wanted) = wanted else { return block };
        blocks.put(block);
        wanted
    }

    /// Makes room for a head of up to `bytes_max` bytes in a block that is full.
    pub(super) fn grow(&self, block: &mut Block, bytes_max: usize) {
        let mut blocks = self.blocks.borrow_mut();
        let mut larger = blocks.large();
        larger.vec_mut().extend_from_slice(block.unread());
        larger.vec_mut().reserve_exact((bytes_max + 1 + TAILROOM).saturating_sub(block.unread().len()));
        blocks.put(std::mem::replace(block, larger));
    }

    /// Room in which a piece of a body is put into another form, for one call; it is empty.
    pub(super) fn restate_in_room<T>(&self, make: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut room = self.restated.take();
        let made = make(&mut room);
        room.clear();
        if room.capacity() <= BLOCK_BULK {
            self.restated.set(room);
        }
        made
    }

    /// Whether so many connections wait with a receive armed that others must do without.
    pub(super) fn is_crowded(&self) -> bool {
        self.armed.get() >= ARMED_RECEIVES_MAX
    }

    /// Counts a connection that waits with a receive armed, until the guard is dropped.
    pub(super) fn arm(&self) -> impl Drop + use<'_> {
        struct Armed<'w>(&'w Cell<usize>);
        impl Drop for Armed<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.armed.set(self.armed.get() + 1);
        Armed(&self.armed)
    }

    /// Room for a head that arrives.
    pub(super) fn room_for_head(&self) -> Box<Kept> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back.
    pub(super) fn put_head(&self, mut kept: Box<Kept>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < HEADS_KEPT && kept.head.room_bytes() <= HEAD_ROOM_KEPT_BYTES {
            kept.id = None;
            kept.identified = None;
            heads.push(kept);
        }
    }

    // ---- small texts ----

    /// Time since 1970-01-01T00:00:00Z at `now`. A clock that is set is noticed with the next beat.
    pub(super) fn wall(&self, now: Instant) -> Duration {
        Duration::from_nanos(now.as_nanos()) + self.epoch.get()
    }

    /// `Date` at `now`.
    pub(super) fn date(&self, now: Instant) -> HttpDate {
        let (until, text) = self.date.get();
        if now < until {
            return text;
        }
        let wall = self.wall(now);
        let text = date::format(wall.as_secs());
        // no longer than to the next beat, which notices a clock that was set
        let left = Duration::from_secs(1) - Duration::from_nanos(u64::from(wall.subsec_nanos()));
        self.date.set((now + left.min(super::BEAT), text));
        text
    }

    /// A buffer for an access log record.
    pub(super) fn log_texts(&self) -> LogTexts {
        self.log_texts.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back.
    pub(super) fn put_log_texts(&self, texts: LogTexts) {
        let mut kept = self.log_texts.borrow_mut();
        if kept.len() < LOG_TEXTS_KEPT {
            kept.push(texts);
        }
    }

    /// Room for what is to be paid when a response says how much.
    pub(super) fn room_for_charges(&self) -> Charges {
        self.charges.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back, if there is any.
    pub(super) fn put_charges(&self, charges: Charges) {
        let mut kept = self.charges.borrow_mut();
        if kept.len() < LOG_TEXTS_KEPT && charges.has_room() {
            kept.push(charges);
        }
    }

    /// Room for places in limits.
    pub(super) fn room_for_places(&self) -> Places {
        self.places.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back, empty.
    pub(super) fn put_places(&self, places: Places) {
        let mut kept = self.places.borrow_mut();
        if kept.len() < LOG_TEXTS_KEPT && places.has_room() {
            kept.push(places);
        }
    }

    /// Room for lines of a response.
    pub(super) fn room_for_own_lines(&self) -> OwnLines {
        self.own_lines.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back, if there is any.
    pub(super) fn put_own_lines(&self, lines: OwnLines) {
        let mut kept = self.own_lines.borrow_mut();
        if kept.len() < LOG_TEXTS_KEPT && lines.has_room() {
            kept.push(lines);
        }
    }
}

fn epoch() -> Duration {
    clock::wall().saturating_sub(Duration::from_nanos(clock::now().as_nanos()))
}
