//! The shipped examples load unchanged and mean what their comments say.

use std::{net::IpAddr, path::PathBuf};

use l7_spec::{CookiePersistence, Redirect, Scheme, Span, Timeouts};
use lb_user::{
    config::check,
    model::{
        Address, Algorithm, Check, Config, Empty, GUE_PORT, HealthCheck, HttpCheck, Mode, Persistence,
        Protocol, ProxiedVip, Server, StatusRanges, Tls, Vip,
    },
};

fn load(name: &str) -> Config {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let checked = check(name, &text).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(checked.warnings, [], "{name} has warnings");
    checked.config
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp_check(fall: u32) -> HealthCheck {
    HealthCheck { fall, ..HealthCheck::default() }
}

fn http_check(path: &str, expect: (u16, u16), port: u16) -> HealthCheck {
    let check = HttpCheck { path: path.into(), expect: StatusRanges(vec![expect]), ..HttpCheck::default() };
    HealthCheck { check: Check::Http(check), port: Some(port), ..tcp_check(3) }
}

/// Name and address of each server, after checking that the rest of it is the default.
fn plain_servers(servers: &[Server]) -> Vec<(&str, String)> {
    for server in servers {
        assert_eq!((server.weight, server.backup), (100, false), "{}", server.name);
    }
    servers.iter().map(|server| (server.name.as_str(), server.address().unwrap().to_string())).collect()
}

fn certificates(files: &[&str]) -> Option<Tls> {
    Some(Tls { certificates: files.iter().map(PathBuf::from).collect(), ..Tls::default() })
}

/// A VIP with everything optional left out.
fn vip(name: &str, address: &str, port: &str, mode: Mode, pool: &str, health: HealthCheck) -> Vip {
    let text = format!(
        "[pool.p]\n[vip.v]\naddress = \"192.0.2.1\"\nport = \"{port}\"\nmode = \"snat\"\npool = \"p\""
    );
    Vip {
        name: name.into(),
        address: ip(address),
        ports: check("ports", &text).unwrap().config.vips[0].ports.clone(),
        protocol: Protocol::Tcp,
        mode,
        pool: Some(pool.into()),
        server_port: None,
        algorithm: if mode.is_layer4() { Algorithm::Maglev } else { Algorithm::RoundRobin },
        persistence: Persistence::None,
        empty: Empty::Drop,
        max_new_flows: None,
        mss: None,
        flow_state: true,
        gue_port: GUE_PORT,
        health,
        tls: None,
        redirect: None,
        trusted_proxies: Vec::new(),
        timeouts: Timeouts::default(),
        proxied: ProxiedVip::default(),
        error_pages: Default::default(),
        quic: Default::default(),
    }
}

#[test]
fn openstack_is_the_table_of_23_services() {
    let config = load("openstack.toml");
    assert!(config.manage_addresses);
    assert_eq!(config.snat_ports, None);

    let [pool] = &config.pools[..] else { panic!("one pool") };
    assert_eq!(pool.name, "controllers");
    assert_eq!(
        plain_servers(&pool.servers),
        [
            ("overcloud-controller-1", "192.168.1.150".into()),
            ("overcloud-controller-2", "192.168.1.151".into()),
            ("overcloud-controller-3", "192.168.1.152".into()),
        ]
    );
    assert_eq!(pool.health, tcp_check(5));

    let cookie = || Persistence::Cookie(CookiePersistence::named("SERVERID"));
    let none = || Persistence::None;
    let table = [
        ("aodh", "8042", Mode::Snat, none()),
        ("ceilometer", "8777", Mode::Snat, none()),
        ("cinder", "8776", Mode::Snat, none()),
        ("glance_api", "9292", Mode::Snat, none()),
        ("glance_registry", "9191", Mode::Snat, none()),
        ("gnocchi", "8041", Mode::Snat, none()),
        ("heat_api", "8004", Mode::Http, none()),
        ("heat_cfn", "8000", Mode::Snat, none()),
        ("heat_cloudwatch", "8003", Mode::Snat, none()),
        ("horizon", "80", Mode::Http, cookie()),
        ("keystone_admin", "35357", Mode::Snat, none()),
        ("keystone_admin_ssh", "22", Mode::Snat, none()),
        ("keystone_public", "5000", Mode::Snat, none()),
        ("mysql", "3306", Mode::Snat, Persistence::LastSuccessful),
        ("neutron", "9696", Mode::Snat, none()),
        ("nova_ec2", "8773", Mode::Snat, none()),
        ("nova_metadata", "8775", Mode::Snat, none()),
        ("nova_novncproxy", "6080", Mode::Snat, Persistence::SourceIp { timeout: None, entries: None }),
        ("nova_osapi", "8774", Mode::Snat, none()),
        ("nova_placement", "8778", Mode::Snat, none()),
        ("panko", "8779", Mode::Snat, none()),
        ("redis", "6379", Mode::Snat, Persistence::LastSuccessful),
        ("swift_proxy_server", "8080", Mode::Snat, none()),
    ];
    let expected: Vec<Vip> = table
        .into_iter()
        .map(|(name, port, mode, persistence)| Vip {
            persistence,
            ..vip(name, "192.168.1.250", port, mode, "controllers", tcp_check(5))
        })
        .collect();
    assert_eq!(config.vips.len(), 23);
    for (found, expected) in config.vips.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(config.servers_of(&config.vips[0]), pool.servers);
}

#[test]
fn tas_is_routers_on_several_addresses() {
    let config = load("tas.toml");
    let pools: Vec<_> = config
        .pools
        .iter()
        .map(|pool| (pool.name.as_str(), plain_servers(&pool.servers), &pool.health))
        .collect();
    let gorouter = http_check("/health", (200, 200), 8080);
    let tcp_router = http_check("/health", (200, 399), 80);
    let other = tcp_check(3);
    assert_eq!(
        pools,
        [
            (
                "gorouters",
                vec![
                    ("gorouter-0", "10.0.4.10".into()),
                    ("gorouter-1", "10.0.4.11".into()),
                    ("gorouter-2", "10.0.4.12".into()),
                ],
                &gorouter
            ),
            (
                "tcp_routers",
                vec![("tcp-router-0", "10.0.4.20".into()), ("tcp-router-1", "10.0.4.21".into())],
                &tcp_router
            ),
            ("diego_brains", vec![("diego-brain-0", "10.0.4.30".into())], &other),
            ("ops_manager", vec![("ops-manager", "10.0.4.2".into())], &other),
        ]
    );
    let expected = [
        Vip {
            server_port: Some(80),
            tls: certificates(&["certs/apps.pem", "certs/sys.pem"]),
            trusted_proxies: vec![(ip("10.0.0.0"), 24)],
            timeouts: Timeouts {
                client_idle: Span::from_secs(900),
                server_idle: Span::from_secs(60),
                tunnel: Span::from_secs(3600),
                ..Timeouts::default()
            },
            ..vip("apps_https", "10.0.0.10", "443", Mode::Http, "gorouters", gorouter.clone())
        },
        vip("apps_http", "10.0.0.10", "80", Mode::Http, "gorouters", gorouter.clone()),
        Vip {
            server_port: Some(443),
            ..vip("loggregator", "10.0.0.10", "8443", Mode::Snat, "gorouters", gorouter.clone())
        },
        vip("apps_passthrough", "10.0.0.11", "80,443", Mode::Snat, "gorouters", gorouter),
        vip("tcp_routes", "10.0.0.12", "1024-1123", Mode::Snat, "tcp_routers", tcp_router),
        vip("app_ssh", "10.0.0.10", "2222", Mode::Snat, "diego_brains", other.clone()),
        vip("ops_manager", "10.0.0.13", "443", Mode::Snat, "ops_manager", other),
    ];
    assert_eq!(config.vips, expected);
    assert_eq!(config.vips[4].ports.iter().count(), 100);
}

#[test]
fn flow_is_the_cluster_behind_tls() {
    let config = load("flow.toml");
    let web_check = tcp_check(3);
    let flow_check = http_check("/commanderRequest/health", (200, 399), 8000);
    let [web, flow] = &config.pools[..] else { panic!("two pools") };
    assert_eq!((web.name.as_str(), &web.health), ("web", &web_check));
    assert_eq!(
        plain_servers(&web.servers),
        [("web1", "10.1.0.11".into()), ("web2", "10.1.0.12".into()), ("web3", "10.1.0.13".into())]
    );
    assert_eq!((flow.name.as_str(), &flow.health), ("flow", &flow_check));
    let (spare, nodes) = flow.servers.split_last().unwrap();
    assert_eq!(
        plain_servers(nodes),
        [("node1", "10.1.0.21".into()), ("node2", "10.1.0.22".into()), ("node3", "10.1.0.23".into())]
    );
    let expected_spare = Server {
        name: "spare".into(),
        address: Address::Fixed(ip("10.1.0.24")),
        port: None,
        weight: 100,
        max_connections: None,
        backup: true,
        quic_id: None,
    };
    assert_eq!(*spare, expected_spare);

    let pem = || certificates(&["certs/server.pem"]);
    let expected = [
        Vip {
            pool: None,
            redirect: Some(Redirect::to_scheme(Scheme::Https)),
            ..vip("web_insecure", "10.1.0.5", "80", Mode::Http, "", web_check.clone())
        },
        Vip {
            server_port: Some(80),
            tls: pem(),
            error_pages: [(503, PathBuf::from("errors/503.http"))].into(),
            ..vip("web", "10.1.0.5", "443", Mode::Http, "web", web_check)
        },
        vip("flow_insecure", "10.1.0.5", "8000", Mode::Http, "flow", flow_check.clone()),
        Vip {
            server_port: Some(8000),
            tls: pem(),
            ..vip("flow", "10.1.0.5", "8443", Mode::Http, "flow", flow_check.clone())
        },
        Vip { tls: pem(), ..vip("stomp", "10.1.0.5", "61613", Mode::Tcp, "flow", flow_check) },
    ];
    assert_eq!(config.vips, expected);
}
