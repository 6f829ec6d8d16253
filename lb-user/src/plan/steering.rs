//! What the operator has said about servers and VIPs for the time being. It is no configuration: it outlasts reloads and
//! restarts, and goes with what it is about.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    health::{Pair, TargetId},
    model::{Lead, Server, Vip},
};

/// What the operator wants of a server for the time being.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// To serve.
    #[default]
    Ready,
    /// To take no new flows and keep those it has.
    Drain,
    /// To take no new flows, and those it has are to end now.
    Halt,
}

impl std::fmt::Display for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Halt => "halt",
        })
    }
}

/// Everything the operator has said that differs from what holds without a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    states: BTreeMap<TargetId, Admin>,
    weights: BTreeMap<TargetId, u16>,
    disabled: BTreeSet<String>,
}

impl Steering {
    /// What was said before, as it was written down.
    #[must_use]
    pub fn resume(
        states: Vec<(TargetId, Admin)>,
        weights: Vec<(TargetId, u16)>,
        disabled: BTreeSet<String>,
    ) -> Self {
        let states = states.into_iter().filter(|(_, state)| *state != Admin::Ready).collect();
        Self { states, weights: weights.into_iter().collect(), disabled }
    }

    /// The states of servers, to be written down; in the order of their names.
    #[must_use]
    pub fn states(&self) -> Vec<(TargetId, Admin)> {
        self.states.iter().map(|(id, state)| (id.clone(), *state)).collect()
    }

    /// The weights, likewise.
    #[must_use]
    pub fn weights(&self) -> Vec<(TargetId, u16)> {
        self.weights.iter().map(|(id, weight)| (id.clone(), *weight)).collect()
    }

    /// The names of the VIPs that are disabled.
    #[must_use]
    pub fn disabled(&self) -> &BTreeSet<String> {
        &self.disabled
    }

    /// What is wanted of a server.
    #[must_use]
    pub fn state(&self, id: &dyn Pair) -> Admin {
        self.states.get(id).copied().unwrap_or_default()
    }

    /// The weight that a server has instead of the one in the configuration.
    #[must_use]
    pub fn weight(&self, id: &dyn Pair) -> Option<u16> {
        self.weights.get(id).copied()
    }

    /// Whether a VIP takes new flows, as far as the operator goes.
    #[must_use]
    pub fn is_enabled(&self, vip: &str) -> bool {
        !self.disabled.contains(vip)
    }

    /// Has a server be in a state.
    pub fn set_state(&mut self, id: TargetId, state: Admin) {
        match state {
            Admin::Ready => self.states.remove(&id),
            Admin::Drain | Admin::Halt => self.states.insert(id, state),
        };
    }

    /// Gives a server a weight, or with `None` the one in the configuration.
    pub fn set_weight(&mut self, id: TargetId, weight: Option<u16>) {
        match weight {
            Some(weight) => self.weights.insert(id, weight),
            None => self.weights.remove(&id),
        };
    }

    /// Enables or disables a VIP.
    pub fn set_enabled(&mut self, vip: &str, enabled: bool) {
        if enabled {
            self.disabled.remove(vip);
        } else {
            self.disabled.insert(vip.to_owned());
        }
    }

    /// Whether anything was said of servers.
    #[must_use]
    pub fn has_servers(&self) -> bool {
        !self.states.is_empty() || !self.weights.is_empty()
    }

    /// What was said of servers is about those that they have become; `None`: it is forgotten.
    pub fn rename(&mut self, turned: impl Fn(TargetId) -> Option<TargetId>) {
        let states = std::mem::take(&mut self.states).into_iter();
        self.states = states.filter_map(|(id, state)| Some((turned(id)?, state))).collect();
        let weights = std::mem::take(&mut self.weights).into_iter();
        self.weights = weights.filter_map(|(id, weight)| Some((turned(id)?, weight))).collect();
    }

    /// Forgets what is not there any more.
    pub fn retain(&mut self, server: impl Fn(&TargetId) -> bool, vip: impl Fn(&str) -> bool) {
        self.states.retain(|id, _| server(id));
        self.weights.retain(|id, _| server(id));
        self.disabled.retain(|name| vip(name));
    }

    /// The servers of a pool that a VIP leads to, with the weights that they have now.
    #[must_use]
    pub fn servers_in<'a>(&self, vip: &Vip, lead: Lead<'a>) -> Cow<'a, [Server]> {
        let mut servers = Cow::Borrowed(lead.pool.servers.as_slice());
        if self.weights.is_empty() {
            return servers;
        }
        for place in 0..servers.len() {
            let id = TargetId::new(&vip.name, lead.name_of(&servers[place].name));
            if let Some(weight) = self.weight(&id) {
                servers.to_mut()[place].weight = weight;
            }
        }
        servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::desired::tests::config;

    fn id(vip: &str, server: &str) -> TargetId {
        TargetId { vip: vip.into(), server: server.into() }
    }

    #[test]
    fn a_weight_is_for_one_server_of_one_vip() {
        let mut config = config(&[("a", &["s1", "s2"]), ("b", &[])]);
        config.vips[1].pool = Some("a".into());
        let mut steering = Steering::default();
        let lead = |vip: usize| config.leads_of(&config.vips[vip]).next().unwrap();
        let weights = |steering: &Steering, vip: usize| -> Vec<u16> {
            let servers = steering.servers_in(&config.vips[vip], lead(vip));
            servers.iter().map(|server| server.weight).collect()
        };
        assert!(matches!(steering.servers_in(&config.vips[0], lead(0)), Cow::Borrowed(_)));
        steering.set_weight(id("a", "s2"), Some(7));
        assert_eq!((weights(&steering, 0), weights(&steering, 1)), (vec![100, 7], vec![100, 100]));
        steering.set_weight(id("a", "s2"), None);
        assert_eq!((weights(&steering, 0), &steering), (vec![100, 100], &Steering::default()));
    }

    #[test]
    fn what_holds_anyway_is_not_kept_and_the_rest_can_be_written_down() {
        let mut steering = Steering::default();
        steering.set_state(id("a", "s1"), Admin::Ready);
        steering.set_enabled("a", true);
        assert_eq!(steering, Steering::default());
        steering.set_state(id("a", "s1"), Admin::Halt);
        steering.set_weight(id("b", "s1"), Some(0));
        steering.set_enabled("b", false);
        let copy = Steering::resume(steering.states(), steering.weights(), steering.disabled().clone());
        assert_eq!(copy, steering);
        assert_eq!((copy.state(&id("a", "s1")), copy.weight(&id("b", "s1"))), (Admin::Halt, Some(0)));
        assert!(copy.is_enabled("a") && !copy.is_enabled("b"));
        steering.retain(|id| id.vip == "b", |vip| vip == "a");
        assert_eq!((steering.states(), steering.weights().len()), (Vec::new(), 1));
        assert!(steering.disabled().is_empty());
    }
}
