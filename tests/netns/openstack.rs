//! Real input: `examples/openstack.toml` as it stands, in front of three stand-in controllers.

use std::{path::Path, time::Duration};

use lb_tests::{
    address::{Family, Subnet},
    client,
    daemon::{Balancer, find_vip},
    needs_balancer,
    topology::Layout,
};
use lb_user::snapshot::{Health, PoolHealth};

use crate::bed::Bed;

/// The services of the deployment brief and their ports.
const SERVICES: [(&str, u16); 23] = [
    ("aodh", 8042),
    ("ceilometer", 8777),
    ("cinder", 8776),
    ("glance_api", 9292),
    ("glance_registry", 9191),
    ("gnocchi", 8041),
    ("heat_api", 8004),
    ("heat_cfn", 8000),
    ("heat_cloudwatch", 8003),
    ("horizon", 80),
    ("keystone_admin", 35357),
    ("keystone_admin_ssh", 22),
    ("keystone_public", 5000),
    ("mysql", 3306),
    ("neutron", 9696),
    ("nova_ec2", 8773),
    ("nova_metadata", 8775),
    ("nova_novncproxy", 6080),
    ("nova_osapi", 8774),
    ("nova_placement", 8778),
    ("panko", 8779),
    ("redis", 6379),
    ("swift_proxy_server", 8080),
];
/// Those that speak HTTP to the balancer and wait for l7-proxy.
const HTTP: [&str; 2] = ["heat_api", "horizon"];
/// Those that keep all clients, or this one client, on one server.
const PERSISTENT: [&str; 3] = ["mysql", "nova_novncproxy", "redis"];
/// Number of requests to each service.
const REQUESTS: usize = 200;

#[test]
fn the_openstack_example_serves_and_one_closed_port_is_one_server_of_one_vip() {
    needs_balancer!();
    let ports = SERVICES.map(|(_, port)| port);
    let layout =
        Layout { front: Subnet::OPENSTACK, back: Subnet::OPENSTACK, first_server: 150, ..Layout::default() };
    let bed = Bed::new(layout, &ports);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples").join("openstack.toml");
    let text = std::fs::read_to_string(&example).expect("the example");
    let balancer = Balancer::start(&bed.net.lb.ns, &["eth0"], &text);
    let status = balancer.wait_all_up();
    let names: Vec<_> = status.vips.iter().map(|vip| vip.name.as_str()).collect();
    assert_eq!(names, SERVICES.map(|(name, _)| name));

    the_list_is_the_table_of_services(&balancer);
    for (name, port) in SERVICES {
        let vip = find_vip(&status, name);
        assert_eq!(
            (vip.address, vip.ports.as_str()),
            (bed.net.vip(250).of(Family::V4), port.to_string().as_str())
        );
        if HTTP.contains(&name) {
            assert!(!vip.served, "{name}");
            let note = vip.note.as_deref().unwrap_or_default();
            assert!(note.contains("l7-proxy"), "{name}: {note:?}");
            continue;
        }
        assert!(vip.served, "{name}: {:?}", vip.note);
        assert_eq!((vip.mode.as_str(), vip.health), ("snat", PoolHealth::Healthy), "{name}");
        let tally = client::requests(&bed.net.client().ns, bed.net.vip(250).at(Family::V4, port), REQUESTS);
        let servers = tally.all_answered(name).by_server.len();
        assert_eq!(servers, if PERSISTENT.contains(&name) { 1 } else { 3 }, "{name}");
    }

    close_one_port(&bed, &balancer);
    let (_, _) = balancer.stop();
}

/// R15: field by field.
#[track_caller]
fn the_list_is_the_table_of_services(balancer: &Balancer<'_>) {
    let listed = balancer.lbctl(&["vip", "list", "-o", "json"]).expect("a list");
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed.len(), SERVICES.len());
    for ((name, port), row) in SERVICES.iter().zip(&listed) {
        let persistence = match *name {
            "mysql" | "redis" => "last-successful",
            "nova_novncproxy" => "source-ip",
            "horizon" => "cookie",
            _ => "none",
        };
        let mode = if HTTP.contains(name) { "http" } else { "snat" };
        let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{name}: {key} in {row}"));
        let told =
            [text("name"), text("ports"), text("mode"), text("persistence"), text("check"), text("protocol")];
        assert_eq!(told, [*name, &port.to_string(), mode, persistence, "tcp", "tcp"]);
        assert_eq!(row["check_port"], *port, "{name}: the check connects to the port");
        assert_eq!((&row["servers"], &row["address"]), (&3.into(), &listed[0]["address"]), "{name}");
    }
}

/// R20: cinder on the first controller closes, nothing else changes.
#[track_caller]
fn close_one_port(bed: &Bed, balancer: &Balancer<'_>) {
    let (name, port) = SERVICES[2];
    bed.servers[0].close(port);
    let status = balancer.wait_health(Duration::from_secs(15), name, "overcloud-controller-1", Health::Down);
    let served = status.vips.iter().filter(|vip| vip.served);
    let ill: Vec<_> = served
        .flat_map(|vip| vip.servers.iter().map(move |server| (vip.name.as_str(), server)))
        .filter(|(_, server)| server.health != Health::Up)
        .map(|(vip, server)| (vip, server.name.as_str()))
        .collect();
    assert_eq!(ill, [(name, "overcloud-controller-1")]);
    for vip in status.vips.iter().filter(|vip| vip.served) {
        let expected = if vip.name == name { PoolHealth::Degraded } else { PoolHealth::Healthy };
        assert_eq!(vip.health, expected, "{}", vip.name);
    }
    let tally = client::requests(&bed.net.client().ns, bed.net.vip(250).at(Family::V4, port), REQUESTS);
    let servers: Vec<_> = tally.all_answered(name).by_server.into_keys().collect();
    assert_eq!(servers, ["s2", "s3"]);
}
