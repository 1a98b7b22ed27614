//! Signed requests (RFC 9421): whose one is, that it is taken once, and that its body is the one that was signed.
//!
//! The head is judged where every other way is, and its nonce taken as soon as its signature is known to be good: who cannot sign takes no place of the
//! table. What comes behind may still refuse the request (a limit, a rule, its body), and then its client signs another one. The body is held
//! until all of it is here and known to be right, by the means of `request_buffering`, so that no endpoint ever sees a byte of one that was changed;
//! that bounds it, and a larger one is answered with 413.

use super::identify::Stop;
use super::line::Line;
use super::plan::Planner;
use super::upload::{Hold, Upload};
use crate::config::SignatureRules;
use crate::error::ProxyError;
use crate::http::framing::Framing;
use crate::net::clock;
use crate::observe::labels::TrafficEvent;
use crate::policy::exchange::Action;
use crate::policy::replay::Taken;
use crate::policy::signature::digest::ContentDigest;
use crate::policy::signature::{self, Message};
use crate::units::ConsumerId;
use std::rc::Rc;

/// A request whose signature is good.
#[derive(Debug)]
pub(super) struct Signed {
    /// Whose key it was.
    pub(super) consumer: ConsumerId,
    /// What its body has to be.
    digest: Option<ContentDigest>,
    body_bytes_max: usize,
}

impl Signed {
    /// What its body has to be, and how large it may be.
    fn body(&self) -> Option<(&ContentDigest, usize)> {
        self.digest.as_ref().map(|digest| (digest, self.body_bytes_max))
    }
}

impl Planner<'_> {
    /// Who has signed the request; `None`: nobody that is known, or it was taken before.
    #[inline(never)]
    pub(super) fn by_signature(&self, rules: &SignatureRules) -> Result<Option<Rc<Signed>>, Stop> {
        let (worker, head) = (self.inbound.worker, self.head);
        let Some((replays, life)) = &worker.shared.replays else { return Ok(None) };
        let fields = head.fields();
        let values_of = |name: &str| fields.get_all(name).collect();
        let message = Message {
            method: head.method().as_str(),
            scheme: self.inbound.scheme(),
            authority: head.authority(),
            target: head.target(),
            has_body: !head.framing().is_empty(),
            values_of: &values_of,
        };
        let now = worker.wall(self.now);
        let keys = |keyid: &str| worker.shared.identities.signer(keyid);
        let base = &mut worker.scratch.borrow_mut().text;
        let Ok(verified) = signature::verify(rules, &message, &keys, now, base) else { return Ok(None) };
        if verified.nonce.is_some() && replays.may_have_forgotten(verified.created, now) {
            return Ok(None);
        }
        let life = replays.life().max(*life); // of a request that began under a longer one
        let own = verified.nonce.map(|nonce| (verified.keyid, nonce, verified.created));
        for (keyid, nonce, created) in own.into_iter().chain(verified.beside) {
            match replays.take(keyid, nonce, (now, created.saturating_add(life))) {
                Taken::New => {}
                Taken::Again => return Ok(None),
                Taken::Full => return Err(ProxyError::NoncesExhausted.into()),
            }
        }
        Ok(Some(Rc::new(Signed {
            consumer: verified.consumer,
            digest: verified.digest,
            body_bytes_max: rules.body_bytes_max,
        })))
    }

    /// What a 401 says of it: what a signature has to cover, as the parameters of a challenge.
    pub(super) fn write_wanted(&self, rules: &SignatureRules, out: &mut Vec<u8>) {
        out.extend_from_slice(b", components=\"");
        let digest = rules.content_digest && !self.head.framing().is_empty();
        let digest = Some("content-digest").filter(|name| digest && rules.components.iter().all(|it| **it != **name));
        for (row, name) in rules.components.iter().map(|it| &**it).chain(digest).enumerate() {
            if row > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(name.as_bytes());
        }
        out.push(b'"');
        if self.head.fields().get("signature-input").is_some() {
            out.extend_from_slice(b", error=\"invalid_signature\"");
        }
    }
}

impl Line<'_> {
    /// By whom the request is signed, if its body is a part of that.
    fn signed(&self) -> Option<&Rc<Signed>> {
        let signed = self.head.as_ref()?.identified.as_ref()?.signed()?;
        Some(signed).filter(|signed| signed.digest.is_some())
    }

    /// Whether its body is to be looked at before it goes on.
    pub(super) fn has_signed_body(&self) -> bool {
        self.forward.framing != Framing::None && self.signed().is_some()
    }

    /// Awaits the body as far as that is held here, and looks whether it is what was signed; what is answered if it is not.
    pub(super) async fn await_body(&mut self, upload: &Upload<'_>) -> Option<Action> {
        let signed = self.signed().filter(|_| self.has_signed_body()).cloned();
        let body = signed.as_ref().and_then(|signed| signed.body());
        let bytes_max = self.buffered_bytes_max().max(body.map(|(_, bytes_max)| bytes_max))?;
        if body.is_some() && self.forward.framing.exceeds(bytes_max as u64) {
            return Some(Action::Reply(ProxyError::PayloadTooLarge));
        }
        self.encode(upload);
        let held = upload.hold(bytes_max, self.forward.version, body.map(|(digest, _)| digest)).await;
        self.now = clock::now();
        match held {
            Ok(Hold::Whole) => None,
            Ok(Hold::Wrong) => Some(Action::Reply(ProxyError::DigestMismatch)),
            Ok(Hold::TooLarge) if body.is_some() => Some(Action::Reply(ProxyError::PayloadTooLarge)),
            Ok(Hold::NoRoom) if body.is_some() => Some(Action::Reply(ProxyError::Exhausted)),
            Ok(Hold::TooLarge | Hold::NoRoom) => {
                self.inbound.worker.recorder.traffic(self.forward.route, TrafficEvent::BufferingSkipped);
                None
            }
            Err(failure) => Some(self.fail(failure, upload)),
        }
    }
}
