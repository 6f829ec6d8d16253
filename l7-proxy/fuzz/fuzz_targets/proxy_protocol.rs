//! The PROXY protocol: what is clear of a header's beginning stays so, and what we write we read.

#![no_main]

use std::net::SocketAddr;

use l7_proxy::{
    proxy_protocol::{self, Header},
    server::Ends,
    spec::ProxyProtocolVersion,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = proxy_protocol::read(data);
    if let Ok(Some((_, length))) = whole {
        assert!(length <= data.len());
        assert_eq!(proxy_protocol::read(&data[..length]), whole, "it needs no more than itself");
    }
    for length in 0..data.len().min(300) {
        match proxy_protocol::read(&data[..length]) {
            Ok(None) => {}
            clear => assert_eq!(clear, whole, "after {length} bytes"),
        }
    }
    let Some(octets) = data.first_chunk::<36>() else { return };
    let port = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let four = |at: usize| <[u8; 4]>::try_from(&octets[at..at + 4]).unwrap_or_default();
    let sixteen = |at: usize| <[u8; 16]>::try_from(&octets[at..at + 16]).unwrap_or_default();
    let pairs = [
        (SocketAddr::from((four(0), port(32))), SocketAddr::from((four(16), port(34)))),
        (SocketAddr::from((sixteen(0), port(32))), SocketAddr::from((sixteen(16), port(34)))),
    ];
    for (client, local) in pairs {
        for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
            let ends = Ends { client, local };
            let mut header = Vec::new();
            proxy_protocol::write(&mut header, version, &ends);
            let Ok(Some((Header::Proxied(read), length))) = proxy_protocol::read(&header) else {
                panic!("{ends:?}: {header:?}");
            };
            assert_eq!(length, header.len());
            assert_eq!(
                (read.client.ip().to_canonical(), read.client.port()),
                (client.ip().to_canonical(), client.port())
            );
            assert_eq!(
                (read.local.ip().to_canonical(), read.local.port()),
                (local.ip().to_canonical(), local.port())
            );
        }
    }
});
