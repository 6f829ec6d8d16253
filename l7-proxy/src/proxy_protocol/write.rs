//! Writes the header.

use std::{
    io::Write,
    net::{IpAddr, Ipv6Addr},
};

use super::SIGNATURE;
use crate::{server::Ends, spec::ProxyProtocolVersion};

/// Writes the header for a client's connection. Where its two ends are of different families, both are written
/// as IPv6.
pub fn write(out: &mut Vec<u8>, version: ProxyProtocolVersion, ends: &Ends) {
    let (client, local) = (ends.client.ip().to_canonical(), ends.local.ip().to_canonical());
    let (client_port, local_port) = (ends.client.port(), ends.local.port());
    let pair = match (client, local) {
        (IpAddr::V4(client), IpAddr::V4(local)) => Ok((client, local)),
        (client, local) => Err((in_v6(client), in_v6(local))),
    };
    match version {
        ProxyProtocolVersion::V1 => {
            // Writing to memory does not fail.
            let _ = match pair {
                Ok((client, local)) => {
                    write!(out, "PROXY TCP4 {client} {local} {client_port} {local_port}\r\n")
                }
                Err((client, local)) => {
                    write!(out, "PROXY TCP6 {client} {local} {client_port} {local_port}\r\n")
                }
            };
        }
        ProxyProtocolVersion::V2 => {
            out.extend_from_slice(&SIGNATURE);
            // Version 2, command PROXY; then TCP over the family, and the length of the addresses.
            match pair {
                Ok((client, local)) => {
                    out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                    out.extend_from_slice(&client.octets());
                    out.extend_from_slice(&local.octets());
                }
                Err((client, local)) => {
                    out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                    out.extend_from_slice(&client.octets());
                    out.extend_from_slice(&local.octets());
                }
            }
            out.extend_from_slice(&client_port.to_be_bytes());
            out.extend_from_slice(&local_port.to_be_bytes());
        }
    }
}

fn in_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
