//! What `explain` says of who sends a request: who is recognised by what it shows, and which rule decides.
//!
//! The client's address is not part of a request; where rules depend on it, `-H 'x-forwarded-for: ADDRESS'` says which one is meant.

use http::{HeaderName, Method};
use ringgate::config::{Auth, ClaimTest, Config, KeyPlace, Proof, Rule, SignatureRules};
use ringgate::limits::API_KEY_BYTES_MAX;
use ringgate::net::clock;
use ringgate::policy::access::{Explained, Guards, Place, Subject, Verdict, Who};
use ringgate::policy::identity::{Identities, behind_scheme, of_query};
use ringgate::policy::login::{self, Credentials};
use ringgate::policy::signature::{self, Message};
use ringgate::policy::token::{self, Disbelief};
use ringgate::units::{AuthId, ConsumerId, ListenerId, RouteId};
use std::hash::RandomState;
use std::net::IpAddr;

/// What is asked about.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) scheme: &'a str,
    /// As it was typed.
    pub(super) authority: Option<&'a str>,
    /// The same.
    pub(super) target: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a [(HeaderName, String)],
}

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whose it is by its signature, whether that was taken before or not, and whatever the body is: nobody types one.
    fn signed(&self, rules: &SignatureRules, identities: &Identities) -> Result<ConsumerId, signature::Disbelief> {
        let values = |name: &str| -> Vec<&[u8]> {
            let of = self.headers.iter().filter(|(other, _)| other == name);
            of.map(|(_, value)| value.as_bytes()).collect()
        };
        let has_body = self.header("transfer-encoding").is_some()
            || self.header("content-length").is_some_and(|length| length != "0");
        let message = Message {
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: self.authority,
            target: self.target,
            has_body,
            values_of: &values,
        };
        let keys = |keyid: &str| identities.signer(keyid);
        signature::verify(rules, &message, &keys, clock::wall(), &mut Vec::new()).map(|verified| verified.consumer)
    }

    /// The address that somebody claims for the client.
    fn client(&self) -> Option<IpAddr> {
        self.header("x-forwarded-for")?.split(',').next()?.trim().parse().ok()
    }

    fn key<'r>(&'r self, place: &KeyPlace, room: &'r mut [u8; API_KEY_BYTES_MAX]) -> Option<&'r [u8]> {
        match place {
            KeyPlace::Header(name, scheme) => behind_scheme(self.header(name.as_str())?.as_bytes(), scheme.as_deref()),
            KeyPlace::Query(name) => of_query(self.query?, name, room),
            KeyPlace::Cookie(name) => {
                let mut pairs = self.header("cookie")?.split(';').filter_map(|pair| pair.trim().split_once('='));
                pairs.find(|(key, _)| key == name).map(|(_, value)| value.as_bytes())
            }
        }
    }
}

