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
    verdict::{DropReason, Forward, Hop, PassReason, Translation, Verdict},
};

/// Source ports tried for a new translation before giving up.
///
/// With a fraction `p` of a server's ports taken, a new flow fails with probability `p^16`: 3 % at 80 %.
pub const PORT_ATTEMPTS: u16 = 16;

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
    /// An entry of the flow table.
    fn flow(&self, key: &FlowKey<F::Addr>) -> Option<Flow<F::Addr>>;
    /// Adds an entry, or replaces one if `replace`.
    ///
    /// # Errors
    /// [`Refusal`].
    fn insert(&mut self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, replace: bool) -> Result<(), Refusal>;
    /// Updates time, state and the client's whereabouts of an existing entry; `false` if it is gone.
    fn refresh(&mut self, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) -> bool;
}

/// Why an entry was not added to a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is one under that key.
    Exists,
    /// There is no room.
    Full,
}

/// Decides what becomes of a packet that came in by interface `ifindex`, and keeps the flow tables.
#[inline(always)]
pub fn decide<F: Family>(
    packet: &Packet<F>,
    link: &Link,
    ifindex: u32,
    tables: &mut impl Tables<F>,
) -> Verdict<F> {
    let outcome = match tables.vip(&packet.vip_key()) {
        Some(vip) => match Mode::from_u8(vip.mode) {
            Mode::Local => Err(Verdict::Pass(PassReason::LocalVip)),
            Mode::Dr => direct(packet, vip, tables),
            Mode::Nat => translate(packet, link, ifindex, vip, false, tables),
            Mode::Snat => translate(packet, link, ifindex, vip, true, tables),
        },
        None => reply(packet, link, ifindex, tables),
    };
    match outcome {
        Ok(forward) => Verdict::Forward(forward),
        Err(verdict) => verdict,
    }
}

type Outcome<F> = Result<Forward<F>, Verdict<F>>;

/// `dr`: the ring says which server; only the link layer changes.
#[inline(always)]
fn direct<F: Family>(packet: &Packet<F>, vip: Vip, tables: &impl Tables<F>) -> Outcome<F> {
    let (reference, server) = choose(packet, vip, tables)?;
    let hop = hop_to::<F>(&server, true, tables)?;
    let new = packet.opens() && packet.flags != 0;
    Ok(Forward { hop, translation: None, vip: vip.id, server: reference.index(), half: Half::Client, new })
}

/// `nat` and `snat`, from the client.
#[inline(always)]
fn translate<F: Family>(
    packet: &Packet<F>,
    link: &Link,
    ifindex: u32,
    vip: Vip,
    source_too: bool,
    tables: &mut impl Tables<F>,
) -> Outcome<F> {
    if packet.ttl <= 1 {
        return Err(Verdict::Drop(DropReason::TtlExceeded));
    }
    let key = packet.flow_key();
    let known = tables.flow(&key).and_then(|flow| usable(packet, flow, tables).map(|server| (flow, server)));
    let (flow, server, new) = match known {
        Some((flow, server)) => {
            let here = Flow { client_mac: link.from, client_ifindex: ifindex, ..flow };
            keep(packet, &key, here, tables)?;
            (flow, server, false)
        }
        None if packet.opens() => {
            let (reference, server) = choose(packet, vip, tables)?;
            let flow = open(packet, &key, link, ifindex, reference, &server, source_too, tables)?;
            (flow, server, true)
        }
        None => return Err(Verdict::Pass(PassReason::NoFlow)),
    };
    Ok(Forward {
        hop: hop_to::<F>(&server, false, tables)?,
        translation: Some(translation(&flow)),
        vip: vip.id,
        server: flow.server.index(),
        half: Half::Client,
        new,
    })
}

/// Not to a VIP: perhaps a server's answer in a translated flow.
#[inline(always)]
fn reply<F: Family>(
    packet: &Packet<F>,
    link: &Link,
    ifindex: u32,
    tables: &mut impl Tables<F>,
) -> Outcome<F> {
    let not_vip = Verdict::Pass(PassReason::NotVip);
    if !tables.settings().may_be_reply(packet.dport) {
        return Err(not_vip);
    }
    let key = packet.flow_key();
    let Some(flow) = tables.flow(&key).filter(|flow| flow.half() == Half::Server) else {
        return Err(not_vip);
    };
    if packet.ttl <= 1 {
        return Err(Verdict::Drop(DropReason::TtlExceeded));
    }
    // Back the way the client came: its router's MAC, its interface. On that same interface the frame was
    // addressed to the very MAC it must now come from.
    let from =
        if flow.client_ifindex == ifindex { Some(link.to) } else { tables.interface(flow.client_ifindex) };
    let from = from.ok_or(Verdict::Drop(DropReason::NoNextHop))?;
    let index = flow.server.index();
    // The VIP is only needed for its counters; a flow whose server is gone counts for VIP 0.
    let vip = tables.server(index).map_or(0, |server| server.vip);
    keep(packet, &key, flow, tables)?;
    Ok(Forward {
        hop: Hop { to: flow.client_mac, from, ifindex: flow.client_ifindex },
        translation: Some(translation(&flow)),
        vip,
        server: index,
        half: Half::Server,
        new: false,
    })
}

