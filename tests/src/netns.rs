//! Network namespaces: made, entered and removed with all that runs in them.
//!
//! Names are `lbt-<pid>-<number>-<role>`, so a run that was killed leaves names whose process is gone; the
//! next run removes those.

use std::{
    fmt,
    fs::{self, File},
    io::Write as _,
    os::fd::AsFd as _,
    path::Path,
    process::{self, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// Where iproute2 keeps the names.
const FOLDER: &str = "/run/netns";
const PREFIX: &str = "lbt-";

/// A network namespace, removed on drop.
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Makes a namespace, `role` being the readable part of its name. Its loopback device is up; IPv6
    /// addresses are usable at once (no duplicate address detection) and nobody listens to routers.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn new(role: &str) -> Self {
        Self::try_new(role).unwrap_or_else(|error| panic!("namespace for {role}: {error}"))
    }

    /// [`Self::new`] that reports failure.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn try_new(role: &str) -> Result<Self, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_leftovers);

        let name = format!("{PREFIX}{}-{}-{role}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let output = Command::new("ip").args(["netns", "add", &name]).output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let file = File::open(Path::new(FOLDER).join(&name)).map_err(|e| e.to_string())?;
        let namespace = Self { name, file };
        for conf in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{conf}/accept_dad"), "0");
            namespace.sysctl(&format!("ipv6/conf/{conf}/accept_ra"), "0");
            namespace.sysctl(&format!("ipv6/conf/{conf}/router_solicitations"), "0");
        }
        namespace.ip("link set lo up");
        Ok(namespace)
    }

    /// Name as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in this namespace and gives its result. Sockets opened there stay in the namespace.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread that lives in this namespace; so do the threads it starts.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = self.file.try_clone().expect("a second handle on a namespace file");
        thread::spawn(move || {
            enter(&file);
            work()
        })
    }

    /// A command that will run in this namespace, with that namespace's `/sys`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).stdin(Stdio::null());
        command
    }

    /// Runs `ethtool` in this namespace.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ethtool(&self, arguments: &[&str]) {
        let output = self.command("ethtool").args(arguments).output().expect("run `ethtool`");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ethtool {arguments:?} in {}: {}", self.name, said.trim());
    }

    /// Runs `ip` commands, one per line, in this namespace.
    ///
    /// # Panics
    /// When one fails.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        self.batch(&[], lines);
    }

    /// Runs `ip -6` commands, one per line: for those that do not tell the family from an address.
    ///
    /// # Panics
    /// When one fails.
    #[track_caller]
    pub fn ip6(&self, lines: &str) {
        self.batch(&["-6"], lines);
    }

    #[track_caller]
    fn batch(&self, options: &[&str], lines: &str) {
        let mut child = Command::new("ip")
            .args(options)
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run `ip`");
        // Dropping the pipe ends the batch. A failed write means `ip` has already given up and says why.
        let _ = child.stdin.take().expect("a pipe to `ip`").write_all(format!("{lines}\n").as_bytes());
        let output = child.wait_with_output().expect("wait for `ip`");
        assert!(
            output.status.success(),
            "in {}: {}\nwas asked:\n{lines}",
            self.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }

    /// What `ip <arguments>` prints in this namespace.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn ip_output(&self, arguments: &[&str]) -> String {
        let output = Command::new("ip").args(["-n", &self.name]).args(arguments).output().expect("run `ip`");
        assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sets a value under `/proc/sys/net/`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(key);
        if let Err(error) = self.run(|| fs::write(&path, value)) {
            panic!("{}={value} in {}: {error}", path.display(), self.name);
        }
    }

    /// Ids of the processes in this namespace.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        processes(&self.name)
    }

    fn enter(&self) {
        enter(&self.file);
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Moves the calling thread. Only ever called on threads made for it: the process itself stays where it is.
fn enter(file: &File) {
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("enter a namespace this process made");
}

fn processes(name: &str) -> Vec<i32> {
    let output = Command::new("ip").args(["netns", "pids", name]).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Kills what runs in a namespace, then removes it.
fn remove(name: &str) {
    for pid in processes(name) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Removes namespaces whose maker is gone, also those of an earlier process with this one's id.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(FOLDER) else { return };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        if let Some(pid) = maker(&name)
            && (pid == process::id() || !Path::new("/proc").join(pid.to_string()).exists())
        {
            remove(&name);
        }
    }
}

/// Id of the process that made a namespace of this name; `None` where it is not one of ours.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn only_names_of_this_harness_are_recognised() {
        assert_eq!(maker("lbt-12-3-client"), Some(12));
        assert_eq!(maker("lbt-x-3-client"), None);
        assert_eq!(maker("blue"), None);
    }
}
