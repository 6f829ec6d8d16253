//! Translated flows: what clients and servers may rely on. Every packet is also checked against the laws.

use std::collections::HashSet;

use lb_common::{
    abi::{Claim, FlowStage, Mode, Vip, VipKey, protocol},
    host::{HostTables, Outcome, process},
    pipeline::open::PORT_ATTEMPTS,
    verdict::{DropReason, Event, PassReason},
    wire::tcp::{ACK, FIN, RST, SYN},
};
use lb_testkit::{
    bed::Bed,
    draft::Draft,
    entry::entries,
    inspect::Seen,
    traffic::Change,
    world::{self, Health, Service},
};

const BOTH: [bool; 2] = [true, false];

/// A packet of client `host` from `port` that may open a flow.
fn opening(service: &Service, host: u8, port: u16) -> Draft {
    let draft = Draft::of(service.protocol, world::client(service.at.is_ipv4(), host, port), service.at);
    if service.protocol == protocol::TCP { draft.flags(SYN) } else { draft }
}

/// A later packet of the same client.
fn going_on(service: &Service, host: u8, port: u16) -> Draft {
    let draft = opening(service, host, port);
    if service.protocol == protocol::TCP { draft.flags(ACK) } else { draft }
}

/// Opens a TCP connection and lets both sides speak; gives the client's last packet as the server got it.
fn connect(bed: &mut Bed, service: &Service, port: u16) -> (Seen, u16) {
    let (got, _) = bed.sent_on(&opening(service, 9, port));
    bed.answered(&got, SYN | ACK);
    bed.sent_on(&going_on(service, 9, port))
}

#[test]
fn an_answer_comes_from_the_vip_to_the_client_and_to_nobody_else() {
    let mut bed = Bed::default();
    for service in bed.translated() {
        for port in 40_000..40_006 {
            let (got, _) = bed.sent_on(&opening(&service, 9, port));
            let came = bed.answered(&got, SYN | ACK);
            let client = world::client(service.at.is_ipv4(), 9, port);
            assert_eq!((came.src, came.dst, came.to), (service.at, client, world::CLIENT_MAC), "{service:?}");
        }
    }
}

#[test]
fn flows_stay_on_their_server_while_others_come_and_go() {
    let mut bed = Bed::default();
    for service in bed.translated() {
        let before: Vec<_> = (40_000..40_008).map(|port| bed.sent_on(&opening(&service, 9, port))).collect();
        let servers: HashSet<_> = before.iter().map(|(_, server)| *server).collect();
        assert!(servers.len() > 1, "{service:?} has its flows on {servers:?}");
        // Every ring there can be, the one without any server included. Flows of servers that still run stay.
        for some in 0..8_u16 {
            let numbers: Vec<_> = (1..=3).filter(|number| some & 1 << (number - 1) != 0).collect();
            bed.world.fill_ring(&service, &numbers);
            bed.wait(1);
            for (port, (got, server)) in (40_000..).zip(&before) {
                let (again, same) = bed.sent_on(&going_on(&service, 9, port));
                assert_eq!((again.tuple(), same), (got.tuple(), *server), "ring of {numbers:?}");
            }
        }
    }
}

#[test]
fn no_two_flows_get_the_same_port_and_the_last_one_is_refused_by_name() {
    for four in BOTH {
        for protocol in [protocol::TCP, protocol::UDP] {
            let mut bed = Bed::default();
            let service = bed.world.service(Mode::Snat, protocol, four);
            let (mut taken, mut refused) = (HashSet::new(), 0);
            for port in 1_000..1_400 {
                match bed.outcome(&opening(&service, 9, port)) {
                    (Outcome::Forward { .. }, bytes) => {
                        let got = lb_testkit::inspect::read(&bytes).expect("a packet");
                        assert!(taken.insert((got.src, got.dst)), "{:?} twice", got.tuple());
                    }
                    (outcome, _) => {
                        assert_eq!(outcome, Outcome::Drop(DropReason::PortsExhausted));
                        refused += 1;
                    }
                }
            }
            // One port is a VIP's (TCP), and a flow tries only some of the ports.
            let all = usize::from(world::SNAT_COUNT) * 3;
            assert!(taken.len() > all * 9 / 10 && taken.len() <= all, "{} of {all} ports", taken.len());
            assert_eq!(taken.len() + refused, 400);
        }
    }
}

