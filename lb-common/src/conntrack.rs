//! The life of a translated flow: what a packet does to its state, and how long it may be silent.
//!
//! The state is a set of facts, not a number in a sequence: packets arrive out of order, are repeated and
//! forged, and a set of facts has no wrong order. User space sweeps the tables and removes what
//! [`timeout`] says has been silent for too long; the kernel never removes an entry by itself.

use crate::{
    abi::{FlowStage, Half, protocol},
    wire::tcp,
};

/// Length of a tick in nanoseconds, a power of two near one second. Time is counted in ticks since boot.
pub const TICK_NS: u64 = 1 << 30;

/// The server has answered.
pub const REPLIED: u32 = 1;
/// The client has had the answer: with TCP, it has acknowledged it, or the server sends data, which it does to nobody
/// who has not.
pub const CONFIRMED: u32 = 1 << 1;
/// The client has ended its side.
pub const CLIENT_FIN: u32 = 1 << 2;
/// The server has ended its side.
pub const SERVER_FIN: u32 = 1 << 3;
/// The client has reset the connection.
pub const CLIENT_RST: u32 = 1 << 4;
/// The server has reset the connection.
pub const SERVER_RST: u32 = 1 << 5;

/// The tick of a kernel time in nanoseconds since boot.
#[inline(always)]
#[must_use]
pub const fn tick(nanoseconds: u64) -> u32 {
    (nanoseconds / TICK_NS) as u32
}

/// The state after a packet of `half` with these TCP flags (0 for UDP). `proves`: 1 if it shows that the client has had
/// the server's answer, which a sender of forged addresses has not; else 0.
#[inline(always)]
#[must_use]
pub fn advance(state: u32, half: Half, flags: u8, proves: u32) -> u32 {
    let (fin, rst, replied) = match half {
        Half::Client => (CLIENT_FIN, CLIENT_RST, 0),
        Half::Server => (SERVER_FIN, SERVER_RST, REPLIED),
    };
    if flags & tcp::RST != 0 {
        return state | rst;
    }
    let confirmed = (state & REPLIED) * CONFIRMED * proves;
    let spoke = replied | confirmed;
    // Who really reset a connection sends nothing more. If this side does, the reset was not its own.
    let state = state & !rst | spoke;
    if flags & tcp::FIN != 0 { state | fin } else { state }
}

/// Whether nothing more can come of the flow: reset, or ended by both sides.
#[inline(always)]
#[must_use]
pub fn is_over(state: u32) -> bool {
    state & (CLIENT_RST | SERVER_RST) != 0 || state & (CLIENT_FIN | SERVER_FIN) == CLIENT_FIN | SERVER_FIN
}

/// How far the flow has come, as far as the question goes who must make room for others. It is established when its
/// client has had the server's answer: a sender of forged addresses would have to guess a number with TCP, and one
/// who asks only once is none with UDP.
#[inline(always)]
#[must_use]
pub fn stage(state: u32) -> FlowStage {
    if is_over(state) {
        FlowStage::Over
    } else if state & CONFIRMED != 0 {
        FlowStage::Established
    } else {
        FlowStage::Opening
    }
}

/// How many ticks a flow may be silent before it is removed.
///
/// TCP: RFC 5382 REQ-5 asks at least 2 hours 4 minutes for an established connection. One that is still
/// opening is worth no more than the longest gap between two SYNs (RFC 6298: 64 s at the sixth), or half-open
/// ones would hold all ports. One that both sides have ended is kept for as long as a Linux server remembers
/// it (60 s). A reset may be forged, so that of an open connection only shortens its life; that of a refused
/// one has nothing to lose. UDP: RFC 4787 REQ-5 asks at least 2 minutes.
#[must_use]
pub fn timeout(protocol: u8, state: u32) -> u32 {
    if protocol == protocol::UDP {
        return if state & REPLIED != 0 { 180 } else { 120 };
    }
    let reset = state & (CLIENT_RST | SERVER_RST) != 0;
    let confirmed = state & CONFIRMED != 0;
    match (reset, confirmed) {
        (true, false) => 10,
        (true, true) => 240,
        (false, false) => 75,
        (false, true) if is_over(state) => 60,
        (false, true) => 7_440,
    }
}

