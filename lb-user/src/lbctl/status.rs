//! `lbctl status` for people: a [`Snapshot`] as text.

use std::net::SocketAddr;

use super::{
    table::{
        Align::{Left, Right},
        Cell, Paint, Table,
    },
    units,
};
use crate::{
    plan::Admin,
    snapshot::{Health, Interface, LastReload, PoolHealth, ServerStatus, Snapshot, Traffic, VipStatus},
};

/// The whole picture, ended by a newline.
#[must_use]
pub fn render(snapshot: &Snapshot, wide: bool, colour: bool) -> String {
    let mut text = header(snapshot);
    text.push('\n');
    text += &services(&snapshot.vips, wide, colour);
    text.push('\n');
    text += &reasons(snapshot, "drop", "Packets dropped");
    text += &reasons(snapshot, "pass", "Packets left to this host");
    text += &reasons(snapshot, "event", "Events");
    text
}

fn header(snapshot: &Snapshot) -> String {
    let version = &snapshot.version;
    let up = units::span(snapshot.time.saturating_sub(snapshot.started));
    let config = match &snapshot.config_file {
        Some(file) => format!("configuration {file}"),
        None => "no configuration file".to_owned(),
    };
    let time = units::utc(snapshot.time);
    let mut text = format!("lb-user {version}, up {up}, {config}, {time}\n");
    if let Some(last) = &snapshot.last_reload {
        text += &reload_line(last, snapshot.time);
    }
    for Interface { name, xdp_mode, program_id, note, .. } in &snapshot.interfaces {
        let note = note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        text += &format!("interface {name}: XDP {xdp_mode}, program {program_id}{note}\n");
    }
    text += &format!(
        "translated flows: {} alive, {} places taken (of {} per address family)\n",
        units::count(snapshot.flows),
        units::count(snapshot.flows_taken),
        units::count(snapshot.flow_capacity)
    );
    text += &format!(
        "flow tags: {} alive, {} places taken (of {})\n",
        units::count(snapshot.tags),
        units::count(snapshot.tags_taken),
        units::count(snapshot.tag_capacity)
    );
    text
}

/// What an operator must not miss: the file is not what is in use, or may not be for long.
fn reload_line(last: &LastReload, now: u64) -> String {
    let ago = units::span(now.saturating_sub(last.time));
    if let Some(problem) = &last.problem {
        let (first, more) = (problem.lines().next().unwrap_or_default(), problem.lines().count());
        let more = if more > 1 { format!(" (and {} more)", more - 1) } else { String::new() };
        return format!("RELOAD FAILED {ago} ago, what was in use before stays: {first}{more}\n");
    }
    match last.confirm_until {
        Some(until) => {
            let left = units::span(until.saturating_sub(now));
            format!(
                "UNCONFIRMED: reloaded {ago} ago, taken back in {left} unless confirmed (lbctl confirm)\n"
            )
        }
        None => format!("reloaded {ago} ago\n"),
    }
}

/// VIPs, each with its servers below.
pub(super) fn services(vips: &[VipStatus], wide: bool, colour: bool) -> String {
    if vips.is_empty() {
        return "No VIPs are configured.\n".to_owned();
    }
    let numbers = [
        ("CONNS", Right),
        ("ACTIVE", Right),
        ("PKTS IN", Right),
        ("BYTES IN", Right),
        ("PKTS OUT", Right),
        ("BYTES OUT", Right),
    ];
    let heads = [("VIP", Left), ("ADDRESS", Left), ("PORTS", Left), ("PROTO", Left), ("MODE", Left)];
    let balanced = [("POOL", Left), ("ALGORITHM", Left), ("PERSISTENCE", Left), ("CHECK", Left)];
    let balanced = if wide { &balanced[..] } else { &balanced[2..3] };
    let heads = [&heads[..], balanced, &[("HEALTH", Left)], &numbers, &[("NOTE", Left)]];
    let mut vip_table = Table::new(0, &heads.concat());
    let heads = [("SERVER", Left), ("ADDRESS", Left), ("WEIGHT", Right), ("HEALTH", Left), ("SINCE", Left)];
    let mut server_table = Table::new(2, &[&heads[..], &numbers, &[("REASON", Left)]].concat());

    let mut order = Vec::new();
    for vip in vips {
        let vip_row = vip_table.push(vip_cells(vip, wide));
        let server_rows: Vec<_> =
            vip.servers.iter().map(|server| server_table.push(server_cells(server))).collect();
        order.push((vip_row, server_rows));
    }
    // What a VIP's servers carried stands below what the VIP carried.
    vip_table.align_tail(&mut server_table, numbers.len() + 1);

    let mut text = vip_table.line(0, colour);
    if vips.iter().any(|vip| !vip.servers.is_empty()) {
        text += &server_table.line(0, colour);
    }
    for (vip_row, server_rows) in order {
        text += &vip_table.line(vip_row, colour);
        for server_row in server_rows {
            text += &server_table.line(server_row, colour);
        }
    }
    text
}

