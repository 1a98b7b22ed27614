//! Passwords that this worker knows to be right, and those that are being verified for it ([`super::verifier`]).
//!
//! What is kept is a keyed hash over the hash of the configuration and what was shown, never a password; the key is this worker's and told to
//! nobody. So a reload that changes somebody's password makes what was known of it useless, and nothing else. Only what was right is
//! kept, no longer than [`PASSWORD_KNOWN`], and bounded as tokens are ([`super::believed`]). A request that shows what is being verified
//! already waits for that.

use super::inbound::Inbound;
use super::notice::Reason;
use super::state::Worker;
use super::verifier::{Finding, Job, Key, Verdict, Verifier};
use crate::config::PasswordHash;
use crate::error::ProxyError;
use crate::limits::{PASSWORD_KNOWN, PASSWORD_PATIENCE, PASSWORDS_KNOWN_MAX};
use crate::net::clock;
use crate::net::mailbox::{Sender, mailbox};
use crate::policy::login::Credentials;
use crate::units::Instant;
use aws_lc_rs::{hmac, rand};
use rustc_hash::FxHashMap;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use zeroize::Zeroizing;

/// What is known of a password.
pub(super) enum Known {
    /// It is right.
    Right,
    /// It is being verified.
    Soon(Rc<Pending>),
    /// Nobody has time to verify it.
    Busy,
}

/// A password that is being verified.
#[derive(Debug, Default)]
pub(super) struct Pending {
    finding: Cell<Option<Finding>>,
    wakers: RefCell<Vec<Waker>>,
    /// Gone with the last who waits.
    wanted: Arc<()>,
}

impl Pending {
    /// Waits for the verdict on behalf of a client, as long as that is there.
    ///
    /// # Errors
    /// There is none in time, or nobody to tell it to.
    pub(super) async fn verdict(&self, inbound: &Inbound<'_>, until: Instant) -> Result<bool, ProxyError> {
        let watch = inbound.worker.timers.watch();
        let _guard = watch.over_pause(until.min(clock::now() + PASSWORD_PATIENCE)).on_behalf_of(inbound.watch);
        let heard = poll_fn(|cx| match self.finding.get() {
            Some(finding) => Poll::Ready(Some(finding)),
            None if watch.poll_passed(cx).is_ready() => Poll::Ready(None),
            None => self.wait(cx),
        });
        match heard.await {
            _ if inbound.has_left() => Err(ProxyError::ClientClosed),
            Some(Finding::Right) => Ok(true),
            Some(Finding::Wrong) => Ok(false),
            Some(Finding::GaveWay | Finding::Unwanted) => Err(ProxyError::AuthenticationBusy),
            None if inbound.worker.is_cutting() => Err(ProxyError::Draining),
            None => Err(ProxyError::AuthenticationBusy),
        }
    }

    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// The memory.
pub(super) struct Logins {
    secret: hmac::Key,
    young: FxHashMap<Key, Instant>,
    old: FxHashMap<Key, Instant>,
    /// Those that are at the threads; who waits has them.
    pending: FxHashMap<Key, Weak<Pending>>,
    /// Where verdicts arrive, once somebody has asked for one.
    verdicts: OnceCell<Sender<Verdict>>,
}

impl Default for Logins {
    fn default() -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rand::fill(&mut *secret).expect("the system has random bytes");
        Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &*secret),
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            pending: FxHashMap::default(),
            verdicts: OnceCell::new(),
        }
    }
}

impl Logins {
    /// Allocates nothing.
    fn key(&self, hash: &PasswordHash, shown: &Credentials) -> Key {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(hash.secret());
        context.update(b"\0"); // neither has one
        context.update(shown.whole());
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    fn is_known(&mut self, key: &Key, now: Instant) -> bool {
        if let Some(until) = self.young.get(key) {
            return now < *until;
        }
        let Some(until) = self.old.remove(key).filter(|until| now < *until) else { return false };
        self.keep(*key, until);
        true
    }

    fn keep(&mut self, key: Key, until: Instant) {
        if self.young.len() >= PASSWORDS_KNOWN_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, until);
    }

    /// Takes a verdict in.
    fn settle(&mut self, Verdict { key, finding }: Verdict, now: Instant) {
        if finding == Finding::Right {
            self.keep(key, now + PASSWORD_KNOWN);
        }
        let Some(pending) = self.pending.get(&key).map(Weak::upgrade) else { return };
        // nobody waited for the first of two, and somebody does for the second, which is still to come
        let is_settled = finding != Finding::Unwanted;
        if pending.is_none() || is_settled {
            self.pending.remove(&key);
        }
        let Some(pending) = pending.filter(|_| is_settled) else { return };
        pending.finding.set(Some(finding));
        pending.wakers.take().into_iter().for_each(Waker::wake);
    }
}

