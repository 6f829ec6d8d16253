//! From what the maps contain to what they must contain, one safe step after the other.
//!
//! Order: what is pointed at before what points at it. Servers, then rings, then VIPs; and to remove, the
//! reverse. A server that is to lose flows loses its slots before, or gets them tagged: its flows that are new
//! meanwhile are remembered. Between any two operations the maps are consistent: a packet finds the old way or the new.

use std::collections::BTreeMap;

use lb_common::abi::{
    Interface, QuicLb, QuicLbKey, QuicServerKey, Server, ServerRef, Settings, Vip, VipKey, server_flags,
};

use super::{Desired, Image};

/// One change of one map.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Replace the settings record.
    Settings(Settings),
    /// Enter an interface at a place, or take out what is there.
    Interface(u32, Option<Interface>),
    /// Set how many new flows a VIP may have in a tick; 0 for one without a limit.
    Limit(u16, u32),
    /// Enter how connection IDs of a VIP's QUIC are to be read, or take it out.
    Quic(QuicLbKey, Option<QuicLb>),
    /// Enter the server that has a name in them, or take it out.
    QuicServer(QuicServerKey, Option<ServerRef>),
    /// Replace a server entry; `None` blanks it.
    Server(u16, Option<Server>),
    /// Replace a VIP's ring; `None` empties it.
    Ring(u16, Option<Image>),
    /// Enter an IPv4 VIP port, or take it out.
    Vip4(VipKey<u32>, Option<Vip>),
    /// Enter an IPv6 VIP port, or take it out.
    Vip6(VipKey<[u32; 4]>, Option<Vip>),
}

/// The operations that make `old` into `new`.
#[must_use]
pub fn diff(old: &Desired, new: &Desired) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut add = |operation| operations.push(operation);
    changed(&old.interfaces, &new.interfaces)
        .for_each(|(key, value)| add(Operation::Interface(key, Some(value))));
    // The settings say where each interface is found.
    if old.settings != new.settings {
        add(Operation::Settings(new.settings));
    }
    changed(&old.limits, &new.limits).for_each(|(key, value)| add(Operation::Limit(key, value)));
    let (losing, others): (Vec<_>, Vec<_>) = changed(&old.servers, &new.servers)
        .partition(|(key, server)| old.servers.get(key).is_some_and(|old| loses_flows(old, server)));
    others.into_iter().for_each(|(key, value)| add(Operation::Server(key, Some(value))));
    changed(&old.rings, &new.rings).for_each(|(key, value)| add(Operation::Ring(key, Some(value))));
    losing.into_iter().for_each(|(key, value)| add(Operation::Server(key, Some(value))));
    changed(&old.quic_servers, &new.quic_servers)
        .for_each(|(key, value)| add(Operation::QuicServer(key, Some(value))));
    changed(&old.quic, &new.quic).for_each(|(key, value)| add(Operation::Quic(key, Some(value))));
    changed(&old.vips4, &new.vips4).for_each(|(key, value)| add(Operation::Vip4(key, Some(value))));
    changed(&old.vips6, &new.vips6).for_each(|(key, value)| add(Operation::Vip6(key, Some(value))));
    gone(&old.vips4, &new.vips4).for_each(|key| add(Operation::Vip4(key, None)));
    gone(&old.vips6, &new.vips6).for_each(|key| add(Operation::Vip6(key, None)));
    gone(&old.quic, &new.quic).for_each(|key| add(Operation::Quic(key, None)));
    gone(&old.quic_servers, &new.quic_servers).for_each(|key| add(Operation::QuicServer(key, None)));
    gone(&old.rings, &new.rings).for_each(|key| add(Operation::Ring(key, None)));
    gone(&old.servers, &new.servers).for_each(|key| add(Operation::Server(key, None)));
    gone(&old.limits, &new.limits).for_each(|key| add(Operation::Limit(key, 0)));
    gone(&old.interfaces, &new.interfaces).for_each(|key| add(Operation::Interface(key, None)));
    operations
}

/// Whether a server takes fewer flows than it did.
fn loses_flows(old: &Server, new: &Server) -> bool {
    old.flags & !new.flags & (server_flags::ACCEPTS_NEW | server_flags::KEEPS_FLOWS) != 0
}

/// Entries that are new or different.
fn changed<'a, K: Ord + Copy, V: PartialEq + Clone>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> + 'a {
    let different = move |(key, value): &(&K, &V)| old.get(*key) != Some(*value);
    new.iter().filter(different).map(|(key, value)| (*key, value.clone()))
}

