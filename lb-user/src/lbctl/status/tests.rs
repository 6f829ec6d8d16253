//! What an operator sees, letter by letter.

use super::*;
use crate::snapshot::ReasonCount;

/// 2026-11-21T00:10:31Z.
const NOW: u64 = 1_795_219_831;

fn traffic(factor: u64) -> Traffic {
    Traffic {
        connections: 12 * factor,
        active: factor,
        packets_in: 100 * factor,
        bytes_in: 6400 * factor,
        packets_out: 90 * factor,
        bytes_out: 90_000 * factor,
    }
}

fn server(name: &str, address: &str, health: Health, reason: &str) -> ServerStatus {
    ServerStatus {
        name: name.into(),
        pool: None,
        address: address.parse().ok(),
        host: None,
        port: Some(8042),
        weight: 100,
        weight_of_file: None,
        backup: false,
        active: health == Health::Up,
        state: Admin::Ready,
        health,
        reason: reason.into(),
        since: NOW - 3600,
        paused: false,
        next_hop_problem: None,
        traffic: traffic(1),
    }
}

fn vip(name: &str, health: PoolHealth, servers: Vec<ServerStatus>) -> VipStatus {
    VipStatus {
        name: name.into(),
        address: "192.168.1.250".parse().unwrap(),
        ports: "8042".into(),
        protocol: "tcp".into(),
        mode: "snat".into(),
        persistence: "none".into(),
        algorithm: "maglev".into(),
        check: "tcp".into(),
        check_port: Some(8042),
        enabled: true,
        pool: Some("controllers".into()),
        served: true,
        note: None,
        health,
        further_pools: Vec::new(),
        traffic: traffic(servers.len() as u64 * 1000),
        servers,
    }
}

fn reason(verdict: &str, reason: &str, packets: u64) -> ReasonCount {
    ReasonCount { verdict: verdict.into(), reason: reason.into(), packets }
}

pub(crate) fn snapshot() -> Snapshot {
    let up = |name: &str, address: &str| server(name, address, Health::Up, "connected");
    let mut lost = up("c2", "192.168.1.152");
    lost.next_hop_problem = Some("no route to 192.168.1.152".into());
    lost.weight = 0;
    lost.state = Admin::Drain;
    lost.active = false;
    let mut spare = up("c3", "2001:db8::153");
    spare.backup = true;
    spare.active = false;
    spare.port = None;
    let mut web = vip("horizon", PoolHealth::Unknown, Vec::new());
    web.mode = "http".into();
    web.persistence = "cookie".into();
    web.served = false;
    web.note = Some("mode http needs l7-proxy".into());
    let interface = |name: &str, mode: &str, note: Option<&str>| Interface {
        name: name.into(),
        index: 2,
        xdp_mode: mode.into(),
        program_id: 42,
        note: note.map(str::to_owned),
    };
    Snapshot {
        version: "0.1.0".into(),
        etag: "0123456789abcdef-01234567".into(),
        time: NOW,
        started: NOW - 3 * 86_400 - 4 * 3600,
        config_file: Some("/etc/lb/lb.toml".into()),
        last_reload: None,
        interfaces: vec![
            interface("eth0", "native", None),
            interface("eth1", "generic", Some("the driver has no native XDP")),
        ],
        vips: vec![
            vip(
                "aodh",
                PoolHealth::Degraded,
                vec![
                    up("c0", "192.168.1.150"),
                    server("c1", "192.168.1.151", Health::Down, "connection refused"),
                    lost,
                    spare,
                ],
            ),
            web,
            vip(
                "empty-pool",
                PoolHealth::Down,
                vec![server("c0", "192.168.1.150", Health::Unknown, "not checked yet")],
            ),
        ],
        reasons: vec![
            reason("event", "tag-evicted", 12),
            reason("event", "syn-flood", 0),
            reason("pass", "not-for-a-vip", 123_456),
            reason("pass", "not-ip", 7),
            reason("drop", "no-server", 3),
            reason("drop", "bad-checksum", 0),
            reason("drop", "too-short", 50),
        ],
        flows: 120,
        flow_capacity: 1 << 20,
        flows_taken: 131,
        tags: 2_500_000,
        tag_capacity: 8_388_608,
        tags_taken: 2_700_000,
        sweeps: 9,
        pools: Vec::new(),
    }
}

#[test]
fn the_whole_picture() {
    let expected = include_str!("golden.txt");
    let text = render(&snapshot(), false, false);
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn an_empty_balancer() {
    let snapshot = Snapshot { version: "0.1.0".into(), time: NOW, started: NOW - 5, ..Snapshot::default() };
    let expected = "\
lb-user 0.1.0, up 5s, no configuration file, 2026-11-21T00:10:31Z
translated flows: 0 alive, 0 places taken (of 0 per address family)
flow tags: 0 alive, 0 places taken (of 0)

No VIPs are configured.

Packets dropped: none
Packets left to this host: none
Events: none
";
    assert_eq!(render(&snapshot, false, false), expected);
}

#[test]
fn colours_are_for_words_of_health_and_change_nothing_else() {
    let plain = render(&snapshot(), false, false);
    assert!(!plain.contains('\x1b'));
    let mut coloured = render(&snapshot(), false, true);
    for painted in ["\x1b[31mdown\x1b[0m", "\x1b[32mup\x1b[0m", "\x1b[33mdegraded\x1b[0m"] {
        assert!(coloured.contains(painted), "{painted:?}");
    }
    assert!(coloured.contains("\x1b[33mnot served yet: mode http needs l7-proxy\x1b[0m"));
    for code in ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"] {
        coloured = coloured.replace(code, "");
    }
    assert_eq!(coloured, plain);
}

#[test]
fn what_the_operator_has_said_for_the_time_being_stands_out() {
    let mut snapshot = snapshot();
    snapshot.vips[0].enabled = false;
    let server = &mut snapshot.vips[0].servers[0];
    (server.weight, server.weight_of_file) = (7, Some(100));
    let text = render(&snapshot, false, false);
    let line = |words: &str| text.lines().find(|line| line.contains(words)).unwrap().to_owned();
    assert!(line("aodh").ends_with("disabled: refuses new connections"), "{text}");
    assert!(line("connected; weight").ends_with("weight 7 for the time being (100 in the file)"), "{text}");
}

#[test]
fn the_wide_picture_says_how_vips_balance_and_check() {
    let wide = render(&snapshot(), true, false);
    let line = wide.lines().find(|line| line.starts_with("aodh")).unwrap();
    assert!(line.contains("controllers  maglev     none         tcp 8042  degraded"), "{line}");
    let columns = |text: &str| text.lines().find(|line| line.starts_with("VIP")).unwrap().find("CONNS");
    assert!(columns(&wide) > columns(&render(&snapshot(), false, false)));
}
