//! The switch everything hangs on, and the hosts that hang on it.

use crate::{
    address::{Dual, Family, Subnet},
    bystander::Bystander,
    netns::Netns,
    veth::{Cable, Mac},
};

/// A machine on a wire.
#[derive(Debug)]
pub struct Host {
    /// Where it lives.
    pub ns: Netns,
    /// Its name: `c1`, `s1`, `lb`, ...
    pub name: String,
    /// Its address on `eth0`.
    pub address: Dual,
    /// Ethernet address of `eth0`.
    pub mac: Mac,
}

/// A place to watch frames at.
#[derive(Clone, Debug)]
pub struct Tap<'a> {
    /// Namespace of the device.
    pub ns: &'a Netns,
    /// The device.
    pub device: String,
    /// The host whose `eth0` is at one end of the device's cable.
    pub host: &'a Netns,
}

impl Host {
    /// Its own `eth0`.
    #[must_use]
    pub fn tap(&self) -> Tap<'_> {
        Tap { ns: &self.ns, device: "eth0".into(), host: &self.ns }
    }
}

/// A namespace with one bridge per wire. Bridges learn at once and know no spanning tree.
#[derive(Debug)]
pub(crate) struct Switch(Netns);

impl Switch {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let ns = Netns::new("sw");
        // A switch has no addresses of its own.
        ns.sysctl("ipv6/conf/all/disable_ipv6", "1");
        ns.sysctl("ipv6/conf/default/disable_ipv6", "1");
        for wire in ["front", "back", "between", "remote"] {
            ns.ip(&format!(
                "link add {wire} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set {wire} up"
            ));
        }
        Self(ns)
    }

    /// A new host on a wire.
    #[track_caller]
    pub(crate) fn host(&self, name: &str, wire: &str, subnet: Subnet, number: u8) -> Host {
        let ns = Netns::new(name);
        // Replies may take another way than requests (dr, routers): no reverse path checks.
        ns.sysctl("ipv4/conf/all/rp_filter", "0");
        ns.sysctl("ipv4/conf/default/rp_filter", "0");
        let mac = Mac::local(subnet.number(), number);
        let host = Host { ns, name: name.to_owned(), address: subnet.host(number), mac };
        self.attach(&host, 0, wire, subnet, number);
        host
    }

    /// Another interface of a host.
    #[track_caller]
    pub(crate) fn attach(&self, host: &Host, card: u8, wire: &str, subnet: Subnet, number: u8) {
        let device = format!("eth{card}");
        let far = port(&host.name, card);
        let cable = Cable { device: &device, mac: Mac::local(subnet.number(), number), mtu: 1500 };
        cable.lay(&host.ns, &self.0, &far);
        self.0.ip(&format!("link set {far} master {wire}"));
        add_address(&host.ns, &device, subnet, number);
    }

    /// Takes the cable of a host's `eth0` out.
    #[track_caller]
    pub(crate) fn unplug(&self, host: &Host) {
        self.0.ip(&format!("link set {} nomaster", port(&host.name, 0)));
    }

    /// Puts the cable of a host's `eth0` in, on a wire.
    #[track_caller]
    pub(crate) fn plug(&self, host: &Host, wire: &str) {
        self.0.ip(&format!("link set {} master {wire}", port(&host.name, 0)));
    }

    /// The port to a host's `eth0`, to watch.
    pub(crate) fn tap<'a>(&'a self, host: &'a Host) -> Tap<'a> {
        Tap { ns: &self.0, device: port(&host.name, 0), host: &host.ns }
    }

    /// Gives both ends of the cable to a host's `eth0` so many queues. To be done before there are programs: queues that
    /// come later are not told of them.
    #[track_caller]
    pub(crate) fn set_queues(&self, host: &Host, count: u8) {
        if count == 1 {
            return;
        }
        let count = count.to_string();
        host.ns.ethtool(&["-L", "eth0", "rx", &count, "tx", &count]);
        self.0.ethtool(&["-L", &port(&host.name, 0), "rx", &count, "tx", &count]);
    }

    /// Puts a program on the port to a host's interface.
    #[track_caller]
    pub(crate) fn bystander(&self, host: &Host, card: u8) -> Bystander {
        Bystander::attach(&self.0, &port(&host.name, card))
    }
}

/// Name of the switch's port to a host's interface.
fn port(host: &str, card: u8) -> String {
    format!("p-{host}-{card}")
}

pub(crate) fn nodad(family: Family) -> &'static str {
    if family == Family::V6 { " nodad" } else { "" }
}

#[track_caller]
pub(crate) fn add_address(ns: &Netns, device: &str, subnet: Subnet, number: u8) {
    for family in Family::BOTH {
        let (address, prefix) = (subnet.host(number).of(family), subnet.prefix(family));
        ns.ip(&format!("addr add {address}/{prefix} dev {device}{}", nodad(family)));
    }
}
