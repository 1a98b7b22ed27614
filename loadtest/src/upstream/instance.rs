//! One instance: its event loop. Sockets, control and due times meet here; what is answered is decided in `answer`.
//!
//! A turn waits for what has come or is due, whatever is first (`epoll_pwait2`, to the nanosecond), answers what is due, and then
//! reads. Few events are taken in a turn, so that what is due does not wait for them.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::connection::{Connection, Fate};
use super::control::{self, Control, Door, Order, Teller};
use super::counters::Counters;
use super::fault::Fault;
use super::responses::Responses;
use super::service::Service;
use super::times::Times;
use crate::clock;
use crate::units::Moment;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Events of one turn.
const EVENTS: usize = 32;
/// Read at once from one connection.
const READ_BYTES: usize = 64 << 10;

/// What an event is about: the upper half of its number; the lower half is a row.
const CONNECTION: u64 = 0;
const LISTENER: u64 = 1 << 32;
const TELLER: u64 = 2 << 32;
const DOOR: u64 = 3 << 32;
const ROW: u64 = (1 << 32) - 1;

/// A service that listens.
pub struct Instance {
    epoll: OwnedFd,
    listener: TcpListener,
    /// Nothing is accepted while there are no descriptors.
    is_accepting: bool,
    door: Option<Door>,
    /// By descriptor; the first of [`Control::Stdio`] is our parent.
    tellers: Vec<(u64, Teller)>,
    tellers_began: u64,
    has_parent: bool,
    /// By descriptor.
    connections: Vec<Option<Box<Connection>>>,
    /// When the first request of a connection is due: time, row, the connection's serial number.
    pub(super) queue: BinaryHeap<Reverse<(Moment, usize, u64)>>,
    pub(super) times: Times,
    pub(super) rng: SmallRng,
    pub(super) responses: Responses,
    pub(super) fault: Fault,
    /// End of a freeze.
    pub(super) frozen_until: Option<Moment>,
    pub(super) counters: Counters,
    pub(super) buffer: Vec<u8>,
}

