//! Proxies that an lb-user has left which was killed, or that a start finds which is refused; that hang, or end by themselves.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use lb_tests::{
    address::Family,
    daemon::{Balancer, Installation, binary},
    needs_balancer, process,
    topology::{Layout, Topology},
    wait,
};

use crate::{
    l7::{Tunnel, ask, proxies},
    proxied::{one_vip, webs},
    service::bounding_set,
};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn neither_a_kill_within_a_replacement_nor_a_refused_start_costs_a_client() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let _servers = webs(&net);
    let target = net.vip(200).at(Family::V4, 80);
    // With no more rights than the unit gives: the files of other processes are not shown.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples/systemd/lb-user.service");
    let rights = bounding_set(&fs::read_to_string(file).expect("the unit file"));
    let installation = Installation::new(&net.lb.ns, &["eth0"], &one_vip(&net, ""))
        .xdp_mode("native")
        .option("--keep-forwarding")
        .under(&["setpriv", "--no-new-privs", &rights]);
    let socket = installation.socket().with_extension("l7.sock");
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    let answers = |what: &str| {
        net.client().ns.run(|| ask(target)).unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    wait::until(LIMIT, "the first answer", || net.client().ns.run(|| ask(target)));
    let [proxy] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    let mut tunnel = Tunnel::open(&net.client().ns, target);

    // One that is started elsewhere by mistake, with the same sockets, leaves them to who has them.
    let other = &net.client().ns;
    let mut rival = other.command(binary("lb-user"));
    let beside = |name: &str| balancer.installation().socket().with_file_name(name);
    rival.args(["--iface", "eth0", "--config"]).arg(balancer.installation().config());
    rival.arg("--socket").arg(balancer.installation().socket());
    rival.arg("--pins").arg("/sys/fs/bpf/lb-elsewhere").arg("--state").arg(beside("elsewhere.json"));
    let output = process::output("another lb-user", &mut rival, LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("another lb-user answers on"), "{said}");
    assert_eq!(proxies(&net.lb.ns), [proxy], "{said}");
    tunnel.echoes();

    // So it looks from when the former one's socket has another name until the next one serves.
    let installation = balancer.kill();
    fs::rename(&socket, socket.with_extension("former.sock")).expect("the control socket");
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    assert_eq!(proxies(&net.lb.ns), [proxy], "{}", balancer.log());
    assert!(socket.exists() && !socket.with_extension("former.sock").exists());
    tunnel.echoes();
    answers("after a kill");

    // A start that finds it and is refused leaves it as it is.
    let installation = balancer.stop().0.option("--iface").option("eth7");
    let (status, said) = installation.run_to_end();
    assert!(!status.success() && said.contains("goes on serving") && said.contains("eth7"), "{said}");
    assert_eq!(proxies(&net.lb.ns), [proxy], "{said}");
    assert!(socket.exists());
    tunnel.echoes();
    answers("after a refused start");
    let (status, said) = installation.clean_up();
    assert!(status.success() && proxies(&net.lb.ns).is_empty(), "{said}");
}

/// A balancer whose VIP has answered.
fn serving(net: &Topology, target: SocketAddr) -> Balancer<'_> {
    let balancer = Installation::new(&net.lb.ns, &["eth0"], &one_vip(net, "")).xdp_mode("native").start();
    let _ = balancer.wait_all_up();
    wait::until(LIMIT, "the first answer", || net.client().ns.run(|| ask(target)));
    balancer
}

#[test]
fn a_proxy_that_hangs_does_not_keep_the_next_start_from_serving() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let _servers = webs(&net);
    let target = net.vip(200).at(Family::V4, 80);
    let balancer = serving(&net, target);
    let [hangs] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    // Nothing of the socket is left to speak to it by.
    let installation = balancer.kill();
    fs::remove_file(installation.socket().with_extension("l7.sock")).expect("the control socket");
    let balancer = installation.start();
    let _ = balancer.wait_all_up();
    wait::until(LIMIT, "an answer", || net.client().ns.run(|| ask(target)));
    let [next] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    assert_ne!(hangs, next);
    assert!(balancer.log().contains("cannot be spoken to"), "{}", balancer.log());
}

#[test]
fn a_proxy_that_somebody_else_tells_to_end_is_followed_by_another_at_once() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let _servers = webs(&net);
    let target = net.vip(200).at(Family::V4, 80);
    let balancer = serving(&net, target);
    let [first] = proxies(&net.lb.ns)[..] else { panic!("one proxy") };
    let mut tunnel = Tunnel::open(&net.client().ns, target);
    let pid = rustix::process::Pid::from_raw(first).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    wait::until_true(LIMIT, "another one", || proxies(&net.lb.ns).len() == 2);
    // It has thirty seconds for its clients, and others do not wait as long.
    net.client().ns.run(|| ask(target)).expect("an answer of the next one");
    assert!(balancer.log().contains("was told to end, and not by lb-user"), "{}", balancer.log());
    tunnel.echoes();
    let listed = balancer.lbctl(&["conn", "list", "--vip", "web", "-o", "json"]).expect("a list");
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["matching"], 1, "{listed}");
    drop(tunnel);
    wait::until_true(LIMIT, "the former one to end", || proxies(&net.lb.ns).len() == 1);
    assert_ne!(proxies(&net.lb.ns), [first]);
}
