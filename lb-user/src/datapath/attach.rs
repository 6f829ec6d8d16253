//! Puts the program on interfaces and takes it off again.

use std::io;

use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        loaded_programs,
        xdp::{XdpLink, XdpLinkId},
    },
};

use super::{Error, load::explain, pins::Pins, programs};

/// What the operator asked for with `--xdp-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// In the driver, or not at all.
    Native,
    /// In the network stack: slower, works everywhere.
    Generic,
    /// Native, and generic where the driver cannot.
    #[default]
    Auto,
}

/// How the program runs on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Whether in the driver.
    pub native: bool,
    /// Why not, if that was wanted.
    pub note: Option<String>,
}

/// The loaded program, with its stages. Dropping it detaches it everywhere, as the end of the process does.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    ebpf: Ebpf,
    links: Vec<XdpLinkId>,
    /// Links that are pinned, too: they outlive this value.
    pinned: Vec<FdLink>,
}

impl Program {
    /// Loads all programs of the object: those that know of frames in several pieces (jumbo frames) where the kernel
    /// does (5.18), the others elsewhere.
    pub(super) fn load(mut ebpf: Ebpf) -> Result<Self, Error> {
        let frags = load_one(&mut ebpf, programs::ENTRY_FRAGS).is_ok();
        let name = if frags { programs::ENTRY_FRAGS } else { programs::ENTRY };
        if !frags {
            load_one(&mut ebpf, name)?;
        }
        let suffix = if frags { programs::FRAGS } else { "" };
        for (place, stage) in programs::stages() {
            let stage = format!("{stage}{suffix}");
            load_one(&mut ebpf, &stage)?;
            let fd = xdp(&mut ebpf, &stage)?.fd()?.try_clone();
            let fd = fd.map_err(|error| Error::new("too many open files", &error))?;
            let stages =
                ebpf.map_mut("STAGES").ok_or_else(|| Error("the kernel program has no map STAGES".into()))?;
            // It stays with the other maps: its entries are gone when nobody holds it open any more.
            ProgramArray::try_from(stages)?.set(place, &fd, 0)?;
        }
        Ok(Self { name, ebpf, links: Vec::new(), pinned: Vec::new() })
    }

    /// Another program than the balancer's, already loaded.
    pub(super) fn named(name: &'static str, ebpf: Ebpf) -> Self {
        Self { name, ebpf, links: Vec::new(), pinned: Vec::new() }
    }

    /// What was loaded, to take its maps.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        xdp(&mut self.ebpf, self.name)
    }

    /// The kernel's id of the program.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn id(&mut self) -> Result<u32, Error> {
        Ok(self.xdp()?.info()?.id())
    }

    /// Attaches to an interface that has no XDP program.
    ///
    /// # Errors
    /// When the kernel refuses: what it said, and what would help.
    pub fn attach(&mut self, name: &str, ifindex: u32, wanted: Wanted) -> Result<Attached, Error> {
        let attached = match wanted {
            Wanted::Generic => {
                self.try_attach(ifindex, XdpMode::Skb).map(|()| Attached { native: false, note: None })
            }
            Wanted::Native => {
                self.try_attach(ifindex, XdpMode::Driver).map(|()| Attached { native: true, note: None })
            }
            Wanted::Auto => match self.try_attach(ifindex, XdpMode::Driver) {
                Ok(()) => Ok(Attached { native: true, note: None }),
                Err(refusal) => self.try_attach(ifindex, XdpMode::Skb).map(|()| Attached {
                    native: false,
                    note: Some(format!("no native XDP on {name}: {refusal}")),
                }),
            },
        };
        attached.map_err(|refusal| {
            let mode = if wanted == Wanted::Native { "native XDP" } else { "XDP" };
            let hint =
                if wanted == Wanted::Native { "; --xdp-mode auto or generic works everywhere" } else { "" };
            Error(format!("cannot attach to {name} with {mode}: {refusal}{hint}"))
        })
    }

    fn try_attach(&mut self, ifindex: u32, mode: XdpMode) -> Result<(), String> {
        let xdp = self.xdp().map_err(|error| error.to_string())?;
        match xdp.attach_to_if_index(ifindex, mode) {
            Ok(link) => {
                self.links.push(link);
                Ok(())
            }
            Err(ProgramError::SyscallError(error)) => Err(refusal(&error.io_error)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes over from the program that is attached to an interface by a pinned link, between two packets.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. because the interface has gone and come back.
    pub fn take_over(&mut self, ifindex: u32, pins: &Pins) -> Result<(), Error> {
        let fail = |error: &dyn std::error::Error| Error::new("cannot take over", error);
        let link = PinnedLink::from_pin(pins.link(ifindex)).map_err(|error| fail(&error))?;
        let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| fail(&error))?;
        let id = self.xdp()?.attach_to_link(link).map_err(|error| fail(&error))?;
        self.links.push(id);
        Ok(())
    }

    /// Pins the link to an interface, the last one attached to.
    ///
    /// # Errors
    /// When the kernel refuses; the program stays attached for as long as this value lives.
    pub fn pin(&mut self, ifindex: u32, pins: &Pins) -> Result<(), Error> {
        let fail = |error: &dyn std::error::Error| Error::new("cannot pin the link", error);
        let Some(id) = self.links.pop() else { return Ok(()) };
        let link = self.xdp()?.take_link(id)?;
        let link: FdLink = link.try_into().map_err(|error| fail(&error))?;
        let path = pins.link(ifindex);
        // Of an interface with this index that is no more.
        let _ = std::fs::remove_file(&path);
        self.pinned.push(link.pin(path).map_err(|error| fail(&error))?.into());
        Ok(())
    }

    /// Detaches from all interfaces; where the link is pinned, once that is removed too.
    pub fn detach(&mut self) {
        self.pinned.clear();
        let links = std::mem::take(&mut self.links);
        if let Ok(xdp) = self.xdp() {
            for link in links {
                // The interface may be gone, and the link with it.
                let _ = xdp.detach(link);
            }
        }
    }
}

/// A program of the object.
fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| Error(format!("the kernel program has no XDP program {name:?}")))
}

/// Loads one program of the object.
pub(super) fn load_one(ebpf: &mut Ebpf, name: &str) -> Result<(), Error> {
    let loaded = xdp(ebpf, name)?.load();
    loaded.map_err(|error| explain(&format!("the kernel refuses the kernel program ({name})"), &error))
}

/// What the kernel's refusal to attach means.
fn refusal(error: &io::Error) -> String {
    const EBUSY: i32 = 16;
    const ERANGE: i32 = 34;
    const EOPNOTSUPP: i32 = 95;
    match error.raw_os_error() {
        Some(EOPNOTSUPP) => "its driver does not support it".into(),
        Some(EBUSY) => "another XDP program was attached to it in the meantime".into(),
        Some(ERANGE) => "its MTU is too large for native XDP without fragments (about 3500 bytes)".into(),
        _ => error.to_string(),
    }
}

/// Name of a loaded program, by its id; for the message that somebody else's is there.
#[must_use]
pub fn program_name(id: u32) -> Option<String> {
    let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    program.name_as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}
