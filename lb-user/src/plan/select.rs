//! Which servers of a VIP take new flows.

use std::collections::{HashMap, HashSet};

use crate::model::{Algorithm, Config, Lead, Persistence, Server, Vip};

/// The server that each VIP with a single server for all is settled on, by [`key`]. Survives everything but the
/// removal of the VIP.
pub type Settled = HashMap<String, String>;

/// Stands between a VIP and a further pool; no name of either has it.
const IN: char = '/';

/// By which name a pool of a VIP is known: the VIP's own by the VIP's, `VIP/POOL` a further one. No two have the same.
#[must_use]
pub fn key(vip: &str, lead: &Lead<'_>) -> String {
    if lead.own { vip.to_owned() } else { further_key(vip, &lead.pool.name) }
}

/// That of a pool that is not the VIP's own.
#[must_use]
pub fn further_key(vip: &str, pool: &str) -> String {
    format!("{vip}{IN}{pool}")
}

/// The VIP in such a name.
#[must_use]
pub fn vip_in(key: &str) -> &str {
    key.split(IN).next().unwrap_or(key)
}

/// Forgets what VIPs and pools were settled on that are not there any more.
pub fn retain(settled: &mut Settled, config: &Config) {
    if settled.is_empty() {
        return;
    }
    let keys = |(vip, leads): (&Vip, Vec<Lead<'_>>)| -> Vec<String> {
        let of_pools = leads.iter().map(|lead| key(&vip.name, lead));
        of_pools.chain([vip.name.clone()]).collect()
    };
    let known: HashSet<_> = config.services().flat_map(keys).collect();
    settled.retain(|name, _| known.contains(name));
}

/// How one server is chosen for all, and under which name that is remembered.
#[derive(Clone, Debug)]
pub struct Rule {
    key: String,
    sticky: bool,
    /// Whether there is one for all at any time.
    pub one_for_all: bool,
}

impl Rule {
    /// Of a pool of a VIP.
    #[must_use]
    pub fn of(vip: &Vip, lead: &Lead<'_>) -> Self {
        let algorithm =
            lead.pool.proxied.algorithm.filter(|_| !vip.mode.is_layer4()).unwrap_or(vip.algorithm);
        Self::new(key(&vip.name, lead), &vip.persistence, algorithm)
    }

    /// Of a VIP's own pool in the kernel program.
    #[must_use]
    pub fn of_vip(vip: &Vip) -> Self {
        Self::new(vip.name.clone(), &vip.persistence, vip.algorithm)
    }

    fn new(key: String, persistence: &Persistence, algorithm: Algorithm) -> Self {
        let sticky = *persistence == Persistence::LastSuccessful;
        Self { key, sticky, one_for_all: sticky || algorithm == Algorithm::First }
    }
}

/// What is known of a server as far as new flows are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// They can be sent there.
    Usable,
    /// They cannot.
    Unusable,
    /// The first check, or the search for its MAC, has not ended. Passes within a check's timeout.
    Pending,
}

