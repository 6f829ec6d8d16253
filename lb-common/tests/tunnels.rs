//! Into a tunnel and out of it: what the balancer wraps up, the server takes out as the client sent it.

use std::net::SocketAddr;

use lb_common::{
    abi::{Mac, Mode, Server, ServerRef, Slot, Vip, VipKey, protocol, server_flags},
    decap::Outcome,
    family::{words4, words6},
    host::{self, HostTables, process},
};
use lb_testkit::{
    draft::Draft,
    tunnel::{Rules, fix_sum, law},
};

const BALANCER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// Where clients come in.
const FRONT: u32 = 1;

fn words(address: SocketAddr) -> [u32; 4] {
    match address {
        SocketAddr::V4(v4) => words4(v4.ip().octets()),
        SocketAddr::V6(v6) => words6(v6.ip().octets()),
    }
}

/// A balancer with one VIP of either family and one server, reached through tunnels.
fn balancer(mode: Mode, vips: [SocketAddr; 2], source: SocketAddr, server: SocketAddr) -> HostTables {
    let mut tables = HostTables::new(16, 16);
    let family = if server.is_ipv6() { server_flags::IPV6 } else { 0 };
    let reference = ServerRef::new(1, 1);
    tables.servers.insert(
        1,
        Server {
            address: words(server),
            source: words(source),
            next_hop: Mac::new(SERVER),
            source_mac: Mac::new(BALANCER),
            ifindex: FRONT,
            port: 6080,
            generation: 1,
            vip: 1,
            flags: server_flags::ACCEPTS_NEW | server_flags::HOP_KNOWN | server_flags::KEEPS_FLOWS | family,
            weight: 1,
            ..Server::default()
        },
    );
    tables.rings.insert(1, vec![Slot::new(reference, false).0]);
    tables.interfaces.insert(FRONT, Mac::new(BALANCER));
    let vip = Vip { id: 1, mode: mode as u8, ..Vip::default() };
    for number in [protocol::TCP, protocol::UDP] {
        let (port, protocol) = (80, u16::from(number));
        tables.v4.vips.insert(VipKey { address: words(vips[0])[0], port, protocol }, vip);
        tables.v6.vips.insert(VipKey { address: words(vips[1]), port, protocol }, vip);
    }
    tables
}

#[test]
fn what_goes_in_comes_out() {
    let end = |text: &str| text.parse::<SocketAddr>().expect("an address and a port");
    let vips = [end("10.10.0.200:80"), end("[fd00:10::c8]:80")];
    let clients = [end("192.0.2.7:40000"), end("[2001:db8::7]:40000")];
    let mut compared = 0;
    for (source, server) in [("10.20.0.1:0", "10.20.0.101:0"), ("[fd00:20::1]:0", "[fd00:20::65]:0")] {
        let (source, server) = (end(source), end(server));
        let bits = |end: SocketAddr| (end.ip(), if end.is_ipv4() { 32 } else { 128 });
        let rules = Rules {
            at: vec![bits(server)],
            from: vec![bits(source)],
            to: vips.map(bits).to_vec(),
            gue_port: 6080,
        };
        for mode in [Mode::Ipip, Mode::Gue] {
            for (client, vip) in clients.into_iter().zip(vips) {
                for tags in 0..3_u16 {
                    for mark in 0..4 {
                        for draft in [
                            Draft::syn(client, vip),
                            Draft::ack(client, vip).payload(b"odd"),
                            Draft::udp(client, vip).payload(b"hello"),
                            Draft::udp(client, vip).payload(b"no sum").without_checksum(),
                        ] {
                            let draft = (0..tags).fold(draft, |draft, tag| draft.tag(0x8100, tag));
                            let sent = marked(draft.clone().macs(BALANCER, CLIENT).bytes(), tags, mark);
                            let arrived = marked(draft.macs(SERVER, BALANCER).bytes(), tags, mark);
                            let tables = balancer(mode, vips, source, server);
                            let mut frame = sent.clone();
                            let outcome = process(&mut frame, FRONT, &tables);
                            assert_eq!(outcome, host::Outcome::Forward { ifindex: FRONT, server: 1 });
                            assert!(frame.len() >= sent.len() + 20, "{mode:?} {server}");
                            assert_eq!(law(&frame, &rules), (Outcome::Decapsulated, arrived));
                            compared += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(compared, 2 * 2 * 2 * 3 * 4 * 4);
}

/// The frame with those congestion bits.
fn marked(mut frame: Vec<u8>, tags: u16, mark: u8) -> Vec<u8> {
    let l3 = 14 + 4 * usize::from(tags);
    if frame[l3] >> 4 == 4 {
        frame[l3 + 1] |= mark;
        fix_sum(&mut frame[l3..l3 + 20]);
    } else {
        frame[l3 + 1] |= mark << 4;
    }
    frame
}
