//! When a subject is probed. Pure: it is told the time and does no IO.
//!
//! The first probe comes soon. From the second on they are due in the subject's own slot of the interval, which comes
//! from its address and port: so a thousand probes do not fire together, and two runs with the same configuration
//! behave alike. Due times are reckoned from due times, so a late or slow probe does not push the later ones back.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// First probes of all subjects happen within this time after the start.
const SPREAD: Duration = Duration::from_millis(500);

/// Due times of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    due: Instant,
    /// When the second probe is due.
    slot: Option<Instant>,
}

impl Schedule {
    /// First probe within half a second (or the interval, if shorter), the second half an interval to one and a half
    /// later, then one each interval.
    #[must_use]
    pub fn new(now: Instant, address: SocketAddr, interval: Duration) -> Self {
        let hash = fnv1a(address.to_string().bytes());
        let due = now + below(interval.min(SPREAD), hash);
        let mut slot = now + below(interval, hash.rotate_left(32));
        while slot < due + interval / 2 {
            slot += interval;
        }
        Self { due, slot: Some(slot) }
    }

    /// When the next probe is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The probe that was due is over, and the next one is to come `step` after it was due. If several were missed
    /// meanwhile only the last of them is made up for, and at once: [`Self::due`] then lies in the past.
    pub fn advance(&mut self, now: Instant, step: Duration) {
        if let Some(slot) = self.slot.take() {
            self.due = slot;
            return;
        }
        let late = now.saturating_duration_since(self.due).as_nanos();
        let missed = late / step.as_nanos().max(1);
        self.due += step * u32::try_from(missed).unwrap_or(u32::MAX).max(1);
    }

    /// Somebody waits for a result: the next probe comes at once. Those behind it keep their slot.
    pub fn hurry(&mut self, now: Instant) {
        if self.due > now {
            self.slot = Some(self.slot.unwrap_or(self.due));
            self.due = now;
        }
    }
}

/// A time below `spread` that depends on the hash only.
fn below(spread: Duration, hash: u64) -> Duration {
    let spread = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(hash % spread)
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

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 80))
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
            let mut schedule = Schedule { due: start, slot: None };
            schedule.advance(start + millis(ended), INTERVAL);
            assert_eq!(schedule.due() - start, millis(next), "{sentence}");
        }
    }

    #[test]
    fn ten_thousand_late_probes_do_not_drift() {
        let start = Instant::now();
        let mut schedule = Schedule { due: start, slot: None };
        for n in 0..10_000u32 {
            assert_eq!(schedule.due() - start, INTERVAL * n);
            schedule.advance(schedule.due() + millis(u64::from(n % 300)), INTERVAL);
        }
    }

    #[test]
    fn a_faster_pace_begins_with_the_last_probe_and_ends_with_it() {
        let start = Instant::now();
        let mut schedule = Schedule { due: start, slot: None };
        let mut due = Vec::new();
        for step in [2_000, 500, 500, 2_000, 10_000] {
            schedule.advance(schedule.due() + millis(3), millis(step));
            due.push((schedule.due() - start).as_millis());
        }
        assert_eq!(due, [2_000, 2_500, 3_000, 5_000, 15_000]);
    }

    /// Of a thousand subjects, how many are due in each tenth of `within` from `start`.
    fn tenths(due: impl Iterator<Item = Duration>, within: Duration) -> [u32; 10] {
        let mut tenths = [0; 10];
        for due in due {
            let tenth = due.as_nanos() * 10 / within.as_nanos();
            tenths[usize::try_from(tenth).unwrap_or(usize::MAX).min(9)] += 1;
        }
        tenths
    }

    #[test]
    fn a_thousand_first_probes_come_within_half_a_second_and_later_ones_all_over_the_interval() {
        let now = Instant::now();
        let mut all: Vec<_> = (0..1000).map(|n| Schedule::new(now, address(n), INTERVAL)).collect();
        assert!(all.iter().all(|schedule| schedule.due() - now < SPREAD));
        let first = tenths(all.iter().map(|schedule| schedule.due() - now), SPREAD);
        assert!(first.iter().all(|count| (50..=150).contains(count)), "{first:?}");
        for _ in 0..3 {
            for schedule in &mut all {
                let before = schedule.due();
                schedule.advance(before, INTERVAL);
                let gap = schedule.due() - before;
                assert!(gap >= INTERVAL / 2 && gap < INTERVAL * 3 / 2, "{gap:?}");
            }
        }
        let nanos = |due: Instant| (due - now).as_nanos() % INTERVAL.as_nanos();
        let phases = all.iter().map(|schedule| Duration::from_nanos(nanos(schedule.due()) as u64));
        let later = tenths(phases, INTERVAL);
        assert!(later.iter().all(|count| (60..=140).contains(count)), "{later:?}");
    }

    #[test]
    fn a_short_interval_bounds_the_spread() {
        let now = Instant::now();
        for n in 0..100 {
            assert!(Schedule::new(now, address(n), millis(10)).due() - now < millis(10));
        }
    }

    #[test]
    fn who_is_in_a_hurry_is_served_at_once_and_the_slots_stay() {
        let now = Instant::now();
        let mut schedule = Schedule { due: now + INTERVAL, slot: None };
        schedule.hurry(now);
        assert_eq!(schedule.due(), now);
        schedule.hurry(now);
        schedule.advance(now, INTERVAL);
        assert_eq!(schedule.due(), now + INTERVAL);
        schedule.advance(now + INTERVAL, INTERVAL);
        assert_eq!(schedule.due(), now + 2 * INTERVAL);
    }

    #[test]
    fn the_phase_depends_on_address_and_port_only() {
        let now = Instant::now();
        let due = |text: &str| Schedule::new(now, text.parse().unwrap(), INTERVAL).due();
        assert_eq!(due("10.0.0.1:80"), due("10.0.0.1:80"));
        assert_ne!(due("10.0.0.1:80"), due("10.0.0.1:81"));
        assert_ne!(due("10.0.0.1:80"), due("[::1]:80"));
    }
}
