//! An upgrade, as the control thread sees it ([`crate::control::upgrade`]): meanwhile it looks after everything as before.

use super::thread::{Control, HealthChange};
use super::{LOOK, Wish, interval};
use crate::config::{Bind, Listener};
use crate::control::reports;
use crate::control::systemd;
use crate::control::upgrade::{Door, Given, NotUpgraded, Place, Serving, Upgraded, give};
use crate::net::clock;
use crate::net::listener;
use crate::worker::DoorKey;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

impl Control {
    /// Has the next process take over. When it serves this one is to drain, and says so in the log too.
    pub(super) async fn upgrade(
        &mut self,
        (_, changes): (&UnboundedSender<HealthChange>, &mut UnboundedReceiver<HealthChange>),
    ) -> Result<Upgraded, NotUpgraded> {
        let outcome = self.try_upgrade(changes).await;
        match &outcome {
            Ok(Upgraded { pid, version }) => {
                tracing::info!("upgraded: process {pid} serves, version={version}; this one drains");
            }
            Err(why) => {
                let errors = why.errors();
                tracing::error!("not upgraded, this process goes on: errors={}", errors.len());
                errors.iter().for_each(|error| tracing::error!("not upgraded: {}", error.replace('\n', "; ")));
            }
        }
        outcome
    }

    async fn try_upgrade(&mut self, changes: &mut UnboundedReceiver<HealthChange>) -> Result<Upgraded, NotUpgraded> {
        if *self.wished.borrow() >= Wish::Drain {
            return Err(NotUpgraded::Draining);
        }
        self.limiting.quotas.settle().await;
        let (given, keys) = self.to_give().map_err(|error| NotUpgraded::Failed(vec![error.to_string()]))?;
        let shared = Arc::clone(self.crew.shared());
        let giving = tokio::task::spawn_blocking(move || give(given, || shared.estate(clock::now())));
        let (mut giving, mut look) = (pin!(giving), interval(LOOK));
        let given = loop {
            tokio::select! {
                given = &mut giving => break given,
                _ = look.tick() => self.look(),
                Some(changed) = changes.recv() => self.tell_health(changed),
                Some((config, report)) = self.reported.recv() => reports::log(&config, report),
            }
        };
        let panicked = |_| NotUpgraded::Failed(vec!["the upgrade has panicked".to_owned()]);
        let (upgraded, Serving { taken, .. }) = given.map_err(panicked)??;
        systemd::upgraded(upgraded.pid);
        self.handed = Some(keys.into_iter().zip(taken).collect());
        Ok(upgraded)
    }

    /// Everything that this process listens on, and by what the workers know it.
    fn to_give(&self) -> io::Result<(Given, Vec<DoorKey>)> {
        let listeners = &self.crew.shared().config.listeners;
        let sockets = self.crew.duplicate_sockets()?;
        let keys = sockets.iter().map(|(key, _)| key.clone()).collect();
        let door = |(listener, (_, sockets)): (&Listener, (DoorKey, Vec<OwnedFd>))| {
            Ok((door(&listener.name, &listener.bind, &sockets)?, sockets))
        };
        let doors = listeners.iter().zip(sockets).map(door).collect::<io::Result<_>>()?;
        let admin = self.admin.as_ref().map(|admin| admin.passing.duplicate()).transpose()?.flatten();
        let listen = &self.crew.shared().config.admin.listen;
        let admin = admin.map(|socket| Ok::<_, io::Error>((door_of_admin(listen, &socket)?, socket))).transpose()?;
        Ok((Given { doors, admin }, keys))
    }

    /// Drains what the next process does not serve; what it has taken, it has.
    pub(super) fn leave_to_next(&mut self, taken: &[(DoorKey, usize)]) {
        self.crew.hand_over(taken);
        let is_taken = |key: &DoorKey| taken.iter().any(|(other, sockets)| other == key && *sockets > 0);
        self.files.iter().filter(|(key, _)| is_taken(key)).for_each(|(_, file)| file.leaver().leave());
        if let Some(admin) = &self.admin {
            admin.passing.leave();
            admin.closing.notify_one();
        }
    }
}

fn door(name: &str, bind: &Bind, sockets: &[OwnedFd]) -> io::Result<Door> {
    let at = match (bind, sockets.first()) {
        (Bind::Tcp(_), Some(socket)) => Place::from(&listener::address_of(socket)?),
        _ => Place::from(bind),
    };
    Ok(Door { name: name.to_owned(), place: Place::from(bind), at, sockets: sockets.len() })
}

fn door_of_admin(bind: &Bind, socket: &OwnedFd) -> io::Result<Door> {
    door("admin", bind, std::slice::from_ref(socket))
}
