//! The flow hash: which slot of a ring a flow falls into.
//!
//! Every balancer with the same configuration must choose alike, so there is no seed, and the values are
//! part of the interface: `tests/vectors.rs` pins them. The multiplications use 64-bit odd constants (the
//! golden ratio and two from SplitMix64); BPF has no 128-bit product, hence two independent products that
//! are crossed and multiplied once more. The values are those of a little-endian machine.

use crate::{abi::FlowKey, family::Family};

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
const SPLIT_1: u64 = 0xBF58_476D_1CE4_E5B9;
const SPLIT_2: u64 = 0x94D0_49BB_1331_11EB;

/// Mixes two words into 32 well-spread bits.
#[inline(always)]
#[must_use]
pub const fn mix(first: u64, second: u64) -> u32 {
    let a = (first ^ GOLDEN).wrapping_mul(SPLIT_1);
    let b = (second ^ SPLIT_2).wrapping_mul(GOLDEN);
    // The low half of a product knows nothing of the high half of its factor: cross them.
    let crossed = a ^ (a >> 32) ^ b.rotate_left(32) ^ (b >> 17);
    let mixed = crossed.wrapping_mul(SPLIT_2);
    ((mixed ^ (mixed >> 29)).wrapping_mul(SPLIT_1) >> 32) as u32
}

/// Hash of a whole flow, client to VIP.
#[inline(always)]
#[must_use]
pub fn flow<F: Family>(key: &FlowKey<F::Addr>) -> u32 {
    let ports = (key.sport as u64) << 16 | key.dport as u64;
    mix(F::fold(key.src).rotate_left(32) ^ F::fold(key.dst), ports | (key.protocol as u64) << 32)
}

/// Hash of a client's address alone, for source persistence.
#[inline(always)]
#[must_use]
pub fn source<F: Family>(src: F::Addr) -> u32 {
    mix(F::fold(src), 0)
}

/// Where a flow is found in the tables of this host: a place in the low half, a fingerprint that is not 0 in
/// the high one. Seeded, so that nobody outside can aim at a place.
#[inline(always)]
#[must_use]
pub fn place<F: Family>(key: &FlowKey<F::Addr>, seed: u64) -> u64 {
    let ports = (key.sport as u64) << 16 | key.dport as u64;
    place_of(F::fold_with(key.src, seed), F::fold_with(key.dst, !seed), ports | (key.protocol as u64) << 32)
}

/// The same for all flows of a client to a VIP.
#[inline(always)]
#[must_use]
pub fn place_of_client<F: Family>(client: F::Addr, vip: u16, seed: u64) -> u64 {
    place_of(F::fold_with(client, seed), vip as u64, 0)
}

#[inline(always)]
const fn place_of(first: u64, second: u64, third: u64) -> u64 {
    let a = (first ^ GOLDEN).wrapping_mul(SPLIT_1);
    let b = (second ^ SPLIT_2).wrapping_mul(GOLDEN);
    let c = a ^ (a >> 32) ^ b.rotate_left(32) ^ (b >> 17) ^ third.wrapping_mul(SPLIT_2);
    let mixed = (c ^ (c >> 29)).wrapping_mul(SPLIT_1);
    // Bit 63 is given away to keep the fingerprint from ever being 0.
    mixed ^ (mixed >> 32) | 1 << 63
}

/// Another hash of the same flow: for the second and later choices of a server.
#[inline(always)]
#[must_use]
pub const fn again(hash: u32, attempt: u32) -> u32 {
    mix(hash as u64, attempt as u64 + 1)
}

/// Maps a hash evenly onto `0..size` without a division.
#[inline(always)]
#[must_use]
pub const fn scale(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6, words4, words6};

    /// Chi-square of `counts` against an even spread, per degree of freedom: about 1 for a good hash.
    fn unevenness(counts: &[u32]) -> f64 {
        let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        let chi: f64 = counts.iter().map(|&count| (f64::from(count) - mean).powi(2) / mean).sum();
        chi / (counts.len() - 1) as f64
    }

    fn key<A>(src: A, dst: A, sport: u16, dport: u16, protocol: u32) -> FlowKey<A> {
        FlowKey { src, dst, sport, dport, protocol }
    }

    /// Buckets 262,144 hashes both by their high bits (as a ring does) and by their low ones.
    fn assert_even(what: &str, hashes: impl Fn(u32) -> u32) {
        let (mut high, mut low) = (vec![0; 1021], vec![0; 1024]);
        for i in 0..1 << 18 {
            let hash = hashes(i);
            high[scale(hash, 1021) as usize] += 1;
            low[hash as usize & 1023] += 1;
        }
        for (counts, which) in [(high, "high"), (low, "low")] {
            let unevenness = unevenness(&counts);
            assert!((0.7..1.3).contains(&unevenness), "{what}, {which} bits: {unevenness}");
        }
    }

    #[test]
    fn what_counts_up_in_real_traffic_spreads_evenly() {
        let vip4 = words4([10, 0, 0, 1])[0];
        assert_even("one client, all ports, four VIPs", |i| {
            flow::<V4>(&key(words4([10, 0, 0, 9])[0], vip4 + (i >> 16), i as u16, 443, 6))
        });
        assert_even("many clients, one port", |i| {
            flow::<V4>(&key(u32::from_be(0x0a00_0000 + i), vip4, 40_000, 443, 6))
        });
        assert_even("clients and ports together", |i| {
            flow::<V4>(&key(u32::from_be(0x0a00_0000 + (i >> 9)), vip4, 32_768 + (i as u16 & 511), 80, 6))
        });
        assert_even("one client, all VIP ports", |i| {
            flow::<V4>(&key(vip4, words4([10, 0, 0, 7])[0], 50_000 + (i >> 16) as u16, i as u16, 17))
        });
        assert_even("IPv6 hosts of one network", |i| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            address[12..].copy_from_slice(&i.to_be_bytes());
            flow::<V6>(&key(words6(address), words6([1; 16]), 40_000, 443, 6))
        });
        assert_even("IPv6 networks and hosts that count up together", |i| {
            let mut address = [0; 16];
            address[4..8].copy_from_slice(&i.to_be_bytes());
            address[12..].copy_from_slice(&i.to_be_bytes());
            source::<V6>(words6(address))
        });
        assert_even("sources", |i| source::<V4>(u32::from_be(0xc0a8_0000 + i)));
    }

    #[test]
    fn every_input_bit_moves_about_half_the_output_bits() {
        for bit in 0..128 {
            let mut flips = 0;
            for i in 0..512u64 {
                let (a, b) = (i.wrapping_mul(GOLDEN), i.wrapping_mul(SPLIT_1));
                let (a2, b2) = if bit < 64 { (a ^ 1 << bit, b) } else { (a, b ^ 1 << (bit - 64)) };
                flips += (mix(a, b) ^ mix(a2, b2)).count_ones();
            }
            let mean = f64::from(flips) / 512.0;
            assert!((12.0..20.0).contains(&mean), "bit {bit} moves {mean} of 32 bits");
        }
    }

    #[test]
    fn scaling_reaches_every_slot_and_none_beyond() {
        assert_eq!(scale(0, 65_537), 0);
        assert_eq!(scale(u32::MAX, 65_537), 65_536);
    }
}
