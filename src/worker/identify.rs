//! `identify → authorize`: who sends a request, and whether he may.
//!
//! Where the route (or the listener for it) asks for nobody and nobody is kept out, this is two looks at tables that say so.

use super::believed::Bearer;
use super::decision::{Decision, Refusal};
use super::inbound::Inbound;
use super::logins::Known;
use super::plan::Planner;
use super::record::Record;
use super::shared::Shared;
use super::signed::Signed;
use super::state::Scratch;
use super::sticky::OwnCookies;
use super::waiting::{On, Told};
use crate::config::{self, Auth, Consumer, HeaderRules, IdentityText, KeyPlace, Logins, OnFailure, Proof, TokenRules};
use crate::error::ProxyError;
use crate::http::head::RequestHead;
use crate::http::headers::push;
use crate::limits::{API_KEY_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::policy::access::{Subject, Verdict, Who};
use crate::policy::cookies;
use crate::policy::identity::{self, Identities, behind_scheme, is_named, of_query};
use crate::policy::login::{self, Credentials};
use crate::policy::token::{self, Disbelief};
use crate::units::{AuthId, ConsumerId, GroupId, RouteId};
use aws_lc_rs::digest;
use http::{HeaderName, header};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// Who was recognised, and how.
#[derive(Clone, Debug)]
pub(super) struct Identified {
    way: AuthId,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    /// A key of this consumer's, or its password.
    Consumer(ConsumerId),
    /// A token.
    Token(Rc<Bearer>),
    /// A signature.
    Signed(Rc<Signed>),
}

impl Identified {
    /// The consumer's name.
    pub(super) fn name<'i>(&'i self, identities: &'i Identities) -> &'i str {
        match &self.by {
            By::Consumer(id) => &identities.consumer(*id).name,
            By::Token(bearer) => &bearer.name,
            By::Signed(signed) => &identities.consumer(signed.consumer).name,
        }
    }

    /// The signature, if it was one.
    pub(super) fn signed(&self) -> Option<&Rc<Signed>> {
        match &self.by {
            By::Signed(signed) => Some(signed),
            By::Consumer(_) | By::Token(_) => None,
        }
    }

    /// The consumer, unless it is only a token that knows it.
    fn consumer(&self) -> Option<ConsumerId> {
        match &self.by {
            By::Consumer(id) => Some(*id),
            By::Token(bearer) => bearer.consumer,
            By::Signed(signed) => Some(signed.consumer),
        }
    }

    /// Groups that the consumer is in.
    pub(super) fn groups<'i>(&self, identities: &'i Identities) -> &'i [GroupId] {
        self.consumer().map_or(&[], |id| &identities.consumer(id).groups)
    }

    pub(super) fn who<'i>(&'i self, identities: &'i Identities) -> Who<'i> {
        Who { name: self.name(identities), groups: self.groups(identities), claims: self.claims() }
    }

    /// What the token says, if it was one.
    pub(super) fn claims(&self) -> Option<&Map<String, Value>> {
        match &self.by {
            By::Consumer(_) | By::Signed(_) => None,
            By::Token(bearer) => Some(&bearer.claims),
        }
    }

    /// Appends what the endpoint is told of who was recognised in a header of this name; `None`: nothing.
    pub(super) fn push_header(&self, shared: &Shared, name: &HeaderName, out: &mut Vec<u8>) -> Option<()> {
        let id = match &self.by {
            By::Token(bearer) => {
                let mut lines = bearer.lines.split(|byte| *byte == b'\n');
                out.extend_from_slice(lines.find_map(|line| {
                    let value = line.strip_prefix(name.as_str().as_bytes())?.strip_prefix(b": ")?;
                    value.strip_suffix(b"\r")
                })?);
                return Some(());
            }
            By::Consumer(id) => *id,
            By::Signed(signed) => signed.consumer,
        };
        let consumer = shared.identities.consumer(id);
        let (_, text) = shared.config.auth[self.way.index()].headers.iter().find(|(it, _)| it == name)?;
        match text {
            IdentityText::Consumer => out.extend_from_slice(consumer.name.as_bytes()),
            IdentityText::Groups => push_group_names(out, &shared.identities, consumer),
            IdentityText::Claim(_) => return None,
        }
        Some(())
    }

    fn number(&self, identities: &Identities) -> u64 {
        match &self.by {
            By::Consumer(id) => identities.consumer(*id).number,
            By::Token(bearer) => bearer.number,
            By::Signed(signed) => identities.consumer(signed.consumer).number,
        }
    }
}

