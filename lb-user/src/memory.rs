//! What the loop knows and a next start cannot find out by itself, in a file: which numbers the kernel's tables know VIPs and
//! servers by, who is well, what the operator has said.
//!
//! It is written before the maps are, and replaced in one step: whenever the daemon is killed, the file is whole, and what
//! the maps contain is not ahead of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use lb_common::abi::{Counters, FACTS_VERSION};
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::{
    health::{HealthEvent, TargetId},
    plan::{Admin, Ids, select::Settled},
    takeover::layout::Layout,
};

/// Version of the file. What is added with a default needs no new one.
const FORMAT: u32 = 1;

/// Where it is unless `--state` says otherwise. It is worth nothing after a boot, and this folder is gone then.
pub const DEFAULT: &str = "/run/lb/state.json";

/// Everything that a next start goes on with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory<'a> {
    format: u32,
    /// Which tables of the kernel it is about; none once they are gone.
    pub tables: Option<Tables>,
    /// Packets by reason that the kernel has counted for former programs, in the order of the program at work.
    #[serde(default)]
    pub reasons: Vec<(String, u64)>,
    /// What the loop knows.
    #[serde(default)]
    pub facts: Facts<'a>,
}

/// Names the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    /// What they mean: [`FACTS_VERSION`].
    pub layout: u32,
    /// The kernel's id of the flow tags.
    pub id: u32,
    /// The seed of their hashes.
    pub seed: u64,
    /// The network namespace (its inode) in which the program is attached.
    pub netns: u64,
    /// How maps are laid out that the next program may lay out differently, by the kernel's id of each: also of those that
    /// were taken over from, for a start may be killed before its program is attached.
    #[serde(default)]
    pub records: BTreeMap<u32, Layout>,
}

/// [`Counters`], as they are written: packets and bytes in, packets and bytes out, connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted([u64; 5]);

impl From<Counters> for Counted {
    fn from(counters: Counters) -> Self {
        let Counters { packets_in, bytes_in, packets_out, bytes_out, connections } = counters;
        Self([packets_in, bytes_in, packets_out, bytes_out, connections])
    }
}

impl From<Counted> for Counters {
    fn from(Counted([packets_in, bytes_in, packets_out, bytes_out, connections]): Counted) -> Self {
        Self { packets_in, bytes_in, packets_out, bytes_out, connections }
    }
}

/// What the loop knows. What is large is borrowed from it to be written down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts<'a> {
    /// Numbers of VIPs and servers.
    pub ids: Option<Cow<'a, Ids>>,
    /// Which server a VIP has settled on.
    #[serde(default)]
    pub settled: Settled,
    /// What the operator has said about servers.
    #[serde(default)]
    pub admin: Vec<(TargetId, Admin)>,
    /// The weights that servers have instead of those in the configuration.
    #[serde(default)]
    pub weights: Vec<(TargetId, u16)>,
    /// VIPs that the operator has disabled.
    #[serde(default)]
    pub disabled: BTreeSet<String>,
    /// Who is well.
    #[serde(default)]
    pub health: Vec<Cow<'a, HealthEvent>>,
    /// What was counted for servers that are gone, by number of their VIP.
    #[serde(default)]
    pub retired: BTreeMap<u16, Counted>,
    /// What the kernel had counted before an index was given to its server.
    #[serde(default)]
    pub inherited: BTreeMap<u16, Counted>,
    /// Ranges, first and last, that `snat` has had its ports from since the tables were made: flows may have any of them.
    #[serde(default)]
    pub snat_ports: Vec<(u16, u16)>,
}

impl Facts<'_> {
    /// What of it is true without the kernel's tables.
    #[must_use]
    pub fn without_tables(self) -> Self {
        let Self { settled, admin, weights, disabled, .. } = self;
        Self { settled, admin, weights, disabled, ..Self::default() }
    }
}

