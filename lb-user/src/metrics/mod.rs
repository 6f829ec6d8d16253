//! `/metrics`: the snapshot in the form that monitoring systems read (OpenMetrics 1.0, which Prometheus knows).
//!
//! Counters go on over reloads and restarts. Names and labels are part of the interface.

pub mod serve;
mod text;

use std::{fs, io};

use self::text::{Kind, Text};
use crate::admin::counts::{CLASSES, Counts, Way};
use crate::snapshot::{Health, PoolHealth, ServerStatus, Snapshot, Traffic, VipStatus};

/// The content type that goes with it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Memory in use, in bytes.
    pub resident: u64,
    /// Processor time so far, in seconds.
    pub cpu: f64,
    /// Open file descriptors.
    pub files: u64,
}

impl Process {
    /// This process. What the kernel does not tell counts as 0.
    #[must_use]
    pub fn this() -> Self {
        let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let resident = || -> io::Result<u64> {
            let pages = fs::read_to_string("/proc/self/statm")?;
            let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
            Ok(pages.unwrap_or(0) * rustix::param::page_size() as u64)
        };
        Self {
            resident: resident().unwrap_or(0),
            cpu: usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9,
            files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        }
    }
}

/// All metrics.
#[must_use]
pub fn render(snapshot: &Snapshot, process: &Process, api: &Counts) -> String {
    let mut text = Text::default();
    daemon(&mut text, snapshot, process);
    admin(&mut text, api);
    tables(&mut text, snapshot);
    reasons(&mut text, snapshot);
    vips(&mut text, &snapshot.vips);
    servers(&mut text, &snapshot.vips);
    text.end()
}

/// A text of metrics with those of another. No family is in both.
#[must_use]
pub fn with(text: &str, other: &str) -> String {
    const END: &str = "# EOF\n";
    let parts = [text, other].map(|text| text.strip_suffix(END).unwrap_or(text));
    parts.concat() + END
}

fn daemon(text: &mut Text, snapshot: &Snapshot, process: &Process) {
    text.family("lb_build", Kind::Info, "Version of lb-user.");
    text.sample("lb_build_info", &[("version", &snapshot.version)], 1);
    text.family("lb_start_time_seconds", Kind::Gauge, "When lb-user started, since 1970.");
    text.sample("lb_start_time_seconds", &[], snapshot.started);
    text.family(
        "lb_reload_ok",
        Kind::Gauge,
        "Whether the last reload of the configuration went well; 1 before any.",
    );
    let last = snapshot.last_reload.as_ref();
    text.sample("lb_reload_ok", &[], u64::from(last.is_none_or(|last| last.problem.is_none())));
    text.family("lb_reload_time_seconds", Kind::Gauge, "When the configuration was last read, since 1970.");
    text.sample("lb_reload_time_seconds", &[], last.map_or(snapshot.started, |last| last.time));
    text.family("lb_reload_unconfirmed", Kind::Gauge, "Whether a commit waits to be confirmed.");
    let waits = last.is_some_and(|last| last.confirm_until.is_some());
    text.sample("lb_reload_unconfirmed", &[], u64::from(waits));
    text.family("lb_interface_native", Kind::Gauge, "Whether the program runs in the interface's driver.");
    for interface in &snapshot.interfaces {
        let native = u64::from(interface.xdp_mode == "native");
        text.sample("lb_interface_native", &[("interface", &interface.name)], native);
    }
    text.family("process_resident_memory_bytes", Kind::Gauge, "Memory in use.");
    text.sample("process_resident_memory_bytes", &[], process.resident);
    text.family("process_cpu_seconds", Kind::Counter, "Processor time of the daemon; packets are not in it.");
    text.sample("process_cpu_seconds_total", &[], process.cpu);
    text.family("process_open_fds", Kind::Gauge, "Open file descriptors.");
    text.sample("process_open_fds", &[], process.files);
}

fn admin(text: &mut Text, api: &Counts) {
    text.family(
        "lb_api_requests",
        Kind::Counter,
        "Requests to the admin interface, by way and class of answer.",
    );
    for way in Way::ALL {
        for (class, count) in CLASSES.iter().zip(api.answers(way)) {
            text.sample("lb_api_requests_total", &[("way", way.name()), ("status", class)], count);
        }
    }
    text.family("lb_api_connections", Kind::Counter, "Connections to the admin interface.");
    for way in Way::ALL {
        text.sample("lb_api_connections_total", &[("way", way.name())], api.connections(way));
    }
    text.family("lb_api_logins_refused", Kind::Counter, "Requests without a good token.");
    text.sample("lb_api_logins_refused_total", &[], api.logins_refused());
    text.family("lb_api_handshakes_failed", Kind::Counter, "TLS handshakes that failed or took too long.");
    text.sample("lb_api_handshakes_failed_total", &[], api.handshakes_failed());
}

