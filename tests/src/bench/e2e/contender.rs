//! Who balances.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use super::server::PORT;
use crate::{
    address::Family,
    daemon::Balancer,
    folder::Folder,
    netns::Netns,
    process::Running,
    topology::{Host, Topology},
    wait,
};

/// Host number of the VIP.
const VIP: u8 = 200;

/// Long enough for a start on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Who balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Nobody: clients choose among the servers. What the others are compared with.
    Direct,
    /// This balancer, mode `snat`.
    Lb,
    /// HAProxy, mode `tcp`.
    Haproxy,
    /// The kernel's own translation: DNAT to the servers in turn, and masquerading.
    Nftables,
}

/// A balancer at work; it ends with this.
#[derive(Debug)]
pub enum Balancing<'a> {
    /// No process of its own.
    Kernel,
    /// This balancer.
    Lb(Box<Balancer<'a>>),
    /// HAProxy and the folder of its configuration.
    Haproxy(Running, Folder),
}

impl Balancing<'_> {
    /// The processes that packets pass through.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        match self {
            Self::Haproxy(running, _) => vec![running.id()],
            Self::Kernel | Self::Lb(_) => Vec::new(),
        }
    }
}

impl Contender {
    /// All of them, in the order of a round.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Lb, Self::Haproxy, Self::Nftables];

    /// Name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Lb => "lb",
            Self::Haproxy => "haproxy",
            Self::Nftables => "nftables",
        }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn targets(self, net: &Topology) -> Vec<SocketAddr> {
        match self {
            Self::Direct => net.servers.iter().map(|host| host.address.at(Family::V4, PORT)).collect(),
            _ => vec![net.vip(VIP).at(Family::V4, PORT)],
        }
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(self, net: &Topology) -> Balancing<'_> {
        let balancing = match self {
            Self::Direct => Balancing::Kernel,
            Self::Lb => {
                let balancer = Balancer::start(&net.lb.ns, &["eth0"], &lb(net));
                let _ = balancer.wait_all_up();
                let _ = balancer.assert_native();
                Balancing::Lb(Box::new(balancer))
            }
            Self::Haproxy => {
                own_vip(net);
                let folder = Folder::new();
                let file = folder.write("haproxy.cfg", haproxy(net));
                let mut command = net.lb.ns.command("haproxy");
                Balancing::Haproxy(Running::start("haproxy", command.arg("-db").arg("-f").arg(file)), folder)
            }
            Self::Nftables => {
                own_vip(net);
                net.lb.ns.sysctl("ipv4/ip_forward", "1");
                // Clients and servers are on one wire; without this they would be told to do without us.
                net.lb.ns.sysctl("ipv4/conf/all/send_redirects", "0");
                net.lb.ns.sysctl("ipv4/conf/eth0/send_redirects", "0");
                nft(&net.lb.ns, &nftables(net));
                Balancing::Kernel
            }
        };
        for target in self.targets(net) {
            let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(1));
            net.client().ns.run(|| {
                wait::until(LIMIT, &format!("{} to serve {target}", self.name()), || {
                    connect().map(drop).map_err(|error| error.to_string())
                });
            });
        }
        balancing
    }
}

fn own_vip(net: &Topology) {
    net.lb.ns.ip(&format!("addr add {}/32 dev eth0", net.vip(VIP).v4));
}

fn lb(net: &Topology) -> String {
    let server =
        |host: &Host| format!("  {{ name = \"{}\", address = \"{}\" }},\n", host.name, host.address.v4);
    let servers: String = net.servers.iter().map(server).collect();
    format!(
        "[health]\ncheck = \"tcp\"\n[pool.servers]\nservers = [\n{servers}]\n\
         [vip.bench]\naddress = \"{}\"\nport = {PORT}\nmode = \"snat\"\npool = \"servers\"\n",
        net.vip(VIP).v4
    )
}

fn haproxy(net: &Topology) -> String {
    let mut text = format!(
        "global\n maxconn 1000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n \
         timeout server 60s\nlisten bench\n bind {}:{PORT}\n balance roundrobin\n",
        net.vip(VIP).v4
    );
    for host in &net.servers {
        let _ = writeln!(text, " server {} {}:{PORT}", host.name, host.address.v4);
    }
    text
}

fn nftables(net: &Topology) -> String {
    let servers: Vec<_> = net
        .servers
        .iter()
        .enumerate()
        .map(|(number, host)| format!("{number} : {}", host.address.v4))
        .collect();
    format!(
        "table ip bench {{\n\
         chain to_servers {{ type nat hook prerouting priority dstnat; ip daddr {} tcp dport {PORT} \
         dnat to numgen inc mod {} map {{ {} }}; }}\n\
         chain from_us {{ type nat hook postrouting priority srcnat; masquerade; }}\n}}\n",
        net.vip(VIP).v4,
        servers.len(),
        servers.join(", ")
    )
}

fn nft(ns: &Netns, rules: &str) {
    let mut child = ns
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run `nft`");
    // A failed write means that `nft` has given up and says why.
    let _ = child.stdin.take().expect("a pipe to `nft`").write_all(rules.as_bytes());
    let output = child.wait_with_output().expect("wait for `nft`");
    assert!(output.status.success(), "nft: {}\nwas asked:\n{rules}", String::from_utf8_lossy(&output.stderr));
}
