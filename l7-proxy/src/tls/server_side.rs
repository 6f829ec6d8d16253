//! TLS towards servers.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::warn;

use super::{pem, provider, versions};
use crate::spec::{Problem, ServerTls, ServerVerification};

/// TLS towards the servers of a pool.
#[derive(Clone)]
pub struct ToServers {
    connector: TlsConnector,
    /// The same, for HTTP/2.
    http2: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for ToServers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToServers").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ToServers {
    /// TLS as `told`.
    pub(crate) fn new(told: &ServerTls, problems: &mut Vec<Problem>) -> Option<Self> {
        let name = match told.server_name.clone().map(ServerName::try_from).transpose() {
            Ok(name) => name,
            Err(error) => {
                problems.push(Problem::new("tls.server_name", format!("is no name: {error}")));
                return None;
            }
        };
        let config = config(told).map_err(|message| problems.push(Problem::new("tls", message))).ok()?;
        let mut http2 = config.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, http2) = (TlsConnector::from(Arc::new(config)), TlsConnector::from(Arc::new(http2)));
        Some(Self { connector, http2, name })
    }

    /// Agrees on TLS with a server, and on HTTP/2 within if that is wanted.
    ///
    /// # Errors
    /// Why they do not agree.
    pub async fn connect(&self, socket: TcpStream, http2: bool) -> io::Result<Box<TlsStream<TcpStream>>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::IpAddress(socket.peer_addr()?.ip().to_canonical().into()),
        };
        let connector = if http2 { &self.http2 } else { &self.connector };
        connector.connect(name, socket).await.map(Box::new)
    }
}

fn config(told: &ServerTls) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(told.minimum_version))
        .map_err(|error| error.to_string())?;
    let builder = match &told.verify {
        ServerVerification::None => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything(provider())))
        }
        ServerVerification::System => {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            let why = found.errors.first().map(ToString::to_string);
            if roots.is_empty() {
                let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                return Err(format!("this system trusts no authority{why}: give verify.authorities"));
            }
            if let Some(why) = why {
                let count = found.errors.len();
                warn!("{count} of the authorities that this system trusts cannot be read: {why}");
            }
            builder.with_root_certificates(roots)
        }
        ServerVerification::Authorities(file) => {
            let mut roots = RootCertStore::empty();
            let parts = pem::read(file)?;
            for certificate in parts.certificates {
                roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
            }
            if roots.is_empty() {
                return Err(format!("{} has no certificate", file.display()));
            }
            builder.with_root_certificates(roots)
        }
    };
    match &told.certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(file) => {
            let parts = pem::read(file)?;
            let key = parts.keys.into_iter().next();
            let key = key.ok_or_else(|| format!("{} has no private key", file.display()))?;
            builder
                .with_client_auth_cert(parts.certificates, key)
                .map_err(|error| format!("{}: {error}", file.display()))
        }
    }
}

/// Takes whatever certificate a server shows; that it has the key to it is still checked.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
