//! The decision: VIP, flow, ring, server.
//!
//! [`decide`] is the policy for the packets that come by the million. What it knows it reads through [`Tables`],
//! which the kernel implements over BPF maps and [`crate::host`] over ordinary memory; so the host can be asked
//! what the kernel would do, and is, for every packet of the parity test. Rarer packets are decided by a
//! [`Stage`] of their own, in this module's other files:
//!
//! ```text
//! decide ─ direct (dr, ipip, gue: settled slots)
//!        ├ translate (nat, snat: flows that are known, and replies)
//!        └ later: remember (flow tags) · open (new flows of nat, snat) · icmp · fragment · answer · mss
//! ```

mod choose;
pub mod direct;
mod flows;
pub mod fragment;
pub mod icmp;
pub mod open;
pub mod quic;
mod tables;
mod tags;
mod translate;

pub use tables::{Line, Tables, Touched};

use crate::{
    abi::{Flow, Mode, Server, ServerRef, Vip, VipKey, server_flags, settings_flags, vip_flags},
    family::Family,
    parse::{Kind, Link, Packet, Quoted},
    verdict::{DropReason, Hop, PassReason, Reply, Stage, Verdict},
};

/// Everything about the packet in hand.
///
/// In the kernel it lies in a per-CPU map, not on the stack, for three reasons. It is too large for the stack.
/// The stages of the program hand it on. And the verifier forgets what it knew of a value that went through
/// memory: the many ways of parsing a packet are then one way of deciding about it, instead of being verified
/// each by itself.
#[derive(Clone, Copy, Debug)]
pub struct Work<F: Family> {
    /// Its link layer.
    pub link: Link,
    /// Its headers.
    pub packet: Packet<F>,
    /// The record of its flow, if it is to be translated.
    pub flow: Flow<F::Addr>,
    /// The number of that record.
    pub number: u32,
    /// Interface it came in by.
    pub ifindex: u32,
    /// Its VIP, for the stages.
    pub vip: Vip,
    /// The packet that it quotes, if it is an ICMP error.
    pub quoted: Quoted<F::Addr>,
    /// Where it goes on the link.
    pub hop: Hop,
    /// The tunnel it goes through, if it does.
    pub tunnel: Tunnel,
    /// How it is to be answered.
    pub reply: Reply,
    /// The server that the packet itself names, if it does.
    pub named: ServerRef,
    /// Whether a stage has prepared it, and it is decided for the second time.
    pub prepared: bool,
    /// What was found out on the way.
    pub facts: Facts,
}

/// A tunnel to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// This end's address, in the first words for IPv4.
    pub source: [u32; 4],
    /// The server's.
    pub server: [u32; 4],
    /// Largest IP packet on the way; 0 for any.
    pub mtu: u16,
    /// The UDP port of the far end; 0 for plain IP in IP.
    pub port: u16,
    /// Whether the outer header is one of IPv6.
    pub ipv6: bool,
    /// The flow's hash: source port of the outer header, so that routers spread flows.
    pub entropy: u16,
}

impl Tunnel {
    /// Source port of the outer header, if it has ports. In the dynamic range (RFC 6335): this end is no service.
    #[inline(always)]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        self.entropy | 0xc000
    }
}

/// What was found out about a packet on the way, for those who watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The flow's ring hash, if the ring was asked.
    pub hash: u32,
    /// What its slot held, if the ring was asked.
    pub slot: crate::abi::Slot,
    /// The VIP, if there is one; 0 else.
    pub vip: u16,
    /// Index of the server; 0 if there is none.
    pub server: u16,
    /// Bits of [`facts`].
    pub flags: u32,
}

/// Bits of [`Facts::flags`].
pub mod facts {
    /// The flow tags were asked.
    pub const ASKED: u32 = 1;
    /// They knew the flow.
    pub const KNOWN: u32 = 2;
    /// The flow tables knew the flow.
    pub const IN_TABLE: u32 = 4;
    /// It was entered.
    pub const ENTERED: u32 = 8;
    /// It begins with this packet.
    pub const NEW: u32 = 32;
    /// It is a server's packet.
    pub const REPLY: u32 = 16;
}

impl<F: Family> Work<F> {
    /// A workspace for a parsed packet.
    #[must_use]
    pub fn new(link: Link, packet: Packet<F>, ifindex: u32) -> Self {
        Self {
            link,
            packet,
            flow: Flow::default(),
            number: 0,
            ifindex,
            vip: Vip::default(),
            quoted: Quoted::default(),
            hop: Hop::default(),
            tunnel: Tunnel::default(),
            reply: Reply::TooBig,
            named: ServerRef::NONE,
            prepared: false,
            facts: Facts::default(),
        }
    }
}