#[test]
fn as_many_flows_as_ports_where_a_flow_tries_them_all() {
    for four in BOTH {
        let mut bed = Bed::default();
        bed.world.tables.settings.snat_count = PORT_ATTEMPTS as u16;
        let service = bed.world.service(Mode::Snat, protocol::UDP, four);
        bed.world.fill_ring(&service, &[1]);
        for port in 0..PORT_ATTEMPTS as u16 {
            let outcome = bed.outcome(&opening(&service, 9, 1_000 + port)).0;
            assert!(matches!(outcome, Outcome::Forward { .. }), "{outcome:?} of flow {port}");
        }
        let outcome = bed.outcome(&opening(&service, 9, 2_000)).0;
        assert_eq!(outcome, Outcome::Drop(DropReason::PortsExhausted));
    }
}

#[test]
fn two_clients_of_one_port_behind_two_vips_of_one_server_are_kept_apart() {
    for four in BOTH {
        let mut bed = Bed::default();
        let nat: Vec<_> = bed.translated().into_iter().filter(|s| s.mode == Mode::Nat).collect();
        let [first, second]: [Service; 2] = nat
            .into_iter()
            .filter(|s| s.protocol == protocol::TCP && s.at.is_ipv4() == four)
            .collect::<Vec<_>>()
            .try_into()
            .expect("two of them");
        for vip in [first, second] {
            bed.world.fill_ring(&vip, &[1]);
        }
        let (one, _) = bed.sent_on(&opening(&first, 9, 40_000));
        let (two, _) = bed.sent_on(&opening(&second, 9, 40_000));
        assert_eq!((one.dst, one.src.ip(), one.src.port()), (two.dst, two.src.ip(), 40_000));
        assert_ne!(one.src.port(), two.src.port());
        assert_eq!(bed.answered(&one, SYN | ACK).src, first.at);
        assert_eq!(bed.answered(&two, SYN | ACK).src, second.at);
    }
}

/// As a processor finds the tables that has the same SYN in hand as another, which is ahead of it.
#[test]
fn a_flow_that_another_processor_is_entering_is_not_entered_twice() {
    let mut bed = Bed::default();
    let service = bed.world.service(Mode::Snat, protocol::TCP, true);
    let syn = opening(&service, 9, 40_000);
    bed.sent_on(&syn);
    let tables = &bed.world.tables;
    let (number, claim, _) = tables.v4.entered().next().expect("a flow");
    // It has its claim, and has written nothing yet.
    tables.v4.flows[number as usize].set(Default::default());
    let way = tables.v4.claims.iter().flatten().nth(number as usize).expect("the claim's");
    way.set(claim.at(FlowStage::Entering, tables.now).0);
    let entering = Claim(way.get());
    let outcome = process(&mut syn.bytes(), world::FRONT, tables);
    assert_eq!(outcome, Outcome::Drop(DropReason::FlowTableFull));
    let left: Vec<_> = tables.v4.entered().map(|(number, claim, _)| (number, claim)).collect();
    assert_eq!(left, [(number, entering)]);
}

#[test]
fn a_port_used_again_after_the_end_begins_a_new_flow() {
    for four in BOTH {
        for ending in [&[FIN | ACK][..], &[RST]] {
            let mut bed = Bed::default();
            let service = bed.world.service(Mode::Snat, protocol::TCP, four);
            let (got, server) = connect(&mut bed, &service, 40_000);
            bed.world.fill_ring(
                &service,
                &[1, 2, 3]
                    .map(|n| n)
                    .into_iter()
                    .filter(|n| service.server(*n) != server)
                    .collect::<Vec<_>>(),
            );
            // As long as it lives, a SYN (a late one, a forged one) goes where the flow is.
            assert_eq!(bed.sent_on(&opening(&service, 9, 40_000)).1, server);
            for &flags in ending {
                bed.sent_on(&going_on(&service, 9, 40_000).flags(flags));
                bed.answered(&got, flags);
            }
            let (_, another) = bed.sent_on(&opening(&service, 9, 40_000));
            assert_ne!(server, another);
        }
    }
}

