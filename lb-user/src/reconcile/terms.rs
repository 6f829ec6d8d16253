//! Under which conditions the operator's word is taken, and what it would bring: asked of the plan itself.

use std::{collections::HashSet, sync::Arc};

use lb_common::abi::{ServerRef, server_flags};
use tracing::info;

use super::Reconciler;
use crate::{
    admin::{
        Adoption, Done, InUse, ServerChange, ServerRequest, VipChange, VipRequest,
        version::{Denial, Terms, Version},
    },
    datapath::Datapath,
    health::{Pair, TargetId},
    model::{Config, Empty, Vip},
    plan::{
        Admin, Steering, proxied,
        select::{self, Settled},
    },
};

impl<D: Datapath> Reconciler<D> {
    /// What is in use, in a word.
    pub(crate) fn version(&self) -> Version {
        self.ledger.version(&self.steering)
    }

    /// The configuration in use.
    ///
    /// # Errors
    /// When the terms name other versions.
    pub fn in_use(&self, terms: &Terms) -> Result<Done<InUse>, Denial> {
        self.ledger.agree(terms, &self.steering)?;
        Ok(Done { what: InUse { text: self.ledger.text() }, version: self.version() })
    }

    /// Goes over to another configuration, which has another text unless only names stand for other addresses.
    ///
    /// # Errors
    /// When it does not fit into the maps, or something else is in use than who wants it has seen.
    pub fn adopt(
        &mut self,
        config: impl Into<Arc<Config>>,
        adoption: Option<Adoption>,
    ) -> Result<Done<()>, Denial> {
        let before = self.version();
        if let Some(adoption) = &adoption {
            self.ledger.agree(&adoption.terms, &self.steering)?;
        }
        self.configure(config).map_err(|error| error.to_string())?;
        if let Some(adoption) = adoption {
            self.ledger.use_text(adoption.text);
            self.ledger.note(before, self.version(), adoption.what);
        }
        Ok(Done { what: (), version: self.version() })
    }

    /// [`Self::steer_server`] on terms.
    ///
    /// # Errors
    /// As that; or when something else is in use than who asks has seen.
    pub fn on_server_request(
        &mut self,
        request: &ServerRequest,
        terms: &Terms,
    ) -> Result<Done<Vec<ServerChange>>, Denial> {
        self.steer(terms, |state| state.steer_server(request))
    }

    /// [`Self::steer_vip`] on terms.
    ///
    /// # Errors
    /// Likewise.
    pub fn on_vip_request(
        &mut self,
        request: &VipRequest,
        terms: &Terms,
    ) -> Result<Done<Vec<VipChange>>, Denial> {
        self.steer(terms, |state| state.steer_vip(request))
    }

    fn steer<T: Steered>(
        &mut self,
        terms: &Terms,
        act: impl FnOnce(&mut Self) -> Result<Vec<T>, String>,
    ) -> Result<Done<Vec<T>>, Denial> {
        self.ledger.agree(terms, &self.steering)?;
        let (former, before) = (self.steering.clone(), self.version());
        let mut changes = act(self)?;
        if terms.dry_run {
            let said = std::mem::replace(&mut self.steering, former);
            self.foresee(&said, &mut changes);
        } else {
            let words: Vec<_> = changes.iter().map(ToString::to_string).collect();
            words.iter().for_each(|line| info!("{line}, as the operator says"));
            self.ledger.note(before, self.version(), words.join("; "));
        }
        Ok(Done { what: changes, version: self.version() })
    }

    /// Tells of each change what would become of its VIP.
    fn foresee<T: Steered>(&self, said: &Steering, changes: &mut [T]) {
        let (now, then) = (self.takers(&self.steering), self.takers(said));
        for change in changes {
            let vip = self.config.vips.iter().find(|vip| vip.name == change.vip());
            let effects = vip.map(|vip| self.effects(vip, said, &now, &then)).unwrap_or_default();
            *change.effects() = effects;
        }
    }

    /// Which servers take new flows if the operator says this: by the kernel's tables, or by what l7-proxy is told.
    fn takers(&self, steering: &Steering) -> HashSet<TargetId> {
        let maps = self.wanted(steering, &mut Settled::clone(&self.settled)).maps;
        let health = |id: &dyn Pair| self.health_of(id);
        let inputs = proxied::Inputs { config: &self.config, steering, health: &health };
        let spec = proxied::spec(&inputs, &mut Settled::clone(&self.settled), &mut self.proxied.1.clone());
        let mut takers = HashSet::new();
        for (vip, leads) in self.config.services().filter(|(vip, _)| steering.is_enabled(&vip.name)) {
            for lead in leads {
                let key = select::key(&vip.name, &lead);
                let told = spec.pools.iter().find(|pool| pool.name == key).into_iter();
                let of_proxy = told.flat_map(proxied::takers);
                takers.extend(of_proxy.map(|server| TargetId::new(&vip.name, lead.name_of(server))));
                let of_kernel = lead.members().map(|member| TargetId::new(&vip.name, member.name));
                takers.extend(of_kernel.filter(|id| {
                    let entry = self.ids.server(id).and_then(|server| maps.servers.get(&server.index()));
                    entry.is_some_and(|entry| entry.flags & server_flags::ACCEPTS_NEW != 0)
                }));
            }
        }
        takers
    }

