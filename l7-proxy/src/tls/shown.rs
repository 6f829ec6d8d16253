//! The certificate that a client has shown, as servers are told of it: `X-Forwarded-Client-Cert` with the
//! certificate in base64, and the `X-SSL-Client-*` lines that Cloud Foundry's HAProxy sends (E4).

use rustls::ServerConnection;

use super::der;
use crate::wire::{Sink, base64};

/// What the lines of a client's certificate begin with.
pub const PREFIX: &[u8] = b"x-ssl-client";

/// A certificate that was shown and believed, as the lines that tell of it: made once per connection.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The certificate, in base64.
    pub certificate: String,
    lines: [(&'static [u8], String); 8],
}

impl Shown {
    /// The certificate of a connection's client; none where it has shown none.
    #[must_use]
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let certificate = connection.peer_certificates()?.first()?;
        let read = der::read(certificate)?;
        // What OpenSSL calls the session's id is not to be had of rustls; this too is the connection's own.
        let session =
            connection.export_keying_material([0_u8; 32], b"EXPORTER-l7-proxy-session", None).ok()?;
        let session = session.iter().map(|byte| format!("{byte:02X}")).collect();
        Some(Self {
            certificate: base64(certificate),
            lines: [
                (b"X-SSL-Client", "1".into()),
                (b"X-SSL-Client-Session-ID", session),
                // Who is not believed gets no connection.
                (b"X-SSL-Client-Verify", "0".into()),
                (b"X-SSL-Client-Subject-DN", der::one_line(&read.subject)),
                (b"X-SSL-Client-Subject-CN", der::common_name(&read.subject).unwrap_or_default()),
                (b"X-SSL-Client-Issuer-DN", der::one_line(&read.issuer)),
                (b"X-SSL-Client-NotBefore", der::shown(&read.from)),
                (b"X-SSL-Client-NotAfter", der::shown(&read.until)),
            ],
        })
    }

    /// Writes the lines beside the certificate itself.
    pub fn write<S: Sink>(&self, sink: &mut S) {
        for (name, value) in &self.lines {
            sink.line(name, value.as_bytes());
        }
    }
}
