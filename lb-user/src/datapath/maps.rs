//! The maps that user space writes, and the counters.

use std::{io::ErrorKind, iter, thread};

use aya::{
    Ebpf, Pod,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray},
};
use lb_common::{
    abi::{
        Counters, Interface, QuicLb, QuicLbKey, QuicServerKey, RING_SIZE, Ring, Server, Settings, Vip,
        VipKey, VipLimit,
    },
    verdict::REASON_COUNT,
};

use super::{Datapath, Error, load::take};
use crate::plan::{Image, Operation};

type Rings = ArrayOfMaps<MapData, Array<MapData, Ring>>;

/// Rings that are written at the same time. The kernel lets nobody go on who has replaced one before all CPUs have left the
/// old one, some ten milliseconds; that time can be shared.
const WRITERS: usize = 32;

/// Open maps of the loaded program.
pub struct Maps {
    settings: Array<MapData, Settings>,
    vips4: HashMap<MapData, VipKey<u32>, Vip>,
    vips6: HashMap<MapData, VipKey<[u32; 4]>, Vip>,
    /// At least one handle to it; several may write at the same time.
    rings: Vec<Rings>,
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
            rings: take_rings(ebpf)?,
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

/// Makes a ring beside the one in use and puts it in its place at once: a packet finds either. Without an image, an empty
/// one.
fn set_ring(rings: &mut Rings, (vip, image): &(u16, Option<Image>)) -> Result<(), MapError> {
    let words = image.as_ref().map_or_else(|| Box::new([0; RING_SIZE + 1]), Image::words);
    let mut fresh = Array::<MapData, Ring>::create(1, 0)?;
    let words: &Ring = &words;
    fresh.set(0, words, 0)?;
    rings.set(u32::from(*vip), &fresh, 0)
}

/// The rings, with a handle for each writer; if the kernel gives no more than one, that writes alone.
fn take_rings(ebpf: &mut Ebpf) -> Result<Vec<Rings>, Error> {
    let Some(Map::ArrayOfMaps(data)) = ebpf.take_map("RINGS") else {
        return Err(Error("the kernel program has no map RINGS that holds rings".to_owned()));
    };
    let id = data.info()?.id();
    let one = Rings::try_from(Map::ArrayOfMaps(data))?;
    let another = |_| MapData::from_id(id).and_then(Map::from_map_data).and_then(Rings::try_from).ok();
    Ok(iter::once(one).chain((1..WRITERS).map_while(another)).collect())
}

impl Datapath for Maps {
    fn apply(&mut self, operation: &Operation) -> Result<(), Error> {
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
        let share = rings.len().div_ceil(self.rings.len()).max(1);
        let outcomes: Vec<Result<(), MapError>> = thread::scope(|scope| {
            let write = |(map, rings): (&'_ mut Rings, &'_ [(u16, Option<Image>)])| {
                rings.iter().try_for_each(|ring| set_ring(map, ring))
            };
            let mut shares: Vec<_> = self.rings.iter_mut().zip(rings.chunks(share)).collect();
            // One of them is for this thread, and mostly it is the only one.
            let own = shares.pop();
            let others: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || write(share))).collect();
            let own = own.map_or(Ok(()), write);
            let join = |other: thread::ScopedJoinHandle<'_, _>| other.join().expect("it does not panic");
            iter::once(own).chain(others.into_iter().map(join)).collect()
        });
        Ok(outcomes.into_iter().collect::<Result<(), MapError>>()?)
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
