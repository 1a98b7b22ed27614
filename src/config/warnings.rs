//! What a configuration that is fine probably does not mean.
//!
//! Errors keep a gateway from starting; these do not, because each is right at times: an upstream stands ready for a route to come, and
//! all endpoints are drained before a service is taken away. Forgotten, both are outages that nothing else points out.

use super::{Config, Target};

/// One sentence each, in file order; empty for most files.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let mut used = vec![false; config.clusters.len()];
    for route in &config.routes {
        if let Target::Upstream(parts) = &route.target {
            parts.iter().for_each(|(cluster, _)| used[cluster.index()] = true);
        }
    }
    let mut warnings = Vec::new();
    for (cluster, used) in config.clusters.iter().zip(used) {
        if !used {
            warnings.push(format!("upstream.{}: no route uses it", cluster.name));
        }
        if cluster.endpoints.iter().all(|endpoint| endpoint.weight.0 == 0) {
            let name = &cluster.name;
            warnings.push(format!(
                "upstream.{name}: every endpoint has weight 0, so all its requests are answered with 503"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        warnings(&crate::config::parse(text, "f").unwrap_or_else(|errors| panic!("{errors}")))
    }

    #[test]
    fn upstreams_that_get_or_answer_nothing_are_named() {
        let drained = "endpoints = [{ address = \"10.0.0.1:1\", weight = 0 }]";
        let mixed = "endpoints = [{ address = \"10.0.0.1:1\", weight = 0 }, { address = \"10.0.0.2:1\" }]";
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nsplit = [{{ upstream = \"a\", weight = 1 }}, \
             {{ upstream = \"b\", weight = 0 }}]\n[upstream.a]\n{mixed}\n[upstream.b]\n{drained}\n[upstream.c]\n{mixed}\n"
        );
        assert_eq!(
            of(&text),
            [
                "upstream.b: every endpoint has weight 0, so all its requests are answered with 503",
                "upstream.c: no route uses it"
            ]
        );
    }
}