    /// What would become of a VIP: the servers' part in it, then its own.
    fn effects(
        &self,
        vip: &Vip,
        said: &Steering,
        now: &HashSet<TargetId>,
        then: &HashSet<TargetId>,
    ) -> Vec<String> {
        let mut effects = Vec::new();
        let enabled = (self.steering.is_enabled(&vip.name), said.is_enabled(&vip.name));
        let mut takes = (false, false);
        for member in self.config.members_of(vip) {
            let name = &member.name;
            let id = TargetId::new(&vip.name, name.as_ref());
            let (before, after) = (now.contains(&id), then.contains(&id));
            takes = (takes.0 || before, takes.1 || after);
            if said.state(&id) == Admin::Halt && self.steering.state(&id) != Admin::Halt {
                effects.push(if vip.mode.is_layer4() {
                    let index = self.ids.server(&id).map(ServerRef::index).unwrap_or_default();
                    let open = self.census.by_server.get(&index).copied().unwrap_or(0);
                    format!("{name}: its {open} open flows are reset")
                } else {
                    format!("{name}: its open connections are reset")
                });
            }
            let (was, is) = (self.steering.state(&id), said.state(&id));
            match (before, after) {
                (true, false) => effects.push(format!("{name} takes no new flows any more")),
                (false, true) => effects.push(format!("{name} takes new flows")),
                (false, false) if was != is => {
                    effects.push(format!("{name} takes no new flows as it is, and is {is} when it could"));
                }
                _ => {}
            }
            let weight = |steering: &Steering| steering.weight(&id).unwrap_or(member.server.weight);
            let (old, new) = (weight(&self.steering), weight(said));
            if old != new {
                effects.push(format!("{name} has weight {new} instead of {old}"));
            }
        }
        if enabled == (true, false) {
            effects.push("new flows are refused; those that are open go on".into());
        } else if takes == (true, false) && vip.mode.is_layer4() {
            let fate = match vip.empty {
                Empty::Drop => "dropped",
                Empty::Reject => "refused",
                Empty::Pass => "left to this host",
            };
            effects.push(format!("no server takes new flows: they are {fate}"));
        }
        if effects.is_empty() {
            effects.push("nothing is different".into());
        }
        effects
    }
}

/// What a word of the operator is about.
trait Steered: ToString {
    /// The name of the VIP.
    fn vip(&self) -> &str;
    /// Where it is told what would become of that.
    fn effects(&mut self) -> &mut Vec<String>;
}

impl Steered for ServerChange {
    fn vip(&self) -> &str {
        &self.vip
    }

    fn effects(&mut self) -> &mut Vec<String> {
        &mut self.effects
    }
}

impl Steered for VipChange {
    fn vip(&self) -> &str {
        &self.vip
    }

    fn effects(&mut self) -> &mut Vec<String> {
        &mut self.effects
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::tests::{all_up, health, reconciler, with},
        *,
    };
    use crate::{admin::Weight, datapath::fake::Fake, snapshot::Health};

    fn request(vip: &str, state: Option<Admin>, weight: Option<Weight>) -> ServerRequest {
        ServerRequest { vip: vip.into(), server: "s1".into(), state, weight }
    }

    fn seen(version: &Version) -> Terms {
        Terms::default().with_if_match(&format!("\"{version}\"")).unwrap()
    }

    fn ready() -> Reconciler<Fake> {
        let mut reconciler = reconciler();
        all_up(&mut reconciler);
        reconciler.ledger.use_text("one".into());
        reconciler.step(Duration::ZERO).unwrap();
        reconciler
    }

