//! QUIC through the loaded program: who names a server in its connection ID comes to that server, whatever its address
//! and port are by now; all others go where the ring says.

use std::net::SocketAddr;

use lb_common::{
    abi::{Mode, QuicLbKey, QuicServerKey, RING_SIZE, ServerRef, protocol, vip_flags},
    host::{Outcome, process},
    quic::{
        encode::encode,
        lb::{Encoding, Key},
    },
};
use lb_testkit::{
    draft::Draft,
    inspect::Tuple,
    quic::datagram,
    world::{self, Health, Service, World},
};
use lb_tests::needs_kernel_program;
use lb_user::datapath::flows::tick;

use crate::kernel::{Action, Kernel, place};

const KEY: Key = Key([0x3a, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0xff, 0xfe, 0xfd, 0xfc, 0xfb]);

/// Octets of server ID and nonce, and whether they are encrypted; by their place, the configuration's number. In the
/// clear, one AES block, three passes, four passes; with halves that share an octet and without.
const SCHEMES: [(u8, u8, bool); 6] =
    [(2, 6, false), (8, 11, false), (4, 12, true), (1, 18, true), (3, 4, true), (6, 4, true)];

/// Servers by their number, and how they call themselves.
const NAMES: [(u16, u64); 3] = [(1, 0x11), (2, 0xf2), (3, 0x93)];

/// A name that nobody has.
const NOBODY: u64 = 0x44;

struct Bed {
    kernel: Kernel,
    world: World,
    services: Vec<Service>,
    /// The port of the last client: each is another one.
    port: u16,
}

impl Bed {
    /// All plain UDP services that servers serve, with QUIC.
    fn new() -> Self {
        let mut world = World::new(RING_SIZE);
        let wanted = |service: &&Service| {
            service.protocol == protocol::UDP && service.is_plain() && service.mode != Mode::Local
        };
        let services: Vec<_> = world.services.iter().filter(wanted).copied().collect();
        let tables = &mut world.tables;
        for service in &services {
            let ours = |id: u16, number: u32| id == service.id && number == u32::from(protocol::UDP);
            let four = tables.v4.vips.iter_mut().map(|(key, vip)| (u32::from(key.protocol), vip));
            let six = tables.v6.vips.iter_mut().map(|(key, vip)| (u32::from(key.protocol), vip));
            for (_, vip) in four.chain(six).filter(|(number, vip)| ours(vip.id, *number)) {
                vip.flags |= vip_flags::QUIC;
            }
            for (rotation, (server, nonce, encrypted)) in (0..).zip(SCHEMES) {
                let encoding =
                    Encoding::new(server, nonce, encrypted.then_some(KEY)).expect("lengths that fit");
                tables.quic.insert(QuicLbKey { vip: service.id, rotation }, encoding.entry());
            }
            for (number, id) in NAMES {
                let index = service.server(number);
                let reference = ServerRef::new(index, tables.servers[&index].generation);
                tables.quic_servers.insert(QuicServerKey { id, vip: service.id.into() }, reference);
            }
        }
        Self { kernel: Kernel::load(&world.tables), world, services, port: 20_000 }
    }

    /// A client that nobody has seen.
    fn client(&mut self, service: &Service) -> SocketAddr {
        self.port += 1;
        world::client(service.at.is_ipv4(), (self.port % 200) as u8 + 1, self.port)
    }

    /// Sends a datagram through kernel and host, which must make the same of it; gives the server it goes to.
    #[track_caller]
    fn server_of(&mut self, service: &Service, client: SocketAddr, payload: &[u8]) -> u16 {
        let frame = Draft::udp(client, service.at).payload(payload).bytes();
        self.world.tables.now = tick();
        let (action, left) = self.kernel.run(world::FRONT, &frame);
        let mut expected = frame;
        let outcome = process(&mut expected, world::FRONT, &self.world.tables);
        let Outcome::Forward { server, .. } = outcome else { panic!("{outcome:?} of {service:?}") };
        assert!(matches!(action, Action::Tx | Action::Redirect), "{action:?}, and the host: {outcome:?}");
        assert_eq!(left, expected, "{service:?}");
        server
    }

    /// Where the ring leads a client.
    fn by_ring(&self, service: &Service, client: SocketAddr) -> u16 {
        let tuple = Tuple { src: client, dst: service.at, protocol: protocol::UDP };
        self.world.slot(service, tuple).server().index()
    }

