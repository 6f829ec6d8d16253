//! What is not one whole packet of a flow: errors, echo requests, pieces of datagrams; and what the balancer answers
//! itself. What leaves is looked at in bytes here, and by the laws beside.

use lb_common::{
    abi::{Half, Mode, protocol, server_flags},
    family::{V4, V6},
    host::{self, HostFamily, Outcome},
    parse,
    pipeline::{Facts, Work, facts},
    verdict::{DropReason, Event, PassReason},
    wire::tcp::{ACK, FIN, RST, SYN},
};
use lb_testkit::{
    bed::Bed,
    draft::Draft,
    entry::entry,
    inspect::{self, Message, Tuple, What},
    traffic::Change,
    tunnel::{self, Rules},
    world::{self, Health, Service},
};

const BOTH: [bool; 2] = [true, false];

fn client(service: &Service) -> std::net::SocketAddr {
    world::client(service.at.is_ipv4(), 9, 40_000)
}

fn opening(service: &Service) -> Draft {
    let draft = Draft::of(service.protocol, client(service), service.end()).payload(&[7; 64]);
    if service.protocol == protocol::TCP { draft.flags(SYN) } else { draft }
}

/// Type and code of "too big" and of "port unreachable".
fn kinds(four: bool) -> [[u8; 2]; 2] {
    if four { [[3, 4], [3, 3]] } else { [[2, 0], [1, 4]] }
}

/// The message in a frame, all of whose checksums are right.
#[track_caller]
fn message(frame: &[u8]) -> Message {
    let Some(What::Message(message)) = inspect::what(frame) else { panic!("no message: {frame:02x?}") };
    assert_eq!(inspect::header_sum(frame, message.net.l3), 0, "outer header");
    assert_eq!(inspect::message_sum(frame, &message), 0, "message");
    if let Some(about) = message.about {
        assert_eq!(inspect::header_sum(frame, about.l3), 0, "quoted header");
    }
    message
}

/// The frame that a server behind a tunnel takes out of it.
fn inside(bed: &Bed, service: &Service, server: u16, frame: &[u8]) -> Vec<u8> {
    let entry = bed.world.tables.servers[&server];
    let six = entry.flags & server_flags::IPV6 != 0;
    let bits = if six { 128 } else { 32 };
    let rules = Rules {
        at: vec![(world::ip(entry.address, six), bits)],
        from: vec![(world::ip(entry.source, six), bits)],
        to: vec![(service.at.ip(), if service.at.is_ipv4() { 32 } else { 128 })],
        gue_port: entry.port,
    };
    tunnel::take_out(frame, &rules).1
}

/// An error about a server's answer: the least that it may quote is enough to find the server.
#[test]
fn errors_about_answers_reach_the_server_that_sent_them() {
    for service in [Bed::default().direct(), Bed::default().translated()].concat() {
        for bytes in [8, 9, 20, 64] {
            let mut bed = Bed::default();
            let server = bed.server_of(&opening(&service));
            let answer = Draft::of(service.protocol, service.at, client(&service)).payload(&[1; 64]).bytes();
            let router = (world::address(service.at.is_ipv4(), 0, 77), 0).into();
            let [too_big, _] = kinds(service.at.is_ipv4());
            let error = Draft::error(router, too_big, [0, 0, 5, 0], &answer, bytes);
            let (outcome, frame) = bed.outcome(&error);
            assert!(
                matches!(outcome, Outcome::Forward { server: found, .. } if found == server),
                "{service:?}"
            );
            let (frame, translated) = match service.mode {
                Mode::Dr => (frame, false),
                Mode::Ipip | Mode::Gue => (inside(&bed, &service, server, &frame), false),
                _ => (frame, true),
            };
            let got = message(&frame);
            assert_eq!(
                (got.kind, &frame[got.net.l4 + 4..got.net.l4 + 8]),
                (Some(too_big), &[0, 0, 5, 0][..])
            );
            let about = got.about.expect("a quote").tuple;
            if !translated {
                assert_eq!(frame[14..], error.bytes()[14..]);
                continue;
            }
            // The server sees what it sent itself.
            let key = Tuple { src: client(&service), dst: service.at, protocol: service.protocol };
            let flow = entry(&bed.world, key).expect("a flow");
            assert_eq!(about, flow.at_server.reversed());
            assert_eq!(got.net.dst, about.src.ip());
        }
    }
}

