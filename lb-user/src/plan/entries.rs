//! One VIP or one server: what the kernel's maps say about it.

use std::{net::IpAddr, time::Duration};

use lb_common::{
    abi::{
        Mode as KernelMode, Selection, Server as KernelServer, ServerRef, TAG_UNIT, Vip as KernelVip,
        server_flags, vip_flags,
    },
    conntrack::TICK_NS,
    family::{words4, words6},
};

use super::desired::{Hop, Way};
use crate::model::{Algorithm, Empty, Mode, Persistence, Server, Vip};

/// A VIP's value in `VIPS4` and `VIPS6`.
pub(super) fn vip(vip: &Vip, id: u16) -> KernelVip {
    let mode = match vip.mode {
        Mode::Snat => KernelMode::Snat,
        Mode::Nat => KernelMode::Nat,
        Mode::Dr => KernelMode::Dr,
        Mode::Ipip => KernelMode::Ipip,
        Mode::Gue => KernelMode::Gue,
        Mode::Http | Mode::Tcp => KernelMode::Local,
    };
    let selection = match turns(vip) {
        Some(Turns::RoundRobin) => Selection::RoundRobin,
        Some(Turns::LeastConnections) => Selection::LeastConnections,
        None => Selection::Ring,
    };
    let empty = match vip.empty {
        Empty::Drop => 0,
        Empty::Reject => vip_flags::EMPTY_REJECT,
        Empty::Pass => vip_flags::EMPTY_PASS,
    };
    let flag = |holds: bool, flag: u16| if holds { flag } else { 0 };
    KernelVip {
        id,
        mode: mode as u8,
        selection: selection as u8,
        flags: empty
            | flag(is_by_source(vip), vip_flags::BY_SOURCE)
            | flag(!vip.flow_state, vip_flags::NO_FLOW_STATE)
            | flag(vip.max_new_flows.is_some(), vip_flags::LIMITED)
            | flag(!vip.quic.is_empty(), vip_flags::QUIC),
        mss: vip.mss.unwrap_or(0),
        persistence: persistence(vip),
        pad: 0,
    }
}

/// Selections in which a flow's slot does not say which server it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turns {
    RoundRobin,
    LeastConnections,
}

/// The selection of a VIP whose flows take turns. With a single server for all there is nothing to choose.
pub(super) fn turns(vip: &Vip) -> Option<Turns> {
    match vip.algorithm {
        _ if vip.persistence == Persistence::LastSuccessful => None,
        Algorithm::RoundRobin => Some(Turns::RoundRobin),
        Algorithm::LeastConnections => Some(Turns::LeastConnections),
        // That of two is the proxy's own way.
        Algorithm::Maglev | Algorithm::Source | Algorithm::First | Algorithm::PowerOfTwo => None,
    }
}

/// Whether all flows of a client go to one server.
pub(super) fn is_by_source(vip: &Vip) -> bool {
    vip.algorithm == Algorithm::Source || matches!(vip.persistence, Persistence::SourceIp { .. })
}

/// How long a client is remembered, in units of a flow tag's time; 0 for as long as may be.
pub(super) fn persistence(vip: &Vip) -> u16 {
    let Persistence::SourceIp { timeout: Some(timeout), .. } = vip.persistence else { return 0 };
    let unit = u128::from(TICK_NS) * u128::from(TAG_UNIT);
    timeout.as_nanos().div_ceil(unit).try_into().unwrap_or(u16::MAX)
}

/// What a second's number is in a tick, at least 1 unless it is 0.
pub(super) fn per_tick(per_second: u32) -> u32 {
    let second = Duration::from_secs(1).as_nanos() as u64;
    (u64::from(per_second) * TICK_NS).div_ceil(second).try_into().unwrap_or(u32::MAX)
}

/// A server's entry, without the flags that say what it is used for.
pub(super) fn server(
    vip: &Vip,
    (server, address): (&Server, IpAddr),
    reference: ServerRef,
    number: u16,
    hop: Option<&Hop>,
) -> KernelServer {
    let mut entry = KernelServer {
        address: words(address),
        port: if vip.mode == Mode::Gue { vip.gue_port } else { vip.server_port.unwrap_or(0) },
        generation: reference.generation(),
        vip: number,
        flags: if address.is_ipv6() { server_flags::IPV6 } else { 0 },
        weight: server.weight,
        ..KernelServer::default()
    };
    if let Ok(way) = way(vip, hop) {
        entry.ifindex = way.ifindex;
        entry.source_mac = way.source_mac;
        entry.source = way.source.map(words).unwrap_or_default();
        if vip.mode.is_tunnel() {
            entry.mtu = way.mtu.try_into().unwrap_or(u16::MAX);
        }
        if let Some(mac) = way.next_hop {
            entry.next_hop = mac;
            entry.flags |= server_flags::HOP_KNOWN;
        }
    }
    entry
}

/// Why this VIP's packets cannot be sent to a server; `None` if they can.
#[must_use]
pub fn hop_problem(vip: &Vip, hop: Option<&Hop>) -> Option<String> {
    match way(vip, hop) {
        Err(problem) => Some(problem),
        Ok(way) if way.next_hop.is_none() => Some("the MAC address of the next hop is not known yet".into()),
        Ok(_) => None,
    }
}

