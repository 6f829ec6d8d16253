//! Real input: `examples/openstack.toml` as it stands, in front of three stand-in controllers.

use std::{collections::BTreeSet, path::Path, time::Duration};

use lb_tests::{
    address::{Family, Subnet},
    client,
    daemon::{Balancer, find_vip},
    http::{Got, Web, curl},
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
/// Those whose servers speak HTTP, in front of which is l7-proxy.
const HTTP: [&str; 2] = ["heat_api", "horizon"];
/// Their ports.
const HTTP_PORTS: [u16; 2] = [8004, 80];
/// Those that keep all clients, or this one client, on one server.
const PERSISTENT: [&str; 3] = ["mysql", "nova_novncproxy", "redis"];
/// Number of requests to each service.
const REQUESTS: usize = 200;

#[test]
fn the_openstack_example_serves_and_one_closed_port_is_one_server_of_one_vip() {
    needs_balancer!();
    let ports: Vec<_> =
        SERVICES.iter().filter(|(name, _)| !HTTP.contains(name)).map(|(_, port)| *port).collect();
    let layout =
        Layout { front: Subnet::OPENSTACK, back: Subnet::OPENSTACK, first_server: 150, ..Layout::default() };
    let bed = Bed::new(layout, &ports);
    let webs: Vec<_> = bed
        .net
        .servers
        .iter()
        .flat_map(|host| {
            HTTP_PORTS.map(|port| Web::start(&host.ns, &host.name, host.address.of(Family::V4), port))
        })
        .collect();
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
        assert!(vip.served, "{name}: {:?}", vip.note);
        let mode = if HTTP.contains(&name) { "http" } else { "snat" };
        assert_eq!((vip.mode.as_str(), vip.health), (mode, PoolHealth::Healthy), "{name}");
        if HTTP.contains(&name) {
            continue;
        }
        let tally = client::requests(&bed.net.client().ns, bed.net.vip(250).at(Family::V4, port), REQUESTS);
        let servers = tally.all_answered(name).by_server.len();
        assert_eq!(servers, if PERSISTENT.contains(&name) { 1 } else { 3 }, "{name}");
    }

    heat_api_is_http(&bed);
    horizon_persists_by_cookie(&bed, &webs);
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

/// R22: the client is named to the server, and connections are used again.
#[track_caller]
fn heat_api_is_http(bed: &Bed) {
    let url = format!("http://{}:8004/v1", bed.net.vip(250).of(Family::V4));
    let client = bed.net.client().address.of(Family::V4);
    let got = curl(&bed.net.client().ns, &[&url, &url, "--write-out", "connects: %{num_connects}\n"]);
    assert!(got.body.contains(&format!("x-forwarded-for: {client}\n")), "{got:?}");
    assert!(got.body.ends_with("connects: 0\n"), "the second request on the same connection: {got:?}");
}

/// R17: with its cookie a client stays with its server until that fails; the cookie is between us and the client.
#[track_caller]
fn horizon_persists_by_cookie(bed: &Bed, webs: &[Web]) {
    let ns = &bed.net.client().ns;
    let url = format!("http://{}/", bed.net.vip(250).of(Family::V4));
    let names = |got: &[Got]| -> BTreeSet<String> {
        got.iter().map(|got| got.server().unwrap_or_else(|| panic!("{got:?}")).to_owned()).collect()
    };
    let without: Vec<_> = (0..12).map(|_| curl(ns, &[&url])).collect();
    assert_eq!(names(&without).len(), 3, "without a cookie each has its turn");
    let set = without[0].header("set-cookie").expect("a cookie").to_owned();
    assert!(set.starts_with("SERVERID=") && !set.contains("192.168"), "{set}");
    assert!(set.contains("HttpOnly"), "{set}");
    let cache = without[0].header("cache-control").unwrap_or_default();
    assert!(cache.contains("private") || cache.contains("no-store"), "not for shared caches: {cache:?}");
    let cookie = set.split(';').next().expect("a value").to_owned();
    let with: Vec<_> = (0..20).map(|_| curl(ns, &["--cookie", &cookie, &url])).collect();
    assert_eq!(names(&with), names(&without[..1]));
    for got in &with {
        assert_eq!(got.header("set-cookie"), None, "it has one");
        assert!(!got.body.contains("SERVERID"), "the server does not see it: {got:?}");
    }
    let name = with[0].server().expect("a server").to_owned();
    webs.iter().filter(|web| web.name() == name && web.port() == 80).for_each(Web::end);
    let next = curl(ns, &["--cookie", &cookie, &url]);
    assert_eq!(next.status, 200, "{next:?}");
    assert_ne!(next.server(), Some(name.as_str()));
    assert!(next.header("set-cookie").is_some(), "a new cookie: {next:?}");
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
    assert!(ill.contains(&(name, "overcloud-controller-1")));
    assert!(
        ill.iter().all(|(vip, _)| [name, "horizon"].contains(vip)),
        "horizon has lost one before: {ill:?}"
    );
    for vip in status.vips.iter().filter(|vip| vip.name != "horizon") {
        let expected = if vip.name == name { PoolHealth::Degraded } else { PoolHealth::Healthy };
        assert_eq!(vip.health, expected, "{}", vip.name);
    }
    let tally = client::requests(&bed.net.client().ns, bed.net.vip(250).at(Family::V4, port), REQUESTS);
    let servers: Vec<_> = tally.all_answered(name).by_server.into_keys().collect();
    assert_eq!(servers, ["s2", "s3"]);
}
