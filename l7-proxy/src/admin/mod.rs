//! What is told about the process over HTTP: `/health` for the tier above, `/metrics` for monitoring, `/status`
//! for people and programs. It only looks.

mod metrics;
mod serve;
mod status;

pub use metrics::metrics;
pub use serve::Admin;
pub use status::status;

use crate::{model::Ready, process::Phase, spec::ServerState};

/// Whether the tier above should send anything here: not while the process is about to end, nor while no
/// server is left. With the name of a service only that one counts; `None` where there is none of that name.
#[must_use]
pub fn is_healthy(ready: &Ready, phase: Phase, service: Option<&str>) -> Option<bool> {
    if let Some(name) = service {
        ready.services.iter().find(|service| service.name == name)?;
    }
    let mut services = ready.services.iter().filter(|one| service.is_none_or(|name| one.name == name));
    // A service that needs no server (a redirect) has all it needs.
    let has_server = services.any(|service| {
        // Nobody is let in, whoever is well.
        if service.spec.closed {
            return false;
        }
        let pools = service.pools();
        pools.is_empty()
            || pools.iter().any(|pool| {
                pool.servers.iter().any(|server| server.live.state() == ServerState::Up && server.weight > 0)
            })
    });
    Some(phase == Phase::Serving && has_server)
}
