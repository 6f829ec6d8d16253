//! Which sockets of this host would stand in the way of a VIP (R11).
//!
//! A process that listens on a VIP's port, on the VIP's address or on all addresses, would believe to serve it
//! and never get a packet; or, for a proxied VIP, take it away from the proxy. That is refused at start.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use socket2::{Domain, Socket, Type};

use crate::{
    model::{Config, Protocol},
    premises::Conflict,
};

/// A socket that takes connections or datagrams from anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address, unspecified for all.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// The kernel's number of the socket, to find its process by.
    pub inode: u64,
}

/// The kernel's tables of sockets of a network namespace.
const TABLES: [(&str, Protocol); 4] =
    [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];

/// The sockets that take connections or datagrams from anyone, by the tables in a folder such as `/proc/net`.
///
/// # Errors
/// When they cannot be read.
pub fn listening(folder: &Path) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for (name, protocol) in TABLES {
        let file = folder.join(name);
        match File::open(&file).and_then(|table| listeners_in(BufReader::new(table), protocol)) {
            Ok(found) => listeners.extend(found),
            // A host without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display())));
            }
        }
    }
    Ok(listeners)
}

/// Those in one table. For TCP it lists who listens first (Documentation/networking/proc_net_tcp.rst): what follows are
/// tens of thousands of connections on a busy host, health checks of the last minute among them, and is not read.
fn listeners_in(table: impl BufRead, protocol: Protocol) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    // After the heading.
    for line in table.lines().skip(1) {
        match parse(&line?, protocol) {
            Some(listener) => listeners.push(listener),
            None if protocol == Protocol::Tcp => break,
            None => {}
        }
    }
    Ok(listeners)
}

/// The numbers of the sockets that a process holds, by its folder in `/proc`.
///
/// # Errors
/// When this user may not look, or it has ended.
pub fn sockets_of(process: &Path) -> io::Result<HashSet<u64>> {
    let files = fs::read_dir(process.join("fd"))?.flatten();
    let number = |file: fs::DirEntry| {
        let link = fs::read_link(file.path()).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    Ok(files.filter_map(number).collect())
}

/// Why `config` cannot be served beside what listens on this host: one for each VIP and listener. The sockets `of_vips`, by
/// the kernel's number, are those through which proxied VIPs are served.
#[must_use]
pub fn conflicts(config: &Config, listeners: &[Listener], of_vips: &HashSet<u64>) -> Vec<Conflict> {
    let mut listeners = listeners.to_vec();
    listeners.retain(|listener| !of_vips.contains(&listener.inode));
    let all = find(config, &listeners).into_iter().map(|(vip, listener)| {
        let owner = process(listener.inode).unwrap_or_else(|| "a process".into());
        let Listener { protocol, address, port, .. } = listener;
        let problem = format!(
            "{protocol} port {port} is in use: {owner} on this host listens on {address}; bind it to \
             another address, stop it, or give the VIP another port"
        );
        Conflict { vip: vip.to_owned(), problem }
    });
    all.collect()
}

/// The sockets that listen exactly where VIPs of proxied modes do.
///
/// # Errors
/// When the kernel's tables cannot be read.
pub fn of_proxied(config: &Config) -> io::Result<HashSet<u64>> {
    let listeners = listening(Path::new("/proc/net"))?;
    let is_vips = |listener: &&Listener| {
        config.vips.iter().filter(|vip| !vip.mode.is_layer4()).any(|vip| vip.address == listener.address)
    };
    Ok(listeners.iter().filter(is_vips).map(|listener| listener.inode).collect())
}

/// The pairs of VIP and listener that clash, in file order.
fn find<'a>(config: &'a Config, listeners: &[Listener]) -> Vec<(&'a str, Listener)> {
    let mut clashes = Vec::new();
    for vip in &config.vips {
        let clash = |listener: &&Listener| {
            listener.protocol == vip.protocol
                && covers(listener.address, vip.address)
                && vip.ports.ranges().iter().any(|range| (range.first..=range.last).contains(&listener.port))
        };
        clashes.extend(listeners.iter().filter(clash).map(|listener| (vip.name.as_str(), *listener)));
    }
    clashes
}

