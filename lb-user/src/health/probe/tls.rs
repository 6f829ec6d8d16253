//! The TLS probe: a handshake, then the end. Which certificates will do is the operator's choice; by default any,
//! because a check asks whether a server is well and not who it is.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::spawn_blocking};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Outcome, Peer, connect, failure, files, tcp, trouble};
use crate::model::Trust;

/// Shakes hands.
pub(super) async fn probe(
    peer: impl Into<Peer>,
    connector: &TlsConnector,
    host: Option<&str>,
) -> Result<String, Outcome> {
    let mut stream = handshake(peer, connector, host).await?;
    let version = stream.get_ref().1.protocol_version().and_then(|version| version.as_str());
    // Says that this is the end; what becomes of it does not matter.
    let _ = stream.shutdown().await;
    let found = format!("{} handshake", version.unwrap_or("TLS").replace("TLSv", "TLS ").replace('_', "."));
    tcp::close(stream.into_inner().0).await;
    Ok(found)
}

/// Connects and shakes hands; `host` is the name to ask for, perhaps with a port.
pub(super) async fn handshake(
    peer: impl Into<Peer>,
    connector: &TlsConnector,
    host: Option<&str>,
) -> Result<TlsStream<TcpStream>, Outcome> {
    let peer = peer.into();
    let name = match host {
        None => ServerName::from(peer.address.ip()),
        Some(host) => server_name(host).ok_or_else(|| failure(format!("{host:?} is no name for TLS")))?,
    };
    let stream = connect(peer).await?;
    connector.connect(name, stream).await.map_err(|error| in_words(&error))
}

/// The name in a host that may have a port.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = host.trim_start_matches('[');
    let whole = bare.trim_end_matches(']');
    let name = ServerName::try_from(whole).ok();
    let without_port = || ServerName::try_from(bare.rsplit_once(':')?.0.trim_end_matches(']')).ok();
    name.or_else(without_port).map(|name| name.to_owned())
}

fn in_words(error: &io::Error) -> Outcome {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidMessage(_)) => failure("the answer is not TLS"),
        Some(error) => failure(format!("TLS: {error}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            failure("the server closed the connection during the TLS handshake")
        }
        None => trouble(error),
    }
}

/// What is to be trusted, as made ready for handshakes.
#[derive(Default)]
pub(super) struct Certificates {
    ready: Mutex<HashMap<Key, (Option<SystemTime>, TlsConnector)>>,
}

type Key = (Trust, &'static [&'static [u8]]);

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// A connector for this trust that offers these protocols. A file is read again when it has changed.
    pub(super) async fn connector(
        &self,
        folder: &Path,
        trust: &Trust,
        protocols: &'static [&'static [u8]],
    ) -> Result<TlsConnector, Outcome> {
        let path = if let Trust::File(path) = trust { Some(folder.join(path)) } else { None };
        let changed = path.as_ref().and_then(|path| fs::metadata(path).ok()?.modified().ok());
        let key = (trust.clone(), protocols);
        if let Some((of, connector)) = self.ready().get(&key)
            && *of == changed
        {
            return Ok(connector.clone());
        }
        let roots = match (trust, path) {
            (Trust::Anyone, _) => None,
            (_, Some(path)) => Some(of_file(path).await?),
            (_, None) => Some(of_host().await?),
        };
        let mut config = config(roots).map_err(|error| Outcome::Inconclusive(format!("TLS: {error}")))?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // Every probe proves the whole handshake.
        config.resumption = Resumption::disabled();
        let connector = TlsConnector::from(Arc::new(config));
        self.ready().insert(key, (changed, connector.clone()));
        Ok(connector)
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (Option<SystemTime>, TlsConnector)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificates in a PEM file.
async fn of_file(path: PathBuf) -> Result<RootCertStore, Outcome> {
    let shown = path.display().to_string();
    let text = files::read(path).await?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| {
            Outcome::Inconclusive(format!("{shown} has a certificate that is none: {error}"))
        })?;
    }
    if roots.is_empty() {
        return Err(Outcome::Inconclusive(format!("{shown} has no certificate in it")));
    }
    Ok(roots)
}

/// The certificates that this host trusts. Single ones that cannot be read are left out.
async fn of_host() -> Result<RootCertStore, Outcome> {
    let found = spawn_blocking(rustls_native_certs::load_native_certs).await;
    let found = found.map_err(|error| Outcome::Inconclusive(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .first()
            .map(|error| format!(", or they cannot be read: {error}"))
            .unwrap_or_default();
        return Err(Outcome::Inconclusive(format!(
            "this host trusts no certificates (package ca-certificates{why}); name some with ca in health"
        )));
    }
    Ok(roots)
}

fn config(roots: Option<RootCertStore>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    Ok(match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
    }
    .with_no_client_auth())
}

