//! What the access log says of a request beyond what it always says: fields that the file has chosen, and what has refused it.
//!
//! The head is looked at once more when it is known what becomes of the request, while it is still there. Without a log, without chosen fields and
//! without a refusal nothing here runs.

use super::decision::{Decision, Refusal};
use super::inbound::Inbound;
use super::plan::{Planner, Way};
use super::record::Record;
use super::variables::Known;
use super::waiting::Told;
use crate::config::{LogField, LogValue, Piece};
use crate::error::ProxyError;
use crate::http::cycle::Cycle;
use crate::http::response::ResponseHead;
use crate::observe::access_log::chosen;
use crate::policy::access::{Place, Subject, Verdict};
use std::net::IpAddr;

impl Planner<'_> {
    /// As [`Planner::way`], and the log knows of it.
    pub(super) fn way_and_fields(&self, cycle: &mut Cycle, record: &mut Record, client: IpAddr) -> Way {
        let Some(fields) = self.chosen_fields() else {
            return self.way(cycle, record, client); // as it comes: what is large should not be moved for nothing
        };
        let planned = self.way(cycle, record, client);
        self.note_unless_waiting(record, fields, &planned);
        planned
    }

    /// Takes down what the file has chosen for the log, unless the request waits and is planned anew.
    pub(super) fn note_fields(&self, record: &mut Record, planned: &Way) {
        if let Some(fields) = self.chosen_fields() {
            self.note_unless_waiting(record, fields, planned);
        }
    }

    fn chosen_fields(&self) -> Option<&[LogField]> {
        let log = self.inbound.worker.shared.config.access_log.as_ref()?;
        Some(log.fields.as_slice()).filter(|fields| !fields.is_empty())
    }

    fn note_unless_waiting(&self, record: &mut Record, fields: &[LogField], planned: &Way) {
        if !matches!(planned, Way::Wait(..)) {
            self.note(record, fields);
        }
    }

    #[cold]
    #[inline(never)]
    fn note(&self, record: &mut Record, fields: &[LogField]) {
        let (identified, id) = (self.identified.get(), self.request_id.get());
        let known = Known { inbound: self.inbound, route: self.routed.get(), identified, id, head: self.head };
        for (row, field) in fields.iter().enumerate() {
            let LogValue::Request(template) = &field.value else { continue };
            record.add_chosen(row, |out| {
                template.0.iter().all(|piece| match piece {
                    Piece::Text(text) => {
                        out.extend_from_slice(text.as_bytes());
                        true
                    }
                    Piece::Variable(variable) => known.push(variable, out).is_some(),
                })
            });
        }
    }

    /// Takes down which guard, which rule or whom else the request was refused by.
    #[cold]
    #[inline(never)]
    pub(super) fn note_refusal(&self, record: &mut Record, error: ProxyError) {
        let shared = &self.inbound.worker.shared;
        match error {
            ProxyError::Guarded => {
                if let Some(route) = self.routed.get() {
                    record.on_refused_by(format_args!("guard.{}", shared.config.routes[route.index()].name));
                }
            }
            ProxyError::Forbidden => match self.verdict() {
                Some(Verdict::Denied(place, row)) => record.on_refused_by(format_args!("{}.deny[{row}]", word(place))),
                Some(Verdict::NotAllowed(place)) => record.on_refused_by(format_args!("{}.allow", word(place))),
                Some(Verdict::Allowed { .. }) | None => {}
            },
            ProxyError::Undecided => self.note_decider(record, |decision| matches!(decision, Decision::None)),
            _ => {}
        }
    }

    /// Takes down that somebody else has refused the request.
    pub(super) fn note_refused(&self, record: &mut Record, refusal: &Refusal) {
        if let Some(route) = self.routed.get() {
            self.inbound.worker.recorder.refused_elsewhere(route);
        }
        self.note_decider(
            record,
            |decision| matches!(decision, Decision::Refused(refused) if std::ptr::eq(&raw const **refused, refusal)),
        );
    }

    fn note_decider(&self, record: &mut Record, is_it: impl Fn(&Decision) -> bool) {
        let decided = self.heard.iter().find(|(_, told)| matches!(told, Told::Decided(decision) if is_it(decision)));
        if let Some((way, _)) = decided {
            record.on_refused_by(format_args!("auth.{}", self.inbound.worker.shared.config.auth[way.index()].name));
        }
    }

    /// What refuses it: the same rules in the same order as when it was refused.
    fn verdict(&self) -> Option<Verdict> {
        let (guards, listener) = (&self.inbound.worker.shared.guards, self.inbound.listener);
        let subject = Subject { client: self.client.get(), method: self.head.method(), who: None };
        let kept_out = guards.keeps_out(listener, &subject).map(|row| Verdict::Denied(Place::Listener, row));
        let route = self.routed.get();
        let turned = || guards.route_turns_away(route?, &subject).map(|row| Verdict::Denied(Place::Route, row));
        let who = self.identified.get().map(|it| it.who(&self.inbound.worker.shared.identities));
        kept_out.or_else(turned).or_else(|| Some(guards.authorize(listener, route?, &Subject { who, ..subject })))
    }
}

fn word(place: Place) -> &'static str {
    match place {
        Place::Listener => "listener",
        Place::Route => "route",
    }
}

impl Record {
    /// An endpoint's final response is passed on: takes down what the file has chosen of it.
    pub(super) fn on_response(&mut self, inbound: &Inbound<'_>, head: &ResponseHead<'_>) {
        let log = inbound.worker.shared.config.access_log.as_ref();
        if let Some(fields) = log.map(|log| &log.fields).filter(|fields| !fields.is_empty()) {
            self.note_response(fields, head);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_response(&mut self, fields: &[LogField], head: &ResponseHead<'_>) {
        for (row, field) in fields.iter().enumerate() {
            let LogValue::Response(name) = &field.value else { continue };
            let Some(value) = head.fields().get(name.as_str()) else { continue };
            self.add_chosen(row, |out| {
                out.extend_from_slice(value);
                true
            });
        }
    }

    fn add_chosen(&mut self, row: usize, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        if let Some((bytes, start)) = self.chosen_mut() {
            chosen::push(bytes, start, row, write);
        }
    }
}
