//! VIP addresses on this host's interfaces: put up at start, taken down at exit.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::IpAddr,
    time::Duration,
};

use anyhow::Result;
use l7_spec::Source;
use tokio::{sync::Mutex, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    model::{Config, PortRange, Protocol, Server, Vip},
    netlink::{
        self, Netlink,
        addresses::{HostAddress, Presence},
        links::Link,
        watch::Watch,
    },
    premises::Conflict,
};

/// VIP addresses that are to be taken off at exit.
#[derive(Debug)]
pub struct VipAddresses(Vec<(u32, IpAddr)>);

impl VipAddresses {
    /// Puts every VIP address on an interface, and takes off those that an earlier lb-user left behind and
    /// that are no VIP's any more. On failure gives what is up so far.
    ///
    /// # Errors
    /// When the kernel refuses one; comes with those that are up by then.
    pub async fn put_up(
        netlink: &Netlink,
        config: &Config,
        links: &[Link],
    ) -> Result<Self, (Self, anyhow::Error)> {
        let mut up = Self(Vec::new());
        match up.try_put_up(netlink, config, links).await {
            Ok(()) => Ok(up),
            Err(error) => Err((up, error)),
        }
    }

    async fn try_put_up(&mut self, netlink: &Netlink, config: &Config, links: &[Link]) -> Result<()> {
        let present = netlink.addresses().await?;
        let homes = homes(config, links, &present);
        for stale in present.iter().filter(|on| on.ours) {
            let keep = homes.contains(&(stale.ifindex, stale.address));
            if !keep && netlink.remove_address(stale.ifindex, stale.address).await? {
                info!("removed {}, left behind by an earlier lb-user", stale.address);
            }
        }
        for home in homes {
            self.put(netlink, &present, home).await?;
        }
        Ok(())
    }

    /// Goes over to another configuration: takes off what is no VIP's any more, then puts up what is new.
    ///
    /// # Errors
    /// When the kernel refuses; the rest is done all the same.
    pub async fn follow(&mut self, netlink: &Netlink, config: &Config, links: &[Link]) -> Result<()> {
        if self.are(&wanted(config)) {
            return Ok(());
        }
        let present = netlink.addresses().await?;
        let homes = homes(config, links, &present);
        let mut refused = Ok(());
        // One that stays also stays where it is.
        for (ifindex, address) in std::mem::take(&mut self.0) {
            if homes.iter().any(|home| home.1 == address) {
                self.0.push((ifindex, address));
            } else if let Err(error) = netlink.remove_address(ifindex, address).await {
                refused = Err(error.into());
            }
        }
        for home in homes {
            if !self.0.iter().any(|up| up.1 == home.1)
                && let Err(error) = self.put(netlink, &present, home).await
            {
                refused = Err(error);
            }
        }
        refused
    }

    /// Whether just these are up.
    fn are(&self, wanted: &[IpAddr]) -> bool {
        let mut up: Vec<_> = self.0.iter().map(|(_, address)| *address).collect();
        up.sort_unstable();
        up == wanted
    }

    /// Puts one address on an interface, unless it is on this host already.
    async fn put(
        &mut self,
        netlink: &Netlink,
        present: &[HostAddress],
        (ifindex, address): (u32, IpAddr),
    ) -> Result<()> {
        if let Some(on) = present.iter().find(|on| on.address == address && !on.ours) {
            info!("{address} is on this host already (interface {}) and will stay there", on.ifindex);
            return Ok(());
        }
        // Not looked for again: of a thousand addresses, that would be a million.
        let is_up = present.iter().any(|on| (on.ifindex, on.address) == (ifindex, address));
        let presence = if is_up { Presence::Adopted } else { netlink.add_address(ifindex, address).await? };
        match presence {
            Presence::Added | Presence::Adopted => self.0.push((ifindex, address)),
            Presence::Foreign => info!("{address} is on interface {ifindex} already and will stay there"),
        }
        Ok(())
    }

