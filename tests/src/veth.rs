//! Cables: veth pairs whose ends behave like network cards.
//!
//! Two things differ from a real card and would spoil every test: veth passes on packets whose checksum
//! nobody computed (a packet rewritten by XDP then stays wrong), and a frame redirected by XDP only arrives
//! where the peer polls (NAPI), which generic receive offload switches on. [`Cable::lay`] takes care of both.
//! For frames of `XDP_TX` that is not enough, see [`crate::bystander`].

use std::fmt;

use crate::netns::Netns;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered address, different for every pair of numbers.
    #[must_use]
    pub fn local(group: u8, member: u8) -> Self {
        Self([0x02, 0, 0, 0, group, member])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A cable between two namespaces, seen from the first one.
#[derive(Clone, Debug)]
pub struct Cable<'a> {
    /// Device name at the near end.
    pub device: &'a str,
    /// Ethernet address at the near end.
    pub mac: Mac,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
}

impl Cable<'_> {
    /// Lays the cable from `here` to `there`, where the device is called `far`, and switches both ends on.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn lay(&self, here: &Netns, there: &Netns, far: &str) {
        let Self { device, mac, mtu } = self;
        let there_name = there.name();
        here.ip(&format!(
            "link add {device} address {mac} mtu {mtu} type veth peer name {far} mtu {mtu} netns {there_name}\n\
             link set {device} up"
        ));
        there.ip(&format!("link set {far} up"));
        settle_offloads(here, device);
        settle_offloads(there, far);
    }
}

/// Checksums and segments are computed before a packet enters the cable; the receiver polls.
#[track_caller]
fn settle_offloads(namespace: &Netns, device: &str) {
    namespace.ethtool(&["-K", device, "tx", "off", "tso", "off", "gso", "off", "gro", "on"]);
}
