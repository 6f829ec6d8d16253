//! Writes `lb-common/tests/vectors/packets.txt` anew from descriptions of its frames:
//!
//! ```text
//! cargo run -p lb-testkit --example packets > lb-common/tests/vectors/packets.txt
//! ```
//!
//! What goes out is what the code under test makes of it, so a difference to the file as it was is either a
//! mistake or a decision; `git diff` shows it byte by byte.

use lb_common::{
    abi::{Mode, RING_SIZE, protocol, vip_flags},
    host::process,
    wire::tcp::{ACK, FIN, RST, SYN},
};
use lb_testkit::{
    draft::Draft,
    golden::{Case, Expected, Step, write},
    inspect,
    world::{self, Service, World},
};

const HEAD: &str = "\
# What comes in and what goes out, byte by byte; `lb_testkit::golden` reads it. The tables are those of
# `lb_testkit::world`; the frames of a case follow one another through the same tables.
# Written by `cargo run -p lb-testkit --example packets`. Read by `tcpdump -vv` as well, which finds wrong the
# TCP and UDP checksums that a title calls wrong or missing and, because it sums up the route's end instead, that
# of 'a route with stops to come'.
#
# == title
# in <interface>      the frame, as indented lines
# out <interface>     the frame that must leave; or \"answer <name>\" and what it has become when it goes back,
#                     \"pass <reason>\", \"drop <reason>\"
";

/// Makes a frame, and the interface it comes in by, from what the frame before became.
type Make<'a> = &'a dyn Fn(&[u8]) -> (u32, Vec<u8>);

fn main() {
    print!("{HEAD}");
    for case in cases() {
        print!("\n{}", write(&case));
    }
}

/// Sends frames through fresh tables.
fn case(title: &str, steps: &[Make<'_>]) -> Case {
    let world = World::new(RING_SIZE);
    let mut last = Vec::new();
    let mut case = Case { title: title.to_owned(), steps: Vec::new() };
    for step in steps {
        let (ifindex, bytes) = step(&last);
        last.clone_from(&bytes);
        let outcome = Expected::of(process(&mut last, ifindex, &world.tables), last.clone());
        case.steps.push(Step { ifindex, bytes, outcome });
    }
    case
}

/// From a client.
fn from_client(draft: &Draft) -> (u32, Vec<u8>) {
    (world::FRONT, draft.bytes())
}

/// A server's answer to the frame it got.
fn answer(got: &[u8], change: impl Fn(Draft) -> Draft) -> (u32, Vec<u8>) {
    let seen = inspect::read(got).expect("the packet that the server got");
    let ifindex = world::interface_of_server(seen.to[5].into());
    let draft = Draft::of(seen.protocol, seen.dst, seen.src).macs(world::mac_of_interface(ifindex), seen.to);
    let draft = if seen.protocol == protocol::TCP { draft.flags(SYN | ACK) } else { draft };
    (ifindex, change(draft).bytes())
}

fn opening(service: &Service) -> Draft {
    let client = world::client(service.at.is_ipv4(), 9, 40_000);
    let draft = Draft::of(service.protocol, client, service.at);
    if service.protocol == protocol::TCP { draft.flags(SYN) } else { draft.payload(b"ping") }
}

fn cases() -> Vec<Case> {
    let world = World::new(251);
    let mut cases = Vec::new();
    for mode in [Mode::Dr, Mode::Nat, Mode::Snat] {
        for four in [true, false] {
            for protocol in [protocol::TCP, protocol::UDP] {
                let service = world.service(mode, protocol, four);
                cases.extend(of_a_vip(&service));
            }
        }
    }
    cases.extend(left_alone(&world));
    for four in [true, false] {
        cases.extend(tunnels(&world, four));
        cases.extend(messages(&world, four));
        cases.extend(pieces(&world, four));
        cases.extend(answers(&world, four));
    }
    cases
}

const fn ip(four: bool) -> &'static str {
    if four { "IPv4" } else { "IPv6" }
}