#[test]
fn a_port_used_again_at_the_same_server_is_the_same_at_the_server() {
    for four in BOTH {
        for mode in [Mode::Nat, Mode::Snat] {
            let mut bed = Bed::default();
            let service = bed.world.service(mode, protocol::TCP, four);
            let (got, _) = connect(&mut bed, &service, 40_000);
            bed.sent_on(&going_on(&service, 9, 40_000).flags(FIN | ACK));
            bed.answered(&got, FIN | ACK);
            let (again, _) = bed.sent_on(&opening(&service, 9, 40_000));
            assert_eq!(again.tuple(), got.tuple(), "{service:?}");
        }
    }
}

/// The server has its own memory of the connection that has ended (TIME-WAIT, RFC 9293 section 3.6.1), and may refuse
/// another client's in its place.
#[test]
fn another_client_does_not_get_the_port_of_a_flow_that_has_just_ended() {
    for four in BOTH {
        for port in 40_001..40_101 {
            let mut bed = Bed::default();
            let service = bed.world.service(Mode::Snat, protocol::TCP, four);
            bed.world.fill_ring(&service, &[1]);
            let (ended, _) = connect(&mut bed, &service, 40_000);
            bed.sent_on(&going_on(&service, 9, 40_000).flags(FIN | ACK));
            bed.answered(&ended, FIN | ACK);
            let (other, _) = bed.sent_on(&opening(&service, 9, port));
            assert_ne!(other.src, ended.src, "client port {port}");
        }
    }
}

/// As when a configuration changes under living flows.
#[test]
fn a_vip_that_comes_or_goes_takes_its_packets_with_it() {
    let mut bed = Bed::default();
    let service = bed.world.service(Mode::Snat, protocol::TCP, true);
    let (got, _) = connect(&mut bed, &service, 40_000);
    let tables = &mut bed.world.tables;

    // A VIP on the very port that a flow has at the balancer: the server's packets are its clients' now.
    let new = VipKey { address: world::words(got.src.ip())[0], port: got.src.port(), protocol: 6 };
    tables.v4.vips.insert(new, Vip { id: service.id, mode: Mode::Snat as u8, ..Vip::default() });
    let here = world::mac_of_interface(world::BACK);
    let mut answer = Draft::ack(got.dst, got.src).macs(here, got.to).bytes();
    let outcome = process(&mut answer, world::BACK, tables);
    assert_eq!(outcome, Outcome::Pass(PassReason::NoFlow));
    tables.v4.vips.remove(&new);

    // Without its VIP, a client's packet is the host's, and not an answer of anybody.
    let old = VipKey { address: world::words(service.at.ip())[0], port: service.at.port(), protocol: 6 };
    tables.v4.vips.remove(&old).expect("the VIP");
    let mut packet = going_on(&service, 9, 40_000).bytes();
    let outcome = process(&mut packet, world::FRONT, tables);
    assert_eq!(outcome, Outcome::Pass(PassReason::NotVip));
}

#[test]
fn who_connects_again_when_the_server_is_down_gets_another() {
    for service in Bed::default().translated() {
        let mut bed = Bed::default();
        let (_, server) = bed.sent_on(&opening(&service, 9, 40_000));
        bed.down(server);
        if service.protocol == protocol::TCP {
            // What is under way stays: perhaps only new connections fail.
            assert_eq!(bed.sent_on(&going_on(&service, 9, 40_000)).1, server);
        }
        let (_, another) = bed.sent_on(&opening(&service, 9, 40_000));
        assert_ne!(another, server, "{service:?}");
        assert_eq!(bed.sent_on(&going_on(&service, 9, 40_000)).1, another);
    }
}

/// Datagrams have no beginning: whatever takes no new flows goes on with those it has.
#[test]
fn datagrams_stay_with_a_server_that_drains_and_leave_one_that_is_down() {
    for service in Bed::default().translated().into_iter().filter(|s| s.protocol == protocol::UDP) {
        let mut bed = Bed::default();
        let ports = 40_000..40_008;
        let before: Vec<_> = ports.clone().map(|port| bed.sent_on(&opening(&service, 9, port)).1).collect();
        let drained = before[0];
        bed.change(Change::Health(drained, Health::Draining));
        bed.change(Change::Ring(service));
        let after: Vec<_> = ports.clone().map(|port| bed.sent_on(&opening(&service, 9, port)).1).collect();
        assert_eq!(after, before, "{service:?}");
        assert_ne!(bed.sent_on(&opening(&service, 8, 1_000)).1, drained, "a new flow");
        bed.down(drained);
        for port in ports {
            assert_ne!(bed.sent_on(&opening(&service, 9, port)).1, drained);
        }
    }
}

