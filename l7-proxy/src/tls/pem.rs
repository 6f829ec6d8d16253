//! Reads PEM files with a certificate, its chain and its key, in any order (R45).

use std::path::Path;

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
    pem::{PemObject, SectionKind},
};

/// What is in a PEM file.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) keys: Vec<PrivateKeyDer<'static>>,
}

/// Reads a file.
///
/// # Errors
/// What is wrong, with the name of the file.
pub(super) fn read(path: &Path) -> Result<Parts, String> {
    let shown = path.display();
    let text = crate::files::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    parse(&text).map_err(|what| format!("{shown}: {what}"))
}

fn parse(text: &[u8]) -> Result<Parts, String> {
    let has = |part: &[u8]| memchr::memmem::find(text, part).is_some();
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(
            "its key is encrypted, and there is nobody to ask for the passphrase: store it without".into()
        );
    }
    let mut parts = Parts::default();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        match section.map_err(|error| format!("it is no PEM: {error}"))? {
            (SectionKind::Certificate, der) => parts.certificates.push(CertificateDer::from(der)),
            (SectionKind::PrivateKey, der) => parts.keys.push(PrivatePkcs8KeyDer::from(der).into()),
            (SectionKind::RsaPrivateKey, der) => parts.keys.push(PrivatePkcs1KeyDer::from(der).into()),
            (SectionKind::EcPrivateKey, der) => parts.keys.push(PrivateSec1KeyDer::from(der).into()),
            _ => {}
        }
    }
    Ok(parts)
}
