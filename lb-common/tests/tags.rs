//! Flows of `dr`, `ipip` and `gue`: what the ring says, what is remembered, and who is forgotten first. Every packet is
//! also checked against the laws.

use std::collections::{HashMap, HashSet};

use lb_common::{
    abi::{Mode, Selection, TagStage, protocol, vip_flags},
    host::{HostTables, Outcome},
    verdict::{DropReason, Event},
    wire::tcp::{ACK, FIN, RST, SYN},
};
use lb_testkit::{
    bed::Bed,
    draft::Draft,
    service::LIMIT,
    traffic::Change,
    world::{self, Health, Service},
};

const BOTH: [bool; 2] = [true, false];

/// Clients' ports: enough that each server has some of them.
const PORTS: std::ops::Range<u16> = 40_000..40_020;

/// A packet of client 9: a TCP segment with these flags, or a datagram.
fn packet(service: &Service, port: u16, flags: u8) -> Draft {
    let client = world::client(service.at.is_ipv4(), 9, port);
    let draft = Draft::of(service.protocol, client, service.end());
    if service.protocol == protocol::TCP { draft.flags(flags) } else { draft }
}

/// Where packets from each port go.
fn servers(bed: &mut Bed, service: &Service, flags: u8) -> HashMap<u16, u16> {
    PORTS.map(|port| (port, bed.server_of(&packet(service, port, flags)))).collect()
}

/// The plain VIPs whose packets are not translated, for TCP.
fn connections() -> Vec<Service> {
    Bed::default().direct().into_iter().filter(|service| service.protocol == protocol::TCP).collect()
}

/// Takes a server out of use, and the ring with it.
fn retire(bed: &mut Bed, service: &Service, server: u16, health: Health) {
    bed.change(Change::Health(server, health));
    bed.change(Change::Ring(*service));
}

#[test]
fn what_a_settled_slot_says_needs_no_memory() {
    for service in Bed::default().direct() {
        let mut bed = Bed::default();
        // No tick in which one of them would show a sign of life.
        bed.world.tables.now = 1 << 20;
        let before = servers(&mut bed, &service, ACK);
        assert!(before.values().collect::<HashSet<_>>().len() == 3, "{before:?}");
        assert_eq!(servers(&mut bed, &service, ACK), before);
        let tags: Vec<_> = bed.world.tables.flow_tags().collect();
        // In any one tick about one flow in 64 shows a sign of life.
        assert!(tags.len() <= 5, "{tags:?}");
        assert!(service.protocol == protocol::TCP || tags.is_empty());
    }
}

#[test]
fn connections_stay_where_they_began_when_the_ring_moves() {
    for service in connections() {
        let mut bed = Bed::default();
        let before = servers(&mut bed, &service, SYN);
        servers(&mut bed, &service, ACK);
        retire(&mut bed, &service, service.server(1), Health::Draining);
        assert_eq!(servers(&mut bed, &service, ACK), before);
        // And back, and on to others.
        retire(&mut bed, &service, service.server(1), Health::Up);
        retire(&mut bed, &service, service.server(2), Health::Draining);
        assert_eq!(servers(&mut bed, &service, ACK), before);
        assert!(bed.world.tables.events(Event::TagHit) > 0);
    }
}

/// Those whose beginning nobody has seen: they began under another balancer, or during a flood.
#[test]
fn who_is_learned_before_the_ring_moves_stays_and_who_is_not_moves() {
    for service in Bed::default().direct() {
        for learns in BOTH {
            let mut bed = Bed::default();
            let before = servers(&mut bed, &service, ACK);
            if learns {
                bed.change(Change::Tagged(service, true));
                servers(&mut bed, &service, ACK);
            }
            let gone = service.server(1);
            bed.world.fill_ring(&service, &[2, 3]);
            let after = servers(&mut bed, &service, ACK);
            let moved = PORTS.filter(|port| before[port] != after[port]).count();
            let at_gone = before.values().filter(|server| **server == gone).count();
            assert!(at_gone > 0);
            // One or the other may just have shown a sign of life.
            assert!(
                if learns { moved == 0 } else { moved + 1 >= at_gone },
                "{moved} of {at_gone}, {service:?}"
            );
        }
    }
}

