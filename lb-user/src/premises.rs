//! What a configuration takes for granted: that its files can be read, that nothing else of this host is where its VIPs
//! are, and that there are ways to its servers. Here it is looked at; what is to be said of files,
//! [`config::outside`](crate::config::outside) says.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Result;

use crate::{
    config::{Checked, Diagnostic, Severity, outside},
    health::probe::read_now,
    listeners::{self, Listener},
    model::{Address, Config, Mode, PortRange},
    netlink::{Netlink, addresses::HostAddress, routes::NextHopProblem},
    vip_addresses,
};

/// Why a configuration cannot be served beside something else that this host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Name of the VIP that cannot be served.
    pub vip: String,
    /// Why, and what would help.
    pub problem: String,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VIP {}: {}", self.vip, self.problem)
    }
}

/// Reads the files that a configuration names and says what is wrong with them. Waits for disks; `now` is in seconds
/// since 1970.
#[must_use]
pub fn files(checked: &Checked, config_file: &Path, now: u64) -> Vec<Diagnostic> {
    let folder = config_file.parent().unwrap_or(Path::new(""));
    let content = |path: &Path| read_now(&folder.join(path)).map_err(|error| error.to_string());
    outside::judge(checked, content, now.try_into().unwrap_or(i64::MAX))
}

/// What this host has that VIPs may be in the way of.
#[derive(Clone, Debug)]
pub struct Host {
    listeners: Vec<Listener>,
    addresses: Vec<HostAddress>,
    /// From which it chooses for its own connections.
    own_ports: PortRange,
}

impl Host {
    /// Looks at the network namespace of the thread that opened `netlink`.
    ///
    /// # Errors
    /// When the kernel does not tell what it has.
    pub async fn look(netlink: &Netlink, own_ports: PortRange) -> Result<Self> {
        let listeners = listeners::listening(Path::new("/proc/net"))?;
        Ok(Self { listeners, addresses: netlink.addresses().await?, own_ports })
    }

    /// What VIPs of a configuration cannot be beside. The sockets `of_vips`, by the kernel's number, are those through
    /// which proxied VIPs are served.
    #[must_use]
    pub fn conflicts(&self, config: &Config, of_vips: &HashSet<u64>) -> Vec<Conflict> {
        let mut conflicts = listeners::conflicts(config, &self.listeners, of_vips);
        conflicts.extend(vip_addresses::conflicts(config, &self.addresses, self.own_ports));
        conflicts
    }
}

/// What of a host a configuration cannot be beside, and what it takes for granted there. That somebody else is at
/// `known_admin`, where the proxy is to tell of itself, is no news and keeps nothing else from being changed.
#[must_use]
pub fn conflicts(
    checked: &Checked,
    host: &Host,
    of_vips: &HashSet<u64>,
    known_admin: Option<SocketAddr>,
) -> Vec<Diagnostic> {
    let conflicts = host.conflicts(&checked.config, of_vips);
    let error = |conflict: &Conflict| checked.about_vip(Severity::Error, &conflict.vip, &conflict.problem);
    let mut findings: Vec<_> = conflicts.iter().map(error).collect();
    let unfit = vip_addresses::unfit_sources(&checked.config, &host.addresses);
    findings
        .extend(unfit.iter().map(|unfit| checked.about_vip(Severity::Warning, &unfit.vip, &unfit.problem)));
    if let Some(admin) = checked.config.proxy.admin {
        findings.extend(of_admin(checked, admin, host, of_vips, known_admin == Some(admin)));
    }
    findings
}

/// What is wrong with the place where the proxy is to tell of itself.
fn of_admin(
    checked: &Checked,
    admin: SocketAddr,
    host: &Host,
    of_vips: &HashSet<u64>,
    is_known: bool,
) -> Option<Diagnostic> {
    let about = |severity, problem: String| Some(checked.about_file(severity, &problem));
    match listeners::taken(&host.listeners, admin, of_vips) {
        Some(owner) if is_known => {
            let problem = format!(
                "admin in [proxy]: {admin} is in use by {owner}; nothing tells of health there before that is stopped, so stop \
                 it or take another port"
            );
            return about(Severity::Warning, problem);
        }
        Some(owner) => {
            let problem = format!("admin in [proxy]: {admin} is in use by {owner}; take another port");
            return about(Severity::Error, problem);
        }
        None => {}
    }
    let ip = admin.ip();
    let is_here = ip.is_unspecified() || ip.is_loopback() || host.addresses.iter().any(|on| on.address == ip);
    let is_vip = || checked.config.vips.iter().any(|vip| vip.address == ip);
    if is_here || is_vip() {
        return None;
    }
    let problem = format!(
        "admin in [proxy]: {ip} is no address of this host; nobody can ask there before it is, so correct it unless it is to come"
    );
    about(Severity::Warning, problem)
}

/// Servers that no packet of this host can get to, by its routes; those in `known` are left out. Nothing is refused for
/// it: a route may come.
pub async fn unreachable(checked: &Checked, netlink: &Netlink, known: &HashSet<IpAddr>) -> Vec<Diagnostic> {
    let by_mac: HashSet<&str> = checked
        .config
        .vips
        .iter()
        .filter(|vip| vip.mode == Mode::Dr)
        .filter_map(|vip| vip.pool.as_deref())
        .collect();
    let mut findings = Vec::new();
    for pool in &checked.config.pools {
        for server in &pool.servers {
            let Address::Fixed(address) = server.address else { continue };
            if known.contains(&address) {
                continue;
            }
            let problem = match netlink.route(address).await {
                Ok(hop) if hop.address != address && by_mac.contains(pool.name.as_str()) => format!(
                    "{address} is behind the router {}, but mode \"dr\" reaches only servers on a link of this host; \
                     use \"ipip\" or \"gue\"",
                    hop.address
                ),
                // What could not be asked is not known to be wrong. One's own address is said elsewhere.
                Ok(_) | Err(NextHopProblem::Unknown(_) | NextHopProblem::Local(_)) => continue,
                Err(problem) => format!("{problem}; add a route to its network, or correct the address"),
            };
            findings.push(checked.about_server(Severity::Warning, &pool.name, &server.name, &problem));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, model::Protocol};

    #[test]
    fn who_is_where_the_proxy_was_to_tell_of_itself_before_is_warned_of() {
        let admin: SocketAddr = "127.0.0.1:9101".parse().unwrap();
        let checked = config::check("test.toml", &format!("[proxy]\nadmin = \"{admin}\"\n")).unwrap();
        let listener =
            Listener { protocol: Protocol::Tcp, address: admin.ip(), port: admin.port(), inode: 1 };
        let own_ports = PortRange { first: 32_768, last: 60_999 };
        let host = Host { listeners: vec![listener], addresses: Vec::new(), own_ports };
        let severities = |of_vips: &[u64], known: Option<&str>| -> Vec<Severity> {
            let (of_vips, known) =
                (of_vips.iter().copied().collect(), known.map(|known| known.parse().unwrap()));
            conflicts(&checked, &host, &of_vips, known).iter().map(|finding| finding.severity).collect()
        };
        assert_eq!(severities(&[], None), [Severity::Error]);
        assert_eq!(severities(&[], Some("127.0.0.1:9102")), [Severity::Error]);
        assert_eq!(severities(&[], Some("127.0.0.1:9101")), [Severity::Warning]);
        assert_eq!(severities(&[1], None), []);
    }
}
