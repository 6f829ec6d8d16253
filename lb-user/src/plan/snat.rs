//! Source ports for SNAT: never one that the host could use for a connection of its own.
//!
//! A translated flow and a connection of the host clash if they have the same server, the same address of
//! the balancer and the same port there. The kernel takes the host's ports from its ephemeral range
//! (`net.ipv4.ip_local_port_range`), so a range outside of it cannot clash.

use crate::model::PortRange;

/// Ports below this belong to services.
const FIRST: u16 = 1_024;

/// The ports to use: the operator's choice if it keeps clear of the host's own, else the larger of the
/// ranges beside them.
///
/// # Errors
/// What is wrong with the choice, or that the host's own range leaves nothing.
pub fn ports(chosen: Option<PortRange>, own: PortRange) -> Result<PortRange, String> {
    if let Some(chosen) = chosen {
        if chosen.overlaps(own) {
            return Err(format!(
                "snat_ports {chosen} overlaps {own}, the ports this host uses for its own connections \
                 (net.ipv4.ip_local_port_range); choose ports outside of it, or change that setting"
            ));
        }
        return Ok(chosen);
    }
    let below = (own.first > FIRST).then(|| PortRange { first: FIRST, last: own.first - 1 });
    let above =
        (own.last < u16::MAX).then(|| PortRange { first: own.last.max(FIRST - 1) + 1, last: u16::MAX });
    let larger = [below, above].into_iter().flatten().max_by_key(|range| range.len());
    larger.ok_or_else(|| {
        format!(
            "this host uses all ports, {own}, for its own connections (net.ipv4.ip_local_port_range), which \
             leaves none for SNAT; make that range smaller"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn the_larger_range_beside_the_hosts_own() {
        for (own, expected) in [
            (range(32_768, 60_999), range(1_024, 32_767)),
            (range(1_024, 20_000), range(20_001, 65_535)),
            (range(15_000, 65_535), range(1_024, 14_999)),
            (range(1, 500), range(1_024, 65_535)),
        ] {
            assert_eq!(ports(None, own), Ok(expected), "beside {own}");
        }
        assert!(ports(None, range(1_024, 65_535)).unwrap_err().contains("leaves none"));
    }

    #[test]
    fn a_choice_must_keep_clear_of_the_hosts_own() {
        let own = range(32_768, 60_999);
        assert_eq!(ports(Some(range(10_000, 20_000)), own), Ok(range(10_000, 20_000)));
        assert!(ports(Some(range(30_000, 32_768)), own).unwrap_err().contains("overlaps 32768-60999"));
    }
}