/// RFC 5961 §4: it is for the server to answer a SYN in the middle of a connection.
#[test]
fn a_forged_syn_does_not_end_a_connection_of_a_server_that_drains() {
    for service in Bed::default().translated().into_iter().filter(|s| s.protocol == protocol::TCP) {
        let mut bed = Bed::default();
        let (got, server) = connect(&mut bed, &service, 40_000);
        bed.change(Change::Health(server, Health::Draining));
        bed.change(Change::Ring(service));
        assert_eq!(bed.sent_on(&opening(&service, 9, 40_000)).1, server);
        let (again, same) = bed.sent_on(&going_on(&service, 9, 40_000));
        assert_eq!((again.tuple(), same), (got.tuple(), server));
    }
}

#[test]
fn only_who_has_had_the_answer_holds_a_record() {
    for service in Bed::default().translated().into_iter().filter(|s| s.protocol == protocol::TCP) {
        let stage = |bed: &Bed| {
            let flows = entries(&bed.world);
            assert_eq!(flows.len(), 1);
            flows[0].stage
        };
        let answer = |bed: &mut Bed, got: &Seen, sequence| {
            let ifindex = world::interface_of_server(got.to[5].into());
            let draft = Draft::tcp(got.dst, got.src, SYN | ACK).numbers(sequence, 2);
            bed.sent_by(ifindex, &draft.macs(world::mac_of_interface(ifindex), got.to));
        };
        let mut bed = Bed::default();
        let (got, _) = bed.sent_on(&opening(&service, 9, 40_000));
        answer(&mut bed, &got, u32::MAX);
        bed.sent_on(&opening(&service, 9, 40_000));
        assert_eq!(stage(&bed), FlowStage::Opening, "a SYN that is repeated");
        bed.sent_on(&going_on(&service, 9, 40_000).numbers(2, 0x1234));
        assert_eq!(stage(&bed), FlowStage::Opening, "a guess");
        // The server may answer again, with another number (SYN cookies).
        answer(&mut bed, &got, 0x0003_ffff);
        bed.sent_on(&going_on(&service, 9, 40_000).numbers(2, 0x0004_0000));
        assert_eq!(stage(&bed), FlowStage::Established);
    }
}

/// With numbers that nobody could follow: who is sent data has had the answer.
#[test]
fn a_server_that_sends_data_has_a_client() {
    for service in Bed::default().translated().into_iter().filter(|s| s.protocol == protocol::TCP) {
        let mut bed = Bed::default();
        let (got, _) = bed.sent_on(&opening(&service, 9, 40_000));
        bed.answered(&got, SYN | ACK);
        let ifindex = world::interface_of_server(got.to[5].into());
        let draft = Draft::ack(got.dst, got.src).macs(world::mac_of_interface(ifindex), got.to);
        for (payload, expected) in [(0, FlowStage::Opening), (100, FlowStage::Established)] {
            bed.sent_by(ifindex, &draft.clone().payload(&vec![7; payload]));
            assert_eq!(entries(&bed.world)[0].stage, expected, "{payload} bytes");
        }
    }
}

#[test]
fn a_flow_whose_server_is_gone_is_none() {
    for four in BOTH {
        let mut bed = Bed::default();
        let service = bed.world.service(Mode::Nat, protocol::TCP, four);
        let (_, server) = connect(&mut bed, &service, 40_000);
        bed.change(Change::Replaced(server));
        let refused = bed.outcome(&going_on(&service, 9, 40_000)).0;
        assert_eq!(refused, Outcome::Pass(PassReason::NoFlow), "the entry's new owner does not know it");
        let (_, another) = bed.sent_on(&opening(&service, 9, 40_000));
        assert_ne!(server, another, "the ring still names the old owner there");
        bed.change(Change::Ring(service));
        assert_eq!(bed.sent_on(&opening(&service, 8, 40_000)).1 / 10, service.id);
    }
}