#[test]
fn errors_about_requests_reach_the_client_as_if_about_its_own_packet() {
    for service in Bed::default().translated() {
        for bytes in [8, 20, 64] {
            let mut bed = Bed::default();
            let (got, _) = bed.sent_on(&opening(&service));
            let (_, sent) = bed.outcome(&opening(&service));
            let ifindex = world::interface_of_server(got.to[5].into());
            let [_, unreachable] = kinds(service.at.is_ipv4());
            let error = Draft::error((got.dst.ip(), 0).into(), unreachable, [0; 4], &sent, bytes)
                .macs(world::mac_of_interface(ifindex), got.to);
            let (outcome, frame) = bed.outcome_by(ifindex, &error);
            assert!(matches!(outcome, Outcome::Forward { ifindex: world::FRONT, .. }), "{outcome:?}");
            let came = message(&frame);
            let about = came.about.expect("a quote").tuple;
            assert_eq!((about.src, about.dst), (client(&service), service.at));
            assert_eq!((came.net.dst, came.net.to), (client(&service).ip(), world::CLIENT_MAC));
            // With `snat` nobody knows the servers; with `nat` routers between them may be known.
            let reporter = if service.mode == Mode::Snat { service.at.ip() } else { got.dst.ip() };
            assert_eq!(came.net.src, reporter);
        }
    }
}

#[test]
fn errors_of_no_flow_of_ours_are_the_hosts() {
    for four in BOTH {
        let mut bed = Bed::default();
        let [_, unreachable] = kinds(four);
        let host = world::address(four, 2, 254);
        let own = Draft::ack((host, 1_000).into(), world::client(four, 9, 80)).payload(&[1; 8]).bytes();
        let error = Draft::error(world::client(four, 9, 0), unreachable, [0; 4], &own, 8);
        // A last hop left as well: it is not to be sent on, so that does not matter.
        for ttl in [64, 1] {
            assert_eq!(bed.outcome(&error.clone().ttl(ttl)).0, Outcome::Pass(PassReason::NotVip));
        }
        let service = bed.world.service(Mode::Snat, protocol::TCP, four);
        let answer = Draft::ack(service.at, client(&service)).bytes();
        let error = Draft::error(client(&service), unreachable, [0; 4], &answer, 8);
        assert_eq!(bed.outcome(&error).0, Outcome::Pass(PassReason::NoFlow));
        // Less than the ports that would name a flow; neither TCP nor UDP; no error at all.
        for about in [answer[..answer.len() - 13].to_vec(), Draft::echo(service.at, client(&service)).bytes()]
        {
            let error = Draft::error(client(&service), unreachable, [0; 4], &about, 8);
            assert_eq!(bed.outcome(&error).0, Outcome::Pass(PassReason::NotTcpUdp));
        }
        let redirect = if four { [5, 1] } else { [137, 0] };
        let other = Draft::icmp(client(&service), service.at, redirect, [0; 4]).payload(&answer[14..]);
        assert_eq!(bed.outcome(&other).0, Outcome::Pass(PassReason::NotTcpUdp));
    }
}

#[test]
fn echo_requests_to_vips_are_answered_and_others_are_the_hosts() {
    for four in BOTH {
        let mut bed = Bed::default();
        for service in bed.world.services.clone().iter().filter(|s| s.at.is_ipv4() == four) {
            let request = Draft::echo(client(service), service.at).payload(b"are you there?").tag(0x8100, 7);
            let (outcome, frame) = bed.outcome(&request);
            assert_eq!(outcome, Outcome::Answer(Event::EchoAnswered));
            let Some(What::Message(answer)) = inspect::what(&frame) else { panic!("a message") };
            assert_eq!(inspect::message_sum(&frame, &answer), 0);
            assert_eq!((answer.net.src, answer.net.dst), (service.at.ip(), client(service).ip()));
            assert_eq!(answer.kind, Some(if four { [0, 0] } else { [129, 0] }));
            assert!(frame.ends_with(b"are you there?"));
        }
        let other = (world::address(four, 1, 250), 0).into();
        let outcome = bed.outcome(&Draft::echo(world::client(four, 9, 0), other)).0;
        assert_eq!(outcome, Outcome::Pass(PassReason::NotVip));
    }
}

