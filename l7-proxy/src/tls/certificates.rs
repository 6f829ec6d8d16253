//! The certificates of a service.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{SignatureScheme, sign::CertifiedKey};
use rustls_pki_types::CertificateDer;

use super::{der, names::Names, pem, provider};
use crate::{
    files::{Stamp, stamp},
    spec::Problem,
};

/// A certificate with its chain and key.
#[derive(Debug)]
pub struct Certificate {
    /// The file it was read from.
    pub file: PathBuf,
    /// DNS names it is for.
    pub names: Vec<String>,
    /// Seconds since 1970 at which it expires.
    pub expires: i64,
    key: Arc<CertifiedKey>,
}

/// The certificates of a service, and which one a name gets.
#[derive(Debug)]
pub struct Certificates {
    all: Vec<Certificate>,
    names: Names,
    strict: bool,
    /// What the files looked like before they were read.
    stamps: Mutex<Vec<Option<Stamp>>>,
}

impl Certificates {
    /// Reads `files`; clients that ask for other names are refused where `strict`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(files: &[PathBuf], strict: bool) -> Result<Self, Vec<Problem>> {
        let stamps = Mutex::new(files.iter().map(|file| stamp(file)).collect());
        let mut problems = Vec::new();
        let mut all = Vec::new();
        let mut names = Names::default();
        for (number, file) in files.iter().enumerate() {
            match Certificate::read(file) {
                Ok(certificate) => {
                    certificate.names.iter().for_each(|name| names.add(name, all.len()));
                    all.push(certificate);
                }
                Err(message) => problems.push(Problem::new(format!("tls.certificates[{number}]"), message)),
            }
        }
        if files.is_empty() {
            problems.push(Problem::new("tls.certificates", "must name at least one file"));
        }
        if problems.is_empty() { Ok(Self { all, names, strict, stamps }) } else { Err(problems) }
    }

    /// Whether a file has changed since this was asked last, or since it was read.
    #[must_use]
    pub fn have_changed(&self, files: &[PathBuf]) -> bool {
        let now: Vec<_> = files.iter().map(|file| stamp(file)).collect();
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *stamps != now;
        *stamps = now;
        changed
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Certificate] {
        &self.all
    }

    /// The certificate that a client gets: one for the name it asks for, of those the first whose key it can
    /// check; without such a one the first of all, unless strict.
    pub(super) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let found = name.map_or(&[][..], |name| self.names.find(name));
        let usable = |number: &&usize| self.all[**number].key.key.choose_scheme(schemes).is_some();
        match found.iter().find(usable).or(found.first()) {
            Some(&number) => Some(Arc::clone(&self.all[number].key)),
            None if self.strict => None,
            None => {
                let first = self.all.iter().find(|one| one.key.key.choose_scheme(schemes).is_some());
                first.or(self.all.first()).map(|certificate| Arc::clone(&certificate.key))
            }
        }
    }

    /// Whether two names get different certificates; names that no certificate has get the first one.
    pub(super) fn differ(&self, one: Option<&str>, other: &str) -> bool {
        let number = |name: &str| self.names.find(name).first().copied().unwrap_or_default();
        one.map_or(0, number) != number(other)
    }
}

impl Certificate {
    fn read(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let parts = pem::read(file)?;
        let (key, more) = {
            let mut keys = parts.keys.into_iter();
            (keys.next(), keys.next())
        };
        let key = key.ok_or_else(|| format!("{shown} has no private key"))?;
        if more.is_some() {
            return Err(format!("{shown} has more than one private key: use a file for each"));
        }
        if parts.certificates.is_empty() {
            return Err(format!("{shown} has no certificate"));
        }
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| format!("{shown}: its private key cannot be used: {error}"))?;
        let chain = parts.certificates;
        let is_of_key = |certificate: &CertificateDer<'static>| {
            CertifiedKey::new(vec![certificate.clone()], Arc::clone(&key)).keys_match().is_ok()
        };
        let leaf = chain
            .iter()
            .position(is_of_key)
            .ok_or_else(|| format!("{shown}: its private key belongs to none of its certificates"))?;
        let read =
            der::read(&chain[leaf]).ok_or_else(|| format!("{shown}: its certificate cannot be read"))?;
        let key = Arc::new(CertifiedKey::new(in_order(chain, leaf), key));
        Ok(Self { file: file.to_owned(), names: read.names, expires: read.expires, key })
    }
}

/// A chain as TLS wants it: the certificate, who issued it, who issued that. What fits nowhere comes last.
fn in_order(mut rest: Vec<CertificateDer<'static>>, leaf: usize) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![rest.remove(leaf)];
    while let Some(issuer) = chain.last().and_then(|last| der::read(last)).map(|last| last.issuer) {
        let next =
            rest.iter().position(|other| der::read(other).is_some_and(|other| other.subject == issuer));
        match next {
            Some(next) => chain.push(rest.remove(next)),
            None => break,
        }
    }
    chain.append(&mut rest);
    chain
}
