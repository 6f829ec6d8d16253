//! Replaces rings. The kernel lets nobody go on who has replaced one before all CPUs have left the old one, some ten
//! milliseconds; but packets find the new one at once. So threads wait there, several at the same time, and who only wants
//! the rings to be in use need not.

use std::{
    io, iter, mem,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, Map, MapData, MapError},
};
use lb_common::abi::{RING_SIZE, Ring};

use super::Error;
use crate::plan::Image;

type Rings = ArrayOfMaps<MapData, Array<MapData, Ring>>;

/// Rings that are written at the same time.
const WRITERS: usize = 32;

/// How long until it is looked again whether a ring is in use.
const GLANCE: Duration = Duration::from_micros(50);

/// A handle by which one thread may write.
type Handle = Arc<Mutex<Rings>>;

/// Writes rings, each by a handle of its own.
pub(super) struct Writers {
    /// Handles that nobody uses now; one at least while nobody is at work.
    free: Vec<Handle>,
    /// To see which map is in use as a ring.
    look: ArrayOfMaps<MapData, MapData>,
    at_work: Vec<Writer>,
}

/// A thread that writes some rings, one after the other.
struct Writer {
    thread: JoinHandle<Result<(), MapError>>,
    handle: Handle,
    /// The VIP of the last of them, and the map that it has had; none if the kernel did not say.
    last: u16,
    before: Option<u32>,
}

impl Writers {
    /// Takes the rings out of a loaded object. If the kernel gives no more than one handle, that writes alone.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let Some(Map::ArrayOfMaps(data)) = ebpf.take_map("RINGS") else {
            return Err(Error("the kernel program has no map RINGS that holds rings".to_owned()));
        };
        let id = data.info()?.id();
        let look = ArrayOfMaps::try_from(Map::from_map_data(MapData::from_id(id)?)?)?;
        let first = Rings::try_from(Map::ArrayOfMaps(data))?;
        let another = |_| MapData::from_id(id).and_then(Map::from_map_data).and_then(Rings::try_from).ok();
        let all = iter::once(first).chain((1..WRITERS).map_while(another));
        let free = all.map(|rings| Arc::new(Mutex::new(rings))).collect();
        Ok(Self { free, look, at_work: Vec::new() })
    }

    /// Replaces rings; packets find the new ones then, but some that are under way may have found an old one:
    /// [`Self::settle`].
    pub(super) fn write(&mut self, rings: &[(u16, Option<Image>)]) -> Result<(), Error> {
        self.settle()?;
        let share = rings.len().div_ceil(self.free.len()).max(1);
        for share in rings.chunks(share) {
            let (Some(handle), Some((last, _))) = (self.free.pop(), share.last()) else { break };
            let (last, before) = (*last, self.in_use(*last));
            match by_thread(&handle, share) {
                Ok(thread) => self.at_work.push(Writer { thread, handle, last, before }),
                // Where there are no more threads, this one does it.
                Err(_) => {
                    let written = set_all(&handle, share);
                    self.free.push(handle);
                    written?;
                }
            }
        }
        let goes_on = |writer: &Writer| {
            let is_new = |id: u32| writer.before.is_some_and(|before| before != id);
            // Who cannot see that it is written waits until the kernel says so.
            !self.in_use(writer.last).is_some_and(is_new) && !writer.thread.is_finished()
        };
        // Each ends, sooner or later.
        while self.at_work.iter().any(goes_on) {
            thread::sleep(GLANCE);
        }
        let all = mem::take(&mut self.at_work).into_iter();
        let (ended, waiting) = all.partition(|writer| writer.thread.is_finished());
        self.at_work = waiting;
        self.join(ended)
    }

    /// Waits until no packet knows an old ring any more.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let all = mem::take(&mut self.at_work);
        self.join(all)
    }

    fn join(&mut self, writers: Vec<Writer>) -> Result<(), Error> {
        let mut outcome = Ok(());
        for Writer { thread, handle, .. } in writers {
            let written = thread.join().expect("it does not panic");
            self.free.push(handle);
            outcome = outcome.and(written);
        }
        Ok(outcome?)
    }

    /// The kernel's number of the map that is a VIP's ring. All VIPs have one from the beginning.
    fn in_use(&self, vip: u16) -> Option<u32> {
        Some(self.look.get(&u32::from(vip), 0).ok()?.info().ok()?.id())
    }
}

fn by_thread(
    handle: &Handle,
    share: &[(u16, Option<Image>)],
) -> io::Result<JoinHandle<Result<(), MapError>>> {
    let (handle, share) = (Arc::clone(handle), share.to_vec());
    thread::Builder::new().name("ring".to_owned()).spawn(move || set_all(&handle, &share))
}

fn set_all(handle: &Handle, share: &[(u16, Option<Image>)]) -> Result<(), MapError> {
    let mut rings = handle.lock().unwrap_or_else(PoisonError::into_inner);
    share.iter().try_for_each(|ring| set(&mut rings, ring))
}

/// Makes a ring beside the one in use and puts it in its place at once: a packet finds either. Without an image, an empty
/// one.
fn set(rings: &mut Rings, (vip, image): &(u16, Option<Image>)) -> Result<(), MapError> {
    let words = image.as_ref().map_or_else(|| Box::new([0; RING_SIZE + 1]), Image::words);
    let mut fresh = Array::<MapData, Ring>::create(1, 0)?;
    let words: &Ring = &words;
    fresh.set(0, words, 0)?;
    rings.set(u32::from(*vip), &fresh, 0)
}