    #[track_caller]
    fn goes_by_ring(&mut self, service: &Service, payload: &[u8], why: &str) {
        let client = self.client(service);
        let expected = self.by_ring(service, client);
        assert_eq!(self.server_of(service, client, payload), expected, "{why}: {service:?}");
    }
}

/// A connection ID that names `id` in the scheme of this number.
fn connection(rotation: u8, id: u64) -> Vec<u8> {
    let (server, nonce, encrypted) = SCHEMES[usize::from(rotation)];
    let id = &id.to_be_bytes()[8 - usize::from(server)..];
    encode(rotation, id, &vec![0x5c; usize::from(nonce)], encrypted.then_some(KEY)).expect("lengths that fit")
}

#[test]
fn datagrams_go_to_the_server_that_their_connection_id_names() {
    needs_kernel_program!();
    place(|| {
        let mut bed = Bed::new();
        let mut elsewhere = 0;
        let services = bed.services.clone();
        let modes: Vec<_> = services.iter().map(|service| service.mode).collect();
        assert!(
            [Mode::Dr, Mode::Ipip, Mode::Gue, Mode::Nat, Mode::Snat].iter().all(|mode| modes.contains(mode))
        );
        for service in &services {
            for (rotation, (number, id)) in
                (0..SCHEMES.len() as u8).flat_map(|rotation| NAMES.map(|name| (rotation, name)))
            {
                for long in [true, false] {
                    let client = bed.client(service);
                    let server = service.server(number);
                    elsewhere += usize::from(bed.by_ring(service, client) != server);
                    let payload = datagram(long, &connection(rotation, id), &[0x77; 24]);
                    let came = bed.server_of(service, client, &payload);
                    assert_eq!(came, server, "scheme {rotation}, long header: {long}, {service:?}");
                }
            }
        }
        assert!(elsewhere > services.len() * SCHEMES.len(), "the ring alone leads to others");
    });
}

#[test]
fn datagrams_that_name_no_server_go_where_the_ring_says() {
    needs_kernel_program!();
    place(|| {
        let mut bed = Bed::new();
        for service in &bed.services.clone() {
            for rotation in 0..SCHEMES.len() as u8 {
                let unknown = datagram(false, &connection(rotation, NOBODY), &[0x77; 24]);
                bed.goes_by_ring(service, &unknown, "a name that nobody has");
            }
            let mut other_scheme = connection(0, NAMES[0].1);
            other_scheme[0] |= 6 << 5;
            bed.goes_by_ring(service, &datagram(false, &other_scheme, &[0; 24]), "an unknown scheme");
            other_scheme[0] |= 7 << 5;
            bed.goes_by_ring(service, &datagram(true, &other_scheme, &[0; 24]), "of a client's own making");
            let whole = datagram(false, &connection(0, NAMES[0].1), &[]);
            bed.goes_by_ring(service, &whole[..whole.len() - 1], "an ID that is cut short");
            bed.goes_by_ring(service, &[], "nothing at all");
            bed.goes_by_ring(service, &[0x40], "a first octet");
            bed.goes_by_ring(service, &datagram(true, &[], &[0; 24]), "no ID");
        }
    });
}

/// A server that drains keeps who names it, one that has failed does not.
#[test]
fn only_servers_that_may_have_flows_are_followed() {
    needs_kernel_program!();
    place(|| {
        let mut bed = Bed::new();
        for service in &bed.services.clone() {
            let (number, id) = NAMES[1];
            bed.world.fill_ring(service, &[1, 3]);
            bed.kernel.set_ring(service.id, &bed.world.tables.rings[&service.id]);
            let index = service.server(number);
            for (health, follows) in [(Health::Draining, true), (Health::Down, false)] {
                let entry = bed.world.tables.servers.get_mut(&index).expect("a server");
                entry.flags = entry.flags & !Health::Up.flags() | health.flags();
                bed.kernel.servers.set(index.into(), *entry, 0).expect("a server");
                let payload = datagram(false, &connection(2, id), &[0x77; 24]);
                if follows {
                    let client = bed.client(service);
                    assert_eq!(bed.server_of(service, client, &payload), index, "{health:?} {service:?}");
                } else {
                    bed.goes_by_ring(service, &payload, "a server that has failed");
                }
            }
        }
    });
}
