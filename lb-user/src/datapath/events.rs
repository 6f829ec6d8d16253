//! What the kernel program reports about packets, and which packets it reports: the maps `EVENTS` and `TRACE`.

use std::{os::fd::AsFd as _, ptr};

use aya::{
    Ebpf,
    maps::{Array, MapData, RingBuf},
};
use lb_common::abi::{TraceFilter, TraceRecord};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Error, load::take};

/// The ring buffer that records come by, and the filter.
pub struct Events {
    ring: RingBuf<MapData>,
    filter: Array<MapData, TraceFilter>,
    /// How often somebody has begun to watch: records of whoever watched before are not for whoever does now.
    session: u32,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { ring: take(ebpf, "EVENTS")?, filter: take(ebpf, "TRACE")?, session: 0 })
    }

    /// Says which packets are wanted from now on, and that no record from before is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn want(&mut self, filter: &TraceFilter) -> Result<(), Error> {
        self.session = self.session.wrapping_add(1);
        Ok(self.filter.set(0, TraceFilter { session: self.session, ..*filter }, 0)?)
    }

    /// Records since the last [`Self::want`] that found no room.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lost(&self) -> Result<u32, Error> {
        Ok(self.filter.get(&0, 0)?.lost)
    }

    /// Takes the records that are there, at most `limit`.
    pub fn take_some(&mut self, limit: usize) -> Vec<TraceRecord> {
        let mut records = Vec::new();
        while records.len() < limit {
            let Some(item) = self.ring.next() else { break };
            records.extend(record(&item).filter(|record| record.session == self.session));
        }
        records
    }

    /// A way to wait for records. Must be made anew by everyone who waits.
    ///
    /// # Errors
    /// When there is none to be had.
    #[expect(unsafe_code, reason = "a file descriptor that is registered has to stay open")]
    pub fn bell(&self) -> Result<Bell, Error> {
        let fail = |error| Error::new("cannot wait for events of the kernel program", &error);
        let fd = self.ring.as_fd().try_clone_to_owned().map_err(fail)?;
        // SAFETY: the descriptor is owned by what it is given to, and so stays open for as long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        registered.map(Bell).map_err(|error| fail(error.into()))
    }
}

/// Rings when there are records.
#[derive(Debug)]
pub struct Bell(AsyncFd<std::os::fd::OwnedFd>);

impl Bell {
    /// Waits until there may be records.
    pub async fn rings(&self) {
        match self.0.readable().await {
            // What has come by now is going to be taken; what comes later rings again.
            Ok(mut ready) => ready.clear_ready(),
            // Only when the runtime ends.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The record in these bytes, if they are of one.
#[expect(unsafe_code, reason = "bytes of the kernel made into what they are")]
fn record(bytes: &[u8]) -> Option<TraceRecord> {
    if bytes.len() < size_of::<TraceRecord>() {
        return None;
    }
    // SAFETY: the length was just compared; the record is made of integers only, for which any bytes are valid.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_are_taken() {
        let mut bytes = vec![0; size_of::<TraceRecord>()];
        bytes[0] = 7;
        assert_eq!(record(&bytes).map(|record| record.time), Some(7));
        assert_eq!(record(&bytes[1..]), None);
    }
}
