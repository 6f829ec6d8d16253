//! The operator's word reaches the loop: what is to become of servers and VIPs for the time being.

use std::collections::HashMap;

use super::Reconciler;
use crate::{
    admin::{ServerChange, ServerRequest, VipChange, VipRequest, Weight},
    datapath::Datapath,
    health::TargetId,
    model::{Config, Lead, Server, Vip},
};

impl<D: Datapath> Reconciler<D> {
    /// Gives servers another state or weight; tells which ones.
    ///
    /// # Errors
    /// When there is none of this name, or nothing is asked for.
    pub fn steer_server(&mut self, request: &ServerRequest) -> Result<Vec<ServerChange>, String> {
        let ServerRequest { vip: wanted, server: name, state, weight } = request;
        if state.is_none() && weight.is_none() {
            return Err("nothing is to change; give a state, a weight, or both".into());
        }
        let ids: Vec<_> = self
            .vips_named(wanted)?
            .into_iter()
            .flat_map(|vip| self.config.members_of(vip).map(move |member| (vip, member)))
            .filter(|(_, member)| member.is_called(name, wanted == "*"))
            .map(|(vip, member)| TargetId::new(&vip.name, member.name))
            .collect();
        if ids.is_empty() {
            let of = if wanted == "*" { "any VIP".into() } else { format!("VIP {wanted:?}") };
            return Err(format!("there is no server {name:?} in {of}; lbctl status lists them"));
        }
        let steering = self.steering.edit();
        let change = |id: TargetId| {
            if let Some(state) = state {
                steering.set_state(id.clone(), *state);
            }
            if let Some(weight) = weight {
                steering.set_weight(id.clone(), weight.now());
            }
            ServerChange {
                state: steering.state(&id),
                weight: steering.weight(&id),
                vip: id.vip,
                server: id.server,
                effects: Vec::new(),
            }
        };
        Ok(ids.into_iter().map(change).collect())
    }

    /// Enables or disables VIPs; tells which ones.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn steer_vip(&mut self, request: &VipRequest) -> Result<Vec<VipChange>, String> {
        let VipRequest { vip: wanted, enabled } = request;
        let names: Vec<_> = self.vips_named(wanted)?.into_iter().map(|vip| vip.name.clone()).collect();
        let change = |vip: String| {
            self.steering.edit().set_enabled(&vip, *enabled);
            VipChange { vip, enabled: *enabled, effects: Vec::new() }
        };
        Ok(names.into_iter().map(change).collect())
    }

    /// Has what was said of servers go with them where another pool becomes a VIP's own in `next`: names do not tell the pool
    /// there, and a server of the same name in it is another one.
    pub(super) fn follow_pools(&mut self, next: &Config) {
        if !self.steering.has_servers() {
            return;
        }
        let after: HashMap<_, _> = next.services().map(|(vip, leads)| (&vip.name, (vip, leads))).collect();
        let mut turned = HashMap::new();
        for (vip, leads) in self.config.services() {
            let Some((now, leads_now)) = after.get(&vip.name).filter(|(now, _)| now.pool != vip.pool) else {
                continue;
            };
            for member in leads.into_iter().flat_map(Lead::members) {
                let is_same = |lead: &&Lead<'_>| lead.pool.name == member.lead.pool.name;
                // A pool that only has another name has the same servers.
                let at_its_place = |server: &&Server| {
                    server.name == member.server.name && server.address() == member.server.address()
                };
                let lead = leads_now.iter().find(is_same).or_else(|| {
                    let own = leads_now.iter().find(|lead| lead.own && member.lead.own)?;
                    own.pool.servers.iter().find(at_its_place).map(|_| own)
                });
                let name = lead.map(|lead| TargetId::new(&now.name, lead.name_of(&member.server.name)));
                turned.insert(TargetId::new(&vip.name, member.name), name);
            }
        }
        self.steering.edit().rename(|id| turned.get(&id).cloned().unwrap_or(Some(id)));
    }

    /// Forgets what was said about servers and VIPs that are not configured any more.
    pub(super) fn forget_what_is_gone(&mut self) {
        let ids = &self.ids;
        self.steering.edit().retain(|id| ids.server(id).is_some(), |vip| ids.vip(vip).is_some());
    }

    /// The VIP of this name; all of them for `*`.
    fn vips_named(&self, wanted: &str) -> Result<Vec<&Vip>, String> {
        let vips: Vec<_> =
            self.config.vips.iter().filter(|vip| wanted == "*" || vip.name == *wanted).collect();
        if vips.is_empty() {
            return Err(format!("there is no VIP {wanted:?}; lbctl status lists them"));
        }
        Ok(vips)
    }
}

