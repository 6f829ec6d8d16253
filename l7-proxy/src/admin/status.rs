//! A picture of the state, as JSON.

use serde::Serialize;

use crate::{
    model::Ready,
    process::Phase,
    server::now,
    spec::{Mode, ServerState},
};

/// What the process is at.
#[derive(Debug, Serialize)]
pub struct Status {
    /// `serving`, `grace` or `draining`.
    pub phase: &'static str,
    /// Services in the order of the specification.
    pub services: Vec<ServiceStatus>,
}

/// A service.
#[derive(Debug, Serialize)]
pub struct ServiceStatus {
    /// Name.
    pub name: String,
    /// What is spoken.
    pub mode: Mode,
    /// Connections of clients at the moment.
    pub connections: u32,
    /// Pools it leads to.
    pub pools: Vec<PoolStatus>,
    /// Certificates that are shown.
    pub certificates: Vec<CertificateStatus>,
}

/// A pool of a service.
#[derive(Debug, Serialize)]
pub struct PoolStatus {
    /// Name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// A server of a pool, as one service sees it.
#[derive(Debug, Serialize)]
pub struct ServerStatus {
    /// Name.
    pub name: String,
    /// Whether it may be used.
    pub state: ServerState,
    /// Whether it gets nothing for a while, for having failed.
    pub paused: bool,
    /// Share.
    pub weight: u16,
    /// Requests or connections under way.
    pub active: u32,
    /// Connections that wait for a next request.
    pub idle: usize,
    /// Requests or connections it got so far.
    pub total: u64,
    /// How long its answers took lately, in microseconds; 0 where none came.
    pub latency_us: u64,
}

/// A certificate.
#[derive(Debug, Serialize)]
pub struct CertificateStatus {
    /// The file.
    pub file: String,
    /// Names it is for.
    pub names: Vec<String>,
    /// Seconds since 1970 at which it expires.
    pub expires: i64,
}

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
    Status { phase: phase_name(phase), services: services.collect() }
}
