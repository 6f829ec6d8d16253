//! What would become of a packet, and why: the very decision of the kernel program, on a packet that does not exist, over
//! tables that it does not change.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    abi::{Mac, Mode, Selection, TraceRecord, protocol, server_flags, vip_flags},
    family::{V4, V6},
    host,
    parse::Link,
    pipeline::{Work, facts},
    trace::{self, End},
    verdict::{Change, DropReason, PassReason, Verdict},
    wire::tcp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Blind, Eyes, Insight, Sighting,
    offline::{Offline, OfflineFamily},
};
use crate::datapath::flows::{FlowTables, tick};

/// A packet that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it is sent to.
    pub destination: SocketAddr,
    /// TCP, and not UDP.
    pub tcp: bool,
    /// TCP: of a connection that is open, and not the SYN that begins one.
    pub established: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// What would be seen of the packet.
    pub result: Sighting,
    /// How that comes about, in order.
    pub steps: Vec<Step>,
}

/// One thing that is found out on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// `vip`, `flow`, `slot`, `server`, `change`, `way` or `verdict`.
    pub what: String,
    /// In words.
    pub text: String,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.tcp, self.established) {
            (false, _) => "UDP datagram",
            (true, false) => "TCP SYN",
            (true, true) => "TCP segment of an open connection",
        };
        write!(f, "{what} from {} to {}", self.source, self.destination)
    }
}

impl Eyes {
    /// What would become of a packet now.
    ///
    /// # Errors
    /// When there can be no such packet.
    pub async fn why(&self, question: Question) -> Result<Why, Blind> {
        let insight = self.insight().await?;
        answer(question, &insight, &self.flows, tick())
    }
}

/// What would become of a packet at the tick `now`.
fn answer(question: Question, insight: &Insight, flows: &FlowTables, now: u32) -> Result<Why, Blind> {
    let (source, destination) = (question.source.ip(), question.destination.ip());
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(Blind::Wrong(format!(
            "no packet goes from {source} to {destination}: one is IPv4, the other IPv6"
        )));
    }
    if question.source.port() == 0 || question.destination.port() == 0 {
        return Err(Blind::Wrong("port 0 is no port; ports are 1 to 65535".into()));
    }
    if source.is_ipv4() {
        of_family::<V4>(question, insight, flows, now)
    } else {
        of_family::<V6>(question, insight, flows, now)
    }
}

fn of_family<F: OfflineFamily>(
    question: Question,
    insight: &Insight,
    flows: &FlowTables,
    now: u32,
) -> Result<Why, Blind> {
    let tables = Offline::<F>::new(&insight.written, flows, now);
    // By whichever interface it comes, it is decided alike.
    let ifindex = insight.attached.first().copied().unwrap_or(0);
    let own = insight.written.interfaces.values().find(|interface| interface.ifindex == ifindex);
    let link =
        Link { to: own.map_or(Mac::NONE, |own| own.mac), from: Mac::NONE, ethertype: F::ETHERTYPE, l3: 14 };
    let mut frame = frame(question);
    let packet = F::parse::<false, _>(&frame, link.l3);
    let packet = packet.map_err(|_| Blind::Internal("the packet that was made up cannot be read".into()))?;
    let mut work = Work::<F>::new(link, packet, ifindex);
    let verdict = host::settle(&mut frame, &mut work, &tables);
    let mut record =
        TraceRecord { ifindex, left_length: packet.frame_length() as u32, ..TraceRecord::default() };
    let end = End::of(&verdict).unwrap_or(End::here(0, PassReason::NoStage.index()));
    trace::describe(&mut record, &end, &work);
    let result = Sighting::new(&record, 0, &insight.names, false);
    let told = Told { question, insight, work: &work, verdict, result: &result };
    let steps = told.steps().into_iter().map(|(what, text)| Step { what: what.into(), text }).collect();
    Ok(Why { result, steps })
}

/// A frame with the packet that is asked about; checksums are nothing that the decision looks at.
fn frame(question: Question) -> Vec<u8> {
    let transport = if question.tcp { 20 } else { 8 };
    let number = if question.tcp { protocol::TCP } else { protocol::UDP };
    let mut frame = vec![0; 14];
    match (question.source.ip(), question.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x45, 0, 0, 20 + transport, 0, 0, 0, 0, 64, number, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (source, destination) => {
            let octets = |address| match address {
                IpAddr::V6(address) => address.octets(),
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            };
            frame.extend([0x60, 0, 0, 0, 0, transport, number, 64]);
            frame.extend(octets(source));
            frame.extend(octets(destination));
        }
    }
    frame.extend(question.source.port().to_be_bytes());
    frame.extend(question.destination.port().to_be_bytes());
    if question.tcp {
        let flags = if question.established { tcp::ACK } else { tcp::SYN };
        frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        frame.extend([0, transport, 0, 0]);
    }
    frame
}