/// Why a request goes no further for now.
pub(super) enum Stop {
    /// It is refused.
    Refused(ProxyError),
    /// Somebody else refuses it, and this is what he says.
    Answered(Rc<Refusal>),
    /// Whether it is believed what it shows for this way is not known yet.
    Wait(AuthId, On),
}

impl From<ProxyError> for Stop {
    fn from(error: ProxyError) -> Self {
        Self::Refused(error)
    }
}

impl Planner<'_> {
    /// Whether the listener keeps it out, whatever it asks for and whoever sends it.
    pub(super) fn is_kept_out(&self) -> bool {
        let shared = &self.inbound.worker.shared;
        let subject = Subject { client: self.client.get(), method: self.head.method(), who: None };
        shared.has_guards && shared.guards.keeps_out(self.inbound.listener, &subject).is_some()
    }

    /// Finds out who sends the request, if anybody is to be known; or why it goes no further.
    pub(super) fn identify(&self, route: RouteId, client: IpAddr, record: &mut Record) -> Result<(), Stop> {
        let (worker, listener) = (self.inbound.worker, self.inbound.listener);
        let shared = &worker.shared;
        if !shared.has_guards {
            return Ok(());
        }
        let subject = Subject { client: self.client.get(), method: self.head.method(), who: None };
        if shared.guards.route_turns_away(route, &subject).is_some() {
            return Err(ProxyError::Forbidden.into());
        }
        let ways = config::identity::ways(&shared.config.routes[route.index()], self.config);
        if !ways.is_empty() {
            let mut identified = None;
            for way in ways {
                identified = self.by_way(*way, client)?;
                if identified.is_some() {
                    break;
                }
            }
            let _ = self.identified.set(identified.ok_or(ProxyError::Unauthenticated)?);
        }
        let who = self.identified.get().map(|identified| {
            let name = identified.name(&shared.identities);
            if name.is_empty() {
                return identified.who(&shared.identities); // somebody else lets it through, and does not say who it is
            }
            record.on_consumer(name, identified.number(&shared.identities), identified.consumer());
            identified.who(&shared.identities)
        });
        match shared.guards.authorize(listener, route, &Subject { who, ..subject }) {
            Verdict::Allowed { would_refuse } => {
                if would_refuse {
                    worker.recorder.forbidden_dry_run(route);
                }
                Ok(())
            }
            Verdict::Denied(..) | Verdict::NotAllowed(_) => Err(ProxyError::Forbidden.into()),
        }
    }

    fn by_way(&self, way: AuthId, client: IpAddr) -> Result<Option<Identified>, Stop> {
        let shared = &self.inbound.worker.shared;
        let auth = &shared.config.auth[way.index()];
        if matches!(auth.proof, Proof::Certificate) {
            return Ok(self.by_certificate().map(|id| Identified { way, by: By::Consumer(id) }));
        }
        if let Proof::Forward(forward) = &auth.proof {
            let told = self.heard.iter().find_map(|(heard, told)| match told {
                Told::Decided(decision) if *heard == way => Some(decision),
                _ => None,
            });
            return match told {
                None => Err(Stop::Wait(way, On::Decision)),
                Some(Decision::Passed(bearer)) => Ok(Some(Identified { way, by: By::Token(Rc::clone(bearer)) })),
                Some(Decision::Refused(refusal)) => Err(Stop::Answered(Rc::clone(refusal))),
                Some(Decision::None) if forward.on_failure == OnFailure::Deny => Err(ProxyError::Undecided.into()),
                Some(Decision::None) => {
                    let bearer = Bearer::decided(shared, auth, String::new(), Vec::new(), Duration::MAX);
                    Ok(Some(Identified { way, by: By::Token(Rc::new(bearer)) }))
                }
            };
        }
        if let Proof::Signature(rules) = &auth.proof {
            return Ok(self.by_signature(rules)?.map(|signed| Identified { way, by: By::Signed(signed) }));
        }
        let mut room = [0; API_KEY_BYTES_MAX];
        for place in &auth.places {
            let Some(shown) = shown(self.head, place, &mut room) else { continue };
            let by = match &auth.proof {
                Proof::Key => shared.identities.by_key(shown).map(By::Consumer),
                Proof::Token(rules) => self.by_token((way, auth), rules, shown).map(By::Token),
                Proof::Password(logins) => self.by_password(way, logins, (client, shown))?.map(By::Consumer),
                Proof::Certificate | Proof::Forward(_) | Proof::Signature(_) => None,
            };
            if let Some(by) = by {
                return Ok(Some(Identified { way, by }));
            }
        }
        Ok(None)
    }

    /// Who has the certificate that the listener has believed, if it asks for one: nobody judges it any more where it has ceased to.
    fn by_certificate(&self) -> Option<ConsumerId> {
        self.config.tls.as_ref()?.clients.as_ref()?;
        let shown = self.inbound.identity()?;
        let (key, names, subject) = (&*shown.key_hash, &*shown.names, &*shown.subject);
        self.inbound.worker.shared.identities.by_certificate(&identity::Certificate { key, names, subject })
    }

    fn by_password(
        &self,
        way: AuthId,
        logins: &Logins,
        (client, shown): (IpAddr, &[u8]),
    ) -> Result<Option<ConsumerId>, Stop> {
        let Some(credentials) = Credentials::decode(shown) else { return Ok(None) };
        let Some(claim) = login::claim(logins, credentials.user()) else { return Ok(None) };
        let is_this = |(heard, told): &&(AuthId, Told)| *heard == way && matches!(told, Told::Password(_));
        if let Some((_, told)) = self.heard.iter().find(is_this) {
            return Ok(claim.owner.filter(|_| matches!(told, Told::Password(true))));
        }
        let worker = self.inbound.worker;
        let Some(verifier) = &worker.shared.verifier else { return Ok(None) };
        match worker.worker().look_up(verifier, claim.hash, (client, &credentials), self.now) {
            Known::Right => Ok(claim.owner),
            Known::Soon(pending) => Err(Stop::Wait(way, On::Password(pending))),
            Known::Busy => Err(ProxyError::AuthenticationBusy.into()),
        }
    }

    fn by_token(&self, (way, auth): (AuthId, &Auth), rules: &TokenRules, shown: &[u8]) -> Option<Rc<Bearer>> {
        if shown.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let worker = self.inbound.worker;
        let now = worker.wall(self.now);
        let mut key = (way, [0; 32]);
        key.1.copy_from_slice(digest::digest(&digest::SHA256, shown).as_ref());
        if let Some(fetched) = &rules.fetched {
            worker.believed.borrow_mut().keys(way, fetched); // what they have vouched for goes with them
        }
        let known = worker.believed.borrow_mut().get(&key, now);
        known.or_else(|| {
            let fetched = rules.fetched.as_ref().map(|fetched| worker.believed.borrow_mut().keys(way, fetched));
            let keys = fetched.as_deref().unwrap_or(&rules.keys);
            let verified = token::verify(rules, keys, shown, now).inspect_err(|why| {
                if let (Disbelief::Key, Some(fetched)) = (why, &rules.fetched) {
                    fetched.want();
                }
            });
            let verified = verified.ok()?;
            let bearer = Rc::new(Bearer::new(&worker.shared, auth, verified));
            worker.believed.borrow_mut().put(key, Rc::clone(&bearer));
            Some(bearer)
        })
    }

    /// Appends what a 401 says in `WWW-Authenticate`: every way to be recognised here (RFC 9110 §11.6.1).
    pub(super) fn write_challenges(&self, route: RouteId, out: &mut Vec<u8>) {
        let config = &self.inbound.worker.shared.config;
        let ways = config::identity::ways(&config.routes[route.index()], self.config);
        // whoever else decides has answers of his own
        for way in ways.iter().filter(|way| config.auth[way.index()].forward().is_none()) {
            if !out.is_empty() {
                out.extend_from_slice(b", ");
            }
            let way = &config.auth[way.index()];
            let scheme = way.places.iter().find_map(|place| match place {
                KeyPlace::Header(_, scheme) => scheme.as_deref(),
                KeyPlace::Query(_) | KeyPlace::Cookie(_) => None,
            });
            let logins = way.logins();
            let realm = logins.map_or(&way.name, |logins| &logins.realm);
            // no scheme is registered for keys, certificates and signatures; names of the configuration have no quotes
            let unnamed = match way.proof {
                Proof::Certificate => "Certificate",
                Proof::Signature(_) => "Signature",
                _ => "ApiKey",
            };
            for part in [scheme.unwrap_or(unnamed), " realm=\"", realm, "\""] {
                out.extend_from_slice(part.as_bytes());
            }
            if logins.is_some() {
                out.extend_from_slice(b", charset=\"UTF-8\""); // RFC 7617 §2.1
            }
            if let Some(rules) = way.signature() {
                self.write_wanted(rules, out);
            }
            let mut room = [0; API_KEY_BYTES_MAX];
            if way.tokens().is_some() && way.places.iter().any(|place| shown(self.head, place, &mut room).is_some()) {
                out.extend_from_slice(b", error=\"invalid_token\""); // RFC 6750 §3.1
            }
        }
    }
}

