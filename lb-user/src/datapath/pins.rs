//! What outlives the daemon in the kernel: links and maps, each under a name in a BPF file system.
//!
//! ```text
//! /sys/fs/bpf/lb/links/2           how the program is attached to the interface with index 2
//! /sys/fs/bpf/lb/maps-7/FLOW_TAGS  a map of the seventh start
//! ```
//!
//! A start takes the maps that hold facts (`KEPT`) from the one before and makes the others anew: what is in those
//! it plans itself, and their layout may have changed. Each start has a folder of its own, so that one which is
//! killed half way leaves that of the one before as it was. Which folder counts is not a matter of names or times:
//! it is the one whose maps the attached program uses.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, Map, MapData, PerCpuArray},
    programs::{links::PinnedLink, loaded_programs},
};
use lb_common::abi::Ring;
use rustix::fs::statfs;
use tracing::warn;

use super::Error;
use crate::plan::Image;

/// Maps that hold facts about flows: whatever the next program is, it goes on with them.
pub(super) const KEPT: [&str; 12] = [
    "CLAIMS4",
    "CLAIMS6",
    "FLOWS4",
    "FLOWS6",
    "REPLIES4",
    "REPLIES6",
    "FLOW_TAGS",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "LOADS",
    "FLOOD",
    "COUNTERS",
];

/// Maps that the next start reads, by which it has flows wait, and the one whose entries are gone when nobody holds it.
const READ: [&str; 4] = [RINGS, REASONS, "SETTINGS", "STAGES"];

const RINGS: &str = "RINGS";
const REASONS: &str = "REASONS";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: u64 = 0xcafe_4a11;

/// The folder where things are pinned. No other lb-user uses it for as long as this value is there.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    /// The folder of this start's maps.
    fresh: PathBuf,
    _lock: File,
}

/// What a former start has left in the kernel.
#[derive(Clone, Debug)]
pub struct Kept {
    folder: PathBuf,
    /// The kernel's id of its flow tags: no other map has it until the next boot.
    pub id: u32,
    /// Lines of `CLAIMS4` and of `CLAIMS6`.
    pub flow_lines: u32,
    /// Lines of `FLOW_TAGS`.
    pub tag_lines: u32,
}

/// Why nothing can be pinned in a folder.
#[derive(Debug)]
pub enum Unavailable {
    /// It is not in a BPF file system.
    NoSuchSystem(PathBuf),
    /// Another lb-user uses it.
    Taken(PathBuf),
    /// The system refused.
    Refused(Error),
}

impl Unavailable {
    /// Whether going on without would be a mistake.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::NoSuchSystem(_))
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchSystem(path) => write!(f, "{} is not in a BPF file system", path.display()),
            Self::Taken(path) => write!(
                f,
                "another lb-user has its maps in {}; give this one folders of its own with --pins and --state",
                path.display()
            ),
            Self::Refused(error) => write!(f, "{error}"),
        }
    }
}