    /// Takes them all off again; what the kernel refuses is logged.
    pub async fn take_down(self, netlink: &Netlink) {
        for (ifindex, address) in self.0 {
            if let Err(error) = netlink.remove_address(ifindex, address).await {
                warn!("{error}");
            }
        }
    }
}

/// Puts back what somebody takes off, for as long as it is polled: the kernel itself removes IPv6 addresses when an
/// interface is switched off.
pub async fn keep_up(addresses: &Mutex<VipAddresses>, netlink: &Netlink, mut notices: Watch) -> Infallible {
    let mut complained = false;
    let mut complain = |outcome: Result<(), netlink::Error>| match outcome {
        Ok(()) => complained = false,
        Err(error) if complained => debug!("{error}"),
        Err(error) => {
            warn!("{error}");
            complained = true;
        }
    };
    loop {
        let addresses = addresses.lock().await;
        match missing(&addresses.0, netlink).await {
            Ok(missing) => {
                for (ifindex, address) in missing {
                    let outcome = netlink.add_address(ifindex, address).await;
                    if let Ok(Presence::Added) = outcome {
                        warn!("VIP address {address} had been taken off its interface; put back");
                    }
                    complain(outcome.map(|_| ()));
                }
            }
            Err(error) => complain(Err(error)),
        }
        drop(addresses);
        // Somebody who keeps taking it off is not fought at full speed.
        sleep(Duration::from_secs(1)).await;
        while !notices.changed().await.concerns_addresses() {}
    }
}

/// Which of those that are to be up are not.
async fn missing(up: &[(u32, IpAddr)], netlink: &Netlink) -> Result<Vec<(u32, IpAddr)>, netlink::Error> {
    let present: HashSet<_> =
        netlink.addresses().await?.into_iter().map(|on| (on.ifindex, on.address)).collect();
    Ok(up.iter().filter(|place| !present.contains(place)).copied().collect())
}

/// Interface and address of everything that is to be put up: on the interface that has the address's network, else on
/// the first.
fn homes(config: &Config, links: &[Link], present: &[HostAddress]) -> Vec<(u32, IpAddr)> {
    let home = |address: IpAddr| {
        let has = |link: &&Link| {
            let mut on = present.iter().filter(|on| on.ifindex == link.index && !on.ours);
            on.any(|on| contains(on.address, on.prefix_len, address))
        };
        links.iter().find(has).unwrap_or(&links[0]).index
    };
    wanted(config).into_iter().map(|address| (home(address), address)).collect()
}