#[test]
fn flows_of_a_server_that_fails_or_is_halted_go_where_the_ring_says() {
    for service in connections() {
        for health in [Health::Down, Health::Halted] {
            let mut bed = Bed::default();
            let before = servers(&mut bed, &service, SYN);
            retire(&mut bed, &service, service.server(1), health);
            for (port, server) in servers(&mut bed, &service, ACK) {
                if before[&port] == service.server(1) {
                    assert_ne!(server, service.server(1));
                } else {
                    assert_eq!(server, before[&port], "a bystander was touched");
                }
            }
        }
    }
}

#[test]
fn a_connection_that_has_ended_may_begin_anew_elsewhere() {
    for service in connections() {
        for end in [FIN | ACK, RST] {
            let mut bed = Bed::default();
            let before = servers(&mut bed, &service, SYN);
            servers(&mut bed, &service, ACK);
            bed.world.fill_ring(&service, &[2, 3]);
            // A SYN that is late does not move it.
            assert_eq!(servers(&mut bed, &service, SYN), before);
            assert_eq!(servers(&mut bed, &service, end), before, "the end is for its server");
            assert_eq!(servers(&mut bed, &service, ACK), before, "and what comes after it");
            let mut bed_again = bed;
            servers(&mut bed_again, &service, end);
            let anew = servers(&mut bed_again, &service, SYN);
            assert!(anew.values().all(|server| *server != service.server(1)), "{anew:?}");
        }
    }
}

#[test]
fn syns_beyond_the_limit_are_not_noted_and_established_flows_are() {
    for service in connections() {
        let mut bed = Bed::default();
        bed.world.tables.settings.syn_limit = 10;
        servers(&mut bed, &service, SYN);
        assert_eq!(bed.world.tables.flow_tags().count(), 10);
        assert_eq!(bed.world.tables.events(Event::SynFlood), 10);
        // Each has a tick of its own; then it is noted, and the next time believed.
        for _ in 0..128 {
            servers(&mut bed, &service, ACK);
            servers(&mut bed, &service, SYN);
            bed.wait(1);
        }
        let established = bed.world.tables.flow_tags().filter(|tag| tag.stage() == TagStage::Established);
        assert_eq!(established.count(), PORTS.len(), "{service:?}");
    }
}

#[test]
fn who_was_never_confirmed_gives_way_first() {
    for service in connections() {
        let mut bed = Bed::with_tables(HostTables::new(16, 64));
        let before = servers(&mut bed, &service, SYN);
        // By then each has shown a sign of life.
        for _ in 0..64 {
            servers(&mut bed, &service, ACK);
            bed.wait(1);
        }
        let known: Vec<_> = bed.world.tables.flow_tags().map(|tag| tag.hash()).collect();
        for port in 1_000..6_000 {
            bed.server_of(&packet(&service, port, SYN));
        }
        assert!(bed.world.tables.events(Event::TagEvicted) > 4_000);
        let left: HashSet<_> = bed.world.tables.flow_tags().map(|tag| tag.hash()).collect();
        assert!(known.len() >= PORTS.len() - 2, "{} of {} were known", known.len(), PORTS.len());
        assert!(known.iter().all(|hash| left.contains(hash)), "an established flow gave way to a SYN");
        retire(&mut bed, &service, service.server(1), Health::Draining);
        let after = servers(&mut bed, &service, ACK);
        assert!(PORTS.filter(|port| before[port] != after[port]).count() <= 2);
    }
}

