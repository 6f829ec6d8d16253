//! QUIC: a connection ID may name the server, whatever address its client has by now
//! (draft-ietf-quic-load-balancers, §4.2).

use super::{Tables, Work, choose, decide};
use crate::{
    abi::{QuicLbKey, ServerRef, server_flags},
    family::Family,
    quic::{cid, lb},
    verdict::Verdict,
    wire::{Frame, be16, udp},
};

/// Decides about a datagram to a VIP whose servers have given themselves names. If it names none of them, it is
/// decided like any other.
#[inline(always)]
pub fn quic<F: Family, B: Frame + ?Sized>(work: &mut Work<F>, frame: &B, tables: &impl Tables<F>) -> Verdict {
    work.prepared = true;
    // A translated flow that is known stays where it is, whatever its packets say; a new one will begin there.
    work.named = named(work, frame, tables).unwrap_or(ServerRef::NONE);
    decide(work, tables)
}

/// The server that the connection ID names, if it is one that may have flows.
#[inline(always)]
fn named<F: Family, B: Frame + ?Sized>(
    work: &Work<F>,
    frame: &B,
    tables: &impl Tables<F>,
) -> Option<ServerRef> {
    let l4 = work.packet.l4();
    let header: [u8; udp::HEADER] = frame.read(l4)?;
    let length = (be16(&header, 4) as usize).checked_sub(udp::HEADER)?;
    let dcid = cid::locate(frame, l4 + udp::HEADER, length)?;
    let encoding = tables.quic(&QuicLbKey { vip: work.vip.id, rotation: dcid.rotation() as u16 })?;
    let id = lb::decode(frame, &dcid, encoding)?;
    let reference = tables.quic_server(work.vip.id, id)?;
    let server = choose::entry(reference, tables)?;
    if server.flags & server_flags::KEEPS_FLOWS != 0 { Some(reference) } else { None }
}