fn tables(text: &mut Text, snapshot: &Snapshot) {
    let Snapshot { flows, flow_capacity, flows_taken, tags, tag_capacity, tags_taken, .. } = *snapshot;
    for (name, help, translated, tags) in [
        ("lb_flows", "Flows that are alive: translated ones, and those with a flow tag.", flows, tags),
        ("lb_flow_places_taken", "Places taken, also by flows that are over.", flows_taken, tags_taken),
        (
            "lb_flow_places",
            "Places there are; of translated flows as many for each address family.",
            flow_capacity,
            tag_capacity,
        ),
    ] {
        text.family(name, Kind::Gauge, help);
        text.sample(name, &[("table", "translated")], translated);
        text.sample(name, &[("table", "tags")], tags);
    }
}

fn reasons(text: &mut Text, snapshot: &Snapshot) {
    for (verdict, name, help) in [
        ("drop", "lb_packets_dropped", "Packets dropped, by reason."),
        ("pass", "lb_packets_passed", "Packets left to this host, by reason."),
        ("event", "lb_events", "What else happened, by kind."),
    ] {
        text.family(name, Kind::Counter, help);
        let label = if verdict == "event" { "event" } else { "reason" };
        for count in snapshot.reasons.iter().filter(|count| count.verdict == verdict) {
            text.sample(&format!("{name}_total"), &[(label, &count.reason)], count.packets);
        }
    }
}

/// Name, help, value.
type Counted = (&'static str, &'static str, fn(&Traffic) -> u64);

/// What is told of a VIP and of a server alike.
const TRAFFIC: [Counted; 5] = [
    ("connections", "New flows.", |traffic| traffic.connections),
    ("packets_in", "Packets from clients.", |traffic| traffic.packets_in),
    ("bytes_in", "Bytes from clients, with Ethernet headers.", |traffic| traffic.bytes_in),
    ("packets_out", "Packets to clients; of modes dr, ipip and gue none pass here.", |traffic| {
        traffic.packets_out
    }),
    ("bytes_out", "Bytes to clients, with Ethernet headers.", |traffic| traffic.bytes_out),
];

fn vips(text: &mut Text, vips: &[VipStatus]) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&VipStatus) -> u64| {
        text.family(name, Kind::Gauge, help);
        vips.iter().for_each(|vip| text.sample(name, &[("vip", &vip.name)], value(vip)));
    };
    gauge("lb_vip_served", "Whether clients are served at all.", &|vip| u64::from(vip.served));
    gauge("lb_vip_enabled", "Whether the operator has it take new flows.", &|vip| u64::from(vip.enabled));
    gauge("lb_vip_up", "Whether a server takes new flows.", &|vip| {
        u64::from(vip.servers.iter().any(|server| server.active))
    });
    gauge("lb_vip_degraded", "Whether a server is not up.", &|vip| {
        u64::from(vip.health != PoolHealth::Healthy)
    });
    gauge("lb_vip_flows", "Flows that are alive.", &|vip| vip.traffic.active);
    for (name, help, value) in TRAFFIC {
        let name = format!("lb_vip_{name}");
        text.family(&name, Kind::Counter, help);
        for vip in vips {
            text.sample(&format!("{name}_total"), &[("vip", &vip.name)], value(&vip.traffic));
        }
    }
}

fn servers(text: &mut Text, vips: &[VipStatus]) {
    let all = || vips.iter().flat_map(|vip| vip.servers.iter().map(move |server| (vip, server)));
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&ServerStatus) -> u64| {
        text.family(name, Kind::Gauge, help);
        for (vip, server) in all() {
            text.sample(name, &[("vip", &vip.name), ("server", &server.name)], value(server));
        }
    };
    gauge("lb_server_up", "Whether its health check says that it is well.", &|server| {
        u64::from(server.health == Health::Up)
    });
    gauge("lb_server_active", "Whether it takes new flows.", &|server| u64::from(server.active));
    gauge("lb_server_reachable", "Whether packets can be sent to it.", &|server| {
        u64::from(server.next_hop_problem.is_none())
    });
    gauge("lb_server_weight", "Its share of new flows.", &|server| server.weight.into());
    gauge("lb_server_since_seconds", "When its health last changed, since 1970.", &|server| server.since);
    gauge("lb_server_flows", "Flows that are alive.", &|server| server.traffic.active);
    text.family("lb_server_state", Kind::StateSet, "What the operator wants of it.");
    for (vip, server) in all() {
        for state in ["ready", "drain", "halt"] {
            let labels = [("vip", vip.name.as_str()), ("server", &server.name), ("lb_server_state", state)];
            text.sample("lb_server_state", &labels, u64::from(server.state.to_string() == state));
        }
    }
    for (name, help, value) in TRAFFIC {
        let name = format!("lb_server_{name}");
        text.family(&name, Kind::Counter, help);
        for (vip, server) in all() {
            let labels = [("vip", vip.name.as_str()), ("server", &server.name)];
            text.sample(&format!("{name}_total"), &labels, value(&server.traffic));
        }
    }
}

#[cfg(test)]
mod tests;
