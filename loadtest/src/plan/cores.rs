//! Who runs where: the generator, the gateway and its upstreams on different cores, as far as there are enough.
//!
//! Two of them on one core measure each other. The gateway comes first, since its figures are what is asked for; generator and upstreams
//! get a quarter of the cores each, or the last one together on a machine of two or three.

/// Cores by their use; an empty list is not pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Division {
    /// Of the generator's threads.
    pub generator: Vec<usize>,
    /// Of the gateway under test.
    pub gateway: Vec<usize>,
    /// Of upstreams.
    pub upstreams: Vec<usize>,
}

impl Division {
    /// Of these, when nobody says anything: a gateway, what stands behind it, and the generator.
    #[must_use]
    pub fn of(cores: &[usize]) -> Self {
        divide(cores, &AUTO)
    }
}

impl Division {
    /// The generator's cores are nobody else's, as far as the tool decides.
    #[must_use]
    pub fn sets_generator_apart(&self) -> bool {
        let shares = |other: &[usize]| other.is_empty() || other.iter().any(|core| self.generator.contains(core));
        !self.generator.is_empty() && !shares(&self.gateway) && !shares(&self.upstreams)
    }

    /// Of a demonstration, where a figure that can be relied on is worth more than one that is high: on two or three cores the generator has
    /// the last one for itself, and the services share the others with the gateway.
    #[must_use]
    pub fn of_demonstration(cores: &[usize]) -> Self {
        match cores {
            [others @ .., last] if (2..=3).contains(&cores.len()) => {
                Self { generator: vec![*last], gateway: others.to_vec(), upstreams: others.to_vec() }
            }
            _ => Self::of(cores),
        }
    }
}

/// Nobody says anything.
const AUTO: Wishes<'_> =
    Wishes { generator: None, gateway: None, upstreams: &[], starts: true, is_upstream_auto: true };

/// What the plan says itself; `None` is "auto".
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes<'a> {
    pub(super) generator: Option<&'a [usize]>,
    pub(super) gateway: Option<&'a [usize]>,
    /// Those of upstreams that say something.
    pub(super) upstreams: &'a [usize],
    /// Whether a gateway and upstreams are started at all.
    pub(super) starts: bool,
    /// Whether an upstream wants "auto".
    pub(super) is_upstream_auto: bool,
}

/// Divides `available` among those who say "auto": what the others named is left to them.
pub(super) fn divide(available: &[usize], wishes: &Wishes<'_>) -> Division {
    let named = |core: &usize| {
        let lists = [wishes.generator.unwrap_or_default(), wishes.gateway.unwrap_or_default(), wishes.upstreams];
        lists.iter().any(|list| list.contains(core))
    };
    let left: Vec<usize> = available.iter().copied().filter(|core| !named(core)).collect();
    let wants_gateway = wishes.starts && wishes.gateway.is_none();
    let wants_upstreams = wishes.starts && wishes.is_upstream_auto;
    let helpers = usize::from(wishes.generator.is_none()) + usize::from(wants_upstreams);
    // a core for each helper when a gateway of ours gets at least as much as one of them; else the last one for both
    let each = match (left.len(), wants_gateway) {
        _ if helpers == 0 => 0,
        (0, _) | (1, true) => 0,
        (count, true) => (count / 4).max(1),
        (count, false) if wishes.starts => (count / helpers.max(1)).max(1),
        (count, false) => (count / 4).max(1),
    };
    let are_apart = helpers < 2 || left.len() >= if wants_gateway { 4 } else { 2 };
    let (rest, last) = left.split_at(left.len() - each);
    let (rest, before) = if are_apart && helpers == 2 { rest.split_at(rest.len() - each) } else { (rest, last) };
    Division {
        generator: wishes.generator.map_or_else(|| last.to_vec(), <[usize]>::to_vec),
        gateway: match wishes.gateway {
            Some(named) => named.to_vec(),
            None if wants_gateway && (each > 0 || helpers == 0) => rest.to_vec(),
            None => Vec::new(),
        },
        upstreams: if !wants_upstreams { Vec::new() } else { before.to_vec() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(count: usize, wishes: &Wishes<'_>) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
        let division = divide(&(0..count).collect::<Vec<_>>(), wishes);
        (division.gateway, division.upstreams, division.generator)
    }

    #[test]
    fn the_gateway_gets_what_the_others_do_not_need() {
        assert_eq!(divided(1, &AUTO), (vec![], vec![], vec![]));
        assert_eq!(divided(2, &AUTO), (vec![0], vec![1], vec![1]));
        assert_eq!(divided(3, &AUTO), (vec![0, 1], vec![2], vec![2]));
        assert_eq!(divided(4, &AUTO), (vec![0, 1], vec![2], vec![3]));
        assert_eq!(divided(8, &AUTO), (vec![0, 1, 2, 3], vec![4, 5], vec![6, 7]));
        assert_eq!(divided(0, &AUTO), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_generator_is_set_apart_where_that_can_be() {
        let apart = |count: usize| Division::of_demonstration(&(0..count).collect::<Vec<_>>()).sets_generator_apart();
        assert_eq!([1, 2, 3, 4, 8].map(apart), [false, true, true, true, true]);
        let two = Division::of_demonstration(&[4, 7]);
        assert_eq!((two.generator, two.gateway, two.upstreams), (vec![7], vec![4], vec![4]));
        assert!(!Division::of(&[0, 1]).sets_generator_apart(), "it is with the services");
    }

    #[test]
    fn what_is_named_is_left_alone() {
        let gateway = Wishes { gateway: Some(&[0, 1]), ..AUTO };
        assert_eq!(divided(4, &gateway), (vec![0, 1], vec![2], vec![3]));
        assert_eq!(divided(3, &gateway), (vec![0, 1], vec![2], vec![2]));
        assert_eq!(divided(2, &gateway), (vec![0, 1], vec![], vec![]), "nothing is left to pin to");
        let generator = Wishes { generator: Some(&[0]), ..AUTO };
        assert_eq!(divided(4, &generator), (vec![1, 2], vec![3], vec![0]));
        let upstreams = Wishes { upstreams: &[3], is_upstream_auto: false, ..AUTO };
        assert_eq!(divided(4, &upstreams), (vec![0, 1], vec![], vec![2]));
        let both = Wishes { generator: Some(&[2]), ..upstreams };
        assert_eq!(divided(4, &both), (vec![0, 1], vec![], vec![2]));
    }

    #[test]
    fn a_server_that_is_there_already_is_given_room() {
        let alone = Wishes { starts: false, is_upstream_auto: false, ..AUTO };
        assert_eq!(divided(8, &alone), (vec![], vec![], vec![6, 7]));
        assert_eq!(divided(2, &alone), (vec![], vec![], vec![1]));
    }
}
