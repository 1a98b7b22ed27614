//! What is worth a second look about certificates and keys.
//!
//! A certificate that has ended is no error: the gateway with the old one is better than none, and the clock may be wrong.

use super::{Config, Origin};
use std::time::Duration;

/// What is to be said of certificates, now that it is `wall` since 1970: one sentence each.
pub(super) fn of(config: &Config, wall: Duration) -> Vec<String> {
    let now = i64::try_from(wall.as_secs()).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    for listener in &config.listeners {
        if let Some(log) = listener.tls.as_ref().and_then(|tls| tls.key_log.as_ref()) {
            found.push(format!(
                "listener {:?}: tls.key_log: the secrets of all sessions are written to {}: whoever reads it can read all that is said",
                listener.name,
                log.path().display()
            ));
        }
        let certificates = listener.tls.iter().flat_map(|tls| tls.names.all().iter().zip(&tls.origins));
        for (certificate, origin) in certificates {
            let mut say = |what: String| {
                found.push(format!("listener {:?}: {}: {what}", listener.name, origin.chain.display()));
            };
            if let Some(why) = &origin.kept {
                say(format!("the certificate that was there before goes on: {why}"));
            }
            if certificate.names.is_empty() {
                say("the certificate is for no name, so clients will not believe it".to_owned());
            }
            if certificate.not_before > now {
                say("the certificate is not valid yet".to_owned());
            }
            match certificate.not_after - now {
                ..=0 => say("the certificate has ended, so clients will not believe it".to_owned()),
                left if left < SOON => say(format!("the certificate ends in {} h", left / 3_600)),
                _ => {}
            }
            found.extend(exposed(&format!("listener {:?}", listener.name), origin));
        }
    }
    for cluster in &config.clusters {
        let Some(tls) = &cluster.tls else { continue };
        let name = format!("upstream.{}", cluster.name);
        if tls.is_credulous {
            found.push(format!(
                "{name}.tls: insecure_skip_verify = true: any certificate is believed, so that who is on the way can read and change \
                 everything"
            ));
        }
        found.extend(tls.origin.iter().filter_map(|origin| exposed(&name, origin)));
    }
    found
}

/// A certificate that ends within this time should have been renewed: 7 days, in seconds.
const SOON: i64 = 7 * 86_400;

fn exposed(whose: &str, origin: &Origin) -> Option<String> {
    let key = origin.key.display();
    origin.is_exposed.then(|| format!("{whose}: every user of this machine can read the private key {key}: chmod o-r"))
}