/// What is to be put up, sorted.
fn wanted(config: &Config) -> Vec<IpAddr> {
    let vips = if config.manage_addresses { &config.vips[..] } else { &[] };
    let mut wanted: Vec<_> = vips.iter().map(|vip| vip.address).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Why VIPs on addresses that this host has for itself cannot be served: one line each. Answers to the host's
/// own packets would be taken for clients of such a VIP.
#[must_use]
pub fn conflicts(config: &Config, present: &[HostAddress], own_ports: PortRange) -> Vec<Conflict> {
    let own: HashSet<_> = present.iter().filter(|on| !on.ours).map(|on| on.address).collect();
    let is_own = |address| own.contains(&address);
    let clash =
        |vip: &&Vip| is_own(vip.address) && vip.ports.ranges().iter().any(|range| range.overlaps(own_ports));
    let vips = config.vips.iter().filter(clash);
    let wide = vips.map(|vip| {
        let problem = format!(
            "ports {} on {}, an address of this host, overlap {own_ports}, the ports it uses for its own \
             connections (net.ipv4.ip_local_port_range); choose other ports or an address of the VIP's own",
            vip.ports, vip.address
        );
        Conflict { vip: vip.name.clone(), problem }
    });
    wide.chain(taken_sources(config, own_ports)).collect()
}

/// Proxied VIPs whose connections to servers come from an address at which the kernel program has another VIP: it would take
/// the servers' answers for clients of that one.
fn taken_sources(config: &Config, own_ports: PortRange) -> impl Iterator<Item = Conflict> {
    let wide: HashMap<_, _> = config
        .vips
        .iter()
        .filter(|vip| vip.mode.is_layer4() && vip.protocol == Protocol::Tcp)
        .filter(|vip| vip.ports.ranges().iter().any(|range| range.overlaps(own_ports)))
        .map(|vip| (vip.address, vip))
        .collect();
    config.vips.iter().filter_map(move |vip| {
        let other = wide.get(&source_of(vip)?)?;
        let problem = format!(
            "connections to its servers come from {}, but ports {} there are VIP {:?}'s and overlap {own_ports}, from which \
             this host chooses for its own connections (net.ipv4.ip_local_port_range); choose another source",
            other.address, other.ports, other.name
        );
        Some(Conflict { vip: vip.name.clone(), problem })
    })
}

/// The address that a proxied VIP's connections to servers come from, if the configuration says which.
fn source_of(vip: &Vip) -> Option<IpAddr> {
    match vip.proxied.source? {
        _ if vip.mode.is_layer4() => None,
        Source::Vip => Some(vip.address),
        Source::Address(address) => Some(address),
        Source::Auto | Source::Client => None,
    }
}

/// What will not be as `source` of a VIP says, as far as this host's addresses tell.
#[must_use]
pub fn unfit_sources(config: &Config, present: &[HostAddress]) -> Vec<Conflict> {
    let vips: HashSet<_> = config.vips.iter().map(|vip| vip.address).collect();
    let here: HashSet<_> = present.iter().map(|on| on.address).collect();
    let mut all = Vec::new();
    for (vip, leads) in config.services().filter(|(vip, _)| !vip.mode.is_layer4()) {
        let mut tell = |problem: String| all.push(Conflict { vip: vip.name.clone(), problem });
        match vip.proxied.source {
            None | Some(Source::Auto) => continue,
            Some(Source::Address(address)) if !vips.contains(&address) && !here.contains(&address) => {
                tell(format!(
                    "source: {address} is no address of this host; until it is, no server is reached"
                ));
            }
            _ => {}
        }
        let from = source_of(vip).unwrap_or(vip.address);
        // One server is enough to see what is wrong.
        let servers = || leads.iter().flat_map(|lead| &lead.pool.servers).filter_map(Server::address);
        if let Some(server) = servers().find(|server| server.is_ipv4() != from.is_ipv4()) {
            tell(format!(
                "source: {server} is of the other IP version, so it sees an address of the balancer"
            ));
        }
        if vip.proxied.source != Some(Source::Client) {
            continue;
        }
        let is_here = |server: &IpAddr| server.is_loopback() || here.contains(server);
        if let Some(server) = servers().find(is_here) {
            tell(format!(
                "source = \"client\": the server {server} is an address of this host; all others who connect to its port \
                 there get no answers, so take an address of another host"
            ));
        }
        let with_vip =
            present.iter().filter(|on| !on.ours && contains(on.address, on.prefix_len, vip.address));
        let with_vip: Vec<_> = with_vip.collect();
        let shared = |server: &IpAddr| with_vip.iter().any(|on| contains(on.address, on.prefix_len, *server));
        if let Some(server) = servers().find(|server| shared(server) && !is_here(server)) {
            tell(format!(
                "source = \"client\": {server} and the VIP are on one network; clients of that network get its answers past the \
                 balancer, and do not know them"
            ));
        }
    }
    all
}

/// Whether two addresses lie in one network, given by an address and its prefix length.
fn contains(network: IpAddr, prefix_len: u8, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let differing = (bits(network) ^ bits(address)).leading_zeros();
    network.is_ipv4() == address.is_ipv4() && differing >= u32::from(prefix_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_on_the_hosts_own_address_keeps_off_the_hosts_own_ports() {
        let text = r#"
            [pool.p]
            servers = [{ name = "s", address = "10.0.0.1" }]
            [vip_defaults]
            mode = "snat"
            pool = "p"
            [vip.wide]
            address = "10.0.0.9"
            port = "1-65535"
            protocol = "udp"
            health = { port = 80 }
            [vip.narrow]
            address = "10.0.0.9"
            port = 80
            [vip.apart]
            address = "10.0.0.10"
            port = "2-65535"
        "#;
        let config = crate::config::check("test.toml", text).unwrap().config;
        let own = HostAddress { ifindex: 2, address: [10, 0, 0, 9].into(), prefix_len: 24, ours: false };
        let lines = conflicts(&config, &[own], PortRange { first: 32_768, last: 60_999 });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0]
                .to_string()
                .starts_with("VIP wide: ports all on 10.0.0.9, an address of this host, overlap")
        );
    }

    #[test]
    fn where_connections_to_servers_come_from() {
        let text = r#"
            [pool.p]
            servers = [{ name = "s", address = "10.0.0.1" }, { name = "six", address = "2001:db8::1" }]
            [pool.four]
            servers = [{ name = "s", address = "10.0.0.2" }]
            [vip_defaults]
            pool = "p"
            address = "10.0.0.9"
            [vip.wide]
            port = "40000-50000"
            mode = "snat"
            pool = "four"
            health = { port = 80 }
            [vip.web]
            port = 80
            mode = "http"
            source = "vip"
            [vip.other]
            port = 81
            mode = "http"
            source = { address = "10.9.9.9" }
            [vip.seen]
            port = 82
            mode = "http"
            source = "client"
            [vip.plain]
            port = 83
            mode = "http"
        "#;
        let config = crate::config::check("test.toml", text).unwrap().config;
        let own = [HostAddress { ifindex: 2, address: [10, 0, 0, 4].into(), prefix_len: 24, ours: false }];
        let shown = |all: Vec<Conflict>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let refused = shown(conflicts(&config, &own, PortRange { first: 32_768, last: 60_999 }));
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].starts_with("VIP web: connections to its servers come from 10.0.0.9, but ports"));
        let told = shown(unfit_sources(&config, &own));
        let beginnings = [
            "VIP web: source: 2001:db8::1 is of the other IP version",
            "VIP other: source: 10.9.9.9 is no address of this host",
            "VIP other: source: 2001:db8::1 is of the other",
            "VIP seen: source: 2001:db8::1 is of the other",
            "VIP seen: source = \"client\": 10.0.0.1 and the VIP are on one network",
        ];
        assert_eq!(told.len(), beginnings.len(), "{told:?}");
        assert!(told.iter().zip(beginnings).all(|(told, begins)| told.starts_with(begins)), "{told:?}");
        let own = [HostAddress { address: [10, 0, 0, 1].into(), ..own[0].clone() }];
        let told = shown(unfit_sources(&config, &own));
        let of_client: Vec<_> = told.iter().filter(|told| told.contains("source = \"client\"")).collect();
        let [only] = of_client[..] else { panic!("{told:?}") };
        assert!(
            only.starts_with("VIP seen: source = \"client\": the server 10.0.0.1 is an address of this host")
        );
    }

    #[test]
    fn a_configuration_with_the_same_addresses_changes_none() {
        let [one, two] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let up = VipAddresses(vec![(3, two), (2, one)]);
        assert!(up.are(&[one, two]));
        assert!(!up.are(&[one]) && !up.are(&[]));
        assert!(VipAddresses(Vec::new()).are(&[]));
    }

    #[test]
    fn networks() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (network, len, address, inside) in [
            ("192.168.1.4", 24, "192.168.1.250", true),
            ("192.168.1.4", 24, "192.168.2.250", false),
            ("192.168.1.4", 32, "192.168.1.4", true),
            ("10.0.0.1", 0, "203.0.113.9", true),
            ("10.0.0.1", 0, "2001:db8::1", false),
            ("2001:db8::1", 64, "2001:db8::ffff:1", true),
            ("2001:db8::1", 64, "2001:db8:0:1::1", false),
        ] {
            assert_eq!(contains(ip(network), len, ip(address)), inside, "{network}/{len} {address}");
        }
    }
}