/// Whether a socket bound to `bound` gets what is sent to `address`. A socket bound to `::` usually takes IPv4
/// too; the table does not tell whether it is one of the exceptions.
fn covers(bound: IpAddr, address: IpAddr) -> bool {
    match bound {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.is_ipv4(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        bound => bound.to_canonical() == address,
    }
}

/// A line of a table: `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`. `None` for the
/// heading and for sockets that only talk to one peer.
fn parse(line: &str, protocol: Protocol) -> Option<Listener> {
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";
    let mut words = line.split_whitespace().skip(1);
    let local = words.next()?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    let wanted = if protocol == Protocol::Tcp { LISTEN } else { UNCONNECTED };
    if state != wanted {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { protocol, address: parse_address(address)?, port, inode })
}

/// Both ends of a connection in a line of a table of TCP, if a process has it or the kernel has yet to send what one wrote
/// before it closed it: the rest is over.
#[must_use]
pub fn connection(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    const LISTEN: &str = "0A";
    /// FIN_WAIT1, LAST_ACK, CLOSING: closed here, which the other side has not confirmed.
    const CLOSED: [&str; 3] = ["04", "09", "0B"];
    let mut words = line.split_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    let to_send = u32::from_str_radix(words.next()?.split(':').next()?, 16).ok()?;
    let inode = words.nth(4)?;
    // The end itself counts as a byte.
    let is_over = inode == "0" && !(CLOSED.contains(&state) && to_send > 1);
    if state == LISTEN || is_over {
        return None;
    }
    let end = |text: &str| {
        let (address, port) = text.split_once(':')?;
        Some(SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
    };
    Some((end(local)?, end(remote)?))
}

/// Addresses are printed as 32-bit words of this machine, each in hexadecimal.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?))
        }
        _ => None,
    }
}

/// Who listens with TCP where `address` is, beside the sockets `ours`, in words.
#[must_use]
pub fn taken(listeners: &[Listener], address: SocketAddr, ours: &HashSet<u64>) -> Option<String> {
    let there = |listener: &&Listener| listener.protocol == Protocol::Tcp && listener.port == address.port();
    let is_ours = |listener: &Listener| ours.contains(&listener.inode);
    if listeners.iter().filter(there).any(|listener| is_ours(listener) && listener.address == address.ip()) {
        return None;
    }
    let same_family = |listener: &Listener| listener.address.is_ipv4() == address.is_ipv4();
    let mut others = listeners.iter().filter(there).filter(|listener| {
        // A socket of ours for all addresses of IPv6 is for no others.
        let meets = covers(listener.address, address.ip())
            || (same_family(listener) && covers(address.ip(), listener.address));
        meets && !is_ours(listener) && (same_family(listener) || !is_free(address))
    });
    others.next().map(|listener| process(listener.inode).unwrap_or_else(|| "a process".into()))
}

/// Whether a socket can be had for an address of IPv4: who listens on all of IPv6 may have left IPv4 out, which no table tells.
fn is_free(address: SocketAddr) -> bool {
    let bind = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(socket2::Protocol::TCP))?;
        // Not beside those that listen, but beside connections that are over; and before the address is there.
        socket.set_reuse_address(true)?;
        socket.set_freebind_v4(true)?;
        socket.bind(&address.into())
    };
    bind().is_ok()
}

/// The sockets of all processes that hold a Unix socket which was bound to one of these paths, as far as we may look.
#[must_use]
pub fn held_beside(paths: &[&Path]) -> HashSet<u64> {
    // Num RefCount Protocol Flags Type St Inode Path
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let bound = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(6);
        let (inode, path) = (words.next()?.parse::<u64>().ok()?, words.next()?);
        paths.contains(&Path::new(path)).then_some(inode)
    });
    let bound: HashSet<_> = bound.collect();
    if bound.is_empty() {
        return HashSet::new();
    }
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let all = folders.filter_map(|folder| sockets_of(&folder).ok());
    all.filter(|held| !held.is_disjoint(&bound)).flatten().collect()
}

