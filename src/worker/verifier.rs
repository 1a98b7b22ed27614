//! Threads that verify passwords, off the event loops: what is slow on purpose must not hold up a core.
//!
//! All workers share them. They have a lower priority than the workers, and a queue with an end; whoever finds it full is told so at once. A verdict goes
//! to the worker that has asked. With the last configuration that has passwords they end.

use crate::config::{Config, PasswordHash};
use crate::limits::{PASSWORD_THREADS_MAX, PASSWORDS_QUEUED_MAX};
use crate::net::guarded::caught;
use crate::net::mailbox::Sender;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
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

/// What has come of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) key: Key,
    /// `None`: nobody waited for it any more, and it was not verified.
    pub(super) is_right: Option<bool>,
}

/// The threads' queue.
#[derive(Debug)]
pub(super) struct Verifier {
    queue: SyncSender<Job>,
}

/// Where the threads take from. A lock, because a queue has one end; each takes one password at a time, and none of them is a worker.
#[expect(clippy::disallowed_types, reason = "taken by the threads that verify, and by no worker")]
type Queue = std::sync::Mutex<Receiver<Job>>;

impl Verifier {
    /// The one that there is, or a new one, if anybody logs in under `config`.
    pub(super) fn of(config: &Config, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        config.auth.iter().any(|way| way.logins().is_some()).then(|| match before {
            Some(before) => Arc::clone(before),
            None => Arc::new(Self::new((config.gateway.cores.len() / 2).clamp(1, PASSWORD_THREADS_MAX))),
        })
    }

    fn new(threads: usize) -> Self {
        let (queue, jobs) = sync_channel(PASSWORDS_QUEUED_MAX);
        let jobs = Arc::new(Queue::new(jobs));
        for number in 0..threads {
            let jobs = Arc::clone(&jobs);
            let thread = std::thread::Builder::new().name(format!("password-{number}"));
            if let Err(error) = thread.spawn(move || run(&jobs)) {
                tracing::error!("a thread that verifies passwords cannot begin: {error}");
            }
        }
        Self { queue }
    }

    /// Has it verified; false: too much waits already.
    pub(super) fn submit(&self, job: Job) -> bool {
        self.queue.try_send(job).is_ok()
    }
}

fn run(jobs: &Queue) {
    // where it is forbidden they have the same priority
    let _ = rustix::process::nice(NICER);
    loop {
        // a panic while it is held leaves a queue that is whole
        let job = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok(Job { key, hash, password, wanted, to }) = job else { return };
        let is_wanted = wanted.strong_count() > 0;
        let is_right = is_wanted.then(|| caught(|| hash.is_of(&password)).unwrap_or_default());
        to.send(Verdict { key, is_right });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::parse_for;
    use crate::net::mailbox::mailbox;

    #[test]
    fn no_more_waits_than_the_queue_holds_and_the_threads_end_with_it() {
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nauth = [\"login\"]\nrespond = {}\n[auth.login]\nbasic = {}\n\
            [consumer.acme]\nbasic = { password = \"$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6\" }\n";
        let config = parse_for(text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        let hash = &config.auth[0].logins().unwrap().all[0].hash;
        let (sender, _mailbox) = mailbox::<Verdict>().unwrap();
        let job = || Job {
            key: [0; 32],
            hash: Arc::clone(hash),
            password: Zeroizing::default(),
            wanted: Weak::new(),
            to: sender.clone(),
        };
        let idle = Verifier::new(0);
        assert!(!idle.submit(job()), "there is nobody to do it");
        let (queue, jobs) = sync_channel(PASSWORDS_QUEUED_MAX);
        let full = Verifier { queue };
        assert_eq!((0..2 * PASSWORDS_QUEUED_MAX).filter(|_| full.submit(job())).count(), PASSWORDS_QUEUED_MAX);
        drop(full);
        run(&Queue::new(jobs)); // does what is there, and ends
        let first = Verifier::of(&config, None).unwrap();
        assert!(Arc::ptr_eq(&first, &Verifier::of(&config, Some(&first)).unwrap()));
    }
}