/// Keys that are no longer there.
fn gone<'a, K: Ord + Copy, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    old.keys().filter(|key| !new.contains_key(*key)).copied()
}

impl Desired {
    /// Notes an operation that was carried out, so that the picture stays true if a later one fails.
    pub fn note(&mut self, operation: Operation) {
        fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        match operation {
            Operation::Settings(settings) => self.settings = settings,
            Operation::Interface(key, value) => set(&mut self.interfaces, key, value),
            Operation::Quic(key, value) => set(&mut self.quic, key, value),
            Operation::QuicServer(key, value) => set(&mut self.quic_servers, key, value),
            Operation::Limit(key, value) => set(&mut self.limits, key, (value > 0).then_some(value)),
            Operation::Server(key, value) => set(&mut self.servers, key, value),
            Operation::Ring(key, value) => set(&mut self.rings, key, value),
            Operation::Vip4(key, value) => set(&mut self.vips4, key, value),
            Operation::Vip6(key, value) => set(&mut self.vips6, key, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::plan::RingSpec;

    fn picture() -> Desired {
        let key = VipKey { address: 1, port: 80, protocol: 6 };
        let key6 = VipKey { address: [1; 4], port: 80, protocol: 6 };
        let vip = Vip { id: 1, mode: 3, ..Vip::default() };
        let quic = lb_common::quic::lb::Encoding::new(2, 6, None).expect("lengths that fit").entry();
        let member = (ServerRef::new(1, 1), 100, IpAddr::from([10, 0, 0, 1]));
        Desired {
            settings: Settings { abi_version: 1, ..Settings::default() },
            vips4: [(key, vip)].into(),
            vips6: [(key6, vip)].into(),
            rings: [(1, RingSpec::new(vec![member]).build())].into(),
            servers: [(1, Server { vip: 1, ..Server::default() })].into(),
            interfaces: [(3, Interface { ifindex: 3, ..Interface::default() })].into(),
            limits: [(1, 10)].into(),
            quic: [(QuicLbKey { vip: 1, rotation: 0 }, quic)].into(),
            quic_servers: [(QuicServerKey { id: 7, vip: 1 }, ServerRef::new(1, 1))].into(),
        }
    }

    #[test]
    fn operations_lead_from_any_picture_to_any_other() {
        let mut other = picture();
        other.servers.insert(2, Server { vip: 1, port: 8_080, ..Server::default() });
        other.rings.insert(1, RingSpec::default().build());
        other.interfaces.clear();
        for (old, new) in [
            (Desired::default(), picture()),
            (picture(), Desired::default()),
            (picture(), other.clone()),
            (other, picture()),
        ] {
            let mut current = old.clone();
            diff(&old, &new).into_iter().for_each(|operation| current.note(operation));
            assert_eq!(current, new);
        }
        assert_eq!(diff(&picture(), &picture()), []);
    }

    #[test]
    fn a_server_that_is_to_lose_flows_comes_after_its_ring() {
        let with = |flags, ring: RingSpec| {
            let mut picture = picture();
            picture.servers.insert(1, Server { vip: 1, flags, ..Server::default() });
            picture.rings.insert(1, ring.build());
            picture
        };
        let (all, keeps) = (server_flags::ACCEPTS_NEW | server_flags::KEEPS_FLOWS, server_flags::KEEPS_FLOWS);
        let other = || RingSpec::new(vec![(ServerRef::new(2, 1), 100, IpAddr::from([10, 0, 0, 2]))]);
        let (open, shut) = (with(all, RingSpec::default()), with(keeps, other()));
        assert!(matches!(diff(&open, &shut)[..], [Operation::Ring(..), Operation::Server(..)]));
        assert!(matches!(diff(&shut, &open)[..], [Operation::Server(..), Operation::Ring(..)]));
    }

    #[test]
    fn what_is_pointed_at_comes_first_and_goes_last() {
        let rank = |operation: &Operation| match operation {
            Operation::Interface(..) => 0,
            Operation::Settings(_) => 1,
            Operation::Limit(..) => 2,
            Operation::Server(..) => 3,
            Operation::Ring(..) => 4,
            Operation::QuicServer(..) => 5,
            Operation::Quic(..) => 6,
            Operation::Vip4(..) => 7,
            Operation::Vip6(..) => 8,
        };
        let up: Vec<_> = diff(&Desired::default(), &picture()).iter().map(rank).collect();
        assert_eq!(up, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let down: Vec<_> = diff(&picture(), &Desired::default()).iter().map(rank).collect();
        assert_eq!(down, [1, 7, 8, 6, 5, 4, 3, 2, 0]);
    }
}