/// Takes every certificate.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use std::time::Duration;

    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::{io::AsyncReadExt as _, net::TcpListener, time::timeout};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::{health::probe::http, model::HttpCheck};

    // Self-signed for www.example.com until 2125; see fixtures/README.md.
    const CERTIFICATE: &str = include_str!("fixtures/own.pem");
    const KEY: &str = include_str!("fixtures/own.key");
    const OTHER: &str = include_str!("fixtures/other.pem");

    /// A TLS server; every connection is greeted with an HTTP answer whose text is the name that was asked for.
    async fn server() -> SocketAddr {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let asked = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{asked}", asked.len());
                let mut request = [0; 1_000];
                let _ = timeout(Duration::from_millis(50), stream.read(&mut request)).await;
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }

    async fn shake(
        address: SocketAddr,
        folder: &Path,
        trust: Trust,
        host: Option<&str>,
    ) -> Result<String, Outcome> {
        probe(address, &Certificates::default().connector(folder, &trust, &[]).await?, host).await
    }

    #[tokio::test]
    async fn by_default_any_certificate_will_do() {
        let address = server().await;
        let found = shake(address, Path::new(""), Trust::Anyone, None).await;
        assert_eq!(found, Ok("TLS 1.3 handshake".into()));
    }

    #[tokio::test]
    async fn a_named_file_is_all_that_is_trusted_and_the_name_must_fit() {
        let address = server().await;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("own.pem"), CERTIFICATE).unwrap();
        fs::write(folder.path().join("other.pem"), OTHER).unwrap();
        fs::write(folder.path().join("none.pem"), "nothing\n").unwrap();
        let with =
            async |file: &str, host| shake(address, folder.path(), Trust::File(file.into()), host).await;
        assert_eq!(with("own.pem", Some("www.example.com:443")).await, Ok("TLS 1.3 handshake".into()));
        for (file, host, why) in [
            ("own.pem", Some("other.example.com"), "not valid for name"),
            ("own.pem", None, "not valid for name"),
            ("other.pem", Some("www.example.com"), "invalid peer certificate"),
        ] {
            let Err(Outcome::Failure(said)) = with(file, host).await else { panic!("{file} {host:?}") };
            assert!(said.starts_with("TLS: ") && said.contains(why), "{said}");
        }
        for (file, why) in [("none.pem", "has no certificate in it"), ("absent.pem", "cannot be read")] {
            let Err(Outcome::Inconclusive(said)) = with(file, None).await else { panic!("{file}") };
            assert!(said.contains(why), "{said}");
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let address = server().await;
        let folder = tempfile::tempdir().unwrap();
        let (file, certificates) = (folder.path().join("ca.pem"), Certificates::default());
        let trust = Trust::File("ca.pem".into());
        fs::write(&file, "nothing\n").unwrap();
        assert!(certificates.connector(folder.path(), &trust, &[]).await.is_err());
        let mut hosts = Vec::new();
        for (text, age) in [(OTHER, 60), (CERTIFICATE, 30)] {
            fs::write(&file, text).unwrap();
            let written = SystemTime::now() - Duration::from_secs(age);
            fs::File::open(&file).unwrap().set_modified(written).unwrap();
            let connector = certificates.connector(folder.path(), &trust, &[]).await.unwrap();
            hosts.push(probe(address, &connector, Some("www.example.com")).await.is_ok());
        }
        assert_eq!(hosts, [false, true]);
    }

    #[tokio::test]
    async fn http_within_tls_asks_for_the_host_by_name() {
        let address = server().await;
        let connector =
            Certificates::default().connector(Path::new(""), &Trust::Anyone, &[b"http/1.1"]).await.unwrap();
        let check = |host: Option<&str>, body: &str| HttpCheck {
            tls: Some(Trust::Anyone),
            host: host.map(str::to_owned),
            body: Some(body.into()),
            ..HttpCheck::default()
        };
        for (host, asked) in [(Some("www.example.com"), "www.example.com"), (None, "nobody")] {
            let found = http::probe(address, &check(host, asked), Some(&connector)).await;
            assert_eq!(found, Ok("HTTP status 200 with the expected text".into()));
        }
    }
}
