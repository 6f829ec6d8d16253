//! The tables in ordinary memory: for tests, fuzzing, and questions about where a flow would go.

use std::{boxed::Box, cell::Cell, collections::HashMap, vec, vec::Vec};

use crate::{
    abi::{
        Claim, Flood, Flow, FlowKey, FlowTag, Fragment, FragmentKey, Half, Line as Entries, Mac, QuicLb,
        QuicLbKey, QuicServerKey, RING_SIZE, Server, ServerRef, Settings, Slot, Vip, VipKey, VipLimit, WAYS,
    },
    family::{Family, V4, V6},
    hash,
    parse::{self, Kind, Parse, Quote, Unread},
    pipeline::{Line, Tables, Touched, Work, decide, direct, fragment, icmp, open, quic},
    rewrite::{self, Answer},
    verdict::{DropReason, Event, Forward, Hop, PassReason, Reply, Stage, Verdict},
    wire::ethernet,
};

/// Everything the kernel program reads, for both families. Fill the fields; absent entries are absent maps'.
#[derive(Clone, Debug)]
pub struct HostTables {
    /// The present tick.
    pub now: u32,
    /// The settings record.
    pub settings: Settings,
    /// VIP id → ring; as long as the kernel's, or any shorter.
    pub rings: HashMap<u16, Vec<u32>>,
    /// Server index → server.
    pub servers: HashMap<u16, Server>,
    /// Server index → connections alive.
    pub loads: HashMap<u16, Cell<u32>>,
    /// VIP id → its limit on new flows.
    pub limits: HashMap<u16, Cell<VipLimit>>,
    /// Interface index → MAC.
    pub interfaces: HashMap<u32, Mac>,
    /// Server address → way there, as the host's routing table would say; `true` for a way over a router. Not
    /// asked, as in the kernel, about servers without an interface.
    pub routes: HashMap<[u32; 4], (Hop, bool)>,
    /// Lines of the flow tags: a power of two.
    pub tags: Lines,
    /// How connection IDs of QUIC are to be read.
    pub quic: HashMap<QuicLbKey, QuicLb>,
    /// The servers that they name.
    pub quic_servers: HashMap<QuicServerKey, ServerRef>,
    /// What this CPU knows of a flood.
    pub flood: Cell<Flood>,
    /// What happened beside the verdicts, by [`Event::index`] less the first one's.
    pub events: [Cell<u64>; Event::ALL.len()],
    /// IPv4's own tables.
    pub v4: FamilyTables<V4>,
    /// IPv6's own tables.
    pub v6: FamilyTables<V6>,
}

/// Lines of eight entries.
pub type Lines = Box<[[Cell<u64>; WAYS]]>;

/// Empty lines.
#[must_use]
pub fn lines(count: usize) -> Lines {
    (0..count).map(|_| [const { Cell::new(0) }; WAYS]).collect()
}

/// The tables of one family.
#[derive(Clone, Debug)]
pub struct FamilyTables<F: Family> {
    /// VIPs.
    pub vips: HashMap<VipKey<F::Addr>, Vip>,
    /// Lines of claims: a power of two, and what `Settings` says it is.
    pub claims: Lines,
    /// The records, eight for each line of claims.
    pub flows: Box<[Cell<Flow<F::Addr>>]>,
    /// Lines of the replies' index, two for each line of claims.
    pub replies: Lines,
    /// Datagrams in pieces.
    pub fragments: std::cell::RefCell<HashMap<FragmentKey<F::Addr>, Fragment>>,
}

impl<F: Family> FamilyTables<F> {
    fn new(line_count: usize) -> Self {
        Self {
            vips: HashMap::new(),
            claims: lines(line_count),
            flows: vec![Cell::new(Flow::default()); line_count * WAYS].into_boxed_slice(),
            replies: lines(2 * line_count),
            fragments: Default::default(),
        }
    }

    /// Every flow that is entered: its number, its claim and its record.
    pub fn entered(&self) -> impl Iterator<Item = (u32, Claim, Flow<F::Addr>)> + '_ {
        let claims = self.claims.iter().flatten().map(|claim| Claim(claim.get()));
        let entered = claims.zip(0..).filter(|(claim, _)| claim.0 != 0);
        entered.map(|(claim, number)| (number, claim, self.flows[number as usize].get()))
    }
}

