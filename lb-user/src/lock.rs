//! One lb-user for each network namespace.
//!
//! Two would take each other's addresses for leftovers. The lock is an abstract Unix socket: such names belong
//! to the network namespace, and the kernel frees them with the process, however it ends.

use std::os::{linux::net::SocketAddrExt as _, unix::net};

use anyhow::{Context as _, Result, bail};
use tokio::net::{UnixListener, UnixStream};

const NAME: &str = "lb-user";

/// Held for as long as the process may change this network namespace.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] UnixListener);

impl Lock {
    /// Takes the lock of the network namespace this thread is in.
    ///
    /// # Errors
    /// When another process has it; says which.
    pub fn take() -> Result<Self> {
        let address = net::SocketAddr::from_abstract_name(NAME)?;
        match net::UnixListener::bind_addr(&address) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self(UnixListener::from_std(listener)?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let owner = owner(&address).map_or_else(String::new, |pid| format!(" (pid {pid})"));
                bail!(
                    "another lb-user{owner} runs on this host; one serves any number of interfaces and VIPs: add \
                     yours to its configuration and --iface, or stop it"
                )
            }
            Err(error) => Err(error).context("cannot find out whether another lb-user runs"),
        }
    }
}

fn owner(address: &net::SocketAddr) -> Option<i32> {
    let stream = net::UnixStream::connect_addr(address).ok()?;
    stream.set_nonblocking(true).ok()?;
    UnixStream::from_std(stream).ok()?.peer_cred().ok()?.pid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_is_told_about_the_first_until_that_ends() {
        // Where an lb-user serves this very machine, its lock is the first.
        let first = Lock::take();
        let refusal = Lock::take().unwrap_err().to_string();
        assert!(refusal.starts_with("another lb-user (pid "), "{refusal}");
        if first.is_ok() {
            drop(first);
            Lock::take().unwrap();
        }
    }
}
