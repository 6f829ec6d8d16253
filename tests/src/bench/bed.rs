//! The product's program as `lb-user` loads it, with its maps filled as `lb-user` fills them. The only file of
//! the bench that knows about either.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    maps::{Array, ArrayOfMaps, Map, MapData},
    programs::{ProgramFd, ProgramInfo, loaded_programs},
};
use lb_common::{
    abi::{Mac, RING_SIZE, Ring, Settings, Slot},
    verdict::{DropReason, Event, PassReason},
};
use lb_user::{
    config,
    datapath::{
        Datapath as _,
        load::{self, Loaded, Sizes},
    },
    model::{Config, PortRange},
    plan::{
        Desired, Ids,
        desired::{Inputs, Way, desired},
        diff::{Operation, diff},
        select::Settled,
        steering::Steering,
    },
    snapshot::Health,
};

use super::{
    case::{Mode, Service},
    packets::{self, PORT},
};
use crate::address::Family;

/// The balancer's MAC address.
pub const OWN_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

/// The MAC address that clients' packets come from.
pub const CLIENT_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

/// The MAC address that servers' packets come from and go to.
pub const SERVER_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 3]);

/// Frames come in by the loopback interface, which is number 1 everywhere, as `BPF_PROG_TEST_RUN` has it.
const IFINDEX: u32 = 1;

/// The loaded program and its maps.
pub struct Bed {
    loaded: Loaded,
    program: ProgramFd,
    settings: Settings,
}

impl Bed {
    /// Loads the program and fills its maps. Must be called within a tokio runtime, which the loader asks for.
    ///
    /// # Errors
    /// When the kernel refuses, or this build does not know the mode.
    pub fn new(service: &Service) -> Result<Self> {
        let mut loaded = load::load(sizes(service))?;
        let id = loaded.program.id()?;
        let program = programs().find(|info| info.id() == id).context("the loaded program is gone")?.fd()?;
        let config = configuration(service)?;
        let mut ids = Ids::default();
        ids.assign(&config, 1).map_err(|error| anyhow!("{error}"))?;
        let way = |address: IpAddr| {
            let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
            let way = Way {
                ifindex: IFINDEX,
                source_mac: OWN_MAC,
                next_hop: Some(SERVER_MAC),
                routed: false,
                source: Some(packets::snat_source(family)),
                mtu: 0,
            };
            (address, Ok(way))
        };
        let hops: HashMap<_, _> =
            (0..service.servers).map(|number| way(packets::server(service.server, number))).collect();
        let inputs = Inputs {
            config: &config,
            ids: &ids,
            shape: loaded.shape,
            snat_ports: &[PortRange { first: 1_024, last: u16::MAX }],
            health: &|_| Health::Up,
            steering: &Steering::default(),
            hops: &hops,
            interfaces: &BTreeMap::from([(IFINDEX, OWN_MAC)]),
            own_addresses: &HashSet::new(),
        };
        let mut desired = desired(&inputs, &mut Settled::new()).at_once();
        // Millions of SYNs a second are no flood here.
        desired.settings.syn_limit = 0;
        for operation in diff(&Desired::default(), &desired) {
            loaded.maps.apply(&operation)?;
        }
        let mut bed = Self { loaded, program, settings: desired.settings };
        if service.tagged {
            bed.tag()?;
        }
        Ok(bed)
    }

