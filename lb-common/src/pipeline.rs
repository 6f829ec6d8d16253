//! The decision: VIP, flow, ring, server.
//!
//! [`decide`] is all the policy of the packet path. What it knows it reads through [`Tables`], which the
//! kernel implements over BPF maps and [`crate::host`] over ordinary ones; so the host can be asked what
//! the kernel would do, and is, for every packet of the parity test.

use crate::{
    abi::{
        Flow, FlowKey, Half, Mac, Mode, Server, ServerRef, Settings, Vip, VipKey, server_flags, vip_flags,
    },
    conntrack,
    family::Family,
    hash,
    parse::{Link, Packet},
    verdict::{DropReason, Forward, Hop, PassReason, Verdict},
};

/// Source ports tried for a new translation before giving up.
///
/// With a fraction `p` of a server's ports held by living flows, a new flow fails with probability about
/// `p^16`: 3 % at 80 %.
pub const PORT_ATTEMPTS: u32 = 16;

/// From this try on, the port of a flow that is over is as good as a free one.
const TAKE_OVER_FROM: u32 = 8;

/// Everything about the packet in hand.
///
/// In the kernel it lies in a per-CPU map, not on the stack, for two reasons. It is too large for the stack.
/// And the verifier forgets what it knew of a value that went through memory: the many ways of parsing a
/// packet are then one way of deciding about it, instead of being verified each by itself.
#[derive(Clone, Copy, Debug)]
pub struct Work<F: Family> {
    /// Its link layer.
    pub link: Link,
    /// Its headers.
    pub packet: Packet<F>,
    /// Its flow, if it is to be translated: the half it is found by.
    pub flow: Flow<F::Addr>,
    /// The other half.
    pub twin: Flow<F::Addr>,
    /// The key of the other half.
    pub twin_key: FlowKey<F::Addr>,
}

impl<F: Family> Work<F> {
    /// A workspace for a parsed packet.
    #[must_use]
    pub fn new(link: Link, packet: Packet<F>) -> Self {
        Self { link, packet, flow: Flow::default(), twin: Flow::default(), twin_key: FlowKey::default() }
    }
}

/// What the decision may look up and change.
pub trait Tables<F: Family> {
    /// The present tick, see [`conntrack::tick`].
    fn now(&self) -> u32;
    /// The settings record.
    fn settings(&self) -> Settings;
    /// The VIP of an address and port.
    fn vip(&self, key: &VipKey<F::Addr>) -> Option<Vip>;
    /// What the ring of a VIP holds for a flow hash; [`ServerRef::NONE`] if there is no ring.
    fn slot(&self, vip: u16, hash: u32) -> ServerRef;
    /// A server entry.
    fn server(&self, index: u16) -> Option<Server>;
    /// The MAC address of one of the balancer's interfaces.
    fn interface(&self, ifindex: u32) -> Option<Mac>;
    /// Where the host's routing table would send a packet to this server; for servers whose next hop user
    /// space does not know. With `direct`, a way over a router does not count.
    fn route(&self, server: &Server, direct: bool) -> Option<Hop>;
    /// Copies an entry of the flow table into `flow`; `false`, and `flow` as it was, if there is none.
    fn flow(&self, key: &FlowKey<F::Addr>, flow: &mut Flow<F::Addr>) -> bool;
    /// Adds an entry; with `replace`, also over one that exists.
    ///
    /// # Errors
    /// [`Refused`]: there is one under that key already, or no room for one more.
    fn insert(&mut self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, replace: bool) -> Result<(), Refused>;
    /// Updates time, state and the client's whereabouts of an existing entry; `false` if it is gone.
    fn refresh(&mut self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) -> bool;
}

/// An entry was not added to a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Decides what becomes of the packet in `work`, which came in by interface `ifindex`, and keeps the flow
/// tables.
#[inline(always)]
pub fn decide<F: Family>(work: &mut Work<F>, ifindex: u32, tables: &mut impl Tables<F>) -> Verdict {
    let outcome = match tables.vip(&work.packet.vip_key()) {
        Some(vip) => match Mode::from_u8(vip.mode) {
            Mode::Local => Err(Verdict::Pass(PassReason::LocalVip)),
            // Flooded by a switch, or overheard: whom it is for gets it too. The host discards it.
            _ if tables.interface(ifindex) != Some(work.link.to) => Err(Verdict::Pass(PassReason::OtherHost)),
            Mode::Dr => direct(work, vip, tables),
            mode => translate(work, ifindex, vip, mode == Mode::Snat, tables),
        },
        None => reply(work, ifindex, tables),
    };
    outcome.map_or_else(|stop| stop, Verdict::Forward)
}

/// `dr`: the ring says which server; only the link layer changes.
#[inline(always)]
fn direct<F: Family>(work: &Work<F>, vip: Vip, tables: &impl Tables<F>) -> Result<Forward, Verdict> {
    let (reference, server) = choose(&work.packet, vip, tables)?;
    let hop = hop_to::<F>(&server, true, tables)?;
    // UDP has no beginning that could be seen without keeping state.
    let new = work.packet.opens() && work.packet.flags != 0;
    Ok(Forward { hop, translated: false, vip: vip.id, server: reference.index(), half: Half::Client, new })
}

