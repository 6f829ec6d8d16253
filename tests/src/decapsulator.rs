//! `lb-user decap` on a server, as its operator runs it.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;

use crate::{daemon::binary, netns::Netns, process::Running, topology::Topology, wait};

/// Long enough for a start or stop on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A running `lb-user decap`; killed on drop.
#[derive(Debug)]
pub struct Decapsulator(Running);

impl Decapsulator {
    /// Starts it on `eth0` of a namespace, in native mode, with more arguments.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, arguments: &[&str]) -> Self {
        let mut running =
            Self::launch(ns, &[&["--iface", "eth0", "--xdp-mode", "native"], arguments].concat());
        running.wait_for_line(LIMIT, "decapsulating on eth0 with native XDP");
        Self(running)
    }

    /// Starts one on every server of a network, for the tunnels of its balancer only.
    ///
    /// # Panics
    /// When one does not come up.
    #[track_caller]
    #[must_use]
    pub fn start_all(net: &Topology) -> Vec<Self> {
        let [front, back] = net.lb_addresses();
        let from = format!("{},{},{},{}", front.v4, front.v6, back.v4, back.v6);
        net.servers.iter().map(|host| Self::start(&host.ns, &["--from", &from])).collect()
    }

    /// Starts the program with these arguments, whatever comes of it.
    ///
    /// # Panics
    /// When it cannot be started at all.
    #[track_caller]
    #[must_use]
    pub fn launch(ns: &Netns, arguments: &[&str]) -> Running {
        Running::start("lb-user decap", ns.command(binary("lb-user")).arg("decap").args(arguments))
    }

    /// Packets by outcome.
    ///
    /// # Panics
    /// When it does not tell.
    #[track_caller]
    pub fn outcomes(&mut self) -> BTreeMap<String, u64> {
        let before = reports(&self.0.stdout()).len();
        self.0.signal(Signal::USR1);
        wait::until(LIMIT, "lb-user decap to print its counters", || {
            let mut all = reports(&self.0.stdout());
            if all.len() > before { Ok(all.remove(before)) } else { Err(self.0.log()) }
        })
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// Sends SIGTERM and insists on a clean end: exit code 0. Gives packets by outcome.
    ///
    /// # Panics
    /// When it does not end, or not with 0, or without its counters.
    #[track_caller]
    pub fn stop(mut self) -> BTreeMap<String, u64> {
        self.0.signal(Signal::TERM);
        let (status, log) = self.0.wait(LIMIT);
        assert!(status.success(), "lb-user decap ended with {status} after SIGTERM: {log}");
        reports(&self.0.stdout()).pop().expect("counters at the end")
    }
}

/// The reports in the output that are complete.
fn reports(output: &str) -> Vec<BTreeMap<String, u64>> {
    let mut reports = Vec::new();
    let mut report = BTreeMap::new();
    for line in output.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let (name, packets) = line.trim_end().split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        report.insert(name.to_owned(), packets.trim().parse().unwrap_or_else(|_| panic!("{line:?}")));
        if report.len() == lb_common::decap::Outcome::ALL.len() {
            reports.push(std::mem::take(&mut report));
        }
    }
    reports
}

#[cfg(test)]
mod tests {
    use super::reports;

    #[test]
    fn only_whole_reports_count() {
        let labels = lb_common::decap::Outcome::ALL.map(|outcome| outcome.label());
        let text: String = labels.iter().map(|label| format!("{label:<16}{}\n", 7)).collect();
        let twice = format!("{text}{text}");
        assert_eq!(reports(&twice).len(), 2);
        assert_eq!(reports(&twice[..twice.len() - 1]).len(), 1);
        assert!(reports(&text)[0].values().all(|packets| *packets == 7));
    }
}
