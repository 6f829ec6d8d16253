//! The cases: which there are, what they are called, which of them are run.

use std::fmt;

use crate::address::Family;

/// How a VIP's packets reach its servers, by the name it has in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Only the destination MAC changes.
    Dr,
    /// The destination changes.
    Nat,
    /// Source and destination change.
    Snat,
    /// An IP header is put in front.
    Ipip,
    /// IP, UDP and GUE headers are put in front.
    Gue,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ipip, Self::Gue, Self::Dr, Self::Snat, Self::Nat];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Nat => "nat",
            Self::Snat => "snat",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }

    /// Whether every flow has an entry that its packets need.
    #[must_use]
    pub fn translates(self) -> bool {
        matches!(self, Self::Nat | Self::Snat)
    }

    /// Whether the servers may be of the other family.
    #[must_use]
    pub fn tunnels(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }
}

/// What the packets of a case are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// TCP segments from clients, of connections that exist.
    Established,
    /// The servers' answers to them; where answers come back through the balancer.
    Reply,
    /// First segments of TCP connections.
    Syn,
    /// Datagrams from clients.
    Udp,
    /// TCP segments for the balancer's own host.
    NotVip,
    /// Fragments after the first, of TCP segments whose first has been seen.
    Fragment,
    /// ICMP errors about packets from the VIP to clients.
    IcmpError,
    /// First segments of TCP connections that nobody knows, far more than are noted.
    Flood,
    /// [`Self::Established`], while there is such a flood.
    Flooded,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Established,
        Self::Reply,
        Self::Syn,
        Self::Udp,
        Self::NotVip,
        Self::Fragment,
        Self::IcmpError,
        Self::Flood,
        Self::Flooded,
    ];

    /// Whether there are more SYNs than are noted.
    #[must_use]
    pub fn is_in_flood(self) -> bool {
        matches!(self, Self::Flood | Self::Flooded)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Reply => "reply",
            Self::Syn => "syn",
            Self::Udp => "udp",
            Self::NotVip => "not-vip",
            Self::Fragment => "fragment",
            Self::IcmpError => "icmp-error",
            Self::Flood => "flood",
            Self::Flooded => "flooded",
        }
    }
}

/// What is balanced in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// How.
    pub mode: Mode,
    /// Family of clients and VIPs.
    pub client: Family,
    /// Family of the servers.
    pub server: Family,
    /// Whether the VIPs are of UDP, not TCP.
    pub udp: bool,
    /// Number of VIPs, each with an address of its own and all of the servers.
    pub vips: u32,
    /// Number of servers.
    pub servers: u32,
    /// Whether all slots of all rings are tagged as changed recently.
    pub tagged: bool,
    /// Number of flows, spread over the VIPs.
    pub flows: u32,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// What is balanced.
    pub service: Service,
    /// What comes in.
    pub kind: Kind,
}

/// Servers of most cases.
const SERVERS: u32 = 3;

/// Flows that a server has at most with the one source address of `snat`: so few that every flow finds a free
/// port among those that are tried for it.
const FLOWS_PER_SERVER: u32 = 2_000;

/// Most flows of a case: what "1 M" stands for in its name.
pub const MOST_FLOWS: u32 = 1_000_000;

const FLOWS: [u32; 4] = [1, 1_000, 100_000, MOST_FLOWS];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Service { mode, client, server, vips, servers, tagged, flows, .. } = self.service;
        write!(f, "{}-{}", mode.name(), digit(client))?;
        if client != server {
            write!(f, "in{}", digit(server))?;
        }
        write!(f, "/{}/{}", self.kind.name(), Amount(flows))?;
        if tagged {
            f.write_str("/tagged")?;
        }
        if vips > 1 {
            write!(f, "/{vips}-vips")?;
        }
        if servers != SERVERS {
            write!(f, "/{servers}-servers")?;
        }
        Ok(())
    }
}

fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// A number in the way of people: 1, 1k, 100k, 1M.
struct Amount(u32);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            number if number >= 1_000_000 && number % 1_000_000 == 0 => write!(f, "{}M", number / 1_000_000),
            number if number >= 1_000 && number % 1_000 == 0 => write!(f, "{}k", number / 1_000),
            number => write!(f, "{number}"),
        }
    }
}