/// Whether a flow last seen at tick `seen` has been silent for too long. Ticks may wrap around.
#[must_use]
pub fn expired(protocol: u8, state: u32, seen: u32, now: u32) -> bool {
    // A packet that arrives while the sweep runs may be "seen" after `now`: that is not 2^32 ticks ago.
    let silent = now.wrapping_sub(seen) as i32;
    silent > 0 && silent as u32 > timeout(protocol, state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::{ACK, FIN, RST, SYN};

    const C: Half = Half::Client;
    const S: Half = Half::Server;

    /// What these packets make of a flow; of the client's, each that may acknowledges rightly.
    fn life(packets: &[(Half, u8)]) -> u32 {
        let proves = |half, flags| u32::from(half == C && (flags == 0 || flags & SYN == 0));
        packets.iter().fold(0, |state, &(half, flags)| advance(state, half, flags, proves(half, flags)))
    }

    #[test]
    fn only_who_has_had_the_answer_is_established() {
        let answered = life(&[(C, SYN), (S, SYN | ACK)]);
        assert_eq!(stage(advance(answered, C, SYN, 0)), FlowStage::Opening, "a SYN that is repeated");
        assert_eq!(stage(advance(answered, C, ACK, 0)), FlowStage::Opening, "a number that was guessed");
        assert_eq!(stage(advance(answered, C, ACK, 1)), FlowStage::Established);
        assert_eq!(stage(advance(answered, S, ACK, 0)), FlowStage::Opening, "a challenge (RFC 5961)");
        assert_eq!(stage(advance(answered, S, ACK, 1)), FlowStage::Established, "the server sends data");
        assert_eq!(stage(advance(life(&[(C, SYN)]), C, ACK, 1)), FlowStage::Opening, "before the answer");
    }

    #[test]
    fn a_flow_lives_as_long_as_its_packets_say() {
        let open = [(C, SYN), (S, SYN | ACK), (C, ACK)];
        let with = |more: &[(Half, u8)]| life(&[&open, more].concat());
        for (what, state, silence) in [
            ("a SYN nobody answered", life(&open[..1]), 75),
            ("a SYN sent three times", life(&[open[0]; 3]), 75),
            ("an answered SYN", life(&open[..2]), 75),
            ("an open connection", with(&[]), 7_440),
            ("half-closed by the client", with(&[(C, FIN | ACK), (S, ACK)]), 7_440),
            ("half-closed by the server", with(&[(S, FIN | ACK), (C, ACK)]), 7_440),
            ("closed by both", with(&[(C, FIN | ACK), (S, FIN | ACK), (C, ACK)]), 60),
            ("refused", life(&[(C, SYN), (S, RST | ACK)]), 10),
            ("reset by the client, or by a forger", with(&[(C, RST)]), 240),
            ("reset by the client, stragglers of the server", with(&[(C, RST), (S, ACK), (S, ACK)]), 240),
            ("a forged reset: the client goes on", with(&[(C, RST), (C, ACK)]), 7_440),
        ] {
            assert_eq!(timeout(protocol::TCP, state), silence, "{what}");
        }
    }

    #[test]
    fn udp_is_either_answered_or_not() {
        assert_eq!(timeout(protocol::UDP, life(&[(C, 0), (C, 0)])), 120);
        assert_eq!(timeout(protocol::UDP, life(&[(C, 0), (S, 0)])), 180);
    }

    #[test]
    fn the_end_is_known() {
        assert!(!is_over(life(&[(C, SYN), (S, SYN | ACK), (C, FIN | ACK)])));
        assert!(is_over(life(&[(C, SYN), (S, SYN | ACK), (C, FIN | ACK), (S, FIN | ACK)])));
        assert!(is_over(life(&[(C, SYN), (S, RST)])));
    }

    #[test]
    fn expiry_survives_the_wrap_around_and_a_late_clock() {
        let state = CLIENT_RST;
        assert!(!expired(protocol::TCP, state, 100, 110));
        assert!(expired(protocol::TCP, state, 100, 111));
        assert!(expired(protocol::TCP, state, u32::MAX - 5, 6));
        assert!(!expired(protocol::TCP, state, 100, 99));
    }
}
