//! `lb-user` before it runs and after: its files, its command line, and what it might leave behind.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitStatus},
};

use crate::{
    daemon::{Balancer, LIMIT, binary},
    folder::Folder,
    netns::Netns,
    process::Running,
};

/// `lb-user` ready to start: where, on which interfaces, with which configuration file and socket.
#[derive(Debug)]
pub struct Installation<'a> {
    pub(crate) ns: &'a Netns,
    pub(crate) interfaces: Vec<String>,
    xdp_mode: Option<String>,
    more: Vec<String>,
    under: Vec<String>,
    program: &'static str,
    // Before the folder that it is mounted in.
    bpf: BpfFs,
    folder: Folder,
}

/// A BPF file system of its own, for what outlives `lb-user`; unmounted on drop.
#[derive(Debug)]
struct BpfFs(PathBuf);

impl BpfFs {
    #[track_caller]
    fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap_or_else(|error| panic!("make {}: {error}", at.display()));
        let status = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&at).status();
        assert!(status.is_ok_and(|status| status.success()), "mount a BPF file system at {}", at.display());
        Self(at)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // A namespace that is being removed may still have it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

impl<'a> Installation<'a> {
    /// Writes the configuration file; nothing runs yet.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    #[must_use]
    pub fn new(ns: &'a Netns, interfaces: &[&str], config: &str) -> Self {
        let folder = Folder::new();
        let _ = folder.write("lb.toml", config);
        Self {
            ns,
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            xdp_mode: None,
            more: Vec::new(),
            under: Vec::new(),
            program: "lb-user",
            bpf: BpfFs::mount(folder.file("bpf")),
            folder,
        }
    }

    /// Chooses `--xdp-mode`.
    #[must_use]
    pub fn xdp_mode(mut self, mode: &str) -> Self {
        self.xdp_mode = Some(mode.to_owned());
        self
    }

    /// Adds an option without a value.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.more.push(option.to_owned());
        self
    }

    /// Has it started by another command, such as `setpriv --no-new-privs`.
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Another `lb-user` from now on, by its place beside the usual one.
    #[must_use]
    pub fn program(mut self, program: &'static str) -> Self {
        self.program = program;
        self
    }

    /// The command that starts it.
    fn command(&self) -> Command {
        let mut command = match self.under.split_first() {
            Some((program, arguments)) => {
                let mut command = self.ns.command(program);
                command.args(arguments).arg(binary(self.program));
                command
            }
            None => self.ns.command(binary(self.program)),
        };
        command.args(self.arguments());
        command
    }

    /// Where it pins links and maps.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.bpf.0.join("lb")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.file("lb.toml")
    }

    /// The file with what they mean.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.file("state.json")
    }

    /// Replaces the configuration file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn configure(&self, config: &str) {
        let _ = self.folder.write("lb.toml", config);
    }

    /// Puts another file beside the configuration, by a relative path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.file(name);
        fs::create_dir_all(path.parent().expect("within the folder")).expect("make a folder");
        self.folder.write(name, content)
    }

    /// The administration socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.file("admin.sock")
    }

    /// The log of changes.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.folder.file("audit.jsonl")
    }

    /// The arguments of `lb-user`.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for name in &self.interfaces {
            arguments.extend(["--iface".to_owned(), name.clone()]);
        }
        arguments.extend(self.places(&["--config", "--socket", "--pins", "--state", "--history", "--audit"]));
        arguments.extend(self.more.clone());
        if let Some(mode) = &self.xdp_mode {
            arguments.extend(["--xdp-mode".to_owned(), mode.clone()]);
        }
        arguments
    }

    /// Options of `lb-user` for where its files are.
    fn places(&self, options: &[&str]) -> Vec<String> {
        let place = |option: &&str| match *option {
            "--config" => self.config(),
            "--history" => self.folder.file("history"),
            "--audit" => self.audit(),
            "--socket" => self.socket(),
            "--pins" => self.pins(),
            _ => self.state(),
        };
        let pair = |option: &&str| [(*option).to_owned(), place(option).display().to_string()];
        options.iter().flat_map(pair).collect()
    }

    /// Runs `lb-user --cleanup`; gives its status and everything it said.
    ///
    /// # Panics
    /// When it goes on running.
    #[track_caller]
    #[must_use]
    pub fn clean_up(&self) -> (ExitStatus, String) {
        let mut command = self.ns.command(binary("lb-user"));
        let command = command.arg("--cleanup").args(self.places(&["--pins", "--state", "--socket"]));
        Running::start("lb-user", command).wait(LIMIT)
    }

    /// Runs `lb-user` where it is expected to end by itself; gives its status and everything it said.
    ///
    /// # Panics
    /// When it goes on running.
    #[track_caller]
    #[must_use]
    pub fn run_to_end(&self) -> (ExitStatus, String) {
        Running::start("lb-user", &mut self.command()).wait(LIMIT)
    }

    /// Starts `lb-user` and waits until `lbctl` gets an answer.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Balancer<'a> {
        let running = Running::start("lb-user", &mut self.command());
        Balancer::adopt(self, running)
    }

    /// What is in the namespace and could be left behind.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            addresses: self.ns.ip_output(&["-oneline", "address", "show"]),
            programs: self.interfaces.iter().map(|name| attached_program(self.ns, name)).collect(),
            processes: self.ns.processes(),
            socket: self.socket().exists(),
            pins: self.pins().exists(),
            state: self.state().exists(),
        }
    }
}

/// Traces of a balancer on a machine. Equal before and after means that nothing was left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Footprint {
    /// All addresses, as `ip` prints them.
    pub addresses: String,
    /// Kernel id of the XDP program on each interface.
    pub programs: Vec<Option<u64>>,
    /// Processes in the namespace.
    pub processes: Vec<i32>,
    /// Whether the administration socket exists.
    pub socket: bool,
    /// Whether links or maps are pinned.
    pub pins: bool,
    /// Whether there is a file about them.
    pub state: bool,
}

/// Kernel id of the XDP program on a device, if there is one; `None` also where there is no such device.
#[must_use]
pub fn attached_program(ns: &Netns, device: &str) -> Option<u64> {
    let links: serde_json::Value =
        serde_json::from_str(&ns.ip_output(&["-details", "-json", "link", "show"])).expect("JSON from `ip`");
    let link = links.as_array()?.iter().find(|link| link["ifname"] == device)?;
    link["xdp"]["prog"]["id"].as_u64()
}
