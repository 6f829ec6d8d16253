//! Explicit congestion notification (RFC 3168 §5): two bits in the byte that IPv4 calls type of service and IPv6
//! traffic class; and what a tunnel does with them (RFC 6040).

/// Where the bits are.
pub(super) const MASK: u8 = 0b11;
/// The sender does not take part.
const NOT_ECT: u8 = 0b00;
/// The sender takes part.
const ECT_1: u8 = 0b01;
/// The sender takes part, likewise.
const ECT_0: u8 = 0b10;
/// A router on the way was congested.
const CE: u8 = 0b11;

/// The congestion mark of a packet that leaves a tunnel; `None` where it has to be dropped (RFC 6040 §4.2,
/// figure 4).
#[inline(always)]
pub(super) fn leave(outer: u8, inner: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT | CE, _) => Some(inner),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_4_of_rfc_6040() {
        let (not, zero, one, ce) = (NOT_ECT, ECT_0, ECT_1, CE);
        for (inner, expected) in [
            (not, [Some(not), Some(not), Some(not), None]),
            (zero, [Some(zero), Some(zero), Some(one), Some(ce)]),
            (one, [Some(one), Some(one), Some(one), Some(ce)]),
            (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
        ] {
            assert_eq!([not, zero, one, ce].map(|outer| leave(outer, inner)), expected, "inner {inner:02b}");
        }
    }
}