/// Name and number of the process that holds a socket, as far as we may look.
fn process(inode: u64) -> Option<String> {
    let holds = |folder: &Path| sockets_of(folder).is_ok_and(|sockets| sockets.contains(&inode));
    let folders = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let mut folders = folders
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok()));
    let folder = folders.find(|folder| holds(folder))?;
    let name = fs::read_to_string(folder.join("comm")).ok()?;
    Some(format!("{} (pid {})", name.trim(), folder.file_name()?.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn tables_as_the_kernel_prints_them() {
        let tcp = "   1: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        let open = "   4: 6500140A:8235 6600140A:0050 01 00000000:00000000 00:00000000 00000000 65534        0 5813 1 0";
        let ends = |text: &str| connection(text).map(|(local, remote)| format!("{local} {remote}"));
        assert_eq!(ends(open).as_deref(), Some("10.20.0.101:33333 10.20.0.102:80"));
        let over = open.replace(" 5813 ", " 0 ").replace(" 01 ", " 06 ");
        let closed = |to_send| over.replace(" 06 00000000:", &format!(" 04 {to_send}:"));
        assert_eq!(ends(&closed("00000200")), ends(open), "what was written is still being sent");
        assert_eq!(
            ends(&closed("00000001")),
            None,
            "all that is missing is that the other side confirms the end"
        );
        assert_eq!((ends(&over), ends(tcp), ends("  sl  local_address")), (None, None, None));
        let listener = parse(tcp, Protocol::Tcp).unwrap();
        assert_eq!(
            (listener.address, listener.port, listener.inode),
            (IpAddr::from([127, 0, 0, 1]), 25, 4711)
        );
        let established = tcp.replace(" 0A ", " 01 ");
        assert_eq!(parse(&established, Protocol::Tcp), None);
        let udp6 = "  9: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 \
                    00000000:00000000 00:00000000 00000000  101        0 815 2 0 0";
        assert_eq!(parse(udp6, Protocol::Udp).unwrap().address, IpAddr::V6(Ipv6Addr::LOCALHOST));
        for heading in
            ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt", "", "x y z"]
        {
            assert_eq!(parse(heading, Protocol::Tcp), None);
        }
    }

    #[test]
    fn of_tcp_what_comes_behind_the_listeners_is_not_read() {
        let line = |port: &str, state: &str| {
            format!(
                "   1: 0100007F:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
            )
        };
        let ports = |protocol, states: [&str; 3]| -> Vec<u16> {
            let lines = ["0019", "0050", "0051"].iter().zip(states).map(|(port, state)| line(port, state));
            let table = format!("  sl  local_address rem_address   st\n{}", lines.collect::<String>());
            let found = listeners_in(table.as_bytes(), protocol).unwrap();
            found.iter().map(|listener| listener.port).collect()
        };
        assert_eq!(ports(Protocol::Tcp, ["0A", "0A", "06"]), [25, 80]);
        assert_eq!(ports(Protocol::Tcp, ["06", "06", "06"]), [0; 0]);
        assert_eq!(ports(Protocol::Udp, ["07", "01", "07"]), [25, 81], "a connected one is no listener");
        assert_eq!(listeners_in(&b""[..], Protocol::Tcp).unwrap(), []);
    }

    #[test]
    fn a_listener_clashes_on_the_address_or_on_all() {
        let text = r#"
            [pool.p]
            servers = [{ name = "s", address = "10.0.0.1" }]
            [vip.ssh]
            address = "192.0.2.1"
            port = "22,8000-8010"
            mode = "snat"
            pool = "p"
        "#;
        let config = config::check("test.toml", text).unwrap().config;
        for (what, protocol, address, port, clash) in [
            ("all addresses", Protocol::Tcp, "0.0.0.0", 22, true),
            ("all addresses of both families", Protocol::Tcp, "::", 8005, true),
            ("the VIP's address", Protocol::Tcp, "192.0.2.1", 22, true),
            ("the VIP's address in its IPv6 form", Protocol::Tcp, "::ffff:192.0.2.1", 22, true),
            ("the management address", Protocol::Tcp, "192.0.2.9", 22, false),
            ("another protocol", Protocol::Udp, "0.0.0.0", 22, false),
            ("another port", Protocol::Tcp, "0.0.0.0", 23, false),
        ] {
            let listener = Listener { protocol, address: address.parse().unwrap(), port, inode: 1 };
            assert_eq!(!find(&config, &[listener]).is_empty(), clash, "{what}");
        }
    }

    #[test]
    fn who_listens_on_all_of_ipv6_may_have_left_ipv4_out() {
        let listen = |v6_only| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_only_v6(v6_only).unwrap();
            socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            socket.listen(1).unwrap();
            std::net::TcpListener::from(socket)
        };
        for (v6_only, is_taken) in [(true, false), (false, true)] {
            let socket = listen(v6_only);
            let port = socket.local_addr().unwrap().port();
            let listeners = listening(Path::new("/proc/net")).unwrap();
            let taken = |address: &str, ours: &[u64]| {
                let address = SocketAddr::new(address.parse().unwrap(), port);
                taken(&listeners, address, &ours.iter().copied().collect()).is_some()
            };
            let inode = listeners.iter().find(|listener| listener.port == port).unwrap().inode;
            assert_eq!(taken("127.0.0.1", &[]), is_taken, "{v6_only}");
            assert_eq!(taken("0.0.0.0", &[]), is_taken, "{v6_only}");
            assert!(
                taken("::", &[]) && taken("::1", &[]) && !taken("::", &[inode]) && !taken("::1", &[inode])
            );
        }
        let of_ipv4 = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), of_ipv4.local_addr().unwrap().port());
        let listeners = listening(Path::new("/proc/net")).unwrap();
        let taken = |ip| taken(&listeners, address(ip), &HashSet::new()).is_some();
        assert!(taken("127.0.0.1") && taken("0.0.0.0") && !taken("::"));
    }

    #[test]
    fn a_socket_of_ours_is_found_with_its_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let listener =
            table.lines().filter_map(|line| parse(line, Protocol::Tcp)).find(|l| l.port == port).unwrap();
        let owner = process(listener.inode).unwrap();
        assert!(owner.ends_with(&format!("(pid {})", std::process::id())), "{owner}");
    }
}
