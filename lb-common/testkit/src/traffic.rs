//! Packets and changes of the tables, in an order that means something: clients that open and go on, servers
//! that answer what reached them, some damage, and now and then a server that goes or comes.
//!
//! Few clients with few ports, so that the same flows come again and again and get into each other's way.

use lb_common::{
    abi::{protocol, server_flags},
    wire::tcp,
};

use crate::{
    damage,
    dice::Dice,
    draft::Draft,
    inspect::{self, Seen},
    world::{self, Key, Service, World},
};

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

/// A change of the tables by user space or by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A server, by index, takes new flows or does not.
    Accepts(u16, bool),
    /// A server's entry gets a new owner.
    Replaced(u16),
    /// The ring of a VIP is made anew from the servers that are up.
    Ring(Service),
    /// An entry of a flow table is evicted.
    Evicted(Key),
    /// All flows were last seen so many ticks earlier.
    Aged(u32),
}

impl Change {
    /// Carries it out.
    pub fn apply(self, world: &mut World) {
        let tables = &mut world.tables;
        match self {
            Self::Accepts(index, accepts) => {
                let server = tables.servers.get_mut(&index).expect("an entry of this world");
                let flag = server_flags::ACCEPTS_NEW;
                server.flags = if accepts { server.flags | flag } else { server.flags & !flag };
            }
            Self::Replaced(index) => {
                let server = tables.servers.get_mut(&index).expect("an entry of this world");
                server.generation += 1;
            }
            Self::Ring(service) => {
                let is_up = |number: &u16| {
                    tables.servers[&service.server(*number)].flags & server_flags::ACCEPTS_NEW != 0
                };
                let up: Vec<_> = (1..=service.servers).filter(is_up).collect();
                world.fill_ring(&service, &up);
            }
            Self::Evicted(Key::V4(key)) => drop(tables.v4.flows.remove(&key)),
            Self::Evicted(Key::V6(key)) => drop(tables.v6.flows.remove(&key)),
            Self::Aged(ticks) => {
                let age = |seen: &mut u32| *seen = seen.wrapping_sub(ticks);
                tables.v4.flows.values_mut().for_each(|flow| age(&mut flow.seen));
                tables.v6.flows.values_mut().for_each(|flow| age(&mut flow.seen));
            }
        }
    }
}

/// A source of steps.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets that went on to a server, the last few.
    sent: Vec<(Seen, u32)>,
    /// Changes that belong to the last step.
    then: Vec<Change>,
    oldest: usize,
}

impl Traffic {
    /// How many packets wait for an answer.
    const WINDOW: usize = 32;

    /// The next step; the first choice of an exhausted dice is an ordinary packet.
    pub fn next(&mut self, dice: &mut Dice<'_>, world: &World) -> Step {
        if let Some(change) = self.then.pop() {
            return Step::Change(change);
        }
        if dice.chance(8)
            && let Some(change) = self.change(dice, world)
        {
            return Step::Change(change);
        }
        let (ifindex, mut bytes) = match dice.below(16) {
            0..7 => from_client(dice, world),
            7..14 if !self.sent.is_empty() => self.answer(dice),
            14 => stray(dice, world),
            15 => (world::FRONT, raw(dice)),
            _ => from_client(dice, world),
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
        if self.sent.len() < Self::WINDOW {
            self.sent.push((seen, ifindex));
        } else {
            self.sent[self.oldest % Self::WINDOW] = (seen, ifindex);
            self.oldest += 1;
        }
    }

    fn answer(&self, dice: &mut Dice<'_>) -> (u32, Vec<u8>) {
        let (seen, ifindex) = self.sent[dice.below(self.sent.len())];
        let draft = Draft::of(seen.protocol, seen.dst, seen.src)
            .macs(world::mac_of_interface(ifindex), seen.to)
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
        (ifindex, decorate(draft, seen.src.is_ipv4(), dice).bytes())
    }

    fn change(&mut self, dice: &mut Dice<'_>, world: &World) -> Option<Change> {
        let served: Vec<_> = world.services.iter().filter(|service| service.servers > 0).copied().collect();
        let service = dice.pick(&served);
        let index = service.server(1 + dice.below(service.servers.into()) as u16);
        match dice.below(5) {
            // Down and up come with the ring that belongs to it, or without: user space is slower.
            0 | 1 => {
                let up = world.tables.servers[&index].flags & server_flags::ACCEPTS_NEW != 0;
                if dice.chance(200) {
                    self.then.push(Change::Ring(service));
                }
                Some(Change::Accepts(index, !up))
            }
            2 => {
                self.then.push(Change::Ring(service));
                Some(Change::Replaced(index))
            }
            3 => Some(Change::Aged(1 + dice.below(200) as u32)),
            _ => {
                // A half is put back from the other at the first packet of a tick.
                self.then.push(Change::Aged(1));
                some_flow(dice, world).map(Change::Evicted)
            }
        }
    }
}

/// One of the entries of the flow tables, by their order, which is the same everywhere.
fn some_flow(dice: &mut Dice<'_>, world: &World) -> Option<Key> {
    let mut four: Vec<_> = world.tables.v4.flows.keys().collect();
    four.sort_by_key(|key| (key.src, key.dst, key.sport, key.dport, key.protocol));
    let mut six: Vec<_> = world.tables.v6.flows.keys().collect();
    six.sort_by_key(|key| (key.src, key.dst, key.sport, key.dport, key.protocol));
    let all: Vec<_> =
        four.into_iter().map(|key| Key::V4(*key)).chain(six.into_iter().map(|key| Key::V6(*key))).collect();
    (!all.is_empty()).then(|| dice.pick(&all))
}

fn from_client(dice: &mut Dice<'_>, world: &World) -> (u32, Vec<u8>) {
    let service = dice.pick(&world.services);
    let four = service.at.is_ipv4();
    let client = world::client(four, 1 + dice.below(8) as u8, 40_000 + dice.below(8) as u16);
    let ifindex = if dice.chance(32) { world::SIDE } else { world::FRONT };
    let router = [2, 0, 0, 0, 1, dice.pick(&[9, 9, 9, 8])];
    let draft = Draft::of(service.protocol, client, service.at)
        .macs(world::mac_of_interface(ifindex), router)
        .payload(&dice.bytes(16));
    let draft = if service.protocol == protocol::TCP {
        let flags = dice.pick(&[tcp::SYN, tcp::ACK, tcp::SYN, tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST, 0xff]);
        draft.flags(if flags == 0xff { dice.byte() } else { flags })
    } else {
        draft
    };
    (ifindex, decorate(draft, four, dice).bytes())
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
    draft = draft.ttl(dice.pick(&[64, 255, 128, 2, 1, 0])).trailer(dice.below(8));
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
        1 => Draft::of(23 - service.protocol, client, service.at).bytes(),
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
