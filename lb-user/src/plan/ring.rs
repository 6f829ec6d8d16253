//! From a list of servers to the slots of a VIP's ring.

use std::net::IpAddr;

use lb_common::{
    abi::{RING_SIZE, Ring, ServerRef},
    maglev::{self, Member},
};

/// What a ring is made from. Equal specifications make equal rings, whatever the order in the file, so a ring
/// is only computed when its specification changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingSpec {
    servers: Vec<(ServerRef, u16, IpAddr)>,
}

impl RingSpec {
    /// Servers with their weights and addresses. The address is the identity: two balancers that call a
    /// server by different names still agree on its slots.
    #[must_use]
    pub fn new(mut servers: Vec<(ServerRef, u16, IpAddr)>) -> Self {
        servers.sort_unstable_by_key(|&(_, _, address)| address);
        Self { servers }
    }

    /// Whether no server is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The slots.
    #[must_use]
    pub fn build(&self) -> Box<Ring> {
        let mut members: Vec<_> = self
            .servers
            .iter()
            .map(|&(server, weight, address)| match address {
                IpAddr::V4(address) => Member::new(server, weight, &address.octets()),
                IpAddr::V6(address) => Member::new(server, weight, &address.octets()),
            })
            .collect();
        let mut slots = vec![0; RING_SIZE + 1];
        maglev::populate(&mut members, &mut slots[..RING_SIZE]);
        slots.into_boxed_slice().try_into().expect("made with just this length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_file_does_not_matter() {
        let servers: Vec<_> =
            (1..=5).map(|n| (ServerRef::new(n, 1), 100, IpAddr::from([10, 0, 0, n as u8]))).collect();
        let forward = RingSpec::new(servers.clone());
        let backward = RingSpec::new(servers.into_iter().rev().collect());
        assert_eq!(forward, backward);
        assert_eq!(forward.build(), backward.build());
    }

    #[test]
    fn no_servers_make_an_empty_ring() {
        assert!(RingSpec::default().build().iter().all(|&slot| slot == ServerRef::NONE.0));
    }
}
