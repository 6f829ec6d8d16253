//! Arrays that are mapped by the part, each while somebody looks at it.
//!
//! The kernel gives a mapping of a map all its pages at once, and they count as this process's memory from then on, whether
//! they are touched or not; none that were taken away by `madvise` would come back. The records of flows are a hundred
//! megabytes and more, of which mostly little is in use: so no more of them is mapped than a walk has before it.

use std::{
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};

use super::{
    Error,
    mapped::{self, Mapped},
};

/// Elements of a part. Whole pages, for elements have 8 bytes or a multiple.
const PART: usize = 8_192;

/// The array.
#[derive(Debug)]
pub(super) struct Parted<T> {
    map: OwnedFd,
    name: String,
    length: usize,
    elements: PhantomData<fn() -> T>,
}

impl<T> Parted<T> {
    /// Takes the array `name`, whose elements must be as large as `T`.
    pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self, Error> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(Error(format!("the kernel program has no array {name}")));
        };
        Self::of(&map, name)
    }

    fn of(map: &MapData, name: &str) -> Result<Self, Error> {
        const { assert!(size_of::<T>().is_multiple_of(8)) }
        let length = mapped::length::<T>(map, name)?;
        let map = map.fd().as_fd().try_clone_to_owned();
        let map = map.map_err(|error| Error::new(&format!("cannot hold map {name}"), &error))?;
        Ok(Self { map, name: name.to_owned(), length, elements: PhantomData })
    }

    /// Ordinary memory in the place of a map, all zero.
    #[cfg(test)]
    pub(super) fn ordinary(length: usize) -> Self {
        let map = rustix::fs::memfd_create("ordinary", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&map, (length * size_of::<T>()) as u64).unwrap();
        Self { map, name: "ordinary".to_owned(), length, elements: PhantomData }
    }

    /// Writes what an element begins with.
    #[cfg(test)]
    pub(super) fn write<C: Copy>(&self, index: usize, value: C) {
        self.part(index / PART).unwrap().write(index % PART, value);
    }

    /// How many elements there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// For a walk over the elements.
    pub(super) fn view(&self) -> View<'_, T> {
        View { array: self, part: None }
    }

    fn part(&self, number: usize) -> Result<Mapped<T>, Error> {
        let first = number * PART;
        let length = PART.min(self.length.saturating_sub(first));
        Mapped::map(self.map.as_fd(), &self.name, first, length)
    }
}

/// The part of an array that somebody looks at.
pub(super) struct View<'a, T> {
    array: &'a Parted<T>,
    part: Option<(usize, Mapped<T>)>,
}

impl<T> View<'_, T> {
    /// A copy of what lies at the beginning of an element.
    ///
    /// # Errors
    /// When its part cannot be mapped.
    pub(super) fn read<C: Copy>(&mut self, index: usize) -> Result<C, Error> {
        let wanted = index / PART;
        if self.part.as_ref().is_none_or(|(number, _)| *number != wanted) {
            // One at a time.
            self.part = None;
        }
        let part = match &mut self.part {
            Some((_, part)) => part,
            none => &mut none.insert((wanted, self.array.part(wanted)?)).1,
        };
        Ok(part.read(index % PART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_found_in_whatever_order() {
        let array = Parted::<[u64; 2]>::ordinary(2 * PART + 3);
        let places = [0, 1, PART - 1, PART, 2 * PART - 1, 2 * PART, 2 * PART + 2];
        for place in places {
            array.write(place, place as u64 + 1);
        }
        let mut view = array.view();
        for place in places.into_iter().chain(places.into_iter().rev()) {
            assert_eq!(view.read::<u64>(place).unwrap(), place as u64 + 1);
        }
        assert_eq!(view.read::<u64>(2).unwrap(), 0);
        assert!(view.read::<u64>(3 * PART).is_err(), "there is no such part");
    }
}
