//! When a target is probed. Pure: it is told the time and does no IO.
//!
//! Probes of one target are due at `start + phase + n × interval`, exactly: a late probe does not push
//! the later ones back. Phases come from the target's name, so a thousand targets do not fire together
//! and two runs with the same configuration behave alike.

use std::time::{Duration, Instant};

use super::TargetId;

/// First probes of all targets happen within this time after the start.
const SPREAD: Duration = Duration::from_millis(500);

/// Due times of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    due: Instant,
    interval: Duration,
}

impl Schedule {
    /// First probe within half a second (or the interval, if shorter), then one each `interval`.
    #[must_use]
    pub fn new(now: Instant, id: &TargetId, interval: Duration) -> Self {
        Self { due: now + phase(id, interval.min(SPREAD)), interval }
    }

    /// When the next probe is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The probe that was due is over; finds the next due time. If several were missed meanwhile only the
    /// last of them is made up for, and at once: [`Self::due`] then lies in the past.
    pub fn advance(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.due).as_nanos();
        let missed = late / self.interval.as_nanos().max(1);
        self.due += self.interval * u32::try_from(missed).unwrap_or(u32::MAX).max(1);
    }
}

/// A time below `spread` that depends on the name only.
fn phase(id: &TargetId, spread: Duration) -> Duration {
    // A byte that no name contains keeps ("ab", "c") apart from ("a", "bc").
    let bytes = id.vip.bytes().chain([0xff]).chain(id.server.bytes());
    let spread = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(fnv1a(bytes) % spread)
}

/// The 64-bit FNV-1a hash: tiny, and the same in every run and on every machine.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn id(vip: &str, server: &str) -> TargetId {
        TargetId { vip: vip.into(), server: server.into() }
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn advancing() {
        let start = Instant::now();
        for (sentence, ended, next) in [
            ("a probe that ends at once is followed by one an interval later", 0, 2000),
            ("a slow probe does not delay the next", 1999, 2000),
            ("a probe that takes the whole interval is followed by the next at once", 2000, 2000),
            ("the same when it ends a little late: no interval is left out", 2015, 2000),
            ("of two missed probes the last is made up for", 4100, 4000),
            ("after a long pause there is one probe, not many", 3_600_500, 3_600_000),
        ] {
            let mut schedule = Schedule { due: start, interval: INTERVAL };
            schedule.advance(start + millis(ended));
            assert_eq!(schedule.due() - start, millis(next), "{sentence}");
        }
    }

    #[test]
    fn ten_thousand_late_probes_do_not_drift() {
        let start = Instant::now();
        let mut schedule = Schedule { due: start, interval: INTERVAL };
        for n in 0..10_000u32 {
            assert_eq!(schedule.due() - start, INTERVAL * n);
            schedule.advance(schedule.due() + millis(u64::from(n % 300)));
        }
    }

    #[test]
    fn a_thousand_targets_are_spread_over_half_a_second() {
        let now = Instant::now();
        let mut slots = [0u32; 10];
        for n in 0..1000 {
            let id = id(&format!("vip{}", n / 10), &format!("server{}", n % 10));
            let phase = Schedule::new(now, &id, INTERVAL).due() - now;
            assert!(phase < SPREAD);
            slots[usize::try_from(phase.as_millis()).expect("below 500") / 50] += 1;
        }
        assert!(slots.iter().all(|&count| (50..=150).contains(&count)), "{slots:?}");
    }

    #[test]
    fn a_short_interval_bounds_the_spread() {
        let now = Instant::now();
        for n in 0..100 {
            let schedule = Schedule::new(now, &id("vip", &n.to_string()), millis(10));
            assert!(schedule.due() - now < millis(10));
        }
    }

    #[test]
    fn the_phase_depends_on_the_name_only() {
        let now = Instant::now();
        let due = |vip, server| Schedule::new(now, &id(vip, server), INTERVAL).due();
        assert_eq!(due("a", "b"), due("a", "b"));
        assert_ne!(due("a", "b"), due("b", "a"));
        assert_ne!(due("ab", "c"), due("a", "bc"));
    }
}
