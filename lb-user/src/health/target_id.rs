//! The names of what is probed.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    hash::{Hash, Hasher},
};

use serde::{Deserialize, Serialize};

/// Names what is probed: a server in the eyes of one VIP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetId {
    /// Name of the VIP.
    pub vip: String,
    /// The name by which the VIP knows the server: with its pool where that is not the VIP's own
    /// ([`Lead::name_of`](crate::model::Lead::name_of)).
    pub server: String,
}

impl TargetId {
    /// A server of a VIP, by the names of both.
    #[must_use]
    pub fn new(vip: &str, server: impl Into<String>) -> Self {
        Self { vip: vip.to_owned(), server: server.into() }
    }
}

/// A pair of names by which something is looked up that is known by [`TargetId`]: thousands of them need not be made for
/// that.
pub trait Pair {
    /// The names of the VIP, and by which it knows the server.
    fn names(&self) -> (&str, &str);
}

impl Pair for TargetId {
    fn names(&self) -> (&str, &str) {
        (&self.vip, &self.server)
    }
}

impl Pair for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Pair + 'a> for TargetId {
    fn borrow(&self) -> &(dyn Pair + 'a) {
        self
    }
}

impl Hash for dyn Pair + '_ {
    /// As [`TargetId`] does.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for dyn Pair + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Pair + '_ {}

impl PartialOrd for dyn Pair + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Pair + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(&other.names())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    #[test]
    fn what_is_known_by_an_id_is_found_by_its_names() {
        let ids = ["ab/c", "a/bc", "a/b", "b/a"].map(|names| {
            let (vip, server) = names.split_once('/').unwrap();
            (TargetId::new(vip, server), names)
        });
        let (hashed, sorted): (HashMap<_, _>, BTreeMap<_, _>) = (ids.clone().into(), ids.clone().into());
        for (id, names) in &ids {
            let pair: &dyn Pair = &(&*id.vip, &*id.server);
            assert_eq!((hashed.get(pair), sorted.get(pair)), (Some(names), Some(names)));
        }
        let unknown: &dyn Pair = &("abc", "");
        assert_eq!((hashed.get(unknown), sorted.get(unknown)), (None, None));
    }
}