/// `nat` and `snat`, from the client.
#[inline(always)]
fn translate<F: Family>(
    work: &mut Work<F>,
    ifindex: u32,
    vip: Vip,
    source_too: bool,
    tables: &mut impl Tables<F>,
) -> Result<Forward, Verdict> {
    if work.packet.ttl <= 1 {
        return Err(Verdict::Drop(DropReason::TtlExceeded));
    }
    let mut known = None;
    if tables.flow(&work.packet.key, &mut work.flow)
        && let Some(server) = usable(work, tables)
    {
        work.flow.client_mac = work.link.from.bytes();
        work.flow.client_ifindex = ifindex;
        if keep(work, tables) {
            known = Some(server);
        }
    }
    let new = known.is_none();
    let (reference, server) = match known {
        Some(server) => (work.flow.server, server),
        None if work.packet.opens() => choose(&work.packet, vip, tables)?,
        None => return Err(Verdict::Pass(PassReason::NoFlow)),
    };
    let hop = hop_to::<F>(&server, false, tables)?;
    if new {
        work.flow = Flow {
            src: if source_too { F::from_words(server.snat_source) } else { work.packet.key.src },
            dst: F::from_words(server.address),
            sport: work.packet.key.sport,
            dport: if server.port == 0 { work.packet.key.dport } else { server.port },
            server: reference,
            seen: tables.now(),
            client_ifindex: ifindex,
            client_mac: work.link.from.bytes(),
            state: conntrack::advance(0, Half::Client, work.packet.flags),
            half: 0,
        };
        open(work, source_too, tables)?;
    }
    Ok(Forward { hop, translated: true, vip: vip.id, server: reference.index(), half: Half::Client, new })
}

/// Not to a VIP: perhaps a server's answer in a translated flow.
#[inline(always)]
fn reply<F: Family>(
    work: &mut Work<F>,
    ifindex: u32,
    tables: &mut impl Tables<F>,
) -> Result<Forward, Verdict> {
    let is_reply = tables.settings().may_be_reply(work.packet.key.dport)
        && tables.flow(&work.packet.key, &mut work.flow)
        && work.flow.half() == Half::Server
        && tables.interface(ifindex) == Some(work.link.to);
    if !is_reply {
        return Err(Verdict::Pass(PassReason::NotVip));
    }
    if work.packet.ttl <= 1 {
        return Err(Verdict::Drop(DropReason::TtlExceeded));
    }
    // Back the way the client came: its router's MAC, its interface. On that same interface the frame was
    // addressed to the very MAC it must now come from.
    let out = work.flow.client_ifindex;
    let from = if out == ifindex { Some(work.link.to) } else { tables.interface(out) };
    let from = from.ok_or(Verdict::Drop(DropReason::NoNextHop))?;
    if !keep(work, tables) {
        return Err(Verdict::Pass(PassReason::NotVip));
    }
    let server = work.flow.server.index();
    // The VIP is only needed for its counters; a flow whose server is gone counts for VIP 0.
    let vip = tables.server(server).map_or(0, |server| server.vip);
    let hop = Hop { to: Mac::new(work.flow.client_mac), from, ifindex: out };
    Ok(Forward { hop, translated: true, vip, server, half: Half::Server, new: false })
}

/// The server for a new flow.
#[inline(always)]
fn choose<F: Family>(
    packet: &Packet<F>,
    vip: Vip,
    tables: &impl Tables<F>,
) -> Result<(ServerRef, Server), Verdict> {
    let hash = if vip.flags & vip_flags::SOURCE_HASH != 0 {
        hash::source::<F>(packet.key.src)
    } else {
        hash::flow::<F>(&packet.key)
    };
    let reference = tables.slot(vip.id, hash);
    match tables.server(reference.index()) {
        Some(server) if !reference.is_none() && server.generation == reference.generation() => {
            Ok((reference, server))
        }
        _ => Err(Verdict::Drop(DropReason::NoServer)),
    }
}

/// The server of a known flow, unless the packet had better start a new one: the server is gone, or it is
/// down and the client is only trying to connect, or the flow was over and its 5-tuple is used again.
#[inline(always)]
fn usable<F: Family>(work: &Work<F>, tables: &impl Tables<F>) -> Option<Server> {
    let server = tables.server(work.flow.server.index())?;
    if work.flow.half() != Half::Client || server.generation != work.flow.server.generation() {
        return None;
    }
    let stale = server.flags & server_flags::ACCEPTS_NEW == 0 || conntrack::is_over(work.flow.state);
    if work.packet.opens() && stale { None } else { Some(server) }
}

