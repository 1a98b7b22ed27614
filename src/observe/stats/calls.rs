//! Calls of gRPC of one route on one worker, by method and outcome.
//!
//! Clients choose the names of methods, so a name is only learnt when a service has answered under it as one that knows it (anything but
//! UNIMPLEMENTED), and a route has at most [`limits::ROUTE_METHODS_MAX`] of them: all others are counted together.

use crate::limits;
use crate::observe::counter::{Arena, Counter, counters};
use std::sync::OnceLock;

/// One counter for each code (0 to 16), and one for calls that ended without any.
pub(crate) const OUTCOMES: usize = 18;
/// Slots that are allocated at a time.
const CHUNK: usize = 4;
const UNIMPLEMENTED: u8 = 12;

/// One method.
#[derive(Debug, Default)]
pub(crate) struct Method {
    /// `SERVICE/METHOD`
    name: OnceLock<Box<str>>,
    pub(crate) outcomes: [Counter; OUTCOMES],
}

impl Method {
    /// Service and method.
    pub(crate) fn name(&self) -> (&str, &str) {
        self.name.get().and_then(|name| name.split_once('/')).unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) methods: Arena<Method, CHUNK>,
    pub(crate) others: [Counter; OUTCOMES],
}

/// The method of a call, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CallMethod {
    /// One among the others.
    #[default]
    Other,
    /// One that has counters.
    Known(u32),
    /// One that may get some.
    New(Box<NewMethod>),
}

/// `SERVICE/METHOD`; boxed where it is kept, because hardly a call has one and all of them hold the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMethod(Box<str>);

impl Calls {
    pub(crate) fn new() -> Self {
        Self { methods: Arena::new(limits::ROUTE_METHODS_MAX), others: counters() }
    }

    /// The method that this path names: its last two segments.
    pub(crate) fn method(&self, path: &str) -> CallMethod {
        let Some(name) = name_in(path) else { return CallMethod::Other };
        match self.position(name) {
            Some(slot) => CallMethod::Known(slot),
            None if self.methods.len() < limits::ROUTE_METHODS_MAX => CallMethod::New(Box::new(NewMethod(name.into()))),
            None => CallMethod::Other,
        }
    }

    /// Counts a call that is over. `heard`: the code is a service's word.
    pub(crate) fn count(&self, method: CallMethod, code: Option<u8>, heard: bool) {
        let slot = match method {
            CallMethod::Known(slot) => Some(slot),
            CallMethod::New(name) if heard && code.is_some_and(|code| code != UNIMPLEMENTED) => {
                // another call may have brought it meanwhile
                let NewMethod(name) = *name;
                self.position(&name).or_else(|| {
                    self.methods.append(|slot| {
                        let _ = slot.name.set(name);
                    })
                })
            }
            _ => None,
        };
        let outcomes = slot.map_or(&self.others, |slot| &self.methods.slot(slot as usize).outcomes);
        outcomes[code.map_or(OUTCOMES - 1, |code| usize::from(code).min(OUTCOMES - 2))].add(1);
    }

    fn position(&self, name: &str) -> Option<u32> {
        let is_it = |method: &Method| method.name.get().is_some_and(|known| **known == *name);
        self.methods.iter().position(is_it).and_then(|slot| u32::try_from(slot).ok())
    }
}

/// `SERVICE/METHOD` at the end of a path, unless it is no name.
fn name_in(path: &str) -> Option<&str> {
    let (front, method) = path.rsplit_once('/')?;
    let (_, service) = front.rsplit_once('/')?;
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    };
    let name = &path[path.len() - service.len() - method.len() - 1..];
    (is_name(service) && is_name(method) && name.len() <= limits::METHOD_NAME_BYTES_MAX).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(name: &str) -> CallMethod {
        CallMethod::New(Box::new(NewMethod(name.into())))
    }

    #[test]
    fn a_name_is_learnt_from_a_service_and_not_from_a_client() {
        let calls = Calls::new();
        let new = || calls.method("/test.Echo/Say");
        assert_eq!(new(), fresh("test.Echo/Say"));
        calls.count(new(), Some(12), true);
        calls.count(new(), Some(14), false);
        calls.count(new(), None, true);
        assert_eq!((calls.methods.len(), calls.others[12].get(), calls.others[17].get()), (0, 1, 1));
        calls.count(new(), Some(0), true);
        calls.count(fresh("test.Echo/Say"), Some(5), true);
        assert_eq!(new(), CallMethod::Known(0));
        calls.count(new(), None, false);
        assert_eq!(calls.methods.len(), 1);
        let method = calls.methods.slot(0);
        assert_eq!((method.name(), [0, 5, 17].map(|at| method.outcomes[at].get())), (("test.Echo", "Say"), [1, 1, 1]));
    }

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let calls = Calls::new();
        for n in 0..1_000 {
            calls.count(calls.method(&format!("/s/m{n}")), Some(0), true);
        }
        assert_eq!(calls.methods.len(), limits::ROUTE_METHODS_MAX);
        assert_eq!(calls.others[0].get(), 1_000 - limits::ROUTE_METHODS_MAX as u64);
        let calls = Calls::new();
        let long = format!("/s/{}", "m".repeat(limits::METHOD_NAME_BYTES_MAX));
        for path in ["/", "*", "/s", "/s/", "//m", "/s/m%20", "/s/m\"x", &long] {
            assert_eq!(calls.method(path), CallMethod::Other, "{path}");
        }
        assert_eq!(calls.method("/api/v1/s.S/m"), fresh("s.S/m"));
    }
}
