//! Rules that can never hold, and ways to be recognised that nobody takes: legal, and most likely not what was meant.

use super::by_path;
use super::{Access, Auth, Captures, Config, LimitKey, Piece, Proof, Rule, Template, Variable};
use crate::units::AuthId;
use rustc_hash::FxHashSet;

/// One sentence each, in the order of the file's tables.
pub(super) fn of(config: &Config) -> Vec<String> {
    let names: FxHashSet<&str> = config.consumers.all.iter().map(|consumer| &*consumer.name).collect();
    let groups: FxHashSet<&str> = config.consumers.groups.iter().map(|group| &**group).collect();
    let mut used: FxHashSet<AuthId> = FxHashSet::default();
    let mut warnings = Vec::new();
    let has_tokens = config.auth.iter().any(|way| way.tokens().is_some());
    // tokens may name anybody, and so may who is asked
    let names_anybody =
        has_tokens || config.auth.iter().any(|way| way.forward().is_some_and(|it| it.consumer.is_some()));
    let judge = Judge { names, groups, has_tokens, names_anybody };
    for listener in &config.listeners {
        used.extend(&listener.auth);
        let recognises = !listener.auth.is_empty() || config.routes.iter().any(|route| route.auth.is_some());
        warnings.extend(judge.access(&format!("listener {:?}", listener.name), &listener.access, recognises));
    }
    for route in config.routes.iter() {
        used.extend(route.auth.iter().flatten());
        let recognises = match &route.auth {
            Some(ways) => !ways.is_empty(),
            None => config.listeners.iter().any(|listener| !listener.auth.is_empty()),
        };
        warnings.extend(judge.access(&format!("route {:?}", route.name), &route.access, recognises));
        warnings.extend(unclaimed(route, config));
    }
    warnings.extend(unknown_to_limits(config));
    for (row, way) in config.auth.iter().enumerate() {
        if !used.contains(&AuthId::from_index(row)) {
            warnings.push(format!("auth.{}: no route and no listener uses it", way.name));
        }
    }
    for way in config.auth.iter().filter(|way| way.logins().is_some_and(|logins| logins.all.is_empty())) {
        warnings
            .push(format!("auth.{}: nobody logs in: no consumer has basic, and no htpasswd names a user", way.name));
    }
    warnings.extend(certificates(config));
    let nobody_signs = config.consumers.all.iter().all(|consumer| consumer.signers.is_empty());
    for way in config.auth.iter().filter(|way| way.signature().is_some() && nobody_signs) {
        warnings.push(format!("auth.{}: no consumer has signature, so it recognises nobody", way.name));
    }
    if config.auth.is_empty() && !config.consumers.all.is_empty() {
        warnings.push("consumer: there is no [auth.NAME], so none of them is ever recognised".to_owned());
    }
    warnings
}

/// Headers that are to say what no token can have claimed there.
fn unclaimed(route: &super::Route, config: &Config) -> Vec<String> {
    let ways = match &route.auth {
        Some(ways) => ways.clone(),
        None => config.listeners.iter().flat_map(|listener| &listener.auth).copied().collect(),
    };
    if ways.is_empty() || ways.iter().any(|way| config.auth[way.index()].tokens().is_some()) {
        return Vec::new();
    }
    let is_claim = |piece: &Piece| matches!(piece, Piece::Variable(Variable::Claim(_)));
    let rules = [("request_headers", &route.request_headers), ("response_headers", &route.response_headers)];
    let of = |(list, rules): (&str, &super::HeaderRules)| -> Vec<String> {
        let never = rules.templates.iter().filter(|(_, Template(pieces))| pieces.iter().any(is_claim));
        let why = "its auth takes no tokens, which alone have claims";
        never.map(|(name, _)| format!("route {:?}: {list}.set.{name} is never set: {why}", route.name)).collect()
    };
    rules.into_iter().flat_map(of).collect()
}

/// Ways by certificates where there can be none.
fn certificates(config: &Config) -> Vec<String> {
    let is_one = |way: &&Auth| matches!(way.proof, Proof::Certificate);
    let mut warnings = Vec::new();
    let asks = |listener: &super::Listener| listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    for way in config.auth.iter().filter(is_one) {
        if !config.listeners.iter().any(asks) {
            warnings.push(format!("auth.{}: no listener asks clients for certificates (tls.client_auth)", way.name));
        }
        if config.consumers.all.iter().all(|consumer| consumer.marks.is_empty()) {
            warnings.push(format!("auth.{}: no consumer has mtls, so it recognises nobody", way.name));
        }
    }
    for listener in config.listeners.iter().filter(|listener| !listener.auth.is_empty() && !asks(listener)) {
        if listener.auth.iter().all(|way| is_one(&&config.auth[way.index()])) {
            let name = &listener.name;
            warnings.push(format!(
                "listener {name:?}: auth recognises nobody there: it asks for no certificates (tls.client_auth)"
            ));
        }
    }
    warnings
}

/// Limits that would tell requests apart by what nobody knows when they are asked.
fn unknown_to_limits(config: &Config) -> Vec<String> {
    let identity: FxHashSet<_> = config.auth.iter().flat_map(Auth::identity).collect();
    let mut warnings = Vec::new();
    for route in config.routes.iter() {
        let recognises = match &route.auth {
            Some(ways) => !ways.is_empty(),
            None => config.listeners.iter().any(|listener| !listener.auth.is_empty()),
        };
        for (row, limit) in route.limits.iter().enumerate() {
            let keys = by_path::keys(limit);
            let of = |key: &LimitKey| match key {
                LimitKey::Header(name) if identity.contains(name) => Some(format!(
                    "by {name} it counts all together: the gateway says in it who was recognised; per = \"consumer\" counts each"
                )),
                LimitKey::Consumer | LimitKey::Group | LimitKey::Claim(_) if !recognises => {
                    Some(format!("by {key} it counts all together: nobody is recognised there, because it has no auth"))
                }
                LimitKey::Capture(name) if !Captures::of(&route.matcher).is_some_and(|found| found.has(name)) => {
                    Some(format!("by {key} it counts all together: not each of the route's paths has {{{name}}}"))
                }
                _ => None,
            };
            warnings
                .extend(keys.iter().filter_map(of).map(|why| format!("route {:?}: limit[{row}]: {why}", route.name)));
        }
    }
    warnings
}

