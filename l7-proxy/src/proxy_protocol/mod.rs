//! The PROXY protocol, by which a proxy tells the next one who its client is
//! (haproxy.org/download/3.0/doc/proxy-protocol.txt). Pure.

mod read;
mod write;

pub use read::{Header, MOST_BYTES, Wrong, read};
pub use write::write;

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{server::Ends, spec::ProxyProtocolVersion};

    #[test]
    fn what_is_written_is_read() {
        for (client, local) in [
            ("10.1.2.3:4567", "10.0.0.100:443"),
            ("[fd00::1]:4567", "[fd00::2]:443"),
            ("[::ffff:10.1.2.3]:4567", "10.0.0.100:443"),
            ("10.1.2.3:4567", "[fd00::2]:443"),
        ] {
            let ends = Ends { client: client.parse().unwrap(), local: local.parse().unwrap() };
            for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
                let mut bytes = Vec::new();
                write(&mut bytes, version, &ends);
                bytes.extend_from_slice(b"GET");
                for length in 0..bytes.len() - 3 {
                    assert_eq!(read(&bytes[..length]), Ok(None), "{version:?} {length}");
                }
                let (header, length) = read(&bytes).unwrap().unwrap();
                assert_eq!(length, bytes.len() - 3);
                let Header::Proxied(read) = header else { panic!("{header:?}") };
                let same = |one: SocketAddr, other: SocketAddr| {
                    assert_eq!(
                        (one.ip().to_canonical(), one.port()),
                        (other.ip().to_canonical(), other.port())
                    );
                };
                same(read.client, ends.client);
                same(read.local, ends.local);
            }
        }
    }
}
