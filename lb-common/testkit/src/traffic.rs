//! Packets and changes of the tables, in an order that means something: clients that open and go on, servers
//! that answer what reached them, errors about either, pieces, some damage, and now and then a server that goes or
//! comes.
//!
//! Few clients with few ports, so that the same flows come again and again and get into each other's way.

use std::net::SocketAddr;

use lb_common::{abi::protocol, wire::tcp};

use crate::{
    damage,
    dice::Dice,
    draft::Draft,
    inspect::{self, Seen},
    world::{self, Health, Service, World},
};

pub use crate::change::Change;

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame comes in by an interface.
    Frame {
        /// Interface index.
        ifindex: u32,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// The tables change.
    Change(Change),
}

/// A packet that went on to a server.
#[derive(Clone, Debug)]
struct Sent {
    seen: Seen,
    ifindex: u32,
    bytes: Vec<u8>,
}

/// A source of steps.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets that went on to a server, the last few.
    sent: Vec<Sent>,
    /// Changes that belong to the last step.
    then: Vec<Change>,
    oldest: usize,
    /// The VIPs that most packets are for at present.
    busy: Vec<Service>,
}

impl Traffic {
    /// How many packets wait for an answer.
    const WINDOW: usize = 12;
    /// How many VIPs are busy at a time.
    const BUSY: usize = 4;

    /// The next step; the first choice of an exhausted dice is an ordinary packet.
    pub fn next(&mut self, dice: &mut Dice<'_>, world: &World) -> Step {
        if let Some(change) = self.then.pop() {
            return Step::Change(change);
        }
        if self.busy.is_empty() || dice.chance(2) {
            self.busy = (0..Self::BUSY).map(|_| dice.pick(&world.services)).collect();
        }
        if dice.chance(8) {
            return Step::Change(self.change(dice, world));
        }
        let (ifindex, mut bytes) = match dice.below(20) {
            0..7 => self.clients(dice, world),
            7..14 if !self.sent.is_empty() => self.answer(dice),
            14 => stray(dice, world),
            15 => (world::FRONT, raw(dice)),
            16 => self.piece(dice, world),
            17 => (world::FRONT, self.about_answer(dice, world)),
            18 if !self.sent.is_empty() => self.about_request(dice),
            19 => self.echo(dice, world),
            _ => self.clients(dice, world),
        };
        if dice.chance(32) {
            damage::somehow(&mut bytes, dice);
        }
        Step::Frame { ifindex, bytes }
    }

    /// Tells what became of a frame that was sent on by interface `ifindex`, so that it may be answered.
    pub fn sent(&mut self, frame: &[u8], ifindex: u32) {
        let Some(seen) = inspect::read(frame).filter(|seen| seen.to[..5] == world::mac_of_server(0)[..5])
        else {
            return;
        };
        let sent = Sent { seen, ifindex, bytes: frame.to_vec() };
        if self.sent.len() < Self::WINDOW {
            self.sent.push(sent);
        } else {
            self.sent[self.oldest % Self::WINDOW] = sent;
            self.oldest += 1;
        }
    }

    fn answer(&self, dice: &mut Dice<'_>) -> (u32, Vec<u8>) {
        let Sent { seen, ifindex, .. } = &self.sent[dice.below(self.sent.len())];
        let draft = Draft::of(seen.protocol, seen.dst, seen.src)
            .macs(world::mac_of_interface(*ifindex), seen.to)
            .payload(&dice.bytes(16));
        let draft = if seen.protocol == protocol::TCP {
            draft.flags(dice.pick(&[
                tcp::SYN | tcp::ACK,
                tcp::ACK,
                tcp::ACK,
                tcp::ACK,
                tcp::FIN | tcp::ACK,
                tcp::RST,
            ]))
        } else {
            draft
        };
        let draft = if dice.chance(16) { in_pieces(draft, dice) } else { draft };
        (*ifindex, decorate(draft, seen.src.is_ipv4(), dice).bytes())
    }

    /// A server, or somebody before it, complains about what it got.
    fn about_request(&self, dice: &mut Dice<'_>) -> (u32, Vec<u8>) {
        let Sent { seen, ifindex, bytes } = &self.sent[dice.below(self.sent.len())];
        let reporter = SocketAddr::new(
            if dice.chance(128) { seen.dst.ip() } else { world::address(seen.dst.is_ipv4(), 2, 99) },
            0,
        );
        let error = error(reporter, bytes, dice).macs(world::mac_of_interface(*ifindex), seen.to);
        (*ifindex, decorate(error, seen.src.is_ipv4(), dice).bytes())
    }

