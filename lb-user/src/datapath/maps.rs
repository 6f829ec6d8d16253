//! The maps that user space writes, and the counters.

use std::io::ErrorKind;

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
};
use lb_common::{
    abi::{Counters, Interface, QuicLb, QuicLbKey, QuicServerKey, Server, Settings, Vip, VipKey, VipLimit},
    verdict::REASON_COUNT,
};

use super::{Datapath, Error, load::take, rings::Writers};
use crate::plan::{Image, Operation};

/// Open maps of the loaded program.
pub struct Maps {
    settings: Array<MapData, Settings>,
    vips4: HashMap<MapData, VipKey<u32>, Vip>,
    vips6: HashMap<MapData, VipKey<[u32; 4]>, Vip>,
    rings: Writers,
    servers: Array<MapData, Server>,
    interfaces: Array<MapData, Interface>,
    limits: Array<MapData, VipLimit>,
    quic: HashMap<MapData, QuicLbKey, QuicLb>,
    quic_servers: HashMap<MapData, QuicServerKey, u32>,
    counters: PerCpuArray<MapData, Counters>,
    reasons: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// When one is missing or of another type: the object is not of this version.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            settings: take(ebpf, "SETTINGS")?,
            vips4: take(ebpf, "VIPS4")?,
            vips6: take(ebpf, "VIPS6")?,
            rings: Writers::take(ebpf)?,
            servers: take(ebpf, "SERVERS")?,
            interfaces: take(ebpf, "INTERFACES")?,
            limits: take(ebpf, "LIMITS")?,
            quic: take(ebpf, "QUIC")?,
            quic_servers: take(ebpf, "QUIC_SERVERS")?,
            counters: take(ebpf, "COUNTERS")?,
            reasons: take(ebpf, "REASONS")?,
        })
    }

    /// Sets a limit; what the kernel has counted stays.
    fn set_limit(&mut self, vip: u16, per_tick: u32) -> Result<(), MapError> {
        let limit = VipLimit { per_tick, ..self.limits.get(&u32::from(vip), 0)? };
        self.limits.set(u32::from(vip), limit, 0)
    }
}

impl Datapath for Maps {
    fn apply(&mut self, operation: &Operation) -> Result<(), Error> {
        self.rings.settle()?;
        match operation {
            Operation::Settings(settings) => self.settings.set(0, settings, 0)?,
            Operation::Interface(place, interface) => {
                self.interfaces.set(*place, interface.unwrap_or_default(), 0)?;
            }
            Operation::Quic(key, entry) => set(&mut self.quic, *key, *entry)?,
            Operation::QuicServer(key, server) => {
                set(&mut self.quic_servers, *key, server.map(|server| server.0))?;
            }
            Operation::Limit(vip, per_tick) => self.set_limit(*vip, *per_tick)?,
            Operation::Server(index, server) => {
                self.servers.set(u32::from(*index), server.unwrap_or_default(), 0)?;
            }
            Operation::Ring(vip, image) => self.apply_rings(&[(*vip, image.clone())])?,
            Operation::Vip4(key, vip) => set(&mut self.vips4, *key, *vip)?,
            Operation::Vip6(key, vip) => set(&mut self.vips6, *key, *vip)?,
        }
        Ok(())
    }

    fn apply_rings(&mut self, rings: &[(u16, Option<Image>)]) -> Result<(), Error> {
        self.rings.write(rings)
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.rings.settle()
    }

    fn server_counters(&self, server: u16) -> Result<Counters, Error> {
        total(&self.counters, server)
    }

    fn reasons(&self) -> Result<Vec<u64>, Error> {
        let packets = |reason| Ok(self.reasons.get(&reason, 0)?.iter().sum());
        (0..REASON_COUNT).map(packets).collect()
    }
}

/// Enters a value, or takes it out if it is there.
fn set<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: K, value: Option<V>) -> Result<(), MapError> {
    match value {
        Some(value) => map.insert(key, value, 0),
        None => match map.remove(&key) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        },
    }
}

/// The sum over all CPUs.
fn total(counters: &PerCpuArray<MapData, Counters>, index: u16) -> Result<Counters, Error> {
    let mut sum = Counters::default();
    counters.get(&u32::from(index), 0)?.iter().for_each(|cpu| sum += *cpu);
    Ok(sum)
}