/// A key as the request shows it. Not what stands there twice: the endpoint might read the other one.
fn shown<'r>(head: &RequestHead<'r>, place: &KeyPlace, room: &'r mut [u8; API_KEY_BYTES_MAX]) -> Option<&'r [u8]> {
    match place {
        KeyPlace::Header(name, scheme) => {
            let fields = head.fields();
            let mut values = fields.get_all(name.as_str());
            let value = values.next()?;
            if values.next().is_some() {
                return None;
            }
            behind_scheme(value, scheme.as_deref())
        }
        KeyPlace::Query(name) => of_query(head.query()?, name, room),
        KeyPlace::Cookie(name) => {
            let fields = head.fields();
            let mut values = cookies::values(fields.get_all("cookie"), name);
            let value = values.next()?;
            values.next().is_none().then_some(value)
        }
    }
}

/// Writes what the endpoint is told of who was recognised, and of the credentials what is not one of the gateway's.
pub(super) fn tell(
    inbound: &Inbound<'_>,
    (route, identified): (RouteId, Option<&Identified>),
    head: &RequestHead<'_>,
    scratch: &mut Scratch,
) {
    let shared = &inbound.worker.shared;
    let (own, rules) = (OwnCookies::of(shared, route), &shared.config.routes[route.index()].request_headers);
    let Scratch { lines: identity, query, .. } = scratch;
    identity.clear();
    query.clear();
    let Some(identified) = identified else {
        return other_cookies(std::iter::empty(), own.as_ref(), (head, rules), identity);
    };
    match &identified.by {
        By::Token(bearer) => identity.extend_from_slice(&bearer.lines),
        By::Consumer(_) | By::Signed(_) => {
            let consumer = identified.consumer().map(|id| shared.identities.consumer(id));
            let Some(consumer) = consumer else { return }; // these two have one
            for (name, text) in &shared.config.auth[identified.way.index()].headers {
                let name = name.as_str().as_bytes();
                match text {
                    IdentityText::Consumer => push(identity, name, consumer.name.as_bytes()),
                    IdentityText::Groups => push_groups(identity, name, &shared.identities, consumer),
                    IdentityText::Claim(_) => {} // a key claims nothing
                }
            }
        }
    }
    let ways = config::identity::ways(&shared.config.routes[route.index()], inbound.config());
    let hidden = || ways.iter().map(|way| &shared.config.auth[way.index()]).filter(|way| !way.forwards);
    other_cookies(hidden(), own.as_ref(), (head, rules), identity);
    other_parameters(hidden(), head, query);
}

