//! R4, R5: which address the servers of a proxied VIP see as that of their client.

use std::{net::IpAddr, thread, time::Duration};

use lb_tests::{
    address::Family,
    daemon::{Balancer, Installation},
    http::{Web, curl},
    needs_balancer,
    topology::{Layout, Topology},
    wait,
};

use crate::l7::{Tunnel, ask, proxies};

const LIMIT: Duration = Duration::from_secs(20);

/// Connections one after the other: more than sockets are kept in stock.
const MANY: usize = 300;

/// Three VIPs in each family that differ in what the servers see, and one of mode `tcp`.
fn config(net: &Topology, client: &str) -> String {
    let mut text = "[health]\ninterval = \"100ms\"\n".to_owned();
    for (family, six) in [(Family::V4, ""), (Family::V6, "6")] {
        let servers: Vec<_> = net
            .servers
            .iter()
            .map(|host| format!("{{ name = \"{}\", address = \"{}\" }}", host.name, host.address.of(family)))
            .collect();
        text += &format!("[pool.web{six}]\nservers = [{}]\n", servers.join(", "));
        for (number, name, mode, source) in [
            (200, "own", "http", "\"auto\""),
            (201, "vip", "http", "\"vip\""),
            (202, "client", "http", client),
            (203, "relay", "tcp", client),
        ] {
            text += &format!(
                "[vip.{name}{six}]\naddress = \"{}\"\nport = 80\nmode = \"{mode}\"\npool = \"web{six}\"\nsource = {source}\n",
                net.vip(number).of(family)
            );
        }
    }
    text
}

/// All routing rules, in an order that does not tell when each was made.
fn rules(net: &Topology) -> String {
    let show = |arguments: &[&str]| net.lb.ns.ip_output(arguments);
    let all = show(&["-4", "rule"]) + &show(&["-6", "rule"]);
    let mut lines: Vec<_> = all.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// What is in the table that the rules lead to.
fn routes(net: &Topology) -> String {
    ["-4", "-6"]
        .map(|family| {
            let all = net.lb.ns.ip_output(&[family, "route", "show", "table", "all", "proto", "76"]);
            all.lines().filter(|line| line.starts_with("local default")).collect::<Vec<_>>().join("\n")
        })
        .concat()
}

fn answer(balancer: &Balancer<'_>, net: &Topology, number: u8, family: Family) -> Option<IpAddr> {
    let got = curl(&net.client().ns, &[&format!("http://{}/", net.vip(number).at(family, 80))]);
    assert_eq!(got.status, 200, "{got:?} {}", balancer.log());
    got.body.lines().find_map(|line| line.strip_prefix("peer: ")?.parse().ok())
}

#[test]
fn servers_see_the_balancer_the_vip_or_the_client_as_each_vip_says() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    net.servers_reply_through_balancer();
    let _servers: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| {
            net.servers.iter().map(move |host| Web::start(&host.ns, &host.name, host.address.of(family), 80))
        })
        .collect();
    let before = (rules(&net), routes(&net));
    let all_gone = || {
        wait::until(LIMIT, "all rules to go", || {
            let now = (rules(&net), routes(&net));
            if now == before { Ok(()) } else { Err(format!("{} {}", now.0, now.1)) }
        });
    };
    let transparent = config(&net, "\"client\"");
    let installation =
        Installation::new(&net.lb.ns, &["eth0"], &transparent).xdp_mode("native").option("--keep-forwarding");
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let relayed = net.vip(203).at(Family::V4, 80);
    let client = &net.client().ns;
    wait::until(LIMIT, "the first answer", || client.run(|| ask(relayed)));
    for family in Family::BOTH {
        let own = net.lb_addresses()[1].of(family);
        let of_client = net.client().address.of(family);
        for (number, expected) in
            [(200, own), (201, net.vip(201).of(family)), (202, of_client), (203, of_client)]
        {
            for _ in 0..4 {
                assert_eq!(answer(&balancer, &net, number, family), Some(expected), "VIP {number}, {family}");
            }
        }
    }
    let all = rules(&net);
    assert_eq!(all.matches("lookup 19522").count(), 6, "one for each server, whoever leads to it: {all}");
    let [proxy] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    let status = std::fs::read_to_string(format!("/proc/{proxy}/status")).expect("a process");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    for round in 0..MANY {
        client.run(|| ask(relayed)).unwrap_or_else(|error| panic!("connection {round}: {error}"));
    }

    // Another lb-user looks after the same proxy; who is killed leaves what the next one finds.
    let mut tunnel = Tunnel::open(client, net.vip(202).at(Family::V4, 80));
    let balancer = balancer.kill().start();
    let _ = balancer.wait_all_up();
    assert_eq!(proxies(&net.lb.ns), [proxy]);
    assert_eq!(rules(&net), all);
    // All at once.
    let failed: Vec<_> = client.run(|| {
        thread::scope(|scope| {
            let all: Vec<_> = (0..MANY).map(|_| scope.spawn(|| ask(relayed))).collect();
            all.into_iter().filter_map(|one| one.join().expect("a client").err()).collect()
        })
    });
    assert_eq!(failed, Vec::<String>::new());
    tunnel.echoes();

    // What somebody removes comes back.
    let server = net.servers[0].address.of(Family::V4);
    net.lb.ns.ip(&format!("rule del from {server} ipproto tcp sport 80 table 19522"));
    wait::until_true(LIMIT, "the rule to be back", || rules(&net) == all);

    // Nothing needs them any more but one connection.
    let _ = balancer.reload(&config(&net, "\"auto\"")).expect("reload");
    wait::until_true(LIMIT, "rules for the tunnel alone", || {
        rules(&net).matches("lookup 19522").count() == 1
    });
    tunnel.echoes();
    drop(tunnel);
    all_gone();
    assert_eq!(answer(&balancer, &net, 202, Family::V4), Some(net.lb_addresses()[1].of(Family::V4)));

    // With --keep-forwarding they stay, for the proxy does; a start that has no use for them takes them away.
    let _ = balancer.reload(&transparent).expect("reload");
    assert_eq!(answer(&balancer, &net, 202, Family::V6), Some(net.client().address.of(Family::V6)));
    let installation = balancer.stop().0;
    assert_eq!(rules(&net), all);
    client.run(|| ask(relayed)).expect("an answer while lb-user is away");
    installation.configure("");
    let balancer = installation.start();
    all_gone();
    let _ = balancer.reload(&transparent).expect("reload");
    assert_ne!(rules(&net), before.0);
    let installation = balancer.stop().0;
    let (status, said) = installation.clean_up();
    assert!(status.success() && said.contains("routing rules"), "{said}");
    assert_eq!((rules(&net), routes(&net)), before);
}