impl Memory<'_> {
    /// Without what is only true while the tables are there.
    #[must_use]
    fn without_tables(self) -> Self {
        Self { format: FORMAT, tables: None, reasons: Vec::new(), facts: self.facts.without_tables() }
    }

    /// Reads the file. One that is missing is empty; so is one that cannot be read, which is logged.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                warn!("cannot read {}: {error}; going on without it", path.display());
                return Self::default();
            }
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(memory) if memory.format == FORMAT => memory,
            Ok(Self { format, .. }) => {
                warn!("{} has format {format}, not {FORMAT}; going on without it", path.display());
                Self::default()
            }
            Err(error) => {
                warn!("{} is damaged: {error}; going on without it", path.display());
                Self::default()
            }
        }
    }
}

impl Tables {
    /// Whether a program of this version can go on with them.
    #[must_use]
    pub fn fit(&self) -> bool {
        self.layout == FACTS_VERSION
    }
}

/// The file, and what it says.
#[derive(Debug)]
pub struct Notebook {
    path: PathBuf,
    tables: Tables,
    /// What was counted before.
    reasons: Vec<(String, u64)>,
    written: Vec<u8>,
    /// The edition of the facts that are written.
    edition: Option<u64>,
    refused: bool,
}

impl Notebook {
    /// A file about these tables, written with the first [`Self::write`]. `reasons` is what was counted before.
    #[must_use]
    pub fn new(path: &Path, tables: Tables, reasons: Vec<(String, u64)>) -> Self {
        Self { path: path.to_owned(), tables, reasons, written: Vec::new(), edition: None, refused: false }
    }

    /// Corrects what was counted before; to be written with the next facts.
    pub fn count_from(&mut self, reasons: Vec<(String, u64)>) {
        self.reasons = reasons;
        self.edition = None;
    }

    /// Makes the file tell facts, unless it does: those of the `edition` that it tells are not even asked for. One that cannot be written is logged once: the balancer goes on,
    /// without the file. What it said is behind what the maps are about to contain, and a start that believed it would
    /// give numbers away that are in use.
    pub fn write<'a>(&mut self, edition: u64, facts: impl FnOnce() -> Facts<'a>) {
        if self.edition == Some(edition) {
            return;
        }
        let facts = facts();
        let (tables, reasons) = (Some(self.tables.clone()), self.reasons.clone());
        let memory = Memory { format: FORMAT, tables, reasons, facts };
        let text = serde_json::to_vec(&memory).expect("plain data becomes JSON");
        if text == self.written {
            self.edition = Some(edition);
            return;
        }
        match replace(&self.path, &text) {
            Ok(()) => (self.written, self.edition, self.refused) = (text, Some(edition), false),
            Err(error) => {
                if !self.refused {
                    let path = self.path.display();
                    error!("cannot write {path}: {error}; until that is mended a restart would begin anew");
                }
                forget(&self.path);
                self.written.clear();
                (self.edition, self.refused) = (None, true);
            }
        }
    }
}

/// Once the kernel's tables are gone: leaves in the file what is true without them, or removes it if that is nothing.
pub fn close(path: &Path) {
    let memory = Memory::read(path).without_tables();
    let outcome = if memory.facts == Facts::default() {
        fs::remove_file(path)
    } else {
        replace(path, &serde_json::to_vec(&memory).expect("plain data becomes JSON"))
    };
    match outcome {
        Err(error) if error.kind() != ErrorKind::NotFound => warn!("cannot tidy {}: {error}", path.display()),
        _ => leave_folder(path),
    }
}

/// Removes the folder of the usual file once nothing is in it.
fn leave_folder(path: &Path) {
    if path == Path::new(DEFAULT)
        && let Some(folder) = path.parent()
    {
        // Fails, as it should, when something is.
        let _ = fs::remove_dir(folder);
    }
}

/// Removes the file.
pub fn forget(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            warn!("cannot remove {}: {error}", path.display())
        }
        _ => {}
    }
}