fn push_groups(out: &mut Vec<u8>, name: &[u8], identities: &Identities, consumer: &Consumer) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    push_group_names(out, identities, consumer);
    out.extend_from_slice(b"\r\n");
}

fn push_group_names(out: &mut Vec<u8>, identities: &Identities, consumer: &Consumer) {
    for (row, group) in identities.consumers().groups_of(consumer).enumerate() {
        out.extend_from_slice(if row == 0 { b"" } else { b"," });
        out.extend_from_slice(group.as_bytes());
    }
}

/// `Cookie` without the keys that stand in it, and without what the gateway has set itself.
fn other_cookies<'a>(
    hidden: impl Iterator<Item = &'a Auth> + Clone,
    own: Option<&OwnCookies<'_>>,
    (head, rules): (&RequestHead<'_>, &HeaderRules),
    out: &mut Vec<u8>,
) {
    let is_key = |pair: &[u8]| {
        hidden.clone().flat_map(|way| &way.places).any(|place| match place {
            KeyPlace::Cookie(name) => cookies::value_of(pair, name).is_some(),
            KeyPlace::Header(..) | KeyPlace::Query(_) => false,
        })
    };
    let has_keys = || hidden.clone().flat_map(|way| &way.places).any(|place| matches!(place, KeyPlace::Cookie(_)));
    let says_it_all = |rules: &HeaderRules| {
        let mut names = rules.remove.iter().chain(rules.set.iter().map(|(name, _)| name));
        names.any(|name| *name == header::COOKIE) || rules.templates.iter().any(|(name, _)| *name == header::COOKIE)
    };
    if (own.is_none() && !has_keys()) || says_it_all(rules) {
        return;
    }
    let (mut count, mut read) = (0, 0);
    for pair in
        head.fields().get_all("cookie").flat_map(cookies::pairs).filter(|pair| !pair.is_empty() && !is_key(pair))
    {
        if own.is_some_and(|own| own.has(pair, &mut read)) {
            continue;
        }
        out.extend_from_slice(if count == 0 { b"Cookie: " } else { b"; " });
        out.extend_from_slice(pair);
        count += 1;
    }
    if count > 0 {
        out.extend_from_slice(b"\r\n");
    }
}

/// The query without the keys that stand in it, behind its `?`; nothing if none does.
pub(super) fn other_parameters<'a>(
    hidden: impl Iterator<Item = &'a Auth> + Clone,
    head: &RequestHead<'_>,
    out: &mut Vec<u8>,
) {
    let is_key = |pair: &str| {
        let written = pair.split_once('=').map_or(pair, |(name, _)| name);
        hidden.clone().flat_map(|way| &way.places).any(|place| match place {
            KeyPlace::Query(name) => is_named(written, name),
            KeyPlace::Header(..) | KeyPlace::Cookie(_) => false,
        })
    };
    let Some(query) = head.query().filter(|query| query.split('&').any(is_key)) else { return };
    out.push(b'?');
    for pair in query.split('&').filter(|pair| !is_key(pair)) {
        if out.len() > 1 {
            out.push(b'&');
        }
        out.extend_from_slice(pair.as_bytes());
    }
}