/// Every case that makes sense.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in Mode::ALL {
        for client in Family::BOTH {
            for server in Family::BOTH {
                for kind in Kind::ALL {
                    for flows in FLOWS {
                        for tagged in [false, true] {
                            for (vips, servers) in [(1, SERVERS), (64, SERVERS), (1, 1_000), (64, 1_000)] {
                                let case = case(mode, (client, server), kind, flows, tagged, (vips, servers));
                                if makes_sense(&case) && !cases.contains(&case) {
                                    cases.push(case);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    cases
}

fn case(
    mode: Mode,
    (client, server): (Family, Family),
    kind: Kind,
    flows: u32,
    tagged: bool,
    (vips, servers): (u32, u32),
) -> Case {
    let enough = if mode == Mode::Snat { flows.div_ceil(FLOWS_PER_SERVER) } else { 0 };
    let service = Service {
        mode,
        client,
        server,
        udp: kind == Kind::Udp,
        vips,
        servers: servers.max(enough),
        tagged,
        flows,
    };
    Case { service, kind }
}

fn makes_sense(Case { service, kind }: &Case) -> bool {
    let Service { mode, client, server, vips, servers, tagged, flows, .. } = *service;
    let families = client == server || mode.tunnels();
    // Translated flows are always looked up, whatever the ring says.
    let tags = !tagged || (!mode.translates() && matches!(kind, Kind::Established | Kind::Syn | Kind::Udp));
    let kind = match kind {
        Kind::Reply => mode.translates(),
        // The packet does not get as far as flows, servers and modes.
        Kind::NotVip => flows == 1_000 && servers == SERVERS,
        // Translated flows have a table, not tags; and flows of slots that are tagged are always noted.
        Kind::Flood | Kind::Flooded => !mode.translates() && !tagged,
        // The frame names its VIP twice.
        Kind::IcmpError => vips == 1,
        _ => true,
    };
    families && tags && kind
}

/// Those that are run when nothing else is asked for: all of the goals, and each other dimension once.
#[must_use]
pub fn chosen() -> Vec<Case> {
    all().into_iter().filter(is_chosen).collect()
}

fn is_chosen(Case { service, kind }: &Case) -> bool {
    let Service { mode, client, server, vips, servers, tagged, flows, .. } = *service;
    let ipip4 = mode == Mode::Ipip && (client, server) == (Family::V4, Family::V4);
    if (vips, servers) != (1, SERVERS) && mode != Mode::Snat {
        let large = (vips, servers) == (64, 1_000) && flows >= 1_000 && flows != 100_000;
        return ipip4 && large && *kind == Kind::Established && !tagged;
    }
    if vips > 1 || servers == 1_000 {
        return false;
    }
    if client != server {
        return mode == Mode::Ipip && *kind == Kind::Established && flows == 1_000 && !tagged;
    }
    match kind {
        Kind::Established if ipip4 => true,
        Kind::Established | Kind::Reply => flows == 1_000 || (flows == MOST_FLOWS && mode != Mode::Nat),
        Kind::Flood | Kind::Flooded => ipip4 && (flows == 1_000 || flows == MOST_FLOWS),
        Kind::Syn | Kind::Udp if mode == Mode::Ipip => flows == 1_000 || flows == MOST_FLOWS,
        Kind::Syn | Kind::Udp => flows == 1_000 && !tagged,
        Kind::NotVip => matches!(mode, Mode::Ipip | Mode::Snat),
        Kind::Fragment | Kind::IcmpError => mode != Mode::Gue && mode != Mode::Nat && flows == 1_000,
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| fits(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let cases = all();
        let names: HashSet<_> = cases.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), cases.len());
        for name in
            ["ipip-4/established/1M", "ipip-6in4/udp/100k/tagged/64-vips/1000-servers", "snat-6/reply/1"]
        {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn the_cases_of_all_goals_are_chosen() {
        let names: HashSet<_> = chosen().iter().map(ToString::to_string).collect();
        for name in [
            "ipip-4/established/1k",
            "ipip-4/established/1M",
            "ipip-4/established/1k/tagged",
            "ipip-4/established/1M/tagged",
            "ipip-4/syn/1k",
            "ipip-4/syn/1M",
            "ipip-4/udp/1k",
            "ipip-4/udp/1M",
            "snat-4/established/1k",
            "snat-4/reply/1M/500-servers",
            "ipip-4/flood/1M",
            "ipip-4/flooded/1k",
            "ipip-4/not-vip/1k",
            "ipip-4/established/1M/64-vips/1000-servers",
            "gue-6/established/1k",
            "dr-4/established/1k",
            "ipip-4in6/established/1k",
        ] {
            assert!(names.contains(name), "{name} is not among {names:?}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("*1k", "ipip-4/syn/1k", true),
            ("*1k", "ipip-4/syn/1k/tagged", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