    #[test]
    fn a_dry_run_says_what_would_be_and_changes_nothing() {
        let mut reconciler = ready();
        let dry = Terms::default().with_dry_run(true);
        let before = (reconciler.version(), reconciler.facts().admin);
        let mut effects = |vip, state, weight| -> Vec<Vec<String>> {
            let told = reconciler.on_server_request(&request(vip, state, weight), &dry).unwrap();
            assert_eq!(told.version, before.0);
            told.what.into_iter().map(|change| change.effects).collect()
        };
        assert_eq!(effects("a", Some(Admin::Drain), None), [["s1 takes no new flows any more"]]);
        let halt = effects("*", Some(Admin::Halt), None);
        assert_eq!(halt[1], ["s1: its 0 open flows are reset", "s1 takes no new flows any more"]);
        assert_eq!(effects("a", None, Some(Weight::Now(7))), [["s1 has weight 7 instead of 100"]]);
        assert_eq!(effects("a", Some(Admin::Ready), None), [["nothing is different"]]);
        let all = VipRequest { vip: "a".into(), enabled: false };
        let told = reconciler.on_vip_request(&all, &dry).unwrap().what;
        assert!(told[0].effects.iter().any(|line| line.starts_with("new flows are refused")), "{told:?}");
        assert_eq!((reconciler.version(), reconciler.facts().admin), before);
        assert_eq!(reconciler.step(Duration::ZERO), Ok(0));
    }

    #[test]
    fn a_dry_run_is_right_about_servers_behind_the_proxy() {
        let mut reconciler = ready();
        for server in ["s1", "s2"] {
            reconciler.on_health(health("proxied", server, Health::Up));
        }
        reconciler.step(Duration::ZERO).unwrap();
        let dry = Terms::default().with_dry_run(true);
        let mut effects = |state| {
            reconciler
                .on_server_request(&request("proxied", Some(state), None), &dry)
                .unwrap()
                .what
                .remove(0)
                .effects
        };
        assert_eq!(effects(Admin::Drain), ["s1 takes no new flows any more"]);
        assert_eq!(
            effects(Admin::Halt),
            ["s1: its open connections are reset", "s1 takes no new flows any more"]
        );
        assert_eq!(effects(Admin::Ready), ["nothing is different"]);
        let disable = VipRequest { vip: "proxied".into(), enabled: false };
        let told = reconciler.on_vip_request(&disable, &dry).unwrap().what.remove(0).effects;
        assert_eq!(told.first().map(String::as_str), Some("s1 takes no new flows any more"), "{told:?}");
    }

    #[test]
    fn who_takes_the_last_server_away_is_told_what_becomes_of_new_flows() {
        let mut reconciler = ready();
        let other = ServerRequest { server: "s2".into(), ..request("a", Some(Admin::Drain), None) };
        reconciler.on_server_request(&other, &Terms::default()).unwrap();
        reconciler.step(Duration::ZERO).unwrap();
        let dry = Terms::default().with_dry_run(true);
        let again = reconciler.on_server_request(&other, &dry).unwrap().what;
        assert_eq!(again[0].effects, ["nothing is different"]);
        let halt = ServerRequest { state: Some(Admin::Halt), ..other.clone() };
        let halted = reconciler.on_server_request(&halt, &dry).unwrap().what;
        assert_eq!(halted[0].effects[1], "s2 takes no new flows as it is, and is halt when it could");
        let told = reconciler.on_server_request(&request("a", Some(Admin::Drain), None), &dry).unwrap().what;
        assert_eq!(told[0].effects[1], "no server takes new flows: they are dropped");
    }

    #[test]
    fn of_two_writers_who_have_seen_the_same_one_wins() {
        let mut reconciler = ready();
        let first = reconciler.version();
        let drain = request("a", Some(Admin::Drain), None);
        let second = reconciler.on_server_request(&drain, &seen(&first)).unwrap().version;
        assert_ne!(first, second);
        let late = reconciler.on_vip_request(&VipRequest { vip: "a".into(), enabled: false }, &seen(&first));
        let since = Some(vec!["VIP a: server s1 is drain".to_owned()]);
        assert_eq!(late.unwrap_err(), Denial::Changed { now: second.clone(), since });
        // A configuration is judged by the same version, whoever has steered meanwhile.
        let adoption = |terms| Adoption { text: "two".into(), what: "lb.toml".into(), terms };
        let config = || with(|text| text.replace("port = 81", "port = 91"));
        assert!(reconciler.adopt(config(), Some(adoption(seen(&first)))).is_err());
        assert_eq!(reconciler.in_use(&Terms::default()).unwrap().what.text.as_ref(), "one");
        let third = reconciler.adopt(config(), Some(adoption(seen(&second)))).unwrap().version;
        assert_ne!(second, third);
        assert_eq!(reconciler.in_use(&seen(&third)).unwrap().what.text.as_ref(), "two");
        let names_moved = reconciler.adopt(config(), None).unwrap().version;
        assert_eq!(names_moved, third);
    }
}