/// Every kind of tunnel, through either family.
fn tunnels(world: &World, four: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [Mode::Ipip, Mode::Gue] {
        for outer in [true, false] {
            for protocol in [protocol::TCP, protocol::UDP] {
                let is_it = |s: &Service| {
                    s.is_plain()
                        && (s.mode, s.protocol, s.at.is_ipv4(), s.servers_four)
                            == (mode, protocol, four, outer)
                };
                let open = opening(&world.find(is_it));
                let name = if mode == Mode::Gue { "GUE" } else { "IP" };
                let number = if protocol == protocol::TCP { "TCP" } else { "UDP" };
                let mut add = |what: &str, draft: Draft| {
                    let title = format!("{} in {name} over {}, {number}: {what}", ip(four), ip(outer));
                    cases.push(case(&title, &[&|_| from_client(&draft)]));
                };
                add("to the server", open.clone().payload(b"hello"));
                add(
                    "two VLAN tags stay, and padding behind",
                    open.clone().tag(0x88a8, 3).tag(0x8100, 4).trailer(7),
                );
                add("its type of service is that of the tunnel", open.clone().class(0xb9));
                if four {
                    add("what may not be fragmented", open.clone().fragment(0x4000));
                    add("with options", open.clone().options(&[1; 8]));
                } else {
                    add("with an extension header", open.clone().extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]));
                }
                if protocol == protocol::UDP {
                    add("without a checksum", open.clone().without_checksum());
                }
            }
        }
    }
    cases
}

/// ICMP errors about packets of flows, quoting as little as they may, and more.
fn messages(world: &World, four: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let (too_big, unreachable) = if four { ([3, 4], [3, 3]) } else { ([2, 0], [1, 4]) };
    let (mtu, none) = ([0, 0, 5, 0x14], [0; 4]);
    for mode in [Mode::Dr, Mode::Ipip, Mode::Gue, Mode::Nat, Mode::Snat] {
        let service =
            world.find(|s| s.is_plain() && (s.mode, s.at.is_ipv4(), s.servers_four) == (mode, four, four));
        let open = opening(&service);
        let name = format!("{mode:?}, {}, an error", ip(four)).to_lowercase();
        let client = world::client(four, 9, 40_000);
        let router = (world::address(four, 0, 77), 0).into();
        let sent = Draft::ack(service.at, client).payload(&[7; 64]).bytes();
        for bytes in [8, 40] {
            let error = Draft::error(router, too_big, mtu, &sent, bytes);
            cases.push(case(
                &format!("{name} about an answer, quoting {bytes} bytes"),
                &[&|_| from_client(&open), &|_| from_client(&error)],
            ));
            if !matches!(mode, Mode::Nat | Mode::Snat) {
                continue;
            }
            cases.push(case(
                &format!("{name} about a request, quoting {bytes} bytes"),
                &[&|_| from_client(&open.clone().payload(&[7; 64])), &|got| {
                    let seen = inspect::read(got).expect("what the server got");
                    let here = world::interface_of_server(seen.to[5].into());
                    let error = Draft::error((seen.dst.ip(), 0).into(), unreachable, none, got, bytes);
                    (here, error.macs(world::mac_of_interface(here), seen.to).bytes())
                }],
            ));
        }
    }
    cases
}

/// Datagrams in two pieces.
fn pieces(world: &World, four: bool) -> Vec<Case> {
    let of_mode = |mode| {
        let service = world
            .find(|s| s.is_plain() && (s.mode, s.protocol, s.at.is_ipv4()) == (mode, protocol::UDP, four));
        let open = || Draft::udp(world::client(four, 9, 40_000), service.at);
        let first = open().payload(&[1; 16]).piece(0x77, 0, true);
        let second = open().payload(&[2; 16]).piece(0x77, 24, false);
        case(
            &format!("{mode:?}, {}: pieces go where the first goes", ip(four)).to_lowercase(),
            &[&|_| from_client(&second), &|_| from_client(&first), &|_| from_client(&second)],
        )
    };
    [Mode::Dr, Mode::Ipip, Mode::Gue, Mode::Nat, Mode::Snat].into_iter().map(of_mode).collect()
}

