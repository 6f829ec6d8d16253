//! Everything that can be done to the bytes of a frame, to frames of any kind, with any figures: nothing may panic, and
//! what is done must be what was wanted.

use lb_common::{
    abi::Half,
    family::{V4, V6},
    host::HostFamily,
    parse::{self, Kind},
    pipeline::{Tunnel, Work},
    rewrite,
    verdict::{Change, Event, Forward, Reply},
    wire::ethernet,
};

use crate::{dice::Dice, golden, inspect};

/// What can be done to a packet that goes on.
const CHANGES: [Change; 5] = [
    Change::Link,
    Change::Translate,
    Change::TranslateAddresses,
    Change::Encapsulate,
    Change::TranslateQuote,
];

/// How it can be answered.
const REPLIES: [Reply; 4] = [Reply::TooBig, Reply::Reset, Reply::Unreachable, Reply::Echo];

/// A golden frame with some changes, or any bytes.
#[must_use]
pub fn some_frame(dice: &mut Dice<'_>, golden: &[Vec<u8>]) -> Vec<u8> {
    if golden.is_empty() || dice.chance(32) {
        return dice.bytes(256);
    }
    let mut frame = golden[dice.below(golden.len().min(65_536))].clone();
    for _ in 0..dice.below(4) {
        // Headers are at the beginning, so that is where changes go.
        let at = dice.below(96);
        match dice.byte() {
            0 => frame.truncate(at),
            change => frame.get_mut(at).into_iter().for_each(|byte| *byte ^= change),
        }
    }
    frame
}

/// The golden frames.
#[must_use]
pub fn golden_frames() -> Vec<Vec<u8>> {
    golden::cases().into_iter().flat_map(|case| case.steps).map(|step| step.bytes).collect()
}

/// Does everything to a frame that the choices make.
///
/// # Panics
/// If something comes out that should not.
pub fn hold(choices: &[u8], golden: &[Vec<u8>]) {
    let mut dice = Dice::new(choices);
    let frame = some_frame(&mut dice, golden);
    match parse::ethernet(&frame[..]) {
        Ok(link) if link.ethertype == ethernet::IPV4 => all::<V4>(&mut dice, &frame, link),
        Ok(link) if link.ethertype == ethernet::IPV6 => all::<V6>(&mut dice, &frame, link),
        _ => {}
    }
}

fn all<F: HostFamily>(dice: &mut Dice<'_>, frame: &[u8], link: parse::Link) {
    let Ok(packet) = F::parse::<true, _>(frame, link.l3) else { return };
    let mut work = Work::<F>::new(link, packet, 1);
    let address = |dice: &mut Dice<'_>| {
        core::array::from_fn(|_| u32::from_le_bytes([dice.byte(), dice.byte(), dice.byte(), dice.byte()]))
    };
    for address_of in
        [&mut work.flow.client, &mut work.flow.vip, &mut work.flow.source, &mut work.flow.server]
    {
        *address_of = F::from_words(address(dice));
    }
    (work.flow.client_port, work.flow.server_port) = (dice.word(), dice.word());
    (work.flow.vip_port, work.flow.source_port) = (dice.word(), dice.word());
    work.tunnel = Tunnel {
        source: address(dice),
        server: address(dice),
        mtu: dice.word(),
        port: dice.pick(&[0, 6080]),
        ipv6: dice.chance(128),
        entropy: dice.word(),
    };
    for change in CHANGES {
        forward(dice, frame, &mut work, change);
    }
    for reply in REPLIES {
        work.reply = reply;
        answer(frame, &work);
    }
    lower(dice, frame, &work);
}

fn forward<F: HostFamily>(dice: &mut Dice<'_>, frame: &[u8], work: &mut Work<F>, change: Change) {
    let translates =
        matches!(change, Change::Translate | Change::TranslateAddresses | Change::TranslateQuote);
    match (change, work.packet.kind()) {
        // What the decision would not ask for.
        (Change::Translate, Kind::LaterFragment | Kind::Icmp) => return,
        (Change::TranslateAddresses, kind) if kind != Kind::LaterFragment => return,
        (Change::TranslateQuote, kind) if kind != Kind::Icmp => return,
        (Change::Encapsulate, _) if work.packet.length > 65_000 => return,
        _ => {}
    }
    if change == Change::TranslateQuote {
        let Some(quoted) = F::quoted(frame, work.packet.l4()) else { return };
        work.quoted = quoted;
    }
    if translates && work.packet.ttl < 2 {
        return;
    }
    let half = dice.pick(&[Half::Client, Half::Server]);
    let wanted = Forward { change, server: Default::default(), half, new: false };
    let mut after = frame.to_vec();
    let done = rewrite::apply_rare(&mut after, work, &wanted);
    assert!(done.is_some(), "{change:?} of {frame:02x?}");
    if change != Change::Encapsulate {
        assert_eq!(after.len(), frame.len());
        let (before, net) =
            (inspect::network(frame).expect("a packet"), inspect::network(&after).expect("still one"));
        assert_eq!((net.l4, net.end, net.piece), (before.l4, before.end, before.piece), "{change:?}");
        let sums = [frame, &after].map(|frame| inspect::header_sum(frame, before.l3));
        assert_eq!(sums[0], sums[1], "{change:?}: the header's checksum is as right as it was");
    }
}

fn answer<F: HostFamily>(frame: &[u8], work: &Work<F>) {
    // What the decision would not ask for: a reset of what is not TCP, an echo of what is no message.
    let (kind, is_tcp) = (work.packet.kind(), work.packet.key.protocol == 6);
    match work.reply {
        Reply::Reset if !is_tcp || kind == Kind::LaterFragment => return,
        Reply::Echo if kind != Kind::Icmp || frame.len() < work.packet.l4() + 4 => return,
        _ if (frame.len() as u64) < work.packet.frame_length() => return,
        _ => {}
    }
    let mut after = frame.to_vec();
    let Some(event) = rewrite::answer(&mut after, work) else { return };
    let (before, net) =
        (inspect::network(frame).expect("a packet"), inspect::network(&after).expect("an answer"));
    assert_eq!((net.src, net.dst, net.to, net.from), (before.dst, before.src, before.from, before.to));
    match event {
        Event::TooBigSent | Event::UnreachableSent => {
            assert_eq!(net.end, after.len());
            let Some(inspect::What::Message(message)) = inspect::what(&after) else { panic!("{event:?}") };
            assert_eq!((inspect::header_sum(&after, net.l3), inspect::message_sum(&after, &message)), (0, 0));
            assert_eq!(after[net.l4 + 8..], frame[before.l3..before.l4 + 8]);
        }
        Event::ResetSent => {
            assert_eq!((net.end, net.l4), (after.len(), after.len() - 20));
            let seen = inspect::read(&after).expect("a segment");
            assert_eq!(inspect::sums(&after, &seen).transport, Some(0));
        }
        _ => assert_eq!(after.len(), frame.len()),
    }
}

fn lower<F: HostFamily>(dice: &mut Dice<'_>, frame: &[u8], work: &Work<F>) {
    let Some(inspect::What::Whole(seen)) = inspect::what(frame) else { return };
    if seen.protocol != 6 {
        return;
    }
    let mut after = frame.to_vec();
    rewrite::clamp(&mut after, &work.packet, dice.word()).expect("its header is there");
    let again = inspect::read(&after).expect("still a segment");
    assert_eq!(again, seen);
    assert_eq!(inspect::sums(frame, &seen), inspect::sums(&after, &seen), "{frame:02x?}");
}
