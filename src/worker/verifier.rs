//! Threads that verify passwords, off the event loops: what is slow on purpose must not hold up a core.
//!
//! All workers share them. They have a lower priority than the workers, and a queue with an end, in which clients take turns
//! ([`crate::policy::fair_queue`]): who guesses passwords by the hundred makes nobody wait but himself. Whoever finds no room is told so at once, and
//! what nobody waits for any more takes none. A verdict goes to the worker that has asked. With the last configuration that has passwords the threads end.
//!
//! The queue has a lock, because a queue has one end. Threads hold it for some hundred instructions, and a worker waits for it: they are nicer than
//! workers, so who holds it may have lost its core, and a full machine is no full queue.

use crate::config::{Config, PasswordHash};
use crate::limits::{PASSWORD_THREADS_MAX, PASSWORDS_QUEUED_MAX, PASSWORDS_SHARE_MAX};
use crate::net::guarded::caught;
use crate::net::mailbox::Sender;
use crate::policy::fair_queue::{FairQueue, Pushed};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, PoisonError, Weak};
use zeroize::Zeroizing;

/// Added to the niceness of the threads: beside a busy worker they have a tenth of a core.
const NICER: i32 = 10;

/// Stands for a password and whose it is said to be; a keyed hash.
pub(super) type Key = [u8; 32];

/// What is to be verified.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) hash: Arc<PasswordHash>,
    pub(super) password: Zeroizing<Vec<u8>>,
    /// As long as somebody waits for it.
    pub(super) wanted: Weak<()>,
    /// Who wants to know.
    pub(super) to: Sender<Verdict>,
}

impl Job {
    fn is_wanted(&self) -> bool {
        self.wanted.strong_count() > 0
    }

    /// It is told what has come of it; a worker whose mailbox is full has its requests wait for their end.
    fn tell(&self, finding: Finding) {
        self.to.send(Verdict { key: self.key, finding });
    }
}

/// What has come of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) key: Key,
    pub(super) finding: Finding,
}

/// See [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is right.
    Right,
    /// It is wrong.
    Wrong,
    /// It was not verified: it gave way to somebody who waits for less.
    GaveWay,
    /// It was not verified: nobody waited for it any more.
    Unwanted,
}

/// What the threads and the workers share.
#[expect(clippy::disallowed_types, reason = "the threads that verify wait for it, and no worker does")]
struct Shared {
    queue: std::sync::Mutex<State>,
    work: Condvar,
}

struct State {
    jobs: FairQueue<Job>,
    /// Nobody will ask any more.
    is_over: bool,
}

/// The threads' queue.
pub(super) struct Verifier {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.shared.work.notify_all();
    }
}

impl Verifier {
    /// The one that there is, or a new one, if anybody logs in under `config`.
    pub(super) fn of(config: &Config, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        config.auth.iter().any(|way| way.logins().is_some()).then(|| match before {
            Some(before) => Arc::clone(before),
            None => Arc::new(Self::new((config.gateway.cores.len() / 2).clamp(1, PASSWORD_THREADS_MAX))),
        })
    }

    fn new(threads: usize) -> Self {
        let jobs = FairQueue::new(PASSWORDS_QUEUED_MAX, PASSWORDS_SHARE_MAX);
        let state = State { jobs, is_over: false };
        let shared = Arc::new(Shared { queue: state.into(), work: Condvar::new() });
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("password-{number}"));
            if let Err(error) = thread.spawn(move || run(&shared)) {
                tracing::error!("a thread that verifies passwords cannot begin: {error}");
            }
        }
        Self { shared }
    }

    /// Has it verified for a client; false: too much waits already, or too much of this client's.
    pub(super) fn submit(&self, client: IpAddr, job: Job) -> bool {
        // a panic while it is held leaves a queue that is whole
        let mut state = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(left) = state.jobs.take_unwanted(Job::is_wanted) {
            left.tell(Finding::Unwanted);
        }
        match state.jobs.push(client, job) {
            Pushed::Waits => self.shared.work.notify_one(),
            Pushed::InPlaceOf(other) => other.tell(Finding::GaveWay), // the threads have work
            Pushed::Refused(_) => return false,
        }
        true
    }
}

fn run(shared: &Shared) {
    // where it is forbidden they have the same priority
    let _ = rustix::process::nice(NICER);
    loop {
        let state = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = None;
        let waited = shared.work.wait_while(state, |state| {
            next = state.jobs.pop();
            next.is_none() && !state.is_over
        });
        drop(waited);
        let Some(job) = next else { return };
        let finding = match job.is_wanted() {
            false => Finding::Unwanted,
            true if caught(|| job.hash.is_of(&job.password)).unwrap_or_default() => Finding::Right,
            true => Finding::Wrong,
        };
        job.tell(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::parse_for;
    use crate::net::mailbox::mailbox;

    fn client(n: usize) -> IpAddr {
        IpAddr::from([10, 0, (n >> 8) as u8, n as u8])
    }

    #[test]
    fn no_more_waits_than_the_queue_holds_and_the_threads_end_with_it() {
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nauth = [\"login\"]\nrespond = {}\n[auth.login]\nbasic = {}\n\
            [consumer.acme]\nbasic = { password = \"$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6\" }\n";
        let config = parse_for(text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        let hash = &config.auth[0].logins().unwrap().all[0].hash;
        let (sender, _mailbox) = mailbox::<Verdict>().unwrap();
        let job = |wanted: &Arc<()>| Job {
            key: [0; 32],
            hash: Arc::clone(hash),
            password: Zeroizing::default(),
            wanted: Arc::downgrade(wanted),
            to: sender.clone(),
        };
        let (waits, left) = (Arc::new(()), Arc::new(()));
        let idle = Verifier::new(0);
        let of_one = (0..PASSWORDS_QUEUED_MAX).filter(|_| idle.submit(client(0), job(&waits))).count();
        assert_eq!(of_one, PASSWORDS_SHARE_MAX, "one client has its share");
        let others = (1..2 * PASSWORDS_QUEUED_MAX).filter(|n| idle.submit(client(*n), job(&left))).count();
        assert_eq!(others, PASSWORDS_QUEUED_MAX - 1, "the one who has several gives way to who has none");
        assert!(!idle.submit(client(999), job(&waits)));
        drop(left);
        let again = (1..2 * PASSWORDS_QUEUED_MAX).filter(|n| idle.submit(client(*n), job(&waits))).count();
        assert_eq!(again, PASSWORDS_QUEUED_MAX - 1, "what nobody waits for takes no room");
        let shared = Arc::clone(&idle.shared);
        drop(idle);
        run(&shared); // does what is there, and ends
        assert!(shared.queue.lock().unwrap().jobs.pop().is_none());
        let first = Verifier::of(&config, None).unwrap();
        assert!(Arc::ptr_eq(&first, &Verifier::of(&config, Some(&first)).unwrap()));
    }
}
