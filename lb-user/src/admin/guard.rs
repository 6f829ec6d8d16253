//! Who shows wrong tokens over and over is told so and is not listened to for a while, and fills no log. Pure, given the time.
//!
//! Nobody can guess a token, so a good one is let in from wherever it comes: an address may be that of many.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

/// Wrong tokens from an address within [`WHILE`] that are answered and written down.
pub const MOST: u32 = 10;

/// Seconds after the first of them until they are forgotten.
pub const WHILE: u64 = 60;

/// Addresses that are remembered.
const ADDRESSES: usize = 4_096;

/// What becomes of a wrong token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is refused, and that is written down.
    Told,
    /// Likewise, and it is the last for so many seconds.
    Last(u64),
    /// It is refused as one too many, for so many seconds more.
    Ignored(u64),
}

/// What is remembered.
#[derive(Debug, Default)]
pub struct Guard(HashMap<IpAddr, Failures>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: u64,
    count: u32,
}

impl Guard {
    /// A wrong token came from an address, `now` (seconds since any moment).
    pub fn failed(&mut self, from: IpAddr, now: u64) -> Fate {
        let from = whose(from);
        if self.0.len() >= ADDRESSES && !self.0.contains_key(&from) {
            self.make_room(now);
        }
        let failures = self.0.entry(from).or_insert(Failures { since: now, count: 0 });
        if now.saturating_sub(failures.since) >= WHILE {
            *failures = Failures { since: now, count: 0 };
        }
        failures.count = failures.count.saturating_add(1);
        let left = WHILE - (now.saturating_sub(failures.since));
        match failures.count {
            count if count < MOST => Fate::Told,
            MOST => Fate::Last(left),
            _ => Fate::Ignored(left),
        }
    }

    fn make_room(&mut self, now: u64) {
        self.0.retain(|_, failures| now.saturating_sub(failures.since) < WHILE);
        let oldest = self.0.iter().min_by_key(|(_, failures)| failures.since).map(|(from, _)| *from);
        if self.0.len() >= ADDRESSES
            && let Some(oldest) = oldest
        {
            self.0.remove(&oldest);
        }
    }
}

/// An address as far as one and the same may have many: of IPv6 the network of 64 bits.
fn whose(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_in_a_minute_are_enough_and_others_are_not_concerned() {
        let mut guard = Guard::default();
        let from = |text: &str| text.parse::<IpAddr>().unwrap();
        let fates: Vec<_> = (0..12).map(|second| guard.failed(from("192.0.2.1"), 100 + second)).collect();
        assert_eq!(fates[..9], [Fate::Told; 9]);
        assert_eq!(fates[9..], [Fate::Last(51), Fate::Ignored(50), Fate::Ignored(49)]);
        assert_eq!(guard.failed(from("192.0.2.2"), 112), Fate::Told);
        assert_eq!(guard.failed(from("192.0.2.1"), 160), Fate::Told, "a minute later");
        for last in 0..10 {
            let _ = guard.failed(from(&format!("2001:db8::{last:x}")), 0);
        }
        assert_eq!(guard.failed(from("2001:db8::ffff"), 0), Fate::Ignored(60), "the same network");
        assert_eq!(guard.failed(from("2001:db8:0:1::1"), 0), Fate::Told);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut guard = Guard::default();
        for number in 0..100_000_u32 {
            let _ = guard.failed(IpAddr::from(number.to_be_bytes()), u64::from(number / 1_000));
        }
        assert_eq!(guard.0.len(), ADDRESSES);
    }
}