#[test]
fn late_answers_of_a_server_left_behind_do_not_touch_the_new_flow() {
    for four in BOTH {
        let mut bed = Bed::default();
        let service = bed.world.service(Mode::Snat, protocol::TCP, four);
        let (old, server) = connect(&mut bed, &service, 40_000);
        bed.down(server);
        let (new, another) = connect(&mut bed, &service, 40_000);
        assert_ne!(server, another);
        for flags in [ACK, FIN | ACK, RST] {
            bed.wait(1);
            let late = bed.answer(&old, flags).0;
            assert_eq!(late, Outcome::Pass(PassReason::NotVip), "an answer to nobody's question");
        }
        // Found by the fuzz target `decide`, when there were two entries to a flow: whose last hop this is.
        let last_hop = Draft::tcp(old.dst, old.src, ACK).ttl(1);
        assert_eq!(bed.outcome(&last_hop).0, Outcome::Pass(PassReason::NotVip));
        bed.wait(1);
        assert_eq!(bed.answered(&new, ACK).dst, world::client(four, 9, 40_000));
        let flow = lb_testkit::entry::entry(&bed.world, new.tuple().reversed()).expect("an entry");
        assert!(!lb_common::conntrack::is_over(flow.state), "the old server's end is not the new flow's");
    }
}

#[test]
fn answers_follow_the_client_to_another_router_and_another_interface() {
    for service in Bed::default().translated() {
        let mut bed = Bed::default();
        let (got, _) = bed.sent_on(&opening(&service, 9, 40_000));
        assert_eq!(bed.answered(&got, ACK).to, world::CLIENT_MAC);
        bed.wait(1);
        let router = [2, 0, 0, 0, 1, 77];
        bed.sent_on(&going_on(&service, 9, 40_000).macs(world::mac_of_interface(world::FRONT), router));
        assert_eq!(bed.answered(&got, ACK).to, router, "{service:?}");
        bed.wait(1);
        let by_side = going_on(&service, 9, 40_000).macs(world::mac_of_interface(world::SIDE), router);
        bed.sent_by(world::SIDE, &by_side);
        let outcome = bed.answer(&got, ACK).0;
        assert!(matches!(outcome, Outcome::Forward { ifindex: world::SIDE, .. }), "{outcome:?}");
    }
}

/// As many flows as there is room for, all established: nothing may push them out.
#[test]
fn a_full_table_refuses_new_flows_by_name_and_keeps_the_old() {
    for four in BOTH {
        let mut bed = Bed::with_tables(HostTables::new(16, 16));
        let service = bed.world.service(Mode::Nat, protocol::TCP, four);
        let mut flows = Vec::new();
        let mut refused = 0;
        for port in 40_000..40_200 {
            match bed.outcome(&opening(&service, 9, port)) {
                (Outcome::Drop(DropReason::FlowTableFull), _) => refused += 1,
                (Outcome::Forward { .. }, bytes) => {
                    let got = lb_testkit::inspect::read(&bytes).expect("a packet");
                    bed.answered(&got, SYN | ACK);
                    bed.sent_on(&going_on(&service, 9, port));
                    flows.push((port, got));
                }
                (other, _) => panic!("{other:?}"),
            }
        }
        assert_eq!((flows.len(), refused), (16, 184), "one flow for each record");
        bed.wait(1_000);
        for (port, got) in flows {
            assert_eq!(bed.sent_on(&going_on(&service, 9, port)).0.tuple(), got.tuple());
            bed.answered(&got, ACK);
        }
    }
}

/// A flood of SYNs that nobody goes on with takes the places of its like, and of nobody else.
#[test]
fn flows_that_were_never_confirmed_give_way_the_oldest_first() {
    for four in BOTH {
        let mut bed = Bed::with_tables(HostTables::new(64, 16));
        bed.world.tables.settings.snat_count = 10_000;
        let service = bed.world.service(Mode::Snat, protocol::TCP, four);
        let living: Vec<_> =
            (30_000..30_020).map(|port| (port, connect(&mut bed, &service, port).0)).collect();
        for port in 40_000..42_000 {
            let outcome = bed.outcome(&opening(&service, 9, port)).0;
            assert!(matches!(outcome, Outcome::Forward { .. }), "{outcome:?}");
            if port % 100 == 0 {
                bed.wait(1);
            }
        }
        assert!(bed.world.tables.events(Event::FlowEvicted) > 1_900);
        for (port, got) in living {
            assert_eq!(bed.sent_on(&going_on(&service, 9, port)).0.tuple(), got.tuple());
        }
        // Of those that are left, all are younger than those that are gone.
        let stage = FlowStage::Opening;
        let opening: Vec<_> = entries(&bed.world).into_iter().filter(|flow| flow.stage == stage).collect();
        assert!(
            opening.len() > 20 && opening.iter().all(|flow| flow.client.src.port() > 41_000),
            "{opening:?}"
        );
    }
}