#[test]
fn who_sends_too_much_for_a_tunnel_is_told_what_fits() {
    for service in Bed::default().world.services.iter().filter(|s| s.mtu != 0) {
        let four = service.at.is_ipv4();
        let outer =
            if service.servers_four { 20 } else { 40 } + if service.mode == Mode::Gue { 8 } else { 0 };
        let fits = usize::from(service.mtu) - outer;
        let headers = if four { 20 } else { 40 } + if service.protocol == protocol::TCP { 20 } else { 8 };
        for tags in 0..3 {
            let packet = |length: usize| {
                let draft = opening(service).payload(&vec![7; length - headers]);
                (0..tags).fold(draft, |draft, tag| draft.tag(0x8100, tag))
            };
            let mut bed = Bed::default();
            bed.server_of(&packet(fits));
            let (outcome, frame) = bed.outcome(&packet(fits + 1));
            assert_eq!(outcome, Outcome::Answer(Event::TooBigSent), "{service:?}");
            let Some(What::Message(told)) = inspect::what(&frame) else { panic!("a message") };
            assert_eq!(inspect::message_sum(&frame, &told), 0);
            assert_eq!(told.kind, Some(kinds(four)[0]));
            let mtu = u16::from_be_bytes([frame[told.net.l4 + 6], frame[told.net.l4 + 7]]);
            assert_eq!(usize::from(mtu), fits, "what fits is what it is told");
            let about = told.about.expect("a quote").tuple;
            assert_eq!((about.src, about.dst), (client(service), service.end()));
        }
        // There are no errors about errors.
        let answer = Draft::of(service.protocol, service.at, client(service)).payload(&[1; 300]).bytes();
        let error = Draft::error(client(service), kinds(four)[1], [0; 4], &answer, 300);
        assert_eq!(Bed::default().outcome(&error).0, Outcome::Drop(DropReason::TooBig));
    }
}

#[test]
fn no_packet_is_put_into_one_that_could_not_say_its_length() {
    for service in Bed::default().direct().iter().filter(|s| s.mode != Mode::Dr) {
        let mut frame = opening(service).bytes();
        let at = if service.at.is_ipv4() { 16 } else { 18 };
        frame[at..at + 2].copy_from_slice(&0xfff0_u16.to_be_bytes());
        let outcome = lb_common::host::process(&mut frame, world::FRONT, &Bed::default().world.tables);
        // All that the headers promise is not there, so it cannot be cut for an answer either.
        assert_eq!(outcome, Outcome::Drop(DropReason::TooBig), "{service:?}");
    }
}

/// A datagram of 96 bytes in three pieces.
fn pieces(src: std::net::SocketAddr, dst: std::net::SocketAddr, ident: u16) -> [Draft; 3] {
    let piece =
        |offset: u16, more| Draft::udp(src, dst).payload(&[offset as u8; 32]).piece(ident, offset, more);
    [Draft::udp(src, dst).payload(&[0; 24]).piece(ident, 0, true), piece(32, true), piece(64, false)]
}

