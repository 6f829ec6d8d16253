use std::net::IpAddr;

use lb_common::abi::Mac;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::{
    config,
    datapath::fake::Fake,
    picture::{self, About},
    plan::desired::Way,
    snapshot::PoolHealth,
};

const CONFIG: &str = r#"
    [pool.web]
    servers = [{ name = "s1", address = "10.0.0.1" }, { name = "s2", address = "10.0.0.2" }]
    [vip.a]
    address = "192.0.2.1"
    port = 80
    mode = "snat"
    pool = "web"
    [vip.b]
    address = "192.0.2.1"
    port = 81
    mode = "snat"
    pool = "web"
    [vip.proxied]
    address = "192.0.2.1"
    port = 82
    mode = "http"
    pool = "web"
"#;

pub(super) fn reconciler() -> Reconciler<Fake> {
    let config = config::check("test.toml", CONFIG).expect("a valid configuration").config;
    let ports = PortRange { first: 1_024, last: 2_047 };
    let mut reconciler = Reconciler::new(Fake::default(), config, ports, Shape::default()).unwrap();
    let way = Way {
        ifindex: 2,
        source_mac: Mac::new([2; 6]),
        next_hop: Some(Mac::new([4; 6])),
        routed: false,
        source: Some(IpAddr::from([10, 0, 0, 9])),
        mtu: 1_500,
    };
    let servers = [1, 2].map(|last| (IpAddr::from([10, 0, 0, last]), Ok(way)));
    let hops = servers.into_iter().collect();
    let interfaces = [(2, way.source_mac)].into();
    reconciler.on_surroundings(Surroundings { hops, interfaces, ..Surroundings::default() });
    reconciler
}

pub(super) fn health(vip: &str, server: &str, state: Health) -> HealthEvent {
    let id = TargetId { vip: vip.into(), server: server.into() };
    HealthEvent { id, state, reason: "said so".into(), since: 7, changed: true }
}

pub(super) fn about() -> About {
    About {
        now: || 100,
        started: 90,
        config_file: None,
        interfaces: Vec::new(),
        flow_capacity: 1_000,
        tag_capacity: 2_000,
        reasons_before: Vec::new(),
        last_reload: watch::channel(None).1,
        proxy: crate::l7::Handle::of_nobody(),
    }
}

#[test]
fn health_moves_one_server_of_one_vip_and_nothing_else() {
    let mut reconciler = reconciler();
    for vip in ["a", "b"] {
        for server in ["s1", "s2"] {
            reconciler.on_health(health(vip, server, Health::Up));
        }
    }
    reconciler.step(Duration::ZERO).unwrap();
    let before = reconciler.datapath.contents.clone();
    assert_eq!(reconciler.step(Duration::ZERO), Ok(0), "nothing happened, nothing is written");

    reconciler.on_health(health("a", "s1", Health::Down));
    assert_eq!(reconciler.step(Duration::ZERO), Ok(2), "the server's entry and the ring of its VIP");
    let after = &reconciler.datapath.contents;
    assert_ne!(before.rings[&1], after.rings[&1]);
    assert_eq!(before.rings[&2], after.rings[&2]);
    assert_eq!(before.vips4, after.vips4);
}

#[test]
fn after_a_refusal_the_next_step_goes_on() {
    let mut reconciler = reconciler();
    reconciler.datapath.refuse_after = Some(2);
    reconciler.step(Duration::ZERO).unwrap_err();
    reconciler.datapath.refuse_after = None;
    reconciler.step(Duration::ZERO).unwrap();
    assert_eq!(reconciler.step(Duration::ZERO), Ok(0));
    assert_eq!(reconciler.datapath.contents, reconciler.current);
}

#[test]
fn of_rings_that_were_refused_together_none_is_believed_to_be_as_before() {
    let mut reconciler = reconciler();
    all_up(&mut reconciler);
    reconciler.step(Duration::ZERO).unwrap();
    let before = reconciler.datapath.contents.rings.clone();
    let found = |reconciler: &mut Reconciler<Fake>, state| {
        for vip in ["a", "b"] {
            reconciler.on_health(health(vip, "s1", state));
        }
    };
    found(&mut reconciler, Health::Down);
    reconciler.datapath.refuse_after = Some(1);
    reconciler.step(Duration::ZERO).unwrap_err();
    assert_ne!(reconciler.datapath.contents.rings, before, "one of them was taken");
    // Before the next try all is as it was.
    found(&mut reconciler, Health::Up);
    reconciler.datapath.refuse_after = None;
    reconciler.step(Duration::ZERO).unwrap();
    assert_eq!(reconciler.datapath.contents.rings, before);
}

#[tokio::test(start_paused = true)]
async fn the_loop_ends_with_those_who_report_to_it() {
    for silent in 0..3 {
        let (health, health_inbox) = mpsc::channel(1);
        let (surroundings, surroundings_inbox) = mpsc::channel(1);
        let (census, census_inbox) = mpsc::channel(1);
        let (publish, last) = watch::channel(Arc::default());
        let (_handle, requests) = crate::admin::Handle::new(last);
        let inbox = Inbox {
            health: health_inbox,
            surroundings: surroundings_inbox,
            census: census_inbox,
            status: requests.status,
            commands: requests.commands,
            eyes: mpsc::unbounded_channel().1,
        };
        let running = tokio::spawn(run(
            reconciler(),
            about(),
            None,
            Arc::default(),
            inbox,
            std::sync::mpsc::channel().0,
            publish,
        ));
        let mut reporters = (Some(health), Some(surroundings), Some(census));
        match silent {
            0 => reporters.0 = None,
            1 => reporters.1 = None,
            _ => reporters.2 = None,
        }
        let ended = tokio::time::timeout(Duration::from_secs(9), running).await;
        assert!(matches!(ended, Ok(Ok(()))), "reporter {silent}");
    }
}