/// The way to a server, if it is one for this VIP's mode.
pub(super) fn way<'a>(vip: &Vip, hop: Option<&'a Hop>) -> Result<&'a Way, String> {
    match hop {
        None => Err("the way to it is not known yet".into()),
        Some(Err(problem)) => Err(problem.clone()),
        Some(Ok(way)) if way.routed && vip.mode == Mode::Dr => Err(
            "mode dr changes only the MAC address, so the server must be on a network of this host, but the \
             route to it leads over a router; modes ipip and gue reach it there"
                .into(),
        ),
        Some(Ok(way)) if way.source.is_none() && (vip.mode == Mode::Snat || vip.mode.is_tunnel()) => {
            Err(format!(
                "mode {} needs an address of this host as source, but the route to the server has none",
                vip.mode
            ))
        }
        Some(Ok(way)) => Ok(way),
    }
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => words4(address.octets()),
        IpAddr::V6(address) => words6(address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::Mac;

    use super::*;
    use crate::plan::desired::tests;

    fn value(change: impl FnOnce(&mut Vip)) -> KernelVip {
        let mut one = tests::vip("v", 80);
        change(&mut one);
        vip(&one, 7)
    }

    #[test]
    fn every_option_has_its_place() {
        let plain = value(|_| {});
        let expected = KernelVip { id: 7, mode: KernelMode::Snat as u8, flags: 0, ..KernelVip::default() };
        assert_eq!(plain, expected);
        assert_eq!(value(|vip| vip.mss = Some(1_400)).mss, 1_400);
        assert_eq!(value(|vip| vip.max_new_flows = Some(9)).flags, vip_flags::LIMITED);
        assert_eq!(value(|vip| vip.flow_state = false).flags, vip_flags::NO_FLOW_STATE);
        assert_eq!(value(|vip| vip.empty = Empty::Reject).flags, vip_flags::EMPTY_REJECT);
        assert_eq!(value(|vip| vip.empty = Empty::Pass).flags, vip_flags::EMPTY_PASS);
        assert_eq!(value(|vip| vip.mode = Mode::Ipip).mode, KernelMode::Ipip as u8);
        assert_eq!(value(|vip| vip.mode = Mode::Gue).mode, KernelMode::Gue as u8);
        for (algorithm, selection, flags) in [
            (Algorithm::Maglev, Selection::Ring, 0),
            (Algorithm::RoundRobin, Selection::RoundRobin, 0),
            (Algorithm::LeastConnections, Selection::LeastConnections, 0),
            (Algorithm::Source, Selection::Ring, vip_flags::BY_SOURCE),
            (Algorithm::First, Selection::Ring, 0),
        ] {
            let value = value(|vip| vip.algorithm = algorithm);
            assert_eq!((value.selection, value.flags), (selection as u8, flags), "{algorithm}");
        }
    }

    #[test]
    fn a_client_is_remembered_for_as_long_as_is_written() {
        let of = |timeout| {
            value(|vip| {
                vip.persistence = Persistence::SourceIp { timeout, entries: None };
            })
        };
        assert_eq!((of(None).flags, of(None).persistence), (vip_flags::BY_SOURCE, 0));
        // 30 minutes are 419.1 units of 4.295 seconds.
        assert_eq!(of(Some(Duration::from_secs(1_800))).persistence, 420);
        assert!(of(Some(Duration::from_secs(18 * 3_600))).persistence < 1 << 14);
    }

    #[test]
    fn a_tick_is_a_little_longer_than_a_second() {
        assert_eq!([per_tick(0), per_tick(1), per_tick(1_000)], [0, 2, 1_074]);
        assert_eq!(per_tick(u32::MAX), u32::MAX);
    }

    #[test]
    fn a_tunnel_has_a_source_a_port_and_a_largest_packet() {
        let way = Way {
            ifindex: 3,
            source_mac: Mac::new([2; 6]),
            next_hop: Some(Mac::new([4; 6])),
            routed: true,
            source: Some(IpAddr::from([10, 0, 0, 9])),
            mtu: 1_500,
        };
        let behind = tests::server("s", 1);
        let entry = |mode, gue_port, way: Way| {
            let vip = Vip { mode, gue_port, ..tests::vip("v", 80) };
            server(&vip, (&behind, behind.address().unwrap()), ServerRef::new(1, 1), 1, Some(&Ok(way)))
        };
        let gue = entry(Mode::Gue, 6_081, way);
        assert_eq!((gue.mtu, gue.port, gue.flags), (1_500, 6_081, server_flags::HOP_KNOWN));
        assert_eq!((entry(Mode::Ipip, 6_081, way).port, entry(Mode::Snat, 6_081, way).mtu), (0, 0));
        assert_eq!(entry(Mode::Ipip, 0, Way { mtu: 1 << 20, ..way }).mtu, u16::MAX);
        let lost = entry(Mode::Ipip, 0, Way { source: None, ..way });
        assert_eq!((lost.ifindex, lost.flags), (0, 0), "nothing can be sent without a source");
    }
}
