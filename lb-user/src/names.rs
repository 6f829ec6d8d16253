//! Servers that are known by name: looks the names up, again and again, with the host's own resolver, so that
//! `/etc/hosts` and `resolv.conf` count as for any program.
//!
//! What a name once stood for it stands for until another answer comes: a resolver that is down says nothing about
//! servers, and their checks do.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use crate::{
    config::unfit_for_server,
    health::TargetId,
    model::{Address, AddressFamily, Config, Found, Name},
    plan::Ids,
};

/// Names that are looked up at the same time, each by a thread.
const AT_ONCE: usize = 16;

/// An answer that takes longer comes too late.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found of each name.
pub type Findings = HashMap<Name, Found>;

/// What is to be looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// These names.
    pub names: BTreeSet<Name>,
    /// Addresses that no server has: those of VIPs.
    pub taken: HashSet<IpAddr>,
    /// So often.
    pub interval: Duration,
}

impl Wanted {
    /// What a configuration wants.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let taken = config.vips.iter().map(|vip| vip.address).collect();
        Self { names: config.names(), taken, interval: config.resolve_interval }
    }
}

/// What the names of a configuration stood for when the numbers were given out that a start goes on with. Flows must
/// not end because an answer takes a moment.
#[must_use]
pub fn remembered(config: &Config, ids: &Ids) -> Findings {
    let mut findings = Findings::new();
    for (vip, member) in config.pairs() {
        let Address::Named(name, _) = &member.server.address else { continue };
        if let Some(address) = ids.address(&TargetId::new(&vip.name, member.name)) {
            findings.insert(name.clone(), Found::At(address));
        }
    }
    findings
}

