//! The netlink room against a real kernel, in network namespaces of its own. Needs the `ip` command.

use std::{
    fs,
    future::Future,
    io::Write,
    net::IpAddr,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lb_user::netlink::{
    Netlink,
    addresses::{HostAddress, Presence},
    routes::{Neighbour, NextHop},
    watch::{Changed, Watch},
};
use nix::sched::{CloneFlags, unshare};
use tokio::time::{sleep, timeout};

const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Runs a test on a thread with a network namespace of its own.
fn in_namespace<F: Future<Output = ()> + 'static>(test: fn() -> F) {
    let worker = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            // Not eprintln!, which the test harness hides.
            let _ = writeln!(std::io::stderr(), "SKIPPED: a network namespace needs root: {error}");
            return;
        }
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the namespace of this thread.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("the ip command");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A second namespace that lives as long as this, on a thread of its own.
struct Peer {
    thread: String,
    commands: mpsc::Sender<String>,
    done: mpsc::Receiver<()>,
}

impl Peer {
    fn new() -> Self {
        let (commands, inbox) = mpsc::channel::<String>();
        let (finished, done) = mpsc::channel();
        let (name, named) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let link = fs::read_link("/proc/thread-self").unwrap();
            name.send(link.file_name().unwrap().to_str().unwrap().to_owned()).unwrap();
            for command in inbox {
                ip(&command);
                finished.send(()).unwrap();
            }
        });
        Self { thread: named.recv().unwrap(), commands, done }
    }

    fn ip(&self, arguments: &str) {
        self.commands.send(arguments.to_owned()).unwrap();
        self.done.recv().expect("the command to succeed");
    }
}

/// A cable from `left` here to `right` in another namespace: 10.0.0.1 – 10.0.0.2, fd00::1 – fd00::2.
fn cable() -> Peer {
    let peer = Peer::new();
    ip("link add left address 02:00:00:00:00:01 type veth peer name right address 02:00:00:00:00:02");
    ip(&format!("link set right netns {}", peer.thread));
    ip("address add 10.0.0.1/24 dev left");
    ip("address add fd00::1/64 dev left nodad");
    ip("link set left up");
    peer.ip("address add 10.0.0.2/24 dev right");
    peer.ip("address add fd00::2/64 dev right nodad");
    peer.ip("link set right up");
    peer
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn index_of(netlink: &Netlink, name: &str) -> u32 {
    netlink.link_by_name(name).await.unwrap().expect("the interface").index
}

#[test]
fn addresses_are_put_on_recognised_and_taken_off() {
    in_namespace(|| async {
        ip("link add left type veth peer name right");
        ip("link set left up");
        let netlink = Netlink::open().unwrap();
        let index = index_of(&netlink, "left").await;
        for (text, prefix_len) in [("192.0.2.1", 32), ("2001:db8::1", 128)] {
            let vip = address(text);
            assert_eq!(netlink.ensure_address(index, vip).await.unwrap(), Presence::Added);
            // What the next lb-user finds if this one is killed now.
            assert_eq!(netlink.ensure_address(index, vip).await.unwrap(), Presence::Adopted);
            let expected = HostAddress { ifindex: index, address: vip, prefix_len, ours: true };
            assert!(netlink.addresses().await.unwrap().contains(&expected));

            assert!(netlink.remove_address(index, vip).await.unwrap());
            assert!(!netlink.remove_address(index, vip).await.unwrap(), "it is gone already");
            assert!(netlink.addresses().await.unwrap().iter().all(|there| there.address != vip));
        }
    });
}

#[test]
fn an_ipv6_address_is_usable_at_once_and_never_a_preferred_source() {
    in_namespace(|| async {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        let netlink = Netlink::open().unwrap();
        let index = index_of(&netlink, "left").await;
        netlink.ensure_address(index, address("2001:db8::1")).await.unwrap();
        let shown = ip("-6 address show dev left to 2001:db8::1");
        for word in ["2001:db8::1/128", "scope global", "deprecated", "nodad", "preferred_lft 0sec"] {
            assert!(shown.contains(word), "{word} in {shown}");
        }
        assert!(shown.contains("valid_lft forever"), "{shown}");
        assert!(!shown.contains("tentative"), "{shown}");
    });
}

#[test]
fn an_address_of_somebody_else_is_told_apart() {
    in_namespace(|| async {
        ip("link add left type veth peer name right");
        ip("address add 192.0.2.1/24 dev left");
        ip("address add 192.0.2.2/32 dev left");
        ip("address add 2001:db8::1/64 dev left nodad");
        let netlink = Netlink::open().unwrap();
        let left = index_of(&netlink, "left").await;
        for text in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            let before = netlink.addresses().await.unwrap();
            assert_eq!(netlink.ensure_address(left, address(text)).await.unwrap(), Presence::Foreign);
            assert_eq!(netlink.addresses().await.unwrap(), before, "nothing was changed");
        }
        // The same address on another interface is another matter.
        let right = index_of(&netlink, "right").await;
        assert_eq!(netlink.ensure_address(right, address("192.0.2.1")).await.unwrap(), Presence::Added);
        assert!(netlink.remove_address(right, address("192.0.2.1")).await.unwrap());
        let shown = ip("address show dev left");
        assert!(shown.contains("192.0.2.1/24"), "{shown}");
    });
}

