//! The interfaces: which there are, attaching to them, and seeing that they stay.

use anyhow::{Context as _, Result, anyhow, bail};
use tracing::warn;

use crate::{
    datapath::{
        attach::{self, Attached, Program, Wanted},
        pins::Pins,
    },
    netlink::{
        Netlink,
        links::{Link, XdpMode},
        watch::Watch,
    },
    snapshot::Interface,
};

/// The interfaces by name. Refuses what does not exist, cannot carry our frames, or is taken.
///
/// A program that is attached by a link in `pins` is ours.
pub(crate) async fn find_links(
    netlink: &Netlink,
    names: &[String],
    pins: Option<&Pins>,
) -> Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    for name in names {
        let Some(link) = netlink.link_by_name(name).await? else {
            let known: Vec<_> = netlink.links().await?.into_iter().map(|link| link.name).collect();
            bail!("there is no interface {name:?}; this host has {}", known.join(", "));
        };
        if links.iter().any(|other| other.index == link.index) {
            bail!("--iface {name} is given twice");
        }
        if link.mac.is_none() {
            bail!("{name} is not an Ethernet interface; lb-user works on Ethernet only");
        }
        if let Some(xdp) = link.xdp
            && !is_ours(&link, pins)
        {
            let id = xdp.program_id;
            let program = attach::program_name(id).map_or_else(String::new, |name| format!(" {name:?}"));
            bail!(
                "{name} already runs the XDP program{program} with id {id}; lb-user does not replace it. \
                 If it is another lb-user, stop that one; else detach it: ip link set dev {name} xdp off"
            );
        }
        links.push(link);
    }
    Ok(links)
}

/// Whether the program on an interface is attached by a link in `pins`.
fn is_ours(link: &Link, pins: Option<&Pins>) -> bool {
    let ours = pins.and_then(|pins| pins.program_on(link.index));
    ours.is_some() && ours == link.xdp.map(|xdp| xdp.program_id)
}

pub(crate) fn attach_all(
    program: &mut Program,
    links: &[Link],
    wanted: Wanted,
    pins: Option<&Pins>,
) -> Result<Vec<Interface>> {
    let program_id = program.id()?;
    let mut interfaces = Vec::new();
    for link in links {
        let Attached { native, note } = attach_to(program, link, wanted, pins)?;
        let xdp_mode = if native { "native" } else { "generic" };
        if let Some(note) = &note {
            warn!("{note}; using generic XDP there, which is slower");
        }
        interfaces.push(Interface {
            name: link.name.clone(),
            index: link.index,
            xdp_mode: xdp_mode.into(),
            program_id,
            note,
        });
    }
    Ok(interfaces)
}

/// What XDP sends back out of a veth is lost unless the other end takes it in by XDP, too (`veth_xdp_xmit` in the kernel). It
/// cannot be seen from here: the other end is in another network namespace.
pub(super) fn warn_of_veth(links: &[Link], interfaces: &[Interface]) {
    let native = |link: &&Link| {
        let mode = interfaces.iter().find(|other| other.index == link.index).map(|other| &*other.xdp_mode);
        link.veth && mode == Some("native")
    };
    for Link { name, .. } in links.iter().filter(native) {
        warn!(
            "{name} is a veth: all that is sent there is lost unless its other end has an XDP program, too; \
             --xdp-mode generic works without"
        );
    }
}

/// Attaches to one interface, in the place of a program of ours if there is one.
fn attach_to(program: &mut Program, link: &Link, wanted: Wanted, pins: Option<&Pins>) -> Result<Attached> {
    let Some(pins) = pins else { return Ok(program.attach(&link.name, link.index, wanted)?) };
    if is_ours(link, Some(pins)) {
        let native = link.xdp.is_some_and(|xdp| xdp.mode == XdpMode::Native);
        if wanted == Wanted::Auto || native == (wanted == Wanted::Native) {
            program.take_over(link.index, pins)?;
            return Ok(Attached { native, note: None });
        }
        warn!("{}: another XDP mode is wanted; packets pass by the program for a moment", link.name);
        pins.unpin(link.index);
    }
    let attached = program.attach(&link.name, link.index, wanted)?;
    program.pin(link.index, pins)?;
    Ok(attached)
}

/// Asks the kernel whether what was attached is what is there: older kernels attach over netlink, which
/// does not refuse to replace a program that came a moment before.
pub(crate) async fn confirm(netlink: &Netlink, interfaces: &[Interface]) -> Result<()> {
    for interface in interfaces {
        let link = netlink.link_by_index(interface.index).await?;
        let xdp = link.and_then(|link| link.xdp);
        let xdp = xdp.with_context(|| format!("no XDP program on {} after attaching it", interface.name))?;
        if xdp.program_id != interface.program_id || xdp.mode.to_string() != interface.xdp_mode {
            bail!(
                "{} runs the XDP program with id {} in {} mode, not ours with id {} in {} mode",
                interface.name,
                xdp.program_id,
                xdp.mode,
                interface.program_id,
                interface.xdp_mode
            );
        }
    }
    Ok(())
}

/// Says so when an interface goes away, and gives up when the last one has.
pub(crate) async fn lost(netlink: &Netlink, links: &[Link], mut notices: Watch) -> anyhow::Error {
    let mut left: Vec<_> = links.iter().collect();
    loop {
        let _ = notices.changed().await;
        let Ok(present) = netlink.links().await else { continue };
        left.retain(|link| {
            let there = present.iter().any(|other| other.index == link.index);
            if !there {
                warn!("interface {} is gone; nothing is done there until lb-user is started anew", link.name);
            }
            there
        });
        if left.is_empty() {
            return anyhow!("all interfaces are gone");
        }
    }
}
