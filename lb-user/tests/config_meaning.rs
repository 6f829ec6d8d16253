//! What is left out, what is inherited and what is overridden: small configurations and what they mean.

use std::{path::PathBuf, sync::Arc, time::Duration};

use l7_spec::{CookiePersistence, Span, Timeouts};
use lb_common::quic::lb::{Encoding, Key};
use lb_user::{
    config::{Checked, check},
    model::{
        AddressFamily, Algorithm, Check, Config, Empty, FlowTables, Found, HealthCheck, HttpCheck, Mode,
        Name, Persistence, PortRange, Protocol, StatusRanges, Vip,
    },
};

fn checked(text: &str) -> Checked {
    check("test.toml", text).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn config(text: &str) -> Config {
    let checked = checked(text);
    assert_eq!(checked.warnings, []);
    checked.config
}

fn vip<'c>(config: &'c Config, name: &str) -> &'c Vip {
    config.vips.iter().find(|vip| vip.name == name).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_empty_file_is_an_empty_configuration() {
    for text in ["", "\n", "# nothing yet\n", "\u{feff}", "\r\n\r\n"] {
        assert_eq!(config(text), Config::default());
    }
}

#[test]
fn everything_has_a_default_but_address_port_mode_and_pool() {
    let config = config(
        r#"
        [pool.web]
        servers = [{ name = "web1", address = "10.0.0.11" }]
        [vip.web]
        address = "10.0.0.1"
        port = 80
        mode = "nat"
        pool = "web"
        "#,
    );
    assert!(config.manage_addresses);
    assert_eq!(config.snat_ports, None);
    assert_eq!(config.pools[0].health, HealthCheck::default());
    let expected = (secs(2), secs(2), 2, 3);
    let HealthCheck { interval, timeout, rise, fall, .. } = config.pools[0].health;
    assert_eq!((interval, timeout, rise, fall), expected);
    let server = &config.pools[0].servers[0];
    assert_eq!((server.weight, server.backup), (100, false));
    let vip = &config.vips[0];
    assert_eq!(vip.protocol, Protocol::Tcp);
    assert_eq!(vip.mode, Mode::Nat);
    assert_eq!(vip.server_port, None);
    assert_eq!(vip.persistence, Persistence::None);
    assert_eq!(vip.health, HealthCheck::default());
    assert_eq!((&vip.tls, &vip.redirect), (&None, &None));
    assert_eq!(vip.timeouts, Timeouts::default());
    assert!(vip.trusted_proxies.is_empty() && vip.error_pages.is_empty());
}

