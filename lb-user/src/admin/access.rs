//! What protects the API over TCP: a certificate with its key, and tokens. Both are files, read at the start and with each
//! reload; one that cannot be used then leaves what was.

use std::{
    fmt, fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hyper::header::{AUTHORIZATION, HeaderMap};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

use super::{
    error::Refusal,
    guard::{Fate, Guard},
    token::{Digest, Token, Tokens, Wrong},
};
use crate::{config::outside, reload::unix_time};

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate with its chain, in PEM.
    pub certificate: PathBuf,
    /// Its key; the same file if there is no other.
    pub key: PathBuf,
    /// The tokens.
    pub tokens: PathBuf,
}

/// What is in use.
pub struct Access {
    files: Files,
    tokens: Mutex<Arc<Tokens>>,
    acceptor: Mutex<TlsAcceptor>,
    guard: Mutex<Guard>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When one cannot be used, when others may read or write what they must not, or nobody could get in.
    pub fn open(files: Files) -> Result<Self, String> {
        let (acceptor, odd) = acceptor(&files)?;
        odd.iter().for_each(|line| warn!("API: {line}"));
        let tokens = tokens(&files.tokens)?;
        if tokens.all().is_empty() {
            let file = files.tokens.display();
            return Err(format!(
                "there is no token in {file}; make one: lbctl token new --role admin --name NAME --file {file}"
            ));
        }
        Ok(Self {
            files,
            tokens: Mutex::new(Arc::new(tokens)),
            acceptor: Mutex::new(acceptor),
            guard: Mutex::default(),
        })
    }

    /// Reads the files again. Gives what is wrong or odd about them; what is wrong stays as it was.
    pub fn read_again(&self) -> Vec<String> {
        let (mut problems, mut told) = (Vec::new(), Vec::new());
        match tokens(&self.files.tokens) {
            Ok(tokens) => {
                if tokens.all().is_empty() {
                    warn!("API: there is no token any more: nobody is let in");
                }
                *lock(&self.tokens) = Arc::new(tokens);
            }
            Err(why) => problems.push(format!("API: {why}; the tokens stay as they were")),
        }
        match acceptor(&self.files) {
            Ok((acceptor, odd)) => {
                *lock(&self.acceptor) = acceptor;
                told.extend(odd.into_iter().map(|line| format!("API: {line}")));
            }
            Err(why) => problems.push(format!("API: {why}; the certificate stays as it was")),
        }
        if problems.is_empty() {
            info!("API: tokens and certificate were read again");
        }
        problems.iter().for_each(|problem| error!("{problem}"));
        problems.append(&mut told);
        problems
    }

    /// TLS towards clients.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        lock(&self.acceptor).clone()
    }

    /// Who shows this, from an address.
    ///
    /// # Errors
    /// When it is nobody we know.
    pub fn admit(&self, headers: &HeaderMap, from: IpAddr) -> Result<Token, Refusal> {
        let now = unix_time();
        let why = match secret(headers) {
            Ok(secret) => match lock(&self.tokens).find(secret, now) {
                Ok(token) => return Ok(token.clone()),
                Err(Wrong::Unknown) => "this token is not known".to_owned(),
                Err(Wrong::Over { name }) => format!("the token of {name} is over; make another"),
            },
            Err(why) => why.to_owned(),
        };
        match lock(&self.guard).failed(from, now) {
            Fate::Told => {}
            Fate::Last(wait) => {
                warn!("API: {from} shows wrong tokens; no more is said of it for {wait} seconds")
            }
            Fate::Ignored(wait) => return Err(Refusal::TooMany { wait }),
        }
        Err(Refusal::Unauthorized { why })
    }

    /// Whether a token is still good.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        lock(&self.tokens).has(digest, unix_time())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The token that a request shows (RFC 6750 §2.1).
fn secret(headers: &HeaderMap) -> Result<&str, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, others) = (values.next(), values.next());
    let value = value.ok_or("show a token: Authorization: Bearer TOKEN")?;
    let word = value.to_str().ok().and_then(|value| value.split_once(' '));
    match word {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") && others.is_none() => {
            Ok(secret.trim())
        }
        _ => Err("Authorization must be: Bearer TOKEN, once"),
    }
}

/// The tokens in a file that nobody else may change or read.
fn tokens(file: &Path) -> Result<Tokens, String> {
    let text = private(file)?;
    Tokens::parse(&text).map_err(|why| format!("{}: {why}", file.display()))
}

/// TLS with what is in the files, and what is odd about them.
fn acceptor(files: &Files) -> Result<(TlsAcceptor, Vec<String>), String> {
    let certificate = &files.certificate;
    let pem = fs::read(certificate).map_err(|error| cannot_read(certificate, &error))?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("{}: {error}", certificate.display()))?;
    if chain.is_empty() {
        return Err(format!("there is no certificate in {} (PEM)", certificate.display()));
    }
    let now = i64::try_from(unix_time()).unwrap_or(i64::MAX);
    let odd = outside::aged(&certificate.display().to_string(), &chain[0], now);
    let odd = odd.into_iter().map(|(_, line)| line).collect();
    let key = PrivateKeyDer::from_pem_slice(private(&files.key)?.as_bytes());
    let key = key.map_err(|_| format!("there is no private key in {} (PEM)", files.key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{} and its key: {error}", certificate.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), odd))
}

/// A file with something to protect: others must neither read it nor change it, and the group must not change it.
fn private(file: &Path) -> Result<String, String> {
    let metadata = fs::metadata(file).map_err(|error| cannot_read(file, &error))?;
    let (path, mode) = (file.display(), metadata.mode() & 0o777);
    if !metadata.is_file() {
        return Err(format!("{path} is no ordinary file"));
    }
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(format!("{path} belongs to user {owner}, who could change it; say chown root {path}"));
    }
    if mode & 0o026 != 0 {
        return Err(format!("others may read or change {path} (mode {mode:03o}); say chmod 600 {path}"));
    }
    fs::read_to_string(file).map_err(|error| cannot_read(file, &error))
}

fn cannot_read(file: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", file.display())
}

#[cfg(test)]
pub(crate) mod tests;