/// Writes beside the file, then puts that in its place: whoever reads it finds the old text or the new.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::{
        env, iter,
        process::{Command, Stdio},
        time::Duration,
    };

    use super::*;
    use crate::{plan::desired::tests::config, snapshot::Health};

    fn facts(servers: &[&str]) -> Facts<'static> {
        let mut ids = Ids::default();
        ids.assign(&config(&[("a", servers)]), 1).unwrap();
        let id = |server: &str| TargetId { vip: "a".into(), server: server.into() };
        let well = |server: &&str| HealthEvent {
            id: id(server),
            state: Health::Up,
            reason: "connected".into(),
            since: 7,
            changed: false,
        };
        Facts {
            ids: Some(Cow::Owned(ids)),
            settled: [("a".to_owned(), servers[0].to_owned())].into(),
            admin: vec![(id(servers[0]), Admin::Drain)],
            weights: vec![(id(servers[0]), 7)],
            disabled: ["a".to_owned()].into(),
            health: servers.iter().map(|server| Cow::Owned(well(server))).collect(),
            retired: [(1, Counted([1, 2, 3, 4, 5]))].into(),
            inherited: [(2, Counted([5, 4, 3, 2, 1]))].into(),
            snat_ports: vec![(1_024, 2_047)],
        }
    }

    fn notebook(path: &Path) -> Notebook {
        let tables =
            Tables { layout: FACTS_VERSION, id: 9, seed: u64::MAX, netns: 3, records: BTreeMap::new() };
        Notebook::new(path, tables, vec![("drop no server".to_owned(), 17)])
    }

    #[test]
    fn everything_that_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb/state.json");
        assert_eq!(Memory::read(&path), Memory::default());
        let mut notebook = notebook(&path);
        notebook.write(2, || facts(&["s1", "s2"]));
        let read = Memory::read(&path);
        assert_eq!((&read.facts, read.tables), (&facts(&["s1", "s2"]), Some(notebook.tables)));
        assert_eq!(read.reasons, notebook.reasons);
        close(&path);
        let left = Memory::read(&path);
        assert_eq!((left.tables, left.facts.ids, left.facts.health.len()), (None, None, 0));
        assert_eq!((left.facts.admin.len(), left.facts.weights.len(), left.facts.disabled.len()), (1, 1, 1));
    }

    #[test]
    fn what_cannot_be_kept_up_to_date_is_not_left_to_be_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut notebook = notebook(&path);
        notebook.write(1, || facts(&["s1"]));
        fs::create_dir(folder.path().join("state.new")).unwrap();
        notebook.write(2, || facts(&["s1", "s2"]));
        assert!(!path.exists());
        fs::remove_dir(folder.path().join("state.new")).unwrap();
        notebook.write(2, || facts(&["s1", "s2"]));
        assert_eq!(Memory::read(&path).facts, facts(&["s1", "s2"]));
    }

    #[test]
    fn a_file_about_nothing_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        notebook(&path).write(0, Facts::default);
        assert!(path.exists());
        close(&path);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_damaged_or_of_another_format_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for text in ["", "{", "{\"format\":2}", "[]", "{\"format\":1,\"facts\":7}", "\0\0\0\0"] {
            fs::write(&path, text).unwrap();
            assert_eq!(Memory::read(&path), Memory::default(), "{text}");
        }
    }

    /// Names the folder for a process that writes until it is killed.
    const WRITE_IN: &str = "LB_TEST_WRITE_STATE_IN";

    #[test]
    fn writes_for_ever_where_it_is_told_to() {
        let Some(folder) = env::var_os(WRITE_IN) else { return };
        let mut notebook = notebook(&Path::new(&folder).join("state.json"));
        let (small, large) = (facts(&["s1"]), facts(&["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"]));
        for (edition, facts) in (0..).zip(iter::repeat([small, large]).flatten()) {
            notebook.write(edition, || facts);
        }
    }

    #[test]
    fn killed_at_any_moment_the_file_says_one_thing_or_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let known = [facts(&["s1"]), facts(&["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"])];
        let mut seen = [0; 2];
        for round in 0..200_u64 {
            let mut writer = Command::new(env::current_exe().unwrap());
            writer.args(["--exact", "memory::tests::writes_for_ever_where_it_is_told_to"]);
            writer.env(WRITE_IN, folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
            let before = fs::read(&path).ok();
            let mut writer = writer.spawn().unwrap();
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            // Some writes after it has begun, wherever that is.
            while fs::read(&path).ok() == before && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_micros(round * 37 % 1_900));
            writer.kill().unwrap();
            let _ = writer.wait().unwrap();
            let read = Memory::read(&path).facts;
            let which = known.iter().position(|facts| *facts == read);
            seen[which.expect("the old or the new, whole")] += 1;
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}