/// The servers that take new flows, as positions in `servers`, of each of which the condition is known.
///
/// Those are the ones that are usable and have a weight; backups only while there is no other; and for
/// `last-successful` (R19) a single one: the one settled on for as long as it is usable, else the first that
/// is, which `settled` then remembers. There is no fail-back. With the algorithm `first` there is: it is the first
/// that is usable. Who answers the first check first decides
/// nothing: a choice waits for the servers that would come before it.
///
/// With fewer than `needed` regular servers, those that there are count for nothing, as if they were down.
pub fn active(
    rule: &Rule,
    servers: &[Server],
    needed: usize,
    conditions: &[Condition],
    settled: &mut Settled,
) -> Vec<usize> {
    let is = |position: usize, wanted| servers[position].weight > 0 && conditions[position] == wanted;
    let having = |backup: bool, wanted: Condition| -> Vec<usize> {
        let fits = |&position: &usize| servers[position].backup == backup && is(position, wanted);
        (0..servers.len()).filter(fits).collect()
    };
    let mut active = having(false, Condition::Usable);
    let enough = active.len() >= needed.max(1);
    if !enough {
        active.clear();
    }
    // Backups step in when regular servers are known to fail, not while all are still being looked at.
    if !enough
        && (having(false, Condition::Pending).is_empty() || !having(false, Condition::Unusable).is_empty())
    {
        active = having(true, Condition::Usable);
    }
    if !rule.one_for_all {
        return active;
    }
    // A backup that was settled on stays too, although regular servers have come back.
    let stays = settled.get(&rule.key).and_then(|name| {
        let stays = servers.iter().position(|server| server.name == *name)?;
        ((servers[stays].backup || enough) && is(stays, Condition::Usable)).then_some(stays)
    });
    let first = active.first().copied();
    let before = first.is_some_and(|first| {
        having(servers[first].backup, Condition::Pending).into_iter().any(|position| position < first)
    });
    let may_choose = settled.contains_key(&rule.key) || !before;
    let chosen = match stays {
        Some(stays) if rule.sticky || before => Some(stays),
        _ => first.filter(|_| may_choose),
    };
    let Some(chosen) = chosen else {
        return Vec::new();
    };
    settled.insert(rule.key.clone(), servers[chosen].name.clone());
    vec![chosen]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::desired::tests::{server, vip};

    fn servers() -> Vec<Server> {
        let backup = Server { backup: true, ..server("spare", 4) };
        let unused = Server { weight: 0, ..server("unused", 3) };
        vec![server("s1", 1), server("s2", 2), unused, backup]
    }

    fn names(persistence: Persistence, up: &[&str], pending: &[&str], settled: &mut Settled) -> Vec<String> {
        chosen(&Vip { persistence, ..vip("v", 80) }, up, pending, settled)
    }

    fn chosen(vip: &Vip, up: &[&str], pending: &[&str], settled: &mut Settled) -> Vec<String> {
        let servers = servers();
        let condition = |server: &Server| {
            let named = |list: &[&str]| list.contains(&server.name.as_str());
            match (named(up), named(pending)) {
                (true, _) => Condition::Usable,
                (_, true) => Condition::Pending,
                _ => Condition::Unusable,
            }
        };
        let conditions: Vec<_> = servers.iter().map(condition).collect();
        let active = active(&Rule::of_vip(vip), &servers, 1, &conditions, settled);
        active.into_iter().map(|position| servers[position].name.clone()).collect()
    }

    #[test]
    fn those_that_are_up_and_have_a_weight() {
        for (up, expected) in [
            (&["s1", "s2", "unused", "spare"][..], &["s1", "s2"][..]),
            (&["s2", "spare"], &["s2"]),
            (&["unused", "spare"], &["spare"]),
            (&["unused"], &[]),
            (&[], &[]),
        ] {
            assert_eq!(names(Persistence::None, up, &[], &mut Settled::new()), expected, "{up:?} up");
        }
    }

    #[test]
    fn with_too_few_regular_servers_the_pool_is_as_good_as_down() {
        let servers = servers();
        let spread = vip("v", 80);
        let one = Vip { persistence: Persistence::LastSuccessful, ..spread.clone() };
        let mut settled = Settled::new();
        let mut names = |vip: &Vip, up: &[&str], pending: &[&str]| -> Vec<&str> {
            let condition =
                |server: &Server| match (up.contains(&&*server.name), pending.contains(&&*server.name)) {
                    (true, _) => Condition::Usable,
                    (_, true) => Condition::Pending,
                    _ => Condition::Unusable,
                };
            let conditions: Vec<_> = servers.iter().map(condition).collect();
            let active = active(&Rule::of_vip(vip), &servers, 2, &conditions, &mut settled);
            active.into_iter().map(|position| servers[position].name.as_str()).collect()
        };
        assert_eq!(names(&spread, &["s1", "s2", "spare"], &[]), ["s1", "s2"]);
        assert_eq!(names(&spread, &["s1", "spare"], &[]), ["spare"], "the backup alone");
        assert_eq!(names(&spread, &["s1"], &[]), [""; 0], "no backup: nobody");
        assert_eq!(names(&spread, &["s1", "spare"], &["s2"]), [""; 0], "it may turn out to be enough");
        assert_eq!(names(&one, &["s1", "s2", "spare"], &[]), ["s1"]);
        assert_eq!(names(&one, &["s1", "spare"], &[]), ["spare"], "also where one was settled on");
        assert_eq!(names(&one, &["s1", "s2", "spare"], &[]), ["spare"], "no fail-back");
    }

    #[test]
    fn last_successful_is_one_server_without_fail_back() {
        let mut settled = Settled::new();
        for (what, up, expected) in [
            ("nobody is known to be up yet", &[][..], &[][..]),
            ("the first in the file", &["s1", "s2", "spare"], &["s1"]),
            ("it fails: the next", &["s2", "spare"], &["s2"]),
            ("it returns: no fail-back", &["s1", "s2"], &["s2"]),
            ("all fail", &[], &[]),
            ("the one settled on returns with others", &["s1", "s2"], &["s2"]),
            ("only the spare is left", &["spare"], &["spare"]),
            ("even a spare is not failed back from", &["s1", "s2", "spare"], &["spare"]),
        ] {
            assert_eq!(names(Persistence::LastSuccessful, up, &[], &mut settled), expected, "{what}");
        }
    }

    #[test]
    fn first_is_the_first_that_is_up_with_fail_back() {
        let mut settled = Settled::new();
        let mut active = |up: &[&str], pending: &[&str]| {
            let vip = Vip { algorithm: Algorithm::First, ..vip("v", 80) };
            chosen(&vip, up, pending, &mut settled)
        };
        for (what, up, pending, expected) in [
            ("no choice by a race", &["s2"][..], &["s1"][..], &[][..]),
            ("the first", &["s1", "s2", "spare"], &[], &["s1"]),
            ("it fails", &["s2", "spare"], &[], &["s2"]),
            ("it is being looked at", &["s2"], &["s1"], &["s2"]),
            ("it returns", &["s1", "s2"], &[], &["s1"]),
            ("only the spare is left", &["spare"], &[], &["spare"]),
            ("a regular one is back", &["s2", "spare"], &[], &["s2"]),
        ] {
            assert_eq!(active(up, pending), expected, "{what}");
        }
    }

    #[test]
    fn nothing_depends_on_who_answers_the_first_check_first() {
        use Persistence::{LastSuccessful, None as Balanced};
        for (what, persistence, up, pending, expected) in [
            ("regular servers need not wait for each other", Balanced, &["s2"][..], &["s1"][..], &["s2"][..]),
            ("a backup waits for the first checks", Balanced, &["spare"], &["s1", "s2"], &[]),
            ("a backup does not wait for a newcomer", Balanced, &["spare"], &["s1"], &["spare"]),
            ("the second waits for the first", LastSuccessful, &["s2"], &["s1"], &[]),
            ("the first waits for nobody", LastSuccessful, &["s1"], &["s2"], &["s1"]),
            ("the second, once the first has failed", LastSuccessful, &["s2"], &[], &["s2"]),
        ] {
            assert_eq!(names(persistence, up, pending, &mut Settled::new()), expected, "{what}");
        }
        let mut settled = Settled::from([("v".to_owned(), "s1".to_owned())]);
        assert_eq!(
            names(LastSuccessful, &["s2"], &["s1"], &mut settled),
            ["s2"],
            "a failure is not waited out"
        );
    }
}
