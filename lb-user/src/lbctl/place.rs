//! From where `lbctl` looks at the network: this host, another network namespace of it, one of its addresses.

use std::{fs::File, net::IpAddr, os::fd::AsFd as _, path::Path};

use clap::Args;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::client::Failure;

/// What the command line says about it.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// Network namespace to look from: its name (see `ip netns`), or a path such as /proc/PID/ns/net.
    #[arg(long, value_name = "NAME")]
    pub netns: Option<String>,

    /// Address to come from.
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<IpAddr>,
}

impl Place {
    /// Has this thread, and those that it starts from now on, be in the network namespace.
    ///
    /// # Errors
    /// When there is none of this name, or this user may not.
    pub fn enter(&self) -> Result<(), Failure> {
        let Some(name) = &self.netns else { return Ok(()) };
        let path =
            if name.contains('/') { Path::new(name).to_owned() } else { Path::new("/run/netns").join(name) };
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::Usage(format!("cannot look from the network namespace {}: {error}", path.display()))
        };
        let file = File::open(&path).map_err(|error| cannot(&error))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| cannot(&error))
    }
}