/// What is known of who may.
#[derive(Default)]
pub(super) struct Told {
    /// Lines with their labels; none where everybody may.
    pub(super) lines: Vec<(&'static str, String)>,
    /// What a request is answered that may not.
    pub(super) refusal: Option<&'static str>,
}

/// Who is recognised, and whether he may.
pub(super) fn told(config: &Config, (listener, route): (ListenerId, RouteId), request: &Request<'_>) -> Told {
    let (of_listener, of_route) = (&config.listeners[listener.index()], &config.routes[route.index()]);
    let ways = of_route.auth.as_deref().unwrap_or(&of_listener.auth);
    let identities = Identities::new(&config.consumers, RandomState::new);
    let guards = Guards::new(config);
    let mut lines = Vec::new();
    let found = recognised(config, &identities, ways, request);
    let names: Vec<_> = ways.iter().map(|way| config.auth[way.index()].name.as_str()).collect();
    match &found {
        _ if ways.is_empty() => {}
        Some((way, id)) => {
            let consumer = id.consumer.map(|id| identities.consumer(id));
            let groups: Vec<_> = consumer.into_iter().flat_map(|it| config.consumers.groups_of(it)).collect();
            let groups = if groups.is_empty() { String::new() } else { format!(", in {}", groups.join(", ")) };
            let way = &config.auth[way.index()];
            lines.push(("auth", format!("{} recognises {}{groups}", way.name, id.name)));
            if way.signature().is_some() {
                lines.push((
                    "",
                    "whether its nonce was taken before, and its body, only a running gateway can tell".to_owned(),
                ));
            }
        }
        None => {
            lines.push(("auth", format!("nobody is recognised by {}", names.join(" or "))));
            lines.extend(disbeliefs(config, ways, request).map(|why| ("", why)));
            lines.extend(unsigned(config, &identities, ways, request).map(|why| ("", why)));
            let asked = ways.iter().map(|way| &config.auth[way.index()]);
            let asked = asked.filter_map(|way| Some((&way.name, way.forward()?)));
            let shows = ways.iter().map(|way| &config.auth[way.index()]).filter(|way| is_by_certificate(way));
            lines.extend(
                shows.map(|way| ("", format!("{}: the client's certificate, which is no part of a request", way.name))),
            );
            lines.extend(asked.map(|(name, forward)| {
                ("", format!("{name}: upstream {} is asked, which only a running gateway does", forward.upstream))
            }));
        }
    }
    let who = found.as_ref().map(|(_, id)| {
        let groups = id.consumer.map_or(&[][..], |id| &identities.consumer(id).groups);
        Who { name: &id.name, groups, claims: id.claims.as_ref() }
    });
    let subject = Subject { client: request.client(), method: request.method, who };
    let explained = guards.explain(listener, route, &subject);
    for one in &explained {
        let access = match one.place {
            Place::Listener => &of_listener.access,
            Place::Route => &of_route.access,
        };
        let rule = if one.is_deny { &access.deny[one.row] } else { &access.allow[one.row] };
        lines.push((if one.is_deny { "deny" } else { "allow" }, format!("{}: {}", named(one), words(rule, one.holds))));
    }
    if ways.is_empty() && explained.is_empty() {
        return Told { lines, refusal: None };
    }
    let verdict = verdict(config, (&guards, &explained), (listener, route, ways), &subject);
    let refusals = ["401 unauthenticated", "403 forbidden"];
    let refusal = refusals.into_iter().find(|refusal| verdict.starts_with(refusal));
    lines.push(("verdict", verdict));
    Told { lines, refusal }
}

/// What a listener answers that keeps a request out, whatever it asks for and wherever it would go; `None`: it does not.
pub(super) fn kept_out(config: &Config, listener: ListenerId, request: &Request<'_>) -> Option<String> {
    let subject = Subject { client: request.client(), method: request.method, who: None };
    let row = Guards::new(config).keeps_out(listener, &subject)?;
    Some(format!("403 forbidden, from the gateway: deny[{row}] of the listener holds, wherever it would go"))
}

/// What comes of it.
fn verdict(
    config: &Config,
    (guards, explained): (&Guards, &[Explained]),
    (listener, route, ways): (ListenerId, RouteId, &[AuthId]),
    subject: &Subject<'_>,
) -> String {
    let is_open = explained.iter().any(|one| one.holds.is_none());
    let asks = ways.iter().any(|way| config.auth[way.index()].forward().is_some());
    let is_unknown = !ways.is_empty() && subject.who.is_none();
    match guards.turns_away(listener, route, subject) {
        Some(Verdict::Denied(place, row)) => format!("403 forbidden: deny[{row}] of the {} holds", word(place)),
        _ if is_unknown && asks => "depends on what is answered there".to_owned(),
        _ if is_unknown && ways.iter().any(|way| is_by_certificate(&config.auth[way.index()])) => {
            "depends on the client's certificate; without one that is known 401 unauthenticated".to_owned()
        }
        _ if is_unknown => "401 unauthenticated".to_owned(),
        _ => match guards.authorize(listener, route, subject) {
            Verdict::Denied(place, row) => format!("403 forbidden: deny[{row}] of the {} holds", word(place)),
            _ if is_open => "depends on the client's address; say which with -H 'x-forwarded-for: ADDRESS'".to_owned(),
            Verdict::NotAllowed(place) => format!("403 forbidden: no allow of the {} holds", word(place)),
            Verdict::Allowed { would_refuse: true } => "allowed; what would refuse it is in dry run".to_owned(),
            Verdict::Allowed { would_refuse: false } => "allowed".to_owned(),
        },
    }
}

fn is_by_certificate(way: &Auth) -> bool {
    matches!(way.proof, Proof::Certificate)
}

/// Who was recognised.
struct Found {
    name: String,
    consumer: Option<ConsumerId>,
    claims: Option<serde_json::Map<String, serde_json::Value>>,
}

fn recognised(
    config: &Config,
    identities: &Identities,
    ways: &[AuthId],
    request: &Request<'_>,
) -> Option<(AuthId, Found)> {
    let by = |way: &AuthId| {
        let mut room = [0; API_KEY_BYTES_MAX];
        let auth = &config.auth[way.index()];
        auth.places.iter().find_map(|place| {
            let shown = request.key(place, &mut room)?;
            let found = match &auth.proof {
                Proof::Key => {
                    let id = identities.by_key(shown)?;
                    Found { name: identities.consumer(id).name.to_string(), consumer: Some(id), claims: None }
                }
                Proof::Password(logins) => {
                    let credentials = Credentials::decode(shown)?;
                    let claim = login::claim(logins, credentials.user())?;
                    let id = claim.owner.filter(|_| claim.hash.is_of(credentials.password()))?;
                    Found { name: identities.consumer(id).name.to_string(), consumer: Some(id), claims: None }
                }
                Proof::Certificate | Proof::Forward(_) => return None,
                Proof::Signature(rules) => {
                    let id = request.signed(rules, identities).ok()?;
                    Found { name: identities.consumer(id).name.to_string(), consumer: Some(id), claims: None }
                }
                Proof::Token(rules) => {
                    let verified = token::verify(rules, &rules.keys, shown, clock::wall()).ok()?;
                    let consumer = identities.by_name(&verified.name);
                    Found { name: verified.name, consumer, claims: Some(verified.claims) }
                }
            };
            Some((*way, found))
        })
    };
    ways.iter().find_map(by)
}

/// Why the tokens of a request are not believed.
fn disbeliefs(config: &Config, ways: &[AuthId], request: &Request<'_>) -> impl Iterator<Item = String> {
    ways.iter().filter_map(move |way| {
        let auth = &config.auth[way.index()];
        let rules = auth.tokens()?;
        let mut room = [0; API_KEY_BYTES_MAX];
        let shown = auth.places.iter().find_map(|place| Some(request.key(place, &mut room)?.to_vec()))?;
        let why = match token::verify(rules, &rules.keys, &shown, clock::wall()).err()? {
            Disbelief::Size => "it is larger than any that is read",
            Disbelief::Form => "it is not three parts of base64url with JSON in them, or says something twice",
            Disbelief::Header => "its header asks for what is not allowed here (alg, typ, crit)",
            Disbelief::Key if rules.fetched.is_some() => "its keys are fetched, which only a running gateway does",
            Disbelief::Key => "there is no key with its kid for its alg",
            Disbelief::Signature => "its signature is none of the key's",
            Disbelief::Time => "it is over (exp), not valid yet (nbf), or does not say until when",
            Disbelief::Party => "its iss or aud is not the one that is wanted",
            Disbelief::Subject => "the claim that says who it is has no name in it",
        };
        Some(format!("{}: the token is not believed: {why}", auth.name))
    })
}

/// Why the signatures of a request are not believed.
fn unsigned(
    config: &Config,
    identities: &Identities,
    ways: &[AuthId],
    request: &Request<'_>,
) -> impl Iterator<Item = String> {
    ways.iter().filter_map(move |way| {
        let auth = &config.auth[way.index()];
        let why = request.signed(auth.signature()?, identities).err()?;
        Some(format!("{}: the signature is not believed: {}", auth.name, why.words()))
    })
}

fn word(place: Place) -> &'static str {
    match place {
        Place::Listener => "listener",
        Place::Route => "route",
    }
}