#[test]
fn every_key_at_once() {
    let config = config(
        r#"
        manage_addresses = false
        snat_ports = "20000-29999"

        [[pool.web.servers]]
        name = "web1"
        address = "fd00::11"
        weight = 0

        [[pool.web.servers]]
        name = "web2"
        address = "fd00::12"
        backup = true

        [vip.dns]
        address = "fd00::1"
        port = "53, 5353-5354"
        protocol = "udp"
        mode = "snat"
        pool = "web"
        server_port = 53
        persistence = { type = "source-ip" }
        health = { port = 8053, interval = "500ms", rise = 1, fall = 10 }

        [vip."www.example"]
        address = "10.0.0.1"
        port = 443
        mode = "http"
        pool = "web"
        server_port = 80
        persistence = { type = "cookie", name = "__Host-id" }
        tls.certificates = ["a.pem", "/etc/b.pem"]
        trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
        error_pages = { 503 = "503.http", 404 = "404.http" }
        [vip."www.example".timeouts]
        client_idle = "900s"
        server_idle = "1m"
        tunnel = "1h"
        [vip."www.example".health]
        check = "http"
        path = "/health?full"
        expect = "200-299,401"
        "#,
    );
    assert!(!config.manage_addresses);
    assert_eq!(config.snat_ports, Some(PortRange { first: 20_000, last: 29_999 }));
    let servers: Vec<_> =
        config.pools[0].servers.iter().map(|server| (&*server.name, server.weight, server.backup)).collect();
    assert_eq!(servers, [("web1", 0, false), ("web2", 100, true)]);

    let dns = vip(&config, "dns");
    assert_eq!(dns.ports.to_string(), "53,5353-5354");
    assert_eq!((dns.protocol, dns.server_port), (Protocol::Udp, Some(53)));
    assert_eq!(dns.persistence, Persistence::SourceIp { timeout: None, entries: None });
    let expected = HealthCheck {
        interval: Duration::from_millis(500),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 10,
        port: Some(8053),
        ..HealthCheck::default()
    };
    assert_eq!(dns.health, expected);

    let www = vip(&config, "www.example");
    assert_eq!(www.persistence, Persistence::Cookie(CookiePersistence::named("__Host-id")));
    assert_eq!(www.tls.as_ref().unwrap().certificates, [PathBuf::from("a.pem"), PathBuf::from("/etc/b.pem")]);
    assert_eq!(www.trusted_proxies, [("10.0.0.0".parse().unwrap(), 8), ("fd00::".parse().unwrap(), 8)]);
    let [client_idle, server_idle, tunnel] = [900, 60, 3_600].map(Span::from_secs);
    assert_eq!(www.timeouts, Timeouts { client_idle, server_idle, tunnel, ..Timeouts::default() });
    let pages = [(404, PathBuf::from("404.http")), (503, PathBuf::from("503.http"))];
    assert_eq!(www.error_pages.clone().into_iter().collect::<Vec<_>>(), pages);
    let check = HttpCheck {
        path: "/health?full".into(),
        expect: StatusRanges(vec![(200, 299), (401, 401)]),
        ..HttpCheck::default()
    };
    assert_eq!(www.health.check, Check::Http(check));
}

#[test]
fn health_is_inherited_key_by_key() {
    let config = config(
        r#"
        [health]
        interval = "10s"
        timeout = "4s"
        fall = 7

        [pool.web]
        servers = [{ name = "web1", address = "10.0.0.11" }]
        health = { check = "http", path = "/pool", expect = 204, rise = 3 }

        [vip_defaults]
        address = "10.0.0.1"
        mode = "snat"
        pool = "web"
        health = { port = 9000, path = "/default" }

        [vip.plain]
        port = 80

        [vip.own]
        port = 81
        health = { path = "/own", timeout = "1s" }

        [vip.tcp]
        port = 82
        health = { check = "tcp" }

        [vip.none]
        port = 83
        health = { check = "none" }
        "#,
    );
    let http = |path: &str| {
        let expect = StatusRanges(vec![(204, 204)]);
        Check::Http(HttpCheck { path: path.into(), expect, ..HttpCheck::default() })
    };
    let pool = HealthCheck {
        check: http("/pool"),
        interval: secs(10),
        timeout: secs(4),
        rise: 3,
        fall: 7,
        ..HealthCheck::default()
    };
    assert_eq!(config.pools[0].health, pool);
    let plain = HealthCheck { check: http("/default"), port: Some(9000), ..pool };
    assert_eq!(vip(&config, "plain").health, plain);
    let own = HealthCheck { check: http("/own"), timeout: secs(1), ..plain.clone() };
    assert_eq!(vip(&config, "own").health, own);
    assert_eq!(vip(&config, "tcp").health, HealthCheck { check: Check::Tcp, ..plain.clone() });
    assert_eq!(vip(&config, "none").health, HealthCheck { check: Check::None, ..plain });
}

#[test]
fn the_default_timeout_is_two_seconds_or_a_shorter_interval() {
    for (interval, timeout) in [("500ms", 500), ("2s", 2_000), ("1m", 2_000)] {
        let config = config(&format!(
            "[health]\ninterval = \"{interval}\"\n[pool.p]\nservers = [{{ name = \"a\", address = \"10.0.0.2\" }}]\n\
             [vip.v]\naddress = \"10.0.0.1\"\nport = 80\nmode = \"snat\"\npool = \"p\""
        ));
        assert_eq!(config.vips[0].health.timeout, Duration::from_millis(timeout));
    }
}

