//! Puts VIP addresses on interfaces and takes them off again.
//!
//! An address that was there before lb-user is never touched. To know its own again after it was killed,
//! lb-user marks what it adds with a protocol number (`IFA_PROTO`, shown as `proto 76` by `ip address`).
//! Kernels before 5.18 do not keep the mark; there, leftovers of a killed lb-user count as foreign.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{
        AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
        CacheInfo,
    },
};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

use super::{Error, Netlink, errno};

/// Marks addresses that lb-user added: the letter `L`. The kernel uses 1 to 3 itself and leaves the rest
/// to whoever adds addresses.
const OURS: AddressProtocol = AddressProtocol::Other(b'L');

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// Kernel's index of the interface it is on.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix in bits; 32 or 128 for those added by lb-user.
    pub prefix_len: u8,
    /// Whether an lb-user added it (this one, or one before that was killed).
    pub ours: bool,
}

/// What [`Netlink::ensure_address`] found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was not on the interface; now it is. To be removed at exit.
    Added,
    /// An lb-user that did not end cleanly had left it there. To be removed at exit.
    Adopted,
    /// Somebody else had put it there. To be left alone.
    Foreign,
}

impl Netlink {
    /// All addresses of this host.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn addresses(&self) -> Result<Vec<HostAddress>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.request(request, NLM_F_DUMP).await;
        let answers = answers.map_err(|error| Error::new("cannot list this host's addresses", error))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => read(message),
                _ => None,
            })
            .collect())
    }

    /// Sees to it that an address is on an interface, as a /32 or /128 that the kernel does not choose as
    /// the source of its own IPv6 connections and does not probe for duplicates.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. for want of privilege, or because IPv6 is switched off.
    pub async fn ensure_address(&self, ifindex: u32, address: IpAddr) -> Result<Presence, Error> {
        match self.presence(ifindex, address).await? {
            Some(presence) => Ok(presence),
            None => self.add_address(ifindex, address).await,
        }
    }

    /// [`Self::ensure_address`] for who has just seen that it is not there: it is only looked for if the kernel says
    /// otherwise.
    ///
    /// # Errors
    /// As that.
    pub async fn add_address(&self, ifindex: u32, address: IpAddr) -> Result<Presence, Error> {
        let request = RouteNetlinkMessage::NewAddress(write(ifindex, address));
        match self.request(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await {
            Ok(_) => Ok(Presence::Added),
            Err(error) if error.raw_os_error() == Some(errno::EEXIST) => {
                // Somebody was quicker since we looked.
                Ok(self.presence(ifindex, address).await?.unwrap_or(Presence::Foreign))
            }
            Err(error) => {
                let off = error.raw_os_error() == Some(errno::EACCES) && address.is_ipv6();
                let hint = if off { " (IPv6 is switched off there: sysctl disable_ipv6)" } else { "" };
                Err(Error::new(format!("cannot put {address} on interface {ifindex}{hint}"), error))
            }
        }
    }

    /// Takes an address off an interface; says whether it was there. To be used for addresses that
    /// [`Self::ensure_address`] did not find [`Presence::Foreign`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_address(&self, ifindex: u32, address: IpAddr) -> Result<bool, Error> {
        let request = RouteNetlinkMessage::DelAddress(write(ifindex, address));
        match self.request(request, NLM_F_ACK).await {
            Ok(_) => Ok(true),
            // ENODEV: the interface went, and the address with it.
            Err(error) if matches!(error.raw_os_error(), Some(errno::EADDRNOTAVAIL | errno::ENODEV)) => {
                Ok(false)
            }
            Err(error) => Err(Error::new(format!("cannot take {address} off interface {ifindex}"), error)),
        }
    }

    async fn presence(&self, ifindex: u32, address: IpAddr) -> Result<Option<Presence>, Error> {
        let addresses = self.addresses().await?;
        let mut here = addresses.iter().filter(|there| (there.ifindex, there.address) == (ifindex, address));
        Ok(here.next().map(|there| if there.ours { Presence::Adopted } else { Presence::Foreign }))
    }
}

/// The message that adds an address, or names the one to remove.
fn write(ifindex: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        AddressAttribute::Protocol(OURS),
    ];
    match address {
        IpAddr::V4(_) => {
            message.header.family = AddressFamily::Inet;
            message.header.prefix_len = 32;
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.prefix_len = 128;
            // Duplicate detection would keep the address silent for a second or two, and for ever while
            // the other balancer of a pair has it too.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            // "Deprecated" from the first moment: valid, but never preferred as a source.
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = 0;
            lifetime.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
    }
    message
}

fn read(message: &AddressMessage) -> Option<HostAddress> {
    let mut local = None;
    let mut address = None;
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Protocol(protocol) => ours = *protocol == OURS,
            _ => {}
        }
    }
    Some(HostAddress {
        ifindex: message.header.index,
        // Where both are given and differ, `Address` is the other end of a point-to-point link.
        address: local.or(address)?,
        prefix_len: message.header.prefix_len,
        ours,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_ours() {
        for address in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            let prefix_len = if address.is_ipv4() { 32 } else { 128 };
            let expected = HostAddress { ifindex: 7, address, prefix_len, ours: true };
            assert_eq!(read(&write(7, address)), Some(expected));
        }
    }

    #[test]
    fn addresses_of_others_are_not_ours() {
        let mut message = write(7, "192.0.2.1".parse().unwrap());
        message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Protocol(_)));
        assert!(!read(&message).unwrap().ours);
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::LinkLocal));
        assert!(!read(&message).unwrap().ours);
    }

    #[test]
    fn of_a_point_to_point_link_the_near_end_counts() {
        let mut message = AddressMessage::default();
        message.attributes = vec![
            AddressAttribute::Address("192.0.2.2".parse().unwrap()),
            AddressAttribute::Local("192.0.2.1".parse().unwrap()),
        ];
        assert_eq!(read(&message).unwrap().address, "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
