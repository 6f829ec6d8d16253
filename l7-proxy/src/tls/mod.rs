//! TLS towards clients and towards servers.

mod certificates;
mod client_side;
mod der;
mod first;
mod names;
mod pem;
mod server_side;
mod shown;

pub use certificates::{Certificate, Certificates};
pub use client_side::Endpoint;
pub use server_side::ToServers;
pub use shown::{PREFIX, Shown};

use std::sync::{Arc, LazyLock};

use rustls::{SupportedProtocolVersion, crypto::CryptoProvider, version};

use crate::spec::TlsVersion;

/// The cryptography of the whole process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The versions from `oldest` on.
fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match oldest {
        TlsVersion::V1_2 => &BOTH,
        TlsVersion::V1_3 => &BOTH[..1],
    }
}
