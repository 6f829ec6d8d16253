//! Records of translated flows, whatever their family, under the 5-tuples that frames have.

use lb_common::{
    abi::{Claim, Flow, FlowKey, FlowStage, Half, MacBytes, ServerRef},
    family::{Family, V4, V6},
    host::HostFamily,
};

use crate::{
    inspect::Tuple,
    world::{self, Key, World},
};

/// A translated flow, whatever its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of its record.
    pub number: u32,
    /// Whose packets the question was about.
    pub half: Half,
    /// The 5-tuple of the client's packets as they come.
    pub client: Tuple,
    /// The 5-tuple of the client's packets as they leave.
    pub at_server: Tuple,
    /// Its server.
    pub server: ServerRef,
    /// How far it has come, by its claim.
    pub stage: FlowStage,
    /// What is known of its state.
    pub state: u32,
    /// When it was last seen.
    pub seen: u32,
    /// Where the client is: MAC and interface.
    pub whereabouts: (MacBytes, u32),
}

impl Entry {
    /// What packets of its half become.
    #[must_use]
    pub fn out(&self) -> Tuple {
        match self.half {
            Half::Client => self.at_server,
            Half::Server => self.client.reversed(),
        }
    }
}

/// The flow that packets with this 5-tuple belong to.
#[must_use]
pub fn entry(world: &World, tuple: Tuple) -> Option<Entry> {
    match Key::from(tuple) {
        Key::V4(key) => find::<V4>(world, &key),
        Key::V6(key) => find::<V6>(world, &key),
    }
}

/// All flows there are, as their clients' packets would find them.
#[must_use]
pub fn entries(world: &World) -> Vec<Entry> {
    let of_four = V4::of(&world.tables).entered().map(|found| entry_of::<V4>(Half::Client, found));
    let of_six = V6::of(&world.tables).entered().map(|found| entry_of::<V6>(Half::Client, found));
    of_four.chain(of_six).collect()
}

fn find<F: HostFamily>(world: &World, key: &FlowKey<F::Addr>) -> Option<Entry> {
    let (half, number, flow) = world.tables.flow::<F>(key)?;
    let claim = F::of(&world.tables).claims[number as usize / 8][number as usize % 8].get();
    Some(entry_of::<F>(half, (number, Claim(claim), flow)))
}

fn entry_of<F: Family>(half: Half, (number, claim, flow): (u32, Claim, Flow<F::Addr>)) -> Entry {
    Entry {
        number,
        half,
        client: tuple::<F>(&flow.key()),
        at_server: tuple::<F>(&flow.outgoing(Half::Client)),
        server: flow.server_ref,
        stage: claim.stage(),
        state: flow.state,
        seen: flow.seen,
        whereabouts: (flow.client_mac, flow.client_ifindex),
    }
}

fn tuple<F: Family>(key: &FlowKey<F::Addr>) -> Tuple {
    let ip = |address| world::ip(F::to_words(address), F::HEADER == 40);
    Tuple {
        src: (ip(key.src), key.sport).into(),
        dst: (ip(key.dst), key.dport).into(),
        protocol: key.protocol as u8,
    }
}