#[test]
fn a_client_keeps_its_server_where_the_source_decides() {
    for four in BOTH {
        let mut bed = Bed::full_size();
        let services = bed.world.services.clone();
        let service = services
            .iter()
            .find(|s| s.by_source() && s.mode == Mode::Snat && s.at.is_ipv4() == four)
            .expect("one");
        let mut servers = HashSet::new();
        for host in 1..=40 {
            let mut of_host: Vec<_> = (40_000..40_004)
                .filter_map(|port| match bed.outcome(&opening(service, host, port)).0 {
                    Outcome::Forward { server, .. } => Some(server),
                    _ => None,
                })
                .collect();
            of_host.dedup();
            assert!(of_host.len() <= 1, "host {host} is on {of_host:?}");
            servers.extend(of_host);
        }
        assert_eq!(servers.len(), 3);
    }
}

/// A switch that does not know a MAC address floods; a host in promiscuous mode hears everything.
#[test]
fn a_frame_for_another_machine_is_not_forwarded_a_second_time() {
    for service in Bed::default().translated() {
        let mut bed = Bed::default();
        let (got, _) = bed.sent_on(&opening(&service, 9, 40_000));
        let other = [2, 0, 0, 0, 9, 9];
        let overheard = going_on(&service, 9, 40_000).macs(other, world::CLIENT_MAC);
        assert_eq!(bed.outcome(&overheard).0, Outcome::Pass(PassReason::OtherHost), "{service:?}");
        let mut answer = Draft::of(service.protocol, got.dst, got.src).macs(other, got.to).bytes();
        let ifindex = world::interface_of_server(got.to[5].into());
        let outcome = process(&mut answer, ifindex, &bed.world.tables);
        assert_eq!(outcome, Outcome::Pass(PassReason::NotVip), "{service:?}");
    }
}

/// Ports of connections that both sides have ended are as good as free, or as many connections as there are
/// ports would be all that a server can have in a minute.
#[test]
fn short_connections_follow_each_other_on_few_ports_and_leave_a_living_one_alone() {
    let mut bed = Bed::default();
    let service = bed.world.service(Mode::Snat, protocol::TCP, true);
    bed.world.fill_ring(&service, &[1]);
    bed.world.tables.settings.snat_count = PORT_ATTEMPTS as u16;
    let (living, _) = connect(&mut bed, &service, 30_000);
    for port in 40_000..40_200 {
        let (got, _) = connect(&mut bed, &service, port);
        assert_ne!(got.src, living.src);
        bed.sent_on(&going_on(&service, 9, port).flags(FIN | ACK));
        bed.answered(&got, FIN | ACK);
    }
    assert_eq!(bed.sent_on(&going_on(&service, 9, 30_000)).0.tuple(), living.tuple());
    bed.answered(&living, ACK);
}

/// What [`PORT_ATTEMPTS`] promises.
#[test]
fn few_new_flows_fail_while_most_ports_are_taken() {
    let mut bed = Bed::full_size();
    let service = bed.world.service(Mode::Snat, protocol::TCP, true);
    bed.world.fill_ring(&service, &[1]);
    let count = 5_000;
    bed.world.tables.settings.snat_count = count;
    let mut outcomes = Vec::new();
    for client in 0..count {
        let mut frame = opening(&service, (client / 50) as u8, 40_000 + client % 50 * 7).bytes();
        outcomes.push(process(&mut frame, world::FRONT, &bed.world.tables));
    }
    let failed = |from: usize, to: usize| {
        let (from, to) = (from * usize::from(count) / 100, to * usize::from(count) / 100);
        let failed = outcomes[from..to].iter().filter(|outcome| matches!(outcome, Outcome::Drop(_))).count();
        failed as f64 / (to - from) as f64
    };
    assert_eq!(failed(0, 40), 0.0);
    assert!(failed(70, 80) < 0.03, "{}", failed(70, 80));
    assert!(failed(80, 85) < 0.10, "{}", failed(80, 85));
}