impl Pins {
    /// Takes the folder, and makes it where it is missing.
    ///
    /// # Errors
    /// When it cannot be had: it is not in a BPF file system, or another lb-user uses it.
    pub fn take(root: &Path) -> Result<Self, Unavailable> {
        let fail = |error: io::Error| {
            Unavailable::Refused(Error::new(&format!("cannot use the folder {}", root.display()), &error))
        };
        let parent = root.ancestors().skip(1).find(|path| path.exists()).unwrap_or(Path::new("/"));
        let system = statfs(parent).map_err(|error| fail(error.into()))?;
        if system.f_type as u64 != BPF_FS {
            return Err(Unavailable::NoSuchSystem(root.to_owned()));
        }
        fs::create_dir_all(root.join("links")).map_err(fail)?;
        let lock = File::open(root).map_err(fail)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Unavailable::Taken(root.to_owned()),
            TryLockError::Error(error) => fail(error),
        })?;
        let last = folders(root).filter_map(|(number, _)| number).max().unwrap_or(0);
        Ok(Self { fresh: root.join(format!("maps-{}", last + 1)), root: root.to_owned(), _lock: lock })
    }

    /// What the program goes on with that is attached to interfaces here, if there is one.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        let running: Vec<u32> = self.links().filter_map(|(_, path)| program_of(&path)).collect();
        let programs = loaded_programs().filter_map(Result::ok).filter(|info| running.contains(&info.id()));
        let used: Vec<u32> = programs.filter_map(|info| info.map_ids().ok()?).flatten().collect();
        let in_use = |folder: &Path| map_info(&folder.join(RINGS)).is_some_and(|(id, _)| used.contains(&id));
        let folder = folders(&self.root).map(|(_, path)| path).find(|folder| in_use(folder))?;
        let (id, tag_lines) = map_info(&folder.join("FLOW_TAGS"))?;
        let (_, flow_lines) = map_info(&folder.join("CLAIMS4"))?;
        Some(Kept { folder, id, flow_lines, tag_lines })
    }

    /// Whether a link is pinned, to whatever interface.
    #[must_use]
    pub fn are_in_use(&self) -> bool {
        self.links().next().is_some()
    }

    /// The program that is attached to an interface by a link of ours.
    #[must_use]
    pub fn program_on(&self, ifindex: u32) -> Option<u32> {
        program_of(&self.link(ifindex))
    }

    /// Removes the link to an interface: the program that it attaches is gone from there.
    pub fn unpin(&self, ifindex: u32) {
        let path = self.link(ifindex);
        remove(fs::remove_file(&path), &path);
    }

    /// Where the link to an interface is.
    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        self.root.join("links").join(ifindex.to_string())
    }

    /// Pins the maps of a program that is not attached yet.
    pub(super) fn pin_maps(&self, ebpf: &Ebpf) -> Result<(), Error> {
        let fail = |error: &dyn std::error::Error| Error::new("cannot pin the maps", error);
        fs::create_dir_all(&self.fresh).map_err(|error| fail(&error))?;
        for (name, map) in ebpf.maps().filter(|(name, _)| KEPT.contains(name) || READ.contains(name)) {
            map.pin(self.fresh.join(name)).map_err(|error| fail(&error))?;
        }
        Ok(())
    }

    /// Removes what former starts have left, now that the program of this one is attached: their maps, and links to
    /// interfaces other than these.
    pub fn settle(&self, interfaces: &[u32]) {
        for (ifindex, path) in self.links() {
            if !ifindex.is_some_and(|ifindex| interfaces.contains(&ifindex)) {
                remove(fs::remove_file(&path), &path);
            }
        }
        for (_, folder) in folders(&self.root).filter(|(_, folder)| *folder != self.fresh) {
            remove(fs::remove_dir_all(&folder), &folder);
        }
    }

    /// Removes everything; what no process holds any more is gone then.
    pub fn remove(self) {
        remove(fs::remove_dir_all(&self.root), &self.root);
    }

    /// Where a map of this start is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.fresh.join(name)
    }

    /// The kernel's id of a map of this start.
    ///
    /// # Errors
    /// When it is not pinned.
    pub fn id_of(&self, name: &str) -> Result<u32, Error> {
        let path = self.map(name);
        let info = map_info(&path).ok_or_else(|| Error(format!("{} is not there", path.display())))?;
        Ok(info.0)
    }

    /// The kernel's id of the flow tags of this start.
    ///
    /// # Errors
    /// When they are not pinned.
    pub fn id(&self) -> Result<u32, Error> {
        self.id_of("FLOW_TAGS")
    }

    fn links(&self) -> impl Iterator<Item = (Option<u32>, PathBuf)> + use<> {
        entries(&self.root.join("links")).map(|(name, path)| (name.parse().ok(), path))
    }
}

impl Kept {
    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The kernel's id of a map.
    #[must_use]
    pub fn id_of(&self, name: &str) -> Option<u32> {
        map_info(&self.map(name)).map(|(id, _)| id)
    }

    /// The ring of each of these VIPs, by number.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn rings(&self, vips: impl Iterator<Item = u16>) -> Result<Vec<(u16, Image)>, Error> {
        let rings: ArrayOfMaps<MapData, Array<MapData, Ring>> = open(&self.map(RINGS))?;
        let ring = |vip: u16| {
            let ring = rings.get(&u32::from(vip), 0).ok()?.get(&0, 0).ok()?;
            Some((vip, Image::new(&ring[..])))
        };
        Ok(vips.filter_map(ring).collect())
    }

    /// Packets by reason that were counted by the program of that start, in the order of its reasons. To be read when
    /// it is no longer attached.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn reasons(&self, count: u32) -> Result<Vec<u64>, Error> {
        let reasons: PerCpuArray<MapData, u64> = open(&self.map(REASONS))?;
        Ok((0..count).map_while(|reason| Some(reasons.get(&reason, 0).ok()?.iter().sum())).collect())
    }
}

/// A pinned map as the type it must have.
pub(super) fn open<M: TryFrom<Map, Error = aya::maps::MapError>>(path: &Path) -> Result<M, Error> {
    let map = MapData::from_pin(path).and_then(Map::from_map_data).and_then(M::try_from);
    map.map_err(|error| Error::new(&format!("cannot go on with {}", path.display()), &error))
}

/// The kernel's id of a pinned map, and its size.
fn map_info(path: &Path) -> Option<(u32, u32)> {
    let info = MapData::from_pin(path).ok()?.info().ok()?;
    Some((info.id(), info.max_entries()))
}

/// The program that a pinned link leads to.
fn program_of(path: &Path) -> Option<u32> {
    let link = path.exists().then(|| PinnedLink::from_pin(path).ok())??;
    let link: aya::programs::links::FdLink = link.into();
    link.info().ok().map(|info| info.program_id())
}

/// The folders of all starts, with their numbers.
fn folders(root: &Path) -> impl Iterator<Item = (Option<u32>, PathBuf)> + use<> {
    let number = |name: &str| Some(name.strip_prefix("maps-")?.parse().ok());
    entries(root).filter_map(move |(name, path)| Some((number(&name)?, path)))
}

fn entries(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
}

fn remove(outcome: io::Result<()>, path: &Path) {
    match outcome {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            warn!("cannot remove {}: {error}", path.display())
        }
        _ => {}
    }
}
