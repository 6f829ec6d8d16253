//! A picture of the state, as JSON.

use crate::{
    model::{Ready, Service},
    process::Phase,
    server::now,
    spec::{CertificateStatus, PoolStatus, ServerStatus, ServiceStatus, Status},
    state::Counters,
};

/// The name of a phase.
pub(super) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Serving => "serving",
        Phase::Grace => "grace",
        Phase::Draining => "draining",
    }
}

/// Takes a picture.
#[must_use]
pub fn status(ready: &Ready, phase: Phase) -> Status {
    let now = now();
    let services = ready.services.iter().map(|service| ServiceStatus {
        name: service.name.clone(),
        mode: service.mode,
        connections: service.state.clients.connections(),
        accepted: sum(service, "connections"),
        requests: sum(service, "requests"),
        received: sum(service, "received_bytes"),
        sent: sum(service, "sent_bytes"),
        pools: service
            .pools()
            .into_iter()
            .map(|pool| PoolStatus {
                name: pool.name.clone(),
                servers: pool
                    .servers
                    .iter()
                    .map(|server| ServerStatus {
                        name: server.name.clone(),
                        state: server.live.state(),
                        paused: server.live.is_paused(now),
                        weight: server.weight,
                        active: server.live.active(),
                        idle: server.live.idle(),
                        total: server.live.total(),
                        latency_us: server.live.latency(),
                    })
                    .collect(),
            })
            .collect(),
        certificates: service.tls.as_ref().map_or_else(Vec::new, |tls| {
            let certificates = tls.certificates();
            let one = |one: &crate::tls::Certificate| CertificateStatus {
                file: one.file.display().to_string(),
                names: one.names.clone(),
                expires: one.expires,
            };
            certificates.all().iter().map(one).collect()
        }),
    });
    Status { phase: phase_name(phase).to_owned(), services: services.collect() }
}

/// A counter of a service over all workers.
fn sum(service: &Service, counter: &str) -> u64 {
    let all = service.state.all_counters().iter().flat_map(Counters::all);
    all.filter(|(name, ..)| *name == counter).map(|(.., count)| count).sum()
}
