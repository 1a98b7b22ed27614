//! What ring hash and Maglev share: walking forward, and what happens when the walk grows long.
//!
//! A key whose endpoint cannot take it goes to the next one along the table; other keys stay where they are. When most of a tier is away
//! that walk would be long, so after some steps the key's endpoint is the one with the highest hash of (key, endpoint) instead
//! (rendezvous hashing, Thaler and Ravishankar 1998): O(available), and as steady as the table while the available set stays.

use super::Candidates;
use crate::policy::chance::{mix, unit_of};
use crate::units::EndpointId;

/// Steps along a table before rendezvous takes over.
const STEPS_MAX: usize = 256;

/// The first endpoint of `walk` (which never ends) that is available and takes the request, or else the one by rendezvous among
/// `available`, which is ascending.
pub(super) fn first_taking(
    walk: impl Iterator<Item = EndpointId>,
    available: &[EndpointId],
    c: &Candidates<'_>,
) -> Option<EndpointId> {
    // the walk goes over all members, and only some of them are available
    let take = |id: EndpointId| available.binary_search(&id).is_ok() && c.take(id);
    walk.take(STEPS_MAX).find(|id| take(*id)).or_else(|| {
        let score = |id: &EndpointId| {
            let endpoint = c.endpoint(*id);
            // -w / ln(u): weighted rendezvous (Schindler and Schmid)
            -f64::from(endpoint.weight) / unit_of(mix(c.key ^ endpoint.identity)).max(f64::MIN_POSITIVE).ln()
        };
        available.iter().copied().filter(|id| c.take(*id)).max_by(|a, b| score(a).total_cmp(&score(b)))
    })
}