fn vip_cells(vip: &VipStatus, wide: bool) -> Vec<Cell> {
    let note = match (&vip.note, vip.served) {
        _ if !vip.enabled => Cell::new("disabled: refuses new connections", Paint::Warn),
        (Some(note), true) => Cell::from(note),
        (Some(note), false) => Cell::new(format!("not served yet: {note}"), Paint::Warn),
        (None, true) => Cell::from(""),
        (None, false) => Cell::new("not served yet", Paint::Warn),
    };
    let mut cells = vec![
        (&vip.name).into(),
        vip.address.to_string().into(),
        (&vip.ports).into(),
        (&vip.protocol).into(),
        (&vip.mode).into(),
    ];
    let port = vip.check_port.map(|port| format!(" {port}")).unwrap_or_default();
    let pool = pools(vip);
    if wide {
        cells.extend([pool.into(), Cell::from(&vip.algorithm)]);
    }
    cells.push((&vip.persistence).into());
    if wide {
        cells.push(format!("{}{port}", vip.check).into());
    }
    cells.push(health_cell(vip.health));
    cells.extend(numbers(&vip.traffic));
    cells.push(note);
    cells
}

/// The pools that a VIP leads to, its own first.
pub(super) fn pools(vip: &VipStatus) -> String {
    let further = vip.further_pools.iter().map(|pool| pool.name.as_str());
    let pools: Vec<_> = vip.pool.as_deref().into_iter().chain(further).collect();
    if pools.is_empty() { "-".to_owned() } else { pools.join(", ") }
}

/// Health in a word, painted.
pub(super) fn health_cell(health: PoolHealth) -> Cell {
    let paint = match health {
        PoolHealth::Healthy => Paint::Good,
        PoolHealth::Degraded | PoolHealth::Unknown => Paint::Warn,
        PoolHealth::Down => Paint::Bad,
    };
    Cell::new(health.to_string(), paint)
}

/// The same of a server.
pub(super) fn server_health_cell(server: &ServerStatus) -> Cell {
    let paint = match server.health {
        Health::Up => Paint::Good,
        Health::Down => Paint::Bad,
        Health::Unknown => Paint::Warn,
    };
    Cell::new(server.health.to_string(), paint)
}

fn server_cells(server: &ServerStatus) -> Vec<Cell> {
    let mut cells = vec![
        (&server.name).into(),
        whereabouts(server).into(),
        server.weight.to_string().into(),
        server_health_cell(server),
        units::utc(server.since).into(),
    ];
    cells.extend(numbers(&server.traffic));
    cells.push(remarks(server));
    cells
}

/// Address and port; the name while there is no address.
fn whereabouts(server: &ServerStatus) -> String {
    match (server.address, server.port) {
        (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
        (Some(address), None) => address.to_string(),
        (None, _) => server.host.clone().unwrap_or_default(),
    }
}

/// Why the health is what it is, and what else keeps new flows away.
pub(super) fn remarks(server: &ServerStatus) -> Cell {
    let mut remarks = vec![server.reason.clone()];
    if let (Some(host), Some(_)) = (&server.host, server.address) {
        remarks.push(host.clone());
    }
    if server.backup {
        remarks.push(if server.active { "backup, in use" } else { "backup" }.to_owned());
    }
    if server.paused {
        remarks.push("paused: it failed requests in a row (outliers)".to_owned());
    }
    match server.state {
        Admin::Ready => {}
        Admin::Drain => remarks.push("drained: takes no new flows".to_owned()),
        Admin::Halt => remarks.push("halted".to_owned()),
    }
    let idle = if server.weight == 0 { ": takes no new flows" } else { "" };
    match server.weight_of_file {
        Some(usual) => {
            let weight = server.weight;
            remarks.push(format!("weight {weight} for the time being ({usual} in the file){idle}"));
        }
        None if server.weight == 0 => remarks.push(format!("weight 0{idle}")),
        None => {}
    }
    let paint = match (&server.next_hop_problem, server.state) {
        (Some(problem), _) => {
            remarks.push(problem.clone());
            Paint::Bad
        }
        (None, Admin::Ready) if !server.paused => Paint::Plain,
        (None, _) => Paint::Warn,
    };
    Cell::new(remarks.join("; "), paint)
}

fn numbers(traffic: &Traffic) -> [Cell; 6] {
    [
        units::count(traffic.connections),
        units::count(traffic.active),
        units::count(traffic.packets_in),
        units::bytes(traffic.bytes_in),
        units::count(traffic.packets_out),
        units::bytes(traffic.bytes_out),
    ]
    .map(Cell::from)
}

/// Packets with one fate, by reason, the most frequent first.
fn reasons(snapshot: &Snapshot, verdict: &str, title: &str) -> String {
    let mut reasons: Vec<_> =
        snapshot.reasons.iter().filter(|reason| reason.verdict == verdict && reason.packets > 0).collect();
    if reasons.is_empty() {
        return format!("{title}: none\n");
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.packets));
    let mut table = Table::new(2, &[("PACKETS", Right), ("REASON", Left)]);
    let mut text = format!("{title}:\n");
    for reason in reasons {
        let row = table.push(vec![units::count(reason.packets).into(), (&reason.reason).into()]);
        text += &table.line(row, false);
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
