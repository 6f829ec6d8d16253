//! What a start finds of the one before it, and what the end leaves to the next.
//!
//! While the daemon is away, whether killed, restarted or replaced, the program it has attached goes on by the maps it
//! has: they are pinned ([`Pins`]), and what they mean is in a file ([`memory`]). The next start takes the flow tables,
//! fills maps of its own from the file, and puts its program in the other's place between two packets.

pub mod layout;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, bail};
use lb_common::abi::{
    FACTS_VERSION,
    layout::{FLOW4, FLOW6, Field, SETTINGS},
};
use tracing::{info, warn};

use self::layout::Translation;
use crate::{
    admin, app,
    datapath::{
        load,
        moving::Changed,
        pins::{Kept, Pins},
    },
    l7,
    lock::Lock,
    memory::{self, Facts, Memory, Notebook, Tables},
    netlink::Netlink,
    picture,
    plan::Image,
    ways_back,
};

/// Where things are pinned unless `--pins` says otherwise.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/lb";

/// Where a start looks, and what its end leaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder in a BPF file system where links and maps are pinned.
    pub pins: PathBuf,
    /// The file with what they mean.
    pub state: PathBuf,
    /// Whether the end leaves the program at work.
    pub keep_forwarding: bool,
}

/// What a start goes on with.
#[derive(Debug)]
pub struct Found {
    /// The folder; none where the host has no BPF file system.
    pub pins: Option<Pins>,
    /// What is known.
    pub memory: Memory<'static>,
    /// The program that is at work, if its tables can be gone on with.
    pub kept: Option<Kept>,
    /// Which of them are to be translated.
    changed: Changed,
    /// Where the settings of that program have `hold_until`.
    hold_at: usize,
    /// Whether any program was at work.
    at_work: bool,
}

impl Found {
    /// Looks for what there is.
    ///
    /// # Errors
    /// When another lb-user uses it, or there is a program at work that cannot be taken over from.
    pub fn look(options: &Options) -> Result<Self> {
        let pins = match Pins::take(&options.pins) {
            Ok(pins) => pins,
            Err(error) if error.is_fatal() => bail!("{error}"),
            Err(error) => {
                warn!(
                    "{error}: nothing is forwarded while lb-user is not running (mount -t bpf bpf /sys/fs/bpf)"
                );
                if options.keep_forwarding {
                    bail!("--keep-forwarding needs a BPF file system");
                }
                let mut memory = Memory::read(&options.state);
                memory.tables = None;
                let (changed, hold_at) = (Changed::new(), 0);
                return Ok(Self { pins: None, memory, kept: None, changed, hold_at, at_work: false });
            }
        };
        let memory = Memory::read(&options.state);
        let (mut changed, mut hold_at) = (Changed::new(), 0);
        let kept = match (pins.kept(), &memory.tables) {
            (None, _) => None,
            (Some(kept), Some(tables)) if tables.id == kept.id => {
                check(tables, options)?;
                (changed, hold_at) = differences(tables, |name| kept.id_of(name))?;
                Some(kept)
            }
            (Some(_), _) => {
                let state = options.state.display();
                warn!(
                    "a program of an earlier lb-user is at work, but {state} does not say what its tables mean"
                );
                warn!("it is replaced; connections in mode snat or nat that it had are lost");
                None
            }
        };
        Ok(Self { at_work: pins.are_in_use(), pins: Some(pins), memory, kept, changed, hold_at })
    }

    /// After a start that failed: what was at work before stays, with what it needs.
    pub fn give_up(self, options: &Options) {
        if let (false, Some(pins)) = (self.at_work, self.pins) {
            pins.remove();
            memory::close(&options.state);
        }
    }

    /// The flow tables that the program is to be loaded onto.
    #[must_use]
    pub fn tables(&self, sizes: load::Sizes) -> load::Tables<'_> {
        match (&self.kept, &self.memory.tables) {
            (Some(kept), Some(Tables { seed, .. })) => {
                if !sizes.fit(kept) {
                    warn!("the flow tables stay as large as they are; a full stop and start changes that");
                }
                let (changed, hold_at) = (&self.changed, self.hold_at);
                load::Tables::Kept(load::Found { kept, seed: *seed, changed, hold_at })
            }
            _ => load::Tables::Made(sizes),
        }
    }

    /// What the loop is to go on with: all that is known, or what is true without the tables; and rings.
    ///
    /// # Errors
    /// When the rings cannot be read.
    pub fn facts(&mut self) -> Result<(Facts<'static>, Vec<(u16, Image)>)> {
        let facts = std::mem::take(&mut self.memory.facts);
        let Some(kept) = &self.kept else {
            return Ok((facts.without_tables(), Vec::new()));
        };
        let vips = facts.ids.iter().flat_map(|ids| ids.vips());
        let rings = kept.rings(vips)?;
        Ok((facts, rings))
    }

    /// Packets by reason that were counted so far by others; complete once their program is no longer attached.
    #[must_use]
    pub fn reasons(&self) -> Vec<(String, u64)> {
        let before = &self.memory.reasons;
        let Some(kept) = &self.kept else { return Vec::new() };
        picture::carried_over(before, &kept.reasons(before.len() as u32).unwrap_or_default())
    }

    /// A notebook about the tables that are pinned now.
    ///
    /// # Errors
    /// When they are not.
    pub fn notebook(&self, options: &Options, seed: u64) -> Result<Option<Notebook>> {
        let Some(pins) = &self.pins else { return Ok(None) };
        let mut records = BTreeMap::new();
        for (name, fields) in TOLD {
            let before = self.kept.as_ref().and_then(|kept| kept.id_of(name));
            let told = self.memory.tables.as_ref().map(|tables| &tables.records);
            let layout = before.and_then(|id| Some((id, told?.get(&id)?.clone())));
            records.extend(layout);
            records.insert(pins.id_of(name)?, fields.into());
        }
        let tables = Tables { layout: FACTS_VERSION, id: pins.id()?, seed, netns: netns()?, records };
        // With all names, or the next start could not tell what was counted.
        let reasons = picture::carried_over(&self.reasons(), &[]);
        Ok(Some(Notebook::new(&options.state, tables, reasons)))
    }
}

