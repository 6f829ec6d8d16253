//! Numbers and times as people read them.

/// A count in at most five characters: exact below 10,000, else three digits: `12.3k`, `456M`, `1.23G`.
#[must_use]
pub fn count(value: u64) -> String {
    if value < 10_000 { value.to_string() } else { scaled(value, 1000, ["k", "M", "G", "T", "P", "E"]) }
}

/// A number of bytes with three digits and a binary unit: `512B`, `1.50KiB`, `45.3MiB`.
#[must_use]
pub fn bytes(value: u64) -> String {
    if value < 1024 {
        format!("{value}B")
    } else {
        scaled(value, 1024, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
    }
}

/// Three digits, rounded down, and the largest unit that leaves something before the point.
fn scaled(value: u64, base: u64, units: [&str; 6]) -> String {
    let mut divisor = base;
    let mut unit = 0;
    while value / divisor >= base && unit + 1 < units.len() {
        divisor *= base;
        unit += 1;
    }
    let whole = value / divisor;
    let decimals = match whole {
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    let scale = 10u64.pow(decimals);
    let fraction = u128::from(value % divisor) * u128::from(scale) / u128::from(divisor);
    let unit = units[unit];
    match decimals {
        0 => format!("{whole}{unit}"),
        _ => format!("{whole}.{fraction:0width$}{unit}", width = decimals as usize),
    }
}

/// A time span in its two largest units: `45s`, `3m 12s`, `5h 0m`, `12d 7h`.
#[must_use]
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Seconds since 1970-01-01 UTC as ISO 8601, e.g. `2026-11-21T00:10:31Z`.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// Gregorian year, month and day of the n-th day after 1970-01-01.
pub(super) fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March have their leap day at the end, so that every month but the last has a
    // fixed place. Day 0 of this count is 0000-03-01; 400 years always have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    // Leave out the leap days before this one: one in 4 years, none at the end of a century's 36,524
    // days, one at the end of the era.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // March to July and August to December have 153 days in five months, and so on.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, january_to_february) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + january_to_february, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (value, text) in [
            (0, "0"),
            (9999, "9999"),
            (10_000, "10.0k"),
            (12_345, "12.3k"),
            (99_999, "99.9k"),
            (100_000, "100k"),
            (999_999, "999k"),
            (1_000_000, "1.00M"),
            (1_234_567_890, "1.23G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn byte_counts() {
        for (value, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00KiB"),
            (1536, "1.50KiB"),
            (1024 * 1024 - 1, "1023KiB"),
            (10 << 20, "10.0MiB"),
            (u64::MAX, "15.9EiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn spans() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (3600, "1h 0m"),
            (86_399, "23h 59m"),
            (86_400, "1d 0h"),
            (12 * 86_400 + 7 * 3600 + 59, "12d 7h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_795_219_831, "2026-11-21T00:10:31Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn every_day_of_eight_hundred_years_follows_the_one_before() {
        let is_leap =
            |year: u64| year.is_multiple_of(400) || (year.is_multiple_of(4) && !year.is_multiple_of(100));
        let mut expected = (1970, 1, 1);
        for day in 0..800 * 365 {
            assert_eq!(date(day), expected);
            let (year, month, last) = expected;
            let length = match month {
                2 if is_leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, last) {
                (12, 31) => (year + 1, 1, 1),
                _ if last == length => (year, month + 1, 1),
                _ => (year, month, last + 1),
            };
        }
    }
}