#[test]
fn defaults_of_vips_give_way_to_their_own_keys() {
    let config = config(
        r#"
        [pool.web]
        servers = [{ name = "web1", address = "10.0.0.11" }]
        [pool.api]
        servers = [{ name = "api1", address = "10.0.0.12" }]

        [vip_defaults]
        address = "10.0.0.1"
        port = 443
        mode = "http"
        pool = "web"
        server_port = 8080
        persistence = { type = "cookie", name = "ID" }
        tls = { certificates = ["default.pem"] }
        timeouts = { client_idle = "10s", tunnel = "1h" }
        error_pages = { 502 = "default.http", 503 = "default.http" }
        trusted_proxies = ["10.0.0.0/8"]

        [vip.all]

        [vip.own]
        address = "10.0.0.2"
        port = 444
        pool = "api"
        server_port = 9090
        persistence = { type = "none" }
        tls = { certificates = ["own.pem"] }
        timeouts = { client_idle = "20s" }
        error_pages = { 503 = "own.http" }
        trusted_proxies = []

        [vip.redirect]
        port = 80
        redirect = { scheme = "https" }
        "#,
    );
    let all = vip(&config, "all");
    assert_eq!((all.address.to_string(), all.ports.to_string()), ("10.0.0.1".into(), "443".into()));
    assert_eq!((all.pool.as_deref(), all.server_port), (Some("web"), Some(8080)));
    assert_eq!(all.persistence, Persistence::Cookie(CookiePersistence::named("ID")));
    assert_eq!(all.trusted_proxies.len(), 1);

    let own = vip(&config, "own");
    assert_eq!((own.address.to_string(), own.ports.to_string()), ("10.0.0.2".into(), "444".into()));
    assert_eq!((own.pool.as_deref(), own.server_port), (Some("api"), Some(9090)));
    assert_eq!(own.persistence, Persistence::None);
    assert_eq!(own.tls.as_ref().unwrap().certificates, [PathBuf::from("own.pem")]);
    let [client_idle, tunnel] = [20, 3_600].map(Span::from_secs);
    assert_eq!(own.timeouts, Timeouts { client_idle, tunnel, ..Timeouts::default() });
    let pages = [(502, PathBuf::from("default.http")), (503, PathBuf::from("own.http"))];
    assert_eq!(own.error_pages.clone().into_iter().collect::<Vec<_>>(), pages);
    assert!(own.trusted_proxies.is_empty());

    // Its own redirect stands against the pool of the defaults.
    let redirect = vip(&config, "redirect");
    assert_eq!(redirect.pool, None);
    assert_eq!(redirect.redirect.as_ref().unwrap().scheme, Some(l7_spec::Scheme::Https));
    assert_eq!(config.servers_of(redirect), []);
}

#[test]
fn a_pool_of_its_own_stands_against_an_inherited_redirect() {
    let config = config(
        r#"
        [pool.web]
        servers = [{ name = "web1", address = "10.0.0.11" }]
        [vip_defaults]
        address = "10.0.0.1"
        mode = "http"
        redirect = { scheme = "https" }
        [vip.plain]
        port = 80
        [vip.web]
        port = 443
        pool = "web"
        "#,
    );
    assert!(vip(&config, "plain").redirect.is_some());
    assert!(vip(&config, "web").redirect.is_none());
}

#[test]
fn the_same_ports_on_other_addresses_and_protocols_do_not_clash() {
    let config = config(
        r#"
        [pool.web]
        servers = [{ name = "web1", address = "10.0.0.11" }]
        [vip_defaults]
        port = "2-65535"
        mode = "snat"
        pool = "web"
        [vip.a]
        address = "10.0.0.1"
        [vip.b]
        address = "10.0.0.2"
        [vip.c]
        address = "10.0.0.1"
        protocol = "udp"
        health = { port = 80 }
        "#,
    );
    assert_eq!(config.vips.len(), 3);
    assert!(config.vips.iter().all(|vip| vip.ports.iter().count() == 65_534));
}

