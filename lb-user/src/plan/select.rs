//! Which servers of a VIP take new flows.

use std::collections::HashMap;

use crate::model::{Persistence, Server, Vip};

/// The server that each `last-successful` VIP is settled on, by VIP name. Survives everything but the
/// removal of the VIP.
pub type Settled = HashMap<String, String>;

/// The servers that take new flows, as positions in `servers`.
///
/// Those are the ones that are up and have a weight; backups only while there is no other; and for
/// `last-successful` (R19) a single one: the one settled on for as long as it is up, else the first that is,
/// which `settled` then remembers. There is no fail-back.
pub fn active(
    vip: &Vip,
    servers: &[Server],
    up: impl Fn(&Server) -> bool,
    settled: &mut Settled,
) -> Vec<usize> {
    let candidates = |backup: bool| -> Vec<usize> {
        let fits = |server: &Server| server.backup == backup && server.weight > 0 && up(server);
        (0..servers.len()).filter(|&position| fits(&servers[position])).collect()
    };
    let regular = candidates(false);
    let active = if regular.is_empty() { candidates(true) } else { regular };
    if vip.persistence != Persistence::LastSuccessful {
        return active;
    }
    // A backup that was settled on stays too, although regular servers have come back.
    let stays = settled.get(&vip.name).and_then(|name| {
        servers.iter().position(|server| server.name == *name && server.weight > 0 && up(server))
    });
    let Some(chosen) = stays.or_else(|| active.first().copied()) else {
        return Vec::new();
    };
    settled.insert(vip.name.clone(), servers[chosen].name.clone());
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

    fn names(persistence: Persistence, up: &[&str], settled: &mut Settled) -> Vec<String> {
        let vip = Vip { persistence, ..vip("v", 80) };
        let servers = servers();
        let active = active(&vip, &servers, |server| up.contains(&server.name.as_str()), settled);
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
            assert_eq!(names(Persistence::None, up, &mut Settled::new()), expected, "{up:?} up");
        }
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
            assert_eq!(names(Persistence::LastSuccessful, up, &mut settled), expected, "{what}");
        }
    }
}
