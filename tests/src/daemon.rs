//! `lb-user` and `lbctl` as an operator runs them: a configuration file, an interface, a socket.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lb_user::snapshot::{Health, Interface, ServerStatus, Snapshot, VipStatus};
use rustix::process::Signal;

use crate::{
    netns::Netns,
    process::{self, Running},
    wait,
};

pub use crate::installation::{Footprint, Installation, attached_program};

/// Long enough for a start or stop on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A program of ours: in `LB_BIN_DIR`, or where `cargo xtask build` puts it.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("release");
    env::var_os("LB_BIN_DIR").map_or_else(built, PathBuf::from).join(name)
}

/// The first program that is not built.
#[must_use]
pub fn missing_binary() -> Option<PathBuf> {
    ["lb-user", "lbctl", "l7-proxy"].map(binary).into_iter().find(|path| !path.exists())
}

/// A running `lb-user`; killed on drop.
#[derive(Debug)]
pub struct Balancer<'a> {
    running: Running,
    installation: Installation<'a>,
}

impl<'a> Balancer<'a> {
    /// Installs and starts `lb-user` on interfaces of a namespace, in native XDP mode.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &'a Netns, interfaces: &[&str], config: &str) -> Self {
        Installation::new(ns, interfaces, config).xdp_mode("native").start()
    }

    /// Waits until a started `lb-user` answers.
    #[track_caller]
    pub(crate) fn adopt(installation: Installation<'a>, running: Running) -> Self {
        let mut balancer = Self { running, installation };
        wait::until(LIMIT, "lb-user to answer lbctl", || match balancer.running.exited() {
            Some(status) => Ok(Err(format!("lb-user ended with {status}"))),
            None => balancer.try_status().map(Ok),
        })
        .unwrap_or_else(|message| panic!("{message}"));
        balancer
    }

    /// Where and how it is installed.
    #[must_use]
    pub fn installation(&self) -> &Installation<'a> {
        &self.installation
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.log()
    }

    /// `lbctl status -o json`, read.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> Snapshot {
        self.try_status().unwrap_or_else(|error| panic!("lbctl status: {error}"))
    }

    fn try_status(&self) -> Result<Snapshot, String> {
        let text = self.lbctl(&["status", "-o", "json"])?;
        serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
    }

    /// Output of an `lbctl` command.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn lbctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary("lbctl"));
        command.arg("--socket").arg(self.installation.socket()).args(arguments);
        let output = process::output("lbctl", &mut command, LIMIT);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Replaces the configuration file and has it read again.
    ///
    /// # Errors
    /// What `lbctl reload` said.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[track_caller]
    pub fn reload(&self, config: &str) -> Result<String, String> {
        self.installation.configure(config);
        self.lbctl(&["reload"])
    }

    /// Has a server `drain`, `halt` or be `ready` in a VIP, or in all with `*`.
    ///
    /// # Panics
    /// When `lbctl` refuses.
    #[track_caller]
    pub fn server(&self, state: &str, vip: &str, server: &str) {
        let outcome = self.lbctl(&["server", state, &format!("{vip}/{server}")]);
        outcome.unwrap_or_else(|error| panic!("{state} {vip}/{server}: {error}"));
    }

    /// Waits until the status satisfies `look`, and gives that status.
    ///
    /// # Panics
    /// When it does not within `limit`; the message has the last `Err`.
    #[track_caller]
    pub fn wait_for(
        &self,
        limit: Duration,
        what: &str,
        mut look: impl FnMut(&Snapshot) -> Result<(), String>,
    ) -> Snapshot {
        wait::until(limit, what, || {
            let status = self.try_status()?;
            look(&status).map(|()| status)
        })
    }

    /// Waits until every server of every layer-4 VIP is up and can be sent to.
    ///
    /// # Panics
    /// When they are not within 20 seconds.
    #[track_caller]
    pub fn wait_all_up(&self) -> Snapshot {
        self.wait_for(LIMIT, "all servers to be up", |status| {
            let served = status.vips.iter().filter(|vip| vip.served);
            match served
                .flat_map(|vip| vip.servers.iter().map(move |server| (vip, server)))
                .find(|(_, server)| server.health != Health::Up || server.next_hop_problem.is_some())
            {
                None => Ok(()),
                Some((vip, server)) => Err(format!("{}: {}", vip.name, describe(server))),
            }
        })
    }

    /// Waits until a server has this health in a VIP.
    ///
    /// # Panics
    /// When it has not within `limit`.
    #[track_caller]
    pub fn wait_health(&self, limit: Duration, vip: &str, server: &str, health: Health) -> Snapshot {
        self.wait_for(limit, &format!("{server} to be {health:?} in {vip}"), |status| {
            let found = find_server(find_vip(status, vip), server);
            if found.health == health { Ok(()) } else { Err(describe(found)) }
        })
    }

    /// Sends SIGTERM and insists on a clean end: exit code 0. Gives the log.
    ///
    /// # Panics
    /// When it does not end, or not with 0.
    #[track_caller]
    pub fn stop(mut self) -> (Installation<'a>, String) {
        self.running.signal(Signal::TERM);
        let (status, log) = self.running.wait(LIMIT);
        assert!(status.success(), "lb-user ended with {status} after SIGTERM");
        (self.installation, log)
    }

    /// Kills it without a chance to clean up.
    ///
    /// # Panics
    /// When it survives.
    #[track_caller]
    pub fn kill(mut self) -> Installation<'a> {
        self.running.signal(Signal::KILL);
        let _ = self.running.wait(LIMIT);
        self.installation
    }

    /// Insists that every interface runs its program in native mode; gives the interfaces.
    ///
    /// # Panics
    /// When one does not, or the kernel disagrees about the program.
    #[track_caller]
    pub fn assert_native(&self) -> Vec<Interface> {
        let interfaces = self.status().interfaces;
        assert_eq!(interfaces.len(), self.installation.interfaces.len(), "one entry per interface");
        for interface in &interfaces {
            assert_eq!(interface.xdp_mode, "native", "XDP mode of {}: {:?}", interface.name, interface.note);
            let attached = attached_program(self.installation.ns, &interface.name);
            assert_eq!(attached, Some(interface.program_id.into()), "program id of {}", interface.name);
        }
        interfaces
    }
}

/// A VIP by name.
///
/// # Panics
/// When the status has no such VIP.
#[track_caller]
#[must_use]
pub fn find_vip<'s>(status: &'s Snapshot, name: &str) -> &'s VipStatus {
    status.vips.iter().find(|vip| vip.name == name).unwrap_or_else(|| panic!("no VIP {name} in the status"))
}

/// A server of a VIP by name.
///
/// # Panics
/// When the VIP has no such server.
#[track_caller]
#[must_use]
pub fn find_server<'s>(vip: &'s VipStatus, name: &str) -> &'s ServerStatus {
    let found = vip.servers.iter().find(|server| server.name == name);
    found.unwrap_or_else(|| panic!("no server {name} in VIP {}", vip.name))
}

fn describe(server: &ServerStatus) -> String {
    let problem = server.next_hop_problem.as_deref().unwrap_or("next hop known");
    format!("{} is {:?} ({}; {problem})", server.name, server.health, server.reason)
}