impl Instance {
    /// Listens, on the service's address and for its control.
    ///
    /// # Errors
    /// The address or the path of the control socket is taken or cannot be used, or standard input is nothing that can be waited for.
    pub fn open(service: &Service, control: &Control) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let listener = listen(service.listen)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", service.listen)))?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut instance = Self {
            epoll,
            listener,
            is_accepting: true,
            door: None,
            tellers: Vec::new(),
            tellers_began: 0,
            has_parent: false,
            connections: Vec::new(),
            queue: BinaryHeap::new(),
            times: Times::new(service.time, service.seed),
            rng: SmallRng::seed_from_u64(service.seed ^ 1),
            responses: Responses::new(service.body_bytes),
            fault: Fault::Fine,
            frozen_until: None,
            counters: Counters::default(),
            buffer: vec![0; READ_BYTES],
        };
        match control {
            Control::None => {}
            Control::Stdio => {
                let parent = Teller::stdio()?;
                parent.say(&control::greeting(instance.address()?));
                instance.has_parent = true;
                instance.add_teller(parent).map_err(|error| {
                    io::Error::new(error.kind(), format!("standard input cannot be waited for: {error}"))
                })?;
            }
            Control::Unix(path) => {
                let door = Door::open(path)?;
                epoll::add(&instance.epoll, &door.listener, EventData::new_u64(DOOR), EventFlags::IN)?;
                instance.door = Some(door);
            }
        }
        Ok(instance)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Only what the kernel would not do to a listening socket.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until standard input ends ([`Control::Stdio`]); else for ever.
    ///
    /// # Errors
    /// What the kernel would not do to an event loop.
    pub fn serve(mut self) -> io::Result<()> {
        // due times are met to the microsecond instead of to 50 of them; where this cannot be had, so be it
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let no_event = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [no_event; EVENTS];
        loop {
            let timeout = self.until_next_due().map(clock::timespec);
            let count = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
                Ok(count) => count,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            };
            self.answer_what_is_due();
            for event in &events[..count] {
                let (what, flags) = (event.data.u64(), event.flags);
                match what & !ROW {
                    CONNECTION => self.on_connection((what & ROW) as usize, flags),
                    LISTENER => self.accept()?,
                    DOOR => self.let_in()?,
                    _ if self.hear(what & ROW) => {}
                    _ => return Ok(()),
                }
            }
        }
    }

    /// `None`: nothing will be due before something comes.
    fn until_next_due(&self) -> Option<Duration> {
        let Reverse((due, ..)) = self.queue.peek()?;
        let due = self.frozen_until.map_or(*due, |end| end.max(*due));
        Some(Duration::from_nanos(due.since(clock::now())))
    }

    fn answer_what_is_due(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let now = clock::now();
        if self.frozen_until.is_some_and(|end| now < end) {
            return;
        }
        self.frozen_until = None;
        while let Some(Reverse((due, row, serial))) = self.queue.peek().copied()
            && due <= now
        {
            self.queue.pop();
            self.with_connection(row, |instance, connection| {
                // another one may have its descriptor by now
                if connection.serial == serial { instance.on_due(connection, now) } else { Fate::Stays }
            });
        }
    }

    fn on_connection(&mut self, row: usize, flags: EventFlags) {
        self.with_connection(row, |instance, connection| {
            // everything after a hang-up or an error is in vain, but for what has come before it and is read first
            if flags.intersects(EventFlags::HUP | EventFlags::ERR) && connection.is_deaf {
                return Fate::Ends;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                return instance.on_readable(connection);
            }
            Fate::Stays
        });
    }

    /// Lets `go_on` do something with a connection, writes what is to be written, and does what has become necessary.
    fn with_connection(&mut self, row: usize, go_on: impl FnOnce(&mut Self, &mut Connection) -> Fate) {
        let Some(mut connection) = self.connections.get_mut(row).and_then(Option::take) else { return };
        let mut fate = go_on(self, &mut connection);
        if fate == Fate::Stays {
            let (answered, after) = connection.flush();
            self.counters.answered += answered;
            self.counters.in_flight -= answered;
            fate = if connection.is_over() { Fate::Ends } else { after };
        }
        if fate == Fate::Stays {
            let wanted = connection.interest_wanted();
            if wanted != connection.interest {
                connection.interest = wanted;
                let data = EventData::new_u64(CONNECTION | row as u64);
                if epoll::modify(&self.epoll, &connection.socket, data, wanted).is_err() {
                    fate = Fate::Ends;
                }
            }
        }
        if fate == Fate::Stays {
            self.enqueue(row, &mut connection);
            self.connections[row] = Some(connection);
        } else {
            self.bury(&connection, fate);
        }
    }

    fn bury(&mut self, connection: &Connection, fate: Fate) {
        self.counters.gone += connection.unanswered;
        self.counters.in_flight -= connection.unanswered;
        if fate == Fate::Resets {
            connection.will_reset();
        }
        if !self.is_accepting {
            // there is a descriptor again; where this fails it is tried at the next one's end
            let data = EventData::new_u64(LISTENER);
            self.is_accepting = epoll::add(&self.epoll, &self.listener, data, EventFlags::IN).is_ok();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        // a few at a time: what is due does not wait for a crowd
        for _ in 0..EVENTS {
            match rustix::net::accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => self.begin(socket),
                Err(Errno::WOULDBLOCK) => return Ok(()),
                // the client has gone already
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.is_accepting = false;
                    return Ok(epoll::delete(&self.epoll, &self.listener)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn begin(&mut self, socket: OwnedFd) {
        self.counters.connections += 1;
        let row = socket.as_raw_fd() as usize;
        if sockopt::set_tcp_nodelay(&socket, true).is_err()
            || epoll::add(&self.epoll, &socket, EventData::new_u64(CONNECTION | row as u64), EventFlags::IN).is_err()
        {
            return;
        }
        if self.connections.len() <= row {
            self.connections.resize_with(row + 1, || None);
        }
        self.connections[row] = Some(Box::new(Connection::new(socket, self.counters.connections)));
    }

    fn let_in(&mut self) -> io::Result<()> {
        let Some(door) = &self.door else { return Ok(()) };
        match door.listener.accept() {
            Ok((stream, _)) => self.add_teller(Teller::connected(stream)?),
            // gone already, or no descriptors: it may come again
            Err(_) => Ok(()),
        }
    }

    fn add_teller(&mut self, teller: Teller) -> io::Result<()> {
        let number = self.tellers_began;
        epoll::add(&self.epoll, teller.input().as_fd(), EventData::new_u64(TELLER | number), EventFlags::IN)?;
        self.tellers_began += 1;
        self.tellers.push((number, teller));
        Ok(())
    }

    /// Hears a teller out; `false`: it was our parent, and it is over.
    fn hear(&mut self, number: u64) -> bool {
        let Some(row) = self.tellers.iter().position(|(other, _)| *other == number) else { return true };
        let lines = self.tellers[row].1.lines();
        let mut is_there = lines.is_some();
        for line in lines.into_iter().flatten() {
            let answer = self.obey(&line);
            is_there &= self.tellers[row].1.say(&answer);
            if matches!(line.parse(), Ok(Order::Die)) {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }
        if is_there {
            return true;
        }
        // its descriptors leave epoll with it only where nobody has a copy of them
        let _ = epoll::delete(&self.epoll, self.tellers[row].1.input());
        self.tellers.remove(row);
        !(self.has_parent && number == 0)
    }

    fn obey(&mut self, line: &str) -> String {
        match line.parse() {
            Ok(Order::Fault(fault)) => {
                match fault {
                    Fault::Freeze(time) => self.frozen_until = Some(clock::now() + time),
                    _ => (self.fault, self.frozen_until) = (fault, None),
                }
                control::acknowledgement(fault)
            }
            Ok(Order::Counters | Order::Die) => control::numbers(&self.counters),
            Err(error) => control::complaint(&error),
        }
    }
}

/// Listens where another process may have bound the port without listening (`processes::Port`).
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    crate::machine::take_descriptors();
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}