#[test]
fn refusals_of_the_kernel_are_explained() {
    in_namespace(|| async {
        ip("link add left type veth peer name right");
        let netlink = Netlink::open().unwrap();
        let error = netlink.ensure_address(999, address("192.0.2.1")).await.unwrap_err().to_string();
        assert_eq!(error, "cannot put 192.0.2.1 on interface 999: No such device (os error 19)");
        assert!(!netlink.remove_address(999, address("192.0.2.1")).await.unwrap());

        // Opening the file takes it in the namespace of this thread.
        fs::write("/proc/sys/net/ipv6/conf/left/disable_ipv6", "1").unwrap();
        let index = index_of(&netlink, "left").await;
        let error = netlink.ensure_address(index, address("2001:db8::1")).await.unwrap_err().to_string();
        assert!(error.contains("IPv6 is switched off there"), "{error}");
    });
}

#[test]
fn links_are_described() {
    in_namespace(|| async {
        ip("link add left address 02:00:00:00:00:01 mtu 1400 type veth peer name right");
        let netlink = Netlink::open().unwrap();
        let link = netlink.link_by_name("left").await.unwrap().unwrap();
        assert_eq!(link.name, "left");
        assert_eq!(link.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!((link.mtu, link.up, link.carrier, link.xdp), (1400, false, false, None));
        assert_eq!(netlink.link_by_index(link.index).await.unwrap(), Some(link.clone()));

        ip("link set left up");
        ip("link set right up");
        let link = netlink.link_by_name("left").await.unwrap().unwrap();
        assert!(link.up && link.carrier);

        let lo = netlink.link_by_name("lo").await.unwrap().unwrap();
        assert_eq!(lo.mac, None, "loopback is no Ethernet");
        let names: Vec<_> = netlink.links().await.unwrap().into_iter().map(|link| link.name).collect();
        for name in ["lo", "left", "right"] {
            assert!(names.iter().any(|there| there == name), "{name} in {names:?}");
        }
        for name in ["eth7", "", "a-name-far-too-long-for-an-interface"] {
            assert_eq!(netlink.link_by_name(name).await.unwrap(), None, "{name:?}");
        }
        assert_eq!(netlink.link_by_index(999).await.unwrap(), None);
    });
}

/// Looks up the way until the neighbour is no longer unknown.
async fn settled(netlink: &Netlink, destination: IpAddr) -> NextHop {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let hop = netlink.resolve(destination).await.unwrap();
        if hop.neighbour != Neighbour::Unknown {
            return hop;
        }
        assert!(Instant::now() < deadline, "nothing known about {destination} after 30 s");
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn next_hops_are_found_and_their_macs_learnt_when_asked_for() {
    in_namespace(|| async {
        let _peer = cable();
        ip("route add 192.0.2.0/24 via 10.0.0.2");
        ip("route add 2001:db8::/32 via fd00::2");
        ip("route add 198.51.100.0/24 via inet6 fd00::2");
        let netlink = Netlink::open().unwrap();
        let left = index_of(&netlink, "left").await;
        for (destination, hop_address, source) in [
            ("10.0.0.2", "10.0.0.2", "10.0.0.1"),
            ("192.0.2.77", "10.0.0.2", "10.0.0.1"),
            ("fd00::2", "fd00::2", "fd00::1"),
            ("2001:db8::77", "fd00::2", "fd00::1"),
            ("198.51.100.1", "fd00::2", "10.0.0.1"),
        ] {
            ip("neighbour flush dev left");
            let hop = netlink.resolve(address(destination)).await.unwrap();
            let expected = NextHop {
                ifindex: left,
                address: address(hop_address),
                source: Some(address(source)),
                neighbour: Neighbour::Unknown,
            };
            assert_eq!(hop, expected, "{destination}");
            assert_eq!(hop.mac(), None);

            netlink.nudge(hop.ifindex, hop.address).await.unwrap();
            let hop = settled(&netlink, address(destination)).await;
            assert_eq!(hop.mac(), Some(PEER_MAC), "{destination}");
            netlink.nudge(hop.ifindex, hop.address).await.expect("a known neighbour may be nudged too");
        }
    });
}

#[test]
fn a_neighbour_that_does_not_answer_is_said_to_have_failed() {
    in_namespace(|| async {
        let _peer = cable();
        let netlink = Netlink::open().unwrap();
        let left = index_of(&netlink, "left").await;
        for silent in ["10.0.0.99", "fd00::99"] {
            netlink.nudge(left, address(silent)).await.unwrap();
            let hop = settled(&netlink, address(silent)).await;
            assert_eq!((hop.neighbour, hop.mac()), (Neighbour::Failed, None));
        }
    });
}

#[test]
fn destinations_without_a_way_are_named() {
    in_namespace(|| async {
        let _peer = cable();
        ip("route add unreachable 192.0.2.1");
        ip("route add prohibit 192.0.2.2");
        ip("route add blackhole 192.0.2.3");
        ip("-6 route add unreachable 2001:db8::1");
        ip("-6 route add prohibit 2001:db8::2");
        ip("-6 route add blackhole 2001:db8::3");
        let netlink = Netlink::open().unwrap();
        for (destination, problem) in [
            ("203.0.113.1", "no route to 203.0.113.1"),
            ("2001:db8:9::1", "no route to 2001:db8:9::1"),
            ("192.0.2.1", "the routing table says 192.0.2.1 is unreachable"),
            ("192.0.2.2", "the routing table prohibits traffic to 192.0.2.2"),
            ("192.0.2.3", "the routing table drops traffic to 192.0.2.3 (blackhole)"),
            ("2001:db8::1", "the routing table says 2001:db8::1 is unreachable"),
            ("2001:db8::2", "the routing table prohibits traffic to 2001:db8::2"),
            ("2001:db8::3", "the routing table drops traffic to 2001:db8::3 (blackhole)"),
            ("10.0.0.1", "10.0.0.1 is an address of this host"),
            ("127.0.0.1", "127.0.0.1 is an address of this host"),
            ("fd00::1", "fd00::1 is an address of this host"),
            ("10.0.0.255", "10.0.0.255 is not the address of a single host"),
        ] {
            let answer = netlink.resolve(address(destination)).await;
            assert_eq!(answer.expect_err(destination).to_string(), problem);
        }
    });
}

/// Waits for a notice that says so.
async fn noticed(watch: &mut Watch, what: fn(&Changed) -> bool) {
    let wait = async { while !what(&watch.changed().await) {} };
    timeout(Duration::from_secs(10), wait).await.expect("a notice within 10 s");
}

#[test]
fn changes_are_noticed() {
    in_namespace(|| async {
        let mut watch = Watch::start().unwrap();
        let _peer = cable();
        noticed(&mut watch, |changed| changed.links).await;
        ip("address add 192.0.2.1/32 dev left");
        noticed(&mut watch, |changed| changed.addresses).await;
        ip("route add 192.0.2.0/24 via 10.0.0.2");
        noticed(&mut watch, |changed| changed.routes).await;
        ip("-6 route add 2001:db8::/32 via fd00::2");
        noticed(&mut watch, |changed| changed.routes).await;
        ip("rule add from 192.0.2.9 table 7");
        noticed(&mut watch, |changed| changed.routes).await;
        let netlink = Netlink::open().unwrap();
        let left = index_of(&netlink, "left").await;
        netlink.nudge(left, address("10.0.0.2")).await.unwrap();
        noticed(&mut watch, |changed| changed.neighbours).await;
    });
}

#[test]
fn a_burst_makes_few_notices_and_lost_messages_make_a_full_one() {
    in_namespace(|| async {
        let _peer = cable();
        let mut watch = Watch::start().unwrap();
        // This blocks the only thread, so nobody reads the socket meanwhile and its buffer overflows.
        let file = tempfile::NamedTempFile::new().unwrap();
        let routes: String = (0..5000u32)
            .map(|n| format!("route add 192.{}.{}.0/24 via 10.0.0.2\n", 10 + n / 250, n % 250))
            .collect();
        fs::write(file.path(), routes).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        let mut notices = 0;
        let mut all = false;
        while let Ok(changed) = timeout(Duration::from_secs(1), watch.changed()).await {
            notices += 1;
            all |= changed == Changed { links: true, addresses: true, routes: true, neighbours: true };
        }
        assert!(all, "the overflow is told as a change of everything");
        assert!(notices < 10, "{notices} notices for 5000 changes");
    });
}