#[test]
fn a_client_that_persists_does_so_for_as_long_as_it_is_told() {
    for four in BOTH {
        let mut bed = Bed::default();
        let service = bed.world.find(|s| s.persistence != 0 && s.at.is_ipv4() == four);
        let first = bed.server_of(&packet(&service, 40_000, SYN));
        let others: Vec<_> = (1..=3).filter(|number| service.server(*number) != first).collect();
        bed.world.fill_ring(&service, &others);
        // In units of four ticks; each new flow begins the time anew.
        for port in 40_001..40_005 {
            bed.wait(u32::from(service.persistence) * 4 - 4);
            assert_eq!(bed.server_of(&packet(&service, port, SYN)), first);
        }
        bed.wait(u32::from(service.persistence) * 4 + 8);
        assert_ne!(bed.server_of(&packet(&service, 40_006, SYN)), first);
    }
}

/// A drained server keeps the connections of a client who is elsewhere by now.
#[test]
fn a_client_that_persists_leaves_its_connections_where_they_are() {
    for four in BOTH {
        let mut bed = Bed::default();
        let service = bed.world.find(|s| s.persistence != 0 && s.at.is_ipv4() == four);
        let first = bed.server_of(&packet(&service, 40_000, SYN));
        retire(&mut bed, &service, first, Health::Draining);
        let second = bed.server_of(&packet(&service, 40_001, SYN));
        assert_ne!(second, first, "a new connection");
        for _ in 0..3 {
            assert_eq!(bed.server_of(&packet(&service, 40_000, ACK)), first);
            assert_eq!(bed.server_of(&packet(&service, 40_001, ACK)), second);
            assert_eq!(bed.server_of(&packet(&service, 40_002, SYN)), second, "the client has moved");
            bed.wait(8);
        }
        // Back in use, it gets the client no more; the connection goes on.
        retire(&mut bed, &service, first, Health::Up);
        assert_eq!(bed.server_of(&packet(&service, 40_003, SYN)), second);
        assert_eq!(bed.server_of(&packet(&service, 40_000, ACK)), first);
        // Time runs out for the client, not for what is open.
        bed.wait(u32::from(service.persistence) * 4 + 8);
        let third = bed.server_of(&packet(&service, 40_004, SYN));
        assert_eq!(bed.server_of(&packet(&service, 40_000, ACK)), first);
        assert_eq!(bed.server_of(&packet(&service, 40_004, ACK)), third);
    }
}

/// Where slots only say whose turn it is, and there is no room to remember a new flow: all its packets go one way.
#[test]
fn a_flow_that_cannot_be_remembered_stays_together() {
    let services = Bed::default().world.services;
    let turns = |s: &&Service| s.selection != Selection::Ring && s.mode != Mode::Snat;
    for service in services.iter().filter(turns) {
        let mut bed = Bed::with_tables(HostTables::new(16, 8));
        // Every way is taken by somebody who is established.
        for port in 1_000..3_000 {
            bed.server_of(&packet(service, port, SYN));
            bed.server_of(&packet(service, port, ACK));
        }
        let evicted = bed.world.tables.events(Event::TagEvicted);
        let first = servers(&mut bed, service, SYN);
        for _ in 0..3 {
            assert_eq!(servers(&mut bed, service, ACK), first, "{service:?}");
        }
        assert_eq!(bed.world.tables.events(Event::TagEvicted), evicted, "nobody had to give way");
    }
}

#[test]
fn forged_packets_in_the_middle_of_nothing_take_nobodys_place() {
    for service in connections() {
        let mut bed = Bed::with_tables(HostTables::new(16, 64));
        bed.change(Change::Tagged(service, true));
        let before = servers(&mut bed, &service, SYN);
        servers(&mut bed, &service, ACK);
        let known: HashSet<_> = bed.world.tables.flow_tags().map(|tag| tag.hash()).collect();
        for port in 1_000..6_000 {
            bed.server_of(&packet(&service, port, ACK));
        }
        let left: HashSet<_> = bed.world.tables.flow_tags().map(|tag| tag.hash()).collect();
        assert!(known.is_subset(&left), "an established flow gave way");
        bed.world.fill_ring(&service, &[2, 3]);
        assert_eq!(servers(&mut bed, &service, ACK), before);
    }
}