/// Notes a packet of the known flow `work.flow` in both halves, but only if that changes something: a new
/// state, or the first packet of a tick. A half that was evicted is put back from the other.
///
/// Gives `false`, and changes nothing, where the other half belongs to another flow by now: the client has
/// begun anew with another server, or the port was given away after the half that held it was evicted.
#[inline(always)]
fn keep<F: Family>(work: &mut Work<F>, tables: &mut impl Tables<F>) -> bool {
    let now = tables.now();
    let state = conntrack::advance(work.flow.state, work.flow.half(), work.packet.flags);
    if state == work.flow.state && now == work.flow.seen {
        return true;
    }
    work.flow.state = state;
    work.flow.seen = now;
    work.twin_key = work.flow.twin_key(work.packet.key.protocol);
    if tables.flow(&work.twin_key, &mut work.twin) {
        if work.twin.twin_key(work.packet.key.protocol) != work.packet.key {
            return false;
        }
        tables.refresh(&work.twin_key, &work.flow);
    } else {
        work.twin = work.flow.twin(&work.packet.key);
        // If another CPU was quicker, it has put back the same; the next look will tell if not.
        let _ = tables.insert(&work.twin_key, &work.twin, false);
    }
    tables.refresh(&work.packet.key, &work.flow);
    true
}

/// Starts the translated flow `work.flow`: finds a free 5-tuple towards the server, enters both halves.
///
/// `nat` tries the client's own port first; only if another flow of the same client to the same server has
/// it does the port change.
#[inline(always)]
fn open<F: Family>(work: &mut Work<F>, source_too: bool, tables: &mut impl Tables<F>) -> Result<(), Verdict> {
    let Settings { snat_first, snat_count, .. } = tables.settings();
    if snat_count == 0 && source_too {
        return Err(Verdict::Drop(DropReason::PortsExhausted));
    }
    let hash = hash::flow::<F>(&work.packet.key);
    let start = hash::scale(hash, snat_count as u32);
    // A stride of its own for every flow, or taken ports would gather in ever longer rows.
    let stride = if snat_count >= 4_096 { hash & 0x7ff | 1 } else { 1 };
    let port = |attempt: u32| {
        snat_first.wrapping_add(((start + attempt * stride) % (snat_count as u32).max(1)) as u16)
    };
    if source_too {
        work.flow.sport = port(0);
    }
    let mut free = claim(work, source_too, tables) || take_over(work, false, tables);
    for attempt in 1..PORT_ATTEMPTS {
        if free || snat_count == 0 {
            break;
        }
        work.flow.sport = port(attempt);
        free = claim(work, true, tables) || (attempt >= TAKE_OVER_FROM && take_over(work, true, tables));
    }
    if !free {
        return Err(Verdict::Drop(DropReason::PortsExhausted));
    }
    let entered = tables.insert(&work.packet.key, &work.flow, true);
    entered.map_err(|_| Verdict::Drop(DropReason::FlowTableFull))
}

/// Takes the port in `work.flow` by inserting the server's half, which must not exist: no two flows and no
/// two CPUs can get the same one. A port on which a reply would be taken for a VIP's client is never free.
#[inline(always)]
fn claim<F: Family>(work: &mut Work<F>, ours: bool, tables: &mut impl Tables<F>) -> bool {
    work.twin = work.flow.twin(&work.packet.key);
    work.twin_key = work.flow.twin_key(work.packet.key.protocol);
    let key = &work.twin_key;
    let as_vip = VipKey { address: key.dst, port: key.dport, protocol: key.protocol as u16 };
    let is_vip = ours && tables.vip(&as_vip).is_some();
    !is_vip && tables.insert(&work.twin_key, &work.twin, false).is_ok()
}

/// Overwrites the entry under `work.twin_key` if it is from a previous life of the same 5-tuple, or, with
/// `others`, of any flow that is over.
///
/// Two CPUs could take the same port at the same instant; the flow that loses is found out by [`keep`].
#[inline(always)]
fn take_over<F: Family>(work: &mut Work<F>, others: bool, tables: &mut impl Tables<F>) -> bool {
    if !tables.flow(&work.twin_key, &mut work.twin) {
        return false;
    }
    let own = work.twin.twin_key(work.packet.key.protocol) == work.packet.key;
    let over = others && work.twin.half() == Half::Server && conntrack::is_over(work.twin.state);
    if !own && !over {
        return false;
    }
    work.twin = work.flow.twin(&work.packet.key);
    tables.insert(&work.twin_key, &work.twin, true).is_ok()
}

/// The way to a server: resolved by user space, else as the host's routing table says.
#[inline(always)]
fn hop_to<F: Family>(server: &Server, direct: bool, tables: &impl Tables<F>) -> Result<Hop, Verdict> {
    if server.flags & server_flags::HOP_KNOWN != 0 {
        let (to, from) = (server.next_hop, server.source_mac);
        return Ok(Hop { to, from, ifindex: server.ifindex });
    }
    tables.route(server, direct).ok_or(Verdict::Drop(DropReason::NoNextHop))
}
