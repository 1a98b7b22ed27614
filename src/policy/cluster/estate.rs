//! What is known of a cluster's endpoints, by what they are known by: an upgrade passes it on. That is a hash of names and addresses which is
//! the same in every process, as consistent hashing needs it to be.

use super::{Common, identities};
use crate::config;
use crate::policy::standings::{Standings, Words};
use crate::units::EndpointId;
use std::collections::HashMap;

impl Common {
    /// What is known of the endpoints of `config`, which this is of, by what they are known by. Nothing of most.
    pub fn known<'c>(&'c self, config: &'c config::Cluster) -> impl Iterator<Item = (u64, Words)> + 'c {
        let words = |(row, identity)| Some((identity, self.standings.words(EndpointId::from_index(row))?));
        identities(config).into_iter().enumerate().filter_map(words)
    }

    /// Takes on what was known of endpoints of the same cluster by another process. Before any request is served.
    pub fn take_on(&self, config: &config::Cluster, mut known: HashMap<u64, Words>) {
        let (rows, words): (Vec<_>, Vec<_>) = identities(config)
            .into_iter()
            .enumerate()
            .filter_map(|(row, identity)| Some((EndpointId::from_index(row), known.remove(&identity)?)))
            .unzip();
        let before = Standings::from_words(&words);
        for (row, (id, words)) in rows.into_iter().zip(&words).enumerate() {
            if config.outlier.is_some() {
                self.standings.inherit(id, &before, EndpointId::from_index(row));
            }
            // without a check nobody would ever call it up again
            self.standings.set_healthy(id, !(words.down && config.health_check.is_some()));
        }
    }
}