#[test]
fn all_ports_are_one_entry_beside_those_of_others() {
    let text = r#"
        [pool.web]
        servers = [{ name = "web1", address = "10.0.0.11" }]
        [vip_defaults]
        address = "10.0.0.1"
        mode = "snat"
        pool = "web"
        health = { port = 22 }
        [vip.rest]
        port = "all"
        [vip.web]
        port = "80,443"
        [vip.same]
        address = "10.0.0.2"
        port = "1-65535"
        "#;
    let config = config(text);
    let keys = |name: &str| vip(&config, name).ports.keys().collect::<Vec<_>>();
    assert_eq!([keys("rest"), keys("web"), keys("same")], [vec![0], vec![80, 443], vec![0]]);
    let translated = text.replace("health = { port = 22 }", "server_port = 8080");
    assert_eq!(checked(&translated).config.vips.len(), 3, "the check has a port");
}

const ONE: &str = r#"
    [pool.web]
    servers = [{ name = "web1", address = "10.0.0.11" }, { name = "web6", address = "fd00::11" }]
    [vip_defaults]
    address = "10.0.0.1"
    port = 80
    pool = "web"
"#;

#[test]
fn tunnels_reach_servers_of_either_family() {
    for (mode, expected) in [("ipip", Mode::Ipip), ("gue", Mode::Gue)] {
        let config = config(&format!("{ONE}[vip.v]\nmode = \"{mode}\""));
        assert_eq!((config.vips[0].mode, config.vips[0].gue_port), (expected, 6_080));
        assert!(expected.is_layer4() && expected.is_tunnel() && !expected.translates());
    }
    let own = config(&format!("{ONE}[vip.v]\nmode = \"gue\"\ngue_port = 6081"));
    assert_eq!(own.vips[0].gue_port, 6_081);
}

#[test]
fn what_a_vip_may_say_about_its_flows() {
    let plain = config(&format!("{ONE}[vip.v]\nmode = \"ipip\"")).vips.remove(0);
    assert_eq!((plain.algorithm, plain.empty), (Algorithm::Maglev, Empty::Drop));
    assert_eq!((plain.max_new_flows, plain.mss, plain.flow_state), (None, None, true));
    let all = config(&format!(
        "{ONE}[vip.v]\nmode = \"ipip\"\nempty = \"reject\"\nmax_new_flows = 100\nmss = 1400\n\
         algorithm = \"least-conn\"\npersistence = {{ type = \"source-ip\", timeout = \"30m\" }}"
    ))
    .vips
    .remove(0);
    assert_eq!((all.algorithm, all.empty), (Algorithm::LeastConnections, Empty::Reject));
    assert_eq!((all.max_new_flows, all.mss), (Some(100), Some(1_400)));
    assert_eq!(all.persistence, Persistence::SourceIp { timeout: Some(secs(1_800)), entries: None });
    for (name, algorithm) in [
        ("maglev", Algorithm::Maglev),
        ("round-robin", Algorithm::RoundRobin),
        ("source", Algorithm::Source),
        ("first", Algorithm::First),
    ] {
        let config = config(&format!("{ONE}[vip.v]\nmode = \"gue\"\nalgorithm = \"{name}\""));
        assert_eq!((config.vips[0].algorithm, algorithm.to_string().as_str()), (algorithm, name));
    }
}

/// What is said once for all holds where it can.
#[test]
fn options_of_flows_are_inherited_where_they_fit() {
    let config = config(
        r#"
        [pool.web]
        servers = [{ name = "web1", address = "10.0.0.11" }]
        [vip_defaults]
        address = "10.0.0.1"
        pool = "web"
        health = { check = "none" }
        mss = 1300
        flow_state = false
        empty = "pass"
        max_new_flows = 5
        [vip.web]
        port = 80
        mode = "dr"
        [vip.dns]
        port = 53
        protocol = "udp"
        mode = "dr"
        [vip.translated]
        port = 54
        protocol = "udp"
        mode = "snat"
        [vip.proxied]
        port = 81
        mode = "http"
        "#,
    );
    let of = |name| {
        let vip = vip(&config, name);
        (vip.mss, vip.flow_state, vip.empty, vip.max_new_flows)
    };
    assert_eq!(of("web"), (Some(1_300), true, Empty::Pass, Some(5)));
    assert_eq!(of("dns"), (None, false, Empty::Pass, Some(5)));
    assert_eq!(of("translated"), (None, true, Empty::Pass, Some(5)));
    assert_eq!(of("proxied"), (None, true, Empty::Drop, None));
}