/// Maps whose layout is written down.
const TOLD: [(&str, &[Field]); 3] = [("FLOWS4", FLOW4), ("FLOWS6", FLOW6), ("SETTINGS", SETTINGS)];

/// What help there is against tables that cannot be taken over.
const AGAIN: &str =
    "stop it for good with \"lb-user --cleanup\", which ends its connections, then start this one";

/// Which tables are laid out differently than here, by the kernel's `id` of each; and where the settings have `hold_until`.
fn differences(tables: &Tables, id: impl Fn(&str) -> Option<u32>) -> Result<(Changed, usize)> {
    let told = |name: &str| tables.records.get(&id(name)?);
    let mut changed = Changed::new();
    for (name, fields) in TOLD.into_iter().filter(|(name, _)| *name != "SETTINGS") {
        let refuse = |why: &str| {
            anyhow!(
                "the lb-user that ran before laid out its table {name} differently ({why}), so its connections cannot be \
                 taken over; it goes on forwarding. Start its version again, or {AGAIN}"
            )
        };
        let layout = told(name).ok_or_else(|| refuse("how, it has not written down"))?;
        if let Some(translation) = Translation::between(layout, &fields.into()).map_err(|why| refuse(&why))? {
            changed.insert(name, translation);
        }
    }
    let hold_at = told("SETTINGS").and_then(|layout| layout.offset("hold_until", size_of::<u32>()));
    match hold_at {
        Some(hold_at) => Ok((changed, hold_at)),
        // Nothing is to be held for.
        None if changed.is_empty() => Ok((changed, 0)),
        None => bail!(
            "the lb-user that ran before cannot have new connections wait while those that it has are translated; it goes \
             on forwarding. Start its version again, or {AGAIN}"
        ),
    }
}

/// Whether this lb-user can go on with these tables.
fn check(tables: &Tables, options: &Options) -> Result<()> {
    if tables.netns != netns()? {
        bail!(
            "the program pinned in {} works in another network namespace; give this lb-user folders of its own with \
             --pins and --state",
            options.pins.display()
        );
    }
    if !tables.fit() {
        bail!(
            "the lb-user that ran before laid out its flow tables differently (version {}, here {FACTS_VERSION}), so \
             its connections cannot be taken over; it goes on forwarding. Start its version again, or {AGAIN}",
            tables.layout
        );
    }
    Ok(())
}

/// The network namespace of this process, as a number.
fn netns() -> io::Result<u64> {
    fs::metadata("/proc/thread-self/ns/net").map(|metadata| metadata.ino())
}

/// `lb-user --cleanup`: takes away everything that an earlier lb-user has left.
///
/// # Errors
/// When one is running, or the system refuses.
pub async fn cleanup(options: &Options, socket: &Path, proxy: &Path) -> Result<()> {
    app::require_root()?;
    let _lock = Lock::take()?;
    let netlink = Netlink::open()?;
    for on in netlink.addresses().await?.iter().filter(|on| on.ours) {
        if netlink.remove_address(on.ifindex, on.address).await? {
            info!("removed {}", on.address);
        }
    }
    // Taking them makes the folder.
    let were_there = options.pins.exists();
    match Pins::take(&options.pins) {
        Ok(pins) => {
            pins.remove();
            if were_there {
                info!("removed {}", options.pins.display());
            }
        }
        Err(error) if error.is_fatal() => bail!("{error}"),
        Err(_) => {}
    }
    if let Some(pid) = l7::end_left(proxy)? {
        info!("ended l7-proxy (pid {pid})");
    }
    // Behind the proxy, whose connections need them.
    let ways = ways_back::clean_up(&netlink).await?;
    if ways > 0 {
        info!("removed {ways} routing rules");
    }
    memory::forget(&options.state);
    if admin::socket::remove_left(socket).await? {
        info!("removed {}", socket.display());
    }
    Ok(())
}