/// What the balancer answers itself, and what it lowers.
fn answers(world: &World, four: bool) -> Vec<Case> {
    let wanted = |wanted: &dyn Fn(&Service) -> bool| world.find(|s| s.at.is_ipv4() == four && wanted(s));
    let client = world::client(four, 9, 40_000);
    let mut cases = Vec::new();
    let mut add = |what: &str, draft: Draft| {
        cases.push(case(&format!("{}: {what}", ip(four)), &[&|_| from_client(&draft)]));
    };
    let small = wanted(&|s| s.mtu != 0 && s.protocol == protocol::TCP);
    add("too big for the tunnel", Draft::ack(client, small.at).payload(&[7; 180]));
    add("too big for the tunnel, tagged", Draft::ack(client, small.at).payload(&[7; 180]).tag(0x8100, 5));
    let refusing = |protocol| {
        wanted(&|s| s.flags & vip_flags::EMPTY_REJECT != 0 && (s.protocol, s.mode) == (protocol, Mode::Dr))
    };
    let tcp = refusing(protocol::TCP);
    add("a SYN is refused with a reset", Draft::syn(client, tcp.at).tcp_options(&[2, 4, 5, 0xb4]));
    add(
        "a segment is refused with a reset",
        Draft::tcp(client, tcp.at, ACK).payload(b"hello").tag(0x8100, 5),
    );
    add("a reset is not answered", Draft::tcp(client, tcp.at, RST));
    add(
        "a datagram is refused",
        Draft::udp(client, refusing(protocol::UDP).at).payload(b"hello, are you there?"),
    );
    add("an echo request that is tagged", Draft::echo(client, tcp.at).payload(b"hello").tag(0x8100, 5));
    let clamped = wanted(&|s| s.mss != 0 && s.mode == Mode::Dr);
    let syn = Draft::syn(client, clamped.at);
    add("the MSS is lowered", syn.clone().tcp_options(&[2, 4, 5, 0xb4]));
    add("the MSS is lowered at an odd offset", syn.clone().tcp_options(&[1, 2, 4, 5, 0xb4, 0, 0, 0]));
    add("an MSS that is small enough stays", syn.tcp_options(&[2, 4, 2, 0]));
    cases
}

