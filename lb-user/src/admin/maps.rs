//! `/v1/maps`: what the kernel program's maps contain, for those who help. Without keys, and without the seed that keeps
//! others from aiming at a line of the flow tables.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use lb_common::abi::Settings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{plan::Image, trace::Insight};

/// Lines about each map, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Maps(BTreeMap<String, Vec<String>>);

impl Maps {
    /// What the loop has written.
    #[must_use]
    pub fn of(insight: &Insight) -> Self {
        let (written, names) = (&insight.written, &insight.names);
        let settings = Settings { seed: 0, ..written.settings };
        let vips4 = written.vips4.iter().map(|(key, vip)| {
            let address = Ipv4Addr::from(key.address.to_ne_bytes());
            format!("{address} port {} protocol {}: {vip:?}", key.port, key.protocol)
        });
        let vips6 = written.vips6.iter().map(|(key, vip)| {
            let address = address6(key.address);
            format!("{address} port {} protocol {}: {vip:?}", key.port, key.protocol)
        });
        let servers = written.servers.iter().map(|(index, server)| {
            let name = names.server_name(*index);
            format!("{index} ({} of {}): {server:?}", name, names.vip(server.vip))
        });
        let rings = written
            .rings
            .iter()
            .map(|(vip, ring)| format!("{vip} ({}): {}", names.vip(*vip), shares(ring, insight)));
        let interfaces =
            written.interfaces.iter().map(|(place, interface)| format!("{place}: {interface:?}"));
        let limits = written
            .limits
            .iter()
            .map(|(vip, limit)| format!("{vip} ({}): {limit} in a tick", names.vip(*vip)));
        let quic = written.quic.keys().map(|key| format!("{key:?}: (hidden)"));
        let quic_servers = written.quic_servers.iter().map(|(key, server)| format!("{key:?}: {server:?}"));
        let maps = [
            ("SETTINGS", vec![format!("{settings:?}")]),
            ("VIPS4", vips4.collect()),
            ("VIPS6", vips6.collect()),
            ("SERVERS", servers.collect()),
            ("RINGS", rings.collect()),
            ("INTERFACES", interfaces.collect()),
            ("LIMITS", limits.collect()),
            ("QUIC", quic.collect()),
            ("QUIC_SERVERS", quic_servers.collect::<Vec<_>>()),
        ];
        Self(maps.into_iter().map(|(name, lines)| (name.to_owned(), lines)).collect())
    }
}

/// How many slots each server has, and how many of them are tagged.
fn shares(ring: &Image, insight: &Insight) -> String {
    let mut shares: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
    for slot in ring.slots() {
        let (slots, tagged) = shares.entry(slot.server().index()).or_default();
        *slots += 1;
        *tagged += u32::from(slot.tagged());
    }
    let share = |(index, (slots, tagged)): (u16, (u32, u32))| {
        let name = if index == 0 { "nobody".into() } else { insight.names.server_name(index) };
        format!("{name} {slots} slots ({tagged} tagged)")
    };
    shares.into_iter().map(share).collect::<Vec<_>>().join(", ")
}

fn address6(address: [u32; 4]) -> Ipv6Addr {
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(address) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(bytes)
}

#[cfg(test)]
mod tests {
    use lb_common::{
        abi::{QuicLbKey, ServerRef, Vip, VipKey},
        quic::lb::Encoding,
    };

    use super::*;
    use crate::{
        plan::{Desired, RingSpec},
        trace::Names,
    };

    #[test]
    fn everything_is_told_but_for_keys_and_the_seed() {
        let mut written = Desired::default();
        written.settings.seed = 0xdead_beef_dead_beef;
        let key = VipKey { address: u32::from_ne_bytes([192, 0, 2, 1]), port: 80, protocol: 6 };
        written.vips4.insert(key, Vip { id: 1, ..Vip::default() });
        let one = (ServerRef::new(3, 1), 100, std::net::IpAddr::from([10, 0, 0, 1]));
        written.rings.insert(1, RingSpec::filled(vec![one], crate::plan::ring::Fill::Places).build());
        let quic = QuicLbKey { vip: 1, rotation: 0 };
        written.quic.insert(quic, Encoding::new(2, 6, None).unwrap().entry());
        let insight =
            Insight { written, names: Names::made_up(&[(1, "web")], &[(3, "s1")]), attached: vec![] };
        let maps = Maps::of(&insight);
        assert_eq!(maps.0["RINGS"], ["1 (web): s1 65537 slots (0 tagged)"]);
        assert!(maps.0["VIPS4"][0].starts_with("192.0.2.1 port 80 protocol 6: Vip"), "{maps:?}");
        assert!(maps.0["QUIC"][0].ends_with("(hidden)"));
        let text = format!("{maps:?}");
        assert!(!text.contains(&0xdead_beef_dead_beef_u64.to_string()), "{text}");
    }
}