    fn change(&mut self, dice: &mut Dice<'_>, world: &World) -> Change {
        let served = |services: &[Service]| -> Vec<_> {
            services.iter().filter(|service| service.servers > 0).copied().collect()
        };
        let (all, busy) = (served(&world.services), served(&self.busy));
        let any = busy.is_empty() || dice.chance(64);
        let service = dice.pick(if any { &all } else { &busy });
        let index = service.server(1 + dice.below(service.servers.into()) as u16);
        match dice.below(12) {
            // A server changes with the ring that belongs to it, or without: user space is slower.
            0..6 => {
                let is_up = world.tables.servers[&index].flags & Health::Up.flags() == Health::Up.flags();
                let other = [Health::Down, Health::Draining, Health::Draining, Health::Halted];
                let health = if is_up { dice.pick(&other) } else { Health::Up };
                // A planned change is prepared for.
                let learns = dice.chance(64);
                if dice.chance(200) || learns {
                    self.then.push(Change::Ring(service));
                }
                if learns {
                    self.then.push(Change::Health(index, health));
                    return Change::Tagged(service, true);
                }
                Change::Health(index, health)
            }
            6 => {
                self.then.push(Change::Ring(service));
                Change::Replaced(index)
            }
            7 => Change::Tagged(service, dice.chance(128)),
            8 => Change::Swept,
            _ => Change::Aged(1 + dice.below(200) as u32),
        }
    }

    /// A VIP, and an address and port of it.
    fn some_end(&self, dice: &mut Dice<'_>, world: &World) -> (Service, SocketAddr) {
        let any = dice.chance(48);
        let service = dice.pick(if any { &world.services } else { &self.busy });
        let port = if service.at.port() == 0 { 7_000 + dice.below(4) as u16 } else { service.at.port() };
        (service, SocketAddr::new(service.at.ip(), port))
    }

    fn to_service(&self, dice: &mut Dice<'_>, world: &World) -> (u32, Draft, bool) {
        let (service, end) = self.some_end(dice, world);
        let four = service.at.is_ipv4();
        let client = some_client(dice, four);
        let ifindex = if dice.chance(32) { world::SIDE } else { world::FRONT };
        let router = [2, 0, 0, 0, 1, dice.pick(&[9, 9, 9, 8])];
        let most = if dice.chance(32) { 256 } else { 16 };
        let draft = Draft::of(service.protocol, client, end)
            .macs(world::mac_of_interface(ifindex), router)
            .payload(&dice.bytes(most));
        (ifindex, if service.protocol == protocol::TCP { some_segment(draft, dice) } else { draft }, four)
    }

    fn clients(&self, dice: &mut Dice<'_>, world: &World) -> (u32, Vec<u8>) {
        let (ifindex, draft, four) = self.to_service(dice, world);
        (ifindex, decorate(draft, four, dice).bytes())
    }

    /// A piece of a datagram, the first or another; of few datagrams.
    fn piece(&self, dice: &mut Dice<'_>, world: &World) -> (u32, Vec<u8>) {
        let (ifindex, draft, four) = self.to_service(dice, world);
        (ifindex, decorate(in_pieces(draft, dice), four, dice).bytes())
    }

    /// A client, or somebody before it, complains about an answer that it got.
    fn about_answer(&self, dice: &mut Dice<'_>, world: &World) -> Vec<u8> {
        let (service, end) = self.some_end(dice, world);
        let four = end.is_ipv4();
        let client = some_client(dice, four);
        let answer = Draft::of(service.protocol, end, client).payload(&[1; 40]).bytes();
        let reporter = if dice.chance(128) { client.ip() } else { world::address(four, 0, 99) };
        decorate(error(SocketAddr::new(reporter, 0), &answer, dice), four, dice).bytes()
    }

    fn echo(&self, dice: &mut Dice<'_>, world: &World) -> (u32, Vec<u8>) {
        let (_, end) = self.some_end(dice, world);
        let four = end.is_ipv4();
        let end = if dice.chance(32) { world::client(four, 77, 0) } else { end };
        let draft = Draft::echo(some_client(dice, four), end).payload(&dice.bytes(32));
        (world::FRONT, decorate(draft, four, dice).bytes())
    }
}

/// A client, one of few.
fn some_client(dice: &mut Dice<'_>, four: bool) -> SocketAddr {
    world::client(four, 1 + dice.below(4) as u8, 40_000 + dice.below(8) as u16)
}