#[test]
fn pieces_follow_the_first_one_to_its_server_and_back_to_its_client() {
    let services = [Bed::default().direct(), Bed::default().translated()].concat();
    for service in services.iter().filter(|service| service.protocol == protocol::UDP) {
        let mut bed = Bed::default();
        let mut servers = std::collections::HashSet::new();
        for (port, ident) in (40_000..40_020).zip(1..) {
            let [first, second, third] =
                pieces(world::client(service.at.is_ipv4(), 9, port), service.at, ident);
            assert_eq!(
                bed.outcome(&second).0,
                Outcome::Pass(PassReason::Fragment),
                "nobody knows whose it is"
            );
            let server = bed.server_of(&first);
            assert_eq!([bed.server_of(&third), bed.server_of(&second)], [server; 2], "in any order");
            servers.insert(server);
        }
        assert_eq!(servers.len(), 3, "of many datagrams some go elsewhere");
        if !matches!(service.mode, Mode::Nat | Mode::Snat) {
            continue;
        }
        let (got, _) = bed.sent_on(&opening(service));
        let ifindex = world::interface_of_server(got.to[5].into());
        for piece in pieces(got.dst, got.src, 7) {
            let (outcome, frame) =
                bed.outcome_by(ifindex, &piece.macs(world::mac_of_interface(ifindex), got.to));
            assert!(matches!(outcome, Outcome::Forward { ifindex: world::FRONT, .. }), "{outcome:?}");
            let net = inspect::network(&frame).expect("a piece");
            assert_eq!((net.src, net.dst), (service.at.ip(), client(service).ip()));
        }
    }
}

/// What is found out about a packet on the way to its verdict.
fn facts_of<F: HostFamily>(bed: &Bed, ifindex: u32, frame: &Draft) -> Facts {
    let mut frame = frame.bytes();
    let link = parse::ethernet(&frame).expect("a frame");
    let packet = F::parse::<true, _>(&frame, link.l3).expect("a packet");
    let mut work = Work::<F>::new(link, packet, ifindex);
    host::settle(&mut frame, &mut work, &bed.world.tables);
    work.facts
}

/// Who watches a client sees all pieces of what it sends and gets, as of one flow.
#[test]
fn all_pieces_of_a_translated_datagram_are_known_to_be_of_its_flow() {
    for service in Bed::default().translated().iter().filter(|service| service.protocol == protocol::UDP) {
        let mut bed = Bed::default();
        let facts = if service.at.is_ipv4() { facts_of::<V4> } else { facts_of::<V6> };
        let (got, server) = bed.sent_on(&opening(service));
        let ifindex = world::interface_of_server(got.to[5].into());
        let requests = pieces(client(service), service.at, 6).map(|piece| (world::FRONT, piece, 0));
        let answers = pieces(got.dst, got.src, 7)
            .map(|piece| piece.macs(world::mac_of_interface(ifindex), got.to))
            .map(|piece| (ifindex, piece, facts::REPLY));
        for (from, piece, direction) in requests.iter().chain(&answers) {
            let found = facts(&bed, *from, piece);
            assert_eq!(
                found.flags & (facts::IN_TABLE | facts::REPLY),
                facts::IN_TABLE | direction,
                "{service:?}"
            );
            assert_eq!((found.vip, found.server), (service.id, server), "{service:?}");
        }
    }
}

#[test]
fn the_first_piece_is_not_remembered_for_ever() {
    for service in Bed::default().direct().iter().filter(|service| service.protocol == protocol::UDP) {
        let mut bed = Bed::default();
        let [first, second, third] = pieces(client(service), service.at, 1);
        let server = bed.server_of(&first);
        bed.wait(60);
        assert_eq!(bed.server_of(&second), server);
        bed.wait(1);
        assert_eq!(bed.outcome(&third).0, Outcome::Pass(PassReason::Fragment), "its number may be another's");
    }
}