    /// Says how many SYNs are noted in a tick; 0 for all.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit_syns(&mut self, syn_limit: u32) -> Result<()> {
        self.settings.syn_limit = syn_limit;
        Ok(self.loaded.maps.apply(&Operation::Settings(self.settings))?)
    }

    /// The program, for a tail call.
    #[must_use]
    pub fn program(&self) -> &ProgramFd {
        &self.program
    }

    /// Packets that were not forwarded so far, by reason.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reasons(&self) -> Result<BTreeMap<&'static str, u64>> {
        let counts = self.loaded.maps.reasons()?;
        let count = |index: u32| counts.get(index as usize).copied().unwrap_or_default();
        let passed = PassReason::ALL.iter().map(|reason| (reason.label(), count(reason.index())));
        let dropped = DropReason::ALL.iter().map(|reason| (reason.label(), count(reason.index())));
        Ok(passed.chain(dropped).collect())
    }

    /// SYNs so far that were not noted, because there were too many.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unnoted_syns(&self) -> Result<u64> {
        Ok(self.loaded.maps.reasons()?.get(Event::SynFlood.index() as usize).copied().unwrap_or_default())
    }

    /// What the kernel says about the programs that were loaded together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn programs(&mut self) -> Result<Vec<ProgramInfo>> {
        let id = self.loaded.program.id()?;
        let maps = |info: &ProgramInfo| info.map_ids().ok().flatten().unwrap_or_default();
        let own = programs().find(|info| info.id() == id).map(|info| maps(&info)).unwrap_or_default();
        Ok(programs().filter(|info| maps(info).iter().any(|map| own.contains(map))).collect())
    }

    /// Tags all slots of all rings, as if every one had been moved just now.
    fn tag(&mut self) -> Result<()> {
        let id = self.loaded.program.id()?;
        let info = programs().find(|info| info.id() == id).context("the loaded program is gone")?;
        let ids = info.map_ids()?.context("the kernel does not tell which maps a program uses")?;
        let rings = ids
            .into_iter()
            .filter_map(|id| MapData::from_id(id).ok())
            .find(|map| map.info().is_ok_and(|info| info.name_as_str() == Some("RINGS")))
            .context("the program has no map RINGS")?;
        let rings = ArrayOfMaps::<MapData, Array<MapData, Ring>>::try_from(Map::ArrayOfMaps(rings))?;
        let mut tagged = 0;
        for vip in 0..rings.len() {
            // Most places are empty.
            let Ok(mut ring) = rings.get(&vip, 0) else { continue };
            let mut slots = Box::new(ring.get(&0, 0)?);
            slots[..RING_SIZE].iter_mut().for_each(|slot| *slot = Slot::new(Slot(*slot).server(), true).0);
            let slots: &Ring = &slots;
            ring.set(0, slots, 0)?;
            tagged += 1;
        }
        ensure!(tagged > 0, "there is no ring to tag");
        Ok(())
    }
}

/// Whether this build knows a mode.
#[must_use]
pub fn knows(mode: Mode) -> bool {
    let text = format!(
        "[pool.p]\nservers = [{{ name = \"s\", address = \"10.0.0.1\" }}]\n\
         [vip.v]\naddress = \"192.0.2.1\"\nport = 80\nmode = \"{}\"\npool = \"p\"\n",
        mode.name()
    );
    config::check("bench", &text).is_ok()
}

/// Flow tables with room for twice the flows, so that none is in another's way.
fn sizes(service: &Service) -> Sizes {
    let entries = (service.flows * 2).next_power_of_two().max(65_536);
    Sizes { flows: entries, tags: entries }
}

fn configuration(service: &Service) -> Result<Config> {
    let servers: Vec<_> = (0..service.servers)
        .map(|number| {
            let address = packets::server(service.server, number);
            format!("  {{ name = \"s{number}\", address = \"{address}\" }},\n")
        })
        .collect();
    let mut text = format!("[pool.servers]\nservers = [\n{}]\n", servers.concat());
    for number in 0..service.vips {
        text += &format!(
            "[vip.v{number}]\naddress = \"{}\"\nport = {PORT}\nprotocol = \"{}\"\nmode = \"{}\"\npool = \"servers\"\n",
            packets::vip(service.client, number),
            if service.udp { "udp" } else { "tcp" },
            service.mode.name()
        );
    }
    let checked = config::check("bench", &text).map_err(|findings| anyhow!("{findings}"))?;
    Ok(checked.config)
}

fn programs() -> impl Iterator<Item = ProgramInfo> {
    loaded_programs().filter_map(Result::ok)
}
