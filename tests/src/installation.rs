//! `lb-user` before it runs and after: its files, its command line, and what it might leave behind.

use std::{path::PathBuf, process::ExitStatus};

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
    folder: Folder,
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
            folder,
        }
    }

    /// Chooses `--xdp-mode`.
    #[must_use]
    pub fn xdp_mode(mut self, mode: &str) -> Self {
        self.xdp_mode = Some(mode.to_owned());
        self
    }

    /// Replaces the configuration file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn configure(&self, config: &str) {
        let _ = self.folder.write("lb.toml", config);
    }

    /// The administration socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.file("admin.sock")
    }

    /// The arguments of `lb-user`.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for name in &self.interfaces {
            arguments.extend(["--iface".to_owned(), name.clone()]);
        }
        for (option, path) in [("--config", self.folder.file("lb.toml")), ("--socket", self.socket())] {
            arguments.extend([option.to_owned(), path.display().to_string()]);
        }
        if let Some(mode) = &self.xdp_mode {
            arguments.extend(["--xdp-mode".to_owned(), mode.clone()]);
        }
        arguments
    }

    /// Runs `lb-user` where it is expected to end by itself; gives its status and everything it said.
    ///
    /// # Panics
    /// When it goes on running.
    #[track_caller]
    #[must_use]
    pub fn run_to_end(&self) -> (ExitStatus, String) {
        let mut command = self.ns.command(binary("lb-user"));
        Running::start("lb-user", command.args(self.arguments())).wait(LIMIT)
    }

    /// Starts `lb-user` and waits until `lbctl` gets an answer.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Balancer<'a> {
        let mut command = self.ns.command(binary("lb-user"));
        let running = Running::start("lb-user", command.args(self.arguments()));
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
}

/// Kernel id of the XDP program on a device, if there is one; `None` also where there is no such device.
#[must_use]
pub fn attached_program(ns: &Netns, device: &str) -> Option<u64> {
    let links: serde_json::Value =
        serde_json::from_str(&ns.ip_output(&["-details", "-json", "link", "show"])).expect("JSON from `ip`");
    let link = links.as_array()?.iter().find(|link| link["ifname"] == device)?;
    link["xdp"]["prog"]["id"].as_u64()
}
