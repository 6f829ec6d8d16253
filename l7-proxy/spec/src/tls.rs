//! TLS towards clients and towards servers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Span;

/// TLS towards clients: it ends here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM files, each a certificate chain with its key in any order; at least one. Which one a client gets
    /// follows from the name it asks for: a certificate for exactly that name, then one for a wildcard of it,
    /// then the first file's.
    pub certificates: Vec<PathBuf>,
    /// Whether a client that asks for a name no certificate has is refused by an alert, instead of getting the
    /// first file's certificate. A client that asks for no name is refused too.
    #[serde(default)]
    pub strict: bool,
    /// The oldest version that is spoken.
    #[serde(default)]
    pub minimum_version: TlsVersion,
    /// Application protocols, the preferred one first. For mode `http` the default is `h2`, then `http/1.1`;
    /// for mode `tcp` none is negotiated unless given.
    #[serde(default)]
    pub alpn: Option<Vec<String>>,
    /// Certificates of clients.
    #[serde(default)]
    pub client_certificates: Option<ClientCertificates>,
    /// How long a handshake may take.
    #[serde(default = "handshake")]
    pub handshake_timeout: Span,
    /// Whether a request for another host than the connection's server name is refused with 421 where another
    /// certificate would have been shown for it (domain fronting).
    #[serde(default)]
    pub refuse_domain_fronting: bool,
}

impl Tls {
    /// With these certificates; everything else as if it were not given.
    #[must_use]
    pub fn with_certificates(certificates: Vec<PathBuf>) -> Self {
        Self {
            certificates,
            strict: false,
            minimum_version: TlsVersion::default(),
            alpn: None,
            client_certificates: None,
            handshake_timeout: handshake(),
            refuse_domain_fronting: false,
        }
    }
}

fn handshake() -> Span {
    Span::from_secs(10)
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Certificates that clients show (mTLS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// PEM file with the authorities that are believed.
    pub authorities: PathBuf,
    /// Whether a client without a certificate is refused. One with a bad certificate always is.
    #[serde(default)]
    pub required: bool,
}

/// What becomes of `X-Forwarded-Client-Cert` (base64 of the certificate's DER). Whatever is chosen, a client that
/// showed a certificate is also told of in `X-SSL-Client` and `X-SSL-Client-Session-ID`, `-Verify`, `-Subject-DN`,
/// `-Subject-CN`, `-Issuer-DN`, `-NotBefore` and `-NotAfter`; such lines that clients send themselves are removed
/// unless no certificates are asked for and this is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedClientCertificate {
    /// The header is left as it came.
    #[default]
    AlwaysForwardOnly,
    /// It is kept only where the client showed a certificate of its own; else removed.
    ForwardOnly,
    /// It is replaced by the certificate that the client showed; removed where it showed none.
    SanitizeSet,
    /// It is replaced by the certificate that the client showed; where it showed none, kept on requests that
    /// carry `X-Cf-Proxy-Signature` and removed from others.
    ForwardOnlyIfRouteService,
}

/// TLS towards servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTls {
    /// What a server's certificate must be.
    pub verify: ServerVerification,
    /// The name that is asked for and that the certificate must have; the server's address unless given.
    pub server_name: Option<String>,
    /// PEM file with a certificate and key to show to servers that ask for one.
    pub certificate: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub minimum_version: TlsVersion,
}

/// What a server's certificate must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerVerification {
    /// Issued by an authority that this system trusts.
    #[default]
    System,
    /// Issued by an authority in this PEM file.
    Authorities(PathBuf),
    /// Anything: the connection is encrypted, but to whom is not known.
    None,
}