/// Flags and options of a TCP segment.
fn some_segment(draft: Draft, dice: &mut Dice<'_>) -> Draft {
    const OPTIONS: [&[u8]; 5] =
        [&[], &[2, 4, 5, 0xb4], &[1, 2, 4, 5, 0xb4, 0, 0, 0], &[2, 4, 1, 0], &[8, 0, 1, 1]];
    let flags = dice.pick(&[tcp::SYN, tcp::ACK, tcp::SYN, tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST, 0xff]);
    let flags = if flags == 0xff { dice.byte() } else { flags };
    draft.flags(flags).tcp_options(dice.pick(&OPTIONS))
}

fn in_pieces(draft: Draft, dice: &mut Dice<'_>) -> Draft {
    let ident = dice.below(4) as u16;
    if dice.chance(110) {
        draft.piece(ident, 8 * (1 + dice.below(20) as u16), dice.chance(128))
    } else {
        draft.piece(ident, 0, true)
    }
}

/// An error of whatever kind, mostly with the least that there may be.
fn error(reporter: SocketAddr, about: &[u8], dice: &mut Dice<'_>) -> Draft {
    let kinds: &[[u8; 2]] = if reporter.is_ipv4() {
        &[[3, 3], [3, 4], [11, 0], [12, 0], [5, 0]]
    } else {
        &[[1, 4], [2, 0], [3, 0], [4, 0], [5, 0]]
    };
    let bytes = dice.pick(&[8, 8, 20, 40, 7]);
    Draft::error(reporter, dice.pick(kinds), [0, 0, 5, 0xdc], about, bytes)
}

/// What an ordinary packet may also have.
fn decorate(mut draft: Draft, four: bool, dice: &mut Dice<'_>) -> Draft {
    const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
    if !dice.chance(64) {
        return draft;
    }
    for _ in 0..dice.below(4) {
        draft = draft.tag(dice.pick(&TAGS), dice.word());
    }
    draft = draft.ttl(dice.pick(&[64, 255, 128, 2, 1, 0])).trailer(dice.below(8)).class(dice.byte());
    if four {
        draft.options(&dice.bytes(41).as_chunks::<4>().0.concat())
    } else {
        for _ in 0..dice.below(11) {
            let kind = dice.pick(&[60, 0, 43, 44, 51, 60, 60]);
            // Length, segments left and offset are mostly 0.
            let mut header = [0; 8];
            if dice.chance(64) {
                header[1 + dice.below(7)] = dice.byte();
            }
            // Authentication headers count in words of 4.
            let words = usize::from(header[1] % 4);
            header[1] = words as u8;
            let length = if kind == 51 {
                8 + 4 * words
            } else if kind == 44 {
                8
            } else {
                8 + 8 * words
            };
            let mut header = header.to_vec();
            header.resize(length, 0);
            draft = draft.extension(kind, &header);
        }
        draft
    }
}

/// Any bytes behind an Ethernet header that promises something.
fn raw(dice: &mut Dice<'_>) -> Vec<u8> {
    let start: &[u8] = dice.pick(&[&[8, 0, 0x45][..], &[0x86, 0xdd, 0x60], &[0x81, 0, 0, 1, 8, 0], &[0x88]]);
    [&[2; 12], start, &dice.bytes(96)].concat()
}

/// What is not for a VIP: its address with another port, another host, another protocol, no IP at all.
fn stray(dice: &mut Dice<'_>, world: &World) -> (u32, Vec<u8>) {
    let service = dice.pick(&world.services);
    let four = service.at.is_ipv4();
    let client = world::client(four, 1, 40_000);
    let near = (service.at.ip(), dice.word()).into();
    let bytes = match dice.below(6) {
        0 => Draft::of(service.protocol, client, near).bytes(),
        1 => Draft::of(23 - service.protocol, client, service.end()).bytes(),
        2 => Draft::other(client, service.at, dice.byte()).payload(&dice.bytes(64)).bytes(),
        3 => Draft::syn(
            client,
            (world::address(four, 2, 254), world::SNAT_FIRST + dice.below(30) as u16).into(),
        )
        .bytes(),
        4 => {
            let mut bytes = Draft::syn(client, service.at).bytes();
            bytes[12..14].copy_from_slice(&dice.word().to_be_bytes());
            bytes
        }
        _ => Draft::syn((service.at.ip(), 1_234).into(), client).bytes(),
    };
    (world::FRONT, bytes)
}