#[test]
fn a_vip_whose_servers_cannot_be_reached_is_not_healthy() {
    let mut reconciler = reconciler();
    for server in ["s1", "s2"] {
        reconciler.on_health(health("a", server, Health::Up));
    }
    let mut surroundings = reconciler.surroundings.clone();
    for hop in surroundings.hops.values_mut() {
        *hop = Err("no way".into());
    }
    reconciler.on_surroundings(surroundings);
    reconciler.step(Duration::ZERO).unwrap();
    let vip = &picture::snapshot(&reconciler, &about()).vips[0];
    assert_eq!(vip.health, PoolHealth::Down);
    assert_eq!(vip.servers[0].next_hop_problem.as_deref(), Some("no way"));
}

#[test]
fn the_snapshot_says_what_is_going_on() {
    let mut reconciler = reconciler();
    reconciler.on_health(health("a", "s1", Health::Up));
    reconciler.on_health(health("a", "s2", Health::Down));
    reconciler.on_health(health("proxied", "s1", Health::Up));
    reconciler.census.alive = 5;
    reconciler.census.by_server.insert(1, 5);
    reconciler.step(Duration::ZERO).unwrap();
    let snapshot = picture::snapshot(&reconciler, &about());
    let [a, b, proxied] = &snapshot.vips[..] else { panic!("three VIPs") };
    assert_eq!((a.health, b.health), (PoolHealth::Degraded, PoolHealth::Unknown));
    assert_eq!((a.served, proxied.served), (true, false));
    assert!(proxied.note.as_deref().is_some_and(|note| note.contains("l7-proxy")));
    let [s1, s2] = &a.servers[..] else { panic!("two servers") };
    assert_eq!((s1.active, s2.active), (true, false));
    assert_eq!((s1.health, s1.since, s1.reason.as_str()), (Health::Up, 7, "said so"));
    assert_eq!((s1.port, s1.weight), (Some(80), 100));
    assert_eq!((a.traffic.active, s1.traffic.active, s2.traffic.active), (5, 5, 0));
    assert_eq!((snapshot.flows, snapshot.flow_capacity), (5, 1_000));
    use lb_common::verdict::{DropReason, Event, PassReason};
    let reasons = PassReason::ALL.len() + DropReason::ALL.len() + Event::ALL.len();
    assert_eq!(snapshot.reasons.len(), reasons, "also those that did not happen");
}

pub(super) fn all_up(reconciler: &mut Reconciler<Fake>) {
    for vip in ["a", "b"] {
        for server in ["s1", "s2"] {
            reconciler.on_health(health(vip, server, Health::Up));
        }
    }
    reconciler.step(Duration::ZERO).unwrap();
}

pub(super) fn with(change: impl FnOnce(String) -> String) -> Config {
    config::check("test.toml", &change(CONFIG.into())).expect("a valid configuration").config
}

#[test]
fn another_configuration_touches_nothing_that_is_in_both() {
    let mut reconciler = reconciler();
    all_up(&mut reconciler);
    let before = reconciler.datapath.contents.clone();
    reconciler.configure(with(|text| text)).unwrap();
    assert_eq!(reconciler.step(Duration::ZERO), Ok(0), "the same again is nothing");

    reconciler.configure(with(|text| text.replace("port = 81", "port = 91"))).unwrap();
    assert_eq!(reconciler.step(Duration::ZERO), Ok(2), "one key comes, one goes");
    let after = &reconciler.datapath.contents;
    assert_eq!((&after.rings, &after.servers), (&before.rings, &before.servers));
}

#[test]
fn counters_of_a_vip_do_not_go_back_when_a_server_leaves() {
    let mut reconciler = reconciler();
    all_up(&mut reconciler);
    let packets = |reconciler: &Reconciler<Fake>| {
        let vip = &picture::snapshot(reconciler, &about()).vips[0];
        (vip.traffic.packets_in, vip.servers.last().unwrap().traffic.packets_in)
    };
    let all = packets(&reconciler).0;
    let one = |text: String| text.replace(r#", { name = "s2", address = "10.0.0.2" }"#, "");
    reconciler.configure(with(one)).unwrap();
    reconciler.step(Duration::ZERO).unwrap();
    assert_eq!(packets(&reconciler).0, all);
    reconciler.configure(with(|text| text)).unwrap();
    reconciler.step(Duration::ZERO).unwrap();
    assert_eq!(packets(&reconciler), (all, 0), "one that returns begins anew, whatever its number counted");
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut reconciler = reconciler();
    all_up(&mut reconciler);
    let many: String = (1..5_000)
        .map(|n| {
            format!("[vip.v{n}]\naddress = \"192.0.2.9\"\nport = {n}\nmode = \"snat\"\npool = \"web\"\n")
        })
        .collect();
    let mut config = with(|text| text);
    // The check of configurations would refuse it first.
    let more = config::check("many.toml", &format!("{CONFIG}{}", &many[..many.find("[vip.v3000]").unwrap()]));
    config.vips = more.unwrap().config.vips;
    let again: Vec<_> = config
        .vips
        .iter()
        .cloned()
        .map(|mut vip| {
            vip.name += "x";
            vip
        })
        .collect();
    config.vips.extend(again);
    assert!(reconciler.configure(config).is_err());
    assert_eq!(reconciler.step(Duration::ZERO), Ok(0));
    assert_eq!(reconciler.config.vips.len(), 3);
}

#[test]
fn news_of_a_server_that_is_gone_are_none() {
    let mut reconciler = reconciler();
    assert!(!reconciler.on_health(health("a", "s9", Health::Up)));
    assert!(reconciler.health.is_empty());
}
