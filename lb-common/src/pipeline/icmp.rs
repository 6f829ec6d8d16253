//! ICMP: echo requests to VIPs are answered; errors go to whom the packet they quote is about.
//!
//! An error quotes a packet that was sent to whom it now comes back: by the VIP to a client, if something went
//! wrong on the way to the client, or by the balancer to a server. Read backwards, the quoted 5-tuple is that of
//! the client's packets, or of the server's. As little as 8 bytes behind the quoted IP header are enough
//! (RFC 792).

use super::{Tables, Work, choose, direct, facts, flows, hop_to, is_for_us, translate, vip};
use crate::{
    abi::{FlowKey, Half, Mode, Vip, VipKey},
    family::Family,
    parse::Quote,
    verdict::{Change, DropReason, Forward, PassReason, Reply, Stage, Verdict},
    wire::Frame,
};

/// Decides about an ICMP or ICMPv6 message.
#[inline(always)]
pub fn icmp<F: Quote, B: Frame + ?Sized>(work: &mut Work<F>, frame: &B, tables: &impl Tables<F>) -> Verdict {
    // Type, code, checksum: what an answer changes must be there.
    let Some([kind, _, _, _]) = frame.read(work.packet.l4()) else {
        return Verdict::Pass(PassReason::Malformed);
    };
    if F::is_echo(kind) {
        return echo(work, tables);
    }
    if !F::is_error(kind) {
        return Verdict::Pass(PassReason::NotTcpUdp);
    }
    match F::quoted(frame, work.packet.l4()) {
        Some(quoted) => {
            work.quoted = quoted;
            error(work, tables).map_or_else(|stop| stop, Verdict::Forward)
        }
        None => Verdict::Pass(PassReason::NotTcpUdp),
    }
}

#[inline(always)]
fn echo<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Verdict {
    let address = VipKey { address: work.packet.key.dst, port: 0, protocol: F::ICMP as u16 };
    if tables.vip(&address).is_none() {
        return Verdict::Pass(PassReason::NotVip);
    }
    if !is_for_us(work, tables) {
        return Verdict::Pass(PassReason::OtherHost);
    }
    work.reply = Reply::Echo;
    Verdict::Later(Stage::Answer)
}

#[inline(always)]
fn error<F: Family>(work: &mut Work<F>, tables: &impl Tables<F>) -> Result<Forward, Verdict> {
    let key = work.quoted.key.reversed();
    let as_vip = VipKey { address: key.dst, port: key.dport, protocol: key.protocol as u16 };
    let found = vip(&as_vip, tables);
    // A server's flow is only looked for where there may be one; most errors are the host's own.
    if found.is_none() && !tables.settings().may_be_reply(key.dport) {
        return Err(Verdict::Pass(PassReason::NotVip));
    }
    if !is_for_us(work, tables) {
        return Err(Verdict::Pass(PassReason::OtherHost));
    }
    match found {
        Some(vip) => about_answer(work, vip, &key, tables),
        None => about_request(work, &key, tables),
    }
}

/// The quoted packet was an answer to a client: its server is to know.
#[inline(always)]
fn about_answer<F: Family>(
    work: &mut Work<F>,
    vip: Vip,
    key: &FlowKey<F::Addr>,
    tables: &impl Tables<F>,
) -> Result<Forward, Verdict> {
    work.vip = vip;
    work.facts.vip = vip.id;
    let mode = Mode::from_u8(vip.mode);
    if mode == Mode::Local {
        return Err(Verdict::Pass(PassReason::LocalVip));
    }
    if !mode.translates() {
        // Treated as if it were the client's next packet, which is where it has to go.
        work.packet.key = *key;
        return direct::to_server(work, vip, mode, tables);
    }
    if !flows::find(work, key, tables) {
        return Err(Verdict::Pass(PassReason::NoFlow));
    }
    let server = choose::entry(work.flow.server_ref, tables).ok_or(Verdict::Drop(DropReason::NoServer))?;
    has_a_hop_left(work)?;
    translate::note(work, 0);
    hop_to(work, work.flow.server_ref, &server, false, tables)?;
    let server = work.flow.server_ref;
    Ok(Forward { change: Change::TranslateQuote, server, half: Half::Client, new: false })
}

/// Asked only when it is sure that the message is not the host's own.
#[inline(always)]
fn has_a_hop_left<F: Family>(work: &Work<F>) -> Result<(), Verdict> {
    if work.packet.ttl <= 1 { Err(Verdict::Drop(DropReason::TtlExceeded)) } else { Ok(()) }
}

/// The quoted packet was on its way to a server: its client is to know.
#[inline(always)]
fn about_request<F: Family>(
    work: &mut Work<F>,
    key: &FlowKey<F::Addr>,
    tables: &impl Tables<F>,
) -> Result<Forward, Verdict> {
    if !flows::find_reply(work, key, tables) {
        return Err(Verdict::Pass(PassReason::NotVip));
    }
    has_a_hop_left(work)?;
    translate::note(work, facts::REPLY);
    translate::to_client(work, tables)?;
    Ok(Forward {
        change: Change::TranslateQuote,
        server: work.flow.server_ref,
        half: Half::Server,
        new: false,
    })
}