impl HostTables {
    /// Empty tables, for `flows` flows in each family and `tags` flow tags, both powers of two and at least 16.
    #[must_use]
    pub fn new(flows: usize, tags: usize) -> Self {
        let (flow_lines, tag_lines) = (flows / WAYS, tags / WAYS);
        Self {
            now: 0,
            settings: Settings {
                lines4: flow_lines as u32 - 1,
                lines6: flow_lines as u32 - 1,
                tag_lines: tag_lines as u32 - 1,
                ..Settings::default()
            },
            rings: HashMap::new(),
            servers: HashMap::new(),
            loads: HashMap::new(),
            limits: HashMap::new(),
            interfaces: HashMap::new(),
            routes: HashMap::new(),
            tags: lines(tag_lines),
            quic: HashMap::new(),
            quic_servers: HashMap::new(),
            flood: Cell::default(),
            events: Default::default(),
            v4: FamilyTables::new(flow_lines),
            v6: FamilyTables::new(flow_lines),
        }
    }

    /// The flow that packets with this 5-tuple belong to, and whose packets they are.
    #[must_use]
    pub fn flow<F: HostFamily>(&self, key: &FlowKey<F::Addr>) -> Option<(Half, u32, Flow<F::Addr>)> {
        let mut flows = F::of(self).entered();
        flows.find_map(|(number, _, flow)| {
            if flow.key() == *key {
                Some((Half::Client, number, flow))
            } else if flow.reply_key() == *key {
                Some((Half::Server, number, flow))
            } else {
                None
            }
        })
    }

    /// The flow tags there are.
    pub fn flow_tags(&self) -> impl Iterator<Item = FlowTag> + '_ {
        self.tags.iter().flatten().map(|tag| FlowTag(tag.get())).filter(|tag| tag.0 != 0)
    }

    /// How often an event has happened.
    #[must_use]
    pub fn events(&self, event: Event) -> u64 {
        self.events[event as usize].get()
    }
}

/// A family whose tables are found in [`HostTables`].
pub trait HostFamily: Parse + Quote + Answer {
    /// Its tables.
    fn of(tables: &HostTables) -> &FamilyTables<Self>;
    /// Its tables, to change.
    fn of_mut(tables: &mut HostTables) -> &mut FamilyTables<Self>;
}

impl HostFamily for V4 {
    fn of(tables: &HostTables) -> &FamilyTables<Self> {
        &tables.v4
    }
    fn of_mut(tables: &mut HostTables) -> &mut FamilyTables<Self> {
        &mut tables.v4
    }
}

impl HostFamily for V6 {
    fn of(tables: &HostTables) -> &FamilyTables<Self> {
        &tables.v6
    }
    fn of_mut(tables: &mut HostTables) -> &mut FamilyTables<Self> {
        &mut tables.v6
    }
}

impl Line for &[Cell<u64>; WAYS] {
    fn load(self, way: usize) -> u64 {
        self[way].get()
    }

    fn store(self, way: usize, value: u64) {
        self[way].set(value);
    }

    fn exchange(self, way: usize, old: u64, new: u64) -> bool {
        let same = self[way].get() == old;
        if same {
            self[way].set(new);
        }
        same
    }
}

impl<F: HostFamily> Tables<F> for HostTables {
    type Line<'a> = &'a [Cell<u64>; WAYS];