#[test]
fn datagrams_without_state_follow_the_ring_at_once() {
    for service in Bed::default().world.services.iter().filter(|s| s.flags & vip_flags::NO_FLOW_STATE != 0) {
        let mut bed = Bed::default();
        let before = servers(&mut bed, service, 0);
        bed.world.fill_ring(service, &[2, 3]);
        let after = servers(&mut bed, service, 0);
        let left = service.server(1);
        assert!(
            before.values().any(|server| *server == left) && after.values().all(|server| *server != left)
        );
        assert_eq!(bed.world.tables.flow_tags().count(), 0);
    }
}

#[test]
fn where_servers_take_turns_flows_are_spread_evenly_and_stay() {
    let services = Bed::default().world.services;
    for service in services.iter().filter(|s| s.selection == Selection::RoundRobin) {
        let mut bed = Bed::default();
        // Slots in turns, as user space fills them.
        let turns: Vec<u32> =
            (0..251_u32).map(|slot| 0x8001_0000 | (u32::from(service.server(1)) + slot % 3)).collect();
        bed.world.tables.rings.insert(service.id, turns);
        let before = servers(&mut bed, service, SYN);
        for number in 1..=3 {
            let share = before.values().filter(|server| **server == service.server(number)).count();
            assert!((6..=7).contains(&share), "{share} of {} on {number}", PORTS.len());
        }
        assert_eq!(servers(&mut bed, service, ACK), before);
        // A server that drains keeps what it has, datagrams included.
        bed.change(Change::Health(service.server(1), Health::Draining));
        assert_eq!(servers(&mut bed, service, ACK), before, "{service:?}");
        let client = world::client(service.at.is_ipv4(), 8, 1_000);
        for _ in 0..6 {
            let new = Draft::of(service.protocol, client, service.at);
            let new = if service.protocol == protocol::TCP { new.flags(SYN) } else { new };
            assert_ne!(bed.server_of(&new), service.server(1), "a new flow");
        }
    }
}

#[test]
fn of_two_servers_the_one_with_fewer_connections_is_taken() {
    let services = Bed::default().world.services;
    for service in services.iter().filter(|s| s.selection == Selection::LeastConnections) {
        let mut bed = Bed::default();
        bed.world.tables.settings.snat_count = 10_000;
        for number in 1..=3 {
            let load = [1_000, 0, 1_000][usize::from(number) - 1];
            bed.world.tables.loads[&service.server(number)].set(load);
        }
        let mut counts = HashMap::<u16, usize>::new();
        for port in 30_000..30_300 {
            *counts.entry(bed.server_of(&packet(service, port, SYN))).or_default() += 1;
        }
        // It is one of two with probability 1 - (2/3)², and then is taken: 5 of 9.
        let share = counts[&service.server(2)];
        assert!((140..=195).contains(&share), "{counts:?}");
        assert_eq!(bed.world.tables.loads[&service.server(2)].get() as usize, share, "they are counted");
    }
}

#[test]
fn only_so_many_new_flows_in_a_tick() {
    let services = Bed::default().world.services;
    for service in services.iter().filter(|s| s.limit != 0) {
        let mut bed = Bed::default();
        for tick in 0..3_u16 {
            let mut refused = 0;
            for port in 0..10 {
                match bed.outcome(&packet(service, 40_000 + tick * 10 + port, SYN)).0 {
                    Outcome::Forward { .. } => {}
                    outcome => {
                        assert_eq!(outcome, Outcome::Drop(DropReason::NewFlowLimit));
                        refused += 1;
                    }
                }
            }
            assert_eq!(refused, 10 - LIMIT, "tick {tick}");
            bed.wait(1);
        }
    }
}