impl Worker {
    /// Whether a password is right, as far as it is known by now; has it verified otherwise, for this client.
    pub(super) fn look_up(
        self: &Rc<Self>,
        verifier: &Verifier,
        hash: &Arc<PasswordHash>,
        (client, shown): (IpAddr, &Credentials),
        now: Instant,
    ) -> Known {
        let key = self.logins.borrow().key(hash, shown);
        if self.logins.borrow_mut().is_known(&key, now) {
            return Known::Right;
        }
        if let Some(pending) = self.logins.borrow().pending.get(&key).and_then(Weak::upgrade) {
            return Known::Soon(pending);
        }
        let Some(to) = self.verdicts() else { return Known::Busy };
        let password = Zeroizing::new(shown.password().to_vec());
        let pending = Rc::<Pending>::default();
        let wanted = Arc::downgrade(&pending.wanted);
        if !verifier.submit(client, Job { key, hash: Arc::clone(hash), password, wanted, to }) {
            return Known::Busy;
        }
        self.logins.borrow_mut().pending.insert(key, Rc::downgrade(&pending));
        Known::Soon(pending)
    }

    /// Where verdicts for this worker go; `None`: no descriptor is left for that.
    fn verdicts(self: &Rc<Self>) -> Option<Sender<Verdict>> {
        if let Some(sender) = self.logins.borrow().verdicts.get() {
            return Some(sender.clone());
        }
        let (sender, mailbox) = mailbox().ok()?;
        let worker = Rc::clone(self);
        super::spawn(self, Reason::Unreachable, async move {
            let _ = mailbox.run(|verdict| worker.logins.borrow_mut().settle(verdict, clock::now())).await;
        });
        let _ = self.logins.borrow().verdicts.set(sender.clone());
        Some(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(n: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }

    #[test]
    fn what_was_right_is_known_for_a_while_and_no_more_than_there_is_room_for() {
        let mut logins = Logins::default();
        let at = |secs: u64| Instant::default() + Duration::from_secs(secs);
        logins.settle(Verdict { key: key(0), finding: Finding::Right }, at(0));
        logins.settle(Verdict { key: key(1), finding: Finding::Wrong }, at(0));
        assert!(logins.is_known(&key(0), at(1)) && !logins.is_known(&key(1), at(1)));
        for n in 2..3 * PASSWORDS_KNOWN_MAX {
            logins.settle(Verdict { key: key(n), finding: Finding::Right }, at(1));
            assert!(logins.is_known(&key(0), at(1)), "who comes often stays");
            assert!(logins.young.len() + logins.old.len() <= PASSWORDS_KNOWN_MAX);
        }
        assert!(!logins.is_known(&key(2), at(1)));
        assert!(!logins.is_known(&key(0), at(0) + PASSWORD_KNOWN), "however often it was asked for");
    }

    #[test]
    fn the_key_depends_on_the_secret_the_hash_and_what_is_shown() {
        let (one, other) = (Logins::default(), Logins::default());
        let login = |password: &str| {
            let text = format!(
                "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nauth = [\"l\"]\nrespond = {{}}\n[auth.l]\nbasic = {{}}\n\
                 [consumer.a]\nbasic = {{ password = \"{password}\" }}\n"
            );
            let config = crate::config::check::parse_for(&text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
            Arc::clone(&config.auth[0].logins().unwrap().all[0].hash)
        };
        let first = login("$5$saltsalt$/X0X0fnc0FfdbQM4NSwVJRAANgCz4g7XuUPhSpHZ4W6");
        let second = login("$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6");
        let shown = |text: &[u8]| Credentials::decode(text).unwrap();
        let (ab, ac) = (shown(b"YTpi"), shown(b"YTpj"));
        let keys = [one.key(&first, &ab), one.key(&first, &ac), one.key(&second, &ab), other.key(&first, &ab)];
        let distinct: std::collections::HashSet<_> = keys.into_iter().collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(one.key(&first, &ab), keys[0]);
    }

    #[test]
    fn a_password_that_nobody_waits_for_is_not_verified_and_is_forgotten() {
        let (mut logins, at) = (Logins::default(), Instant::default());
        let (gone, waits) = (Rc::<Pending>::default(), Rc::<Pending>::default());
        logins.pending.insert(key(0), Rc::downgrade(&gone));
        let wanted = Arc::downgrade(&gone.wanted);
        assert_eq!(wanted.strong_count(), 1);
        drop(gone);
        assert_eq!(wanted.strong_count(), 0);
        logins.settle(Verdict { key: key(0), finding: Finding::Unwanted }, at);
        assert!(logins.pending.is_empty());
        // who asks for the same after all gets the verdict of his own
        logins.pending.insert(key(0), Rc::downgrade(&waits));
        logins.settle(Verdict { key: key(0), finding: Finding::Unwanted }, at);
        assert_eq!((waits.finding.get(), logins.pending.len()), (None, 1));
        logins.settle(Verdict { key: key(0), finding: Finding::Right }, at);
        assert_eq!((waits.finding.get(), logins.pending.len()), (Some(Finding::Right), 0));
    }
}