fn of_a_vip(service: &Service) -> Vec<Case> {
    let mode = format!("{:?}", service.mode).to_lowercase();
    let ip = if service.at.is_ipv4() { "IPv4" } else { "IPv6" };
    let transport = if service.protocol == protocol::TCP { "TCP" } else { "UDP" };
    let start = format!("{mode}, {ip}, {transport}:");
    let (tcp, four, translated) =
        (service.protocol == protocol::TCP, service.at.is_ipv4(), service.mode != Mode::Dr);
    let open = opening(service);
    let client = world::client(four, 9, 40_000);
    let mut cases = Vec::new();
    let mut add = |what: &str, change: &dyn Fn(Draft) -> Draft| {
        let request = |_: &[u8]| from_client(&change(open.clone()));
        let reply = |got: &[u8]| answer(got, change);
        let steps: &[Make<'_>] = if translated { &[&request, &reply] } else { &[&request] };
        cases.push(case(&format!("{start} {what}"), steps));
    };
    add(if translated { "to the server and back" } else { "to the server" }, &|draft| draft);
    add("an odd number of bytes, and padding behind", &|draft| draft.payload(b"odd").trailer(7));
    add("a VLAN tag stays", &|draft| draft.tag(0x8100, 0x2007));
    add("two VLAN tags stay", &|draft| draft.tag(0x88a8, 0x0003).tag(0x8100, 0x0004));
    if tcp {
        add("TCP options", &|draft| draft.tcp_options(&[2, 4, 5, 0xb4, 1, 3, 3, 7]));
    } else {
        let no_checksum =
            if four { "no checksum stays none" } else { "no checksum, which IPv6 forbids, stays none" };
        add(no_checksum, &Draft::without_checksum);
    }
    if four {
        add("IPv4 options stay", &|draft| draft.options(&[0x94, 4, 0, 0, 1, 1, 1, 0]));
        add("as many IPv4 options as there can be", &|draft| draft.options(&[1; 40]));
    } else {
        add("extension headers stay", &|draft| {
            draft
                .extension(0, &[0, 0, 5, 2, 0, 0, 1, 0])
                .extension(60, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        });
        add("a routing header that is done, an atomic fragment", &|draft| {
            draft.extension(43, &[0, 0, 4, 0, 0, 0, 0, 0]).extension(44, &[0, 0, 0, 0, 1, 2, 3, 4])
        });
    }
    if translated {
        add("the last but one hop", &|draft| draft.ttl(2));
        cases.push(wrong_checksum(&start, service));
        if tcp {
            let ack = || Draft::tcp(client, service.at, ACK);
            cases.push(case(
                &format!("{start} a connection from beginning to end"),
                &[
                    &|_| from_client(&open),
                    &|got| answer(got, |draft| draft),
                    &|_| from_client(&ack().payload(b"GET / HTTP/1.0\r\n\r\n")),
                    &|got| answer(got, |draft| draft.flags(FIN | ACK).payload(b"hello")),
                    &|_| from_client(&ack().flags(FIN | ACK)),
                ],
            ));
            cases.push(case(&format!("{start} nobody knows the flow"), &[&|_| from_client(&ack())]));
        } else {
            cases.push(zero_becomes_ffff(&start, service));
        }
        cases.push(case(&format!("{start} the last hop"), &[&|_| from_client(&open.clone().ttl(1))]));
    }
    cases
}

fn wrong_checksum(start: &str, service: &Service) -> Case {
    case(
        &format!("{start} wrong checksums stay as wrong"),
        &[&|_| {
            let (ifindex, mut frame) = from_client(&opening(service));
            let seen = inspect::read(&frame).expect("a packet");
            frame[seen.checksum_at()] ^= 0x55;
            if service.at.is_ipv4() {
                frame[seen.l3 + 10] ^= 0x55;
            }
            (ifindex, frame)
        }],
    )
}

/// Looks for a payload with which the translated datagram's checksum comes to 0.
fn zero_becomes_ffff(start: &str, service: &Service) -> Case {
    let case_with = |payload: u16| {
        case(
            &format!("{start} a checksum that comes to 0 is sent as ffff"),
            &[&|_| from_client(&opening(service).payload(&payload.to_be_bytes()))],
        )
    };
    let checksum = |case: &Case| {
        let Expected::Out(_, bytes) = &case.steps[0].outcome else { panic!("it is sent on") };
        let at = inspect::read(bytes).expect("a packet").checksum_at();
        u16::from_be_bytes([bytes[at], bytes[at + 1]])
    };
    // Each step of the payload is a step of the checksum, so the second try hits.
    let first = checksum(&case_with(0));
    let case = case_with(first);
    assert_eq!(checksum(&case), 0xffff);
    case
}

fn left_alone(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for four in [true, false] {
        let ip = if four { "IPv4" } else { "IPv6" };
        let service = world.service(Mode::Nat, protocol::TCP, four);
        let open = opening(&service);
        let client = world::client(four, 9, 40_000);
        let mut add = |what: &str, frame: Vec<u8>| {
            cases.push(case(&format!("{ip}: {what}"), &[&|_| (world::FRONT, frame.clone())]));
        };
        let other_port = (service.at.ip(), 81).into();
        add("a port of the VIP's address that is no VIP", Draft::syn(client, other_port).bytes());
        add("the VIP's port with the other protocol", Draft::udp(client, service.at).bytes());
        add("to a group", open.clone().macs([1, 0, 0x5e, 0, 0, 1], world::CLIENT_MAC).bytes());
        add("broadcast", open.clone().macs([0xff; 6], world::CLIENT_MAC).bytes());
        add("three VLAN tags", open.clone().tag(0x8100, 1).tag(0x8100, 2).tag(0x8100, 3).bytes());
        add("an echo request to the VIP", Draft::echo(client, service.at).payload(b"hello").bytes());
        let local = world.service(Mode::Local, protocol::TCP, four);
        add("to a VIP that the host serves", Draft::syn(client, local.at).bytes());
        let nobody =
            world.services.iter().find(|s| s.mode == Mode::Snat && s.servers == 0 && s.at.is_ipv4() == four);
        add("to a VIP without servers", Draft::syn(client, nobody.expect("one").at).bytes());
        if four {
            add("the first fragment", open.clone().fragment(0x2000).bytes());
            add("a later fragment", open.clone().fragment(0x0003).bytes());
            add("don't-fragment is no fragment", open.clone().fragment(0x4000).bytes());
        } else {
            add("the first fragment", open.clone().extension(44, &[0, 0, 0, 1, 0, 0, 0, 1]).bytes());
            add("a later fragment", open.clone().extension(44, &[0, 0, 0, 8, 0, 0, 0, 1]).bytes());
            add("a route with stops to come", open.clone().extension(43, &[0, 0, 4, 1, 0, 0, 0, 0]).bytes());
            let many = (0..9).fold(open.clone(), |draft, _| draft.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]));
            add("nine extension headers", many.bytes());
            add("no header after this one", Draft::other(client, service.at, 59).bytes());
        }
    }
    let arp = [&[0xff; 6][..], &world::CLIENT_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    let unicast_arp = [&world::mac_of_interface(1)[..], &arp[6..]].concat();
    cases.push(case("ARP", &[&|_| (world::FRONT, unicast_arp.clone())]));
    cases
}