/// The server for a new flow.
#[inline(always)]
fn choose<F: Family>(
    packet: &Packet<F>,
    vip: Vip,
    tables: &impl Tables<F>,
) -> Result<(ServerRef, Server), Verdict<F>> {
    let hash = if vip.flags & vip_flags::SOURCE_HASH != 0 {
        hash::source::<F>(packet.src)
    } else {
        hash::flow::<F>(packet.src, packet.dst, packet.sport, packet.dport, packet.protocol)
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
fn usable<F: Family>(packet: &Packet<F>, flow: Flow<F::Addr>, tables: &impl Tables<F>) -> Option<Server> {
    let server = tables.server(flow.server.index())?;
    if flow.half() != Half::Client || server.generation != flow.server.generation() {
        return None;
    }
    let stale = server.flags & server_flags::ACCEPTS_NEW == 0 || conntrack::is_over(flow.state);
    if packet.opens() && stale { None } else { Some(server) }
}

/// Notes a packet of a known flow in both halves, but only if that changes something: a new state, or the
/// first packet of a tick. A half that was evicted is put back from the other.
#[inline(always)]
fn keep<F: Family>(
    packet: &Packet<F>,
    key: &FlowKey<F::Addr>,
    flow: Flow<F::Addr>,
    tables: &mut impl Tables<F>,
) -> Result<(), Verdict<F>> {
    let now = tables.now();
    let state = conntrack::advance(flow.state, flow.half(), packet.flags);
    if state == flow.state && now == flow.seen {
        return Ok(());
    }
    let flow = Flow { state, seen: now, ..flow };
    tables.refresh(key, &flow);
    let twin_key = flow.twin_key(packet.protocol);
    if !tables.refresh(&twin_key, &flow) {
        // Someone else's entry under that key means that the ports are gone: this flow cannot go on.
        let inserted = tables.insert(&twin_key, &flow.twin(key), false);
        inserted.map_err(|_| Verdict::Drop(DropReason::FlowTableFull))?;
    }
    Ok(())
}

/// Starts a translated flow: finds a free 5-tuple towards the server and enters both halves.
///
/// A port is taken by inserting the server's half, which must not exist: no two flows and no two CPUs can
/// get the same one. `nat` tries the client's own port first; only if another flow of the same client to
/// the same server has it does the port change.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "one place, inlined into the kernel program; a struct would be copied"
)]
fn open<F: Family>(
    packet: &Packet<F>,
    key: &FlowKey<F::Addr>,
    link: &Link,
    ifindex: u32,
    reference: ServerRef,
    server: &Server,
    source_too: bool,
    tables: &mut impl Tables<F>,
) -> Result<Flow<F::Addr>, Verdict<F>> {
    let settings = tables.settings();
    let hash = hash::flow::<F>(packet.src, packet.dst, packet.sport, packet.dport, packet.protocol);
    let src = if source_too { F::from_words(server.snat_source) } else { packet.src };
    let mut flow = Flow {
        src,
        dst: F::from_words(server.address),
        sport: packet.sport,
        dport: if server.port == 0 { packet.dport } else { server.port },
        server: reference,
        seen: tables.now(),
        client_ifindex: ifindex,
        client_mac: link.from,
        state: conntrack::advance(0, Half::Client, packet.flags),
        half: 0,
    };
    for attempt in 0..PORT_ATTEMPTS {
        if source_too || attempt > 0 {
            if settings.snat_count == 0 {
                break;
            }
            let step = hash::scale(hash, settings.snat_count as u32) + attempt as u32;
            flow.sport = settings.snat_first.wrapping_add((step % settings.snat_count as u32) as u16);
        }
        let twin_key = flow.twin_key(packet.protocol);
        // A reply to this port would be taken for a client of that VIP.
        let is_vip =
            VipKey { address: twin_key.dst, port: twin_key.dport, protocol: packet.protocol, pad: 0 };
        if source_too && tables.vip(&is_vip).is_some() {
            continue;
        }
        let twin = flow.twin(key);
        match tables.insert(&twin_key, &twin, false) {
            Ok(()) => {}
            Err(Refusal::Full) => return Err(Verdict::Drop(DropReason::FlowTableFull)),
            Err(Refusal::Exists) => {
                // Our own previous life under the same 5-tuple may be written over; nobody else's.
                let own = tables.flow(&twin_key).is_some_and(|other| other.twin_key(packet.protocol) == *key);
                if !own || tables.insert(&twin_key, &twin, true).is_err() {
                    continue;
                }
            }
        }
        return match tables.insert(key, &flow, true) {
            Ok(()) => Ok(flow),
            Err(_) => Err(Verdict::Drop(DropReason::FlowTableFull)),
        };
    }
    Err(Verdict::Drop(DropReason::PortsExhausted))
}

/// The way to a server: resolved by user space, else as the host's routing table says.
#[inline(always)]
fn hop_to<F: Family>(server: &Server, direct: bool, tables: &impl Tables<F>) -> Result<Hop, Verdict<F>> {
    if server.flags & server_flags::HOP_KNOWN != 0 {
        return Ok(Hop { to: server.next_hop, from: server.source_mac, ifindex: server.ifindex });
    }
    tables.route(server, direct).ok_or(Verdict::Drop(DropReason::NoNextHop))
}

#[inline(always)]
fn translation<F: Family>(flow: &Flow<F::Addr>) -> Translation<F> {
    Translation { src: flow.src, dst: flow.dst, sport: flow.sport, dport: flow.dport }
}