#[test]
fn the_flow_tables_have_sizes_and_limits() {
    assert_eq!(config("[flows]").flows, FlowTables::default());
    let all = config("[flows]\ntranslated = 2048\ntags = 4096\nsyn_limit = 0\nlearn = \"500ms\"").flows;
    let learn = Duration::from_millis(500);
    assert_eq!(all, FlowTables { translated: 2_048, tags: 4_096, syn_limit: 0, learn });
}

#[test]
fn servers_may_be_known_by_name() {
    let config = config(
        r#"
        resolve_interval = "30s"
        [pool.web]
        servers = [{ name = "a", address = "RS1.example" }, { name = "b", address = "10.0.0.2" }]
        [pool.any]
        servers = [{ name = "a", address = "rs1.example" }]
        [vip.web]
        address = "10.0.0.1"
        port = 80
        mode = "snat"
        pool = "web"
        [vip.tunnel]
        address = "fd00::1"
        port = 80
        mode = "ipip"
        pool = "web"
        [vip.any]
        address = "fd00::2"
        port = 80
        mode = "gue"
        pool = "any"
        "#,
    );
    assert_eq!(config.resolve_interval, secs(30));
    let name = |family| Name { host: "rs1.example".into(), family };
    let (v4, any) = (name(Some(AddressFamily::V4)), name(None));
    assert_eq!(config.names().into_iter().collect::<Vec<_>>(), [any.clone(), v4.clone()]);
    let addresses = |config: &Config| -> Vec<_> {
        config.pools.iter().flat_map(|pool| &pool.servers).map(|server| server.address()).collect()
    };
    let fixed = Some("10.0.0.2".parse().unwrap());
    assert_eq!(addresses(&config), [None, fixed, None]);
    let found = [(v4, Found::At("10.0.0.9".parse().unwrap())), (any, Found::Nowhere("…".into()))];
    let placed = Arc::new(config).with_addresses(&found.into());
    assert_eq!(addresses(&placed), [Some("10.0.0.9".parse().unwrap()), fixed, None]);
}

#[test]
fn order_is_that_of_the_file() {
    let config = config(
        r#"
        vip = { z = { port = 1, address = "10.0.0.1", mode = "tcp", pool = "b" }, y = { port = 2, address = "10.0.0.1", mode = "tcp", pool = "a" } }
        [pool.b]
        servers = [{ name = "s", address = "10.0.0.2" }]
        [pool.a]
        servers = [{ name = "t", address = "10.0.0.3" }, { name = "s", address = "10.0.0.2" }]
        "#,
    );
    let vips: Vec<_> = config.vips.iter().map(|vip| vip.name.as_str()).collect();
    let pools: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    let servers: Vec<_> = config.pools[1].servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!((vips, pools, servers), (vec!["z", "y"], vec!["b", "a"], vec!["t", "s"]));
}

#[test]
fn warnings_do_not_keep_a_configuration_from_being_used() {
    let checked = checked("[pool.spare]\nservers = [{ name = \"a\", address = \"10.0.0.2\" }]\n");
    assert_eq!(checked.config.pools.len(), 1);
    let shown: Vec<_> = checked.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["test.toml:1:7: warning: pool \"spare\" is used by no VIP"]);
}

const H3: &str = r#"
    [pool.h3]
    servers = [
        { name = "a", address = "10.0.0.11", quic_id = 0xed793a },
        { name = "b", address = "10.0.0.12", quic_id = "0x1", backup = true },
    ]
    [vip.h3]
    address = "10.0.0.1"
    port = 443
    protocol = "udp"
    mode = "dr"
    pool = "h3"
    health = { check = "none" }
"#;

