//! Configuration text for tests, written the way an operator writes it.

use std::{fmt::Write as _, net::IpAddr};

use lb_tests::{address::Family, topology::Host};

/// Checks five times a second, so that a test sees a change within a second.
const FAST_HEALTH: &str = "[health]\ncheck = \"tcp\"\ninterval = \"200ms\"\nrise = 2\nfall = 3\n";

/// A configuration under construction.
#[derive(Clone, Debug)]
pub(crate) struct Config(String);

impl Config {
    /// Fast health checks, nothing else.
    pub(crate) fn new() -> Self {
        Self(FAST_HEALTH.to_owned())
    }

    /// Top-level text instead of the fast health checks.
    pub(crate) fn with_top(top: &str) -> Self {
        Self(format!("{top}\n"))
    }

    /// A pool of all these hosts, under their names and with their addresses of one family.
    pub(crate) fn pool(self, name: &str, family: Family, hosts: &[Host]) -> Self {
        let members: Vec<_> = hosts.iter().map(|host| (host, String::new())).collect();
        self.pool_of(name, family, &members)
    }

    /// A pool of hosts, each with further settings such as `, weight = 0`.
    pub(crate) fn pool_of(mut self, name: &str, family: Family, hosts: &[(&Host, String)]) -> Self {
        let _ = writeln!(self.0, "\n[pool.{name}]\nservers = [");
        for (host, more) in hosts {
            let (server, address) = (&host.name, host.address.of(family));
            let _ = writeln!(self.0, "  {{ name = \"{server}\", address = \"{address}\"{more} }},");
        }
        self.0.push_str("]\n");
        self
    }

    /// A VIP; `ports` as in TOML (`80` or `"80,443"`), `more` further lines.
    pub(crate) fn vip(
        mut self,
        name: &str,
        address: IpAddr,
        ports: &str,
        mode: &str,
        pool: &str,
        more: &str,
    ) -> Self {
        let _ = writeln!(
            self.0,
            "\n[vip.{name}]\naddress = \"{address}\"\nport = {ports}\nmode = \"{mode}\"\npool = \"{pool}\"\n{more}"
        );
        self
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}