/// Looks up what is wanted, for ever. What is found already is what there is to begin with.
pub async fn run(mut wanted: watch::Receiver<Arc<Wanted>>, found: watch::Sender<Arc<Findings>>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let began = Instant::now();
        let now = Arc::clone(&wanted.borrow_and_update());
        forget(&found, &now.names);
        let round = look_up_all(&now, &permits, &found);
        let rest = async {
            round.await;
            if now.names.is_empty() {
                std::future::pending::<()>().await;
            }
            sleep_until(began + now.interval).await;
        };
        tokio::select! {
            () = rest => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

/// Names that are no longer wanted.
fn forget(found: &watch::Sender<Arc<Findings>>, names: &BTreeSet<Name>) {
    found.send_if_modified(|found| {
        let kept: Findings = found
            .iter()
            .filter(|(name, _)| names.contains(name))
            .map(|(name, at)| (name.clone(), at.clone()))
            .collect();
        let changed = kept.len() != found.len();
        if changed {
            *found = Arc::new(kept);
        }
        changed
    });
}

/// Looks up every name once; tells each answer as it comes, if it is another one.
async fn look_up_all(wanted: &Wanted, permits: &Arc<Semaphore>, found: &watch::Sender<Arc<Findings>>) {
    let mut answers = JoinSet::new();
    for name in &wanted.names {
        let (name, permits) = (name.clone(), Arc::clone(permits));
        answers.spawn(async move {
            let answer = look_up(name.host.clone(), permits).await;
            (name, answer)
        });
    }
    while let Some(answer) = answers.join_next().await {
        let Ok((name, answer)) = answer else { continue };
        let before = found.borrow().get(&name).cloned().unwrap_or(Found::NotYet);
        let now = judge(&name, &before, answer, &wanted.taken);
        if now == before {
            continue;
        }
        tell(&name, &before, &now);
        found.send_modify(|found| {
            Arc::make_mut(found).insert(name, now);
        });
    }
}

/// All addresses of a host.
async fn look_up(host: String, permits: Arc<Semaphore>) -> Result<Vec<IpAddr>, String> {
    let asked = async {
        let permit = permits.acquire_owned().await;
        // The thread may be stuck for longer than anybody waits; so it holds the permit.
        let answer = spawn_blocking(move || {
            let _permit = permit;
            (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|at| at.ip()).collect())
        });
        match answer.await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

/// What a name stands for after an answer.
fn judge(name: &Name, before: &Found, answer: Result<Vec<IpAddr>, String>, taken: &HashSet<IpAddr>) -> Found {
    let why = match answer {
        Ok(all) => match choose(name, before, &all, taken) {
            Ok(address) => return Found::At(address),
            Err(why) => why,
        },
        Err(error) => {
            let error = error.trim_start_matches("failed to lookup address information: ");
            format!("its name {} does not resolve: {error}", name.host)
        }
    };
    match before {
        Found::At(_) => before.clone(),
        Found::NotYet | Found::Nowhere(_) => Found::Nowhere(why),
    }
}

/// One of the addresses: the one it was, else the lowest, so that an order that changes with each answer, or from one
/// balancer to the next, changes nothing.
fn choose(name: &Name, before: &Found, all: &[IpAddr], taken: &HashSet<IpAddr>) -> Result<IpAddr, String> {
    let host = &name.host;
    let fits = |address: &&IpAddr| match name.family {
        Some(AddressFamily::V4) => address.is_ipv4(),
        Some(AddressFamily::V6) => address.is_ipv6(),
        None => true,
    };
    let Some(first) = all.iter().filter(fits).min() else {
        let family = if name.family == Some(AddressFamily::V6) { "IPv6" } else { "IPv4" };
        return Err(format!("its name {host} has no {family} address, which its VIPs need"));
    };
    let usable: Vec<_> = all
        .iter()
        .filter(fits)
        .filter(|address| unfit_for_server(**address).is_none() && !taken.contains(address))
        .collect();
    if let Found::At(address) = before
        && usable.contains(&address)
    {
        return Ok(*address);
    }
    let why = || match unfit_for_server(*first) {
        Some(why) => format!("its name {host} stands for {first}, which {why}"),
        None => format!("its name {host} stands for {first}, which is the address of a VIP"),
    };
    usable.into_iter().min().copied().ok_or_else(why)
}

fn tell(name: &Name, before: &Found, now: &Found) {
    let host = &name.host;
    match (before, now) {
        (Found::At(before), Found::At(now)) => info!("{host} is now {now}, and no longer {before}"),
        (_, Found::At(now)) => info!("{host} is {now}"),
        (_, Found::Nowhere(why)) => warn!("a server is not known: {why}"),
        (_, Found::NotYet) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(family: Option<AddressFamily>) -> Name {
        Name { host: "rs1.example".into(), family }
    }

    fn at(address: &str) -> Found {
        Found::At(address.parse().unwrap())
    }

    /// What `name` stands for after these addresses were found; `!` for an error.
    fn after(before: &Found, family: Option<AddressFamily>, answer: &str) -> Found {
        let taken = HashSet::from(["10.0.0.100".parse().unwrap()]);
        let answer = match answer {
            "!" => Err("failed to lookup address information: Name or service not known".into()),
            list => Ok(list.split_whitespace().map(|address| address.parse().unwrap()).collect()),
        };
        judge(&name(family), before, answer, &taken)
    }

    #[test]
    fn an_address_stays_while_it_is_among_the_answers_and_else_the_lowest_is_taken() {
        let (v4, v6) = (Some(AddressFamily::V4), Some(AddressFamily::V6));
        for (sentence, before, family, answer, expected) in [
            ("the lowest", Found::NotYet, None, "10.0.0.9 10.0.0.2 fd00::1", at("10.0.0.2")),
            ("of the family", Found::NotYet, v6, "10.0.0.9 fd00::2 fd00::1", at("fd00::1")),
            ("it stays", at("10.0.0.9"), v4, "10.0.0.2 10.0.0.9", at("10.0.0.9")),
            ("it changes", at("10.0.0.9"), v4, "10.0.0.3 10.0.0.2", at("10.0.0.2")),
            ("no answer is no news", at("10.0.0.9"), v4, "!", at("10.0.0.9")),
            ("nor is a useless one", at("10.0.0.9"), v4, "127.0.0.1", at("10.0.0.9")),
            (
                "useless ones are passed over",
                Found::NotYet,
                v4,
                "127.0.0.1 10.0.0.100 10.0.0.5",
                at("10.0.0.5"),
            ),
            ("it came back", Found::Nowhere("…".into()), v4, "10.0.0.5", at("10.0.0.5")),
        ] {
            assert_eq!(after(&before, family, answer), expected, "{sentence}");
        }
    }

    #[test]
    fn why_a_name_stands_for_nothing() {
        for (family, answer, why) in [
            (None, "!", "its name rs1.example does not resolve: Name or service not known"),
            (
                Some(AddressFamily::V6),
                "10.0.0.1",
                "its name rs1.example has no IPv6 address, which its VIPs need",
            ),
            (
                None,
                "127.0.0.1",
                "its name rs1.example stands for 127.0.0.1, which is a loopback address, which never leaves its own host",
            ),
            (None, "10.0.0.100", "its name rs1.example stands for 10.0.0.100, which is the address of a VIP"),
        ] {
            assert_eq!(after(&Found::NotYet, family, answer), Found::Nowhere(why.into()));
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_by_the_hosts_own_resolver() {
        let names: BTreeSet<_> =
            ["localhost", "no-such-host.invalid"].map(|host| Name { host: host.into(), family: None }).into();
        let interval = Duration::from_secs(3_600);
        let wanted = Wanted { names: names.clone(), taken: HashSet::new(), interval };
        let (sender, receiver) = watch::channel(Arc::new(wanted));
        let (found, mut findings) = watch::channel(Arc::default());
        let running = tokio::spawn(run(receiver, found));
        let all = timeout(Duration::from_secs(30), findings.wait_for(|found| found.len() == 2)).await;
        let all = Arc::clone(&all.expect("in time").expect("it runs"));
        let why = |host: &str| match &all[&Name { host: host.into(), family: None }] {
            Found::Nowhere(why) => why.clone(),
            other => panic!("{host}: {other:?}"),
        };
        assert!(why("localhost").contains("which is a loopback address"), "{}", why("localhost"));
        assert!(why("no-such-host.invalid").contains("does not resolve"), "{}", why("no-such-host.invalid"));
        sender.send_replace(Arc::default());
        let none = timeout(Duration::from_secs(30), findings.wait_for(|found| found.is_empty())).await;
        assert!(none.is_ok_and(|found| found.is_ok()), "what is not wanted is forgotten");
        drop(sender);
        running.await.unwrap();
    }
}
