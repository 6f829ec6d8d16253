//! TLS towards clients.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    server::{
        ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};

use super::{Certificates, first, pem, provider, versions};
use crate::{
    spec::{ClientCertificates, Mode, Problem, Tls},
    wire::split_authority,
};

/// TLS of a service.
#[derive(Debug)]
pub struct Endpoint {
    acceptor: Acceptor,
    chooser: Arc<Chooser>,
    files: Vec<PathBuf>,
    strict: bool,
    tickets: Arc<dyn ProducesTickets>,
    believed: Believed,
    timeout: Duration,
    refuse_fronting: bool,
    /// Whether HTTP is spoken within.
    http: bool,
}

/// Which certificates of clients are believed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Believed {
    authorities: Vec<CertificateDer<'static>>,
    required: bool,
}

impl Believed {
    fn read(told: &ClientCertificates) -> Result<Self, String> {
        let authorities = pem::read(&told.authorities)?.certificates;
        if authorities.is_empty() {
            return Err(format!("{} has no certificate", told.authorities.display()));
        }
        Ok(Self { authorities, required: told.required })
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        if self.authorities.is_empty() {
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(|error| format!("an authority of clients: {error}"))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = if self.required { builder } else { builder.allow_unauthenticated() };
        builder.build().map(|verifier| verifier as _).map_err(|error| error.to_string())
    }
}

/// An acceptor that can be shown.
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// Which certificate a client gets; the certificates may be replaced at any time.
#[derive(Debug)]
struct Chooser(ArcSwap<Certificates>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.0.load().choose(name.as_deref(), hello.signature_schemes())
    }
}

impl Endpoint {
    /// TLS as `told`, with what is kept of the one `before`: tickets that clients have stay good.
    pub(crate) fn new(
        told: &Tls,
        mode: Mode,
        before: Option<&Self>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let alpn = match (&told.alpn, mode) {
            (Some(names), _) => names.iter().map(|name| name.clone().into_bytes()).collect(),
            (None, Mode::Http) => crate::front::ALPN.iter().map(|name| name.to_vec()).collect(),
            (None, Mode::Tcp) => Vec::new(),
        };
        if mode == Mode::Http
            && let Some(odd) = alpn.iter().find(|name| !crate::front::ALPN.contains(&name.as_slice()))
        {
            let odd = String::from_utf8_lossy(odd);
            problems
                .push(Problem::new("tls.alpn", format!("\"{odd}\" is no protocol that mode http speaks")));
        }
        if alpn.iter().any(|name: &Vec<u8>| name.is_empty() || name.len() > 255) {
            problems.push(Problem::new("tls.alpn", "names have 1 to 255 bytes"));
        }
        let certificates = match Certificates::read(&told.certificates, told.strict) {
            Ok(certificates) => Arc::new(certificates),
            Err(mut found) => match before.filter(|before| before.files == told.certificates) {
                // As when files change: what was good is shown, and nothing else has to wait until it is again.
                Some(before) if before.strict == told.strict => before.certificates(),
                _ => {
                    problems.append(&mut found);
                    return None;
                }
            },
        };
        let believed = match told.client_certificates.as_ref().map(Believed::read).transpose() {
            Ok(believed) => believed.unwrap_or_default(),
            Err(message) => {
                problems.push(Problem::new("tls.client_certificates", message));
                return None;
            }
        };
        // A ticket stands for the certificate that was shown when it was given: whoever asks for others now
        // must not take it.
        let before = before.filter(|before| before.believed == believed);
        let chooser = Arc::new(Chooser(ArcSwap::new(certificates)));
        let tickets = match before
            .map_or_else(rustls::crypto::aws_lc_rs::Ticketer::new, |before| Ok(Arc::clone(&before.tickets)))
        {
            Ok(tickets) => tickets,
            Err(error) => {
                problems.push(Problem::new("tls", format!("there is no randomness for tickets: {error}")));
                return None;
            }
        };
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(told.minimum_version))
            .map_err(|error| error.to_string())
            .and_then(|config| Ok(config.with_client_cert_verifier(believed.verifier()?)))
            .map(|config| config.with_cert_resolver(Arc::clone(&chooser) as _));
        let mut config = match config {
            Ok(config) => config,
            Err(error) => {
                problems.push(Problem::new("tls", error));
                return None;
            }
        };
        config.alpn_protocols = alpn;
        config.ticketer = Arc::clone(&tickets);
        Some(Self {
            acceptor: Acceptor(TlsAcceptor::from(Arc::new(config))),
            chooser,
            files: told.certificates.clone(),
            strict: told.strict,
            tickets,
            believed,
            timeout: told.handshake_timeout.get(),
            refuse_fronting: told.refuse_domain_fronting,
            http: mode == Mode::Http,
        })
    }

    /// Waits until the client has begun.
    ///
    /// # Errors
    /// Where it does not in time, or with something that TLS cannot come of; it was told so.
    pub async fn spoken_to(&self, socket: &mut TcpStream) -> io::Result<()> {
        match tokio::time::timeout(self.timeout, first::look(socket, self.http)).await {
            Ok(looked) => looked,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Agrees on TLS with a client, in `most` time or what the specification says, whichever is shorter.
    ///
    /// # Errors
    /// Why they do not agree; a timeout where it took too long.
    pub async fn accept(&self, socket: TcpStream, most: Duration) -> io::Result<Box<TlsStream<TcpStream>>> {
        match tokio::time::timeout(self.timeout.min(most), self.acceptor.0.accept(socket)).await {
            Ok(accepted) => accepted.map(Box::new),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Whether a request for `authority` came over a connection that began with another name, for which
    /// another certificate was shown, where that is refused (E7).
    #[must_use]
    pub fn is_fronting(&self, name: Option<&str>, authority: &[u8]) -> bool {
        if !self.refuse_fronting {
            return false;
        }
        let (host, _) = split_authority(authority);
        let host = String::from_utf8_lossy(host).trim_end_matches('.').to_ascii_lowercase();
        name != Some(&host) && self.chooser.0.load().differ(name, &host)
    }

    /// Reads the certificates again if a file has changed. What is wrong is told, and changes nothing.
    pub fn refresh(&self, service: &str) {
        if !self.chooser.0.load().have_changed(&self.files) {
            return;
        }
        match Certificates::read(&self.files, self.strict) {
            Ok(certificates) => {
                self.chooser.0.store(Arc::new(certificates));
                info!("service {service}: certificates were read again");
            }
            Err(problems) => {
                for problem in problems {
                    warn!("service {service}: {problem}; the certificates from before are still shown");
                }
            }
        }
    }

    /// The certificates that are shown.
    #[must_use]
    pub fn certificates(&self) -> Arc<Certificates> {
        self.chooser.0.load_full()
    }
}