    fn now(&self) -> u32 {
        self.now
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn claim_mask(&self) -> u32 {
        F::of(self).claims.len() as u32 - 1
    }

    fn vip(&self, key: &VipKey<F::Addr>) -> Option<Vip> {
        F::of(self).vips.get(key).copied()
    }

    fn slot(&self, vip: u16, hash: u32) -> Slot {
        let slot = |ring: &Vec<u32>| Slot(ring[hash::scale(hash, ring.len() as u32) as usize]);
        self.rings.get(&vip).map_or(Slot::default(), slot)
    }

    fn next_slot(&self, vip: u16) -> Slot {
        let (Some(ring), Some(limit)) = (self.rings.get(&vip), self.limits.get(&vip)) else {
            return Slot::default();
        };
        let was = limit.get();
        limit.set(VipLimit { turn: was.turn.wrapping_add(1), ..was });
        Slot(ring[was.turn as usize % RING_SIZE % ring.len()])
    }

    fn admits(&self, vip: u16, now: u32) -> bool {
        let Some(limit) = self.limits.get(&vip) else { return true };
        let was = limit.get();
        let count = if was.tick == now { was.count + 1 } else { 1 };
        limit.set(VipLimit { tick: now, count, ..was });
        count <= was.per_tick
    }

    fn server(&self, index: u16) -> Option<Server> {
        Some(self.servers.get(&index).copied().unwrap_or_default())
    }

    fn load(&self, server: u16) -> u32 {
        self.loads.get(&server).map_or(0, Cell::get)
    }

    fn count_connection(&self, server: u16, begun: bool) {
        if let Some(load) = self.loads.get(&server) {
            load.set(load.get().wrapping_add(if begun { 1 } else { u32::MAX }));
        }
    }

    fn interface(&self, ifindex: u32) -> Mac {
        self.interfaces.get(&ifindex).copied().unwrap_or(Mac::NONE)
    }

    fn route(&self, server: u16, direct: bool, hop: &mut Hop) -> bool {
        let Some(server) = self.servers.get(&server) else { return false };
        let usable = |(_, routed): &&(Hop, bool)| server.ifindex != 0 && !(direct && *routed);
        let found = self.routes.get(&server.address).filter(usable);
        found.map(|(found, _)| *hop = *found).is_some()
    }

    fn tags(&self, line: u32) -> Option<Self::Line<'_>> {
        self.tags.get(line as usize)
    }

    fn claims(&self, line: u32) -> Option<Self::Line<'_>> {
        F::of(self).claims.get(line as usize)
    }

    fn replies(&self, line: u32) -> Option<Self::Line<'_>> {
        F::of(self).replies.get(line as usize)
    }

    fn read_flow(&self, number: u32, flow: &mut Flow<F::Addr>) {
        *flow = F::of(self).flows.get(number as usize).map_or(Flow::default(), Cell::get);
    }

    fn write_flow(&self, number: u32, flow: &Flow<F::Addr>) {
        F::of(self).flows[number as usize].set(*flow);
    }

    fn touch_flow(&self, number: u32, flow: &Flow<F::Addr>, touched: &Touched) {
        let cell = &F::of(self).flows[number as usize];
        let mut record = cell.get();
        record.seen = flow.seen;
        record.state = record.state & !touched.clear | touched.set;
        if touched.answered {
            record.handshake = flow.handshake;
        }
        if touched.moved {
            record.client_mac = flow.client_mac;
            record.client_ifindex = flow.client_ifindex;
        }
        cell.set(record);
    }

    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<Fragment> {
        F::of(self).fragments.borrow().get(key).copied()
    }

    fn note_fragment(&self, key: &FragmentKey<F::Addr>, fragment: &Fragment) {
        F::of(self).fragments.borrow_mut().insert(*key, *fragment);
    }

    fn quic(&self, key: &QuicLbKey) -> Option<&QuicLb> {
        self.quic.get(key)
    }

    fn quic_server(&self, vip: u16, id: u64) -> Option<ServerRef> {
        self.quic_servers.get(&QuicServerKey { id, vip: vip.into() }).copied()
    }

    fn flood(&self) -> Flood {
        self.flood.get()
    }

    fn set_flood(&self, flood: Flood) {
        self.flood.set(flood);
    }

    fn count(&self, event: Event) {
        let counter = &self.events[event as usize];
        counter.set(counter.get() + 1);
    }
}

/// What became of a frame, in terms that do not depend on its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Left to the host.
    Pass(PassReason),
    /// Dropped.
    Drop(DropReason),
    /// Made into its own answer.
    Answer(Event),
    /// Sent on by this interface.
    Forward {
        /// Interface index.
        ifindex: u32,
        /// Server index.
        server: u16,
    },
}