#[test]
fn quic_has_one_encoding_or_one_for_each_config_id() {
    let plain = config(&format!("{H3}\nquic = {{ server_id_length = 3, nonce_length = 4 }}"));
    let ids: Vec<_> = plain.pools[0].servers.iter().map(|server| server.quic_id).collect();
    assert_eq!(ids, [Some(0xed_793a), Some(1)]);
    let expected = Encoding::new(3, 4, None).unwrap();
    assert_eq!(plain.vips[0].quic, [(0, expected)].into());

    let rotated = config(&format!(
        r#"{H3}
        [[vip.h3.quic]]
        config_id = 6
        server_id_length = 8
        nonce_length = 8
        key = "8f95f09245765f80256934e50c66207f"
        [[vip.h3.quic]]
        server_id_length = 3
        nonce_length = 4
        "#
    ));
    let key = Key(0x8f95_f092_4576_5f80_2569_34e5_0c66_207f_u128.to_be_bytes());
    let encrypted = Encoding::new(8, 8, Some(key)).unwrap();
    assert_eq!(rotated.vips[0].quic, [(0, expected), (6, encrypted)].into());
}

#[test]
fn a_vip_inherits_the_encodings_of_quic_as_a_whole() {
    let text = format!(
        "[vip_defaults]\nquic = [{{ server_id_length = 4, nonce_length = 4 }}, \
         {{ config_id = 1, server_id_length = 5, nonce_length = 5 }}]\n{H3}"
    );
    let lengths = |config: &Config| -> Vec<_> {
        config.vips[0].quic.iter().map(|(id, encoding)| (*id, encoding.server_id_length())).collect()
    };
    assert_eq!(lengths(&config(&text)), [(0, 4), (1, 5)]);
    let own = format!("{text}\nquic = {{ config_id = 2, server_id_length = 3, nonce_length = 9 }}");
    assert_eq!(lengths(&config(&own)), [(2, 3)]);
}

#[test]
fn what_l7_proxy_is_told_may_be_written_as_it_is_told() {
    let config = config(
        r#"
        access_log = { to = { syslog = "127.0.0.1:514" }, format = "haproxy" }
        [pool.web]
        servers = [{ name = "web1", address = "10.0.0.11", max_connections = 7 }]
        protocol = "http2"
        tls = { verify = "none" }
        slow_start = "30s"
        outliers = { failures = 3 }
        [vip_defaults]
        address = "10.0.0.1"
        mode = "http"
        pool = "web"
        limits = { body_bytes = 1000 }
        [vip.web]
        port = 443
        algorithm = "maglev"
        hash_by = { header = "X-Tenant" }
        source = "vip"
        headers = { rewrite = { location = true }, set_request = [{ name = "X-A", value = "b" }] }
        tls = { certificates = ["web.pem"], strict = true, minimum_version = "1.3", alpn = ["http/1.1"] }
        [vip.plain]
        port = 80
        h2c = true
        proxy_protocol = { from = ["10.0.0.0/8"] }
        "#,
    );
    let spec = lb_user::plan::proxied::of_config(&config);
    assert_eq!(spec.log.format, l7_spec::LogFormat::Haproxy);
    let [web, plain] = &spec.services[..] else { panic!("two services") };
    assert_eq!(web.hash_by, l7_spec::HashBy::Header("X-Tenant".into()));
    assert_eq!((web.algorithm, web.source), (l7_spec::Algorithm::Maglev, l7_spec::Source::Vip));
    assert!(web.headers.rewrite.location && web.headers.forwarding.x_forwarded_for);
    let tls = web.tls.as_ref().expect("TLS");
    assert!(tls.strict && tls.minimum_version == l7_spec::TlsVersion::V1_3 && tls.alpn.is_some());
    assert!(plain.h2c && plain.proxy_protocol_in.as_ref().is_some_and(|from| from.required));
    assert_eq!((web.limits.body_bytes, plain.limits.body_bytes), (Some(1000), Some(1000)), "inherited");
    assert_eq!(plain.algorithm, l7_spec::Algorithm::RoundRobin);
    for pool in &spec.pools {
        assert_eq!(
            (pool.protocol, pool.slow_start),
            (l7_spec::ServerProtocol::Http2, Some(l7_spec::Span::from_secs(30)))
        );
        assert!(pool.tls.is_some() && pool.outliers.is_some_and(|outliers| outliers.failures == 3));
        assert_eq!(pool.servers[0].max_connections, Some(7));
    }
}
