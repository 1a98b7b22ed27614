//! The endpoints that one request has met, kept in place: no allocation, at most [`VISITS_MAX`].
//!
//! A list and not a bitmap: a request meets two or three endpoints of perhaps thousands, and the access log wants their order.

use crate::limits::VISITS_MAX;
use crate::units::EndpointId;

/// Endpoints in the order in which they were met, repeats included.
#[derive(Clone, Copy, Debug)]
pub struct Visited {
    ids: [EndpointId; VISITS_MAX],
    len: u8,
}

impl Visited {
    /// None met yet.
    pub const EMPTY: Self = Self { ids: [EndpointId(0); VISITS_MAX], len: 0 };

    /// Notes one more; false (and no change) when [`VISITS_MAX`] were noted before.
    pub fn push(&mut self, id: EndpointId) -> bool {
        let Some(slot) = self.ids.get_mut(usize::from(self.len)) else { return false };
        *slot = id;
        self.len += 1;
        true
    }

    /// Takes the last one back.
    pub fn pop(&mut self) -> Option<EndpointId> {
        self.len = self.len.checked_sub(1)?;
        Some(self.ids[usize::from(self.len)])
    }

    /// Whether no more can be noted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        usize::from(self.len) == VISITS_MAX
    }

    /// In order.
    #[must_use]
    pub fn as_slice(&self) -> &[EndpointId] {
        &self.ids[..usize::from(self.len)]
    }

    /// Whether `id` was met.
    #[must_use]
    pub fn contains(&self, id: EndpointId) -> bool {
        self.as_slice().contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_repeats_and_refuses_more_than_it_holds() {
        let mut visited = Visited::EMPTY;
        assert_eq!(visited.pop(), None);
        for i in 0..VISITS_MAX {
            assert!(visited.push(EndpointId(i as u16 / 2)));
        }
        assert!(!visited.push(EndpointId(99)));
        assert!(visited.contains(EndpointId(0)) && !visited.contains(EndpointId(99)));
        assert_eq!(visited.as_slice().len(), VISITS_MAX);
        assert_eq!(visited.pop(), Some(EndpointId(VISITS_MAX as u16 / 2 - 1)));
        assert_eq!(visited.as_slice().len(), VISITS_MAX - 1);
    }
}