/// Sends one frame through everything the kernel program would do to it, bytes included.
pub fn process(frame: &mut Vec<u8>, ifindex: u32, tables: &HostTables) -> Outcome {
    match parse::ethernet(frame) {
        Ok(link) if link.ethertype == ethernet::IPV4 => process_ip::<V4>(frame, link, ifindex, tables),
        Ok(link) if link.ethertype == ethernet::IPV6 => process_ip::<V6>(frame, link, ifindex, tables),
        Ok(_) => Outcome::Pass(PassReason::NotIp),
        Err(reason) => Outcome::Pass(reason),
    }
}

fn process_ip<F: HostFamily>(
    frame: &mut Vec<u8>,
    link: parse::Link,
    ifindex: u32,
    tables: &HostTables,
) -> Outcome {
    let packet = match F::parse::<true, _>(frame, link.l3) {
        Ok(packet) => packet,
        Err(Unread::Pass(reason)) => return Outcome::Pass(reason),
        Err(Unread::Extensions) => unreachable!("they were walked"),
    };
    let mut work = Work::new(link, packet, ifindex);
    match settle(frame, &mut work, tables) {
        Verdict::Pass(reason) => Outcome::Pass(reason),
        Verdict::Drop(reason) => Outcome::Drop(reason),
        Verdict::Answer(event) => Outcome::Answer(event),
        Verdict::Forward(forward) => forwarded(frame, &work, &forward),
        Verdict::Later(_) => Outcome::Pass(PassReason::NoStage),
    }
}

/// Decides about the packet in `work`, by way of all stages that the decision takes; they may change the frame, but
/// what is decided is not carried out.
pub fn settle<F: Parse + Quote + Answer>(
    frame: &mut Vec<u8>,
    work: &mut Work<F>,
    tables: &impl Tables<F>,
) -> Verdict {
    let mut verdict = decide(work, tables);
    // One stage leads to another, in the kernel by a tail call; never in a circle. The longest way: fragment, mss,
    // fragment, remember, answer.
    for _ in 0..8 {
        let Verdict::Later(stage) = verdict else { break };
        verdict = self::stage(stage, frame, work, tables);
    }
    verdict
}

fn forwarded<F: HostFamily>(frame: &mut Vec<u8>, work: &Work<F>, forward: &Forward) -> Outcome {
    match rewrite::apply_rare(frame, work, forward) {
        Some(()) => Outcome::Forward { ifindex: work.hop.ifindex, server: forward.server.index() },
        None => Outcome::Drop(DropReason::RewriteFailed),
    }
}

fn stage<F: Parse + Quote + Answer>(
    stage: Stage,
    frame: &mut Vec<u8>,
    work: &mut Work<F>,
    tables: &impl Tables<F>,
) -> Verdict {
    match stage {
        Stage::Walk | Stage::Six | Stage::Report => Verdict::Pass(PassReason::NoStage),
        Stage::Quic => quic::quic(work, frame, tables),
        Stage::Open => {
            let verdict = open::open(work, tables);
            fragment::remember(work, &verdict, tables);
            verdict
        }
        Stage::Remember => {
            let verdict = direct::remember(work, tables);
            fragment::remember(work, &verdict, tables);
            verdict
        }
        Stage::Icmp => icmp::icmp(work, frame, tables),
        Stage::Fragment if work.packet.kind() == Kind::FirstFragment => fragment::first(work, tables),
        Stage::Fragment => fragment::later(work, tables),
        Stage::Mss => {
            if rewrite::clamp(frame, &work.packet, work.vip.mss).is_none() {
                return Verdict::Drop(DropReason::RewriteFailed);
            }
            work.prepared = true;
            decide(work, tables)
        }
        // The kernel goes by the headers when it cuts a frame off: one that is shorter than they say cannot be.
        Stage::Answer if work.reply != Reply::Echo && (frame.len() as u64) < work.packet.frame_length() => {
            Verdict::Drop(rewrite::unanswered(work))
        }
        Stage::Answer => match rewrite::answer(frame, work) {
            Some(event) => Verdict::Answer(event),
            None => Verdict::Drop(rewrite::unanswered(work)),
        },
    }
}

/// Entries of lines, for those who compare them.
#[must_use]
pub fn entries(lines: &Lines) -> Vec<Entries> {
    lines.iter().map(|line| std::array::from_fn(|way| line[way].get())).collect()
}
