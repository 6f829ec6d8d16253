//! What a configuration takes for granted: that its files can be read, that nothing else of this host is where its VIPs
//! are, and that there are ways to its servers. Here it is looked at; what is to be said of files,
//! [`config::outside`](crate::config::outside) says.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{
    config::{Checked, Diagnostic, Severity, outside},
    health::probe::read_now,
    listeners,
    model::{Address, Mode, PortRange},
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

/// The same from a thread of its own, for who has others to serve meanwhile.
pub async fn files_aside(checked: &Checked, config_file: PathBuf, now: u64) -> Vec<Diagnostic> {
    if checked.files.is_empty() {
        return Vec::new();
    }
    let checked = checked.clone();
    // A panic in there is one of ours, and has been told; the files are then as good as unread.
    tokio::task::spawn_blocking(move || files(&checked, &config_file, now)).await.unwrap_or_default()
}

/// What this host has that VIPs of a configuration cannot be beside.
///
/// # Errors
/// When the kernel does not tell what it has.
pub async fn conflicts(
    checked: &Checked,
    netlink: &Netlink,
    own_ports: PortRange,
    of_vips: &HashSet<u64>,
) -> Result<Vec<Diagnostic>> {
    let mut conflicts = listeners::conflicts(&checked.config, of_vips)?;
    let addresses = netlink.addresses().await?;
    conflicts.extend(vip_addresses::conflicts(&checked.config, &addresses, own_ports));
    let error =
        |conflict: &Conflict| checked.places.about_vip(Severity::Error, &conflict.vip, &conflict.problem);
    let mut findings: Vec<_> = conflicts.iter().map(error).collect();
    let unfit = vip_addresses::unfit_sources(&checked.config, &addresses);
    findings.extend(
        unfit.iter().map(|unfit| checked.places.about_vip(Severity::Warning, &unfit.vip, &unfit.problem)),
    );
    if let Some(admin) = checked.config.proxy.admin {
        findings.extend(of_admin(checked, admin, &addresses, of_vips)?);
    }
    Ok(findings)
}

/// What is wrong with the place where the proxy is to tell of itself.
fn of_admin(
    checked: &Checked,
    admin: SocketAddr,
    addresses: &[HostAddress],
    of_vips: &HashSet<u64>,
) -> Result<Option<Diagnostic>> {
    let about = |severity, problem: String| Some(checked.places.about_file(severity, &problem));
    if let Some(owner) = listeners::taken(admin, of_vips)? {
        let problem = format!("admin in [proxy]: {admin} is in use by {owner}; take another port");
        return Ok(about(Severity::Error, problem));
    }
    let ip = admin.ip();
    let is_here = ip.is_unspecified() || ip.is_loopback() || addresses.iter().any(|on| on.address == ip);
    let is_vip = || checked.config.vips.iter().any(|vip| vip.address == ip);
    if is_here || is_vip() {
        return Ok(None);
    }
    let problem = format!(
        "admin in [proxy]: {ip} is no address of this host; nobody can ask there before it is, so correct it unless it is to come"
    );
    Ok(about(Severity::Warning, problem))
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
            findings.push(checked.places.about_server(Severity::Warning, &pool.name, &server.name, &problem));
        }
    }
    findings
}
