//! `--api`: an lb-user on another host, over TLS and with a token.

use std::{fmt, fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use clap::Args;
use hyper::{Uri, header::HeaderValue};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::client::Failure;

/// What the command line says.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Another host")]
pub struct Options {
    /// Ask the lb-user of another host, which runs with --api: https://HOST:PORT.
    #[arg(long, global = true, value_name = "URL", requires = "token_file", conflicts_with = "socket")]
    pub api: Option<String>,

    /// File with the token, which nobody else may read (lbctl token new).
    #[arg(long, global = true, value_name = "FILE", requires = "api")]
    pub token_file: Option<std::path::PathBuf>,

    /// PEM file with the certificates to trust. [default: what this host trusts]
    #[arg(long, global = true, value_name = "FILE", requires = "api")]
    pub ca: Option<std::path::PathBuf>,
}

/// An lb-user on another host.
pub struct Api {
    host: String,
    port: u16,
    name: ServerName<'static>,
    authorization: HeaderValue,
    connector: TlsConnector,
}

impl fmt::Debug for Api {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

impl Api {
    /// One that is asked with what these files say.
    ///
    /// # Errors
    /// When the URL or a file is not what it should be.
    pub fn new(url: &str, token_file: &Path, ca: Option<&Path>) -> Result<Self, Failure> {
        let (host, port) = place(url)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let wrong = |_| Failure::Usage(format!("--api: {host} is no name that a certificate could be for"));
        let name = ServerName::try_from(bare.to_owned()).map_err(wrong)?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token(token_file)?))
            .map_err(|_| Failure::Usage(format!("{} holds no token", token_file.display())))?;
        authorization.set_sensitive(true);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Reach(format!("TLS: {error}")))?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        Ok(Self { host, port, name, authorization, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// As the header `Host` has it.
    pub(super) fn host(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(super) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, Failure> {
        let failed = |error: io::Error| {
            let advice = if error.to_string().contains("UnknownIssuer") {
                "; if it signed its certificate itself, name that with --ca"
            } else {
                ""
            };
            Failure::Reach(format!("{self}: {error}{advice}"))
        };
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, self.port)).await.map_err(failed)?;
        self.connector.connect(self.name.clone(), stream).await.map_err(failed)
    }
}

/// Host and port of a URL.
fn place(url: &str) -> Result<(String, u16), Failure> {
    let wrong = || Failure::Usage(format!("--api: {url:?} must be https://HOST:PORT"));
    let parsed: Uri = url.parse().map_err(|_| wrong())?;
    if parsed.scheme_str() != Some("https") || !matches!(parsed.path(), "" | "/") || parsed.query().is_some()
    {
        return Err(wrong());
    }
    let authority = parsed.authority().filter(|authority| !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(wrong)?;
    Ok((authority.host().to_owned(), authority.port_u16().unwrap_or(443)))
}

/// The token in a file.
fn token(file: &Path) -> Result<String, Failure> {
    let cannot =
        |error: io::Error| Failure::Usage(format!("cannot read the token in {}: {error}", file.display()));
    let metadata = fs::metadata(file).map_err(cannot)?;
    if metadata.mode() & 0o077 != 0 && metadata.is_file() {
        let file = file.display();
        return Err(Failure::Usage(format!("others may read the token in {file}; say chmod 600 {file}")));
    }
    let text = fs::read_to_string(file).map_err(cannot)?;
    match text.trim() {
        "" => Err(Failure::Usage(format!("{} is empty; it must hold a token", file.display()))),
        token => Ok(token.to_owned()),
    }
}

/// The certificates to trust.
fn roots(ca: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        return match found.errors.first() {
            Some(error) if roots.is_empty() => Err(Failure::Usage(format!(
                "the certificates that this host trusts cannot be read: {error}; name one with --ca"
            ))),
            _ => Ok(roots),
        };
    };
    let wrong = |why: &dyn fmt::Display| Failure::Usage(format!("--ca {}: {why}", ca.display()));
    let pem = fs::read(ca).map_err(|error| wrong(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_https_and_only_a_host() {
        for (url, host, port) in [
            ("https://lb.example:9443", "lb.example", 9443),
            ("https://[2001:db8::1]:9443/", "[2001:db8::1]", 9443),
            ("https://10.0.0.1", "10.0.0.1", 443),
        ] {
            assert_eq!(place(url).unwrap(), (host.to_owned(), port));
        }
        for wrong in [
            "",
            "lb.example:9443",
            "http://lb.example:9443",
            "https://",
            "https://a@b:1",
            "https://a:1/v1",
            "https://a:1?x",
        ] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_that_others_may_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "lb_abc\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(token(&file).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(token(&file).unwrap(), "lb_abc");
        fs::write(&file, "\n").unwrap();
        assert!(token(&file).unwrap_err().to_string().contains("empty"));
    }
}
