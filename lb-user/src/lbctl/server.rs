//! `lbctl server`: what is to become of a server for the time being.

use std::{
    io::{self, IsTerminal as _},
    thread,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};

use super::{
    client::{At, Failure},
    file,
    output::print,
    status_of,
    terms::Terms,
    understood,
};
use crate::{
    admin::{OfFile, ServerChange, ServerRequest, Weight},
    plan::Admin,
    snapshot::Snapshot,
};

/// How often it is looked whether connections are left.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long an lb-user that cannot be reached may be about to start again.
const RESTART: Duration = Duration::from_secs(15);

/// What to do with a server. Kept over reloads and restarts, not over boots.
#[derive(Clone, Debug, Subcommand)]
pub enum Word {
    /// Have a server take no new connections; those it has go on.
    Drain {
        /// Which.
        #[command(flatten)]
        server: Target,
        /// Wait until it has no connection left, for as long as this (e.g. 90s, 10m) or for ever.
        ///
        /// In modes dr, ipip and gue the balancer does not see servers' packets: a connection that the server has reset may
        /// count for hours if its client says no more.
        #[arg(long, value_name = "TIME", num_args = 0..=1, value_parser = file::seconds)]
        wait: Option<Option<u64>>,
    },
    /// Have a server take no new connections, and end those it has, also idle ones.
    Halt {
        /// Which.
        #[command(flatten)]
        server: Target,
    },
    /// Put a server back into service.
    Ready {
        /// Which.
        #[command(flatten)]
        server: Target,
    },
    /// Give a server another share of new connections.
    Weight {
        /// Which.
        #[command(flatten)]
        server: Target,
        /// 0 (none) to 65535; 100 is usual. `file`: what the configuration says again.
        #[arg(value_name = "WEIGHT", value_parser = weight)]
        weight: Weight,
    },
}

/// Which servers.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// VIP and server by their names; `*/NAME` for a server in all its VIPs. A server that only routes lead to: `VIP/POOL:SERVER`.
    #[arg(value_name = "VIP/SERVER", value_parser = target)]
    server: (String, String),
    #[command(flatten)]
    terms: Terms,
}

fn target(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("it must be VIP/SERVER: write both names, or \"*/{text}\" for all VIPs");
    text.split_once('/').map(|(vip, server)| (vip.to_owned(), server.to_owned())).ok_or_else(wrong)
}

fn weight(text: &str) -> Result<Weight, String> {
    if text == "file" {
        return Ok(Weight::File(OfFile::File));
    }
    text.parse().map(Weight::Now).map_err(|_| "it must be a number from 0 to 65535, or file".into())
}

/// Does it, and says what holds now.
///
/// # Errors
/// When there is no such server, lb-user cannot be reached, or the time to wait is up.
pub fn run(at: &At, word: &Word) -> Result<(), Failure> {
    let (target, state, weight) = match word {
        Word::Drain { server, .. } => (server, Some(Admin::Drain), None),
        Word::Halt { server } => (server, Some(Admin::Halt), None),
        Word::Ready { server } => (server, Some(Admin::Ready), None),
        Word::Weight { server, weight } => (server, None, Some(*weight)),
    };
    let Target { server: (vip, server), terms } = target.clone();
    let request = ServerRequest { vip, server, state, weight };
    let body = serde_json::to_string(&request).map_err(|error| Failure::Answer(error.to_string()))?;
    let changes: Vec<ServerChange> = understood(&terms.post(at, "/v1/server", body)?)?;
    if terms.dry_run {
        let told = |change: &ServerChange| format!("{}  {}\n", line(change), change.effects.join("\n  "));
        return print(&changes.iter().map(told).collect::<String>());
    }
    print(&changes.iter().map(line).collect::<String>())?;
    match word {
        Word::Drain { wait: Some(patience), .. } => wait(at, &changes, patience.map(Duration::from_secs)),
        _ => Ok(()),
    }
}

fn line(change: &ServerChange) -> String {
    let ServerChange { vip, server, state, weight, .. } = change;
    let weight = weight.map(|weight| format!(", weight {weight} for the time being")).unwrap_or_default();
    format!("{vip}/{server}: {state}{weight}\n")
}

