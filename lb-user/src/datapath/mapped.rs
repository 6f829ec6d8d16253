//! Arrays of the kernel program that are mapped into this process: read and written without a system call.

use std::{
    ffi::c_void,
    marker::PhantomData,
    os::fd::{AsFd as _, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::Error;

/// An array map as memory: `T` is what an element is made of, and may be changed by the kernel at any time, so it
/// consists of atomics, or is only ever copied out.
#[derive(Debug)]
pub(crate) struct Mapped<T> {
    start: NonNull<T>,
    length: usize,
    bytes: usize,
    elements: PhantomData<T>,
}

// SAFETY: the memory belongs to this value alone until it is dropped, wherever that is; who reads and writes it at
// the same time is the kernel, whatever thread we are in.
unsafe impl<T: Send> Send for Mapped<T> {}

// SAFETY: what is shared by reference are atomics and copies, and the kernel writes at the same time anyway.
unsafe impl<T: Send> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps the array `name`, whose elements must be as large as `T`.
    pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self, Error> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(Error(format!("the kernel program has no array {name}")));
        };
        Self::of(map, name)
    }

    /// Maps a pinned array, as [`Self::take`] does.
    pub(super) fn pinned(map: Result<MapData, MapError>, name: &str) -> Result<Self, Error> {
        Self::of(map.map_err(|error| Error::new(&format!("cannot go on with map {name}"), &error))?, name)
    }

    fn of(map: MapData, name: &str) -> Result<Self, Error> {
        Self::map(map.fd().as_fd(), name, 0, length::<T>(&map, name)?)
    }

    /// Maps so many elements from `first` on, with which a page begins. What is mapped stays, whether the map is held open
    /// or not.
    pub(super) fn map(map: BorrowedFd<'_>, name: &str, first: usize, length: usize) -> Result<Self, Error> {
        let element = size_of::<T>().next_multiple_of(8);
        let (access, bytes) = (ProtFlags::READ | ProtFlags::WRITE, element * length);
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let start =
            unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, map, (element * first) as u64) }
                .map_err(|error| Error::new(&format!("cannot map {name} into memory"), &error))?;
        let start = NonNull::new(start.cast()).ok_or_else(|| Error(format!("{name} is mapped nowhere")))?;
        Ok(Self { start, length, bytes, elements: PhantomData })
    }

    /// Ordinary memory in the place of a map, all zero.
    #[cfg(test)]
    pub(super) fn ordinary(length: usize) -> Self {
        let bytes = size_of::<T>().next_multiple_of(8) * length;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::SHARED) }.unwrap();
        let start = NonNull::new(start.cast()).unwrap();
        Self { start, length, bytes, elements: PhantomData }
    }

    /// Writes what an element begins with.
    #[cfg(test)]
    pub(super) fn write<C: Copy>(&self, index: usize, value: C) {
        const { assert!(size_of::<C>() <= size_of::<T>() && align_of::<C>() <= 8) }
        // SAFETY: within the element; nobody else uses ordinary memory.
        unsafe { self.element(index).cast::<C>().as_ptr().write_volatile(value) }
    }

    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The address of an element.
    fn element(&self, index: usize) -> NonNull<T> {
        assert!(index < self.length, "element {index} of {}", self.length);
        // SAFETY: just compared; elements smaller than 8 bytes lie 8 bytes apart.
        unsafe { self.start.byte_add(index * size_of::<T>().next_multiple_of(8)) }
    }

    /// An element that consists of atomics.
    pub(crate) fn get(&self, index: usize) -> &T
    where
        T: Shared,
    {
        // SAFETY: `element` gives an aligned address within the mapping, which lives as long as `self`; the kernel's
        // writes are to atomics.
        unsafe { self.element(index).as_ref() }
    }

    /// A copy of what lies at the beginning of an element.
    pub(super) fn read<C: Copy>(&self, index: usize) -> C {
        const { assert!(size_of::<C>() <= size_of::<T>() && align_of::<C>() <= 8) }
        // SAFETY: within the element. The kernel may write it meanwhile: the copy is then of two states, which whoever
        // acts upon it has to expect; every bit pattern of its integers is valid.
        unsafe { self.element(index).cast::<C>().as_ptr().read_volatile() }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `take`, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.bytes) };
    }
}

impl Mapped<[AtomicU64; 1]> {
    /// Maps a pinned array of whatever elements as words of 64 bits; gives how many each element has.
    pub(super) fn words(map: Result<MapData, MapError>, name: &str) -> Result<(Self, usize), Error> {
        let wrong = |error: &MapError| Error::new(&format!("cannot go on with map {name}"), error);
        let map = map.map_err(|error| wrong(&error))?;
        let info = map.info().map_err(|error| wrong(&error))?;
        // As the kernel lays them out.
        let words = info.value_size().div_ceil(8) as usize;
        let length = words * info.max_entries() as usize;
        Ok((Self::map(map.fd().as_fd(), name, 0, length)?, words))
    }
}

/// How many elements an array has, which must be as large as `T`.
pub(super) fn length<T>(map: &MapData, name: &str) -> Result<usize, Error> {
    let info = map.info().map_err(|error| Error::new(&format!("cannot ask about map {name}"), &error))?;
    let (size, length) = (info.value_size() as usize, info.max_entries() as usize);
    // The kernel rounds elements up to 8 bytes each, and the whole to pages.
    if size != size_of::<T>() || size % 8 != 0 && length > 1 && size != 4 {
        return Err(Error(format!("elements of map {name} have {size} bytes, not {}", size_of::<T>())));
    }
    Ok(length)
}

/// What may be shared with the kernel as it is.
pub(crate) trait Shared {}

impl<const N: usize> Shared for [AtomicU64; N] {}
impl Shared for AtomicU32 {}
