//! Reads the configuration file again: whoever asks for it, and on SIGHUP. A file that cannot be used changes nothing.

use std::{
    fs::File,
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tracing::{error, info, warn};

use crate::{
    admin::{Handle, ReloadRequest, Reloaded},
    config,
    health::{Checker, Target, TargetId},
    listeners,
    model::{Config, HealthCheck, PortRange, Server, Vip},
    netlink::{Netlink, links::Link},
    plan::snat,
    vip_addresses::{self, VipAddresses},
};

/// Far more than thousands of VIPs and servers take, in bytes.
const LARGEST: u64 = 16 << 20;

/// The text of a configuration file; not of a device that never ends.
///
/// # Errors
/// When it cannot be read, or is too large.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(text)
}

/// Who follows a configuration beside the reconcile loop.
pub struct Followers<'a> {
    /// Health checks.
    pub checker: Checker,
    /// The watch over the ways to the servers.
    pub servers: watch::Sender<Arc<[IpAddr]>>,
    /// Addresses of VIPs.
    pub addresses: &'a Mutex<VipAddresses>,
    /// To put them up.
    pub netlink: &'a Netlink,
    /// Where.
    pub links: &'a [Link],
}

impl Followers<'_> {
    /// Has the servers checked and looked for.
    pub fn follow(&self, config: &Config) {
        self.servers.send_replace(servers(config));
        self.checker.set_targets(targets(config));
    }
}

/// The addresses of all servers.
#[must_use]
pub fn servers(config: &Config) -> Arc<[IpAddr]> {
    config.pools.iter().flat_map(|pool| &pool.servers).map(|server| server.address).collect()
}

/// The configuration in use, and what a new one goes through.
pub struct Reloader<'a> {
    /// The file; `None` when the start found none.
    pub file: Option<PathBuf>,
    /// What it said last.
    pub config: Config,
    /// Ports that this host uses for itself.
    pub own_ports: PortRange,
    /// Leads to the reconcile loop.
    pub handle: Handle,
    /// Who follows.
    pub followers: Followers<'a>,
}

impl Reloader<'_> {
    /// Reads the file whenever asked to, until nobody can ask any more.
    pub async fn run(mut self, mut requests: mpsc::Receiver<ReloadRequest>, hangup: &Notify) {
        loop {
            let answer = tokio::select! {
                request = requests.recv() => match request {
                    Some(ReloadRequest(answer)) => Some(answer),
                    None => return,
                },
                () = hangup.notified() => None,
            };
            let outcome = self.reload().await;
            match &outcome {
                Ok(Reloaded { file, vips, warnings }) => {
                    warnings.iter().for_each(|warning| warn!("{warning}"));
                    info!("read {file} again: {vips} VIPs");
                }
                Err(findings) => {
                    findings.lines().for_each(|line| error!("{line}"));
                    error!("the configuration was not read again; the one in use stays");
                }
            }
            if let Some(answer) = answer {
                // Who asked may have given up.
                let _ = answer.send(outcome);
            }
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, String> {
        let Some(path) = &self.file else {
            return Err(
                "lb-user was started without a configuration file; start it anew with --config".into()
            );
        };
        let file = path.display().to_string();
        let text =
            read_text(path).map_err(|error| format!("cannot read the configuration {file}: {error}"))?;
        let checked = config::check(&file, &text).map_err(|wrong| wrong.to_string())?;
        let config = checked.config;
        self.check_host(&config).await?;
        let mut warnings: Vec<_> = checked.warnings.iter().map(ToString::to_string).collect();
        warnings.extend(
            at_next_start(&self.config, &config)
                .map(|what| format!("{file}: {what} takes effect when lb-user is started the next time")),
        );
        self.handle.configure(config.clone()).await?;
        self.followers.follow(&config);
        let mut addresses = self.followers.addresses.lock().await;
        // As with a start, but what the kernel refuses is no reason to give up now.
        if let Err(error) = addresses.follow(self.followers.netlink, &config, self.followers.links).await {
            warnings.push(format!("{error:#}"));
        }
        let vips = config.vips.len();
        self.config = config;
        Ok(Reloaded { file, vips, warnings })
    }

    /// What of this host stands in the way of a configuration.
    async fn check_host(&self, config: &Config) -> Result<(), String> {
        snat::ports(config.snat_ports, self.own_ports)?;
        let mut conflicts = listeners::conflicts(config).map_err(|error| error.to_string())?;
        let present = self.followers.netlink.addresses().await.map_err(|error| error.to_string())?;
        conflicts.extend(vip_addresses::conflicts(config, &present, self.own_ports));
        if conflicts.is_empty() { Ok(()) } else { Err(conflicts.join("\n")) }
    }
}

/// What is different and cannot be changed while the program runs.
fn at_next_start(old: &Config, new: &Config) -> impl Iterator<Item = &'static str> {
    let size = |config: &Config| (config.flows.translated, config.flows.tags);
    let different = [
        ("snat_ports", old.snat_ports != new.snat_ports),
        ("the size of the flow tables in [flows]", size(old) != size(new)),
    ];
    different.into_iter().filter(|(_, different)| *different).map(|(what, _)| what)
}

/// What is to be probed: every server of every VIP.
#[must_use]
pub fn targets(config: &Config) -> Vec<Target> {
    let target = |vip: &Vip, server: &Server| Target {
        id: TargetId { vip: vip.name.clone(), server: server.name.clone() },
        address: SocketAddr::new(server.address, probe_port(vip, &vip.health)),
        check: vip.health.clone(),
    };
    config
        .vips
        .iter()
        .flat_map(|vip| config.servers_of(vip).iter().map(move |server| target(vip, server)))
        .collect()
}

/// The port to probe: the check's own, else the one served, else the first of those served.
fn probe_port(vip: &Vip, check: &HealthCheck) -> u16 {
    check.port.or(vip.server_port).unwrap_or_else(|| vip.ports.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_server_of_every_vip_is_probed_where_it_serves() {
        let text = r#"
            [pool.p]
            servers = [{ name = "s", address = "10.0.0.1" }]
            [vip_defaults]
            address = "192.0.2.1"
            mode = "snat"
            pool = "p"
            [vip.plain]
            port = 80
            [vip.translated]
            port = 81
            server_port = 8080
            [vip.many]
            port = "443,1000-1010"
            [vip.elsewhere]
            port = 82
            health = { port = 9 }
        "#;
        let config = config::check("test.toml", text).unwrap().config;
        let probed: Vec<_> =
            targets(&config).into_iter().map(|target| (target.id.vip, target.address.port())).collect();
        let expected = [("plain", 80), ("translated", 8080), ("many", 443), ("elsewhere", 9)];
        assert_eq!(probed, expected.map(|(vip, port)| (vip.to_owned(), port)));
    }
}
