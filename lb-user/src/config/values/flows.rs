//! Values about flows: how many, how fast, for how long.

use std::{ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

use super::{Read, integer, time::duration};

/// A number within a range, none of which is beyond 32 bits.
fn number(value: &DeValue<'_>, range: RangeInclusive<u32>, wanted: &str) -> Read<u32> {
    let number = integer(value, i64::from(*range.start())..=i64::from(*range.end()), wanted)?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Room for translated flows.
pub(in crate::config) fn translated(value: &DeValue<'_>) -> Read<u32> {
    number(value, 1_024..=16_777_216, "a number of flows")
}

/// Room for flow tags.
pub(in crate::config) fn tags(value: &DeValue<'_>) -> Read<u32> {
    number(value, 1_024..=134_217_728, "a number of flows")
}

/// SYNs in a second.
pub(in crate::config) fn syn_limit(value: &DeValue<'_>) -> Read<u32> {
    number(value, 0..=100_000_000, "a number of SYNs in a second")
}

/// New flows in a second.
pub(in crate::config) fn max_new_flows(value: &DeValue<'_>) -> Read<u32> {
    number(value, 1..=100_000_000, "a number of new flows in a second")
}

/// A segment size: not below what every host takes (RFC 9293 §3.7.1), not above a jumbo frame.
pub(in crate::config) fn mss(value: &DeValue<'_>) -> Read<u16> {
    let mss = number(value, 536..=9_000, "a segment size in bytes")?;
    Ok(u16::try_from(mss).unwrap_or(u16::MAX))
}

/// How long a client is remembered. The clock of the flow tags wraps around after 19 hours; and what is refreshed
/// about once in a minute cannot be timed more finely.
pub(in crate::config) fn persistence_time(value: &DeValue<'_>) -> Read<Duration> {
    let time = duration(value, Duration::from_secs(18 * 3_600))?;
    if time < Duration::from_secs(120) {
        return Err("a client cannot be remembered for less than two minutes; write \"2m\" or more".into());
    }
    Ok(time)
}

/// How long the flows of slots are noted before these move.
pub(in crate::config) fn learn_time(value: &DeValue<'_>) -> Read<Duration> {
    duration(value, Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::{super::read, *};

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(read("524288", translated), Ok(524_288));
        assert_eq!(
            read("1000", tags).unwrap_err(),
            "expected a number of flows (1024 to 134217728), found 1000"
        );
        assert_eq!(read("0", syn_limit), Ok(0));
        assert_eq!(
            read("0", max_new_flows).unwrap_err(),
            "expected a number of new flows in a second (1 to 100000000), found 0"
        );
        assert_eq!([read("536", mss), read("9000", mss)], [Ok(536), Ok(9_000)]);
        assert_eq!(
            read("535", mss).unwrap_err(),
            "expected a segment size in bytes (536 to 9000), found 535"
        );
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!(read("\"30m\"", persistence_time), Ok(Duration::from_secs(1_800)));
        assert_eq!(
            read("\"5s\"", persistence_time).unwrap_err(),
            "a client cannot be remembered for less than two minutes; write \"2m\" or more"
        );
        assert_eq!(
            read("\"24h\"", persistence_time).unwrap_err(),
            "\"24h\" is too long; at most \"18h\" is allowed"
        );
        assert_eq!(read("\"1s\"", learn_time), Ok(Duration::from_secs(1)));
        assert_eq!(read("\"2m\"", learn_time).unwrap_err(), "\"2m\" is too long; at most \"1m\" is allowed");
    }
}
