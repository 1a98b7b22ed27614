//! Clients that keep asking while a test does something to the services.

use super::client::Client;
use super::gateway::Gateway;
use super::{eventually, lock};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A load that runs.
#[derive(Default)]
pub(crate) struct Load {
    asked: AtomicUsize,
    failures: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// Ends the load when the test is done with it, or fails.
struct End<'a>(&'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

impl Load {
    /// Waits until so many more requests were answered, or one has failed.
    pub(crate) fn goes_on_for(&self, requests: usize) {
        let goal = self.asked.load(Ordering::SeqCst) + requests;
        eventually("the clients get answers", || {
            (self.asked.load(Ordering::SeqCst) >= goal || self.has_failed()).then_some(())
        });
    }

    /// Whether a client has seen a failure; there is no use in going on.
    pub(crate) fn has_failed(&self) -> bool {
        !lock(&self.failures).is_empty()
    }

    /// GETs one after another, until the end or the first failure.
    fn ask(&self, mut client: Client) {
        while !self.over.load(Ordering::SeqCst) && !self.has_failed() {
            let failure = match client.try_get("/") {
                Ok(response) if response.status == 200 => None,
                Ok(response) => Some(format!("{} {}", response.status, response.text())),
                Err(error) => Some(error.to_string()),
            };
            lock(&self.failures).extend(failure);
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Four clients send GETs without a pause while `act` acts; fails if one of them saw anything but 200.
#[track_caller]
pub(crate) fn assert_no_failure_while(gateway: &Gateway, act: impl FnOnce(&Load)) {
    let load = Load::default();
    std::thread::scope(|scope| {
        let _end = End(&load);
        for _ in 0..4 {
            let client = gateway.client();
            scope.spawn(|| load.ask(client));
        }
        act(&load);
    });
    let failures = lock(&load.failures);
    assert!(failures.is_empty(), "of {} requests: {failures:?}", load.asked.load(Ordering::SeqCst));
}
