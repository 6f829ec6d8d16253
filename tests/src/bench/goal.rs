//! What a case may cost, in U.

use super::case::{Case, Kind, Mode, Service};
use crate::address::Family;

/// IPv6 may cost this many times what IPv4 costs.
const IPV6: f64 = 1.25;

/// What GUE may add to IPIP.
const GUE: f64 = 1.0;

/// What a flood may multiply costs by.
const FLOOD: f64 = 1.2;

/// What many busy VIPs and many servers may add.
const MANY: f64 = 1.0;

/// The most a case should cost; `None` where nobody has said. Goals are for a thousand flows and for a million;
/// fewer flows are held to the goal of the next larger number.
#[must_use]
pub fn goal(case: &Case) -> Option<f64> {
    let Service { mode, client, server, tagged, vips, servers, flows, .. } = case.service;
    let (few, many) = match (mode, case.kind, tagged) {
        (_, Kind::NotVip, _) => (1.8, 1.8),
        (Mode::Snat, Kind::Established | Kind::Reply, _) => (7.0, 17.0),
        (Mode::Snat | Mode::Nat, ..) => return None,
        (_, Kind::Established | Kind::Flooded, false) => (2.5, 2.7),
        (_, Kind::Established, true) => (3.5, 10.0),
        (_, Kind::Syn | Kind::Flood, false) => (3.3, 9.0),
        (_, Kind::Udp, false) => (2.8, 2.8),
        _ => return None,
    };
    let mut goal = if flows <= 1_000 { few } else { many };
    if client == Family::V6 || server == Family::V6 {
        goal *= IPV6;
    }
    if case.kind.is_in_flood() {
        goal *= FLOOD;
    }
    if mode == Mode::Gue {
        goal += GUE;
    }
    // A million flows of `snat` need more than a few servers for their ports.
    if vips > 1 || servers >= 1_000 {
        goal += MANY;
    }
    Some(goal)
}

#[cfg(test)]
mod tests {
    use crate::bench::case;

    #[test]
    fn goals_of_cases_by_name() {
        let cases = case::all();
        for (name, goal) in [
            ("ipip-4/established/1", Some(2.5)),
            ("dr-4/established/100k", Some(2.7)),
            ("ipip-4/established/1M/tagged", Some(10.0)),
            ("ipip-4in6/syn/1k", Some(3.3 * 1.25)),
            ("gue-4/udp/1k", Some(3.8)),
            ("ipip-4/established/1k/64-vips/1000-servers", Some(3.5)),
            ("snat-4/reply/1M/500-servers", Some(17.0)),
            ("snat-4/syn/1k", None),
            ("ipip-4/flooded/1k", Some(2.5 * 1.2)),
            ("ipip-4/flood/1M", Some(9.0 * 1.2)),
            ("snat-4/not-vip/1k", Some(1.8)),
            ("ipip-4/fragment/1k", None),
        ] {
            let case = cases.iter().find(|case| case.to_string() == name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(super::goal(case), goal, "{name}");
        }
    }
}