struct Judge<'c> {
    names: FxHashSet<&'c str>,
    groups: FxHashSet<&'c str>,
    has_tokens: bool,
    names_anybody: bool,
}

impl Judge<'_> {
    /// `recognises`: whether anybody is recognised there.
    fn access(&self, of: &str, access: &Access, recognises: bool) -> Vec<String> {
        let rows = |list: &'static str, rules: &[Rule]| -> Vec<String> {
            let why =
                |(row, rule)| self.never(rule, recognises).map(|why| format!("{of}: {list}[{row}] never holds: {why}"));
            rules.iter().enumerate().filter_map(why).collect()
        };
        let mut found = [rows("allow", &access.allow), rows("deny", &access.deny)].concat();
        let is_hidden = |networks: &super::Networks| {
            let denied = || {
                access.deny.iter().filter(|rule| !rule.dry_run && !rule.is_about_identity() && rule.methods.is_empty())
            };
            networks.file.is_none()
                && networks.listed.iter().all(|network| {
                    denied().any(|rule| {
                        rule.networks.as_ref().is_some_and(|deny| deny.listed.iter().any(|deny| deny.contains(network)))
                    })
                })
        };
        for (row, rule) in access.allow.iter().enumerate() {
            if rule.networks.as_ref().is_some_and(is_hidden) {
                found.push(format!("{of}: allow[{row}] allows nobody: deny keeps all its networks out"));
            }
        }
        found
    }

    /// Why a rule can hold for no request.
    fn never(&self, rule: &Rule, recognises: bool) -> Option<String> {
        if rule.is_about_identity() && !recognises {
            return Some("nobody is recognised there, because it has no auth".to_owned());
        }
        if !rule.claims.is_empty() && !self.has_tokens {
            return Some("there is no [auth.NAME] with tokens, which alone have claims".to_owned());
        }
        if !self.names_anybody
            && !rule.consumers.is_empty()
            && !rule.consumers.iter().any(|name| self.names.contains(name.as_str()))
        {
            return Some(format!("there is no consumer {}", rule.consumers.join(" or ")));
        }
        if !rule.groups.is_empty() && !rule.groups.iter().any(|name| self.groups.contains(name.as_str())) {
            return Some(format!("nobody is in the group {}", rule.groups.join(" or ")));
        }
        let networks = rule.networks.as_ref()?;
        networks.all().next().is_none().then(|| "it names no network".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::parse_for;

    #[test]
    fn rules_that_never_hold_are_told() {
        let text = "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n\
            [[route]]\nname = \"open\"\nauth = []\nmatch = { path = \"/open\" }\nrespond = {}\nallow = { group = [\"eu\"] }\n\
            [[route]]\nname = \"closed\"\nauth = [\"key\"]\nrespond = {}\n\
            allow = [{ consumer = [\"acme\"] }, { consumer = [\"acne\"] }, { group = [\"us\"] }, { client_ip = [\"10.1.0.0/16\"] }]\n\
            deny = [{ client_ip = [\"10.0.0.0/8\"] }, { client_ip = [] }]\n\
            [auth.key]\nheader = \"x-key\"\n[auth.other]\nheader = \"x-other\"\n[consumer.acme]\ngroups = [\"eu\"]\n";
        let config = parse_for(text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(
            super::of(&config),
            [
                "route \"open\": allow[0] never holds: nobody is recognised there, because it has no auth",
                "route \"closed\": allow[1] never holds: there is no consumer acne",
                "route \"closed\": allow[2] never holds: nobody is in the group us",
                "route \"closed\": deny[1] never holds: it names no network",
                "route \"closed\": allow[3] allows nobody: deny keeps all its networks out",
                "auth.other: no route and no listener uses it",
            ]
        );
    }

    #[test]
    fn headers_of_claims_that_nobody_makes_are_told() {
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nname = \"a\"\nauth = [\"key\"]\nupstream = \"u\"\n\
            request_headers = { set = { x-a = \"{claim.sub}\", x-b = \"{consumer}\" } }\nresponse_headers = { set = { x-c = \"c-{claim.c}\" } }\n\
            [upstream.u]\nendpoints = [{ address = \"127.0.0.1:9\" }]\n[auth.key]\nheader = \"x-key\"\n[consumer.acme]\n";
        let config = parse_for(text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(
            super::of(&config),
            [
                "route \"a\": request_headers.set.x-a is never set: its auth takes no tokens, which alone have claims",
                "route \"a\": response_headers.set.x-c is never set: its auth takes no tokens, which alone have claims",
            ]
        );
    }

    #[test]
    fn certificates_where_there_can_be_none_are_told() {
        let text = "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nauth = [\"cert\"]\n[[route]]\nrespond = {}\n\
            [auth.cert]\nmtls = true\n[consumer.acme]\n";
        let config = parse_for(text, "f", &[0]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(
            super::of(&config),
            [
                "auth.cert: no listener asks clients for certificates (tls.client_auth)",
                "auth.cert: no consumer has mtls, so it recognises nobody",
                "listener \"edge\": auth recognises nobody there: it asks for no certificates (tls.client_auth)",
            ]
        );
    }
}
