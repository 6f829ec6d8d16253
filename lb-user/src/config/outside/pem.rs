//! What must be in a PEM file that is to be served, or trusted.

use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
        pem::{PemObject as _, SectionKind},
    },
    sign::CertifiedKey,
};

/// The certificate that a file is about: the first whose key is in it.
///
/// # Errors
/// Why the file cannot be served.
pub(super) fn serving(pem: &[u8]) -> Result<CertificateDer<'static>, String> {
    if ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"].iter().any(|mark| has(pem, mark)) {
        return Err(
            "its key is encrypted, and nobody is there to give the passphrase; store it without".into()
        );
    }
    let (certificates, keys) = sections(pem)?;
    if certificates.is_empty() {
        return Err(
            "there is no certificate in it; it must have the certificate, its chain and its key".into()
        );
    }
    let [key] = &keys[..] else {
        return Err(match keys.len() {
            0 => "there is no key in it; append the key of the certificate".into(),
            number => format!("there are {number} keys in it; leave the one of the certificate"),
        });
    };
    let key = any_supported_type(key)
        .map_err(|_| "its key is of no kind that TLS here can use; take RSA, ECDSA or Ed25519")?;
    let belongs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], std::sync::Arc::clone(&key)).keys_match().is_ok()
    };
    certificates.into_iter().find(belongs).ok_or_else(|| {
        "its key belongs to none of its certificates; put in the key that the certificate was made for".into()
    })
}

/// All certificates of a file of those that are trusted.
///
/// # Errors
/// Why there are none.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let (certificates, _) = sections(pem)?;
    if certificates.is_empty() {
        return Err("there is no certificate in it; those that may sign belong there, as PEM".into());
    }
    Ok(certificates)
}

type Sections = (Vec<CertificateDer<'static>>, Vec<PrivateKeyDer<'static>>);

fn sections(pem: &[u8]) -> Result<Sections, String> {
    let (mut certificates, mut keys) = (Vec::new(), Vec::new());
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section.map_err(|_| "it is no PEM: a section of it has no proper end or text")? {
            (SectionKind::Certificate, der) => certificates.push(CertificateDer::from(der)),
            (SectionKind::PrivateKey, der) => keys.push(PrivatePkcs8KeyDer::from(der).into()),
            (SectionKind::RsaPrivateKey, der) => keys.push(PrivatePkcs1KeyDer::from(der).into()),
            (SectionKind::EcPrivateKey, der) => keys.push(PrivateSec1KeyDer::from(der).into()),
            _ => {}
        }
    }
    Ok((certificates, keys))
}

fn has(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}
