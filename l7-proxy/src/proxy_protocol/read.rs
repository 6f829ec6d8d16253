//! Reads the header, of either version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::SIGNATURE;
use crate::server::Ends;

/// Longest header that is taken: extensions of version 2 among it, which are skipped.
pub const MOST_BYTES: usize = 4 * 1024;

/// Longest line of version 1.
const MOST_LINE: usize = 107;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The connection is made for this one.
    Proxied(Ends),
    /// The proxy speaks for itself (its health checks), or does not know: the connection's own ends count.
    Own,
}

/// The bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong;

/// Reads a header at the beginning of `bytes`: what it says and how long it is; `None` where more is needed.
///
/// # Errors
/// Where it is none and cannot become one.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Wrong> {
    let begins = |signature: &[u8]| {
        let length = bytes.len().min(signature.len());
        bytes[..length] == signature[..length]
    };
    if begins(&SIGNATURE) {
        version_2(bytes)
    } else if begins(b"PROXY ") {
        version_1(bytes)
    } else {
        Err(Wrong)
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<(Header, usize)>, Wrong> {
    let Some(newline) = memchr::memchr(b'\n', &bytes[..bytes.len().min(MOST_LINE)]) else {
        return if bytes.len() < MOST_LINE { Ok(None) } else { Err(Wrong) };
    };
    let line = bytes[..newline].strip_suffix(b"\r").ok_or(Wrong)?;
    let line = std::str::from_utf8(line).map_err(|_| Wrong)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(Wrong)?;
    if family == "UNKNOWN" {
        return Ok(Some((Header::Own, newline + 1)));
    }
    let mut address = || -> Result<IpAddr, Wrong> {
        let word = words.next().ok_or(Wrong)?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| Wrong),
            "TCP6" => word.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| Wrong),
            _ => Err(Wrong),
        }
    };
    let (client, local) = (address()?, address()?);
    let mut port = || -> Result<u16, Wrong> {
        let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit())).ok_or(Wrong)?;
        word.parse().map_err(|_| Wrong)
    };
    let (client_port, local_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(Wrong);
    }
    let ends =
        Ends { client: SocketAddr::new(client, client_port), local: SocketAddr::new(local, local_port) };
    Ok(Some((Header::Proxied(ends), newline + 1)))
}

fn version_2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Wrong> {
    let Some([command, family, high, low]) = bytes.get(12..16) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if command >> 4 != 2 || command & 15 > 1 || 16 + length > MOST_BYTES {
        return Err(Wrong);
    }
    let Some(rest) = bytes.get(16..16 + length) else { return Ok(None) };
    let port =
        |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]])).ok_or(Wrong);
    let header = match (command & 15, family) {
        (0, _) => Header::Own,
        (_, 0x11) => {
            let address = |at: usize| -> Result<IpAddr, Wrong> {
                let octets: [u8; 4] =
                    rest.get(at..at + 4).and_then(|part| part.try_into().ok()).ok_or(Wrong)?;
                Ok(octets.into())
            };
            Header::Proxied(Ends {
                client: SocketAddr::new(address(0)?, port(8)?),
                local: SocketAddr::new(address(4)?, port(10)?),
            })
        }
        (_, 0x21) => {
            let address = |at: usize| -> Result<IpAddr, Wrong> {
                let octets: [u8; 16] =
                    rest.get(at..at + 16).and_then(|part| part.try_into().ok()).ok_or(Wrong)?;
                Ok(octets.into())
            };
            Header::Proxied(Ends {
                client: SocketAddr::new(address(0)?, port(32)?),
                local: SocketAddr::new(address(16)?, port(34)?),
            })
        }
        // Families that are no TCP over IP say nothing that could be used.
        _ => Header::Own,
    };
    Ok(Some((header, 16 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_without_a_client_are_skipped() {
        assert_eq!(read(b"PROXY UNKNOWN ffff::1 x\r\nGET"), Ok(Some((Header::Own, 25))));
        let mut local = SIGNATURE.to_vec();
        local.extend_from_slice(&[0x20, 0, 0, 2, 7, 7]);
        assert_eq!(read(&local), Ok(Some((Header::Own, 18))));
    }

    #[test]
    fn what_is_none_is_refused() {
        for odd in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 +1\r\n",
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n",
            b"proxy TCP4",
        ] {
            assert_eq!(read(odd), Err(Wrong), "{}", String::from_utf8_lossy(odd));
        }
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        assert_eq!(read(&endless), Err(Wrong));
        for odd in [[0x31, 0x11, 0, 12], [0x22, 0x11, 0, 12], [0x21, 0x11, 0xff, 0xff]] {
            let mut bytes = SIGNATURE.to_vec();
            bytes.extend_from_slice(&odd);
            bytes.extend_from_slice(&[0; 12]);
            assert_eq!(read(&bytes), Err(Wrong), "{odd:?}");
        }
        let mut short = SIGNATURE.to_vec();
        short.extend_from_slice(&[0x21, 0x11, 0, 4, 1, 2, 3, 4]);
        assert_eq!(read(&short), Err(Wrong), "addresses that are not all there");
    }
}
