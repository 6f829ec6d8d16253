//! TLS as a client speaks it that trusts certain certificates.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Shared, Site, lock};

/// A connection with TLS.
pub(super) type Secure = TlsStream<TcpStream>;

/// A client that trusts these certificates (PEM) and offers these protocols.
///
/// # Panics
/// When one of them is none.
#[must_use]
pub fn trusting(certificates: &[String], protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for pem in certificates {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        roots.add(certificate).expect("a certificate that can be trusted");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions that it knows");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A visitor's TLS: as browsers have it, with sessions that are resumed, or always a handshake in full.
pub(super) fn connector(site: &Site, protocol: &str, resumes: bool) -> TlsConnector {
    let mut config = trusting(&site.trusted, &[protocol]);
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    TlsConnector::from(Arc::new(config))
}

/// Connects, and has a look at the certificate.
pub(super) async fn connect(shared: &Shared, connector: &TlsConnector) -> Result<Secure, String> {
    let site = &shared.site;
    let secure = site.secure.ok_or("connect: the site has no TLS")?;
    let stream = TcpStream::connect(secure).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("set up: {error}"))?;
    let name = ServerName::try_from(site.name.clone()).map_err(|error| error.to_string())?;
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
    if let Some([certificate, ..]) = stream.get_ref().1.peer_certificates() {
        lock(&shared.certificates).insert(certificate.to_vec());
    }
    Ok(stream)
}
