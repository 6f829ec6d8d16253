//! `lbctl sockets`: on which ports the programs of the balancer listen, as `ss -lntup` has it (R68).

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use clap::Args;
use serde::Serialize;

use super::{
    client::Failure,
    output::{Output, render},
    table::{
        Align::{Left, Right},
        Cell, Table,
    },
};
use crate::listeners::{self, Listener};

/// The programs of the balancer, as the kernel knows them (15 characters at most).
const OURS: [&str; 2] = ["lb-user", "l7-proxy"];

/// What the command line says.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How.
    #[command(flatten)]
    output: Output,
}

/// A socket of ours. Field names and meanings are part of the interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Row {
    /// `tcp` or `udp`.
    protocol: String,
    address: IpAddr,
    port: u16,
    /// The program's name.
    program: String,
    pid: u32,
}

/// Lists them.
///
/// # Errors
/// When this user may not look.
pub fn run(options: &Options) -> Result<(), Failure> {
    options.output.show(|format| {
        let rows = find(Path::new("/proc"), &OURS).map_err(|error| Failure::Answer(error.to_string()))?;
        render(format, &rows, |_| table(&rows))
    })
}

/// The listening sockets of all processes of these names, each in its own network namespace.
fn find(proc: &Path, names: &[&str]) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(proc)?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let folder = entry.path();
        // What ends meanwhile has no sockets any more.
        let Ok(program) = fs::read_to_string(folder.join("comm")) else { continue };
        let program = program.trim();
        if !names.contains(&program) {
            continue;
        }
        let held = match listeners::sockets_of(&folder) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let why =
                    format!("this user may not see the sockets of {program} (pid {pid}); run lbctl as root");
                return Err(io::Error::new(error.kind(), why));
            }
            held => held.unwrap_or_default(),
        };
        let listening = listeners::listening(&folder.join("net"))?;
        let ours = listening.into_iter().filter(|listener| held.contains(&listener.inode));
        rows.extend(ours.map(|Listener { protocol, address, port, .. }| Row {
            protocol: protocol.to_string(),
            address,
            port,
            program: program.to_owned(),
            pid,
        }));
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no program of the balancer listens on TCP or UDP\n".into();
    }
    let heads = [("PROTO", Left), ("LISTENS ON", Left), ("PROGRAM", Left), ("PID", Right)];
    let mut table = Table::new(0, &heads);
    for Row { protocol, address, port, program, pid } in rows {
        let on = SocketAddr::new(*address, *port).to_string();
        table.push(vec![Cell::from(protocol), on.into(), program.into(), pid.to_string().into()]);
    }
    (0..=rows.len()).map(|line| table.line(line, false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_listening_sockets_of_a_process_and_no_others() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let talking = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let rows = find(Path::new("/proc"), &[own.trim()]).unwrap();
        let has = |address: SocketAddr, protocol: &str| {
            let pid = std::process::id();
            let is_it = |row: &&Row| (row.address, row.port, row.pid) == (address.ip(), address.port(), pid);
            rows.iter().filter(is_it).any(|row| row.protocol == protocol)
        };
        assert!(has(tcp.local_addr().unwrap(), "tcp") && has(udp.local_addr().unwrap(), "udp"), "{rows:?}");
        assert!(!has(talking.local_addr().unwrap(), "tcp"));
        assert!(find(Path::new("/proc"), &["nobody-is-called-so"]).unwrap().is_empty());
        let text = table(&rows);
        assert!(text.contains(&tcp.local_addr().unwrap().to_string()), "{text}");
    }
}
