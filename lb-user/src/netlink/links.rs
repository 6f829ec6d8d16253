//! Interfaces of this host and the XDP programs on them.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
};
use rtnetlink::packet_core::NLM_F_DUMP;

use super::{Error, Netlink, errno};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel's index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC; `None` where the link is not Ethernet, e.g. loopback and tunnels.
    pub mac: Option<[u8; 6]>,
    /// Largest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Whether it was switched on.
    pub up: bool,
    /// Whether there is somebody at the other end of the cable.
    pub carrier: bool,
    /// Whether it is one end of a pair of virtual interfaces.
    pub veth: bool,
    /// The XDP program on it, if any.
    pub xdp: Option<Xdp>,
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// Kernel's id of the program.
    pub program_id: u32,
    /// Where it runs.
    pub mode: XdpMode,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the network stack, after it did.
    Generic,
    /// On the card.
    Offloaded,
    /// Several programs in several of these places; the driver's (or else the card's) is the one named.
    Several,
}

impl std::fmt::Display for XdpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
            Self::Several => "several",
        })
    }
}

impl Netlink {
    /// The interface of this name; `None` if there is none.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut query = LinkMessage::default();
        query.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(query, name).await
    }

    /// The interface with this index; `None` if there is none.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let mut query = LinkMessage::default();
        query.header.index = index;
        self.link(query, &index.to_string()).await
    }

    /// All interfaces of this host, by index.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.request(request, NLM_F_DUMP).await;
        let answers = answers.map_err(|error| Error::new("cannot list this host's interfaces", error))?;
        Ok(answers.iter().filter_map(read_answer).collect())
    }

    async fn link(&self, query: LinkMessage, wanted: &str) -> Result<Option<Link>, Error> {
        match self.request(RouteNetlinkMessage::GetLink(query), 0).await {
            Ok(answers) => Ok(answers.iter().find_map(read_answer)),
            // A name that is too long or empty cannot be that of an interface either.
            Err(error)
                if matches!(error.raw_os_error(), Some(errno::ENODEV | errno::ERANGE | errno::EINVAL)) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::new(format!("cannot look up interface {wanted}"), error)),
        }
    }
}

fn read_answer(answer: &RouteNetlinkMessage) -> Option<Link> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(read(message)),
        _ => None,
    }
}

fn read(message: &LinkMessage) -> Link {
    let header = &message.header;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        veth: false,
        xdp: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) if header.link_layer_type == LinkLayerType::Ether => {
                link.mac = mac.as_slice().try_into().ok();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => link.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
            LinkAttribute::Xdp(attributes) => link.xdp = read_xdp(attributes),
            _ => {}
        }
    }
    link
}

fn read_xdp(attributes: &[LinkXdp]) -> Option<Xdp> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpMode::Offloaded),
        LinkXdp::Attached(XdpAttached::Multiple) => Some(XdpMode::Several),
        _ => None,
    })?;
    let find = |wanted: fn(&LinkXdp) -> Option<u32>| attributes.iter().find_map(wanted);
    let program_id = find(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) => Some(*id),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            LinkXdp::HwProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
            _ => None,
        })
    })?;
    Some(Xdp { program_id, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_programs() {
        for (attributes, expected) in [
            (vec![LinkXdp::Attached(XdpAttached::None)], None),
            (
                vec![LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(5), LinkXdp::DrvProgId(5)],
                Some(Xdp { program_id: 5, mode: XdpMode::Native }),
            ),
            (
                vec![LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(6), LinkXdp::SkbProgId(6)],
                Some(Xdp { program_id: 6, mode: XdpMode::Generic }),
            ),
            (
                vec![LinkXdp::Attached(XdpAttached::Multiple), LinkXdp::SkbProgId(7), LinkXdp::DrvProgId(8)],
                Some(Xdp { program_id: 8, mode: XdpMode::Several }),
            ),
        ] {
            assert_eq!(read_xdp(&attributes), expected, "{attributes:?}");
        }
    }
}