impl<F: Family> Work<F> {
    /// Forgets what was found out about the packet before.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.prepared = false;
        self.named = ServerRef::NONE;
        self.facts = Facts::default();
    }
}

/// Decides what becomes of the packet in `work`, and keeps the tables.
#[inline(always)]
pub fn decide<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Verdict {
    match work.packet.kind() {
        Kind::Whole => whole(work, tables),
        Kind::Icmp => Verdict::Later(Stage::Icmp),
        Kind::FirstFragment | Kind::LaterFragment => Verdict::Later(Stage::Fragment),
    }
}

/// Decides about a packet that has ports.
#[inline(always)]
pub(crate) fn whole<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Verdict {
    let outcome = match vip(&work.packet.vip_key(), tables) {
        Some(vip) => {
            work.vip = vip;
            work.facts.vip = vip.id;
            to_vip(work, vip, tables)
        }
        None => translate::reply(work, tables),
    };
    outcome.map_or_else(|stop| stop, Verdict::Forward)
}

#[inline(always)]
fn to_vip<F: Family>(
    work: &mut Work<F>,
    vip: Vip,
    tables: &impl Tables<F>,
) -> Result<crate::verdict::Forward, Verdict> {
    let mode = Mode::from_u8(vip.mode);
    if mode == Mode::Local {
        return Err(Verdict::Pass(PassReason::LocalVip));
    }
    // Flooded by a switch, or overheard: whom it is for gets it too. The host discards it.
    if !is_for_us(work, tables) {
        return Err(Verdict::Pass(PassReason::OtherHost));
    }
    if !work.prepared {
        if vip.mss != 0 && work.packet.flags & crate::wire::tcp::SYN != 0 {
            return Err(Verdict::Later(Stage::Mss));
        }
        if vip.flags & vip_flags::QUIC != 0 {
            return Err(Verdict::Later(Stage::Quic));
        }
    }
    if mode.translates() {
        translate::client(work, tables)
    } else {
        direct::to_server(work, vip, mode, tables)
    }
}

/// Whether the frame was sent to the very interface that it came in by.
#[inline(always)]
pub(crate) fn is_for_us<F: Family>(work: &Work<F>, tables: &impl Tables<F>) -> bool {
    tables.interface(work.ifindex) == work.link.to
}

/// The VIP of an address and port, or of all ports of the address.
#[inline(always)]
pub(crate) fn vip<F: Family>(key: &VipKey<F::Addr>, tables: &impl Tables<F>) -> Option<Vip> {
    match tables.vip(key) {
        None if tables.settings().flags & settings_flags::ALL_PORTS != 0 => {
            tables.vip(&VipKey { port: 0, ..*key })
        }
        found => found,
    }
}

/// No server takes new flows: what the VIP wants to be done then.
#[inline(always)]
pub(crate) fn nobody<F: Family>(work: &mut Work<F>) -> Verdict {
    if work.vip.flags & vip_flags::EMPTY_PASS != 0 {
        Verdict::Pass(PassReason::EmptyPool)
    } else if work.vip.flags & vip_flags::EMPTY_REJECT != 0 {
        refuse(work)
    } else {
        Verdict::Drop(DropReason::NoServer)
    }
}

/// The client is to learn that there is nothing for it here.
#[inline(always)]
pub(crate) fn refuse<F: Family>(work: &mut Work<F>) -> Verdict {
    let is_tcp = work.packet.key.protocol == crate::abi::protocol::TCP as u32;
    work.reply = if is_tcp { Reply::Reset } else { Reply::Unreachable };
    Verdict::Later(Stage::Answer)
}

/// The way to a server goes to `work.hop`: as resolved by user space, else as the host's routing table says.
#[inline(always)]
pub(crate) fn hop_to<F: Family>(
    work: &mut Work<F>,
    reference: ServerRef,
    server: &Server,
    direct: bool,
    tables: &impl Tables<F>,
) -> Result<(), Verdict> {
    if server.flags & server_flags::HOP_KNOWN != 0 {
        work.hop = Hop { to: server.next_hop, from: server.source_mac, ifindex: server.ifindex };
        return Ok(());
    }
    let found = tables.route(reference.index(), direct, &mut work.hop);
    if found { Ok(()) } else { Err(Verdict::Drop(DropReason::NoNextHop)) }
}