/// What both ends announce is lowered where both pass by; and nothing but a SYN is looked at.
#[test]
fn both_ends_of_a_connection_hear_of_an_mss_that_fits() {
    let announced = |frame: &[u8], seen: &inspect::Seen| {
        let option = &frame[seen.l4 + 20..seen.l4 + 24];
        assert_eq!(option[..2], [2, 4]);
        u16::from_be_bytes([option[2], option[3]])
    };
    for service in Bed::default().world.services.iter().filter(|s| s.mss != 0) {
        for (mss, expected) in [(1_460, service.mss), (service.mss, service.mss), (500, 500)] {
            let [high, low] = u16::to_be_bytes(mss);
            let mut bed = Bed::default();
            let (outcome, mut frame) = bed.outcome(&opening(service).tcp_options(&[2, 4, high, low]));
            let Outcome::Forward { server, .. } = outcome else { panic!("{outcome:?}") };
            if service.mode == Mode::Ipip {
                frame = inside(&bed, service, server, &frame);
            }
            let got = inspect::read(&frame).expect("a packet");
            assert_eq!(announced(&frame, &got), expected, "{service:?}");
            assert_eq!(inspect::sums(&frame, &got).transport, Some(0));
            if service.mode != Mode::Snat {
                continue;
            }
            let ifindex = world::interface_of_server(got.to[5].into());
            let answer =
                Draft::tcp(got.dst, got.src, SYN | ACK).macs(world::mac_of_interface(ifindex), got.to);
            let (_, frame) = bed.outcome_by(ifindex, &answer.tcp_options(&[2, 4, high, low]));
            let came = inspect::read(&frame).expect("a packet");
            assert_eq!(announced(&frame, &came), expected, "the server's");
            assert_eq!(inspect::sums(&frame, &came).transport, Some(0));
        }
        let mut bed = Bed::default();
        bed.server_of(&opening(service));
        // An option in the middle of a connection is none; the laws see that it stays.
        bed.server_of(&opening(service).flags(ACK).tcp_options(&[2, 4, 0xff, 0xff]));
    }
}

#[test]
fn both_ends_of_a_halted_servers_connection_are_reset() {
    for service in Bed::default().translated() {
        let mut bed = Bed::default();
        let (got, server) = bed.sent_on(&opening(&service));
        bed.change(Change::Health(server, Health::Halted));
        let data = Draft::of(service.protocol, client(&service), service.at).payload(b"more");
        if service.protocol == protocol::UDP {
            assert_eq!(bed.answer(&got, 0).0, Outcome::Drop(DropReason::Halted));
            continue;
        }
        let (outcome, frame) = bed.outcome(&data.clone().flags(ACK));
        assert_eq!(outcome, Outcome::Answer(Event::ResetSent));
        let reset = inspect::read(&frame).expect("a segment");
        assert_eq!((reset.src, reset.dst, reset.flags & RST), (service.at, client(&service), RST));
        let (outcome, frame) = bed.answer(&got, FIN | ACK);
        assert_eq!(outcome, Outcome::Answer(Event::ResetSent));
        let reset = inspect::read(&frame).expect("a segment");
        assert_eq!((reset.src, reset.dst, reset.flags & RST), (got.src, got.dst, RST));
        // No reset is answered by another.
        assert_eq!(bed.outcome(&data.flags(RST)).0, Outcome::Drop(DropReason::Halted));
    }
}

/// Tags, options and extension headers go through tunnels and translations as they are; the laws compare the bytes.
#[test]
fn headers_that_few_packets_have_do_not_hinder_any_way() {
    let services = [Bed::default().direct(), Bed::default().translated()].concat();
    for service in services {
        let mut bed = Bed::default();
        let four = service.at.is_ipv4();
        let odd: &[&dyn Fn(Draft) -> Draft] = &[
            &|draft| draft.tag(0x8100, 0x6007),
            &|draft| draft.tag(0x88a8, 3).tag(0x8100, 4),
            &|draft| draft.trailer(9),
            &|draft| draft.class(0xb8).ttl(255),
            &|draft| {
                if four { draft.options(&[1; 12]) } else { draft.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]) }
            },
            &|draft| {
                let draft = draft.tag(0x8100, 1);
                if four {
                    draft.options(&[1; 40])
                } else {
                    draft.extension(44, &[0; 8]).extension(51, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                }
            },
        ];
        for change in odd {
            let server = bed.server_of(&change(opening(&service)));
            let known = entry(
                &bed.world,
                Tuple { src: client(&service), dst: service.at, protocol: service.protocol },
            );
            assert!(known.is_none_or(|flow| (flow.half, flow.server.index()) == (Half::Client, server)));
        }
    }
}
