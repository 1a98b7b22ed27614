//! What is known of a cluster's endpoints, by what they are called: an upgrade passes it on.

use super::Common;
use crate::config;
use crate::policy::standings::{Standings, Words};
use crate::units::EndpointId;
use std::collections::HashMap;

impl Common {
    /// What is known of the endpoints of `config`, which this is of, by what they are called. Nothing of most.
    pub fn known<'c>(&'c self, config: &'c config::Cluster) -> impl Iterator<Item = (String, Words)> + 'c {
        let words = |(row, name)| Some((name, self.standings.words(EndpointId::from_index(row))?));
        names(config).into_iter().enumerate().filter_map(words)
    }

    /// Takes on what was known of endpoints of the same cluster by another process. Before any request is served.
    pub fn take_on(&self, config: &config::Cluster, mut known: HashMap<String, Words>) {
        let (rows, words): (Vec<_>, Vec<_>) = names(config)
            .into_iter()
            .enumerate()
            .filter_map(|(row, name)| Some((EndpointId::from_index(row), known.remove(&name)?)))
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

/// What each endpoint is called: by its address, and the same address once more by its number too.
fn names(config: &config::Cluster) -> Vec<String> {
    let mut twins: HashMap<String, u64> = HashMap::new();
    let name = |endpoint: &config::Endpoint| {
        let address = endpoint.identity();
        let twin = twins.entry(address.clone()).and_modify(|twin| *twin += 1).or_insert(0);
        format!("{address}#{twin}")
    };
    config.endpoints.iter().map(name).collect()
}