impl Weight {
    /// The weight, unless it is the one in the configuration.
    fn now(self) -> Option<u16> {
        match self {
            Self::Now(weight) => Some(weight),
            Self::File(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::tests::{about, all_up, health, reconciler, with},
        *,
    };
    use crate::{
        admin::OfFile,
        datapath::fake::Fake,
        picture,
        plan::{Admin, orders::Fate},
        snapshot::{Health, PoolHealth, VipStatus},
    };

    fn request(vip: &str, server: &str, state: Admin) -> ServerRequest {
        ServerRequest { vip: vip.into(), server: server.into(), state: Some(state), weight: None }
    }

    fn weigh(vip: &str, server: &str, weight: Weight) -> ServerRequest {
        ServerRequest { vip: vip.into(), server: server.into(), state: None, weight: Some(weight) }
    }

    fn vips(reconciler: &Reconciler<Fake>) -> Vec<VipStatus> {
        picture::snapshot(reconciler, &about()).vips
    }

    #[test]
    fn what_was_said_goes_with_the_pool_and_not_with_the_name() {
        let config = |own: &str, other: &str| {
            let text = format!(
                r#"
                    [pool.web]
                    servers = [{{ name = "s1", address = "10.0.0.1" }}]
                    [pool.api]
                    servers = [{{ name = "s1", address = "10.0.0.2" }}]
                    [pool.same]
                    servers = [{{ name = "s1", address = "10.0.0.2" }}]
                    [vip.a]
                    address = "192.0.2.1"
                    port = 80
                    mode = "http"
                    pool = "{own}"
                    {other}
                "#
            );
            crate::config::check("lb.toml", &text).unwrap().config
        };
        let with_route = |pool: &str| format!(r#"routes = [{{ paths = ["/x"], pool = "{pool}" }}]"#);
        let mut reconciler = reconciler();
        reconciler.configure(config("web", &with_route("api"))).unwrap();
        reconciler.steer_server(&request("a", "s1", Admin::Drain)).unwrap();
        let said = |reconciler: &Reconciler<Fake>| -> Vec<_> {
            reconciler.steering.states().into_iter().map(|(id, state)| (id.server, state)).collect()
        };
        reconciler.configure(config("api", &with_route("web"))).unwrap();
        assert_eq!(said(&reconciler), [("web:s1".into(), Admin::Drain)]);
        reconciler.steer_server(&request("a", "s1", Admin::Halt)).unwrap();
        reconciler.configure(config("same", "")).unwrap();
        assert_eq!(
            said(&reconciler),
            [("s1".into(), Admin::Halt)],
            "a pool of another name with the same server"
        );
        reconciler.configure(config("web", "")).unwrap();
        assert_eq!(said(&reconciler), [], "another server");
    }

    #[test]
    fn a_state_is_for_a_server_of_a_vip_or_of_all_and_outlasts_a_reload() {
        let mut reconciler = reconciler();
        all_up(&mut reconciler);
        let states = |reconciler: &Reconciler<Fake>| -> Vec<_> {
            vips(reconciler).iter().take(2).map(|vip| (vip.servers[0].state, vip.servers[0].active)).collect()
        };
        reconciler.steer_server(&request("a", "s1", Admin::Drain)).unwrap();
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(states(&reconciler), [(Admin::Drain, false), (Admin::Ready, true)]);
        let changes = reconciler.steer_server(&request("*", "s1", Admin::Halt)).unwrap();
        assert_eq!(changes.len(), 3, "also where the proxy is to serve");
        reconciler.configure(with(|text| text.replace("port = 81", "port = 91"))).unwrap();
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(states(&reconciler), [(Admin::Halt, false), (Admin::Halt, false)]);
        let fates: Vec<_> = reconciler.orders().servers.iter().map(|sheet| sheet.fate).collect();
        assert_eq!(fates, [Fate::Nobody, Fate::Halted, Fate::Kept, Fate::Halted, Fate::Kept]);
        reconciler.steer_server(&request("*", "s1", Admin::Ready)).unwrap();
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(states(&reconciler), [(Admin::Ready, true), (Admin::Ready, true)]);
        for (vip, server, why) in [
            ("c", "s1", "there is no VIP \"c\"; lbctl status lists them"),
            ("a", "s9", "there is no server \"s9\" in VIP \"a\"; lbctl status lists them"),
            ("*", "s9", "there is no server \"s9\" in any VIP; lbctl status lists them"),
        ] {
            assert_eq!(reconciler.steer_server(&request(vip, server, Admin::Halt)).unwrap_err(), why);
        }
    }

    #[test]
    fn a_weight_for_the_time_being_outlasts_a_reload_and_can_be_taken_back() {
        let mut reconciler = reconciler();
        all_up(&mut reconciler);
        let seen = |reconciler: &Reconciler<Fake>| -> Vec<_> {
            let of = |vip: &VipStatus| (vip.servers[0].weight, vip.servers[0].weight_of_file);
            vips(reconciler).iter().take(2).map(of).collect()
        };
        let told = reconciler.steer_server(&weigh("a", "s1", Weight::Now(7))).unwrap();
        assert_eq!((told[0].weight, told[0].state), (Some(7), Admin::Ready));
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(seen(&reconciler), [(7, Some(100)), (100, None)]);
        let other = |text: String| text.replace("\"10.0.0.1\"", "\"10.0.0.1\", weight = 50");
        reconciler.configure(with(other)).unwrap();
        assert_eq!(seen(&reconciler), [(7, Some(50)), (50, None)], "another weight in the file");
        let facts = reconciler.facts();
        assert_eq!(facts.weights.len(), 1);
        let _ = reconciler.steer_server(&weigh("*", "s1", Weight::File(OfFile::File))).unwrap();
        assert_eq!(seen(&reconciler), [(50, None), (50, None)]);
        let nothing = ServerRequest { weight: None, ..weigh("a", "s1", Weight::Now(1)) };
        assert!(reconciler.steer_server(&nothing).unwrap_err().contains("nothing is to change"));
    }

    #[test]
    fn a_disabled_vip_takes_no_new_flows_outlasts_a_reload_and_goes_with_its_vip() {
        let mut reconciler = reconciler();
        all_up(&mut reconciler);
        reconciler.on_health(health("proxied", "s1", Health::Up));
        let request = |vip: &str, enabled| VipRequest { vip: vip.into(), enabled };
        let seen = |reconciler: &Reconciler<Fake>| -> Vec<_> {
            vips(reconciler).iter().map(|vip| (vip.enabled, vip.servers[0].active)).collect()
        };
        assert_eq!(
            reconciler.steer_vip(&request("a", false)).unwrap(),
            [VipChange { vip: "a".into(), enabled: false, effects: Vec::new() }]
        );
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(seen(&reconciler), [(false, false), (true, true), (true, true)]);
        assert_eq!(vips(&reconciler)[0].health, PoolHealth::Healthy, "its servers are as well as before");
        let fates: Vec<_> = reconciler.orders().servers.iter().map(|sheet| sheet.fate).collect();
        assert_eq!(fates[1..], [Fate::Kept; 4], "flows go on");
        reconciler.configure(with(|text| text.replace("port = 81", "port = 91"))).unwrap();
        reconciler.step(Duration::ZERO).unwrap();
        assert_eq!(seen(&reconciler)[0], (false, false));
        reconciler.configure(with(|text| text.replace("[vip.a]", "[vip.c]"))).unwrap();
        assert!(reconciler.facts().disabled.is_empty());
        assert_eq!(reconciler.steer_vip(&request("*", false)).unwrap().len(), 3, "proxied ones too");
        reconciler.step(Duration::ZERO).unwrap();
        assert!(reconciler.proxied.0.services[0].closed);
        let _ = reconciler.steer_vip(&request("proxied", true)).unwrap();
        reconciler.step(Duration::ZERO).unwrap();
        assert!(!reconciler.proxied.0.services[0].closed);
        assert!(reconciler.steer_vip(&request("a", true)).unwrap_err().contains("there is no VIP \"a\""));
    }
}
