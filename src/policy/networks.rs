//! Whether an address is in one of many networks.
//!
//! Networks that overlap or touch are made one range when the set is built, so a look is a binary search in sorted ranges that are apart: 17
//! steps for a hundred thousand, in 8 bytes a range of IPv4. Which of several networks it was does not matter to who asks, so no longest
//! prefix has to be found. An IPv4 address that came mapped into IPv6 counts as IPv4.

use ipnet::IpNet;
use std::net::IpAddr;

/// A set of addresses.
#[derive(Debug, Default)]
pub struct NetworkSet {
    /// First and last address of each range, rising, apart.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl NetworkSet {
    /// All addresses of these networks.
    #[must_use]
    pub fn new(networks: impl Iterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => {
                    let (first, last) = (net.network(), net.broadcast());
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) => v4.push((first.to_bits(), last.to_bits())),
                        _ => v6.push((first.to_bits(), last.to_bits())),
                    }
                }
            }
        }
        Self { v4: merged(v4, |last| last.checked_add(1)), v6: merged(v6, |last| last.checked_add(1)) }
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_in(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_in(&self.v6, address.to_bits()),
        }
    }
}

fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut apart: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match apart.last_mut() {
            // behind the last address of all comes nothing
            Some(before) if next(before.1).is_none_or(|next| first <= next) => before.1 = before.1.max(last),
            _ => apart.push((first, last)),
        }
    }
    apart.into()
}

fn is_in<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).is_some_and(|row| address <= ranges[row].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rng;
    use rand::{RngExt, SeedableRng};
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn set(networks: &[&str]) -> NetworkSet {
        NetworkSet::new(networks.iter().map(|network| network.parse().unwrap()))
    }

    #[test]
    fn edges_are_in_and_their_neighbours_are_not() {
        let set = set(&[
            "10.0.0.0/8",
            "192.0.2.7/32",
            "2001:db8::/32",
            "255.255.255.255/32",
            "0.0.0.0/32",
            "::ffff:198.51.100.0/120",
        ]);
        for yes in [
            "10.0.0.0",
            "10.255.255.255",
            "192.0.2.7",
            "::ffff:10.1.1.1",
            "2001:db8::",
            "2001:db8:ffff::1",
            "255.255.255.255",
            "0.0.0.0",
            "198.51.100.9",
        ] {
            assert!(set.contains(yes.parse().unwrap()), "{yes}");
        }
        for no in [
            "9.255.255.255",
            "11.0.0.0",
            "192.0.2.6",
            "192.0.2.8",
            "2001:db9::",
            "::",
            "::1",
            "0.0.0.1",
            "198.51.101.0",
        ] {
            assert!(!set.contains(no.parse().unwrap()), "{no}");
        }
        assert!(!NetworkSet::default().contains("10.0.0.1".parse().unwrap()));
        let all = self::set(&["0.0.0.0/0", "10.0.0.0/8", "::/0"]);
        assert!(all.contains("255.255.255.255".parse().unwrap()) && all.contains("::1".parse().unwrap()));
    }

    /// A second implementation: every network is asked.
    #[test]
    fn it_says_what_asking_each_network_says() {
        let seed = 0x5eed_0018;
        println!("seed {seed:#x}");
        let mut rng = Rng::seed_from_u64(seed);
        let networks: Vec<IpNet> = (0..2_000)
            .map(|_| {
                let network = match rng.random_bool(0.5) {
                    true => IpNet::new(
                        Ipv4Addr::from_bits(rng.random::<u32>() & 0x03ff_ffff).into(),
                        rng.random_range(16..=32),
                    ),
                    false => {
                        let bits = u128::from(rng.random::<u32>() & 0xffff) << 96;
                        IpNet::new(Ipv6Addr::from_bits(bits).into(), rng.random_range(24..=128))
                    }
                };
                network.unwrap().trunc()
            })
            .collect();
        let set = NetworkSet::new(networks.iter().copied());
        let mut met = [0, 0];
        for _ in 0..20_000 {
            let address: IpAddr = match rng.random_bool(0.5) {
                true => Ipv4Addr::from_bits(rng.random::<u32>() & 0x03ff_ffff).into(),
                false => Ipv6Addr::from_bits(u128::from(rng.random::<u32>() & 0xffff) << 96).into(),
            };
            let expected = networks.iter().any(|network| network.contains(&address));
            assert_eq!(set.contains(address), expected, "{address}");
            met[usize::from(expected)] += 1;
        }
        assert!(met[0] > 100 && met[1] > 100, "{met:?}");
    }
}