/// A decision that is to be told.
struct Told<'a, F: OfflineFamily> {
    question: Question,
    insight: &'a Insight,
    work: &'a Work<F>,
    verdict: Verdict,
    result: &'a Sighting,
}

impl<F: OfflineFamily> Told<'_, F> {
    fn steps(&self) -> Vec<(&'static str, String)> {
        let mut steps = vec![("vip", self.vip())];
        steps.extend(self.slot().map(|text| ("slot", text)));
        steps.extend(self.flow().map(|text| ("flow", text)));
        steps.extend(self.server().map(|text| ("server", text)));
        if let Verdict::Forward(forward) = self.verdict {
            steps.push(("change", self.change(forward.change)));
            steps.push(("way", self.way()));
        }
        steps.push(("verdict", self.end()));
        steps
    }

    fn has(&self, fact: u32) -> bool {
        self.work.facts.flags & fact != 0
    }

    /// Whether the packet is addressed to a VIP.
    fn to_vip(&self) -> bool {
        self.work.facts.vip != 0 && !self.has(facts::REPLY)
    }

    fn vip(&self) -> String {
        let target = self.question.destination;
        let protocol = if self.question.tcp { "TCP" } else { "UDP" };
        if self.has(facts::REPLY) {
            let vip = self.insight.names.vip(self.work.facts.vip);
            return format!(
                "no VIP has {target} with {protocol}, but a translated flow of VIP {vip} is answered there"
            );
        }
        if !self.to_vip() {
            return format!("no VIP has {target} with {protocol}, and no translated flow is answered there");
        }
        let vip = self.work.vip;
        let mode = match Mode::from_u8(vip.mode) {
            Mode::Local => "which l7-proxy serves",
            Mode::Dr => "mode dr",
            Mode::Nat => "mode nat",
            Mode::Snat => "mode snat",
            Mode::Ipip => "mode ipip",
            Mode::Gue => "mode gue",
        };
        let selection = match Selection::from_u8(vip.selection) {
            _ if vip.flags & vip_flags::BY_SOURCE != 0 => "servers chosen by the client's address",
            Selection::Ring => "servers chosen by the flow's hash",
            Selection::RoundRobin => "servers chosen in turns, which cannot be foretold: this is one of them",
            Selection::LeastConnections => "servers chosen by hash and connections",
        };
        format!("{target} with {protocol} is VIP {}, {mode}, {selection}", self.insight.names.vip(vip.id))
    }

    fn slot(&self) -> Option<String> {
        let slot = self.result.slot.as_ref()?;
        let state = if slot.tagged {
            "tagged: it has changed or will, and its flows may be with other servers"
        } else {
            "settled: all its flows are with its server"
        };
        let server = slot.server.as_deref().unwrap_or("nobody");
        let hash = self.work.facts.hash;
        Some(format!("hash {hash:08x} falls into slot {} of {server}, {state}", slot.number))
    }

    fn flow(&self) -> Option<String> {
        let translates = Mode::from_u8(self.work.vip.mode).translates();
        let number = self.work.number;
        if self.has(facts::IN_TABLE) && !self.has(facts::ENTERED) {
            return Some(format!("the flow tables know the flow (record {number}): it stays where it is"));
        }
        if self.has(facts::ENTERED) && self.has(facts::IN_TABLE) {
            return Some("the flow tables do not know the flow: it would begin with this packet".into());
        }
        if self.has(facts::ASKED) {
            return Some(if self.has(facts::KNOWN) {
                "the flow tags know the flow, or the client: it stays where it is".into()
            } else if self.has(facts::ENTERED) {
                "the flow tags do not know the flow, and would note it".into()
            } else {
                "the flow tags do not know the flow".into()
            });
        }
        let direct = self.to_vip() && !translates && self.result.slot.is_some();
        if direct {
            return Some("the flow tags need not be asked".into());
        }
        let unknown = matches!(self.verdict, Verdict::Pass(PassReason::NoFlow));
        unknown.then(|| "the flow tables do not know the flow, and only a SYN begins one".into())
    }

    fn server(&self) -> Option<String> {
        let index = self.work.facts.server;
        let of_slot = self.work.facts.slot.server().index();
        let Some(name) = self.result.server.as_ref() else {
            // Whose turn it would have been.
            return (of_slot != 0).then(|| {
                format!("{} would be asked first; {}", self.describe(of_slot), self.takes(of_slot))
            });
        };
        let mut text = format!("{name}: {}", self.describe(index));
        if of_slot != 0 && of_slot != index {
            let why =
                if self.has(facts::KNOWN) { "where the flow is not".to_owned() } else { self.takes(of_slot) };
            text += &format!("; the slot's own is {}, {why}", self.insight.names.server_name(of_slot));
        }
        Some(text)
    }

    fn describe(&self, index: u16) -> String {
        let Some(server) = self.insight.names.server(index) else {
            return format!("server #{index}, which is no longer configured");
        };
        let weight = self.insight.written.servers.get(&index).map_or(0, |entry| entry.weight);
        let address = server.address.map_or_else(|| "no address".into(), |address| address.to_string());
        format!("{address}, {} ({}), weight {weight}", server.health, server.reason)
    }

    fn takes(&self, index: u16) -> String {
        let flags = self.insight.written.servers.get(&index).map_or(0, |entry| entry.flags);
        if flags & server_flags::HALTED != 0 {
            "which is halted"
        } else if flags & server_flags::ACCEPTS_NEW == 0 {
            "which takes no new flows"
        } else {
            "which takes new flows"
        }
        .into()
    }

    fn change(&self, change: Change) -> String {
        let leaves = self.result.leaves.map(|ends| {
            let end = |address, port| match port {
                0 => format!("{address}"),
                port => SocketAddr::new(address, port).to_string(),
            };
            format!(
                "{} > {}",
                end(ends.source, ends.source_port),
                end(ends.destination, ends.destination_port)
            )
        });
        let leaves = leaves.unwrap_or_default();
        match change {
            Change::Link => "nothing but the MAC addresses is changed".into(),
            Change::Encapsulate => format!("it is put into a tunnel, {leaves}"),
            Change::Translate | Change::TranslateAddresses | Change::TranslateQuote => {
                format!("it is translated and leaves as {leaves}")
            }
        }
    }

    fn way(&self) -> String {
        let hop = &self.work.hop;
        let mac: Vec<_> = hop.to.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("to {} by {}", mac.join(":"), self.insight.names.interface(hop.ifindex))
    }

    fn end(&self) -> String {
        match self.verdict {
            Verdict::Forward(_) => "forward".into(),
            Verdict::Pass(reason) => format!("pass, {}: the host gets it as it came", reason.label()),
            Verdict::Drop(DropReason::NoNextHop) => format!(
                "drop, {}: the way is not known, unless the host's routing table helps",
                DropReason::NoNextHop.label()
            ),
            Verdict::Drop(reason) => format!("drop, {}", reason.label()),
            Verdict::Answer(event) => format!("answer, {}", event.label()),
            Verdict::Later(stage) => format!("left to {stage:?}, which decides nothing here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::parse::{Kind, Parse as _};

    use super::*;

    #[test]
    fn the_packet_is_the_one_that_was_asked_about() {
        for (source, destination) in
            [("10.0.0.9:40000", "192.0.2.1:80"), ("[2001:db8::9]:40000", "[2001:db8::1]:80")]
        {
            let (source, destination): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            for (tcp, established, flags) in
                [(true, false, tcp::SYN), (true, true, tcp::ACK), (false, false, 0)]
            {
                let frame = frame(Question { source, destination, tcp, established });
                let (kind, flags_read, sport, dport, length) = if source.is_ipv4() {
                    let packet = V4::parse::<false, _>(&frame, 14).unwrap();
                    (packet.kind(), packet.flags, packet.key.sport, packet.key.dport, packet.frame_length())
                } else {
                    let packet = V6::parse::<false, _>(&frame, 14).unwrap();
                    (packet.kind(), packet.flags, packet.key.sport, packet.key.dport, packet.frame_length())
                };
                assert_eq!((kind, flags_read), (Kind::Whole, flags));
                assert_eq!((sport, dport, length), (40_000, 80, frame.len() as u64));
            }
        }
    }
}
