//! Servers to which user space does not know the way: the program asks the host's routing table.

use lb_common::{
    abi::{Mac, MacBytes, Mode, protocol, server_flags},
    verdict::Hop,
};
use lb_testkit::world::{self, Service};
use lb_tests::{needs_kernel_program, netns::Netns, packet::Draft};

use crate::{kernel::place_with, pair::Pair};

/// The second server's neighbour; the router before the third.
const NEIGHBOUR: MacBytes = [2, 0, 0, 0, 9, 2];
const ROUTER: MacBytes = [2, 0, 0, 0, 9, 3];
const OWN: MacBytes = [2, 0, 0, 0, 9, 1];

/// The servers are on interface `back`: the first without a neighbour entry, the second with one, the third
/// behind a router.
fn lay_routes(namespace: &Netns) {
    namespace.ip("link set back address 02:00:00:00:09:01
         address add 10.2.0.100/24 dev back
         neigh add 10.2.0.2 lladdr 02:00:00:00:09:02 dev back
         neigh add 10.2.0.77 lladdr 02:00:00:00:09:03 dev back
         route add 10.2.0.3/32 via 10.2.0.77 dev back
         address add fd00:2::100/64 dev back nodad
         neigh add fd00:2::2 lladdr 02:00:00:00:09:02 dev back
         neigh add fd00:2::77 lladdr 02:00:00:00:09:03 dev back
         route add fd00:2::3/128 via fd00:2::77 dev back");
    forward(namespace, "1");
}

fn forward(namespace: &Netns, value: &str) {
    namespace.sysctl("ipv4/conf/all/forwarding", value);
    namespace.sysctl("ipv6/conf/all/forwarding", value);
}

/// The name of what becomes of a client's packet if only server `number` serves, at interface `ifindex`.
fn outcome(pair: &mut Pair, service: &Service, number: u16, ifindex: u32) -> &'static str {
    let index = service.server(number);
    let server = pair.world.tables.servers.get_mut(&index).expect("an entry");
    server.flags &= !server_flags::HOP_KNOWN;
    server.ifindex = ifindex;
    pair.publish_server(index);
    pair.fill_ring(service, &[number]);
    let client = world::client(service.at.is_ipv4(), number as u8, 40_000);
    pair.label(world::FRONT, &Draft::syn(client, service.at).bytes())
}

#[test]
fn a_server_is_found_as_the_host_would_find_it() {
    needs_kernel_program!();
    place_with(lay_routes, || {
        let mut pair = Pair::new();
        for four in [true, false] {
            // What the host's routing table says, for the host's side of the pair.
            for (number, to, routed) in [(2, NEIGHBOUR, false), (3, ROUTER, true)] {
                let hop = Hop { to: Mac::new(to), from: Mac::new(OWN), ifindex: world::BACK };
                let address = world::words(world::address(four, 2, number));
                pair.world.tables.routes.insert(address, (hop, routed));
            }
            for mode in [Mode::Dr, Mode::Nat, Mode::Snat] {
                let service = pair.world.service(mode, protocol::TCP, four);
                for (what, number, ifindex, expected) in [
                    ("no neighbour entry yet", 1, world::BACK, "no-next-hop"),
                    ("a neighbour", 2, world::BACK, "forward"),
                    (
                        "behind a router",
                        3,
                        world::BACK,
                        if mode == Mode::Dr { "no-next-hop" } else { "forward" },
                    ),
                    ("user space has found no route", 2, 0, "no-next-hop"),
                ] {
                    assert_eq!(outcome(&mut pair, &service, number, ifindex), expected, "{mode:?}: {what}");
                    pair.forget();
                }
            }
        }
        pair.agree();
    });
}

#[test]
fn a_host_that_does_not_forward_tells_no_ways() {
    needs_kernel_program!();
    let lay = |namespace: &Netns| {
        lay_routes(namespace);
        forward(namespace, "0");
    };
    place_with(lay, || {
        let mut pair = Pair::new();
        for four in [true, false] {
            let service = pair.world.service(Mode::Snat, protocol::TCP, four);
            assert_eq!(outcome(&mut pair, &service, 2, world::BACK), "no-next-hop");
        }
        pair.agree();
    });
}