fn named(one: &Explained) -> String {
    format!("{}[{}] of the {}", if one.is_deny { "deny" } else { "allow" }, one.row, word(one.place))
}

/// A rule, and whether it holds.
fn words(rule: &Rule, holds: Option<bool>) -> String {
    let mut parts = Vec::new();
    let mut list = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            parts.push(format!("{what} {}", names.join(" or ")));
        }
    };
    list("consumer", rule.consumers.clone());
    list("group", rule.groups.clone());
    let claim = |(name, test): &(String, ClaimTest)| match test {
        ClaimTest::Any(words) => format!("{name} has {}", words.join(" or ")),
        ClaimTest::All(words) => format!("{name} has {}", words.join(" and ")),
        ClaimTest::Exact(text) => format!("{name} is {text}"),
    };
    rule.claims.iter().for_each(|one| list("claim", vec![claim(one)]));
    list("method", rule.methods.iter().map(ToString::to_string).collect());
    if let Some(networks) = &rule.networks {
        let mut of: Vec<_> = networks.listed.iter().take(4).map(ToString::to_string).collect();
        if networks.listed.len() > of.len() {
            of.push(format!("{} more", networks.listed.len() - of.len()));
        }
        of.extend(networks.file.iter().map(|file| format!("{} of {}", file.networks.len(), file.path.display())));
        list("client_ip", of);
    }
    let holds = match holds {
        Some(true) => "holds",
        Some(false) => "does not hold",
        None => "depends on the client's address",
    };
    let dry_run = if rule.dry_run { ", in dry run" } else { "" };
    format!("{}: {holds}{dry_run}", parts.join(", "))
}