/// Waits until the servers have no connections any more.
fn wait(at: &At, changes: &[ServerChange], patience: Option<Duration>) -> Result<(), Failure> {
    let begin = Instant::now();
    let (mut count, mut seen, mut gone) = (None::<Count>, None::<Vec<String>>, None::<Instant>);
    loop {
        match status_of(at) {
            Ok(snapshot) => {
                gone = None;
                let left = left(&snapshot, changes);
                let counted = count.get_or_insert_with(|| Count::since(&snapshot)).is_fresh(&snapshot);
                if counted && left.is_empty() {
                    return print("no connections are left\n");
                }
                if !left.is_empty() && seen.as_ref() != Some(&left) && io::stderr().is_terminal() {
                    eprintln!("{}", left.join(", "));
                }
                seen = counted.then_some(left);
            }
            // It may be about to start again, and will know what it was told.
            Err(Failure::Reach(_)) if gone.get_or_insert_with(Instant::now).elapsed() < RESTART => {}
            Err(failure) => return Err(failure),
        }
        if patience.is_some_and(|patience| begin.elapsed() >= patience) {
            let left = seen.map_or_else(|| "lb-user has not counted yet".into(), |left| left.join(", "));
            return Err(Failure::TimeUp(format!("time is up; {left}")));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Which counts of connections are new enough.
struct Count {
    started: u64,
    enough: u64,
}

impl Count {
    /// Those that begin from now on: one that is under way may lack connections that came just before.
    fn since(snapshot: &Snapshot) -> Self {
        Self { started: snapshot.started, enough: snapshot.sweeps + 2 }
    }

    /// Whether what a snapshot says is one of them. An lb-user that was started anew counts from 0.
    fn is_fresh(&mut self, snapshot: &Snapshot) -> bool {
        if snapshot.started != self.started {
            *self = Self::since(snapshot);
        }
        snapshot.sweeps >= self.enough
    }
}

/// The servers that have connections. One that is not configured any more has none.
fn left(snapshot: &Snapshot, changes: &[ServerChange]) -> Vec<String> {
    let active = |change: &ServerChange| {
        let vip = snapshot.vips.iter().find(|vip| vip.name == change.vip)?;
        let server = vip.servers.iter().find(|server| server.name == change.server)?;
        Some(server.traffic.active).filter(|active| *active > 0)
    };
    let told = |change: &ServerChange| {
        let active = active(change)?;
        let connections = if active == 1 { "connection" } else { "connections" };
        Some(format!("{}/{} has {active} {connections}", change.vip, change.server))
    };
    changes.iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lbctl::status;

    fn change(vip: &str, server: &str) -> ServerChange {
        ServerChange {
            vip: vip.into(),
            server: server.into(),
            state: Admin::Drain,
            weight: None,
            effects: Vec::new(),
        }
    }

    #[test]
    fn what_is_left_is_told_by_name() {
        let snapshot = status::tests::snapshot();
        let changes = [change("aodh", "c1"), change("aodh", "gone"), change("gone", "c1")];
        assert_eq!(left(&snapshot, &changes), ["aodh/c1 has 1 connection"]);
        assert!(left(&Snapshot::default(), &changes).is_empty());
    }

    #[test]
    fn counts_are_fresh_that_began_since_also_after_a_restart() {
        let at = |started, sweeps| Snapshot { started, sweeps, ..Snapshot::default() };
        let mut count = Count::since(&at(1, 100_000));
        assert!(!count.is_fresh(&at(1, 100_001)), "it may have been under way");
        assert!(count.is_fresh(&at(1, 100_002)));
        assert!(!count.is_fresh(&at(2, 0)) && !count.is_fresh(&at(2, 1)) && count.is_fresh(&at(2, 2)));
    }

    #[test]
    fn what_holds_now_is_one_line() {
        assert_eq!(line(&change("web", "s1")), "web/s1: drain\n");
        let change = ServerChange { weight: Some(0), state: Admin::Ready, ..change("web", "s1") };
        assert_eq!(line(&change), "web/s1: ready, weight 0 for the time being\n");
    }
}
